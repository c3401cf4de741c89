"""A DAG file as a type checker reads it: what is right passes, what is wrong is found on its line.

Read by mypy and pyright (`tests/test_parameters.py`): a line that is wrong and is not found fails the test.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_vertex_batch import (
    VertexBatchCreateJobOperator,
    VertexBatchExportOperator,
    VertexBatchJobSensor,
    VertexBatchOperator,
    VertexBatchPrepareOperator,
    VertexBatchRepairOperator,
    vertex_batch,
)


@task
def rows() -> list[dict[str, str]]:
    """Return the rows of a night."""
    return [{"id": "a", "text": "x"}]


with DAG("right", schedule=None):
    vertex_batch(
        model="gemini-3.8-flash",
        sql="SELECT * FROM tickets",
        prompt="{{ text }}",
        key_column="id",
        destination="bq://p.d.answers",
        repair_rounds=2,
        repair_actions={"truncated": "more_tokens"},
        job_timeout=timedelta(hours=30),
        on_clear="repair",
        preflight=True,
        allowed_failures=["model"],
        settle_seconds=timedelta(minutes=2),
        dead_letters="bq://p.d.bad",
        task_args={"retries": 3, "pool": "vertex"},
        step_args={"wait": {"pool": "long"}, "export": {"retries": 5}},
    )
    VertexBatchOperator(
        task_id="all", model="gemini-3.8-flash", rows=rows(), prompt="{{ text }}", destination="gs://b/a", retries=5
    )
    prepare = VertexBatchPrepareOperator(task_id="prepare", files="gs://b/*.csv", prompt="{{ text }}")
    create = VertexBatchCreateJobOperator(task_id="create", manifest=prepare.output, model="gemini-3.8-flash")
    wait = VertexBatchJobSensor(task_id="wait", jobs=create.output, mode="reschedule", deferrable=False)
    VertexBatchRepairOperator(
        task_id="repair", jobs=wait.output, manifest=prepare.output, model="gemini-3.8-flash", repair_by="resume"
    )
    VertexBatchExportOperator(task_id="export", jobs=wait.output, destination="gs://b/a", file_format="parquet")

with DAG("wrong", schedule=None):
    vertex_batch(model="gemini-3.8-flash", promt="{{ text }}")  # type: ignore[call-arg]
    vertex_batch(model="gemini-3.8-flash", destination=3)  # type: ignore[arg-type]
    vertex_batch(model="gemini-3.8-flash", on_clear="never")  # type: ignore[arg-type]
    vertex_batch(model="gemini-3.8-flash", pool="vertex")  # type: ignore[call-arg]
    vertex_batch(model="gemini-3.8-flash", task_args={"retires": 3})  # type: ignore[arg-type]
    vertex_batch(model="gemini-3.8-flash", step_args={"waits": {}})  # type: ignore[arg-type]
    vertex_batch(model="gemini-3.8-flash", step_args={"wait": {"poll_interval": 3}})  # type: ignore[arg-type]
    vertex_batch(model="gemini-3.8-flash", preflight="yes")  # type: ignore[arg-type]
    vertex_batch(prompt="{{ text }}")  # type: ignore[call-arg]
    VertexBatchOperator(task_id="a", repair_actions={"blocked": "ask"})  # type: ignore[dict-item]
    VertexBatchOperator(model="gemini-3.8-flash")  # type: ignore[call-arg]
    VertexBatchOperator(task_id="a", jobs=[])  # type: ignore[call-arg]
    VertexBatchPrepareOperator(task_id="a", on_empty="ignore")  # type: ignore[arg-type]
    VertexBatchCreateJobOperator(task_id="a", repair_rounds=1)  # type: ignore[call-arg]
    VertexBatchJobSensor(task_id="a")  # type: ignore[call-arg]
    VertexBatchJobSensor(task_id="a", jobs=[], poke_interval=30)  # type: ignore[call-arg]
    VertexBatchJobSensor(task_id="a", jobs=[], mode="deferred")  # type: ignore[arg-type]
    VertexBatchJobSensor(task_id="a", jobs=[], job_timeout="97h")  # type: ignore[arg-type]
    VertexBatchRepairOperator(task_id="a", jobs=[], manifest=None, repair_by="hand")  # type: ignore[arg-type]
    VertexBatchExportOperator(task_id="a", jobs=[], file_format="csv")  # type: ignore[arg-type]
