"""Several jobs, of which some ended without a row: what was paid for the others must not wait for a person."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.domain.errors import JobError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.waiting.watch import Ended, TimedOut, conclude
from tests.builders import JOB_NAME, a_job

PAID = a_job(JobState.CANCELLED, name=f"{JOB_NAME}0", successful_count=3)
DONE = a_job(JobState.SUCCEEDED, name=f"{JOB_NAME}0")


def without_rows(state):
    return a_job(state, name=f"{JOB_NAME}1", successful_count=0, output_uri="")


@pytest.mark.parametrize("paid", [PAID, DONE], ids=["cancelled after rows", "succeeded"])
class TestBesideAJobWithRows:
    @pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.EXPIRED], ids=str)
    def test_one_that_never_got_its_turn_is_passed_on(self, paid, state):
        other = without_rows(state)
        assert conclude([Ended(other), Ended(paid)], lands_part=True) == [other, paid]

    def test_but_not_one_that_failed_whose_input_somebody_must_correct(self, paid):
        with pytest.raises(JobError, match=r"ended as JOB_STATE_FAILED.* It answered no row"):
            conclude([Ended(paid), Ended(without_rows(JobState.FAILED))], lands_part=True)

    def test_nor_while_one_of_them_is_late(self, paid):
        with pytest.raises(JobError, match="was not done at its deadline"):
            conclude([Ended(paid), TimedOut(f"{JOB_NAME}1", None, cancelled=True)], lands_part=True)

    def test_nor_where_nobody_lands_a_part(self, paid):
        with pytest.raises(JobError, match=r"ended as JOB_STATE_CANCELLED.* It answered no row"):
            conclude([Ended(paid), Ended(without_rows(JobState.CANCELLED))])


def test_jobs_of_which_none_has_rows_are_an_error():
    jobs = [without_rows(JobState.CANCELLED), without_rows(JobState.EXPIRED)]
    with pytest.raises(JobError, match=r"ended as JOB_STATE_CANCELLED.* It answered no row"):
        conclude([Ended(job) for job in jobs], lands_part=True)
