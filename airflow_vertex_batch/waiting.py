"""How does a task wait for jobs? In the triggerer, or in the worker: one set of parameters for all that wait.

Invariant: no wait outlasts its attempt's time, which begins with the attempt, or with the answer of a person who had to
be asked.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.answering import AnsweringOperator
from airflow_vertex_batch.compat import own, still_owns, token_of
from airflow_vertex_batch.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.sdk import Context

    from airflow_vertex_batch.core.address import JobName
    from airflow_vertex_batch.core.drive import Asks
    from airflow_vertex_batch.core.lifecycle import Limit, Outcome, WaitPolicy, Warn
    from airflow_vertex_batch.core.model import BatchJob
    from airflow_vertex_batch.core.place import Place
    from airflow_vertex_batch.core.queue import QueuePolicy, Told

#: Queue (72 h), run (24 h) and an hour of slack: see `core.lifecycle`, which this repeats so that a DAG file need not
#: load it.
_DEFAULT_JOB_TIMEOUT = timedelta(hours=97)
#: A third of what the service lets a job queue: later than most nights need, early enough to do something about it.
_DEFAULT_QUEUE_WARNING = timedelta(hours=24)
_ON_QUEUE_TIMEOUT = ("wait", "resubmit_elsewhere")
#: XCom key of what the UI shows of jobs that queue for long.
QUEUE_WARNING_KEY = "queue_warning"


class WaitingOperator(AnsweringOperator):
    """Base of what waits for jobs.

    Airflow's `execution_timeout` bounds an attempt's wait, deferred or not; Airflow itself applies it to workers only.
    `on_timeout` says what becomes of the jobs then, and the next attempt has the whole time again. While a person is
    asked (`on_over_budget="ask"`) it does not count: the whole time begins with the answer.

    :param deferrable: wait in the triggerer, without a worker slot (default); otherwise the worker waits.
    :param poll_interval: seconds between two questions about one job, a number or a timedelta. Where not given, it
        follows the job: 15 seconds at first, a tenth of its running time or a fifth of its queueing time later, quick
        again near the time that such jobs usually ran, and never above 5 minutes.
    :param job_timeout: how long after its *creation* a job counts as late, seconds or a timedelta; 97 hours, what the
        service itself allows a job, where not given. A retry does not begin anew.
    :param on_timeout: what becomes of a late job, and of one that runs when `execution_timeout` is over (where ``keep``
        is as ``fail``): ``cancel`` (default) cancels it and fails this attempt; the next one
        waits until it has ended, lands what it answered, and sends only the rest. ``fail`` leaves it running; each
        further attempt looks once. ``keep`` says so in the log and goes on waiting, for as long as the service lets a
        job be: 97 hours from its creation, or `job_timeout` if that is more; then as ``fail``.
    :param queue_warning: how long after its *creation* a job that still waits for its turn is worth a warning in the
        log and an XCom ``queue_warning`` in the UI, seconds or a timedelta; 24 hours where not given, None for never.
        It is said once an attempt.
    :param queue_timeout: how long after its *creation* a job that still waits for its turn has waited too long, seconds
        or a timedelta; never where not given. The service itself ends the queue after 72 hours.
    :param on_queue_timeout: what happens then: ``wait`` (default) says so in the log and goes on waiting;
        ``resubmit_elsewhere`` cancels the job and, once it has ended without a row, buys its requests at the next place
        of `elsewhere`, where the time begins anew. A job that begins in the meantime is kept. In the task group the
        sensor cancels, and `repair` buys. When all places were tried, it waits.
    :param elsewhere: places for ``resubmit_elsewhere``, tried in order, once each: ``[{"location": "global"},
        {"model": "gemini-3.5-flash-lite"}]``; what a place leaves out is the task's own. With `max_cost_usd`, a dearer
        model is passed over when its estimate is above the limit, and in repair rounds always.
    :param cancel_on_kill: cancel the jobs when a person marks this task failed, successful or skipped (default); never
        on a clear, a restart or a takeover.
    """

    def __init__(
        self,
        *,
        deferrable: bool = True,
        poll_interval: float | timedelta | None = None,
        job_timeout: float | timedelta = _DEFAULT_JOB_TIMEOUT,
        on_timeout: str = "cancel",
        queue_warning: float | timedelta | None = _DEFAULT_QUEUE_WARNING,
        queue_timeout: float | timedelta | None = None,
        on_queue_timeout: str = "wait",
        elsewhere: Sequence[Mapping[str, str]] | None = None,
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable
        self.poll_interval = None if poll_interval is None else seconds(poll_interval)
        self.job_timeout = seconds(job_timeout)
        self.queue_warning = None if queue_warning is None else seconds(queue_warning)
        self.queue_timeout = None if queue_timeout is None else seconds(queue_timeout)
        self.on_queue_timeout, self.elsewhere = on_queue_timeout, elsewhere
        self.on_timeout, self.cancel_on_kill = on_timeout, cancel_on_kill
        #: When the time of this attempt began, seconds since the epoch, where that was not its start.
        self.counts_from: float | None = None
        if on_timeout not in {"cancel", "fail", "keep"}:
            raise InputError(f"on_timeout={on_timeout!r} is not known", todo="Use 'cancel', 'fail' or 'keep'")
        given = (self.job_timeout, self.poll_interval, self.queue_warning, self.queue_timeout)
        if min(value for value in given if value is not None) <= 0:
            raise InputError("poll_interval, job_timeout, queue_warning and queue_timeout must be above zero seconds")
        self._check_elsewhere()

    def _check_elsewhere(self) -> None:
        """Refuse a choice that means nothing.

        :raises InputError: saying what to do.
        """
        if self.on_queue_timeout not in _ON_QUEUE_TIMEOUT:
            hint = f"Use {' or '.join(map(repr, _ON_QUEUE_TIMEOUT))}"
            raise InputError(f"on_queue_timeout={self.on_queue_timeout!r} is not known", todo=hint)
        if not self.moves:
            if self.elsewhere is not None:
                todo = "Set on_queue_timeout='resubmit_elsewhere' and queue_timeout, or leave elsewhere out"
                raise InputError("elsewhere is given, and on_queue_timeout='wait' uses no place", todo=todo)
            return
        if self.queue_timeout is None:
            todo = "Set queue_timeout, such as timedelta(hours=36)"
            raise InputError("on_queue_timeout='resubmit_elsewhere' without a queue_timeout never comes", todo=todo)
        if not self.places():
            todo = "Set elsewhere=[{'location': '…'}], or a model, or both"
            raise InputError("on_queue_timeout='resubmit_elsewhere' names no place to go to", todo=todo)

    @property
    def moves(self) -> bool:
        """Whether a job that queues for too long is bought elsewhere."""
        return self.on_queue_timeout == "resubmit_elsewhere"

    def places(self) -> tuple[Place, ...]:
        """Return the places to move to, the best first."""
        from airflow_vertex_batch.core.place import read_places

        return read_places(self.elsewhere or ())

    def ended(
        self,
        context: Context,
        names: Sequence[JobName],
        *,
        began: float | None = None,
        warn: Callable[[Warn], None] = lambda _warning: None,
    ) -> list[Outcome]:
        """Own the jobs, and return the outcomes of those that need no more waiting: each flow is driven until it would
        sleep.

        :param began: when this attempt began to wait, where that was in another process; seconds since the epoch.
        :param warn: told of warnings; by default whoever waits after this look says them.
        """
        from airflow_vertex_batch.core.drive import drive_once
        from airflow_vertex_batch.core.lifecycle import watch

        if not names:
            return []
        hook, ti, policy = self.hook(), context["ti"], self._policy(context)
        own(ti)
        flows = [(name, watch(name, policy, began=began)) for name in names]
        found = [drive_once(flow, Fenced(hook.jobs(name), ti), seen=self._seen, warn=warn) for name, flow in flows]
        return [outcome for outcome in found if outcome is not None]

    def wait(self, context: Context, jobs: Sequence[BatchJob], told: Told, **kept: Any) -> list[Outcome]:
        """Leave the worker, and go on in `execute_complete`; or wait here and return the outcomes.

        Whoever calls it owns the jobs by now: it bought them (`BuyingOperator.buyer`), or has asked for them (`ended`).

        :param told: what was seen to in this attempt.
        :param kept: further arguments that `execute_complete` is to get beside the event.
        """
        limits = self.queue_policy().limits(jobs, told)
        if self.deferrable:
            self._wait_in_triggerer(context, jobs, limits, told=told.as_dict(), **kept)
        return self._block(context, jobs, limits)

    def _wait_in_triggerer(
        self, context: Context, jobs: Sequence[BatchJob], limits: dict[str, float], **kept: Any
    ) -> None:
        from airflow_vertex_batch.triggers import VertexBatchJobTrigger

        arguments, limit = self.trigger_arguments([job.name for job in jobs], limits), self.limit(context)
        if limit is not None:
            arguments["limit"] = limit.as_dict()
            if limit.at < time.time() + self.job_timeout:
                until = datetime.fromtimestamp(limit.at, UTC).isoformat(timespec="seconds")
                self.log.info("%s ends this wait at %s; then on_timeout=%r.", limit.name, until, self.on_timeout)
        trigger = VertexBatchJobTrigger(**arguments, attempt=token_of(context["ti"]))
        self.defer(trigger=trigger, method_name="execute_complete", kwargs=kept)

    def _block(self, context: Context, jobs: Sequence[BatchJob], limits: dict[str, float]) -> list[Outcome]:
        from airflow_vertex_batch.core.drive import drive
        from airflow_vertex_batch.core.lifecycle import watch

        hook, ti, names = self.hook(), context["ti"], [job.job_name for job in jobs]
        flows = [(name, watch(name, self._policy(context, limits.get(str(name))))) for name in names]
        return drive(*((flow, Fenced(hook.jobs(name), ti)) for name, flow in flows), seen=self._seen)

    @property
    def left_because(self) -> str:
        """Why a job is left running."""
        return f"on_timeout={self.on_timeout!r}"

    def see_to_queue(
        self,
        context: Context,
        jobs: Sequence[BatchJob],
        told: Told,
        move: Callable[[BatchJob], Place | None],
        *,
        only_new: float | None = None,
    ) -> Told:
        """Warn of jobs that have queued for long, in the log and by XCom; give up those that have queued for too long.

        :param move: gives a job up and returns where its requests go, or None where it stays.
        :param only_new: leave out of the log what has been so for more than so many seconds.
        """
        from airflow_vertex_batch.core.queue import moved_text, stuck_text, warning_facts, warning_text

        policy, now = self.queue_policy(), time.time()
        overdue, stuck, moved = policy.overdue(jobs, told, now), list(told.stuck), list(told.moved)
        if overdue:
            context["ti"].xcom_push(QUEUE_WARNING_KEY, warning_facts(overdue, now))
        for job in overdue:
            self._say_if_new(warning_text(job, now), job, policy.warning, only_new)
        for job in policy.late(jobs, told, now):
            place = move(job) if self.moves else None
            if place is None:
                stuck.append(job.name)
                self._say_if_new(stuck_text(job, now), job, policy.timeout, only_new)
            else:
                moved.append(job.name)
                self.log.warning("%s.", moved_text(job, str(place) or "the task 'repair'", now))
        warned = (*told.warned, *(job.name for job in overdue))
        return msgspec.structs.replace(told, warned=warned, stuck=tuple(stuck), moved=tuple(moved))

    def _say_if_new(self, text: str, job: BatchJob, limit: float | None, only_new: float | None) -> None:
        from airflow_vertex_batch.core.queue import left

        if only_new is None or -left(job, limit, time.time()) < only_new:
            self.log.warning("%s.", text)

    def trigger_arguments(self, jobs: Any, queue_limit: float | dict[str, float] | None) -> dict[str, Any]:
        """Return what the trigger is made of."""
        return {
            "jobs": jobs,
            "gcp_conn_id": self.gcp_conn_id,
            "impersonation_chain": self.impersonation_chain,
            "poll_interval": self.poll_interval,
            "timeout": self.job_timeout,
            "on_timeout": self.on_timeout,
            "cancel_on_kill": self.cancel_on_kill,
            "queue_limit": queue_limit,
        }

    def queue_policy(self) -> QueuePolicy:
        """Return when to see to queued jobs."""
        from airflow_vertex_batch.core.queue import QueuePolicy

        return QueuePolicy(warning=self.queue_warning, timeout=self.queue_timeout)

    def limit(self, context: Context) -> Limit | None:
        """Return when this attempt must stop waiting, whatever its jobs do."""
        from airflow_vertex_batch.core.lifecycle import Limit, LimitName

        if self.execution_timeout is None:
            return None
        return Limit(self.began(context) + self.execution_timeout.total_seconds(), LimitName.EXECUTION_TIMEOUT)

    def began(self, context: Context) -> float:
        """Return when the time of this attempt began, seconds since the epoch.

        Airflow keeps the start of an attempt over its deferrals, and over the hours in which a person is asked.
        """
        return self.counts_from or float(context["ti"].start_date.timestamp())

    def _policy(self, context: Context, queue_limit: float | None = None) -> WaitPolicy:
        from airflow_vertex_batch.core.lifecycle import OnTimeout, WaitPolicy

        return WaitPolicy(
            poll_interval=self.poll_interval,
            timeout=self.job_timeout,
            on_timeout=OnTimeout(self.on_timeout),
            queue_limit=queue_limit,
            limit=self.limit(context),
        )

    def _seen(self, job: BatchJob) -> None:
        self.known.note(job)
        self.log.info("%s %s", job.name, job.progress)


class Fenced:
    """A service that cancels only while an attempt owns the jobs: a worker may have stalled, and been replaced."""

    def __init__(self, service: Asks, ti: Any) -> None:
        self._service, self._ti = service, ti

    def get(self, name: JobName) -> BatchJob:
        """Return one job."""
        return self._service.get(name)

    def cancel(self, name: JobName) -> bool:
        """Cancel one job, if it is still ours."""
        return still_owns(self._ti, token_of(self._ti)) and self._service.cancel(name)


def seconds(value: float | timedelta) -> float:
    """Return a duration in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else float(value)
