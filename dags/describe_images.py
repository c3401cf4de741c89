"""Media: every image under a prefix described by Gemini, the answers in a Parquet file.

Each object is one request with the image as a ``fileData`` part; the model reads it from Cloud Storage, nothing is
downloaded.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG, Param

from airflow_vertex_batch import vertex_batch

BUCKET = os.environ.get("VERTEX_BATCH_BUCKET", "my-bucket")

with DAG(
    "describe_images",
    schedule=None,
    params={"prefix": Param(f"gs://{BUCKET}/images/", type="string", description="Prefix or glob of the images")},
    tags=["vertex-batch", "example"],
    doc_md=__doc__,
) as dag:
    vertex_batch(
        "describe",
        model="gemini-3.8-flash",
        location="global",
        staging_uri=f"gs://{BUCKET}/vertex-batch",
        objects="{{ params.prefix }}",
        prompt="Describe this image in one sentence for somebody who cannot see it. Its file is called {{ name }}.",
        columns=["uri", "mime_type"],
        generation_config={"maxOutputTokens": 120},
        on_rejected_row="dead_letter",
        destination=f"gs://{BUCKET}/answers/describe_images",
        file_format="parquet",
        poll_interval=float(os.environ.get("VERTEX_BATCH_POLL_INTERVAL", "60")),
        task_args={"retries": 2},
    )
