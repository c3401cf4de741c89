"""Does an hour of small batches in a real Airflow lose, repeat or leak anything? Fifty jobs a minute, faults in five of
a hundred calls, jobs and rows, killed triggerers and a killed scheduler.

``SOAK_MINUTES`` says how long (60); `tests/airflow/test_soak.py` does the same for two minutes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from bench.soak.load import Soak
from bench.soak.verdict import judge, median_and_most

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.soak.verdict import Verdict

#: The service's clock: jobs take about half a minute.
SPEED = 8.0


def measure() -> tuple[list[str], list[list[object]]]:
    """Soak, and return what came of it."""
    from stack.laptop import PROJECT, Stack

    seconds = float(os.environ.get("SOAK_MINUTES", "60")) * 60
    env = {
        "VERTEX_BATCH_PROJECT": PROJECT,
        "VERTEX_BATCH_BUCKET": "soak",
        "AIRFLOW__VERTEX_BATCH__STAGING_URI": "gs://soak/vertex-batch",
        "AIRFLOW__VERTEX_BATCH__LOCATION": "us-central1",
        "AIRFLOW__CORE__PARALLELISM": "8",
    }
    with tempfile.TemporaryDirectory() as home:
        dags = Path(home, "dags")
        dags.mkdir()
        with Stack(Path(home, "stack"), dags=dags, with_bigquery=False, speed=SPEED, env=env, say=_say) as stack:
            _make_bucket(stack.env["STORAGE_EMULATOR_HOST"])
            soak = Soak(stack, seconds, *_kills(seconds), say=_say)
            soak.run()
            return ["", ""], _table(soak, judge(soak))


def _kills(seconds: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return when the triggerer and the scheduler die: in the first third, so that memory is watched for the rest."""
    third = seconds / 3
    count = max(1, int(third // 180))
    return tuple(third * (number + 0.5) / count for number in range(count)), (third,)


def _make_bucket(url: str) -> None:
    import requests

    requests.post(
        f"{url}/storage/v1/b", params={"project": "demo"}, json={"name": "soak"}, timeout=30
    ).raise_for_status()


def _table(soak: Soak, found: Verdict) -> list[list[object]]:
    median, most = median_and_most(found.run_seconds)
    met = soak.random_faults.met
    share = {kind: sum(n for name, n in met.items() if name.startswith(kind)) for kind in ("job", "row")}
    calls = sum(met.values()) - sum(share.values())
    minutes = soak.seconds / 60
    asked = {name: count for name, count in found.calls.items() if name in {"create", "get", "list"}}
    rows: list[list[object]] = [
        ["minutes", f"{minutes:.0f}, and {soak.drained_s / 60:.1f} until the last run had ended"],
        ["runs", f"{len(soak.begun)}: {_words(found.runs)}"],
        ["run, median / 95 of 100", f"{median:.0f} s / {most:.0f} s"],
        ["jobs", f"{found.jobs['bought']:,}, {found.jobs['bought'] / minutes:.0f} a minute; {_words(found.jobs)}"],
        ["rows", f"{found.rows['wanted']:,}: {_words(found.rows)}"],
        ["calls a minute", ", ".join(f"{name} {count / minutes:.0f}" for name, count in asked.items())],
        ["faults", f"calls {calls:,} of {sum(asked.values()):,}, jobs {share['job']:,}, rows {share['row']:,}"],
        *([f"  {name}", count] for name, count in sorted(met.items())),
        ["killed", _words(soak.killed)],
        ["failed, then cleared", len(soak.failed)],
        *([f"  {why}", count] for why, count in sorted(_reasons(soak).items())),
        ["in the servers' logs", _words(soak.logs) or "nothing"],
    ]
    for name in soak.memory.samples:
        lived, before, after, slope = soak.memory.course(name)
        rows.append([f"memory, {name}", f"{before:.0f} MB, {after:.0f} MB {lived:.0f} min later: {slope:+.1f} MB/h"])
    return [*rows, *(["PROBLEM", problem] for problem in found.problems or ["none"])]


def _reasons(soak: Soak) -> Counter[str]:
    return Counter(one.why[:200] for one in soak.failed)


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.removeprefix('JOB_STATE_').lower()} {count:,}" for name, count in sorted(counts.items()))


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
