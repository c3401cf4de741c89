"""What waits in the triggerer? A trigger that observes job names. It creates nothing, downloads nothing and carries no
rows.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_vertex_batch.core.domain.address import JobName, job_names
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.job import BatchJob
from airflow_vertex_batch.core.waiting.drive import AsyncJobCalls, adrive
from airflow_vertex_batch.core.waiting.watch import Limit, OnTimeout, Outcome, Queued, WaitPolicy, Warn, pack, watch
from airflow_vertex_batch.edge.cancelling import end_jobs, wait_until_done
from airflow_vertex_batch.edge.compat import is_kill, on_kill_seconds, still_owns, was_ended_by_a_person
from airflow_vertex_batch.edge.view import shared_poller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence

    from airflow_vertex_batch.gcp.vertex import AsyncVertexClient

#: Seconds before the first question. An event in the first moments fails the task on Airflow 3.3, if the scheduler sees
#: the event before it sees that the worker deferred (apache/airflow#67287, #72716; seen on 3.3.2, 2026-11-22).
SETTLE_SECONDS = 10.0
_SPREAD = 1.3


class VertexBatchJobTrigger(BaseTrigger):
    """Wait for jobs to end, with one poller for all waiting triggers of this process.

    :param jobs: full names of the jobs, or a template of them if the trigger begins without a worker.
    :param gcp_conn_id: the Airflow connection. It is resolved in the triggerer, so no secret is stored with the
        trigger.
    :param impersonation_chain: as in the hook.
    :param poll_interval: seconds between two questions about one job; None for the interval that adapts to the job.
    :param timeout: seconds from a job's creation until it counts as late.
    :param on_timeout: ``cancel``, ``fail`` or ``keep``.
    :param cancel_on_kill: cancel the jobs when a person ends the task; not when the task is cleared or moves to another
        triggerer.
    :param attempt: the token of the attempt that waits; None if no worker began it. Once another attempt owns the jobs,
        this one cancels nothing, neither on a kill nor at the deadline.
    :param queue_limit: seconds from its creation after which a job that still queues interrupts the wait, so that a
        worker can deal with it. One figure for all jobs, or one for each job name; a job without a figure may queue
        without a limit.
    :param limit: when the attempt must stop waiting, whatever the jobs do: the fields of a `lifecycle.Limit`; None if
        only `timeout` ends the wait.
    :param job_names: the name of `jobs` in 0.1.0, so that tasks which wait during an upgrade go on waiting.
    """

    def __init__(
        self,
        jobs: Any = None,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        poll_interval: float | None = None,
        timeout: float = WaitPolicy().timeout,
        on_timeout: str = "cancel",
        cancel_on_kill: bool = True,  # noqa: FBT001, FBT002 - Airflow calls it by keyword
        job_names: Any = None,
        attempt: str | None = None,
        queue_limit: float | dict[str, float] | None = None,
        limit: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.jobs = jobs if jobs is not None else job_names
        self.gcp_conn_id, self.impersonation_chain = gcp_conn_id, impersonation_chain
        self.poll_interval, self.timeout, self.on_timeout = poll_interval, timeout, on_timeout
        self.cancel_on_kill, self.attempt, self.queue_limit = cancel_on_kill, attempt, queue_limit
        self.limit = limit
        #: Whether Airflow has cancelled the wait for good, and the work that then cancels the jobs.
        self._is_killed = False
        self._ending: asyncio.Future[None] | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments from which Airflow makes this trigger again."""
        # The first three have the names of the sensor's template fields, so that Airflow renders them in the triggerer.
        names = (
            "jobs",
            "gcp_conn_id",
            "impersonation_chain",
            "poll_interval",
            "timeout",
            "on_timeout",
            "cancel_on_kill",
            "attempt",
            "queue_limit",
            "limit",
        )
        return f"{type(self).__module__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event when every job has ended or is too late, or when one job queues for too long. If `jobs` is
        empty, yield it at once.
        """
        try:
            # A random time, so that a thousand triggers that begin together do not wake in one turn of the event loop.
            await asyncio.sleep(SETTLE_SECONDS * random.uniform(1, _SPREAD))  # noqa: S311 - no secret
            event = await self._outcomes()
        except asyncio.CancelledError as error:
            self._is_killed = is_kill(error)
            raise
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _outcomes(self) -> dict[str, Any]:
        """Wait, and return the content of the event."""
        try:
            names = job_names(self.jobs)
        except InputError as error:
            return {"outcomes": [], "error": str(error)}
        return {"outcomes": pack(await until_one_queues([self._wait(name) for name in names]))}

    def _policy(self, name: JobName) -> WaitPolicy:
        limit = self.queue_limit
        return WaitPolicy(
            poll_interval=self.poll_interval,
            timeout=self.timeout,
            on_timeout=OnTimeout(self.on_timeout),
            queue_limit=limit.get(str(name)) if isinstance(limit, dict) else limit,
            limit=None if self.limit is None else Limit.of(self.limit),
        )

    async def _wait(self, name: JobName) -> Outcome:
        async with self._poller(name) as service:
            flow = watch(name, self._policy(name), usual=service.usual)
            guarded = AsyncCancelIfOwner(service, self._owns)
            on_answer = progress_log(self.log.ainfo)
            return await adrive(flow, guarded, sleep=asyncio.sleep, on_answer=on_answer, warn=self._warn)

    async def _warn(self, warning: Warn) -> None:
        # In a thread: the log is a pipe to another process of Airflow, and the pipe is full when two thousand triggers
        # write at once.
        await self.log.awarning("%s", warning.text)

    def _poller(self, name: JobName) -> shared_poller:
        chain = self.impersonation_chain
        account = chain if isinstance(chain, str | None) else tuple(chain)

        async def connect() -> AsyncVertexClient:
            from asgiref.sync import sync_to_async

            return await sync_to_async(self._client)(name)

        return shared_poller((self.gcp_conn_id, account, name.parent), connect, self.poll_interval)

    def _client(self, name: JobName) -> AsyncVertexClient:
        """Make the client, in a thread, because imports, the connection and the credentials block."""
        from airflow_vertex_batch.hooks import VertexBatchHook

        return VertexBatchHook(self.gcp_conn_id, self.impersonation_chain).async_jobs(name)

    async def on_kill(self) -> None:
        """Cancel the jobs if a person ended the task.

        Airflow also calls this when the task was cleared, and in a triggerer that stalled and lost its triggers. Then
        the jobs belong to another attempt, and the task's state shows it.
        """
        if self.cancel_on_kill:
            if self._ending is None:
                work = end_jobs(job_names(self.jobs), self._may_cancel, self._poller, self.log, on_kill_seconds())
                self._ending = asyncio.ensure_future(work)
            await wait_until_done(self._ending)

    async def cleanup(self) -> None:
        """Do the work of `on_kill` if Airflow did not call it (or does not have it, below 3.3), and wait until it is
        done.

        Airflow 3.3.2 cancels a killed trigger again about once a second. Before it calls `on_kill` it waits until a
        line is in its log (`run_trigger`, airflow/jobs/triggerer_job_runner.py, 2026-11-29). If a cancel comes in that
        moment, `on_kill` is never called. On Python 3.11 the second cancel also ends Airflow's wait for `on_kill`,
        although `on_kill` goes on (`asyncio.wait_for`). In both cases Airflow still calls `cleanup`.
        """
        if self._is_killed:
            await self.on_kill()

    async def _may_cancel(self) -> bool:
        return await self._was_ended() and await self._owns()

    async def _was_ended(self) -> bool:
        from asgiref.sync import sync_to_async

        return self.task_instance is not None and await sync_to_async(was_ended_by_a_person)(self.task_instance)

    async def _owns(self) -> bool:
        """Whether this attempt still owns the jobs. Without a task, no other attempt can own them."""
        from asgiref.sync import sync_to_async

        if self.task_instance is None:
            return True
        if await sync_to_async(still_owns)(self.task_instance, self.attempt):
            return True
        await self.log.ainfo("A later attempt owns the jobs of this task: nothing is cancelled.")
        return False


class AsyncCancelIfOwner:
    """A job service that cancels only while `owns` is true: an attempt that was replaced must not cancel."""

    def __init__(self, service: AsyncJobCalls, owns: Callable[[], Awaitable[bool]]) -> None:
        self._service, self._owns = service, owns

    def get(self, name: JobName) -> Awaitable[BatchJob]:
        """Return one job."""
        return self._service.get(name)

    async def cancel(self, name: JobName) -> bool:
        """Cancel one job, if this attempt still owns it."""
        return await self._owns() and await self._service.cancel(name)


async def until_one_queues(waits: Sequence[Coroutine[Any, Any, Outcome]]) -> list[Outcome]:
    """Run all waits at the same time until all are over or one job queues for too long; return the outcomes so far."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    pending, is_long = set(tasks), False
    try:
        while pending and not is_long:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            is_long = any(isinstance(task.result(), Queued) for task in done)
        return [task.result() for task in tasks if task.done()]
    finally:
        for task in pending:
            task.cancel()
        if pending:
            # Not `gather`: the cancel of this trigger carries a reason, and `gather` would lose it.
            await asyncio.wait(pending)


def progress_log(write: Callable[..., Awaitable[None]]) -> Callable[[BatchJob], Awaitable[None]]:
    """Return a listener that writes one line for each change of a job's state or counts."""
    last: dict[str, str] = {}

    async def on_answer(job: BatchJob) -> None:
        if last.get(job.name) != job.progress:
            last[job.name] = job.progress
            await write("%s %s", job.name, job.progress)

    return on_answer
