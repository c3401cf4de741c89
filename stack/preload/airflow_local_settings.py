"""Which modules does the scheduler load for its tasks? Tasks are forked from it; without this, each task would need two
seconds of a processor for the same imports. Airflow imports this module in each of its processes, from ``PYTHONPATH``.
"""

# ruff: noqa: F401, INP001 - loaded for others, and no package

from __future__ import annotations

import sys

if "scheduler" in sys.argv:
    import google.cloud.bigquery
    import google.cloud.storage
    import jsonschema
    import jsonschema_rs
    import pyarrow.parquet

    import airflow_vertex_batch.core.batch
    import airflow_vertex_batch.core.requests.prepare
    import airflow_vertex_batch.gcp.bigquery
    import airflow_vertex_batch.gcp.storage
    import airflow_vertex_batch.gcp.vertex
    import airflow_vertex_batch.hooks
    import airflow_vertex_batch.operators
    import airflow_vertex_batch.sensors
    import airflow_vertex_batch.triggers
