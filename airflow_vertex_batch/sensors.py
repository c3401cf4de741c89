"""How does a task wait? `VertexBatchJobSensor`: asks once, then defers, blocks or reschedules; the decisions are
`core.lifecycle`'s.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.sensor import BaseSensorOperator, PokeReturnValue

from airflow_vertex_batch.base import COMMON_TEMPLATE_FIELDS, VertexBatchBaseOperator, failing
from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.links import VertexBatchJobLink, addresses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_vertex_batch.core.address import JobName
    from airflow_vertex_batch.core.lifecycle import Outcome, WaitPolicy
    from airflow_vertex_batch.core.model import BatchJob

#: Queue (72 h), run (24 h) and an hour of slack: see `core.lifecycle`, which this repeats so that a DAG file need not
#: load it.
_DEFAULT_JOB_TIMEOUT = timedelta(hours=97)


class VertexBatchJobSensor(VertexBatchBaseOperator, BaseSensorOperator):
    """Wait until batch prediction jobs have ended, and return them as small dicts.

    A job that has ended already does not defer. Transient errors are waited out until the deadline. A job that failed
    without a row fails this task for good; one that was cancelled or expired after it answered rows passes on, so that
    they are landed before the export says how it ended.

    :param jobs: job names: what the create task returned. Templated.
    :param deferrable: wait in the triggerer, without a worker slot (default). Otherwise `mode` says how: ``poke``
        blocks,
        ``reschedule`` gives the slot back between two questions.
    :param poll_interval: seconds between two questions about one job, a number or a timedelta.
    :param job_timeout: how long after its *creation* a job counts as late, seconds or a timedelta; 97 hours, what the
        service itself allows a job, where not given. A retry does not begin anew.
    :param on_timeout: ``cancel`` (default) a late job, or ``fail`` and leave it running.
    :param cancel_on_kill: cancel the jobs when a person marks this task failed, successful or skipped (default); never
        on a clear, a restart or a takeover.
    :returns: the jobs, to be passed to the export task.
    """

    template_fields: Sequence[str] = (*COMMON_TEMPLATE_FIELDS, "jobs")
    operator_extra_links = (VertexBatchJobLink(),)

    def __init__(
        self,
        *,
        jobs: Any,
        deferrable: bool = True,
        poll_interval: float | timedelta = 60.0,
        job_timeout: float | timedelta = _DEFAULT_JOB_TIMEOUT,
        on_timeout: str = "cancel",
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        interval = _seconds(poll_interval)
        # Airflow's own sensor timeout begins with the first try; ours is anchored at the job, so theirs must come
        # later.
        kwargs.setdefault("timeout", 30 * 24 * 3600)
        super().__init__(**{"poke_interval": interval, **kwargs})
        self.jobs, self.deferrable = jobs, deferrable
        self.poll_interval, self.job_timeout = interval, _seconds(job_timeout)
        self.on_timeout, self.cancel_on_kill = on_timeout, cancel_on_kill
        if on_timeout not in {"cancel", "fail"}:
            raise InputError(f"on_timeout={on_timeout!r} is not known", todo="Use 'cancel' or 'fail'")
        if interval <= 0 or self.job_timeout <= 0:
            raise InputError("poll_interval and job_timeout must be above zero seconds")

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Ask once; wait if need be; return the jobs."""
        with failing():
            names = self._names()
            self.push_links(context, addresses(jobs=[str(name) for name in names]))
            outcomes = self._ended(names)
            if len(outcomes) == len(names):
                return self._concluded(outcomes)
            if self.deferrable:
                self._defer(names)
            if self.mode == "reschedule":
                return super().execute(context)  # type: ignore[no-any-return]
            return self._concluded(self._block(names))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> list[dict[str, Any]]:  # noqa: ARG002 - Airflow's signature
        """Return the jobs that the trigger saw ending."""
        from airflow_vertex_batch.core.lifecycle import unpack

        with failing():
            return self._concluded(unpack(event["outcomes"]))

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002 - Airflow's signature
        """Ask once, for ``mode="reschedule"``; a deadline or an ended job ends the wait."""
        with failing():
            names = self._names()
            outcomes = self._ended(names)
            done = len(outcomes) == len(names)
            return PokeReturnValue(done, self._concluded(outcomes) if done else None)

    def on_kill(self) -> None:
        """Cancel the jobs if a person ended the task while a worker was waiting."""
        from airflow.sdk import get_current_context

        from airflow_vertex_batch.compat import was_ended_by_a_person

        if self.cancel_on_kill and was_ended_by_a_person(get_current_context()["ti"]):
            for name in self._names():
                self.hook().jobs(name).cancel(name)
                self.log.info("Cancelled %s: its task was ended by hand.", name)

    def _names(self) -> list[JobName]:
        from airflow_vertex_batch.core.landing import job_names

        return job_names(self.jobs)

    def _policy(self) -> WaitPolicy:
        from airflow_vertex_batch.core.lifecycle import OnTimeout, WaitPolicy

        return WaitPolicy(
            poll_interval=self.poll_interval, timeout=self.job_timeout, on_timeout=OnTimeout(self.on_timeout)
        )

    def _ended(self, names: Sequence[JobName]) -> list[Outcome]:
        """Return the outcomes of the jobs that need no more waiting: each flow is driven until it would sleep."""
        from airflow_vertex_batch.core.lifecycle import drive_once, watch

        hook = self.hook() if names else None
        found = [drive_once(watch(name, self._policy()), hook.jobs(name), seen=self._seen) for name in names if hook]
        return [outcome for outcome in found if outcome is not None]

    def _block(self, names: Sequence[JobName]) -> list[Outcome]:
        from airflow_vertex_batch.core.lifecycle import drive, watch

        hook = self.hook()
        return [drive(watch(name, self._policy()), hook.jobs(name), seen=self._seen) for name in names]

    def _defer(self, names: Sequence[JobName]) -> None:
        from airflow_vertex_batch.triggers import VertexBatchJobTrigger

        self.defer(
            trigger=VertexBatchJobTrigger(
                job_names=[str(name) for name in names],
                gcp_conn_id=self.gcp_conn_id,
                impersonation_chain=self.impersonation_chain,
                poll_interval=self.poll_interval,
                timeout=self.job_timeout,
                on_timeout=self.on_timeout,
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="execute_complete",
        )

    def _seen(self, job: BatchJob) -> None:
        self.log.info("%s %s", job.name, job.progress)

    def _concluded(self, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
        from airflow_vertex_batch.core.lifecycle import conclude

        return [job.as_dict() for job in conclude(outcomes)]


def _seconds(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)
