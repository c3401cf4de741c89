"""Landing twice is landing once, and an error lands nothing."""

from __future__ import annotations

import json
import time
from datetime import date
from decimal import Decimal

import msgspec
import pytest

from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.domain.row import RowStatus, Usage
from airflow_vertex_batch.core.landing.record import SCHEMA, LandPlan, landed_row
from airflow_vertex_batch.core.landing.sink import land, rejected_rows
from airflow_vertex_batch.core.landing.table import TableSink, is_abandoned, merge_sql
from airflow_vertex_batch.core.money.prices import Price, PriceTable
from tests.builders import a_response, a_row, jsonl
from tests.fakes import Died, EffectLimit, MemoryStore, MemoryWarehouse

FOLDER = Uri.parse("gs://out/answers")
PLAN = LandPlan(batch_id="nightly/2026-11-22/export", partition_date="2026-11-22", run_id="scheduled__2026-11-22")
TABLE, DEAD = TableId("p", "d", "answers"), TableId("p", "d", "answers_dead_letters")
PRICES = PriceTable(
    [Price("gemini-3.8-flash", Decimal("0.375"), Decimal("1.875"), Decimal("0.075"), "test", "2026-11-22")]
)
COLUMNS = [field["name"] for field in SCHEMA if field["name"] != "partition_date"]

GOOD = a_row(
    "r1",
    text="two\nlines é😀",
    answer={"mood": "glad", "n": [1, 2.5, None]},
    finish_reason="STOP",
    model_version="gemini-3.8-flash",
    usage=Usage(10, 5, 2, 1, 0, 17),
    processed_at="2026-11-22T03:04:05.678901+00:00",
    response=json.dumps(a_response("two\nlines é😀")),
    columns={"id": 7, "name": "Ä"},
    job_name="projects/1/locations/global/batchPredictionJobs/2",
    request_digest="0f" * 16,
)
BAD = a_row("r2", RowStatus.BLOCKED, code="SAFETY", reason="No.", columns={"id": 8})
BARE = a_row("r3", RowStatus.MISSING, code="JOB_STATE_SUCCEEDED", reason="No line.")
ROWS = [GOOD, BAD, BARE]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class TestFlat:
    def test_every_record_has_every_column_in_order(self):
        for row in ROWS:
            assert list(json.loads(encode(landed_row(row, PLAN, None)))) == COLUMNS

    def test_what_is_not_known_is_null_not_empty(self):
        record = msgspec.structs.asdict(landed_row(BARE, PLAN, None))
        assert {name for name, value in record.items() if value is not None} == {
            "row_key", "status", "code", "reason", "run_id", "attempts",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("cost", "text"), [(None, None), (Decimal(0), "0.000000000"), (Decimal("0.00000002500"), "0.000000025")]
    )
    def test_no_price_is_null_and_free_is_zero(self, cost, text):
        assert landed_row(GOOD, PLAN, cost).cost_usd == text

    def test_tokens_are_those_of_all_attempts(self):
        row = a_row(
            "r1", usage=Usage(10, 5, 2, 1, 0, 17), earlier=(Usage(10, 3, total_tokens=13), Usage(9)), attempts=3
        )
        record = landed_row(row, PLAN, None)
        assert (record.prompt_tokens, record.output_tokens, record.thinking_tokens) == (29, 8, 2)
        assert (record.cached_tokens, record.total_tokens, record.attempts) == (1, 30, 3)

    def test_also_when_the_last_one_had_none(self):
        record = landed_row(a_row("r1", RowStatus.MISSING, earlier=(Usage(10, 3),), attempts=2), PLAN, None)
        assert (record.prompt_tokens, record.output_tokens) == (10, 3)

    def test_whose_answer_it_is_and_to_what_land_too(self):
        record = landed_row(a_row("r2", request_digest="ab" * 16, same_as="r1", attempts=0), PLAN, None)
        assert (record.request_digest, record.same_as, record.attempts) == ("ab" * 16, "r1", 0)


class TestRejectedRows:
    def test_rows_that_were_never_sent_are_rows_too(self, store):
        store.objects["gs://b/rejected.jsonl"] = jsonl(
            {
                "source": "gs://in/x.csv",
                "line": 7,
                "status": "rejected",
                "code": "empty-prompt",
                "reason": "The prompt is empty",
            },
            {"source": "rows", "line": 9, "status": "rejected", "code": "no-key", "reason": "No key"},
        )
        first, second = rejected_rows(store, "gs://b/rejected.jsonl", "run 1")
        assert (first.status, first.code) == (RowStatus.REJECTED, "empty-prompt")
        assert first.reason == "gs://in/x.csv:7: The prompt is empty"
        assert not second.repairable
        assert len({first.key, second.key}) == 2

    def test_those_of_two_runs_of_a_day_have_other_keys_and_those_of_a_retry_the_same(self, store):
        store.objects["gs://b/r.jsonl"] = jsonl({"source": "rows", "line": 1, "code": "no-key", "reason": "No key"})
        keys = [next(rejected_rows(store, "gs://b/r.jsonl", run)).key for run in ("run 1", "run 2", "run 1")]
        assert keys[0] == keys[2] != keys[1]

    def test_no_file_is_no_rows(self, store):
        assert list(rejected_rows(store, "", "run 1")) == []


class TestMergeSql:
    def test_one_statement_brings_a_table_to_what_staging_says(self):
        sql = merge_sql(TABLE, TableId("p", "d", "staging"), "S.status = 'succeeded'", replace_partition=False)
        lines = sql.splitlines()
        assert lines[0] == "MERGE `p.d.answers` AS T USING `p.d.staging` AS S"
        assert "T.partition_date = @partition_date" in lines[1]
        assert "T.row_key = S.row_key" in lines[1]
        assert lines[2].startswith("WHEN MATCHED AND S.attempts = 0 AND T.status = 'succeeded'")
        assert lines[3:5] == ["  AND T.request_digest = S.request_digest", "  THEN UPDATE SET columns = S.columns"]
        assert lines[5].startswith(
            "WHEN MATCHED AND S.status = 'succeeded' THEN UPDATE SET partition_date = S.partition_date, "
        )
        assert lines[6] == "WHEN MATCHED THEN DELETE"
        assert lines[7].startswith(
            "WHEN NOT MATCHED BY TARGET AND S.status = 'succeeded' THEN INSERT (partition_date, row_key, "
        )
        assert len(lines) == 8

    def test_replacing_a_partition_touches_that_day_only(self):
        sql = merge_sql(TABLE, TableId("p", "d", "staging"), "true", replace_partition=True)
        assert sql.splitlines()[-1] == "WHEN NOT MATCHED BY SOURCE AND T.partition_date = @partition_date THEN DELETE"

    @pytest.mark.parametrize("column", COLUMNS)
    def test_every_column_is_updated_and_inserted(self, column):
        sql = merge_sql(TABLE, TableId("p", "d", "staging"), "true", replace_partition=False)
        assert f"{column} = S.{column}" in sql
        assert sql.count(f"S.{column}") >= 2


class TestTable:
    """What is asked of the warehouse; `tests/gcp` runs the same on a BigQuery server."""

    @pytest.fixture
    def warehouse(self, store) -> MemoryWarehouse:
        return MemoryWarehouse(store)

    @staticmethod
    def _land(store, warehouse, rows=ROWS, **plan):
        made = LandPlan(**{"batch_id": "b", "partition_date": "2026-11-22"} | plan)
        sink = TableSink(store, warehouse, TABLE, DEAD, made, Uri.parse("gs://stage/run"))
        return land(rows, sink, PLAN, expected=lambda: len(rows), prices=PRICES)

    def test_all_rows_are_staged_once_and_merged_into_both_tables(self, store, warehouse):
        report = self._land(store, warehouse)
        ((_, staged),) = warehouse.loaded
        assert [row["row_key"] for row in staged] == ["r1", "r2", "r3"]
        (_, good, day), (_, dead, _) = warehouse.executed
        assert good.startswith(f"MERGE `{TABLE}`")
        assert "S.status = 'succeeded'" in good
        assert dead.startswith(f"MERGE `{DEAD}`")
        assert "S.status != 'succeeded'" in dead
        assert day == {"partition_date": date(2026, 11, 22)}
        assert (report.destination, report.dead_letters) == (TABLE.uri, DEAD.uri)

    def test_nothing_but_the_tables_stays(self, store, warehouse):
        self._land(store, warehouse)
        assert warehouse.tables == [str(TABLE), str(DEAD)]
        assert store.objects == {}

    def test_one_of_two_attempts_leaves_the_rows_of_the_other_alone(self, store, warehouse):
        """The one that ends first ends between the upload and the load of the other."""

        class Between(MemoryWarehouse):
            def load(self, *arguments, **options):
                TestTable._land(store, warehouse)
                return super().load(*arguments, **options)

        other = Between(store)
        self._land(store, other)
        ((_, staged),) = other.loaded
        assert [row["row_key"] for row in staged] == ["r1", "r2", "r3"]
        assert store.objects == {}

    def test_what_a_killed_attempt_staged_goes_with_a_landing_a_day_later(self, store, warehouse):
        store.objects |= {"gs://stage/run/rows-1000-dead.jsonl": b"{}", "gs://stage/run-2/rows-1000-x.jsonl": b"{}"}
        self._land(store, warehouse)
        assert list(store.objects) == ["gs://stage/run-2/rows-1000-x.jsonl"]

    @pytest.mark.parametrize(
        ("name", "now", "left"),
        [("rows-1000-ab.jsonl", 87_400, False), ("rows-1000-ab.jsonl", 87_401, True), ("other.jsonl", 9e9, False)],
    )
    def test_a_day_is_as_long_as_its_staging_table_lives(self, name, now, left):
        assert is_abandoned(Uri.parse(f"gs://stage/run/{name}"), now) is left

    def test_the_same_rows_have_the_same_job_ids(self, store, warehouse):
        """ "Already exists" means resume, so the ids come from the content."""
        self._land(store, warehouse)
        self._land(store, warehouse, ROWS[::-1])
        self._land(store, warehouse, ROWS[:2])
        first, again, other = (job_id for job_id, _ in warehouse.loaded)
        assert first == again != other

    def test_an_error_while_reading_touches_no_table(self, store, warehouse):
        def breaking():
            yield GOOD
            raise ServiceError("Cloud Storage went away", status=503)

        sink = TableSink(store, warehouse, TABLE, DEAD, PLAN, Uri.parse("gs://stage/run"))
        with pytest.raises(ServiceError, match="went away"):
            land(breaking(), sink, PLAN, expected=lambda: 0)
        assert (warehouse.tables, warehouse.executed, store.objects) == ([], [], {})

    @pytest.mark.parametrize("effects", range(1, 10))
    def test_dying_after_any_effect_is_completed_by_landing_again(self, store, warehouse, effects):
        """Staged file, three tables, load, two merges, drop, delete: nine effects."""
        effect_limit = EffectLimit(effects)
        with pytest.raises(Died, match=rf"after effect {effects}\b"):
            self._land(effect_limit.store(store), effect_limit.warehouse(warehouse))
        warehouse.executed.clear()
        self._land(store, warehouse)
        assert len(warehouse.executed) == 2
        assert warehouse.tables == [str(TABLE), str(DEAD)]
        # Nobody can tell in the same hour that whoever staged it is dead.
        assert all(is_abandoned(Uri.parse(name), time.time() + 90_000) for name in store.objects)
