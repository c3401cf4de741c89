"""Airflow's own time limits: `execution_timeout` and a sensor's `timeout`. `on_timeout` says what becomes of the job,
wherever its task waits, and the next attempt is not bound by them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, AirflowTaskTimeout

import airflow_vertex_batch as avb
from airflow_vertex_batch.core.domain.errors import JobError
from airflow_vertex_batch.emulator.scenario import Pace, Scenario
from tests.airflow.versions import TaskDeferralError, since_3_3
from tests.airflow.waiting import SlowWorld, a_context, a_whole, an_operator, deferred, resumed
from tests.emulator.worlds import INPUT, a_body, a_line

FATES = pytest.mark.parametrize(("on_timeout", "state"), [("cancel", "CANCEL"), ("fail", "RUN"), ("keep", "RUN")])
HOUR = timedelta(hours=1)
OVER = "was not done when the task's execution_timeout was over"


def running_job():
    """Return a world in which a job has run for ten minutes, and goes on until the test moves the clock."""
    return SlowWorld(1, scenario=Scenario(pace=Pace(pending_s=90, running_s=5_000, cancelling_s=60)))


def fate(world):
    """Whether the first job goes on or was cancelled."""
    state = world.states[0]
    return "CANCEL" if state.startswith("CANCEL") else "RUN" if state in {"PENDING", "RUNNING"} else state


def let_time_pass(waits):
    """Make a deferral's limit one of long ago."""
    assert waits.trigger.limit["at"] > datetime.now(UTC).timestamp()
    waits.trigger.limit["at"] -= 10 * 3600


def a_sensor(world, url, **arguments):
    """Return a sensor that waits for one job of six rows."""
    world.store.put(INPUT, *(a_line(f"k{number}") for number in range(6)))
    name = world.create(a_body())["name"]
    world.emulator.advance(691)
    return an_operator(avb.VertexBatchJobSensor, world, url, jobs=[name], **{"poll_interval": 0.01} | arguments)


class TestWhileDeferred:
    @FATES
    def test_the_wait_ends_and_on_timeout_decides(self, serve, on_timeout, state):
        world = running_job()
        task = a_whole(world, serve(world), execution_timeout=HOUR, on_timeout=on_timeout)
        context = a_context()
        waits = deferred(lambda: task.execute(context))
        ends = context["ti"].start_date + HOUR
        assert waits.trigger.limit == {"at": ends.timestamp(), "name": "execution_timeout"}
        let_time_pass(waits)
        with pytest.raises(JobError, match=OVER) as caught:
            resumed(task, context, waits)
        assert (fate(world), caught.value.retryable) == (state, True)

    def test_the_next_attempt_attaches_and_has_the_whole_time_again(self, serve):
        world = running_job()
        task, context = a_whole(world, serve(world), execution_timeout=HOUR, on_timeout="fail"), a_context()
        waits = deferred(lambda: task.execute(context))
        let_time_pass(waits)
        with pytest.raises(JobError, match=OVER):
            resumed(task, context, waits)
        context["ti"].start_date = datetime.now(UTC)
        waits = deferred(lambda: task.execute(context))
        world.emulator.advance(6_000)
        assert resumed(task, context, waits)["statuses"] == {"succeeded": 6}
        assert (world.states, sum(world.billed)) == (["SUCCEEDED"], 6)

    def test_after_a_cancel_the_next_attempt_lands_what_was_answered_and_sends_the_rest(self, serve):
        world = running_job()
        task, context = a_whole(world, serve(world), execution_timeout=HOUR), a_context()
        waits = deferred(lambda: task.execute(context))
        world.emulator.advance(2_500)
        let_time_pass(waits)
        with pytest.raises(JobError, match="It is being cancelled; rows it has answered stay"):
            resumed(task, context, waits)
        world.emulator.advance(60)
        context["ti"].start_date = datetime.now(UTC)
        waits = deferred(lambda: task.execute(context))
        world.emulator.advance(6_000)
        assert resumed(task, context, waits)["statuses"] == {"succeeded": 6}
        assert (world.states, sum(world.billed)) == (["CANCELLED", "SUCCEEDED"], 6)
        assert 0 < world.billed[0] < 6

    def test_the_log_says_when_it_will_end_and_what_then(self, serve, capsys):
        world = running_job()
        task, context = a_whole(world, serve(world), execution_timeout=HOUR, on_timeout="keep"), a_context()
        deferred(lambda: task.execute(context))
        ends = (context["ti"].start_date + HOUR).isoformat(timespec="seconds")
        assert f"execution_timeout ends this wait at {ends}; then on_timeout='keep'." in capsys.readouterr().out

    def test_without_it_only_the_job_has_a_deadline(self, serve):
        world = running_job()
        assert deferred(lambda: a_whole(world, serve(world)).execute(a_context())).trigger.limit is None


class TestInAWorker:
    @FATES
    def test_the_wait_ends_and_on_timeout_decides(self, serve, on_timeout, state):
        world, context = running_job(), a_context()
        world.at_create = lambda _number: vars(context["ti"]).update(start_date=datetime.now(UTC) - 2 * HOUR)
        task = a_whole(world, serve(world), execution_timeout=HOUR, on_timeout=on_timeout, deferrable=False)
        with pytest.raises(JobError, match=OVER):
            task.execute(context)
        assert fate(world) == state

    @FATES
    def test_also_when_airflow_s_alarm_goes_off_in_the_middle_of_a_question(self, serve, capsys, on_timeout, state):
        """The service is silent, so the wait cannot end by itself."""
        world = running_job()
        world.alarm_at_question = 3
        task = a_whole(world, serve(world), execution_timeout=HOUR, on_timeout=on_timeout, deferrable=False)
        with pytest.raises(AirflowTaskTimeout, match="Timeout, PID"):
            task.execute(a_context())
        said = "execution_timeout is over, and 1 of its jobs may still run, and bill" in capsys.readouterr().out
        assert (fate(world), said) == (state, state == "RUN")

    def test_an_attempt_that_was_replaced_leaves_the_job_to_the_other(self, serve, monkeypatch):
        world = running_job()
        world.alarm_at_question = 3
        monkeypatch.setattr("airflow_vertex_batch.edge.responsible.still_owns", lambda *_: False)
        task = a_whole(world, serve(world), execution_timeout=HOUR, deferrable=False)
        with pytest.raises(AirflowTaskTimeout, match="Timeout, PID"):
            task.execute(a_context())
        assert fate(world) == "RUN"

    def test_what_comes_after_the_wait_is_not_answered_for(self, serve, monkeypatch):
        """Airflow also kills a task that has ended, and is slow to go."""
        world = running_job()
        monkeypatch.setattr("airflow.sdk.get_current_context", lambda: {"ti": a_context()["ti"]})
        monkeypatch.setattr("airflow_vertex_batch.edge.responsible.was_ended_by_a_person", lambda _ti: True)
        task = a_sensor(world, serve(world), job_timeout=timedelta(milliseconds=1), on_timeout="fail", deferrable=False)
        with pytest.raises(JobError, match="at its deadline"):
            task.execute(a_context())
        task.on_kill()
        assert fate(world) == "RUN"


class TestASensor:
    @FATES
    @pytest.mark.parametrize("arguments", [{}, {"deferrable": False}], ids=["deferred", "in a worker"])
    def test_its_own_timeout_counts_and_no_attempt_follows(self, serve, arguments, on_timeout, state):
        world = running_job()
        task = a_sensor(world, serve(world), timeout=3600, on_timeout=on_timeout, **arguments)
        context = a_context()
        context["ti"].start_date -= 2 * HOUR
        with pytest.raises(AirflowFailException, match="was not done when the sensor's timeout was over"):
            task.execute(context)
        assert fate(world) == state

    def test_one_that_may_be_skipped_is(self, serve):
        world = running_job()
        task = a_sensor(world, serve(world), timeout=3600, soft_fail=True)
        context = a_context()
        context["ti"].start_date -= 2 * HOUR
        with pytest.raises(AirflowSkipException, match=r"sensor.s timeout was over.*It is being cancelled"):
            task.execute(context)

    def test_the_earlier_of_the_two_counts(self, serve):
        world = running_job()
        task = a_sensor(world, serve(world), timeout=3600, execution_timeout=timedelta(minutes=5))
        assert deferred(lambda: task.execute(a_context())).trigger.limit["name"] == "execution_timeout"
        task.execution_timeout = 2 * HOUR
        assert deferred(lambda: task.execute(a_context())).trigger.limit["name"] == "timeout"

    @FATES
    def test_between_two_questions_of_a_rescheduling_one_it_counts_from_the_first(self, serve, on_timeout, state):
        world = running_job()
        reschedules = {"mode": "reschedule", "deferrable": False}
        task = a_sensor(world, serve(world), timeout=3600, on_timeout=on_timeout, **reschedules)
        context = a_context()
        context["ti"].polled_at = datetime.now(UTC) - HOUR / 2
        assert not task.poke(context)
        context["ti"].polled_at = datetime.now(UTC) - 2 * HOUR
        with pytest.raises(AirflowFailException, match="was not done when the sensor's timeout was over"):
            task.poke(context)
        assert fate(world) == state

    @FATES
    def test_also_when_airflow_looks_at_the_clock_first(self, serve, capsys, on_timeout, state):
        """Its look comes right after ours: here ours was just in time."""
        from airflow.providers.common.compat.sdk import AirflowSensorTimeout

        world = running_job()
        task = a_sensor(world, serve(world), on_timeout=on_timeout, mode="reschedule", deferrable=False)
        task.limit, task.timeout = lambda _context: None, 0
        with pytest.raises(AirflowSensorTimeout, match="Sensor has timed out"):
            task.execute(a_context())
        said = "The sensor's timeout is over, and 1 of its jobs may still run, and bill" in capsys.readouterr().out
        assert (fate(world), said) == (state, state == "RUN")


class TestBegunInTheTriggerer:
    """Airflow ends such a wait itself, and gives the task to a worker only to fail it."""

    TIMED_OUT = ("__fail__", {"error": "Trigger timeout"})

    @FATES
    def test_on_timeout_decides_and_the_task_may_be_retried(self, serve, on_timeout, state):
        world = running_job()
        arguments = {"execution_timeout": HOUR, "start_from_trigger": True, "on_timeout": on_timeout}
        task = a_sensor(world, serve(world), **arguments)
        with pytest.raises(JobError, match=OVER) as caught:
            task.resume_execution(*self.TIMED_OUT, a_context())
        assert (fate(world), caught.value.retryable) == (state, True)

    @since_3_3
    @FATES
    def test_the_sensor_s_own_timeout_is_named_where_it_comes_first(self, serve, on_timeout, state):
        world = running_job()
        arguments = {"execution_timeout": HOUR, "start_from_trigger": True, "on_timeout": on_timeout}
        task = a_sensor(world, serve(world), timeout=HOUR / 2, **arguments)
        assert task.start_trigger_args.timeout == HOUR / 2
        with pytest.raises(AirflowFailException, match=r"was not done when the sensor.s timeout was over"):
            task.resume_execution(*self.TIMED_OUT, a_context())
        assert fate(world) == state

    def test_a_job_that_has_just_ended_is_handed_on(self, serve):
        world = running_job()
        task = a_sensor(world, serve(world), execution_timeout=HOUR, start_from_trigger=True)
        world.emulator.advance(6_000)
        [job] = task.resume_execution(*self.TIMED_OUT, a_context())
        assert job["state"] == "JOB_STATE_SUCCEEDED"

    def test_any_other_failure_of_the_trigger_is_airflow_s(self, serve):
        world = running_job()
        task = a_sensor(world, serve(world), start_from_trigger=True)
        with pytest.raises(TaskDeferralError, match="Trigger failure"):
            task.resume_execution("__fail__", {"error": "Trigger failure"}, a_context())
        assert fate(world) == "RUN"

    def test_a_sensor_that_may_be_skipped_is(self, serve):
        world = running_job()
        task = a_sensor(world, serve(world), start_from_trigger=True, soft_fail=True)
        with pytest.raises(AirflowSkipException, match="soft_fail"):
            task.resume_execution(*self.TIMED_OUT, a_context())
        assert fate(world) == "CANCEL"
