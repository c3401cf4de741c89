"""A day of hourly runs, in a real Airflow: the day's table and files have the rows of every hour."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, time, timedelta

import pytest

from tests.airflow.conftest import days_ago

HOURLY = "hourly"
#: Older than what other tests backfill.
DAY = 40
HOURS = 24


@pytest.fixture(scope="module")
def day(stack):
    """A day whose 24 runs have ended well, each with a batch that lands in files and one that lands in a table."""
    client, day = stack.airflow.client, days_ago(DAY)
    client.wait_for_dag(HOURLY)
    # A DAG without a start date and `catchup` begins no run of its own while it is paused; a backfill begins all.
    begin = datetime.combine(day, time(), UTC)
    backfill = client.backfill(HOURLY, begin, begin + timedelta(hours=HOURS - 1), max_active_runs=HOURS)
    client.unpause(HOURLY)
    client.wait_for_backfill(backfill)
    runs = [run for run in client.runs(HOURLY) if run["run_type"] == "backfill"]
    assert Counter(run["state"] for run in runs) == {"success": HOURS}
    return day


def expected(day):
    """The keys that must be there, each once."""
    return sorted([f"T-{day}T{hour:02}-{number}" for hour in range(HOURS) for number in range(3)] + ["every-hour"])


def test_the_table_has_each_row_of_every_hour_once(cloud, day):
    rows = cloud.query(f"SELECT row_key FROM `demo.support.hourly` WHERE partition_date = '{day}'")
    assert sorted(row["row_key"] for row in rows) == expected(day)


def test_the_files_have_each_row_of_every_hour_once(cloud, day):
    files = cloud.objects(f"hourly/answers/partition_date={day}/")
    rows = [json.loads(line) for data in files.values() for line in data.splitlines()]
    assert sorted(row["row_key"] for row in rows) == expected(day)
