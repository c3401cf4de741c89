"""How does an object get there when its upload session is lost? The upload begins anew, from a copy on disk.

Cloud Storage forgets a session after a week, and now and then before: it then answers 404 or 410 (begin anew:
https://docs.cloud.google.com/storage/docs/resumable-uploads, 2026-11-28). It may also have kept fewer bytes than it was
sent. Google's client keeps only one chunk, so it cannot send the missing bytes again.

Invariant: an object appears when its upload is closed, whole; an upload that fails leaves no trace.
"""

from __future__ import annotations

import contextlib
import io
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from airflow_vertex_batch.core.domain.errors import DiskError, ServiceError
from airflow_vertex_batch.core.domain.temporary import temporary_file
from airflow_vertex_batch.gcp.storage_errors import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.cloud.storage import Blob

    from airflow_vertex_batch.core.domain.address import Uri

_LOG = logging.getLogger(__name__)

#: Bytes sent or asked for at once: large enough that a 1 GB shard takes 500 requests, small enough that a slow line
#: carries them within the time for which a call is repeated.
CHUNK_BYTES = 2 * 1024 * 1024
#: Most bytes of an upload that are kept on disk to send them again: two uploads have to fit beside whatever else a
#: worker with 1 GB of disk holds. A larger one is sent again by the task's retry.
COPY_BYTES = 256 * 1024 * 1024
#: Times that one upload is begun.
BEGINNINGS = 4
_BLOCK_BYTES = 1 << 20
#: Answers to a part of an upload after which it cannot go on; 308 with nothing, or too little, kept is one of them.
_LOST = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE, HTTPStatus.PERMANENT_REDIRECT})


class LostUploadError(Exception):
    """The service no longer knows an upload, or knows less of it than was sent."""


class Upload(io.BufferedIOBase):
    """A stream into an object. It is a context manager: leaving it without an error makes the object appear.

    Only the end of the context makes it appear: a writer above it that closes what it wraps does no harm.

    :param copy_bytes: most bytes that are kept to be sent again.
    :param chunk_bytes: bytes of a part, a multiple of 256 KiB.
    :param call: how each call is repeated.
    """

    def __init__(
        self,
        blob: Blob,
        uri: Uri,
        content_type: str,
        *,
        copy_bytes: int = COPY_BYTES,
        chunk_bytes: int = CHUNK_BYTES,
        **call: Any,
    ) -> None:
        self._blob, self._uri = blob, uri
        self._options = {"chunk_size": chunk_bytes, "content_type": content_type, **call}
        self._copy = _Copy(copy_bytes)
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._sent(self._finish, then=self._finish)
        finally:
            self._forget()
            self._copy.drop()

    def write(self, data: Any) -> int:
        """Send some bytes, or keep them for the next chunk."""
        self._copy.add(data)
        self._sent(lambda: self._stream.write(data))
        return len(data)

    def writable(self) -> bool:
        """Say what Python's writers ask first."""
        return True

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._copy.size_bytes

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        return bool(self._stream.closed)

    def _open(self) -> None:
        self._stream: Any = self._blob.open("wb", **self._options)

    def _finish(self) -> None:
        self._stream.close()
        # The client counts the last part as sent, whatever the answer was, and has no public name for this.
        upload, _ = self._stream._upload_and_transport  # noqa: SLF001
        if not upload.finished:
            raise LostUploadError("the service kept less than it was sent")

    def _sent(self, send: Callable[[], object], then: Callable[[], object] | None = None) -> None:
        """Send a part. If the session is lost, send everything from the start, and then go on."""
        # Errors are translated here, because a writer that is kept open for long writes outside its block.
        with translated(self._uri, asks_bucket=True):
            try:
                with session_errors():
                    send()
            except LostUploadError as error:
                send_again(self._uri, error, lambda: self._send_again(then))

    def _send_again(self, then: Callable[[], object] | None) -> None:
        self._forget()
        self._open()
        for block in self._copy.blocks():
            self._stream.write(block)
        if then is not None:
            then()

    def _forget(self) -> None:
        """Abort an unfinished upload. Python closes objects that it collects, and closing would send the rest."""
        self._stream.close = lambda: None
        if not self._stream.closed:
            with contextlib.suppress(Exception):
                self._stream.terminate()


def send_again(uri: Uri, lost: LostUploadError, send: Callable[[], object]) -> None:
    """Send everything once more after a session was lost, and once more if that is lost as well.

    :raises ServiceError: when each of them was lost: a retry may fare better.
    """
    for _ in range(BEGINNINGS - 1):
        _LOG.info("The upload of %s begins anew: %s", uri, lost)
        try:
            with session_errors():
                send()
        except LostUploadError as error:
            lost = error
        else:
            return
    raise ServiceError(
        f"Cloud Storage lost the upload of {uri}",
        status=HTTPStatus.GONE,
        retryable=True,
        why=str(lost),
        left="The object is as it was before",
        todo="A retry sends it anew",
    ) from lost


@contextlib.contextmanager
def session_errors() -> Iterator[None]:
    """Distinguish a lost session from a missing bucket. For a missing bucket the first request, a POST, is refused."""
    from google.api_core.exceptions import GoogleAPICallError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    try:
        yield
    except (InvalidResponse, GoogleAPICallError) as error:
        answer = error.response
        if answer is None or answer.request.method != "PUT" or answer.status_code not in _LOST:
            raise
        raise LostUploadError(f"HTTP {answer.status_code} to a part of it") from error
    except DataCorruption as error:
        raise LostUploadError("the object's checksum is not that of what was sent") from error
    except ValueError as error:
        # The client's word for a part that does not begin where the service's ends.
        raise LostUploadError(str(error)) from error


class _Copy:
    """What an upload has sent, as long as there is room for it."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self.size_bytes = most_bytes, 0
        self._is_whole = True
        try:
            self._file = temporary_file(f"up to {most_bytes >> 20} MB")
        except DiskError:
            self._is_whole = False

    def add(self, data: Any) -> None:
        """Append some bytes."""
        self.size_bytes += len(data)
        if self.size_bytes > self._most_bytes:
            self.drop()
        if self._is_whole:
            try:
                self._file.write(data)
            except DiskError:
                self.drop()

    def blocks(self) -> Iterator[bytes]:
        """Yield what was added.

        :raises LostUploadError: when it is not there any more.
        """
        if not self._is_whole:
            raise LostUploadError(f"There was no room for a copy of its {self.size_bytes:,} bytes")
        self._file.seek(0)
        while block := self._file.read(_BLOCK_BYTES):
            yield block

    def drop(self) -> None:
        """Give the room back."""
        if self._is_whole:
            self._is_whole = False
            with contextlib.suppress(DiskError):
                self._file.close()
