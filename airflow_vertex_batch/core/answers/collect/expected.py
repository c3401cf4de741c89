"""Which requests does a job have, and which lines have been seen for each?

Every request has a name: its key, or its content where it has no key. Where several requests share a key, a number is
added. For each name some 40 bytes are kept: the digest of the request, its mark and one byte of state. Keys themselves
are not kept; they are read again from the input where they are needed.

A key is known by its 64-bit hash. With the 200,000 requests that the service allows in a job, two keys have the same
hash in one of a thousand million jobs. Such requests would be treated as requests that share a key.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.domain.errors import ResultError
from airflow_vertex_batch.core.domain.jsonl import decode, encode
from airflow_vertex_batch.core.requests.request import Digester, content_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    #: The key as it is in the input, the bytes of the request, whether the bytes may have our label, and the request's
    #: mark.
    Request = tuple[object, bytes, bool, int]
    #: The place of the bytes that are kept for a key.
    EntryPosition = tuple[bytearray, int]

_HASH, _UNHASH = Struct("q").pack, Struct("q").unpack_from
_HASH_BYTES = 8
#: A power of two. In a full job each bucket has about a dozen keys.
_BUCKETS = 1 << 14
_DIGEST_BYTES = 16

#: The states of a request: no line, a line with an error, a bad answer, a good answer.
NOTHING, FAILED, BAD, GOOD = range(4)


class KeyTable:
    """A table that keeps some bytes for each key.

    A dict of the same keys takes three times the memory and the same time.

    :param width: how many bytes are kept for a key.
    """

    def __init__(self, width: int) -> None:
        self._buckets: list[bytearray | None] = [None] * _BUCKETS
        self._stride = _HASH_BYTES + width
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: str, data: bytes) -> bool:
        """Add a key if it is not there yet; return whether it was added."""
        number = hash(key)
        packed = _HASH(number)
        bucket = self._buckets[number & (_BUCKETS - 1)]
        if bucket is None:
            bucket = self._buckets[number & (_BUCKETS - 1)] = bytearray()
        elif self._find(bucket, packed) >= 0:
            return False
        bucket += packed
        bucket += data
        self._count += 1
        return True

    def find(self, key: str) -> EntryPosition | None:
        """Return where the key's bytes begin."""
        number = hash(key)
        bucket = self._buckets[number & (_BUCKETS - 1)]
        if bucket is None:
            return None
        at = bucket.find(packed := _HASH(number))
        if at % self._stride:
            at = self._find(bucket, packed)
        return None if at < 0 else (bucket, at + _HASH_BYTES)

    def _find(self, bucket: bytearray, packed: bytes) -> int:
        at = bucket.find(packed)
        # The bytes that are kept for other keys may look like the hash.
        while at > 0 and at % self._stride:
            at = bucket.find(packed, at + 1)
        return at


class Expected:
    """The requests of one job.

    :param requests: reads the input. It can be called several times.
    :param model: the job's model, for the digests.
    :raises ResultError: when there are no requests.
    """

    def __init__(self, requests: Callable[[], Iterable[Request]], model: str, subject: str) -> None:
        self._requests = requests
        #: The names of requests that share a key, by key.
        self._sharing: dict[str, list[str]] = {}
        self._table = KeyTable(1 + _DIGEST_BYTES + _HASH_BYTES)
        self._read(model)
        #: The number of requests in each state.
        self.counts = [len(self._table), 0, 0, 0]
        if not self.counts[NOTHING]:
            raise ResultError(
                f"The input {subject} has no requests any more", uri=subject, todo="Restore the request files"
            )

    def __len__(self) -> int:
        return len(self._table)

    def _read(self, model: str) -> None:
        add, state, digester = self._table.add, bytes([NOTHING]), Digester(model)
        digest, digest_unlabelled = digester, digester.unlabelled
        for key, request, is_labelled, mark in self._requests():
            data = state + (digest(request) if is_labelled else digest_unlabelled(request)) + _HASH(mark)
            own = key if type(key) is str and key else own_key(key, request)
            if not add(own, data):
                self._sharing.setdefault(own, [own]).append(_free_name(own, self._table, data))

    def named(self) -> Iterator[tuple[str, bytes]]:
        """Yield every name with its request. This reads the input again."""
        taken = KeyTable(0) if self._sharing else None
        for key, request, *_ in self._requests():
            name = own_key(key, request)
            if taken is not None and not taken.add(name, b""):
                name = _free_name(name, taken, b"")
            yield name, request

    def find(self, key: str) -> EntryPosition | None:
        """Return the place of a request's state. The digest follows the state."""
        return self._table.find(key)

    def place(self, name: str) -> EntryPosition:
        """Return the place for a name that is known to exist."""
        place = self._table.find(name)
        assert place is not None, "names come from the input"
        return place

    def is_shared(self, key: str) -> bool:
        """Whether several requests have this key."""
        return key in self._sharing

    def name_of(self, key: str) -> str | None:
        """Return the name of the request that a line with this key answers. If several requests share the key, return
        the one with the worst state.
        """
        if key in self._sharing:
            return min(self._sharing[key], key=self.state)
        return key if self._table.find(key) else None

    def state(self, name: str) -> int:
        """Return the state of a name, for sorting."""
        bucket, at = self.place(name)
        return bucket[at]

    def mark(self, place: EntryPosition, state: int) -> None:
        """Note a line. A bad line never replaces a good one."""
        bucket, at = place
        if (before := bucket[at]) < state:
            self.counts[before] -= 1
            self.counts[state] += 1
            bucket[at] = state

    def unseen(self) -> Iterator[str]:
        """Yield the names without any line."""
        return (name for name, _ in self.named() if self.state(name) == NOTHING) if self.counts[NOTHING] else iter(())


def digest_at(place: EntryPosition) -> str:
    """Return the request digest that is kept at a place."""
    bucket, at = place
    return bucket[at + 1 : at + 1 + _DIGEST_BYTES].hex()


def mark_at(place: EntryPosition) -> int:
    """Return the mark of the request (`collect.echo`) that is kept at a place."""
    bucket, at = place
    mark: int = _UNHASH(bucket, at + 1 + _DIGEST_BYTES)[0]
    return mark


def own_key(key: object, request: bytes) -> str:
    """Return the key of a request, before a number makes it unique. A request without a key gets a key from its
    content.
    """
    return str(key) if key not in (None, "") else content_key(_compact(request))


def _compact(request: bytes) -> bytes:
    """Return JSON without the spaces that its author may have written."""
    try:
        return encode(decode(request))
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError):
        return request


def _free_name(own: str, taken: KeyTable, data: bytes) -> str:
    """Add the first free number to a key, and take that name. A name such as "a-2" may be another request's own key."""
    number = 2
    while not taken.add(name := f"{own}-{number}", data):
        number += 1
    return name
