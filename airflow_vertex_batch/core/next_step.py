"""What does a batch do next? A pure function of its log and of what the attempt at work has found out.

`core.batch` carries a step out, notes what came of it, and asks again, until it must wait, ask a person, or is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.answers.repair import Selection, Wants
from airflow_vertex_batch.core.answers.rounds import Round, badly_ended
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.job import Phase
from airflow_vertex_batch.core.domain.manifest import Manifest
from airflow_vertex_batch.core.purchase.approval import Allowed, Question, Refused, Verdict
from airflow_vertex_batch.core.purchase.entries import Repair

if TYPE_CHECKING:
    from airflow_vertex_batch.core.purchase.fold import State


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt has found out since it began, or since its last wait.

    :param fresh: whether the attempt has just begun, as against the end of a wait.
    :param complete: whether it has yet to send what jobs that an earlier attempt left behind did not answer.
    :param base: the set of the whole batch.
    :param has_begun: whether the log says that this attempt began from `base`.
    :param may_spend: whether the set that is next may be bought.
    :param rounds: what was asked and which jobs answer it, oldest first.
    :param selection: which rows go again, chosen from these rounds.
    """

    fresh: bool = False
    complete: bool = False
    base: Manifest | None = None
    has_begun: bool = False
    may_spend: Verdict | None = None
    rounds: tuple[Round, ...] = ()
    selection: Selection | None = None


class Prepare(msgspec.Struct, frozen=True):
    """Find the set of the whole batch: read the source, or go on from the set that there is."""


class Begin(msgspec.Struct, frozen=True):
    """Note from which set this attempt goes on."""


class Stop(msgspec.Struct, frozen=True):
    """There is no row: do what the author wants then."""


class Estimate(msgspec.Struct, frozen=True):
    """Compare what is next with the limit.

    :param round: 0 for the whole batch.
    """

    round: int


class AskApproval(msgspec.Struct, frozen=True):
    """Put a question to a person."""

    question: Question


class Refuse(msgspec.Struct, frozen=True):
    """Do not buy the batch."""

    verdict: Refused


class Buy(msgspec.Struct, frozen=True):
    """Attach to the jobs of a round, and create those that nobody has created.

    :param repair: which round was decided; None for the batch itself.
    """

    round: int
    repair: Repair | None = None


class Wait(msgspec.Struct, frozen=True):
    """Jobs of the last round run."""


class Choose(msgspec.Struct, frozen=True):
    """Read the answers, and choose the rows that go again."""

    wants: Wants


class Decide(msgspec.Struct, frozen=True):
    """Note that these rows go again."""

    manifest: Manifest


class Land(msgspec.Struct, frozen=True):
    """Nothing goes again: the rounds are final.

    :param given_up: why a repair round is not bought, where there would be one.
    """

    given_up: InputError | None = None


class Replaced(msgspec.Struct, frozen=True):
    """A later attempt has begun from other requests: its rounds are not this one's."""


Step = Prepare | Begin | Replaced | Stop | Estimate | AskApproval | Refuse | Buy | Wait | Choose | Decide | Land


def next_step(state: State, seen: Seen, *, is_checked: bool = True, goes_on_empty: bool = True) -> Step:  # noqa: PLR0911 - a table
    """Choose the next step.

    :param state: what the log says.
    :param is_checked: whether the batch itself must be compared with the limit here; no, where another task bought it.
    :param goes_on_empty: whether a batch without a row is landed.
    """
    if seen.base is None:
        return Prepare()
    if seen.fresh and not seen.has_begun:
        return Begin()
    if state.begun is None or state.begun.base != seen.base.uri:
        return Replaced()
    if not seen.rounds:
        if seen.fresh and not seen.base.row_count and not goes_on_empty:
            return Stop()
        return _purchase(seen) if is_checked else Buy(0)
    if any(job.state.phase is Phase.WAITING for job in seen.rounds[-1].jobs):
        return Wait()
    if len(seen.rounds) <= len(state.repairs):
        number = len(seen.rounds)
        return Buy(number, state.repairs[number - 1])
    return _repair(state, seen)


def _purchase(seen: Seen) -> Step:
    """Choose how the batch itself is bought."""
    match seen.may_spend:
        case None:
            return Estimate(0)
        case Allowed():
            return Buy(0)
        case Question() as question:
            return AskApproval(question)
        case refused:
            return Refuse(refused)


def _repair(state: State, seen: Seen) -> Step:  # noqa: PLR0911 - a table
    """Choose whether a round goes again, and which rows."""
    wants = wanted(state, seen)
    if not wants & (Wants.CURABLE | Wants.UNANSWERED):
        return Land()
    if seen.selection is None:
        return Choose(wants)
    if seen.selection.manifest is None:
        return Land()
    match seen.may_spend:
        case None:
            return Estimate(len(seen.rounds))
        case Allowed():
            return Decide(seen.selection.manifest)
        case Question() as question:
            return AskApproval(question)
        case refused:
            return Land(refused.why)


def wanted(state: State, seen: Seen) -> Wants:
    """Return which rows may go again at all."""
    wants = Wants.CURABLE if state.left > 0 else Wants(0)
    # Who asks for another try has a reason, and requests that a job did not come to are no worse for it.
    wants |= Wants.AGAIN if state.granted else Wants(0)
    return wants | (Wants.UNANSWERED if seen.complete and badly_ended(seen.rounds) else Wants(0))
