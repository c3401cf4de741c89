"""Which requests go to Vertex AI, and what do its answers mean? Requests are data here, and answers are read, without
any I/O.

Invariant: a bad answer becomes a `ServiceError` with Google's own words. If the call is sent only once and may have
worked, it becomes an `AmbiguousError`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.address import JobName
from airflow_vertex_batch.core.domain.errors import AmbiguousError, ServiceError
from airflow_vertex_batch.core.domain.job import BatchJob, JobSpec
from airflow_vertex_batch.core.domain.ports import ANY_VALUE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Jobs in one page of a list; the service's own maximum is undocumented, 100 is Google's general practice.
PAGE_SIZE = 100


class Call(msgspec.Struct, frozen=True):
    """One request as data."""

    method: str
    path: str
    what: str
    params: dict[str, str] = {}
    body: dict[str, Any] | None = None
    #: Whether sending it twice has the same effect as sending it once.
    repeatable: bool = True


def create_call(parent: str, spec: JobSpec) -> Call:
    """``projects.locations.batchPredictionJobs.create``: never repeatable."""
    return Call("POST", f"v1/{parent}/batchPredictionJobs", "create", body=spec.body(), repeatable=False)


def get_call(name: JobName) -> Call:
    """``projects.locations.batchPredictionJobs.get``."""
    return Call("GET", f"v1/{name}", f"get {name}")


def list_call(parent: str, query: str, page_token: str = "") -> Call:
    """``projects.locations.batchPredictionJobs.list``."""
    params = {"pageSize": str(PAGE_SIZE), **({"filter": query} if query else {})}
    if page_token:
        params["pageToken"] = page_token
    return Call("GET", f"v1/{parent}/batchPredictionJobs", f"list jobs of {parent}", params)


def cancel_call(name: JobName) -> Call:
    """``projects.locations.batchPredictionJobs.cancel``."""
    return Call("POST", f"v1/{name}:cancel", f"cancel {name}", body={})


def delete_call(name: JobName) -> Call:
    """``projects.locations.batchPredictionJobs.delete``."""
    return Call("DELETE", f"v1/{name}", f"delete {name}")


def label_filter(labels: Mapping[str, str]) -> str:
    """Return the list filter for jobs that carry all `labels`; a value may be `ANY_VALUE`."""
    return " AND ".join(
        f"labels.{name}:*" if value == ANY_VALUE else f'labels.{name}="{value}"' for name, value in labels.items()
    )


def read_answer(call: Call, status: int, text: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON of a good answer.

    :raises ServiceError: for every other answer; an `AmbiguousError` when a call sent only once may have worked.
    """
    doc = _json(text)
    if 200 <= status < 300 and doc is not None:  # noqa: PLR2004
        return doc
    error = (doc or {}).get("error") or {}
    reason, message = str(error.get("status", "")), str(error.get("message", "")) or text[:200]
    # 4xx are refusals: the service did not accept the request. Exceptions are 408 and 499 (the caller or a proxy ended
    # the call): these, and all other statuses, may come after the job was created.
    maybe_done = status >= 500 or 200 <= status < 300 or status in {408, 499}  # noqa: PLR2004
    kind = AmbiguousError if not call.repeatable and maybe_done else ServiceError
    raise kind(
        f"Vertex AI answered HTTP {status} {reason} to: {call.what}".replace("  ", " "),
        status=status,
        reason=reason,
        retry_after=_seconds(headers.get("Retry-After")),
        why=message,
        todo=_CURES.get(status, ""),
    )


def read_job(call: Call, doc: Any) -> BatchJob:
    """Return the job of an answer.

    :raises ServiceError: when the answer is no job; an `AmbiguousError` after a create, which may have made one.
    """
    try:
        job = BatchJob.from_api(doc)
        JobName.parse(job.name)
        return job
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        kind = ServiceError if call.repeatable else AmbiguousError
        why = f"{type(error).__name__}: {error}"
        raise kind(f"Vertex AI's answer to {call.what} is no job", status=502, reason="BAD_ANSWER", why=why) from error


_CURES = {
    400: "Correct what it names in the task's arguments",
    401: "Check the connection's credentials",
    403: "Grant the connection's account roles/aiplatform.user, and check that the Vertex AI API is enabled",
    404: "Check project, location and model: newer Gemini models are served for batch only in location 'global'",
}


def no_answer(call: Call, error: BaseException, *, was_sent: bool = True) -> ServiceError:
    """Return the error for a call whose answer never came.

    :param was_sent: False if no connection was made: then the call had no effect.
    """
    kind = AmbiguousError if was_sent and not call.repeatable else ServiceError
    return kind(
        f"Vertex AI did not answer to: {call.what}",
        status=0,
        reason="UNAVAILABLE",
        why=type(error).__name__,
        todo="Check the network, and where Vertex AI is a local server, that it runs",
    )


def jobs_of(call: Call, doc: dict[str, Any]) -> Iterator[BatchJob]:
    """Yield the jobs of a page of a list."""
    return (read_job(call, item) for item in doc.get("batchPredictionJobs", ()))


def _json(text: str) -> dict[str, Any] | None:
    try:
        doc = json.loads(text or "{}")
    except ValueError:
        return None
    return doc if isinstance(doc, dict) else None


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None
