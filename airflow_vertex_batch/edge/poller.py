"""Who asks the service about all jobs that a process waits for? One poller for each connection, project and location.

Waiting triggers do not ask the service. They tell the poller which job they want to know about. The poller collects
these questions and asks in rounds: with `get` for a few jobs, with one paged `list` of the running jobs for many. A job
that this list does not show has most likely ended. If many jobs are missing in the list, the poller lists ended jobs
too. It asks singly only for the rest.

Invariants: there is one poller for each key and event loop; the first waiter makes it and the last one closes it. An
error of a round goes to every waiter of that round and to no other. After a refusal because of too many calls, nobody
asks until the pause is over. A round makes a limited number of calls, however many jobs ended together. A connection
that fails for a moment ends no wait. The poller belongs to no task, so its log lines go to no task's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
import time
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.errors import ServiceError, VertexBatchError
from airflow_vertex_batch.core.domain.job import BatchJob, JobState
from airflow_vertex_batch.core.purchase.ownership import IDENTITY_LABEL
from airflow_vertex_batch.core.waiting import cadence

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from airflow_vertex_batch.core.domain.address import JobName
    from airflow_vertex_batch.gcp.vertex import AsyncVertexClient


log = logging.getLogger(__name__)

#: Seconds for which connecting is tried again: Airflow's secrets or Google's metadata server may be down for a moment.
_CONNECT_SECONDS = 180.0
#: Errors that do not pass with time: a mistake in a connection, or in code. A connection that is not found is not in
#: this list: Airflow 3.3.2 raises the same error if a secrets backend could not be asked.
_MISTAKES = (ValueError, TypeError, LookupError, AttributeError, ImportError)
#: Seconds until an unexpected error of the same kind is logged again.
_TELL_AGAIN_SECONDS = 3600.0
#: Up to this number of jobs, single questions cost less than a list of all running jobs.
_FEW_JOBS = 4
#: Waiters that are woken in one turn of the event loop. Each may write to its task's log, and the first line makes the
#: log file. That takes milliseconds, which add up (a page of 100 blocked the loop of Airflow 3.3.2 for 0.4 s,
#: 2026-11-25).
_ANSWERS_AT_ONCE = 5
#: The largest number of single questions at the same time, and in one round. Other questions wait for the next round.
_CONCURRENT_GETS = 8
_GETS_A_ROUND = 200
#: For this number of missing jobs, one page of ended jobs may be read. With more pages, single questions would cost as
#: little.
_JOBS_WORTH_A_PAGE = 10
#: The longest time, in seconds, for which questions are collected.
_MAX_GATHER_SECONDS = 2.0
#: Jobs for which a poller remembers whether lists show them. A forgotten job costs one more question.
_MAX_KNOWN = 20_000
#: Lists show only jobs that this package made. Other jobs are asked for singly.
_OURS = f"labels.{IDENTITY_LABEL}:*"
_STATES = [state for state in JobState if state is not JobState.UNSPECIFIED]


def _in_states(states: list[JobState]) -> str:
    return " OR ".join(f'state="{state}"' for state in states)


#: Filter for jobs that have not ended. Ended jobs stay in the list for ever and would make every answer longer.
_RUNNING = f"{_OURS} AND ({_in_states([state for state in _STATES if not state.is_final])})"
_ENDED = f"{_OURS} AND ({_in_states([state for state in _STATES if state.is_final])})"
#: How long jobs took in this process, from all pollers.
durations = cadence.Durations()
#: When each kind of unexpected error was last logged. There are at most as many kinds as lines of code that may raise.
_told: dict[tuple[str, str, int], float] = {}


class _Question:
    """A question about one job, and who asked it.

    :param asked: when, in seconds of the event loop's clock.
    """

    def __init__(self, name: JobName, interval: float, asked: float) -> None:
        self.name, self.interval, self.asked = name, interval, asked
        self.futures: list[asyncio.Future[BatchJob]] = []

    @property
    def is_open(self) -> bool:
        """Whether anybody still waits for the answer."""
        return any(not future.done() for future in self.futures)

    def answer(self, job: BatchJob) -> None:
        for future in self.futures:
            if not future.done():
                future.set_result(job)

    def fail(self, error: ServiceError) -> None:
        for future in self.futures:
            if not future.done():
                future.set_exception(error)


class SharedPoller:
    """The poller. Get it with `shared_poller`."""

    def __init__(self, connect: Callable[[], Awaitable[AsyncVertexClient]]) -> None:
        self._connect, self._opening = connect, asyncio.Lock()
        self._client: AsyncVertexClient | None = None
        #: How often connecting was given up, and the reason of the last time.
        self._failures = 0
        self._failure: tuple[Exception, TracebackType | None] | None = None
        self._loop = asyncio.get_running_loop()
        self._wanted: dict[str, _Question] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._round: asyncio.Task[None] | None = None
        #: When the last round of many calls was over. The next round waits for an interval, so that waiters then ask
        #: together.
        self._busy_until = -math.inf
        #: How many calls the last list of running jobs took, and the list queries that the service refuses.
        self._pages, self._refused_lists = 0, set[str]()
        #: When each job was created, or None if lists do not show it.
        self._known: dict[str, datetime | None] = {}
        self._silent_until, self._refusals = -math.inf, 0
        self._refusal: ServiceError | None = None
        self.waiters = 0

    async def open(self) -> None:
        """Connect, unless another waiter has connected. After a temporary error, try again for `_CONNECT_SECONDS`."""
        failures = self._failures
        async with self._opening:
            if self._client is not None:
                return
            if self._failure is not None and self._failures > failures:
                # Connecting failed while this waiter waited for its turn. Use that result: two thousand waiters must
                # not try one by one.
                error, raised_at = self._failure
                raise error.with_traceback(raised_at)
            try:
                self._client = await self._connected()
            except Exception as error:
                self._failures, self._failure = self._failures + 1, (error, error.__traceback__)
                raise

    async def _connected(self) -> AsyncVertexClient:
        from tenacity import AsyncRetrying, retry_if_exception, stop_before_delay, wait_exponential, wait_random

        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_is_temporary),
            stop=stop_before_delay(_CONNECT_SECONDS),
            wait=wait_exponential(multiplier=0.5, max=30) + wait_random(0, 0.5),
            reraise=True,
        ):
            with attempt:
                return await (await self._connect()).__aenter__()
        raise AssertionError  # pragma: no cover - `reraise` ends the loop

    async def close(self) -> None:
        """Stop asking and release the connection."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self._round is not None:
                self._round.cancel()
                await asyncio.wait([self._round])
        finally:
            if self._client is not None:
                await self._client.__aexit__(None, None, None)

    async def job(self, name: JobName, interval: float) -> BatchJob:
        """Return one job.

        :param interval: seconds between two questions of this waiter.
        :raises ServiceError: when the service could not be asked, or refused.
        """
        if (refusal := self._still_refused()) is not None:
            raise refusal
        question = self._wanted.setdefault(str(name), _Question(name, interval, self._loop.time()))
        question.interval = min(question.interval, interval)
        future: asyncio.Future[BatchJob] = self._loop.create_future()
        question.futures.append(future)
        self._begin_at(self._due(question))
        return await future

    async def cancel(self, name: JobName) -> bool:
        """Cancel one job now."""
        return await self._service.cancel(name)

    @property
    def _service(self) -> AsyncVertexClient:
        if self._client is None:
            raise RuntimeError("a poller is used as `async with shared_poller(...)`")
        return self._client

    # When to ask ------------------------------------------------------------------------------------------------------

    def _due(self, question: _Question) -> float:
        gather = min(question.interval / 10, _MAX_GATHER_SECONDS)
        return max(question.asked, self._busy_until + question.interval) + gather

    def _begin_at(self, when: float) -> None:
        if self._round is not None or (self._timer is not None and self._timer.when() <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        # In a new context: otherwise the log lines of all rounds go to the log of the task that came first.
        self._timer = self._loop.call_at(when, self._begin, context=contextvars.Context())

    def _begin(self) -> None:
        self._timer = None
        self._round = self._loop.create_task(self._ask_all())

    async def _ask_all(self) -> None:
        wanted, self._wanted = self._wanted, {}
        wanted = {name: question for name, question in wanted.items() if question.is_open}
        try:
            await self._ask(wanted)
        except ServiceError as error:
            self._fail(wanted, self._pause_after(error))
        except Exception as error:  # noqa: BLE001 - whatever it was, the waiters must hear of it
            _tell(error)
            self._fail(wanted, ServiceError(f"Polling failed: {type(error).__name__}", status=0))
        self._round = None
        if len(wanted) > _FEW_JOBS:
            self._busy_until = self._loop.time()
        if self._wanted:
            self._begin_at(min(map(self._due, self._wanted.values())))

    def _fail(self, wanted: dict[str, _Question], error: ServiceError) -> None:
        for name, question in wanted.items():
            if self._wanted.get(name) is not question:
                question.fail(error)

    # Refusals ---------------------------------------------------------------------------------------------------------

    def _pause_after(self, error: ServiceError) -> ServiceError:
        """Make no calls for as long as an error asks for. Several calls at the same time may get the same refusal."""
        now = self._loop.time()
        is_known = now < self._silent_until
        if seconds := cadence.pause_seconds(error, self._refusals - is_known):
            self._refusals += not is_known
            self._silent_until, self._refusal = max(self._silent_until, now + seconds), error
        return error

    def _still_refused(self) -> ServiceError | None:
        left = self._silent_until - self._loop.time()
        if self._refusal is None or left <= 0:
            return None
        known = self._refusal
        return ServiceError(
            known.what, status=known.status, reason=known.reason, retry_after=left, why=known.why, todo=known.todo
        )

    # Asking -----------------------------------------------------------------------------------------------------------

    async def _ask(self, left: dict[str, _Question]) -> None:
        left = dict(left)
        listed = len(left) > max(_FEW_JOBS, self._pages) and await self._list_running(left)
        if listed:
            await self._list_ended(left)
        now, later = list(left.values())[:_GETS_A_ROUND], list(left.values())[_GETS_A_ROUND:]
        self._put_back(later)
        limit = asyncio.Semaphore(_CONCURRENT_GETS)
        await asyncio.gather(*(self._get(question, limit, listed=listed) for question in now))

    async def _list_running(self, left: dict[str, _Question]) -> bool:
        """Answer the questions about running jobs; return whether they could be listed."""
        self._pages = await self._list(_RUNNING, left, math.inf)
        return _RUNNING not in self._refused_lists

    async def _list_ended(self, left: dict[str, _Question]) -> None:
        """Answer the questions about jobs that ended since the last round, if that takes fewer calls than single
        questions.
        """
        unknown = sum(name not in self._known for name in left)
        created = [when for name in left if (when := self._known.get(name)) is not None]
        if pages := (unknown + len(created)) // _JOBS_WORTH_A_PAGE:
            # For a job that was never seen, it is not known how far back to look.
            bound = "" if unknown else f' AND create_time>="{min(created).astimezone(UTC).isoformat()}"'
            await self._list(_ENDED, left, pages, bound)

    async def _list(self, query: str, left: dict[str, _Question], pages: float, bound: str = "") -> int:
        """Answer the questions about the jobs in a list, and remove them from `left`; return how many
        pages that took.
        """
        read = 0
        if query in self._refused_lists:
            return read
        try:
            async with contextlib.aclosing(self._service.pages(query + bound)) as answers:
                async for page in answers:
                    read += 1
                    await self._take(page, left)
                    if read >= pages or not left:
                        break
        except ServiceError as error:
            if error.status != 400:  # noqa: PLR2004
                raise
            # The label filter is documented for all resources, but no source shows it for this one. If it is refused,
            # ask singly.
            self._refused_lists.add(query)
        return read

    async def _take(self, page: list[BatchJob], left: dict[str, _Question]) -> None:
        for number, job in enumerate(page, start=1):
            if (question := left.pop(job.name, None)) is not None:
                self._know(job, job.created_at)
                self._answer(question, job)
            if not number % _ANSWERS_AT_ONCE:
                await asyncio.sleep(0)

    async def _get(self, question: _Question, limit: asyncio.Semaphore, *, listed: bool) -> None:
        async with limit:
            if (error := self._still_refused()) is None:
                try:
                    job = await self._service.get(question.name)
                except ServiceError as caught:
                    error = self._pause_after(caught)
                else:
                    if listed:
                        self._know(job, None)
                    self._answer(question, job)
                    return
            question.fail(error)

    def _put_back(self, later: list[_Question]) -> None:
        """Keep questions for the next round, before those that came meanwhile, and begin that round soon."""
        came, self._wanted = self._wanted, {str(question.name): question for question in later}
        for question in later:
            question.interval = min(question.interval, cadence.QUICKEST_SECONDS)
        for name, question in came.items():
            self._wanted.setdefault(name, question)
            if (kept := self._wanted[name]) is not question:
                kept.futures += question.futures

    def _answer(self, question: _Question, job: BatchJob) -> None:
        self._refusals = 0
        durations.note(job)
        question.answer(job)

    def _know(self, job: BatchJob, created: datetime | None) -> None:
        self._known.pop(job.name, None)
        if not job.state.is_final:
            self._known[job.name] = created
            if len(self._known) > _MAX_KNOWN:
                del self._known[next(iter(self._known))]


def _is_temporary(error: BaseException) -> bool:
    if isinstance(error, VertexBatchError):
        return error.retryable
    return isinstance(error, Exception) and not isinstance(error, _MISTAKES)


def _tell(error: Exception) -> None:
    """Log where an unexpected error came from, each kind only once in a while. Its message is not logged, because it
    may contain a secret.
    """
    frames = traceback.extract_tb(error.__traceback__)
    kind, now = (type(error).__qualname__, frames[-1].filename, frames[-1].lineno or 0), time.monotonic()
    if now - _told.get(kind, -math.inf) >= _TELL_AGAIN_SECONDS:
        _told[kind] = now
        log.error("Polling failed: %s\n%s", kind[0], "".join(traceback.format_list(frames)))
