"""How are tables read and written in BigQuery? `Warehouse` over google-cloud-bigquery.

Invariants: every job that changes a table has a caller-chosen id, so that the same call twice changes it once: "already
exists" means resume. Dates and times come out as ISO text, so that a prompt shows them the same from every source.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import functools
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.domain.address import TableId
from airflow_vertex_batch.core.domain.errors import ChangedError, ServiceError
from airflow_vertex_batch.gcp.bigquery_errors import translated
from airflow_vertex_batch.gcp.environment import BIGQUERY_VARIABLE, default_account

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from google.auth.credentials import Credentials
    from google.cloud.bigquery import Client, SchemaField, Table
    from google.cloud.bigquery.job import LoadJob

#: Rows fetched at once: a page of this many 1 KB rows stays near 10 MB, the most one page of the API holds.
PAGE_ROWS = 10_000
#: How many numbers a deterministic job id may have. A job that failed keeps its number in the project's history, so the
#: next attempt takes the next number.
MAX_JOB_ATTEMPTS = 100
#: If a table exists already and is older than this, its time to live begins again.
_OLD_TABLE = dt.timedelta(hours=1)

#: Seconds for which a call that fails is repeated. If a server does not answer at all, it is given up after this time
#: plus one more timeout (see `gcp.transport`): seven minutes.
CALL_SECONDS = 300.0
#: Seconds until a load or a query is given up: the longest that BigQuery lets one run
#: (https://docs.cloud.google.com/bigquery/quotas#load_jobs and #query_jobs, 2026-11-28).
JOB_SECONDS = 6 * 3600

_PARAMETER_TYPES: dict[type, str] = {
    bool: "BOOL",
    int: "INT64",
    float: "FLOAT64",
    decimal.Decimal: "NUMERIC",
    dt.datetime: "TIMESTAMP",
    dt.date: "DATE",
    str: "STRING",
}


class BigQueryWarehouse:
    """BigQuery tables and queries.

    :param client: a google-cloud-bigquery client; the default one follows ``BIGQUERY_EMULATOR_HOST`` and the
        environment's credentials.
    :param project: completes ``dataset.table``.
    :param credentials: of the default client, instead of the environment's.
    :param call_seconds: for which a call that fails is repeated.
    """

    def __init__(
        self,
        client: Client | None = None,
        project: str = "",
        credentials: Credentials | None = None,
        *,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        self._client, self._project, self._credentials = client, project, credentials
        self._call_seconds = call_seconds

    @classmethod
    def of(cls, project: str, credentials: Credentials) -> BigQueryWarehouse:
        """Return the warehouse of an account."""
        return cls(project=project, credentials=credentials)

    @property
    def client(self) -> Client:
        """The underlying client, made on first use."""
        # Not before it is needed: the import takes a second of processor time, and most tasks touch no table.
        if self._client is None:
            from google.cloud.bigquery import Client

            from airflow_vertex_batch.gcp.transport import bounded_session

            project, credentials = self._project, self._credentials
            if credentials is None:
                found, credentials = default_account(BIGQUERY_VARIABLE)
                project = project or found
            self._client = Client(project or None, credentials, _http=bounded_session(credentials))
        return self._client

    @functools.cached_property
    def _call(self) -> dict[str, Any]:
        """How each call is repeated."""
        from google.cloud.bigquery.retry import DEFAULT_RETRY

        return {"retry": DEFAULT_RETRY.with_timeout(self._call_seconds)}

    @functools.cached_property
    def _job(self) -> dict[str, Any]:
        """The options for waiting for a query: if BigQuery lost the query, it is run again."""
        from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY

        return {**self._call, "job_retry": DEFAULT_JOB_RETRY.with_timeout(self._call_seconds), "timeout": JOB_SECONDS}

    def _query(self, sql: str, parameters: Mapping[str, Any] | None, **options: Any) -> Any:
        # `job_retry` is used when the result is fetched; here it would only double the time of a call.
        return self.client.query(sql, job_config=_query_config(parameters), **self._call, job_retry=None, **options)

    def rows(self, query: str | TableId, parameters: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Stream a table's rows or a query's.

        All rows of a query are of one moment; the pages of a table are not.

        :param query: a table, or SQL with ``@name`` parameters.
        :raises ChangedError: at the end, when the table has changed since the beginning.
        """
        is_table = isinstance(query, TableId)
        # A table is read as it is: nothing is converted, so no message quotes a value.
        with translated(str(query) if is_table else "the source query", reads_rows=not is_table):
            if isinstance(query, TableId):
                yield from self._table_rows(query)
            else:
                yield from _plain_rows(self._query(query, parameters).result(page_size=PAGE_ROWS, **self._job))

    def _table_rows(self, table: TableId) -> Iterator[dict[str, Any]]:
        at_first = self.client.get_table(str(table), **self._call)
        yield from _plain_rows(self.client.list_rows(at_first, page_size=PAGE_ROWS, **self._call))
        if _version(self.client.get_table(str(table), **self._call)) != _version(at_first):
            raise ChangedError(
                f"{table} was changed while it was read",
                left="Nothing of it was used",
                todo="A retry reads it anew; a table that changes all the time can be read by a query, which sees one "
                "moment: SELECT * FROM it",
            )

    def count(self, table: TableId) -> int | None:
        """Return a table's row count, or None when there is no such table."""
        from google.api_core.exceptions import NotFound

        with translated(str(table)):
            try:
                return self.client.get_table(str(table), **self._call).num_rows or 0
            except NotFound:
                return None

    def create_table(self, table: TableId, schema: Iterable[Mapping[str, Any]], **options: Any) -> None:
        """Create a table if it does not exist. An existing table gets the columns that it lacks; they are NULL in its
        rows.

        :param options: ``partition_column`` (a DATE column), ``clustering`` (column names), ``expires_in`` (seconds),
            ``description``.
        """
        from google.cloud import bigquery

        made = bigquery.Table(str(table), schema=[bigquery.SchemaField.from_api_repr(dict(field)) for field in schema])
        if column := options.get("partition_column"):
            made.time_partitioning = bigquery.TimePartitioning(field=column)
        made.clustering_fields = options.get("clustering")
        made.description = options.get("description")
        if seconds := options.get("expires_in"):
            made.expires = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
        with translated(str(table)):
            found = self.client.create_table(made, exists_ok=True, **self._call)
            self._add_columns(found, made.schema)
            self._prolong(found, made.expires)

    def _prolong(self, found: Table, expires: dt.datetime | None) -> None:
        """Let a table of an earlier attempt live as long as a new table."""
        from google.api_core.exceptions import PreconditionFailed

        if expires is not None and found.expires is not None and found.expires < expires - _OLD_TABLE:
            found.expires = expires
            # If another attempt has changed the table meanwhile, it has extended its life too.
            with contextlib.suppress(PreconditionFailed):
                self.client.update_table(found, ["expires"], **self._call)

    def _add_columns(self, found: Table, wanted: Iterable[SchemaField]) -> None:
        """Add the columns that a table of an older version lacks."""
        from google.api_core.exceptions import PreconditionFailed
        from google.cloud.bigquery import SchemaField

        # Names of columns are compared as BigQuery does, whatever their case.
        have = {field.name.lower() for field in found.schema}
        # A column that is added must not be REQUIRED: the rows that are there have no value for it
        # (https://cloud.google.com/bigquery/docs/managing-table-schemas, 2026-11-22).
        lacking = [
            SchemaField.from_api_repr({**field.to_api_repr(), "mode": "NULLABLE"})
            if field.mode == "REQUIRED"
            else field
            for field in wanted
            if field.name.lower() not in have
        ]
        if not lacking:
            return
        found.schema = [*found.schema, *lacking]
        try:
            self.client.update_table(found, ["schema"], **self._call)
        except PreconditionFailed:
            # Another task changed the table since it was read: perhaps it added them.
            self._add_columns(self.client.get_table(found.reference, **self._call), wanted)

    def load(self, uris: Iterable[str], table: TableId, schema: Iterable[Mapping[str, Any]], *, job_id: str) -> int:
        """Replace `table` with the JSON rows of `uris`.

        :param job_id: names this load; the same id twice loads once, as long as the rows are still there.
        """
        from google.cloud import bigquery

        config = bigquery.LoadJobConfig(
            source_format="NEWLINE_DELIMITED_JSON",
            write_disposition="WRITE_TRUNCATE",
            schema=[bigquery.SchemaField.from_api_repr(dict(field)) for field in schema],
        )
        sources = list(uris)

        def start(attempt_id: str) -> LoadJob:
            return self.client.load_table_from_uri(
                sources, str(table), job_id=attempt_id, job_config=config, **self._call
            )

        def still_there(job: LoadJob) -> bool:
            # The table may have been dropped since, and made again empty.
            return self.count(table) == int(job.output_rows or 0)

        job = self._once(start, job_id, still_valid=still_there, subject=str(table))
        return int(job.output_rows or 0)

    def execute(self, sql: str, *, job_id: str, parameters: Mapping[str, Any] | None = None) -> int:
        """Run one idempotent statement and return the rows it touched.

        :param job_id: begins the job's id, for the project's history; every call runs, for a table may have changed
            since.
        """
        with translated(job_id, reads_rows=True):
            job = self._query(sql, parameters, job_id_prefix=f"{job_id}-")
            job.result(**self._job)
            return int(job.num_dml_affected_rows or 0)

    def drop(self, table: TableId) -> None:
        """Delete a table; one that does not exist is no error."""
        from google.api_core.exceptions import NotFound

        with translated(str(table)):
            try:
                self.client.delete_table(str(table), **self._call)
            except NotFound:
                # A server may not know a new table yet. If the table exists, a second question shows it.
                if self.count(table) is not None:
                    self.client.delete_table(str(table), not_found_ok=True, **self._call)

    def _once(self, start: Any, job_id: str, *, still_valid: Any, subject: str) -> Any:
        """Run a job under `job_id`. If the id exists already, wait for that job, and use it only if its effect is still
        there.
        """
        from google.api_core.exceptions import Conflict

        for attempt in range(MAX_JOB_ATTEMPTS):
            attempt_id = f"{job_id}-{attempt}"
            with translated(subject, reads_rows=True):
                try:
                    job = start(attempt_id)
                except Conflict:
                    job = self.client.get_job(attempt_id, **self._call)
                    if not self._ended_well(job) or not still_valid(job):
                        continue
                self._wait(job)
                return job
        raise ServiceError(
            f"BigQuery job {job_id} ended {MAX_JOB_ATTEMPTS} times without leaving its table",
            status=409,
            todo="Look at the job's errors in the BigQuery console",
        )

    def _wait(self, job: Any) -> None:
        job.result(timeout=JOB_SECONDS, **self._call)

    def _ended_well(self, job: Any) -> bool:
        from google.api_core.exceptions import GoogleAPICallError

        with contextlib.suppress(GoogleAPICallError):
            self._wait(job)
            return True
        return False


def _query_config(parameters: Mapping[str, Any] | None) -> Any:
    from google.cloud import bigquery

    known = [
        bigquery.ScalarQueryParameter(name, _PARAMETER_TYPES.get(type(value), "STRING"), value)
        for name, value in (parameters or {}).items()
    ]
    return bigquery.QueryJobConfig(query_parameters=known)


def _plain_rows(rows: Any) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {name: _plain(value) for name, value in row.items()}


def _version(table: Table) -> tuple[Any, ...]:
    """Return a text that changes with each change of a table's rows.

    BigQuery gives every table an etag. A local server that gives none keeps no times either: local-bigquery 0.4 tells
    the present one at each look at a table that a load has made.
    """
    times = (table.created, table.modified) if table.etag else ()
    return *times, table.num_rows, table.num_bytes


def _plain(value: Any) -> Any:
    """Return a JSON-safe value; nested values are handled by the encoder, which knows dates and decimals."""
    return value.isoformat() if isinstance(value, dt.date | dt.time) else value
