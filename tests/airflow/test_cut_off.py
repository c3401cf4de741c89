"""An attempt that Airflow cuts off while it buys: each job that it has bought by then is cancelled, or named."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_vertex_batch.core.domain.errors import AmbiguousError, ServiceError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.edge.responsible import KnownJobs, RecordingJobService
from airflow_vertex_batch.emulator.scenario import Pace, Scenario
from tests.airflow.waiting import AGroup, SlowWorld, a_context, a_whole
from tests.builders import a_job, a_spec
from tests.fakes import Clock, Jobs

#: Two jobs of three rows each.
TWO_JOBS = {"max_requests_per_job": 3, "execution_timeout": timedelta(hours=1)}
ALARM = AirflowTaskTimeout("Timeout, PID: 1")
IN_A_WORKER_OR_NOT = pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "in a worker"])


@pytest.fixture
def world():
    return SlowWorld(1, scenario=Scenario(pace=Pace(pending_s=90, running_s=5_000, cancelling_s=60)))


@pytest.fixture
def ended_by_a_person(monkeypatch):
    monkeypatch.setattr("airflow.sdk.get_current_context", a_context)
    monkeypatch.setattr("airflow_vertex_batch.edge.responsible.was_ended_by_a_person", lambda _ti: True)


def when_the_second_is_made(world, happens):
    """Let something happen after the service has made a second job and before the worker knows it."""
    world.at_create = lambda number: happens() if number == 2 else None


def an_alarm():
    raise ALARM


def fates(world):
    """Of the two jobs, whether each goes on or was cancelled."""
    return ["CANCEL" if state.startswith("CANCEL") else "RUN" for state in world.states]


class TestTheAlarmWhileASecondJobIsBought:
    @IN_A_WORKER_OR_NOT
    def test_the_first_is_cancelled_and_the_second_is_told_of(self, world, serve, capsys, deferrable):
        when_the_second_is_made(world, an_alarm)
        with pytest.raises(AirflowTaskTimeout, match="PID"):
            a_whole(world, serve(world), deferrable=deferrable, **TWO_JOBS).execute(a_context())
        said = capsys.readouterr().out
        assert (fates(world), "jobs may still run" in said) == (["CANCEL", "RUN"], False)
        assert "execution_timeout is over, and the call that creates 'nightly.batch scheduled__2026-11-22 2/2'" in said

    @pytest.mark.parametrize("on_timeout", ["fail", "keep"])
    def test_or_is_named_where_it_goes_on(self, world, serve, capsys, on_timeout):
        when_the_second_is_made(world, an_alarm)
        with pytest.raises(AirflowTaskTimeout, match="PID"):
            a_whole(world, serve(world), on_timeout=on_timeout, **TWO_JOBS).execute(a_context())
        first = world.emulator.books()["jobs"][0]["name"]
        assert fates(world) == ["RUN", "RUN"]
        said = (
            f"execution_timeout is over, and 1 of its jobs may still run, and bill: {first} (on_timeout={on_timeout!r})"
        )
        assert said in capsys.readouterr().out

    def test_the_create_task_names_it_for_it_has_no_word_on_its_fate(self, world, serve, capsys):
        when_the_second_is_made(world, an_alarm)
        group = AGroup(world, serve(world), **TWO_JOBS)
        with pytest.raises(AirflowTaskTimeout, match="PID"):
            group.run("create")
        first = world.emulator.books()["jobs"][0]["name"]
        said = capsys.readouterr().out
        assert fates(world) == ["RUN", "RUN"]
        assert f"may still run, and bill: {first} (the next attempt of this task attaches to it)" in said
        assert "2/2' has no answer yet" in said

    def test_the_next_attempt_attaches_to_both(self, world, serve):
        when_the_second_is_made(world, an_alarm)
        group = AGroup(world, serve(world), **TWO_JOBS)
        with pytest.raises(AirflowTaskTimeout, match="PID"):
            group.run("create")
        assert group.run("create") == [job["name"] for job in world.emulator.books()["jobs"]]
        assert len(world.states) == 2

    def test_an_alarm_after_every_job_has_ended_names_none(self, world, serve, capsys, monkeypatch):
        task, context = a_whole(world, serve(world), deferrable=False, on_timeout="fail", **TWO_JOBS), a_context()
        world.seconds_a_question = 10_000
        monkeypatch.setattr(task, "finish", lambda *_: an_alarm())
        with pytest.raises(AirflowTaskTimeout, match="PID"):
            task.execute(context)
        assert world.states == ["SUCCEEDED", "SUCCEEDED"]
        assert "of its jobs may still run" not in capsys.readouterr().out


class TestAKillWhileASecondJobIsBought:
    @pytest.mark.usefixtures("ended_by_a_person")
    def test_the_first_is_cancelled(self, world, serve, capsys):
        task = a_whole(world, serve(world), **TWO_JOBS)

        def is_killed():
            task.on_kill()
            raise SystemExit

        when_the_second_is_made(world, is_killed)
        with pytest.raises(SystemExit, match=r"^$"):
            task.execute(a_context())
        assert fates(world) == ["CANCEL", "RUN"]
        assert "The task was ended, and the call that creates 'nightly.batch" in capsys.readouterr().out

    @pytest.mark.usefixtures("ended_by_a_person")
    def test_the_create_task_names_it(self, world, serve, capsys):
        group = AGroup(world, serve(world), **TWO_JOBS)
        when_the_second_is_made(world, lambda: group.task("create").on_kill())
        first = group.run("create")[0]
        said = capsys.readouterr().out
        assert f"The task was ended, and 1 of its jobs may still run, and bill: {first}" in said
        group.task("create").on_kill()
        assert "of its jobs may still run" not in capsys.readouterr().out, "it is over"


class TestWhatIsKnown:
    """A job is known as soon as the service has named it."""

    @pytest.fixture
    def known(self):
        return KnownJobs()

    @pytest.fixture
    def service(self):
        return Jobs(Clock())

    def test_a_job_that_was_made(self, known, service):
        job = RecordingJobService(service, known).create(a_spec())
        assert (known.running(), known.sending) == ([job.job_name], "")

    @pytest.mark.parametrize(
        ("error", "sending"),
        [(AmbiguousError("lost", status=0), a_spec().display_name), (ServiceError("no", status=403), "")],
        ids=["no clear answer", "refused"],
    )
    def test_a_job_that_may_have_been_made(self, known, service, error, sending):
        service._creates = [error]
        with pytest.raises(ServiceError, match=str(error)):
            RecordingJobService(service, known).create(a_spec())
        assert (known.running(), known.sending) == ([], sending)

    def test_the_job_that_a_lost_answer_was_about_clears_it_up(self, known):
        known.sending = "nightly"
        known.note(job := a_job(JobState.RUNNING))
        assert (known.running(), known.sending) == ([job.job_name], "")

    def test_one_that_is_expected_runs_until_it_is_seen_to_have_ended(self, known):
        job = a_job(JobState.SUCCEEDED)
        known.expect([job.job_name])
        assert known.running() == [job.job_name]
        known.note(job)
        assert known.running() == []
