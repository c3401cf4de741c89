"""A whole batch in one task, made from a function: each text that it yields goes to the model as one request.

The task prepares, creates the job, waits in the triggerer, sends rows without a good answer again (twice at the most),
and lands. It refuses to spend more than a dollar. It is mapped over languages: each language has its own job and its
own rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

from airflow.sdk import DAG, task

BUCKET = os.environ.get("VERTEX_BATCH_BUCKET", "my-bucket")
PROVERBS = ("The early bird catches the worm.", "Still waters run deep.", "Many hands make light work.")

with DAG(
    "one_task",
    schedule="@weekly",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["vertex-batch", "example"],
    doc_md=__doc__,
) as dag:

    @task.vertex_batch(
        model="gemini-3.8-flash",
        location="global",
        staging_uri=f"gs://{BUCKET}/vertex-batch",
        prompt="Translate into {{ language }}: {{ proverb }}",
        columns=["language", "proverb"],
        generation_config={"maxOutputTokens": 100},
        destination=f"gs://{BUCKET}/answers/one_task",
        deduplicate=True,
        repair_rounds=2,
        max_cost_usd=1.0,
        poll_interval=float(os.environ.get("VERTEX_BATCH_POLL_INTERVAL", "60")),
        retries=2,
    )
    def translate(language: str) -> Iterator[dict[str, str]]:
        """Yield one row for each proverb."""
        for proverb in PROVERBS:
            yield {"language": language, "proverb": proverb}

    translate.expand(language=["Swahili", "Icelandic", "Vietnamese"])
