"""Who may cancel a job? Only the attempt that still owns it, and on a kill only if a person ended the task."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest
from airflow.sdk.execution_time.context import set_current_context
from airflow.triggers.base import BaseTrigger

from airflow_vertex_batch.core.domain.address import JobName
from airflow_vertex_batch.core.domain.errors import JobError, LogError
from airflow_vertex_batch.edge import compat
from airflow_vertex_batch.emulator.faults import Http
from airflow_vertex_batch.emulator.scenario import Scenario
from airflow_vertex_batch.hooks import VertexBatchHook
from airflow_vertex_batch.sensors import VertexBatchJobSensor
from airflow_vertex_batch.triggers import VertexBatchJobTrigger
from tests.airflow.versions import since_3_3
from tests.airflow.waiting import SlowWorld
from tests.emulator.worlds import a_body, listening

MY_ID, ANOTHER_ID = str(uuid4()), str(uuid4())
EARLIER, MINE, ANOTHER = f"9:{ANOTHER_ID}", f"10:{MY_ID}", f"11:{ANOTHER_ID}"


class Supervisor:
    """What the process that a task or a trigger runs in asks Airflow, in place of the API server."""

    def __init__(self, state: str, owner: str | None) -> None:
        self.state, self.owner = state, owner

    def send(self, msg):
        from airflow.sdk.execution_time import comms

        match msg:
            case comms.GetTaskStates():
                return comms.TaskStatesResult(task_states={"r": {"wait": self.state}})
            case comms.GetXCom(key=compat.ATTEMPT_KEY, dag_id="d", task_id="wait", run_id="r", map_index=-1):
                return comms.XComResult(key=msg.key, value=self.owner)
        raise AssertionError(msg)


def instance() -> SimpleNamespace:
    """A task instance as the triggerer knows it: of the try that deferred."""
    where = {"dag_id": "d", "task_id": "wait", "run_id": "r", "map_index": -1}
    return SimpleNamespace(id=MY_ID, try_number=10, max_tries=0, start_date=datetime.now(UTC), **where)


@pytest.fixture
def world(monkeypatch, settles_at_once):
    """An emulator with one job that was created an hour ago, over HTTP."""
    connection = {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True}}
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", json.dumps(connection))
    world = SlowWorld(hours=1)
    with listening(world) as url:
        monkeypatch.setenv("VERTEX_BATCH_EMULATOR_HOST", url)
        world.created = world.create(a_body())
        world.job = world.created["name"]
        # A triggerer has asked for its job before it is told to cancel it: what is imported for that, seconds on a busy
        # machine, is no part of the time that a kill has.
        VertexBatchHook().async_jobs(JobName.parse(world.job))
        yield world


@pytest.fixture
def airflow(supervised):
    """What Airflow says about the task."""

    def says(state: str, owner: str | None) -> Supervisor:
        supervisor = Supervisor(state, owner)
        supervised(supervisor)
        return supervisor

    return says


@pytest.fixture
def two_more(world):
    """Three jobs: the service refuses to cancel the first and stumbles over the second; the third is fine."""
    jobs = [world.created, *(world.create(a_body(displayName=name)) for name in ("second", "third"))]
    refused, busy = (
        Http(on="cancel", status=403, job=world.created["displayName"]),
        Http(on="cancel", status=503, job="second"),
    )
    world.emulator.set_scenario(Scenario(faults=(refused, busy)))
    yield [job["name"] for job in jobs]
    assert ["CANCEL" in world.get(job)["state"] for job in jobs] == [False, True, True]
    world.emulator.script.check_used()


def cancelled(world) -> bool:
    """Whether somebody cancelled the job."""
    return "CANCEL" in world.get(world.created)["state"]


class TestAKilledTrigger:
    """Airflow also calls it after a clear, and on a triggerer that lost its triggers to another."""

    @pytest.mark.parametrize(
        ("state", "owner", "attempt", "cancels"),
        [
            ("failed", MINE, MINE, True),
            ("success", MINE, MINE, True),
            ("skipped", MINE, MINE, True),
            ("failed", None, None, True),
            ("deferred", MINE, MINE, False),
            ("scheduled", MINE, MINE, False),
            ("running", ANOTHER, MINE, False),
            ("failed", ANOTHER, MINE, False),
            ("success", ANOTHER, MINE, False),
            ("failed", None, MINE, False),
            ("failed", EARLIER, None, True),
            ("failed", MINE, None, False),
            ("failed", ANOTHER, None, False),
            ("failed", ANOTHER_ID, None, False),
            ("failed", MY_ID, MY_ID, True),
            ("failed", MY_ID, MINE, True),
            ("failed", ANOTHER_ID, MINE, False),
        ],
        ids=[
            *("marked failed", "marked success", "skipped", "marked failed, begun in the triggerer"),
            *("moved to another triggerer", "cleared", "the new attempt runs", "the new attempt has failed"),
            *("the new attempt is done", "the new attempt begins"),
            *(
                "begun in the triggerer, the last attempt's worker left a note",
                "begun in the triggerer, then by a worker",
            ),
            *("begun in the triggerer, a worker has begun the next", "begun in the triggerer, a note without a number"),
            *("of an older version", "noted by an older version", "another's, noted by an older version"),
        ],
    )
    async def test_it_cancels_what_is_still_its_own(self, world, airflow, state, owner, attempt, cancels):
        airflow(state, owner)
        trigger = VertexBatchJobTrigger([world.job], attempt=attempt)
        trigger.task_instance = instance()
        await trigger.on_kill()
        assert cancelled(world) is cancels

    async def test_a_job_s_trouble_is_no_other_s(self, two_more, airflow, capsys):
        airflow("failed", MINE)
        trigger = VertexBatchJobTrigger(two_more, attempt=MINE)
        trigger.task_instance = instance()
        await trigger.on_kill()
        assert f"1 of its jobs may still run, and bill: {two_more[0]} (HTTP 403" in capsys.readouterr().out

    async def test_unless_it_was_told_not_to(self, world, airflow):
        airflow("failed", MINE)
        trigger = VertexBatchJobTrigger([world.job], attempt=MINE, cancel_on_kill=False)
        trigger.task_instance = instance()
        await trigger.on_kill()
        assert not cancelled(world)


async def given_up(work, timeout):  # noqa: ASYNC109 - as `asyncio.wait_for` has it
    """Wait as `asyncio.wait_for` of Python 3.11: a cancel while it cancels `work` ends it at once."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=timeout)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task})
        raise


class TestAsAirflowKills:
    """It cancels the waiting trigger, and goes on cancelling it until it is over: about once a second, here every
    50 ms.
    """

    async def test_two_503s_on_the_cancel_are_survived(self, world, airflow):
        airflow("failed", MINE)
        busy = Http(on="cancel", status=503, times=2)
        world.emulator.set_scenario(Scenario(faults=(busy,)))
        trigger = VertexBatchJobTrigger([world.job], attempt=MINE)
        trigger.task_instance = instance()
        task = asyncio.ensure_future(self.run_trigger(trigger))
        while not task.done() and not world.emulator.books()["calls"].get("get"):
            await asyncio.wait({task}, timeout=0.01)
        while not task.done():
            task.cancel("user-action")
            await asyncio.wait({task}, timeout=0.05)
        assert cancelled(world)
        world.emulator.script.check_used()

    async def test_who_gives_on_kill_up_still_waits_for_its_end(self, world, airflow):
        """`asyncio.wait_for` of Python 3.11 is over at the second cancel, whatever it waits for."""
        airflow("failed", MINE)
        world.emulator.set_scenario(Scenario(faults=(Http(on="cancel", status=503, times=2),)))
        trigger = VertexBatchJobTrigger([world.job], attempt=MINE)
        trigger.task_instance = instance()
        task = asyncio.ensure_future(self.run_trigger(trigger, wait_for=given_up))
        while not task.done() and not world.emulator.books()["calls"].get("get"):
            await asyncio.wait({task}, timeout=0.01)
        while not task.done():
            task.cancel("user-action")
            await asyncio.wait({task}, timeout=0.05)
        assert cancelled(world)
        world.emulator.script.check_used()

    @pytest.mark.parametrize(("state", "ends"), [("skipped", True), ("running", False)])
    async def test_a_cancel_that_leads_past_on_kill_is_survived(self, world, airflow, state, ends):
        """It comes while Airflow writes into its log that it is about to call it."""
        airflow(state, MINE)
        trigger = VertexBatchJobTrigger([world.job], attempt=MINE)
        trigger.task_instance = instance()
        full = asyncio.Event()
        task = asyncio.ensure_future(self.run_trigger(trigger, full.wait))
        while not task.done() and not world.emulator.books()["calls"].get("get"):
            await asyncio.wait({task}, timeout=0.01)
        while not task.done():
            task.cancel("user-action")
            await asyncio.wait({task}, timeout=0.05)
        assert cancelled(world) is ends

    @since_3_3
    async def test_a_triggerer_that_stops_asks_nothing(self, world, airflow):
        airflow("failed", MINE)
        trigger = VertexBatchJobTrigger([world.job], attempt=MINE)
        trigger.task_instance = instance()
        task = asyncio.ensure_future(self.run_trigger(trigger))
        while not task.done() and not world.emulator.books()["calls"].get("get"):
            await asyncio.wait({task}, timeout=0.01)
        task.cancel()
        await asyncio.wait({task})
        assert not cancelled(world)

    @staticmethod
    async def run_trigger(trigger, log=lambda: asyncio.sleep(0), wait_for=asyncio.wait_for):
        """As `run_trigger` of Airflow 3.3.2 (airflow/jobs/triggerer_job_runner.py).

        :param log: writes a line.
        """
        try:
            async for _ in trigger.run():
                pass
        except asyncio.CancelledError as error:
            if error.args and error.args[0] == "user-action":
                await log()
                await wait_for(trigger.on_kill(), timeout=600)
            raise
        finally:
            with contextlib.suppress(Exception):
                await trigger.cleanup()


class TestAsAirflowBelow33Kills:
    """It knows no `on_kill`: it cancels the waiting trigger without a reason, and then calls `cleanup`."""

    @pytest.fixture(autouse=True)
    def below_3_3(self, monkeypatch):
        monkeypatch.delattr(BaseTrigger, "on_kill", raising=False)

    @pytest.fixture
    def waits(self, world):
        """A trigger that waits for a job, and the task that runs it."""

        async def begin():
            trigger = VertexBatchJobTrigger([world.job], attempt=MINE)
            trigger.task_instance = instance()
            task = asyncio.ensure_future(self.run_trigger(trigger))
            while not task.done() and not world.emulator.books()["calls"].get("get"):
                await asyncio.wait({task}, timeout=0.01)
            return task

        return begin

    @pytest.mark.parametrize(
        ("state", "owner", "cancels"),
        [
            *(("failed", MINE, True), ("success", MINE, True), ("skipped", MINE, True)),
            *(("deferred", MINE, False), ("scheduled", MINE, False), ("failed", ANOTHER, False)),
        ],
        ids=["failed", "success", "skipped", "moved", "cleared", "another attempt has failed"],
    )
    async def test_the_state_of_the_task_says_whether_a_person_ended_it(
        self, world, airflow, waits, state, owner, cancels
    ):
        airflow(state, owner)
        task = await waits()
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=0.05)
        assert cancelled(world) is cancels

    def test_a_triggerer_that_stops_asks_nothing(self, world, airflow, waits):
        airflow("failed", MINE)
        asyncio.run(waits())
        assert not cancelled(world)

    @staticmethod
    async def run_trigger(trigger):
        """As `run_trigger` of Airflow 3.1.8 and 3.2.2 (airflow/jobs/triggerer_job_runner.py)."""
        try:
            async for _ in trigger.run():
                pass
        finally:
            with contextlib.suppress(Exception):
                await trigger.cleanup()


class TestTheDeadline:
    """A triggerer that wakes up late may find its deadline over, and its task in other hands."""

    @pytest.mark.parametrize(
        ("owner", "attempt", "cancels"),
        [(MINE, MINE, True), (ANOTHER, MINE, False), (EARLIER, None, True), (ANOTHER, None, False)],
        ids=["its own", "another's", "begun in the triggerer after another", "begun in the triggerer before another"],
    )
    async def test_it_cancels_what_is_still_its_own(self, world, airflow, owner, attempt, cancels):
        airflow("deferred", owner)
        trigger = VertexBatchJobTrigger([world.job], timeout=0.001, attempt=attempt)
        trigger.task_instance = instance()
        [event] = [event async for event in trigger.run()]
        [outcome] = event.payload["outcomes"]
        assert (outcome["type"], outcome["cancelled"]) == ("timed_out", cancels)
        assert cancelled(world) is cancels

    async def test_without_a_task_nobody_else_can_own_the_job(self, world):
        [event] = [event async for event in VertexBatchJobTrigger([world.job], timeout=0.001).run()]
        assert event.payload["outcomes"][0]["cancelled"]
        assert cancelled(world)


class TestADeferral:
    """The attempt that waits says so before it leaves the worker."""

    def test_the_trigger_carries_its_attempt_and_airflow_knows_it(self, world):
        from airflow.providers.common.compat.sdk import TaskDeferred

        pushed = {}
        ti = instance()
        ti.xcom_push = pushed.__setitem__
        with pytest.raises(TaskDeferred, check=lambda left: left.method_name == "execute_complete") as deferred:
            VertexBatchJobSensor(task_id="wait", jobs=[world.job]).execute({"ti": ti})
        _, arguments = deferred.value.trigger.serialize()
        assert arguments["attempt"] == pushed[compat.ATTEMPT_KEY] == MINE


class TestADeadlineInAWorker:
    """A worker that stalled finds out the same way."""

    @pytest.mark.parametrize(("owner", "cancels"), [(MINE, True), (ANOTHER, False)], ids=["its own", "another's"])
    def test_it_cancels_what_is_still_its_own(self, world, airflow, owner, cancels):
        supervisor, ti = airflow("running", None), instance()
        # Another attempt takes over between this one's first look and its deadline.
        ti.xcom_push = lambda _key, _value: setattr(supervisor, "owner", owner)
        sensor = VertexBatchJobSensor(
            task_id="wait", jobs=[world.job], deferrable=False, job_timeout=timedelta(milliseconds=1)
        )
        error, words = (JobError, "is being cancelled") if cancels else (LogError, "Try 11 of this task has begun")
        with pytest.raises(error, match=words):
            sensor.execute({"ti": ti})
        assert cancelled(world) is cancels


class TestAKilledWorker:
    """Waiting in a worker is no different."""

    @pytest.mark.parametrize(
        ("state", "owner", "cancels"),
        [("failed", MINE, True), ("failed", ANOTHER, False), ("running", MINE, False), ("restarting", MINE, False)],
        ids=["marked failed", "another attempt's", "a worker that stops", "cleared"],
    )
    def test_it_cancels_what_is_still_its_own(self, world, airflow, state, owner, cancels):
        airflow(state, owner)
        sensor = VertexBatchJobSensor(task_id="wait", jobs=[world.job], deferrable=False)
        context = {"ti": instance()}
        with set_current_context(context), sensor.responsible_for_jobs(context, sensor.hook(), sensor._names()):
            sensor.on_kill()
        assert cancelled(world) is cancels

    def test_a_job_s_trouble_is_no_other_s(self, two_more, airflow, capsys):
        airflow("failed", MINE)
        sensor = VertexBatchJobSensor(task_id="wait", jobs=two_more, deferrable=False)
        context = {"ti": instance()}
        with set_current_context(context), sensor.responsible_for_jobs(context, sensor.hook(), sensor._names()):
            sensor.on_kill()
        assert f"1 of its jobs may still run, and bill: {two_more[0]} (HTTP 403" in capsys.readouterr().out

    def test_it_connects_with_what_the_wait_has_used(self, world, airflow):
        """A token takes seconds, and a kill has five."""
        airflow("failed", MINE)
        sensor = VertexBatchJobSensor(task_id="wait", jobs=[world.job], deferrable=False)
        hook, sensor.hook = sensor.hook(), pytest.fail
        context = {"ti": instance()}
        with set_current_context(context), sensor.responsible_for_jobs(context, hook, sensor._names()):
            sensor.on_kill()
        assert cancelled(world)


class TestOwning:
    """An attempt that wakes up late does not take the jobs back."""

    @pytest.mark.parametrize("owner", [None, EARLIER, MINE, ANOTHER_ID], ids=["nobody", "earlier", "mine", "of 0.1"])
    def test_the_latest_attempt_notes_its_token(self, airflow, owner):
        airflow("running", owner)
        pushed = {}
        ti = SimpleNamespace(**vars(instance()), xcom_push=pushed.__setitem__)
        assert compat.take_ownership(ti) == MINE
        assert pushed == {compat.ATTEMPT_KEY: MINE}

    def test_an_earlier_one_stops_before_it_does_anything(self, airflow):
        airflow("running", ANOTHER)
        with pytest.raises(LogError, match=r"Try 11 of this task has begun.*Nothing was sent"):
            compat.take_ownership(SimpleNamespace(**vars(instance()), xcom_push=pytest.fail))
