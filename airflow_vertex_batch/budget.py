"""May this task spend that much? The budget's gate before anything is paid: pass, fail, skip, or ask a person.

A limit stands in the way of spending, never of what is spent already: a retry or a clear that would only attach to a
job passes, whatever the estimate says. That question is answered by the decision table of `core.submit` itself, not by
a second opinion on the ledger.

Asking, and what happens if the worker dies:

- before the answer: the task waits in the scheduler's database; no worker is held, and there is none to die;
- after "Approve", before it is written down: the next attempt asks again; nothing has been paid;
- after it is written down (an object beside the ledger, one for each question): the next attempt finds it and goes on.
  The question is made of task, run, requests, model and figure: a changed batch or a dearer one is asked about again.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.compat import ask_a_person, skip_exception
from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.core.estimate import Budget, OnOverBudget
from airflow_vertex_batch.core.prices import PriceTable
from airflow_vertex_batch.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import Context

    from airflow_vertex_batch.core.address import Uri
    from airflow_vertex_batch.core.estimate import Estimate
    from airflow_vertex_batch.core.model import Identity
    from airflow_vertex_batch.core.ports import ObjectStore

log = logging.getLogger(__name__)

APPROVE, REJECT = "Approve", "Reject"


def price_table(store: ObjectStore, prices_file: str | None = None) -> PriceTable:
    """Return the prices in force: the shipped ones, overridden by a task's file or by ``[vertex_batch] prices_file``.

    :raises InputError: when the file cannot be read as prices.
    """
    return PriceTable.load(store, prices_file or Settings.read().prices_file)


class BudgetGate:
    """The limit of one task in one run.

    :param budget: None lets everything pass.
    :param staging: the staging folder; answers are kept beside the ledger.
    """

    def __init__(self, budget: Budget | None, store: ObjectStore, staging: Uri, identity: Identity) -> None:
        self._budget, self._store, self._identity = budget, store, identity
        self._approvals = staging / "approvals" / identity.key

    def check(
        self,
        context: Context,
        estimate: Estimate,
        *,
        purchase: str,
        would_buy: Callable[[], bool],
        spent_usd: Decimal = Decimal(0),
        resume: str = "execute_answered",
        resume_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Return when the batch may be bought, or has been; end or park the task otherwise.

        :param purchase: what tells this set of requests from another, such as the manifest's fingerprint.
        :param would_buy: whether anything would be paid at all; only asked when the estimate is above the limit.
        :param spent_usd: what earlier rounds of the same batch have cost.
        :param resume: the method of the operator that a person's answer is given to, as ``(context, event, question)``;
            it calls `take_answer` and then checks again.
        :param resume_kwargs: further arguments for that method.
        :raises InputError: with `on_over_budget` "fail".
        :raises AirflowSkipException: with "skip".
        :raises TaskAwaitingInput: with "ask", unless this very question has been approved.
        """
        excess = self._budget.excess(estimate, spent_usd) if self._budget else None
        if self._budget is None or excess is None or not would_buy():
            return
        if self._budget.on_over_budget is OnOverBudget.SKIP:
            raise skip_exception(str(excess))
        if self._budget.on_over_budget is OnOverBudget.FAIL:
            raise excess
        question = self._question(purchase, estimate, spent_usd)
        if (answer := self._store.read(self._approvals / question)) is not None:
            said = msgspec.json.decode(answer)
            if not said["approved"]:
                raise excess
            log.info("Above the limit, and approved by %s.", said["by"])
            return
        log.info("%s", excess)
        ask_a_person(
            context,
            subject=f"{excess.what}. Create it?",
            body=f"{excess.why}.\n\n**{APPROVE}** creates the job. **{REJECT}** fails the task; nothing is paid.",
            options=[APPROVE, REJECT],
            resume=resume,
            kwargs={**(resume_kwargs or {}), "question": question},
        )

    def take_answer(self, event: Mapping[str, Any], question: str) -> None:
        """Write a person's approval down, so that a crash after it does not ask again.

        :raises InputError: when the person rejected, or the wait ended without an answer.
        """
        who = _person(event)
        if event.get("chosen_options") != [APPROVE]:
            said = "rejected this batch" if event.get("chosen_options") == [REJECT] else "approved this batch"
            raise InputError(
                f"{who} {said}",
                why=str(event.get("error", "")),
                left="No job was created for it",
                todo="Clear this task to be asked again, or change max_cost_usd",
            )
        self._write(question, who, approved=True)
        log.info("%s approved this batch.", who)

    def decline(self, event: Mapping[str, Any], question: str) -> None:
        """Write a rejection down: what it was about is not asked again, and the task goes on without it."""
        self._write(question, _person(event), approved=False)

    def _write(self, question: str, who: str, *, approved: bool) -> None:
        answer = {"approved": approved, "by": who, "at": datetime.now(UTC), "identity": self._identity.as_dict()}
        self._store.write_new(self._approvals / question, msgspec.json.encode(answer))

    def _question(self, purchase: str, estimate: Estimate, spent_usd: Decimal) -> str:
        cost = estimate.cost_usd.high if estimate.cost_usd else None
        parts = (purchase, estimate.model, str(cost), str(spent_usd))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32] + ".json"


def answered_at(event: Mapping[str, Any]) -> float:
    """Return when a person answered, seconds since the epoch; now, where the event does not say."""
    when = event.get("responded_at") or datetime.now(UTC)
    return (datetime.fromisoformat(when) if isinstance(when, str) else when).timestamp()


def _person(event: Mapping[str, Any]) -> str:
    person = event.get("responded_by_user") or {}
    return person.get("name") or person.get("id") or "Nobody"
