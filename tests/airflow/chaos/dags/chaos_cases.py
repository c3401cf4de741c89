"""DAGs for the chaos table: one batch in every mode, whose places all carry the name of the case."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from airflow.sdk import DAG

from airflow_vertex_batch import VertexBatchOperator, VertexBatchSweepOperator, vertex_batch

BUCKET = os.environ["VERTEX_BATCH_BUCKET"]
# The run's id, but for backfills, whose runs Airflow names.
CASE = "{{ (dag_run.conf or {}).get('case') or run_id }}"
# Over long ago: only a backfill makes runs.
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
# On a busy machine Airflow takes living tasks for dead, and uses up their retries.
DEFAULTS = {"retries": 30, "retry_delay": 1.0}
BATCH = {
    "model": "gemini-2.5-flash",
    "files": f"gs://{BUCKET}/input/{CASE}.jsonl",
    "prompt": "{{ text }}",
    "key_column": "id",
    "staging_uri": f"gs://{BUCKET}/staging/{CASE}",
    "destination": f"gs://{BUCKET}/landed/{CASE}",
    "partition_date": "2026-11-24",
    "repair_rounds": 1,
    "poll_interval": 1,
    # How long a create call may be under way: the shortest that may be said, so that the table takes minutes.
    "settle_seconds": 30,
}


def a_dag(dag_id, schedule=None, default_args=DEFAULTS, **dates):
    """Return a DAG whose runs do not wait for each other."""
    many = {"max_active_runs": 1_000, "max_active_tasks": 1_000}
    return DAG(dag_id, schedule=schedule, default_args=default_args, **many, **dates)


# The same into a table of a dataset of its own; there is no "-" in a dataset's name.
TO_TABLE = {name: value for name, value in BATCH.items() if name != "destination"} | {
    "destination": "bq://demo.{{ run_id.replace('-', '_') }}.answers",
}


with a_dag("chaos_sync"):
    VertexBatchOperator(task_id="batch", deferrable=False, **BATCH)

with a_dag("chaos_deferrable"):
    VertexBatchOperator(task_id="batch", **BATCH)

with a_dag("chaos_kept"):
    # Its jobs outlive a mark-failed: only a sweep ends them.
    VertexBatchOperator(task_id="batch", cancel_on_kill=False, **BATCH)

with a_dag("chaos_sweep"):
    # 90 s is the least that may be said.
    VertexBatchSweepOperator(task_id="sweep", apply=True, older_than=90, staging_uri="{{ dag_run.conf['staging'] }}")

with a_dag("chaos_from_trigger"):
    vertex_batch("batch", start_from_trigger=True, **BATCH)

with a_dag("chaos_slow_connection"):
    VertexBatchOperator(task_id="batch", gcp_conn_id="slow_google", **BATCH)

with a_dag("chaos_to_table"):
    VertexBatchOperator(task_id="batch", **TO_TABLE)

with a_dag("chaos_mapped"):
    # Two parts of the same rows, each with a log, an output and an answers file of its own.
    VertexBatchOperator.partial(task_id="batch", **BATCH).expand(max_requests_per_job=[100, 200])

with a_dag("chaos_daily", schedule="@daily", start_date=FIRST_DAY, end_date=FIRST_DAY):
    VertexBatchOperator(task_id="batch", **BATCH)

# What a clear means is the user's choice.
NEW, REPAIR = BATCH | {"on_clear": "new"}, BATCH | {"on_clear": "repair", "repair_rounds": 0}

with a_dag("chaos_new"):
    VertexBatchOperator(task_id="batch", **NEW)

with a_dag("chaos_new_group"):
    vertex_batch("batch", start_from_trigger=True, **NEW)

with a_dag("chaos_new_mapped"):
    VertexBatchOperator.partial(task_id="batch", **NEW).expand(max_requests_per_job=[100, 200])

with a_dag("chaos_new_daily", schedule="@daily", start_date=FIRST_DAY, end_date=FIRST_DAY):
    VertexBatchOperator(task_id="batch", **NEW)

with a_dag("chaos_repair"):
    VertexBatchOperator(task_id="batch", **REPAIR)

with a_dag("chaos_repair_group"):
    vertex_batch("batch", start_from_trigger=True, **REPAIR)

# Tasks that run although the first one gave them nothing. What has landed before must stay, even where a landing
# replaces the whole day.
NOTHING = (("", BATCH), ("_to_table", TO_TABLE | {"replace_partition": True}))

for place, batch in NOTHING:
    with a_dag(f"chaos_all_done{place}"):
        vertex_batch("batch", start_from_trigger=True, task_args={"trigger_rule": "all_done"}, **batch)

    with a_dag(f"chaos_skip{place}") as skipping:
        vertex_batch("batch", start_from_trigger=True, on_empty="skip", **batch)
    skipping.get_task("batch.export").trigger_rule = "none_failed"
