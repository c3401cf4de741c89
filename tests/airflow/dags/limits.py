"""DAGs whose attempts or runs are ended by Airflow while their jobs are in the queue."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_vertex_batch import (
    VertexBatchCreateJobOperator,
    VertexBatchJobSensor,
    VertexBatchOperator,
    VertexBatchPrepareOperator,
)

BUCKET = os.environ["VERTEX_BATCH_BUCKET"]
MODEL = "gemini-2.5-flash"
ROWS = [{"id": number, "body": f"text {number}"} for number in range(3)]
#: Long enough that a busy machine has bought the job, and waits for it.
LIMITED = {"execution_timeout": timedelta(seconds=60)}


def whole(**arguments):
    """Make the one task of a batch."""
    folder = f"gs://{BUCKET}/limits/{{{{ dag.dag_id }}}}"
    common = {"model": MODEL, "rows": ROWS, "prompt": "{{ body }}", "key_column": "id", "retries": 0}
    VertexBatchOperator(task_id="batch", poll_interval=2, destination_uri=folder, **common, **arguments)


with DAG("limit_deferred", schedule=None):
    whole(**LIMITED)

with DAG("limit_worker", schedule=None):
    whole(deferrable=False, **LIMITED)

with DAG("limit_kept", schedule=None):
    whole(on_timeout="keep", **LIMITED)

with DAG("limit_from_trigger", schedule=None):
    made = VertexBatchPrepareOperator(task_id="prepare", rows=ROWS, prompt="{{ body }}")
    bought = VertexBatchCreateJobOperator(task_id="create", model=MODEL, manifest=made.output)
    VertexBatchJobSensor(
        task_id="batch", jobs=bought.output, start_from_trigger=True, poll_interval=2, retries=0, **LIMITED
    )

with DAG("limit_run", schedule=None, dagrun_timeout=timedelta(seconds=120)):
    whole()

with DAG("limit_run_worker", schedule=None, dagrun_timeout=timedelta(seconds=120)):
    whole(deferrable=False)

with DAG("refused_cancel", schedule=None):
    whole()
