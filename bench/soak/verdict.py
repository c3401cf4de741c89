"""What came of a soak? Read from outside: the landed files, the emulator's books, the states of the runs.

Nothing here trusts what a task said of itself.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import requests

from bench.soak.load import DAGS, ENDED_AS, JOBS, ROWS_OF_A_JOB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.soak.load import Soak

_ROWS = JOBS * ROWS_OF_A_JOB
_GOOD = {"JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED"}
_OVER = _GOOD | {"JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED"}


@dataclass
class Verdict:
    """Counts, and whatever should not be."""

    rows: Counter[str] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    calls: dict[str, int] = field(default_factory=dict)
    run_seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def judge(soak: Soak) -> Verdict:
    """Read everything."""
    found = Verdict()
    _judge_runs(soak, found)
    _judge_rows(soak, found)
    _judge_jobs(soak, found)
    return found


def _judge_runs(soak: Soak, found: Verdict) -> None:
    helped = {(one.dag_id, one.run_id) for one in soak.failed}
    for one in soak.failed:
        # A job without a row, or a last repair round that was struck too: what there is has landed, the task says which
        # job it was, and a person must look.
        if not one.why.startswith(ENDED_AS):
            found.problems.append(f"{one.dag_id} {one.run_id} failed: {one.why}")
    states = {(dag_id, run["dag_run_id"]): run for dag_id in DAGS for run in soak.stack.airflow.client.runs(dag_id)}
    for key in soak.begun:
        run = states.get(key)
        state = run["state"] if run else "absent"
        found.runs["helped" if key in helped and state == "success" else state] += 1
        if run is None or state != "success":
            found.problems.append(f"{key} is {state}")
        elif key not in helped:
            began, ended = (datetime.fromisoformat(run[name]) for name in ("run_after", "end_date"))
            found.run_seconds.append((ended - began).total_seconds())


def _judge_rows(soak: Soak, found: Verdict) -> None:
    landed = _landed(soak)
    for _, run_id in soak.begun:
        wanted = {f"{run_id}-{number:03}" for number in range(_ROWS)}
        counts = Counter(key for key, _ in landed[run_id])
        found.rows["wanted"] += len(wanted)
        found.rows["once"] += sum(counts[key] == 1 for key in wanted)
        found.rows["lost"] += sum(counts[key] == 0 for key in wanted)
        found.rows["twice"] += sum(counts[key] > 1 for key in wanted)
        found.rows["answered"] += sum(good for _, good in landed[run_id])
        found.rows["dead letters"] += sum(not good for _, good in landed[run_id])
        if counts != dict.fromkeys(wanted, 1):
            found.problems.append(f"{run_id}: {len(counts)} keys in {counts.total()} landed rows, not {len(wanted)}")


def _landed(soak: Soak) -> dict[str, list[tuple[str, bool]]]:
    """Return each run's landed keys, and whether with a good answer."""
    rows: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for name, text in _objects(soak, "soak/"):
        _, run_id, kind, *_ = name.split("/")
        rows[run_id] += [(json.loads(line)["row_key"], kind == "answers") for line in text.splitlines()]
    return rows


def _objects(soak: Soak, prefix: str) -> Iterator[tuple[str, str]]:
    url = f"{soak.stack.env['STORAGE_EMULATOR_HOST']}/storage/v1/b/{soak.stack.env['VERTEX_BATCH_BUCKET']}/o"
    page: dict[str, Any] = {"nextPageToken": ""}
    while (token := page.pop("nextPageToken", None)) is not None:
        page = requests.get(url, params={"prefix": prefix, "pageToken": token}, timeout=60).json()
        for item in page.get("items", ()):
            name = item["name"]
            yield name, requests.get(f"{url}/{name.replace('/', '%2F')}", params={"alt": "media"}, timeout=60).text


def _judge_jobs(soak: Soak, found: Verdict) -> None:
    books = requests.get(f"{soak.stack.env['VERTEX_BATCH_EMULATOR_HOST']}/emulator/books", timeout=60).json()
    found.calls = books["calls"]
    purchases: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for job in books["jobs"]:
        if job["labels"].get("airflow-dag") in DAGS:
            found.jobs["bought"] += 1
            found.jobs["repairs"] += job["labels"]["avb-round"] != "0"
            found.jobs[job["state"]] += 1
            purchases[job["labels"]["avb-identity"], job["labels"]["avb-fingerprint"]].append(job)
            if job["state"] not in _OVER:
                found.problems.append(f"{job['name']} is {job['state']}")
    for jobs in purchases.values():
        for before in jobs[:-1]:
            ended_badly = before["state"] in _OVER - _GOOD
            found.jobs["bought again after a bad end" if ended_badly else "paid twice"] += 1
            if not ended_badly:
                found.problems.append(f"{[job['name'] for job in jobs]} are one purchase")


def median_and_most(seconds: list[float]) -> tuple[float, float]:
    """Return median and 95th percentile."""
    ordered = sorted(seconds)
    return statistics.median(ordered), ordered[int(len(ordered) * 0.95)]
