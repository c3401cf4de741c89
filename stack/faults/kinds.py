"""What may go wrong with a call? One class for each way, and one table of all kinds by name.

A fault says for which calls it makes sense (`suits`), to which calls of a run it happens (`takes`), and what happens to
them (`happen`). It is frozen; the events are kept in the run.
"""

# ruff: noqa: D102 - what a fault's methods do is said by their base

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stack.chaos.forwarding import Answer
from stack.faults.calls import Position

if TYPE_CHECKING:
    from stack.faults.exchange import Exchange

#: Seconds for which a service does not answer. An attempt should survive this.
OUTAGE_S = 120.0
#: Seconds by which a list is late: less than the time in which a create call is expected to show its job.
LAG_S = 60.0
#: Seconds for which the output of a job that has succeeded is late.
UNNAMED_S, HELD_BACK_S = 30.0, 60.0
#: Marks the rows that replaced other rows.
SECOND = ", second edition"


@dataclass(frozen=True)
class Fault:
    """Base: it happens once, to the call at the position that was asked for.

    :cvar needs_large: whether the batch's rows are to be read in several pieces.
    """

    needs_large: ClassVar[bool] = False

    def suits(self, position: Position) -> bool:  # noqa: ARG002 - most faults happen to any call
        """Whether it can happen to this call."""
        return True

    def takes(self, exchange: Exchange) -> bool:
        """Whether it happens to this call of a run."""
        return exchange.run.struck is None and exchange.position.title == exchange.run.at

    def happen(self, exchange: Exchange) -> None:
        """End the call."""
        raise NotImplementedError


@dataclass(frozen=True)
class Refused(Fault):
    """An error instead of the answer.

    :param done: whether the service carried out the call; only for calls that change something.
    """

    status: int
    done: bool = False
    retry_after: str = ""

    def suits(self, position: Position) -> bool:
        return position.changes or not self.done

    def happen(self, exchange: Exchange) -> None:
        if self.done:
            exchange.forward()
        exchange.refuse(self.status, **({"Retry-After": self.retry_after} if self.retry_after else {}))


@dataclass(frozen=True)
class Cut(Fault):
    """The connection is cut."""

    done: bool = False

    def suits(self, position: Position) -> bool:
        return position.changes or not self.done

    def happen(self, exchange: Exchange) -> None:
        if self.done:
            exchange.forward()
        exchange.cut()


@dataclass(frozen=True)
class Silent(Fault):
    """The service takes the request and does not answer."""

    done: bool = False

    def suits(self, position: Position) -> bool:
        return position.changes or not self.done

    def happen(self, exchange: Exchange) -> None:
        if self.done:
            exchange.forward()
        exchange.silence()


@dataclass(frozen=True)
class Half(Fault):
    """The connection is cut in the middle of the answer."""

    def happen(self, exchange: Exchange) -> None:
        exchange.half(exchange.forward())


@dataclass(frozen=True)
class Slow(Fault):
    """The answer comes at a byte a second."""

    def happen(self, exchange: Exchange) -> None:
        exchange.slowly(exchange.forward())


@dataclass(frozen=True)
class Garbage(Fault):
    """A proxy's page instead of the answer, with status 200."""

    def suits(self, position: Position) -> bool:
        return not position.is_media

    def happen(self, exchange: Exchange) -> None:
        exchange.forward()
        exchange.say(Answer(200, {"Content-Type": "text/html"}, b"<html><title>Error</title></html>"))


@dataclass(frozen=True)
class RepeatMet(Fault):
    """The object is written, the answer is lost, and the client's own repeat finds the object there: 412."""

    def suits(self, position: Position) -> bool:
        return position.is_conditional

    def happen(self, exchange: Exchange) -> None:
        exchange.forward()
        exchange.refuse(412)


@dataclass(frozen=True)
class SessionLost(Fault):
    """Cloud Storage does not know an announced upload any more."""

    status: int

    def suits(self, position: Position) -> bool:
        return position.is_upload

    def takes(self, exchange: Exchange) -> bool:
        lost = exchange.run.lost_upload
        return super().takes(exchange) or bool(lost and exchange.call.upload_id == lost)

    def happen(self, exchange: Exchange) -> None:
        exchange.run.lost_upload = exchange.call.upload_id
        exchange.refuse(self.status)


@dataclass(frozen=True)
class Outage(Fault):
    """One service does not answer for a while.

    :param cuts: whether it refuses connections, instead of answering 503.
    :param done: whether it carried out the call before that.
    """

    cuts: bool = False
    done: bool = False

    def suits(self, position: Position) -> bool:
        return position.changes or not self.done

    def takes(self, exchange: Exchange) -> bool:
        run = exchange.run
        if run.struck is None:
            return super().takes(exchange)
        is_over = exchange.clock.elapsed_s - run.struck_at >= OUTAGE_S
        return not is_over and exchange.position.service == run.struck.service

    def happen(self, exchange: Exchange) -> None:
        if self.done and exchange.position is exchange.run.struck:
            exchange.forward()
        if self.cuts:
            exchange.cut()
        exchange.refuse(503)


@dataclass(frozen=True)
class LostAndLate(Fault):
    """The answer to a create call is lost, and the list of jobs is late."""

    def suits(self, position: Position) -> bool:
        return position.is_create

    def happen(self, exchange: Exchange) -> None:
        exchange.forward()
        exchange.run.list_late_s = LAG_S
        exchange.cut()


@dataclass(frozen=True)
class SourceReplaced(Fault):
    """Somebody replaces the rows while they are read."""

    needs_large: ClassVar[bool] = True

    def suits(self, position: Position) -> bool:
        return position.is_source

    def happen(self, exchange: Exchange) -> None:
        exchange.run.cloud.put_rows(exchange.run.name, SECOND, is_large=True)
        exchange.say(exchange.forward())


@dataclass(frozen=True)
class OutputHeldBack(Fault):
    """The job has succeeded, and its output is not complete yet.

    :param share: the part of its bytes that is there.
    """

    share: float

    def suits(self, position: Position) -> bool:
        return position.is_question

    def happen(self, exchange: Exchange) -> None:
        answer = exchange.forward()
        if folder := _output_of(answer):
            put_back = exchange.run.cloud.hold_back(folder, self.share)
            exchange.run.later.append((exchange.clock.elapsed_s + HELD_BACK_S, put_back))
        exchange.say(answer)


@dataclass(frozen=True)
class OutputUnnamed(Fault):
    """The job has succeeded, and does not say yet where its output is."""

    def suits(self, position: Position) -> bool:
        return position.is_question

    def takes(self, exchange: Exchange) -> bool:
        run = exchange.run
        if run.struck is None:
            return super().takes(exchange)
        return exchange.position.is_question and exchange.clock.elapsed_s < run.struck_at + UNNAMED_S

    def happen(self, exchange: Exchange) -> None:
        answer = exchange.forward()
        if _output_of(answer):
            answer.body = json.dumps({**json.loads(answer.body), "outputInfo": {}}).encode()
        exchange.say(answer)


def _output_of(answer: Answer) -> str:
    """Return the folder of a job that has succeeded, or an empty text."""
    job = json.loads(answer.body)
    is_done = job.get("state") == "JOB_STATE_SUCCEEDED"
    return str(job.get("outputInfo", {}).get("gcsOutputDirectory", "")) if is_done else ""


#: Every kind of fault of a call, as the documentation names it.
KINDS: dict[str, Fault] = {
    "503, nothing done": Refused(503),
    "503, but done": Refused(503, done=True),
    "500, nothing done": Refused(500),
    "429, Retry-After 30 s": Refused(429, retry_after="30"),
    "403 once": Refused(403),
    "404 once": Refused(404),
    "connection cut, nothing done": Cut(),
    "connection cut, but done": Cut(done=True),
    "silence, nothing done": Silent(),
    "silence, but done": Silent(done=True),
    "half an answer": Half(),
    "a byte a second": Slow(),
    "garbage with 200": Garbage(),
    "412, but done": RepeatMet(),
    "upload session lost (404)": SessionLost(404),
    "upload session lost (410)": SessionLost(410),
    "away for 120 s (503)": Outage(),
    "away for 120 s (no connection)": Outage(cuts=True),
    "done, then away for 120 s": Outage(done=True),
    "create answer lost, list 60 s late": LostAndLate(),
    "rows replaced while they are read": SourceReplaced(),
    "output named 30 s late": OutputUnnamed(),
    "output there 60 s late": OutputHeldBack(0.0),
    "output still growing for 60 s": OutputHeldBack(0.5),
}
