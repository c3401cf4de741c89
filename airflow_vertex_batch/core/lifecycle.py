"""How is a job waited for? A generator without I/O decides; a sync and an async driver carry out its steps.

`watch` yields `Poll`, `Sleep` or `Cancel`, is sent a `BatchJob` or has a `ServiceError` thrown into it, and returns an
`Outcome`. Invariants: the deadline is anchored at the job's creation, never at the attempt; an error that may pass
never ends a wait before its deadline; a final state ends it at once.
"""

from __future__ import annotations

import random
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_vertex_batch.core import pace
from airflow_vertex_batch.core.address import JobName
from airflow_vertex_batch.core.errors import JobError, ServiceError
from airflow_vertex_batch.core.model import BatchJob, Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence

#: Queue (72 h) plus run (24 h) plus an hour of slack: what the service itself allows a job
#: (https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini, 2026-11-22).
DEFAULT_TIMEOUT_SECONDS = (72 + 24 + 1) * 3600.0
#: Times in a row that an error which a retry cannot cure (403, 404) is met before the wait gives up: rights and new
#: jobs take moments to spread.
_MAX_HARD_ERRORS = 3


class OnTimeout(StrEnum):
    """What happens to a job that is not done at its deadline."""

    CANCEL = "cancel"
    FAIL = "fail"


class WaitPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how often to ask.

    :param poll_interval: seconds between two questions; None follows the job (see `core.pace`).
    :param timeout: seconds from the job's creation until it counts as late.
    :param first_poll_after: seconds before the first question.
    """

    poll_interval: float | None = None
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    first_poll_after: float = 0.0
    on_timeout: OnTimeout = OnTimeout.CANCEL


class Poll(msgspec.Struct, frozen=True):
    """Ask for the job; send the answer back, or throw the error."""

    name: JobName


class Sleep(msgspec.Struct, frozen=True):
    """Do nothing for some seconds."""

    seconds: float


class Cancel(msgspec.Struct, frozen=True):
    """Ask for the job to be cancelled; send back whether there was anything to cancel, or throw the error."""

    name: JobName


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The job reached a final state."""

    job: BatchJob

    @property
    def name(self) -> str:
        """The job's name, as the other outcomes have it."""
        return self.job.name


class TimedOut(msgspec.Struct, frozen=True, tag="timed_out"):
    """The deadline passed.

    :param job: as last seen, or None if it was never seen.
    """

    name: str
    job: BatchJob | None
    cancelled: bool


class GaveUp(msgspec.Struct, frozen=True, tag="gave_up"):
    """The job cannot be asked about any more; it may still run."""

    name: str
    status: int
    why: str


Step = Poll | Sleep | Cancel
Outcome = Ended | TimedOut | GaveUp
Reply = BatchJob | bool | None


def watch(
    name: JobName,
    policy: WaitPolicy,
    now: Callable[[], float] = time.time,
    *,
    usual: Callable[[BatchJob], float | None] = lambda _job: None,
    luck: Callable[[], float] = random.random,
) -> Generator[Step, Reply, Outcome]:
    """Wait for one job's end.

    :param now: seconds since the epoch, replaced in tests.
    :param usual: how many seconds jobs like one usually run, or None; for the adaptive interval.
    :param luck: a number from 0 to 1 that spreads the intervals, replaced in tests.
    """
    started, job, hard_errors, soft_errors, asked_to_wait = now(), None, 0, 0, 0.0
    if policy.first_poll_after:
        yield Sleep(policy.first_poll_after)
    while True:
        try:
            job = _seen((yield Poll(name)), job)
            hard_errors, soft_errors, asked_to_wait = 0, 0, 0.0
        except ServiceError as error:
            hard_errors, soft_errors = _count(error, hard_errors, soft_errors)
            asked_to_wait = error.retry_after or 0.0
            if hard_errors >= _MAX_HARD_ERRORS:
                return GaveUp(str(name), error.status, str(error))
        if job is not None and job.state.is_final:
            return Ended(job)
        anchor = job.created_at.timestamp() if job is not None and job.created_at else started
        remaining = anchor + policy.timeout - now()
        if remaining <= 0:
            return (yield from _late(name, job, policy))
        base = policy.poll_interval or pace.interval(job, now(), usual(job) if job else None, luck())
        yield Sleep(min(pace.after_error(base, soft_errors, asked_to_wait, luck()), remaining))


def _count(error: ServiceError, hard: int, soft: int) -> tuple[int, int]:
    return (hard, soft + 1) if error.retryable else (hard + 1, soft)


def _seen(answer: Reply, before: BatchJob | None) -> BatchJob | None:
    return answer if isinstance(answer, BatchJob) else before


def _late(name: JobName, job: BatchJob | None, policy: WaitPolicy) -> Generator[Step, Reply, Outcome]:
    """Decide what becomes of a job at its deadline. A cancel that finds nothing to cancel means that it just ended."""
    if policy.on_timeout is OnTimeout.FAIL:
        return TimedOut(str(name), job, cancelled=False)
    try:
        cancelled = yield Cancel(name)
    except ServiceError:
        return TimedOut(str(name), job, cancelled=False)
    if cancelled:
        return TimedOut(str(name), job, cancelled=True)
    try:
        job = _seen((yield Poll(name)), job)
    except ServiceError:
        return TimedOut(str(name), job, cancelled=False)
    return Ended(job) if job is not None and job.state.is_final else TimedOut(str(name), job, cancelled=False)


def pack(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return outcomes as JSON-safe builtins, for a trigger's event."""
    return msgspec.json.decode(msgspec.json.encode(outcomes))  # type: ignore[no-any-return]


def unpack(value: object) -> list[Outcome]:
    """Read `pack()` back."""
    return msgspec.convert(value, list[Outcome])


def conclude(outcomes: Sequence[Outcome]) -> list[BatchJob]:
    """Return the jobs whose rows can be landed.

    A job that was cancelled, expired or failed after it wrote rows is among them: what was paid for is landed first,
    and the export then says how the job ended.

    :raises JobError: when a job ended without rows, was late, or cannot be asked about.
    """
    jobs = []
    for outcome in outcomes:
        match outcome:
            case Ended(job) if job.state.phase in {Phase.SUCCEEDED, Phase.PARTIAL} or job.successful_count > 0:
                jobs.append(job)
            case Ended(job):
                raise JobError(
                    f"{job.name} ended as {job.state_text or job.state}", job_name=job.name, state=str(job.state),
                    why=job.error_message, left="It answered no row", retryable=False,
                    todo="Correct what it complains about, then clear the create task: a new job is made",
                )  # fmt: skip
            case TimedOut(name, job, cancelled):
                fate = "It is being cancelled; rows it has answered stay" if cancelled else "It may still run, and bill"
                raise JobError(
                    f"{name} was not done at its deadline", job_name=name, state=str(job.state) if job else "",
                    why=f"last seen {job.progress}" if job else "it was never seen", left=fate,
                    todo="The next attempt of this task looks again and lands what there is",
                )  # fmt: skip
            case GaveUp(name, status, why):
                raise JobError(
                    f"{name} cannot be asked about (HTTP {status})", job_name=name, state="", why=why,
                    left="It may still run, and bill", retryable=status not in {400, 404},
                    todo="Check the connection's rights and the job in the console",
                )  # fmt: skip
    return jobs


class Asks(Protocol):
    """What the sync driver needs of a job service."""

    def get(self, name: JobName) -> BatchJob:
        """Return one job."""

    def cancel(self, name: JobName) -> bool:
        """Cancel one job."""


class AsksAsync(Protocol):
    """What the async driver needs of a job service."""

    def get(self, name: JobName) -> Awaitable[BatchJob]:
        """Return one job."""

    def cancel(self, name: JobName) -> Awaitable[bool]:
        """Cancel one job."""


def drive(
    flow: Generator[Step, Reply, Outcome],
    service: Asks,
    *,
    sleep: Callable[[float], None] = time.sleep,
    seen: Callable[[BatchJob], None] = lambda _job: None,
) -> Outcome:
    """Carry out a flow, blocking.

    :param seen: told of every answer, for the log.
    """
    step = next(flow)
    while True:
        try:
            try:
                reply = _reply(step, service, sleep, seen)
            except ServiceError as error:
                step = flow.throw(error)
            else:
                step = flow.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def drive_once(
    flow: Generator[Step, Reply, Outcome], service: Asks, *, seen: Callable[[BatchJob], None] = lambda _job: None
) -> Outcome | None:
    """Carry out a flow up to its first sleep; None when it would sleep: for a question between two reschedules."""

    class _Sleeps(Exception):  # noqa: N818
        pass

    def stop(_seconds: float) -> None:
        raise _Sleeps

    try:
        return drive(flow, service, sleep=stop, seen=seen)
    except _Sleeps:
        return None


def _reply(step: Step, service: Asks, sleep: Callable[[float], None], seen: Callable[[BatchJob], None]) -> Reply:
    match step:
        case Poll(name):
            job = service.get(name)
            seen(job)
            return job
        case Cancel(name):
            return service.cancel(name)
        case Sleep(seconds):
            sleep(seconds)
    return None


async def adrive(
    flow: Generator[Step, Reply, Outcome],
    service: AsksAsync,
    *,
    sleep: Callable[[float], Awaitable[None]],
    seen: Callable[[BatchJob], None] = lambda _job: None,
) -> Outcome:
    """Carry out a flow on an event loop: `drive` with awaits, and nothing else."""
    step = next(flow)
    while True:
        try:
            try:
                reply = await _areply(step, service, sleep, seen)
            except ServiceError as error:
                step = flow.throw(error)
            else:
                step = flow.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


async def _areply(
    step: Step,
    service: AsksAsync,
    sleep: Callable[[float], Awaitable[None]],
    seen: Callable[[BatchJob], None],
) -> Reply:
    match step:
        case Poll(name):
            job = await service.get(name)
            seen(job)
            return job
        case Cancel(name):
            return await service.cancel(name)
        case Sleep(seconds):
            await sleep(seconds)
    return None
