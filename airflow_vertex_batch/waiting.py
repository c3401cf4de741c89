"""How does a task wait for jobs? In the triggerer, or in the worker: one set of parameters for all that wait."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.base import VertexBatchBaseOperator
from airflow_vertex_batch.compat import own, still_owns, was_ended_by_a_person
from airflow_vertex_batch.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_vertex_batch.core.address import JobName
    from airflow_vertex_batch.core.lifecycle import Outcome, WaitPolicy
    from airflow_vertex_batch.core.model import BatchJob

#: Queue (72 h), run (24 h) and an hour of slack: see `core.lifecycle`, which this repeats so that a DAG file need not
#: load it.
_DEFAULT_JOB_TIMEOUT = timedelta(hours=97)


class WaitingOperator(VertexBatchBaseOperator):
    """Base of what waits for jobs.

    :param deferrable: wait in the triggerer, without a worker slot (default); otherwise the worker waits.
    :param poll_interval: seconds between two questions about one job, a number or a timedelta. Where not given, it
        follows the job: 15 seconds at first, a tenth of its running time or a fifth of its queueing time later, quick
        again near the time that such jobs usually ran, and never above 5 minutes.
    :param job_timeout: how long after its *creation* a job counts as late, seconds or a timedelta; 97 hours, what the
        service itself allows a job, where not given. A retry does not begin anew.
    :param on_timeout: ``cancel`` (default) a late job, or ``fail`` and leave it running.
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
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable
        self.poll_interval = None if poll_interval is None else seconds(poll_interval)
        self.job_timeout = seconds(job_timeout)
        self.on_timeout, self.cancel_on_kill = on_timeout, cancel_on_kill
        #: What a worker is waiting for, for `on_kill`.
        self._waited_for: tuple[JobName, ...] = ()
        if on_timeout not in {"cancel", "fail"}:
            raise InputError(f"on_timeout={on_timeout!r} is not known", todo="Use 'cancel' or 'fail'")
        if min(self.job_timeout, 1 if self.poll_interval is None else self.poll_interval) <= 0:
            raise InputError("poll_interval and job_timeout must be above zero seconds")

    def ended(self, names: Sequence[JobName]) -> list[Outcome]:
        """Return the outcomes of the jobs that need no more waiting: each flow is driven until it would sleep."""
        from airflow_vertex_batch.core.lifecycle import drive_once, watch

        hook = self.hook() if names else None
        found = [drive_once(watch(name, self._policy()), hook.jobs(name), seen=self._seen) for name in names if hook]
        return [outcome for outcome in found if outcome is not None]

    def block(self, context: Context, names: Sequence[JobName]) -> list[Outcome]:
        """Wait here until all jobs have ended, and return their outcomes."""
        from airflow_vertex_batch.core.lifecycle import drive, watch

        hook, self._waited_for = self.hook(), tuple(names)
        own(context["ti"])
        outcomes = [drive(watch(name, self._policy()), hook.jobs(name), seen=self._seen) for name in names]
        self._waited_for = ()
        return outcomes

    def wait_in_triggerer(self, context: Context, names: Sequence[JobName]) -> None:
        """Leave the worker; the triggerer waits, and the task goes on in `execute_complete`."""
        from airflow_vertex_batch.triggers import VertexBatchJobTrigger

        arguments = self.trigger_arguments([str(name) for name in names])
        trigger = VertexBatchJobTrigger(**arguments, attempt=own(context["ti"]))
        self.defer(trigger=trigger, method_name="execute_complete")

    def trigger_arguments(self, jobs: Any) -> dict[str, Any]:
        """Return what the trigger is made of."""
        return {
            "jobs": jobs,
            "gcp_conn_id": self.gcp_conn_id,
            "impersonation_chain": self.impersonation_chain,
            "poll_interval": self.poll_interval,
            "timeout": self.job_timeout,
            "on_timeout": self.on_timeout,
            "cancel_on_kill": self.cancel_on_kill,
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

    def _policy(self) -> WaitPolicy:
        from airflow_vertex_batch.core.lifecycle import OnTimeout, WaitPolicy

        return WaitPolicy(
            poll_interval=self.poll_interval, timeout=self.job_timeout, on_timeout=OnTimeout(self.on_timeout)
        )

    def _seen(self, job: BatchJob) -> None:
        self.log.info("%s %s", job.name, job.progress)


def seconds(value: float | timedelta) -> float:
    """Return a duration in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else float(value)
