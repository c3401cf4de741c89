"""Where do the rows come from? Every source is a stream of rows, each with the place it was read from.

Invariants: nothing is held but the current row (or the current page of a table or Parquet file); a row is a plain dict
of column to value; its place is a file and a 1-based line, or a table or query and a 1-based row.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import inspect
import io
import mimetypes
import zlib
from collections.abc import AsyncIterable, Iterable
from typing import IO, TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_vertex_batch.core.address import TableId, Uri
from airflow_vertex_batch.core.errors import InputError, VertexBatchError
from airflow_vertex_batch.core.jsonl import decode
from airflow_vertex_batch.core.lines import read_blocks, too_long

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow_vertex_batch.core.ports import ObjectInfo, ObjectStore, Warehouse

Row = dict[str, Any]
#: File or table, 1-based line or row, and the row itself; a line that is no row arrives as the error that says why.
Placed = tuple[str, int, "Row | InputError"]

#: Media types that Python's table lacks or names differently from the API
#: (https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/document-understanding, 2026-11-22).
_MEDIA_TYPES = {
    ".webp": "image/webp", ".heic": "image/heic", ".heif": "image/heif", ".mp3": "audio/mpeg", ".wav": "audio/wav",
    ".flac": "audio/flac", ".m4a": "audio/mp4", ".aac": "audio/aac", ".ogg": "audio/ogg", ".opus": "audio/opus",
    ".mov": "video/quicktime", ".mkv": "video/x-matroska", ".webm": "video/webm", ".flv": "video/x-flv",
    ".wmv": "video/wmv", ".3gp": "video/3gpp", ".md": "text/md",
}  # fmt: skip
_PAGE_ROWS = 1_000
#: A line that is handled alone.
LARGE_BYTES = 1 << 20
#: Python's own limit of 131,072 characters a CSV field is below what one prompt may hold.
_MAX_FIELD_CHARACTERS = 100_000_000


def media_type(name: str) -> str:
    """Return the MIME type for a file name, or an empty text when its ending says nothing."""
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    return _MEDIA_TYPES.get(suffix) or mimetypes.guess_type(name.rpartition("/")[2])[0] or ""


class Source(Protocol):
    """A stream of placed rows."""

    def rows(self, store: ObjectStore, warehouse: Warehouse) -> Iterator[Placed]:
        """Yield each row with its place."""


class Objects(msgspec.Struct, frozen=True):
    """Media objects by prefix or glob: one row an object, which becomes a ``fileData`` part.

    Columns: ``uri``, ``name`` (last path segment), ``mime_type``, ``size_bytes``.
    """

    pattern: str
    mime_type: str = ""

    def rows(self, store: ObjectStore, warehouse: Warehouse) -> Iterator[Placed]:  # noqa: ARG002 - one shape for all
        """Yield one row an object, in name order."""
        for number, info in enumerate(store.list(Uri.parse(self.pattern)), start=1):
            kind = self.mime_type or media_type(info.uri.name) or _told_type(info.content_type)
            row = {"uri": str(info.uri), "name": info.uri.basename, "mime_type": kind, "size_bytes": info.size_bytes}
            yield str(info.uri), number, row


def _told_type(content_type: str) -> str:
    # What an uploader did not know says nothing about the media.
    return "" if content_type in {"application/octet-stream", "binary/octet-stream"} else content_type


class Table(msgspec.Struct, frozen=True):
    """Every row of one BigQuery table."""

    table: TableId

    def rows(self, store: ObjectStore, warehouse: Warehouse) -> Iterator[Placed]:  # noqa: ARG002
        """Yield the table's rows."""
        for number, row in enumerate(warehouse.rows(self.table), start=1):
            yield str(self.table), number, row


class Query(msgspec.Struct, frozen=True):
    """The rows of a BigQuery query, with ``@name`` parameters."""

    sql: str
    parameters: dict[str, Any] = {}

    def rows(self, store: ObjectStore, warehouse: Warehouse) -> Iterator[Placed]:  # noqa: ARG002
        """Yield the query's rows."""
        for number, row in enumerate(warehouse.rows(self.sql, self.parameters), start=1):
            yield "query", number, row


class DbApiQuery(msgspec.Struct, frozen=True):
    """The rows of a query over any DB-API connection.

    :param connect: opens the connection; called when the first row is wanted.
    """

    connect: Callable[[], Any]
    sql: str
    parameters: Mapping[str, Any] | None = None

    def rows(self, store: ObjectStore, warehouse: Warehouse) -> Iterator[Placed]:  # noqa: ARG002
        """Yield the query's rows, page by page."""
        with contextlib.closing(self.connect()) as connection, contextlib.closing(_cursor(connection)) as cursor:
            cursor.execute(self.sql, self.parameters) if self.parameters else cursor.execute(self.sql)
            number = 0
            while page := cursor.fetchmany(_PAGE_ROWS):
                names = [column[0] for column in cursor.description]
                _refuse_twice(names, "The query")
                for values in page:
                    number += 1
                    yield "query", number, dict(zip(names, values, strict=True))


def _refuse_twice(names: Sequence[str], where: str) -> None:
    """Refuse columns of one name: which of them a template means, nobody could say.

    :raises InputError: naming them.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"{where} has more than one column {', '.join(map(repr, twice))}",
            left="Nothing was prepared",
            todo="Give each column a name of its own",
        )


def _cursor(connection: Any) -> Any:
    """Return a cursor that streams: psycopg's plain one would hold the whole result on our side."""
    if type(connection).__module__.split(".")[0] in {"psycopg", "psycopg2"}:
        return connection.cursor("airflow_vertex_batch")
    return connection.cursor()


class Rows(msgspec.Struct, frozen=True):
    """Rows made in Python: an iterable, or a callable that returns one. A bare text is a row with column ``prompt``."""

    values: Iterable[Row | str] | Callable[[], Iterable[Row | str]]

    def rows(self, store: ObjectStore, warehouse: Warehouse) -> Iterator[Placed]:  # noqa: ARG002
        """Yield the rows."""
        values: Any = self.values() if callable(self.values) else self.values
        refuse_no_rows(values)
        if callable(values):
            raise InputError("rows gave a function, not rows", todo="Return a list of rows, or yield them")
        for number, value in enumerate(values, start=1):
            if isinstance(value, dict):
                yield "rows", number, value
            elif isinstance(value, str):
                yield "rows", number, {"prompt": value}
            else:
                wrong = f"Row {number} is a {type(value).__name__}"
                yield "rows", number, InputError(wrong, todo="Yield dicts, or texts")


def refuse_no_rows(values: Any) -> None:
    """Refuse what is no series of rows, and no function that may give one.

    :raises InputError: saying what it is, and what to do.
    """
    kind = type(values).__name__
    if isinstance(values, str | bytes | dict):
        raise InputError(f"rows is one {kind}, not a list of rows", todo="Wrap it in a list: each item is one request")
    is_async = inspect.iscoroutinefunction(values) or inspect.isasyncgenfunction(values)
    if is_async or inspect.isawaitable(values) or isinstance(values, AsyncIterable):
        raise InputError(f"rows gave a {kind}", why="it is asynchronous", todo="Use def, not async def")
    if hasattr(values, "to_dict") and hasattr(values, "columns"):
        # Iterating over it gives the names of its columns.
        raise InputError(f"rows is a {kind}", todo="Pass frame.to_dict('records')")
    if not isinstance(values, Iterable) and not callable(values):
        why = "a function without a return gives None" if values is None else ""
        raise InputError(f"rows gave {kind}, not rows", why=why, todo="Return a list of rows, or yield them")


class Files(msgspec.Struct, frozen=True):
    """JSONL, CSV or Parquet files on local disk or Cloud Storage, by name, folder or glob; ``.gz`` is unpacked.

    :param format: ``jsonl``, ``csv`` or ``parquet``; empty to go by each file's ending.
    """

    patterns: tuple[str, ...]
    format: str = ""

    def rows(self, store: ObjectStore, warehouse: Warehouse) -> Iterator[Placed]:  # noqa: ARG002
        """Yield the rows of every file, files in name order."""
        for info in matching(store, self.patterns):
            uri = info.uri
            read = _READERS.get(self.format or _format(uri.name))
            if read is None:
                raise InputError(
                    f"{uri} has no ending we know", todo="Name it .jsonl, .csv or .parquet, or set files_format"
                )
            with _readable(uri), open_text(store, uri, info.version) as stream:
                for number, row in read(stream):
                    yield str(uri), number, row


@contextlib.contextmanager
def _readable(uri: Uri) -> Iterator[None]:
    """Name the file in errors of decoders that only know bytes."""
    try:
        yield
    except InputError as error:
        if str(uri) in error.what:
            raise
        raise InputError(f"{uri}: {error.what}", why=error.why, left=error.left, todo=error.todo) from error
    except VertexBatchError:
        raise
    # pyarrow's and the text decoder's errors are ValueErrors; of damaged pages pyarrow says OSError.
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _unreadable(uri, error) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _unreadable(uri, error) from error


def _unreadable(uri: Uri, error: Exception) -> InputError:
    return InputError(
        f"{uri} cannot be read",
        why=f"{type(error).__name__}: {error}",
        todo="Check its format, and that it is whole and UTF-8",
    )


def matching(store: ObjectStore, patterns: Iterable[str]) -> Iterator[ObjectInfo]:
    """Yield the objects that each pattern names, as they all were when the first of a pattern is asked for.

    :raises InputError: when a pattern matches nothing: a night without its file is not a night without rows.
    """
    for pattern in patterns:
        # All at once: a file that is replaced while the ones before it are read would make a set of old and new ones.
        found = list(store.list(Uri.parse(pattern)))
        if not found:
            raise InputError(f"{pattern} matches no file", todo="Check the name, and that the file has arrived")
        yield from found


@contextlib.contextmanager
def open_text(store: ObjectStore, uri: Uri, version: str = "") -> Iterator[IO[bytes]]:
    """Open an object, unpacking ``.gz``.

    :param version: as `ObjectStore.open_read` takes it.
    :raises InputError: also while reading, when the packed file is cut or damaged.
    """
    with store.open_read(uri, version) as stream:
        if uri.name.endswith(".gz"):
            try:
                with gzip.open(stream) as unpacked:
                    yield unpacked  # type: ignore[misc]
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise _unreadable(uri, error) from error
        else:
            yield stream


def _format(name: str) -> str:
    name = name.removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return "jsonl"
    if name.endswith((".csv", ".tsv")):
        return "csv"
    return "parquet" if name.endswith(".parquet") else ""


class LargeRow(dict[str, Any]):
    """A row of a line so long that it is handled alone: many of them would not fit into memory together."""


def _read_jsonl(stream: IO[bytes]) -> Iterator[tuple[int, Row | InputError]]:
    for first, block in read_blocks(stream):
        for number, line in enumerate(block, start=first):
            if not line.isspace():
                yield number, _json_row(line)


def _json_row(line: bytes) -> Row | InputError:
    try:
        row = decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = too_long(line)
        todo = "Pass media as fileData instead of inline" if why else "Write one JSON object a line"
        return InputError("The line is too long" if why else "Not JSON", why=why or str(error), todo=todo)
    if not isinstance(row, dict):
        return InputError("Not a JSON object", todo="Write one JSON object a line")
    return row if len(line) < LARGE_BYTES else LargeRow(row)


def _read_csv(stream: IO[bytes]) -> Iterator[tuple[int, Row | InputError]]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    sample = text.readline()
    # Tabs in the head line make it tab-separated; anything odder is the user's to say in SQL or Python.
    delimiter = "\t" if sample.count("\t") > sample.count(",") else ","
    names = next(_csv_records([sample], delimiter, 1), (1, []))[1]
    _refuse_twice(names, "The file")
    # The head, read before, is line 1.
    for number, values in _csv_records(text, delimiter, 2):
        if len(values) == len(names):
            yield number, dict(zip(names, values, strict=True))
        elif values:
            yield (
                number,
                InputError(
                    f"{len(values)} values for {len(names)} columns", todo="Quote values that hold the separator"
                ),
            )


def _csv_records(lines: Iterable[str], delimiter: str, first: int) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the line on which it begins; it may have several.

    :param first: the number of the first line.
    :raises InputError: where quotes do not match: what follows would be read as a part of the text before it.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD_CHARACTERS))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    begins = first
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise _unbalanced(begins, first + reader.line_num - 1, error) from error
        if values is None:
            return
        yield begins, values
        begins = first + reader.line_num


def _unbalanced(begins: int, ends: int, error: csv.Error) -> InputError:
    return InputError(
        f"The quotes of the record that begins on line {begins} do not match",
        why=f"{error}, on line {ends}",
        left="Nothing was prepared",
        todo='Close the quote that is opened there, and write a quote inside a quoted value twice: ""',
    )


def _read_parquet(stream: IO[bytes]) -> Iterator[tuple[int, Row | InputError]]:
    from pyarrow.parquet import ParquetFile

    file, number = ParquetFile(stream), 0
    _refuse_twice(file.schema_arrow.names, "The file")
    for batch in file.iter_batches(batch_size=_PAGE_ROWS):
        for row in _arrow_rows(batch):
            number += 1
            yield number, row


def _arrow_rows(batch: Any) -> list[Row | InputError]:
    try:
        return batch.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError):
        # Some value has no counterpart in Python, such as a time to the nanosecond, or in the year 20,000.
        return [_arrow_row(batch, index) for index in range(batch.num_rows)]


def _arrow_row(batch: Any, index: int) -> Row | InputError:
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[index].as_py()
        except (ValueError, OverflowError):
            return InputError(
                f"Column {name!r} holds a {column.type} that cannot be read exactly",
                todo="Write the column as text, or with microseconds",
            )
    return row


_READERS = {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}


class Requests(msgspec.Struct, frozen=True):
    """Ready-made request JSONL, as on the user's page: each row is one request line, with or without its key.
    Members beside the request are columns like any other's.
    """

    patterns: tuple[str, ...]

    def rows(self, store: ObjectStore, warehouse: Warehouse) -> Iterator[Placed]:  # noqa: ARG002
        """Yield the lines, decoded."""
        for info in matching(store, self.patterns):
            with _readable(info.uri), open_text(store, info.uri, info.version) as stream:
                for number, row in _read_jsonl(stream):
                    yield str(info.uri), number, row
