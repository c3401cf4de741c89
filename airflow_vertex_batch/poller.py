"""Who asks the service for all the jobs that a process waits for? One poller for each connection, project and location.

Waiting triggers do not ask themselves: they say which job they want to know about and how long the answer may take. The
poller gathers what is wanted and asks once for all: with `get` for a handful, with one `list` of the running jobs for
many; what the list does not show has most likely ended and is asked for singly.

Invariants: one poller a key and event loop, made by the first waiter and closed by the last; an error goes to every
waiter of that round and to nobody else; the poller belongs to no task, so its log lines land in no task's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.errors import ServiceError
from airflow_vertex_batch.core.submit import IDENTITY_LABEL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from airflow_vertex_batch.core.address import JobName
    from airflow_vertex_batch.core.model import BatchJob
    from airflow_vertex_batch.gcp.vertex import AsyncVertexClient

#: Up to so many jobs, single questions cost less than listing everything that runs.
_FEW_JOBS = 4
#: Single questions that are under way at once.
_CONCURRENT_GETS = 8
#: Seconds over which questions are gathered, at the most: bounds how late an end is noticed.
_MAX_GATHER_SECONDS = 15.0
#: The jobs that still move. Ended ones stay in the list for good and would make every answer longer.
_RUNNING_FILTER = (
    f"labels.{IDENTITY_LABEL}:* AND ("
    + " OR ".join(
        f'state="JOB_STATE_{name}"' for name in ("QUEUED", "PENDING", "RUNNING", "CANCELLING", "PAUSED", "UPDATING")
    )
    + ")"
)

_pollers: dict[tuple[int, Hashable], SharedPoller] = {}


class SharedPoller:
    """The one that asks. Get it with `shared_poller`."""

    def __init__(self, client: AsyncVertexClient) -> None:
        self._client = client
        self._wanted: dict[str, tuple[JobName, asyncio.Future[BatchJob]]] = {}
        self._round: asyncio.Task[None] | None = None
        self._lists = True
        self.waiters = 0

    async def job(self, name: JobName, within: float) -> BatchJob:
        """Return one job.

        :param within: seconds that the question may be held back to be asked together with others.
        :raises ServiceError: when the service could not be asked, or refused.
        """
        text = str(name)
        if text not in self._wanted:
            self._wanted[text] = (name, asyncio.get_running_loop().create_future())
        future = self._wanted[text][1]
        if self._round is None or self._round.done():
            gather = self._gather(min(within, _MAX_GATHER_SECONDS))
            # A context of its own: else the lines of all go to the log of the task that happened to come first.
            self._round = asyncio.get_running_loop().create_task(gather, context=contextvars.Context())
        # Shielded: one waiter that goes away must not take the answer from another waiter for the same job.
        return await asyncio.shield(future)

    async def cancel(self, name: JobName) -> bool:
        """Cancel one job now."""
        return await self._client.cancel(name)

    async def close(self) -> None:
        """Stop asking and release the connection."""
        if self._round is not None:
            self._round.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._round
        await self._client.__aexit__(None, None, None)

    async def _gather(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            wanted, self._wanted = self._wanted, {}
            try:
                await self._ask(wanted)
            except ServiceError as error:
                _tell_all(wanted, error)
            except Exception as error:  # noqa: BLE001 - whatever it was, the waiters must hear of it
                _tell_all(wanted, ServiceError(f"Polling failed: {type(error).__name__}", status=0))
            if not self._wanted:
                return

    async def _ask(self, wanted: dict[str, tuple[JobName, asyncio.Future[BatchJob]]]) -> None:
        left = dict(wanted)
        if self._lists and len(left) > _FEW_JOBS:
            for name, job in (await self._running()).items():
                if (entry := left.pop(name, None)) is not None:
                    _tell(entry[1], job)
        limit = asyncio.Semaphore(_CONCURRENT_GETS)
        await asyncio.gather(*(self._get(name, future, limit) for name, future in left.values()))

    async def _running(self) -> dict[str, BatchJob]:
        try:
            return {job.name: job async for job in self._client.list(_RUNNING_FILTER)}
        except ServiceError as error:
            if error.status != 400:  # noqa: PLR2004
                raise
            # The label filter is documented for all resources and shown by nobody for this one: without it, ask singly.
            self._lists = False
            return {}

    async def _get(self, name: JobName, future: asyncio.Future[BatchJob], limit: asyncio.Semaphore) -> None:
        async with limit:
            try:
                _tell(future, await self._client.get(name))
            except ServiceError as error:
                if not future.done():
                    future.set_exception(error)


def _tell(future: asyncio.Future[BatchJob], job: BatchJob) -> None:
    if not future.done():
        future.set_result(job)


def _tell_all(wanted: dict[str, Any], error: ServiceError) -> None:
    for _, future in wanted.values():
        if not future.done():
            future.set_exception(error)


class View:
    """The shared poller as one waiter sees it: the service that `core.lifecycle.adrive` asks."""

    def __init__(self, poller: SharedPoller, within: float) -> None:
        self._poller, self._within = poller, within

    def get(self, name: JobName) -> Awaitable[BatchJob]:
        """Return one job."""
        return self._poller.job(name, self._within)

    def cancel(self, name: JobName) -> Awaitable[bool]:
        """Cancel one job."""
        return self._poller.cancel(name)


class shared_poller:  # noqa: N801 - used as `async with shared_poller(...)`
    """Join the poller of a key, making it if nobody has.

    :param key: what must be equal for two waiters to share: connection, impersonation, project, location.
    :param connect: makes the client; called once, by the first waiter.
    """

    _making: dict[tuple[int, Hashable], asyncio.Lock] = {}  # noqa: RUF012 - one registry a process, like `_pollers`

    def __init__(
        self, key: Hashable, connect: Callable[[], Awaitable[AsyncVertexClient]], poll_interval: float
    ) -> None:
        self._key, self._connect = (id(asyncio.get_running_loop()), key), connect
        # Held back for a quarter of the interval, waiters fall into step after a few rounds.
        self._within = poll_interval / 4

    async def __aenter__(self) -> View:
        async with self._making.setdefault(self._key, asyncio.Lock()):
            if self._key not in _pollers:
                client = await self._connect()
                _pollers[self._key] = SharedPoller(await client.__aenter__())
            self._poller = _pollers[self._key]
            self._poller.waiters += 1
        return View(self._poller, self._within)

    async def __aexit__(self, *exc_info: object) -> None:
        self._poller.waiters -= 1
        if self._poller.waiters == 0:
            _pollers.pop(self._key, None)
            self._making.pop(self._key, None)
            await self._poller.close()
