"""Which answer belongs to which request, and is every request accounted for?

Output comes in any order, in any number of files; lines may be missing, doubled, or without their key. Every request of a job
ends as exactly one row: a good answer wins over a bad one, the first good one over later ones, and a request without a line
gets a row that says so. Answers are joined by key; lines whose key did not come back are joined by their contents.

Memory is bounded by one job, which the service bounds at 200,000 requests: of those only keys and file offsets are held.
"""

from __future__ import annotations

import tempfile
from itertools import count, takewhile
from typing import IO, TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.classify import classify
from airflow_vertex_batch.core.errors import ResultError
from airflow_vertex_batch.core.jsonl import OutputLine, contents_fingerprint, decode, encode, read_lines, read_output
from airflow_vertex_batch.core.model import BatchJob, Phase, TableId, Uri
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
        if row.status.is_good:
            expected.mark_good(key)
            yield columns.join(row)
        else:
            bad.add(row)

    def _bad_rows(self, bad: _Spool, expected: _Expected, columns: _Columns) -> Iterator[ResultRow]:
        for row in bad.read(ResultRow):
            if expected.is_seen(row.key):
                self.anomalies.duplicate_count += 1
            else:
                expected.mark_seen(row.key)
                yield columns.join(row)

    def _rejoined(self, strays: _Spool, expected: _Expected, batch: Batch) -> Iterator[tuple[OutputLine, str]]:
        """Yield the lines without a known key whose contents are those of a request that has no line yet."""
        if not strays.count:
            return
        waiting: dict[str, list[str]] = {}
        for key, request in expected.with_requests(self._input_lines(batch)):
            if not expected.is_good(key):
                waiting.setdefault(contents_fingerprint(request), []).append(key)
        for line in strays.read(OutputLine):
            keys = waiting.get(contents_fingerprint(decode(line.request or b"null")), [])
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
                    for _, raw in read_lines(stream):
                        yield decode(raw)

    def _output_lines(self, job: BatchJob) -> Iterator[OutputLine]:
        if job.output_uri.startswith("bq://"):
            for number, row in enumerate(self._warehouse.rows(TableId.parse(job.output_uri)), start=1):
                yield read_output(encode(_table_line(row)), job.output_uri, number)
        elif job.output_uri:
            yield from file_lines(self._store, result_files(self._store, Uri.parse(job.output_uri)))


def result_files(store: ObjectStore, folder: Uri) -> list[Uri]:
    """Return the result files of an output folder; what a running job writes on the way counts only if there is nothing else."""
    found = [info.uri for info in store.list(folder / "") if ".jsonl" in info.uri.basename]
    final = [uri for uri in found if not uri.basename.startswith("incremental_")]
    return final or found


def file_lines(store: ObjectStore, files: Iterable[Uri]) -> Iterator[OutputLine]:
    """Yield the output lines of files. A torn last line is a row that is missing, not a file that cannot be read."""
    for uri in files:
        with store.open_read(uri) as stream:
            torn: ResultError | None = None
            for number, raw in read_lines(stream):
                if torn is not None:
                    raise torn
                try:
                    yield read_output(raw, str(uri), number)
                except ResultError as error:
                    torn = error


def _table_request(row: dict[str, Any]) -> dict[str, Any]:
    request = row.get("request")
    return {**row, "request": decode(request) if isinstance(request, str) else request}


def _table_line(row: dict[str, Any]) -> dict[str, Any]:
    """Bring a row of an output table into the shape of an output line."""
    made = {**row, "processed_time": str(row.get("processed_time") or "")}
    for name in ("request", "response"):
        if isinstance(value := made.get(name), str):
            made[name] = decode(value) if value.strip() else None
    return made


class _Expected:
    """The keys of a job's requests and what has been seen of each. One byte of state a key."""

    _NOTHING, _SEEN, _GOOD = 0, 1, 2

    def __init__(self, lines: Iterable[dict[str, Any]], subject: str) -> None:
        self._state: dict[str, int] = {}
        self._repeated: set[str] = set()
        for key, _ in self._keyed(lines, self._repeated):
            self._state[key] = self._NOTHING
        if not self._state:
            raise ResultError(f"The input {subject} has no requests any more", uri=subject, todo="Restore the request files")

    def __len__(self) -> int:
        return len(self._state)

    @staticmethod
    def _keyed(lines: Iterable[dict[str, Any]], repeated: set[str]) -> Iterator[tuple[str, Any]]:
        """Yield key and request; a request without a key goes by its content, numbered when that occurs again."""
        times: dict[str, int] = {}
        for line in lines:
            key = line.get("key")
            name = str(key) if key not in {None, ""} else content_key(encode(line.get("request")))
            times[name] = times.get(name, 0) + 1
            if times[name] > 1:
                repeated.add(name)
            yield (name if times[name] == 1 else f"{name}-{times[name]}"), line.get("request")

    def with_requests(self, lines: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Yield every key with its request, once more from the input."""
        return self._keyed(lines, set())

    def known(self, key: object) -> str | None:
        """Return the key if it is one of ours; of requests that share one, the first that still wants a good answer."""
        if not isinstance(key, str) or key not in self._state:
            return None
        if key not in self._repeated:
            return key
        names = (key if times == 1 else f"{key}-{times}" for times in count(1))
        return next((name for name in takewhile(self._state.__contains__, names) if not self.is_good(name)), key)

    def is_good(self, key: str) -> bool:
        """Whether the key has its good answer."""
        return self._state[key] == self._GOOD

    def is_seen(self, key: str) -> bool:
        """Whether the key has its row."""
        return self._state[key] != self._NOTHING

    def mark_good(self, key: str) -> None:
        """Note a good answer."""
        self._state[key] = self._GOOD

    def mark_seen(self, key: str) -> None:
        """Note a row without a good answer."""
        self._state[key] = self._SEEN

    def unseen(self) -> Iterator[str]:
        """Yield the keys without any row."""
        return (key for key, state in self._state.items() if state == self._NOTHING)


def _unanswered(expected: _Expected, job: BatchJob, columns: _Columns) -> Iterator[ResultRow]:
    status, reason = _UNANSWERED.get(job.state.phase, _NO_LINE)
    if job.error_message:
        reason = f"{reason}: {job.error_message}"
    for key in expected.unseen():
        yield columns.join(
            ResultRow(
                key=key, status=status, code=(job.state_text or str(job.state)), reason=reason, job_name=job.name,
                repairable=True,
            )
        )


class _Spool:
    """Structs put aside: in memory while they are few, in a temporary file when they are many."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> _Spool:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=4 << 20)  # noqa: SIM115 - closed in __exit__
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

    def __enter__(self) -> _Columns:
        self._file = tempfile.TemporaryFile(prefix="avb-columns-")  # noqa: SIM115 - closed in __exit__
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
