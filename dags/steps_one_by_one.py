"""The four steps as separate tasks, without the TaskGroup: for a DAG that does something else between the steps.

Rows come from a Python function. If the export fails, nothing is cancelled or lost: clear the export, and it lands the
rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

from airflow.sdk import DAG, task

from airflow_vertex_batch import (
    VertexBatchCreateJobOperator,
    VertexBatchExportOperator,
    VertexBatchJobSensor,
    VertexBatchPrepareOperator,
)

BUCKET = os.environ.get("VERTEX_BATCH_BUCKET", "my-bucket")


def greetings() -> Iterator[dict[str, str]]:
    """Yield one row for each person to greet. A generator: rows are never all in memory."""
    for name, language in [("Amina", "Swahili"), ("Björk", "Icelandic"), ("Chiara", "Italian"), ("Dũng", "Vietnamese")]:
        yield {"name": name, "language": language}


with DAG(
    "steps_one_by_one",
    schedule="@weekly",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"location": "global", "staging_uri": f"gs://{BUCKET}/vertex-batch", "retries": 2},
    tags=["vertex-batch", "example"],
    doc_md=__doc__,
) as dag:
    prepare = VertexBatchPrepareOperator(
        task_id="prepare",
        rows=greetings,
        prompt="Greet {{ name }} in {{ language }}, in one short sentence.",
        key_column="name",
        columns=["name", "language"],
    )
    create = VertexBatchCreateJobOperator(task_id="create", model="gemini-3.8-flash", manifest=prepare.output)
    wait = VertexBatchJobSensor(
        task_id="wait", jobs=create.output, poll_interval=float(os.environ.get("VERTEX_BATCH_POLL_INTERVAL", "60"))
    )
    export = VertexBatchExportOperator(
        task_id="export",
        jobs=wait.output,
        manifest=prepare.output,
        destination=f"gs://{BUCKET}/answers/steps_one_by_one",
    )

    @task
    def tell(report: dict) -> str:
        """Say how the batch ended."""
        return f"{report['statuses']} for ${report['cost_usd']}"

    tell(export.output)
