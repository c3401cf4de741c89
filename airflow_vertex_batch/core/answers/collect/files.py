"""Which objects are a job's output, and which of their lines can be read?

A bad line costs only itself: a line that is not JSON is counted and reported, and the rows of the other lines land. An
object without a single line of an output is not part of the output, and is ignored.
"""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.errors import ResultError
from airflow_vertex_batch.core.domain.jsonl import OutputLine, encode, loose, read_output
from airflow_vertex_batch.core.domain.lines import read_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_vertex_batch.core.domain.address import Uri
    from airflow_vertex_batch.core.domain.ports import ObjectStore

log = logging.getLogger(__name__)

#: ``predictions.jsonl`` in every listing that was shown (Google's notebook, live captures of 2026); its shards and what
#: a job writes on its way in one client's code; numbered ones in the API's definition (revision 20261106), and those of
#: other models of the same service, ``prediction.results-00000-of-00002`` and ``000000000000.jsonl``.
_RESULT = re.compile(
    r"(?:incremental_)?predictions?(?:_\d+)?\.jsonl(?:-\d+(?:-of-\d+)?)?|prediction\.results-\d+-of-\d+|\d{12}\.jsonl",
    re.ASCII,
)
#: The folder that the service makes below the one that it was given, for whoever names the latter.
_FOLDER = re.compile(r"prediction-.*\d{4}-\d\d-\d\dT[\d:.]+Z", re.ASCII)
#: What may stand before the brace of a damaged line.
_BEFORE = b"\xef\xbb\xbf\0 \t\r"
_COLUMNS = ("key", "status", "processed_time", "request", "response")


def _is_result(name: str) -> bool:
    """Whether the service gives this name to a result file.

    :param name: below the output folder.
    """
    *folders, basename = name.split("/")
    return _RESULT.fullmatch(basename) is not None and all(_FOLDER.fullmatch(folder) for folder in folders)


def result_files(store: ObjectStore, folder: Uri) -> list[Uri]:
    """Return the result files of an output folder; what a job wrote on its way counts if there is nothing else.

    Copies, unfinished uploads and whatever else lies there have other names, or lie in folders of their own.
    """
    whole = folder / ""
    found = [info.uri for info in store.list(whole) if _is_result(info.uri.name.removeprefix(whole.name))]
    final = [uri for uri in found if not uri.basename.startswith("incremental_")]
    return final or found


def file_lines(store: ObjectStore, files: Iterable[Uri]) -> Iterator[OutputLine]:
    """Yield the output lines of files; of those that cannot be read, the log says how many there are.

    :raises ResultError: when a file never was an output.
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
        #: Lines that were read, that were not, and those of them that have an end: what is cut may still grow.
        self.count = self.lost_count = self.whole_count = 0
        #: The first line that was not.
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
        """Whether any of its lines is, or was meant to be, one of an output. An empty file is one."""
        return bool(self.count) or self._has_braces or self.error is None

    @property
    def lost(self) -> str:
        """What could not be read; nothing where all was."""
        return lost_lines(self.lost_count, self.error)


def lost_lines(count: int, first: ResultError | None) -> str:
    """Name lines that could not be read, by their number and the place of the first."""
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
    """Return the JSON in a text: a column of type JSON or STRING may hold either."""
    if not isinstance(value, str | bytes):
        return value
    try:
        # Checked, and not built.
        return _check(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return value


_check = msgspec.json.Decoder(msgspec.Raw).decode


def _encodable(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        return value
    try:
        return loose(json.dumps(value, default=str).encode())
    except (ValueError, TypeError, RecursionError):
        return None
