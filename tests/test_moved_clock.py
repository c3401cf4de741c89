"""Does any test depend on today? A look at those that start no server, on a clock moved by years in both directions.

`make clock` looks at all of them, real Airflow included; this is the part of it that every change can afford.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import moved_clock

ROOT = Path(__file__).resolve().parents[1]
#: Where the ages of jobs, or the days on which prices change, meet the machine's clock. All of both folders would cost
#: minutes of a processor each way.
FILES = [
    *(f"tests/airflow/test_{name}.py" for name in ("fencing", "waiting")),
    *(f"tests/core/test_{name}.py" for name in ("story", "batch", "move", "estimate", "queue")),
]
#: Further than any date in a test: a job of years ago is over, one of the years to come has not begun.
DAYS = (+1_000, -1_000)
NOW = datetime(2026, 11, 30, 13, 50, 7, tzinfo=UTC)


@pytest.fixture(scope="module")
def ended() -> dict[int, tuple[str, int]]:
    """Output and exit status of the tests under each clock, side by side."""
    if os.environ.get("FAKETIME"):
        pytest.skip("the clock is moved already")
    running = {}
    for days in DAYS:
        try:
            env = moved_clock.environment(timedelta(days=days)) | {"HYPOTHESIS_PROFILE": "once"}
        except OSError as error:
            pytest.skip(str(error))
        command = moved_clock.command("-q", "-x", "-p", "no:cacheprovider", *FILES)
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT, "env": env}
        running[days] = subprocess.Popen(command, **options)
    return {days: (process.communicate()[0], process.returncode) for days, process in running.items()}


@pytest.mark.parametrize("days", DAYS)
def test_no_test_depends_on_today(ended, days):
    said, status = ended[days]
    assert status == 0, said[-5_000:]
    assert " passed" in said


def test_the_clock_is_moved_for_a_process_and_its_children():
    code = "import subprocess as s, sys; s.run([sys.executable, '-c', 'import datetime as d; print(d.date.today())'])"
    try:
        env = moved_clock.environment(timedelta(days=-20_000))
    except OSError as error:
        pytest.skip(str(error))
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("197")


def test_a_variable_may_be_set_while_other_threads_read_them():
    """Without the plugin, glibc before 2.41 frees what libfaketime reads: this ended in SIGSEGV each time."""
    code = """
import os, threading, tests.kept_environment
done = threading.Event()
def read():
    while not done.is_set():
        os.getpid()
readers = [threading.Thread(target=read) for _ in range(2)]
for reader in readers: reader.start()
for number in range(500):
    os.environ[f"SET_{number}"] = "1" * 50
del os.environ["SET_1"]
done.set()
for reader in readers: reader.join()
print(os.popen("echo $SET_0-$SET_1-$SET_499").read())
"""
    try:
        env = moved_clock.environment(timedelta(days=1))
    except OSError as error:
        pytest.skip(str(error))
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == f"{'1' * 50}--{'1' * 50}"


@pytest.mark.parametrize(
    ("days", "then"),
    [
        ("+30", "2026-12-30 13:50:07"),
        ("-40", "2026-10-21 13:50:07"),
        ("+30@23:40", "2026-12-30 23:40:00"),
        ("-40@00:05", "2026-10-21 00:05:00"),
    ],
)
def test_the_clock_is_moved_by_days_or_to_a_time_of_day(days, then):
    assert f"{NOW + moved_clock.distance(days, NOW):%F %T}" == then


@pytest.mark.parametrize("arguments", [[], ["soon"], ["4e2", "tests"], ["+30@24:00"], ["@23:40"]], ids=str)
def test_a_clock_that_is_not_said_in_days_is_refused(arguments, capsys):
    assert moved_clock.main(arguments) == 2
    assert "make clock DAYS=+400" in capsys.readouterr().err


def test_what_killed_processes_left_is_deleted(tmp_path):
    """The kernel gives their numbers to other processes, perhaps of another user."""
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    gone, here = int(done.stdout), os.getpid()
    for name in ("sem.faketime_sem_{}", "faketime_shm_{}"):
        for number in (gone, here):
            (tmp_path / name.format(number)).touch()
    (tmp_path / "another").touch()
    moved_clock.sweep(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        ["another", f"faketime_shm_{here}", f"sem.faketime_sem_{here}"]
    )
