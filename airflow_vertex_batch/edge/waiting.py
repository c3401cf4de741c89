"""How does a task wait for jobs? In the triggerer, or in the worker: one set of parameters for all that wait.

Invariant: no wait outlasts its attempt's time, which begins with the attempt, or with the answer of a person who had to
be asked.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_vertex_batch.core.domain.durations import seconds
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.edge.answering import AnsweringOperator
from airflow_vertex_batch.edge.compat import default_deferrable, own, still_owns, token_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Literal

    from airflow.sdk import Context

    from airflow_vertex_batch.core.domain.address import JobName
    from airflow_vertex_batch.core.domain.job import BatchJob
    from airflow_vertex_batch.core.purchase.place import Place
    from airflow_vertex_batch.core.waiting.drive import Asks
    from airflow_vertex_batch.core.waiting.queue import QueuePolicy
    from airflow_vertex_batch.core.waiting.watch import Limit, Outcome, WaitPolicy, Warn
    from airflow_vertex_batch.parameters import Duration

#: As Airflow's own operators read it: once, when they are loaded.
DEFAULT_DEFERRABLE = default_deferrable(
    os.environ, configured=bool(conf.getboolean("operators", "default_deferrable", fallback=False))
)
#: Queue (72 h), run (24 h) and an hour of slack: see `core.waiting.watch`, which this repeats so that a DAG file need
#: not load it.
_DEFAULT_JOB_TIMEOUT = timedelta(hours=97)
#: A third of what the service lets a job queue: later than most nights need, early enough to do something about it.
_DEFAULT_QUEUE_WARNING = timedelta(hours=24)
#: XCom key of what the UI shows of jobs that queue for long.
QUEUE_WARNING_KEY = "queue_warning"


class WaitingOperator(AnsweringOperator):
    """Base of what waits for jobs.

    Airflow's `execution_timeout` bounds an attempt's wait, deferred or not; Airflow itself applies it to workers only.
    `on_timeout` says what becomes of the jobs then, and the next attempt has the whole time again. While a person is
    asked (`on_over_budget="ask"`) it does not count: the whole time begins with the answer.

    :param deferrable: wait in the triggerer, without a worker slot (default); otherwise the worker waits. Where not
        given, the environment variable ``AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE`` may say False. Airflow's own False in
        ``airflow.cfg`` says nothing.
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
        or a timedelta: it is cancelled and, once it has ended without a row, its requests are bought at the next place
        of `elsewhere`, where the time begins anew. A job that begins in the meantime is kept. In the task group the
        sensor cancels, and `repair` buys. When all places were tried, it waits. Never where not given; the service
        itself ends the queue after 72 hours.
    :param elsewhere: places for a job that waited for `queue_timeout`, tried in order, once each: ``[{"location":
        "global"}, {"model": "gemini-3.5-flash-lite"}]``; what a place leaves out is the task's own. With
        `max_cost_usd`, a dearer model is passed over when its estimate is above the limit, and in repair rounds always.
    :param cancel_on_kill: cancel the jobs when a person marks this task failed, successful or skipped (default); never
        on a clear, a restart or a takeover.
    """

    def __init__(
        self,
        *,
        deferrable: bool = DEFAULT_DEFERRABLE,
        poll_interval: Duration | None = None,
        job_timeout: Duration = _DEFAULT_JOB_TIMEOUT,
        on_timeout: Literal["cancel", "fail", "keep"] = "cancel",
        queue_warning: Duration | None = _DEFAULT_QUEUE_WARNING,
        queue_timeout: Duration | None = None,
        elsewhere: Sequence[Mapping[str, str]] | None = None,
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable
        self.poll_interval = None if poll_interval is None else seconds(poll_interval, "poll_interval")
        self.job_timeout = seconds(job_timeout, "job_timeout", is_limit=True)
        self.queue_warning, self.queue_timeout = (
            None if value is None else seconds(value, name, is_limit=True)
            for name, value in (("queue_warning", queue_warning), ("queue_timeout", queue_timeout))
        )
        self.elsewhere = elsewhere
        self.on_timeout, self.cancel_on_kill = on_timeout, cancel_on_kill
        #: When the time of this attempt began, seconds since the epoch, where that was not its start.
        self.counts_from: float | None = None
        if on_timeout not in {"cancel", "fail", "keep"}:
            raise InputError(f"on_timeout={on_timeout!r} is not known", todo="Use 'cancel', 'fail' or 'keep'")
        if self.elsewhere is not None or self.queue_timeout is not None:
            from airflow_vertex_batch.core.purchase.place import check_moves

            check_moves(self.elsewhere, self.places(), self.queue_timeout)
            self.insist("staging_uri")

    @property
    def moves(self) -> bool:
        """Whether a job that queues for too long is bought elsewhere."""
        return bool(self.places())

    def places(self) -> tuple[Place, ...]:
        """Return the places to move to, the best first."""
        from airflow_vertex_batch.core.purchase.place import read_places

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
        from airflow_vertex_batch.core.waiting.drive import drive_once
        from airflow_vertex_batch.core.waiting.watch import watch

        if not names:
            return []
        hook, ti, policy = self.hook(), context["ti"], self._policy(context)
        own(ti)
        flows = [(name, watch(name, policy, began=began)) for name in names]
        found = [drive_once(flow, Fenced(hook.jobs(name), ti), seen=self._seen, warn=warn) for name, flow in flows]
        return [outcome for outcome in found if outcome is not None]

    def wait(self, context: Context, jobs: Sequence[BatchJob], limits: dict[str, float], **kept: Any) -> list[Outcome]:
        """Leave the worker, and go on in `execute_complete`; or wait here and return the outcomes.

        Whoever calls it owns the jobs by now: it bought them (`BuyingOperator.buyer`), or has asked for them (`ended`).

        :param limits: after how many seconds from its creation each job needs somebody while it queues.
        :param kept: further arguments that `execute_complete` is to get beside the event.
        """
        if self.deferrable:
            self._wait_in_triggerer(context, jobs, limits, **kept)
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
        from airflow_vertex_batch.core.waiting.drive import drive
        from airflow_vertex_batch.core.waiting.watch import watch

        hook, ti, names = self.hook(), context["ti"], [job.job_name for job in jobs]
        flows = [(name, watch(name, self._policy(context, limits.get(str(name))))) for name in names]
        return drive(*((flow, Fenced(hook.jobs(name), ti)) for name, flow in flows), seen=self._seen)

    @property
    def left_because(self) -> str:
        """Why a job is left running."""
        return f"on_timeout={self.on_timeout!r}"

    def show_overdue(self, context: Context, overdue: Sequence[BatchJob]) -> None:
        """Let the UI show jobs that have queued for long."""
        from airflow_vertex_batch.core.waiting.queue import warning_facts

        if overdue:
            context["ti"].xcom_push(QUEUE_WARNING_KEY, warning_facts(list(overdue), time.time()))

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
        from airflow_vertex_batch.core.waiting.queue import QueuePolicy

        return QueuePolicy(warning=self.queue_warning, timeout=self.queue_timeout)

    def limit(self, context: Context) -> Limit | None:
        """Return when this attempt must stop waiting, whatever its jobs do."""
        from airflow_vertex_batch.core.waiting.watch import Limit, LimitName

        if self.execution_timeout is None:
            return None
        return Limit(self.began(context) + self.execution_timeout.total_seconds(), LimitName.EXECUTION_TIMEOUT)

    def began(self, context: Context) -> float:
        """Return when the time of this attempt began, seconds since the epoch.

        Airflow keeps the start of an attempt over its deferrals, and over the hours in which a person is asked.
        """
        return self.counts_from or float(context["ti"].start_date.timestamp())

    def _policy(self, context: Context, queue_limit: float | None = None) -> WaitPolicy:
        from airflow_vertex_batch.core.waiting.watch import OnTimeout, WaitPolicy

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
