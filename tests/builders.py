"""Values for tests: each function makes a plain, valid one; keywords replace members."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_vertex_batch.core.domain.identity import Identity
from airflow_vertex_batch.core.domain.job import BatchJob, JobSpec, JobState
from airflow_vertex_batch.core.domain.row import ResultRow, RowStatus
from airflow_vertex_batch.core.purchase.decide import Terms
from airflow_vertex_batch.core.purchase.entries import Part
from airflow_vertex_batch.core.purchase.log import BatchLog, JobLog
from airflow_vertex_batch.core.purchase.submit import Order

JOB_NAME = "projects/123/locations/global/batchPredictionJobs/456"
NIGHT = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
SEED = Path(__file__).parent / "seed"

#: The staging folder of tests, and the log of the task "me".
STAGING = "gs://b/staging"
LOG = f"{STAGING}/nightly/scheduled__2026-11-22/me/log"


def seed(name: str) -> Any:
    """Return a sample of the user's page ("batch from Cloud Storage"), as printed there."""
    return json.loads((SEED / name).read_text())


def a_request(text: str = "Hello", **members: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}]} | members


def a_line(key: str = "r1", text: str = "Hello", **members: Any) -> dict[str, Any]:
    return {"key": key, "request": a_request(text)} | members


def a_response(text: str | None = "Hi", **candidate: Any) -> dict[str, Any]:
    parts = [] if text is None else [{"text": text}]
    return {
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"} | candidate],
        "modelVersion": "gemini-3.8-flash",
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15},
    }


def an_output(key: Any = "r1", text: str | None = "Hi", **members: Any) -> dict[str, Any]:
    return {
        "key": key,
        "status": "",
        "processed_time": "2026-11-22T03:04:05.678901+00:00",
        "request": a_request(),
        "response": a_response(text),
    } | members


def a_failed_output(key: Any = "r1", code: int = 400, word: str = "INVALID_ARGUMENT", **members: Any) -> dict[str, Any]:
    error = json.dumps({"error": {"code": code, "message": "No.", "status": word}})
    return an_output(key, response={}, status=f"Bad Request: {error}") | members


def jsonl(*lines: Any) -> bytes:
    """Return lines as a file; what is bytes already stays as it is."""
    return b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)


def a_job_doc(**members: Any) -> dict[str, Any]:
    """A batchPredictionJob as the REST API gives it."""
    return {
        "name": JOB_NAME,
        "displayName": "nightly",
        "model": "publishers/google/models/gemini-3.8-flash",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://in/requests.jsonl"]}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://out/"}},
        "state": "JOB_STATE_RUNNING",
        "createTime": "2026-11-22T02:00:00.123456Z",
    } | members


def a_job(state: JobState = JobState.SUCCEEDED, **members: Any) -> BatchJob:
    return BatchJob(**{"name": JOB_NAME, "state": state, "state_text": str(state), "created_at": NIGHT} | members)


def a_spec(**members: Any) -> JobSpec:
    made = {
        "display_name": "nightly",
        "model": "gemini-3.8-flash",
        "inputs": ("gs://in/r.jsonl",),
        "output": "gs://out/o",
    }
    return JobSpec(**made | members)


def an_identity(**members: Any) -> Identity:
    who = {"staging": STAGING, "dag_id": "nightly", "task_id": "create", "run_id": "scheduled__2026-11-22"}
    return Identity(**who | members)


def a_log(
    store: Any,
    attempt: str = "a",
    now: Any = None,
    *,
    task: str = "me",
    part: Part | None = None,
    installation: str = "",
) -> JobLog:
    """What the log of a task's batch says of one of its jobs."""
    return BatchLog(store, an_identity(task_id=task), attempt, now, installation=installation).of_job(part or Part())


def a_row(key: str = "r1", status: RowStatus = RowStatus.SUCCEEDED, **members: Any) -> ResultRow:
    return ResultRow(key=key, status=status, **members)


def an_order(log: JobLog, service: Any, **changes: Any) -> Order:
    """One job to buy; what is no member of an order is one of its terms."""
    members = {"spec": a_spec(), "content": "c1", "owns": lambda: True}
    members = {name: changes.pop(name, value) for name, value in members.items()}
    return Order(log=log, service=service, terms=Terms(**changes), **members)
