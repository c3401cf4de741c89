"""Nothing is paid above the limit unless a person says so: the gate by itself, and in a real Airflow."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from urllib.parse import quote
from uuid import uuid4

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

import airflow_vertex_batch as avb
from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.core.domain.manifest import Manifest, Shard, Weight
from airflow_vertex_batch.core.money.estimate import Estimate
from airflow_vertex_batch.provider import get_provider_info
from airflow_vertex_batch.settings import Settings
from tests.airflow.versions import PARKED_STATE, Parked
from tests.fakes import Clock, Jobs, MemoryStore, MemoryWarehouse

ALICE = {"id": "7", "name": "alice"}


class CreateInMemory(avb.VertexBatchCreateJobOperator):
    """The operator over a store and a service in memory."""

    def __init__(self, *, world: World | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.world = world

    def hook(self):
        return SimpleNamespace(
            store=lambda: self.world.store, jobs=lambda: self.world.service, warehouse=MemoryWarehouse
        )


class World:
    """A store and a service, and attempts of one task against them; two jobs of 50 requests each."""

    def __init__(self) -> None:
        self.store, self.service, self.pushed, self.max_tries = MemoryStore(), Jobs(Clock()), {}, 2
        self.store.objects |= {f"gs://b/{n}.jsonl": b"9 bytes.\n" for n in range(2)}

    def manifest(self, **members):
        shards = tuple(Shard(uri=f"gs://b/{n}.jsonl", request_count=50, size_bytes=9) for n in range(2))
        base = {"uri": "gs://b/m.json", "fingerprint": "f", "row_count": 100, "request_count": 100, "shards": shards}
        # 1,000,000 output tokens x 1.25 USD a million: up to 1.25 dollars.
        return Manifest(**base | {"weight": Weight(max_output_tokens=1_000_000)} | members).as_dict()

    def attempt(
        self, *, answer=None, limit: float | None = 1.0, policy: str = "fail", model="gemini-2.5-flash", **more
    ):
        task = CreateInMemory(
            task_id="create", model=model, manifest=self.manifest(**more), staging_uri="gs://b/staging",
            max_cost_usd=limit, on_over_budget=policy, world=self,
        )  # fmt: skip
        return self.run(task, answer)

    def run(self, task: CreateInMemory, answer=None):
        ti = SimpleNamespace(
            id=uuid4(),
            dag_id="d",
            task_id="create",
            run_id="r",
            map_index=-1,
            max_tries=self.max_tries,
            try_number=1,
            xcom_push=self.pushed.__setitem__,
        )
        if answer is None:
            return task.execute({"ti": ti})
        event, question = answer
        return task.execute_answered({"ti": ti}, event=event, **question)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def asked(supervised, world) -> list:
    """What a task asks of a person, in place of the process that would pass it on to the API server."""
    from airflow.sdk.execution_time import comms

    sent: list = []

    def send(msg):
        if isinstance(msg, comms.GetXCom):
            return comms.XComResult(key=msg.key, value=world.pushed.get(msg.key))
        return sent.append(msg)

    supervised(SimpleNamespace(send=send))
    return sent


def answered(option: str, **members):
    return {"chosen_options": [option], "params_input": {}, "responded_by_user": ALICE} | members


class TestTheGate:
    @pytest.mark.parametrize("limit", [None, 1.25, 100])
    def test_within_the_limit_jobs_are_created_and_the_estimate_is_passed_on(self, world, limit):
        assert len(world.attempt(limit=limit)) == len(world.service.paid) == 2
        assert Estimate.from_dict(world.pushed["estimate"]).cost_usd.high == pytest.approx(1.25)

    def test_above_it_the_task_fails_for_good_and_says_figure_and_limit(self, world):
        with pytest.raises(AirflowFailException, match=r"may cost up to \$1\.25; the limit, max_cost_usd, is \$1\.00"):
            world.attempt()
        assert world.service.paid == []
        assert not [name for name, data in world.store.objects.items() if b'"kind":"intent"' in data]

    def test_or_is_skipped_with_the_same_words(self, world):
        with pytest.raises(AirflowSkipException, match=r"may cost up to \$1\.25; the limit, max_cost_usd, is \$1\.00"):
            world.attempt(policy="skip")
        assert world.service.paid == []

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ({"model": "gemini-99"}, "no figure to compare with it.*there is no price for gemini-99"),
            ({"weight": None}, "no figure to compare with it.*were not weighed"),
        ],
        ids=["no price", "no weight"],
    )
    def test_unknown_is_above_every_limit_and_no_matter_without_one(self, world, members, message):
        with pytest.raises(AirflowFailException, match=message):
            world.attempt(limit=1_000_000, **members)
        assert len(world.attempt(limit=None, **members)) == 2

    def test_what_is_bought_already_passes_any_limit(self, world):
        names = world.attempt(limit=None)
        assert world.attempt(limit=0.000001) == names
        world.store.objects.clear()
        assert world.attempt(limit=0.000001) == names, "the log is lost, the service has the jobs"
        assert len(world.service.paid) == 2

    @pytest.mark.parametrize("policy", ["fail", "skip", "ask"])
    def test_a_batch_that_is_half_bought_is_bought_to_the_end(self, world, policy):
        """The price, or the limit, is another one by then: the job that runs must not be left alone."""
        world.service._creates = [None, ServiceError("refused", status=403)]
        with pytest.raises(AirflowFailException, match="refused"):
            world.attempt(limit=2)
        assert len(world.attempt(limit=1, policy=policy)) == len(world.service.paid) == 2

    def test_a_job_that_failed_is_a_new_purchase(self, world):
        for name in world.attempt(limit=2):
            world.service.change(name, state="JOB_STATE_FAILED")
        with pytest.raises(AirflowFailException, match="the limit, max_cost_usd"):
            world.attempt(limit=1)

    def test_nothing_to_send_is_within_a_limit_of_nothing(self, world):
        assert world.attempt(limit=0.000001, request_count=0, row_count=0, shards=(), weight=None) == []

    def test_prices_of_the_installation_are_in_force(self, world, monkeypatch, tmp_path):
        entry = {"model": "gemini-2.5-flash", "input": 0, "output": 0.5, "cached_input": 0}
        world.store.objects["gs://b/prices.json"] = json.dumps(
            {"prices": [entry | {"source": "a contract", "date": "2026-11-24"}]}
        ).encode()
        monkeypatch.setenv("AIRFLOW__VERTEX_BATCH__PRICES_FILE", "gs://b/prices.json")
        assert len(world.attempt(limit=0.5)) == 2
        assert world.pushed["estimate"]["price_source"] == "a contract"


class TestWarnings:
    def test_a_price_that_changes_while_the_job_may_run_is_logged_with_both_figures(self, world, monkeypatch, caplog):
        """The task reads the clock, so the change lies two days from whatever today is."""
        entry = {"model": "dated", "cached_input": 0, "source": "a contract", "date": "2026-11-28"}
        today = datetime.now(UTC).date()
        last, first = (today + timedelta(days=days) for days in (1, 2))
        prices = [
            entry | {"input": 1, "output": 1, "valid_until": last.isoformat()},
            entry | {"input": 2, "output": 2, "valid_from": first.isoformat()},
        ]
        world.store.objects["gs://b/prices.json"] = json.dumps({"prices": prices}).encode()
        monkeypatch.setenv("AIRFLOW__VERTEX_BATCH__PRICES_FILE", "gs://b/prices.json")
        assert len(world.attempt(limit=2.0, model="dated")) == 2
        warned = caplog.text
        assert f"The price of dated changes on {first}" in warned
        assert "$1.00) before, $0.20 ($0.0002 to $2.00) from then on" in warned
        with pytest.raises(AirflowFailException, match=r"may cost up to \$2\.00"):
            world.attempt(limit=1.5, model="dated", fingerprint="g")

    def test_a_misspelt_model_is_logged_with_the_near_name_and_stops_nothing(self, world, caplog):
        assert len(world.attempt(limit=None, model="gemini-3.8-flahs")) == 2
        assert "gemini-3.8-flahs is no model that is known here, and gemini-3.8-flash is" in caplog.text

    def test_so_it_is_for_ready_input(self, world, capsys):
        world.store.objects["gs://b/in.jsonl"] = b"{}"
        task = CreateInMemory(
            task_id="create", model="gemini-3.8-flahs", input_uri="gs://b/in.jsonl", staging_uri="gs://b/staging",
            world=world,
        )  # fmt: skip
        world.run(task)
        assert "gemini-3.8-flash is: check the name" in capsys.readouterr().out


class TestAsking:
    def ask(self, world, **more):
        with pytest.raises(Parked, check=lambda asked: asked.method_name == "execute_answered") as caught:
            world.attempt(policy="ask", **more)
        assert world.service.paid == []
        return json.loads(json.dumps(caught.value.kwargs))

    def test_the_question_says_figure_limit_and_what_each_answer_does(self, world, asked):
        self.ask(world)
        [question] = asked
        assert question.options == ["Approve", "Reject"]
        assert question.params == {}, "the API server refuses None"
        assert question.subject == "This batch may cost up to $1.25; the limit, max_cost_usd, is $1.00. Create it?"
        for text in ("100 requests to gemini-2.5-flash", "**Approve** creates the job", "**Reject** fails the task"):
            assert text in question.body

    def test_approve_creates(self, world, asked):
        question = self.ask(world)
        assert len(world.attempt(policy="ask", answer=(answered("Approve"), question))) == 2
        assert len(world.service.paid) == 2

    @pytest.mark.parametrize(
        ("event", "message"),
        [
            (answered("Reject"), r"alice rejected this batch\. No job was created for it"),
            (answered("Reject", responded_by_user={"id": "7", "name": None}), "7 rejected this batch"),
            ({"error": "timed out", "error_type": "timeout"}, r"Nobody approved this batch\. timed out"),
            ({"chosen_options": [], "responded_by_user": None, "timedout": True}, "Nobody approved this batch"),
        ],
        ids=["rejected", "by somebody without a name", "an error", "nobody answered"],
    )  # fmt: skip
    def test_anything_else_fails_for_good_and_says_who(self, world, asked, event, message):
        question = self.ask(world)
        with pytest.raises(AirflowFailException, match=message):
            world.attempt(policy="ask", answer=(event, question))
        assert world.service.paid == []
        world.max_tries += 1
        self.ask(world)
        assert len(asked) == 2, "a clear asks again"

    def test_an_approval_outlives_a_crash_after_it(self, world, asked):
        question = self.ask(world)
        world.service._creates = [ServiceError("quota", status=403)]
        with pytest.raises(AirflowFailException, match="quota"):
            world.attempt(policy="ask", answer=(answered("Approve"), question))
        assert len(world.attempt(policy="ask")) == 2
        assert len(asked) == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"fingerprint": "other rows"},
            {"weight": Weight(max_output_tokens=2_000_000)},
            {"model": "gemini-2.5-pro"},
        ],
        ids=["other requests", "dearer", "another model"],
    )
    def test_an_approval_holds_for_what_was_asked_and_nothing_else(self, world, asked, change):
        """The first attempt after the approval died before it bought anything."""
        question = self.ask(world)
        world.service._creates = [ServiceError("quota", status=403)]
        with pytest.raises(AirflowFailException, match="quota"):
            world.attempt(policy="ask", answer=(answered("Approve"), question))
        self.ask(world, **change)
        assert len(asked) == 2


class TestParameters:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"manifest": {}, "max_cost_usd": -1}, "max_cost_usd=-1 is no limit"),
            ({"manifest": {}, "on_over_budget": "ask"}, "on_over_budget='ask' without a limit"),
            ({"manifest": {}, "max_cost_usd": 1, "on_over_budget": "cry"}, "on_over_budget='cry' is not known"),
            ({"input_uri": "gs://b/x.jsonl", "max_cost_usd": 1}, "Task t has max_cost_usd and an input_uri"),
        ],
    )
    def test_a_budget_that_cannot_be_kept_is_refused_when_the_file_is_read(self, arguments, message):
        with pytest.raises(InputError, match=message):
            avb.VertexBatchCreateJobOperator(task_id="t", model="m", **arguments)

    @pytest.mark.parametrize("arguments", [{"max_failed_ratio": 2}, {"min_succeeded_rows": -1}])
    def test_so_are_thresholds_out_of_range(self, arguments):
        with pytest.raises(InputError, match=next(iter(arguments))):
            avb.VertexBatchExportOperator(task_id="t", jobs=[], destination="gs://b/o", **arguments)


def test_every_option_of_the_settings_is_documented_for_airflow():
    options = get_provider_info()["config"]["vertex_batch"]["options"]
    assert set(options) == set(Settings.__dataclass_fields__)


class TestInARealAirflow:
    """The task waits for a person without a worker; what the person says is what happens."""

    @staticmethod
    def begin(airflow, dag_id):
        airflow.wait_for_dag(dag_id)
        airflow.unpause(dag_id)
        return airflow.trigger(dag_id)

    @staticmethod
    def answer(airflow, run_id, option):
        run = quote(run_id, safe="")
        path = f"dags/over_budget_ask/dagRuns/{run}/taskInstances/create/-1/hitlDetails"
        airflow._send("PATCH", path, json={"chosen_options": [option], "params_input": {}})

    def test_too_dear_fails_at_once_and_no_job_is_created(self, airflow, cloud, stack):
        run_id = self.begin(airflow, "over_budget_fail")
        assert airflow.wait_for_run("over_budget_fail", run_id)["state"] == "failed"
        task = airflow.task("over_budget_fail", run_id, "create")
        assert task["state"] == "failed"
        # The try that says it is the last. On a busy machine Airflow may have failed one before it.
        said = "may cost up to $0.245762; the limit, max_cost_usd, is $0.10"
        tries = range(1, task["try_number"] + 1)
        logs = [airflow.log("over_budget_fail", run_id, "create", number) for number in tries]
        assert [said in log for log in logs] == [number == task["try_number"] for number in tries]
        assert cloud.jobs("over_budget_fail") == []
        assert airflow.xcom("over_budget_fail", run_id, "create", "estimate")["request_count"] == 3

    @staticmethod
    def noticed(stack, runs):
        """Whether the scheduler has met the end of the worker that parked each run's create task; None if not yet."""
        lines = stack.log("airflow-scheduler").read_text().splitlines()
        events = [line for line in lines if "executor event" in line and "task_id='create'" in line]
        return all(any(run_id in line for line in events) for run_id in runs) or None

    def test_a_person_rejects_one_run_and_approves_another(self, airflow, cloud, stack):
        runs = [self.begin(airflow, "over_budget_ask"), self.begin(airflow, "over_budget_ask")]
        for run_id in runs:
            task = airflow.wait_for_task("over_budget_ask", run_id, "create", {PARKED_STATE, "failed"})
            assert task["state"] == PARKED_STATE, airflow.log("over_budget_ask", run_id, "create")
        waiting = airflow._send("GET", "dags/~/dagRuns/~/hitlDetails")["hitl_details"]
        assert {each["task_instance"]["dag_run_id"] for each in waiting} >= set(runs)
        assert all("may cost up to $0.245762" in each["subject"] for each in waiting)
        assert cloud.jobs("over_budget_ask") == []

        # No person answers in the second in which a task was parked: on Airflow 3.3.2 the scheduler may then meet the
        # end of its worker with the task queued again, and fail the try (apache/airflow#67287).
        airflow.wait_for("the ends of the workers", lambda: self.noticed(stack, runs), lambda: "")
        tries = airflow.task("over_budget_ask", runs[0], "create")["try_number"]
        self.answer(airflow, runs[0], "Reject")
        assert airflow.wait_for_run("over_budget_ask", runs[0])["state"] == "failed"
        task = airflow.task("over_budget_ask", runs[0], "create")
        assert (task["state"], task["try_number"]) == ("failed", tries)
        assert "rejected this batch" in airflow.log("over_budget_ask", runs[0], "create", tries)
        assert cloud.jobs("over_budget_ask") == []

        self.answer(airflow, runs[1], "Approve")
        assert airflow.wait_for_run("over_budget_ask", runs[1])["state"] == "success"
        [job] = cloud.jobs("over_budget_ask")
        assert airflow.xcom("over_budget_ask", runs[1], "create") == [job["name"]]

        airflow.clear("over_budget_ask", runs[1], ["create"])
        assert airflow.wait_for_run("over_budget_ask", runs[1])["state"] == "success"
        assert len(cloud.jobs("over_budget_ask")) == 1, "a clear attaches, and asks nobody"
