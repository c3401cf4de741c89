"""Is there already a job for this input? If not, may we pay for one? A decision table, as one pure function.

Its input is the log entries of the job and the jobs that the service shows. Its result is one step.
`core.purchase.submit` carries out the step.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.domain.job import BatchJob, Phase
from airflow_vertex_batch.core.purchase.entries import JobEntry, Moved, Submission
from airflow_vertex_batch.core.purchase.log import pending_seconds
from airflow_vertex_batch.core.purchase.ownership import (
    GENERATION_LABEL,
    Claim,
    LeftRunning,
    fingerprint_of,
    split_by_claim,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime


#: Seconds after an intent during which its job may still appear. This is longer than one create call may take, because
#: the list of jobs may be late. The service states no limit for this delay.
SETTLE_SECONDS = 90.0


class OnChangedInput(StrEnum):
    """What to do if the task already has a running job for other input."""

    RESUBMIT = "resubmit"
    FAIL = "fail"


class OnClear(StrEnum):
    """What happens when a person clears a task whose job is paid."""

    #: Land the paid rows again; send nothing.
    ATTACH = "attach"
    #: Send the rows that are still without a good answer once more.
    REPAIR = "repair"
    #: Buy the whole batch again.
    NEW = "new"


class Reuse(StrEnum):
    """Which jobs that ended badly still count, so that their input is not bought again."""

    #: Jobs that answered rows. These rows land, and only the other rows are sent again.
    WITH_ROWS = "with_rows"
    #: All jobs: there is one purchase, whatever its result.
    ANY = "any"


class Attach(msgspec.Struct, frozen=True):
    """Use this job. First record it if the log does not know it, and cancel running jobs for other input.

    :param left_running: running jobs for other input that must not be cancelled.
    """

    job: BatchJob
    recorded: bool
    cancel: tuple[str, ...] = ()
    left_running: tuple[LeftRunning, ...] = ()


class Submit(msgspec.Struct, frozen=True):
    """Pay for a new job, after cancelling the jobs that it replaces.

    :param left_running: as in `Attach`.
    """

    why: str
    cancel: tuple[str, ...] = ()
    replaces: str = ""
    left_running: tuple[LeftRunning, ...] = ()


class Settle(msgspec.Struct, frozen=True):
    """Wait and look again: a job may still appear."""

    seconds: float


class Refuse(msgspec.Struct, frozen=True):
    """Do nothing; a person must decide."""

    why: str
    todo: str = "Cancel it, or set on_changed_input='resubmit'"


Decision = Attach | Submit | Settle | Refuse


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The conditions under which a job is bought.

    :param settle_seconds: how long after an intent the job of this intent may still appear.
    :param reuse: for which jobs that ended badly no new job is bought.
    :param generation: the mark of a job. It stays the same until a clear asks for new jobs.
    :param renew: whether only a job of this generation counts.
    """

    settle_seconds: float = SETTLE_SECONDS
    on_changed_input: OnChangedInput = OnChangedInput.RESUBMIT
    reuse: Reuse = Reuse.WITH_ROWS
    generation: str = ""
    renew: bool = False


def moves_of(entries: Sequence[JobEntry], fingerprint: str, terms: Terms) -> list[Moved]:
    """Return the moves of a purchase, oldest first. A new generation begins again at the first place."""
    moves = [entry for entry in entries if isinstance(entry, Moved) and entry.fingerprint == fingerprint]
    return [entry for entry in moves if not terms.renew or entry.generation == terms.generation]


def decide(
    entries: Sequence[JobEntry],
    fingerprint: str,
    jobs: Sequence[BatchJob],
    *,
    earlier: Collection[str] = (),
    left: Collection[str] = (),
    now: datetime,
    terms: Terms = Terms(),  # noqa: B008 - frozen
    installation: str = "",
) -> Decision:
    """Choose one step.

    :param entries: the log entries of the job, oldest first.
    :param jobs: the jobs that the service shows for this identity, and those that the log names, newest first.
    :param earlier: the fingerprints of this purchase at earlier places, which were given up.
    :param left: names of jobs that were left to another task.
    :param now: the time, by the clock that stamped the entries.
    :param installation: the name of this Airflow. Only jobs that it bought and that the log names are cancelled.
    """
    submissions = [entry for entry in entries if isinstance(entry, Submission)]
    wanted, generation = {fingerprint, *earlier}, terms.generation if terms.renew else None
    known, last = {entry.job_name: entry for entry in submissions}, submissions[-1] if submissions else None
    ours = [job for job in jobs if _answers(job, known.get(job.name), wanted, generation)]
    others = [job for job in jobs if job not in ours and job.state.phase is Phase.WAITING]

    def is_enough(job: BatchJob) -> bool:
        # A job at a place that was given up counts only if it runs or has rows.
        is_here = fingerprint_of(job, known.get(job.name)) == fingerprint
        return job.name in left or _is_usable(job, terms.reuse if is_here else Reuse.WITH_ROWS)

    if usable := next(filter(is_enough, ours), None):
        keep = terms.on_changed_input is OnChangedInput.FAIL
        cancel, left_running = ((), ()) if keep else split_by_claim(others, entries, installation)
        recorded = last is not None and last.job_name == usable.name
        return Attach(usable, recorded=recorded, cancel=cancel, left_running=left_running)
    if (pending := pending_seconds(entries, terms.settle_seconds, now)) > 0:
        return Settle(pending)
    renewed = [job for job in jobs if terms.renew and _answers(job, known.get(job.name), wanted, None)]
    if others and terms.on_changed_input is OnChangedInput.FAIL and others[0] not in renewed:
        return Refuse(f"{others[0].name} is running for other input of the same task")
    cancel, left_running = split_by_claim(others, entries, installation)
    if other := next((each for each in left_running if each.claim is Claim.ANOTHERS), None):
        return _refuse_bought_elsewhere(other, installation)
    if renewed and not ours:
        why = "the task was cleared with on_clear='new'"
        return Submit(why, cancel, replaces=renewed[0].name, left_running=left_running)
    why, replaces = _reason(ours, others, last.job_name if last else "", {job.name for job in jobs})
    return Submit(why, cancel, replaces, left_running)


def _refuse_bought_elsewhere(other: LeftRunning, installation: str) -> Refuse:
    return Refuse(
        f"{other.job.name} ({other.job.display_name}) is running for other input of the same task, and installation "
        f"{other.buyer} bought it; this one is {installation}",
        todo="Wait until that job has ended, or let a person cancel it. Then give each Airflow a staging folder of its "
        f"own; if both names are this Airflow's, set [vertex_batch] installation to {other.buyer}",
    )


def _answers(job: BatchJob, record: Submission | None, wanted: Collection[str], generation: str | None) -> bool:
    """Whether a job is the wanted purchase. The log counts more than the job's labels.

    :param wanted: the fingerprints of the purchase.
    :param generation: the wanted generation; None for any.
    """
    is_wanted = fingerprint_of(job, record) in wanted
    if not is_wanted or generation is None:
        return is_wanted
    return ((record.generation if record else "") or job.labels.get(GENERATION_LABEL, "")) == generation


def _reason(ours: list[BatchJob], others: list[BatchJob], last: str, known: set[str]) -> tuple[str, str]:
    """Return why a new job is needed, and which job it replaces.

    :param last: the job that was recorded last, if any.
    :param known: the names of all jobs that exist.
    """
    if ours:
        return f"{ours[0].name} ended as {ours[0].state_text or ours[0].state}", ours[0].name
    if others:
        return "the input changed", others[0].name
    if last and last not in known:
        return f"{last} no longer exists", last
    return "no job exists for this input", last


def _is_usable(job: BatchJob, reuse: Reuse) -> bool:
    """Whether the job has rows to land, or may still have them."""
    return not job.state.is_final or reuse is Reuse.ANY or job.has_rows
