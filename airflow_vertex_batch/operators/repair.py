"""How does a task send rows again? `core.batch` and `core.answers.repair` decide which rows, and when to stop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from airflow_vertex_batch.edge.asking import ask
from airflow_vertex_batch.edge.base import fail_or_retry, skip
from airflow_vertex_batch.edge.waiting import WaitingOperator
from airflow_vertex_batch.links import VertexBatchJobLink, VertexBatchOutputLink, addresses
from airflow_vertex_batch.operators.shared import (
    BuyingOperator,
    ReadingOperator,
    RepairingOperator,
    SchemaOperator,
)
from airflow_vertex_batch.sensors import GENERATION_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Unpack

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_vertex_batch.core.answers.rounds import Round
    from airflow_vertex_batch.core.batch import Batch
    from airflow_vertex_batch.core.domain.job import BatchJob
    from airflow_vertex_batch.core.domain.manifest import Manifest
    from airflow_vertex_batch.core.progress import Attempt, Policy
    from airflow_vertex_batch.core.purchase.buyer import Buyer
    from airflow_vertex_batch.hooks import VertexBatchHook
    from airflow_vertex_batch.parameters import RepairSharedParameters


class RoundsOperator(BuyingOperator, WaitingOperator, RepairingOperator, SchemaOperator, ReadingOperator):
    """Base of operators that go through rounds. After each wait the operator reads the log of the batch, and goes on
    from there.
    """

    def policy(self, hook: VertexBatchHook) -> Policy:
        """Return the author's settings for the batch."""
        from airflow_vertex_batch.core.requests.answer_check import AnswerCheck

        schema = self.checked_schema()
        return msgspec.structs.replace(
            super().policy(hook),
            repair=self.repair_policy(),
            check=AnswerCheck(schema) if schema else None,
            on_lost_output=self.lost_output(),
            queue=self.queue_policy(),
            elsewhere=self.places(),
        )

    def buyer(self, context: Context, hook: VertexBatchHook, inputs: str | Sequence[str] | None = None) -> Buyer:
        """Return the buyer of this task's jobs. It buys nothing after the time of this attempt is over."""
        from airflow_vertex_batch.core.waiting.watch import require_time_left

        def in_time() -> None:
            require_time_left(self.limit(context), self.began(context), time.time())

        return msgspec.structs.replace(super().buyer(context, hook, inputs), in_time=in_time)

    def execute(self, context: Context) -> Any:
        """Go through all rounds, and return the task's result."""
        from airflow_vertex_batch.core.progress import Attempt

        with fail_or_retry():
            return self.go_on(context, Attempt(owes_repair=True))

    def go_on(self, context: Context, attempt: Attempt, *, since: float | None = None) -> Any:
        """Go as far as possible. Meanwhile this attempt is responsible for the jobs.

        :param since: when a person answered, seconds since the epoch. The time of this attempt counts from then.
        """
        self.counts_from, hook = since, self.hook()
        with self.responsible_for_jobs(context, hook):
            return self._advance(context, hook, attempt)

    def _advance(self, context: Context, hook: VertexBatchHook, attempt: Attempt) -> Any:
        from airflow_vertex_batch.core.progress import Ask, Done, Skip, Wait

        while True:
            match self.batch(context, hook).advance(attempt):
                case Wait() as step:
                    self.push_links(context, addresses(jobs=list(step.job_names), folder=self.output_of(context)))
                    self.show_overdue(context, step.overdue)
                    kept = {"attempt": step.attempt.as_dict(), "since": self.counts_from}
                    attempt = step.attempt.after(self.wait(context, step.jobs, step.limits, **kept), self.moves)
                case Ask() as step:
                    ask(context, step)
                case Skip(why):
                    skip(context, why)
                case Done(rounds):
                    return self.finish(context, hook, rounds)

    def checked_schema(self) -> dict[str, Any] | None:
        """Return the schema that answers are checked against."""
        return self.schema()

    def finish(self, context: Context, hook: VertexBatchHook, rounds: Sequence[Round]) -> Any:
        """Return the task's result."""
        raise NotImplementedError

    def execute_complete(
        self, context: Context, event: dict[str, Any], attempt: dict[str, Any], since: float | None = None
    ) -> Any:
        """Go on after the trigger saw the jobs end, or one of them queue for too long."""
        from airflow_vertex_batch.core.progress import Attempt
        from airflow_vertex_batch.core.waiting.watch import unpack

        with fail_or_retry():
            after = Attempt.from_dict(attempt).after(unpack(event["outcomes"]), self.moves)
            return self.go_on(context, after, since=since)


class VertexBatchRepairOperator(RoundsOperator):
    """Send only the rows without a good answer again, in rounds of smaller jobs, and return those rounds.

    It reads the answers of the jobs, selects the rows for which another try may help, and buys jobs for them. Each job
    is bought once, like any other. Then it waits, and looks again. Rows that cannot be repaired go to the dead letters.
    Clear only this task to send the rows of its run that are still bad once more. A clear of the whole run sends
    nothing again.

    :param jobs: what the sensor returned. Templated.
    :param manifest: what the prepare task returned. Templated.
    :returns: the rounds, to be passed to the export task as `repairs`.
    """

    templated: ClassVar[tuple[str, ...]] = ("jobs", "manifest")
    operator_extra_links: Sequence[BaseOperatorLink] = (VertexBatchJobLink(), VertexBatchOutputLink())

    def __init__(self, *, jobs: Any, manifest: Any, **kwargs: Unpack[RepairSharedParameters]) -> None:
        super().__init__(**kwargs)
        self.note_origins(jobs=jobs, manifest=manifest)
        self.jobs, self.manifest = jobs, manifest

    def batch(self, context: Context, hook: VertexBatchHook, **parts: Any) -> Batch:
        """Return the batch. It goes on from the jobs of the task before this one."""
        given: dict[str, Any] = {"base": self._manifest(), "jobs": self._given(hook)}
        given["start"] = self.start(context, self._upstream_generation(context))
        return super().batch(context, hook, **{**given, **parts})

    def checked_schema(self) -> dict[str, Any] | None:
        """Return the schema that answers are checked against: this task's own, or else the manifest's."""
        return self.schema() or self._manifest().response_schema

    def finish(self, context: Context, hook: VertexBatchHook, rounds: Sequence[Round]) -> list[dict[str, Any]]:  # noqa: ARG002 - one shape for all
        """Return the rounds that were bought here as small dicts: first the jobs that replace jobs which were given up,
        then the repair rounds.
        """
        from airflow_vertex_batch.core.answers.rounds import taken_over

        instead = taken_over(self._manifest(), self._given(hook), rounds[0].jobs)
        return [asked.as_dict() for asked in (instead, *rounds[1:]) if asked is not None]

    def _given(self, hook: VertexBatchHook) -> tuple[BatchJob, ...]:
        from airflow_vertex_batch.core.answers.rounds import read_jobs

        return read_jobs(self.given("jobs"), lambda name: hook.jobs(name).get(name))

    def _manifest(self) -> Manifest:
        from airflow_vertex_batch.core.domain.manifest import Manifest

        return Manifest.from_dict(self.given("manifest"))

    def _upstream_generation(self, context: Context) -> str:
        """Return the generation of the task before this one. It shows whether a person cleared only this task or the
        whole run.
        """
        ti = context["ti"]
        found = ti.xcom_pull(
            task_ids=sorted(self.upstream_task_ids), key=GENERATION_KEY, map_indexes=getattr(ti, "map_index", -1)
        )
        return ",".join(str(value) for value in found or () if value is not None)
