"""How does a task send rows again? What must go again, and when to stop, `core.course` and `core.repair` decide."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.base import COMMON_TEMPLATE_FIELDS, failing, generation_of
from airflow_vertex_batch.budget import answered_at, price_table
from airflow_vertex_batch.links import VertexBatchJobLink, VertexBatchOutputLink, addresses
from airflow_vertex_batch.operators.shared import (
    BuyingOperator,
    CheckingOperator,
    ReadingOperator,
    RepairingOperator,
)
from airflow_vertex_batch.sensors import GENERATION_KEY
from airflow_vertex_batch.waiting import WaitingOperator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_vertex_batch.core.course import Course, Progress, Start
    from airflow_vertex_batch.core.landing import Round
    from airflow_vertex_batch.core.lifecycle import Outcome
    from airflow_vertex_batch.core.model import BatchJob, Manifest
    from airflow_vertex_batch.core.place import Place
    from airflow_vertex_batch.core.purchase import Buyer
    from airflow_vertex_batch.core.queue import Told
    from airflow_vertex_batch.hooks import VertexBatchHook


class RoundsOperator(BuyingOperator, WaitingOperator, RepairingOperator, CheckingOperator, ReadingOperator):
    """Base of what goes through rounds: it comes back after each wait, reads where it was, and goes on."""

    def course(
        self, context: Context, hook: VertexBatchHook, schema: dict[str, Any] | None, *, complete: bool
    ) -> Course:
        """Return the course of this task's batch.

        :param schema: what answers are checked against.
        """
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
            elsewhere=self.places(),
            fits=lambda manifest, place: self._fits(manifest, place, buyer),
            on_lost_output=self.lost_output(),
        )

    def buyer(self, context: Context, hook: VertexBatchHook, inputs: str | Sequence[str] | None = None) -> Buyer:
        """Return what buys this task's jobs, for as long as it may wait for them."""
        from airflow_vertex_batch.core.lifecycle import insist_on_time

        def in_time() -> None:
            insist_on_time(self.limit(context), self.began(context), time.time())

        return msgspec.structs.replace(super().buyer(context, hook, inputs), in_time=in_time)

    def _fits(self, manifest: Manifest, place: Place, buyer: Buyer) -> bool:
        """Whether a set may be bought at another place, for its price."""
        from airflow_vertex_batch.core.estimate import estimate_cost

        budget, prices, now = self.budget(), price_table(buyer.store), datetime.now(UTC)
        if not place.model or budget is None or budget.allows(manifest, place.model, str(self.model), prices, now):
            return True
        self.log.warning("%s is passed over: %s.", place, estimate_cost(manifest, place.model, prices, now))
        return False

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

        estimate = estimate_cost(manifest, str(self.model), price_table(buyer.store), datetime.now(UTC))
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
            return self.go_on(context, complete=complete, since=answered_at(event))

    def go_on(self, context: Context, *, since: float | None = None, **state: Any) -> Any:
        """Advance as far as possible, and answer for the jobs meanwhile.

        :param since: when a person answered, seconds since the epoch: the time of this attempt began anew then.
        :param state: see `_advance`.
        """
        self.counts_from, hook = since, self.hook()
        with self.answering(context, hook):
            return self._advance(context, hook, **state)

    def _advance(
        self,
        context: Context,
        hook: VertexBatchHook,
        *,
        fresh: bool = False,
        complete: bool = False,
        told: Told | None = None,
        is_waiting: bool = False,
    ) -> Any:
        """Advance as far as possible.

        :param fresh: whether this is a new attempt, as against the end of a wait.
        :param complete: whether this attempt has yet to send what jobs that an earlier one left behind did not answer.
        :param told: what was seen to in this attempt.
        :param is_waiting: whether a wait was interrupted because a job queues for too long.
        :returns: what the task returns, once the course is done.
        """
        from airflow_vertex_batch.core.course import Waiting
        from airflow_vertex_batch.core.queue import Told

        told = told or Told()
        while True:
            course = self.course(context, hook, self.checked_schema(), complete=complete)
            step = self.step(context, hook, course, fresh=fresh, complete=complete)
            if not isinstance(step, Waiting):
                return self.finish(context, hook, step.rounds)
            self.push_links(context, addresses(jobs=list(step.job_names), folder=self.output_of(context)))
            # What is being cancelled was ended before this attempt, though it shows its rows only later.
            told = msgspec.structs.replace(told, ending=step.ending) if fresh else told
            fresh, complete = False, complete and (is_waiting or bool(step.ending))
            told = self.see_to_queue(context, step.jobs, told, partial(course.move, step.manifest))
            # What began before its cancel has rows, perhaps not all.
            complete = complete or not set(told.moved).isdisjoint(step.job_names)
            outcomes = self.wait(context, step.jobs, told, complete=complete, since=self.counts_from)
            is_waiting = self.refuse(outcomes, told)

    def step(self, context: Context, hook: VertexBatchHook, course: Course, *, fresh: bool, complete: bool) -> Progress:
        """Do what can be done now."""
        raise NotImplementedError

    def checked_schema(self) -> dict[str, Any] | None:
        """Return what answers are checked against."""
        return self.schema()

    def finish(self, context: Context, hook: VertexBatchHook, rounds: Sequence[Round]) -> Any:
        """Return the task's result."""
        raise NotImplementedError

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any],
        complete: bool = False,  # noqa: FBT001, FBT002 - Airflow calls it by keyword
        told: dict[str, Any] | None = None,
        since: float | None = None,
    ) -> Any:
        """Go on after the trigger saw the jobs end, or one of them queue for too long."""
        from airflow_vertex_batch.core.lifecycle import unpack
        from airflow_vertex_batch.core.queue import Told

        with failing():
            known = Told.from_dict(told or {})
            is_waiting = self.refuse(unpack(event["outcomes"]), known)
            return self.go_on(context, complete=complete, told=known, is_waiting=is_waiting, since=since)

    def refuse(self, outcomes: Sequence[Outcome], told: Told) -> bool:
        """Fail when jobs did not end, or ended without a row; a repair job that did has only cured nothing.

        :param told: one that was moved, or being cancelled when the attempt began, is bought again instead.
        :returns: whether the wait was interrupted: then nothing is refused, for the other jobs must not be left alone.
        :raises JobError: when a job of the batch itself ended without rows, or any is late, or cannot be asked about.
        """
        from airflow_vertex_batch.core.lifecycle import Queued, conclude
        from airflow_vertex_batch.core.model import JobState
        from airflow_vertex_batch.core.purchase import is_repair

        if any(isinstance(outcome, Queued) for outcome in outcomes):
            return True

        def bears(job: BatchJob) -> bool:
            is_given_up = job.name in {*told.moved, *told.ending}
            return is_repair(job) or (is_given_up and job.state in {JobState.CANCELLED, JobState.EXPIRED})

        conclude(outcomes, bears, lands_part=not self.moves)
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
        self.wire(jobs=jobs, manifest=manifest)
        self.jobs, self.manifest = jobs, manifest

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Repair as often as may be, and return the rounds."""
        with failing():
            return self.go_on(context, fresh=True, complete=True)  # type: ignore[no-any-return]

    def step(
        self,
        context: Context,
        hook: VertexBatchHook,
        course: Course,
        *,
        fresh: bool,
        complete: bool,  # noqa: ARG002 - one shape for all
    ) -> Progress:
        """Take over the jobs of the task before, and go on from them."""
        manifest, jobs = self._manifest(), self._given(hook)
        if fresh:
            course.begin(manifest, self.start(context, self._upstream_generation(context)), jobs)
        return course.advance(manifest, jobs)

    def checked_schema(self) -> dict[str, Any] | None:
        """Return what answers are checked against: the manifest's own where this task was given none."""
        return self.schema() or self._manifest().response_schema

    def finish(self, context: Context, hook: VertexBatchHook, rounds: Sequence[Round]) -> list[dict[str, Any]]:  # noqa: ARG002 - one shape for all
        """Return what was bought here as small dicts: what took the place of jobs that were given up, then the repair
        rounds.
        """
        from airflow_vertex_batch.core.course import taken_over

        instead = taken_over(self._manifest(), self._given(hook), rounds[0].jobs)
        return [asked.as_dict() for asked in (instead, *rounds[1:]) if asked is not None]

    def _given(self, hook: VertexBatchHook) -> tuple[BatchJob, ...]:
        from airflow_vertex_batch.core.landing import read_jobs

        return read_jobs(self.given("jobs"), lambda name: hook.jobs(name).get(name))

    def _manifest(self) -> Manifest:
        from airflow_vertex_batch.core.model import Manifest

        return Manifest.from_dict(self.given("manifest"))

    def _upstream_generation(self, context: Context) -> str:
        """Return in which generation the task before ran: it tells a clear of this task from one of the whole run."""
        ti = context["ti"]
        found = ti.xcom_pull(
            task_ids=sorted(self.upstream_task_ids), key=GENERATION_KEY, map_indexes=getattr(ti, "map_index", -1)
        )
        return ",".join(str(value) for value in found or () if value is not None)
