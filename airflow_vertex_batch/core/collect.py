"""Which answer belongs to which request, and is every request accounted for?

Output comes in any order, in any number of files; lines may be missing, doubled, or without their key. Every request of
a job ends as exactly one row: a good answer wins over a bad one, the first good one over later ones, and a request
without a line gets a row that says so. Answers are joined by key, or by contents where the key did not come back.

Memory is bounded by one job, which the service bounds at 200,000 requests: only their keys and file offsets are held.
"""

from __future__ import annotations

import contextlib
import tempfile
from typing import IO, TYPE_CHECKING, Any, Self

import msgspec

from airflow_vertex_batch.core.address import TableId, Uri
from airflow_vertex_batch.core.classify import classify
from airflow_vertex_batch.core.errors import ResultError
from airflow_vertex_batch.core.jsonl import (
    OutputLine,
    contents_fingerprint,
    decode,
    encode,
    read_lines,
    read_output,
    repaired,
)
from airflow_vertex_batch.core.model import BatchJob, Phase
from airflow_vertex_batch.core.request import content_key
from airflow_vertex_batch.core.rows import ResultRow, RowStatus, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_vertex_batch.core.ports import ObjectStore, Warehouse

#: What a request without a line ended as, by how its job ended.
_UNANSWERED = {
    Phase.CANCELLED: (RowStatus.CANCELLED, "The job was cancelled before this row was answered"),
    Phase.EXPIRED: (RowStatus.EXPIRED, "The job expired before this row was answered"),
    Phase.FAILED: (RowStatus.FAILED, "The job failed before this row was answered"),
}
_NO_LINE = (RowStatus.MISSING, "The job ended without a line for this row")


class Batch(msgspec.Struct, frozen=True):
    """One finished job with the input it answered.

    :param inputs: request files (``gs://``, globs) or one ``bq://`` table.
    :param columns_uri: the user's columns by key, or empty.
    """

    job: BatchJob
    inputs: tuple[str, ...]
    columns_uri: str = ""
    #: The model that was asked, for the requests' digests.
    model: str = ""
    #: Whether the input was an earlier job's output: lines for other requests than ours are no surprise then.
    resumed: bool = False


class Anomalies(msgspec.Struct):
    """What the output held beside one line a request. Counted aside, never inside the tally."""

    duplicate_count: int = 0
    foreign_count: int = 0
    rejoined_count: int = 0


class Collector:
    """Collects one batch after another, and keeps count.

    :param check: says why a JSON answer does not fit the response schema.
    """

    def __init__(self, store: ObjectStore, warehouse: Warehouse, check: Callable[[Any], str] | None = None) -> None:
        self._store, self._warehouse, self._check = store, warehouse, check
        self.anomalies = Anomalies()
        self.expected_count = 0

    def rows(self, batch: Batch) -> Iterator[ResultRow]:
        """Yield exactly one row for each request of the batch's job."""
        expected = _Expected(self._input_lines(batch), str(batch.inputs))
        self.expected_count += len(expected)
        with _Spool() as strays, _Spool() as bad, _Columns(self._store, batch.columns_uri) as columns:
            for line in self._output_lines(batch.job):
                if (key := expected.known(line.key)) is None:
                    strays.add(line)
                else:
                    yield from self._row(line, key, expected, bad, batch, columns)
            for line, key in self._rejoined(strays, expected, batch):
                yield from self._row(line, key, expected, bad, batch, columns)
            yield from self._bad_rows(bad, expected, columns)
            yield from _unanswered(expected, batch.job, columns)

    def _row(
        self, line: OutputLine, key: str, expected: _Expected, bad: _Spool, batch: Batch, columns: _Columns
    ) -> Iterator[ResultRow]:
        """Yield a good row at once; put a bad one aside, for a better one may follow."""
        if expected.is_good(key):
            self.anomalies.duplicate_count += 1
            return
        row = classify(line, key, job_name=batch.job.name, check=self._check)
        if expected.is_seen(key):
            self.anomalies.duplicate_count += 1
        elif not row.status.is_good:
            bad.add(row)
        expected.mark(key, good=row.status.is_good)
        if row.status.is_good:
            yield columns.join(row)

    @staticmethod
    def _bad_rows(bad: _Spool, expected: _Expected, columns: _Columns) -> Iterator[ResultRow]:
        return (columns.join(row) for row in bad.read(ResultRow) if not expected.is_good(row.key))

    def _rejoined(self, strays: _Spool, expected: _Expected, batch: Batch) -> Iterator[tuple[OutputLine, str]]:
        """Yield the lines without a known key whose contents are those of a request."""
        if not strays.count:
            return
        waiting: dict[str, list[str]] = {}
        for key, request in expected.with_requests(self._input_lines(batch)):
            waiting.setdefault(contents_fingerprint(request), []).append(key)
        for keys in waiting.values():
            # Of requests with the same contents, the one that wants a line most comes first.
            keys.sort(key=expected.has)
        for line in strays.read(OutputLine):
            keys = waiting.get(_echo_fingerprint(line), [])
            if keys:
                self.anomalies.rejoined_count += 1
                yield line, keys.pop(0) if len(keys) > 1 else keys[0]
            else:
                self.anomalies.foreign_count += 1

    def _input_lines(self, batch: Batch) -> Iterator[dict[str, Any]]:
        for address in batch.inputs:
            if address.startswith("bq://"):
                yield from map(_table_request, self._warehouse.rows(TableId.parse(address)))
                continue
            for info in self._store.list(Uri.parse(address)):
                with self._store.open_read(info.uri) as stream:
                    for number, raw in read_lines(stream):
                        yield _request_line(raw, str(info.uri), number)

    def _output_lines(self, job: BatchJob) -> Iterator[OutputLine]:
        if job.output_uri.startswith("bq://"):
            for number, row in enumerate(self._warehouse.rows(TableId.parse(job.output_uri)), start=1):
                yield read_output(encode(_table_line(row)), job.output_uri, number)
        elif job.output_uri:
            yield from file_lines(self._store, result_files(self._store, Uri.parse(job.output_uri)))


def result_files(store: ObjectStore, folder: Uri) -> list[Uri]:
    """Return the result files of an output folder; what a job wrote on its way counts if there is nothing else."""
    found = [info.uri for info in store.list(folder / "") if ".jsonl" in info.uri.basename]
    final = [uri for uri in found if not uri.basename.startswith("incremental_")]
    return final or found


def file_lines(store: ObjectStore, files: Iterable[Uri]) -> Iterator[OutputLine]:
    """Yield the output lines of files. A torn last line is a row that is missing, not a file that cannot be read."""
    for uri in files:
        with store.open_read(uri) as stream:
            yield from _stream_lines(stream, str(uri))


def _stream_lines(stream: IO[bytes], uri: str) -> Iterator[OutputLine]:
    torn: ResultError | None = None
    read_count = 0
    for number, raw in read_lines(stream):
        if torn is not None:
            raise torn
        try:
            line = read_output(raw, uri, number)
        except ResultError as error:
            torn = error
            continue
        read_count += 1
        yield line
    # A file without one good line was not torn: it never was an output.
    if torn is not None and not read_count:
        raise torn


def _echo_fingerprint(line: OutputLine) -> str:
    raw = bytes(line.request)
    try:
        return contents_fingerprint(decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return contents_fingerprint(decode(repaired(raw) or b"null"))


def _request_line(raw: bytes, uri: str, number: int) -> dict[str, Any]:
    doc = _json_or_text(raw)
    if not isinstance(doc, dict):
        raise ResultError(
            f"Line {number} of {uri} is no request",
            uri=uri,
            line=number,
            why="not a JSON object",
            todo="Restore the file as it was when the job was created",
        )
    return doc


def _table_request(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "request": _json_or_text(row.get("request"))}


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


class _Expected:
    """The keys of a job's requests and what has been seen of each. One byte of state a key."""

    _NOTHING, _BAD, _GOOD = 0, 1, 2

    def __init__(self, lines: Iterable[dict[str, Any]], subject: str) -> None:
        self._state: dict[str, int] = {}
        #: The names of requests that share a key.
        self._sharing: dict[str, list[str]] = {}
        for key, _ in self._keyed(lines, self._sharing):
            self._state[key] = self._NOTHING
        if not self._state:
            raise ResultError(
                f"The input {subject} has no requests any more", uri=subject, todo="Restore the request files"
            )

    def __len__(self) -> int:
        return len(self._state)

    @staticmethod
    def _keyed(lines: Iterable[dict[str, Any]], sharing: dict[str, list[str]]) -> Iterator[tuple[str, Any]]:
        """Yield key and request; a request without a key goes by its content; who shares a key gets a number."""
        taken: dict[str, int] = {}
        for line in lines:
            key = line.get("key")
            own = content_key(encode(line.get("request"))) if key in (None, "") else str(key)
            name = own
            # "a-2" may be another request's own key.
            while name in taken:
                taken[own] += 1
                name = f"{own}-{taken[own]}"
            taken[name] = 1
            if name != own:
                sharing.setdefault(own, [own]).append(name)
            yield name, line.get("request")

    def with_requests(self, lines: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Yield every key with its request, once more from the input."""
        return self._keyed(lines, {})

    def known(self, key: object) -> str | None:
        """Return the key if it is one of ours; of requests that share one, the one that wants a line most."""
        if not isinstance(key, str) or key not in self._state:
            return None
        return min(self._sharing[key], key=self.has) if key in self._sharing else key

    def has(self, key: str) -> int:
        """What the key has, to sort by: nothing, a bad line, a good answer."""
        return self._state[key]

    def is_good(self, key: str) -> bool:
        """Whether the key has its good answer."""
        return self._state[key] == self._GOOD

    def is_seen(self, key: str) -> bool:
        """Whether the key has a line."""
        return self._state[key] != self._NOTHING

    def mark(self, key: str, *, good: bool) -> None:
        """Note a line; a bad one never takes a good one's place."""
        self._state[key] = max(self._state[key], self._GOOD if good else self._BAD)

    def unseen(self) -> Iterator[str]:
        """Yield the keys without any line."""
        return (key for key, state in self._state.items() if state == self._NOTHING)


def _unanswered(expected: _Expected, job: BatchJob, columns: _Columns) -> Iterator[ResultRow]:
    status, reason = _UNANSWERED.get(job.state.phase, _NO_LINE)
    if job.error_message:
        reason = f"{reason}: {job.error_message}"
    for key in expected.unseen():
        yield columns.join(
            ResultRow(
                key=key,
                status=status,
                code=(job.state_text or str(job.state)),
                reason=reason,
                job_name=job.name,
                repairable=True,
            )
        )


class _Spool:
    """Structs put aside: in memory while they are few, in a temporary file when they are many."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=4 << 20)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def add(self, item: msgspec.Struct) -> None:
        """Append one."""
        self.count += 1
        self._file.write(encode(item) + b"\n")

    def read(self, kind: type[Any]) -> Iterator[Any]:
        """Yield them in order."""
        self._file.seek(0)
        decoder = msgspec.json.Decoder(kind)
        for raw in self._file:
            yield decoder.decode(raw)


class _Columns:
    """The user's columns by key, found by offset in a local copy of their file."""

    def __init__(self, store: ObjectStore, uri: str) -> None:
        self._store, self._uri, self._offsets = store, uri, dict[str, int]()

    def __enter__(self) -> Self:
        self._file = tempfile.TemporaryFile(prefix="avb-columns-")
        if self._uri:
            with self._store.open_read(Uri.parse(self._uri)) as stream:
                for line in stream:
                    self._offsets[decode(line)["key"]] = self._file.tell()
                    self._file.write(line)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def join(self, row: ResultRow) -> ResultRow:
        """Return the row with its columns."""
        offset = self._offsets.get(row.key)
        if offset is None:
            return row
        self._file.seek(offset)
        return msgspec.structs.replace(row, columns=decode(self._file.readline())["columns"])


def tally(rows: Iterable[ResultRow]) -> Tally:
    """Count rows by status."""
    return Tally.of(row.status for row in rows)
