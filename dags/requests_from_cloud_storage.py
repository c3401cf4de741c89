"""Ready-made requests: a JSONL file in Cloud Storage, as in Google's "batch from Cloud Storage" guide, answered into a
folder.

Run it by hand. You write the file, and it is sent as it is. Each line may ask about text, images, video, audio or PDF.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG, Param

from airflow_vertex_batch import VertexBatchCreateJobOperator, VertexBatchExportOperator, VertexBatchJobSensor

BUCKET = os.environ.get("VERTEX_BATCH_BUCKET", "my-bucket")

with DAG(
    "requests_from_cloud_storage",
    schedule=None,
    params={
        "input_uri": Param(
            f"gs://{BUCKET}/requests/animals.jsonl", type="string", description="Request JSONL, or a glob"
        ),
        "model": Param("gemini-3.8-flash", type="string"),
    },
    default_args={"location": "global", "staging_uri": f"gs://{BUCKET}/vertex-batch", "retries": 2},
    tags=["vertex-batch", "example"],
    doc_md=__doc__,
) as dag:
    create = VertexBatchCreateJobOperator(
        task_id="create", model="{{ params.model }}", input_uri="{{ params.input_uri }}"
    )
    wait = VertexBatchJobSensor(
        task_id="wait", jobs=create.output, poll_interval=float(os.environ.get("VERTEX_BATCH_POLL_INTERVAL", "60"))
    )
    VertexBatchExportOperator(
        task_id="export", jobs=wait.output, destination=f"gs://{BUCKET}/answers/requests_from_cloud_storage"
    )
