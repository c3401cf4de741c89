"""Who ends the servers if the process that started them dies without ending them?

Run as a program by :mod:`stack.process`, in a session of its own. Its standard input is a pipe whose other end only the
parent holds: ``+PID`` and ``-PID`` lines say which servers run, end-of-file says that the parent is gone (also after
SIGKILL, where no ``finally`` and no ``atexit`` runs). Then every server still listed is ended with all it started.

Invariant: it never signals a process that was not named to it, or is not a descendant of one.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

import psutil

#: Seconds between SIGTERM and SIGKILL. Nobody waits for the result any more, so it is short.
GRACE_S = 5.0


def family(pid: int) -> list[psutil.Process]:
    """Return the process and its descendants: Airflow's tasks leave their parent's group, so a group is not enough."""
    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def signal_group(pid: int, signum: int) -> None:
    """Signal the process group that ``pid`` leads, or led: members outlive their leader."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def kill_all(processes: list[psutil.Process]) -> None:
    """SIGKILL what is still alive. psutil compares creation times, so a re-used process id is left alone."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def end(pids: set[int]) -> None:
    """End the groups led by ``pids`` and every descendant: SIGTERM, then SIGKILL after :data:`GRACE_S`."""
    relatives = [process for pid in pids for process in family(pid)]
    for pid in pids:
        signal_group(pid, signal.SIGTERM)
    psutil.wait_procs(relatives, timeout=GRACE_S)
    for pid in pids:
        signal_group(pid, signal.SIGKILL)
    kill_all(relatives)


def main() -> None:
    """Follow the parent's list until the pipe closes, then end what is left on it."""
    # Ctrl-C reaches the whole terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pids: set[int] = set()
    for line in sys.stdin:
        pid = int(line[1:])
        pids.add(pid) if line[0] == "+" else pids.discard(pid)
    if pids:
        started_at = time.monotonic()
        end(pids)
        print(f"parent gone: ended {sorted(pids)} in {time.monotonic() - started_at:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
