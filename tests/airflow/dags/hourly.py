"""A batch each hour: the runs of a day land in one partition, of a table and of files."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_vertex_batch import VertexBatchOperator

try:
    from airflow.sdk import CronDataIntervalTimetable
except ImportError:  # Airflow 3.1
    from airflow.timetables.interval import CronDataIntervalTimetable

BUCKET = os.environ["VERTEX_BATCH_BUCKET"]


def tickets_of_the_hour(data_interval_start):
    """Yield three tickets that only this hour has, and one that every hour asks about."""
    hour = f"{data_interval_start:%Y-%m-%dT%H}"
    return [
        *({"ticket_id": f"T-{hour}-{number}", "body": f"{hour}, {number}"} for number in range(3)),
        {"ticket_id": "every-hour", "body": hour},
    ]


with DAG(
    "hourly", schedule=CronDataIntervalTimetable("@hourly", timezone="UTC"), max_active_runs=8,
    default_args={"retries": 1, "retry_delay": 1.0},
):  # fmt: skip
    for place, destination in {
        "files": {"destination": f"gs://{BUCKET}/hourly"},
        "table": {"destination": "bq://demo.support.hourly"},
    }.items():
        VertexBatchOperator(
            task_id=place, model="gemini-2.5-flash", rows=tickets_of_the_hour, prompt="{{ body }}",
            key_column="ticket_id", deferrable=False, poll_interval=2, **destination,
        )  # fmt: skip
