"""Whatever lands in whatever order, files and tables say of each row of a day what was landed last, and say it once."""

from __future__ import annotations

import io
import json
import re
from collections import Counter

import pyarrow.parquet
from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.row import RowStatus
from airflow_vertex_batch.core.landing.files import FileSink
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.landing.sink import land
from airflow_vertex_batch.core.landing.table import TableSink
from tests.builders import a_row
from tests.fakes import MemoryStore, MemoryWarehouse

ROWS = st.lists(
    st.builds(
        a_row,
        st.uuids().map(lambda key: f"r{key}"),
        st.sampled_from(RowStatus),
        text=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
        answer=st.none() | st.lists(st.integers(), max_size=2),
        processed_at=st.sampled_from(["", "2026-11-22T03:04:05+00:00"]),
        columns=st.none() | st.fixed_dictionaries({"id": st.integers()}),
    ),
    max_size=12,
)


@given(ROWS, st.sampled_from(["jsonl", "parquet"]))
def test_landing_twice_is_landing_once(rows, file_format):
    store, plan = MemoryStore(), LandPlan(batch_id="b", partition_date="2026-11-22")

    def run():
        return land(rows, FileSink(store, Uri.parse("gs://out"), plan, file_format), plan, expected=lambda: len(rows))

    first = run()
    before = dict(store.objects)
    assert run() == first
    assert store.objects == before
    assert Counter(first.statuses) == Counter(str(row.status) for row in rows)
    if file_format == "jsonl":
        good = [json.loads(line) for line in store.objects[first.destination].splitlines()]
        dead = [json.loads(line) for line in store.objects[first.dead_letters].splitlines()]
        assert [line["row_key"] for line in good] == [row.key for row in rows if row.status.is_good]
        assert [line["row_key"] for line in dead] == [row.key for row in rows if not row.status.is_good]


class MergingWarehouse(MemoryWarehouse):
    """Also does what our one statement says, read from its text."""

    _STATEMENT = re.compile(
        r"MERGE `(?P<table>\S+)` AS T USING `(?P<staging>\S+)` AS S\n.*\n"
        r"WHEN MATCHED AND S.attempts = 0 AND T.status = 'succeeded' AND S\.status = T\.status\n"
        r"  AND T\.request_digest = S\.request_digest\n"
        r"  THEN UPDATE SET columns = S.columns\n"
        r"WHEN MATCHED AND S\.status (?P<is>!?=) 'succeeded' THEN UPDATE .*WHEN MATCHED THEN DELETE\n"
        r"WHEN NOT MATCHED BY TARGET AND S\.status (?P=is) 'succeeded' THEN INSERT .*?\)"
        r"(?P<stale>\nWHEN NOT MATCHED BY SOURCE AND T.partition_date = @partition_date THEN DELETE)?",
        re.DOTALL,
    )

    def execute(self, sql, *, job_id, parameters=None):
        found = self._STATEMENT.fullmatch(sql)
        day = str(parameters["partition_date"])
        staged = {row["row_key"]: row for row in self.rows(TableId.parse(found["staging"]))}
        there = {(row["partition_date"], row["row_key"]): row for row in self.rows(TableId.parse(found["table"]))}
        kept = [row for (date, key), row in there.items() if date != day or (key not in staged and not found["stale"])]
        wanted = [row for row in staged.values() if (row["status"] == "succeeded") is (found["is"] == "=")]
        merged = [self._matched(there.get((day, row["row_key"])), row) for row in wanted]
        self.put(found["table"], kept + merged)
        return len(wanted)

    @staticmethod
    def _matched(old, new):
        is_same = old and new["attempts"] == 0 and old["status"] == new["status"] == "succeeded"
        if is_same and old["request_digest"] == new["request_digest"]:
            return old | {"columns": new["columns"]}
        return new


LANDINGS = st.lists(
    st.tuples(
        st.sampled_from(["2026-11-22", "2026-11-23"]),
        st.dictionaries(st.sampled_from(["r1", "r2", "r3", "r4"]), st.sampled_from(RowStatus)),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


@given(LANDINGS, st.integers(1, 2))
def test_a_table_says_of_every_row_what_was_landed_last_and_says_it_once(landings, times):
    store = MemoryStore()
    warehouse = MergingWarehouse(store)
    table, dead = TableId("p", "d", "answers"), TableId("p", "d", "dead")
    model: dict[tuple[str, str], str] = {}
    for day, rows, replaces in landings:
        plan = LandPlan(batch_id="b", partition_date=day, replace_partition=replaces)
        for _ in range(times):
            sink = TableSink(store, warehouse, table, dead, plan, Uri.parse("gs://stage/run"))
            made = [a_row(key, status) for key, status in rows.items()]
            report = land(made, sink, plan, expected=lambda made=made: len(made))
            assert report.tally.total == sum(report.statuses.values()) == len(rows)
        model = {at: status for at, status in model.items() if not (replaces and at[0] == day)}
        model |= {(day, key): str(status) for key, status in rows.items()}
    for name, is_good in ((table, True), (dead, False)):
        there = [(row["partition_date"], row["row_key"], row["status"]) for row in warehouse.rows(name)]
        assert sorted(there) == sorted(
            (*at, status) for at, status in model.items() if (status == "succeeded") is is_good
        )
    assert warehouse.tables == [str(table), str(dead)]
    assert store.objects == {}


RUNS = st.lists(
    st.tuples(
        st.sampled_from(["2026-11-22", "2026-11-23"]),
        st.dictionaries(
            st.sampled_from([f"r{number}" for number in range(6)]),
            st.tuples(st.sampled_from([*RowStatus, RowStatus.SUCCEEDED]), st.sampled_from("pq"), st.booleans()),
        ),
        st.sampled_from([False, False, True]),
    ),
    min_size=1,
    max_size=6,
)


def _row(number, key, status, digest, *, is_known):
    attempts = 0 if is_known and status is RowStatus.SUCCEEDED else 1
    texts = {"text": f"text {number}", "columns": {"run": number}}
    return a_row(key, status, request_digest=digest * 32, attempts=attempts, **texts)


@given(RUNS, st.sampled_from(["jsonl", "parquet"]))
def test_files_hold_what_a_table_would(runs, file_format):
    store, staged = MemoryStore(), MemoryStore()
    warehouse = MergingWarehouse(staged)
    table, dead = TableId("p", "d", "answers"), TableId("p", "d", "dead")
    for number, (day, rows, replaces) in enumerate(runs):
        plan = LandPlan(batch_id=day, partition_date=day, run_id=f"run {number}", replace_partition=replaces)
        made = [_row(number, key, status, digest, is_known=known) for key, (status, digest, known) in rows.items()]
        for sink in (
            TableSink(staged, warehouse, table, dead, plan, Uri.parse("gs://stage/run")),
            FileSink(store, Uri.parse("gs://out"), plan, file_format),
        ):
            land(made, sink, plan, expected=lambda made=made: len(made))
    for name, folder in ((table, "answers"), (dead, "dead-letters")):
        in_table = [json.dumps(row, sort_keys=True) for row in warehouse.rows(name)]
        assert sorted(_in_files(store, folder)) == sorted(in_table)


def _in_files(store, folder):
    for name, data in store.objects.items():
        if name.startswith(f"gs://out/{folder}/"):
            day = re.search("/partition_date=(.{10})/", name)[1]
            rows = _parquet_rows(data) if name.endswith("parquet") else map(json.loads, data.splitlines())
            for row in rows:
                yield json.dumps(row | {"partition_date": day}, sort_keys=True)


def _parquet_rows(data):
    for row in pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist():
        texts = {name: row[name] and json.loads(row[name]) for name in ("answer", "columns", "response")}
        yield row | texts | {"cost_usd": None if row["cost_usd"] is None else f"{row['cost_usd']:.9f}"}
