"""How does a task send rows again? What must go again, and when to stop, `core.course` and `core.repair` decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.base import COMMON_TEMPLATE_FIELDS, failing, generation_of
from airflow_vertex_batch.budget import price_table
from airflow_vertex_batch.links import VertexBatchJobLink, VertexBatchOutputLink, addresses
from airflow_vertex_batch.operators.shared import BuyingOperator, CheckingOperator, RepairingOperator, read_manifest
from airflow_vertex_batch.sensors import GENERATION_KEY
from airflow_vertex_batch.waiting import WaitingOperator

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from decimal import Decimal

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_vertex_batch.core.course import Course, Progress, Start
    from airflow_vertex_batch.core.landing import Round
    from airflow_vertex_batch.core.lifecycle import Outcome
    from airflow_vertex_batch.core.model import BatchJob, Manifest
    from airflow_vertex_batch.core.purchase import Buyer
    from airflow_vertex_batch.hooks import VertexBatchHook


class RoundsOperator(BuyingOperator, WaitingOperator, RepairingOperator, CheckingOperator):
    """Base of what goes through rounds: it comes back after each wait, reads where it was, and goes on."""

    def course(
        self, context: Context, hook: VertexBatchHook, schema: dict[str, Any] | None, *, complete: bool
    ) -> Course:
        """Return the course of this task's batch."""
        from airflow_vertex_batch.core.course import Course
        from airflow_vertex_batch.core.schema import answer_checker

        buyer = self.buyer(context, hook)
        return Course(
            buyer=buyer,
            store=buyer.store,
            warehouse=hook.warehouse(),
            folder=self.folder(context),
            policy=self.repair_policy(),
            check=answer_checker(schema) if schema else None,
            prices=price_table(buyer.store),
            approve=lambda manifest, spent: self._approves(context, manifest, spent, buyer, complete=complete),
        )

    def start(self, context: Context, upstream: str | None = None) -> Start:
        """Return what a new attempt begins with.

        :param upstream: the generation of the task whose jobs are taken over; None where this task buys them.
        """
        from airflow_vertex_batch.core.course import Start
        from airflow_vertex_batch.core.submit import OnClear

        return Start(
            generation=generation_of(context),
            upstream=upstream or "",
            rounds=self.repair_rounds,
            on_clear=OnClear(self.on_clear),
            alone=upstream is not None,
        )

    def _approves(self, context: Context, manifest: Manifest, spent: Decimal, buyer: Buyer, *, complete: bool) -> bool:
        """Whether a repair round is within the budget, or a person says so; above it, the round is given up."""
        from airflow.sdk.exceptions import AirflowSkipException

        from airflow_vertex_batch.core.errors import InputError
        from airflow_vertex_batch.core.estimate import estimate_cost

        estimate = estimate_cost(manifest, str(self.model), price_table(buyer.store))
        try:
            self.gate(context, buyer.store).check(
                context,
                estimate,
                # A person who clears the task may be asked about the same rows again.
                purchase=f"{manifest.fingerprint} {generation_of(context)}",
                would_buy=lambda: True,
                spent_usd=spent,
                resume_kwargs={"number": manifest.round, "complete": complete},
            )
        except (InputError, AirflowSkipException) as over:
            self.log.warning("Repair round %d is given up: %s", manifest.round, over)
            return False
        self.log.info("Repair round %d: %s.", manifest.round, estimate)
        return True

    def execute_answered(
        self,
        context: Context,
        event: dict[str, Any],
        question: str,
        number: int = 0,
        complete: bool = True,  # noqa: FBT001, FBT002 - Airflow calls it by keyword
    ) -> Any:
        """Go on with a person's answer to `question`: about the whole batch, or about repair round `number`."""
        from airflow_vertex_batch.core.errors import InputError

        with failing():
            gate = self.gate(context, self.hook().store())
            try:
                gate.take_answer(event, question)
            except InputError:
                if not number:
                    raise
                gate.decline(event, question)
            return self.go_on(context, complete=complete)

    def go_on(
        self,
        context: Context,
        *,
        fresh: bool = False,
        complete: bool = False,
        said: Collection[str] = (),
        is_waiting: bool = False,
    ) -> Any:
        """Advance as far as possible.

        :param fresh: whether this is a new attempt, as against the end of a wait.
        :param complete: whether this attempt has yet to send what jobs that an earlier one left behind did not answer.
        :param said: names of the jobs whose `queue_warning` was said.
        :param is_waiting: whether a wait was interrupted because a job queues for too long.
        :returns: what the task returns, once the course is done.
        """
        from airflow_vertex_batch.core.course import Waiting

        hook = self.hook()
        while isinstance(step := self.step(context, hook, fresh=fresh, complete=complete), Waiting):
            self.push_links(context, addresses(jobs=list(step.job_names), folder=self.output_of(context)))
            # What is being cancelled was ended before this attempt, though it shows its rows only later.
            fresh, complete = False, complete and (is_waiting or step.is_cancelling)
            said = self.say_queued(context, step.jobs, said)
            outcomes = self.wait(context, step.jobs, said, complete=complete)
            is_waiting = self.refuse(outcomes, complete=complete)
        return self.finish(context, hook, step.rounds)

    def step(self, context: Context, hook: VertexBatchHook, *, fresh: bool, complete: bool) -> Progress:
        """Do what can be done now."""
        raise NotImplementedError

    def finish(self, context: Context, hook: VertexBatchHook, rounds: Sequence[Round]) -> Any:
        """Return the task's result."""
        raise NotImplementedError

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any],
        complete: bool = False,  # noqa: FBT001, FBT002 - Airflow calls it by keyword
        said: Collection[str] = (),
    ) -> Any:
        """Go on after the trigger saw the jobs end, or one of them queue for too long."""
        from airflow_vertex_batch.core.lifecycle import unpack

        with failing():
            is_waiting = self.refuse(unpack(event["outcomes"]), complete=complete)
            return self.go_on(context, complete=complete, said=said, is_waiting=is_waiting)

    def refuse(self, outcomes: Sequence[Outcome], *, complete: bool) -> bool:
        """Fail when jobs did not end, or ended without a row; a repair job that did has only cured nothing.

        :param complete: one that was cancelled without a row is bought again instead.
        :returns: whether the wait was interrupted: then nothing is refused, for the other jobs must not be left alone.
        :raises JobError: when a job of the batch itself ended without rows, or any is late, or cannot be asked about.
        """
        from airflow_vertex_batch.core.lifecycle import Ended, Queued, conclude
        from airflow_vertex_batch.core.model import JobState
        from airflow_vertex_batch.core.purchase import is_repair

        if any(isinstance(outcome, Queued) for outcome in outcomes):
            return True

        def is_bearable(job: BatchJob) -> bool:
            return is_repair(job) or (complete and job.state is JobState.CANCELLED)

        conclude([item for item in outcomes if not (isinstance(item, Ended) and is_bearable(item.job))])
        return False


class VertexBatchRepairOperator(RoundsOperator):
    """Send only the rows without a good answer again, in rounds of smaller jobs, and return those rounds.

    It reads what the jobs answered, selects the rows that another try may help, and buys a job for them, each once like
    any other; then it waits, and looks again. What cannot be cured stays for the dead letters. Clear this task alone
    to try the rows of its run that are still bad once more; a clear of the whole run repeats nothing.

    :param jobs: what the sensor returned. Templated.
    :param manifest: what the prepare task returned. Templated.
    :returns: the rounds, to be passed to the export task as `repairs`.
    """

    template_fields: Sequence[str] = (
        *COMMON_TEMPLATE_FIELDS,
        *("model", "manifest", "jobs", "output_uri", "display_name", "labels"),
    )
    operator_extra_links: Sequence[BaseOperatorLink] = (VertexBatchJobLink(), VertexBatchOutputLink())

    def __init__(self, *, jobs: Any, manifest: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.jobs, self.manifest = jobs, manifest

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Repair as often as may be, and return the rounds."""
        with failing():
            return self.go_on(context, fresh=True, complete=True)  # type: ignore[no-any-return]

    def step(self, context: Context, hook: VertexBatchHook, *, fresh: bool, complete: bool) -> Progress:
        """Take over the jobs of the task before, and go on from them."""
        from airflow_vertex_batch.core.landing import read_jobs

        manifest, jobs = self._manifest(), read_jobs(self.jobs, lambda name: hook.jobs(name).get(name))
        course = self.course(context, hook, self.schema() or manifest.response_schema, complete=complete)
        if fresh:
            course.begin(manifest, self.start(context, self._upstream_generation(context)), jobs)
        return course.advance(manifest, jobs)

    def finish(self, context: Context, hook: VertexBatchHook, rounds: Sequence[Round]) -> list[dict[str, Any]]:  # noqa: ARG002 - one shape for all
        """Return the repair rounds as small dicts."""
        return [asked.as_dict() for asked in rounds[1:]]

    def _manifest(self) -> Manifest:
        from airflow_vertex_batch.core.errors import InputError

        manifest = read_manifest(self.manifest)
        if manifest is None:
            raise InputError(f"Task {self.task_id} was given no manifest", todo="Pass the output of the prepare task")
        return manifest

    def _upstream_generation(self, context: Context) -> str:
        """Return in which generation the task before ran: it tells a clear of this task from one of the whole run."""
        ti = context["ti"]
        found = ti.xcom_pull(
            task_ids=sorted(self.upstream_task_ids), key=GENERATION_KEY, map_indexes=getattr(ti, "map_index", -1)
        )
        return ",".join(str(value) for value in found or () if value is not None)
