"""Which objects are a job's output, and which of their lines can be read?

A bad line affects no other line: a line that is not JSON is counted and reported, and the rows of the other lines land.
An object without a single output line is not part of the output, and is ignored.
"""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.errors import ResultError
from airflow_vertex_batch.core.domain.jsonl import OutputLine, decode_leniently, encode, read_output
from airflow_vertex_batch.core.domain.lines import read_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_vertex_batch.core.domain.address import Uri
    from airflow_vertex_batch.core.domain.ports import ObjectStore

log = logging.getLogger(__name__)

#: Names of result files, with the source of each: ``predictions.jsonl`` in every listing that was shown (Google's
#: notebook, live captures of 2026); its shards, and files that a running job writes, in one client's code; numbered
#: ones in the API's definition (revision 20261106); ``prediction.results-00000-of-00002`` and ``000000000000.jsonl``,
#: from other models of the same service.
_RESULT = re.compile(
    r"(?:incremental_)?predictions?(?:_\d+)?\.jsonl(?:-\d+(?:-of-\d+)?)?|prediction\.results-\d+-of-\d+|\d{12}\.jsonl",
    re.ASCII,
)
#: The folder that the service makes below the output folder, in case somebody gives the output folder itself.
_FOLDER = re.compile(r"prediction-.*\d{4}-\d\d-\d\dT[\d:.]+Z", re.ASCII)
#: Bytes that may come before the brace of a damaged line.
_BEFORE = b"\xef\xbb\xbf\0 \t\r"
_COLUMNS = ("key", "status", "processed_time", "request", "response")


def _is_result(name: str) -> bool:
    """Whether the service gives this name to a result file.

    :param name: the name below the output folder.
    """
    *folders, basename = name.split("/")
    return _RESULT.fullmatch(basename) is not None and all(_FOLDER.fullmatch(folder) for folder in folders)


def result_files(store: ObjectStore, folder: Uri) -> list[Uri]:
    """Return the result files of an output folder. Files that a job wrote while it ran count only if there are no
    others.

    Copies, unfinished uploads and other objects have other names, or are in folders of their own.
    """
    whole = folder / ""
    found = [info.uri for info in store.list(whole) if _is_result(info.uri.name.removeprefix(whole.name))]
    final = [uri for uri in found if not uri.basename.startswith("incremental_")]
    return final or found


def file_lines(store: ObjectStore, files: Iterable[Uri]) -> Iterator[OutputLine]:
    """Yield the output lines of files. The log says how many lines cannot be read.

    :raises ResultError: when a file is not an output at all.
    """
    for uri in files:
        with store.open_read(uri) as stream:
            reader = FileReader(str(uri))
            for number, raw in read_lines(stream):
                if (line := reader.read(raw, number)) is not None:
                    yield line
        if reader.error is not None:
            if not reader.is_output:
                raise reader.error
            log.warning("%s cannot be read", reader.lost)


class FileReader:
    """Reads the lines of one file, and counts those that cannot be read."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        #: The number of lines that were read; of lines that could not be read; and of complete lines among the latter
        #: (a cut line may still grow).
        self.count = self.lost_count = self.whole_count = 0
        #: The first line that could not be read.
        self.error: ResultError | None = None
        self._has_braces = False

    def read(self, raw: bytes, number: int) -> OutputLine | None:
        """Decode a line; None when it cannot be read."""
        try:
            line = read_output(raw.strip(), self._uri, number)
        except ResultError as error:
            self.error = self.error or error
            self.lost_count += 1
            self.whole_count += raw.endswith(b"\n")
            self._has_braces |= raw.lstrip(_BEFORE).startswith(b"{")
            return None
        self.count += 1
        return line

    @property
    def is_output(self) -> bool:
        """Whether any line of the file is, or was meant to be, an output line. An empty file counts as an output."""
        return bool(self.count) or self._has_braces or self.error is None

    @property
    def lost(self) -> str:
        """A text about the lines that could not be read; empty if all were read."""
        return lost_lines(self.lost_count, self.error)


def lost_lines(count: int, first: ResultError | None) -> str:
    """Return a text about lines that could not be read: how many, and where the first one is."""
    if first is None:
        return ""
    place = f"line {first.line} of {first.uri} ({first.why})"
    return place if count == 1 else f"{count:,} lines, the first of them {place},"


def table_line(row: dict[str, Any]) -> bytes:
    """Write a row of an output table as an output line."""
    made = {name: row.get(name) for name in _COLUMNS}
    made["processed_time"] = str(made["processed_time"] or "")
    made |= {name: _from_text(made[name]) for name in ("request", "response")}
    try:
        return encode(made)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return encode({name: _encodable(value) for name, value in made.items()})


def _from_text(value: Any) -> Any:
    """Return the JSON value in a text. A column of type JSON or STRING may have a JSON text."""
    if not isinstance(value, str | bytes):
        return value
    try:
        # The JSON is only checked, not decoded.
        return _check(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return value


_check = msgspec.json.Decoder(msgspec.Raw).decode


def _encodable(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        return value
    try:
        return decode_leniently(json.dumps(value, default=str).encode())
    except (ValueError, TypeError, RecursionError):
        return None
