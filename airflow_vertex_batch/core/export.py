"""How do rows land, so that landing twice is landing once? In a BigQuery table; `core.files` does it in files.

Good rows land at the destination, the others beside it as dead letters with their reasons.

Tables are changed by one MERGE on ``(partition_date, row_key)`` from a staging table, so a row is there once whatever
ran before. A row that turned good leaves the dead letters by the same statement that would have put it there, and the
other way round. Dying between the two MERGEs leaves a state that landing again completes.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from typing import IO, TYPE_CHECKING, Any, Protocol, Self
from uuid import uuid4

import msgspec

from airflow_vertex_batch.core.address import TableId, Uri
from airflow_vertex_batch.core.errors import ResultError
from airflow_vertex_batch.core.jsonl import encode
from airflow_vertex_batch.core.prices import PriceTable
from airflow_vertex_batch.core.report import Report, Totals
from airflow_vertex_batch.core.rows import ResultRow, RowStatus, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from decimal import Decimal

    from airflow_vertex_batch.core.ports import ObjectStore, Warehouse

#: Seconds until BigQuery removes a staging table that a crash left behind.
_STAGING_LIFE_SECONDS = 24 * 3600
#: Rows, or bytes, that are written together.
_FLUSH_ROWS, _FLUSH_BYTES = 2_000, 8 << 20

#: The one schema of every table we land in, in BigQuery's API form. It never follows the rows: a detected schema would
#: drift from night to night with the free-form parts of an answer.
SCHEMA: tuple[dict[str, str], ...] = tuple(
    {"name": name, "type": kind, "mode": mode, "description": about}
    for name, kind, mode, about in (
        ("partition_date", "DATE", "REQUIRED", "The day this row belongs to"),
        ("row_key", "STRING", "REQUIRED", "The request's key, unique within the day"),
        ("status", "STRING", "REQUIRED", "succeeded, or why there is no good answer"),
        ("code", "STRING", "NULLABLE", "The machine word behind the reason"),
        ("reason", "STRING", "NULLABLE", "Why there is no good answer"),
        ("text", "STRING", "NULLABLE", "The answer's text, thoughts left out; NULL where it has none, see response"),
        ("answer", "JSON", "NULLABLE", "The parsed answer where JSON was asked for"),
        ("columns", "JSON", "NULLABLE", "The source row's own columns"),
        ("finish_reason", "STRING", "NULLABLE", "Why the model stopped"),
        ("model_version", "STRING", "NULLABLE", "The model that answered"),
        ("prompt_tokens", "INT64", "NULLABLE", "Tokens read, by all attempts"),
        ("output_tokens", "INT64", "NULLABLE", "Tokens answered by all attempts, without thinking"),
        ("thinking_tokens", "INT64", "NULLABLE", "Tokens thought by all attempts, billed as output"),
        ("cached_tokens", "INT64", "NULLABLE", "The part of the prompts read from a cache"),
        ("total_tokens", "INT64", "NULLABLE", "All tokens of all attempts"),
        ("cost_usd", "NUMERIC", "NULLABLE", "US dollars; NULL when the row cannot be priced"),
        ("response", "JSON", "NULLABLE", "The service's response as it was"),
        ("job_name", "STRING", "NULLABLE", "The batch prediction job"),
        ("processed_at", "TIMESTAMP", "NULLABLE", "When the service answered"),
        ("run_id", "STRING", "NULLABLE", "The Airflow run that asked for this row"),
        (
            "request_digest",
            "STRING",
            "NULLABLE",
            "Digest of the request and its model: the same question, the same digest",
        ),
        ("same_as", "STRING", "NULLABLE", "The row whose answer this is, where an identical request was sent once"),
        ("attempts", "INT64", "NULLABLE", "How often the row was sent; 0 when an earlier run's answer was used"),
    )
)
_COLUMNS = tuple(field["name"] for field in SCHEMA)


class LandPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Where and as what rows land.

    :param batch_id: names this batch's files: the same for every run of the same task for the same day.
    :param partition_date: ISO date of the day with whose rows these merge.
    :param replace_partition: also remove rows of this day that this batch does not have.
    """

    batch_id: str
    partition_date: str
    run_id: str = ""
    replace_partition: bool = False


class LandedRow(msgspec.Struct, frozen=True, gc=False):
    """A row as it lands: one member for each column of `SCHEMA` but `partition_date`, in its order.

    A table gets the day as a column. Files have it in their folder's name: readers of such folders refuse a file that
    has a column of the same name.
    """

    row_key: str
    status: str
    code: str | None
    reason: str | None
    text: str | None
    answer: Any
    columns: dict[str, Any] | None
    finish_reason: str | None
    model_version: str | None
    prompt_tokens: int | None
    output_tokens: int | None
    thinking_tokens: int | None
    cached_tokens: int | None
    total_tokens: int | None
    cost_usd: str | None
    response: msgspec.Raw | None
    job_name: str | None
    processed_at: str | None
    run_id: str | None
    request_digest: str | None
    same_as: str | None
    attempts: int


def flat(row: ResultRow, plan: LandPlan, cost: Decimal | None) -> LandedRow:
    """Return a row as the flat record that lands. Its tokens are those of all its attempts, like its cost."""
    usage = sum(row.earlier, row.usage or Usage()) if row.earlier else row.usage
    return LandedRow(
        row.key,
        row.status.value,
        row.code or None,
        row.reason or None,
        row.text,
        row.answer,
        row.columns or None,
        row.finish_reason or None,
        row.model_version or None,
        usage.prompt_tokens if usage else None,
        usage.output_tokens if usage else None,
        usage.thinking_tokens if usage else None,
        usage.cached_tokens if usage else None,
        usage.total_tokens if usage else None,
        None if cost is None else f"{cost:.9f}",
        msgspec.Raw(row.response.encode()) if row.response else None,
        row.job_name or None,
        row.processed_at or None,
        row.run_id or plan.run_id or None,
        row.request_digest or None,
        row.same_as or None,
        row.attempts,
    )


class Sink(Protocol):
    """A place to land. Used as a context: leaving it without an error completes the landing."""

    destination: str
    dead_letters: str

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None: ...
    def add(self, record: LandedRow, *, good: bool) -> None:
        """Take one record."""


def land(
    rows: Iterable[ResultRow],
    sink: Sink,
    plan: LandPlan,
    *,
    expected: Callable[[], int],
    prices: PriceTable | None = None,
    model: str = "",
    amiss: Callable[[], str] | None = None,
) -> Report:
    """Land every row and return what there was.

    :param model: the model that was asked, for the price of rows that do not name one.
    :param expected: says how many rows there must be, once all have been read.
    :param amiss: says which rows are missing or surplus (`Collector.amiss`); asked only when the totals differ.
    :raises ResultError: when there are more or fewer; nothing was landed then.
    """
    totals = Totals(prices, model)
    with sink:
        for row in rows:
            good, record = row.status.is_good, flat(row, plan, totals.add(row))
            # A long row must not be there in both forms while it is written.
            del row
            sink.add(record, good=good)
            del record
        report = totals.report(
            destination=sink.destination, dead_letters=sink.dead_letters, partition_date=plan.partition_date
        )
        if report.request_count != (wanted := expected()):
            raise ResultError(
                f"{wanted:,} rows went in and {report.request_count:,} came out",
                uri=sink.destination,
                why=amiss() if amiss else "",
                left="Nothing was landed",
                todo="Restore the request files as they were when the jobs were created, or prepare the batch again",
            )
    return report


def rejected_rows(store: ObjectStore, uri: str, run_id: str) -> Iterator[ResultRow]:
    """Yield the rows that prepare refused, as rows. They have no keys of their own.

    :param run_id: makes their keys, so that they do not replace those of another run of that day.
    """
    if uri:
        run = hashlib.sha256(run_id.encode()).hexdigest()[:10]
        with store.open_read(Uri.parse(uri)) as stream:
            for number, line in enumerate(stream, start=1):
                doc = msgspec.json.decode(line)
                where = f"{doc['source']}:{doc['line']}: {doc['reason']}"
                yield ResultRow(
                    key=f"rejected-{run}-{number}",
                    status=RowStatus.REJECTED,
                    code=doc["code"],
                    reason=where,
                    attempts=0,
                )


class _StagedRows:
    """Writes the file from which a table is loaded.

    :param day: the partition date of its rows.
    """

    def __init__(self, store: ObjectStore, uri: Uri, day: str) -> None:
        self._open = store.open_write(uri)
        self._head = b'{"partition_date":' + encode(day) + b","
        self._lines: list[bytes] = []
        self._size = 0

    def __enter__(self) -> Self:
        self._stream: IO[bytes] = self._open.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        _leave(self._open, self._flush, error)

    def add(self, record: LandedRow) -> bytes:
        line = self._head + encode(record)[1:]
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _FLUSH_BYTES or len(self._lines) >= _FLUSH_ROWS:
            self._flush()
        return line

    def _flush(self) -> None:
        if self._size >= _FLUSH_BYTES:
            # Joined, they would be there twice.
            self._stream.writelines(piece for line in self._lines for piece in (line, b"\n"))
        elif self._lines:
            self._stream.write(b"\n".join([*self._lines, b""]))
        self._lines.clear()
        self._size = 0


def _leave(opened: AbstractContextManager[Any], finish: Callable[[], None], error: BaseException | None) -> None:
    """Leave an object's block: finish it, or abort it when there is, or comes, an error."""
    if error is None:
        try:
            finish()
        except BaseException as late:
            opened.__exit__(type(late), late, late.__traceback__)
            raise
    opened.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)


class TableSink:
    """Lands in a BigQuery table and a dead-letter table, by way of one staged file and one staging table.

    :param staging: folder of staged files, and of nothing else; the tasks of a staging folder share it. An attempt
        removes its own file, whether it lands or fails. What a killed one left is removed by any landing a day later:
        until then it may be another attempt's that is about to load it.
    """

    def __init__(
        self, store: ObjectStore, warehouse: Warehouse, table: TableId, dead: TableId, plan: LandPlan, staging: Uri
    ) -> None:
        self._store, self._warehouse, self._plan = store, warehouse, plan
        self._table, self._dead, self._staging = table, dead, staging
        # An attempt that was given up may still write: it must not replace the rows that this one counted.
        self._file = staging / f"rows-{int(time.time())}-{uuid4().hex[:12]}.jsonl"
        self._digest, self._count = 0, 0
        self.destination, self.dead_letters = table.uri, dead.uri

    def __enter__(self) -> Self:
        self._writer = _StagedRows(self._store, self._file, self._plan.partition_date).__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._writer.__exit__(kind, error, trace)
        if kind is None:
            try:
                self._merge()
            except BaseException:
                # The retry stages its rows anew.
                with contextlib.suppress(Exception):
                    self._store.delete(self._file)
                raise
            self._store.delete(self._file)
            for info in list(self._store.list(self._staging / "")):
                if is_left(info.uri, time.time()):
                    self._store.delete(info.uri)

    def add(self, record: LandedRow, *, good: bool) -> None:  # noqa: ARG002 - the MERGE goes by status
        """Take one record."""
        self._count += 1
        self._digest += int.from_bytes(hashlib.blake2b(self._writer.add(record), digest_size=16).digest())

    def _merge(self) -> None:
        for table in (self._table, self._dead):
            ensure_table(self._warehouse, table)
        name = hashlib.sha256(f"{self._table}\0{self._plan.batch_id}\0{self._digest}".encode()).hexdigest()[:24]
        staging = self._table.sibling(f"avb_staging_{name}")
        self._warehouse.create_table(staging, SCHEMA, expires_in=_STAGING_LIFE_SECONDS)
        if self._count:
            self._warehouse.load([str(self._file)], staging, SCHEMA, job_id=f"avb-load-{name}")
        for table, condition in ((self._table, "S.status = 'succeeded'"), (self._dead, "S.status != 'succeeded'")):
            self._warehouse.execute(
                merge_sql(table, staging, condition, replace_partition=self._plan.replace_partition),
                job_id=f"avb-merge-{name}",
                parameters={"partition_date": _date(self._plan.partition_date)},
            )
        self._warehouse.drop(staging)


def is_left(staged: Uri, now: float) -> bool:
    """Whether a staged file is so old that no attempt can load it any more: its staging table is gone as well.

    :param now: seconds since the epoch, as in the file's name.
    """
    found = re.fullmatch(r"rows-(\d+)-.*", staged.name.rpartition("/")[2])
    return found is not None and now - int(found[1]) > _STAGING_LIFE_SECONDS


def ensure_table(warehouse: Warehouse, table: TableId) -> None:
    """Make a destination table unless it exists; add the columns that an older version did not know."""
    warehouse.create_table(
        table,
        SCHEMA,
        partition_column="partition_date",
        clustering=["status", "row_key"],
        description="Written by airflow-vertex-batch",
    )


def merge_sql(table: TableId, staging: TableId, condition: str, *, replace_partition: bool) -> str:
    """Return the one statement that brings a table to what the staging table says of the rows under `condition`."""
    sets = ", ".join(f"{name} = S.{name}" for name in _COLUMNS)
    values = ", ".join(f"S.{name}" for name in _COLUMNS)
    stale = (
        "\nWHEN NOT MATCHED BY SOURCE AND T.partition_date = @partition_date THEN DELETE" if replace_partition else ""
    )
    # The date is repeated as a constant so that BigQuery reads only that partition of the target. An answer of an
    # earlier run that is there already keeps what it cost then: only the columns beside it may be newer.
    return f"""
MERGE `{table}` AS T USING `{staging}` AS S
ON T.partition_date = @partition_date AND T.partition_date = S.partition_date AND T.row_key = S.row_key
WHEN MATCHED AND S.attempts = 0 AND T.status = 'succeeded' AND S.status = T.status
  AND T.request_digest = S.request_digest
  THEN UPDATE SET columns = S.columns
WHEN MATCHED AND {condition} THEN UPDATE SET {sets}
WHEN MATCHED THEN DELETE
WHEN NOT MATCHED BY TARGET AND {condition} THEN INSERT ({", ".join(_COLUMNS)}) VALUES ({values}){stale}
""".strip()  # noqa: S608 - table names are parsed, conditions are ours


def _date(text: str) -> Any:
    from datetime import date

    return date.fromisoformat(text)
