"""Is there a job for this already? If not, may we pay for one? A decision table, as one pure function.

Its input is what the log says of the job and what the service shows. Its result is one step. `core.purchase.submit`
carries the step out.
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
    Beside,
    Claim,
    fingerprint_of,
    parted,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime


#: Seconds after an intent during which its job may still appear: above the time one create call may take, with room for
#: a list that lags behind. The service states no bound for that lag.
SETTLE_SECONDS = 90.0


class OnChangedInput(StrEnum):
    """What to do when the task already owns a running job for other input."""

    RESUBMIT = "resubmit"
    FAIL = "fail"


class OnClear(StrEnum):
    """What a person means by clearing a task whose job is paid."""

    #: Land again what was paid for; nothing is sent.
    ATTACH = "attach"
    #: Send the rows that are still without a good answer once more.
    REPAIR = "repair"
    #: Buy the whole again.
    NEW = "new"


class Reuse(StrEnum):
    """Which jobs that ended badly still answer for their input, so that it is not bought again."""

    #: Those that answered rows: the rows are landed, and only the others are sent again.
    WITH_ROWS = "with_rows"
    #: All: one purchase, whatever came of it.
    ANY = "any"


class Attach(msgspec.Struct, frozen=True):
    """Use this job; record it first if the log does not know it, and cancel what runs for other input.

    :param beside: what runs for other input as well, and must stay.
    """

    job: BatchJob
    recorded: bool
    cancel: tuple[str, ...] = ()
    beside: tuple[Beside, ...] = ()


class Submit(msgspec.Struct, frozen=True):
    """Pay for a new job, after cancelling those that it replaces.

    :param beside: as of `Attach`.
    """

    why: str
    cancel: tuple[str, ...] = ()
    replaces: str = ""
    beside: tuple[Beside, ...] = ()


class Settle(msgspec.Struct, frozen=True):
    """A job may be on its way: look again."""

    seconds: float


class Refuse(msgspec.Struct, frozen=True):
    """Do nothing; a person must choose."""

    why: str
    todo: str = "Cancel it, or set on_changed_input='resubmit'"


Decision = Attach | Submit | Settle | Refuse


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """On which terms a job is bought.

    :param settle_seconds: how long after an intent its job may still appear.
    :param reuse: which jobs that ended badly are not bought again.
    :param generation: what a job is marked with: the same until a clear asks for a new one.
    :param renew: whether only a job of this generation will do.
    """

    settle_seconds: float = SETTLE_SECONDS
    on_changed_input: OnChangedInput = OnChangedInput.RESUBMIT
    reuse: Reuse = Reuse.WITH_ROWS
    generation: str = ""
    renew: bool = False


def moves_of(entries: Sequence[JobEntry], fingerprint: str, terms: Terms) -> list[Moved]:
    """Return the moves of a purchase, oldest first; a new generation begins where the first did."""
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

    :param entries: what the log says of the job, oldest first.
    :param jobs: what the service has for this identity, and what the log names, newest first.
    :param earlier: fingerprints of the same purchase at places that were given up.
    :param left: names of jobs that were left to another task.
    :param now: by the clock that stamped the entries.
    :param installation: the name of this Airflow: only what it bought, and the log names, is cancelled.
    """
    submissions = [entry for entry in entries if isinstance(entry, Submission)]
    wanted, generation = {fingerprint, *earlier}, terms.generation if terms.renew else None
    known, last = {entry.job_name: entry for entry in submissions}, submissions[-1] if submissions else None
    ours = [job for job in jobs if _answers(job, known.get(job.name), wanted, generation)]
    others = [job for job in jobs if job not in ours and job.state.phase is Phase.WAITING]

    def is_enough(job: BatchJob) -> bool:
        # Of a place that was given up only what has begun, or what has rows, is as good as a job at the next.
        is_here = fingerprint_of(job, known.get(job.name)) == fingerprint
        return job.name in left or _is_usable(job, terms.reuse if is_here else Reuse.WITH_ROWS)

    if usable := next(filter(is_enough, ours), None):
        keep = terms.on_changed_input is OnChangedInput.FAIL
        cancel, beside = ((), ()) if keep else parted(others, entries, installation)
        recorded = last is not None and last.job_name == usable.name
        return Attach(usable, recorded=recorded, cancel=cancel, beside=beside)
    if (pending := pending_seconds(entries, terms.settle_seconds, now)) > 0:
        return Settle(pending)
    renewed = [job for job in jobs if terms.renew and _answers(job, known.get(job.name), wanted, None)]
    if others and terms.on_changed_input is OnChangedInput.FAIL and others[0] not in renewed:
        return Refuse(f"{others[0].name} is running for other input of the same task")
    cancel, beside = parted(others, entries, installation)
    if foreign := next((each for each in beside if each.claim is Claim.ANOTHERS), None):
        return _refuse_foreign(foreign, installation)
    if renewed and not ours:
        why = "the task was cleared with on_clear='new'"
        return Submit(why, cancel, replaces=renewed[0].name, beside=beside)
    why, replaces = _reason(ours, others, last.job_name if last else "", {job.name for job in jobs})
    return Submit(why, cancel, replaces, beside)


def _refuse_foreign(beside: Beside, installation: str) -> Refuse:
    return Refuse(
        f"{beside.job.name} ({beside.job.display_name}) is running for other input of the same task, and installation "
        f"{beside.buyer} bought it; this one is {installation}",
        todo="Wait until that job has ended, or let a person cancel it. Then give each Airflow a staging folder of its "
        f"own; if both names are this Airflow's, set [vertex_batch] installation to {beside.buyer}",
    )


def _answers(job: BatchJob, record: Submission | None, wanted: Collection[str], generation: str | None) -> bool:
    """Whether a job is the purchase that is wanted; what the log says of it counts more than its labels.

    :param wanted: fingerprints.
    :param generation: None for any.
    """
    is_wanted = fingerprint_of(job, record) in wanted
    if not is_wanted or generation is None:
        return is_wanted
    return ((record.generation if record else "") or job.labels.get(GENERATION_LABEL, "")) == generation


def _reason(ours: list[BatchJob], others: list[BatchJob], last: str, known: set[str]) -> tuple[str, str]:
    """Say why a new job is needed, and which one it replaces.

    :param last: the job recorded last, if any.
    :param known: every job there is.
    """
    if ours:
        return f"{ours[0].name} ended as {ours[0].state_text or ours[0].state}", ours[0].name
    if others:
        return "the input changed", others[0].name
    if last and last not in known:
        return f"{last} no longer exists", last
    return "no job exists for this input", last


def _is_usable(job: BatchJob, reuse: Reuse) -> bool:
    """Whether there is, or will be, something to land."""
    return not job.state.is_final or reuse is Reuse.ANY or job.has_rows
