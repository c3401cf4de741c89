"""A create call without an answer is waited for, though another attempt records a job for other requests meanwhile."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_vertex_batch.core.purchase.entries import Intent, Refusal, Submission
from airflow_vertex_batch.core.purchase.log import pending_seconds
from tests.builders import NIGHT

SENT = Intent(fingerprint="new", attempt="a", at=NIGHT)
LATER = NIGHT + timedelta(seconds=10)


@pytest.mark.parametrize(
    ("entry", "pending"),
    [
        (Submission(fingerprint="old", attempt="b", at=LATER, job_name="j"), 80),
        (Submission(fingerprint="new", attempt="b", at=LATER, job_name="j"), 0),
        (Submission(fingerprint="old", attempt="a", at=LATER, job_name="j"), 0),
        (Refusal(fingerprint="new", attempt="a", at=LATER, reason="429"), 0),
        (Intent(fingerprint="old", attempt="b", at=LATER), 90),
    ],
    ids=["another's other job", "another finds it", "its own record", "it was refused", "another sends"],
)
def test_what_answers_a_create_call(entry, pending):
    assert pending_seconds([SENT, entry], 90, LATER) == pending
