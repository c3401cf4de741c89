"""How is a person asked? `compat.ask_a_person` by itself: the same question and the same answer on every Airflow."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import uuid4

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk.module_loading import import_string

from airflow_vertex_batch.edge.compat import ask_a_person
from tests.airflow.versions import Parked

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
ALICE = {"id": "7", "name": "alice"}


class Supervisor:
    """The process that passes a question on to the API server, and later the answer back."""

    def __init__(self) -> None:
        self.asked, self.answer = [], None

    def send(self, msg):
        if self.answer is not None:
            return self.answer
        self.asked.append(msg)
        return None

    def answers(self, option: str) -> None:
        """Let a person choose."""
        said = {"responded_by_user": SimpleNamespace(**ALICE), "responded_at": NOW, "params_input": {}}
        self.answer = SimpleNamespace(response_received=True, chosen_options=[option], **said)


@pytest.fixture
def supervisor(supervised) -> Supervisor:
    made = Supervisor()
    supervised(made)
    return made


def parked(kind):
    """Ask, and return what parks the task."""
    context = {"ti": SimpleNamespace(id=uuid4())}
    question = {"subject": "Create it?", "body": "It costs.", "options": ["Approve", "Reject"]}
    with pytest.raises(kind, check=lambda caught: caught.method_name == "execute_answered") as caught:
        ask_a_person(context, **question, resume="execute_answered", kwargs={"question": "q"})
    return caught.value


class TestOnThisAirflow:
    def test_the_question_is_stored_and_the_task_parked(self, supervisor):
        kept = parked(Parked)
        [question] = supervisor.asked
        assert (question.options, question.subject, question.body) == (["Approve", "Reject"], "Create it?", "It costs.")
        assert question.params == {}, "the API server refuses None"
        assert json.loads(json.dumps(kept.kwargs))["question"] == "q"


class TestBelow33:
    """There the task is deferred, and the standard provider's trigger asks for the answer."""

    @pytest.fixture(autouse=True)
    def below_3_3(self, monkeypatch):
        monkeypatch.delattr("airflow.sdk.exceptions.TaskAwaitingInput", raising=False)

    def test_the_same_question_is_stored(self, supervisor):
        parked(TaskDeferred)
        assert [(each.options, each.subject, each.params) for each in supervisor.asked] == [
            (["Approve", "Reject"], "Create it?", {})
        ]

    def test_the_trigger_is_the_standard_provider_s_and_outlives_its_triggerer(self, supervisor):
        name, arguments = parked(TaskDeferred).trigger.serialize()
        assert name == "airflow.providers.standard.triggers.hitl.HITLTrigger"
        assert import_string(name)(**arguments).serialize() == (name, arguments)

    @pytest.mark.parametrize("option", ["Approve", "Reject"])
    async def test_the_event_says_who_chose_what_and_when(self, supervisor, option):
        kept = parked(TaskDeferred)
        supervisor.answers(option)
        event = (await anext(kept.trigger.run())).payload
        assert event["chosen_options"] == [option]
        assert dict(event["responded_by_user"]) == ALICE
        assert event["responded_at"] == NOW
