"""What a job that was left behind costs, and how findings add up."""

from __future__ import annotations

import json

import pytest

from airflow_vertex_batch.core.upkeep.sweep_report import Finding, Money, SweepReport, money_of
from tests.core.sweeping import INPUT, World
from tests.fakes import MemoryWarehouse


@pytest.fixture
def world():
    return World()


class TestMoney:
    def test_a_job_that_has_not_begun_has_an_estimate_and_nothing_known_spent(self, world):
        job = world.buy().job
        money = money_of(job, world.store, MemoryWarehouse())
        assert (money.answered_count, money.spent_usd, money.spent) == (-1, None, "unknown")
        assert 0 < float(money.expected_usd) < float(money.at_most_usd)

    def test_a_job_that_ended_is_priced_by_its_output(self, world):
        job = world.buy().job
        world.end(job.name, rows=2)
        money = money_of(world.jobs.get(job.job_name), world.store, MemoryWarehouse())
        # Two rows of 10 prompt tokens at $0.15 and 5 output tokens at $1.25 a million.
        assert money == Money(answered_count=2, spent_usd="0.000016", is_spent_complete=True)

    def test_a_count_above_what_can_be_read_is_a_lower_bound(self, world):
        job = world.buy().job
        world.end(job.name, rows=2)
        world.jobs.change(job.name, completionStats={"successfulCount": "3"})
        money = money_of(world.jobs.get(job.job_name), world.store, MemoryWarehouse())
        assert (money.answered_count, money.spent) == (3, "at least $0.000016")

    @pytest.mark.parametrize("gone", [INPUT, "gs://b/out/1/predictions.jsonl"])
    def test_what_cannot_be_read_is_unknown_and_never_zero(self, world, gone):
        job = world.buy().job
        world.end(job.name)
        del world.store.objects[gone]
        money = money_of(world.jobs.get(job.job_name), world.store, MemoryWarehouse())
        assert (money.answered_count, money.spent_usd) == (3, None)

    def test_a_model_without_a_price_is_unknown(self, world):
        job = world.buy().job
        world.jobs.change(job.name, model="publishers/google/models/gemini-99-moon")
        money = money_of(world.jobs.get(job.job_name), world.store, MemoryWarehouse())
        assert (money.expected_usd, money.spent_usd) == (None, None)


def _finding(number=1, action="cancel", **members):
    name = f"projects/1/locations/global/batchPredictionJobs/{number}"
    return Finding(**{"job_name": name, "state": "JOB_STATE_RUNNING", "action": action, "why": "w"} | members)


class TestSwept:
    @pytest.mark.parametrize(
        ("findings", "status"),
        [
            ([], 0),
            ([_finding(action="keep")], 0),
            ([_finding()], 1),
            ([_finding(), _finding(action="", error="e")], 2),
        ],
        ids=["none", "kept", "left behind", "an error"],
    )
    def test_status(self, findings, status):
        assert SweepReport.of(findings, is_dry_run=True).status == status

    def test_costs_add_up_and_unknown_ones_are_counted(self):
        known, part = Money(spent_usd="0.25", is_spent_complete=True), Money(spent_usd="1")
        swept = SweepReport.of([_finding(money=known), _finding(money=part), _finding()], is_dry_run=True)
        assert (swept.spent_usd, swept.unknown_spent_count) == ("1.250000", 2)
        assert "spent $1.25, 2 not or not fully known; a dry run, nothing was done" in swept.summary()

    def test_a_hundred_are_listed_and_the_others_counted(self):
        swept = SweepReport.of((_finding(number) for number in range(130)), is_dry_run=False)
        assert (len(swept.findings), swept.unlisted_count, swept.actions) == (100, 30, {"cancel": 130})
        assert len(json.dumps(swept.as_dict())) < 60_000
        assert SweepReport.from_dict(swept.as_dict()) == swept
        assert "and 30 more" in swept.text()

    def test_the_table_says_what_is_known(self):
        money = Money(answered_count=1200, spent_usd="0.5", expected_usd="2", at_most_usd="9")
        left = _finding(dag="d", task="t", age_hours=3.0, money=money, done="cancelled")
        text = SweepReport.of([left, _finding(2), _finding(3, "keep", why="owned")], is_dry_run=False).text()
        for part in ("global/1", "d.t", "RUNNING", "1,200", "at least $0.50", "$2.00, at most $9.00", "cancelled"):
            assert part in text
        assert text.count("unknown") == 3
        assert "kept 1: owned" in text
        assert "3 jobs looked at, 2 left behind: 2 to cancel" in text

    def test_a_name_that_no_job_carries_is_no_clean_sweep(self):
        found = [_finding(n, "keep", buyer=name, is_running=n < 3) for n, name in enumerate(["a", "b", "b", "b", ""])]
        swept = SweepReport.of(found, is_dry_run=True, installation="B", asked="it")
        assert (swept.status, swept.others_running_count, swept.buyers) == (3, 3, {"a": 1, "b": 3})
        assert swept.text().startswith("No job here was bought by B; the names are a, b.")
        assert "none left behind; 3 that run were bought by other installations and not judged" in swept.text()
        right = SweepReport.of(found, is_dry_run=True, installation="b", asked="it")
        assert (right.status, right.others_running_count, right.headline) == (0, 1, "Asked it what became of runs")

    @pytest.mark.parametrize("installation", ["", "mine"], ids=["no name was given", "no job says its name"])
    def test_where_there_is_nothing_to_compare_a_name_is_not_unknown(self, installation):
        found = [_finding(action="keep", buyer="" if installation else "theirs")]
        assert SweepReport.of(found, is_dry_run=True, installation=installation).status == 0
