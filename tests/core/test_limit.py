"""When an attempt must stop waiting, whatever its jobs do: what is asked and slept, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_vertex_batch.core.domain.errors import JobError, OutOfTimeError
from airflow_vertex_batch.core.waiting.watch import (
    Ended,
    Limit,
    LimitName,
    OnTimeout,
    TimedOut,
    WaitPolicy,
    conclude,
    require_time_left,
    watch,
)
from tests.builders import JOB_NAME, NIGHT
from tests.core.waits import (
    CANCEL,
    CANCELLING,
    DONE,
    NAME,
    POLL,
    RUNNING,
    WARN,
    Service,
    drive_one,
    timed_out,
)
from tests.fakes import Clock


def limited(seconds, **policy):
    """Return the policy of an attempt that ends so many seconds after the job's creation."""
    limit = Limit(NIGHT.timestamp() + seconds, LimitName.EXECUTION_TIMEOUT)
    return WaitPolicy(poll_interval=60, limit=limit, **policy)


SCRIPTS: dict[str, tuple[WaitPolicy, list[Any], list[Any], Any]] = {
    "the attempt's limit comes before the job's deadline": (
        limited(80, timeout=1_000),
        [RUNNING, RUNNING, RUNNING, True],
        [POLL, 60, POLL, 20, POLL, CANCEL],
        timed_out(RUNNING, cancelled=True, limit=LimitName.EXECUTION_TIMEOUT),
    ),
    "or after it": (
        limited(80, timeout=50),
        [RUNNING, RUNNING, True],
        [POLL, 50, POLL, CANCEL],
        timed_out(RUNNING, cancelled=True),
    ),
    "at the attempt's limit a job that is to be kept is left": (
        limited(80, on_timeout=OnTimeout.KEEP),
        [RUNNING, RUNNING, RUNNING],
        [POLL, 60, POLL, 20, POLL],
        timed_out(RUNNING, cancelled=False, limit=LimitName.EXECUTION_TIMEOUT),
    ),
    "and so is one that is never cancelled": (
        limited(80, on_timeout=OnTimeout.FAIL),
        [RUNNING, RUNNING, RUNNING],
        [POLL, 60, POLL, 20, POLL],
        timed_out(RUNNING, cancelled=False, limit=LimitName.EXECUTION_TIMEOUT),
    ),
    "nor is a job that is being cancelled waited for beyond it": (
        limited(80, timeout=10),
        [CANCELLING, CANCELLING, CANCELLING],
        [POLL, 60, POLL, WARN, 20, POLL],
        timed_out(CANCELLING, cancelled=True, limit=LimitName.EXECUTION_TIMEOUT),
    ),
    "a job that ended just before the attempt's limit has ended": (
        limited(0),
        [DONE],
        [POLL],
        Ended(DONE),
    ),
}


@pytest.mark.parametrize(("policy", "answers", "steps", "outcome"), SCRIPTS.values(), ids=SCRIPTS)
def test_the_wait_of_an_attempt_with_a_limit(policy, answers, steps, outcome):
    clock = Clock()
    service = Service(answers, clock)
    flow = watch(NAME, policy, clock.seconds, jitter=lambda: 0.0)
    assert drive_one(flow, service, sleep=service.sleep, warn=service.warn) == outcome
    assert (service.steps, service.is_used_up) == (steps, True)


def test_the_next_attempt_waits_for_the_same_job_up_to_a_limit_of_its_own():
    """A retry attaches; that an earlier attempt ran out of time says nothing about it."""
    clock = Clock()
    first = Service([RUNNING, RUNNING, RUNNING], clock)
    policy = limited(80, on_timeout=OnTimeout.FAIL)
    assert isinstance(drive_one(watch(NAME, policy, clock.seconds), first, sleep=first.sleep), TimedOut)
    second = Service([RUNNING, RUNNING, DONE], clock)
    policy = limited(200, on_timeout=OnTimeout.FAIL)
    assert drive_one(watch(NAME, policy, clock.seconds), second, sleep=second.sleep) == Ended(DONE)


class TestConclude:
    @pytest.mark.parametrize(
        ("outcome", "message", "retryable"),
        [
            (
                TimedOut(JOB_NAME, RUNNING, cancelled=False, limit=LimitName.EXECUTION_TIMEOUT),
                "not done when the task's execution_timeout was over.*may still run, and bill.*next attempt",
                True,
            ),
            (
                TimedOut(JOB_NAME, RUNNING, cancelled=True, limit=LimitName.SENSOR_TIMEOUT),
                "not done when the sensor's timeout was over.*being cancelled.*Clear this task",
                False,
            ),
        ],
        ids=["execution_timeout", "timeout of a sensor"],
    )
    def test_a_message_says_which_parameter_ended_the_wait(self, outcome, message, retryable):
        with pytest.raises(JobError, match=message) as caught:
            conclude([outcome])
        assert caught.value.retryable is retryable

    def test_every_job_that_may_run_on_is_named(self):
        late = [TimedOut(f"{JOB_NAME}{number}", RUNNING, cancelled=number == 1) for number in range(4)]
        with pytest.raises(JobError, match=rf"These may still run, and bill, too: {JOB_NAME}2, {JOB_NAME}3\. "):
            conclude(late)


class TestBuying:
    """What the first look would give up is not bought."""

    LIMIT = Limit(NIGHT.timestamp() + 80, LimitName.EXECUTION_TIMEOUT)

    def test_it_is_refused_from_the_moment_of_the_limit_on(self):
        words = (
            r"The task's execution_timeout was over before a job was bought\. It counts from 2026.* and is 80 seconds\."
            r" Nothing was paid for that job.*with a longer execution_timeout\.$"
        )
        with pytest.raises(OutOfTimeError, match=words) as caught:
            require_time_left(self.LIMIT, NIGHT.timestamp(), self.LIMIT.at)
        assert caught.value.retryable

    @pytest.mark.parametrize("limit", [LIMIT, None], ids=["before the limit", "without one"])
    def test_else_it_passes(self, limit):
        require_time_left(limit, NIGHT.timestamp(), self.LIMIT.at - 1)
