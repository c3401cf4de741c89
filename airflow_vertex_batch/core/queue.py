"""Does a job wait too long for its turn? Pure decisions about the time between a job's creation and its first row.

A queue of up to 72 hours is normal; what is too long is for the user to say. Invariants: a job that has begun,
or that is being cancelled, never waits for its turn; a limit is counted from the creation, so a retry does not begin
anew; what was said once is not said again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.model import BatchJob, JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: Hours that the service lets a job queue before it ends it as EXPIRED
#: (https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini, 2026-11-22).
MAX_QUEUE_HOURS = 72
_QUEUED = frozenset({JobState.QUEUED, JobState.PENDING})
_HOUR = 3600.0


class QueuePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When to say something about a queued job. None is never.

    :param warning: seconds from its creation until it is worth a warning.
    """

    warning: float | None = None

    def limits(self, jobs: Iterable[BatchJob], said: Collection[str]) -> dict[str, float]:
        """Return after how many seconds from its creation each job needs somebody, by its name; jobs that need
        nobody are not in it.

        :param said: names of the jobs whose warning was said.
        """
        if self.warning is None:
            return {}
        return {job.name: self.warning for job in jobs if not job.state.is_final and job.name not in said}

    def overdue(self, jobs: Iterable[BatchJob], said: Collection[str], now: float) -> list[BatchJob]:
        """Return the jobs whose warning is due.

        :param now: seconds since the epoch.
        """
        if self.warning is None:
            return []
        return [job for job in jobs if job.name not in said and left(job, self.warning, now) <= 0]


def left(job: BatchJob | None, limit: float | None, now: float) -> float:
    """Return how many seconds a job may still queue until `limit`, counted from its creation; for ever if it has begun.

    :param now: seconds since the epoch.
    """
    if limit is None or job is None or job.created_at is None or job.state not in _QUEUED:
        return float("inf")
    return job.created_at.timestamp() + limit - now


def warning_text(job: BatchJob, now: float) -> str:
    """Say of one queued job how long it has waited, what is normal, and what can be done."""
    return (
        f"{job.name} has been queued for {_hours(job, now)} hours ({job.progress}). Up to {MAX_QUEUE_HOURS} hours are "
        f"normal; then the service ends it as EXPIRED. A queue is shorter at other hours, in other locations and for "
        f"other models: on_queue_timeout='resubmit_elsewhere' moves a job there by itself"
    )


def warning_facts(jobs: list[BatchJob], now: float) -> dict[str, Any]:
    """Return what a person sees of overdue jobs beside the log: small and JSON-safe."""
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
