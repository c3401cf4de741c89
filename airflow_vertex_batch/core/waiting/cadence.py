"""When is a job asked about again? Pure decisions; nothing here sleeps or asks.

A fixed interval is the user's choice and is kept. The adaptive interval follows the job: it is short while the job is
young, becomes longer with time, and is short again near the time that such jobs usually take. A temporary error doubles
the interval. If the service asks for a pause (``Retry-After``), the interval is at least as long.

Invariants: an adaptive interval lies between `QUICKEST_SECONDS` and `SLOWEST_SECONDS`, whatever the clock says. An
interval never goes beyond the usual end. The memory for ended jobs is limited.
"""

from __future__ import annotations

import statistics
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.job import BatchJob, JobState, Phase

if TYPE_CHECKING:
    from airflow_vertex_batch.core.domain.errors import ServiceError

#: The shortest and the longest interval between two questions about one job, in seconds, if the user named no interval.
#: The smallest jobs wait about 90 s and run about 120 s; the largest run for hours.
QUICKEST_SECONDS = 15.0
SLOWEST_SECONDS = 300.0
#: The interval as a share of the time that the job has run. The end of a job is noticed late by this share at most.
_SHARE_OF_RUN = 0.1
#: The same share while a job queues. It is larger, because nothing can land yet.
_SHARE_OF_QUEUE = 0.2
#: Intervals are made longer or shorter by up to this share, so that jobs which begin together are not asked about
#: together for ever.
_SPREAD = 0.1
#: The longest interval after errors, in seconds.
MAX_BACKOFF_SECONDS = 300.0
#: Seconds for which nobody asks after a refusal for too many calls (429) that names no pause. Doubled each time.
_PAUSE_SECONDS = 15.0
_QUEUED = frozenset({JobState.QUEUED, JobState.PENDING, JobState.UNSPECIFIED})


def interval(job: BatchJob | None, now: float, usual: float | None = None, jitter: float = 0.5) -> float:
    """Return the adaptive seconds until the next question about a job.

    :param job: as last seen, or None.
    :param now: seconds since the epoch.
    :param usual: seconds that such jobs usually run, or None if it is not known.
    :param jitter: from 0 to 1, spreads the interval; 0.5 leaves it as it is.
    """
    seconds = _by_state(job, now, usual) * (1 - _SPREAD + 2 * _SPREAD * jitter)
    return min(max(seconds, QUICKEST_SECONDS), SLOWEST_SECONDS)


def _by_state(job: BatchJob | None, now: float, usual: float | None) -> float:
    if job is None or job.created_at is None:
        return QUICKEST_SECONDS
    if job.state in _QUEUED or job.started_at is None:
        return _SHARE_OF_QUEUE * (now - job.created_at.timestamp())
    ran = now - job.started_at.timestamp()
    spent = _SHARE_OF_RUN * ran
    # Each interval is half of the remaining time, so the questions come close to the usual end. After the end the
    # interval grows again.
    return spent if usual is None else min(spent, abs(usual - ran) / 2)


def after_error(base: float, in_a_row: int, asked: float, jitter: float = 0.5) -> float:
    """Return seconds until the next question after errors.

    :param base: the interval without errors; a slow one does not become quicker.
    :param in_a_row: the number of temporary errors, one after the other; 0 for an error of another kind.
    :param asked: the seconds that the service asked for. The result may be longer, by `jitter`, but never shorter.
    """
    # After days of errors the number must not become too large for a float.
    doubled = min(base * 2.0 ** min(in_a_row, 30), max(MAX_BACKOFF_SECONDS, base))
    return max(doubled, asked * (1 + _SPREAD * jitter))


def pause_seconds(error: ServiceError, in_a_row: int) -> float:
    """Return for how many seconds nobody should ask anything after an error; 0 if others may ask.

    :param in_a_row: how many such errors there were before this one, without an answer between them.
    """
    if error.retry_after is not None:
        return error.retry_after
    if error.status == 429:  # noqa: PLR2004 - an HTTP status reads best as its number
        return min(_PAUSE_SECONDS * 2.0 ** min(in_a_row, 30), MAX_BACKOFF_SECONDS)
    return 0.0


class Durations:
    """How long do jobs usually run? A small memory of ended jobs, for one process.

    Two jobs are similar if model and owner (DAG and task, by their labels) are the same, and if the number of rows has
    the same size. The number of rows may not be known, because the service need not give it before the end.

    :param kinds: how many kinds of jobs are remembered; the kinds that were used last are kept.
    :param each: how many jobs of a kind are remembered.
    """

    def __init__(self, kinds: int = 256, each: int = 9) -> None:
        self._kinds, self._each = kinds, each
        self._seconds: OrderedDict[tuple[str, ...], deque[float]] = OrderedDict()

    def note(self, job: BatchJob) -> None:
        """Remember the duration of a job that ended well. Other jobs are ignored."""
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
    """Return the kinds that a job belongs to, the most specific first."""
    owner = (job.model, job.labels.get("airflow-dag", ""), job.labels.get("airflow-task", ""))
    counts = (job.successful_count, job.failed_count, job.incomplete_count)
    if max(counts) < 0:
        return [owner]
    rows = sum(count for count in counts if count > 0)
    # Sizes are powers of two: 1,000 rows and 1,500 rows have the same size.
    return [(*owner, str(rows.bit_length())), owner]
