"""Large rows: as many are held at once as fit, whatever the source, and however large the rows before were."""

from __future__ import annotations

import csv
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.ports import LocalStore
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.requests.request import RequestTemplate
from airflow_vertex_batch.core.requests.sources import DbApiQuery, Files, Rows
from tests.fakes import MemoryWarehouse

LARGE, COUNT, SMALL = 4_000_000, 24, 3_000
PLAN = PreparePlan(template=RequestTemplate(prompt="{{ body }}"), key_column="id")


def bodies():
    """Small texts, then large ones: what was learnt of the first is of no use for the others."""
    for number in range(SMALL):
        yield f"r{number}", "x" * 100
    for number in range(COUNT):
        yield f"l{number}", "x" * LARGE


def from_python(_folder):
    return Rows({"id": key, "body": body} for key, body in bodies())


def from_csv(folder):
    with (folder / "rows.csv").open("w", newline="") as file:
        written = csv.writer(file)
        written.writerow(("id", "body"))
        written.writerows(bodies())
    return Files((str(folder / "rows.csv"),))


def from_parquet(folder):
    """One group of rows, whose texts are written once."""
    keys, texts = zip(*(row for row in bodies() if row[0].startswith("l")), strict=True)
    pq.write_table(pa.table({"id": keys, "body": texts}), folder / "rows.parquet")
    return Files((str(folder / "rows.parquet"),))


class _Cursor:
    """A cursor of the server's: it holds what was asked for, and no more."""

    description = (("id",), ("body",))

    def __init__(self):
        self._rows = bodies()

    def execute(self, _sql):
        pass

    def fetchmany(self, size):
        return [row for _, row in zip(range(size), self._rows, strict=False)]

    def close(self):
        pass


class _Connection:
    def cursor(self):
        return _Cursor()

    def close(self):
        pass


def from_sql(_folder):
    """Large rows alone: a page that was asked for when rows were small is held whole."""
    connection = _Connection()
    large = [row for row in bodies() if row[0].startswith("l")]
    cursor = _Cursor()
    cursor._rows = iter(large)
    connection.cursor = lambda: cursor
    return DbApiQuery(lambda: connection, "SELECT")


@pytest.mark.parametrize("source", [from_python, from_csv, from_sql, from_parquet])
def test_rows_of_megabytes_are_held_one_or_two_at_a_time(source, tmp_path):
    """Of each there are some copies on its way. Chunks by the number of rows made it a hundred: 40 rows of 20 MB cost
    4.3 GB."""
    made, store = source(tmp_path), LocalStore()
    tracemalloc.start()
    try:
        manifest = prepare(made.rows(store, MemoryWarehouse()), PLAN, store, Uri.parse(str(tmp_path / "out")), "one")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert manifest.request_count in {COUNT, COUNT + SMALL}
    assert peak < 16 * LARGE, f"{peak / LARGE:.1f} rows"
