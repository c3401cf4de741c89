"""The decision table of docs (architecture, "Submitting, as a table"), line by line, without a service or a store."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import ClassVar

import pytest

from airflow_vertex_batch.core.domain.job import BatchJob, JobState
from airflow_vertex_batch.core.purchase.decide import (
    SETTLE_SECONDS,
    Attach,
    OnChangedInput,
    Refuse,
    Reuse,
    Settle,
    Submit,
    Terms,
    decide,
)
from airflow_vertex_batch.core.purchase.entries import Intent, Refusal, Submission
from airflow_vertex_batch.core.purchase.ownership import FINGERPRINT_LABEL, GENERATION_LABEL
from airflow_vertex_batch.core.purchase.submit import job_fingerprint
from tests.builders import NIGHT, a_job, a_spec
from tests.each_case import compare_each, each_case

#: One fingerprint is asked for; the other is what the input was before.
SAME, OTHER = "same", "other"


def _intent(fingerprint: str, age: float = 0) -> Intent:
    return Intent(fingerprint=fingerprint, attempt="a", at=NIGHT - timedelta(seconds=age))


def _submission(fingerprint: str, name: str = "old", age: float = 0, **members: str) -> Submission:
    at = NIGHT - timedelta(seconds=age)
    return Submission(fingerprint=fingerprint, attempt="a", at=at, job_name=name, **members)


def _refusal(fingerprint: str) -> Refusal:
    return Refusal(fingerprint=fingerprint, attempt="a", at=NIGHT, reason="QUOTA")


def _job(fingerprint: str, state: JobState = JobState.RUNNING, name: str = "old", **members):
    return a_job(state, name=name, labels={FINGERPRINT_LABEL: fingerprint}, **members)


RUNNING, DONE, PARTIAL = _job(SAME), _job(SAME, JobState.SUCCEEDED), _job(SAME, JobState.PARTIALLY_SUCCEEDED)
EXPIRED_WITH_ROWS = _job(SAME, JobState.EXPIRED, successful_count=3)
LONG_AGO = SETTLE_SECONDS + 1
SENT = [_intent(SAME, LONG_AGO), _submission(SAME)]
SENT_OTHER = [_intent(OTHER, LONG_AGO), _submission(OTHER)]

TABLE = {
    # recorded, what the service has, decision
    "nothing recorded, none there: submit": ([], [], Submit("no job exists for this input")),
    "nothing recorded, one there: adopt": ([], [RUNNING], Attach(RUNNING, recorded=False)),
    "nothing recorded, a finished one there: adopt": ([], [DONE], Attach(DONE, recorded=False)),
    "submission, same, waiting: attach": (SENT, [RUNNING], Attach(RUNNING, recorded=True)),
    "submission, same, succeeded: attach": (SENT, [DONE], Attach(DONE, recorded=True)),
    "submission, same, partial: attach": (SENT, [PARTIAL], Attach(PARTIAL, recorded=True)),
    "submission, same, expired with rows: attach": (
        SENT,
        [EXPIRED_WITH_ROWS],
        Attach(EXPIRED_WITH_ROWS, recorded=True),
    ),
    "submission, same, cancelled with rows: attach": (
        SENT,
        [_job(SAME, JobState.CANCELLED, successful_count=3)],
        Attach(_job(SAME, JobState.CANCELLED, successful_count=3), recorded=True),
    ),
    "submission, same, expired without rows: submit again": (
        SENT,
        [_job(SAME, JobState.EXPIRED)],
        Submit("old ended as JOB_STATE_EXPIRED", replaces="old"),
    ),
    "submission, same, expired with nothing done: submit again": (
        SENT,
        [_job(SAME, JobState.EXPIRED, successful_count=0)],
        Submit("old ended as JOB_STATE_EXPIRED", replaces="old"),
    ),
    "submission, same, failed: submit again, saying which it replaces": (
        SENT,
        [_job(SAME, JobState.FAILED)],
        Submit("old ended as JOB_STATE_FAILED", replaces="old"),
    ),
    "submission, same, cancelled: submit again, saying which it replaces": (
        SENT,
        [_job(SAME, JobState.CANCELLED)],
        Submit("old ended as JOB_STATE_CANCELLED", replaces="old"),
    ),
    "submission, same, gone (404): submit again, saying so": (SENT, [], Submit("old no longer exists", replaces="old")),
    "submission, different, waiting: cancel and resubmit": (
        SENT_OTHER,
        [_job(OTHER)],
        Submit("the input changed", cancel=("old",), replaces="old"),
    ),
    "submission, different, ended: submit": (
        SENT_OTHER,
        [_job(OTHER, JobState.SUCCEEDED)],
        Submit("no job exists for this input", replaces="old"),
    ),
    "intent only, same, one there: adopt": ([_intent(SAME)], [RUNNING], Attach(RUNNING, recorded=False)),
    "intent only, same, none there yet: look again": ([_intent(SAME, 30)], [], Settle(SETTLE_SECONDS - 30)),
    "intent only, same, none there after the settle time: submit": (
        [_intent(SAME, LONG_AGO)],
        [],
        Submit("no job exists for this input"),
    ),
    "intent only, different, old one there: settle first": (
        [_intent(OTHER, 30)],
        [_job(OTHER)],
        Settle(SETTLE_SECONDS - 30),
    ),
    "intent only, different, old one there, settled: cancel and resubmit": (
        [_intent(OTHER, LONG_AGO)],
        [_job(OTHER)],
        Submit("the input changed", cancel=("old",), replaces="old"),
    ),
    "intent only, different, none there, settled: submit": (
        [_intent(OTHER, LONG_AGO)],
        [],
        Submit("no job exists for this input"),
    ),
    "refused before: submit at once": ([_intent(SAME), _refusal(SAME)], [], Submit("no job exists for this input")),
    "replaced once, the new one runs: attach": (
        [*SENT, _intent(SAME, LONG_AGO), _submission(SAME, "new")],
        [_job(SAME, name="new"), _job(SAME, JobState.FAILED)],
        Attach(_job(SAME, name="new"), recorded=True),
    ),
    "replaced once, both failed: submit, replacing the newer": (
        [*SENT, _intent(SAME, LONG_AGO), _submission(SAME, "new")],
        [_job(SAME, JobState.FAILED, name="new"), _job(SAME, JobState.FAILED)],
        Submit("new ended as JOB_STATE_FAILED", replaces="new"),
    ),
    "input changed and changed back, the first is done: attach again": (
        [*SENT, _intent(OTHER, LONG_AGO), _submission(OTHER, "new")],
        [_job(OTHER, JobState.CANCELLED, name="new"), DONE],
        Attach(DONE, recorded=False),
    ),
    "input changed and changed back, the second still runs: attach to the first, cancelling that": (
        [*SENT, _intent(OTHER, LONG_AGO), _submission(OTHER, "new")],
        [_job(OTHER, name="new"), DONE],
        Attach(DONE, recorded=False, cancel=("new",)),
    ),
    "a failed one and another input's running one: submit, cancelling that": (
        [*SENT, _intent(OTHER, LONG_AGO), _submission(OTHER, "new")],
        [_job(OTHER, name="new"), _job(SAME, JobState.FAILED)],
        Submit("old ended as JOB_STATE_FAILED", cancel=("new",), replaces="old"),
    ),
    "labels lost, but the log names it: attach": (
        SENT,
        [a_job(JobState.RUNNING, name="old")],
        Attach(a_job(JobState.RUNNING, name="old"), recorded=True),
    ),
    "a state that does not exist yet waits: attach": (
        SENT,
        [_job(SAME, JobState.UNSPECIFIED)],
        Attach(_job(SAME, JobState.UNSPECIFIED), recorded=True),
    ),
}


def test_the_table():
    compare_each(TABLE, lambda entries, jobs: decide(entries, SAME, jobs, now=NIGHT))


@pytest.mark.parametrize("state", JobState, ids=str)
def test_every_state_of_the_same_input_has_one_decision(state):
    """Completeness: what is paid for and may still answer is attached to, what is lost is bought again."""
    bought_again = {JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}
    decision = decide(SENT, SAME, [_job(SAME, state)], now=NIGHT)
    assert isinstance(decision, Submit if state in bought_again else Attach)


@each_case(itertools.product(JobState, Reuse, [-1, 0, 5]))
def test_every_state_beside_every_use_of_a_bad_end(state, reuse, rows):
    bad = {JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}
    answers = {
        Reuse.WITH_ROWS: rows > 0,
        Reuse.ANY: True,
    }
    decision = decide(SENT, SAME, [_job(SAME, state, successful_count=rows)], now=NIGHT, terms=Terms(reuse=reuse))
    assert isinstance(decision, Attach if state not in bad or answers[reuse] else Submit)


class TestOnChangedInput:
    def test_fail_refuses_while_the_other_runs(self):
        decision = decide(SENT_OTHER, SAME, [_job(OTHER)], now=NIGHT, terms=Terms(on_changed_input=OnChangedInput.FAIL))
        assert decision == Refuse("old is running for other input of the same task")

    def test_fail_submits_when_nothing_runs(self):
        decision = decide(
            SENT_OTHER,
            SAME,
            [_job(OTHER, JobState.SUCCEEDED)],
            now=NIGHT,
            terms=Terms(on_changed_input=OnChangedInput.FAIL),
        )
        assert isinstance(decision, Submit)

    def test_fail_attaches_to_the_same_input(self):
        jobs = [_job(OTHER, name="new"), RUNNING]
        assert decide(SENT, SAME, jobs, now=NIGHT, terms=Terms(on_changed_input=OnChangedInput.FAIL)) == Attach(
            RUNNING, recorded=True
        )


def _edition(number: str, state: JobState = JobState.SUCCEEDED, name: str = "old") -> BatchJob:
    return a_job(state, name=name, labels={FINGERPRINT_LABEL: SAME, GENERATION_LABEL: number})


RENEWED = "the task was cleared with on_clear='new'"


class TestOnClearNew:
    """A clear asked for a new job: only one of its own edition will do."""

    TABLE: ClassVar[dict[str, tuple]] = {
        "the first edition, nothing there: submit": ([], [], Submit("no job exists for this input")),
        "of this edition: attach": (
            [_submission(SAME, generation="2")],
            [_edition("2")],
            Attach(_edition("2"), recorded=True),
        ),
        "of this edition, log lost: adopt by its label": (
            [],
            [_edition("2", name="new"), _edition("1")],
            Attach(_edition("2", name="new"), recorded=False),
        ),
        "of this edition, labels lost: the log says so": (
            [_submission(SAME, generation="2")],
            [a_job(JobState.SUCCEEDED, name="old")],
            Attach(a_job(JobState.SUCCEEDED, name="old"), recorded=True),
        ),
        "of this edition, recorded by somebody who did not know it: attach": (
            SENT,
            [_edition("2")],
            Attach(_edition("2"), recorded=True),
        ),
        "of the edition before, ended: submit, replacing it": (
            [_submission(SAME, generation="1")],
            [_edition("1")],
            Submit(RENEWED, replaces="old"),
        ),
        "of the edition before, running: cancel it and submit": (
            [_submission(SAME, generation="1")],
            [_edition("1", JobState.RUNNING)],
            Submit(RENEWED, cancel=("old",), replaces="old"),
        ),
        "recorded before there were editions: submit": (
            SENT,
            [_job(SAME, JobState.SUCCEEDED)],
            Submit(RENEWED, replaces="old"),
        ),
        "an intent of this edition, no job yet: look again": (
            [_submission(SAME, generation="1"), _intent(SAME, 30)],
            [_edition("1")],
            Settle(SETTLE_SECONDS - 30),
        ),
        "of this edition, failed: submit again": (
            [_submission(SAME, generation="2")],
            [_edition("2", JobState.FAILED)],
            Submit("old ended as JOB_STATE_FAILED", replaces="old"),
        ),
    }

    def test_the_table(self):
        terms = Terms(generation="2", renew=True)
        compare_each(self.TABLE, lambda entries, jobs: decide(entries, SAME, jobs, now=NIGHT, terms=terms))

    def test_otherwise_any_edition_will_do(self):
        jobs = [_edition("1", name="new"), _edition("0")]
        decision = decide([], SAME, jobs, now=NIGHT, terms=Terms(generation="2"))
        assert decision == Attach(jobs[0], recorded=False)

    def test_a_job_of_the_edition_before_is_no_other_input(self):
        terms = Terms(generation="2", renew=True, on_changed_input=OnChangedInput.FAIL)
        assert isinstance(decide([], SAME, [_edition("1", JobState.RUNNING)], now=NIGHT, terms=terms), Submit)


class TestFingerprint:
    @pytest.mark.parametrize("change", [{"model": "gemini-4-argon"}, {"output": "gs://elsewhere"}], ids=str)
    def test_another_model_or_destination_is_another_purchase(self, change):
        assert job_fingerprint("c", a_spec(**change)) != job_fingerprint("c", a_spec())

    def test_other_requests_are_another_purchase(self):
        assert job_fingerprint("c", a_spec()) != job_fingerprint("d", a_spec())

    @pytest.mark.parametrize("change", [{"display_name": "x"}, {"labels": {"a": "b"}}], ids=str)
    def test_names_and_labels_are_not(self, change):
        assert job_fingerprint("c", a_spec(**change)) == job_fingerprint("c", a_spec())
