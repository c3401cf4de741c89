"""Is everything there that the service says it wrote? A row whose answer is paid but not visible yet must not end as
missing. Otherwise it would be bought again, and it would replace a good row at the destination.

The service counts the rows of a job by outcome (``completionStats``). The output is compared with these counts after
all of it was read, and only if some requests have no line. An output that answers every request is complete, whatever
the service counted.

Sources disagree about what the counts include, so each rule is as narrow as its evidence. A failed row has a line of
its own, as the user's page shows, but nothing was billed for it. So we only wait for its line. A job that could not
export its rows may have counted them. So we believe its output once it has had time to appear.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.domain.errors import LostOutputError
from airflow_vertex_batch.core.domain.job import BatchJob, JobState, Phase

if TYPE_CHECKING:
    from datetime import datetime

#: Seconds after a job's end in which its output may still appear or grow. Google states no limit. Half a minute was
#: seen for ``outputInfo``, and one minute for the folder.
OUTPUT_SETTLE_SECONDS = 600.0
#: gRPC codes of jobs that answered rows but could not write them: no right, no bucket, export failed (captured live
#: 2026-08-26 to 2026-09-02, section 5.3 of the notes on the API).
_EXPORT_FAILURES = frozenset({5, 7, 9, 13})


class OnLostOutput(StrEnum):
    """What to do when the service counted rows that are not in its output."""

    #: Fail this attempt. The next attempt asks for the job again and looks again.
    FAIL = "fail"
    #: Take the rows that are there.
    LAND = "land"


class OutputCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a job's output.

    :param file_count: the number of result files; 1 for a table.
    :param answered: the number of requests that have a line without an error, plus such lines of unknown requests.
    :param failed: the same for lines with an error.
    :param unseen: the number of requests without a line.
    :param no_output: the content of an object that has the name of a result file but is not one.
    """

    file_count: int
    answered: int
    failed: int
    unseen: int
    no_output: str = ""


def check_output(job: BatchJob, counts: OutputCounts, now: datetime) -> None:
    """Refuse an output that does not have everything that the service says it wrote.

    :raises LostOutputError: with what was counted and what was found.
    """
    lost = lost_text(job, counts, now)
    if not lost:
        return
    raise LostOutputError(
        f"The output of {job.name} is not whole: {lost}",
        uri=job.output_uri,
        why=_found(job, counts),
        left="Nothing was landed or bought for it, and nothing overwritten",
        todo="Retry: an output may appear minutes after its job's end. If it was deleted, restore it (Cloud Storage "
        "keeps deleted objects for 7 days where soft delete is on); if it is lost for good, set on_lost_output='land'",
    )


def _found(job: BatchJob, counts: OutputCounts) -> str:
    if not job.output_uri:
        return "it names no output"
    return "; ".join(filter(None, [f"{job.output_uri} has {counts.file_count:,} result files", counts.no_output]))


def lost_text(job: BatchJob, counts: OutputCounts, now: datetime) -> str:
    """Return a text about rows that the service says it wrote and that are not there; empty if nothing is lost."""
    if not counts.unseen or not job.state.is_final:
        return ""
    answered, failed = max(job.successful_count, 0), max(job.failed_count, 0)
    is_young = job.ended_at is not None and abs((now - job.ended_at).total_seconds()) < OUTPUT_SETTLE_SECONDS
    if (is_young or _is_bound(job)) and counts.answered < answered:
        return f"the service counted {answered:,} answered rows, and {counts.answered:,} are there"
    if is_young and counts.answered + counts.failed < answered + failed:
        return f"the service counted {answered + failed:,} rows, and {counts.answered + counts.failed:,} are there"
    if not counts.file_count and (job.state is JobState.SUCCEEDED or counts.no_output):
        return "no result file is there" if counts.no_output else "it succeeded, and no result file is there"
    return ""


def _is_bound(job: BatchJob) -> bool:
    """Whether all rows that a job counted must be in its output, however long ago it ended."""
    if job.state.phase in {Phase.SUCCEEDED, Phase.PARTIAL}:
        return True
    return bool(job.output_uri) and job.error_code not in _EXPORT_FAILURES
