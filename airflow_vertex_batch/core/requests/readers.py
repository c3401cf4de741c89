"""How does a file become rows? JSON lines, CSV and Parquet, each read as a stream of numbered rows.

Invariants: only the current row is in memory, or the current page of a Parquet file. A line that is not a row arrives
as the error that says why, with the number of its line.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import logging
import re
import sys
from typing import IO, TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.jsonl import decode, encode
from airflow_vertex_batch.core.domain.lines import read_blocks, too_long

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

log = logging.getLogger(__name__)

Row = dict[str, Any]
#: Lines that look like rows by accident, such as a table that somebody pasted into a ticket.
_FEW_ROWS = 3
_ROWS_INSIDE = (
    "A quoted text of the record that begins on line %d goes on over lines that look like rows of their own, and are"
    " read as a part of it. If they are rows, a quote is missing there, or there is one too many: look at that line."
)
_PAGE_ROWS, _PAGE_BYTES = 1_000, 1 << 22
#: From this size on, lines are read one by one; and from this size on, a text is not a member name.
_LONG_BYTES, _LONG_TEXT_BYTES = 1 << 20, 2_000
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NUMBER_BYTES = 8
_SIZED = frozenset({str, bytes, bytearray, memoryview})
#: Python's own limit of 131,072 characters a CSV field is below what one prompt may hold.
_MAX_FIELD_CHARACTERS = 100_000_000


def format_of(name: str) -> str:
    """Return the format from a file's ending; an empty text if the ending does not show it."""
    name = name.lower().removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return "jsonl"
    if name.endswith((".csv", ".tsv")):
        return "csv"
    return "parquet" if name.endswith(".parquet") else ""


def row_bytes(value: Any) -> int:
    """Return about how many bytes a row, or a value of it, has: its texts, at a byte a character, and bytes.

    A value that is nested too deeply counts as larger than any chunk.
    """
    try:
        return _bytes(value)
    except RecursionError:
        return sys.maxsize


def _bytes(value: Any) -> int:
    kind = type(value)
    if kind in _SIZED:
        return len(value)
    if kind is dict:
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if kind is list or kind is tuple else _NUMBER_BYTES


def page_rows(largest: int) -> int:
    """Return how many rows to ask for at once.

    :param largest: bytes of the largest row so far, as `row_bytes` counts them.
    """
    return max(1, min(_PAGE_ROWS, _PAGE_BYTES // max(1, largest)))


def read_jsonl(stream: IO[bytes]) -> Iterator[tuple[int, Row | InputError]]:
    """Yield each line that is not empty, with its number.

    :raises InputError: when the file is packed, or text of another encoding.
    """
    for first, block in read_blocks(stream):
        if first == 1:
            if strange := no_utf8(block[0]):
                raise InputError(f"The file is {strange[0]}", todo=strange[1])
            # Editors on Windows write one before the first line, of CSV as of JSON.
            block[0] = block[0].removeprefix(codecs.BOM_UTF8)
        numbered = [(number, line) for number, line in enumerate(block, start=first) if line and not line.isspace()]
        if sum(map(len, block)) > _LONG_BYTES:
            # One by one, and none is held here while the next step is at work on it.
            yield from map(_long_row, numbered)
            continue
        rows = [(number, _json_row(line)) for number, line in numbered]
        if _may_repeat(block, [row for _, row in rows if isinstance(row, dict)]):
            rows = [(number, _once(block[number - first], row)) for number, row in rows]
        yield from rows


def _long_row(numbered: tuple[int, bytes]) -> tuple[int, Row | InputError]:
    number, line = numbered
    # Names are looked for beside the long texts: these would be there twice.
    short = _TEXT.sub(lambda text: text[0] if text.end() - text.start() < _LONG_TEXT_BYTES else b'""', line)
    return number, _once(short, _json_row(line))


def _may_repeat(lines: list[bytes], rows: list[Row]) -> bool:
    """Whether a line may have two members with one name. The decoder keeps only the last, without an error; then there
    are two quotation marks fewer.
    """
    try:
        return sum(line.count(b'"') for line in lines) != encode(rows).count(b'"')
    except RecursionError:
        return True  # one is nested as deeply as can be read


def no_utf8(head: bytes) -> tuple[str, str] | None:
    """Return what a file with this beginning is, and what to do, if it is packed or has another encoding."""
    if head.startswith(b"\x1f\x8b"):
        return "packed with gzip", "Let its name end in .gz, or unpack it"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "text in UTF-16", "Write it as UTF-8"
    return None


def _json_row(line: bytes) -> Row | InputError:
    try:
        row = decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = too_long(line)
        todo = "Pass media as fileData instead of inline" if why else "Write one JSON object a line"
        return InputError("The line is too long" if why else "Not JSON", why=why or str(error), todo=todo)
    if not isinstance(row, dict):
        return InputError("Not a JSON object", todo="Write one JSON object a line")
    return row


def _once(line: bytes, row: Row | InputError) -> Row | InputError:
    if isinstance(row, InputError) or not (twice := sorted(_twice(line))):
        return row
    names = ", ".join(map(repr, twice))
    return InputError(f"More than one member {names}", todo="Give each member a name of its own")


def _twice(line: bytes) -> set[str]:
    """Return the names that stand twice in one object, at any depth."""
    found: set[str] = set()

    def look(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        found.update(name for name in names if names.count(name) > 1)

    try:
        json.loads(line, object_pairs_hook=look)
    except (ValueError, RecursionError):
        return set()  # a number, or a depth, that only the other decoder takes
    return found


def _read_csv(stream: IO[bytes]) -> Iterator[tuple[int, Row | InputError]]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    blank, sample = 0, text.readline()
    while sample and not sample.strip():
        blank, sample = blank + 1, text.readline()
    delimiter = _delimiter(sample)
    records = _csv_records(itertools.chain([sample], text), delimiter, blank + 1)
    names = next(records, (1, 1, []))[2]
    refuse_twice(names, "The file")
    warned = False
    for number, last, values in records:
        if len(values) == len(names):
            if last - number > _FEW_ROWS and not warned:
                warned = any(_holds_rows(value, len(names) - 1, delimiter) for value in values)
                log.warning(_ROWS_INSIDE, number) if warned else None
            yield number, dict(zip(names, values, strict=True))
        elif values:
            yield (
                number,
                InputError(
                    f"{len(values)} values for {len(names)} columns", todo="Quote values that hold the separator"
                ),
            )


def _delimiter(head: str) -> str:
    """Return the separator of values: a comma, or the character that the head line has instead.

    Excel writes semicolons where a comma is the decimal mark. For any other separator, the user must read the file with
    SQL or Python.
    """
    if head.count("\t") > head.count(","):
        return "\t"
    return ";" if ";" in head and "," not in head else ","


def _holds_rows(value: str, separators: int, delimiter: str) -> bool:
    """Whether all lines inside a quoted text look like rows: two stray quotes, rows apart, match each other."""
    inner = value.split("\n")[1:-1] if "\n" in value else []
    return len(inner) >= _FEW_ROWS and separators > 0 and all(line.count(delimiter) == separators for line in inner)


def _csv_records(lines: Iterable[str], delimiter: str, first: int) -> Iterator[tuple[int, int, list[str]]]:
    """Yield each record with the lines on which it begins and ends.

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
        ends = first + reader.line_num
        yield begins, ends - 1, values
        begins = ends


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
    refuse_twice(file.schema_arrow.names, "The file")
    for batch in file.iter_batches(batch_size=page_rows(_largest(file.metadata))):
        # What a file says of its sizes is before texts that are there twice are written out.
        step = page_rows(batch.nbytes // max(1, batch.num_rows))
        for start in range(0, batch.num_rows, step):
            for row in _arrow_rows(batch.slice(start, step)):
                number += 1
                yield number, row


def _largest(metadata: Any) -> int:
    """Return the bytes of a row, on the average of the row group whose rows are largest."""
    groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
    return max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)


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


def refuse_twice(names: Sequence[str], where: str) -> None:
    """Refuse two columns with one name, because it is not clear which one a template means.

    :raises InputError: with their names.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"{where} has more than one column {', '.join(map(repr, twice))}",
            left="Nothing was prepared",
            todo="Give each column a name of its own",
        )


#: By the format's name.
READERS = {"jsonl": read_jsonl, "csv": _read_csv, "parquet": _read_parquet}
