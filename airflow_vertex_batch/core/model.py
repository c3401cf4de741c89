"""Which states can a job be in, and what passes from task to task? Job states, jobs and prepared sets as frozen values.

Invariants: the state table has exactly the twelve states of the service (a test compares it with the API definition);
every record that crosses XCom or a file carries a schema version and survives `from_dict(as_dict())`.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

import msgspec

from airflow_vertex_batch.core.address import JobName, model_path
from airflow_vertex_batch.core.errors import InputError


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


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the records that cross XCom, the ledger or a file: plain dicts outside, one type inside."""

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON-safe builtins."""
        return msgspec.json.decode(msgspec.json.encode(self))  # type: ignore[no-any-return]  # lists, not tuples, as XCom gives back

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """Read `as_dict()` back; unknown members are ignored, so that an older task reads a newer record.

        :raises InputError: when a member is missing or of the wrong type.
        """
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise InputError(
                f"This is not a {cls.__name__.lower()} of airflow-vertex-batch",
                why=str(error),
                todo="Pass the output of the task before this one",
            ) from error


class BatchJob(Record, frozen=True, kw_only=True):
    """One batchPredictionJob as the service last described it. Unknown members are ignored, absent ones are empty."""

    name: str
    state: JobState
    #: The service's own word for the state, kept for states that did not exist when this was written.
    state_text: str = ""
    display_name: str = ""
    model: str = ""
    labels: dict[str, str] = {}
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
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @classmethod
    def from_api(cls, doc: dict[str, Any]) -> Self:
        """Read a ``BatchPredictionJob`` of the REST API, leniently: counts may be strings, members may be absent."""
        source = doc.get("inputConfig") or {}
        stats = doc.get("completionStats")
        error = doc.get("error") or {}
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
            error_message=error.get("message") or "",
            # Zero counts are omitted by the service; a missing object means nothing was said.
            successful_count=-1 if stats is None else int(stats.get("successfulCount") or 0),
            failed_count=-1 if stats is None else int(stats.get("failedCount") or 0),
            incomplete_count=-1 if stats is None else int(stats.get("incompleteCount") or 0),
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


class Identity(Record, frozen=True, kw_only=True):
    """Who a job belongs to: a task of a run, never one try of it. The same identity never owns two paid jobs.

    :param staging: the staging folder whose log names the jobs. Two Airflows with folders of their own run the same
        DAG without finding each other's jobs.
    """

    staging: str = ""
    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1
    shard: int = 0
    #: 0 for the batch itself, n for its repair round n.
    round: int = 0

    @property
    def key(self) -> str:
        """32 hexadecimal digits, legal as a label value and as an object name."""
        staging = self.staging.rstrip("/")
        parts = [staging, self.dag_id, self.task_id, self.run_id, str(self.map_index), str(self.shard)]
        if self.round:
            parts.append(f"round {self.round}")
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def of_job(self, shard: int, round: int = 0) -> Self:  # noqa: A002 - the word for it
        """Return the identity of one job of this task: of one request file, in one round."""
        return msgspec.structs.replace(self, shard=shard, round=round)

    @property
    def path(self) -> str:
        """A readable folder name for this task of this run."""
        parts = [self.dag_id, self.run_id, self.task_id]
        if self.map_index >= 0:
            parts.append(str(self.map_index))
        return "/".join(safe_name(part) for part in parts)


def safe_name(text: str) -> str:
    """Return `text` as one object-name segment: other characters become ``_``; a hash keeps changed names apart."""
    clean = re.sub(r"[^\w.+=@-]", "_", text, flags=re.ASCII).strip(".")
    if clean == text:
        return clean
    return f"{clean}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


class Shard(Record, frozen=True, kw_only=True):
    """One request file: the input of one job."""

    uri: str
    request_count: int
    size_bytes: int
    #: The user's own columns of the same rows by key, or empty when none are carried.
    columns_uri: str = ""
    #: For the service's own resume: the output file that is sent instead of `uri`.
    resume_uri: str = ""
    #: Of its requests and their keys, whatever their order: two files with the same one are as good as each other.
    digest: str = ""


class Weight(Record, frozen=True, kw_only=True):
    """What the requests of a set weigh together: counted while they are written, priced by `core.estimate`.

    :param ascii_chars: characters of text, system instruction and schema included, of the ASCII kind.
    :param other_chars: the other characters.
    :param media: parts with media by kind (``image``, ``video``, ``audio``, ``document``).
    :param max_output_tokens: the most tokens that all answers together may have; 0 when a request sets no bound.
    """

    ascii_chars: int = 0
    other_chars: int = 0
    media: dict[str, int] = {}
    max_output_tokens: int = 0


class Manifest(Record, frozen=True, kw_only=True):
    """The prepared set: what will be asked, counted and fingerprinted. Small; the requests stay in Cloud Storage.

    :param version: since 2 a job is told by the file that it was given; before, by that file's size.
    :param fingerprint: of the requests, whatever their order and sharding.
    :param row_count: source rows read: the sum of the other four counts.
    :param rejected_uri: the dead-letter file of rows that were never sent, with their reasons.
    :param duplicates_uri: rows whose request is sent once, under another row's key.
    :param known_uri: rows that have a good answer from an earlier run and are not sent.
    :param fixed_count: requests that lint refused and cured; they are among those that are sent.
    :param model: the model the requests are meant for; empty when prepare was not told.
    :param round: 0 for the whole batch, n for the rows that are sent again in repair round n.
    :param response_schema: what an answer must look like, or None; kept so that export can say which answers do not.
    """

    version: int = 2
    uri: str
    fingerprint: str
    row_count: int
    request_count: int
    rejected_count: int = 0
    rejected_uri: str = ""
    duplicate_count: int = 0
    duplicates_uri: str = ""
    known_count: int = 0
    known_uri: str = ""
    fixed_count: int = 0
    shards: tuple[Shard, ...]
    response_schema: dict[str, Any] | None = None
    model: str = ""
    weight: Weight | None = None
    round: int = 0

    @property
    def files(self) -> set[str]:
        """The addresses of all files that it names."""
        beside = (self.rejected_uri, self.duplicates_uri, self.known_uri)
        return {uri for uri in (*beside, *(uri for one in self.shards for uri in (one.uri, one.columns_uri))) if uri}

    @property
    def size_bytes(self) -> int:
        """Bytes of all request files together."""
        return sum(shard.size_bytes for shard in self.shards)

    def summary(self) -> str:
        """One sentence with the counts."""
        others = (
            (self.duplicate_count, "asked under another row's key"),
            (self.known_count, "answered by an earlier run"),
            (self.fixed_count, "cured before they were sent"),
            (self.rejected_count, "rejected"),
        )
        said = "".join(f", {count:,} {what}" for count, what in others if count)
        plural = "" if len(self.shards) == 1 else "s"
        files = f"{self.request_count:,} requests in {len(self.shards)} file{plural} ({self.size_bytes:,} bytes)"
        return f"{self.row_count:,} rows: {files}{said}"
