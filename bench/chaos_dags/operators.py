"""DAGs for the comparison: the same batch by our operator and by the Google provider's two, waiting in a worker and in
the triggerer.
"""

from __future__ import annotations

import os

from airflow.providers.google.cloud.operators.gen_ai import GenAIGeminiCreateBatchJobOperator
from airflow.providers.google.cloud.operators.vertex_ai.batch_prediction_job import CreateBatchPredictionJobOperator
from airflow.sdk import DAG

from airflow_vertex_batch import VertexBatchOperator

BUCKET = os.environ["VERTEX_BATCH_BUCKET"]
PROJECT = os.environ["VERTEX_BATCH_PROJECT"]
INPUT, FOLDER = f"gs://{BUCKET}/input/{{{{ run_id }}}}.jsonl", f"gs://{BUCKET}/staging/{{{{ run_id }}}}"
MODEL, REGION = "gemini-2.5-flash", "us-central1"


def a_dag(name: str, *, deferrable: bool) -> DAG:
    """Return a DAG whose runs do not wait for each other."""
    mode = "deferrable" if deferrable else "sync"
    retries = {"retries": 3, "retry_delay": 1.0}
    return DAG(f"{name}_{mode}", schedule=None, default_args=retries, max_active_runs=1_000, max_active_tasks=1_000)


for deferrable in (False, True):
    with a_dag("ours", deferrable=deferrable):
        VertexBatchOperator(
            task_id="batch", model=MODEL, requests=INPUT, staging_uri=FOLDER, poll_interval=1, settle_seconds=30,
            destination=f"gs://{BUCKET}/landed/{{{{ run_id }}}}", deferrable=deferrable,
        )  # fmt: skip

    with a_dag("vertex_ai", deferrable=deferrable):
        CreateBatchPredictionJobOperator(
            task_id="batch", project_id=PROJECT, region=REGION, job_display_name="{{ run_id }}", poll_interval=1,
            model_name=f"publishers/google/models/{MODEL}", gcs_source=INPUT, gcs_destination_prefix=f"{FOLDER}/output",
            deferrable=deferrable,
        )  # fmt: skip

    with a_dag("gen_ai", deferrable=deferrable):
        GenAIGeminiCreateBatchJobOperator(
            task_id="batch", project_id=PROJECT, location=REGION, model=MODEL, input_source=INPUT, polling_interval=1,
            # It only knows Google's other API, where jobs belong to a key.
            gemini_api_key="none", wait_until_complete=True, deferrable=deferrable,
            create_batch_job_config={"display_name": "{{ run_id }}", "dest": f"{FOLDER}/output"},
        )  # fmt: skip
