"""How does a file become rows? JSON lines, CSV and Parquet, each read as a stream of numbered rows.

Invariants: nothing is held but the current row, or the current page of a Parquet file; what is no row arrives as the
error that says why, with the number of its line.
"""

from __future__ import annotations

import csv
import io
from typing import IO, TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.core.jsonl import decode
from airflow_vertex_batch.core.lines import read_blocks, too_long

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Row = dict[str, Any]
_PAGE_ROWS = 1_000
#: A line that is handled alone.
LARGE_BYTES = 1 << 20
#: Python's own limit of 131,072 characters a CSV field is below what one prompt may hold.
_MAX_FIELD_CHARACTERS = 100_000_000


def format_of(name: str) -> str:
    """Return the format that a file's ending says; an empty text where it says none."""
    name = name.removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return "jsonl"
    if name.endswith((".csv", ".tsv")):
        return "csv"
    return "parquet" if name.endswith(".parquet") else ""


class LargeRow(dict[str, Any]):
    """A row of a line so long that it is handled alone: many of them would not fit into memory together."""


def read_jsonl(stream: IO[bytes]) -> Iterator[tuple[int, Row | InputError]]:
    """Yield each line that is not empty, with its number."""
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
    refuse_twice(names, "The file")
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
    refuse_twice(file.schema_arrow.names, "The file")
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


def refuse_twice(names: Sequence[str], where: str) -> None:
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


#: By the format's name.
READERS = {"jsonl": read_jsonl, "csv": _read_csv, "parquet": _read_parquet}
