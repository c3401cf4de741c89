"""Tasks that wait, without a running Airflow: the operators and the trigger against the emulator over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

import airflow_vertex_batch as avb
from airflow_vertex_batch.core.domain.errors import JobError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.waiting.watch import Ended, Queued
from airflow_vertex_batch.emulator.row_faults import Missing
from airflow_vertex_batch.emulator.scenario import Pace, Scenario
from airflow_vertex_batch.triggers import VertexBatchJobTrigger, until_one_queues
from tests.airflow.versions import since_3_3
from tests.airflow.waiting import AGroup, SlowWorld, a_context, a_whole, an_operator, deferred, resumed
from tests.builders import a_job
from tests.emulator.worlds import INPUT, a_body, a_line


def cancelling_for_days():
    """Return a world of 100 hours ago, in which a job ends 99 hours after it was cancelled."""
    pace = Pace(pending_s=90, running_s=1_000, cancelling_s=99 * 3600)
    return SlowWorld(100, scenario=Scenario(pace=pace))


class TestAfterACancelOnTimeout:
    """The very next attempt lands what the cancelled job answered, and sends only the rest."""

    @pytest.mark.parametrize("running", [600, 0], ids=["with rows", "without rows"])
    def test_in_the_triggerer_even_while_the_job_is_still_being_cancelled(self, serve, running):
        world = cancelling_for_days()
        task, context = a_whole(world, serve(world), job_timeout=7200), a_context()
        waits = deferred(lambda: task.execute(context))
        world.emulator.advance(91 + running)
        with pytest.raises(JobError, match="It is being cancelled; rows it has answered stay"):
            resumed(task, context, waits)
        assert world.states == ["CANCELLING"]

        waits = deferred(lambda: task.execute(context))
        assert waits.kwargs["attempt"]["owes_repair"] is True
        world.emulator.advance(99 * 3600)
        waits = deferred(lambda: resumed(task, context, waits))
        assert waits.kwargs["attempt"]["owes_repair"] is False
        world.emulator.advance(3600)
        report = resumed(task, context, waits)
        self.check(world, report)

    def test_in_the_worker_too(self, serve):
        world = cancelling_for_days()
        task, context = a_whole(world, serve(world), job_timeout=7200, deferrable=False), a_context()
        world.seconds_a_question = 691
        with pytest.raises(JobError, match="It is being cancelled"):
            task.execute(context)
        world.seconds_a_question = 99 * 3600
        self.check(world, task.execute(context))

    @staticmethod
    def check(world, report):
        assert world.states == ["CANCELLED", "SUCCEEDED"]
        assert report["statuses"] == {"succeeded": 6}
        assert (sum(world.billed), world.billed[0] < 6) == (6, True)

    def test_the_sensor_hands_the_job_on(self, serve):
        world = cancelling_for_days()
        url, context = serve(world), a_context()
        world.store.put(INPUT, *(a_line(f"k{number}") for number in range(6)))
        name = world.create(a_body())["name"]
        task = an_operator(avb.VertexBatchJobSensor, world, url, jobs=[name], job_timeout=7200)
        world.emulator.advance(691)
        with pytest.raises(JobError, match="It is being cancelled"):
            task.execute(context)
        waits = deferred(lambda: task.execute(context))
        world.emulator.advance(99 * 3600)
        [job] = resumed(task, context, waits)
        assert (job["state"], job["successful_count"] > 0) == ("JOB_STATE_CANCELLED", True)

    def test_in_the_group_repair_sends_the_rest(self, serve):
        world = cancelling_for_days()
        group = AGroup(world, serve(world), job_timeout=7200, repair_rounds=1)
        jobs = group.run("create")
        world.emulator.advance(691)
        with pytest.raises(JobError, match="It is being cancelled"):
            group.run("wait", jobs=jobs)
        waits = deferred(lambda: group.run("wait", jobs=jobs))
        world.emulator.advance(99 * 3600)
        jobs = group.resumed("wait", waits)
        waits = deferred(lambda: group.run("repair", jobs=jobs))
        world.emulator.advance(3600)
        repairs = group.resumed("repair", waits)
        self.check(world, group.run("export", jobs=jobs, repairs=repairs))


def in_the_queue(hours=30, **scenario):
    """Return a world of so many hours ago, in which jobs wait for their turn for ever."""
    return SlowWorld(hours, scenario=Scenario(pace=Pace(pending_s=70 * 3600), **scenario))


class TestALongQueue:
    """It is said once, in the log and in the UI, and the wait goes on."""

    def sensor(self, world, url, **arguments):
        world.store.put(INPUT, a_line())
        name = world.create(a_body())["name"]
        return name, an_operator(avb.VertexBatchJobSensor, world, url, jobs=[name], **arguments)

    @staticmethod
    def begin(world):
        """Let the queue move: every job begins and ends."""
        world.emulator.advance(300 * 3600)

    def test_the_sensor_wakes_up_to_say_it(self, serve, warnings):
        world = in_the_queue(24)
        name, task = self.sensor(world, serve(world), queue_warning=25 * 3600)
        context = a_context()
        waits = deferred(lambda: task.execute(context))
        assert waits.trigger.queue_limit == {name: 25 * 3600}
        assert (warnings(), context["ti"].xcoms.get("queue_warning")) == ([], None)
        world.grow_older(3660)
        waits = deferred(lambda: resumed(task, context, waits))
        assert waits.trigger.queue_limit == {}
        assert context["ti"].xcoms["queue_warning"]["jobs"] == [name]
        [said] = warnings()
        assert f"{name} has been queued for 25.0 hours (PENDING). Up to 72 hours are normal" in said
        self.begin(world)
        [job] = resumed(task, context, waits)
        assert job["name"] == name

    @since_3_3
    def test_one_that_began_in_the_triggerer_too(self, serve, warnings):
        world = in_the_queue()
        name, task = self.sensor(world, serve(world), start_from_trigger=True)
        first = TaskDeferred(
            trigger=VertexBatchJobTrigger(**{**task.start_trigger_args.trigger_kwargs, "jobs": [name]}),
            method_name=task.start_trigger_args.next_method,
        )
        context = a_context()
        waits = deferred(lambda: resumed(task, context, first))
        assert len(warnings()) == 1
        self.begin(world)
        assert len(resumed(task, context, waits)) == 1

    def test_a_worker_that_blocks_says_it_in_place(self, serve, warnings):
        world = in_the_queue()
        name, task = self.sensor(world, serve(world), deferrable=False)
        world.seconds_a_question = 40 * 3600
        context = a_context()
        [job] = task.execute(context)
        assert (job["name"], len(warnings())) == (name, 1)
        assert context["ti"].xcoms["queue_warning"]["jobs"] == [name]

    def test_a_worker_that_reschedules_says_what_is_new(self, serve, warnings):
        world = in_the_queue()
        _, task = self.sensor(world, serve(world), deferrable=False, mode="reschedule")
        context = a_context()
        assert not task.poke(context).is_done
        assert len(warnings()) == 1
        context["ti"].polled_at = datetime.now(UTC) - timedelta(minutes=5)
        context["ti"].xcoms.clear()
        assert not task.poke(context).is_done
        assert (len(warnings()), "queue_warning" in context["ti"].xcoms) == (1, True)
        task.queue_warning = 30 * 3600 - 60
        task.poke(context)
        assert len(warnings()) == 2

    def test_none_switches_it_off(self, serve, warnings):
        world = in_the_queue()
        _, task = self.sensor(world, serve(world), queue_warning=None)
        waits = deferred(lambda: task.execute(a_context()))
        assert (waits.trigger.queue_limit, warnings()) == ({}, [])

    def test_each_attempt_says_it_once(self, serve, warnings):
        world = in_the_queue()
        _, task = self.sensor(world, serve(world))
        for _ in range(2):
            waits = deferred(lambda: task.execute(a_context()))
            assert (waits.kwargs["handled"]["warned"], waits.trigger.queue_limit) == (
                [str(name) for name in task.known.running()],
                {},
            )
        assert len(warnings()) == 2

    @pytest.mark.parametrize("deferrable", [True, False], ids=["in the triggerer", "in the worker"])
    def test_one_task_for_it_all(self, serve, warnings, deferrable):
        world = in_the_queue()
        task, context = a_whole(world, serve(world), deferrable=deferrable), a_context()
        if deferrable:
            waits = deferred(lambda: task.execute(context))
            self.begin(world)
            report = resumed(task, context, waits)
        else:
            world.seconds_a_question = 40 * 3600
            report = task.execute(context)
        assert (report["statuses"], len(warnings())) == ({"succeeded": 6}, 1)

    def test_a_repair_job_that_queues(self, serve, warnings):
        world = SlowWorld(30, scenario=Scenario(pace=Pace(running_s=1, pending_s=1), faults=(Missing(keys=("a3",)),)))
        group = AGroup(world, serve(world), repair_rounds=1, queue_warning=3600)
        jobs = group.run("create")
        world.emulator.advance(3600)
        jobs = group.run("wait", jobs=jobs)
        world.emulator.set_scenario(Scenario(pace=Pace(pending_s=70 * 3600)))
        waits = deferred(lambda: group.run("repair", jobs=jobs))
        assert len(warnings()) == 1
        self.begin(world)
        assert len(group.resumed("repair", waits)) == 1


class TestUntilOneQueues:
    """The triggerer's side of it."""

    @staticmethod
    async def wait(outcome, seconds, cancelled):
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            cancelled.append(outcome)
            raise
        return outcome

    async def test_all_outcomes_in_order(self):
        waits = [self.wait(Ended(a_job(name=f"jobs/{number}")), number / 100, []) for number in (2, 1)]
        assert [outcome.name for outcome in await until_one_queues(waits)] == ["jobs/2", "jobs/1"]

    async def test_the_first_that_queues_ends_the_other_waits(self):
        cancelled, queued, done = [], Queued(a_job(JobState.PENDING)), Ended(a_job())
        waits = [self.wait(each, when, cancelled) for each, when in ((done, 60), (queued, 0.01), (done, 0))]
        assert await until_one_queues(waits) == [queued, done]
        assert cancelled == [done]

    async def test_an_error_ends_them_too(self):
        async def fail():
            raise RuntimeError("a bug")

        cancelled = []
        with pytest.raises(RuntimeError, match="a bug"):
            await until_one_queues([self.wait(Ended(a_job()), 60, cancelled), fail()])
        assert len(cancelled) == 1

    async def test_nothing_to_wait_for(self):
        assert await until_one_queues([]) == []

    async def test_who_cancels_it_twice_is_known_by_its_reason(self):
        """Airflow asks for it before it calls `on_kill`; a wait may be slow to go, and swallow what it is told."""

        async def slow_to_go():
            try:
                await asyncio.Event().wait()
            finally:
                going.set()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()

        going = asyncio.Event()
        task = asyncio.ensure_future(until_one_queues([slow_to_go()]))
        await asyncio.wait({task}, timeout=0.01)
        task.cancel("user-action")
        await going.wait()
        task.cancel("user-action")
        with pytest.raises(asyncio.CancelledError, match="user-action"):
            await task
