"""Does a test depend on today? The program behind `make clock`: pytest, and all that it starts, on a moved clock.

    python -m tests.moved_clock +400 tests/airflow -k fencing
    python -m tests.moved_clock +30@23:40 tests/airflow/test_runs.py

The second begins at 23:40 UTC, so that a day ends while the tests run.

libfaketime is preloaded into every process: it moves the date that the machine tells, and leaves alone how long things
take (sleeps, timeouts, CPU time). Debian's build of it does not serve: it makes `time.sleep` of Python 3.11 and
newer fail, or `threading.Event.wait` hang (0.9.10-2.1, tried 2026-11-28). The build in the wheel `libfaketime` does.

Not moved are the Cloud Storage server, a static Go program that asks the kernel itself, and the times of files. So
Cloud Storage's clock is apart from all others by that many days, and no test may mind.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

_LIBRARY = "libfaketime.so.1"
#: How far a process's clock may be from where it was told to be, to begin with: for its start.
_START_S = 600


def environment(by: timedelta) -> dict[str, str]:
    """Return the variables that move the clock of a process and of all that it starts.

    :param by: how far, into the past where negative.
    :raises OSError: when the machine cannot do it; the message says why.
    """
    variables = {
        **os.environ,
        "LD_PRELOAD": _library(),
        "FAKETIME": f"{by.total_seconds():+.0f}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # A repair for the C library of 2016: with it, threads that wait for each other take six times as long.
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        # By their times, every DAG file would have changed since Airflow read it: it would read them all the time.
        "AIRFLOW__DAG_PROCESSOR__FILE_PARSING_SORT_MODE": "alphabetical",
    }
    # Asked, not believed: a library that cannot be loaded is ignored with a warning.
    clock = [sys.executable, "-c", "import time; time.sleep(0.001); print(time.time())"]
    done = subprocess.run(clock, env=variables, capture_output=True, text=True, check=False)
    wanted = datetime.now(UTC) + by
    if done.returncode or abs(float(done.stdout) - wanted.timestamp()) > _START_S:
        raise OSError(f"{_LIBRARY} does not move the clock here: {done.stdout}{done.stderr}")
    return variables


def _library() -> str:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise OSError(f"{_LIBRARY} is built for Linux on x86-64; this is {sys.platform} on {platform.machine()}")
    try:
        found = next(file for file in files("libfaketime") or () if file.name == _LIBRARY)
    except (PackageNotFoundError, StopIteration):
        raise OSError("The package libfaketime is not installed; see requirements/dev.in") from None
    return str(found.locate())


def sweep(folder: Path = Path("/dev/shm")) -> None:
    """Delete what libfaketime left of processes that were killed. A new process of another user with the same number
    could not start.
    """
    for file in folder.glob("*faketime_s*_*"):
        if not Path(f"/proc/{file.name.rpartition('_')[2]}").exists():
            file.unlink(missing_ok=True)


def command(*arguments: str) -> list[str]:
    """Return the command that runs pytest on a moved clock."""
    return [sys.executable, "-m", "pytest", "-p", "tests.kept_environment", *arguments]


def distance(days: str, now: datetime) -> timedelta | None:
    """Return how far the clock is moved: by whole days, or to a time of day; None if the text says neither.

    :param days: `+400`, or `+30@23:40` for the day 30 days from now, at 23:40 UTC.
    """
    if not (said := re.fullmatch(r"([+-]?\d+)(?:@([01]\d|2[0-3]):([0-5]\d))?", days)):
        return None
    by = timedelta(days=int(said[1]))
    if said[2]:
        by += now.replace(hour=int(said[2]), minute=int(said[3]), second=0, microsecond=0) - now
    return by


def main(arguments: list[str]) -> int:
    """Run pytest on a moved clock; the first argument says how far, the others are pytest's."""
    by = distance(arguments[0], datetime.now(UTC)) if arguments else None
    if by is None:
        print("Say by how many days the clock is moved: make clock DAYS=+400, or DAYS=-40@23:40", file=sys.stderr)
        return 2
    sweep()
    return subprocess.run(command(*arguments[1:]), env=environment(by), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
