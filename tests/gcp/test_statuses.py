"""Each call of the API beside each status it may be answered with: sent for how long, and what is known afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials

from airflow_vertex_batch.core.domain.address import JobName
from airflow_vertex_batch.core.domain.errors import AmbiguousError, ServiceError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.domain.outage import OUTAGE_SECONDS
from airflow_vertex_batch.core.purchase.create_retry import ensure_job_with_retries
from airflow_vertex_batch.core.waiting.drive import drive
from airflow_vertex_batch.core.waiting.watch import Ended, GaveUp, OnTimeout, TimedOut, WaitPolicy, watch
from airflow_vertex_batch.gcp.calls import read_answer
from airflow_vertex_batch.gcp.vertex import VertexClient
from tests.builders import JOB_NAME, a_job, a_job_doc, a_log, a_spec, an_order
from tests.each_case import each_case
from tests.fakes import Clock, MemoryStore

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
STATUSES = each_case(TABLE.items())


def _statuses_and_calls(*calls: str) -> list[tuple[int, tuple[bool, bool, bool], str]]:
    return [(status, facts, call) for status, facts in TABLE.items() for call in calls]


#: Seconds after which an outage of two minutes is over, whatever the last wait was.
LATEST = OUTAGE_SECONDS + 25


class Answering(VertexClient):
    """The client, and a service with one answer to everything, for as long as its outage lasts.

    :param lasts: seconds of the clock; for ever where not given.
    """

    def __init__(self, status: int, lasts: float = float("inf")) -> None:
        self.clock, self.status, self.lasts, self.sent = Clock(), status, lasts, list[str]()
        self.began = self.clock.now
        super().__init__(AnonymousCredentials(), "demo", "global", sleep=self.clock.sleep)

    @property
    def passed(self) -> float:
        """Seconds since the outage began."""
        return (self.clock.now - self.began).total_seconds()

    def _send_once(self, call: Any) -> dict[str, Any]:
        self.sent.append(call.what.split()[0])
        if self.passed < self.lasts:
            return read_answer(call, self.status, "", {})
        return {} if call.what.startswith(("list", "cancel")) else a_job_doc()


class TestCalls:
    @STATUSES
    def test_a_create_is_sent_once(self, status, facts):
        client = Answering(status)
        with pytest.raises(ServiceError, match=f"HTTP {status}") as caught:
            client.create(a_spec())
        assert isinstance(caught.value, AmbiguousError) is facts[0]
        assert (len(client.sent), client.passed) == (1, 0)

    @each_case(_statuses_and_calls("get", "list"))
    def test_a_read_gives_up_after_two_minutes_or_at_once(self, status, facts, call):
        client = Answering(status)
        with pytest.raises(ServiceError, match=f"HTTP {status}") as caught:
            client.get(NAME) if call == "get" else list(client.list({"a": "b"}))
        assert not isinstance(caught.value, AmbiguousError)
        assert caught.value.retryable is facts[1]
        assert OUTAGE_SECONDS <= client.passed < LATEST if facts[1] else client.passed == 0

    @each_case(_statuses_and_calls("get", "list", "cancel"))
    def test_what_may_pass_is_outlasted_for_two_minutes(self, status, facts, call):
        client = Answering(status, lasts=OUTAGE_SECONDS)
        answers = {"get": lambda: client.get(NAME), "list": lambda: list(client.list({})), "cancel": client.cancel}
        if facts[1]:
            answers[call](NAME) if call == "cancel" else answers[call]()
            assert OUTAGE_SECONDS <= client.passed < LATEST
        elif call == "cancel" and facts[2]:
            assert client.cancel(NAME) is False
        else:
            with pytest.raises(ServiceError, match=f"HTTP {status}"):
                answers[call](NAME) if call == "cancel" else answers[call]()

    @STATUSES
    def test_a_cancel_gives_up_after_two_minutes_or_at_once(self, status, facts):
        client = Answering(status)
        if facts[2]:
            assert client.cancel(NAME) is False
        else:
            with pytest.raises(ServiceError, match=f"HTTP {status}"):
                client.cancel(NAME)
        assert OUTAGE_SECONDS <= client.passed < LATEST if facts[1] else client.passed == 0

    def test_an_outage_is_waited_out_once_and_not_for_each_job_again(self):
        client = Answering(503, lasts=OUTAGE_SECONDS + 60)
        for _ in range(3):
            with pytest.raises(ServiceError, match="HTTP 503"):
                client.get(NAME)
        assert client.passed < LATEST
        client.clock.sleep(60)
        assert client.get(NAME).name == JOB_NAME

    def test_an_answer_ends_the_outage_and_the_next_one_is_waited_out_again(self):
        client = Answering(503, lasts=OUTAGE_SECONDS + 60)
        with pytest.raises(ServiceError, match="HTTP 503"):
            client.get(NAME)
        client.clock.sleep(60)
        client.get(NAME)
        client.began, client.lasts = client.clock.now, OUTAGE_SECONDS
        assert client.get(NAME).name == JOB_NAME
        assert client.passed >= OUTAGE_SECONDS


class CreatingOnly(Answering):
    """Reads are answered; what is created is shown. The outage is the create call's."""

    def __init__(self, status: int, lasts: float) -> None:
        super().__init__(status, lasts)
        self.made: list[float] = []

    def _send_once(self, call: Any) -> dict[str, Any]:
        self.sent.append(call.what.split()[0])
        if call.what.startswith("list"):
            return {}
        if self.passed < self.lasts:
            return read_answer(call, self.status, "", {})
        self.made.append(self.passed)
        return a_job_doc()


def _bought(client: Answering) -> Any:
    log = a_log(MemoryStore(), "a", client.clock)
    return ensure_job_with_retries(an_order(log, client), sleep=client.clock.sleep)


class TestBuying:
    """Create, with its look-ups, beside each status."""

    @STATUSES
    def test_a_create_outlasts_what_may_pass_and_is_never_sent_again_blindly(self, status, facts):
        client = CreatingOnly(status, OUTAGE_SECONDS)
        may_have_worked, is_temporary, _ = facts
        if is_temporary or may_have_worked:
            assert _bought(client).created
            assert len(client.made) == 1
            settle = 90 if may_have_worked else 0
            assert OUTAGE_SECONDS <= client.passed < LATEST + settle
            sent = client.sent.count("create")
            # What may have worked is looked up for the whole settle time before it is sent again.
            assert sent <= 1 + client.passed / 90 if may_have_worked else sent > 2
        else:
            with pytest.raises(ServiceError, match=f"HTTP {status}"):
                _bought(client)
            assert (client.sent.count("create"), client.passed) == (1, 0)

    @STATUSES
    def test_a_refusal_that_stays_is_believed_after_two_minutes(self, status, facts):
        client = CreatingOnly(status, float("inf"))
        if facts[0]:
            return  # what may have worked is looked for as long as the settle time asks, and sent again then
        with pytest.raises(ServiceError, match=f"HTTP {status}"):
            _bought(client)
        assert OUTAGE_SECONDS <= client.passed < LATEST if facts[1] else client.passed == 0

    @STATUSES
    def test_looking_before_the_create_outlasts_what_may_pass(self, status, facts):
        client = Answering(status, lasts=OUTAGE_SECONDS)
        if facts[1]:
            assert _bought(client).created
            assert OUTAGE_SECONDS <= client.passed < LATEST
        else:
            with pytest.raises(ServiceError, match=f"HTTP {status}"):
                _bought(client)
            assert "create" not in client.sent

    def test_the_service_s_wish_is_honoured(self):
        class AsksForTime(CreatingOnly):
            def _send_once(self, call: Any) -> dict[str, Any]:
                if call.what == "create" and self.passed < self.lasts:
                    self.sent.append("create")
                    return read_answer(call, 429, "", {"Retry-After": "50"})
                return super()._send_once(call)

        client = AsksForTime(429, OUTAGE_SECONDS)
        assert _bought(client).created
        assert client.clock.slept[:3] == [50, 50, 50]


class FailsFirst:
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
    [outcome] = drive((flow, FailsFirst(error, times, job)), sleep=clock.sleep, clock=clock.seconds)
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
