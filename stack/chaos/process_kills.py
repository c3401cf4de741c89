"""Who dies, and how? Each strike is given the process that holds a request, and says whether the request stays without
an answer.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

import psutil

Strike = Callable[[psutil.Process], bool]


def kill_task(task: psutil.Process) -> bool:
    """SIGKILL the task; its supervisor sees it and tells Airflow."""
    task.kill()
    return True


def kill_task_and_supervisor(task: psutil.Process) -> bool:
    """SIGKILL the task and the worker process that supervises it: nobody is left to tell."""
    _supervisor(task).kill()
    task.kill()
    return True


def kill_supervisor(task: psutil.Process) -> bool:
    """SIGKILL the worker process only: the task works on, while Airflow takes it for dead and begins another."""
    _supervisor(task).kill()
    return False


def stop_task_and_supervisor(task: psutil.Process) -> bool:
    """SIGSTOP both, like a machine that has no time for them; `waken` lets them go on."""
    for process in (_supervisor(task), task):
        process.suspend()
    return False


def waken(pid: int) -> None:
    """Let a stopped task and its supervisor go on where they were."""
    with suppress(psutil.NoSuchProcess):
        task = psutil.Process(pid)
        for process in (_supervisor(task), task):
            os.kill(process.pid, signal.SIGCONT)


def holder(peer: tuple[str, int], here: tuple[str, int]) -> psutil.Process:
    """Return the process at the other end of a connection.

    :param peer: its address; the same port may also lead elsewhere, in another process.
    :param here: our end.
    :raises LookupError: when nobody holds it any more.
    """
    for connection in psutil.net_connections("tcp"):
        ends = (tuple(connection.laddr), tuple(connection.raddr))
        if ends == (tuple(peer), tuple(here)) and connection.pid:
            return psutil.Process(connection.pid)
    raise LookupError(f"nobody holds the connection from {peer}")


def _supervisor(task: psutil.Process) -> psutil.Process:
    parent = task.parent()
    if parent is None or parent.pid in {1, os.getpid()}:
        raise LookupError(f"process {task.pid} has no supervisor")
    return parent
