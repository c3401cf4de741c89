"""Has this key, this request, or this whole set of lines been seen before?

Two sets that hold any number of entries in constant memory, and a digest that does not depend on the order.

Nearly every key of a batch is new. A filter of fixed size recognises nearly all of the new ones. Only for the others, a
temporary file is searched; it gets an index only when it is searched for the first time.

Invariants: no entry is ever forgotten or taken for new twice. Memory does not grow with the entries. Keys are compared
by Python's 64-bit hash (two of ten million share one in a run of 400,000), digests by all their digits.
"""

from __future__ import annotations

import contextlib
from array import array
from io import SEEK_END
from itertools import combinations, compress, count, islice
from typing import TYPE_CHECKING, Self

from xxhash import xxh3_128_intdigest

from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.domain.temporary import temporary_database, temporary_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Bytes of the filter, a power of two.
_FILTER = 1 << 24
#: Entries held in memory before they go to the file; entries that are sorted to go into the index.
_HELD, _SORTED = 1 << 12, 1 << 14
#: Times that the file is read through, by the few who have to look, before an index would have cost less.
_READ_THROUGH = 128


def digest_sum(lines: Iterable[bytes]) -> int:
    """Return a digest of some lines, whatever their order: a sum does not depend on it.

    It distinguishes the sets of one task. It protects against accidents, not against attacks.
    """
    return sum(map(xxh3_128_intdigest, lines))


class _Bloom:
    """Says "new" or "perhaps not" of a hash: four of a word's 16 bits are set for an entry.

    With 16 MB, of a million new entries forty are "perhaps not", and of the tenth million one in 60. A larger one would
    be slower for everybody, since no processor's cache holds it.
    """

    #: Which four bits: as many patterns as 11 bits of the hash tell apart.
    _PATTERNS = tuple(sum(1 << bit for bit in bits) for bits in combinations(range(16), 4))
    _PATTERNS += _PATTERNS[: 2048 - len(_PATTERNS)]

    def __init__(self, size: int) -> None:
        self._words, self._last = memoryview(bytearray(size)).cast("H"), size // 2 - 1

    def add(self, hashes: Iterable[int]) -> list[int]:
        """Take some hashes in, and return those that may have been there."""
        words, patterns, last = self._words, self._PATTERNS, self._last
        perhaps = []
        for hashed in hashes:
            pattern, at = patterns[hashed >> 32 & 2047], hashed & last
            word = words[at]
            if word & pattern == pattern:
                perhaps.append(hashed)
            else:
                words[at] = word | pattern
        return perhaps

    def may_hold(self, hashed: int) -> bool:
        """Whether a hash may be there."""
        pattern = self._PATTERNS[hashed >> 32 & 2047]
        return self._words[hashed & self._last] & pattern == pattern


class _Table:
    """A filter, and behind it a table in a temporary file that is gone when it is closed.

    :param held: entries held in memory before they go to the file.
    :param filter_bytes: size of the filter, a power of two.
    :param read_through: times that the file is read through before it gets an index.
    """

    _need: str

    def __init__(self, *, held: int = _HELD, filter_bytes: int = _FILTER, read_through: int = _READ_THROUGH) -> None:
        self._held, self._read_through = held, read_through
        self._bloom = _Bloom(filter_bytes)

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        self._db = self._stack.enter_context(temporary_database(self._need, cache_kb=2048))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()


class SeenKeys(_Table):
    """The keys of a batch. Enter it as a context."""

    _need = "about 30 bytes for each row"

    def __enter__(self) -> Self:
        super().__enter__()
        self._recent: list[int] = []
        self._log = self._stack.enter_context(contextlib.closing(temporary_file(self._need)))
        self._unindexed = self._reads = 0
        self._db.execute("CREATE TABLE seen (hash INTEGER PRIMARY KEY)")
        self._db.execute("CREATE TABLE numbers (hash INTEGER PRIMARY KEY, last INTEGER)")
        return self

    def repeated(self, keys: list[str]) -> list[int]:
        """Take some keys in, and return which of them, by index, were there before or earlier in the list."""
        hashes = list(map(hash, keys))
        perhaps = self._bloom.add(hashes)
        found = self._known_of(hashes, set(perhaps)) if perhaps else []
        self._recent += hashes
        if len(self._recent) > self._held:
            self._put_away()
        return found

    def numbered(self, key: str) -> str:
        """Return a key that is taken with a number behind it that nobody has; "a-2" may be another row's own key."""
        wanted = "INSERT INTO numbers VALUES (?, 2) ON CONFLICT (hash) DO UPDATE SET last = last + 1 RETURNING last"
        for _ in count():
            ((number,),) = self._db.execute(wanted, (hash(key),)).fetchall()
            if not self.repeated([made := f"{key}-{number}"]):
                return made
        raise AssertionError

    def _known_of(self, hashes: list[int], perhaps: set[int]) -> list[int]:
        found, earlier = [], set(self._recent)
        for index, hashed in enumerate(hashes):
            if hashed in perhaps and (hashed in earlier or self._is_put_away(hashed)):
                found.append(index)
            earlier.add(hashed)
        return found

    def _is_put_away(self, hashed: int) -> bool:
        self._reads += 1
        if self._reads > self._read_through:
            self._index()
        elif any(_holds(block, hashed) for block in self._blocks()):
            return True
        return self._db.execute("SELECT 1 FROM seen WHERE hash = ?", (hashed,)).fetchone() is not None

    def _put_away(self) -> None:
        self._log.seek(0, SEEK_END)
        self._unindexed += self._log.write(array("q", self._recent).tobytes())
        self._recent.clear()

    def _blocks(self) -> Iterator[bytes]:
        """Yield what is in the log and not in the index."""
        self._log.seek(-self._unindexed, SEEK_END)
        while block := self._log.read(_SORTED * 8):
            yield block

    def _index(self) -> None:
        for block in self._blocks():
            # In order, neighbours in the table are written together.
            self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?)", zip(sorted(array("q", block)), strict=True))
        self._unindexed = self._reads = 0


def _holds(block: bytes, hashed: int) -> bool:
    wanted, at = array("q", [hashed]).tobytes(), 0
    while (at := block.find(wanted, at)) >= 0:
        if not at % 8:
            return True
        at += 1
    return False


class Digests(_Table):
    """Digests of requests, each with the key it was first used under. Enter it as a context."""

    _need = "about 150 bytes for each answer of earlier runs"

    def __enter__(self) -> Self:
        super().__enter__()
        self._recent: dict[str, str] = {}
        self._db.execute("CREATE TABLE known (digest TEXT PRIMARY KEY, key TEXT) WITHOUT ROWID")
        return self

    def add(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Keep digests with their keys; a digest that is there keeps its key."""
        stream = iter(pairs)
        while chunk := list(islice(stream, self._held)):
            self._bloom.add([hash(digest) for digest, _ in chunk])
            for digest, key in chunk:
                self._recent.setdefault(digest, key)
            if len(self._recent) >= self._held:
                self._put_away()

    def find(self, digests: list[str]) -> dict[str, str]:
        """Return those of the digests that are kept, each with its key."""
        may_hold = self._bloom.may_hold
        perhaps = list(compress(digests, map(may_hold, map(hash, digests))))
        if not perhaps:
            return {}
        wanted = "SELECT digest, key FROM known WHERE digest IN (SELECT value FROM json_each(?))"
        recent = {digest: self._recent[digest] for digest in perhaps if digest in self._recent}
        return recent | dict(self._db.execute(wanted, (encode(perhaps).decode(),)))

    def _put_away(self) -> None:
        self._db.executemany("INSERT OR IGNORE INTO known VALUES (?, ?)", sorted(self._recent.items()))
        self._recent.clear()
