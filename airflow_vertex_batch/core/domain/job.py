"""What is a batchPredictionJob? Two records: how it is asked for, and how the service describes it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Self

import msgspec

from airflow_vertex_batch.core.domain.address import JobName, model_path
from airflow_vertex_batch.core.domain.record import Record
from airflow_vertex_batch.core.domain.redact import redact_values


class Phase(StrEnum):
    """What a job state means to somebody waiting for rows."""

    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class JobState(StrEnum):
    """The twelve states of the service, in the order of their numbers (API definition aiplatform_v1 `JobState`)."""

    UNSPECIFIED = "JOB_STATE_UNSPECIFIED"
    QUEUED = "JOB_STATE_QUEUED"
    PENDING = "JOB_STATE_PENDING"
    RUNNING = "JOB_STATE_RUNNING"
    SUCCEEDED = "JOB_STATE_SUCCEEDED"
    FAILED = "JOB_STATE_FAILED"
    CANCELLING = "JOB_STATE_CANCELLING"
    CANCELLED = "JOB_STATE_CANCELLED"
    PAUSED = "JOB_STATE_PAUSED"
    EXPIRED = "JOB_STATE_EXPIRED"
    UPDATING = "JOB_STATE_UPDATING"
    PARTIALLY_SUCCEEDED = "JOB_STATE_PARTIALLY_SUCCEEDED"

    @classmethod
    def read(cls, value: object) -> JobState:
        """Return the state for the service's text or number; what is not known yet is ``UNSPECIFIED``, which waits."""
        if isinstance(value, int) and 0 <= value < len(cls):
            return list(cls)[value]
        try:
            return cls(str(value))
        except ValueError:
            return cls.UNSPECIFIED

    @property
    def number(self) -> int:
        """The enum number that protobuf clients send and expect."""
        return list(JobState).index(self)

    @property
    def phase(self) -> Phase:
        """What this state means to somebody waiting."""
        return _PHASES.get(self, Phase.WAITING)

    @property
    def is_final(self) -> bool:
        """Whether the job will never change again."""
        return self.phase is not Phase.WAITING


#: Every state that is not here waits, PAUSED and UPDATING included: both can go on, and the deadline bounds them.
_PHASES = {
    JobState.SUCCEEDED: Phase.SUCCEEDED,
    JobState.PARTIALLY_SUCCEEDED: Phase.PARTIAL,
    JobState.FAILED: Phase.FAILED,
    JobState.CANCELLED: Phase.CANCELLED,
    JobState.EXPIRED: Phase.EXPIRED,
}


class BatchJob(Record, frozen=True, kw_only=True):
    """One batchPredictionJob as the service last described it. Unknown members are ignored, absent ones are empty."""

    name: str
    state: JobState
    #: The service's own word for the state, kept for states that did not exist when this was written.
    state_text: str = ""
    display_name: str = ""
    model: str = ""
    labels: dict[str, str] = {}  # noqa: RUF012 - msgspec copies defaults
    #: ``gs://`` objects (wildcards allowed) or one ``bq://`` table.
    input_uris: tuple[str, ...] = ()
    #: The folder (``gs://…``) or table (``bq://…``) with the results; the one reliable pointer to them.
    output_uri: str = ""
    error_code: int = 0
    error_message: str = ""
    #: Rows by outcome; -1 where the service did not say.
    successful_count: int = -1
    failed_count: int = -1
    incomplete_count: int = -1
    #: What the service calls partial failures, such as a file that it could not read: how many it names (20 at the
    #: most: API discovery document aiplatform.v1, 2026-11-28), and the ``google.rpc.Code`` of the first.
    partial_failure_count: int = 0
    partial_failure_code: int = 0
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @classmethod
    def from_api(cls, doc: dict[str, Any]) -> Self:
        """Read a ``BatchPredictionJob`` of the REST API, leniently: counts may be strings, members may be absent."""
        source = doc.get("inputConfig") or {}
        stats = doc.get("completionStats")
        error = doc.get("error") or {}
        partial = doc.get("partialFailures") or []
        return cls(
            name=doc["name"],
            state=_state(doc),
            state_text=str(doc.get("state") or ""),
            display_name=doc.get("displayName") or "",
            model=doc.get("model") or "",
            labels=doc.get("labels") or {},
            input_uris=_input_uris(source),
            output_uri=_output_uri(doc.get("outputInfo") or {}),
            error_code=int(error.get("code") or 0),
            error_message=redact_values(str(error.get("message") or "")),
            # Zero counts are omitted by the service; a missing object means nothing was said.
            successful_count=-1 if stats is None else int(stats.get("successfulCount") or 0),
            failed_count=-1 if stats is None else int(stats.get("failedCount") or 0),
            # What is still to be done is not known where it is left out: it is said as a number, or not at all.
            incomplete_count=int((stats or {}).get("incompleteCount") or 0)
            if "incompleteCount" in (stats or {})
            else -1,
            partial_failure_count=len(partial),
            partial_failure_code=int(partial[0].get("code") or 0) if partial else 0,
            created_at=_time(doc.get("createTime")),
            started_at=_time(doc.get("startTime")),
            ended_at=_time(doc.get("endTime")),
        )

    @property
    def job_name(self) -> JobName:
        """The parsed resource name."""
        return JobName.parse(self.name)

    @property
    def has_rows(self) -> bool:
        """Whether there may be rows of an ended job to land: rows that are paid for, so that it is not bought again.

        A bad end says nothing about the rows before it. Where the service does not count them, the address of an
        output says that there may be some: what is not known is not absent.
        """
        if self.state.phase in {Phase.SUCCEEDED, Phase.PARTIAL} or self.successful_count > 0:
            return True
        return self.state.is_final and self.successful_count < 0 and bool(self.output_uri)

    @property
    def partial_failures(self) -> str:
        """One line for a log, without the service's texts: they may quote a row."""
        count, code = self.partial_failure_count, self.partial_failure_code
        return (
            f"{self.name} had {count:,} partial failures, the first with google.rpc.Code {code}: see it in the console"
        )

    @property
    def progress(self) -> str:
        """One line for a log: state and counts."""
        state = (self.state_text or self.state).removeprefix("JOB_STATE_")
        if self.successful_count < 0:
            return state
        left = "" if self.incomplete_count < 0 else f", {self.incomplete_count:,} to go"
        return f"{state}: {self.successful_count:,} done, {max(self.failed_count, 0):,} failed{left}"


def _state(doc: dict[str, Any]) -> JobState:
    """Return a job's state. One that is not known yet waits, unless the job has an end: then there may be rows to land,
    and what it did not answer is missing.
    """
    state = JobState.read(doc.get("state") or "")
    if state is JobState.UNSPECIFIED and doc.get("endTime"):
        return JobState.PARTIALLY_SUCCEEDED
    return state


def _input_uris(source: dict[str, Any]) -> tuple[str, ...]:
    if table := source.get("bigquerySource"):
        return (table.get("inputUri") or "",)
    uris = (source.get("gcsSource") or {}).get("uris") or []
    return (uris,) if isinstance(uris, str) else tuple(uris)


def _output_uri(info: dict[str, Any]) -> str:
    if folder := info.get("gcsOutputDirectory"):
        return str(folder)
    dataset, table = info.get("bigqueryOutputDataset") or "", info.get("bigqueryOutputTable") or ""
    if not table or table.startswith("bq://"):
        return str(table)
    # The service gives the dataset as an address and the table as a bare name; a dotted name is already whole.
    return f"bq://{table}" if "." in table else f"{dataset}.{table}"


def _time(text: str | None) -> datetime | None:
    return msgspec.convert(text, datetime) if text else None


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask of the create call, as printed on the user's page.

    :param display_name: at most 128 characters (API discovery document aiplatform.v1, 2026-11-22).
    :param inputs: ``gs://…`` objects, or exactly one ``bq://…`` table.
    :param output: a ``gs://`` folder or a ``bq://`` dataset or table.
    :param location: where the job is made; the service's own location where empty.
    """

    display_name: str
    model: str
    inputs: tuple[str, ...]
    output: str
    labels: dict[str, str] = {}
    location: str = ""

    def body(self) -> dict[str, Any]:
        """Return the JSON body of ``batchPredictionJobs.create``."""
        if self.inputs[0].startswith("bq://"):
            source: dict[str, Any] = {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": self.inputs[0]}}
        else:
            source = {"instancesFormat": "jsonl", "gcsSource": {"uris": list(self.inputs)}}
        if self.output.startswith("bq://"):
            sink: dict[str, Any] = {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": self.output}}
        else:
            sink = {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": self.output}}
        body = {
            "displayName": self.display_name,
            "model": model_path(self.model),
            "inputConfig": source,
            "outputConfig": sink,
        }
        return {**body, "labels": self.labels} if self.labels else body
