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
#: Far away: the tests move the clocks in Airflow's database when the jobs are waited for.
FAR = timedelta(days=1)


def whole(retries=0, **arguments):
    """Make the one task of a batch."""
    folder = f"gs://{BUCKET}/limits/{{{{ dag.dag_id }}}}"
    common = {"model": MODEL, "rows": ROWS, "prompt": "{{ body }}", "key_column": "id", "retry_delay": 1.0}
    VertexBatchOperator(task_id="batch", poll_interval=2, destination=folder, retries=retries, **common, **arguments)


with DAG("limit_deferred", schedule=None):
    # On a busy machine an attempt may be over before it waits: the next one goes on from there.
    whole(retries=20, execution_timeout=timedelta(seconds=60))

with DAG("limit_from_trigger", schedule=None):
    made = VertexBatchPrepareOperator(task_id="prepare", rows=ROWS, prompt="{{ body }}")
    bought = VertexBatchCreateJobOperator(task_id="create", model=MODEL, manifest=made.output)
    VertexBatchJobSensor(
        task_id="batch", jobs=bought.output, start_from_trigger=True, poll_interval=2, execution_timeout=FAR, retries=0
    )

with DAG("limit_run", schedule=None, dagrun_timeout=FAR):
    whole()

with DAG("limit_run_worker", schedule=None, dagrun_timeout=FAR):
    whole(deferrable=False)

with DAG("refused_cancel", schedule=None):
    whole()
