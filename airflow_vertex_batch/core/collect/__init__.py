"""Which answer belongs to which request, and is every request accounted for?

Output comes in any order, in any number of files; lines may be missing, doubled, or without their key. Every request of
a job ends as exactly one row: a good answer wins over a bad one, the first good one over later ones, and a request
without a line gets a row that says so. Answers are joined by key, or as `core.join` says where the key did not come
back. An output that does not hold what the service counted is an error, not a set of missing rows (`collect.owed`).

Memory is bounded by one job, which the service bounds at 200,000 requests: see `core.expected` for what is held.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Self

import msgspec

from airflow_vertex_batch.core.address import TableId, Uri
from airflow_vertex_batch.core.classify import classify
from airflow_vertex_batch.core.collect.expected import BAD, FAILED, GOOD, NOTHING, Expected, KeyTable, digest_at
from airflow_vertex_batch.core.collect.inputs import input_requests
from airflow_vertex_batch.core.collect.join import Evidence, Joiner
from airflow_vertex_batch.core.collect.owed import OnLostOutput, Seen, check_output
from airflow_vertex_batch.core.collect.quick import PlainLines, plain_row
from airflow_vertex_batch.core.errors import ResultError
from airflow_vertex_batch.core.jsonl import (
    OutputLine,
    decode,
    encode,
    read_blocks,
    read_lines,
    read_output,
)
from airflow_vertex_batch.core.model import BatchJob, Phase
from airflow_vertex_batch.core.rows import ResultRow, RowStatus, Tally
from airflow_vertex_batch.core.temporary import temporary_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_vertex_batch.core.ports import ObjectStore, Warehouse

__all__ = ["Anomalies", "Batch", "Collector", "OnLostOutput", "file_lines", "result_files"]

#: What a request without a line ended as, by how its job ended.
_UNANSWERED = {
    Phase.CANCELLED: (RowStatus.CANCELLED, "The job was cancelled before this row was answered"),
    Phase.EXPIRED: (RowStatus.EXPIRED, "The job expired before this row was answered"),
    Phase.FAILED: (RowStatus.FAILED, "The job failed before this row was answered"),
}
_NO_LINE = (RowStatus.MISSING, "The job ended without a line for this row")
#: Keys named in a message.
_SAMPLES = 3


class Batch(msgspec.Struct, frozen=True):
    """One finished job with the input it answered.

    :param inputs: request files (``gs://``, globs) or one ``bq://`` table.
    :param columns_uri: the user's columns by key, or empty.
    :param model: the model, for the digests of its requests; the job's own where empty.
    :param resumed: whether the job's input was an earlier job's output (the service's native resume): it then answers
        for more keys than `inputs` has, which is as it should be.
    """

    job: BatchJob
    inputs: tuple[str, ...]
    columns_uri: str = ""
    model: str = ""
    resumed: bool = False


class Anomalies(msgspec.Struct):
    """What the output held beside one line a request. Counted aside, never inside the tally."""

    duplicate_count: int = 0
    foreign_count: int = 0
    rejoined_count: int = 0


class Collector:
    """Collects one batch after another, and keeps count.

    :param check: says why a JSON answer does not fit the response schema.
    :param on_lost_output: what to do when an output does not hold what the service counted.
    :param now: aware UTC, replaced in tests.
    """

    def __init__(
        self,
        store: ObjectStore,
        warehouse: Warehouse,
        check: Callable[[Any], str] | None = None,
        *,
        on_lost_output: OnLostOutput = OnLostOutput.FAIL,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._warehouse, self._check = store, warehouse, check
        self._on_lost_output, self._now = on_lost_output, now
        self.anomalies = Anomalies()
        self.expected_count = 0
        self._batches: list[Batch] = []

    def rows(self, batch: Batch) -> Iterator[ResultRow]:
        """Yield exactly one row for each request of the batch's job.

        :raises LostOutputError: when the output does not hold what the service counted, and that was not accepted.
        """
        expected = self._expected(batch)
        self.expected_count += len(expected)
        self._batches.append(batch)
        with _Spool() as strays, _Spool() as bad, _Columns(self._store, batch.columns_uri) as columns:
            sorting = _Sorting(batch, expected, strays, bad, self.anomalies, self._check)
            for rows in self._sorted(sorting, batch.job):
                yield from map(columns.join, rows) if batch.columns_uri else rows

    def amiss(self) -> str:
        """Say which keys are missing or surplus, for totals that do not add up. Reads the input once more.

        Missing are keys whose columns were kept but whose request is gone, surplus are those that two jobs have.
        """
        missing, surplus, seen = list[str](), list[str](), KeyTable(0)
        for batch in self._batches:
            expected = self._expected(batch)
            surplus += (name for name, _ in expected.named() if not seen.add(name, b""))
            with _Columns(self._store, batch.columns_uri) as columns:
                missing += (key for key in columns if expected.find(key) is None)
        return "; ".join(
            f"{len(keys):,} {what}: {', '.join(keys[:_SAMPLES])}"
            for what, keys in (("missing", missing), ("surplus", surplus))
            if keys
        )

    def _expected(self, batch: Batch) -> Expected:
        requests = partial(input_requests, self._store, self._warehouse, batch.inputs)
        return Expected(requests, batch.model or batch.job.model, str(batch.inputs))

    def _sorted(self, sorting: _Sorting, job: BatchJob) -> Iterator[Iterable[ResultRow]]:
        """Yield the rows, some at a time: for each that a generator hands to the next, every row pays."""
        file_count = 0
        if job.output_uri.startswith("bq://"):
            table = TableId.parse(job.output_uri)
            file_count = int(self._warehouse.count(table) is not None)
            for number, row in enumerate(self._warehouse.rows(table) if file_count else (), start=1):
                yield sorting.line(encode(_table_line(row)), job.output_uri, number)
        elif job.output_uri:
            for file_count, uri in enumerate(result_files(self._store, Uri.parse(job.output_uri)), start=1):  # noqa: B007 - the last number is the count
                with self._store.open_read(uri) as stream:
                    yield from sorting.file(stream, str(uri))
        yield sorting.rejoined()
        if self._on_lost_output is OnLostOutput.FAIL:
            check_output(job, sorting.seen(file_count), self._now())
        yield sorting.bad_rows()
        yield sorting.unanswered()


class _Sorting:
    """The output of one job on its way to rows."""

    def __init__(
        self,
        batch: Batch,
        expected: Expected,
        strays: _Spool,
        bad: _Spool,
        anomalies: Anomalies,
        check: Callable[[Any], str] | None,
    ) -> None:
        self._job, self._is_resumed, self._expected = batch.job, batch.resumed, expected
        self._strays, self._bad, self._anomalies, self._check = strays, bad, anomalies, check
        self._lines = PlainLines()
        #: Lines of no request of ours that report no error, and that report one.
        self._other_answered = self._other_failed = 0

    def seen(self, file_count: int) -> Seen:
        """Return what the output held, once all of it has been read."""
        counts = self._expected.counts
        return Seen(
            file_count=file_count,
            answered=counts[GOOD] + counts[BAD] + self._other_answered,
            failed=counts[FAILED] + self._other_failed,
            unseen=counts[NOTHING],
        )

    def file(self, stream: IO[bytes], uri: str) -> Iterator[list[ResultRow]]:
        """Yield the good rows of a file, some at a time. A torn last line is a row that is missing, not a file that
        cannot be read.
        """
        reader = _FileReader(uri)
        for first, block in read_blocks(stream):
            rows: list[ResultRow] = []
            for number, raw in enumerate(block, start=first):
                row = self._plain_row(raw) if reader.torn is None else None
                if row is not None:
                    reader.count += 1
                    rows.append(row)
                elif (stripped := raw.strip()) and (line := reader.read(stripped, number)) is not None:
                    rows += self._row(line, stripped)
            yield rows
        reader.end()

    def line(self, raw: bytes, uri: str, number: int) -> Iterator[ResultRow]:
        """Yield the row of a line if it is a good one."""
        yield from self._row(read_output(raw, uri, number), raw)

    def _plain_row(self, raw: bytes) -> ResultRow | None:
        """Return the row of a plain line, or None where it has to be looked at more closely."""
        line = self._lines.read(raw)
        if line is None:
            return None
        expected = self._expected
        place = expected.find(line[0])
        if place is None or place[0][place[1]] != NOTHING:
            return None
        row = plain_row(line, self._job.name, digest_at(place), self._check)
        if row is not None:
            expected.mark(place, GOOD)
        return row

    def _row(self, line: OutputLine, raw: bytes) -> Iterator[ResultRow]:
        name = self._expected.name_of(line.key) if isinstance(line.key, str) else None
        if name is not None:
            yield from self._named(line, name)
        elif self._is_resumed and isinstance(line.key, str):
            self._count_other(line)
        else:
            self._strays.add(raw)

    def _count_other(self, line: OutputLine) -> None:
        self._other_failed += bool(line.status)
        self._other_answered += not line.status

    def _named(self, line: OutputLine, name: str) -> Iterator[ResultRow]:
        """Yield a good row at once; put a bad one aside, for a better one may follow."""
        place = self._expected.place(name)
        state = place[0][place[1]]
        self._anomalies.duplicate_count += state != NOTHING
        if state == GOOD:
            return
        row = classify(line, name, job_name=self._job.name, request_digest=digest_at(place), check=self._check)
        if row.status.is_good:
            yield row
        elif state == NOTHING:
            self._bad.add(encode(row))
        self._expected.mark(place, GOOD if row.status.is_good else FAILED if line.status else BAD)

    def rejoined(self) -> Iterator[ResultRow]:
        """Yield the good rows of the lines without a known key that can be told to be a request's."""
        if not self._strays.count:
            return
        lines = (Evidence.of(read_output(raw, "", 0)) for raw in self._strays.read())
        joiner = Joiner(lines, self._expected.named(), self._expected.state)
        for raw in self._strays.read():
            line = read_output(raw, "", 0)
            name = joiner.name_of(Evidence.of(line))
            if name is not None:
                self._anomalies.rejoined_count += 1
                yield from self._named(line, name)
            else:
                self._count_other(line)
                self._anomalies.foreign_count += not self._is_resumed

    def bad_rows(self) -> Iterator[ResultRow]:
        """Yield the rows that were put aside and for which nothing better came."""
        for raw in self._bad.read():
            row = _decode_row(raw)
            if self._expected.state(row.key) != GOOD:
                yield row

    def unanswered(self) -> Iterator[ResultRow]:
        """Yield a row for every request without a line."""
        job = self._job
        status, reason = _UNANSWERED.get(job.state.phase, _NO_LINE)
        if job.error_message:
            reason = f"{reason}: {job.error_message}"
        for name in self._expected.unseen():
            yield ResultRow(
                key=name,
                status=status,
                code=(job.state_text or str(job.state)),
                reason=reason,
                job_name=job.name,
                repairable=True,
                request_digest=digest_at(self._expected.place(name)),
            )


_decode_row = msgspec.json.Decoder(ResultRow).decode


def result_files(store: ObjectStore, folder: Uri) -> list[Uri]:
    """Return the result files of an output folder; what a job wrote on its way counts if there is nothing else."""
    found = [info.uri for info in store.list(folder / "") if ".jsonl" in info.uri.basename]
    final = [uri for uri in found if not uri.basename.startswith("incremental_")]
    return final or found


def file_lines(store: ObjectStore, files: Iterable[Uri]) -> Iterator[OutputLine]:
    """Yield the output lines of files. A torn last line is a row that is missing, not a file that cannot be read."""
    for uri in files:
        with store.open_read(uri) as stream:
            reader = _FileReader(str(uri))
            for number, raw in read_lines(stream):
                if (line := reader.read(raw, number)) is not None:
                    yield line
            reader.end()


class _FileReader:
    """Lets one line pass that is torn, if it is the last of its file."""

    def __init__(self, uri: str) -> None:
        self._uri, self.count, self._is_cut = uri, 0, False
        self.torn: ResultError | None = None

    def read(self, raw: bytes, number: int) -> OutputLine | None:
        """Decode a line; None when it is torn. :raises ResultError: when a torn line came before."""
        if self.torn is not None:
            raise self.torn
        try:
            line = read_output(raw, self._uri, number)
        except ResultError as error:
            self.torn, self._is_cut = error, raw.startswith(b"{")
            return None
        self.count += 1
        return line

    def end(self) -> None:
        """Check the whole. :raises ResultError: when no line was one of an output: that file never was one."""
        if self.torn is not None and not (self.count or self._is_cut):
            raise self.torn


def _table_line(row: dict[str, Any]) -> dict[str, Any]:
    """Bring a row of an output table into the shape of an output line."""
    made = {**row, "processed_time": str(row.get("processed_time") or "")}
    return {**made, "request": _json_or_text(row.get("request")), "response": _json_or_text(row.get("response"))}


def _json_or_text(value: Any) -> Any:
    """Decode what is JSON; a column of type JSON or STRING may hold either."""
    if isinstance(value, str | bytes):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            return decode(value)
    return value


class _Spool:
    """Lines put aside, in a temporary file."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        self._file = temporary_file("as much as the output lines of one job that have no good answer")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def add(self, line: bytes) -> None:
        """Append one."""
        self.count += 1
        self._file.write(line + b"\n")

    def read(self) -> Iterator[bytes]:
        """Yield them in order."""
        self._file.seek(0)
        yield from self._file


class _Columns:
    """The user's columns by key, found by offset in a local copy of their file."""

    _WIDTH = 8

    def __init__(self, store: ObjectStore, uri: str) -> None:
        self._store, self._uri, self._offsets = store, uri, KeyTable(self._WIDTH)

    def __enter__(self) -> Self:
        self._file = temporary_file("as much as the columns of the rows of one job")
        if self._uri:
            offset = 0
            with self._store.open_read(Uri.parse(self._uri)) as stream:
                for line in stream:
                    self._offsets.add(_decode_columns(line).key, offset.to_bytes(self._WIDTH))
                    offset += self._file.write(line)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[str]:
        """Yield every key of the file."""
        self._file.seek(0)
        return (_decode_columns(line).key for line in self._file)

    def join(self, row: ResultRow) -> ResultRow:
        """Return the row with its columns."""
        place = self._offsets.find(row.key)
        if place is None:
            return row
        bucket, at = place
        self._file.seek(int.from_bytes(bucket[at : at + self._WIDTH]))
        return msgspec.structs.replace(row, columns=_decode_columns(self._file.readline()).columns)


class _ColumnsLine(msgspec.Struct, gc=False):
    key: str
    columns: dict[str, Any]


_decode_columns = msgspec.json.Decoder(_ColumnsLine).decode


def tally(rows: Iterable[ResultRow]) -> Tally:
    """Count rows by status."""
    return Tally.of(row.status for row in rows)
