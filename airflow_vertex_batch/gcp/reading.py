"""How is an object read, piece by piece, so that all pieces are of one version? Each request names its generation.

An object that is replaced gets another generation, and Cloud Storage answers 412 to a request for the old one
(https://docs.cloud.google.com/storage/docs/request-preconditions, 2026-11-28): an error, never other bytes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.errors import ChangedError, ServiceError

if TYPE_CHECKING:
    from google.cloud.storage import Blob

    from airflow_vertex_batch.core.address import Uri

_TODO_RANGES = "A retry may help; if not, store the object without Content-Encoding: such an object has no parts"


def open_pinned(blob: Blob, uri: Uri, version: str, chunk_bytes: int, **call: Any) -> io.BufferedReader:
    """Open an object as it is now.

    :param version: its generation in the listing that named it; empty for whichever there is.
    :param call: how each call is repeated.
    :raises ChangedError: also while reading, when it is no longer that version.
    """
    from google.api_core.exceptions import NotFound, PreconditionFailed

    try:
        blob.reload(if_generation_match=int(version) if version else None, **call)
    except (NotFound, PreconditionFailed) as error:
        if not version:
            raise
        raise _changed(uri) from error
    if version and version != str(blob.generation):
        raise _changed(uri)
    # Python's buffer has the readline that the pieces lack.
    return io.BufferedReader(_PinnedReader(blob, uri, chunk_bytes, call), buffer_size=1 << 20)


class _PinnedReader(io.RawIOBase):
    """One version of an object, fetched in pieces, of which one is held."""

    def __init__(self, blob: Blob, uri: Uri, chunk_bytes: int, call: dict[str, Any]) -> None:
        self._blob, self._uri, self._chunk_bytes, self._call = blob, uri, chunk_bytes, call
        self._size, self._generation = int(blob.size or 0), blob.generation
        self._at = self._start = 0
        self._piece = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._size:
            return 0
        if not self._start <= self._at < self._start + len(self._piece):
            self._start, self._piece = self._at, self._fetch()
        offset = self._at - self._start
        data = memoryview(self._piece)[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _fetch(self) -> bytes:
        from google.api_core.exceptions import NotFound, PreconditionFailed, RequestRangeNotSatisfiable

        last = min(self._at + self._chunk_bytes, self._size) - 1
        try:
            # The server knows the checksum of the whole only.
            data: bytes = self._blob.download_as_bytes(
                start=self._at, end=last, if_generation_match=self._generation, checksum=None, **self._call
            )
        except (NotFound, PreconditionFailed, RequestRangeNotSatisfiable) as error:
            raise _changed(self._uri) from error
        # Local servers take no condition for a download, but tell what they sent.
        if self._blob.generation not in {self._generation, None}:
            raise _changed(self._uri)
        if len(data) != last + 1 - self._at:
            raise ServiceError(
                f"Cloud Storage sent {len(data):,} bytes of {self._uri} where {last + 1 - self._at:,} were asked for",
                status=0,
                todo=_TODO_RANGES,
            )
        return data


def _changed(uri: Uri) -> ChangedError:
    return ChangedError(
        f"{uri} was replaced or deleted while it was read",
        left="Nothing of it was used",
        todo="A retry reads it anew; let the file be finished before the batch starts, for example by a sensor",
    )
