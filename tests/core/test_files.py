"""A day's files are merged on the rows' keys, whichever runs land in them, in any order, and wherever they die."""

from __future__ import annotations

import io
import itertools
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow.dataset
import pyarrow.parquet
import pytest

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import ChangedError, ResultError, ServiceError
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.domain.row import ResultRow, RowStatus
from airflow_vertex_batch.core.landing.files import FileSink
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.landing.sink import land
from tests.builders import a_response, a_row
from tests.core.test_export import BAD, COLUMNS, GOOD, PLAN, PRICES, ROWS
from tests.each_case import each_case
from tests.fakes import Died, EffectLimit, MemoryStore

FOLDER = Uri.parse("gs://out/tickets")


def _land(
    store: Any,
    rows: list[ResultRow] = ROWS,
    *,
    file_format: str = "jsonl",
    expected: int | None = None,
    **plan: Any,
):
    sink = FileSink(store, FOLDER, LandPlan(**{"batch_id": "b", "partition_date": "2026-11-22"} | plan), file_format)
    return land(rows, sink, PLAN, expected=lambda: len(rows) if expected is None else expected, prices=PRICES)


def _jsonl(store: MemoryStore, uri: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.objects[uri].splitlines()]


def _parquet(store: MemoryStore, uri: str) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(io.BytesIO(store.objects[uri])).to_pylist()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class TestFiles:
    def test_jsonl_reads_back_equal(self, store):
        report = _land(store)
        (good,) = _jsonl(store, report.destination)
        assert good == {
            "row_key": "r1", "status": "succeeded", "code": None, "reason": None,
            "text": "two\nlines é😀", "answer": {"mood": "glad", "n": [1, 2.5, None]},
            "columns": {"id": 7, "name": "Ä"}, "finish_reason": "STOP",
            "model_version": "gemini-3.8-flash", "prompt_tokens": 10, "output_tokens": 5,
            "thinking_tokens": 2, "cached_tokens": 1, "tool_tokens": 0, "total_tokens": 17, "cost_usd": "0.000016575",
            "response": a_response("two\nlines é😀"), "job_name": GOOD.job_name,
            "processed_at": "2026-11-22T03:04:05.678901+00:00", "run_id": "scheduled__2026-11-22",
            "request_digest": "0f" * 16, "same_as": None, "attempts": 1,
        }  # fmt: skip
        assert [(row["row_key"], row["status"], row["code"]) for row in _jsonl(store, report.dead_letters)] == [
            ("r2", "blocked", "SAFETY"),
            ("r3", "missing", "JOB_STATE_SUCCEEDED"),
        ]

    def test_parquet_reads_back_equal_with_types(self, store):
        report = _land(store, file_format="parquet")
        (good,) = _parquet(store, report.destination)
        assert list(good) == COLUMNS
        assert (good["text"], good["total_tokens"]) == (GOOD.text, 17)
        assert good["cost_usd"] == Decimal("0.000016575")
        assert good["processed_at"] == datetime(2026, 11, 22, 3, 4, 5, 678901, tzinfo=UTC)
        assert json.loads(good["answer"]) == GOOD.answer
        assert json.loads(good["columns"]) == GOOD.columns
        assert json.loads(good["response"]) == json.loads(GOOD.response)
        assert [row["row_key"] for row in _parquet(store, report.dead_letters)] == ["r2", "r3"]

    def test_json_columns_of_parquet_say_that_they_are_json(self, store):
        """Then DuckDB, BigQuery and others read members of them without decoding a text."""
        report = _land(store, file_format="parquet")
        schema = pyarrow.parquet.ParquetFile(io.BytesIO(store.objects[report.destination])).schema
        kinds = {column.name: column.logical_type.type for column in map(schema.column, range(len(schema)))}
        assert {name for name, kind in kinds.items() if kind == "JSON"} == {"answer", "columns", "response"}

    @pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
    @pytest.mark.parametrize(
        "unit",
        ["word ", "日本語", 'a "quoted"\n\t\\ line, é😀 ', "\u0001\u007f", "\\"],
        ids=["plain", "without a blank", "escapes", "control", "backslashes"],
    )
    def test_a_long_text_lands_as_it_was(self, store, file_format, unit):
        text = unit * (3_000_000 // len(unit))
        report = _land(store, [a_row("r1", text=text, response=encode(a_response("short")))], file_format=file_format)
        read = _jsonl if file_format == "jsonl" else _parquet
        assert read(store, report.destination)[0]["text"] == text

    @pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
    def test_no_rows_make_files_without_rows(self, store, file_format):
        report = _land(store, [], file_format=file_format)
        read = _jsonl if file_format == "jsonl" else _parquet
        assert read(store, report.destination) == read(store, report.dead_letters) == []

    @pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
    def test_more_rows_than_one_flush_holds(self, store, file_format):
        rows = [a_row(f"r{n}", text=f"answer {n}") for n in range(4_500)]
        report = _land(store, rows, file_format=file_format)
        read = _jsonl if file_format == "jsonl" else _parquet
        assert [row["row_key"] for row in read(store, report.destination)] == [row.key for row in rows]

    @pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
    def test_landing_twice_leaves_the_same_bytes(self, store, file_format):
        _land(store, file_format=file_format)
        before = dict(store.objects)
        _land(store, file_format=file_format)
        assert store.objects == before
        assert len(before) == 2

    def test_another_batch_lands_beside(self, store):
        assert _land(store).destination != _land(store, batch_id="another").destination
        assert len(store.objects) == 4

    @pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
    def test_an_error_leaves_what_was_there(self, store, file_format):
        _land(store, file_format=file_format)
        before = dict(store.objects)

        def breaking():
            yield from [a_row(f"other{n}") for n in range(3_000)]
            raise ServiceError("Cloud Storage went away", status=503)

        with pytest.raises(ServiceError, match="went away"):
            land(
                breaking(),
                FileSink(store, FOLDER, LandPlan(batch_id="b", partition_date="2026-11-22"), file_format),
                PLAN,
                expected=lambda: 0,
            )
        assert store.objects == before

    @pytest.mark.parametrize("expected", [2, 4])
    def test_counts_that_do_not_reconcile_land_nothing(self, store, expected):
        with pytest.raises(ResultError, match=rf"{expected} rows went in and 3 came out. Nothing was landed.*Restore"):
            _land(store, expected=expected)
        assert store.objects == {}

    def test_the_error_names_the_keys_where_somebody_knows_them(self, store):
        sink = FileSink(store, FOLDER, PLAN)
        with pytest.raises(ResultError, match=r"4 rows went in and 3 came out. 1 missing: r4. Nothing was landed"):
            land(ROWS, sink, PLAN, expected=lambda: 4, key_mismatch_text=lambda: "1 missing: r4")
        land(ROWS, sink, PLAN, expected=lambda: 3, key_mismatch_text=lambda: pytest.fail("nobody asked"))

    def test_dead_letters_may_have_a_folder_of_their_own(self, store):
        sink = FileSink(store, FOLDER, PLAN, dead_letters=Uri.parse("gs://bad/tickets"))
        land(ROWS, sink, PLAN, expected=lambda: len(ROWS))
        assert {uri.rpartition("/")[0] for uri in store.objects} == {
            f"gs://out/tickets/answers/partition_date={PLAN.partition_date}",
            f"gs://bad/tickets/partition_date={PLAN.partition_date}",
        }

    def test_a_time_that_is_none_is_null_in_parquet(self, store):
        report = _land(store, [a_row("r1", processed_at="soon")], file_format="parquet")
        assert _parquet(store, report.destination)[0]["processed_at"] is None


class TestReport:
    def test_it_counts_what_landed_and_where(self, store):
        report = _land(store)
        assert report.statuses == {"succeeded": 1, "blocked": 1, "missing": 1}
        assert (report.request_count, report.good_count) == (3, 1)
        assert report.partition_date == "2026-11-22"
        assert {report.destination, report.dead_letters} == set(store.objects)


def _read(store: MemoryStore, report: Any, file_format: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The good rows and the dead letters by key; a key that is there twice fails."""
    read = _jsonl if file_format == "jsonl" else _parquet
    found = [[(row["row_key"], row) for row in read(store, uri)] for uri in (report.destination, report.dead_letters)]
    assert max(Counter(key for part in found for key, _ in part).values(), default=1) == 1
    return dict(found[0]), dict(found[1])


FORMATS = pytest.mark.parametrize("file_format", ["jsonl", "parquet"])


class TestADaySFiles:
    @FORMATS
    def test_rows_of_the_day_s_other_runs_stay(self, store, file_format):
        _land(store, [a_row("a"), a_row("b", RowStatus.FAILED)], file_format=file_format)
        report = _land(store, [a_row("c"), a_row("d", RowStatus.BLOCKED)], file_format=file_format)
        good, dead = _read(store, report, file_format)
        assert (set(good), set(dead)) == ({"a", "c"}, {"b", "d"})

    @FORMATS
    def test_the_latest_landing_of_a_row_wins_in_both_files(self, store, file_format):
        _land(store, [a_row("a"), a_row("b", RowStatus.FAILED), a_row("c", text="old")], file_format=file_format)
        report = _land(
            store, [a_row("a", RowStatus.MISSING), a_row("b"), a_row("c", text="new")], file_format=file_format
        )
        good, dead = _read(store, report, file_format)
        assert (set(good), set(dead), good["c"]["text"]) == ({"b", "c"}, {"a"}, "new")

    @FORMATS
    def test_replace_partition_removes_what_the_batch_does_not_have(self, store, file_format):
        _land(store, [a_row("a"), a_row("b", RowStatus.FAILED)], file_format=file_format)
        report = _land(store, [a_row("c")], file_format=file_format, replace_partition=True)
        assert _read(store, report, file_format) == ({"c": _read(store, report, file_format)[0]["c"]}, {})

    @FORMATS
    @pytest.mark.parametrize("replaces", [False, True])
    def test_a_run_without_rows_removes_the_day_s_rows_only_where_that_is_asked_for(self, store, file_format, replaces):
        _land(store, file_format=file_format)
        report = _land(store, [], file_format=file_format, replace_partition=replaces)
        good, dead = _read(store, report, file_format)
        assert (set(good), set(dead)) == ((set(), set()) if replaces else ({"r1"}, {"r2", "r3"}))

    @FORMATS
    def test_rows_that_stay_are_as_they_were(self, store, file_format):
        odd = a_row("odd", answer={"n": 10**30, "x": 0.1, "é": None}, columns={"big": 2**70}, response=b'{"a": 1.0}')
        _land(store, [GOOD, BAD, odd], file_format=file_format)
        first = _read(store, _land(store, [GOOD, BAD, odd], file_format=file_format), file_format)
        report = _land(store, [a_row("later")], file_format=file_format)
        good, dead = _read(store, report, file_format)
        assert ({key: good[key] for key in first[0]}, dead) == first

    @FORMATS
    def test_an_answer_of_an_earlier_run_keeps_what_it_cost_and_takes_new_columns(self, store, file_format):
        """As in a table: landing it again does not make it free."""
        _land(store, [a_row("x"), GOOD], file_format=file_format)
        known = a_row("r1", text=GOOD.text, request_digest=GOOD.request_digest, attempts=0, columns={"id": 9})
        report = _land(store, [known], file_format=file_format)
        row = _read(store, report, file_format)[0]["r1"]
        columns = json.loads(row["columns"]) if file_format == "parquet" else row["columns"]
        assert (str(row["cost_usd"]), row["attempts"], columns) == ("0.000016575", 1, {"id": 9})
        other = a_row("r1", text="Other", request_digest="ff" * 16, attempts=0)
        row = _read(store, _land(store, [other], file_format=file_format), file_format)[0]["r1"]
        assert (row["text"], row["attempts"]) == ("Other", 0)

    @FORMATS
    def test_other_days_and_other_tasks_have_files_of_their_own(self, store, file_format):
        _land(store, file_format=file_format)
        before = dict(store.objects)
        _land(store, [a_row("x")], file_format=file_format, partition_date="2026-11-23")
        _land(store, [a_row("x")], file_format=file_format, batch_id="another")
        assert {name: store.objects[name] for name in before} == before
        assert len(store.objects) == 6

    @FORMATS
    def test_a_day_s_file_that_is_not_ours_is_not_replaced(self, store, file_format):
        report = _land(store, file_format=file_format)
        store.objects[report.destination] = b"PAR1 or so\n" * 9
        before = dict(store.objects)
        with pytest.raises(ResultError, match=r"answers-.* is not as a landing left it.*Move it out of this folder"):
            _land(store, [a_row("x")], file_format=file_format)
        assert store.objects[report.destination] == before[report.destination]


class TestFolders:
    def test_a_reader_of_the_answers_folder_sees_days_and_no_dead_letter(self, store, tmp_path):
        """pyarrow reads each file below a folder, and takes the day from the folder's name."""
        for day in ("2026-11-22", "2026-11-23"):
            _land(store, file_format="parquet", partition_date=day)
        for name, data in store.objects.items():
            path = tmp_path / name.removeprefix("gs://")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        for folder, keys in (("answers", ["r1"]), ("dead-letters", ["r2", "r3"])):
            table = pyarrow.dataset.dataset(tmp_path / "out/tickets" / folder, partitioning="hive").to_table()
            assert table.to_pydict()["row_key"] == keys * 2
            days = sorted({str(day) for day in table.to_pydict()["partition_date"]})
            assert days == ["2026-11-22", "2026-11-23"]


class _Racing(MemoryStore):
    """Does something else at the n-th moment at which a landing asks or writes."""

    def __init__(self, number: int, other: Any) -> None:
        super().__init__()
        self._left, self._other = number, other

    def _now_perhaps(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._other(self)

    def version(self, uri):
        self._now_perhaps()
        return super().version(uri)

    def open_replace(self, uri, version, content_type=""):
        self._now_perhaps()
        return super().open_replace(uri, version, content_type)


MINE = [a_row("a", text="mine"), a_row("b", RowStatus.FAILED, reason="mine"), a_row("m")]
OTHERS = [a_row("a", RowStatus.FAILED, reason="other"), a_row("b", text="other"), a_row("o")]


class TestTwoAtOnce:
    @each_case(itertools.product(["jsonl", "parquet"], range(1, 14), [True, False]))
    def test_every_row_of_both_is_there_once(self, file_format, moment, is_first):
        store = _Racing(moment, lambda store: _land(store, OTHERS, file_format=file_format))
        if not is_first:
            _land(store, [a_row("there"), a_row("gone", RowStatus.FAILED)], file_format=file_format)
        report = _land(store, MINE, file_format=file_format)
        good, dead = _read(store, report, file_format)
        assert good.keys() | dead.keys() == {"a", "b", "m"} | (
            ({"o"} if store._left <= 0 else set()) | (set() if is_first else {"there", "gone"})
        )
        both = ((good.get("a") or dead["a"])["reason"], (good.get("b") or dead["b"])["text"])
        assert both in {(None, None), ("other", "other")}, "one of the two landed last, in both files"

    def test_a_landing_that_never_finds_the_files_as_it_read_them_asks_for_a_retry(self, store):
        class Busy(MemoryStore):
            def version(self, uri):
                found = super().version(uri)
                with self.open_write(uri):
                    pass
                return found

        with pytest.raises(ChangedError, match=r"was replaced each of 20 times.*A retry merges again") as caught:
            _land(Busy())
        assert caught.value.retryable


class TestDying:
    @FORMATS
    @pytest.mark.parametrize("effect_limit", range(1, 4))
    def test_landing_again_completes_what_a_death_left(self, store, effect_limit, file_format):
        before = [a_row("a"), a_row("b", RowStatus.FAILED), a_row("stays")]
        _land(store, before, file_format=file_format)
        wanted = MemoryStore()
        wanted.objects = dict(store.objects)
        _land(wanted, MINE, file_format=file_format)
        mortal = EffectLimit(effect_limit)
        try:
            _land(mortal.store(store), MINE, file_format=file_format)
        except Died:
            assert effect_limit < 3
        _land(store, MINE, file_format=file_format)
        assert store.objects == wanted.objects
