"""How are the jobs of a task cancelled that a person ended? Side by side, against the clock, in the triggerer and in a
worker.

Invariants: one job's trouble holds up no other; nothing is raised, so that no error hides the rest: what could not be
cancelled is returned, and is worth one line that says what to do; nobody is asked a second time after a refusal for
good.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core import pace
from airflow_vertex_batch.core.errors import ServiceError, VertexBatchError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future
    from contextlib import AbstractAsyncContextManager

    from airflow_vertex_batch.core.address import JobName
    from airflow_vertex_batch.core.lifecycle import Asks, AsksAsync

    Tell = Callable[..., Awaitable[None]]
    Join = Callable[[JobName], AbstractAsyncContextManager[AsksAsync]]

#: Seconds for all of it in the triggerer, connecting included. Airflow 3.3.2 ends a trigger's `on_kill` after 30
#: (`[triggerer] on_kill_timeout`, airflow/jobs/triggerer_job_runner.py, 2026-11-25).
TRIGGERER_SECONDS = 25.0
#: Seconds after which no call is begun any more, and after which a call without an answer is given up.
_LAST_CALL_SECONDS = 20.0
_CALL_SECONDS = 8.0
#: Calls under way at once.
_CALLS_AT_ONCE = 8


async def cancel_all(
    names: Sequence[JobName], join: Join, tell: Tell, seconds: float = TRIGGERER_SECONDS
) -> dict[JobName, str]:
    """Cancel jobs, repeating what may pass; return those that may still run, with the reason.

    :param join: connects to the service of a job; called once for each project and location.
    :param tell: told of each job that is cancelled, as a log is.
    :param seconds: for all of it.
    """
    left = dict.fromkeys(names, "no answer in time")
    limit = asyncio.Semaphore(_CALLS_AT_ONCE)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for alike in _by_parent(left):
                group.create_task(_cancel_together(alike, join, tell, left, limit))
    return left


def _by_parent(names: Iterable[JobName]) -> Iterable[list[JobName]]:
    found: dict[str, list[JobName]] = {}
    for name in names:
        found.setdefault(name.parent, []).append(name)
    return found.values()


async def _cancel_together(
    names: list[JobName], join: Join, tell: Tell, left: dict[JobName, str], limit: asyncio.Semaphore
) -> None:
    """Cancel jobs of one project and location over one connection."""
    try:
        async with join(names[0]) as service, asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(_cancel(name, service, tell, left, limit))
    except Exception as error:  # noqa: BLE001 - the jobs of other places are cancelled all the same
        left.update(dict.fromkeys(left.keys() & names, _reason(error)))


async def _cancel(
    name: JobName, service: AsksAsync, tell: Tell, left: dict[JobName, str], limit: asyncio.Semaphore
) -> None:
    from tenacity import AsyncRetrying

    try:
        async for attempt in AsyncRetrying(**_retrying()):
            with attempt:
                async with limit, asyncio.timeout(_CALL_SECONDS):
                    cancelled = await service.cancel(name)
    except Exception as error:  # noqa: BLE001 - the other jobs are cancelled all the same
        left[name] = _reason(error)
        return
    del left[name]
    if cancelled:
        await tell("Cancelled %s: its task was ended by hand.", name)


def _retrying() -> dict[str, Any]:
    """Return when a cancel is sent again: after what may pass, when the service wants it, and once more at the end."""
    from tenacity import RetryCallState, retry_if_exception, stop_after_delay, wait_exponential, wait_random

    backoff = wait_exponential(multiplier=0.5, max=4) + wait_random(0, 0.5)

    def passing(error: BaseException) -> bool:
        return isinstance(error, TimeoutError) or (isinstance(error, ServiceError) and error.retryable)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        silence = pace.hold(error, state.attempt_number - 1) if isinstance(error, ServiceError) else 0.0
        # A job that runs on costs money: a wish for more silence than there is time does not keep the last call back.
        left = _LAST_CALL_SECONDS - (state.seconds_since_start or 0.0)
        return max(min(max(backoff(state), silence), left), 0.0)

    return {
        "retry": retry_if_exception(passing),
        "stop": stop_after_delay(_LAST_CALL_SECONDS),
        "wait": wait,
        "reraise": True,
    }


def cancel_from_worker(
    names: Sequence[JobName], service_of: Callable[[JobName], Asks], tell: Callable[..., None]
) -> dict[JobName, str]:
    """Do the same in a worker, blocking; return the jobs that may still run, with the reason.

    The client repeats what may pass. In threads: Airflow 3.3.2 kills a worker's task 5 seconds after it told it to end
    (`kill`, airflow/sdk/execution_time/supervisor.py, 2026-11-25), which one job's repetitions alone may take.
    """
    left: dict[JobName, str] = {}
    asked: dict[JobName, Future[bool]] = {}
    with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
        for name in names:
            try:
                # The client is made here: that asks Airflow for the connection, which is one thread's business.
                asked[name] = pool.submit(service_of(name).cancel, name)
            except Exception as error:  # noqa: BLE001 - the other jobs are cancelled all the same
                left[name] = _reason(error)
        for name, answer in asked.items():
            if (late := answer.exception()) is not None:
                left[name] = _reason(late)
            elif answer.result():
                tell("Cancelled %s: its task was ended by hand.", name)
    return left


def left_text(left: Mapping[JobName, str]) -> str:
    """Return what to say of jobs that could not be cancelled."""
    named = "; ".join(f"{name} ({why})" for name, why in left.items())
    return (
        f"The task was ended by hand, and {len(left)} of its jobs may still run, and bill: {named}. "
        "Cancel them in the console, or with: airflow-vertex-batch sweep"
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, ServiceError):
        return f"HTTP {error.status} {error.reason}".rstrip() if error.status else "no answer"
    if isinstance(error, VertexBatchError):
        return error.what
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
