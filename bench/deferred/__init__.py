"""What do two thousand deferred tasks cost one real triggerer, and how late does it see a job's end?

A real Airflow, the emulator over HTTP. The tasks are put where a worker leaves them when it defers (`defer`), so that
two cores need not start two thousand workers. Two thousand jobs stay in the queue. Then two hundred more come, whose
jobs end within a minute, and the database is watched for the moment at which each of their tasks leaves ``deferred``
(the trigger's event has arrived) and the one at which a worker has begun it again, which on two cores is a matter of
starting workers. Beside it, two thousand triggers of Airflow's own that do nothing but wait for tomorrow: how often
does the triggerer say that its loop was blocked by those?
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import requests

from bench.poller import create_one
from stack.watchdog import family

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stack.laptop import Stack

#: Tasks of the DAG, and its runs.
TASKS, RUNS = 200, 10
_COUNT = TASKS * RUNS
#: Seconds watched with all deferred, and the first and last end, from the creation of the jobs that end.
_STEADY_S, _ENDS = 120.0, (45.0, 105.0)
#: Seconds between two questions about a job: the default of the Google provider's trigger.
_TICK = 10.0
_FOR_EVER_S = 1e6
_SETTLE_S, _TIMEOUT_S, _LOOK_S = 60.0, 600.0, 0.25
_BLOCKED = re.compile(r"async thread was blocked for ([0-9.]+) seconds")
_SETTINGS = {
    "AIRFLOW__TRIGGERER__CAPACITY": "4000",
}


@dataclass
class Window:
    """What a while cost: calls by operation, the triggerer's processor seconds."""

    seconds: float
    calls: Counter[str]
    cpu_s: float

    @property
    def calls_a_minute(self) -> float:
        """Calls of any kind."""
        return self.calls.total() / self.seconds * 60


@dataclass
class Found:
    """All figures."""

    picked_up_s: float = 0.0
    steady: Window | None = None
    ending: Window | None = None
    rss_before: float = 0.0
    rss: float = 0.0
    fired: list[float] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)
    #: Seconds of each warning of a blocked loop, by phase.
    blocked: dict[str, list[float]] = field(default_factory=dict)


def measure() -> tuple[list[str], list[list[object]]]:
    """Measure, and return the figures."""
    from stack.laptop import PROJECT, Stack

    env = {
        "AIRFLOW__VERTEX_BATCH__STAGING_URI": "gs://bench/vertex-batch",
        "AIRFLOW__VERTEX_BATCH__LOCATION": "us-central1",
        "VERTEX_BATCH_PROJECT": PROJECT,
        **_SETTINGS,
    }
    found = Found()
    for act in (_Bench.idle, _Bench.run):
        with tempfile.TemporaryDirectory() as home:
            dags = Path(home, "dags")
            dags.mkdir()
            shutil.copy(Path(__file__).with_name("dags.py"), dags / "waiting.py")
            with Stack(Path(home, "stack"), dags=dags, with_bigquery=False, speed=1.0, env=env, say=_say) as stack:
                act(_Bench(stack, found))
    return ["", ""], _table(found)


class _Bench:
    """One measurement in a running stack."""

    def __init__(self, stack: Stack, found: Found) -> None:
        from sqlalchemy import create_engine

        self._stack, self._url = stack, stack.env["VERTEX_BATCH_EMULATOR_HOST"]
        self._found, self._own_gets, self._warned = found, 0, 0
        self._engine = create_engine(stack.airflow.database_url)

    def idle(self) -> None:
        """Let two thousand triggers of Airflow's own wait for tomorrow."""
        self._stack.airflow.client.wait_for_dag("waiting", timeout_s=180)
        for run in range(RUNS):
            run_id = f"idle-{run}"
            self._stack.airflow.client.trigger("waiting", dag_run_id=run_id)
            self._defer(run_id, {f"wait_{number}": None for number in range(TASKS)})
        self._wait_until_triggered(_COUNT)
        time.sleep(_SETTLE_S)
        self._note_blocked("2,000 of Airflow's own triggers, starting")

    def run(self) -> None:
        """Let two thousand wait, look on, then let some more see their jobs end."""
        client, found = self._stack.airflow.client, self._found
        client.wait_for_dag("waiting", timeout_s=180)
        found.rss_before = self._rss()
        for run in range(RUNS):
            self._begin(f"queued-{run}", [_FOR_EVER_S] * TASKS)
        began = time.monotonic()
        self._wait_until_triggered(_COUNT)
        found.picked_up_s = time.monotonic() - began
        _say(f"{_COUNT} triggers had a triggerer {found.picked_up_s:.0f} s later")
        # Until the last trigger has begun and asked once.
        time.sleep(_SETTLE_S)
        self._note_blocked("2,000 of ours, starting")
        found.steady = self._window(lambda: time.sleep(_STEADY_S))
        self._note_blocked("waiting")
        found.rss = self._rss()
        chance = random.Random(4)
        names = self._begin("ending", [chance.uniform(*_ENDS) for _ in range(TASKS)])
        client.unpause("waiting")
        self._wait_until_triggered(_COUNT + TASKS)
        found.ending = self._window(lambda: self._watch(names))
        self._note_blocked("200 of 2,200 ending")

    def _note_blocked(self, phase: str) -> None:
        """Note the triggerer's warnings since the last phase."""
        log = self._stack.airflow.servers["triggerer"].log.read_text(errors="replace")
        warned = [float(seconds) for seconds in _BLOCKED.findall(log)]
        self._found.blocked[phase], self._warned = warned[self._warned :], len(warned)

    # Jobs and runs ----------------------------------------------------------------------------------------------------

    def _begin(self, run_id: str, seconds: list[float]) -> dict[str, str]:
        """Create the jobs of one run, which end after so many seconds, and defer its tasks.

        :returns: the job of each task.
        """
        self._stack.airflow.client.trigger("waiting", dag_run_id=run_id)
        jobs: dict[str, str] = {}
        with requests.Session() as session, ThreadPoolExecutor(4) as pool:
            for pending_s, many in groupby(enumerate(seconds), key=itemgetter(1)):
                end = {"do": "end", "state": "JOB_STATE_SUCCEEDED", "from_pending": True, "times": None}
                scenario = {"pace": {"pending_s": pending_s}, "faults": [end], "limits": {"queue_s": 2 * _FOR_EVER_S}}
                session.put(f"{self._url}/emulator/scenario", json=scenario, timeout=60).raise_for_status()
                numbers = [number for number, _ in many]
                names = pool.map(lambda number: create_one(session, self._url, number), numbers)
                jobs |= {f"wait_{number}": name for number, name in zip(numbers, names, strict=True)}
        self._defer(run_id, jobs)
        return jobs

    def _defer(self, run_id: str, jobs: Mapping[str, str | None]) -> None:
        subprocess.run(
            [sys.executable, "-m", "bench.deferred.defer", run_id],
            input=json.dumps(jobs), text=True, check=True, env={**os.environ, **self._stack.airflow.environment},
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    # The database -----------------------------------------------------------------------------------------------------

    def _query(self, sql: str) -> list[Any]:
        from sqlalchemy import text

        with self._engine.connect() as connection:
            return list(connection.execute(text(sql)))

    def _wait_until_triggered(self, count: int) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        while (found := self._query("SELECT count(*) FROM trigger WHERE triggerer_id IS NOT NULL")[0][0]) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the triggerer has {found} of {count} triggers after {_TIMEOUT_S:.0f} s")
            time.sleep(0.5)

    def _watch(self, names: dict[str, str]) -> None:
        """Note when each task leaves the triggerer, and when a worker has it."""
        fired: dict[str, float] = {}
        resumed: dict[str, float] = {}
        deadline = time.monotonic() + _TIMEOUT_S
        while len(resumed) < len(names):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(names) - len(resumed)} tasks have not been resumed")
            sql = "SELECT task_id, state FROM task_instance WHERE run_id = 'ending' AND state <> 'deferred'"
            for task_id, state in self._query(sql):
                fired.setdefault(task_id, time.time())
                if state not in {"scheduled", "queued"}:
                    resumed.setdefault(task_id, time.time())
            time.sleep(_LOOK_S)
        ended = {key: self._ended_at(name) for key, name in names.items()}
        self._found.fired = [fired[key] - ended[key] for key in names]
        self._found.resumed = [resumed[key] - ended[key] for key in names]

    def _ended_at(self, name: str) -> float:
        answer = requests.get(f"{self._url}/v1/{name}", timeout=60)
        self._own_gets += 1
        return datetime.fromisoformat(answer.json()["endTime"]).timestamp()

    # The triggerer ----------------------------------------------------------------------------------------------------

    def _window(self, act: Callable[[], None]) -> Window:
        calls, cpu, began, own = self._calls(), self._cpu(), time.monotonic(), self._own_gets
        act()
        seconds = time.monotonic() - began
        found = self._calls() - calls
        found["get"] -= self._own_gets - own
        return Window(seconds, found, self._cpu() - cpu)

    def _calls(self) -> Counter[str]:
        calls = requests.get(f"{self._url}/emulator/books", timeout=60).json()["calls"]
        return Counter({name: count for name, count in calls.items() if name in {"get", "list"}})

    def _processes(self) -> list[psutil.Process]:
        pid = self._stack.airflow.servers["triggerer"].pid
        assert pid is not None
        return family(pid)

    def _cpu(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes())

    def _rss(self) -> float:
        return max(process.memory_info().rss for process in self._processes()) / 2**20


def _table(found: Found) -> list[list[object]]:
    assert found.steady is not None
    assert found.ending is not None
    windows = (("waiting", found.steady), ("ending", found.ending))
    return [
        ["deferred tasks", f"{_COUNT:,}, all of them in the triggerer after {found.picked_up_s:.0f} s"],
        *([f"calls a minute, {name}", _calls(one)] for name, one in windows),
        *([f"triggerer, processor s a minute, {name}", f"{one.cpu_s / one.seconds * 60:.1f}"] for name, one in windows),
        ["triggerer, memory", f"{found.rss_before:.0f} MB without a trigger, {found.rss:.0f} MB with all"],
        ["end of the job to the trigger's event", _spread(found.fired)],
        ["end of the job to a worker", _spread(found.resumed)],
        *([f"loop blocked, {phase}", _warnings(seconds)] for phase, seconds in found.blocked.items()),
    ]


def _warnings(seconds: list[float]) -> str:
    return f"{len(seconds)} warnings" + (f", {max(seconds):.2f} s at the most" if seconds else "")


def _calls(one: Window) -> str:
    plain = _COUNT / _TICK * 60
    seen = f"{one.calls_a_minute:.0f} ({dict(one.calls)} in {one.seconds:.0f} s)"
    return f"{seen}: {plain / one.calls_a_minute:.0f} x fewer than {plain:,.0f}"


def _spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    most = ordered[int(len(ordered) * 0.95)]
    return f"{statistics.median(ordered):.1f} s median, {most:.1f} s for 95 of 100, {ordered[-1]:.1f} s at the most"


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
