"""Waiting, decided once: answers in, steps and outcome out. The same scripts run through all three drivers."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from airflow_vertex_batch.core.domain.errors import JobError
from airflow_vertex_batch.core.domain.job import BatchJob, JobState, Phase
from airflow_vertex_batch.core.waiting.drive import adrive, drive, drive_once
from airflow_vertex_batch.core.waiting.watch import (
    Cancel,
    Ended,
    GaveUp,
    LimitName,
    OnTimeout,
    Poll,
    Queued,
    Sleep,
    TimedOut,
    WaitPolicy,
    Warn,
    conclude,
    pack,
    unpack,
    watch,
)
from tests.builders import JOB_NAME, NIGHT, a_job
from tests.core.waits import (
    BUSY,
    CANCEL,
    CANCELLED,
    CANCELLING,
    DONE,
    FORBIDDEN,
    KEEP,
    MINUTE,
    NAME,
    PENDING,
    POLL,
    RUNNING,
    UNAVAILABLE,
    WARN,
    AsyncService,
    Service,
    drive_one,
    timed_out,
)
from tests.each_case import each_case
from tests.fakes import Clock

#: What is asked of the service and how long is slept, given its answers, and how it ends.
SCRIPTS: dict[str, tuple[WaitPolicy, list[Any], list[Any], Any]] = {
    "already ended: no sleep": (MINUTE, [DONE], [POLL], Ended(DONE)),
    "pending, running, done": (MINUTE, [PENDING, RUNNING, DONE], [POLL, 60, POLL, 60, POLL], Ended(DONE)),
    "first question later": (
        WaitPolicy(poll_interval=60, first_poll_after=20),
        [DONE],
        [20, POLL],
        Ended(DONE),
    ),
    "transient errors back off, an answer resets": (
        MINUTE,
        [UNAVAILABLE, UNAVAILABLE, RUNNING, UNAVAILABLE, DONE],
        [POLL, 120, POLL, 240, POLL, 60, POLL, 120, POLL],
        Ended(DONE),
    ),
    "backing off ends at five minutes": (
        WaitPolicy(poll_interval=60, timeout=10_000),
        [UNAVAILABLE] * 5 + [DONE],
        [POLL, 120, POLL, 240, POLL, 300, POLL, 300, POLL, 300, POLL],
        Ended(DONE),
    ),
    "a slow poller does not become quicker by errors": (
        WaitPolicy(poll_interval=900, timeout=10_000),
        [UNAVAILABLE, DONE],
        [POLL, 900, POLL],
        Ended(DONE),
    ),
    "the service's own wish is honoured": (
        WaitPolicy(poll_interval=60, timeout=10_000),
        [BUSY, RUNNING, DONE],
        [POLL, 400, POLL, 60, POLL],
        Ended(DONE),
    ),
    "its wish never outlasts the deadline": (
        MINUTE,
        [BUSY, BUSY, RUNNING, True],
        [POLL, 400, POLL, 200, POLL, CANCEL],
        timed_out(RUNNING, cancelled=True),
    ),
    "three hard errors in a row give up": (
        MINUTE,
        [RUNNING, FORBIDDEN, FORBIDDEN, FORBIDDEN],
        [POLL, 60, POLL, 60, POLL, 60, POLL],
        GaveUp(JOB_NAME, 403, str(FORBIDDEN)),
    ),
    "two hard errors, then an answer: rights take moments to spread": (
        MINUTE,
        [FORBIDDEN, FORBIDDEN, RUNNING, FORBIDDEN, FORBIDDEN, DONE],
        [POLL, 60, POLL, 60, POLL, 60, POLL, 60, POLL, 60, POLL],
        Ended(DONE),
    ),
    "the deadline cancels": (
        WaitPolicy(poll_interval=60, timeout=100),
        [RUNNING, RUNNING, RUNNING, True],
        [POLL, 60, POLL, 40, POLL, CANCEL],
        timed_out(RUNNING, cancelled=True),
    ),
    "or leaves it running": (
        WaitPolicy(poll_interval=60, timeout=100, on_timeout=OnTimeout.FAIL),
        [RUNNING, RUNNING, RUNNING],
        [POLL, 60, POLL, 40, POLL],
        timed_out(RUNNING, cancelled=False),
    ),
    "a cancel that finds an ended job ends well": (
        WaitPolicy(poll_interval=60, timeout=50),
        [RUNNING, RUNNING, False, DONE],
        [POLL, 50, POLL, CANCEL, POLL],
        Ended(DONE),
    ),
    "a cancel that finds nothing, and the job still runs": (
        WaitPolicy(poll_interval=60, timeout=50),
        [RUNNING, RUNNING, False, RUNNING],
        [POLL, 50, POLL, CANCEL, POLL],
        timed_out(RUNNING, cancelled=False),
    ),
    "a cancel that is refused is no cancel": (
        WaitPolicy(poll_interval=60, timeout=50),
        [RUNNING, RUNNING, FORBIDDEN],
        [POLL, 50, POLL, CANCEL],
        timed_out(RUNNING, cancelled=False),
    ),
    "a cancel is sent again after what may pass": (
        WaitPolicy(poll_interval=60, timeout=50),
        [RUNNING, RUNNING, UNAVAILABLE, UNAVAILABLE, True],
        [POLL, 50, POLL, CANCEL, 1, CANCEL, 2, CANCEL],
        timed_out(RUNNING, cancelled=True),
    ),
    "but not for ever, whatever silence the service wishes": (
        WaitPolicy(poll_interval=60, timeout=50),
        [RUNNING, RUNNING, *[UNAVAILABLE] * 3, BUSY, UNAVAILABLE],
        [POLL, 50, POLL, CANCEL, 1, CANCEL, 2, CANCEL, 4, CANCEL, 8, CANCEL],
        timed_out(RUNNING, cancelled=False),
    ),
    "a cancel that finds nothing, and no answer after it": (
        WaitPolicy(poll_interval=60, timeout=50),
        [RUNNING, RUNNING, False, UNAVAILABLE],
        [POLL, 50, POLL, CANCEL, POLL],
        timed_out(RUNNING, cancelled=False),
    ),
    "never seen until the deadline": (
        WaitPolicy(poll_interval=60, timeout=100),
        [UNAVAILABLE, UNAVAILABLE, True],
        [POLL, 100, POLL, CANCEL],
        timed_out(None, cancelled=True),
    ),
    "a cancel that finds a job being cancelled already": (
        WaitPolicy(poll_interval=60, timeout=50),
        [RUNNING, RUNNING, False, CANCELLING],
        [POLL, 50, POLL, CANCEL, POLL],
        timed_out(CANCELLING, cancelled=True),
    ),
    "a job that is being cancelled at its deadline is waited for": (
        WaitPolicy(poll_interval=900, timeout=100),
        [RUNNING, CANCELLING, CANCELLING, CANCELLED],
        [POLL, 100, POLL, WARN, 900, POLL, 900, POLL],
        Ended(CANCELLED),
    ),
    "but not for ever": (
        WaitPolicy(poll_interval=900, timeout=100),
        [CANCELLING] * 4,
        [POLL, 900, POLL, WARN, 900, POLL, 100, POLL],
        timed_out(CANCELLING, cancelled=True),
    ),
    "kept beyond its deadline until it ends": (
        KEEP,
        [RUNNING, RUNNING, DONE],
        [POLL, 300_000, POLL, WARN, 49_200, POLL],
        Ended(DONE),
    ),
    "kept no longer than the service itself would": (
        msgspec.structs.replace(KEEP, poll_interval=200_000),
        [RUNNING] * 3,
        [POLL, 200_000, POLL, WARN, 149_200, POLL],
        timed_out(RUNNING, cancelled=False),
    ),
    "one warning is enough": (
        msgspec.structs.replace(KEEP, poll_interval=100_000),
        [RUNNING, RUNNING, RUNNING, DONE],
        [POLL, 100_000, POLL, WARN, 100_000, POLL, 100_000, POLL],
        Ended(DONE),
    ),
    "a longer deadline than the service's is kept to": (
        msgspec.structs.replace(KEEP, timeout=400_000),
        [RUNNING, RUNNING, RUNNING],
        [POLL, 300_000, POLL, 100_000, POLL],
        timed_out(RUNNING, cancelled=False),
    ),
    "a job that queues for too long interrupts": (
        WaitPolicy(poll_interval=60, queue_limit=100),
        [PENDING, PENDING, PENDING],
        [POLL, 60, POLL, 40, POLL],
        Queued(PENDING),
    ),
    "one that has begun does not": (
        WaitPolicy(poll_interval=60, queue_limit=100),
        [PENDING, RUNNING, RUNNING, DONE],
        [POLL, 60, POLL, 60, POLL, 60, POLL],
        Ended(DONE),
    ),
    "the deadline comes first": (
        WaitPolicy(poll_interval=60, timeout=50, queue_limit=50),
        [PENDING, PENDING, True],
        [POLL, 50, POLL, CANCEL],
        timed_out(PENDING, cancelled=True),
    ),
    "an error says nothing about the queue": (
        WaitPolicy(poll_interval=60, queue_limit=100),
        [UNAVAILABLE, UNAVAILABLE, RUNNING, DONE],
        [POLL, 120, POLL, 240, POLL, 60, POLL],
        Ended(DONE),
    ),
    "done in the last moment is done": (
        WaitPolicy(poll_interval=60, timeout=50),
        [RUNNING, DONE],
        [POLL, 50, POLL],
        Ended(DONE),
    ),
}


def steady(policy, clock):
    """Watch without luck."""
    return watch(NAME, policy, clock.seconds, jitter=lambda: 0.0)


class TestScripts:
    @each_case(SCRIPTS)
    def test_the_generator_alone(self, policy, answers, steps, outcome):
        clock, answers, seen = Clock(), list(answers), []
        flow, reply = steady(policy, clock), None
        try:
            while True:
                step = flow.throw(reply) if isinstance(reply, Exception) else flow.send(reply)
                if isinstance(step, Sleep):
                    clock.sleep(step.seconds)
                    seen.append(step.seconds)
                    reply = None
                elif isinstance(step, Warn):
                    seen.append(WARN)
                    reply = None
                else:
                    assert step in {Poll(NAME), Cancel(NAME)}
                    seen.append(POLL if isinstance(step, Poll) else CANCEL)
                    reply = answers.pop(0)
        except StopIteration as done:
            ended = done.value
        assert (ended, seen, answers) == (outcome, steps, [])

    @each_case(SCRIPTS)
    def test_driven_blocking(self, policy, answers, steps, outcome):
        clock = Clock()
        service = Service(answers, clock)
        assert drive_one(steady(policy, clock), service, sleep=service.sleep, warn=service.warn) == outcome
        assert service.steps == steps
        assert service.is_used_up

    @each_case(SCRIPTS)
    def test_driven_on_an_event_loop(self, policy, answers, steps, outcome):
        clock = Clock()
        service = AsyncService(answers, clock)
        told = {"on_answer": service.seen, "warn": service.warn}
        assert asyncio.run(adrive(steady(policy, clock), service, sleep=service.sleep, **told)) == outcome
        assert service.steps == steps
        assert service.is_used_up

    @each_case(SCRIPTS)
    def test_driven_once_stops_at_the_first_sleep(self, policy, answers, steps, outcome):
        clock = Clock()
        service = Service(answers, clock)
        before_sleep = next((n for n, step in enumerate(steps) if not isinstance(step, str)), None)
        made = drive_once(steady(policy, clock), service)
        assert made == (outcome if before_sleep is None else None)
        assert service.steps == steps[:before_sleep]


class TestTheAdaptiveInterval:
    """What one wait looks like; `test_pace` has the decisions."""

    def waits(self, *answers, usual=None, jitter=0.5, policy=WaitPolicy(timeout=400_000)):  # noqa: B008 - frozen
        clock = Clock()
        service = Service(list(answers), clock)
        flow = watch(NAME, policy, clock.seconds, usual=lambda _job: usual, jitter=lambda: jitter)
        drive_one(flow, service, sleep=service.sleep)
        return clock.slept

    def test_it_is_what_one_gets_who_names_no_interval(self):
        assert WaitPolicy().poll_interval is None

    def test_a_tiny_job_is_met_soon_and_a_long_queue_is_asked_about_ever_more_slowly(self):
        slept = self.waits(*[PENDING] * 60, DONE)
        assert slept[:5] == [15, 15, 15, 15, 15]
        assert slept[-1] == 300
        assert slept == sorted(slept)

    def test_a_job_that_begins_to_run_is_asked_about_quickly_again(self):
        began = NIGHT + timedelta(hours=1)
        clock = Clock()
        waiting = iter([PENDING] * 33)
        service = Service([], clock)
        service.get = lambda _name: (
            next(waiting, None)
            or a_job(
                JobState.RUNNING if clock.now < began + timedelta(hours=2) else JobState.SUCCEEDED, started_at=clock.now
            )
        )
        flow = watch(NAME, WaitPolicy(timeout=400_000), clock.seconds, jitter=lambda: 0.5)
        drive_one(flow, service, sleep=service.sleep)
        assert clock.slept[32] == 300
        assert clock.slept[33] == 15

    def test_errors_double_it(self):
        assert self.waits(PENDING, UNAVAILABLE, UNAVAILABLE, DONE) == [15, 30, 60]

    def test_waits_begun_together_drift_apart(self):
        late, soon = (self.waits(*[PENDING] * 30, DONE, jitter=jitter) for jitter in (1.0, 0.0))
        assert sum(late) > sum(soon) * 1.1

    def test_it_never_outlasts_the_deadline(self):
        slept = self.waits(*[PENDING] * 40, True, policy=WaitPolicy(timeout=1_000))
        assert sum(slept) == pytest.approx(1_000)

    def test_no_luck_brings_a_question_forward_of_what_the_service_asked_for(self):
        assert min(self.waits(BUSY, DONE, jitter=jitter)[0] for jitter in (0, 0.3, 1)) == 400


class TestSideBySide:
    """Several jobs are waited for at once, in one worker."""

    def waits(self, *scripts, **policy):
        clock = Clock()
        services = [Service(script, clock) for script in scripts]
        flows = [(watch(NAME, msgspec.structs.replace(MINUTE, **policy), clock.seconds), each) for each in services]
        outcomes = drive(*flows, sleep=clock.sleep, clock=clock.seconds)
        return outcomes, clock.slept, [service.steps for service in services]

    def test_nobody_waits_for_the_other(self):
        outcomes, slept, steps = self.waits([RUNNING, RUNNING, DONE], [RUNNING, CANCELLED])
        assert outcomes == [Ended(DONE), Ended(CANCELLED)]
        assert (slept, steps) == ([60, 60], [[POLL] * 3, [POLL] * 2])

    def test_one_that_queues_for_too_long_interrupts_all(self):
        outcomes, slept, steps = self.waits([RUNNING] * 2, [DONE], [PENDING] * 2, queue_limit=60)
        assert outcomes == [Ended(DONE), Queued(PENDING)]
        assert (slept, steps) == ([60], [[POLL] * 2, [POLL], [POLL] * 2])

    def test_nothing_to_wait_for_is_over_at_once(self):
        assert drive() == []


def test_whoever_logs_progress_sees_every_answer():
    clock, seen = Clock(), []
    service = Service([PENDING, UNAVAILABLE, RUNNING, DONE], clock)
    drive_one(watch(NAME, MINUTE, clock.seconds), service, sleep=service.sleep, on_answer=seen.append)
    assert seen == [PENDING, RUNNING, DONE]


def test_an_error_that_is_not_the_service_s_ends_the_wait():
    class Broken(Service):
        def get(self, name):
            raise RuntimeError("a bug")

    clock = Clock()
    with pytest.raises(RuntimeError, match="a bug"):
        drive_one(watch(NAME, MINUTE, clock.seconds), Broken([], clock), sleep=clock.sleep)


OUTCOMES = [
    Ended(a_job(JobState.PARTIALLY_SUCCEEDED, labels={"a": "b"}, input_uris=("gs://b/x",))),
    TimedOut(JOB_NAME, RUNNING, cancelled=True),
    TimedOut(JOB_NAME, None, cancelled=False, limit=LimitName.SENSOR_TIMEOUT),
    Queued(PENDING),
    GaveUp(JOB_NAME, 403, "why"),
]


class TestPack:
    def test_outcomes_survive_a_trigger_s_event(self):
        assert unpack(json.loads(json.dumps(pack(OUTCOMES)))) == OUTCOMES

    def test_an_unknown_outcome_is_an_error(self):
        with pytest.raises(msgspec.ValidationError, match="Invalid value"):
            unpack([{"type": "vanished"}])


class TestConclude:
    def test_what_the_service_calls_partial_failures_is_said_without_its_texts(self, caplog):
        partial = [{"code": 5, "message": "a secret of the row"}, {"code": 13}]
        job = BatchJob.from_api({"name": JOB_NAME, "state": "JOB_STATE_SUCCEEDED", "partialFailures": partial})
        assert conclude([Ended(job)]) == [job]
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert record.getMessage().startswith(f"{JOB_NAME} had 2 partial failures, the first with google.rpc.Code 5")
        assert "secret" not in caplog.text

    @pytest.mark.parametrize("partial", [None, []], ids=["absent", "empty"])
    def test_where_there_are_none_nothing_is_said(self, caplog, partial):
        conclude(
            [Ended(BatchJob.from_api({"name": JOB_NAME, "state": "JOB_STATE_SUCCEEDED", "partialFailures": partial}))]
        )
        assert caplog.records == []

    @pytest.mark.parametrize("state", [state for state in JobState if state.is_final], ids=str)
    @pytest.mark.parametrize("rows", [-1, 0, 5], ids=["unknown rows", "no rows", "rows"])
    def test_what_has_rows_is_landed_and_the_rest_is_an_error(self, state, rows):
        job = a_job(state, successful_count=rows, error_message="because")
        if state.phase in {Phase.SUCCEEDED, Phase.PARTIAL} or rows > 0:
            assert conclude([Ended(job)]) == [job]
        else:
            with pytest.raises(
                JobError, match=rf"{JOB_NAME} ended as {state}. because. It answered no row. .*new job is made"
            ) as caught:
                conclude([Ended(job)])
            assert (caught.value.job_name, caught.value.state, caught.value.retryable) == (JOB_NAME, str(state), False)

    @pytest.mark.parametrize(
        ("outcome", "message", "retryable"),
        [
            (
                TimedOut(JOB_NAME, RUNNING, cancelled=True),
                "not done at its deadline.*Last seen RUNNING.*being cancelled",
                True,
            ),
            (
                TimedOut(JOB_NAME, None, cancelled=False),
                "not done at its deadline.*never seen.*may still run, and bill",
                True,
            ),
            (
                GaveUp(JOB_NAME, 403, "no right"),
                r"cannot be asked about \(HTTP 403\). no right. It may still run, and bill",
                True,
            ),
            (GaveUp(JOB_NAME, 404, "gone"), r"cannot be asked about \(HTTP 404\)", False),
            (GaveUp(JOB_NAME, 400, "odd"), r"cannot be asked about \(HTTP 400\)", False),
        ],
        ids=["cancelled", "never seen", "forbidden", "gone", "bad request"],
    )
    def test_a_message_says_what_may_still_cost(self, outcome, message, retryable):
        with pytest.raises(JobError, match=message) as caught:
            conclude([outcome])
        assert caught.value.retryable is retryable

    def test_a_job_without_rows_may_be_borne(self):
        jobs = [a_job(JobState.CANCELLED, name=f"{JOB_NAME}{n}") for n in range(2)]
        assert conclude([Ended(job) for job in jobs], tolerates_empty=lambda _job: True) == jobs
        with pytest.raises(JobError, match=rf"{JOB_NAME}1 ended as"):
            conclude([Ended(job) for job in jobs], tolerates_empty=lambda job: job is jobs[0])

    def test_all_jobs_in_order(self):
        jobs = [a_job(name=f"{JOB_NAME}{n}") for n in range(3)]
        assert conclude([Ended(job) for job in jobs]) == jobs
