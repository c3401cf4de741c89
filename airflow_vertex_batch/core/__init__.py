"""The engine: pure functions over frozen values. It imports neither Airflow nor Google (contracts in
pyproject.toml).
"""
