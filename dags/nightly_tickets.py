"""Nightly: yesterday's support tickets from BigQuery → Gemini with a response schema → one BigQuery table, partitioned
by day.

Each run reads the tickets of its own day. It may begin on schedule, by hand, or as part of a backfill (``airflow
backfill create --dag-id nightly_tickets --from-date … --to-date …``). If a day runs twice, its rows are in the table
once.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Literal

from airflow.sdk import DAG
from pydantic import BaseModel, Field

from airflow_vertex_batch import vertex_batch

try:
    from airflow.sdk import CronDataIntervalTimetable
except ImportError:  # Airflow 3.1
    from airflow.timetables.interval import CronDataIntervalTimetable

PROJECT = os.environ.get("VERTEX_BATCH_PROJECT", "my-project")
BUCKET = os.environ.get("VERTEX_BATCH_BUCKET", "my-bucket")


class Triage(BaseModel):
    """What we want to know of every ticket."""

    language: Literal["en", "de", "fr", "es", "it", "pt", "ja"]
    mood: Literal["angry", "worried", "neutral", "happy"]
    topic: Literal["billing", "delivery", "login", "bug", "praise", "other"]
    summary: str = Field(max_length=60)


with DAG(
    "nightly_tickets",
    # The run of a day begins when that day is over, and its data interval is that day.
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=3,
    tags=["vertex-batch", "example"],
    doc_md=__doc__,
) as dag:
    vertex_batch(
        "triage",
        model="gemini-3.8-flash",
        location="global",
        staging_uri=f"gs://{BUCKET}/vertex-batch",
        sql="SELECT ticket_id, subject, body FROM support.tickets WHERE created_on = DATE(@day) ORDER BY ticket_id",
        sql_parameters={"day": "{{ macros.vertex_batch.partition_date() }}"},
        key_column="ticket_id",
        columns=["ticket_id", "subject"],
        system_instruction="You sort support tickets. Answer in JSON. The summary is one short English sentence.",
        prompt="Subject: {{ subject }}\n\n{{ body }}",
        response_schema=Triage,
        generation_config={"temperature": 0, "maxOutputTokens": 200},
        destination=f"bq://{PROJECT}.support.triage",
        # Rows without a good answer are sent again, as a smaller job, at most twice.
        repair_rounds=2,
        # The batch is refused, before anything is paid, if it may cost more than this (US dollars).
        max_cost_usd=5.0,
        labels={"team": "support"},
        poll_interval=float(os.environ.get("VERTEX_BATCH_POLL_INTERVAL", "60")),
        task_args={"retries": 2},
    )
