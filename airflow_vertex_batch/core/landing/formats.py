"""How are the records of a day's file read and written? As JSON lines, or as Parquet."""

from __future__ import annotations

import contextlib
import re
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from airflow_vertex_batch.core.domain.jsonl import NULL, decode, encode
from airflow_vertex_batch.core.landing.record import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_T = TypeVar("_T")
#: How many rows, or bytes, are written together.
_FLUSH_ROWS, _FLUSH_BYTES = 2_000, 8 << 20
#: The columns of a file. The day is not one of them, because it is in the name of the folder.
FILE_SCHEMA = tuple(field for field in SCHEMA if field["name"] != "partition_date")
#: Columns that may be long.
_LONG = ("text", "answer", "response", "columns")
#: How many bytes of a text are decoded at once; and the bytes before which a text may be cut, because no escape
#: sequence has one of these.
_STEP_BYTES, _CUT = 1 << 20, re.compile(rb"[ ,.:;\xc2-\xf4]")
_JSON_COLUMNS = tuple(field["name"] for field in FILE_SCHEMA if field["type"] == "JSON")


class _Brief(msgspec.Struct, gc=False):
    """The members of a line that decide what to do with it."""

    row_key: str
    status: str
    request_digest: str | None = None
    attempts: int | None = None


_Line: Any = msgspec.defstruct(
    "_Line",
    [
        (field["name"], msgspec.Raw, NULL) if field["name"] in _LONG else (field["name"], Any, None)
        for field in FILE_SCHEMA
    ],
)
brief_of = msgspec.json.Decoder(_Brief).decode
#: Decodes a landed line. Its text and JSON columns stay bytes, so that they are written unchanged.
line_of = msgspec.json.Decoder(_Line).decode


class Format(Protocol):
    """How records of a file are read and written. A record is a landed line in the form that the format needs."""

    content_type: str

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The exceptions that are raised if a file does not have this format."""

    def read(self, stream: IO[bytes]) -> Iterator[tuple[str, Any]]:
        """Yield each record with its key."""

    def write(self, stream: IO[bytes], records: Iterator[Any]) -> None:
        """Write all records."""

    def record(self, line: bytes) -> Any:
        """Return the record of a landed line."""

    def line(self, record: Any) -> bytes:
        """Return the line that a record was made from."""


class _Jsonl:
    """A record is the line itself, with its line break."""

    content_type = "application/x-ndjson"
    errors: tuple[type[Exception], ...] = (msgspec.DecodeError, UnicodeDecodeError)

    def read(self, stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
        for line in stream:
            yield brief_of(line).row_key, line if line.endswith(b"\n") else line + b"\n"

    def write(self, stream: IO[bytes], records: Iterator[bytes]) -> None:
        for lines in _chunks(records, len):
            if sum(map(len, lines)) < _FLUSH_BYTES:
                stream.write(b"".join(lines))
            else:
                # If the lines were joined, a long line would be in memory twice.
                stream.writelines(lines)

    def record(self, line: bytes) -> bytes:
        return line

    def line(self, record: bytes) -> bytes:
        return record


class _Parquet:
    """A record is a dict of Arrow values."""

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
        from pyarrow.parquet import ParquetWriter

        schema = _arrow_schema()
        # Dictionary encoding is useless for long texts: it would keep all of them in memory, and no text comes twice.
        short = [name for name in schema.names if name not in _LONG]
        writer = ParquetWriter(stream, schema, compression="zstd", use_dictionary=short, write_statistics=short)
        try:
            for chunk in _chunks(records, _long_bytes):
                batch = _arrow_batch(chunk, schema)
                chunk.clear()
                writer.write_batch(batch)
        except BaseException:
            # Close the writer while the stream still accepts bytes. The stream is aborted, so nothing of it is stored.
            with contextlib.suppress(Exception):
                writer.close()
            raise
        writer.close()

    def record(self, line: bytes) -> dict[str, Any]:
        import decimal
        from datetime import datetime

        made = msgspec.structs.asdict(line_of(line))
        made["text"] = None if made["text"] == NULL else _utf8(bytes(made["text"]))
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


def _arrow_batch(records: list[dict[str, Any]], schema: Any) -> Any:
    """Return records as an Arrow batch; a missing member is None."""
    from pyarrow import RecordBatch, array, binary

    columns = []
    for field in schema:
        values = [record.get(field.name) for record in records]
        # To check that bytes are UTF-8, Arrow would make a Python text of them. The cast checks the bytes directly.
        is_long = field.name in _LONG
        columns.append(array(values, binary()).cast(field.type) if is_long else array(values, field.type))
    return RecordBatch.from_arrays(columns, schema=schema)


def _utf8(text: bytes) -> bytes:
    """Return the content of a JSON text as UTF-8, as Arrow stores a text.

    This is done in steps: if a text has one emoji, Python needs four bytes for every character of it.
    """
    if len(text) <= _STEP_BYTES:
        return str(decode(text)).encode()
    pieces, start, end = [], 1, len(text) - 1
    while start < end:
        cut = _CUT.search(text, start + _STEP_BYTES, end)
        stop = cut.start() if cut else end
        pieces.append(str(decode(b'"%b"' % text[start:stop])).encode())
        start = stop
    return b"".join(pieces)


def _long_bytes(record: dict[str, Any]) -> int:
    return sum(len(record.get(name) or "") for name in _LONG)


def _chunks(records: Iterator[_T], size: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Yield lists of records that are written together. The reader may empty each list."""
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


FORMATS: dict[str, Format] = {"jsonl": _Jsonl(), "parquet": _Parquet()}


def _arrow_schema() -> Any:
    import pyarrow as pa

    kinds = {
        "STRING": pa.string(), "JSON": pa.json_(), "INT64": pa.int64(),
        "NUMERIC": pa.decimal128(38, 9), "TIMESTAMP": pa.timestamp("us", tz="UTC"),
    }  # fmt: skip
    return pa.schema([(field["name"], kinds[field["type"]]) for field in FILE_SCHEMA])
