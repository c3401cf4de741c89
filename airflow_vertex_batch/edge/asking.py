"""How does a task ask a person whether money may be spent, and what was the answer?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from airflow_vertex_batch.edge.compat import ask_a_person

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airflow_vertex_batch.core.progress import Ask


class Answer(msgspec.Struct, frozen=True):
    """What a person said.

    :param by: the person's name; empty if the wait ended without an answer.
    :param at: when the person answered, seconds since the epoch; now, if the event does not say.
    :param why: Airflow's reason, if there was no answer.
    """

    by: str
    approved: bool
    at: float
    why: str = ""

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Answer:
        """Read the event with which Airflow resumes a task."""
        from airflow_vertex_batch.core.purchase.approval import APPROVE

        person, chosen = event.get("responded_by_user") or {}, event.get("chosen_options")
        name = str(person.get("name") or person.get("id") or "Nobody") if chosen else ""
        when = event.get("responded_at") or datetime.now(UTC)
        at = (datetime.fromisoformat(when) if isinstance(when, str) else when).timestamp()
        return cls(name, approved=chosen == [APPROVE], at=at, why=str(event.get("error", "")))


def ask(context: Context, step: Ask) -> NoReturn:
    """Suspend the task until a person has answered. Then Airflow calls the method `execute_answered`."""
    from airflow_vertex_batch.core.purchase.approval import APPROVE, REJECT

    ask_a_person(
        context,
        subject=step.question.subject,
        body=step.question.body,
        options=[APPROVE, REJECT],
        resume="execute_answered",
        kwargs={"question": step.question.id, "of_round": step.round, "attempt": step.attempt.as_dict()},
    )
