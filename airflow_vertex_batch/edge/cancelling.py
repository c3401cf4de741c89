"""How are jobs cancelled when somebody ended their task? All at the same time, within a time limit, in the triggerer
and in a worker.

Invariants: an error with one job does not delay another job. Nothing is raised, so no error hides the other jobs. Every
job that may still run is named at ERROR, with the reason, even if the work was cut off. After a permanent refusal the
call is not repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for_futures
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow_vertex_batch.core.domain.errors import ServiceError, VertexBatchError
from airflow_vertex_batch.core.waiting import cadence

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
    from concurrent.futures import Future
    from contextlib import AbstractAsyncContextManager

    from airflow_vertex_batch.core.domain.address import JobName
    from airflow_vertex_batch.core.waiting.drive import AsyncJobCalls

    Tell = Callable[..., Awaitable[None]]
    Join = Callable[[JobName], AbstractAsyncContextManager[AsyncJobCalls]]

_T = TypeVar("_T")

#: What the log says when somebody ended the task.
ENDED = "The task was ended"
#: Parts of the seconds that Airflow gives a trigger's `on_kill`: for the calls, until unfinished work is cut off, and
#: for the last line in the log.
_USED, _CUT_OFF, _LAST_LINE = 5 / 6, 0.9, 0.05
#: The part of the seconds for the calls in which a call may still begin.
_LAST_CALL = 0.8
#: Seconds to wait for the answer to one call.
_CALL_SECONDS = 8.0
#: Calls at the same time.
_CALLS_AT_ONCE = 8
#: Seconds for all cancels in a worker. Airflow 3.3.2 kills a task 5 seconds after it told the task to end (`kill`,
#: airflow/sdk/execution_time/supervisor.py, 2026-11-28). A part of these 5 seconds is needed to ask who ended the task.
WORKER_SECONDS = 3.5
#: Seconds between two calls about one job in a worker.
_WORKER_PAUSE_SECONDS = 0.3


async def finish(work: Coroutine[Any, Any, _T], seconds: float) -> _T:
    """Finish the work, even if this task is cancelled several times meanwhile.

    Airflow 3.3.2 cancels a killed trigger again at every turn of its loop, about once a second, while `on_kill` runs
    (`cancel_triggers`, airflow/jobs/triggerer_job_runner.py, 2026-11-28). So the work is an asyncio task of its own.
    Only a process that stops cancels it.

    :param seconds: the time after which the work itself is cancelled.
    :raises asyncio.CancelledError: when the work was cancelled.
    """
    task = asyncio.ensure_future(work)
    timer = asyncio.get_running_loop().call_later(seconds, task.cancel)
    try:
        return await wait_until_done(task)
    finally:
        timer.cancel()


async def wait_until_done(task: asyncio.Future[_T]) -> _T:
    """Wait until a task is done, even if the waiting is cancelled several times; return the task's result."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    return task.result()


async def end_jobs(
    names: Sequence[JobName], may: Callable[[], Awaitable[bool]], join: Join, log: Any, airflow_seconds: float
) -> None:
    """Cancel the jobs of a killed trigger, if they may be cancelled. Log at ERROR which jobs may still run, and why.

    :param may: asks Airflow whether the jobs may be cancelled.
    :param join: connects to the service of a job.
    :param log: an asynchronous logger, as triggers have.
    :param airflow_seconds: the seconds that Airflow gives for all of it.
    """
    left = dict.fromkeys(names, "Airflow has not said who ended the task")
    try:
        work = _end_jobs(left, may, join, log.ainfo, airflow_seconds * _USED)
        await finish(work, airflow_seconds * _CUT_OFF)
    except asyncio.CancelledError:
        cut = "there was no more time, or the triggerer stopped"
        left.update({name: f"{why}; {cut}" for name, why in left.items()})
    except Exception as error:  # noqa: BLE001 - what is left must be said
        left.update(dict.fromkeys(left, f"Airflow could not be asked about the task: {_reason(error)}"))
    if left:
        with contextlib.suppress(asyncio.CancelledError):
            await finish(log.aerror("%s", left_text(left)), airflow_seconds * _LAST_LINE)


async def _end_jobs(
    left: dict[JobName, str], may: Callable[[], Awaitable[bool]], join: Join, tell: Tell, seconds: float
) -> None:
    ends = asyncio.get_running_loop().time() + seconds
    if await may():
        await cancel_all(left, join, tell, ends - asyncio.get_running_loop().time())
    else:
        left.clear()


async def cancel_all(left: dict[JobName, str], join: Join, tell: Tell, seconds: float) -> None:
    """Cancel jobs, and repeat calls after temporary errors. Each job that is done is removed from `left`.

    :param left: the jobs. The values become the reasons why a job may still run.
    :param join: connects to the service of a job; called once for each project and location.
    :param tell: logs each job that is cancelled.
    :param seconds: the time for all jobs together.
    """
    left.update(dict.fromkeys(left, "no connection in time"))
    limit, last_call = asyncio.Semaphore(_CALLS_AT_ONCE), time.monotonic() + seconds * _LAST_CALL
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for alike in _by_parent(left):
                group.create_task(_cancel_together(alike, join, tell, left, limit, last_call))


def _by_parent(names: Iterable[JobName]) -> Iterable[list[JobName]]:
    found: dict[str, list[JobName]] = {}
    for name in names:
        found.setdefault(name.parent, []).append(name)
    return found.values()


async def _cancel_together(
    names: list[JobName], join: Join, tell: Tell, left: dict[JobName, str], limit: asyncio.Semaphore, last_call: float
) -> None:
    """Cancel the jobs of one project and location over one connection."""
    try:
        async with join(names[0]) as service, asyncio.TaskGroup() as group:
            for name in names:
                left[name] = "no answer in time"
                group.create_task(_cancel(name, service, tell, left, limit, last_call))
    except Exception as error:  # noqa: BLE001 - the jobs of other places are cancelled all the same
        left.update(dict.fromkeys(left.keys() & names, _reason(error)))


async def _cancel(
    name: JobName,
    service: AsyncJobCalls,
    tell: Tell,
    left: dict[JobName, str],
    limit: asyncio.Semaphore,
    last_call: float,
) -> None:
    from tenacity import AsyncRetrying

    def note(error: BaseException) -> None:
        left[name] = _reason(error)

    try:
        async for attempt in AsyncRetrying(**_retrying(last_call, note)):
            with attempt:
                async with limit, asyncio.timeout(_CALL_SECONDS):
                    cancelled = await service.cancel(name)
    except Exception as error:  # noqa: BLE001 - the other jobs are cancelled all the same
        note(error)
        return
    del left[name]
    if cancelled:
        await tell("Cancelled %s: its task was ended.", name)


def _retrying(last_call: float, note: Callable[[BaseException], None]) -> dict[str, Any]:
    """Return the rules for repeating a cancel: after temporary errors, not before the service allows it, and once more
    at the end.

    :param last_call: the time after which no call begins, by the monotonic clock.
    :param note: is called with each error.
    """
    from tenacity import RetryCallState, retry_if_exception, wait_exponential, wait_random

    backoff = wait_exponential(multiplier=0.5, max=4) + wait_random(0, 0.5)

    def is_temporary(error: BaseException) -> bool:
        return isinstance(error, TimeoutError) or (isinstance(error, ServiceError) and error.retryable)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        if error is not None:
            note(error)
        silence = cadence.pause_seconds(error, state.attempt_number - 1) if isinstance(error, ServiceError) else 0.0
        # A job that still runs costs money. If the service asks for a longer pause than there is time, the last call is
        # made anyway.
        return max(min(max(backoff(state), silence), last_call - time.monotonic()), 0.0)

    return {
        "retry": retry_if_exception(is_temporary),
        "stop": lambda _state: time.monotonic() >= last_call,
        "wait": wait,
        "reraise": True,
    }


class RepeatableCancel(Protocol):
    """A job service whose calls can be repeated here."""

    def cancel(self, name: JobName, *, once: bool) -> bool:
        """Cancel one job."""


def end_jobs_here(
    names: Sequence[JobName],
    may: Callable[[], bool],
    service_of: Callable[[JobName], RepeatableCancel],
    log: Any,
    *,
    event: str = ENDED,
    seconds: float | None = None,
) -> None:
    """Do what `end_jobs` does, blocking, in a worker. Calls that still run when the time is over are not stopped.

    :param event: what happened to the task.
    :param seconds: the time for all jobs together; `WORKER_SECONDS` if not given.
    """
    limit = WORKER_SECONDS if seconds is None else seconds
    try:
        left = cancel_from_worker(names, service_of, log.info, limit) if may() else {}
    except Exception as error:  # noqa: BLE001 - what is left must be said
        left = dict.fromkeys(names, f"Airflow could not be asked about the task: {_reason(error)}")
    if left:
        log.error("%s", left_text(left, event))


def cancel_from_worker(
    names: Sequence[JobName],
    service_of: Callable[[JobName], RepeatableCancel],
    tell: Callable[..., None],
    seconds: float,
) -> dict[JobName, str]:
    """Cancel jobs in threads, and repeat calls after temporary errors; return the jobs that may still run, with the
    reasons.
    """
    left = dict.fromkeys(names, "no answer in time")
    asked: dict[JobName, Future[bool]] = {}
    last_call, pool = time.monotonic() + seconds, ThreadPoolExecutor(_CALLS_AT_ONCE)
    for name in names:
        try:
            # The client is made here, in the main thread: it may ask Airflow for the connection, and only one thread
            # may do that.
            asked[name] = pool.submit(_cancel_quickly, name, service_of(name), last_call)
        except Exception as error:  # noqa: BLE001 - the other jobs are cancelled all the same
            left[name] = _reason(error)
    wait_for_futures(asked.values(), timeout=max(last_call - time.monotonic(), 0.0))
    pool.shutdown(wait=False)
    for name in [name for name, answer in asked.items() if answer.done()]:
        if (late := asked[name].exception()) is not None:
            left[name] = _reason(late)
            continue
        del left[name]
        if asked[name].result():
            tell("Cancelled %s: its task was ended.", name)
    return left


def _cancel_quickly(name: JobName, service: RepeatableCancel, last_call: float) -> bool:
    """Cancel a job. After a temporary error, try again."""
    while True:
        try:
            return service.cancel(name, once=True)
        except ServiceError as error:
            if not error.retryable or time.monotonic() + _WORKER_PAUSE_SECONDS >= last_call:
                raise
        time.sleep(_WORKER_PAUSE_SECONDS)


def left_text(left: Mapping[JobName, str], event: str = ENDED) -> str:
    """Return the message about jobs that could not be cancelled, or that must not be cancelled.

    :param event: what happened to their task.
    """
    named = "; ".join(f"{name} ({why})" for name, why in left.items())
    return (
        f"{event}, and {len(left)} of its jobs may still run, and bill: {named}. "
        "Cancel them in the console, or with: airflow-vertex-batch sweep"
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, ServiceError):
        return f"HTTP {error.status} {error.reason}".rstrip() if error.status else "no answer"
    if isinstance(error, VertexBatchError):
        return error.what
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
