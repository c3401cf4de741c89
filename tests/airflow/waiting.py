"""Operators that run without Airflow: a task instance that remembers, a hook over HTTP to the emulator, and a store in
memory."""

from __future__ import annotations

import asyncio
import inspect
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred
from google.auth.credentials import AnonymousCredentials

import airflow_vertex_batch as avb
from airflow_vertex_batch import triggers
from airflow_vertex_batch.core.domain.address import JobName, Uri
from airflow_vertex_batch.core.domain.errors import CannotAskError, ServiceError
from airflow_vertex_batch.core.domain.job import BatchJob, JobSpec
from airflow_vertex_batch.emulator.clock import VirtualClock
from airflow_vertex_batch.gcp.vertex import VertexClient
from airflow_vertex_batch.triggers import VertexBatchJobTrigger
from tests.emulator.worlds import World, listening

#: A dataset that is in no world.
NO_DATASET = "no_such_dataset"


class Instance:
    """A task instance: what it pushes stays, and goes through JSON."""

    id = "0199a3f0-0000-7000-8000-000000000001"
    dag_id, run_id, map_index, max_tries, try_number = "nightly", "scheduled__2026-11-22", -1, 2, 1

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.xcoms: dict[str, Any] = {}
        self.polled_at: datetime | None = None
        self.start_date = datetime.now(UTC)

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))

    def xcom_pull(self, **_: Any) -> list[Any]:
        return []

    def get_first_reschedule_date(self, _context: Any) -> datetime | None:
        return self.polled_at


def a_context(task_id: str = "batch") -> dict[str, Any]:
    run = SimpleNamespace(logical_date=datetime(2026, 11, 22, tzinfo=UTC))
    return {"ti": Instance(task_id), "dag_run": run, "params": {}}


class TimePasses(VertexClient):
    """A client before each of whose calls time passes: a worker that blocks has nobody else to move the clock."""

    def __init__(self, world: SlowWorld, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._world = world

    def get(self, name: JobName) -> BatchJob:
        self._world.emulator.advance(self._world.seconds_a_question)
        self._world.questions += 1
        if self._world.questions == self._world.alarm_at_question:
            raise AirflowTaskTimeout("Timeout, PID: 1")
        return super().get(name)

    def create(self, spec: JobSpec) -> BatchJob:
        job = super().create(spec)
        self._world.creates += 1
        self._world.at_create(self._world.creates)
        return job

    def cancel(self, name: JobName, *, once: bool = False) -> bool:
        self._world.emulator.advance(self._world.seconds_a_cancel)
        return super().cancel(name, once=once)


class SlowWorld(World):
    """A world whose clock is late: what is created in it is old.

    :param hours: how late.
    """

    def __init__(self, hours: float, **options: Any) -> None:
        super().__init__(clock=VirtualClock(datetime.now(UTC) - timedelta(hours=hours)), **options)
        self.seconds_a_question = self.seconds_a_cancel = 0.0
        #: In which question Airflow's alarm goes off, as it may in any line of a worker's; 0 for none.
        self.questions = self.alarm_at_question = 0
        #: What happens after the service has made a job and before the worker gets the answer; told how many it made.
        self.creates, self.at_create = 0, lambda _number: None

    def grow_older(self, seconds: float) -> None:
        """Let time pass for whoever reads the machine's clock: every job was created so much earlier."""
        for job in self.emulator._jobs.values():
            job.created_at -= timedelta(seconds=seconds)

    @property
    def states(self) -> list[str]:
        """The states of all jobs, oldest first."""
        return [job["state"].removeprefix("JOB_STATE_") for job in self.emulator.books()["jobs"]]

    @property
    def billed(self) -> list[int]:
        """How many rows each job was billed for, oldest job first."""
        return [job["billedRows"] for job in self.emulator.books()["jobs"]]


class LocalCloud:
    """Google as a preflight asks it: the servers of a laptop, which know no rights."""

    def __init__(self, world: World) -> None:
        self._world = world

    def has_objects(self, address: Uri) -> bool:
        if address.bucket not in self._world.store.buckets:
            raise ServiceError(f"Bucket {address.bucket} is not there", status=404)
        return True

    def dataset(self, _project: str, name: str) -> dict[str, Any]:
        if name == NO_DATASET:
            raise ServiceError(f"Dataset {name} is not there", status=404)
        return {"location": "US"}

    def __getattr__(self, name: str) -> Any:
        def ask(*_arguments: Any) -> Any:
            raise CannotAskError(f"{name} cannot be asked here")

        return ask


class Hook:
    """What an operator needs of its hook."""

    project = "demo"

    def __init__(self, world: SlowWorld, url: str, location: str | None) -> None:
        self._world, self._url, self.location = world, url, location or "global"

    def store(self) -> Any:
        return self._world.store

    def warehouse(self) -> Any:
        return self._world.warehouse

    def doctor(self) -> LocalCloud:
        return LocalCloud(self._world)

    def jobs(self, of: JobName | None = None) -> VertexClient:
        return TimePasses(self._world, AnonymousCredentials(), "demo", of.location if of else self.location, self._url)


def an_operator(kind: type, world: SlowWorld, url: str, **arguments: Any) -> Any:
    """Return an operator that reaches a world."""

    class Reaching(kind):
        def hook(self, location: str | None = None) -> Any:
            return Hook(world, url, location or self.location)

    given = {"task_id": "batch", "staging_uri": "gs://in/staging", "location": "global"} | arguments
    return Reaching(**given)


def a_whole(world: SlowWorld, url: str, **arguments: Any) -> Any:
    """Return the one-task operator over six rows."""
    return an_operator(avb.VertexBatchOperator, world, url, **six_rows() | arguments)


def six_rows() -> dict[str, Any]:
    """Return the arguments of a batch of six rows."""
    rows = [{"id": f"a{number}", "text": f"text {number}"} for number in range(6)]
    return {
        "model": "gemini-2.5-flash", "rows": rows, "prompt": "{{ text }}", "key_column": "id",
        "destination": "gs://out/landed", "poll_interval": 0.01,
    }  # fmt: skip


def deferred(call: Any) -> TaskDeferred:
    """Return how a call deferred; what it returned instead is an error."""
    try:
        made = call()
    except TaskDeferred as waits:
        return waits
    raise AssertionError(f"it did not defer: {made}")


def event_of(waits: TaskDeferred) -> dict[str, Any]:
    """Run a deferral's trigger as the triggerer does, and return its one event as the worker gets it."""

    async def run() -> list[Any]:
        trigger = VertexBatchJobTrigger(**json.loads(json.dumps(waits.trigger.serialize()[1])))
        return [event.payload async for event in trigger.run()]

    [payload] = asyncio.run(asyncio.wait_for(run(), timeout=600))
    return json.loads(json.dumps(payload))


def resumed(task: Any, context: dict[str, Any], waits: TaskDeferred) -> Any:
    """Let the triggerer wait, and go on with the task as a worker does."""
    kept = json.loads(json.dumps(waits.kwargs or {}))
    return getattr(task, waits.method_name)(context, event=event_of(waits), **kept)


class AGroup:
    """The tasks of `vertex_batch` over six rows, run one by one.

    :param contexts: each step's, put there when it begins; an attempt goes on with what is there.
    :param arguments: as for the group; each goes to the steps that know it.
    """

    _KINDS = {  # noqa: RUF012 - never changed
        "prepare": avb.VertexBatchPrepareOperator,
        "create": avb.VertexBatchCreateJobOperator,
        "wait": avb.VertexBatchJobSensor,
        "repair": avb.VertexBatchRepairOperator,
        "export": avb.VertexBatchExportOperator,
    }

    def __init__(self, world: SlowWorld, url: str, contexts: dict[str, Any] | None = None, **arguments: Any) -> None:
        self._world, self._url = world, url
        self._given = six_rows() | arguments
        self._tasks: dict[str, Any] = {}
        self.contexts = {} if contexts is None else contexts
        self.contexts |= {step: a_context(step) for step in self._KINDS if step not in self.contexts}
        self.manifest = self.run("prepare")

    def run(self, step: str, **wired: Any) -> Any:
        """Begin an attempt of one step.

        :param wired: what the steps before it returned.
        """
        known = known_arguments(self._KINDS[step])
        given = {name: value for name, value in self._given.items() if name in known}
        if "manifest" in known and step != "wait":
            given["manifest"] = self.manifest
        self._tasks[step] = an_operator(self._KINDS[step], self._world, self._url, **given | wired)
        return self._tasks[step].execute(self.contexts[step])

    def task(self, step: str) -> Any:
        """Return the task of a step that has begun."""
        return self._tasks[step]

    def resumed(self, step: str, waits: TaskDeferred) -> Any:
        """Let the triggerer wait for a step, and go on with it."""
        return resumed(self._tasks[step], self.contexts[step], waits)


def known_arguments(kind: type) -> set[str]:
    """Return the parameters of an operator, those of its bases included."""
    kinds = [cls for cls in kind.__mro__ if cls.__module__.startswith("airflow_vertex_batch.")]
    return {name for cls in kinds for name in inspect.signature(cls.__init__).parameters}


@pytest.fixture
def settles_at_once(monkeypatch):
    """A trigger that was cancelled need not wait until Airflow has written down why."""
    monkeypatch.setattr(triggers, "SETTLE_SECONDS", 0.01)


@pytest.fixture
def supervised(monkeypatch):
    """Return what puts a supervisor in place, as Airflow does when it begins a task."""
    from airflow.sdk.execution_time import task_runner

    return lambda comms: monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)


@pytest.fixture
def serve(monkeypatch, settles_at_once):
    """Return what serves a world to operators and triggers, until the test is over."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT",
        json.dumps({"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True}}),
    )
    servers = []

    def start(world):
        servers.append(listening(world))
        url = servers[-1].__enter__()
        monkeypatch.setenv("VERTEX_BATCH_EMULATOR_HOST", url)
        return url

    yield start
    for server in servers:
        server.__exit__(None, None, None)


@pytest.fixture
def warnings(caplog):
    """Return what has been said about queued jobs so far."""

    def read():
        said = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
        return [text for text in said if "has been queued for" in text]

    return read
