"""How do rows land in files, so that a day's files behave like a table? As JSONL or Parquet, merged on their keys.

::

    <destination>/answers/partition_date=2026-11-22/answers-<id>.jsonl
    <destination>/dead-letters/partition_date=2026-11-22/dead-letters-<id>.jsonl

The two folders stand side by side, so that a reader of all answers never meets a dead letter, even one that reads every
file below a folder. The id is made from the batch's identity, never from the run or the attempt: all runs of a task for
one day share the two files. A landing reads both, and replaces them: its rows take the place of older rows of the same
key in either file, the other rows stay.

Invariants: what landed is there once. Each file is replaced only if it is the version that was read, the dead letters
first; whoever finds another version reads both again. So landings at the same moment have an order, that in which the
answers were replaced, and each merges what the one before it left. Dying between the two leaves a state that landing
again completes. Memory does not grow with the rows: they wait on disk.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, TypeVar

import msgspec

from airflow_vertex_batch.core.errors import ChangedError, InputError, ResultError
from airflow_vertex_batch.core.export import SCHEMA, LandedRow
from airflow_vertex_batch.core.jsonl import NULL, encode
from airflow_vertex_batch.core.shelf import Shelf
from airflow_vertex_batch.core.temporary import temporary_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_vertex_batch.core.address import Uri
    from airflow_vertex_batch.core.export import LandPlan
    from airflow_vertex_batch.core.ports import ObjectStore

_T = TypeVar("_T")
#: Folders below the destination, and how the names of their files begin.
ANSWERS, DEAD_LETTERS = "answers", "dead-letters"
#: Times that the files are read and merged before a landing gives up: of so many at one moment, one succeeds each time.
_MERGES = 20
#: Rows, or bytes, that are written together.
_FLUSH_ROWS, _FLUSH_BYTES = 2_000, 8 << 20
#: What a file's columns are: the day stands in the name of its folder.
FILE_SCHEMA = tuple(field for field in SCHEMA if field["name"] != "partition_date")
#: Those that may be long.
_LONG = ("text", "answer", "response", "columns")
_JSON_COLUMNS = tuple(field["name"] for field in FILE_SCHEMA if field["type"] == "JSON")


class _Brief(msgspec.Struct, gc=False):
    """What decides about a line."""

    row_key: str
    status: str
    request_digest: str | None = None
    attempts: int | None = None


_Line: Any = msgspec.defstruct(
    "_Line",
    [
        (field["name"], msgspec.Raw, NULL) if field["type"] == "JSON" else (field["name"], Any, None)
        for field in FILE_SCHEMA
    ],
)
_brief = msgspec.json.Decoder(_Brief).decode
#: A landed line whose JSON columns stay bytes, so that they come out as they went in.
_line = msgspec.json.Decoder(_Line).decode


class _Format(Protocol):
    """How records of a file are read and written; a record is what the format makes of a landed line."""

    content_type: str

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What reading a file raises that is not of this format."""

    def read(self, stream: IO[bytes]) -> Iterator[tuple[str, Any]]:
        """Yield each record with its key."""

    def write(self, stream: IO[bytes], records: Iterator[Any]) -> None:
        """Write all records."""

    def record(self, line: bytes) -> Any:
        """Return the record of a landed line."""

    def line(self, record: Any) -> bytes:
        """Return the line that a record was made from."""


class _Jsonl:
    """A record is its line, with the line's end."""

    content_type = "application/x-ndjson"
    errors: tuple[type[Exception], ...] = (msgspec.DecodeError, UnicodeDecodeError)

    def read(self, stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
        for line in stream:
            yield _brief(line).row_key, line if line.endswith(b"\n") else line + b"\n"

    def write(self, stream: IO[bytes], records: Iterator[bytes]) -> None:
        for lines in _chunks(records, len):
            if sum(map(len, lines)) < _FLUSH_BYTES:
                stream.write(b"".join(lines))
            else:
                # Joined, a long line would be there twice.
                stream.writelines(lines)

    def record(self, line: bytes) -> bytes:
        return line

    def line(self, record: bytes) -> bytes:
        return record


class _Parquet:
    """A record is a dict of what Arrow holds."""

    content_type = "application/vnd.apache.parquet"

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        from pyarrow import ArrowException

        return (ArrowException, KeyError)

    def read(self, stream: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
        from pyarrow.parquet import ParquetFile

        for batch in ParquetFile(stream).iter_batches(batch_size=_FLUSH_ROWS):
            for record in batch.to_pylist():
                yield record["row_key"], record

    def write(self, stream: IO[bytes], records: Iterator[dict[str, Any]]) -> None:
        from pyarrow import RecordBatch
        from pyarrow.parquet import ParquetWriter

        schema = _arrow_schema()
        # A dictionary of long texts would hold all of them, and find none twice.
        short = [name for name in schema.names if name not in _LONG]
        writer = ParquetWriter(stream, schema, compression="zstd", use_dictionary=short, write_statistics=short)
        try:
            for chunk in _chunks(records, _long_bytes):
                batch = RecordBatch.from_pylist(chunk, schema=schema)
                chunk.clear()
                writer.write_batch(batch)
        except BaseException:
            # While the stream still takes what it writes; the aborted stream forgets all of it.
            with contextlib.suppress(Exception):
                writer.close()
            raise
        writer.close()

    def record(self, line: bytes) -> dict[str, Any]:
        import decimal
        from datetime import datetime

        made = msgspec.structs.asdict(_line(line))
        # Bytes of UTF-8 are what Arrow makes of a text; Python's may be four times as long.
        made["text"] = None if made["text"] is None else made["text"].encode()
        for name in _JSON_COLUMNS:
            made[name] = bytes(made[name]) if made[name] != NULL else None
        made["cost_usd"] = None if made["cost_usd"] is None else decimal.Decimal(made["cost_usd"])
        with contextlib.suppress(TypeError, ValueError):
            made["processed_at"] = datetime.fromisoformat(made["processed_at"])
        if not isinstance(made["processed_at"], datetime):
            made["processed_at"] = None
        return made

    def line(self, record: dict[str, Any]) -> bytes:
        return encode(record | {name: msgspec.Raw((record.get(name) or "null").encode()) for name in _JSON_COLUMNS})


def _long_bytes(record: dict[str, Any]) -> int:
    return sum(len(record.get(name) or "") for name in _LONG)


def _chunks(records: Iterator[_T], size: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Yield what is written together, in lists that the reader may empty."""
    chunk: list[_T] = []
    held = 0
    for record in records:
        chunk.append(record)
        held += size(record)
        del record
        if held >= _FLUSH_BYTES or len(chunk) >= _FLUSH_ROWS:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


_FORMATS: dict[str, _Format] = {"jsonl": _Jsonl(), "parquet": _Parquet()}


class FileSink:
    """Lands in a folder, as JSONL or Parquet. Used as a context: leaving it without an error merges what it was given.

    :param file_format: ``jsonl`` or ``parquet``.
    :raises ChangedError: when others kept replacing the files; a retry merges again.
    :raises ResultError: when the day's file is not one of ours any more.
    """

    def __init__(self, store: ObjectStore, folder: Uri, plan: LandPlan, file_format: str = "jsonl") -> None:
        if file_format not in _FORMATS:
            raise InputError(f"file_format={file_format!r} is not known", todo="Use 'jsonl' or 'parquet'")
        self._store, self._plan, self._format = store, plan, _FORMATS[file_format]
        stem = hashlib.sha256(plan.batch_id.encode()).hexdigest()[:10]
        self._answers, self._dead = (
            folder / f"{name}/partition_date={plan.partition_date}/{name}-{stem}.{file_format}"
            for name in (ANSWERS, DEAD_LETTERS)
        )
        self.destination, self.dead_letters = str(self._answers), str(self._dead)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._good, self._bad = (stack.enter_context(_Waiting()) for _ in range(2))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        with self._stack:
            if kind is None:
                self._land()

    def add(self, record: LandedRow, *, good: bool) -> None:
        """Take one record."""
        (self._good if good else self._bad).add(record)

    def _land(self) -> None:
        with _Index(self._good, self._bad) as index:
            for left in reversed(range(_MERGES)):
                try:
                    self._merge(index)
                except ChangedError as error:
                    if left:
                        continue
                    raise ChangedError(
                        f"{self.destination} or {self.dead_letters} was replaced each of {_MERGES} times that it was "
                        "merged",
                        why=error.what,
                        todo="A retry merges again; let fewer runs of a day end at the same moment",
                    ) from error
                return

    def _merge(self, index: _Index) -> None:
        """Read both files and replace them, if they still are what was read."""
        # Both before either is written: a landing that ends in between makes the answers another version.
        read = [(uri, self._store.version(uri)) for uri in (self._dead, self._answers)]
        for (uri, version), waiting in zip(read, (self._bad, self._good), strict=True):
            with (
                Shelf() as kept,
                self._store.open_replace(uri, version, self._format.content_type) as stream,
            ):
                stays = self._staying(uri, version, index, kept) if version else ()
                self._format.write(stream, chain(stays, self._landing(waiting, kept)))

    def _staying(self, uri: Uri, version: str, index: _Index, kept: Shelf) -> Iterator[Any]:
        """Yield the records of a file that this batch does not replace.

        An answer of an earlier run that is there already keeps what it cost then: only the columns beside it may be
        newer. It is noted in `kept`.
        """
        with _ours(uri, self._format), self._store.open_read(uri, version) as stream:
            for key, record in self._format.read(stream):
                here = index.find(key)
                if here is None:
                    if not self._plan.replace_partition:
                        yield record
                elif here and (line := self._format.line(record)) and _is_same_answer(line, here):
                    kept.put(key, line)

    def _landing(self, waiting: _Waiting, kept: Shelf) -> Iterator[Any]:
        """Yield the records of this batch, in its order."""
        # Unlike a loop, `map` holds neither a line nor its record while the record is written.
        return map(functools.partial(self._record, kept), waiting.lines())

    def _record(self, kept: Shelf, line: bytes) -> Any:
        old = kept.last(_brief(line).row_key) if kept.count else None
        return self._format.record(_with_columns(old, line) if old else line)


def _is_same_answer(old: bytes, new: bytes) -> bool:
    before, now = _brief(old), _brief(new)
    return before.status == "succeeded" and before.request_digest == now.request_digest


def _with_columns(old: bytes, new: bytes) -> bytes:
    return encode(msgspec.structs.replace(_line(old), columns=_line(new).columns)) + b"\n"


class _Waiting:
    """Lines that wait on disk until all have come."""

    def __enter__(self) -> Self:
        self._file = temporary_file("as much as the rows that land")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def add(self, record: LandedRow) -> None:
        """Append a record."""
        self._file.write(encode(record))
        self._file.write(b"\n")

    def lines(self) -> Iterator[bytes]:
        """Yield what was appended, from the start, each with the line's end."""
        self._file.seek(0)
        yield from self._file


class _Index:
    """The keys of a batch. Filled when somebody asks: where there is no file yet, nobody does."""

    def __init__(self, *waiting: _Waiting) -> None:
        self._waiting = waiting
        self._is_filled = False

    def __enter__(self) -> Self:
        self._keys = Shelf().__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._keys.__exit__(*exc_info)

    def find(self, key: str) -> bytes | None:
        """Return None for a key that the batch does not have.

        :returns: the line, where it is a good answer of an earlier run; otherwise nothing but that there is one.
        """
        if not self._is_filled:
            self._fill()
        return self._keys.last(key)

    def _fill(self) -> None:
        self._is_filled = True
        for waiting in self._waiting:
            for line in waiting.lines():
                brief = _brief(line)
                is_known = brief.attempts == 0 and brief.status == "succeeded"
                self._keys.put(brief.row_key, line if is_known else b"")


@contextlib.contextmanager
def _ours(uri: Uri, file_format: _Format) -> Iterator[None]:
    """Name the file in errors of decoders that only know bytes."""
    try:
        yield
    except file_format.errors as error:
        raise ResultError(
            f"{uri} is not as a landing left it",
            uri=str(uri),
            why=type(error).__name__,
            left="Nothing was landed",
            todo="Move it out of this folder, or restore it, and clear this task",
        ) from error


def _arrow_schema() -> Any:
    import pyarrow as pa

    kinds = {
        "STRING": pa.string(), "JSON": pa.string(), "INT64": pa.int64(),
        "NUMERIC": pa.decimal128(38, 9), "TIMESTAMP": pa.timestamp("us", tz="UTC"),
    }  # fmt: skip
    return pa.schema([(field["name"], kinds[field["type"]]) for field in FILE_SCHEMA])
