"""Does a job wait too long for its turn? Pure decisions about the time between a job's creation and its first row.

A queue of up to 72 hours is normal; the user says what is too long. Invariants: a job that has begun, or that is being
cancelled, never counts as queued. A limit counts from the creation, so it does not begin again with a retry. The same
warning is not given twice.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.job import BatchJob, JobState
from airflow_vertex_batch.core.domain.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

#: Hours that the service lets a job queue before it ends it as EXPIRED
#: (https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini, 2026-11-22).
MAX_QUEUE_HOURS = 72
_QUEUED = frozenset({JobState.QUEUED, JobState.PENDING})
_HOUR = 3600.0


class Handled(Record, frozen=True, kw_only=True):
    """The names of the queued jobs that this attempt has already dealt with.

    :param warned: jobs for which the warning was given.
    :param stuck: jobs that queue for too long, and for which no place is left.
    :param moved: jobs that were given up, and are being cancelled.
    :param ending: jobs that were being cancelled when the attempt began.
    """

    warned: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    ending: tuple[str, ...] = ()


class QueuePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When to deal with a queued job, in seconds from its creation. None means never.

    :param warning: after this time there is a warning.
    :param timeout: after this time the job is moved to another place or, if no place is left, stays.
    """

    warning: float | None = None
    timeout: float | None = None

    def limits(self, jobs: Iterable[BatchJob], handled: Handled) -> dict[str, float]:
        """Return, by job name, the seconds from its creation after which a queued job needs attention. Jobs that need
        no more attention are left out.
        """
        found = {job.name: self._next(job.name, handled) for job in jobs if not job.state.is_final}
        return {name: limit for name, limit in found.items() if limit is not None}

    def _next(self, name: str, handled: Handled) -> float | None:
        warning = None if name in handled.warned else self.warning
        timeout = None if name in handled.stuck or name in handled.moved else self.timeout
        return min((limit for limit in (warning, timeout) if limit is not None), default=None)

    def overdue(self, jobs: Iterable[BatchJob], handled: Handled, now: float) -> list[BatchJob]:
        """Return the jobs whose warning is due.

        :param now: seconds since the epoch.
        """
        return [job for job in jobs if job.name not in handled.warned and seconds_left(job, self.warning, now) <= 0]

    def late(self, jobs: Iterable[BatchJob], handled: Handled, now: float) -> list[BatchJob]:
        """Return the jobs that have queued for too long and were not dealt with yet.

        :param now: seconds since the epoch.
        """
        handled_jobs = {*handled.stuck, *handled.moved}
        return [job for job in jobs if job.name not in handled_jobs and seconds_left(job, self.timeout, now) <= 0]


def handle_queued(
    policy: QueuePolicy,
    jobs: Iterable[BatchJob],
    handled: Handled,
    move: Callable[[BatchJob], Any] | None,
    now: float,
    *,
    only_new: float | None = None,
) -> tuple[Handled, list[BatchJob]]:
    """Warn about jobs that have queued for long, and give up those that have queued for too long.

    :param move: gives a job up and returns the place for its requests, or None if the job stays. `move` itself is None
        if jobs are not moved.
    :param now: seconds since the epoch.
    :param only_new: log only warnings that are newer than this number of seconds.
    :returns: the jobs that have been dealt with by now, and the jobs whose warning was due.
    """
    jobs = list(jobs)
    overdue, stuck, moved = policy.overdue(jobs, handled, now), list(handled.stuck), list(handled.moved)

    def say(text: str, job: BatchJob, limit: float | None) -> None:
        if only_new is None or -seconds_left(job, limit, now) < only_new:
            log.warning("%s.", text)

    for job in overdue:
        say(warning_text(job, now), job, policy.warning)
    for job in policy.late(jobs, handled, now):
        place = move(job) if move is not None else None
        if place is None:
            stuck.append(job.name)
            say(stuck_text(job, now), job, policy.timeout)
        else:
            moved.append(job.name)
            log.warning("%s.", moved_text(job, str(place) or "the task 'repair'", now))
    warned = (*handled.warned, *(job.name for job in overdue))
    return msgspec.structs.replace(handled, warned=warned, stuck=tuple(stuck), moved=tuple(moved)), overdue


def seconds_left(job: BatchJob | None, limit: float | None, now: float) -> float:
    """Return how many seconds a job may still queue until `limit`, counted from its creation; for ever if it has begun.

    :param now: seconds since the epoch.
    """
    if limit is None or job is None or job.created_at is None or job.state not in _QUEUED:
        return float("inf")
    return job.created_at.timestamp() + limit - now


def warning_text(job: BatchJob, now: float) -> str:
    """Return the warning about a queued job: how long it has waited, what is normal, and what can be done."""
    return (
        f"{job.name} has been queued for {_hours(job, now)} hours ({job.progress}). Up to {MAX_QUEUE_HOURS} hours are "
        f"normal; then the service ends it as EXPIRED. A queue is shorter at other hours, in other locations and for "
        f"other models: queue_timeout and elsewhere move a job there by themselves"
    )


def moved_text(job: BatchJob, to: str, now: float) -> str:
    """Return the text that a job is given up.

    :param to: where its requests go.
    """
    return (
        f"{job.name} has been queued for {_hours(job, now)} hours; it is being cancelled, and its requests go to {to} "
        f"unless it has begun meanwhile"
    )


def stuck_text(job: BatchJob, now: float) -> str:
    """Return the text that a job stays although it has queued for too long."""
    return (
        f"{job.name} has been queued for {_hours(job, now)} hours, and there is no place left to move it to; it "
        f"goes on waiting"
    )


def warning_facts(jobs: list[BatchJob], now: float) -> dict[str, Any]:
    """Return the facts about overdue jobs that a person sees outside the log: small and JSON-safe."""
    oldest = min(jobs, key=_created)
    return {
        "jobs": [job.name for job in jobs],
        "since": _created(oldest).isoformat(timespec="seconds"),
        "hours": _hours(oldest, now),
    }


def _created(job: BatchJob) -> datetime:
    return job.created_at or datetime.now(UTC)


def _hours(job: BatchJob, now: float) -> float:
    return round((now - _created(job).timestamp()) / _HOUR, 1)
