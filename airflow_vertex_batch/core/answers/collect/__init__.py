"""Which answer belongs to which request, and is every request accounted for?

Output lines come in any order and in any number of files. A line may be missing, doubled, or without its key. Every
request of a job ends as exactly one row. A good answer wins over a bad one, and the first good answer over later ones.
A request without a line gets a row that says so. Answers are joined by key. If the key did not come back,
`core.answers.collect.join` finds the request. An output that has less than the service counted is an error, not a set
of missing rows (`collect.lost_output`).

Memory is limited by the size of one job, which the service limits to 200,000 requests. `core.answers.collect.expected`
says what is kept in memory.
"""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Self

import msgspec

from airflow_vertex_batch.core.answers.classify import classify
from airflow_vertex_batch.core.answers.collect.echo import NO_MARK, is_same, mark_of, members
from airflow_vertex_batch.core.answers.collect.expected import (
    BAD,
    FAILED,
    GOOD,
    NOTHING,
    Expected,
    KeyTable,
    digest_at,
    mark_at,
)
from airflow_vertex_batch.core.answers.collect.fast_path import PlainLines, plain_row
from airflow_vertex_batch.core.answers.collect.files import FileReader, file_lines, lost_lines, result_files, table_line
from airflow_vertex_batch.core.answers.collect.inputs import input_requests
from airflow_vertex_batch.core.answers.collect.join import Evidence, Joiner
from airflow_vertex_batch.core.answers.collect.lost_output import OnLostOutput, OutputCounts, check_output
from airflow_vertex_batch.core.answers.collect.temporary_files import Columns, Spool
from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.job import BatchJob, Phase
from airflow_vertex_batch.core.domain.jsonl import OutputLine, encode, read_output
from airflow_vertex_batch.core.domain.lines import read_blocks
from airflow_vertex_batch.core.domain.row import ResultRow, RowStatus, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_vertex_batch.core.domain.errors import ResultError
    from airflow_vertex_batch.core.domain.ports import ObjectStore, Warehouse

__all__ = ["Anomalies", "Batch", "Collector", "OnLostOutput", "file_lines", "result_files"]

log = logging.getLogger(__name__)

#: The status of a request without a line, by how its job ended.
_UNANSWERED = {
    Phase.CANCELLED: (RowStatus.CANCELLED, "The job was cancelled before this row was answered"),
    Phase.EXPIRED: (RowStatus.EXPIRED, "The job expired before this row was answered"),
    Phase.FAILED: (RowStatus.FAILED, "The job failed before this row was answered"),
}
_NO_LINE = (RowStatus.MISSING, "The job ended without a line for this row")
_SPOOLED = "as much as the output lines of one job that have no good answer"
#: The number of keys in a message.
_SAMPLES = 3


class Batch(msgspec.Struct, frozen=True):
    """One finished job with the input it answered.

    :param inputs: request files (``gs://``, globs) or one ``bq://`` table.
    :param columns_uri: the user's columns by key, or empty.
    :param model: the model, for the digests of the requests; if empty, the model of the job.
    :param resumed: whether the job's input was an earlier job's output (the service's native resume). Then the job
        answers more keys than `inputs` has, and that is right.
    """

    job: BatchJob
    inputs: tuple[str, ...]
    columns_uri: str = ""
    model: str = ""
    resumed: bool = False


class Anomalies(msgspec.Struct):
    """The odd lines of an output: all that is not one line for each request. They are not part of the tally."""

    duplicate_count: int = 0
    foreign_count: int = 0
    rejoined_count: int = 0
    #: Lines that are not JSON, or too long.
    unreadable_count: int = 0
    #: Lines with one of our keys, but with another request than the one that was sent under this key.
    unmatched_count: int = 0


class Collector:
    """Collects one batch after another, and counts.

    :param check: returns why a JSON answer does not fit the response schema.
    :param on_lost_output: what to do when an output has fewer rows than the service counted.
    :param now: returns aware UTC. Tests replace it.
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

        :raises LostOutputError: when the output has fewer rows than the service counted, and `on_lost_output` does not
            accept that.
        """
        expected = self._expected(batch)
        self.expected_count += len(expected)
        self._batches.append(batch)
        with _TemporaryFiles() as files, Columns(self._store, batch.columns_uri) as columns:
            sorter = _OutputSorter(batch, expected, files, self.anomalies, self._check)
            for rows in self._sorted(sorter, batch.job):
                yield from map(columns.join, rows) if batch.columns_uri else rows

    def key_mismatch_text(self) -> str:
        """Return which keys are missing or surplus, for totals that do not add up. This reads the input once more.

        A missing key has columns but no request. A surplus key is in two jobs.
        """
        missing, surplus, seen = list[str](), list[str](), KeyTable(0)
        for batch in self._batches:
            expected = self._expected(batch)
            surplus += (name for name, _ in expected.named() if not seen.add(name, b""))
            with Columns(self._store, batch.columns_uri) as columns:
                missing += (key for key in columns if expected.find(key) is None)
        return "; ".join(
            f"{len(keys):,} {what}: {', '.join(keys[:_SAMPLES])}"
            for what, keys in (("missing", missing), ("surplus", surplus))
            if keys
        )

    def _expected(self, batch: Batch) -> Expected:
        requests = partial(input_requests, self._store, self._warehouse, batch.inputs)
        return Expected(requests, batch.model or batch.job.model, str(batch.inputs))

    def _sorted(self, sorter: _OutputSorter, job: BatchJob) -> Iterator[Iterable[ResultRow]]:
        """Yield the rows in groups, because each generator between two functions costs time for every row."""
        file_count, before = 0, self.anomalies.unmatched_count
        if job.output_uri.startswith("bq://"):
            table = TableId.parse(job.output_uri)
            file_count = int(self._warehouse.count(table) is not None)
            for number, row in enumerate(self._warehouse.rows(table) if file_count else (), start=1):
                yield sorter.line(table_line(row), job.output_uri, number)
        elif job.output_uri:
            for uri in result_files(self._store, Uri.parse(job.output_uri)):
                with self._store.open_read(uri) as stream:
                    yield from sorter.file(stream, str(uri))
        yield sorter.doubtful()
        yield sorter.rejoined()
        file_count = file_count or sorter.file_count
        if self._on_lost_output is OnLostOutput.FAIL:
            check_output(job, sorter.output_counts(file_count), self._now())
        if sorter.lost:
            log.warning("In the output of %s, %s cannot be read", job.name, sorter.lost)
        if unmatched := self.anomalies.unmatched_count - before:
            log.warning(
                "%s has %s answers to other requests than were sent under their keys", job.name, f"{unmatched:,}"
            )
        yield sorter.bad_rows()
        yield sorter.unanswered()


class _TemporaryFiles(contextlib.ExitStack):
    """Temporary files: lines without a known key, rows for which a better one may follow, and lines whose request must
    be compared.
    """

    def __enter__(self) -> Self:
        super().__enter__()
        self.keyless, self.bad, self.doubtful = (self.enter_context(Spool(_SPOOLED)) for _ in range(3))
        return self


class _OutputSorter:
    """Turns the output of one job into rows."""

    def __init__(
        self,
        batch: Batch,
        expected: Expected,
        files: _TemporaryFiles,
        anomalies: Anomalies,
        check: Callable[[Any], str] | None,
    ) -> None:
        self._job, self._is_resumed, self._expected = batch.job, batch.resumed, expected
        self._keyless, self._bad, self._doubtful = files.keyless, files.bad, files.doubtful
        self._anomalies, self._check = anomalies, check
        self._lines = PlainLines()
        #: The number of lines that belong to no request of ours: without an error, and with an error.
        self._other_answered = self._other_failed = 0
        #: The number of lines that cannot be read; how many of them are complete (a cut line may still grow); and the
        #: first of them.
        self._lost_count = self._lost_whole = 0
        self._first_lost: ResultError | None = None
        #: The number of result files; and what the first object is that has the name of a result file but is not one.
        self.file_count, self._no_output = 0, ""

    def output_counts(self, file_count: int) -> OutputCounts:
        """Return the counts of the output, after all of it has been read."""
        counts = self._expected.counts
        return OutputCounts(
            file_count=file_count,
            answered=counts[GOOD] + counts[BAD] + self._other_answered + self._lost_whole,
            failed=counts[FAILED] + self._other_failed,
            unseen=counts[NOTHING],
            no_output=self._no_output,
        )

    def file(self, stream: IO[bytes], uri: str) -> Iterator[Iterator[ResultRow]]:
        """Yield the good rows of a file, in groups. A line that cannot be read is skipped, and only that line."""
        reader = FileReader(uri)
        for first, block in read_blocks(stream):
            rows = self._block(block, first, reader)
            # So that no line stays in memory while its row lands.
            block.clear()
            yield _without_keeping(rows)
        self._note(reader)

    def _block(self, block: list[bytes], first: int, reader: FileReader) -> list[ResultRow]:
        """Return the good rows of some lines."""
        rows: list[ResultRow] = []
        for number, raw in enumerate(block, start=first):
            row = self._plain_row(raw)
            if row is not None:
                reader.count += 1
                rows.append(row)
            elif not raw.isspace() and (line := reader.read(raw, number)) is not None:
                rows += self._row(line, raw.strip())
        return rows

    def _note(self, reader: FileReader) -> None:
        """Add the counts of a file's lines."""
        if not reader.is_output:
            self._no_output = self._no_output or str(reader.error)
            return
        self.file_count += 1
        self._lost_count += reader.lost_count
        self._lost_whole += reader.whole_count
        self._first_lost = self._first_lost or reader.error
        self._anomalies.unreadable_count += reader.lost_count

    @property
    def lost(self) -> str:
        """Return a text about the lines that could not be read."""
        return lost_lines(self._lost_count, self._first_lost)

    def line(self, raw: bytes, uri: str, number: int) -> Iterator[ResultRow]:
        """Yield the row of a line if it is a good one."""
        yield from self._row(read_output(raw, uri, number), raw)

    def _plain_row(self, raw: bytes) -> ResultRow | None:
        """Return the row of a plain line; None if the line needs a closer look."""
        line = self._lines.read(raw)
        if line is None:
            return None
        expected = self._expected
        place = expected.find(line[0])
        if place is None or place[0][place[1]] != NOTHING or line[4] not in {NO_MARK, mark_at(place)}:
            return None
        row = plain_row(line, self._job.name, digest_at(place), self._check)
        if row is not None:
            expected.mark(place, GOOD)
        return row

    def _row(self, line: OutputLine, raw: bytes) -> Iterator[ResultRow]:
        name = self._expected.name_of(line.key) if isinstance(line.key, str) else None
        if name is not None and self._may_be_other(line, name):
            self._doubtful.add(raw)
        elif name is not None:
            yield from self._named(line, name)
        elif self._is_resumed and isinstance(line.key, str):
            self._count_other(line)
        else:
            self._keyless.add(raw)

    def _may_be_other(self, line: OutputLine, name: str) -> bool:
        """Whether the request that came back with an answer looks different from the request that was sent under this
        key.
        """
        # A line with an error has no answer that could go to the wrong row.
        if line.status or self._expected.is_shared(str(line.key)):
            return False
        return mark_of(bytes(line.request)) not in {NO_MARK, mark_at(self._expected.place(name))}

    def doubtful(self) -> Iterator[ResultRow]:
        """Yield the good rows of lines whose request is the one that was sent, although its bytes differ.

        A line with another request is an answer to that other request, whatever its key says.
        """
        if not self._doubtful.count:
            return
        lines = (read_output(raw, "", 0) for raw in self._doubtful.read())
        echoes = [(str(line.key), members(bytes(line.request))) for line in lines]
        names = {name for name, _ in echoes}
        sent = {name: members(request) for name, request in self._expected.named() if name in names}
        for raw, (name, echo) in zip(self._doubtful.read(), echoes, strict=True):
            line = read_output(raw, "", 0)
            if is_same(sent[name], echo):
                yield from self._named(line, name)
            else:
                self._count_other(line)
                self._anomalies.unmatched_count += 1

    def _count_other(self, line: OutputLine) -> None:
        self._other_failed += bool(line.status)
        self._other_answered += not line.status

    def _named(self, line: OutputLine, name: str) -> Iterator[ResultRow]:
        """Yield a good row at once. Put a bad row aside, because a better one may follow."""
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
        """Yield the good rows of lines without a known key, if their request can be found."""
        if not self._keyless.count:
            return
        lines = (Evidence.of(read_output(raw, "", 0)) for raw in self._keyless.read())
        joiner = Joiner(lines, self._expected.named(), self._expected.state)
        for raw in self._keyless.read():
            line = read_output(raw, "", 0)
            name = joiner.name_of(Evidence.of(line))
            if name is not None:
                self._anomalies.rejoined_count += 1
                yield from self._named(line, name)
            else:
                self._count_other(line)
                self._anomalies.foreign_count += not self._is_resumed

    def bad_rows(self) -> Iterator[ResultRow]:
        """Yield the rows that were put aside and for which no better row came."""
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
        if self.lost:
            reason = f"{reason}. It may have been {self.lost} which cannot be read"
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


def _without_keeping(rows: list[ResultRow]) -> Iterator[ResultRow]:
    """Yield rows, and keep none of them in memory: a row may be as long as the longest line."""
    rows.reverse()
    while rows:
        yield rows.pop()


_decode_row = msgspec.json.Decoder(ResultRow).decode


def tally(rows: Iterable[ResultRow]) -> Tally:
    """Count rows by status."""
    return Tally.of(row.status for row in rows)
