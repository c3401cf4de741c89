"""How soon is a job asked about again: tables of ages and usual times in, seconds out."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.waiting.cadence import (
    QUICKEST_SECONDS,
    SLOWEST_SECONDS,
    Durations,
    after_error,
    interval,
    pause_seconds,
)
from tests.builders import NIGHT, a_job
from tests.each_case import each_case

NOW = NIGHT.timestamp()


def waiting(seconds):
    """Return a job that has been in the queue for so long."""
    return a_job(JobState.PENDING, created_at=NIGHT - timedelta(seconds=seconds), started_at=None)


def running(seconds, **members):
    """Return a job that has been running for so long, after an hour in the queue."""
    began = NIGHT - timedelta(seconds=seconds)
    return a_job(JobState.RUNNING, created_at=began - timedelta(hours=1), started_at=began, **members)


def ended(seconds, **members):
    """Return a job that ran for so long."""
    times = {"started_at": NIGHT, "ended_at": NIGHT + timedelta(seconds=seconds)}
    return a_job(**{"state": JobState.SUCCEEDED, **times, **members})


class TestInterval:
    @pytest.mark.parametrize(
        ("job", "usual", "expected"),
        [
            (None, None, 15),
            (a_job(JobState.PENDING, created_at=None), None, 15),
            (waiting(0), None, 15),
            (waiting(90), None, 18),
            (waiting(600), None, 120),
            (waiting(72 * 3600), None, 300),
            (waiting(600), 30, 120),
            (waiting(-3600), None, 15),
            (running(0), None, 15),
            (running(120), None, 15),
            (running(600), None, 60),
            (running(24 * 3600), None, 300),
            (a_job(JobState.CANCELLING, created_at=NIGHT - timedelta(seconds=600), started_at=None), None, 120),
            (running(3000), 3600, 300),
            (running(3400), 3600, 100),
            (running(3590), 3600, 15),
            (running(3600), 3600, 15),
            (running(3700), 3600, 50),
            (running(9000), 3600, 300),
            (running(60), 3600, 15),
        ],
        ids=[
            "never seen", "no creation time", "just made", "90 s in the queue", "ten minutes in the queue",
            "three days in the queue", "the usual run says nothing of the queue", "a clock that runs late",
            "just begun", "a tiny job", "ten minutes", "a day", "not begun and no longer waiting",
            "usual end far away", "nearer", "close", "at it", "beyond it", "far beyond it", "usual end says no sooner",
        ],
    )  # fmt: skip
    def test_it_follows_the_job(self, job, usual, expected):
        assert interval(job, NOW, usual) == pytest.approx(expected)

    @each_case(
        itertools.product([0, 1, 100, 1_000, 3_599, 10_000, 350_000], [None, 10, 3600, 30_000], [0, 0.1, 0.5, 0.9, 1])
    )
    def test_it_keeps_its_bounds(self, seconds, usual, jitter):
        for job in (waiting(seconds), running(seconds)):
            assert QUICKEST_SECONDS <= interval(job, NOW, usual, jitter) <= SLOWEST_SECONDS

    def test_it_is_spread_by_a_tenth(self):
        assert [interval(waiting(500), NOW, jitter=jitter) for jitter in (0, 0.5, 1)] == pytest.approx([90, 100, 110])

    @pytest.mark.parametrize("usual", [300, 1_000, 3_600, 20_000])
    def test_an_end_at_the_usual_time_is_met_within_moments(self, usual):
        """Walk through a whole run with the worst luck."""
        ran, questions = 0.0, 0
        while ran < usual:
            ran += interval(running(ran), NOW, usual, jitter=1)
            questions += 1
        assert ran - usual <= QUICKEST_SECONDS
        assert questions < 40 + usual / 200


class TestErrors:
    @pytest.mark.parametrize(
        ("base", "in_a_row", "asked", "expected"),
        [
            (60, 0, 0, 60),
            (60, 1, 0, 120),
            (60, 3, 0, 300),
            (60, 5_000, 0, 300),
            (900, 1, 0, 900),
            (60, 1, 400, 400),
            (60, 1, 30, 120),
        ],
    )
    def test_an_error_slows_down(self, base, in_a_row, asked, expected):
        assert after_error(base, in_a_row, asked, jitter=0) == expected

    def test_those_who_were_told_to_wait_do_not_come_back_at_once_together(self):
        assert after_error(60, 1, 400, jitter=1) == pytest.approx(440)

    @pytest.mark.parametrize(
        ("status", "retry_after", "in_a_row", "expected"),
        [
            (503, None, 0, 0),
            (404, None, 0, 0),
            (503, 7.0, 0, 7),
            (429, 7.0, 3, 7),
            (429, None, 0, 15),
            (429, None, 2, 60),
            (429, None, 5_000, 300),
        ],
    )
    def test_a_refusal_silences_everybody(self, status, retry_after, in_a_row, expected):
        assert pause_seconds(ServiceError("no", status=status, retry_after=retry_after), in_a_row) == expected


class TestDurations:
    def test_nothing_is_known_of_a_new_kind(self):
        assert Durations().usual(running(10)) is None

    def test_it_is_the_median_of_the_last(self):
        known = Durations(each=3)
        for seconds in (9_999, 100, 120, 700):
            known.note(ended(seconds))
        assert known.usual(running(10)) == 120

    @pytest.mark.parametrize(
        "other",
        [{"model": "gemini-other"}, {"labels": {"airflow-dag": "other"}}, {"labels": {"airflow-task": "other"}}],
        ids=["model", "dag", "task"],
    )
    def test_other_jobs_say_nothing(self, other):
        known = Durations()
        known.note(ended(100, **other))
        assert known.usual(running(10)) is None

    @pytest.mark.parametrize(
        "members",
        [{"state": JobState.FAILED}, {"state": JobState.CANCELLED}, {"started_at": None}, {"ended_at": None}],
        ids=["failed", "cancelled", "never begun", "no end"],
    )
    def test_what_did_not_end_well_is_no_measure(self, members):
        known = Durations()
        known.note(ended(100, **members))
        assert known.usual(running(10)) is None

    def test_the_size_counts_where_it_is_known(self):
        known = Durations()
        known.note(ended(100, successful_count=1_100))
        known.note(ended(5_000, successful_count=190_000, failed_count=10))
        assert known.usual(running(10, successful_count=500, incomplete_count=600)) == 100
        assert known.usual(running(10, incomplete_count=180_000)) == 5_000
        assert known.usual(running(10)) == 2_550

    def test_a_size_never_met_falls_back_to_the_owner(self):
        known = Durations()
        known.note(ended(100, successful_count=1_000))
        assert known.usual(running(10, incomplete_count=5)) == 100

    def test_it_forgets_the_kind_that_was_used_longest_ago(self):
        known = Durations(kinds=2)
        for model in ("a", "b", "a", "c"):
            known.note(ended(100, model=model))
        assert [known.usual(running(10, model=model)) for model in "abc"] == [100, None, 100]
