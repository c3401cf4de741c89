"""What does each scripted fault do? One class for each fault: its parameters, where it happens, and what it changes.

There are four kinds: a `CallFault` is around one API call, a `JobFault` decides how one job goes, an `OutputFault` (in
`output_faults`) when the output of an ended job can be seen, a `RowFault` rewrites what one request came to. A new
fault is one class: its ``tag`` is its name in a scenario file, and `scenario` finds it by its base class.

Invariants: a fault is frozen data; what was used is counted in `scenario.Script`, never here. A fault acts on the
same rows in every job and every order of work, because rows are chosen by key.
"""

# ruff: noqa: D102 - what a fault's one method does is said by its class

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from airflow_vertex_batch.emulator.wire import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_vertex_batch.emulator.clock import Clock


Operation = Literal["create", "get", "list", "cancel", "delete", "operation", "model", "generate"]
When = Literal["before", "after"]


class Call(msgspec.Struct, frozen=True):
    """One API call, free of any HTTP library.

    :param token: the bearer token, or empty.
    :param hidden_s: jobs younger than this many seconds are left out of a list.
    """

    method: str
    path: str
    query: dict[str, str] = {}
    body: bytes = b""
    headers: dict[str, str] = {}
    hidden_s: float = 0.0

    @property
    def token(self) -> str:
        """The bearer token of the call, or empty."""
        return self.headers.get("authorization", "").partition(" ")[2]


class Reply(msgspec.Struct, frozen=True):
    """One answer of the API."""

    status: int
    document: Any = None
    headers: dict[str, str] = {}

    @classmethod
    def of(cls, error: ApiError, headers: dict[str, str] | None = None) -> Reply:
        """Return the answer for an error."""
        return cls(error.code, error.document(), headers or {})


class DroppedError(ConnectionResetError):
    """The connection is to be cut without an answer."""


class CallContext(msgspec.Struct, frozen=True):
    """What a call fault may use: the way on, the clock, and the tokens refused from now on."""

    proceed: Callable[[Call], Reply]
    clock: Clock
    refused_tokens: set[str]


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", forbid_unknown_fields=True):
    """Base of all faults.

    :param times: how often it acts; None for ever.
    :param job: a glob on the display name of the job concerned.
    :param labels: labels the job concerned must carry; values are globs: ``{"avb-round": "[01]"}`` strikes the first
        job and the first repair round.
    """

    times: int | None = 1
    job: str = "*"
    labels: dict[str, str] = {}

    def concerns(self, display_name: str, labels: dict[str, str]) -> bool:
        """Whether a job of this name and these labels is meant."""
        return fnmatchcase(display_name, self.job) and all(
            # Labels of a create call may still be anything.
            name in labels and fnmatchcase(str(labels[name]), glob)
            for name, glob in self.labels.items()
        )


# Faults of a call -----------------------------------------------------------------------------------------------------


class CallFault(Fault, frozen=True, kw_only=True):
    """Base of the faults around one API call."""

    on: Operation

    def around(self, call: Call, world: CallContext) -> Reply:
        """Return the answer, calling ``world.proceed(call)`` or not."""
        raise NotImplementedError


class Pass(CallFault, frozen=True, kw_only=True, tag="pass"):
    """Let calls through without a fault, so that the next faults of the script happen later."""

    def around(self, call: Call, world: CallContext) -> Reply:
        return world.proceed(call)


class Http(CallFault, frozen=True, kw_only=True, tag="http"):
    """Answer with an error, before or after the call took effect.

    :param retry_after: seconds in a ``Retry-After`` header.
    :param html: answer with a proxy's HTML page instead of Google's JSON.
    """

    status: int
    when: When = "before"
    reason: str = ""
    message: str = "Injected by the scenario."
    retry_after: float | None = None
    html: bool = False

    def around(self, call: Call, world: CallContext) -> Reply:
        if self.when == "after":
            world.proceed(call)
        headers = {} if self.retry_after is None else {"Retry-After": f"{self.retry_after:g}"}
        if self.html:
            return Reply(self.status, f"<html><title>Error {self.status}</title></html>", headers)
        return Reply.of(ApiError(self.status, self.message, status=self.reason), headers)


class Drop(CallFault, frozen=True, kw_only=True, tag="drop"):
    """Cut the connection without an answer, before or after the call took effect."""

    when: When = "before"

    def around(self, call: Call, world: CallContext) -> Reply:
        if self.when == "after":
            world.proceed(call)
        raise DroppedError(f"the scenario drops this {self.on} {self.when} its commit")


class Delay(CallFault, frozen=True, kw_only=True, tag="delay"):
    """Take effect or answer late."""

    seconds: float
    when: When = "before"

    def around(self, call: Call, world: CallContext) -> Reply:
        if self.when == "before":
            world.clock.sleep(self.seconds)
        reply = world.proceed(call)
        if self.when == "after":
            world.clock.sleep(self.seconds)
        return reply


class ExpireToken(CallFault, frozen=True, kw_only=True, tag="expire_token"):
    """Refuse the token this call carries, now and on every later call; another token is welcome."""

    def around(self, call: Call, world: CallContext) -> Reply:
        world.refused_tokens.add(call.token)
        return world.proceed(call)


class Stale(CallFault, frozen=True, kw_only=True, tag="stale"):
    """Leave jobs younger than `seconds` out of a list: the index lags behind create."""

    on: Operation = "list"
    seconds: float
    times: int | None = None

    def around(self, call: Call, world: CallContext) -> Reply:
        return world.proceed(msgspec.structs.replace(call, hidden_s=self.seconds))


# Faults of a job ------------------------------------------------------------------------------------------------------


class JobFault(Fault, frozen=True, kw_only=True):
    """Base of the faults that decide how one job goes. Taken, in order, when a job is created.

    :param state: the state to force; any text, so that states which don't exist yet can be tried.
    :param after: the share of its rows the job answers before; 0 and ``from_pending`` mean before it runs at all.
    :param code: the gRPC code of the job's ``error``; 0 for none.
    """

    state: str
    after: float = 1.0
    from_pending: bool = False


class End(JobFault, frozen=True, kw_only=True, tag="end"):
    """End the job in `state`, with an error."""

    code: int = 0
    message: str = ""


class Hold(JobFault, frozen=True, kw_only=True, tag="hold"):
    """Keep the job in `state` for `seconds` of the service's time, or without them until it is released.

    A test that needs the job to wait while it acts gives no `seconds`: how long it takes depends on the machine.
    """

    seconds: float | None = None
