"""The Google edge: implements the ports of `core.ports`. The only place that imports `google.*`; never imports Airflow."""
