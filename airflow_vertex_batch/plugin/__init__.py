"""What does this package add to the Airflow UI and to templates? Every Airflow process imports this module, so it
imports little.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_vertex_batch.macros import partition_date


class VertexBatchPlugin(AirflowPlugin):
    """Registers ``macros.vertex_batch.partition_date``."""

    name = "vertex_batch"
    macros = [partition_date]  # noqa: RUF012 - Airflow's class attribute
