"""What does a batch do next? A pure function of the batch's log and of the facts that the current attempt has found.

`core.batch` carries out a step, notes the result, and asks again. It stops when it must wait, must ask a person, or is
done.
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


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that an attempt has found since it began, or since its last wait.

    :param fresh: whether the attempt has just begun; False after a wait.
    :param owes_repair: whether this attempt must still send the rows that jobs of an earlier attempt did not answer.
    :param base: the set of the whole batch.
    :param has_begun: whether the log says that this attempt began from `base`.
    :param may_spend: whether the next set may be bought.
    :param rounds: the requests of each round and the jobs that answer them, oldest first.
    :param selection: the rows that are sent again, chosen from these rounds.
    """

    fresh: bool = False
    owes_repair: bool = False
    base: Manifest | None = None
    has_begun: bool = False
    may_spend: Verdict | None = None
    rounds: tuple[Round, ...] = ()
    selection: Selection | None = None


class Prepare(msgspec.Struct, frozen=True):
    """Find the set of the whole batch: read the source, or go on from the set that exists."""


class Begin(msgspec.Struct, frozen=True):
    """Note the set from which this attempt goes on."""


class Stop(msgspec.Struct, frozen=True):
    """There is no row: do what `on_empty` says."""


class Estimate(msgspec.Struct, frozen=True):
    """Compare the cost of the next round with the limit.

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

    :param repair: the log entry of the repair round; None for the batch itself.
    """

    round: int
    repair: Repair | None = None


class Wait(msgspec.Struct, frozen=True):
    """Wait, because jobs of the last round still run."""


class Choose(msgspec.Struct, frozen=True):
    """Read the answers, and choose the rows that are sent again."""

    wants: Wants


class Decide(msgspec.Struct, frozen=True):
    """Note that these rows are sent again."""

    manifest: Manifest


class Land(msgspec.Struct, frozen=True):
    """Land: no row is sent again, and the rounds are final.

    :param given_up: why the next repair round is not bought, if there would be one.
    """

    given_up: InputError | None = None


class Replaced(msgspec.Struct, frozen=True):
    """A later attempt has begun from other requests. This attempt must stop."""


Step = Prepare | Begin | Replaced | Stop | Estimate | AskApproval | Refuse | Buy | Wait | Choose | Decide | Land


def next_step(state: State, facts: Facts, *, is_checked: bool = True, goes_on_empty: bool = True) -> Step:  # noqa: PLR0911 - a table
    """Choose the next step.

    :param state: what the log says.
    :param is_checked: whether the cost of the batch itself is compared with the limit here; False if another task
        bought the batch.
    :param goes_on_empty: whether a batch without a row is landed.
    """
    if facts.base is None:
        return Prepare()
    if facts.fresh and not facts.has_begun:
        return Begin()
    if state.begun is None or state.begun.base != facts.base.uri:
        return Replaced()
    if not facts.rounds:
        if facts.fresh and not facts.base.row_count and not goes_on_empty:
            return Stop()
        return _purchase(facts) if is_checked else Buy(0)
    if any(job.state.phase is Phase.WAITING for job in facts.rounds[-1].jobs):
        return Wait()
    if len(facts.rounds) <= len(state.repairs):
        number = len(facts.rounds)
        return Buy(number, state.repairs[number - 1])
    return _repair(state, facts)


def _purchase(facts: Facts) -> Step:
    """Choose how the batch itself is bought."""
    match facts.may_spend:
        case None:
            return Estimate(0)
        case Allowed():
            return Buy(0)
        case Question() as question:
            return AskApproval(question)
        case refused:
            return Refuse(refused)


def _repair(state: State, facts: Facts) -> Step:  # noqa: PLR0911 - a table
    """Choose whether there is another round, and which rows it sends."""
    wants = wanted(state, facts)
    if not wants & (Wants.CURABLE | Wants.UNANSWERED):
        return Land()
    if facts.selection is None:
        return Choose(wants)
    if facts.selection.manifest is None:
        return Land()
    match facts.may_spend:
        case None:
            return Estimate(len(facts.rounds))
        case Allowed():
            return Decide(facts.selection.manifest)
        case Question() as question:
            return AskApproval(question)
        case refused:
            return Land(refused.why)


def wanted(state: State, facts: Facts) -> Wants:
    """Return which kinds of rows may be sent again."""
    wants = Wants.CURABLE if state.rounds_left > 0 else Wants(0)
    # A manual clear always gets a round: also after a round that cured nothing, and also for rows that no job reached.
    wants |= Wants.AGAIN if state.granted else Wants(0)
    return wants | (Wants.UNANSWERED if facts.owes_repair and badly_ended(facts.rounds) else Wants(0))
