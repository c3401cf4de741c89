"""The same hostile lines on their way into a BigQuery table: one of them must not make the load refuse all rows."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.answers.collect import Collector
from airflow_vertex_batch.core.landing.sink import land
from airflow_vertex_batch.core.landing.table import TableSink
from tests.core.test_hostile import GOOD, KEYS, LINES, PLAN, WELL, hostile_job

pytestmark = pytest.mark.bigquery


@pytest.mark.parametrize("kind", ["files", "tables"])
def test_a_thousand_hostile_lines_are_a_thousand_rows_of_a_table(kind, warehouse, gcs, bucket, table, bigquery_client):
    store, output, batch = hostile_job(kind, 1)
    collector = Collector(store, output)
    sink = TableSink(gcs, warehouse, table, table.sibling("dead"), PLAN, bucket / "staging")
    report = land(collector.rows(batch), sink, PLAN, expected=lambda: collector.expected_count)
    found = [
        (row["row_key"], row["text"])
        for name in (table, table.sibling("dead"))
        for row in bigquery_client.query(f"SELECT row_key, text FROM `{name}`").result()
    ]
    assert sorted(key for key, _ in found) == sorted([*KEYS, *WELL])
    assert report.request_count == LINES + GOOD
    assert {text for key, text in found if key in WELL} == {f"answer {key}" for key in WELL}
