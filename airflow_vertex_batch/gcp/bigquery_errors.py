"""What does BigQuery's refusal mean for the reader: correct something, or try again?

Invariant: the reason decides whether an error is temporary, not the HTTP status, which is 400 or 403 for both kinds.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.errors import InputError, ServiceError, VertexBatchError
from airflow_vertex_batch.gcp.auth import credentials_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.api_core.exceptions import GoogleAPICallError

#: Every documented reason, and whether the same call may succeed later without a change
#: (https://docs.cloud.google.com/bigquery/docs/error-messages, 2026-11-28). A quota is one of a minute, an hour or a
#: day; "stopped" is a job that somebody, or a limit, ended; "timeout" a job that got too few slots, for ours are small.
TEMPORARY_REASONS = {
    "accessDenied": False,
    "attributeError": False,
    "backendError": True,
    "badRequest": False,
    "billingNotEnabled": False,
    "billingTierLimitExceeded": False,
    "blocked": True,
    "duplicate": False,
    "internalError": True,
    "invalid": False,
    "invalidQuery": False,
    "invalidUser": False,
    "jobBackendError": True,
    "jobInternalError": True,
    "jobRateLimitExceeded": True,
    "notFound": False,
    "notImplemented": False,
    "policyViolation": False,
    "proxyAuthenticationRequired": False,
    "quotaExceeded": True,
    "rateLimitExceeded": True,
    "resourceInUse": False,
    "resourcesExceeded": False,
    "responseTooLarge": False,
    "stopped": True,
    "tableUnavailable": True,
    "timeout": True,
}
#: Messages of BigQuery when two statements change one table at the same time, or change rows that were just streamed
#: into it. The reason does not show this. Also the local server's message for it (same page, 2026-11-28).
_BUSY = re.compile(
    r"could not serialize access|concurrent update|write-write conflict|rows in the streaming buffer|"
    r"failed to commit DuckLake transaction",
    re.IGNORECASE,
)
#: Messages of BigQuery about names and syntax, from before it has read a row. Every other message about a statement or
#: a file may quote a value: "Bad int64 value: …", "Could not convert value 'string_value: "…"' to integer".
_ABOUT_NAMES = re.compile(
    r"Syntax error|Unrecognized name|Function not found|Table-valued function not found|Type not found|Not found|"
    r"No matching signature|Query parameter|Column name|Name \S+ (is ambiguous|not found)|Provided Schema|"
    r"SELECT list expression|Cannot (access field|query over|use)|Dataset|Table|Access Denied"
)
_JOB = re.compile(r"Job ID: (\S+)")
_CURES = {
    "quotaExceeded": "Wait for free quota, or raise it: https://console.cloud.google.com/iam-admin/quotas",
    "blocked": "A retry may help; if it does not, ask Google's support",
    "stopped": "Somebody ended the job, or a limit did: a retry runs it anew",
    "timeout": "A retry runs it anew; if it does not help, give the project more slots",
    "accessDenied": "Grant the connection's account roles/bigquery.dataEditor on the dataset, and "
    "roles/bigquery.jobUser on the project",
    "invalidQuery": "Correct the query; [line:column] says where, and sql_parameters holds what it calls @name",
    "responseTooLarge": "Write the query's result to a table, and name that table instead of the query",
}


@contextlib.contextmanager
def translated(subject: str, *, reads_rows: bool = False) -> Iterator[None]:
    """Turn the client's exceptions into ours.

    :param subject: what was asked for.
    :param reads_rows: whether BigQuery reads rows for it. Its message may then quote a row, and is not passed on.
    """
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except GoogleAPICallError as error:
        if reads_rows and _may_quote(error):
            raise _redacted(subject, error) from None
        raise refusal(subject, error) from error
    except RetryError as error:
        # The client's deadline is over. The last error before it says more.
        if isinstance(error.cause, GoogleAPICallError):
            raise refusal(subject, error.cause) from error
        raise _no_answer(subject, error.cause or error) from error
    except GoogleAuthError as error:
        raise credentials_error(subject, error) from error
    except (RequestException, TimeoutError) as error:
        raise _no_answer(subject, error) from error


def refusal(subject: str, error: GoogleAPICallError) -> VertexBatchError:
    """Return our error for one of the service's."""
    from google.api_core.exceptions import BadRequest, NotFound

    reason, message, status = _reason(error), error.message, int(error.code or 0)
    if _BUSY.search(message):
        return ServiceError(f"BigQuery was busy with {subject}", status=503, reason=reason, why=message)
    is_temporary = TEMPORARY_REASONS.get(reason, False)
    if isinstance(error, NotFound | BadRequest) and not is_temporary:
        return InputError(
            f"BigQuery refused {subject}",
            why=_once(message),
            todo=_CURES.get(reason)
            or "Check the names of project, dataset and table, and that the dataset is in the job's region",
        )
    return ServiceError(
        f"BigQuery failed on {subject} with HTTP {status}" + (f" ({reason})" if reason else ""),
        status=status,
        reason=reason,
        retryable=is_temporary or None,
        why=_once(message),
        todo=_CURES.get(reason, ""),
    )


def _once(message: str) -> str:
    """Return the client's message about a job on one line, without the part ``; reason: …``, which repeats it."""
    lines = [line for line in message.splitlines() if line]
    return ". ".join([re.sub(r"; reason: .*", "", line).rstrip(".") for line in lines])


def _may_quote(error: GoogleAPICallError) -> bool:
    """Whether BigQuery's message may quote the value that caused the error."""
    from google.api_core.exceptions import BadRequest

    is_busy = TEMPORARY_REASONS.get(_reason(error), False) or _BUSY.search(error.message)
    return isinstance(error, BadRequest) and not is_busy and not _ABOUT_NAMES.match(error.message)


def _redacted(subject: str, error: GoogleAPICallError) -> InputError:
    job = _JOB.search(error.message)
    where = f"job {job[1]}" if job else "the job"
    return InputError(
        f"BigQuery refused {subject}" + (f" ({reason})" if (reason := _reason(error)) else ""),
        why="Its own words are not shown, because they may quote a row",
        todo=f"Look at {where} in BigQuery's history of jobs, which has them",
    )


def _reason(error: GoogleAPICallError) -> str:
    first = next(iter(error.errors), None)
    return str(first.get("reason", "")) if isinstance(first, dict) else ""


def _no_answer(subject: str, error: BaseException) -> ServiceError:
    return ServiceError(f"BigQuery did not answer about {subject}", status=0, why=type(error).__name__)
