"""In each state, before and at the deadline: what is asked, how long is slept, and how it ends."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from airflow_vertex_batch.core.domain.job import BatchJob, JobState
from airflow_vertex_batch.core.waiting.drive import drive_once
from airflow_vertex_batch.core.waiting.watch import (
    CANCELLING_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    Ended,
    OnTimeout,
    WaitPolicy,
    watch,
)
from tests.builders import NIGHT, a_job, a_job_doc
from tests.core.waits import (
    CANCEL,
    CANCELLED,
    CANCELLING,
    DONE,
    KEEP,
    MINUTE,
    NAME,
    POLL,
    RUNNING,
    UNAVAILABLE,
    WARN,
    Service,
    drive_one,
    timed_out,
)
from tests.each_case import each_case
from tests.fakes import Clock

TELEPORTED = BatchJob.from_api(a_job_doc(state="JOB_STATE_TELEPORTED", createTime=NIGHT.isoformat()))
#: The states in which a job is cancelled at its deadline; PAUSED and what is not known among them.
CANCELS = {state for state in JobState if not state.is_final} - {JobState.CANCELLING}


def _at_the_deadline(job: BatchJob, policy: OnTimeout) -> tuple[list[Any], Any]:
    if job.state.is_final:
        return [POLL], Ended(job)
    if job.state is JobState.CANCELLING:
        return [POLL, WARN, CANCELLING_SECONDS, POLL], timed_out(job, cancelled=True)
    kept = [POLL, WARN, DEFAULT_TIMEOUT_SECONDS - 3_600, POLL]
    return {
        OnTimeout.CANCEL: ([POLL, CANCEL], timed_out(job, cancelled=True)),
        OnTimeout.FAIL: ([POLL], timed_out(job, cancelled=False)),
        OnTimeout.KEEP: (kept, timed_out(job, cancelled=False)),
    }[policy]


class TestStates:
    @pytest.mark.parametrize("state", JobState, ids=str)
    def test_each_state_waits_or_ends(self, state):
        clock = Clock()
        service = Service([a_job(state)], clock)
        outcome = drive_once(watch(NAME, MINUTE, clock.seconds), service)
        assert outcome == (Ended(a_job(state)) if state.is_final else None)

    def test_a_state_that_does_not_exist_yet_waits(self):
        clock = Clock()
        service = Service([TELEPORTED, DONE], clock)
        assert drive_one(watch(NAME, MINUTE, clock.seconds), service, sleep=service.sleep) == Ended(DONE)

    @each_case(itertools.product([*map(a_job, JobState), TELEPORTED], OnTimeout))
    def test_in_each_state_at_the_deadline(self, job, policy):
        """What is asked and slept from the deadline on, and how it ends: no wait is for ever."""
        clock = Clock()
        clock.sleep(3_600)
        service = Service([job, *([True] if job.state in CANCELS and policy is OnTimeout.CANCEL else [job])], clock)
        flow = watch(NAME, WaitPolicy(poll_interval=10**9, timeout=3_600, on_timeout=policy), clock.seconds)
        outcome = drive_one(flow, service, sleep=service.sleep, warn=service.warn)
        assert (service.steps, outcome) == _at_the_deadline(job, policy)


class TestDeadline:
    def test_it_counts_from_creation_not_from_this_attempt(self):
        """The job was made 590 s before this attempt began to look; ten seconds are left."""
        clock = Clock()
        clock.sleep(590)
        service = Service([RUNNING, RUNNING, True], clock)
        drive_one(watch(NAME, MINUTE, clock.seconds), service, sleep=service.sleep)
        assert service.steps == [POLL, 10, POLL, CANCEL]

    def test_a_job_that_is_late_already_is_asked_once_before_it_is_cancelled(self):
        clock = Clock()
        clock.sleep(10_000)
        service = Service([DONE], clock)
        assert drive_one(watch(NAME, MINUTE, clock.seconds), service, sleep=service.sleep) == Ended(DONE)

    def test_an_attempt_that_begins_while_a_late_job_is_being_cancelled_sees_its_end(self):
        clock = Clock()
        clock.sleep(10_000)
        service = Service([CANCELLING, CANCELLED], clock)
        assert drive_one(watch(NAME, MINUTE, clock.seconds), service, sleep=service.sleep, warn=service.warn) == Ended(
            CANCELLED
        )

    @pytest.mark.parametrize(("waited", "ends"), [(1_700, False), (1_900, True)], ids=["not yet", "at last"])
    def test_and_gives_up_in_the_end_though_each_look_is_another_process(self, waited, ends):
        clock = Clock()
        clock.sleep(10_000)
        began = clock.seconds()
        clock.sleep(waited)
        flow = watch(NAME, MINUTE, clock.seconds, began=began)
        outcome = drive_once(flow, Service([CANCELLING], clock), warn=lambda _warning: None)
        assert outcome == (timed_out(CANCELLING, cancelled=True) if ends else None)

    def test_a_warning_says_how_old_it_is(self):
        clock, said = Clock(), []
        clock.sleep(1_000)
        drive_once(watch(NAME, KEEP, clock.seconds), Service([RUNNING], clock), warn=said.append)
        assert [(warning.ago, warning.text) for warning in said] == [
            (900, f"{NAME} was not done at its deadline (RUNNING); waiting for up to 96.7 h more")
        ]

    def test_without_a_creation_time_it_counts_from_now(self):
        clock = Clock()
        clock.sleep(10_000)
        odd = a_job(JobState.RUNNING, created_at=None)
        service = Service([odd, odd, True], clock)
        drive_one(watch(NAME, WaitPolicy(poll_interval=600, timeout=600), clock.seconds), service, sleep=service.sleep)
        assert service.steps == [POLL, 600, POLL, CANCEL]

    def test_by_default_it_covers_queue_and_run(self):
        assert WaitPolicy().timeout == DEFAULT_TIMEOUT_SECONDS > (72 + 24) * 3600

    def test_days_without_an_answer_end_at_the_deadline(self):
        """Over a thousand errors in a row: doubling must not overflow."""
        clock = Clock()
        service = Service([UNAVAILABLE] * 2_000, clock)
        outcome = drive_one(watch(NAME, WaitPolicy(), clock.seconds), service, sleep=service.sleep)
        assert outcome == timed_out(None, cancelled=False)
        assert sum(clock.slept) == pytest.approx(DEFAULT_TIMEOUT_SECONDS + 15)
