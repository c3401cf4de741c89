"""How is one server process started, checked, and ended completely?

Invariants:

- every server leads its own process group, has one log file, and is known to the watchdog while it runs;
- ``start`` returns with a server that answers, or raises :class:`StackError` with the tail of its log;
- ``stop`` and ``kill`` end all descendants too, and may be called twice.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests

from stack import watchdog

#: Seconds between two looks at a server that is starting; short, because the fastest needs only 0.1 s.
POLL_S = 0.05
#: Lines of a log worth putting into an error message: a Python traceback with its message.
TAIL_LINES = 25


class StackError(Exception):
    """A local server cannot be started or has ended. The message says which, why, and what to do."""


@dataclass
class Server:
    """One server process.

    :param name: what people call it, in messages and as the name of the log file.
    :param argv: the command; the first part must be a path.
    :param log: file for its standard output and error; begun anew at every start.
    :param healthy: returns whether it answers; may raise ``OSError`` while it does not.
    :param env: variables beside this process's own.
    :param ports: ports it will listen on, with what for, checked before the start.
    :param timeout_s: seconds until it must be healthy.
    :param user_id: run as this user (and group) instead of our own; needs root.
    """

    name: str
    argv: list[str]
    log: Path
    healthy: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[int, str] = field(default_factory=dict)
    timeout_s: float = 300.0
    user_id: int | None = None
    stop_signal: int = signal.SIGTERM
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _orphans: list[psutil.Process] = field(default_factory=list, init=False, repr=False)
    _asked: bool = field(default=False, init=False, repr=False)

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start it and wait until it is healthy.

        :raises StackError: if a port is taken, it exits, or it is not healthy in time.
        """
        self.launch()
        self.wait_healthy()

    def launch(self) -> None:
        """Start it without waiting, so that several can start together. See :meth:`wait_healthy`."""
        if self.pid:
            return
        for port, purpose in self.ports.items():
            require_free(port, purpose)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.env},
                start_new_session=True,
                user=self.user_id,
                group=self.user_id,
                extra_groups=None if self.user_id is None else [],
            )
        self._asked = False
        _Watchdog.watch(self._process.pid)

    def wait_healthy(self) -> None:
        """Return as soon as it answers.

        :raises StackError: if it exits or does not answer in time; it is stopped then.
        """
        started_at = time.monotonic()
        while not self._answers():
            if self._process is None or self._process.poll() is not None:
                code = self._process.returncode if self._process else None
                self.kill()
                raise StackError(f"{self.name} ended with status {code} before it answered.\n{self.tail()}")
            if time.monotonic() - started_at > self.timeout_s:
                self.kill()
                raise StackError(f"{self.name} did not answer within {self.timeout_s:.0f} s.\n{self.tail()}")
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        try:
            return self.healthy()
        except (OSError, ValueError):  # a refused connection, or half an answer; requests' own errors are OSErrors
            return False

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of its log, with the log's path as a heading."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"--- {self.log}\n" + "\n".join(text.splitlines()[-lines:])

    def ask_to_stop(self) -> None:
        """Send the stop signal, once: Airflow's triggerer takes a second one as an order to drop everything."""
        if not self._asked and (pid := self.pid):
            self._asked = True
            os.kill(pid, self.stop_signal)

    def stop(self, grace_s: float = 10.0) -> None:
        """Ask it to stop, wait ``grace_s`` seconds, then kill it and its descendants if they still run."""
        if self._process is None:
            return
        relatives = watchdog.family(self._process.pid)
        self.ask_to_stop()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self._bury(relatives)

    def kill(self) -> None:
        """SIGKILL it and its descendants, as a crash of the machine would."""
        if self._process is not None:
            self._bury(watchdog.family(self._process.pid))

    def crash(self) -> None:
        """SIGKILL the server's own process only, as the kernel does when memory runs out; children live until stop."""
        if self._process is not None:
            self._orphans = watchdog.family(self._process.pid)
            self._process.kill()
            self._process.wait()

    def _bury(self, relatives: list[psutil.Process]) -> None:
        assert self._process is not None
        watchdog.signal_group(self._process.pid, signal.SIGKILL)
        watchdog.kill_all([*relatives, *self._orphans])
        self._orphans = []
        self._process.wait()
        _Watchdog.forget(self._process.pid)
        self._process = None


def stop_all(servers: Iterable[Server], grace_s: float = 10.0) -> None:
    """Stop several servers together, the last started first; one that fails to stop does not keep the others."""
    ordered = list(servers)[::-1]
    for server in ordered:
        server.ask_to_stop()
    for server in ordered:
        server.stop(grace_s)


def answers(url: str, status: int = 200) -> Callable[[], bool]:
    """Return a health check: does a GET of ``url`` give ``status``?"""

    def check() -> bool:
        with requests.Session() as session:
            session.trust_env = False  # a proxy of the machine must not see loopback calls
            return session.get(url, timeout=30).status_code == status

    return check


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int, purpose: str) -> None:
    """Check that a port can be listened on.

    :raises StackError: naming who listens there, as far as the system tells.
    """
    with socket.socket() as probe:
        # As servers do, so that a connection of an earlier run in TIME_WAIT does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StackError(
                f"Port {port} is in use{_listener(port)}; it is needed for {purpose}. Stop what listens there, "
                f"or choose another port (`make help` names the variables)."
            ) from error


def _listener(port: int) -> str:
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            local = connection.laddr
            if connection.status == psutil.CONN_LISTEN and local and local.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""


class _Watchdog:
    """This process's one watchdog, started with the first server."""

    _lock = threading.Lock()
    _process: subprocess.Popen[str] | None = None

    @classmethod
    def watch(cls, pid: int) -> None:
        cls._tell(f"+{pid}\n")

    @classmethod
    def forget(cls, pid: int) -> None:
        cls._tell(f"-{pid}\n")

    @classmethod
    def _tell(cls, line: str) -> None:
        with cls._lock:
            if cls._process is None:
                cls._process = subprocess.Popen(
                    [sys.executable, watchdog.__file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    text=True,
                )
            assert cls._process.stdin is not None
            cls._process.stdin.write(line)
            cls._process.stdin.flush()
