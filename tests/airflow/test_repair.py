"""A bad night in a real Airflow: ten thousand rows of which seven of a hundred fail, and what repair makes of it."""

from __future__ import annotations

import re
from collections import Counter
from decimal import Decimal
from typing import ClassVar

import pytest

from airflow_vertex_batch.core.answers.report import PriceTable
from tests.airflow.conftest import Cloud
from tests.bad_night import CALL, Night

COUNT, CHANGED = 10_000, 100
TABLES = {"bad_night": "bad_night", "bad_night_in_one_task": "bad_night_in_one"}
PRICE = PriceTable.shipped().of("gemini-2.5-flash", "2026-11-28")
#: How `Usage` calls what the books count.
USAGE = {"prompt": "prompt_tokens", "output": "output_tokens", "thinking": "thinking_tokens", "cached": "cached_tokens",
         "tool": "tool_tokens"}  # fmt: skip


def keys(count):
    return frozenset(f"t-{number:05}" for number in range(count))


class Run:
    """One run of a DAG, seen from outside: its jobs in the books, its report, the rows it left behind."""

    def __init__(self, airflow, cloud, dag_id, report_of, conf=None):
        before = {job["name"] for job in cloud.jobs(dag_id)}
        run_id = airflow.trigger(dag_id, conf=conf)
        state = airflow.wait_for_run(dag_id, run_id)["state"]
        assert state == "success", airflow.tasks(dag_id, run_id)
        self.jobs = [job for job in cloud.jobs(dag_id, rows=True) if job["name"] not in before]
        self.run_id = run_id
        self.report = airflow.xcom(dag_id, run_id, report_of)
        self.landed = self.rows(cloud, TABLES[dag_id])
        self.dead = self.rows(cloud, f"{TABLES[dag_id]}_dead_letters")

    @staticmethod
    def rows(cloud, table):
        """Every row of a table, as often as it is there."""
        return cloud.query(
            f"SELECT row_key, status, code, text, cost_usd, attempts, run_id FROM `demo.support.{table}`"
        )

    @property
    def bills(self):
        """The bill of every request of all jobs."""
        return [bill for job in self.jobs for bill in job["bills"]]

    def sent(self, number):
        """How often each key was sent in a round."""
        jobs = [job for job in self.jobs if job["labels"]["avb-round"] == str(number)]
        return Counter(bill["key"] for job in jobs for bill in job["bills"])


def cost(bills):
    """What rows cost by the books, US dollars: the flat tier, thinking as output, tools as input."""
    spent = sum(
        (bill["prompt"] - bill["cached"] + bill["tool"]) * PRICE.input
        + bill["cached"] * PRICE.cached_input
        + (bill["output"] + bill["thinking"]) * PRICE.output
        for bill in bills
    )
    return Decimal(spent) / 1_000_000


def once_each(wanted):
    return dict.fromkeys(wanted, 1)


@pytest.fixture(scope="module")
def ready(stack):
    """A client of Airflow, once the DAGs of this module can run."""
    client = stack.airflow.client
    for dag_id in (*TABLES, "over_budget", "on_demand", "resumed", "too_many_failed"):
        client.wait_for_dag(dag_id)
        client.unpause(dag_id)
    return client


@pytest.fixture(scope="module")
def google(stack):
    """The Google side, for the whole module."""
    return Cloud(stack)


@pytest.fixture(scope="module")
def night():
    return Night(keys(COUNT), **{"airflow-dag": "bad_night"})


@pytest.fixture(scope="module")
def bad(ready, google, night):
    """The run of the bad night."""
    with google.misbehaving(night.faults):
        return Run(ready, google, "bad_night", "batch.export")


@pytest.fixture(scope="module")
def better(ready, google, bad):
    """The same DAG again, when the service has come to its senses."""
    return Run(ready, google, "bad_night", "batch.export")


class TestABadNight:
    """Two repair rounds."""

    def test_each_round_sends_the_rows_without_a_good_answer_and_no_other(self, bad, night):
        """No row that was answered well, and none that is past help, is sent twice."""
        assert 0.06 < len(night.failing) / COUNT < 0.08
        for number in range(3):
            assert bad.sent(number) == once_each(night.sent(number)), f"round {number}"
        assert {job["labels"]["avb-round"] for job in bad.jobs} == {"0", "1", "2"}

    def test_every_curable_row_has_its_answer(self, bad, night):
        assert Counter(row["row_key"] for row in bad.landed) == once_each(night.keys - night.dead.keys())
        assert {row["status"] for row in bad.landed} == {"succeeded"}
        # A function that the model called is an answer without a text.
        assert sum(not row["text"] for row in bad.landed) == len(night.struck_by("parts", parts=[CALL]))

    def test_the_others_are_dead_letters_with_their_reason(self, bad, night):
        assert len(bad.dead) == len(night.dead)
        assert {row["row_key"]: (row["status"], row["code"]) for row in bad.dead} == night.dead

    def test_the_report_counts_every_row(self, bad, night):
        dead = Counter(status for status, _ in night.dead.values())
        assert bad.report["request_count"] == COUNT
        assert bad.report["statuses"] == {"succeeded": COUNT - len(night.dead), **dead}
        assert bad.report["duplicate_count"] == len(night.struck_by("duplicated"))
        assert bad.report["rejoined_count"] == len(night.struck_by("key"))

    def test_the_report_has_the_tokens_and_the_cost_of_the_books(self, bad, night):
        """Every attempt counts, the good ones and the bad; what came without usage is counted apart."""
        unpriced = night.struck_by("no_usage") - night.struck_by("no_usage", only_total=True)
        priced = [bill for bill in bad.bills if bill["key"] not in unpriced]
        usage = {theirs: sum(bill[ours] for bill in priced) for ours, theirs in USAGE.items()}
        assert {name: bad.report["usage"][name] for name in usage} == usage
        assert 0 not in usage.values()
        assert bad.report["unpriced_count"] == len(unpriced)
        assert Decimal(bad.report["cost_usd"]) == cost(priced).quantize(Decimal("0.000001"))

    def test_the_books_bill_what_they_list(self, bad):
        """The rows of the books add up to their totals, so that the comparison above is one with the bill."""
        for job in bad.jobs:
            billed = [bill for bill in job["bills"] if bill["outcome"] == "answered"]
            assert (len(job["bills"]), len(billed)) == (job["requests"], job["billedRows"])
            assert {name: sum(bill[name] for bill in billed) for name in USAGE} == {
                name: job["tokens"][name] for name in USAGE
            }

    def test_a_clear_of_the_run_lands_the_same_and_buys_nothing(self, ready, google, bad):
        """Its answers have landed since and are not known to it: it prepares the same set, and finds its jobs."""
        jobs = google.jobs("bad_night")
        ready.clear("bad_night", bad.run_id)
        assert ready.wait_for_run("bad_night", bad.run_id)["state"] == "success"
        assert [job["name"] for job in google.jobs("bad_night")] == [job["name"] for job in jobs]
        for before, table in ((bad.landed, "bad_night"), (bad.dead, "bad_night_dead_letters")):
            assert sorted(map(repr, Run.rows(google, table))) == sorted(map(repr, before))
        report = ready.xcom("bad_night", bad.run_id, "batch.export")
        assert (report["statuses"], report["cost_usd"]) == (bad.report["statuses"], bad.report["cost_usd"])


class TestKnownAnswers:
    """The same DAG again: only what has no good answer is sent. These build on each other, in this order."""

    def test_a_second_run_sends_the_dead_letters_alone(self, better, night):
        assert better.sent(0) == once_each(night.dead)
        assert len(better.bills) == len(night.dead)

    def test_and_lands_them_beside_the_others(self, better, night):
        assert Counter(row["row_key"] for row in better.landed) == once_each(night.keys)
        assert better.dead == []

    def test_its_bill_is_what_it_sent(self, better):
        assert Decimal(better.report["cost_usd"]) == cost(better.bills).quantize(Decimal("0.000001"))

    def test_a_third_run_sends_nothing(self, ready, google, better, night):
        third = Run(ready, google, "bad_night", "batch.export")
        assert third.jobs == []
        assert Decimal(third.report["cost_usd"]) == 0
        assert Counter(row["row_key"] for row in third.landed) == once_each(night.keys)
        assert third.dead == []

    def test_after_a_change_of_some_rows_it_sends_those(self, ready, google, better, night):
        fourth = Run(ready, google, "bad_night", "batch.export", conf={"changed": CHANGED})
        assert fourth.sent(0) == once_each(keys(CHANGED))
        assert len(fourth.bills) == CHANGED
        assert Counter(row["row_key"] for row in fourth.landed) == once_each(night.keys)


class TestTheOneTask:
    """`VertexBatchOperator`: the same in one task."""

    def test_repairs_as_the_group_does(self, ready, google):
        night = Night(keys(1_000), **{"airflow-dag": "bad_night_in_one_task"})
        with google.misbehaving(night.faults):
            run = Run(ready, google, "bad_night_in_one_task", "batch")
        for number in range(3):
            assert run.sent(number) == once_each(night.sent(number)), f"round {number}"
        assert Counter(row["row_key"] for row in run.landed) == once_each(night.keys - night.dead.keys())
        assert {row["row_key"]: (row["status"], row["code"]) for row in run.dead} == night.dead


class TestOnDemand:
    """A person clears one task, and only the bad rows of that run go again."""

    FAULT: ClassVar = {"do": "row_error", "code": 503, "ratio": 0.2, "seed": 3}

    def test_clearing_repair_sends_the_bad_rows_and_clearing_the_run_sends_nothing(self, ready, google):
        labels = {"airflow-dag": "on_demand", "avb-round": "0"}
        with google.misbehaving([{**self.FAULT, "labels": labels}]):
            run_id = ready.trigger("on_demand")
            assert ready.wait_for_run("on_demand", run_id)["state"] == "success"
        bad = {row["row_key"] for row in Run.rows(google, "on_demand_dead_letters")}
        assert 0 < len(bad) < 50
        assert self.sent(google) == [keys(50)]

        for tasks, jobs in ((["batch.repair"], 2), (None, 2)):
            ready.clear("on_demand", run_id, tasks)
            assert ready.wait_for_run("on_demand", run_id)["state"] == "success"
            assert Counter(row["row_key"] for row in Run.rows(google, "on_demand")) == once_each(keys(50))
            assert Run.rows(google, "on_demand_dead_letters") == []
            assert self.sent(google) == [keys(50), bad][:jobs]
            report = ready.xcom("on_demand", run_id, "batch.export")
            assert report["rounds"] == [{"round": 1, "sent": len(bad), "cured": len(bad)}]

    @staticmethod
    def sent(google):
        """The keys of each job, oldest job first."""
        jobs = google.jobs("on_demand", rows=True)
        return [{bill["key"] for bill in job["bills"]} for job in jobs]


class TestTheServicesOwnResume:
    """The service completes its output file: what it has answered is copied, for nothing."""

    def test_the_output_is_the_input_of_the_second_job(self, ready, google):
        fault = {"do": "row_error", "code": 503, "ratio": 0.2, "seed": 3}
        with google.misbehaving([{**fault, "labels": {"airflow-dag": "resumed", "avb-round": "0"}}]):
            run_id = ready.trigger("resumed")
            assert ready.wait_for_run("resumed", run_id)["state"] == "success"
        first, second = google.jobs("resumed", rows=True)
        failed = {bill["key"] for bill in first["bills"] if bill["outcome"] == "failed"}
        assert 0 < len(failed) < 50
        assert {bill["key"] for bill in second["bills"] if bill["outcome"] == "answered"} == failed
        assert {bill["outcome"] for bill in second["bills"]} == {"answered", "copied"}
        report = ready.xcom("resumed", run_id, "batch.export")
        assert report["statuses"] == {"succeeded": 50}
        assert report["foreign_count"] == 0
        assert Decimal(report["cost_usd"]) == cost([*first["bills"], *second["bills"]]).quantize(Decimal("0.000001"))


class TestThresholds:
    """Too many bad rows fail the night, after what there is has landed."""

    def test_the_task_fails_for_good_and_says_which_rows(self, ready, google):
        fault = {"do": "row_error", "code": 400, "ratio": 0.4, "seed": 3, "labels": {"airflow-dag": "too_many_failed"}}
        with google.misbehaving([fault]):
            run_id = ready.trigger("too_many_failed")
            assert ready.wait_for_run("too_many_failed", run_id)["state"] == "failed"
        export = ready.task("too_many_failed", run_id, "batch.export")
        assert (export["state"], export["try_number"]) == ("failed", 1)
        dead = {row["row_key"] for row in Run.rows(google, "too_many_failed_dead_letters")}
        log = ready.log("too_many_failed", run_id, "batch.export")
        assert f"{len(dead)} of 50 rows failed" in log
        assert "max_failed_ratio allows 10.00%" in log
        assert len(dead & set(re.findall(r"t-\d{5}", log))) >= 3
        assert len(Run.rows(google, "too_many_failed")) == 50 - len(dead) > 0


class TestTheBudget:
    """A run that would cost more than it may."""

    def test_makes_no_job_and_says_the_figure_and_the_limit(self, ready, google):
        run_id = ready.trigger("over_budget")
        assert ready.wait_for_run("over_budget", run_id)["state"] == "failed"
        assert google.jobs("over_budget") == []
        [failed] = [task for task in ready.tasks("over_budget", run_id) if task["state"] == "failed"]
        assert failed["try_number"] == 1, "asking again does not make it cheaper"
        log = ready.log("over_budget", run_id, failed["task_id"])
        amounts = {Decimal(text.replace(",", "")) for text in re.findall(r"\$(\d[\d,]*(?:\.\d+)?)", log)}
        assert Decimal("0.01") in amounts
        assert max(amounts) > Decimal("0.01")
