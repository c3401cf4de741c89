"""What should happen to a job that was left behind? A decision table, as one pure function."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.job import BatchJob, JobState
from airflow_vertex_batch.core.purchase.decide import SETTLE_SECONDS
from airflow_vertex_batch.core.purchase.entries import Intent, JobEntry, Submission
from airflow_vertex_batch.core.purchase.log import last_try
from airflow_vertex_batch.core.purchase.ownership import (
    buyer_of,
    intents_of,
)
from airflow_vertex_batch.core.waiting.watch import DEFAULT_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


_DAY_SECONDS = 24 * 3600.0


class SweepPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as old.

    :param older_than: seconds since its creation before a job is looked at, and since an intent before its create call
        counts as over; at least the settle time of `core.purchase.submit`, 90. The longest that a task may set is an
        hour.
    :param owner_timeout: seconds since its creation after which a running job counts as left behind even if its task's
        log names it. It is longer than the service allows a job.
    :param lookback: seconds since its end after which an ended job is not looked at any more. Looking at a job means
        reading its log, and most ended jobs are in order.
    """

    older_than: float = 3600.0
    owner_timeout: float = DEFAULT_TIMEOUT_SECONDS + 3600.0
    lookback: float = 7 * _DAY_SECONDS

    def __post_init__(self) -> None:
        if not SETTLE_SECONDS <= self.older_than <= self.owner_timeout:
            raise InputError(
                f"older_than is {self.older_than:g} s and owner_timeout {self.owner_timeout:g} s",
                why=f"A job that was created less than {SETTLE_SECONDS:g} s ago may not be in the log yet",
                left="Nothing was touched",
                todo=f"Use {SETTLE_SECONDS:g} s <= older_than <= owner_timeout",
            )


class Owner(StrEnum):
    """What is known about the run that a job was bought for."""

    #: No Airflow was asked, or it could not say. Only the log decides.
    UNKNOWN = "unknown"
    ALIVE = "alive"
    #: It ended well. Its job may be awaited by another DAG, so this alone is no reason to cancel it.
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    #: Airflow was asked, and has no such run.
    DELETED = "deleted"

    @classmethod
    def of_run(cls, state: str | None) -> Owner:
        """Read the state of a DAG run.

        :param state: ``deleted`` if there is no such run; None if it is not known.
        """
        active = {"running": cls.ALIVE, "queued": cls.ALIVE}
        return {"success": cls.SUCCEEDED, "failed": cls.FAILED, "deleted": cls.DELETED, **active}.get(
            state or "", cls.UNKNOWN
        )


#: Why nobody waits for a job, by the end of its run.
_NOBODY = {Owner.FAILED: "its run has failed", Owner.DELETED: "its run was deleted"}


class Keep(msgspec.Struct, frozen=True):
    """Do nothing."""

    why: str


class Adopt(msgspec.Struct, frozen=True):
    """Record it in its log, so that the next attempt of its task attaches to it."""

    why: str


class Harvest(msgspec.Struct, frozen=True):
    """Land the rows that it answered, in a separate folder. They are paid, and no task will land them."""

    why: str


class Cancel(msgspec.Struct, frozen=True):
    """Stop paying for it. Rows that it has answered stay; a later sweep harvests them."""

    why: str


class Tell(msgspec.Struct, frozen=True):
    """Report that it runs, and do nothing: a person must decide."""

    why: str


SweepDecision = Keep | Adopt | Harvest | Cancel | Tell


class Link(StrEnum):
    """How a log knows a job."""

    #: Its last submission: the task's next attempt attaches to it.
    OWNED = "owned"
    #: An earlier submission; a later one has replaced it.
    REPLACED = "replaced"
    #: The log does not name it, but the last intent was to buy exactly this job, and no other job was recorded for that
    #: intent.
    INTENDED = "intended"
    #: The log does not name it, but an intent to buy exactly this job explains it. Since then there was another intent
    #: or record.
    EXPLAINED = "explained"
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, job: BatchJob, entries: Sequence[JobEntry]) -> Link:
        """Look a job up."""
        names = [entry.job_name for entry in entries if isinstance(entry, Submission)]
        if job.name in names:
            return cls.OWNED if names[-1] == job.name else cls.REPLACED
        if not (intents := intents_of(job, entries)):
            return cls.UNKNOWN
        last = last_try(entries)
        is_last = not isinstance(last, Submission) and last is not None and last.fingerprint == intents[-1].fingerprint
        return cls.INTENDED if is_last else cls.EXPLAINED


def decide_sweep(
    job: BatchJob,
    entries: Sequence[JobEntry],
    now: datetime,
    policy: SweepPolicy,
    *,
    owner: Owner = Owner.UNKNOWN,
    is_local: bool = True,
    installation: str | None = None,
) -> SweepDecision:
    """Choose what happens to one job.

    :param entries: the log entries of the job, oldest first.
    :param is_local: whether it was bought from the staging folder that the log is in.
    :param installation: the name of the Airflow that was asked about `owner`; None if none was asked.
    """
    settled = settled_by_itself(job, now, policy) or _bought_elsewhere(job, entries, installation)
    if settled is not None:
        return settled
    last = last_try(entries)
    if isinstance(last, Intent) and (now - last.at).total_seconds() < policy.older_than:
        return Keep("a create call of its task may be under way")
    link = Link.of(job, entries)
    if link is Link.UNKNOWN and not is_local:
        # A job of another installation in the same project, with its own staging folder, looks the same.
        return Keep("neither a log nor its files tie it to this staging folder")
    if job.state.is_final:
        return _decide_ended(link, entries, owner)
    is_late = age(job, now) > policy.owner_timeout and owner is not Owner.ALIVE
    return _decide_running(link, entries, owner, is_late=is_late)


def settled_by_itself(job: BatchJob, now: datetime, policy: SweepPolicy) -> Keep | None:
    """Return the verdict on a job that is kept whatever its log says, or None."""
    reasons = (
        (job.created_at is None, "its age is not known"),
        (age(job, now) < policy.older_than, "it is young: its task may be starting"),
        (job.state is JobState.CANCELLING, "it is being cancelled"),
        (job.state.is_final and not job.has_rows, "it ended without rows: there is nothing to land"),
        (job.state.is_final and ended_before(job, now) > policy.lookback, "it ended too long ago"),
    )
    return next((Keep(why) for holds, why in reasons if holds), None)


def _bought_elsewhere(job: BatchJob, entries: Sequence[JobEntry], installation: str | None) -> Keep | None:
    """Keep a job that another Airflow bought: its run does not exist here, and may be active there."""
    buyer = buyer_of(job, entries)
    if installation is None:
        is_shared = len({buyer, *(entry.installation for entry in entries)} - {""}) > 1
        return Keep("several installations write its log: say which one this sweep is of") if is_shared else None
    is_anothers = buyer not in {"", installation}
    return Keep(f"installation {buyer} bought it: its own sweep judges it") if is_anothers else None


def _decide_running(link: Link, entries: Sequence[JobEntry], owner: Owner, *, is_late: bool) -> SweepDecision:
    if link in {Link.REPLACED, Link.EXPLAINED}:
        return Cancel(_instead(entries))
    if link is Link.UNKNOWN:
        return _LOST if owner is Owner.ALIVE else Tell("no log names it: only a person may cancel it, in the console")
    if owner in _NOBODY:
        return Cancel(f"{_NOBODY[owner]}: nobody waits for it")
    if is_late:
        return Cancel("it is older than a task waits for, or the service lets a job run")
    return _MEANT if link is Link.INTENDED else Keep("it is its task's own: the next attempt attaches to it")


def _decide_ended(link: Link, entries: Sequence[JobEntry], owner: Owner) -> SweepDecision:
    if link in {Link.REPLACED, Link.EXPLAINED}:
        return Harvest(_instead(entries))
    if owner in _NOBODY:
        return Harvest(f"{_NOBODY[owner]}: what it answered may not have landed")
    if link is Link.UNKNOWN:
        return _LOST if owner is Owner.ALIVE else Harvest("no log names it")
    return _MEANT if link is Link.INTENDED else Keep("its task lands it, and lands it again when it is cleared")


_LOST = Adopt("its run is active, and its log was lost")
_MEANT = Adopt("its task meant to buy it and has not recorded it")


def _instead(entries: Sequence[JobEntry]) -> str:
    """Return a text: what the task has bought, or wanted to buy, since it bought this job."""
    names = [entry.job_name for entry in entries if isinstance(entry, Submission)]
    return f"{names[-1].rpartition('/')[2]} has taken its place" if names else "its task has meant other input since"


def age(job: BatchJob, now: datetime) -> float:
    """Return how old a job is, in seconds."""
    return (now - job.created_at).total_seconds() if job.created_at is not None else 0.0


def ended_before(job: BatchJob, now: datetime) -> float:
    """Return how long ago a job ended, in seconds; its age if the service does not say."""
    return (now - job.ended_at).total_seconds() if job.ended_at is not None else age(job, now)
