"""What the tests of waiting share: jobs, policies, and a service that answers by script."""

from __future__ import annotations

from typing import Any

from airflow_vertex_batch.core.domain.address import JobName
from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.core.domain.job import BatchJob, JobState
from airflow_vertex_batch.core.waiting.drive import drive
from airflow_vertex_batch.core.waiting.watch import Flow, LimitName, OnTimeout, Outcome, TimedOut, WaitPolicy, Warn
from tests.builders import JOB_NAME, a_job
from tests.fakes import Clock

NAME = JobName.parse(JOB_NAME)
MINUTE = WaitPolicy(poll_interval=60, timeout=600)
#: The jobs here were created when the clock starts, unless a test says otherwise.
PENDING, RUNNING, DONE = a_job(JobState.PENDING), a_job(JobState.RUNNING), a_job(JobState.SUCCEEDED)
CANCELLING, CANCELLED = a_job(JobState.CANCELLING), a_job(JobState.CANCELLED, successful_count=4)
UNAVAILABLE = ServiceError("Vertex AI answered HTTP 503", status=503)
FORBIDDEN = ServiceError("Vertex AI answered HTTP 403", status=403)
BUSY = ServiceError("Vertex AI answered HTTP 429", status=429, retry_after=400.0)

POLL, CANCEL, WARN = "poll", "cancel", "warn"
KEEP = WaitPolicy(poll_interval=300_000, timeout=100, on_timeout=OnTimeout.KEEP)


def timed_out(job: BatchJob | None, *, cancelled: bool, limit: LimitName = LimitName.JOB_TIMEOUT) -> TimedOut:
    return TimedOut(JOB_NAME, job, cancelled=cancelled, limit=limit)


class Service:
    """Gives scripted answers and notes what was asked."""

    def __init__(self, answers: list[Any], clock: Clock) -> None:
        self._answers, self._clock, self.steps = list(answers), clock, []
        self.now = clock.seconds

    def _answer(self, step: str) -> Any:
        self.steps.append(step)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get(self, name: JobName) -> BatchJob:
        assert name == NAME
        return self._answer(POLL)

    def cancel(self, name: JobName) -> bool:
        assert name == NAME
        return self._answer(CANCEL)

    def sleep(self, seconds: float) -> None:
        self.steps.append(seconds)
        self._clock.sleep(seconds)

    def warn(self, warning: Warn) -> None:
        assert JOB_NAME in warning.text
        self.steps.append(WARN)

    @property
    def is_used_up(self) -> bool:
        return not self._answers


class AsyncService(Service):
    async def get(self, name):
        return super().get(name)

    async def cancel(self, name):
        return super().cancel(name)

    async def sleep(self, seconds):
        super().sleep(seconds)

    async def warn(self, warning):
        super().warn(warning)

    async def seen(self, job):
        assert job.name == JOB_NAME


def drive_one(flow: Flow, service: Service, **options: Any) -> Outcome:
    """Drive one flow, blocking, to its end."""
    [outcome] = drive((flow, service), clock=service.now, **options)
    return outcome
