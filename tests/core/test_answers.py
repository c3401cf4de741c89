"""What has a good answer at the destination is known by its digest, and lands again as it was."""

from __future__ import annotations

from functools import partial

import pytest

from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.jsonl import decode, encode
from airflow_vertex_batch.core.domain.row import RowStatus, Usage
from airflow_vertex_batch.core.landing.files import FileSink
from airflow_vertex_batch.core.landing.landed import FileAnswers, TableAnswers, known_digests
from airflow_vertex_batch.core.landing.record import LandPlan, landed_row
from airflow_vertex_batch.core.landing.sink import land
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.requests.request import RequestBuilder, RequestTemplate, request_digest
from airflow_vertex_batch.core.requests.sources import Rows
from tests.builders import a_row
from tests.fakes import MemoryStore, MemoryWarehouse

FOLDER = Uri.parse("gs://out/answers")
GOOD = a_row(
    "a", text='{"mood": "glad"}', answer={"mood": "glad"}, finish_reason="STOP", model_version="gemini-x",
    response=b'{"candidates":[]}', processed_at="2026-11-22T03:04:05+00:00", job_name="j", request_digest="d1",
    usage=Usage(3, 4), columns={"id": 1},
)  # fmt: skip
BAD = a_row("b", RowStatus.FAILED, request_digest="d2")
OLD = a_row("c", text="landed by an older version")


def _landed(store, file_format, day="2026-11-22"):
    plan = LandPlan(batch_id=day, partition_date=day, run_id=f"run of {day}")
    land([GOOD, BAD, OLD], FileSink(store, FOLDER, plan, file_format), plan, expected=lambda: 3)


class TestFiles:
    @pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
    def test_good_rows_of_every_day_are_known_and_no_others(self, file_format):
        store = MemoryStore()
        _landed(store, file_format)
        _landed(store, file_format, "2026-11-23")
        assert list(FileAnswers(store, FOLDER).digests()) == ["d1", "d1"]

    @pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
    def test_an_answer_comes_back_whole_and_free(self, file_format):
        store = MemoryStore()
        _landed(store, file_format)
        [row] = FileAnswers(store, FOLDER).rows()
        assert (row.text, row.answer, row.finish_reason, row.model_version) == (
            GOOD.text, GOOD.answer, GOOD.finish_reason, GOOD.model_version,
        )  # fmt: skip
        assert decode(row.response) == decode(GOOD.response)
        assert row.processed_at.startswith("2026-11-22T03:04:05")
        assert (row.key, row.usage, row.attempts, row.columns) == ("", None, 0, None)

    def test_a_known_answer_keeps_the_run_that_paid_for_it(self):
        store = MemoryStore()
        _landed(store, "jsonl")
        [row] = FileAnswers(store, FOLDER).rows()
        again = landed_row(row, LandPlan(batch_id="b", partition_date="2026-11-23", run_id="tonight"), None)
        assert (row.run_id, again.run_id) == ("run of 2026-11-22", "run of 2026-11-22")

    def test_an_empty_folder_knows_nothing(self):
        assert list(FileAnswers(MemoryStore(), FOLDER).digests()) == []


class TestWhatWasDecidedStands:
    """A task of a run decides once for each row, whatever lands between its attempts."""

    PLAN = PreparePlan(template=RequestTemplate(prompt="{{ text }}"), key_column="id", model="gemini-x")
    RUN = Uri.parse("gs://b/run")

    def _prepared(self, store, answers, token):
        rows = Rows([{"id": f"a{n}", "text": f"text {n}"} for n in range(4)]).rows(store, MemoryWarehouse())
        known = partial(known_digests, answers, store, self.RUN, "gemini-x")
        return prepare(rows, self.PLAN, store, self.RUN, token, known=known)

    def _digest(self, number):
        request = RequestBuilder(self.PLAN.template)({"text": f"text {number}"})
        return request_digest(request, "gemini-x")

    def test_what_was_sent_is_prepared_again_though_it_has_landed_since(self):
        store = MemoryStore()
        first = self._prepared(store, Landed(self._digest(0)), "one")
        assert (first.request_count, first.known_count) == (3, 1)
        assert self._prepared(store, Landed(*map(self._digest, range(4))), "two") == first

    def test_what_was_known_stays_known_though_it_has_gone_since(self):
        store = MemoryStore()
        first = self._prepared(store, Landed(self._digest(0)), "one")
        assert self._prepared(store, Landed(), "two") == first

    def test_another_run_decides_for_itself(self):
        store = MemoryStore()
        self._prepared(store, Landed(), "one")
        digests = known_digests(Landed(self._digest(1)), store, Uri.parse("gs://b/other"), "gemini-x")
        assert list(digests) == [self._digest(1)]


class Landed:
    """A destination with good answers to some requests."""

    def __init__(self, *digests):
        self._digests = digests

    def digests(self):
        return iter(self._digests)

    def rows(self):
        return iter(())


class TestTables:
    TABLE = TableId.parse("bq://p.d.t")

    def test_the_table_is_made_or_widened_before_it_is_asked(self):
        """A destination of an older version has no digests: it must not break the night."""
        made = []

        class Warehouse(MemoryWarehouse):
            def create_table(self, table, schema, **options):
                made.append((str(table), any(field["name"] == "request_digest" for field in schema)))

            def rows(self, query, parameters=None):
                assert made
                return iter([{"request_digest": "d1"}])

        assert list(TableAnswers(Warehouse(), self.TABLE).digests()) == ["d1"]
        assert made == [("p.d.t", True)]

    def test_a_record_is_read_back_as_the_row_it_was(self):
        record = decode(encode(landed_row(GOOD, LandPlan(batch_id="b", partition_date="2026-11-22"), None)))

        class Warehouse(MemoryWarehouse):
            def rows(self, query, parameters=None):
                return iter([record])

        [row] = TableAnswers(Warehouse(), self.TABLE).rows()
        assert (row.text, row.answer, row.request_digest, row.attempts) == (GOOD.text, GOOD.answer, "d1", 0)
