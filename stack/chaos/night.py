"""How do many batches run in one Airflow, each with its own fault, and how does each end?

A `Case` is data: which DAG, what the proxy does to it, what a person does meanwhile. A `Night` runs cases side by side
and measures each by what others know: the emulator's books, the files that landed, the jobs that still run.

Invariants: a case's run id, input, staging and destination carry its name, so that no case can touch another; nothing
is measured before every run has ended.
"""

from __future__ import annotations

import dataclasses
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import requests

from stack import watchdog
from stack.chaos.proxy import Plan, Proxy, Record
from stack.chaos.tokens import SlowTokens
from stack.client import RUN_ENDED, AirflowClient, AirflowError
from stack.laptop import PROJECT, Ports, Stack
from stack.process import Server
from stack.servers import HOST

BUCKET = "chaos"
#: The one row that fails in the batch itself, and heals when it is sent again.
BAD_ROW = "bad"
KEYS = ("r1", "r2", "r3", "r4", BAD_ROW)
#: Jobs wait and run for two seconds each: long enough that every wait defers.
SPEED, PENDING_S, RUNNING_S = 20.0, 40.0, 40.0
#: Seconds that a token of the slow connection takes.
SLOW_TOKEN_S = 6.0
#: The longest wait for an event, in seconds. How long runs take side by side depends on the machine.
TIMEOUT_S = 1800.0
_LOOK_EVERY_S = 1.5
#: What a log says of a job in the queue: ours, and Google's.
_WAITS = re.compile("PENDING|current state")
_ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")
#: What lets Airflow find out within seconds that a worker, a triggerer or a scheduler is gone.
IMPATIENT = {
    # Most of them wait; some are stopped, or dead and not yet missed.
    "AIRFLOW__CORE__PARALLELISM": "16",
    # Not more impatient: on a busy machine Airflow would take the living for dead, and use up their retries.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "5",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "30",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    # Nobody edits the DAG files.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
}


@dataclass(frozen=True)
class Case:
    """One batch with one fault.

    :param name: lower-case letters, digits and ``_``; unique in a night.
    :param dag_id: the DAG that runs.
    :param plan: what the proxy does.
    :param begins: how its run begins; triggered by hand if not given.
    :param meanwhile: what happens after the run has begun; the run's end is waited for afterwards.
    :param faults: what the service does to this case's jobs, see the emulator's README.
    """

    name: str
    dag_id: str
    plan: Callable[[Scene], Plan] = lambda _scene: Plan()
    begins: Callable[[Scene], None] | None = None
    meanwhile: Callable[[Scene], None] | None = None
    faults: tuple[Mapping[str, Any], ...] = ()


@dataclass
class Outcome:
    """The result of a case.

    :param ended: the state of its run.
    :param jobs: the books' entries of its jobs, oldest first.
    :param landed: how often each row has landed, by file and key.
    :param dead: the same of the dead letters.
    """

    case: Case
    record: Record
    ended: str
    jobs: list[dict[str, Any]] = field(default_factory=list)
    landed: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)

    @property
    def running(self) -> int:
        """Jobs that have not ended."""
        return sum(not job["state"].endswith(_ENDED) for job in self.jobs)

    @property
    def repairs(self) -> int:
        """Jobs that sent rows again."""
        return sum(" repair " in job["displayName"] for job in self.jobs)

    @property
    def cancelled(self) -> int:
        """Jobs that were cancelled."""
        return sum(job["state"].endswith("CANCELLED") for job in self.jobs)


class Scene:
    """What a case can see and do while it runs."""

    def __init__(self, night: Night, case: Case) -> None:
        self.night, self.case = night, case
        self.airflow = AirflowClient(night.stack.airflow.url)
        #: What every address of the case carries.
        self.place = f"case-{case.name}"
        self.run_id = self.place
        self.is_deleted = False

    @property
    def record(self) -> Record:
        """What the proxy saw."""
        return self.night.proxy.records[self.case.name]

    def release(self) -> None:
        """Let the case's jobs go on that the service holds."""
        self.night.release(f"*{self.place}")

    def write_input(self, text: str = "row {key} of {case}", keys: Sequence[str] = KEYS) -> None:
        """Write, or edit, the rows that the batch reads."""
        rows = (self.night.line(key, text.format(key=key, case=self.case.name)) for key in keys)
        blob = self.night.bucket.blob(f"input/{self.place}.jsonl")
        blob.upload_from_string("".join(json.dumps(row) + "\n" for row in rows))

    def remove_input(self) -> None:
        """Delete the file that the batch reads."""
        self.night.bucket.blob(f"input/{self.place}.jsonl").delete()

    def forget_logs(self) -> None:
        """Delete the logs of this case's batches, and what leads to them."""
        for blob in self.night.bucket.list_blobs(prefix=f"staging/{self.place}/"):
            if "/log/" in blob.name or "/owners/" in blob.name:
                blob.delete()

    def until(self, what: str, look: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
        """Look until there is something to see, and return it.

        :raises AirflowError: when there is nothing in time.
        """
        asked_at = time.monotonic()
        while not (seen := look()):
            state = self.night.state_of(self.case.dag_id, self.run_id, asked_at)
            if state in RUN_ENDED and not (seen := look()):
                raise AirflowError(f"the run ended as {state}; waited in vain for {what}")
            if time.monotonic() > asked_at + timeout_s:
                raise AirflowError(f"waited {timeout_s:.0f} s in vain for {what}")
            time.sleep(_LOOK_EVERY_S)
        return seen

    def until_waiting(self) -> dict[str, Any]:
        """Wait until a worker or a trigger has said in its log that the job is in the queue; return its task."""

        def look() -> dict[str, Any] | None:
            where = (self.case.dag_id, self.run_id)
            for task in self.tasks("deferred", "running"):
                if _WAITS.search(self.airflow.log(*where, task["task_id"], max(task["try_number"], 1))):
                    return task
            return None

        return self.until("a task that says it waits", look)  # type: ignore[no-any-return]

    def tasks(self, *states: str) -> list[dict[str, Any]]:
        """The run's task instances in these states, or all of them."""
        found = self.airflow.tasks(self.case.dag_id, self.run_id)
        return [task for task in found if not states or task["state"] in states]

    def until_ended(self) -> str:
        """Wait until the run has ended and return its state."""
        asked_at = time.monotonic()

        def look() -> str:
            state = self.night.state_of(self.case.dag_id, self.run_id, asked_at)
            return state if state in RUN_ENDED else ""

        return str(self.until(f"{self.run_id} to end", look))

    def clear(self, tasks: Sequence[Any] | None = None, *, downstream: bool = True) -> None:
        """Clear tasks of the run (all, where none are named)."""
        self.airflow.clear(self.case.dag_id, self.run_id, None if tasks is None else list(tasks), downstream=downstream)

    def delete(self) -> None:
        """Delete the run, which has ended."""
        self.airflow.delete_run(self.case.dag_id, self.run_id)
        self.is_deleted = True

    def until_aged(self, seconds: float) -> dict[str, Any]:
        """Wait until the case's first job is so old, and return it."""

        def look() -> dict[str, Any] | None:
            job: dict[str, Any] = self.night.jobs_of(self)[0]
            age = datetime.now(UTC) - datetime.fromisoformat(job["createTime"])
            return job if age.total_seconds() > seconds else None

        return self.until(f"a job of {seconds:.0f} s", look)  # type: ignore[no-any-return]

    @property
    def staging(self) -> str:
        """The staging folder of the case."""
        return f"gs://{BUCKET}/staging/{self.place}"

    @property
    def dataset(self) -> str:
        """The dataset for the case's tables, if it makes any."""
        return self.place.replace("-", "_")

    def trigger(self) -> None:
        """Begin the run."""
        # A hundred at once would time out on a busy machine.
        with self.night.triggering:
            self.airflow.trigger(self.case.dag_id, dag_run_id=self.run_id)

    def play(self) -> str:
        """Go through the case and return how its run ended."""
        self.write_input()
        self.record.plan = self.case.plan(self)
        if self.case.begins is not None:
            self.case.begins(self)
        else:
            self.trigger()
        if self.case.meanwhile is not None:
            self.case.meanwhile(self)
        return "deleted" if self.is_deleted else self.until_ended()


class CaseBarrier:
    """Several cases that wait for each other, so that one kill strikes all of them at the same point.

    :param action: what is done once, when the last has come.
    """

    def __init__(self, parties: int, action: Callable[[], None]) -> None:
        self._barrier = threading.Barrier(parties, action, timeout=TIMEOUT_S / 2)

    def strike(self, _process: psutil.Process) -> bool:
        """Wait for the others. The caller gets no answer."""
        self.wait()
        return True

    def pass_on(self, _process: psutil.Process) -> bool:
        """Wait for the others. The caller gets its answer, if it still exists."""
        self.wait()
        return False

    def wait(self) -> None:
        """Wait for the others.

        :raises RuntimeError: when they do not come.
        """
        self._barrier.wait()


class Night:
    """One Airflow behind one proxy."""

    def __init__(self, stack: Stack, proxy: Proxy, urls: Mapping[str, str]) -> None:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery
        from google.cloud.storage import Client

        self.stack, self.proxy, self._vertex = stack, proxy, urls["VERTEX_BATCH_EMULATOR_HOST"]
        #: Where the servers are, past the proxy.
        self.env = {**stack.client_environment(), **urls}
        client = Client(
            project=PROJECT,
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": urls["STORAGE_EMULATOR_HOST"]},
        )
        self.bucket = client.create_bucket(BUCKET)
        self.warehouse = bigquery.Client(
            project=PROJECT,
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": urls["BIGQUERY_EMULATOR_HOST"]},
        )
        self._airflow = AirflowClient(stack.airflow.url)
        #: How a row of the input looks, from its key and its text.
        self.line: Callable[[str, str], dict[str, Any]] = lambda key, text: {"id": key, "text": text}
        self._dags: set[str] = set()
        self.triggering = threading.Semaphore(2)
        self._lock = threading.Lock()
        self._states: dict[tuple[str, str], str] = {}
        self._looked_at = 0.0
        self._servers = threading.Lock()
        self._barriers: dict[str, CaseBarrier] = {}
        self._over = threading.Event()
        self._second: Server | None = None

    def books(self) -> list[dict[str, Any]]:
        """Every job the service ever created."""
        answer = requests.get(f"{self._vertex}/emulator/books", timeout=300)
        return answer.json()["jobs"]  # type: ignore[no-any-return]

    def run(self, cases: Sequence[Case]) -> list[Outcome]:
        """Run cases side by side and measure them when the last has ended. Tell the service before: `behave`."""
        scenes = [Scene(self, case) for case in cases]
        self._open({case.dag_id for case in cases})
        with ThreadPoolExecutor(max(len(scenes), 1)) as pool:
            ended = list(pool.map(_played, scenes))
        return list(self._measured(scenes, ended))

    def keep_up(self) -> None:
        """Start a scheduler or a triggerer that has died again, as a machine's supervisor does, until the night is
        over.
        """
        while not self._over.wait(1.0):
            for name in ("airflow scheduler", "airflow triggerer"):
                with self._servers:
                    if self.stack.servers[name].pid is None:
                        self.stack.servers[name].launch()

    def end(self) -> None:
        """Start nothing any more."""
        self._over.set()
        if self._second is not None:
            self._second.kill()

    def kill(self, name: str) -> None:
        """SIGKILL a server of Airflow and everything that it has started."""
        with self._servers:
            self.stack.servers[f"airflow {name}"].kill()

    def crash(self, name: str) -> None:
        """SIGKILL a server of Airflow; what it has started lives on."""
        with self._servers:
            self.stack.servers[f"airflow {name}"].crash()

    def stall_triggerer(self) -> None:
        """Stop the triggerer, as a machine does that has no time for it, and start another one."""
        first = self.stack.servers["airflow triggerer"]
        for process in watchdog.family(first.pid or 0)[::-1]:
            process.suspend()
        self._second = dataclasses.replace(first, name="second triggerer", log=self.stack.log("second-triggerer"))
        self._second.launch()

    def wake_triggerer(self) -> None:
        """Let the stopped triggerer go on where it was."""
        for process in watchdog.family(self.stack.servers["airflow triggerer"].pid or 0):
            process.resume()

    def barrier(self, name: str, parties: int, action: Callable[[], None]) -> CaseBarrier:
        """Return the one gathering of this name."""
        with self._servers:
            return self._barriers.setdefault(name, CaseBarrier(parties, action))

    def behave(self, cases: Sequence[Case], *, pending_s: float = PENDING_S) -> None:
        """Tell the service what happens to whom: once, since it forgets what it was told before.

        :param pending_s: how long a job stays in the queue, in the service's seconds.
        """
        bad = {"do": "row_error", "code": 503, "keys": [f"*{BAD_ROW}*"]}
        faults = [{**fault, "job": f"*case-{case.name}"} for case in cases for fault in case.faults]
        # A repair job's name goes on after that of the case.
        faults += [{**bad, "job": f"*case-{case.name}"} for case in cases] + [{**bad, "labels": {"avb-round": "0"}}]
        scenario: dict[str, Any] = {"pace": {"pending_s": pending_s, "running_s": RUNNING_S}, "faults": faults}
        answer = requests.put(f"{self._vertex}/emulator/scenario", json=scenario, timeout=300)
        if not answer.ok:
            raise ValueError(answer.text)

    def release(self, job: str) -> None:
        """Let held jobs go on.

        :param job: a glob on their display names.
        :raises ValueError: when no such job is held.
        """
        answer = requests.post(f"{self._vertex}/emulator/release", json={"job": job}, timeout=300)
        if not answer.ok:
            raise ValueError(answer.text)

    def state_of(self, dag_id: str, run_id: str, not_before: float) -> str:
        """Return a run's state as it was at some moment after `not_before`: all who ask share one look at Airflow."""
        with self._lock:
            if time.monotonic() - self._looked_at > _LOOK_EVERY_S:
                began = time.monotonic()
                runs = [(dag, run) for dag in list(self._dags) for run in self._airflow.runs(dag)]
                self._states = {(dag, run["dag_run_id"]): run["state"] for dag, run in runs}
                self._looked_at = began
            return self._states.get((dag_id, run_id), "") if self._looked_at >= not_before else ""

    def _open(self, dag_ids: Iterable[str]) -> None:
        for dag_id in sorted(set(dag_ids) - self._dags):
            self._airflow.wait_for_dag(dag_id)
            self._airflow.unpause(dag_id)
            self._dags.add(dag_id)

    def _measured(self, scenes: Sequence[Scene], ended: Sequence[str]) -> Iterator[Outcome]:
        for scene, state in zip(scenes, ended, strict=True):
            outcome = Outcome(scene.case, scene.record, state, self.jobs_of(scene))
            # A job that was cancelled a moment ago needs one to end, on a busy machine a long one.
            deadline = time.monotonic() + 60
            while outcome.running and time.monotonic() < deadline:
                time.sleep(0.5)
                outcome.jobs = self.jobs_of(scene)
            for place, keys in (*self._files_of(scene), *self._tables_of(scene)):
                counts = outcome.dead if re.search("dead.letters", place) else outcome.landed
                counts.update(f"{place} {key}" for key in keys)
            yield outcome

    def _files_of(self, scene: Scene) -> Iterator[tuple[str, list[str]]]:
        """Yield the files that have landed, with the keys of their rows."""
        for blob in self.bucket.list_blobs(prefix=f"landed/{scene.place}/"):
            yield blob.name, [json.loads(line)["row_key"] for line in blob.download_as_text().splitlines()]

    def _tables_of(self, scene: Scene) -> Iterator[tuple[str, list[str]]]:
        """Yield the tables that rows have landed in, with their keys."""
        if scene.case.begins is None or scene.dataset not in {one.dataset_id for one in self.warehouse.list_datasets()}:
            return
        for table in list(self.warehouse.list_tables(scene.dataset)):
            if table.table_id.startswith("answers"):
                rows = self.warehouse.query(f"SELECT row_key FROM `{scene.dataset}.{table.table_id}`").result()  # noqa: S608
                yield table.table_id, [row["row_key"] for row in rows]

    def jobs_of(self, scene: Scene) -> list[dict[str, Any]]:
        """Return the books' entries of a case's jobs, oldest first."""
        return [job for job in self.books() if f"/{scene.place}/" in f"{job['output']}/"]


def _played(scene: Scene) -> str:
    """Run what happens meanwhile in a case. An error in one case must not hide the results of the others."""
    try:
        return scene.play()
    except (AirflowError, LookupError, OSError, RuntimeError, ValueError) as error:
        return f"not played: {error}"


@contextmanager
def a_night(state: Path, dags: Path, env: Mapping[str, str] | None = None) -> Iterator[Night]:
    """Start the servers, the proxy in front of them, and an Airflow that only knows the proxy."""
    ports = Ports().resolved()
    names = {"STORAGE": ports.storage, "VERTEX_BATCH": ports.vertex, "BIGQUERY": ports.bigquery}
    urls = {f"{name}_EMULATOR_HOST": f"http://{HOST}:{port}" for name, port in names.items()}
    with Proxy(urls) as proxy, SlowTokens(SLOW_TOKEN_S) as tokens:
        mine = {
            "VERTEX_BATCH_PROJECT": PROJECT,
            "VERTEX_BATCH_BUCKET": BUCKET,
            "AIRFLOW__VERTEX_BATCH__LOCATION": "us-central1",
        }
        everything = {**proxy.env, **tokens.env, **mine, **IMPATIENT, **(env or {})}
        with Stack(state, dags=dags, ports=ports, speed=SPEED, env=everything) as stack:
            night = Night(stack, proxy, urls)
            keeper = threading.Thread(target=night.keep_up, daemon=True)
            keeper.start()
            try:
                yield night
            finally:
                night.end()
                keeper.join()
