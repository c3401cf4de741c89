"""The bad night of the end-to-end test, by hand: three jobs, each with the rows that the one before left without a good
answer. What the emulator does and the engine reads must be what `bad_night` says of it, and the books must agree.
"""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal

import pytest

from airflow_vertex_batch.core.answers.collect import Batch, Collector
from airflow_vertex_batch.core.answers.report import PriceTable, Totals
from airflow_vertex_batch.core.domain.job import BatchJob
from airflow_vertex_batch.core.domain.row import RowStatus
from airflow_vertex_batch.emulator.row_faults import RowFault
from airflow_vertex_batch.emulator.scenario import Scenario, fault_tags
from tests.bad_night import MAX_OUTPUT_TOKENS, Night
from tests.emulator.worlds import INPUT, World, a_line

KEYS = [f"t-{number:05}" for number in range(5_000)]
SCHEMA = {"type": "OBJECT", "required": ["mood"], "properties": {"mood": {"type": "STRING", "enum": ["angry", "calm"]}}}


def misfit(answer):
    """Say why an answer misses the schema."""
    return "" if answer.get("mood") in {"angry", "calm"} else "no such mood"


class Rounds:
    """A job and two repair rounds, by the plainest code there is."""

    def __init__(self, night):
        self.world = World(scenario=Scenario.parse(json.dumps({"faults": night.faults})))
        self.collector = Collector(self.world.store, self.world.warehouse, check=misfit)
        self.rows, self.sent, self.totals = {}, [], Totals()
        budgets = dict.fromkeys(KEYS, MAX_OUTPUT_TOKENS)
        for number in range(3):
            self.sent.append(frozenset(budgets))
            self.run(number, budgets)
            again = [self.rows[key] for key in budgets if self.rows[key].repairable]
            budgets = {row.key: budgets[row.key] * (2 if row.status is RowStatus.TRUNCATED else 1) for row in again}

    def run(self, number, budgets):
        """Run one job and collect its rows."""
        config = {"responseMimeType": "application/json", "responseSchema": SCHEMA}
        lines = [
            a_line(key, f"Is {key} angry?", generationConfig=config | {"maxOutputTokens": budget})
            for key, budget in budgets.items()
        ]
        job = self.world.run(*lines, labels={"avb-round": str(number)})
        for row in self.collector.rows(Batch(BatchJob.from_api(job), (INPUT,))):
            self.rows[row.key] = row
            self.totals.add(row)


@pytest.fixture(scope="module")
def night():
    return Night(KEYS)


@pytest.fixture(scope="module")
def rounds(night):
    return Rounds(night)


class TestABadNight:
    def test_knows_every_fault_of_a_row(self, night):
        tags = {tag for tag, kind in fault_tags().items() if issubclass(kind, RowFault)}
        assert {fault["do"] for fault in night.faults} == tags

    def test_strikes_seven_rows_of_a_hundred(self, night):
        assert 0.06 < len(night.failing) / len(KEYS) < 0.08
        assert all(night.struck_by(do=fault["do"]) for fault in night.faults)

    def test_leaves_to_each_round_the_rows_it_says(self, night, rounds):
        assert rounds.sent == [night.sent(number) for number in range(3)]
        assert len(rounds.sent[1]) > len(rounds.sent[2]) > 0
        assert rounds.world.emulator.script.unused() == []

    def test_ends_as_it_says(self, night, rounds):
        bad = {key: (row.status, row.code) for key, row in rounds.rows.items() if not row.status.is_good}
        assert bad == night.dead
        anomalies = rounds.collector.anomalies
        assert anomalies.duplicate_count == len(night.struck_by("duplicated"))
        assert anomalies.rejoined_count == len(night.struck_by("key"))


class TestItsBill:
    @pytest.fixture
    def jobs(self, rounds):
        return rounds.world.emulator.books(rows=True)["jobs"]

    def test_names_every_row_once_in_each_job_that_sent_it(self, night, jobs):
        for number, job in enumerate(jobs):
            assert Counter(bill["key"] for bill in job["bills"]) == dict.fromkeys(night.sent(number), 1)

    def test_adds_up_to_the_totals(self, jobs):
        for job in jobs:
            for name in ("prompt", "output", "thinking", "cached", "tool"):
                assert sum(bill[name] for bill in job["bills"]) == job["tokens"][name]

    def test_is_what_the_rows_cost(self, night, rounds, jobs):
        """The engine's tokens and money, row by row, against the books; rows without usage are counted apart."""
        unpriced = night.struck_by("no_usage") - night.struck_by("no_usage", only_total=True)
        bills = [bill for job in jobs for bill in job["bills"] if bill["key"] not in unpriced]
        prompt, output, thinking, cached, tool = (
            sum(bill[name] for bill in bills) for name in ("prompt", "output", "thinking", "cached", "tool")
        )
        usage = rounds.totals.usage
        assert (usage.prompt_tokens, usage.output_tokens, usage.thinking_tokens) == (prompt, output, thinking)
        assert (usage.cached_tokens, usage.tool_tokens) == (cached, tool)
        # The total of the service leaves tools out.
        assert usage.total_tokens == prompt + output + thinking
        price = PriceTable.shipped().of("gemini-2.5-flash", "2026-11-28")
        read, said = prompt - cached + tool, output + thinking
        spent = read * price.input + cached * price.cached_input + said * price.output
        report = rounds.totals.report()
        assert Decimal(report.cost_usd) == (spent / 1_000_000).quantize(Decimal("0.000001"))
        assert report.unpriced_count == len(unpriced)
