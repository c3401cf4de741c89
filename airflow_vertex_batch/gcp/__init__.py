"""The Google edge: implements the ports of `core.ports`. Only here is `google.*` imported; Airflow never is."""
