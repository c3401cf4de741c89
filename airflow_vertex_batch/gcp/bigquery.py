"""How are tables read and written in BigQuery? `Warehouse` over google-cloud-bigquery.

Invariants: every job that changes a table has a caller-chosen id, so that the same call twice changes it once: "already
exists" means resume. Dates and times come out as ISO text, so that a prompt shows them the same from every source.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import os
import re
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.address import TableId
from airflow_vertex_batch.core.errors import InputError, ServiceError
from airflow_vertex_batch.gcp.auth import credentials_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from google.auth.credentials import Credentials
    from google.cloud.bigquery import Client, SchemaField, Table
    from google.cloud.bigquery.job import LoadJob

#: Rows fetched at once: a page of this many 1 KB rows stays near 10 MB, the most one page of the API holds.
PAGE_ROWS = 10_000
#: Attempts at a deterministic job id: each one that failed in BigQuery stays in the project's history under its number.
MAX_JOB_ATTEMPTS = 100

#: What BigQuery says, as a 400, to statements that met on one table, and what the local server says to the same
#: (https://cloud.google.com/bigquery/docs/error-messages, 2026-11-22).
_CONCURRENT = re.compile(r"could not serialize access|concurrent update|write-write conflict", re.IGNORECASE)

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
    """

    def __init__(self, client: Client | None = None, project: str = "", credentials: Credentials | None = None) -> None:
        self._client, self._project, self._credentials = client, project, credentials

    @classmethod
    def of(cls, project: str, credentials: Credentials) -> BigQueryWarehouse:
        """Return the warehouse of an account."""
        return cls(project=project, credentials=credentials)

    @property
    def client(self) -> Client:
        """The underlying client, made on first use."""
        # Not before it is needed: the import takes a second of processor time, and most tasks touch no table.
        if self._client is None:
            from google.auth.credentials import AnonymousCredentials
            from google.cloud.bigquery import Client

            project, credentials = self._project or None, self._credentials
            if credentials is None and os.environ.get("BIGQUERY_EMULATOR_HOST"):
                project = project or "emulator"
                credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
            self._client = Client(project=project, credentials=credentials)
        return self._client

    def rows(self, query: str | TableId, parameters: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Stream a table's rows or a query's.

        :param query: a table, or SQL with ``@name`` parameters.
        """
        with _translated(str(query) if isinstance(query, TableId) else "the source query"):
            if isinstance(query, TableId):
                found = self.client.list_rows(str(query), page_size=PAGE_ROWS)
            else:
                found = self.client.query(query, job_config=_query_config(parameters)).result(page_size=PAGE_ROWS)
            for row in found:
                yield {name: _plain(value) for name, value in row.items()}

    def count(self, table: TableId) -> int | None:
        """Return a table's row count, or None when there is no such table."""
        from google.api_core.exceptions import NotFound

        with _translated(str(table)):
            try:
                return self.client.get_table(str(table)).num_rows or 0
            except NotFound:
                return None

    def create_table(self, table: TableId, schema: Iterable[Mapping[str, Any]], **options: Any) -> None:
        """Create a table unless it exists; one that does gets the columns it lacks, which are NULL in its rows.

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
        with _translated(str(table)):
            self._add_columns(self.client.create_table(made, exists_ok=True), made.schema)

    def _add_columns(self, found: Table, wanted: Iterable[SchemaField]) -> None:
        """Add what a table made by an older version lacks."""
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
            self.client.update_table(found, ["schema"])
        except PreconditionFailed:
            # Another task changed the table since it was read: perhaps it added them.
            self._add_columns(self.client.get_table(found.reference), wanted)

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
            return self.client.load_table_from_uri(sources, str(table), job_id=attempt_id, job_config=config)

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
        with _translated(job_id):
            job = self.client.query(sql, job_id_prefix=f"{job_id}-", job_config=_query_config(parameters))
            job.result()
            return int(job.num_dml_affected_rows or 0)

    def drop(self, table: TableId) -> None:
        """Delete a table; one that does not exist is no error."""
        with _translated(str(table)):
            self.client.delete_table(str(table), not_found_ok=True)

    def _once(self, start: Any, job_id: str, *, still_valid: Any, subject: str) -> Any:
        """Run a job under `job_id`; an id that exists is waited for, and used again only if its effect still stands."""
        from google.api_core.exceptions import Conflict

        for attempt in range(MAX_JOB_ATTEMPTS):
            attempt_id = f"{job_id}-{attempt}"
            with _translated(subject):
                try:
                    job = start(attempt_id)
                except Conflict:
                    job = self.client.get_job(attempt_id)
                    if not self._ended_well(job) or not still_valid(job):
                        continue
                job.result()
                return job
        raise ServiceError(
            f"BigQuery job {job_id} ended {MAX_JOB_ATTEMPTS} times without leaving its table",
            status=409,
            todo="Look at the job's errors in the BigQuery console",
        )

    @staticmethod
    def _ended_well(job: Any) -> bool:
        from google.api_core.exceptions import GoogleAPICallError

        with contextlib.suppress(GoogleAPICallError):
            job.result()
            return True
        return False


def _query_config(parameters: Mapping[str, Any] | None) -> Any:
    from google.cloud import bigquery

    known = [
        bigquery.ScalarQueryParameter(name, _PARAMETER_TYPES.get(type(value), "STRING"), value)
        for name, value in (parameters or {}).items()
    ]
    return bigquery.QueryJobConfig(query_parameters=known)


def _plain(value: Any) -> Any:
    """Return a JSON-safe value; nested values are handled by the encoder, which knows dates and decimals."""
    return value.isoformat() if isinstance(value, dt.date | dt.time) else value


@contextlib.contextmanager
def _translated(subject: str) -> Iterator[None]:
    from google.api_core.exceptions import BadRequest, GoogleAPICallError, NotFound, RetryError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except (NotFound, BadRequest) as error:
        if _CONCURRENT.search(error.message):
            raise ServiceError(f"BigQuery was busy with {subject}", status=503, why=error.message) from error
        raise InputError(
            f"BigQuery refused {subject}",
            why=error.message,
            todo="Check the names of project, dataset and table, and that the dataset is in the job's region",
        ) from error
    except GoogleAPICallError as error:
        raise ServiceError(
            f"BigQuery failed on {subject} with HTTP {error.code}", status=int(error.code or 0), why=error.message
        ) from error
    except GoogleAuthError as error:
        raise credentials_error(subject, error) from error
    except (RequestException, RetryError) as error:
        raise ServiceError(f"BigQuery did not answer about {subject}", status=0, why=type(error).__name__) from error
