"""In which ways may a call end? One call of a batch, and what its batch has seen so far."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from stack.chaos.effects import Call
from stack.chaos.forwarding import Answer
from stack.faults.calls import Position, Titles
from stack.faults.clock import Clock
from stack.faults.cloud import Cloud

if TYPE_CHECKING:
    from airflow_vertex_batch.emulator.service import Emulator
    from stack.faults.kinds import Fault

#: Real seconds after which a client that was told nothing must have hung up.
_REAL_PATIENCE_S = 60.0


class HungUpError(Exception):
    """The connection is over, without an answer or in the middle of one."""


@dataclass
class Run:
    """One batch on its way through the gateway.

    :param name: of its bucket.
    :param cloud: the servers themselves.
    :param emulator: its Vertex AI.
    :param fault: what is to happen, if anything.
    :param at: the title of the call to which it happens.
    """

    name: str
    cloud: Cloud
    emulator: Emulator
    fault: Fault | None = None
    at: str = ""
    titles: Titles = field(default_factory=Titles)
    #: Every call so far.
    positions: list[Position] = field(default_factory=list)
    #: The call to which it happened, and when, in seconds of the clock.
    struck: Position | None = None
    struck_at: float = 0.0
    #: When each object was written, by name, as the service writes times.
    written: dict[str, str] = field(default_factory=dict)
    #: The upload that was lost.
    lost_upload: str = ""
    #: How young a job may be that the list does not show, seconds.
    list_late_s: float = 0.0
    #: What is to be done, and at which second of the clock.
    later: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    #: What this machine's servers could not do: then the run says nothing about the batch.
    broken: list[str] = field(default_factory=list)

    def catch_up(self, elapsed_s: float) -> None:
        """Do what is due."""
        due = [act for when, act in self.later if when <= elapsed_s]
        self.later = [(when, act) for when, act in self.later if when > elapsed_s]
        for act in due:
            act()


@dataclass
class Exchange:
    """One call and the ways in which it may end.

    :param forward: lets the service do what it is asked, and returns its answer.
    """

    clock: Clock
    run: Run
    connection: socket.socket
    call: Call
    position: Position
    forward: Callable[[], Answer]

    @property
    def port(self) -> int:
        """The client's port."""
        return int(self.connection.getpeername()[1])

    def say(self, answer: Answer) -> None:
        """Give an answer."""
        self.connection.sendall(_head(answer) + answer.body)

    def refuse(self, status: int, **headers: str) -> None:
        """Answer with an error, as Google words it."""
        error = {"code": status, "message": "Injected by the suite.", "errors": [{"reason": "injected"}]}
        body = json.dumps({"error": error}).encode()
        self.say(Answer(status, {"Content-Type": "application/json", **headers}, body))

    def cut(self) -> None:
        """Cut the connection. :raises HungUpError: always."""
        raise HungUpError

    def half(self, answer: Answer) -> None:
        """Give the first half of an answer, and cut the connection. :raises HungUpError: always."""
        self.connection.sendall(_head(answer) + answer.body[: len(answer.body) // 2])
        raise HungUpError

    def silence(self) -> None:
        """Say nothing until the client hangs up. :raises HungUpError: always."""
        port = self.port
        self.clock.silent.add(port)
        select.select([self.connection], [], [], _REAL_PATIENCE_S)
        self.clock.silent.discard(port)
        raise HungUpError

    def slowly(self, answer: Answer) -> None:
        """Give an answer of which, behind its head, a byte a second arrives."""
        self.clock.slow[self.port] = -1
        self.say(answer)


def _head(answer: Answer) -> bytes:
    """Return the lines before the body."""
    headers = {**answer.headers, "Content-Length": str(len(answer.body))}
    lines = [f"HTTP/1.1 {answer.status} {_phrase(answer.status)}", *map(": ".join, headers.items()), "", ""]
    return "\r\n".join(lines).encode()


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
