"""A person is asked, and `execution_timeout` is set: it counts from the answer, and nothing is bought after it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from airflow_vertex_batch.core.domain.errors import OutOfTimeError
from airflow_vertex_batch.emulator.row_faults import RowError
from airflow_vertex_batch.emulator.scenario import Pace, Scenario
from tests.airflow.versions import Parked
from tests.airflow.waiting import SlowWorld, a_context, a_whole, deferred, resumed

HOUR = timedelta(hours=1)
TOO_LATE = r"execution_timeout was over before a job was bought.*Nothing was paid for that job"


@pytest.fixture(autouse=True)
def asks(monkeypatch):
    """Nobody stores the question."""
    monkeypatch.setattr("airflow.sdk.execution_time.hitl.upsert_hitl_detail", lambda **_: None)


def a_world(*faults):
    return SlowWorld(1, scenario=Scenario(faults=faults, pace=Pace(pending_s=90, running_s=5_000, cancelling_s=60)))


def a_task(world, url, **arguments):
    limits = {"max_cost_usd": 0.01, "on_over_budget": "ask", "execution_timeout": HOUR}
    return a_whole(world, url, **limits | arguments)


def approved(task, context, at):
    """Ask, and go on as a worker does with an approval.

    :param at: when it was given; as Airflow hands it on, or as text.
    """
    with pytest.raises(Parked, check=lambda asked: asked.method_name == "execute_answered") as asked:
        task.execute(context)
    kept = json.loads(json.dumps(asked.value.kwargs))
    event = {"chosen_options": ["Approve"], "responded_by_user": {"id": "7", "name": "alice"}, "responded_at": at}
    return task.execute_answered(context, event=event, **kept)


def asked_for(hours):
    """Return the context of an attempt that has begun so many hours ago."""
    context = a_context()
    context["ti"].start_date -= hours * HOUR
    return context


class TestTheTimeOfAnAttempt:
    @pytest.mark.parametrize("spelt", [lambda at: at, datetime.isoformat], ids=["a time", "a text"])
    def test_it_begins_with_the_answer(self, serve, spelt):
        world = a_world()
        task, context, now = a_task(world, serve(world)), asked_for(10), datetime.now(UTC)
        waits = deferred(lambda: approved(task, context, spelt(now)))
        assert waits.trigger.limit == {"at": pytest.approx((now + HOUR).timestamp()), "name": "execution_timeout"}
        world.emulator.advance(6_000)
        assert resumed(task, context, waits)["statuses"] == {"succeeded": 6}
        assert world.states == ["SUCCEEDED"]

    def test_also_in_a_worker_that_waits_itself(self, serve):
        world = a_world()
        world.seconds_a_question = 10_000
        task = a_task(world, serve(world), deferrable=False)
        assert approved(task, asked_for(10), datetime.now(UTC))["statuses"] == {"succeeded": 6}
        assert world.states == ["SUCCEEDED"]

    def test_it_is_kept_over_the_waits_that_follow(self, serve):
        """Each goes on in another process: here in another operator."""
        world = a_world(RowError(keys=("a0",), code=503, times=1))
        url, context, now = serve(world), asked_for(10), datetime.now(UTC)
        arguments = {"repair_rounds": 1, "max_cost_usd": 0.49}
        waits = deferred(lambda: approved(a_task(world, url, **arguments), context, now))
        world.emulator.advance(6_000)
        again = deferred(lambda: resumed(a_task(world, url, **arguments), context, waits))
        assert again.trigger.limit == waits.trigger.limit
        assert len(world.states) == 2

    def test_a_retry_has_the_whole_time_from_its_own_start(self, serve):
        world = a_world()
        task, context = a_task(world, serve(world)), asked_for(10)
        deferred(lambda: approved(task, context, datetime.now(UTC) - HOUR / 2))
        context["ti"].start_date = datetime.now(UTC)
        ends = context["ti"].start_date + HOUR
        assert deferred(lambda: task.execute(context)).trigger.limit["at"] == ends.timestamp()


class TestNothingIsBoughtAfterIt:
    def test_when_the_worker_comes_late_after_the_answer(self, serve):
        world = a_world()
        task, context = a_task(world, serve(world)), asked_for(10)
        with pytest.raises(OutOfTimeError, match=TOO_LATE) as caught:
            approved(task, context, datetime.now(UTC) - 2 * HOUR)
        assert (world.states, caught.value.retryable) == ([], True)
        context["ti"].start_date = datetime.now(UTC)
        deferred(lambda: task.execute(context))
        assert len(world.states) == 1, "the next attempt asks nobody again"

    def test_when_a_wait_has_used_it_up_and_rows_would_go_again(self, serve):
        world = a_world(RowError(keys=("a0",), code=503, times=1))
        task, context = (
            a_task(world, serve(world), repair_rounds=1, max_cost_usd=None, on_over_budget="fail"),
            a_context(),
        )
        waits = deferred(lambda: task.execute(context))
        world.emulator.advance(6_000)
        context["ti"].start_date -= 2 * HOUR
        with pytest.raises(OutOfTimeError, match=TOO_LATE):
            resumed(task, context, waits)
        assert world.states == ["SUCCEEDED"]

    @pytest.mark.parametrize(("on_timeout", "state"), [("cancel", "CANCELLED"), ("fail", "PENDING")])
    def test_of_two_jobs_the_one_that_was_bought_in_time_is_answered_for(self, serve, capsys, on_timeout, state):
        world, context = a_world(), a_context()
        arguments = {
            "max_cost_usd": None,
            "on_over_budget": "fail",
            "max_requests_per_job": 3,
            "on_timeout": on_timeout,
        }
        task = a_task(world, serve(world), **arguments)
        world.at_create = lambda _number: vars(context["ti"]).update(start_date=datetime.now(UTC) - 2 * HOUR)
        with pytest.raises(OutOfTimeError, match=TOO_LATE):
            task.execute(context)
        is_named = "execution_timeout is over, and 1 of its jobs may still run, and bill" in capsys.readouterr().out
        assert (world.states, is_named) == ([state], on_timeout == "fail")

    def test_what_is_bought_already_lands_all_the_same(self, serve):
        world = a_world()
        task, context = a_task(world, serve(world), max_cost_usd=None, on_over_budget="fail"), a_context()
        waits = deferred(lambda: task.execute(context))
        world.emulator.advance(6_000)
        context["ti"].start_date -= 2 * HOUR
        assert resumed(task, context, waits)["statuses"] == {"succeeded": 6}
