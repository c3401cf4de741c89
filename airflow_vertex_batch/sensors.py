"""How does a task wait for jobs that another task created? `VertexBatchJobSensor`: asks once, then defers, blocks or
reschedules; the decisions are `core.lifecycle`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.sensor import BaseSensorOperator, PokeReturnValue

from airflow_vertex_batch.base import COMMON_TEMPLATE_FIELDS, failing, generation_of
from airflow_vertex_batch.links import VertexBatchJobLink, addresses
from airflow_vertex_batch.waiting import WaitingOperator, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_vertex_batch.core.address import JobName
    from airflow_vertex_batch.core.lifecycle import Outcome

#: XCom key under which the sensor says in which generation (see `base.generation_of`) it ran.
GENERATION_KEY = "vertex_batch_generation"
#: Seconds between two tries with ``mode="reschedule"``: Airflow plans them, so they cannot follow the job.
_POKE_INTERVAL = 60.0


class VertexBatchJobSensor(WaitingOperator, BaseSensorOperator):
    """Wait until batch prediction jobs have ended, and return them as small dicts.

    A job that has ended already does not defer. Transient errors are waited out until the deadline. A job that failed
    without a row fails this task for good; one that was cancelled or expired after it answered rows passes on, so that
    they are landed before the export says how it ended. With ``deferrable=False``, `mode` says how the worker waits:
    ``poke`` blocks, ``reschedule`` gives the slot back between two questions, a minute apart unless `poll_interval`
    says otherwise.

    :param jobs: job names: what the create task returned. Templated.
    :returns: the jobs, to be passed to the export task.
    """

    template_fields: Sequence[str] = (*COMMON_TEMPLATE_FIELDS, "jobs")
    operator_extra_links = (VertexBatchJobLink(),)

    def __init__(self, *, jobs: Any, **kwargs: Any) -> None:
        # Airflow's own sensor timeout begins with the first try; ours is anchored at the job, so theirs must come
        # later.
        kwargs.setdefault("timeout", 30 * 24 * 3600)
        kwargs.setdefault("poke_interval", seconds(kwargs.get("poll_interval") or _POKE_INTERVAL))
        super().__init__(**kwargs)
        self.jobs = jobs

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Ask once; wait if need be; return the jobs."""
        with failing():
            names = self._names()
            self.push_links(context, addresses(jobs=[str(name) for name in names]))
            context["ti"].xcom_push(GENERATION_KEY, generation_of(context))
            outcomes = self.ended(names)
            if len(outcomes) == len(names):
                return self._concluded(outcomes)
            if self.deferrable:
                self.wait_in_triggerer(names)
            if self.mode == "reschedule":
                return super().execute(context)  # type: ignore[no-any-return]
            return self._concluded(self.block(names))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> list[dict[str, Any]]:  # noqa: ARG002 - Airflow's signature
        """Return the jobs that the trigger saw ending."""
        from airflow_vertex_batch.core.lifecycle import unpack

        with failing():
            return self._concluded(unpack(event["outcomes"]))

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002 - Airflow's signature
        """Ask once, for ``mode="reschedule"``; a deadline or an ended job ends the wait."""
        with failing():
            names = self._names()
            outcomes = self.ended(names)
            done = len(outcomes) == len(names)
            return PokeReturnValue(done, self._concluded(outcomes) if done else None)

    def _names(self) -> list[JobName]:
        from airflow_vertex_batch.core.landing import job_names

        return job_names(self.jobs)

    def _concluded(self, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
        from airflow_vertex_batch.core.lifecycle import conclude

        return [job.as_dict() for job in conclude(outcomes)]
