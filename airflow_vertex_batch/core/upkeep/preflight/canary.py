"""What does the model say to one row, asked online just as the batch would ask it?

This is the only check that costs money: one request at the online rate, which is twice the batch rate. The answer is
judged like a row of a batch, by `core.answers.classify` and the schema, and is never shown.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.answers.classify import classify
from airflow_vertex_batch.core.domain.address import model_path
from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.core.domain.jsonl import OutputLine, encode
from airflow_vertex_batch.core.domain.row import RowStatus
from airflow_vertex_batch.core.money.estimate import dollars
from airflow_vertex_batch.core.money.prices import PriceTable, billing_day
from airflow_vertex_batch.core.requests.answer_check import AnswerCheck
from airflow_vertex_batch.core.requests.request import RequestBuilder, RowProblem
from airflow_vertex_batch.core.upkeep.preflight.definitions import (
    CheckResult,
    Cloud,
    Plan,
    Verdict,
    failed,
    good,
    reason_text,
    warning,
)

if TYPE_CHECKING:
    from airflow_vertex_batch.core.domain.row import ResultRow
    from airflow_vertex_batch.core.upkeep.preflight.definitions import Canary

#: Batch costs half of online (https://cloud.google.com/vertex-ai/generative-ai/pricing, 2026-11-22).
_ONLINE = Decimal(2)
#: Statuses that mean that the service refuses this request. Other statuses say nothing about the batch.
_REFUSED = frozenset({400, 404})


def canary(plan: Plan, cloud: Cloud, _subject: str) -> CheckResult:
    """Send one row, and return its result and its cost."""
    if plan.canary is None:
        raise ValueError("no canary was asked for")
    try:
        request = RequestBuilder(plan.canary.template)(plan.canary.row)
    except RowProblem as problem:
        return failed(f"the row cannot become a request: {problem.reason}", "Correct the prompt, or give a whole row")
    try:
        response = cloud.generate(_online_path(plan), msgspec.json.decode(request))
    except ServiceError as error:
        if error.status not in _REFUSED:
            raise
        return failed(f"refused: {reason_text(error)}", "Correct the request; the batch's rows would be refused alike")
    return _judged(plan, plan.canary, request, response)


def _online_path(plan: Plan) -> str:
    path = model_path(plan.model)
    return path if path.startswith("projects/") else f"projects/{plan.project}/locations/{plan.location}/{path}"


def _judged(plan: Plan, asked: Canary, request: bytes, response: dict[str, Any]) -> CheckResult:
    schema = asked.template.response_schema
    line = OutputLine(request=msgspec.Raw(request), response=msgspec.Raw(encode(response)))
    row = classify(line, "canary", check=AnswerCheck(schema) if schema is not None else None)
    cost = _cost(row, plan)
    if row.status.is_good:
        fits = " and fits the schema" if schema is not None else ""
        return good(f"answered{fits}; {cost}")
    # What the service says of an answer may quote it; what we say does not.
    why = f": {row.reason}" if row.finish_reason in {"", "STOP"} and row.status is not RowStatus.BLOCKED else ""
    found = f"{row.status}, {row.code}{why}; {cost}"
    if row.status is RowStatus.BLOCKED:
        return warning(found, "Try another row: it is this one that the model does not answer")
    todo = "Raise maxOutputTokens" if row.status is RowStatus.TRUNCATED else "Correct the prompt or the schema"
    return CheckResult(Verdict.FAILED, found, todo)


def _cost(row: ResultRow, plan: Plan) -> str:
    if row.usage is None:
        return "what it cost is not known: the answer counts no tokens"
    tokens = f"{row.usage.total_tokens:,} tokens"
    price = PriceTable.shipped().cost(row, plan.model, billing_day(plan.begins))
    if price is None:
        return f"{tokens}, whose price is not known"
    return f"{tokens}, about {dollars(price * _ONLINE)} at the online rate"
