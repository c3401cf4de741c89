"""What happens behind RUNNING? One job's work in small pieces: import the input, answer rows, publish them.

Every piece of work is short, so that one thread can serve many jobs, and a shown state is never older than one piece.
All rows live in files (`spool`); a `Run` made anew over the same folder goes on where the last one stopped.

Invariants: a row is in the account exactly when it is in the answers file; memory grows neither with rows nor with
jobs' sizes; every error of the job's own data or destination becomes a `JobFailedError`.
"""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.errors import InputError, ServiceError, VertexBatchError
from airflow_vertex_batch.emulator.importer import OUTPUT_MEMBERS, Importer, JobFailedError, import_failure, read_lines
from airflow_vertex_batch.emulator.output import FolderOutput, Output, TableOutput
from airflow_vertex_batch.emulator.resource import table_of
from airflow_vertex_batch.emulator.rows import RowMaker
from airflow_vertex_batch.emulator.spool import Answers, Requests, shuffled
from airflow_vertex_batch.emulator.tools import Tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_vertex_batch.core.domain.ports import Warehouse
    from airflow_vertex_batch.emulator.billing import Account
    from airflow_vertex_batch.emulator.job import Job

#: Lines imported in one piece of work.
_IMPORT_LINES = 2_000
#: Longest piece of answering, in seconds: how late another job's change of state may be.
_PIECE_SECONDS = 0.05
#: Times a job's rows are published while it runs; objects cannot grow, so every time writes all of them again.
_PUBLICATIONS = 8
#: Media addresses whose existence is remembered.
_KNOWN_MEDIA = 10_000
#: Buckets that are taken as readable without asking: the user's page prints them, and a laptop has no way there.
_PUBLIC_BUCKETS = ("cloud-samples-data",)
#: Column types that do not pass through (S3, read 2026-11-22).
_REFUSED_TYPES = ("ARRAY", "STRUCT", "RANGE", "DATETIME", "GEOGRAPHY")
_API_TYPES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}


class Run:
    """The work of one job.

    :param folder: the job's own, for its files.
    """

    def __init__(self, job: Job, folder: Path, tools: Tools) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._job, self._tools = job, tools
        self._requests, self._answers = Requests(folder), Answers(folder)
        self._rows = RowMaker(job, tools, lru_cache(_KNOWN_MEDIA)(self._readable), self._requests.all)
        self._pool = ThreadPoolExecutor(tools.model.parallel) if tools.model.parallel > 1 else None
        self._order: Iterator[int] = itertools.islice(
            shuffled(job.request_count, int(job.id)), self.account.row_count, None
        )
        self._published = 0

    @property
    def account(self) -> Account:
        """What was answered and billed."""
        return self._answers.account

    # Import -----------------------------------------------------------------------------------------------------------

    def importing(self) -> Iterator[None]:
        """Read the input into the spool, yielding between pieces; sets the job's row count and columns at the end.

        :raises JobFailedError: when the input cannot be read or breaks a rule.
        """
        self._requests.clear()
        count = 0
        for line in self._table_lines() if self._job.plan.reads_table else self._object_lines():
            self._requests.append(line)
            count += 1
            self._check_limit("requests", count)
            if count % _IMPORT_LINES == 0:
                yield
        self._requests.flush()
        if not count:
            raise import_failure(self._job.plan.inputs[0], "There is no row in the input.")
        self._job.request_count = count
        self._order = shuffled(count, int(self._job.id))
        self.output().check()

    def _check_limit(self, name: str, found: int) -> None:
        allowed = getattr(self._tools.script.scenario.limits, name)
        if allowed is not None and found > allowed:
            raise JobFailedError(
                3, f"The input has more than {allowed} {name.replace('_', ' ')}, the limit of one batch prediction job."
            )

    def _object_lines(self) -> Iterator[bytes]:
        importer, total = Importer(), 0
        limits = self._tools.script.scenario.limits
        for uri in self._objects():
            try:
                with self._tools.store.open_read(uri) as stream:
                    for position, line in read_lines(stream, limits.line_bytes):
                        importer.feed(line, str(uri), position)
                        total += len(line) + 1
                        self._check_limit("input_bytes", total)
                        yield line.strip().removeprefix(b"\xef\xbb\xbf")
            except InputError as error:
                raise self._unreadable(uri) from error
            except ServiceError as error:
                raise JobFailedError(9, f"The service agent cannot read {uri}: {error}") from error
            except ValueError as error:
                raise import_failure(str(uri), str(error)) from error
        self._job.columns = importer.finish(self._job.plan.inputs[0])

    def _objects(self) -> Iterator[Uri]:
        for text in self._job.plan.inputs:
            uri = Uri.parse(text)
            if not uri.has_glob:
                yield uri
                continue
            try:
                found = [item.uri for item in self._tools.store.list(uri)]
            except VertexBatchError as error:
                raise self._unreadable(uri) from error
            if not found:
                raise self._unreadable(uri)
            yield from found

    def _unreadable(self, uri: Uri) -> JobFailedError:
        """No bucket is code 9, as captured (F1); no object in a bucket that is there is taken to be code 5."""
        try:
            next(iter(self._tools.store.list(Uri(uri.scheme, uri.bucket, ""))), None)
        except VertexBatchError:
            return JobFailedError(
                9, f"The location of the bucket gs://{uri.bucket} was not found, or it cannot be read."
            )
        return JobFailedError(5, f"Not found: {uri}. No object matches the input URI.")

    def _table_lines(self) -> Iterator[bytes]:
        table, warehouse = TableId.parse(self._job.plan.inputs[0]), self._warehouse()
        self._check_region(table)
        try:
            if warehouse.count(table) is None:
                raise JobFailedError(5, f"Not found: Table {table} was not found in location {self._job.location}.")
            self._job.columns = self._table_columns(table)
            for row in warehouse.rows(table):
                yield msgspec.json.encode(row)
        except VertexBatchError as error:
            raise JobFailedError(3, f"Failed to import data from {table}. {error}") from error

    def _check_region(self, table: TableId) -> None:
        if self._job.location == "global" and self._tools.script.scenario.switches.bigquery_global == "refused":
            # The message names a project of Google's own, as users report it (python-aiplatform#4112).
            raise JobFailedError(3, f"Not found: Dataset 0a1b2c3d4e5f-tp:{table.dataset} was not found in location US")

    def _table_columns(self, table: TableId) -> dict[str, str]:
        query = (
            "SELECT column_name, data_type "  # noqa: S608 - the names come from a parsed table name
            f"FROM `{table.project}.{table.dataset}.INFORMATION_SCHEMA.COLUMNS` "
            "WHERE table_name = @name ORDER BY ordinal_position"
        )
        types = {
            row["column_name"]: str(row["data_type"]).upper()
            for row in self._warehouse().rows(query, {"name": table.table})
        }
        if types.pop("request", "").partition("(")[0] not in {"JSON", "STRING"}:
            raise JobFailedError(
                3, f"Failed to import data from {table}. It needs a column request of type JSON or STRING."
            )
        # An earlier output has both of the reserved names; a user's table has one by mistake (S3).
        if len({"response", "status"} & types.keys()) == 1:
            raise JobFailedError(
                3, f"Failed to import data from {table}. The column names response and status are reserved."
            )
        columns = {name: kind for name, kind in types.items() if name not in OUTPUT_MEMBERS}
        if refused := [f"{name} ({kind})" for name, kind in columns.items() if kind.startswith(_REFUSED_TYPES)]:
            raise JobFailedError(
                3, f"Failed to import data from {table}. Unsupported column types: {', '.join(refused)}."
            )
        return columns

    # Rows -------------------------------------------------------------------------------------------------------------

    def answer(self, upto: int) -> bool:
        """Answer rows until `upto` are done or the piece is over; return whether rows are left for the next piece.

        :raises JobFailedError: when rows cannot be published.
        """
        until = time.monotonic() + _PIECE_SECONDS
        size = self._tools.model.parallel
        while (left := upto - self._answers.row_count) > 0:
            numbers = list(itertools.islice(self._order, min(size, left)))
            lines = [self._requests[number] for number in numbers]
            for row in (self._pool.map if self._pool else map)(self._rows.row, lines, numbers):
                self._answers.append(row)
            if time.monotonic() > until:
                break
        self._answers.flush()
        # After the last row the job ends, which publishes all.
        fresh, is_last = self.account.row_count - self._published, self.account.row_count >= self._job.request_count
        if fresh >= max(1, self._job.request_count // _PUBLICATIONS) and not is_last:
            self.publish(final=False)
        return self.account.row_count < upto

    def publish(self, *, final: bool) -> None:
        """Make the rows so far visible."""
        self.output().publish(self._answers, final=final)
        self._published = self.account.row_count

    def discard(self) -> None:
        """Remove what was published."""
        self.output().discard()

    def close(self, *, remove: bool = False) -> None:
        """Close the files; they stay, for a next `Run` to go on with, unless they are of no more use."""
        self._answers.close()
        if self._pool:
            self._pool.shutdown(wait=False)
        if remove:
            self._answers.remove(self._rows.unanswered(self._requests[number]) for number in self._order)
            self._requests.remove()
        self._requests.close()

    # Output -----------------------------------------------------------------------------------------------------------

    def output(self) -> Output:
        """Return the destination, as the job's own time names it."""
        job, switches = self._job, self._tools.script.scenario.switches
        if not job.plan.writes_table:
            return FolderOutput(self._tools.store, self._folder(), switches, job.request_count)
        self._check_region(self._table())
        columns = [
            {"name": name, "type": _API_TYPES.get(kind, kind), "mode": "NULLABLE"} for name, kind in job.columns.items()
        ]
        return TableOutput(self._tools.store, self._warehouse(), self._table(), columns, self._staging(), switches)

    def output_info(self) -> dict[str, Any]:
        """Return ``outputInfo``."""
        if self._job.plan.writes_table:
            table = self._table()
            return {
                "bigqueryOutputDataset": f"bq://{table.project}.{table.dataset}",
                "bigqueryOutputTable": table.table,
            }
        return {"gcsOutputDirectory": str(self._folder())}

    def _folder(self) -> Uri:
        return Uri.parse(self._job.plan.output) / f"prediction-model-{self._job.output_stamp}"

    def _table(self) -> TableId:
        return table_of(self._job.plan.output, self._job.output_stamp.translate(str.maketrans("-:.", "___")))

    def _staging(self) -> Uri:
        base = self._tools.staging
        if base is None and not self._job.plan.reads_table:
            base = Uri("gs", Uri.parse(self._job.plan.inputs[0]).bucket, "")
        if base is None:
            raise JobFailedError(
                9, "From BigQuery to BigQuery, the emulator needs a staging folder in Cloud Storage: start it with one."
            )
        return base / ".vertex-batch-emulator" / self._job.id / "rows.jsonl"

    def _warehouse(self) -> Warehouse:
        if self._tools.warehouse is None:
            raise JobFailedError(9, "This emulator was started without BigQuery.")
        return self._tools.warehouse

    def _readable(self, text: str) -> bool:
        if text.startswith(tuple(f"gs://{bucket}" for bucket in _PUBLIC_BUCKETS)):
            return True
        try:
            uri = Uri.parse(text)
            # The object itself comes first among the names it begins.
            return any(item.uri == uri for item in itertools.islice(self._tools.store.list(uri), 1))
        except VertexBatchError:
            return False
