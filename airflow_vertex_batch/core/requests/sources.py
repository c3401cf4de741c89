"""Where do the rows come from? Every source is a stream of rows, each with the place it was read from.

Invariants: only the current row is in memory (or the current page of a table or Parquet file). A row is a plain dict of
column to value. Its place is a file and a line, or a table or query and a row; both count from 1.
"""

from __future__ import annotations

import contextlib
import gzip
import inspect
import mimetypes
import zlib
from collections.abc import AsyncIterable, Iterable
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.errors import InputError, VertexBatchError
from airflow_vertex_batch.core.domain.ports import objects_at
from airflow_vertex_batch.core.domain.redact import redact_errors
from airflow_vertex_batch.core.requests.readers import (
    READERS,
    Row,
    format_of,
    no_utf8,
    page_rows,
    read_jsonl,
    refuse_twice,
    row_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow_vertex_batch.core.domain.ports import ObjectInfo, ObjectStore, Warehouse

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
#: The largest growth from one page to the next, as a factor.
_GROWTH = 4
_ASK = "Run the query in a client of the database, which shows the value that it stumbles on"
_CATCH = "Catch it in the function, to log what may be logged"


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
        for number, info in enumerate(objects_at(store, Uri.parse(self.pattern)), start=1):
            kind = self.mime_type or media_type(info.uri.name) or _stored_type(info.content_type)
            row = {"uri": str(info.uri), "name": info.uri.basename, "mime_type": kind, "size_bytes": info.size_bytes}
            yield str(info.uri), number, row


def _stored_type(content_type: str) -> str:
    # These types only mean that the uploader did not know the type.
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
    parameters: Mapping[str, Any] | Sequence[Any] | None = None

    def rows(self, store: ObjectStore, warehouse: Warehouse) -> Iterator[Placed]:  # noqa: ARG002
        """Yield the query's rows, page by page: as many as fit into 4 MiB by the largest so far, 1,000 at the most."""
        with contextlib.closing(self.connect()) as connection, contextlib.closing(_cursor(connection)) as cursor:
            number = 0
            asked = lambda: f"The query failed after {number:,} rows"  # noqa: E731
            with redact_errors(asked, todo=_ASK):
                cursor.execute(self.sql, self.parameters) if self.parameters else cursor.execute(self.sql)
            # One row first: nothing is known yet of how large they are.
            largest, wanted = 0, 1
            while page := _page(cursor, wanted, asked):
                names = [column[0] for column in cursor.description]
                refuse_twice(names, "The query")
                largest = max(largest, *map(row_bytes, page))
                wanted = min(_GROWTH * wanted, page_rows(largest))
                for values in page:
                    number += 1
                    yield "query", number, dict(zip(names, values, strict=True))


def _page(cursor: Any, wanted: int, what: Callable[[], str]) -> list[tuple[Any, ...]]:
    with redact_errors(what, todo=_ASK):
        return [tuple(values) for values in cursor.fetchmany(wanted)]


def _cursor(connection: Any) -> Any:
    """Return a cursor that streams: psycopg's plain one would hold the whole result on our side."""
    if type(connection).__module__.split(".")[0] in {"psycopg", "psycopg2"}:
        return connection.cursor("airflow_vertex_batch")
    return connection.cursor()


class Rows(msgspec.Struct, frozen=True):
    """Rows made in Python: an iterable, or a callable that returns one. A bare text is a row with column ``prompt``.

    :param passed_on: errors of the author's code that are passed on unchanged.
    """

    values: Iterable[Row | str] | Callable[[], Iterable[Row | str]]
    passed_on: tuple[type[Exception], ...] = ()

    def rows(self, store: ObjectStore, warehouse: Warehouse) -> Iterator[Placed]:  # noqa: ARG002
        """Yield the rows."""
        values: Any = rows_of(self.values, passed_on=self.passed_on) if callable(self.values) else self.values
        refuse_no_rows(values)
        if callable(values):
            raise InputError("rows gave a function, not rows", todo="Return a list of rows, or yield them")
        for number, value in enumerate(self._each(values), start=1):
            if isinstance(value, dict):
                yield "rows", number, value
            elif isinstance(value, str):
                yield "rows", number, {"prompt": value}
            else:
                wrong = f"Row {number} is a {type(value).__name__}"
                yield "rows", number, InputError(wrong, todo="Yield dicts, or texts")

    def _each(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yield the rows that the author's code makes. Its errors are replaced, so that they quote no row."""
        number = 0
        # This catches only errors while rows are made, not errors where rows are used.
        with redact_errors(lambda: f"rows failed after {number:,} rows", todo=_CATCH, passed_on=self.passed_on):
            for value in values:
                yield value
                number += 1


def rows_of(
    function: Callable[..., Any], *args: Any, passed_on: tuple[type[Exception], ...] = (), **kwargs: Any
) -> Any:
    """Call a function of the DAG's author that makes rows; its errors do not quote them.

    :param passed_on: errors of the author's code that are passed on unchanged.
    :raises SourceError: saying where it failed.
    """
    with redact_errors("rows failed", todo=_CATCH, passed_on=passed_on):
        return function(*args, **kwargs)


def refuse_no_rows(values: Any) -> None:
    """Refuse a value that is neither a series of rows nor a function that may return one.

    :raises InputError: with what it is, and what to do.
    """
    kind = type(values).__name__
    if isinstance(values, str | bytes | dict):
        raise InputError(f"rows is one {kind}, not a list of rows", todo="Wrap it in a list: each item is one request")
    is_async = inspect.iscoroutinefunction(values) or inspect.isasyncgenfunction(values)
    if is_async or inspect.isawaitable(values) or isinstance(values, AsyncIterable):
        raise InputError(f"rows gave a {kind}", why="It is asynchronous", todo="Use def, not async def")
    if hasattr(values, "to_dict") and hasattr(values, "columns"):
        # Iterating over it gives the names of its columns.
        raise InputError(f"rows is a {kind}", todo="Pass frame.to_dict('records')")
    if not isinstance(values, Iterable) and not callable(values):
        why = "A function without a return gives None" if values is None else ""
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
            read = READERS.get(self.format or format_of(uri.name))
            if read is None and uri.basename.startswith("_"):
                continue  # such as the _SUCCESS that Spark writes beside its files
            if read is None:
                raise InputError(
                    f"{uri} has no ending we know",
                    why="Rows are read from .jsonl, .csv and .parquet, also with .gz",
                    todo="Save it in one of these forms; where it has one under another name, set files_format; of a "
                    "folder with other files, name those to read: gs://bucket/folder/*.csv",
                )
            with _readable(uri), open_text(store, uri, info.version) as stream:
                for number, row in read(stream):
                    yield str(uri), number, row


@contextlib.contextmanager
def _readable(uri: Uri) -> Iterator[None]:
    """Add the name of the file to errors of decoders, which only know bytes."""
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
    strange = no_utf8(error.object) if isinstance(error, UnicodeDecodeError) else None
    if strange is not None:
        return InputError(f"{uri} is {strange[0]}", todo=strange[1])
    return InputError(
        f"{uri} cannot be read",
        why=f"{type(error).__name__}: {error}",
        todo="Check its format, and that it is whole and UTF-8",
    )


def matching(store: ObjectStore, patterns: Iterable[str]) -> Iterator[ObjectInfo]:
    """Yield the objects that each pattern names. All objects of a pattern are listed at the same moment.

    :raises InputError: when a pattern matches nothing: a night without its file is not a night without rows.
    """
    for pattern in patterns:
        # All at once: a file that is replaced while the ones before it are read would make a set of old and new ones.
        found = objects_at(store, Uri.parse(pattern))
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
        if uri.name.lower().endswith(".gz"):
            try:
                with gzip.open(stream) as unpacked:
                    yield unpacked  # type: ignore[misc]
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise _unreadable(uri, error) from error
        else:
            yield stream


class Requests(msgspec.Struct, frozen=True):
    """Ready-made request JSONL, as on the user's page: each row is one request line, with or without its key.
    Members beside the request are columns like any other's.
    """

    patterns: tuple[str, ...]

    def rows(self, store: ObjectStore, warehouse: Warehouse) -> Iterator[Placed]:  # noqa: ARG002
        """Yield the lines, decoded."""
        for info in matching(store, self.patterns):
            with _readable(info.uri), open_text(store, info.uri, info.version) as stream:
                # Nothing here holds a row that is long while the next step is at work on it.
                yield from map(partial(_placed, str(info.uri)), read_jsonl(stream))


def _placed(uri: str, numbered: tuple[int, Row | InputError]) -> Placed:
    return uri, *numbered
