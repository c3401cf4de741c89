"""Each call of the API beside each status it may be answered with: sent how often, and what is known afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials

from airflow_vertex_batch.core.address import JobName
from airflow_vertex_batch.core.drive import drive
from airflow_vertex_batch.core.errors import AmbiguousError, ServiceError
from airflow_vertex_batch.core.lifecycle import Ended, GaveUp, OnTimeout, TimedOut, WaitPolicy, watch
from airflow_vertex_batch.core.model import JobState
from airflow_vertex_batch.gcp.vertex import READ_ATTEMPTS, VertexClient, read_answer
from tests.builders import JOB_NAME, a_job, a_spec
from tests.fakes import Clock

NAME = JobName.parse(JOB_NAME)
#: By status: whether a create may have worked, whether a read is sent again, whether nothing is left to cancel.
TABLE = {
    400: (False, False, True),
    401: (False, False, False),
    403: (False, False, False),
    404: (False, False, True),
    408: (True, True, False),
    409: (False, False, False),
    412: (False, False, False),
    429: (False, True, False),
    499: (True, False, False),
    500: (True, True, False),
    501: (True, False, False),
    502: (True, True, False),
    503: (True, True, False),
    504: (True, True, False),
}
STATUSES = pytest.mark.parametrize(("status", "facts"), TABLE.items(), ids=str)


class Answering(VertexClient):
    """The client, and a service with one answer to everything."""

    def __init__(self, status: int) -> None:
        super().__init__(AnonymousCredentials(), "demo", "global", sleep=lambda _seconds: None)
        self.status, self.sent = status, 0

    def _send_once(self, call: Any) -> dict[str, Any]:
        self.sent += 1
        return read_answer(call, self.status, "", {})


class TestCalls:
    @STATUSES
    def test_create(self, status, facts):
        client = Answering(status)
        with pytest.raises(ServiceError, match=f"HTTP {status}") as caught:
            client.create(a_spec())
        assert isinstance(caught.value, AmbiguousError) is facts[0]
        assert client.sent == 1

    @STATUSES
    @pytest.mark.parametrize("call", ["get", "list"])
    def test_reads(self, status, facts, call):
        client = Answering(status)
        with pytest.raises(ServiceError, match=f"HTTP {status}") as caught:
            client.get(NAME) if call == "get" else list(client.list({"a": "b"}))
        assert not isinstance(caught.value, AmbiguousError)
        assert caught.value.retryable is facts[1]
        assert client.sent == (READ_ATTEMPTS if facts[1] else 1)

    @STATUSES
    def test_cancel(self, status, facts):
        client = Answering(status)
        if facts[2]:
            assert client.cancel(NAME) is False
        else:
            with pytest.raises(ServiceError, match=f"HTTP {status}"):
                client.cancel(NAME)
        assert client.sent == (READ_ATTEMPTS if facts[1] else 1)


class Unwilling:
    """Answers the first questions with an error, then with a job."""

    def __init__(self, error: ServiceError, times: int, job: Any) -> None:
        self._error, self._left, self._job = error, times, job

    def get(self, name: JobName) -> Any:
        self._left -= 1
        if self._left >= 0:
            raise self._error
        return self._job

    def cancel(self, name: JobName) -> bool:
        raise self._error


def _waited(status: int, times: int, job: Any, **policy: Any) -> Any:
    clock, error = Clock(), ServiceError(f"HTTP {status}", status=status)
    flow = watch(NAME, WaitPolicy(poll_interval=60, timeout=7200, **policy), clock.seconds)
    [outcome] = drive((flow, Unwilling(error, times, job)), sleep=clock.sleep, clock=clock.seconds)
    return outcome, sum(clock.slept)


class TestWaiting:
    @STATUSES
    def test_what_may_pass_is_waited_out_and_what_may_not_is_believed_the_third_time(self, status, facts):
        outcome, _ = _waited(status, 5, a_job(JobState.SUCCEEDED))
        assert isinstance(outcome, Ended if facts[1] else GaveUp)

    @STATUSES
    def test_twice_is_never_too_often(self, status, facts):
        assert isinstance(_waited(status, 2, a_job(JobState.SUCCEEDED))[0], Ended)

    @STATUSES
    def test_no_error_outlasts_the_deadline(self, status, facts):
        outcome, seconds = _waited(status, 1_000, None, on_timeout=OnTimeout.FAIL)
        assert isinstance(outcome, TimedOut if facts[1] else GaveUp)
        assert seconds <= 7200

    @STATUSES
    def test_a_cancel_that_fails_at_the_deadline_is_said_to_have_failed(self, status, facts):
        outcome, seconds = _waited(status, 0, a_job(JobState.RUNNING))
        assert outcome == TimedOut(JOB_NAME, a_job(JobState.RUNNING), cancelled=False)
        # It is sent four times more after what may pass.
        assert seconds == pytest.approx(7200 + (15 if facts[1] else 0))

    @pytest.mark.parametrize("state", JobState, ids=str)
    def test_every_state_ends_a_wait_or_is_waited_in(self, state):
        """With the deadline far, only the five final states end it; what does not exist yet is `UNSPECIFIED`."""
        outcome, seconds = _waited(503, 0, a_job(state), on_timeout=OnTimeout.FAIL)
        final = {"SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"}
        if state.removeprefix("JOB_STATE_") in final:
            assert (outcome, seconds) == (Ended(a_job(state)), 0)
        else:
            assert isinstance(outcome, TimedOut)
            assert seconds >= 7200
