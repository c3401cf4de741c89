"""How does a task wait for jobs? In the triggerer or in the worker. All tasks that wait have the same parameters.

Invariant: no wait is longer than the time of its attempt. This time begins with the attempt or, if a person was asked,
with the answer.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_vertex_batch.core.domain.durations import seconds
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.edge.compat import default_deferrable, still_owns, take_ownership, token_of
from airflow_vertex_batch.edge.responsible import ResponsibleOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Literal

    from airflow.sdk import Context

    from airflow_vertex_batch.core.domain.address import JobName
    from airflow_vertex_batch.core.domain.job import BatchJob
    from airflow_vertex_batch.core.purchase.place import Place
    from airflow_vertex_batch.core.waiting.drive import JobCalls
    from airflow_vertex_batch.core.waiting.queue import QueuePolicy
    from airflow_vertex_batch.core.waiting.watch import Limit, Outcome, WaitPolicy, Warn
    from airflow_vertex_batch.parameters import Duration

#: Read once, when this module is loaded, as Airflow's own operators do.
DEFAULT_DEFERRABLE = default_deferrable(
    os.environ, configured=bool(conf.getboolean("operators", "default_deferrable", fallback=False))
)
#: Queue (72 h), run (24 h) and one hour more: the same value as in `core.waiting.watch`. It is repeated here so that a
#: DAG file need not load that module.
_DEFAULT_JOB_TIMEOUT = timedelta(hours=97)
#: A third of the time that the service lets a job queue. Most jobs begin before it; and it is early enough to act.
_DEFAULT_QUEUE_WARNING = timedelta(hours=24)
#: XCom key of the jobs that queue for long, for the UI.
QUEUE_WARNING_KEY = "queue_warning"


class WaitingOperator(ResponsibleOperator):
    """Base of operators that wait for jobs.

    Airflow's `execution_timeout` limits the wait of an attempt, deferred or not. (Airflow itself applies it only to
    workers.) When it is over, `on_timeout` says what happens to the jobs, and the next attempt has the whole time
    again. The time while a person is asked (`on_over_budget="ask"`) does not count: the whole time begins with the
    answer.

    :param deferrable: True (default): wait in the triggerer, without a worker slot. False: the worker waits. If not
        given, the environment variable ``AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE`` may set it to False. A False in
        ``airflow.cfg`` has no effect, because it is Airflow's own default.
    :param poll_interval: seconds between two questions about one job, a number or a timedelta. If not given, the
        interval adapts to the job: 15 seconds at first; later a tenth of its running time or a fifth of its queueing
        time; short again near the time that such jobs usually take; never more than 5 minutes.
    :param job_timeout: how long after its *creation* a job counts as late, seconds or a timedelta. If not given, 97
        hours, which the service itself allows a job. The time does not begin again with a retry.
    :param on_timeout: what to do with a late job, or with a job that still runs when `execution_timeout` is over (then
        ``keep`` means ``fail``). ``cancel`` (default) cancels the job and fails this attempt; the next attempt waits
        until the job has ended, lands the rows that it answered, and sends only the rest. ``fail`` fails this attempt
        and lets the job run; each further attempt looks once. ``keep`` writes a warning to the log and goes on waiting
        for as long as the service allows a job: 97 hours from its creation, or `job_timeout` if that is more; after
        that it means ``fail``.
    :param queue_warning: how long after its *creation* a job may queue before there is a warning in the log and an XCom
        ``queue_warning`` in the UI, seconds or a timedelta; 24 hours if not given, None for never. There is one warning
        for each attempt.
    :param queue_timeout: how long after its *creation* a job may queue, seconds or a timedelta; no limit if not given.
        After that the job is cancelled. When it has ended without a row, its requests are bought at the next place of
        `elsewhere`, where the time begins again. A job that begins to run in the meantime is kept. In the task group
        the sensor cancels, and `repair` buys. At the last place the job waits as usual. The service itself ends the
        queue after 72 hours.
    :param elsewhere: places for a job that queued for `queue_timeout`, tried in order, once each: ``[{"location":
        "global"}, {"model": "gemini-3.5-flash-lite"}]``. A location or model that a place does not name is the task's
        own. With `max_cost_usd`, a place with a dearer model is skipped if its estimate is above the limit; in repair
        rounds it is always skipped.
    :param cancel_on_kill: cancel the jobs when a person marks this task failed, successful or skipped (default). A
        clear, a restart or a takeover never cancels them.
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
        #: When the time of this attempt began, seconds since the epoch, if it did not begin with the attempt.
        self.counts_from: float | None = None
        if on_timeout not in {"cancel", "fail", "keep"}:
            raise InputError(f"on_timeout={on_timeout!r} is not known", todo="Use 'cancel', 'fail' or 'keep'")
        if self.elsewhere is not None or self.queue_timeout is not None:
            from airflow_vertex_batch.core.purchase.place import check_moves

            check_moves(self.elsewhere, self.places(), self.queue_timeout)
            self.require("staging_uri")

    @property
    def moves(self) -> bool:
        """Whether a job that queues for too long is bought elsewhere."""
        return bool(self.places())

    def places(self) -> tuple[Place, ...]:
        """Return the places to which a job may move, the best first."""
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
        """Take ownership of the jobs, and return the outcomes of those that need no more waiting. Each flow runs until
        it would sleep.

        :param began: when this attempt began to wait, if it began in another process; seconds since the epoch.
        :param warn: is called with each warning. Without it, the wait that follows gives the warnings.
        """
        from airflow_vertex_batch.core.waiting.drive import drive_once
        from airflow_vertex_batch.core.waiting.watch import watch

        if not names:
            return []
        hook, ti, policy = self.hook(), context["ti"], self._policy(context)
        take_ownership(ti)
        flows = [(name, watch(name, policy, began=began)) for name in names]
        found = [
            drive_once(flow, CancelIfOwner(hook.jobs(name), ti), on_answer=self._seen, warn=warn)
            for name, flow in flows
        ]
        return [outcome for outcome in found if outcome is not None]

    def wait(self, context: Context, jobs: Sequence[BatchJob], limits: dict[str, float], **kept: Any) -> list[Outcome]:
        """Defer, and go on in `execute_complete`; or wait here and return the outcomes.

        The caller already owns the jobs: it bought them (`BuyingOperator.buyer`), or has asked for them (`ended`).

        :param limits: for each job, the seconds from its creation after which it needs attention if it still queues.
        :param kept: further arguments for `execute_complete`, besides the event.
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
        return drive(*((flow, CancelIfOwner(hook.jobs(name), ti)) for name, flow in flows), on_answer=self._seen)

    @property
    def left_because(self) -> str:
        """Return why a job is left running."""
        return f"on_timeout={self.on_timeout!r}"

    def show_overdue(self, context: Context, overdue: Sequence[BatchJob]) -> None:
        """Store an XCom with the jobs that have queued for long, for the UI."""
        from airflow_vertex_batch.core.waiting.queue import warning_facts

        if overdue:
            context["ti"].xcom_push(QUEUE_WARNING_KEY, warning_facts(list(overdue), time.time()))

    def trigger_arguments(self, jobs: Any, queue_limit: float | dict[str, float] | None) -> dict[str, Any]:
        """Return the arguments of the trigger."""
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
        """Return when to warn about queued jobs, and when to move them."""
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

        Airflow keeps the start time of an attempt during its deferrals and while a person is asked.
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


class CancelIfOwner:
    """A job service that cancels only while an attempt owns the jobs: a worker that stalled may have been replaced."""

    def __init__(self, service: JobCalls, ti: Any) -> None:
        self._service, self._ti = service, ti

    def get(self, name: JobName) -> BatchJob:
        """Return one job."""
        return self._service.get(name)

    def cancel(self, name: JobName) -> bool:
        """Cancel one job, if this attempt still owns it."""
        return still_owns(self._ti, token_of(self._ti)) and self._service.cancel(name)
