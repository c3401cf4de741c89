"""How long a job may wait for its turn before somebody hears of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_vertex_batch.core.waiting.queue import Handled, QueuePolicy, seconds_left, warning_facts, warning_text
from tests.builders import JOB_NAME, NIGHT, JobState, a_job

NOW = NIGHT.timestamp()


def aged(hours: float, state: JobState = JobState.PENDING, name: str = JOB_NAME):
    """Return a job that was created so many hours ago."""
    return a_job(state, name=name, created_at=NIGHT - timedelta(hours=hours))


class TestLeft:
    """Only what waits for its turn has a limit, counted from its creation."""

    @pytest.mark.parametrize("state", JobState, ids=str)
    def test_in_each_state(self, state):
        queued = state in {JobState.QUEUED, JobState.PENDING}
        assert seconds_left(aged(1, state), 7_200, NOW) == (3_600 if queued else float("inf"))

    @pytest.mark.parametrize(
        ("job", "limit"),
        [(None, 7_200), (aged(1), None), (a_job(JobState.PENDING, created_at=None), 7_200)],
        ids=["never seen", "no limit", "no creation time"],
    )
    def test_what_is_not_known_is_no_reason_to_interrupt(self, job, limit):
        assert seconds_left(job, limit, NOW) == float("inf")

    def test_beyond_the_limit_it_is_below_zero(self):
        assert seconds_left(aged(3), 7_200, NOW) == -3_600


class TestPolicy:
    @pytest.mark.parametrize(
        ("job", "handled", "limit", "is_overdue", "is_late"),
        [
            (aged(23), Handled(), 86_400, False, False),
            (aged(24), Handled(), 86_400, True, False),
            (aged(24, JobState.QUEUED), Handled(), 86_400, True, False),
            (aged(24), Handled(warned=(JOB_NAME,)), 129_600, False, False),
            (aged(36), Handled(), 86_400, True, True),
            (aged(36), Handled(warned=(JOB_NAME,)), 129_600, False, True),
            (aged(36), Handled(warned=(JOB_NAME,), stuck=(JOB_NAME,)), None, False, False),
            (aged(36), Handled(warned=(JOB_NAME,), moved=(JOB_NAME,)), None, False, False),
            (aged(36), Handled(moved=(JOB_NAME,)), 86_400, True, False),
            (aged(36, JobState.RUNNING), Handled(), 86_400, False, False),
            (aged(36, JobState.CANCELLING), Handled(), 86_400, False, False),
            (aged(36, JobState.SUCCEEDED), Handled(), None, False, False),
        ],
        ids=[
            *("in time", "due", "due, the other state", "warned", "late at once", "late", "stuck", "moved"),
            *("moved, not warned", "runs", "is cancelled", "ended"),
        ],
    )
    def test_each_job_has_the_limit_that_comes_next(self, job, handled, limit, is_overdue, is_late):
        policy = QueuePolicy(warning=86_400, timeout=36 * 3600)
        assert policy.limits([job], handled) == ({} if limit is None else {JOB_NAME: limit})
        assert policy.overdue([job], handled, NOW) == ([job] if is_overdue else [])
        assert policy.late([job], handled, NOW) == ([job] if is_late else [])

    def test_what_comes_first_comes_first(self):
        assert QueuePolicy(warning=86_400, timeout=3_600).limits([aged(0)], Handled()) == {JOB_NAME: 3_600}

    def test_none_is_never(self):
        policy, job = QueuePolicy(), aged(80)
        found = (
            policy.limits([job], Handled()),
            policy.overdue([job], Handled(), NOW),
            policy.late([job], Handled(), NOW),
        )
        assert found == ({}, [], [])


class TestWords:
    def test_a_warning_says_how_long_and_what_is_normal_and_what_to_do(self):
        assert warning_text(aged(30.5), NOW).startswith(
            f"{JOB_NAME} has been queued for 30.5 hours (PENDING). Up to 72 hours are normal; then"
        )

    def test_the_ui_gets_the_oldest(self):
        facts = warning_facts([aged(25, name="jobs/2"), aged(30, name="jobs/1")], NOW)
        assert facts == {"jobs": ["jobs/2", "jobs/1"], "since": "2026-11-20T20:00:00+00:00", "hours": 30.0}
