"""Which questions are asked before a batch, and what do the answers look like? The plan, the port to Google, and the
findings.

Invariants: a finding is *ok* only if Google, or a table with a source, said so. A question that nobody can answer is
*unknown*, with the reason. Nothing here creates anything or costs anything, except the one canary row that was asked
for.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.errors import VertexBatchError
from airflow_vertex_batch.core.domain.record import Record
from airflow_vertex_batch.core.requests.request import RequestTemplate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


#: What lets an account make and fill tables of a dataset, in the two spellings of its access list
#: (https://cloud.google.com/bigquery/docs/access-control-basic-roles, 2026-11-25).
DATASET_WRITERS = frozenset({"WRITER", "OWNER", "roles/bigquery.dataEditor", "roles/bigquery.dataOwner"})


class Verdict(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Finding(Record, frozen=True, kw_only=True):
    """What one check found.

    :param check: a stable name (people let checks fail by name).
    :param subject: the bucket or table it is about; empty for checks of the whole.
    :param why: why it matters.
    :param todo: what to do; empty when all is well.
    :param is_temporary: whether looking again may find it otherwise.
    """

    check: str
    verdict: Verdict
    found: str
    subject: str = ""
    why: str = ""
    todo: str = ""
    is_temporary: bool = False

    def __str__(self) -> str:
        about = f"{self.check} {self.subject}".strip()
        return f"{about}: {self.verdict}: {self.found}" + (f". {self.todo}" if self.todo else "")


class CheckResult(msgspec.Struct, frozen=True):
    """What a check says; the table of checks knows its name and why it matters."""

    verdict: Verdict
    found: str
    todo: str = ""
    is_temporary: bool = False


def good(found: str) -> CheckResult:
    """All is well."""
    return CheckResult(Verdict.OK, found)


def warning(found: str, todo: str) -> CheckResult:
    """It may work, at a price that the author should know."""
    return CheckResult(Verdict.WARNING, found, todo)


def failed(found: str, todo: str) -> CheckResult:
    """The batch cannot work like this."""
    return CheckResult(Verdict.FAILED, found, todo)


def unknown(found: str, todo: str = "") -> CheckResult:
    """It cannot be found out here."""
    return CheckResult(Verdict.UNKNOWN, found, todo)


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """One row to ask online, as the batch would ask it."""

    template: RequestTemplate = RequestTemplate(prompt="Hello")
    row: dict[str, Any] = {}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The things that the batch will use.

    :param staging: ``gs://`` folder of request files, job output and logs.
    :param source: what prepare reads: ``bq://`` table, ``gs://`` files, or a local path.
    :param destination: where export lands: ``bq://`` table or ``gs://`` folder.
    :param input: what the job itself reads, if it is not a file in the staging folder.
    :param output: where the job itself writes, if it is not a folder in the staging folder.
    :param begins: when the job will be created, with its timezone; now if not given.
    """

    project: str
    location: str
    model: str
    staging: str = ""
    source: str = ""
    destination: str = ""
    input: str = ""
    output: str = ""
    labels: dict[str, str] = {}
    display_name: str = ""
    canary: Canary | None = None
    begins: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))

    @property
    def job_uris(self) -> tuple[str, ...]:
        """The addresses that the job reads and writes, under Google's own account."""
        return tuple(uri for uri in (self.staging, self.input, self.output) if uri)

    def job_buckets(self) -> list[str]:
        """Return the buckets that the job reads or writes. :raises InputError: for an address that is none."""
        return _unique(_buckets(self.job_uris))

    def written_buckets(self) -> list[str]:
        """Return the buckets that the tasks write to. :raises InputError: for an address that is none."""
        return _unique(_buckets((self.staging, self.destination)))

    def job_tables(self) -> list[str]:
        """Return the tables, or datasets, that the job reads or writes."""
        return _unique(uri for uri in (self.input, self.output) if uri.startswith("bq://"))

    def written_tables(self) -> list[str]:
        """Return the tables, or datasets, in which a table is made."""
        return _unique(uri for uri in (self.output, self.destination) if uri.startswith("bq://"))

    def tables(self) -> list[str]:
        """Return all tables whose dataset's place matters."""
        return _unique([*self.job_tables(), *self.written_tables()])


def _buckets(uris: Collection[str]) -> Iterator[str]:
    addresses = (Uri.parse(uri) for uri in uris if uri and not uri.startswith("bq://"))
    return (address.bucket for address in addresses if address.scheme == "gs")


def _unique(names: Any) -> list[str]:
    return list(dict.fromkeys(names))


def dataset_of(uri: str) -> tuple[str, str]:
    """Return project and dataset of ``bq://project[.dataset[.table]]``; the dataset may be left open."""
    parts = uri.removeprefix("bq://")
    if parts.count(".") + parts.count(":") >= 2:  # noqa: PLR2004 - project, dataset and table
        table = TableId.parse(parts)
        return table.project, table.dataset
    project, _, dataset = parts.partition(".")
    return project, dataset


class Cloud(Protocol):
    """Questions to Google. Every method only reads, and only `generate` costs money. The same question is sent once.

    :raises ServiceError: with HTTP status and Google's reason word, when the answer is no.
    :raises CannotAskError: when there is no server to ask.
    """

    def principal(self) -> str:
        """Get a token, and return the account; empty if the credentials do not say."""

    def project(self, project: str) -> dict[str, Any]:
        """Return a Resource Manager project: ``name`` (with the number), ``projectId``, ``state``."""

    def project_policy(self, project: str) -> dict[str, Any]:
        """Return the IAM policy of a project."""

    def project_permissions(self, project: str, wanted: Collection[str]) -> frozenset[str]:
        """Return those of `wanted` that the caller holds on a project."""

    def jobs(self) -> list[dict[str, Any]]:
        """Return one batch prediction job, or none, of the project and location."""

    def model(self, path: str) -> dict[str, Any]:
        """Return a publisher model or a tuned one."""

    def generate(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """Ask one request online."""

    def bucket(self, bucket: str) -> dict[str, Any]:
        """Return a bucket's settings."""

    def bucket_policy(self, bucket: str) -> dict[str, Any]:
        """Return the IAM policy of a bucket."""

    def bucket_permissions(self, bucket: str, wanted: Collection[str]) -> frozenset[str]:
        """Return those of `wanted` that the caller holds on a bucket."""

    def has_objects(self, uri: Uri) -> bool:
        """Whether any object's name begins like this one's."""

    def dataset(self, project: str, dataset: str) -> dict[str, Any]:
        """Return a dataset's settings."""

    def table(self, table: TableId) -> dict[str, Any]:
        """Return a table's settings."""

    def table_permissions(self, table: TableId, wanted: Collection[str]) -> frozenset[str]:
        """Return those of `wanted` that the caller holds on a table."""


def reason_text(error: VertexBatchError) -> str:
    """Return what happened and why, without the parts that say what to do."""
    return (f"{error.what}: {error.why}" if error.why else error.what).rstrip(".")
