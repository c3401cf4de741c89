"""The bad night of the end-to-end test, by hand: three jobs, each with the rows that the one before left without a good
answer. What the emulator does must be what `bad_night` says of it.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest

from airflow_vertex_batch.core.classify import classify
from airflow_vertex_batch.core.jsonl import read_output
from airflow_vertex_batch.emulator.faults import RowFault
from airflow_vertex_batch.emulator.scenario import Scenario, fault_tags
from tests.bad_night import MAX_OUTPUT_TOKENS, Night
from tests.emulator.worlds import World, a_line

KEYS = [f"t-{number:05}" for number in range(5_000)]
SCHEMA = {"type": "OBJECT", "required": ["mood"], "properties": {"mood": {"type": "STRING", "enum": ["angry", "calm"]}}}


def misfit(answer):
    """Say why an answer misses the schema."""
    return "" if answer.get("mood") in {"angry", "calm"} else "no such mood"


class Rounds:
    """A job and two repair rounds, by the plainest code there is."""

    def __init__(self, night):
        self.world = World(scenario=Scenario.parse(json.dumps({"faults": night.faults})))
        self.rows, self.sent, budgets = {}, [], dict.fromkeys(KEYS, MAX_OUTPUT_TOKENS)
        for number in range(3):
            self.sent.append(frozenset(budgets))
            self.read(number, budgets)
            again = [key for key in budgets if key not in self.rows or self.rows[key].repairable]
            budgets = {key: budgets[key] * (2 if self.is_truncated(key) else 1) for key in again}

    def read(self, number, budgets):
        """Run one job and note what its lines say."""
        config = {"responseMimeType": "application/json", "responseSchema": SCHEMA}
        lines = [
            a_line(key, f"Is {key} angry?", generationConfig=config | {"maxOutputTokens": budget})
            for key, budget in budgets.items()
        ]
        job = self.world.run(*lines, labels={"avb-round": str(number)})
        for line in self.world.output(job):
            # The contents say whose line it is, whatever became of its key.
            key = line["request"]["contents"][0]["parts"][0]["text"].split()[1]
            self.rows[key] = classify(read_output(json.dumps(line).encode(), "", 1), key, check=misfit)

    def is_truncated(self, key):
        return key in self.rows and self.rows[key].status == "truncated"


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
        bad |= {key: ("missing", "JOB_STATE_SUCCEEDED") for key in KEYS if key not in rounds.rows}
        assert bad == night.dead

    def test_is_billed_row_by_row(self, night, rounds):
        """The books name every row that was sent, once in each job, and only those."""
        jobs = rounds.world.emulator.books(rows=True)["jobs"]
        for number, job in enumerate(jobs):
            assert Counter(bill["key"] for bill in job["bills"]) == dict.fromkeys(night.sent(number), 1)
            for name in ("prompt", "output", "thinking", "cached", "tool"):
                assert sum(bill[name] for bill in job["bills"]) == job["tokens"][name]
