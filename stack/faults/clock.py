"""How do waits of minutes cost no time? The clock of one process that stands still until somebody in it waits.

Nothing of what a client does is replaced but its clock: `time.sleep` moves the time on, a socket that nobody will
answer uses up its own timeout, and a slow one gives a byte a second. A read without a timeout, of a server that will
say nothing, would last for ever: it raises :class:`HangsError`, as does an attempt that takes longer than any may.

Invariants: the clock is installed before anything is imported that keeps `time.sleep` as a default; time never
passes by itself; what the servers of this machine need counts as no time.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import time_machine

#: When every batch begins: no run depends on the day on which it is run.
BEGIN = datetime(2026, 11, 22, tzinfo=UTC)
#: Seconds of one attempt after which it counts as hanging: no wait for a server is meant to take so long.
LONGEST_S = 6 * 3600.0
#: Real seconds for an answer that is to come, whatever the load of this machine.
_REAL_TIMEOUT_S = 60.0
#: Real seconds between two looks whether a socket will be answered.
_LOOK_S = 0.01
#: Bytes of an answer's head, at most.
_HEAD_BYTES = 1 << 16
_HEAD_END = b"\r\n\r\n"


class HangsError(BaseException):
    """A wait without an end. No ``except Exception`` may take it for an error of a server."""


class Clock:
    """The time of this process."""

    def __init__(self) -> None:
        #: When this process began, by the machine's clock.
        self.began_at = datetime.now(UTC)
        self._travel = time_machine.travel(BEGIN, tick=False).start()
        self._limit = float("inf")
        #: The machine's own time, for what serves this process.
        self.machine_time = time.monotonic
        #: Seconds since `BEGIN`.
        self.elapsed_s = 0.0
        #: The client's ports whose connections get no answer any more.
        self.silent: set[int] = set()
        #: The client's ports that get a byte a second, with how many bytes they get at once before; -1 for the head.
        self.slow: dict[int, int] = {}

    @staticmethod
    def now() -> datetime:
        """Return the time."""
        return datetime.now(UTC)

    def pass_by(self, seconds: float) -> None:
        """Let time pass.

        :raises HangsError: when an attempt has taken too long.
        """
        self.tick(max(seconds, 0.0))
        if self.elapsed_s > self._limit:
            self._limit = float("inf")
            raise HangsError(f"an attempt took more than {LONGEST_S / 3600:.0f} h")

    def tick(self, seconds: float) -> None:
        """Let a moment pass in which a call is on its way."""
        self._travel.shift(float(seconds))
        self.elapsed_s += seconds

    def begin_attempt(self) -> None:
        """Give an attempt its time."""
        self._limit = self.elapsed_s + LONGEST_S

    def install(self) -> None:
        """Let this process go by this clock from now on."""
        time.sleep = self.pass_by  # type: ignore[assignment]
        time.monotonic = lambda: self.elapsed_s
        time.monotonic_ns = lambda: int(self.elapsed_s * 1e9)
        time.perf_counter = lambda: self.elapsed_s
        _Sockets(self).install()


class _Sockets:
    """Blocking reads of the main thread, by a clock. Other threads are servers: their reads stay as they are."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._peek = clock, socket.socket.recv

    def install(self) -> None:
        """Take the place of the blocking reads."""
        receive, fill = socket.socket.recv, socket.socket.recv_into

        def recv(sock: socket.socket, size: int, flags: int = 0) -> bytes:
            return bytes(self._reading(sock, size, lambda at_most: receive(sock, at_most, flags), len))

        def recv_into(sock: socket.socket, buffer: Any, size: int = 0, flags: int = 0) -> int:
            wanted = size or memoryview(buffer).nbytes
            return int(self._reading(sock, wanted, lambda at_most: fill(sock, buffer, at_most, flags), int))

        socket.socket.recv, socket.socket.recv_into = recv, recv_into  # type: ignore[method-assign,assignment]

    def _reading(self, sock: socket.socket, size: int, read: Callable[[int], Any], length: Callable[[Any], int]) -> Any:
        is_client = sock.family is socket.AF_INET and threading.current_thread() is threading.main_thread()
        if not is_client or sock.gettimeout() == 0:
            return read(size)
        port = sock.getsockname()[1]
        self._await_bytes(sock, port)
        if port not in self._clock.slow:
            return read(size)
        if self._clock.slow[port] < 0:
            self._clock.slow[port] = self._head_size(sock)
        if not self._clock.slow[port]:
            self._clock.pass_by(1.0)
            return read(1)
        found = read(min(size, self._clock.slow[port]))
        self._clock.slow[port] -= length(found)
        return found

    def _await_bytes(self, sock: socket.socket, port: int) -> None:
        """Return when there is something to read, or use up the socket's timeout."""
        timeout_s = sock.gettimeout()
        for _ in range(int(_REAL_TIMEOUT_S / _LOOK_S)):
            if select.select([sock], [], [], _LOOK_S)[0]:
                return
            if port in self._clock.silent:
                if timeout_s is None:
                    raise HangsError("a read without a timeout")
                self._clock.pass_by(timeout_s)
                raise TimeoutError("timed out")
        raise HangsError("a server of this machine did not answer")

    def _head_size(self, sock: socket.socket) -> int:
        seen = self._peek(sock, _HEAD_BYTES, socket.MSG_PEEK)
        end = seen.find(_HEAD_END)
        return len(seen) if end < 0 else end + len(_HEAD_END)
