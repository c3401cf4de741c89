"""Where does one request file end and the next begin? Lines become shards within the service's limits, and a
fingerprint.

Invariants: one shard is open at a time. No shard is empty or over a limit. The fingerprint does not depend on the order
of lines or on the shards. `abandon` removes all files, but removes none once a manifest that may name it was sent
(`sent`).
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.errors import InputError, VertexBatchError
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.domain.manifest import Shard
from airflow_vertex_batch.core.requests.prepare.keys import digest_sum
from airflow_vertex_batch.core.requests.prepare.lines import HEAD, Frame, Lines

if TYPE_CHECKING:
    from airflow_vertex_batch.core.domain.address import Uri
    from airflow_vertex_batch.core.domain.ports import ObjectStore


class ShardWriter:
    """Writes lines into shards, one open at a time, and sums the fingerprint.

    :param folder: where the files of this attempt go.
    :param max_requests: most requests in a shard.
    :param max_bytes: most bytes in a shard.
    :param has_columns: whether the user's columns are kept beside.
    """

    def __init__(
        self, frame: Frame, store: ObjectStore, folder: Uri, max_requests: int, max_bytes: int, *, has_columns: bool
    ) -> None:
        self._frame, self._store, self.folder = frame, store, folder
        self._max_requests, self._max_bytes, self._has_columns = max_requests, max_bytes, has_columns
        self.shards: list[Shard] = []
        self._files: list[Uri] = []
        self._open: _OpenShard | None = None
        self._is_sent = False
        self._sum = self._columns_sum = 0
        #: Bytes of a line beside its core.
        self.frame_bytes = len(HEAD) + len(frame.tail)

    def size(self, lines: Lines) -> int:
        """Return the bytes of some lines."""
        return sum(map(len, lines.cores)) + len(lines.cores) * self.frame_bytes

    def fit(self, lines: Lines, at_most: int) -> int:
        """Return how many of the lines, from the first, the open shard takes.

        :param at_most: bytes that they do not exceed together.
        """
        room, size = self._max_requests, 0
        if self._open is not None:
            room, size = room - self._open.count, self._open.size
        if len(lines.cores) <= room and size + at_most <= self._max_bytes:
            return len(lines.cores)
        count = 0
        for core in lines.cores[:room]:
            size += len(core) + self.frame_bytes
            if size > self._max_bytes:
                break
            count += 1
        return count

    def write(self, lines: Lines) -> None:
        """Append lines that fit."""
        if not lines.cores:
            return
        if self._open is None:
            self._open = self._next_shard()
        beside = self._beside(lines)
        self._open.write(lines.cores, beside)
        self._open.digest += self._count(lines.cores, beside)

    def count_duplicates(self, lines: Lines) -> None:
        """Add lines to the digests that are not written, because an identical line is written instead."""
        self._count(lines.cores, self._beside(lines))

    def _count(self, cores: list[bytes], beside: list[bytes]) -> int:
        added = digest_sum(cores)
        self._sum += added
        self._columns_sum += digest_sum(beside)
        return added

    def _beside(self, lines: Lines) -> list[bytes]:
        if not self._has_columns:
            return []
        keys = map(encode, lines.keys)
        return [HEAD + key + b',"columns":' + line + b"}\n" for key, line in zip(keys, lines.columns, strict=True)]

    @property
    def fingerprint(self) -> str:
        """Digest of the requests and their keys, whatever their order: 32 hexadecimal digits."""
        return hashlib.blake2b(
            encode([str(self._sum), self._frame.middle, self._frame.tail]), digest_size=16
        ).hexdigest()

    @property
    def content(self) -> str:
        """What the set holds beside what was left out: the fingerprint, and the columns that travel beside."""
        return f"{self.fingerprint}-{self._columns_sum}"

    @property
    def request_count(self) -> int:
        """Requests in finished shards."""
        return sum(shard.request_count for shard in self.shards)

    def _next_shard(self) -> _OpenShard:
        number = len(self.shards)
        uri = self.new_file(f"requests-{number:05d}.jsonl")
        columns_uri = self.new_file(f"columns-{number:05d}.jsonl") if self._has_columns else None
        return _OpenShard(self._store, uri, columns_uri, self._frame)

    def new_file(self, name: str) -> Uri:
        """Return the address of a file of this attempt, which `abandon` removes."""
        self._files.append(self.folder / name)
        return self._files[-1]

    def finish_shard(self) -> None:
        """Finish the open shard, if one is open; the next line opens the next."""
        if self._open is not None:
            self.shards.append(self._open.finish())
            self._open = None

    def note_manifest_sent(self) -> None:
        """Note that a manifest with these files was sent. It may exist, even if the answer is an error."""
        self._is_sent = True

    def abandon(self) -> None:
        """Remove what was written. What cannot be removed stays as a file that nothing refers to."""
        if self._open is not None:
            self._open.abort()
        if not self._is_sent:
            self.keep(set())

    def keep(self, wanted: set[str]) -> None:
        """Remove the other files that were written."""
        for uri in [uri for uri in self._files if str(uri) not in wanted]:
            with contextlib.suppress(VertexBatchError):
                self._store.delete(uri)


class _OpenShard:
    """One request file being written, with the file of its columns beside it."""

    def __init__(self, store: ObjectStore, uri: Uri, columns_uri: Uri | None, frame: Frame) -> None:
        self._uri, self._columns_uri = uri, columns_uri
        self._stack = contextlib.ExitStack()
        self._stream = self._stack.enter_context(store.open_write(uri))
        self._columns = self._stack.enter_context(store.open_write(columns_uri)) if columns_uri else None
        self._tail, self._between = frame.tail, frame.tail + HEAD
        #: Lines; and bytes, with the tail of the last line, which is written when another one follows.
        self.count, self.size = 0, len(frame.tail)
        #: Of its requests, whatever their order.
        self.digest = 0

    def write(self, cores: list[bytes], beside: list[bytes]) -> None:
        """Append lines, given without the bytes they share."""
        # Joined by what ends one line and begins the next, the shared bytes are copied once.
        block = self._between.join([b"", *cores]) if self.count else HEAD + self._between.join(cores)
        self._stream.write(block)
        self.size += len(block)
        self.count += len(cores)
        if self._columns is not None:
            self._columns.write(b"".join(beside))

    def finish(self) -> Shard:
        """Complete the files."""
        self._stream.write(self._tail)
        self._stack.close()
        return Shard(
            uri=str(self._uri), request_count=self.count, size_bytes=self.size,
            columns_uri=str(self._columns_uri or ""), digest=f"{self.digest:x}",
        )  # fmt: skip

    def abort(self) -> None:
        """Leave no trace of the files."""
        stop = InputError("abandoned")
        with contextlib.suppress(InputError):
            self._stack.__exit__(InputError, stop, None)
