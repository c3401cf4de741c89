"""What the service counted must be found: else nothing lands, nothing is overwritten and nothing is bought."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from airflow_vertex_batch.core.answers.collect import Batch, Collector, OnLostOutput
from airflow_vertex_batch.core.answers.collect.lost_output import OUTPUT_SETTLE_SECONDS, OutputCounts, lost_text
from airflow_vertex_batch.core.answers.rounds import Round, read_round
from airflow_vertex_batch.core.batch import Done
from airflow_vertex_batch.core.domain.address import JobName, Uri
from airflow_vertex_batch.core.domain.errors import LostOutputError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.domain.row import RowStatus
from airflow_vertex_batch.core.landing.destination import Files
from airflow_vertex_batch.core.landing.landing import Landing
from tests.builders import NIGHT, a_job, jsonl
from tests.core.collecting import ASKED, INPUT, KEYS, OUTPUT, Case, answered, failed
from tests.core.worlds import PLAN, Task, World, some_rows
from tests.fakes import MemoryStore, MemoryWarehouse

SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED
OUT = "gs://out/prediction-model-1"
#: Ten requests, four of them with an answer and one with an error.
HALF = OutputCounts(file_count=1, answered=4, failed=1, unseen=5)
NOTHING = OutputCounts(file_count=0, answered=0, failed=0, unseen=10)
YOUNG, OLD = NIGHT + timedelta(seconds=OUTPUT_SETTLE_SECONDS / 2), NIGHT + timedelta(days=40)


def _ended(state: JobState, good: int = -1, bad: int = -1, output: str = OUT, code: int = 0) -> Any:
    return a_job(
        state, successful_count=good, failed_count=bad, output_uri=output, error_code=code, ended_at=NIGHT
    )  # fmt: skip


#: By name: the job, what its output held, whether it is whole soon after its end, and for ever.
CASES = {
    "all is there": (_ended(SUCCEEDED, 4, 1), HALF, True, True),
    "an answer is not": (_ended(SUCCEEDED, 5, 1), HALF, False, False),
    "a failed row's line is not, and nothing was billed for it": (_ended(SUCCEEDED, 4, 2), HALF, False, True),
    "the folder is empty": (_ended(SUCCEEDED, 10, 0), NOTHING, False, False),
    "all failed and the folder is empty": (_ended(SUCCEEDED, 0, 10), NOTHING, False, False),
    "nothing was counted and no file is there": (_ended(SUCCEEDED), NOTHING, False, False),
    "nothing was counted": (_ended(SUCCEEDED), HALF, True, True),
    "no output is named": (_ended(SUCCEEDED, 10, 0, ""), NOTHING, False, False),
    "every request has its line, whatever was counted": (
        _ended(SUCCEEDED, 12, 0), OutputCounts(file_count=1, answered=10, failed=0, unseen=0), True, True,
    ),
    "some succeeded": (_ended(JobState.PARTIALLY_SUCCEEDED, 5, 0), HALF, False, False),
    "some succeeded and nothing was counted": (_ended(JobState.PARTIALLY_SUCCEEDED), NOTHING, True, True),
    "cancelled, and rows were lost": (_ended(CANCELLED, 5, 0, code=1), HALF, False, False),
    "cancelled, and it leaves no rows": (_ended(CANCELLED, 5, 0, "", 1), NOTHING, False, True),
    "cancelled before it began": (_ended(CANCELLED, output="", code=1), NOTHING, True, True),
    "cut off as failed, and rows were lost": (_ended(FAILED, 5, 0, code=4), HALF, False, False),
    "could not export": (_ended(FAILED, 10, 0, code=13), NOTHING, False, True),
    "had no right to write": (_ended(FAILED, 10, 0, code=7), NOTHING, False, True),
    "import failed": (_ended(FAILED, output="", code=3), NOTHING, True, True),
    "still running": (_ended(JobState.RUNNING, 10, 0), HALF, True, True),
}  # fmt: skip


class TestTheRule:
    @pytest.mark.parametrize("name", CASES)
    def test_what_is_whole_soon_after_the_end_and_later(self, name):
        job, seen, soon, later = CASES[name]
        assert (not lost_text(job, seen, YOUNG), not lost_text(job, seen, OLD)) == (soon, later)

    def test_a_clock_that_is_far_behind_is_no_reason_to_wait(self):
        job, seen, _, _ = CASES["could not export"]
        assert lost_text(job, seen, NIGHT - timedelta(days=40)) == ""

    def test_without_a_time_of_its_end_a_job_is_not_young(self):
        assert lost_text(a_job(CANCELLED, successful_count=5), NOTHING, NIGHT) == ""


class TestCollecting:
    """The rows that come before the end of the output are given; the error comes before any row is called missing."""

    @pytest.mark.parametrize(
        ("outputs", "found"),
        [
            ([], 0),
            ([jsonl(answered("r1"))], 1),
            ([jsonl(answered("r1")) + b'{"key": "r2", "st'], 1),
            ([jsonl(answered("r1")), jsonl(failed("r2"))], 1),
            ([jsonl(answered("r1"), answered("r1"), answered("r1"))], 1),
        ],
        ids=["an empty folder", "a growing file", "a torn line", "a shard missing", "lines twice"],
    )
    def test_an_output_that_is_not_whole_is_an_error(self, outputs, found):
        case = Case(ASKED, *outputs, successful_count=3)
        with pytest.raises(
            LostOutputError, match=rf"the service counted 3 answered rows, and {found} are there.*Nothing was landed"
        ) as caught:
            case.rows()
        assert caught.value.retryable

    def test_a_bad_answer_is_an_answer(self):
        """The service counts what the model said, whatever it is worth."""
        said = answered("r2")
        said["response"]["candidates"][0]["finishReason"] = "SAFETY"
        rows = Case(ASKED, jsonl(answered("r1"), said), successful_count=2).by_key()
        assert [rows[key].status for key in KEYS] == [RowStatus.SUCCEEDED, RowStatus.BLOCKED, RowStatus.MISSING]

    def test_a_failed_line_is_no_answer_until_a_good_one_follows(self):
        with pytest.raises(LostOutputError, match="counted 1 answered rows, and 0 are there"):
            Case(ASKED, jsonl(failed("r1")), successful_count=1).rows()
        assert len(Case(ASKED, jsonl(failed("r1"), answered("r1")), successful_count=1).rows()) == 3

    def test_lines_of_other_requests_are_what_the_service_counted(self):
        """They are told as foreign; their job is not held up for ever."""
        other = answered("x9") | {"request": {"contents": [{"parts": [{"text": "other"}]}]}}
        case = Case(ASKED, jsonl(other, answered("r1")), successful_count=2)
        assert (len(case.rows()), case.odd[1]) == (3, 1)

    def test_rows_that_a_resumed_job_copied_count_too(self):
        case = Case(ASKED[:2], jsonl(answered("r1"), answered("old1"), answered("old2")), successful_count=3)
        case.batch = Batch(case.batch.job, case.batch.inputs, resumed=True)
        assert len(case.rows()) == 2
        case.batch = Batch(a_job(output_uri=OUTPUT, successful_count=4), case.batch.inputs, resumed=True)
        with pytest.raises(LostOutputError, match="counted 4 answered rows, and 3 are there"):
            case.rows()

    def test_a_person_may_take_what_is_there(self):
        case = Case(ASKED, jsonl(answered("r1")), successful_count=3)
        case.collector = Collector(case.store, MemoryWarehouse(), on_lost_output=OnLostOutput.LAND)
        assert [case.by_key()[key].status for key in KEYS] == [RowStatus.SUCCEEDED, *[RowStatus.MISSING] * 2]

    @pytest.mark.parametrize(
        ("rows", "text"),
        [(None, "counted 3 answered rows, and 0"), ([], "counted 3 answered rows, and 0"), ([answered("r1")], "and 1")],
        ids=["no table", "an empty table", "a table that grows"],
    )
    def test_a_table_is_looked_at_in_the_same_way(self, rows, text):
        warehouse, store = MemoryWarehouse(), MemoryStore(**{INPUT: jsonl(*ASKED)})
        if rows is not None:
            warehouse.put("p.d.out", rows)
        job = a_job(output_uri="bq://p.d.out", successful_count=3)
        with pytest.raises(LostOutputError, match=text):
            list(Collector(store, warehouse).rows(Batch(job, (INPUT,))))

    def test_a_table_that_is_gone_is_lost_though_nothing_was_counted(self):
        store = MemoryStore(**{INPUT: jsonl(*ASKED)})
        with pytest.raises(LostOutputError, match=r"no result file is there\. bq://p\.d\.out has 0"):
            list(Collector(store, MemoryWarehouse()).rows(Batch(a_job(output_uri="bq://p.d.out"), (INPUT,))))


class Night:
    """A batch of ten rows that has succeeded and landed."""

    def __init__(self, **options: Any) -> None:
        self.world = World()
        self.task = Task(self.world, some_rows(10), **options)
        self.task.attempt()
        self.world.run()
        self.job = self.world.jobs.paid[0]

    @property
    def files(self) -> dict[str, bytes]:
        """The result files."""
        return {name: data for name, data in self.world.store.objects.items() if name.startswith(self.job.output_uri)}

    def lose_output(self) -> dict[str, bytes]:
        """Delete the result files, and return them."""
        lost = self.files
        for name in lost:
            del self.world.store.objects[name]
        return lost


class TestAWholeBatch:
    def test_an_export_that_is_cleared_after_its_output_was_deleted_overwrites_nothing(self):
        night = Night()
        done = night.task.resume()
        assert isinstance(done, Done)
        night.task.land(done)
        landed = night.task.landed()
        lost = night.lose_output()
        with pytest.raises(LostOutputError, match="counted 10 answered rows, and 0 are there"):
            night.task.land(done)
        assert night.task.landed() == landed
        night.world.store.objects.update(lost)
        assert night.task.land(done).statuses == {"succeeded": 10}

    @pytest.mark.parametrize("kept", [0, 300, -20], ids=["empty", "growing", "torn"])
    def test_a_repair_buys_nothing_while_the_output_is_not_whole(self, kept):
        night = Night(rounds=3)
        [(name, data)] = night.lose_output().items()
        if kept:
            night.world.store.objects[name] = data[:kept]
        for _ in range(3):
            with pytest.raises(LostOutputError, match="counted 10 answered rows"):
                night.task.resume()
        night.world.store.objects[name] = data
        done = night.task.resume()
        assert len(night.world.jobs.paid) == 1
        assert night.task.land(done).statuses == {"succeeded": 10}

    def test_a_late_output_info_is_seen_by_the_next_attempt_though_the_job_was_stored(self):
        """Another task stored the job when it ended; its output was named half a minute later."""
        night = Night()
        named = night.world.jobs.get(night.job.job_name)
        night.world.jobs.change(night.job.name, outputInfo={})
        stored = Round(manifest=night.task.manifest, jobs=(night.world.jobs.get(night.job.job_name),)).as_dict()

        def land() -> Any:
            rounds = [read_round(json.loads(json.dumps(stored)), night.world.jobs.get)]
            landing = Landing(rounds, night.world.store, MemoryWarehouse(), PLAN)
            return landing.land(Files(Uri.parse("gs://out/landed")))

        with pytest.raises(LostOutputError, match="it names no output"):
            land()
        assert night.task.landed() == {}
        night.world.jobs.change(night.job.name, outputInfo={"gcsOutputDirectory": named.output_uri})
        assert land().statuses == {"succeeded": 10}
        assert JobName.parse(night.job.name) == night.job.job_name

    def test_a_repair_that_a_person_tells_to_go_on_buys_what_is_lost(self):
        night = Night(rounds=1, on_lost_output=OnLostOutput.LAND)
        night.lose_output()
        night.task.resume()
        night.world.run()
        done = night.task.resume()
        assert len(night.world.jobs.paid) == 2
        assert night.task.land(done, on_lost_output=OnLostOutput.LAND).statuses == {"succeeded": 10}
