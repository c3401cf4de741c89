"""How is an object read, piece by piece, so that all pieces are of one version? Each request names its generation.

An object stored with ``Content-Encoding: gzip`` is fetched as it is stored, and unpacked here: if Cloud Storage unpacks
an object, it cannot send parts of it (https://docs.cloud.google.com/storage/docs/transcoding, 2026-11-28).

An object that is replaced gets another generation, and Cloud Storage answers 412 to a request for the old one
(https://docs.cloud.google.com/storage/docs/request-preconditions, 2026-11-28): an error, never other bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.domain.errors import ChangedError, InputError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud.storage import Blob

    from airflow_vertex_batch.core.domain.address import Uri

_TODO_RANGES = "A retry may help; if not, a proxy on the way may not know ranges"
_BUFFER_BYTES = 1 << 20


def open_pinned(blob: Blob, uri: Uri, version: str, chunk_bytes: int, **call: Any) -> io.BufferedReader:
    """Open an object as it is now.

    :param version: its generation in the listing that named it; empty for whichever there is.
    :param call: how each call is repeated.
    :raises ChangedError: also while reading, when it is no longer that version.
    :raises InputError: when it is packed in a way that is not known; also while reading, when it is damaged.
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
    encoding = (blob.content_encoding or "").lower()
    if encoding not in {"", "identity", "gzip"}:
        raise InputError(
            f"{uri} is stored with Content-Encoding: {encoding}, which is not unpacked here",
            left="Nothing of it was used",
            todo="Store it plain, or with Content-Encoding: gzip",
        )
    # Python's buffer has the readline that the pieces lack.
    stored: io.BufferedReader = io.BufferedReader(_PinnedReader(blob, uri, chunk_bytes, call), _BUFFER_BYTES)
    return io.BufferedReader(_Unpacked(stored, uri), _BUFFER_BYTES) if encoding == "gzip" else stored


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
            # The server knows only the checksum of the whole object. Google's client would unpack each part separately.
            data: bytes = self._blob.download_as_bytes(
                start=self._at, end=last, if_generation_match=self._generation, checksum=None,
                raw_download=bool(self._blob.content_encoding), **self._call,
            )  # fmt: skip
        except (NotFound, PreconditionFailed, RequestRangeNotSatisfiable) as error:
            raise _changed(self._uri) from error
        # Local servers ignore the condition of a download, but they say which generation they sent.
        if self._blob.generation not in {self._generation, None}:
            raise _changed(self._uri)
        if len(data) != last + 1 - self._at:
            raise ServiceError(
                f"Cloud Storage sent {len(data):,} bytes of {self._uri} where {last + 1 - self._at:,} were asked for",
                status=0,
                todo=_TODO_RANGES,
            )
        return data


class _Unpacked(io.RawIOBase):
    """What a stream of gzip holds."""

    def __init__(self, stored: io.BufferedReader, uri: Uri) -> None:
        self._stored, self._uri = stored, uri
        self._stream = gzip.GzipFile(fileobj=stored)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._damage():
            return self._stream.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        with self._damage():
            return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        self._stored.close()
        super().close()

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"{self._uri} is stored with Content-Encoding: gzip, but its content is no whole gzip",
                why=str(error),
                todo="Upload it anew, or remove its Content-Encoding if it is plain",
            ) from error


def _changed(uri: Uri) -> ChangedError:
    return ChangedError(
        f"{uri} was replaced or deleted while it was read",
        left="Nothing of it was used",
        todo="A retry reads it anew; let the file be finished before the batch starts, for example by a sensor",
    )
