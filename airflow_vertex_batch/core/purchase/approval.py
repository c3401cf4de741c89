"""May a batch spend that much? A limit stands in the way of spending, never of what is spent already.

Pure: an estimate and what people have said go in, a verdict comes out. An answer is one entry of the batch's log. The
question is made of requests, model and figure, so a changed batch or a dearer one is asked about again. If an attempt
dies after "Approve" and before the entry is written, the next attempt asks again, and nothing has been paid.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.money.estimate import Budget, OnOverBudget

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_vertex_batch.core.money.estimate import Estimate
    from airflow_vertex_batch.core.purchase.entries import Answered

APPROVE, REJECT = "Approve", "Reject"


class Allowed(msgspec.Struct, frozen=True):
    """It may be spent.

    :param by: who approved it, where a person had to.
    """

    by: str = ""


class Refused(msgspec.Struct, frozen=True):
    """It must not be spent.

    :param skips: whether the author wants the task to be skipped then.
    """

    why: InputError
    skips: bool = False


class Question(msgspec.Struct, frozen=True):
    """A person must say.

    :param id: what tells this question from another.
    :param body: Markdown.
    """

    id: str
    subject: str
    body: str


Verdict = Allowed | Refused | Question


def verdict(
    budget: Budget | None,
    estimate: Estimate,
    answers: Mapping[str, Answered],
    *,
    purchase: str,
    generation: str,
    spent_usd: Decimal = Decimal(0),
) -> Verdict:
    """Compare an estimate with the limit.

    :param answers: what a person said last to each question.
    :param purchase: what tells this set of requests from another.
    :param generation: changes when a person clears the task: what was rejected is asked about again then.
    :param spent_usd: what earlier rounds of the same batch have cost.
    """
    excess = budget.excess(estimate, spent_usd) if budget else None
    if budget is None or excess is None:
        return Allowed()
    if budget.on_over_budget is not OnOverBudget.ASK:
        return Refused(excess, skips=budget.on_over_budget is OnOverBudget.SKIP)
    question = _question(purchase, estimate, spent_usd)
    said = answers.get(question)
    if said is not None and said.approved:
        return Allowed(by=said.by)
    if said is not None and said.generation == generation:
        return Refused(excess)
    return Question(
        question,
        subject=f"{excess.what}. Create it?",
        body=f"{excess.why}.\n\n**{APPROVE}** creates the job. **{REJECT}** fails the task; nothing is paid.",
    )


def rejected(by: str, why: str = "", *, said: bool = True) -> InputError:
    """Return the error of a batch that a person did not approve.

    :param said: whether the person rejected it; else nobody has answered.
    """
    return InputError(
        f"{by} {'rejected' if said else 'approved'} this batch",
        why=why,
        left="No job was created for it",
        todo="Clear this task to be asked again, or change max_cost_usd",
    )


def _question(purchase: str, estimate: Estimate, spent_usd: Decimal) -> str:
    cost = estimate.cost_usd.high if estimate.cost_usd else None
    parts = (purchase, estimate.model, str(cost), str(spent_usd))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
