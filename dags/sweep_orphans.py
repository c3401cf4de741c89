"""Daily: which of our batch jobs are not owned by any task any more, and what do they cost?

Jobs are left behind when a worker dies at the wrong moment, when a run fails for good while its job is queued, or when
a log is lost. The daily run only says what it found, in its log and its XCom. Trigger it by hand with ``apply`` to
adopt, cancel and harvest. The rows of finished jobs that no task will land go below ``swept/``, with a folder for each
job.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_vertex_batch import VertexBatchSweepOperator

BUCKET = os.environ.get("VERTEX_BATCH_BUCKET", "my-bucket")

with DAG(
    "sweep_orphans",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={"apply": Param(False, type="boolean", description="Do it; without this, only say what would be done")},
    tags=["vertex-batch", "example"],
    doc_md=__doc__,
) as dag:
    VertexBatchSweepOperator(
        task_id="sweep",
        apply="{{ params.apply }}",
        locations=["us-central1", "global"],
        # The tasks' own staging folder: their logs are in it.
        staging_uri=f"gs://{BUCKET}/vertex-batch",
        harvest_uri=f"gs://{BUCKET}/swept",
        # Time for a person to clear a failed run in the morning, and to attach to what it has paid for.
        older_than=timedelta(hours=12),
        retries=2,
    )
