"""Does any test depend on today? A look at those that start no server, on a clock moved by years in both directions.

`make clock` looks at all of them, real Airflow included; this is the part of it that every change can afford.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import moved_clock

ROOT = Path(__file__).resolve().parents[1]
#: Where the ages of jobs meet the machine's clock; the whole folder costs a hundred seconds of a processor each way.
FILES = [f"tests/airflow/test_{name}.py" for name in ("fencing", "waiting")]
#: Further than any date in a test: a job of years ago is over, one of the years to come has not begun.
DAYS = (+1_000, -1_000)


@pytest.fixture(scope="module")
def ended() -> dict[int, tuple[str, int]]:
    """Output and exit status of the tests under each clock, side by side."""
    if os.environ.get("FAKETIME"):
        pytest.skip("the clock is moved already")
    running = {}
    for days in DAYS:
        try:
            env = moved_clock.environment(days) | {"HYPOTHESIS_PROFILE": "once"}
        except OSError as error:
            pytest.skip(str(error))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *FILES]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT, "env": env}
        running[days] = subprocess.Popen(command, **options)
    found = {days: (process.communicate()[0], process.returncode, process.args) for days, process in running.items()}
    return {days: _again(days, *what) for days, what in found.items()}


def _again(days: int, said: str, status: int, command: list[str]) -> tuple[str, int]:
    """Return the output and the exit status; of a second run where a signal ended the first.

    Preloaded into a busy interpreter, libfaketime was seen to crash it (SIGSEGV once, on a machine under load,
    2026-11-29). That says nothing about a test.
    """
    if status >= 0:
        return said, status
    env = moved_clock.environment(days) | {"HYPOTHESIS_PROFILE": "once"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    return done.stdout + done.stderr, done.returncode


@pytest.mark.parametrize("days", DAYS)
def test_no_test_depends_on_today(ended, days):
    said, status = ended[days]
    assert status == 0, said[-5_000:]
    assert " passed" in said


def test_the_clock_is_moved_for_a_process_and_its_children():
    code = "import subprocess as s, sys; s.run([sys.executable, '-c', 'import datetime as d; print(d.date.today())'])"
    try:
        env = moved_clock.environment(-20_000)
    except OSError as error:
        pytest.skip(str(error))
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("197")


@pytest.mark.parametrize("arguments", [[], ["soon"], ["4e2", "tests"]], ids=str)
def test_a_clock_that_is_not_said_in_days_is_refused(arguments, capsys):
    assert moved_clock.main(arguments) == 2
    assert "make clock DAYS=+400" in capsys.readouterr().err
