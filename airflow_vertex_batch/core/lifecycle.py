"""How is a job waited for? A generator without I/O decides; a sync and an async driver carry out its steps.

`watch` yields `Poll`, `Sleep`, `Cancel` or `Warn`, is sent a `BatchJob` or has a `ServiceError` thrown into it, and
returns an `Outcome`. Invariants: the deadline is anchored at the job's creation, never at the attempt; an error that
may pass never ends a wait before its deadline; a final state ends it at once; no wait is for ever.
"""

from __future__ import annotations

import heapq
import logging
import random
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from airflow_vertex_batch.core import pace, queue
from airflow_vertex_batch.core.address import JobName
from airflow_vertex_batch.core.errors import JobError, ServiceError
from airflow_vertex_batch.core.model import BatchJob, JobState, Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence

log = logging.getLogger(__name__)

#: Queue (72 h) plus run (24 h) plus an hour of slack: what the service itself allows a job
#: (https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini, 2026-11-22).
DEFAULT_TIMEOUT_SECONDS = (72 + 24 + 1) * 3600.0
#: Times in a row that an error which a retry cannot cure (403, 404) is met before the wait gives up: rights and new
#: jobs take moments to spread.
_MAX_HARD_ERRORS = 3
#: Seconds for which a job that is being cancelled is waited for beyond its deadline: nothing new begins in it, and its
#: rows are to be had once it has ended. The service states no bound; minutes were seen.
CANCELLING_SECONDS = 30 * 60.0


class OnTimeout(StrEnum):
    """What happens to a job that is not done at its deadline."""

    #: Cancel it and fail; the next attempt lands what it answered.
    CANCEL = "cancel"
    #: Leave it running and fail; each attempt looks once.
    FAIL = "fail"
    #: Go on waiting, for as long as the service itself lets it be; then as `FAIL`.
    KEEP = "keep"


class WaitPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how often to ask.

    :param poll_interval: seconds between two questions; None follows the job (see `core.pace`).
    :param timeout: seconds from the job's creation until it counts as late. One that is being cancelled then is waited
        for `CANCELLING_SECONDS` more, and not cancelled twice.
    :param first_poll_after: seconds before the first question.
    :param queue_limit: seconds from the job's creation after which a wait for its turn is interrupted; None for never.
    """

    poll_interval: float | None = None
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    first_poll_after: float = 0.0
    on_timeout: OnTimeout = OnTimeout.CANCEL
    queue_limit: float | None = None


class Poll(msgspec.Struct, frozen=True):
    """Ask for the job; send the answer back, or throw the error."""

    name: JobName


class Sleep(msgspec.Struct, frozen=True):
    """Do nothing for some seconds."""

    seconds: float


class Cancel(msgspec.Struct, frozen=True):
    """Ask for the job to be cancelled; send back whether there was anything to cancel, or throw the error."""

    name: JobName


class Warn(msgspec.Struct, frozen=True):
    """Say something to whoever reads the task's log.

    :param ago: seconds for which it has been so; who looks only now and then tells by it what is new.
    """

    text: str
    ago: float = 0.0


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


class Queued(msgspec.Struct, frozen=True, tag="queued"):
    """The job still waits for its turn beyond `WaitPolicy.queue_limit`: somebody should see to it, then wait again."""

    job: BatchJob

    @property
    def name(self) -> str:
        """The job's name, as the other outcomes have it."""
        return self.job.name


class GaveUp(msgspec.Struct, frozen=True, tag="gave_up"):
    """The job cannot be asked about any more; it may still run."""

    name: str
    status: int
    why: str


Step = Poll | Sleep | Cancel | Warn
Outcome = Ended | TimedOut | Queued | GaveUp
Reply = BatchJob | bool | None
Flow: TypeAlias = "Generator[Step, Reply, Outcome]"


def watch(
    name: JobName,
    policy: WaitPolicy,
    now: Callable[[], float] = time.time,
    *,
    began: float | None = None,
    usual: Callable[[BatchJob], float | None] = lambda _job: None,
    luck: Callable[[], float] = random.random,
) -> Flow:
    """Wait for one job's end.

    :param now: seconds since the epoch, replaced in tests.
    :param began: when this attempt began to wait, where that was in another process; seconds since the epoch.
    :param usual: how many seconds jobs like one usually run, or None; for the adaptive interval.
    :param luck: a number from 0 to 1 that spreads the intervals, replaced in tests.
    """
    began, job, hard_errors, soft_errors, asked_to_wait = began or now(), None, 0, 0, 0.0
    if policy.first_poll_after:
        yield Sleep(policy.first_poll_after)
    said_late = False
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
        deadline = (job.created_at.timestamp() if job is not None and job.created_at else began) + policy.timeout
        remaining = _last_moment(job, deadline, policy, began) - now()
        if remaining <= 0:
            return (yield from _late(name, job, policy))
        queue_left = queue.left(job, policy.queue_limit, now())
        if job is not None and queue_left <= 0:
            return Queued(job)
        if now() >= deadline and not said_late:
            said_late = True
            yield Warn(_late_text(name, job, remaining), now() - deadline)
        base = policy.poll_interval or pace.interval(job, now(), usual(job) if job else None, luck())
        yield Sleep(min(pace.after_error(base, soft_errors, asked_to_wait, luck()), remaining, queue_left))


def _last_moment(job: BatchJob | None, deadline: float, policy: WaitPolicy, began: float) -> float:
    """Return until when to wait, seconds since the epoch."""
    if _is_being_cancelled(job):
        return max(deadline, began) + CANCELLING_SECONDS
    if policy.on_timeout is OnTimeout.KEEP:
        return deadline + max(DEFAULT_TIMEOUT_SECONDS - policy.timeout, 0.0)
    return deadline


def _is_being_cancelled(job: BatchJob | None) -> bool:
    return job is not None and job.state is JobState.CANCELLING


def _late_text(name: JobName, job: BatchJob | None, remaining: float) -> str:
    state = job.progress if job is not None else "it was never seen"
    until = f"waiting for up to {remaining / 3600:.1f} h more"
    return f"{name} was not done at its deadline ({state}); {until}"


def _count(error: ServiceError, hard: int, soft: int) -> tuple[int, int]:
    return (hard, soft + 1) if error.retryable else (hard + 1, soft)


def _seen(answer: Reply, before: BatchJob | None) -> BatchJob | None:
    return answer if isinstance(answer, BatchJob) else before


def _late(name: JobName, job: BatchJob | None, policy: WaitPolicy) -> Flow:
    """Decide what becomes of a job at its deadline. A cancel that finds nothing to cancel means that it just ended."""
    if policy.on_timeout is not OnTimeout.CANCEL or _is_being_cancelled(job):
        return TimedOut(str(name), job, cancelled=_is_being_cancelled(job))
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
    if job is not None and job.state.is_final:
        return Ended(job)
    return TimedOut(str(name), job, cancelled=_is_being_cancelled(job))


def has_rows(job: BatchJob) -> bool:
    """Whether there may be rows of an ended job to land."""
    return job.state.phase in {Phase.SUCCEEDED, Phase.PARTIAL} or job.successful_count > 0


def pack(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return outcomes as JSON-safe builtins, for a trigger's event."""
    return msgspec.json.decode(msgspec.json.encode(outcomes))  # type: ignore[no-any-return]


def unpack(value: object) -> list[Outcome]:
    """Read `pack()` back."""
    return msgspec.convert(value, list[Outcome])


def conclude(
    outcomes: Sequence[Outcome], bears: Callable[[BatchJob], bool] = lambda _job: False, *, lands_part: bool = False
) -> list[BatchJob]:
    """Return the jobs whose rows can be landed.

    A job that was cancelled, expired or failed after it wrote rows is among them: what was paid for is landed first,
    and the export then says how the job ended.

    :param bears: whether a job that ended without rows is no error.
    :param lands_part: also pass on jobs that were cancelled or expired without a row, where another job has rows: those
        are paid for, and must not wait for a person.
    :raises JobError: when a job ended without rows, was late, or cannot be asked about.
    """
    jobs = []
    are_paid = lands_part and any(isinstance(outcome, Ended) and has_rows(outcome.job) for outcome in outcomes)
    for outcome in outcomes:
        match outcome:
            case Ended(job) if has_rows(job) or bears(job):
                jobs.append(job)
            case Ended(job) if are_paid and job.state.phase in {Phase.CANCELLED, Phase.EXPIRED}:
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


def _say(warning: Warn) -> None:
    log.warning("%s", warning.text)


def drive(
    *waits: tuple[Flow, Asks],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    seen: Callable[[BatchJob], None] = lambda _job: None,
    warn: Callable[[Warn], None] = _say,
) -> list[Outcome]:
    """Carry out flows side by side, blocking, until all have ended or one says that its job queues for too long.

    :param waits: each flow with the service it asks.
    :param clock: seconds that only grow.
    :param seen: told of every answer, for the log.
    :param warn: told of every warning.
    :returns: the outcomes there are, in the order of `waits`.
    """
    outcomes: dict[int, Outcome] = {}
    due = [(clock(), number) for number in range(len(waits))]
    while due and not any(isinstance(outcome, Queued) for outcome in outcomes.values()):
        when, number = heapq.heappop(due)
        if (wait := when - clock()) > 0:
            sleep(wait)
        step = _to_sleep(*waits[number], seen, warn)
        if isinstance(step, Sleep):
            heapq.heappush(due, (clock() + step.seconds, number))
        else:
            outcomes[number] = step
    return [outcomes[number] for number in sorted(outcomes)]


def drive_once(
    flow: Flow,
    service: Asks,
    *,
    seen: Callable[[BatchJob], None] = lambda _job: None,
    warn: Callable[[Warn], None] = _say,
) -> Outcome | None:
    """Carry out a flow up to its first sleep; None when it would sleep: for a question between two reschedules."""
    step = _to_sleep(flow, service, seen, warn)
    return None if isinstance(step, Sleep) else step


def _to_sleep(
    flow: Flow, service: Asks, seen: Callable[[BatchJob], None], warn: Callable[[Warn], None]
) -> Sleep | Outcome:
    """Carry out a flow from its beginning, or from one sleep, to the next or to its end."""
    try:
        step = flow.send(None)
        while not isinstance(step, Sleep):
            try:
                reply = _reply(step, service, seen, warn)
            except ServiceError as error:
                step = flow.throw(error)
            else:
                step = flow.send(reply)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    return step


def _reply(
    step: Poll | Cancel | Warn, service: Asks, seen: Callable[[BatchJob], None], warn: Callable[[Warn], None]
) -> Reply:
    match step:
        case Poll(name):
            job = service.get(name)
            seen(job)
            return job
        case Cancel(name):
            return service.cancel(name)
        case Warn():
            warn(step)
    return None


async def adrive(
    flow: Flow,
    service: AsksAsync,
    *,
    sleep: Callable[[float], Awaitable[None]],
    seen: Callable[[BatchJob], Awaitable[None]],
    warn: Callable[[Warn], Awaitable[None]],
) -> Outcome:
    """Carry out a flow on an event loop, with awaits; telling somebody is awaited too, for a log may block."""
    step = next(flow)
    while True:
        try:
            try:
                reply = await _areply(step, service, sleep, seen, warn)
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
    seen: Callable[[BatchJob], Awaitable[None]],
    warn: Callable[[Warn], Awaitable[None]],
) -> Reply:
    match step:
        case Poll(name):
            job = await service.get(name)
            await seen(job)
            return job
        case Cancel(name):
            return await service.cancel(name)
        case Sleep(seconds):
            await sleep(seconds)
        case Warn():
            await warn(step)
    return None
