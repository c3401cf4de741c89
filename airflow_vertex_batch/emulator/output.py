"""Where do the rows go? A folder of Cloud Storage or a BigQuery table, in the layout the service writes.

Invariants: published output is complete up to some row and replaces the output that was published before. Publishing
the same rows twice gives the same output. Lines are streamed, never collected.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.emulator.importer import JobFailedError, decode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_vertex_batch.core.domain.address import TableId, Uri
    from airflow_vertex_batch.core.domain.ports import ObjectStore, Warehouse
    from airflow_vertex_batch.emulator.scenario import Switches
    from airflow_vertex_batch.emulator.spool import Answers

#: Rows of one file when output is sharded. The service's number is not known; small, so that tests meet several shards.
SHARD_ROWS = 1_000
#: Fewest shards, so that even a small job shows what sharding means.
MIN_SHARDS = 2

_encode = msgspec.json.Encoder().encode


class Output(Protocol):
    """A destination."""

    def check(self) -> None:
        """Raise `JobFailedError` when it cannot be written to, before anything is answered."""

    def publish(self, answers: Answers, *, final: bool) -> None:
        """Make the rows so far visible. :raises JobFailedError: when they cannot be written."""

    def discard(self) -> None:
        """Remove what was published."""


class FolderOutput:
    """``predictions.jsonl`` in a folder of its own.

    :param row_count: rows the job will have, for the names of shards.
    """

    def __init__(self, store: ObjectStore, folder: Uri, switches: Switches, row_count: int) -> None:
        self._store, self._folder, self._layout, self._row_count = store, folder, switches.output_files, row_count

    def check(self) -> None:
        """Look into the bucket."""
        with exporting(str(self._folder)):
            next(iter(self._store.list(self._folder)), None)

    def publish(self, answers: Answers, *, final: bool) -> None:
        """Write the files again, because objects of Cloud Storage cannot grow."""
        with exporting(str(self._folder)):
            if self._layout == "shards":
                self._publish_shards(answers, final=final)
            else:
                name = "predictions.jsonl" if final or self._layout == "single" else "incremental_predictions.jsonl"
                self._write(name, answers.records())

    def discard(self) -> None:
        """Delete everything in the folder."""
        for found in list(self._store.list(self._folder / "")):
            self._store.delete(found.uri)

    def _publish_shards(self, answers: Answers, *, final: bool) -> None:
        count = max(MIN_SHARDS, -(-self._row_count // SHARD_ROWS))
        records = answers.records()
        done = answers.account.row_count
        for shard in range(count):
            start, end = (self._row_count * edge // count for edge in (shard, shard + 1))
            if end > done and not final:
                return
            rows = (record for _, record in zip(range(end - start), records, strict=False))
            self._write(f"predictions.jsonl-{shard:05}-of-{count:05}", rows)

    def _write(self, name: str, records: Iterator[list[bytes]]) -> None:
        with self._store.open_write(self._folder / name) as stream:
            for lines in records:
                for line in lines:
                    stream.write(line + b"\n")


class TableOutput:
    """One table of a BigQuery dataset: the input's columns, then ``request``, ``response``, ``status``,
    ``processed_time``.

    Rows appear when the job ends: the port has no way to append to a table.

    :param columns: the input's own columns, in BigQuery's API form.
    :param staging: an object for the rows on their way into the table.
    """

    def __init__(
        self,
        store: ObjectStore,
        warehouse: Warehouse,
        table: TableId,
        columns: list[dict[str, str]],
        staging: Uri,
        switches: Switches,
    ) -> None:
        self._store, self._warehouse, self._table, self._staging = store, warehouse, table, staging
        self._append = switches.existing_table == "append"
        self._as_text = switches.bigquery_response == "STRING"
        kind = switches.bigquery_response
        own = (("request", kind), ("response", kind), ("status", "STRING"), ("processed_time", "TIMESTAMP"))
        self._schema = [*columns, *({"name": name, "type": type_name, "mode": "NULLABLE"} for name, type_name in own)]

    def check(self) -> None:
        """Refuse a table that exists, unless rows are to be added to it."""
        with exporting(str(self._table)):
            exists = self._warehouse.count(self._table) is not None
        if exists and not self._append:
            raise JobFailedError(3, f"Already Exists: Table {self._table}. The destination table must not exist.")

    def publish(self, answers: Answers, *, final: bool) -> None:
        """Stage the rows as an object and load it, once."""
        if not final:
            return
        with exporting(str(self._table)):
            with self._store.open_write(self._staging) as stream:
                for lines in answers.records():
                    for line in lines:
                        stream.write(self._row(line))
            self._load()
            self._store.delete(self._staging)

    def discard(self) -> None:
        """Do nothing: no row is visible before the end."""

    def _row(self, line: bytes) -> bytes:
        if not self._as_text:
            return line + b"\n"
        row: dict[str, Any] = decode(line)
        texts = {name: _encode(row[name]).decode() for name in ("request", "response") if row.get(name) is not None}
        return _encode(row | texts) + b"\n"

    def _load(self) -> None:
        # The object's folder is named after the job, so its name makes a job id that is the same on a second try.
        job_id = f"vertex_batch_emulator_{self._staging.name.split('/')[-2]}"
        if not self._append or self._warehouse.count(self._table) is None:
            self._warehouse.load([str(self._staging)], self._table, self._schema, job_id=job_id)
            return
        new = self._table.sibling(f"{self._table.table}_new")
        names = ", ".join(f"`{field['name']}`" for field in self._schema)
        self._warehouse.load([str(self._staging)], new, self._schema, job_id=job_id)
        insert = f"INSERT INTO `{self._table}` ({names}) SELECT {names} FROM `{new}`"  # noqa: S608 - names of our own
        self._warehouse.execute(insert, job_id=f"{job_id}_append")
        self._warehouse.drop(new)


@contextlib.contextmanager
def exporting(destination: str) -> Iterator[None]:
    """Turn what the ports raise into the job's end: 7 no right to write (F1), 9 no such bucket (F1), 13 anything
    else.
    """
    try:
        yield
    except InputError as error:
        raise JobFailedError(9, f"The location of the destination {destination} was not found: {error}") from error
    except ServiceError as error:
        if error.status in {401, 403}:
            raise JobFailedError(
                7,
                # As captured on 2026-09-02 (`tests/cases/real/jobs/j08`), but for the project's number.
                "Service account service-1@gcp-sa-aiplatform.iam.gserviceaccount.com doesn't have sufficient "
                f'permission "storage.objects.create" to write {destination}.',
            ) from error
        raise JobFailedError(13, f"Failed to export data to {destination}. Please try again. {error}") from error
