"""Where are lines and the user's columns kept until their rows can be made? In temporary files.

Memory: none for a line, and about twenty bytes for the columns of a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import msgspec

from airflow_vertex_batch.core.answers.collect.expected import KeyTable
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.temporary import temporary_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_vertex_batch.core.domain.ports import ObjectStore
    from airflow_vertex_batch.core.domain.row import ResultRow


class Spool:
    """Lines that were put aside, in a temporary file.

    :param need: how much space they need, for the error message about a full disk.
    """

    def __init__(self, need: str) -> None:
        self.count, self._need = 0, need

    def __enter__(self) -> Self:
        self._file = temporary_file(self._need)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def add(self, line: bytes) -> None:
        """Append a line."""
        self.count += 1
        self._file.write(line + b"\n")

    def read(self) -> Iterator[bytes]:
        """Yield the lines in order."""
        self._file.seek(0)
        yield from self._file


class Columns:
    """The user's columns by key, found by offset in a local copy of their file."""

    _WIDTH = 8

    def __init__(self, store: ObjectStore, uri: str) -> None:
        self._store, self._uri, self._offsets = store, uri, KeyTable(self._WIDTH)

    def __enter__(self) -> Self:
        self._file = temporary_file("as much as the columns of the rows of one job")
        if self._uri:
            offset = 0
            with self._store.open_read(Uri.parse(self._uri)) as stream:
                for line in stream:
                    self._offsets.add(_decode_columns(line).key, offset.to_bytes(self._WIDTH))
                    offset += self._file.write(line)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[str]:
        """Yield every key of the file."""
        self._file.seek(0)
        return (_decode_columns(line).key for line in self._file)

    def join(self, row: ResultRow) -> ResultRow:
        """Return the row with its columns."""
        place = self._offsets.find(row.key)
        if place is None:
            return row
        bucket, at = place
        self._file.seek(int.from_bytes(bucket[at : at + self._WIDTH]))
        return msgspec.structs.replace(row, columns=_decode_columns(self._file.readline()).columns)


class _ColumnsLine(msgspec.Struct, gc=False):
    key: str
    columns: dict[str, Any]


_decode_columns = msgspec.json.Decoder(_ColumnsLine).decode
