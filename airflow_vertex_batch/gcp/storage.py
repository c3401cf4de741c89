"""How are objects read and written in Cloud Storage? `ObjectStore` over google-cloud-storage.

Invariants: a streamed object appears when its block ends and not when it fails; `write_new` is one small upload with
``if_generation_match=0``, the precondition that Cloud Storage and its local servers all enforce atomically. Objects
without the ``gs://`` scheme go to local disk, so that one store reads whatever the user names.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import re
from typing import IO, TYPE_CHECKING, Any, cast

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.core.domain.ports import LocalStore, ObjectInfo
from airflow_vertex_batch.gcp.clock import ServerClock
from airflow_vertex_batch.gcp.environment import STORAGE_VARIABLE, default_account
from airflow_vertex_batch.gcp.limits import LIMITS
from airflow_vertex_batch.gcp.reading import open_pinned
from airflow_vertex_batch.gcp.replacing import Replacement
from airflow_vertex_batch.gcp.storage_errors import translated
from airflow_vertex_batch.gcp.upload import CHUNK_BYTES, LostUploadError, Upload, send_again, session_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from google.auth.credentials import Credentials
    from google.cloud.storage import Blob, Client

#: Seconds for which a call that fails is repeated: as Google's client does by itself (google-cloud-storage 3.17), after
#: the time that a part takes on the slowest line. One that fails at its end is still sent again.
CALL_SECONDS = 120.0 + CHUNK_BYTES / LIMITS.least_speed


class GcsStore:
    """Cloud Storage objects; local paths and ``file://`` go to disk.

    :param client: a google-cloud-storage client; the default one follows ``STORAGE_EMULATOR_HOST`` and the
        environment's credentials, and is only made when the first ``gs://`` object is touched.
    :param call_seconds: for which a call that fails is repeated.
    """

    def __init__(self, client: Client | None = None, *, call_seconds: float = CALL_SECONDS) -> None:
        self._client, self._call_seconds = client, call_seconds
        self._local = LocalStore()
        self._clock = ServerClock()
        self._is_heard = False

    @classmethod
    def of(cls, project: str, credentials: Credentials) -> GcsStore:
        """Return the store of an account."""
        from google.cloud.storage import Client

        from airflow_vertex_batch.gcp.transport import bounded_session

        return cls(Client(project=project or None, credentials=credentials, _http=bounded_session(credentials)))

    @property
    def client(self) -> Client:
        """The underlying client, made on first use."""
        if self._client is None:
            self._client = self.of(*default_account(STORAGE_VARIABLE)).client
        if not self._is_heard:
            # google-cloud-storage hands out no headers; its session, one of `requests`, shows every answer.
            self._client._http.hooks["response"].append(self._clock.note_time)  # noqa: SLF001
            # For its traces, the client would ask for each bucket in a separate thread. That call needs another right
            # (storage.buckets.get), and our deadlines do not limit it.
            self._client._bucket_metadata_cache = None  # noqa: SLF001
            self._is_heard = True
        return self._client

    @functools.cached_property
    def _call(self) -> dict[str, Any]:
        """How each call is repeated. Every call here has the same effect if it is sent twice."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        # The client would wait a minute for an answer, which Cloud Storage may need for the last part of an object.
        return {"retry": DEFAULT_RETRY.with_timeout(self._call_seconds), "timeout": LIMITS.silence_seconds}

    def list(self, folder: Uri) -> Iterator[ObjectInfo]:
        """Yield objects below a prefix or matching a glob (``*`` within a segment, ``**`` across), in name order."""
        if folder.scheme == "file":
            yield from self._local.list(folder)
            return
        # Patterns are matched here: not every local server knows `matchGlob`.
        matches = glob_pattern(folder.name).fullmatch if folder.has_glob else None
        with translated(folder, asks_bucket=True):
            for blob in self.client.list_blobs(folder.bucket, prefix=folder.glob_prefix, **self._call):
                if not blob.name.endswith("/") and (matches is None or matches(blob.name)):
                    yield ObjectInfo(
                        Uri("gs", folder.bucket, blob.name), blob.size or 0, blob.content_type or "", blob.crc32c or "",
                        str(blob.generation or ""),
                    )  # fmt: skip

    @contextlib.contextmanager
    def open_read(self, uri: Uri, version: str = "") -> Iterator[IO[bytes]]:
        """Open one version of an object as a stream.

        :raises InputError: when there is no such object.
        :raises ChangedError: also while reading, when it is another version by then.
        """
        if uri.scheme == "file":
            with self._local.open_read(uri, version) as stream:
                yield stream
            return
        with translated(uri), open_pinned(self._blob(uri), uri, version, CHUNK_BYTES, **self._call) as stream:
            yield stream

    @contextlib.contextmanager
    def open_write(self, uri: Uri, content_type: str = "application/x-ndjson") -> Iterator[IO[bytes]]:
        """Stream into an object, replacing what was there; an error inside the block leaves no trace of it."""
        if uri.scheme == "file":
            with self._local.open_write(uri, content_type) as stream:
                yield stream
            return
        with translated(uri, asks_bucket=True), Upload(self._blob(uri), uri, content_type, **self._call) as stream:
            yield cast("IO[bytes]", stream)

    def version(self, uri: Uri) -> str:
        """Return an object's generation, or an empty text when there is none."""
        if uri.scheme == "file":
            return self._local.version(uri)
        from google.api_core.exceptions import NotFound

        with translated(uri):
            blob = self._blob(uri)
            try:
                blob.reload(**self._call)
            except NotFound:
                return ""
        return str(blob.generation)

    @contextlib.contextmanager
    def open_replace(self, uri: Uri, version: str, content_type: str = "application/x-ndjson") -> Iterator[IO[bytes]]:
        """Stream into an object that takes the place of one generation, or of none where `version` is empty.

        :raises ChangedError: when another is there by then.
        """
        if uri.scheme == "file":
            with self._local.open_replace(uri, version, content_type) as stream:
                yield stream
            return
        with translated(uri):
            blob = self._blob(uri)
        with Replacement(blob, uri, version, content_type, **self._call) as stream:
            yield cast("IO[bytes]", stream)

    def read(self, uri: Uri) -> bytes | None:
        """Return a small object, or None when there is none."""
        if uri.scheme == "file":
            return self._local.read(uri)
        from google.api_core.exceptions import NotFound

        with translated(uri):
            try:
                return self._blob(uri).download_as_bytes(**self._call)  # type: ignore[no-any-return]
            except NotFound:
                return None

    def write_new(self, uri: Uri, data: bytes) -> bool:
        """Write a small object unless one is there; say whether the content there is now this call's."""
        if uri.scheme == "file":
            return self._local.write_new(uri, data)
        from google.api_core.exceptions import PreconditionFailed

        with translated(uri, asks_bucket=True):
            try:
                self._send_new(uri, data)
            except PreconditionFailed:
                # The client repeats an upload whose answer was lost; the repeat then meets our own object.
                return self.read(uri) == data
        return True

    def _send_new(self, uri: Uri, data: bytes) -> None:
        def send() -> None:
            self._blob(uri).upload_from_string(
                data, content_type="application/json", if_generation_match=0, **self._call
            )

        try:
            # More than 8 MB go by a session, too.
            with session_errors():
                send()
        except LostUploadError as error:
            send_again(uri, error, send)

    def delete(self, uri: Uri) -> None:
        """Delete one object; one that does not exist is no error."""
        if uri.scheme == "file":
            self._local.delete(uri)
            return
        from google.api_core.exceptions import NotFound

        with translated(uri), contextlib.suppress(NotFound):
            self._blob(uri).delete(**self._call)

    def now(self, near: Uri) -> datetime:
        """Return the time of Cloud Storage's servers.

        :raises ServiceError: when they do not tell it.
        """
        if near.scheme == "file":
            return self._local.now(near)
        if (server_time := self._clock.now()) is None:
            next(iter(self.list(near)), None)
            server_time = self._clock.now()
        if server_time is None:
            raise ServiceError(
                "Cloud Storage does not tell its time",
                status=0,
                why="Its answers carry no Date header, which every server must send",
                todo="Look for a proxy between this machine and Cloud Storage that removes it",
            )
        return server_time

    def _blob(self, uri: Uri) -> Blob:
        return self.client.bucket(uri.bucket).blob(uri.name)


def glob_pattern(name: str) -> re.Pattern[str]:
    """Compile an object-name glob: ``*`` and ``?`` stay within a path segment, ``**`` crosses segments."""
    pieces = []
    for piece in re.split(r"(\*\*/?|\*|\?|\[[^\]]*\])", name):
        if piece.startswith("**"):
            pieces.append("(?:.*/)?" if piece.endswith("/") else ".*")
        elif piece in {"*", "?"}:
            pieces.append("[^/]" + ("*" if piece == "*" else ""))
        elif piece.startswith("["):
            pieces.append(fnmatch.translate(piece).removeprefix("(?s:").rpartition(")")[0])
        else:
            pieces.append(re.escape(piece))
    return re.compile("".join(pieces), re.DOTALL)
