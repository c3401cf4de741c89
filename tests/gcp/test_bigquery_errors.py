"""Which of BigQuery's refusals may pass by themselves?"""

from __future__ import annotations

import re
import traceback

import pytest
from google.api_core.exceptions import BadRequest, from_http_status
from google.cloud.bigquery import job

from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.gcp.bigquery_errors import TEMPORARY_REASONS, refusal, translated

#: The documented table: reason → HTTP status (https://docs.cloud.google.com/bigquery/docs/error-messages, 2026-11-28).
DOCUMENTED = {
    "accessDenied": 403, "attributeError": 400, "backendError": 503, "badRequest": 400, "billingNotEnabled": 403,
    "billingTierLimitExceeded": 400, "blocked": 403, "duplicate": 409, "internalError": 500, "invalid": 400,
    "invalidQuery": 400, "invalidUser": 400, "jobBackendError": 400, "jobInternalError": 400,
    "jobRateLimitExceeded": 400, "notFound": 404, "notImplemented": 501, "policyViolation": 403,
    "proxyAuthenticationRequired": 407, "quotaExceeded": 403, "rateLimitExceeded": 403, "resourceInUse": 400,
    "resourcesExceeded": 400, "responseTooLarge": 403, "stopped": 200, "tableUnavailable": 400, "timeout": 400,
}  # fmt: skip
WORTH_A_RETRY = {
    "backendError", "blocked", "internalError", "jobBackendError", "jobInternalError", "jobRateLimitExceeded",
    "quotaExceeded", "rateLimitExceeded", "stopped", "tableUnavailable", "timeout",
}  # fmt: skip


def _error(reason, status):
    return from_http_status(status, "No.", errors=[{"reason": reason, "message": "No."}])


def test_every_documented_reason_is_sorted():
    assert set(TEMPORARY_REASONS) == set(DOCUMENTED)


def test_so_is_every_reason_that_google_s_client_knows():
    assert set(job.base._ERROR_REASON_TO_EXCEPTION) <= set(TEMPORARY_REASONS)


@pytest.mark.parametrize("reason", DOCUMENTED)
def test_each_reason_says_whether_a_retry_may_help(reason):
    error = refusal("p.d.t", _error(reason, DOCUMENTED[reason]))
    assert error.retryable is (reason in WORTH_A_RETRY)
    assert "p.d.t" in str(error)
    assert "No." in str(error)


@pytest.mark.parametrize("reason", sorted(WORTH_A_RETRY))
def test_so_does_a_job_that_ended_with_it(reason):
    """A job's reason becomes an exception by a table of the client's, with statuses of its own."""
    ended = job.base._error_result_to_exception({"reason": reason, "message": "No."})
    with pytest.raises(ServiceError, match=reason) as raised, translated("p.d.t"):
        raise ended
    assert raised.value.retryable


@pytest.mark.parametrize(("status", "kind"), [(400, InputError), (404, InputError), (403, ServiceError)])
def test_a_refusal_without_a_reason_goes_by_its_status(status, kind):
    error = refusal("p.d.t", from_http_status(status, "No."))
    assert (type(error), error.retryable) == (kind, False)


@pytest.mark.parametrize(
    "message",
    [
        "Could not serialize access to table p:d.t due to concurrent update",
        'Catalog write-write conflict on create with "gcs_emulator"',
        "Failed to commit: Failed to commit DuckLake transaction.",
        "UPDATE or DELETE statement over table p.d.t would affect rows in the streaming buffer, which is not supported",
    ],
)
def test_statements_that_met_on_one_table_may_be_tried_again(message):
    with pytest.raises(ServiceError, match=r"busy with p\.d\.t") as raised, translated("p.d.t"):
        raise BadRequest(message)
    assert raised.value.retryable


def test_a_mistake_in_a_statement_is_not_tried_again():
    with pytest.raises(InputError, match=r"refused p\.d\.t"), translated("p.d.t"):
        raise BadRequest("Syntax error: Unexpected keyword WHERE")


def test_a_job_that_never_ends_is_worth_a_retry_which_waits_for_it_again():
    with pytest.raises(ServiceError, match=r"did not answer about p\.d\.t") as raised, translated("p.d.t"):
        raise TimeoutError
    assert raised.value.retryable


class TestWordsThatMayQuoteARow:
    """Those of a query or a load: they end here."""

    @pytest.mark.parametrize(
        "message",
        [
            "Bad int64 value: secret",
            "Error while reading data, error message: Could not convert value 'string_value: \"secret\"'",
            "Division by zero: secret / 0",
            "Could not convert string 'secret' to INT64",
        ],
    )
    def test_are_not_handed_on(self, message):
        words = f"{message}; reason: invalidQuery\n\nLocation: US\nJob ID: j-17\n"
        with (
            pytest.raises(InputError, match=r"refused the query \(invalidQuery\).*may quote a row.*job j-17") as raised,
            translated("the query", reads_rows=True),
        ):
            raise BadRequest(words, errors=[{"reason": "invalidQuery"}])
        told = "".join(traceback.format_exception(raised.value))
        assert "secret" not in told

    @pytest.mark.parametrize(
        "message",
        [
            "Syntax error: Unexpected keyword WHERE at [1:8]",
            "Unrecognized name: bodi at [1:8]",
            "Provided Schema does not match Table p:d.t. Field a has changed type",
        ],
    )
    def test_are_handed_on_where_they_are_about_names(self, message):
        with pytest.raises(InputError, match=re.escape(message)), translated("the query", reads_rows=True):
            raise BadRequest(message, errors=[{"reason": "invalidQuery"}])

    def test_are_said_once_and_with_what_to_do(self):
        """The client repeats a job's words after ``; reason:``, and its place on lines of their own."""
        words = "Syntax error: SELEC at [1:1]"
        twice = f"{words}; reason: invalidQuery, location: query, message: {words}\n\nLocation: US\nJob ID: j-17\n"
        with (
            pytest.raises(InputError, match="Syntax error: SELEC") as raised,
            translated("the source query", reads_rows=True),
        ):
            raise BadRequest(twice, errors=[{"reason": "invalidQuery"}])
        assert raised.value.why == f"{words}. Location: US. Job ID: j-17"
        assert raised.value.todo.startswith("Correct the query")

    def test_are_handed_on_where_no_row_is_read(self):
        with pytest.raises(InputError, match="Bad int64"), translated("p.d.t"):
            raise BadRequest("Bad int64 value: 7")
