"""DAGs for the chaos table: one batch in every mode, whose places all carry the name of the case, which is the run's."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from airflow.sdk import DAG

from airflow_vertex_batch import VertexBatchOperator, vertex_batch

BUCKET = os.environ["VERTEX_BATCH_BUCKET"]
DATASET = os.environ.get("CHAOS_DATASET", "")
DEFAULTS = {"retries": 3, "retry_delay": 1.0}
BATCH = {
    "model": "gemini-2.5-flash",
    "files": f"gs://{BUCKET}/input/{{{{ run_id }}}}.jsonl",
    "prompt": "{{ text }}",
    "key_column": "id",
    "staging_uri": f"gs://{BUCKET}/staging/{{{{ run_id }}}}",
    "destination_uri": f"gs://{BUCKET}/landed/{{{{ run_id }}}}",
    "partition_date": "2026-11-24",
    "repair_rounds": 1,
    "poll_interval": 1,
    # How long a create call may be under way: the shortest that may be said, so that the table takes minutes.
    "settle_seconds": 30,
}


def a_dag(dag_id, **arguments):
    """Return a DAG whose runs do not wait for each other."""
    arguments = {"schedule": None, "max_active_runs": 1_000, "max_active_tasks": 1_000} | arguments
    return DAG(dag_id, default_args=DEFAULTS, **arguments)


with a_dag("chaos_sync"):
    VertexBatchOperator(task_id="batch", deferrable=False, **BATCH)

with a_dag("chaos_deferrable"):
    VertexBatchOperator(task_id="batch", **BATCH)

with a_dag("chaos_from_trigger"):
    vertex_batch("batch", start_from_trigger=True, **BATCH)

with a_dag("chaos_mapped"):
    # Two parts of the same rows, each with a ledger, an output and an answers file of its own.
    VertexBatchOperator.partial(task_id="batch", **BATCH).expand(max_requests_per_job=[100, 200])
