"""How long may a call to Google take? No longer than its deadline, and a transfer must keep a least speed.

`requests` limits the time before each byte, and not the whole time: a server that sends one byte a second keeps its
caller for ever. So each connection measures how long it waited for its bytes, in both directions, and gives up one that
is too slow with a `TimeoutError`. Google's clients take that for a lost connection: they ask again, and go on from the
byte that came last.

Invariant: only waiting counts; a caller that takes its time between two reads is not slow.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any

from google.auth.transport.requests import AuthorizedSession, Request
from requests import Session
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airflow_vertex_batch.gcp.limits import LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.auth.credentials import Credentials
    from requests import PreparedRequest, Response

#: Bytes sent, or buffered, at once: what a connection's speed is measured by.
_BLOCK_BYTES = 1 << 16
#: Times that a token is asked for again after a lost connection: as google-auth's own session does.
_TOKEN_ATTEMPTS = 3


def bounded_session(credentials: Credentials, limits: Limits = LIMITS) -> AuthorizedSession:
    """Return a session of an account whose calls end; those that ask for its tokens do, too."""
    session = AuthorizedSession(credentials, auth_request=token_request(limits))  # type: ignore[no-untyped-call]
    # Does nothing unless the environment asks for it.
    session.configure_mtls_channel()  # type: ignore[no-untyped-call]
    if not session.is_mtls:
        _mount(session, _BoundedAdapter(limits))
    return session


def token_request(limits: Limits = LIMITS) -> Request:
    """Return what credentials are refreshed with, outside of a session."""
    session = Session()
    _mount(session, _BoundedAdapter(limits, max_retries=_TOKEN_ATTEMPTS))
    return Request(session)


def _mount(session: Session, adapter: HTTPAdapter) -> None:
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)


class _BoundedAdapter(HTTPAdapter):
    """Gives every call its deadlines; a caller may ask for shorter ones."""

    def __init__(self, limits: Limits, **options: Any) -> None:
        self._limits = limits
        super().__init__(**options)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _pools(self._limits)

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = _pools(self._limits)
        return manager

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - as `requests` has it
        timeout: Any = None,
        *arguments: Any,
        **options: Any,
    ) -> Response:
        return super().send(request, stream, self._bounded(timeout), *arguments, **options)

    def _bounded(self, timeout: Any) -> tuple[float, float]:
        connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        most = self._limits
        return min(connect or most.connect_seconds, most.connect_seconds), min(
            read or most.silence_seconds, most.silence_seconds
        )


def _pools(limits: Limits) -> dict[str, type[HTTPConnectionPool]]:
    class Plain(_Watched, HTTPConnection):  # type: ignore[misc]
        watch = limits

    class Encrypted(_Watched, HTTPSConnection):  # type: ignore[misc]
        watch = limits

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}


class _Watched:
    """A connection that measures what it sends, and whose answers measure what they read."""

    watch: Limits

    def send(self, data: Any) -> None:
        """Send in blocks, each of which is bounded by the socket's timeout, and all by the least speed."""
        speed = _Speed(self.watch)
        for block in _blocks(data):
            with speed:
                # `send` of the other base class.
                super().send(block)  # type: ignore[misc]
                speed.count(len(block))

    def response_class(self, sock: Any, *arguments: Any, **options: Any) -> Any:
        """Return the answer that `http.client` reads from a socket."""
        from http.client import HTTPResponse

        answer = HTTPResponse(sock, *arguments, **options)
        # A buffered reader that has read nothing yet.
        raw = answer.fp.detach()
        answer.fp = io.BufferedReader(_MeteredReader(raw, _Speed(self.watch)), _BLOCK_BYTES)
        return answer


def _blocks(data: Any) -> Iterator[Any]:
    if isinstance(data, bytes | bytearray | memoryview):
        for start in range(0, len(data), _BLOCK_BYTES):
            yield data[start : start + _BLOCK_BYTES]
    else:
        yield data


class _Speed:
    """Adds up bytes and the time they were waited for. Used as a context around each wait.

    The first wait is not counted: in it the server works or the connection is made, and it has its own deadline.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._seconds, self._bytes, self._waits, self._since = 0.0, 0, 0, 0.0

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def count(self, byte_count: int) -> None:
        """Note what was transferred in this wait."""
        self._bytes += byte_count

    def __exit__(self, kind: object, *_: object) -> None:
        self._waits += 1
        if self._waits > 1:
            self._seconds += time.monotonic() - self._since
        if kind is None and self._seconds >= self._limits.window_seconds:
            self._look()

    def _look(self) -> None:
        if self._bytes < self._limits.least_speed * self._seconds:
            raise TimeoutError(
                f"{self._bytes:,} bytes in {self._seconds:.0f} seconds; "
                f"the least speed is {self._limits.least_speed:,} bytes a second"
            )
        self._seconds, self._bytes = 0.0, 0


class _MeteredReader(io.RawIOBase):
    """The bytes of one answer, as they come off its socket."""

    def __init__(self, raw: io.RawIOBase, speed: _Speed) -> None:
        self._raw, self._speed = raw, speed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        with self._speed:
            count = self._raw.readinto(buffer)
            self._speed.count(count or 0)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
