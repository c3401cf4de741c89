"""Which answer belongs to which request, and is every request accounted for?

Output lines come in any order and in any number of files. A line may be missing, doubled, or without its key. Every
request of a job ends as exactly one row. A good answer wins over a bad one, and the first good answer over later ones.
A request without a line gets a row that says so. Answers are joined by key; where the key did not come back, by
`core.answers.collect.join`. An output that holds less than the service counted is an error, not a set of missing rows
(`collect.owed`).

Memory is bounded by one job, which the service bounds at 200,000 requests: `core.answers.collect.expected` says what is
held.
"""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Self

import msgspec

from airflow_vertex_batch.core.answers.classify import classify
from airflow_vertex_batch.core.answers.collect.aside import Columns, Spool
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
from airflow_vertex_batch.core.answers.collect.files import FileReader, file_lines, lost_lines, result_files, table_line
from airflow_vertex_batch.core.answers.collect.inputs import input_requests
from airflow_vertex_batch.core.answers.collect.join import Evidence, Joiner
from airflow_vertex_batch.core.answers.collect.owed import OnLostOutput, Seen, check_output
from airflow_vertex_batch.core.answers.collect.quick import PlainLines, plain_row
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

#: What a request without a line ended as, by how its job ended.
_UNANSWERED = {
    Phase.CANCELLED: (RowStatus.CANCELLED, "The job was cancelled before this row was answered"),
    Phase.EXPIRED: (RowStatus.EXPIRED, "The job expired before this row was answered"),
    Phase.FAILED: (RowStatus.FAILED, "The job failed before this row was answered"),
}
_NO_LINE = (RowStatus.MISSING, "The job ended without a line for this row")
_SPOOLED = "as much as the output lines of one job that have no good answer"
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
    #: Lines that are no JSON, or too long.
    unreadable_count: int = 0
    #: Lines with a key of ours and another request than was sent under it.
    unmatched_count: int = 0


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
        with _Aside() as aside, Columns(self._store, batch.columns_uri) as columns:
            sorting = _Sorting(batch, expected, aside, self.anomalies, self._check)
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

    def _sorted(self, sorting: _Sorting, job: BatchJob) -> Iterator[Iterable[ResultRow]]:
        """Yield the rows, some at a time: for each that a generator hands to the next, every row pays."""
        file_count, before = 0, self.anomalies.unmatched_count
        if job.output_uri.startswith("bq://"):
            table = TableId.parse(job.output_uri)
            file_count = int(self._warehouse.count(table) is not None)
            for number, row in enumerate(self._warehouse.rows(table) if file_count else (), start=1):
                yield sorting.line(table_line(row), job.output_uri, number)
        elif job.output_uri:
            for uri in result_files(self._store, Uri.parse(job.output_uri)):
                with self._store.open_read(uri) as stream:
                    yield from sorting.file(stream, str(uri))
        yield sorting.doubtful()
        yield sorting.rejoined()
        file_count = file_count or sorting.file_count
        if self._on_lost_output is OnLostOutput.FAIL:
            check_output(job, sorting.seen(file_count), self._now())
        if sorting.lost:
            log.warning("In the output of %s, %s cannot be read", job.name, sorting.lost)
        if unmatched := self.anomalies.unmatched_count - before:
            log.warning(
                "%s has %s answers to other requests than were sent under their keys", job.name, f"{unmatched:,}"
            )
        yield sorting.bad_rows()
        yield sorting.unanswered()


class _Aside(contextlib.ExitStack):
    """Lines without a known key, rows that may be bettered, and lines whose request has to be compared."""

    def __enter__(self) -> Self:
        super().__enter__()
        self.strays, self.bad, self.doubtful = (self.enter_context(Spool(_SPOOLED)) for _ in range(3))
        return self


class _Sorting:
    """The output of one job on its way to rows."""

    def __init__(
        self,
        batch: Batch,
        expected: Expected,
        aside: _Aside,
        anomalies: Anomalies,
        check: Callable[[Any], str] | None,
    ) -> None:
        self._job, self._is_resumed, self._expected = batch.job, batch.resumed, expected
        self._strays, self._bad, self._doubtful = aside.strays, aside.bad, aside.doubtful
        self._anomalies, self._check = anomalies, check
        self._lines = PlainLines()
        #: Lines of no request of ours that report no error, and that report one.
        self._other_answered = self._other_failed = 0
        #: Lines that cannot be read, and the first of them; whole lines among them: what is cut may still grow.
        self._lost_count = self._lost_whole = 0
        self._first_lost: ResultError | None = None
        #: Result files, and what the first object is that is none in spite of its name.
        self.file_count, self._no_output = 0, ""

    def seen(self, file_count: int) -> Seen:
        """Return what the output held, once all of it has been read."""
        counts = self._expected.counts
        return Seen(
            file_count=file_count,
            answered=counts[GOOD] + counts[BAD] + self._other_answered + self._lost_whole,
            failed=counts[FAILED] + self._other_failed,
            unseen=counts[NOTHING],
            no_output=self._no_output,
        )

    def file(self, stream: IO[bytes], uri: str) -> Iterator[Iterator[ResultRow]]:
        """Yield the good rows of a file, some at a time. A line that cannot be read costs that line."""
        reader = FileReader(uri)
        for first, block in read_blocks(stream):
            rows = self._block(block, first, reader)
            # A line is not kept while its row lands.
            block.clear()
            yield _handed_out(rows)
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
        """Add up what a file's lines were."""
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
        """Name the lines that could not be read."""
        return lost_lines(self._lost_count, self._first_lost)

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
            self._strays.add(raw)

    def _may_be_other(self, line: OutputLine, name: str) -> bool:
        """Whether the request that came back with an answer looks like another one than was sent under its key."""
        # A line that reports an error has no answer that could land in the wrong place.
        if line.status or self._expected.is_shared(str(line.key)):
            return False
        return mark_of(bytes(line.request)) not in {NO_MARK, mark_at(self._expected.place(name))}

    def doubtful(self) -> Iterator[ResultRow]:
        """Yield the good rows of lines whose request turned out to be the one that was sent, if not to the byte.

        A line with another request answers that one, whatever its key says.
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


def _handed_out(rows: list[ResultRow]) -> Iterator[ResultRow]:
    """Yield rows and let each go: one may be as long as a line may be."""
    rows.reverse()
    while rows:
        yield rows.pop()


_decode_row = msgspec.json.Decoder(ResultRow).decode


def tally(rows: Iterable[ResultRow]) -> Tally:
    """Count rows by status."""
    return Tally.of(row.status for row in rows)
