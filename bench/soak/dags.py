"""The DAGs of the soak: a batch of 25 jobs in each way of waiting. Copied into the folder of a running Airflow."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG

from airflow_vertex_batch import VertexBatchOperator, vertex_batch

#: A run's jobs, and the rows of each, as `bench.soak.load` says: a DAG file can import nothing from there.
JOBS, ROWS_OF_A_JOB = 25, 8
BATCH: dict[str, Any] = {
    "model": "gemini-2.5-flash",
    "prompt": "{{ body }}",
    "key_column": "id",
    "max_requests_per_job": ROWS_OF_A_JOB,
    "gcp_conn_id": "soak",
    "project_id": "demo",
    "repair_rounds": 2,
    "settle_seconds": 60,
    # A bucket for each run: the local Cloud Storage looks at every object of a bucket to list a few.
    "staging_uri": "gs://{{ run_id }}/vertex-batch",
    "destination": f"gs://{os.environ['VERTEX_BATCH_BUCKET']}/soak/{{{{ run_id }}}}",
}
TASK: dict[str, Any] = {"retries": 8, "retry_delay": 3.0}
MANY: dict[str, Any] = {"max_active_runs": 200, "max_active_tasks": 200}


def rows(run_id: str) -> list[dict[str, str]]:
    """Return rows that no other run has."""
    return [{"id": f"{run_id}-{number:03}", "body": f"{run_id} {number}"} for number in range(JOBS * ROWS_OF_A_JOB)]


with DAG("soak_one_task", schedule=None, **MANY):
    VertexBatchOperator(task_id="batch", rows=rows, **BATCH, **TASK)

with DAG("soak_steps", schedule=None, **MANY):
    vertex_batch("batch", rows=rows, start_from_trigger=True, task_args=TASK, **BATCH)

with DAG("soak_blocking", schedule=None, **MANY):
    VertexBatchOperator(task_id="batch", rows=rows, deferrable=False, **BATCH, **TASK)
