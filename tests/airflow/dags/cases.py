"""DAGs for the tests: each shows one thing that the examples do not."""

from __future__ import annotations

import os

from airflow.sdk import DAG, Param, task

from airflow_vertex_batch import (
    VertexBatchCancelJobOperator,
    VertexBatchCreateJobOperator,
    VertexBatchExportOperator,
    VertexBatchJobSensor,
    VertexBatchPrepareOperator,
    vertex_batch,
)

BUCKET = os.environ["VERTEX_BATCH_BUCKET"]
COMMON = {"retries": 1, "retry_delay": 1.0}
MODEL = "gemini-2.5-flash"


def some_rows(count=3):
    """Yield rows that have nothing special."""
    return [{"id": number, "body": f"text {number}"} for number in range(count)]


with DAG("hold", schedule=None, default_args=COMMON):
    vertex_batch(
        "batch",
        model=MODEL,
        rows=some_rows,
        prompt="{{ body }}",
        poll_interval=2,
        destination=f"gs://{BUCKET}/hold",
    )

with DAG("empty_night", schedule=None, default_args=COMMON):
    vertex_batch("batch", model=MODEL, rows=[], on_empty="succeed", destination="bq://demo.support.nothing")

# Nobody says how often a task is tried again.
with DAG("quiet_day", schedule=None):
    vertex_batch("batch", model=MODEL, rows=[], on_empty="skip", destination=f"gs://{BUCKET}/quiet_day")

with DAG("blocking", schedule=None, default_args=COMMON):
    vertex_batch(
        "batch", model=MODEL, rows=some_rows, prompt="{{ body }}", poll_interval=1, deferrable=False,
        destination=f"gs://{BUCKET}/blocking",
    )  # fmt: skip

with DAG("rescheduling", schedule=None, default_args=COMMON):
    vertex_batch(
        "batch", model=MODEL, rows=some_rows, prompt="{{ body }}", poll_interval=3, deferrable=False, mode="reschedule",
        destination=f"gs://{BUCKET}/rescheduling",
    )  # fmt: skip

with DAG("from_trigger", schedule=None, default_args=COMMON):
    vertex_batch(
        "batch", model=MODEL, rows=some_rows, prompt="{{ body }}", poll_interval=2, start_from_trigger=True,
        destination=f"gs://{BUCKET}/from_trigger",
    )  # fmt: skip

with DAG("bad_request", schedule=None, params={"input_uri": Param("", type="string")}, default_args=COMMON):
    wait = VertexBatchJobSensor(
        task_id="wait",
        jobs=VertexBatchCreateJobOperator(task_id="create", model=MODEL, input_uri="{{ params.input_uri }}").output,
        poll_interval=1,
    )
    VertexBatchExportOperator(task_id="export", jobs=wait.output, destination=f"gs://{BUCKET}/bad_request")

with DAG("database_rows", schedule=None, default_args=COMMON):
    vertex_batch(
        "batch", model=MODEL, sql_conn_id="shop", poll_interval=2, key_column="n", columns=["n"],
        sql="SELECT n, 'item ' || n AS item FROM generate_series(1, %(last)s) AS n",
        sql_parameters={"last": "{{ 2 * 1250 }}"}, prompt="What is {{ item }}?", max_requests_per_job=1000,
        destination=f"gs://{BUCKET}/database_rows", file_format="parquet",
    )  # fmt: skip

with DAG("mapped", schedule=None, default_args=COMMON):
    prepare = VertexBatchPrepareOperator.partial(task_id="prepare", prompt="{{ prompt }}").expand(
        rows=[["one", "two"], ["three"], ["four", "five", "six"]]
    )
    create = VertexBatchCreateJobOperator.partial(task_id="create", model=MODEL).expand(manifest=prepare.output)
    wait = VertexBatchJobSensor.partial(task_id="wait", poll_interval=2).expand(jobs=create.output)
    VertexBatchExportOperator.partial(task_id="export", destination=f"gs://{BUCKET}/mapped").expand(jobs=wait.output)

with DAG("from_upstream", schedule=None, default_args=COMMON):

    @task
    def texts() -> list[str]:
        """Return texts that look like templates: they must arrive as they are."""
        return ["plain", "{{ ds }}", "{% raw %}", "{{ var.value.secret }}"]

    vertex_batch("batch", model=MODEL, rows=texts(), poll_interval=2, destination=f"gs://{BUCKET}/from_upstream")

for policy in ("fail", "ask"):
    # Three answers may have 65,536 tokens each: up to 0.25 dollars. It fails, or asks, although it may be tried again.
    with DAG(f"over_budget_{policy}", schedule=None, default_args=COMMON):

        @task
        def weighed(manifest: dict) -> dict:
            """Return the manifest with the weight of its requests."""
            return manifest | {"weight": {"ascii_chars": 18}}

        VertexBatchCreateJobOperator(
            task_id="create",
            model=MODEL,
            manifest=weighed(VertexBatchPrepareOperator(task_id="prepare", rows=some_rows, prompt="{{ body }}").output),
            max_cost_usd=0.1,
            on_over_budget=policy,
        )

with DAG("cancelling", schedule=None, default_args=COMMON):
    made = VertexBatchPrepareOperator(task_id="prepare", rows=some_rows, prompt="{{ body }}")
    bought = VertexBatchCreateJobOperator(task_id="create", model=MODEL, manifest=made.output)
    cancel = VertexBatchCancelJobOperator(task_id="cancel", jobs=bought.output)
    cancel >> VertexBatchJobSensor(task_id="wait", jobs=bought.output, poll_interval=1)
