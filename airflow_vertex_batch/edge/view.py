"""What does one trigger see of the shared poller? All triggers of a process ask about their jobs together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.job import BatchJob
from airflow_vertex_batch.core.waiting import cadence
from airflow_vertex_batch.edge.poller import SharedPoller, durations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from airflow_vertex_batch.core.domain.address import JobName
    from airflow_vertex_batch.gcp.vertex import AsyncVertexClient

_pollers: dict[tuple[int, Hashable], SharedPoller] = {}


class View:
    """The shared poller as one waiter sees it: the service that `core.waiting.drive.adrive` asks."""

    def __init__(self, poller: SharedPoller, interval: float) -> None:
        self._poller, self._interval = poller, interval

    def get(self, name: JobName) -> Awaitable[BatchJob]:
        """Return one job."""
        return self._poller.job(name, self._interval)

    def cancel(self, name: JobName) -> Awaitable[bool]:
        """Cancel one job."""
        return self._poller.cancel(name)

    def usual(self, job: BatchJob) -> float | None:
        """Return how many seconds jobs like this one ran in this process, or None."""
        return durations.usual(job)


class shared_poller:  # noqa: N801 - used as `async with shared_poller(...)`
    """Join the poller of a key. If there is none, make it.

    :param key: connection, impersonation, project and location. Waiters with an equal key share a poller.
    :param connect: makes the client. The first waiter calls it, once.
    :param poll_interval: seconds between two questions of this waiter; None for the adaptive interval.
    """

    def __init__(
        self, key: Hashable, connect: Callable[[], Awaitable[AsyncVertexClient]], poll_interval: float | None
    ) -> None:
        self._key, self._connect = (id(asyncio.get_running_loop()), key), connect
        self._interval = poll_interval or cadence.QUICKEST_SECONDS

    async def __aenter__(self) -> View:
        if self._key not in _pollers:
            _pollers[self._key] = SharedPoller(self._connect)
        self._poller = _pollers[self._key]
        self._poller.waiters += 1
        try:
            await self._poller.open()
        except BaseException:
            await self.__aexit__()
            raise
        return View(self._poller, self._interval)

    async def __aexit__(self, *exc_info: object) -> None:
        self._poller.waiters -= 1
        if self._poller.waiters == 0:
            _pollers.pop(self._key, None)
            await self._poller.close()
