"""Whatever a line of an output holds, it costs that line at most: each request is one row, and nothing raises."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_vertex_batch.core.answers.collect import Batch, Collector
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.domain.row import RowStatus
from airflow_vertex_batch.core.landing.files import FileSink
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.landing.sink import land
from tests.builders import a_job, jsonl
from tests.core.collecting import INPUT, OUTPUT, answered, asked
from tests.fakes import MemoryStore, MemoryWarehouse
from tests.hostile import hostile_lines, hostile_rows

LINES, GOOD = 1_000, 100
KEYS = [f"r{number}" for number in range(LINES)]
WELL = [f"w{number}" for number in range(GOOD)]
PLAN = LandPlan(batch_id="nightly", partition_date="2026-11-22", run_id="run-1")


def _mixed(hostile: list[Any], good: list[Any]) -> list[Any]:
    """Put a good one behind every ten hostile ones, and begin with one."""
    every = len(hostile) // len(good)
    return [
        item
        for index, one in enumerate(good)
        for item in (one, *hostile[index * every : (index + 1) * every])
    ]  # fmt: skip


def hostile_job(kind: str, seed: int) -> tuple[MemoryStore, MemoryWarehouse, Batch]:
    """Return a job whose output, files or a table, is hostile but for one line in eleven."""
    store = MemoryStore(**{INPUT: jsonl(*map(asked, [*KEYS, *WELL]))})
    warehouse = MemoryWarehouse()
    good = [answered(key) for key in WELL]
    if kind == "files":
        mixed = _mixed(hostile_lines(seed, KEYS), [jsonl(line) for line in good])
        store.objects[f"{OUTPUT}/predictions.jsonl"] = b"".join(mixed)
        return store, warehouse, Batch(a_job(output_uri=OUTPUT), (INPUT,))
    rows = [line | {"request": json.dumps(line["request"])} for line in good]
    warehouse.put("p.d.out", _mixed(hostile_rows(seed, KEYS), rows))
    return store, warehouse, Batch(a_job(JobState.SUCCEEDED, output_uri="bq://p.d.out"), (INPUT,))


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("kind", ["files", "tables"])
@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_a_thousand_hostile_lines_are_a_thousand_rows(kind, file_format, seed, folder, local):
    store, warehouse, batch = hostile_job(kind, seed)
    # The second time, they are merged with those of the first.
    for _ in range(2):
        collector = Collector(store, warehouse)
        sink = FileSink(local, folder, PLAN, file_format)
        report = land(collector.rows(batch), sink, PLAN, expected=lambda: collector.expected_count)  # noqa: B023
    rows = [*_landed(local, sink.destination), *_landed(local, sink.dead_letters)]
    assert sorted(row["row_key"] for row in rows) == sorted([*KEYS, *WELL])
    assert report.request_count == LINES + GOOD
    good = {row["row_key"]: row for row in rows if row["row_key"] in WELL}
    assert {row["text"] for row in good.values()} == {f"answer {key}" for key in WELL}, "its neighbours cost nothing"
    assert {row["status"] for row in rows} >= {RowStatus.SUCCEEDED, RowStatus.FAILED, RowStatus.INVALID_OUTPUT}
    assert sum(row["status"] == RowStatus.SUCCEEDED for row in rows) > GOOD + LINES // 4, (
        "answers are read all the same"
    )
    assert all((row["total_tokens"] or 0) < 2**62 for row in rows)


def _landed(store: Any, name: str) -> list[dict[str, Any]]:
    with store.open_read(Uri.parse(name)) as stream:
        if name.endswith(".jsonl"):
            return [json.loads(line) for line in stream]
        from pyarrow.parquet import read_table

        return read_table(stream).to_pylist()
