"""How are calls sent to Vertex AI's batchPredictionJobs API? A sync and an async sender send each `Call`.

Invariants: calls that may be sent again are repeated during an outage of two minutes (`core.domain.outage`); the create
POST is sent once. Every error becomes a `ServiceError` with Google's own words. Tokens are refreshed in a thread,
outside the event loop.

REST with google-auth, not google-genai or google-cloud-aiplatform: the first takes no job labels and drops the region
of a full job name, the second costs seconds of import in every process, and either may repeat a paid create.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import msgspec

from airflow_vertex_batch.core.domain.address import JobName, api_host, check_place
from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.core.domain.job import BatchJob, JobSpec
from airflow_vertex_batch.core.domain.outage import OUTAGE_SECONDS, is_temporary, retrying_in_outage
from airflow_vertex_batch.core.domain.ports import ANY_VALUE
from airflow_vertex_batch.gcp.auth import credentials_error
from airflow_vertex_batch.gcp.calls import (
    Call,
    cancel_call,
    create_call,
    delete_call,
    get_call,
    jobs_of,
    label_filter,
    list_call,
    no_answer,
    read_answer,
    read_job,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

    import aiohttp
    from google.auth.credentials import Credentials
    from google.auth.transport.requests import AuthorizedSession
    from requests.exceptions import RequestException

#: Seconds one call may take. A create must be over well before another writer's settle time (see
#: `core.purchase.submit`).
TIMEOUT_SECONDS = 30.0
#: Cancelling an ended job is 400 FAILED_PRECONDITION, a deleted one 404: either way nothing runs.
_NOTHING_TO_CANCEL = frozenset({400, 404})


class _Endpoint:
    """What both senders share: the address, and how an answer is read."""

    def __init__(self, project: str, location: str, endpoint: str = "") -> None:
        check_place(project, location)
        self.project, self.location = project, location
        self._fixed = endpoint.rstrip("/")

    @property
    def parent(self) -> str:
        return f"projects/{self.project}/locations/{self.location}"

    def url(self, call: Call) -> str:
        """Return the address; the host follows the location in the path, so a job is never asked about elsewhere."""
        location = call.path.split("/locations/", 1)[1].split("/", 1)[0]
        base = self._fixed or f"https://{api_host(location)}"
        return f"{base}/{quote(call.path, safe='/:@')}"


def _was_sent(error: RequestException) -> bool:
    """Whether a connection was made, to the service or to a proxy: before that nothing leaves this machine."""
    from requests.exceptions import ConnectTimeout
    from urllib3.exceptions import NewConnectionError

    reason = getattr(error.args[0], "reason", None) if error.args else None
    cause = getattr(reason, "original_error", reason)
    return not isinstance(error, ConnectTimeout) and not isinstance(cause, NewConnectionError)


class VertexClient(_Endpoint):
    """`JobService` of one project and location, for workers and the command line.

    :param credentials: google-auth credentials.
    :param endpoint: replaces the Google host, such as ``http://127.0.0.1:8085`` for the emulator.
    :param timeout: seconds one call may take.
    :param outage_seconds: for which a call that may be sent again is, 0 or more.
    :param sleep: waits between two tries of a call that may be sent again, replaced in tests.
    """

    def __init__(
        self,
        credentials: Credentials,
        project: str,
        location: str,
        endpoint: str = "",
        *,
        timeout: float = TIMEOUT_SECONDS,
        outage_seconds: float = OUTAGE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(project, location, endpoint)
        self._credentials, self._timeout, self._sleep = credentials, timeout, sleep
        self._outage_seconds = outage_seconds
        self._session: AuthorizedSession | None = None
        #: Whether the last call gave up because of an outage. Then the next call does not wait for the end of the
        #: outage again.
        self._is_down = False

    def create(self, spec: JobSpec) -> BatchJob:
        """Create a job, sending once.

        :raises AmbiguousError: when the job may or may not exist now.
        :raises ServiceError: when the service refused: there is no job.
        """
        call = create_call(self.parent, spec)
        return read_job(call, self.send(call))

    def get(self, name: JobName) -> BatchJob:
        """Return one job as it is now."""
        call = get_call(name)
        return read_job(call, self.send(call))

    def list(self, labels: Mapping[str, str]) -> Iterator[BatchJob]:
        """Yield the jobs that carry all `labels`; the labels are compared here too, whatever the filter did."""
        token = ""
        while True:
            call = list_call(self.parent, label_filter(labels), token)
            doc = self.send(call)
            for job in jobs_of(call, doc):
                if all(name in job.labels and value in (ANY_VALUE, job.labels[name]) for name, value in labels.items()):
                    yield job
            token = doc.get("nextPageToken", "")
            if not token:
                return

    def cancel(self, name: JobName, *, once: bool = False) -> bool:
        """Ask for a job to be cancelled; False when it had ended already or is gone.

        :param once: leave it to the caller to send it again.
        """
        try:
            self.send(msgspec.structs.replace(cancel_call(name), repeatable=not once))
        except ServiceError as error:
            if error.status in _NOTHING_TO_CANCEL:
                return False
            raise
        return True

    def delete(self, name: JobName) -> None:
        """Delete the record of a finished job."""
        self.send(delete_call(name))

    def send(self, call: Call) -> dict[str, Any]:
        """Send one call. A call that may be repeated waits for the end of an outage; after one failure, the next calls
        do not wait until the service answers again.
        """
        if not call.repeatable:
            return self._send_once(call)
        try:
            doc = retrying_in_outage(self._sleep, 0.0 if self._is_down else self._outage_seconds)(self._send_once, call)
        except ServiceError as error:
            self._is_down = is_temporary(error)
            raise
        self._is_down = False
        return doc

    def _send_once(self, call: Call) -> dict[str, Any]:
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException

        if self._session is None:
            from airflow_vertex_batch.gcp.transport import bounded_session

            # It sends again only after a 401, which is a refusal: nothing was created.
            self._session = bounded_session(self._credentials)
        try:
            answer = self._session.request(  # type: ignore[no-untyped-call]
                call.method,
                self.url(call),
                params=call.params,
                json=call.body,
                timeout=self._timeout,
                max_allowed_time=self._timeout,
                # A redirect would turn a POST into a GET; Google's API sends none.
                allow_redirects=False,
            )
        except GoogleAuthError as error:
            raise credentials_error(call.what, error) from error
        except RequestException as error:
            raise no_answer(call, error, was_sent=_was_sent(error)) from error
        return read_answer(call, answer.status_code, answer.text, answer.headers)


class AsyncVertexClient(_Endpoint):
    """The same calls for the triggerer's event loop. Use as ``async with``; one HTTP session for its life."""

    def __init__(
        self,
        credentials: Credentials,
        project: str,
        location: str,
        endpoint: str = "",
        *,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        # Imported here and not where it is used: clients are made in a thread, and the first import takes a while.
        import aiohttp  # noqa: F401

        super().__init__(project, location, endpoint)
        self._credentials, self._timeout = credentials, timeout
        self._session: aiohttp.ClientSession | None = None
        self._refreshing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        import aiohttp

        # Proxies of the environment, as the workers' requests take them.
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout), trust_env=True)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, name: JobName) -> BatchJob:
        """Return one job as it is now."""
        call = get_call(name)
        return read_job(call, await self.send(call))

    async def pages(self, query: str) -> AsyncGenerator[list[BatchJob]]:
        """Yield the jobs of this project and location that match a list filter, a page at a time."""
        token = ""
        while True:
            call = list_call(self.parent, query, token)
            doc = await self.send(call)
            yield [*jobs_of(call, doc)]
            token = doc.get("nextPageToken", "")
            if not token:
                return

    async def cancel(self, name: JobName) -> bool:
        """Ask for a job to be cancelled; False when it had ended already or is gone."""
        try:
            await self.send(cancel_call(name))
        except ServiceError as error:
            if error.status in _NOTHING_TO_CANCEL:
                return False
            raise
        return True

    async def send(self, call: Call) -> dict[str, Any]:
        """Send one call once: the waiting flow decides what an error means.

        A token that the service no longer takes is replaced and the call sent again: 401 is a refusal.
        """
        from google.auth.exceptions import GoogleAuthError

        try:
            await self._refresh()
            used = self._credentials.token
            try:
                return await self._send_once(call)
            except ServiceError as error:
                if error.status != 401 or not used:  # noqa: PLR2004
                    raise
            await self._refresh(refused=used)
            return await self._send_once(call)
        except GoogleAuthError as error:
            raise credentials_error(call.what, error) from error

    async def _send_once(self, call: Call) -> dict[str, Any]:
        import aiohttp

        if self._session is None:
            raise RuntimeError("AsyncVertexClient is used as `async with`")
        headers: dict[str, str] = {}
        self._credentials.apply(headers)  # type: ignore[no-untyped-call]
        try:
            async with self._session.request(
                call.method, self.url(call), params=call.params, json=call.body, headers=headers, allow_redirects=False
            ) as answer:
                text = await answer.text(errors="replace")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise no_answer(call, error) from error
        return read_answer(call, answer.status, text, answer.headers)

    async def _refresh(self, refused: str | None = None) -> None:
        """Get a token in a thread, one for all calls: a call that waited for the lock uses the new token.

        :param refused: a token that the service refused. It is not used again, even if it is new.
        """
        async with self._refreshing:
            if not self._credentials.valid or (refused and self._credentials.token == refused):
                await asyncio.to_thread(_refresh_now, self._credentials)


def _refresh_now(credentials: Credentials) -> None:
    from airflow_vertex_batch.gcp.transport import token_request

    credentials.refresh(token_request())  # type: ignore[no-untyped-call]
