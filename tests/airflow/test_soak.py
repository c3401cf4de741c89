"""Two minutes of the soak that `python -m bench soak` runs for an hour."""

from __future__ import annotations

import pytest

from bench.soak.load import JOBS, JOBS_A_MINUTE, ROWS_OF_A_JOB, Soak
from bench.soak.verdict import judge

SECONDS = 120.0


@pytest.fixture(scope="module")
def soak(stack):
    """Two minutes in which the triggerer dies, and the scheduler a little later."""
    soak = Soak(stack, SECONDS, kill_triggerer=(30.0,), kill_scheduler=(55.0,))
    soak.run()
    return soak


@pytest.fixture(scope="module")
def verdict(soak):
    return judge(soak)


class TestTwoMinutes:
    """Fifty jobs a minute, faults in five of a hundred calls, jobs and rows."""

    def test_the_load_was_what_it_says(self, soak, verdict):
        runs = int(SECONDS / 60 * JOBS_A_MINUTE / JOBS)
        assert len(soak.begun) == runs
        assert verdict.jobs["bought"] >= runs * JOBS
        assert verdict.rows["wanted"] == runs * JOBS * ROWS_OF_A_JOB
        assert soak.killed == {"triggerer": 1, "scheduler": 1}

    @pytest.mark.parametrize("kinds", [("create", "list", "get"), ("job",), ("row",)], ids=["calls", "jobs", "rows"])
    def test_faults_of_calls_jobs_and_rows_were_met(self, soak, kinds):
        assert [name for name in soak.random_faults.met if name.startswith(kinds)]

    def test_nothing_is_lost_repeated_paid_twice_or_left_running(self, verdict):
        assert verdict.problems == []

    def test_every_row_has_landed_once(self, verdict):
        assert verdict.rows["once"] == verdict.rows["wanted"] == verdict.rows["answered"] + verdict.rows["dead letters"]
