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
#: Rows, or bytes, that are written together.
_FLUSH_ROWS, _FLUSH_BYTES = 2_000, 8 << 20
#: What a file's columns are: the day stands in the name of its folder.
FILE_SCHEMA = tuple(field for field in SCHEMA if field["name"] != "partition_date")
#: Those that may be long.
_LONG = ("text", "answer", "response", "columns")
#: Bytes of a text that are decoded at once, and before which it may be cut: no escape holds one of these.
_STEP_BYTES, _CUT = 1 << 20, re.compile(rb"[ ,.:;\xc2-\xf4]")
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
        (field["name"], msgspec.Raw, NULL) if field["name"] in _LONG else (field["name"], Any, None)
        for field in FILE_SCHEMA
    ],
)
brief_of = msgspec.json.Decoder(_Brief).decode
#: A landed line whose text and JSON columns stay bytes, so that they come out as they went in.
line_of = msgspec.json.Decoder(_Line).decode


class Format(Protocol):
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
            yield brief_of(line).row_key, line if line.endswith(b"\n") else line + b"\n"

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
        from pyarrow.parquet import ParquetWriter

        schema = _arrow_schema()
        # A dictionary of long texts would hold all of them, and find none twice.
        short = [name for name in schema.names if name not in _LONG]
        writer = ParquetWriter(stream, schema, compression="zstd", use_dictionary=short, write_statistics=short)
        try:
            for chunk in _chunks(records, _long_bytes):
                batch = _arrow_batch(chunk, schema)
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
    """Return records as Arrow holds them; None for what a record lacks."""
    from pyarrow import RecordBatch, array, binary

    columns = []
    for field in schema:
        values = [record.get(field.name) for record in records]
        # Only to see whether bytes are a text, Arrow would make a Python text of them; the cast looks at the bytes.
        is_long = field.name in _LONG
        columns.append(array(values, binary()).cast(field.type) if is_long else array(values, field.type))
    return RecordBatch.from_arrays(columns, schema=schema)


def _utf8(text: bytes) -> bytes:
    """Return what a JSON text says as UTF-8, which is what Arrow makes of a text.

    In steps: with one emoji in it, Python keeps four bytes of every character.
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


FORMATS: dict[str, Format] = {"jsonl": _Jsonl(), "parquet": _Parquet()}


def _arrow_schema() -> Any:
    import pyarrow as pa

    kinds = {
        "STRING": pa.string(), "JSON": pa.json_(), "INT64": pa.int64(),
        "NUMERIC": pa.decimal128(38, 9), "TIMESTAMP": pa.timestamp("us", tz="UTC"),
    }  # fmt: skip
    return pa.schema([(field["name"], kinds[field["type"]]) for field in FILE_SCHEMA])
