"""Does a test depend on today? The program behind `make clock`: pytest, and all that it starts, on a moved clock.

    python -m tests.moved_clock +400 tests/airflow -k fencing

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

_LIBRARY = "libfaketime.so.1"
#: How far a process's clock may be from where it was told to be, to begin with: for its start.
_START_S = 600


def environment(days: int) -> dict[str, str]:
    """Return the variables that move the clock of a process and of all that it starts.

    :param days: how far, into the past where negative.
    :raises OSError: when the machine cannot do it; the message says why.
    """
    variables = {**os.environ, "LD_PRELOAD": _library(), "FAKETIME": f"{days:+d}d", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    # Asked, not believed: a library that cannot be loaded is ignored with a warning.
    clock = [sys.executable, "-c", "import time; time.sleep(0.001); print(time.time())"]
    done = subprocess.run(clock, env=variables, capture_output=True, text=True, check=False)
    wanted = datetime.now(UTC) + timedelta(days=days)
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


def main(arguments: list[str]) -> int:
    """Run pytest on a moved clock; the first argument is the number of days, the others are pytest's."""
    if not arguments or not re.fullmatch(r"[+-]?\d+", arguments[0]):
        print("Say by how many days the clock is moved: make clock DAYS=+400, or DAYS=-40", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "pytest", *arguments[1:]]
    return subprocess.run(command, env=environment(int(arguments[0])), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
