"""May a batch cost that much? The limit stops only a new purchase. It never stops work on jobs that are paid already.

Pure functions: an estimate and the answers of people go in, a verdict comes out. An answer is one entry of the batch's
log. A question is identified by requests, model and cost. So after a change, or if the cost is higher, a person is
asked again. If an attempt dies after "Approve" and before the entry is written, the next attempt asks again, and
nothing has been paid.
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
    """The purchase is allowed.

    :param by: the person who approved it, if an approval was needed.
    """

    by: str = ""


class Refused(msgspec.Struct, frozen=True):
    """The purchase is not allowed.

    :param skips: whether the task is skipped (`on_over_budget="skip"`).
    """

    why: InputError
    skips: bool = False


class Question(msgspec.Struct, frozen=True):
    """A person must decide.

    :param id: identifies the question.
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

    :param answers: the last answer to each question.
    :param purchase: identifies the set of requests.
    :param generation: changes when a person clears the task. Then a rejected question is asked again.
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
    """Return the error for a batch that no person approved.

    :param said: True if the person rejected it; False if nobody has answered.
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
