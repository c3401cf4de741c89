"""What do two thousand waiting tasks cost a triggerer? Our triggers, beside one `get` a task each tick.

The emulator runs in a process of its own and counts the calls; each way of asking runs in a fresh process, under plain
asyncio, with the triggers begun in packs, as a triggerer begins them. Seconds are real; the service's clock is faster.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import batched
from typing import TYPE_CHECKING

import requests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from airflow_vertex_batch.core.domain.job import BatchJob

_JOBS = int(os.environ.get("BENCH_POLLER_JOBS", "2000"))
#: What the service's clock does in a second.
_SPEED = 20.0
#: The first and the last end, in real seconds from the first creation.
_ENDS = (25.0, 50.0)
#: Seconds between two questions about a job: the default of the Google provider's trigger.
_TICK = 10.0
#: Airflow begins so many triggers a second (`max_trigger_to_select_per_loop`, about one loop a second), four times.
_BEGUN_A_SECOND = 200
_PARENT = "/v1/projects/1/locations/us-central1/batchPredictionJobs"
_WAYS = {"ours, adaptive": "adaptive", f"ours, every {_TICK:.0f} s": "fixed", f"one get each {_TICK:.0f} s": "get"}


def measure() -> tuple[list[str], list[list[object]]]:
    """Return calls, CPU, memory, lateness and the longest block of the event loop for each way of asking."""
    found = {name: _measured(way) for name, way in _WAYS.items()}
    most = found[f"one get each {_TICK:.0f} s"]["calls_a_minute"]
    headers = [
        f"{_JOBS:,} jobs",
        "calls/min",
        "fewer",
        "CPU %",
        "RSS MB",
        "grown MB",
        "late s",
        "late s (max)",
        "block s",
    ]
    return headers, [
        [
            name,
            f"{one['calls_a_minute']:,.0f}",
            f"{most / one['calls_a_minute']:.0f} x",
            f"{one['cpu_percent']:.1f}",
            f"{one['rss_mb']:.0f}",
            f"{one['grown_mb']:.0f}",
            f"{one['late_median']:.1f}",
            f"{one['late_max']:.1f}",
            f"{one['longest_block']:.3f}",
        ]
        for name, one in found.items()
    ]


def _measured(way: str) -> dict[str, float]:
    with _emulator() as url:
        names = _create(url)
        done = subprocess.run(
            [sys.executable, "-m", "bench.poller", way, url],
            input=json.dumps(names), capture_output=True, text=True, check=True, env={**os.environ, **_airflow(url)},
        )  # fmt: skip
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        calls = requests.get(f"{url}/emulator/books", timeout=60).json()["calls"]
    asked = calls.get("get", 0) + calls.get("list", 0)
    print(f"{way}: {calls} in {found['seconds']:.0f} s", file=sys.stderr, flush=True)
    return found | {"calls_a_minute": asked / found["seconds"] * 60}


def _airflow(url: str) -> dict[str, str]:
    connection = {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True, "vertex_batch_endpoint": url}}
    return {"AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": json.dumps(connection), "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING"}


@contextmanager
def _emulator() -> Iterator[str]:
    command = [sys.executable, "-m", "airflow_vertex_batch", "emulator", "--port", "0", "--speed", str(_SPEED)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().split()[-1]  # type: ignore[union-attr]
        finally:
            server.terminate()


def _create(url: str) -> list[str]:
    """Make jobs that end at random moments: each pack of them has a time of its own."""
    chance = random.Random(4)
    began, names = time.monotonic(), []
    with requests.Session() as session, ThreadPoolExecutor(4) as pool:
        for pack in batched(range(_JOBS), max(_JOBS // 100, 1), strict=False):
            left = chance.uniform(*_ENDS) - (time.monotonic() - began)
            end = {"do": "end", "state": "JOB_STATE_SUCCEEDED", "from_pending": True, "times": None}
            scenario = {"pace": {"pending_s": left * _SPEED}, "faults": [end]}
            session.put(f"{url}/emulator/scenario", json=scenario, timeout=60).raise_for_status()
            names += pool.map(lambda number: create_one(session, url, number), pack)
    chance.shuffle(names)
    return names


def create_one(session: requests.Session, url: str, number: int) -> str:
    """Create one job that carries our labels, and return its name."""
    body = {
        "displayName": f"bench {number}",
        "model": "publishers/google/models/gemini-2.5-flash",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://bench/in.jsonl"]}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": f"gs://bench/{number}"}},
        "labels": {"avb-identity": f"{number:032x}", "airflow-dag": "bench", "airflow-task": "create"},
    }
    answer = session.post(f"{url}{_PARENT}", json=body, timeout=60)
    answer.raise_for_status()
    return str(answer.json()["name"])


# One way of asking, in a process of its own --------------------------------------------------------------------------


async def _wait(way: str, url: str, names: list[str]) -> dict[str, float]:
    wait = await _waiter(way, url)
    late: list[float] = []

    async def one(name: str) -> None:
        job = await wait(name)
        late.append(time.time() - job.ended_at.timestamp())  # type: ignore[union-attr]

    before, began, cpu = _rss_mb(), time.monotonic(), time.process_time()
    ticker = asyncio.ensure_future(_longest_block())
    tasks = []
    for pack in batched(names, _BEGUN_A_SECOND // 4, strict=False):
        tasks += [asyncio.ensure_future(one(name)) for name in pack]
        await asyncio.sleep(0.25)
    await asyncio.gather(*tasks)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    ticker.cancel()
    return {
        "seconds": seconds,
        "cpu_percent": cpu / seconds * 100,
        "rss_mb": _rss_mb(),
        "grown_mb": _rss_mb() - before,
        "late_median": statistics.median(late),
        "late_max": max(late),
        "longest_block": _blocks[-1],
    }


async def _waiter(way: str, url: str) -> Callable[[str], Awaitable[BatchJob]]:
    from airflow_vertex_batch.core.waiting.watch import Ended, unpack
    from airflow_vertex_batch.triggers import VertexBatchJobTrigger

    if way == "get":
        return await _asking_each(url)

    async def wait(name: str) -> BatchJob:
        trigger = VertexBatchJobTrigger([name], poll_interval=_TICK if way == "fixed" else None)
        async for event in trigger.run():
            [outcome] = unpack(event.payload["outcomes"])
            assert isinstance(outcome, Ended)
            return outcome.job
        raise AssertionError("no event")

    return wait


async def _asking_each(url: str) -> Callable[[str], Awaitable[BatchJob]]:
    """Every task asks for its own job, with one session for all: better than one client for each."""
    from google.auth.credentials import AnonymousCredentials

    from airflow_vertex_batch.core.domain.address import JobName
    from airflow_vertex_batch.gcp.vertex import AsyncVertexClient

    client = await AsyncVertexClient(AnonymousCredentials(), "1", "us-central1", url).__aenter__()  # type: ignore[no-untyped-call]

    async def wait(name: str) -> BatchJob:
        while True:
            job = await client.get(JobName.parse(name))
            if job.state.is_final:
                return job
            await asyncio.sleep(_TICK)

    return wait


_blocks = [0.0]


async def _longest_block() -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.01)
        _blocks[-1] = max(_blocks[-1], time.monotonic() - before - 0.01)


def _rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_wait(sys.argv[1], sys.argv[2], json.load(sys.stdin)))))
