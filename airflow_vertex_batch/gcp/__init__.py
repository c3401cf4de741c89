"""The Google edge: implements the ports of `core.domain.ports`. Only here is `google.*` imported; Airflow never is."""
