"""The fault table: each fault of the infrastructure at each call of a batch, to files and to a table.

`make faults` tries all of them and writes `docs/faults.md`; `make faults F="404 once"` tries one kind (or several, with
commas between) and writes its lines. Without it a part is tried, chosen by a seed, and the page must say what was
measured.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from stack.chaos import document
from stack.faults.calls import BIGQUERY, STORAGE
from stack.faults.kinds import KINDS
from stack.faults.suite import HEADERS, Night, cases, is_a_look, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
#: ``all``, or names of kinds.
ASKED = os.environ.get("FAULTS", "")
MEASURED = {*KINDS} if ASKED == "all" else {kind for kind in ASKED.split(",") if kind}
#: So many are tried for every change: to files, and to a table, which takes longer.
SAMPLES = {False: 24, True: 4}
SEED = 10
NOT_WELL = ("fault", "call", "attempts", "what is not well")


@pytest.fixture(scope="module")
def night(storage_url, request):
    """The processes, with BigQuery where it is installed."""
    urls = {STORAGE: storage_url, BIGQUERY: request.getfixturevalue("bigquery_url")}
    with Night(urls) as night:
        yield night


@pytest.fixture(scope="module")
def quiet(night):
    """A run to each destination in which nothing fails."""
    return night.quiet()


@pytest.fixture(scope="module")
def results(night, quiet):
    """Everything that happened."""
    every = cases(quiet)
    if MEASURED:
        return night.run(quiet, [(case, call) for case, call in every if case.kind in MEASURED])
    choice = random.Random(SEED)
    chosen = [
        one
        for to_table, count in SAMPLES.items()
        for one in choice.sample([(case, call) for case, call in every if case.to_table == to_table], count)
    ]
    return night.run(quiet, chosen)


def all_but(results, holds):
    """The results for which something does not hold."""
    return [str(result) for result in results if not holds(result)]


def was_not_needed(result):
    """Whether a look at a job was not needed this time."""
    return is_a_look(result.position) and not result.outcome.struck and result.outcome.attempts == ("success",)


class TestAQuietRun:
    def test_ends_well_in_one_attempt(self, quiet):
        for outcome in quiet.values():
            assert (outcome.attempts, outcome.wrong, outcome.errors) == (("success",), (), ())

    def test_each_step_calls_each_service(self, quiet):
        steps = {(call.title.partition(":")[0], call.service) for run in quiet.values() for call in run.positions}
        assert steps >= {("prepare", STORAGE), ("create", "Vertex AI"), ("repair", "Vertex AI"), ("export", BIGQUERY)}


class TestEveryCase:
    def test_the_fault_happened_where_it_was_to_happen(self, results):
        met = [result for result in results if result.outcome.struck == result.case.at]
        assert all_but(results, lambda result: result in met or was_not_needed(result)) == []
        assert {result.case.kind for result in met} >= MEASURED

    def test_nothing_is_lost_doubled_bought_twice_or_left_hanging(self, results):
        assert all_but(results, lambda result: result.ended != "not well") == []


class TestThePage:
    def test_says_what_was_measured(self, results):
        """`make faults` writes it, with all that is left out here."""
        measured = table(results)
        if os.environ.get("FAULTS_DOC"):
            document.write(PAGE, "faults", HEADERS, in_order([*of_others("faults"), *measured]))
            others = of_others("not-well")
            document.write(PAGE, "not-well", NOT_WELL, in_order([*others, *not_well(results)]))
        page = {tuple(row[:2]): row for row in document.read(PAGE, "faults")}
        if MEASURED:
            assert [row for row in page.values() if row[0] in MEASURED] == measured
        else:
            assert all_but(results, lambda result: result.line in page) == []
            assert all_but(results, lambda result: page[result.line][HEADERS.index(result.ended)] != "-") == []


def of_others(name):
    """The lines of a table about kinds that were not measured now."""
    return [row for row in document.read(PAGE, name) if row[0] in KINDS and row[0] not in MEASURED]


def in_order(rows):
    """Rows in the order of the kinds."""
    return sorted(rows, key=lambda row: [*KINDS].index(row[0]))


def not_well(results):
    """The positions that do not end well."""
    bad = [result for result in results if result.ended == "not well"]
    return [
        [
            result.case.kind,
            f"{result.case.at}{' (to a table)' if result.case.to_table else ''}",
            ", ".join(result.outcome.attempts),
            "; ".join(result.outcome.wrong),
        ]
        for result in bad
    ]
