"""When is a job asked about again? Pure decisions; nothing here sleeps or asks.

A fixed interval is the user's choice and is kept. The adaptive interval follows the job: short while the job is young,
longer the longer it takes, and short again near the end of the time that such jobs usually take. An error that may pass
doubles the interval. A wish of the service (``Retry-After``) is a lower bound.

Invariants: an adaptive interval lies between `QUICKEST_SECONDS` and `SLOWEST_SECONDS`, whatever the clock says. An
interval never goes beyond the usual end. What is remembered of ended jobs is bounded.
"""

from __future__ import annotations

import statistics
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.job import BatchJob, JobState, Phase

if TYPE_CHECKING:
    from airflow_vertex_batch.core.domain.errors import ServiceError

#: Seconds between two questions about one job, at the least and at the most, where the user named no interval. The
#: smallest jobs wait about 90 s and run about 120 s; the largest run for hours.
QUICKEST_SECONDS = 15.0
SLOWEST_SECONDS = 300.0
#: How much of the time already spent passes until the next question: an end is noticed late by that much at the most.
_SHARE_OF_RUN = 0.1
#: The same while a job waits for its turn: nothing can be landed yet.
_SHARE_OF_QUEUE = 0.2
#: Intervals are spread by so much to either side, so that jobs begun together are not asked about together for good.
_SPREAD = 0.1
#: Seconds: an error is never asked about again more slowly than this.
MAX_BACKOFF_SECONDS = 300.0
#: Seconds for which a refusal for too many calls (429) without a wish of its own silences everybody, doubled each time.
_HOLD_SECONDS = 15.0
_QUEUED = frozenset({JobState.QUEUED, JobState.PENDING, JobState.UNSPECIFIED})


def interval(job: BatchJob | None, now: float, usual: float | None = None, luck: float = 0.5) -> float:
    """Return the adaptive seconds until the next question about a job.

    :param job: as last seen, or None.
    :param now: seconds since the epoch.
    :param usual: seconds that such jobs usually run, or None where nobody knows.
    :param luck: from 0 to 1, spreads the interval; 0.5 leaves it as it is.
    """
    seconds = _by_state(job, now, usual) * (1 - _SPREAD + 2 * _SPREAD * luck)
    return min(max(seconds, QUICKEST_SECONDS), SLOWEST_SECONDS)


def _by_state(job: BatchJob | None, now: float, usual: float | None) -> float:
    if job is None or job.created_at is None:
        return QUICKEST_SECONDS
    if job.state in _QUEUED or job.started_at is None:
        return _SHARE_OF_QUEUE * (now - job.created_at.timestamp())
    ran = now - job.started_at.timestamp()
    spent = _SHARE_OF_RUN * ran
    # Half of what is left, again and again, comes ever closer and never steps over; beyond the end it opens again.
    return spent if usual is None else min(spent, abs(usual - ran) / 2)


def after_error(base: float, in_a_row: int, asked: float, luck: float = 0.5) -> float:
    """Return seconds until the next question after errors.

    :param base: the interval without errors; a slow one does not become quicker.
    :param in_a_row: errors that may pass, one after the other; 0 for an error of another kind.
    :param asked: what the service asked for; later by luck, never sooner.
    """
    # Days of errors must not make a number that no float holds.
    doubled = min(base * 2.0 ** min(in_a_row, 30), max(MAX_BACKOFF_SECONDS, base))
    return max(doubled, asked * (1 + _SPREAD * luck))


def hold(error: ServiceError, in_a_row: int) -> float:
    """Return for how many seconds nobody should ask anything after an error; 0 where others may.

    :param in_a_row: how many such errors there were before this one, without an answer between them.
    """
    if error.retry_after is not None:
        return error.retry_after
    if error.status == 429:  # noqa: PLR2004 - an HTTP status reads best as its number
        return min(_HOLD_SECONDS * 2.0 ** min(in_a_row, 30), MAX_BACKOFF_SECONDS)
    return 0.0


class Durations:
    """How long do jobs usually run? A small memory of ended jobs, for one process.

    Jobs are alike when model and owner (DAG and task, by their labels) are the same, and the number of rows is of the
    same size, where it is known: the service need not say it before the end.

    :param kinds: so many kinds of jobs are remembered, those used last.
    :param each: so many jobs of a kind.
    """

    def __init__(self, kinds: int = 256, each: int = 9) -> None:
        self._kinds, self._each = kinds, each
        self._seconds: OrderedDict[tuple[str, ...], deque[float]] = OrderedDict()

    def note(self, job: BatchJob) -> None:
        """Remember a job that ended well; anything else is no measure."""
        if job.state.phase not in {Phase.SUCCEEDED, Phase.PARTIAL} or job.started_at is None or job.ended_at is None:
            return
        ran = (job.ended_at - job.started_at).total_seconds()
        for kind in _kinds(job):
            self._seconds.setdefault(kind, deque(maxlen=self._each)).append(ran)
            self._seconds.move_to_end(kind)
        while len(self._seconds) > self._kinds:
            self._seconds.popitem(last=False)

    def usual(self, job: BatchJob) -> float | None:
        """Return the median seconds that jobs like this one ran, or None."""
        known = next((self._seconds[kind] for kind in _kinds(job) if kind in self._seconds), None)
        return statistics.median(known) if known else None


def _kinds(job: BatchJob) -> list[tuple[str, ...]]:
    """Return what a job is like, the closest first."""
    owner = (job.model, job.labels.get("airflow-dag", ""), job.labels.get("airflow-task", ""))
    counts = (job.successful_count, job.failed_count, job.incomplete_count)
    if max(counts) < 0:
        return [owner]
    rows = sum(count for count in counts if count > 0)
    # Powers of two: 1,000 rows and 1,500 are of one size.
    return [(*owner, str(rows.bit_length())), owner]
