"""The engine: pure decisions over frozen values. Imports neither Airflow nor Google (contracts in pyproject.toml)."""
