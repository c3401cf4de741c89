"""How does a task wait for a job? A generator without I/O decides; `core.waiting.drive` carries out its steps.

`watch` yields `Poll`, `Sleep`, `Cancel` or `Warn`. A `BatchJob` is sent to it, or a `ServiceError` is thrown into it.
It returns an `Outcome`. Invariants: the deadline of a job counts from its creation, never from the attempt. An attempt
may have its own limit, which ends its wait earlier and has no effect on the wait of the next attempt. A temporary error
never ends a wait before its deadline. A final state ends it at once. Every wait has an end.
"""

from __future__ import annotations

import logging
import random
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from airflow_vertex_batch.core.domain.address import JobName
from airflow_vertex_batch.core.domain.errors import JobError, OutOfTimeError, ServiceError
from airflow_vertex_batch.core.domain.job import BatchJob, JobState, Phase
from airflow_vertex_batch.core.waiting import cadence, queue

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

log = logging.getLogger(__name__)

#: Queue (72 h) plus run (24 h) plus an hour of slack: what the service itself allows a job
#: (https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini, 2026-11-22).
DEFAULT_TIMEOUT_SECONDS = (72 + 24 + 1) * 3600.0
#: How many permanent errors (403, 404) in a row end a wait. Not the first one: rights and new jobs take a moment until
#: all servers know them.
_MAX_HARD_ERRORS = 3
#: Seconds to wait beyond the deadline for a job that is being cancelled. No new row begins in it, and its rows are
#: available when it has ended. The service states no limit; minutes were seen.
CANCELLING_SECONDS = 30 * 60.0
#: Seconds before a cancel at the deadline is sent again, after a temporary error. After the last attempt of a task
#: nobody sends it again, so one 503 must not leave a job running.
_CANCEL_AGAIN_SECONDS = (1.0, 2.0, 4.0, 8.0)


class OnTimeout(StrEnum):
    """What happens to a job that is not done at its deadline."""

    #: Cancel it and fail; the next attempt lands the rows that it answered.
    CANCEL = "cancel"
    #: Leave it running and fail; each attempt looks once.
    FAIL = "fail"
    #: Go on waiting, for as long as the service allows a job; then as `FAIL`.
    KEEP = "keep"


class LimitName(StrEnum):
    """Which parameter ended a wait."""

    JOB_TIMEOUT = "job_timeout"
    #: Airflow's limit of every task.
    EXECUTION_TIMEOUT = "execution_timeout"
    #: Airflow's limit of sensors. Airflow does not retry after it.
    SENSOR_TIMEOUT = "timeout"


class Limit(msgspec.Struct, frozen=True):
    """When an attempt must stop waiting, whatever its jobs do.

    :param at: seconds since the epoch.
    """

    at: float
    name: LimitName

    @classmethod
    def of(cls, value: Any) -> Limit:
        """Read `as_dict()` back."""
        return msgspec.convert(value, cls)

    def as_dict(self) -> dict[str, Any]:
        """Return builtins, for a trigger's arguments."""
        return {"at": self.at, "name": str(self.name)}


def require_time_left(limit: Limit | None, began: float, now: float) -> None:
    """Refuse to buy a job if the time of this attempt is over: the wait for the job would end at once.

    :param limit: when the attempt ends, if it has an end.
    :param began: when the time of the attempt began. This and `now` are seconds since the epoch.
    :raises OutOfTimeError: when its time is over.
    """
    if limit is None or now < limit.at:
        return
    since = datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds")
    raise OutOfTimeError(
        f"The task's {limit.name} was over before a job was bought",
        why=f"It counts from {since} and is {limit.at - began:,.0f} seconds",
        left="Nothing was paid for that job; what was answered before is safe",
        todo="Nothing, if an attempt is left: it has the whole time again. Else clear this task, with a longer "
        f"{limit.name}",
    )


class WaitPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how often to ask.

    :param poll_interval: seconds between two questions; None for an interval that adapts to the job (see
        `core.waiting.cadence`).
    :param timeout: seconds from the job's creation until it counts as late. If the job is being cancelled then, the
        wait is `CANCELLING_SECONDS` longer, and the job is not cancelled twice.
    :param first_poll_after: seconds before the first question.
    :param queue_limit: seconds from the job's creation after which a wait for its turn is interrupted; None for never.
    :param limit: when this attempt ends, if that comes first. Then `on_timeout` says what happens to the job; `KEEP`
        leaves it running.
    """

    poll_interval: float | None = None
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    first_poll_after: float = 0.0
    on_timeout: OnTimeout = OnTimeout.CANCEL
    queue_limit: float | None = None
    limit: Limit | None = None


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
    """Write a warning to the task's log.

    :param ago: for how many seconds the warning has been true. A sensor that looks only now and then sees from it
        whether the warning is new.
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
    :param limit: which deadline it was.
    """

    name: str
    job: BatchJob | None
    cancelled: bool
    limit: LimitName = LimitName.JOB_TIMEOUT


class Queued(msgspec.Struct, frozen=True, tag="queued"):
    """The job still queues after `WaitPolicy.queue_limit`. The caller should deal with it, then wait again."""

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
    jitter: Callable[[], float] = random.random,
) -> Flow:
    """Wait for one job's end.

    :param now: returns seconds since the epoch. Tests replace it.
    :param began: when this attempt began to wait, if it began in another process; seconds since the epoch.
    :param usual: how many seconds jobs like one usually run, or None; for the adaptive interval.
    :param jitter: a number from 0 to 1 that spreads the intervals, replaced in tests.
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
        last = _last_moment(job, deadline, policy, began)
        remaining = last.at - now()
        if remaining <= 0:
            return (yield from _late(name, job, policy, last.name))
        queue_left = queue.seconds_left(job, policy.queue_limit, now())
        if job is not None and queue_left <= 0:
            return Queued(job)
        if now() >= deadline and not said_late:
            said_late = True
            yield Warn(_late_text(name, job, remaining), now() - deadline)
        base = policy.poll_interval or cadence.interval(job, now(), usual(job) if job else None, jitter())
        yield Sleep(min(cadence.after_error(base, soft_errors, asked_to_wait, jitter()), remaining, queue_left))


def _last_moment(job: BatchJob | None, deadline: float, policy: WaitPolicy, began: float) -> Limit:
    """Return until when to wait, and why until then."""
    at = deadline
    if _is_being_cancelled(job):
        at = max(deadline, began) + CANCELLING_SECONDS
    elif policy.on_timeout is OnTimeout.KEEP:
        at += max(DEFAULT_TIMEOUT_SECONDS - policy.timeout, 0.0)
    return policy.limit if policy.limit is not None and policy.limit.at < at else Limit(at, LimitName.JOB_TIMEOUT)


def _is_being_cancelled(job: BatchJob | None) -> bool:
    return job is not None and job.state is JobState.CANCELLING


def _late_text(name: JobName, job: BatchJob | None, remaining: float) -> str:
    state = job.progress if job is not None else "It was never seen"
    until = f"waiting for up to {remaining / 3600:.1f} h more"
    return f"{name} was not done at its deadline ({state}); {until}"


def _count(error: ServiceError, hard: int, soft: int) -> tuple[int, int]:
    return (hard, soft + 1) if error.retryable else (hard + 1, soft)


def _seen(answer: Reply, before: BatchJob | None) -> BatchJob | None:
    return answer if isinstance(answer, BatchJob) else before


def _late(name: JobName, job: BatchJob | None, policy: WaitPolicy, limit: LimitName) -> Flow:
    """Decide what happens to a job at its deadline. If there is nothing to cancel, the job has just ended."""
    if policy.on_timeout is not OnTimeout.CANCEL or _is_being_cancelled(job):
        return TimedOut(str(name), job, _is_being_cancelled(job), limit)
    try:
        if (yield from _cancelled(name)):
            return TimedOut(str(name), job, cancelled=True, limit=limit)
        job = _seen((yield Poll(name)), job)
    except ServiceError:
        return TimedOut(str(name), job, cancelled=False, limit=limit)
    if job is not None and job.state.is_final:
        return Ended(job)
    return TimedOut(str(name), job, _is_being_cancelled(job), limit)


def _cancelled(name: JobName) -> Generator[Step, Reply, bool]:
    """Cancel a job, and repeat it after temporary errors; return whether there was anything to cancel.

    :raises ServiceError: when the service refused, or did not do it in time.
    """
    for seconds in _CANCEL_AGAIN_SECONDS:
        try:
            return bool((yield Cancel(name)))
        except ServiceError as error:
            if not error.retryable:
                raise
            wait = max(seconds, min(error.retry_after or 0.0, _CANCEL_AGAIN_SECONDS[-1]))
        yield Sleep(wait)
    return bool((yield Cancel(name)))


def pack(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return outcomes as JSON-safe builtins, for a trigger's event."""
    return msgspec.json.decode(msgspec.json.encode(outcomes))  # type: ignore[no-any-return]


def unpack(value: object) -> list[Outcome]:
    """Read `pack()` back."""
    return msgspec.convert(value, list[Outcome])


def conclude(
    outcomes: Sequence[Outcome],
    tolerates_empty: Callable[[BatchJob], bool] = lambda _job: False,
    *,
    lands_part: bool = False,
) -> list[BatchJob]:
    """Return the jobs whose rows can be landed.

    A job that was cancelled, expired or failed after it wrote rows is one of them: the paid rows land first, and then
    the export says how the job ended.

    :param tolerates_empty: returns whether a job may end without rows; then that is not an error.
    :param lands_part: if another job has rows, also return jobs that were cancelled or expired without a row. The rows
        of the other job are paid for, and must land without a person's help.
    :raises JobError: when a job ended without rows, was late, or cannot be asked about.
    """
    jobs = []
    are_paid = lands_part and any(isinstance(outcome, Ended) and outcome.job.has_rows for outcome in outcomes)
    for outcome in outcomes:
        if isinstance(outcome, Ended) and outcome.job.partial_failure_count:
            log.warning("%s", outcome.job.partial_failures)
        match outcome:
            case Ended(job) if job.has_rows or tolerates_empty(job):
                jobs.append(job)
            case Ended(job) if are_paid and job.state.phase in {Phase.CANCELLED, Phase.EXPIRED}:
                jobs.append(job)
            case Ended(job):
                raise JobError(
                    f"{job.name} ended as {job.state_text or job.state}", job_name=job.name, state=str(job.state),
                    why=job.error_message, left="It answered no row", retryable=False,
                    todo="Correct what it complains about, then clear the create task: a new job is made",
                )  # fmt: skip
            case TimedOut():
                raise _timed_out_error(outcome, outcomes)
            case GaveUp(name, status, why):
                raise JobError(
                    f"{name} cannot be asked about (HTTP {status})", job_name=name, state="", why=why,
                    left="It may still run, and bill", retryable=status not in {400, 404},
                    todo="Check the connection's rights and the job in the console",
                )  # fmt: skip
    return jobs


#: For each limit: the text of what was over, and what to do.
_TIMED_OUT_TEXTS = {
    LimitName.JOB_TIMEOUT: (
        "at its deadline (job_timeout)", "The next attempt of this task looks again and lands what there is",
    ),
    LimitName.EXECUTION_TIMEOUT: (
        "when the task's execution_timeout was over",
        "The next attempt of this task looks again and lands what there is; a longer execution_timeout waits longer",
    ),
    LimitName.SENSOR_TIMEOUT: (
        "when the sensor's timeout was over", "Clear this task to look again; without timeout, job_timeout ends a wait",
    ),
}  # fmt: skip


def _timed_out_error(outcome: TimedOut, outcomes: Sequence[Outcome]) -> JobError:
    """Return the error for a late job. It also names every other job that may still run."""
    when, todo = _TIMED_OUT_TEXTS[outcome.limit]
    left = "It is being cancelled; rows it has answered stay" if outcome.cancelled else "It may still run, and bill"
    others = [
        each.name for each in outcomes if isinstance(each, TimedOut) and not each.cancelled and each is not outcome
    ]
    return JobError(
        f"{outcome.name} was not done {when}", job_name=outcome.name,
        state=str(outcome.job.state) if outcome.job else "",
        why=f"Last seen {outcome.job.progress}" if outcome.job else "It was never seen",
        left=left + (f". These may still run, and bill, too: {', '.join(others)}" if others else ""),
        retryable=outcome.limit is not LimitName.SENSOR_TIMEOUT, todo=todo,
    )  # fmt: skip
