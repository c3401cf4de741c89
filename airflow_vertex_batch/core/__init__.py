"""The engine: pure decisions over frozen values. Imports neither Airflow nor Google (see the contracts in pyproject.toml)."""
