"""Where are the values of a key kept while rows are read? On disk. The memory does not grow with their number.

Invariant: the values that were put under a key come back in the order in which they were put.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from airflow_vertex_batch.core.domain.temporary import temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How many values wait in memory for the next write. A separate statement for each value would take too long.
_BUFFERED = 5_000
_NEED = "twice the size of the rows that wait for another round, or for their duplicates"


class DiskMultimap:
    """Several values for each key, in a temporary file. It is a context manager: leaving it deletes the file."""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._db = stack.enter_context(temporary_database(_NEED, cache_kb=8192))
            self._db.execute("CREATE TABLE multimap (key TEXT, number INTEGER, value BLOB, PRIMARY KEY (key, number))")
            self._waiting: list[tuple[str, int, bytes]] = []
            self._number = 0
            #: The number of values that are here.
            self.count = 0
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def put(self, key: str, value: bytes = b"") -> None:
        """Add a value to a key's."""
        self.count += 1
        self._number += 1
        self._waiting.append((key, self._number, value))
        if len(self._waiting) >= _BUFFERED:
            self._write()

    def all(self, key: str) -> list[bytes]:
        """Return a key's values, oldest first."""
        if not self.count:
            return []
        self._write()
        return [
            value for (value,) in self._db.execute("SELECT value FROM multimap WHERE key = ? ORDER BY number", (key,))
        ]

    def last(self, key: str) -> bytes | None:
        """Return a key's newest value, or None when it has none."""
        found = self.all(key)
        return found[-1] if found else None

    def take(self, key: str) -> list[bytes]:
        """Return a key's values and forget them."""
        found = self.all(key)
        if found:
            self._db.execute("DELETE FROM multimap WHERE key = ?", (key,))
            self.count -= len(found)
        return found

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Yield every key and value, keys in order."""
        self._write()
        yield from self._db.execute("SELECT key, value FROM multimap ORDER BY key, number")

    def _write(self) -> None:
        if self._waiting:
            self._db.executemany("INSERT INTO multimap VALUES (?, ?, ?)", self._waiting)
            self._waiting.clear()
