"""A bad night is not green: what fails, what is skipped and what passes, the same in the group and in the one task."""

from __future__ import annotations

import json

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_vertex_batch.core.domain.errors import JobError
from airflow_vertex_batch.emulator.faults import Hold
from airflow_vertex_batch.emulator.row_faults import Blocked, RowError
from airflow_vertex_batch.emulator.scenario import Pace, Scenario
from tests.airflow.waiting import AGroup, SlowWorld, a_context, a_whole

HOUR = 3600
ROWS = [{"id": f"a{number}", "text": f"text {number}"} for number in range(6)]
MORE_ROWS = [*ROWS, {"id": "b1", "text": "new"}]
BAD_ROWS = [{"id": row["id"], "text": ""} for row in ROWS]
DEAD_LETTERS = {"on_rejected_row": "dead_letter"}


class Night:
    """One night after the other at the same destination, with workers that wait themselves.

    :param faults: what the service does.
    :param hours: how late its clock is.
    """

    def __init__(self, serve, *faults, hours=1):
        self.world = SlowWorld(hours, scenario=Scenario(faults=faults, pace=Pace(cancelling_s=60)))
        self.world.seconds_a_question = HOUR
        self.url = serve(self.world)
        self.contexts, self._count = {}, 0

    def run(self, *, again=False, **arguments):
        """Run a night and return the report.

        :param again: whether this is another attempt at the night before.
        """
        if again:
            return self.retry(arguments)
        self._count += 1
        self.contexts = {step: a_context(step) for step in ("prepare", "create", "wait", "repair", "export")}
        for context in self.contexts.values():
            context["ti"].run_id = f"night {self._count}"
        return self.attempt(arguments)

    def attempt(self, arguments):
        """Go through the night."""
        raise NotImplementedError

    def retry(self, arguments):
        """Go on as Airflow does: with the task that failed."""
        return self.attempt(arguments)

    def landed(self, kind="answers"):
        """The rows that lie at the destination."""
        found = [data for name, data in self.world.store.objects.items() if name.startswith(f"gs://out/landed/{kind}/")]
        return [json.loads(line) for data in found for line in data.splitlines()]

    def rows_by_key(self):
        """The status of each row of both kinds; one that is there twice fails."""
        found = [*self.landed(), *self.landed("dead-letters")]
        by_key = {row["row_key"]: row["status"] for row in found}
        assert len(by_key) == len(found)
        return by_key


class InOneTask(Night):
    """`VertexBatchOperator`."""

    def attempt(self, arguments):
        self.contexts = dict.fromkeys(self.contexts, self.contexts["prepare"])
        return a_whole(self.world, self.url, deferrable=False, **arguments).execute(self.contexts["prepare"])


class InTheGroup(Night):
    """The five tasks of `vertex_batch`."""

    def attempt(self, arguments):
        self._group = AGroup(self.world, self.url, self.contexts, deferrable=False, **arguments)
        self._names = self._group.run("create")
        return self.retry(arguments)

    def retry(self, _arguments):
        jobs = self._group.run("wait", jobs=self._names)
        return self._group.run("export", jobs=jobs, repairs=self._group.run("repair", jobs=jobs))


@pytest.fixture(params=[InOneTask, InTheGroup], ids=lambda kind: kind.__name__)
def a_night(request, serve):
    """Return how to begin a night."""
    return lambda *faults, **options: request.param(serve, *faults, **options)


class TestNoRowHasAGoodAnswer:
    """The task fails at once, after the dead letters have landed."""

    @pytest.mark.parametrize(
        ("fault", "says"),
        [(Blocked(), "6 blocked (6 SAFETY; a"), (RowError(code=400), "6 failed (6 INVALID_ARGUMENT; a")],
        ids=["all blocked", "all failed"],
    )
    def test_all_were_sent(self, a_night, fault, says):
        night = a_night(fault)
        with pytest.raises(AirflowFailException, match=r"^None of 6 rows that were sent has a good answer") as caught:
            night.run()
        assert says in str(caught.value)
        assert sorted(row["row_key"] for row in night.landed("dead-letters")) == [row["id"] for row in ROWS]

    def test_all_were_rejected(self, a_night):
        night = a_night()
        with pytest.raises(AirflowFailException, match=r"^None of 6 rows has a good answer.*6 rejected"):
            night.run(rows=BAD_ROWS, **DEAD_LETTERS)
        assert len(night.landed("dead-letters")) == 6
        assert night.world.states == []

    def test_those_that_are_new_beside_known_ones(self, a_night):
        night = a_night(RowError(keys=("b*",), code=503))
        night.run()
        with pytest.raises(AirflowFailException, match=r"^None of 1 rows that were sent has a good answer"):
            night.run(rows=MORE_ROWS, skip_answered=True)
        assert len(night.landed()) == 6

    def test_one_good_row_is_enough(self, a_night):
        night = a_night(Blocked(keys=("a[1-5]",)))
        assert night.run()["statuses"] == {"succeeded": 1, "blocked": 5}

    def test_none_where_the_author_asks_for_none(self, a_night):
        night = a_night(Blocked())
        assert night.run(min_succeeded_rows=0)["statuses"] == {"blocked": 6}


class TestARowThatNeverHeals:
    """It goes again every night, beside known answers. A night that has no other row to send passes, and says so."""

    @pytest.mark.parametrize(
        "fault", [Blocked(keys=("b*",)), RowError(keys=("b*",), code=400)], ids=["blocked", "refused for good"]
    )
    def test_every_quiet_night_passes_with_a_warning(self, a_night, fault, capsys):
        night = a_night(fault)
        night.run(rows=MORE_ROWS)
        for _ in range(2):
            report = night.run(rows=MORE_ROWS, skip_answered=True)
            assert (report["known_count"], report["sent_count"], report["hopeless_count"]) == (6, 1, 1)
            said = capsys.readouterr().out
            assert "None of 1 rows that were sent has a good answer, and no repair can heal them; this passes" in said
        assert len(night.landed()) == 6

    def test_without_known_answers_the_night_is_a_bad_one(self, a_night):
        night = a_night(Blocked(keys=("b*",)))
        with pytest.raises(AirflowFailException, match=r"^None of 1 rows that were sent has a good answer"):
            night.run(rows=MORE_ROWS[-1:], skip_answered=True)

    @pytest.mark.parametrize("code", [403, 404], ids=["rights were lost", "media are gone"])
    def test_what_a_person_may_mend_is_no_quiet_night(self, a_night, code):
        night = a_night(RowError(keys=("b*",), code=code))
        night.run(rows=MORE_ROWS)
        with pytest.raises(AirflowFailException, match=r"^None of 1 rows that were sent has a good answer"):
            night.run(rows=MORE_ROWS, skip_answered=True)


class TestTheSourceHasNoRow:
    def test_the_first_task_fails_and_what_has_landed_stays(self, a_night):
        night = a_night()
        night.run()
        with pytest.raises(AirflowFailException, match=r"The source has no row.*what has landed before is as it was"):
            night.run(rows=[])
        assert len(night.landed()) == 6

    def test_or_is_skipped_and_says_why(self, a_night, caplog):
        night = a_night()
        night.run()
        with pytest.raises(AirflowSkipException, match="The source has no row"):
            night.run(rows=[], on_empty="skip")
        assert len(night.landed()) == 6
        assert "This task is skipped: The source has no row" in caplog.text
        assert night.contexts["prepare"]["ti"].xcoms["skip_reason"].startswith("The source has no row")

    @pytest.mark.parametrize(("replaces", "left"), [(False, 6), (True, 0)])
    def test_or_lands_the_empty_day_in_place_of_earlier_runs_where_that_is_asked_for(self, a_night, replaces, left):
        night = a_night()
        night.run()
        report = night.run(rows=[], on_empty="succeed", replace_partition=replaces)
        assert (report["request_count"], report["jobs"], len(night.landed())) == (0, [], left)
        assert len(night.world.states) == 1


class TestSeveralRunsADay:
    RUNS = ("scheduled__2026-11-22T01", "scheduled__2026-11-22T02", "manual__1", "asset_triggered__1")

    def test_each_adds_its_rows_and_one_that_is_done_again_leaves_the_same(self, a_night):
        """The second is a hand run, and then a backfill, of an hour that ran before."""
        night, rows = a_night(Blocked(keys=("*-bad",))), {}
        for run_id in self.RUNS:
            rows[run_id] = [{"id": f"{run_id}-{name}", "text": "text"} for name in ("a", "b", "bad")]
            night.run(rows=rows[run_id])
        before, ids = night.rows_by_key(), [row["id"] for each in rows.values() for row in each]
        assert before == {key: "blocked" if key.endswith("-bad") else "succeeded" for key in ids}
        night.run(rows=rows[self.RUNS[1]])
        assert night.rows_by_key() == before


class TestNothingIsSent:
    def test_because_every_row_is_known_and_the_night_is_a_good_one(self, a_night, capsys):
        night = a_night()
        night.run()
        report = night.run(skip_answered=True)
        assert (report["statuses"], report["known_count"], report["sent_count"]) == ({"succeeded": 6}, 6, 0)
        assert len(night.world.states) == 1
        assert "6 answered by an earlier run" in capsys.readouterr().out

    def test_because_it_would_cost_too_much_and_the_skip_says_the_limit_and_what_to_do(self, a_night, caplog):
        night = a_night()
        words = r"may cost up to \$0\.49\d*; the limit, max_cost_usd, is \$0\.01.*raise max_cost_usd to"
        with pytest.raises(AirflowSkipException, match=words):
            night.run(max_cost_usd=0.01, on_over_budget="skip")
        assert "This task is skipped: This batch may cost up to" in caplog.text
        assert "max_cost_usd" in night.contexts["create"]["ti"].xcoms["skip_reason"]
        assert night.world.states == []


class TestAfterTheDeadline:
    """By default late jobs are cancelled; what they have answered lands without a person."""

    LATE = {"max_requests_per_job": 3, "job_timeout": 2 * HOUR}  # noqa: RUF012 - never changed
    #: The second of two jobs never gets its turn.
    HOLD = Hold(state="JOB_STATE_PENDING", from_pending=True, job="*2/2")

    def after_the_deadline(self, night, **arguments):
        """Let the first attempt see one job that has ended, and cancel the other."""
        with pytest.raises(JobError, match="It is being cancelled"):
            night.run(**self.LATE, **arguments)
        assert night.world.states == ["SUCCEEDED", "CANCELLED"]

    def test_the_one_task_lands_both_parts(self, serve):
        night = InOneTask(serve, self.HOLD, hours=100)
        self.after_the_deadline(night)
        assert night.run(again=True, **self.LATE)["statuses"] == {"succeeded": 6}
        assert night.world.billed == [3, 0, 3]

    def test_so_does_the_group_with_a_repair_round(self, serve):
        night = InTheGroup(serve, self.HOLD, hours=100)
        self.after_the_deadline(night, repair_rounds=1)
        assert night.run(again=True, repair_rounds=1, **self.LATE)["statuses"] == {"succeeded": 6}
        assert night.world.billed == [3, 0, 3]

    def test_without_a_repair_round_the_group_lands_what_is_paid_and_fails(self, serve):
        night = InTheGroup(serve, self.HOLD, hours=100)
        self.after_the_deadline(night)
        words = r"(?s)ended as JOB_STATE_CANCELLED\..*What it answered has landed.*Clear the repair task"
        with pytest.raises(AirflowFailException, match=words):
            night.run(again=True, **self.LATE)
        assert sorted(row["row_key"] for row in night.landed()) == ["a0", "a1", "a2"]
        assert [row["status"] for row in night.landed("dead-letters")] == ["cancelled"] * 3
