"""How is an object replaced only if it still is the version that was read? Each upload names the generation.

Cloud Storage answers 412 if there is another generation by then, both to a single request and at the end of a session
(https://docs.cloud.google.com/storage/docs/request-preconditions, 2026-11-28). Local servers check it only for a single
request, so data that fits is sent in one request.

Invariant: of two writers that read the same version, one succeeds; a block that fails leaves no trace.
"""

from __future__ import annotations

import contextlib
import io
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.core.domain.ports import replaced
from airflow_vertex_batch.gcp.storage_errors import translated
from airflow_vertex_batch.gcp.upload import Upload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud.storage import Blob

    from airflow_vertex_batch.core.domain.address import Uri

#: Most bytes that go in one request, as Google's client has it (google-cloud-storage 3.17); so many are held in memory.
ONE_REQUEST_BYTES = 8 * 1024 * 1024


class Replacement(io.BufferedIOBase):
    """A stream into an object. It is a context manager: leaving it without an error replaces one generation of the
    object.

    :param version: the generation; empty if there must be no object.
    :param call: how each call is repeated.
    :raises ChangedError: when another is there by then.
    """

    def __init__(self, blob: Blob, uri: Uri, version: str, content_type: str, **call: Any) -> None:
        self._blob, self._uri, self._content_type = blob, uri, content_type
        self._call = call | {"if_generation_match": int(version or 0)}
        self._held = bytearray()
        self._upload: Upload | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        with _changed(self._uri):
            if self._upload is not None:
                self._upload.__exit__(kind, error, trace)
            elif kind is None:
                with translated(self._uri, asks_bucket=True):
                    self._blob.upload_from_string(bytes(self._held), content_type=self._content_type, **self._call)

    def write(self, data: Any) -> int:
        """Hold some bytes, or send them where they are too many for one request."""
        with _changed(self._uri):
            if self._upload is None and len(self._held) + len(data) > ONE_REQUEST_BYTES:
                self._upload = Upload(self._blob, self._uri, self._content_type, **self._call)
                self._upload.write(bytes(self._held))
                self._held.clear()
            if self._upload is None:
                self._held += data
                return len(data)
            return self._upload.write(data)

    def writable(self) -> bool:
        """Say what Python's writers ask first."""
        return True

    def tell(self) -> int:
        """Return how many bytes were written."""
        return len(self._held) if self._upload is None else self._upload.tell()


@contextlib.contextmanager
def _changed(uri: Uri) -> Iterator[None]:
    try:
        yield
    except ServiceError as error:
        if error.status != HTTPStatus.PRECONDITION_FAILED:
            raise
        raise replaced(uri) from error
