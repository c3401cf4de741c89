"""How are the steps of waits carried out? Blocking and several at the same time, or with only one question, or on an
event loop.

`core.waiting.watch` decides. A driver asks, sleeps, cancels and warns, and hands the answers back.
"""

from __future__ import annotations

import heapq
import logging
import time
from typing import TYPE_CHECKING, Protocol

from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.core.waiting.watch import Cancel, Poll, Queued, Sleep, Warn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_vertex_batch.core.domain.address import JobName
    from airflow_vertex_batch.core.domain.job import BatchJob
    from airflow_vertex_batch.core.waiting.watch import Flow, Outcome, Reply, Step

log = logging.getLogger(__name__)


class JobCalls(Protocol):
    """What the sync driver needs of a job service."""

    def get(self, name: JobName) -> BatchJob:
        """Return one job."""

    def cancel(self, name: JobName) -> bool:
        """Cancel one job."""


class AsyncJobCalls(Protocol):
    """What the async driver needs of a job service."""

    def get(self, name: JobName) -> Awaitable[BatchJob]:
        """Return one job."""

    def cancel(self, name: JobName) -> Awaitable[bool]:
        """Cancel one job."""


def _say(warning: Warn) -> None:
    log.warning("%s", warning.text)


def drive(
    *waits: tuple[Flow, JobCalls],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    on_answer: Callable[[BatchJob], None] = lambda _job: None,
    warn: Callable[[Warn], None] = _say,
) -> list[Outcome]:
    """Carry out several flows at the same time, blocking, until all have ended or one says that its job queues for too
    long.

    :param waits: each flow with the service it asks.
    :param clock: a monotonic clock, in seconds.
    :param on_answer: is called with every answer, for the log.
    :param warn: is called with every warning.
    :returns: the outcomes so far, in the order of `waits`.
    """
    outcomes: dict[int, Outcome] = {}
    due = [(clock(), number) for number in range(len(waits))]
    while due and not any(isinstance(outcome, Queued) for outcome in outcomes.values()):
        when, number = heapq.heappop(due)
        if (wait := when - clock()) > 0:
            sleep(wait)
        step = _to_sleep(*waits[number], on_answer, warn)
        if isinstance(step, Sleep):
            heapq.heappush(due, (clock() + step.seconds, number))
        else:
            outcomes[number] = step
    return [outcomes[number] for number in sorted(outcomes)]


def drive_once(
    flow: Flow,
    service: JobCalls,
    *,
    on_answer: Callable[[BatchJob], None] = lambda _job: None,
    warn: Callable[[Warn], None] = _say,
) -> Outcome | None:
    """Carry out a flow up to its first sleep, for one question of a rescheduled sensor. Return None if the flow would
    sleep.
    """
    step = _to_sleep(flow, service, on_answer, warn)
    return None if isinstance(step, Sleep) else step


def _to_sleep(
    flow: Flow, service: JobCalls, on_answer: Callable[[BatchJob], None], warn: Callable[[Warn], None]
) -> Sleep | Outcome:
    """Carry out a flow from its beginning, or from one sleep, to the next or to its end."""
    try:
        step = flow.send(None)
        while not isinstance(step, Sleep):
            try:
                reply = _reply(step, service, on_answer, warn)
            except ServiceError as error:
                step = flow.throw(error)
            else:
                step = flow.send(reply)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    return step


def _reply(
    step: Poll | Cancel | Warn, service: JobCalls, on_answer: Callable[[BatchJob], None], warn: Callable[[Warn], None]
) -> Reply:
    match step:
        case Poll(name):
            job = service.get(name)
            on_answer(job)
            return job
        case Cancel(name):
            return service.cancel(name)
        case Warn():
            warn(step)
    return None


async def adrive(
    flow: Flow,
    service: AsyncJobCalls,
    *,
    sleep: Callable[[float], Awaitable[None]],
    on_answer: Callable[[BatchJob], Awaitable[None]],
    warn: Callable[[Warn], Awaitable[None]],
) -> Outcome:
    """Carry out a flow on an event loop. Calls of `on_answer` and `warn` are awaited too, because a log may block."""
    step = next(flow)
    while True:
        try:
            try:
                reply = await _areply(step, service, sleep, on_answer, warn)
            except ServiceError as error:
                step = flow.throw(error)
            else:
                step = flow.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


async def _areply(
    step: Step,
    service: AsyncJobCalls,
    sleep: Callable[[float], Awaitable[None]],
    on_answer: Callable[[BatchJob], Awaitable[None]],
    warn: Callable[[Warn], Awaitable[None]],
) -> Reply:
    match step:
        case Poll(name):
            job = await service.get(name)
            await on_answer(job)
            return job
        case Cancel(name):
            return await service.cancel(name)
        case Sleep(seconds):
            await sleep(seconds)
        case Warn():
            await warn(step)
    return None
