"""Who starts the runs of a soak, kills servers under them, and helps where a person would?

`Soak.run` does what is due, one thing after the other, until its time is over; then it lets everything end. What came
of it, `verdict` reads from the outside.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from requests import RequestException

from bench.soak.faults import RandomFaults
from bench.soak.memory import Memory
from bench.soak.tokens import TokenServer
from stack.client import AirflowError

if TYPE_CHECKING:
    from stack.laptop import Stack

#: A run in one of six begins its waits without a worker, one keeps its worker.
ORDER = ("soak_one_task", "soak_steps", "soak_one_task", "soak_blocking", "soak_one_task", "soak_one_task")
DAGS = tuple(dict.fromkeys(ORDER))
#: A run's jobs, and the rows of each.
JOBS, ROWS_OF_A_JOB = 25, 8
JOBS_A_MINUTE = 50
#: Seconds between two scripts of faults, two looks at failed runs, two looks at memory.
_FAULTS_S, _HELP_S, _SAMPLE_S = 20.0, 30.0, 30.0
#: Times a run is begun: a busy Airflow may answer with an error.
_TRIES = 3
#: Seconds for what still runs when the last run has begun: a create whose outcome is unknown, repairs, retries.
DRAIN_S = 900.0
#: How the reason begins why a run failed that the service failed.
ENDED_AS = "a job ended as"
_ENDED_AS = re.compile(r"ended as (JOB_STATE_\w+)")


@dataclass
class Ending:
    """Why a run failed before a person cleared it."""

    dag_id: str
    run_id: str
    why: str


@dataclass
class Soak:
    """One soak.

    :param stack: what it runs in.
    :param seconds: how long runs are begun.
    :param kill_triggerer: seconds from the beginning at which the triggerer is killed.
    :param kill_scheduler: the same for the scheduler.
    :param say: is told what happens.
    """

    stack: Stack
    seconds: float
    kill_triggerer: tuple[float, ...] = ()
    kill_scheduler: tuple[float, ...] = ()
    say: Callable[[str], None] = lambda _line: None
    #: Run ids by DAG, in the order of their beginning.
    begun: list[tuple[str, str]] = field(default_factory=list)
    failed: list[Ending] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)
    #: The servers' logs so far: a server that starts again begins its log anew.
    logs: Counter[str] = field(default_factory=Counter)
    drained_s: float = 0.0

    def run(self) -> None:
        """Do it all."""
        self.memory = Memory(self.stack.airflow.servers)
        with TokenServer() as tokens:
            self._install(tokens)
            self.random_faults = RandomFaults(self.stack.env["VERTEX_BATCH_EMULATOR_HOST"])
            try:
                self._go()
            finally:
                self.random_faults.clear()
            began = time.monotonic()
            self._drain()
            self.drained_s = time.monotonic() - began
        for name in self.stack.airflow.servers:
            self._keep_log(name)

    def _install(self, tokens: TokenServer) -> None:
        client = self.stack.airflow.client
        connection = {
            "connection_id": "soak",
            "conn_type": "google_cloud_platform",
            "extra": json.dumps({"keyfile_dict": json.dumps(tokens.key()), "project": "demo"}),
        }
        client._send("POST", "connections", json=connection)  # noqa: SLF001 - the one call that it has no word for
        assert self.stack.dags is not None
        shutil.copy(Path(__file__).with_name("dags.py"), self.stack.dags / "soak.py")
        for dag_id in DAGS:
            client.wait_for_dag(dag_id, timeout_s=120)
            client.unpause(dag_id)

    def _go(self) -> None:
        """Do what is due until the time is over."""
        order, numbers = itertools.cycle(ORDER), itertools.count()
        plan: list[tuple[float, float | None, Callable[[], None]]] = [
            (0.0, _FAULTS_S, self.random_faults.change),
            (0.5, 60.0 * JOBS / JOBS_A_MINUTE, lambda: self._begin(next(order), f"soak-{next(numbers):05}")),
            (_SAMPLE_S, _SAMPLE_S, self.memory.sample),
            (_HELP_S, _HELP_S, self._help),
            *((when, None, lambda: self._kill("triggerer")) for when in self.kill_triggerer),
            *((when, None, lambda: self._kill("scheduler")) for when in self.kill_scheduler),
        ]
        began = time.monotonic()
        while plan:
            plan.sort(key=lambda item: item[0])
            when, again, act = plan.pop(0)
            if when >= self.seconds:
                break
            time.sleep(max(0.0, began + when - time.monotonic()))
            self._calmly(act)
            if again is not None:
                plan.append((when + again, again, act))
        time.sleep(max(0.0, began + self.seconds - time.monotonic()))

    def _calmly(self, act: Callable[[], None]) -> None:
        """Go on when a server is busy, or dead, for a while. What did not happen shows in the figures."""
        try:
            act()
        except (RequestException, AirflowError) as error:
            self.say(str(error))

    def _begin(self, dag_id: str, run_id: str) -> None:
        # First: a call that got no answer may have begun the run all the same, and the verdict looks for it.
        self.begun.append((dag_id, run_id))
        storage = f"{self.stack.env['STORAGE_EMULATOR_HOST']}/storage/v1/b"
        requests.post(storage, params={"project": "demo"}, json={"name": run_id}, timeout=60).raise_for_status()
        for _ in range(_TRIES):
            try:
                self.stack.airflow.client.trigger(dag_id, dag_run_id=run_id)
            except (RequestException, AirflowError) as error:
                if "answered with 409" in str(error):
                    return
                self.say(f"{run_id}: {error}")
            else:
                return

    def _kill(self, name: str) -> None:
        server = self.stack.airflow.servers[name]
        self._keep_log(name)
        # With all it started: workers that outlive a LocalExecutor's scheduler keep its database connection open, and
        # with it the locks of the runs that it was looking at, which then stand still (seen on Airflow 3.3.2).
        server.kill()
        server.launch()
        self.killed[name] += 1
        self.say(f"killed the {name}")

    def _keep_log(self, name: str) -> None:
        """Count what a log tells, and keep it: a server that starts again begins its log anew."""
        log = self.stack.airflow.servers[name].log
        shutil.copy(log, log.with_suffix(f".{self.killed[name]}.log"))
        for line in log.read_text(errors="replace").splitlines():
            for what, words in WORDS.items():
                self.logs[what] += words in line

    def _help(self) -> None:
        """Clear failed runs, as a person would who has read why."""
        client = self.stack.airflow.client
        for dag_id in DAGS:
            for run in client.runs(dag_id):
                if run["state"] == "failed":
                    task_id, why = self._why(dag_id, run["dag_run_id"])
                    self.failed.append(Ending(dag_id, run["dag_run_id"], why))
                    self.say(f"{self.failed[-1]}")
                    # What has landed, and rows that no job came to: docs/outcomes.md says to clear the repair task.
                    client.clear(dag_id, run["dag_run_id"], ["batch.repair"] if task_id == "batch.export" else None)

    def _why(self, dag_id: str, run_id: str) -> tuple[str, str]:
        """Return which task failed, and why."""
        client = self.stack.airflow.client
        for task in client.tasks(dag_id, run_id):
            if task["state"] == "failed":
                log = client.log(dag_id, run_id, task["task_id"], task["try_number"])
                found = _ENDED_AS.findall(log)
                return task["task_id"], f"{ENDED_AS} {found[-1]}" if found else f"{task['task_id']}: {log[-1500:]}"
        return "", "no task failed"

    def _drain(self) -> None:
        """Wait until every run has succeeded, or for `DRAIN_S`: what has not, the verdict tells."""
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline and not self._all_succeeded():
            time.sleep(5)
            self._calmly(self._help)

    def _all_succeeded(self) -> bool:
        try:
            runs = [(dag_id, run) for dag_id in DAGS for run in self.stack.airflow.client.runs(dag_id)]
        except (RequestException, AirflowError):
            return False
        return set(self.begun) <= {(dag_id, run["dag_run_id"]) for dag_id, run in runs if run["state"] == "success"}


#: What the servers' logs tell, by a name for it.
WORDS = {
    "triggerer blocked": "async thread was blocked",
    "fast-trigger race": "but the task instance's state attribute is",
    "trigger crashed": "Trigger exited without sending an event",
}
