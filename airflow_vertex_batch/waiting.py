"""How does a task wait for jobs? In the triggerer, or in the worker: one set of parameters for all that wait."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.base import VertexBatchBaseOperator
from airflow_vertex_batch.compat import own, still_owns, was_ended_by_a_person
from airflow_vertex_batch.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from airflow.sdk import Context

    from airflow_vertex_batch.core.address import JobName
    from airflow_vertex_batch.core.lifecycle import Outcome, WaitPolicy, Warn
    from airflow_vertex_batch.core.model import BatchJob
    from airflow_vertex_batch.core.queue import QueuePolicy

#: Queue (72 h), run (24 h) and an hour of slack: see `core.lifecycle`, which this repeats so that a DAG file need not
#: load it.
_DEFAULT_JOB_TIMEOUT = timedelta(hours=97)
#: A third of what the service lets a job queue: later than most nights need, early enough to do something about it.
_DEFAULT_QUEUE_WARNING = timedelta(hours=24)
#: XCom key of what the UI shows of jobs that queue for long.
QUEUE_WARNING_KEY = "queue_warning"


class WaitingOperator(VertexBatchBaseOperator):
    """Base of what waits for jobs.

    :param deferrable: wait in the triggerer, without a worker slot (default); otherwise the worker waits.
    :param poll_interval: seconds between two questions about one job, a number or a timedelta. Where not given, it
        follows the job: 15 seconds at first, a tenth of its running time or a fifth of its queueing time later, quick
        again near the time that such jobs usually ran, and never above 5 minutes.
    :param job_timeout: how long after its *creation* a job counts as late, seconds or a timedelta; 97 hours, what the
        service itself allows a job, where not given. A retry does not begin anew.
    :param on_timeout: what becomes of a late job: ``cancel`` (default) cancels it and fails this attempt; the next one
        waits until it has ended, lands what it answered, and sends only the rest. ``fail`` leaves it running; each
        further attempt looks once. ``keep`` says so in the log and goes on waiting, for as long as the service lets a
        job be: 97 hours from its creation, or `job_timeout` if that is more; then as ``fail``.
    :param queue_warning: how long after its *creation* a job that still waits for its turn is worth a warning in the
        log and an XCom ``queue_warning`` in the UI, seconds or a timedelta; 24 hours where not given, None for never.
        It is said once an attempt.
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
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable
        self.poll_interval = None if poll_interval is None else seconds(poll_interval)
        self.job_timeout = seconds(job_timeout)
        self.queue_warning = None if queue_warning is None else seconds(queue_warning)
        self.on_timeout, self.cancel_on_kill = on_timeout, cancel_on_kill
        #: What a worker is waiting for, for `on_kill`.
        self._waited_for: tuple[JobName, ...] = ()
        #: Each job as it was last seen by this process.
        self._latest: dict[str, BatchJob] = {}
        if on_timeout not in {"cancel", "fail", "keep"}:
            raise InputError(f"on_timeout={on_timeout!r} is not known", todo="Use 'cancel', 'fail' or 'keep'")
        given = (self.job_timeout, self.poll_interval, self.queue_warning)
        if min(value for value in given if value is not None) <= 0:
            raise InputError("poll_interval, job_timeout and queue_warning must be above zero seconds")

    def ended(
        self,
        names: Sequence[JobName],
        *,
        began: float | None = None,
        warn: Callable[[Warn], None] = lambda _warning: None,
    ) -> list[Outcome]:
        """Return the outcomes of the jobs that need no more waiting: each flow is driven until it would sleep.

        :param began: when this attempt began to wait, where that was in another process; seconds since the epoch.
        :param warn: told of warnings; by default whoever waits after this look says them.
        """
        from airflow_vertex_batch.core.lifecycle import drive_once, watch

        hook = self.hook() if names else None
        found = [
            drive_once(watch(name, self._policy(), began=began), hook.jobs(name), seen=self._seen, warn=warn)
            for name in names
            if hook
        ]
        return [outcome for outcome in found if outcome is not None]

    def wait(self, context: Context, jobs: Sequence[BatchJob], said: Collection[str], **kept: Any) -> list[Outcome]:
        """Leave the worker, and go on in `execute_complete`; or wait here and return the outcomes.

        :param said: names of the jobs whose `queue_warning` was said.
        :param kept: further arguments that `execute_complete` is to get beside the event.
        """
        limits = self._queue_policy().limits(jobs, said)
        attempt = own(context["ti"])
        if self.deferrable:
            self._wait_in_triggerer(jobs, limits, attempt, said=sorted(said), **kept)
        return self._block(jobs, limits)

    def _wait_in_triggerer(self, jobs: Sequence[BatchJob], limits: dict[str, float], attempt: str, **kept: Any) -> None:
        from airflow_vertex_batch.triggers import VertexBatchJobTrigger

        arguments = self.trigger_arguments([job.name for job in jobs], limits)
        trigger = VertexBatchJobTrigger(**arguments, attempt=attempt)
        self.defer(trigger=trigger, method_name="execute_complete", kwargs=kept)

    def _block(self, jobs: Sequence[BatchJob], limits: dict[str, float]) -> list[Outcome]:
        from airflow_vertex_batch.core.lifecycle import drive, watch

        hook, self._waited_for = self.hook(), tuple(job.job_name for job in jobs)
        policies = [(name, self._policy(limits.get(str(name)))) for name in self._waited_for]
        outcomes = drive(*((watch(name, policy), hook.jobs(name)) for name, policy in policies), seen=self._seen)
        self._waited_for = ()
        return outcomes

    def say_queued(
        self, context: Context, jobs: Sequence[BatchJob], said: Collection[str], *, only_new: float | None = None
    ) -> set[str]:
        """Warn of jobs that have waited for their turn for too long, in the log and by XCom; return whose warning has
        been said now.

        :param only_new: leave out of the log what has been so for more than so many seconds.
        """
        from airflow_vertex_batch.core.queue import left, warning_facts, warning_text

        now = time.time()
        if overdue := self._queue_policy().overdue(jobs, said, now):
            context["ti"].xcom_push(QUEUE_WARNING_KEY, warning_facts(overdue, now))
        for job in overdue:
            if only_new is None or -left(job, self.queue_warning, now) < only_new:
                self.log.warning("%s.", warning_text(job, now))
        return {*said, *(job.name for job in overdue)}

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

    def on_kill(self) -> None:
        """Cancel the jobs if a person ended the task while a worker was waiting, and they are still its own."""
        from airflow.sdk import get_current_context

        if not self._waited_for or not self.cancel_on_kill:
            return
        ti = get_current_context()["ti"]
        if was_ended_by_a_person(ti) and still_owns(ti, str(ti.id)):
            for name in self._waited_for:
                self.hook().jobs(name).cancel(name)
                self.log.info("Cancelled %s: its task was ended by hand.", name)

    def _queue_policy(self) -> QueuePolicy:
        from airflow_vertex_batch.core.queue import QueuePolicy

        return QueuePolicy(warning=self.queue_warning)

    def _policy(self, queue_limit: float | None = None) -> WaitPolicy:
        from airflow_vertex_batch.core.lifecycle import OnTimeout, WaitPolicy

        return WaitPolicy(
            poll_interval=self.poll_interval,
            timeout=self.job_timeout,
            on_timeout=OnTimeout(self.on_timeout),
            queue_limit=queue_limit,
        )

    def _seen(self, job: BatchJob) -> None:
        self._latest[job.name] = job
        self.log.info("%s %s", job.name, job.progress)


def seconds(value: float | timedelta) -> float:
    """Return a duration in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else float(value)
