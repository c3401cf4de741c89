"""How is a batch carried out without Airflow? As the operators do it, in one process that waits.

Nothing is kept in memory that the log does not have. Who runs the same spec again goes on where the last process ended,
however it ended: jobs that exist are attached to, and rows that have landed land in the same place.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from enum import StrEnum, auto
from functools import partial
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import msgspec

from airflow_vertex_batch.core.answers.report import Report, only_unrepairable
from airflow_vertex_batch.core.batch import Batch
from airflow_vertex_batch.core.domain.errors import InputError, VertexBatchError
from airflow_vertex_batch.core.domain.identity import Identity
from airflow_vertex_batch.core.domain.job import BatchJob, JobSpec
from airflow_vertex_batch.core.landing.landed import known_digests
from airflow_vertex_batch.core.landing.landing import Landing, landed_entry, refuse_bad_end
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.progress import Ask, Attempt, Done, Skip, Wait
from airflow_vertex_batch.core.purchase.buyer import Buyer, display_name
from airflow_vertex_batch.core.purchase.decide import OnClear
from airflow_vertex_batch.core.purchase.entries import Begun, Intent, Prepared, Submission
from airflow_vertex_batch.core.purchase.fold import Start, fold
from airflow_vertex_batch.core.purchase.log import BatchLog
from airflow_vertex_batch.core.requests.prepare import prepare
from airflow_vertex_batch.core.waiting.drive import drive, drive_once
from airflow_vertex_batch.core.waiting.watch import Flow, Outcome, Queued, watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_vertex_batch.core.answers.rounds import Round
    from airflow_vertex_batch.core.domain.manifest import Manifest
    from airflow_vertex_batch.core.domain.ports import JobService, ObjectStore, Warehouse
    from airflow_vertex_batch.core.landing.destination import Destination
    from airflow_vertex_batch.core.money.prices import PriceTable
    from airflow_vertex_batch.core.purchase.approval import Question
    from airflow_vertex_batch.core.standalone.spec import Spec

logger = logging.getLogger(__name__)


class Cloud(Protocol):
    """What a batch needs of Google Cloud."""

    @property
    def store(self) -> ObjectStore:
        """Cloud Storage."""

    @property
    def warehouse(self) -> Warehouse:
        """BigQuery."""

    def service(self, location: str) -> JobService:
        """Return the jobs of a location."""

    def check_destination(self, uri: str) -> None:
        """Ask whether answers can land there, before anything is paid.

        :raises InputError: when they cannot.
        """


class Person(Protocol):
    """Who runs the batch."""

    def ask(self, question: Question) -> tuple[str, bool]:
        """Ask the person; return who answered, and whether it may be paid. The name is empty if nobody can be asked."""

    def show_jobs(self, jobs: Sequence[BatchJob]) -> None:
        """Show the jobs that are waited for, as they are now."""


class Finished(msgspec.Struct, frozen=True):
    """The answers have landed.

    :param bad: why that is not good enough; None where it is.
    """

    report: Report
    bad: VertexBatchError | None = None


class WaitMode(StrEnum):
    """How long a run waits for jobs."""

    #: Until they have ended.
    WAIT = auto()
    #: It looks once.
    ONCE = auto()
    #: It creates them, and ends.
    DETACH = auto()


class Standalone:
    """One spec, run.

    :param again: do what a clear does in Airflow: read the source again, take an edited spec, buy what an ended job did
        not answer. Without it a run only goes on.
    """

    def __init__(self, spec: Spec, cloud: Cloud, person: Person, *, prices: PriceTable, again: bool = False) -> None:
        self._spec, self._cloud, self._person, self._prices = spec, cloud, person, prices
        staging = spec.staging()
        identity = Identity(staging=str(staging), dag_id=spec.dag_id, task_id=spec.task_id, run_id=spec.run_id)
        self._token, self._again = uuid4().hex[:12], again
        entries = BatchLog(cloud.store, identity, "").entries()
        self.log = BatchLog(cloud.store, identity, f"{len({entry.attempt for entry in entries}) + 1}:{self._token}")
        self._generation = self._generation_after(fold(entries).begun)
        self._folder = staging / identity.path
        self._at: dict[str, JobService] = {}

    def _generation_after(self, begun: Begun | None) -> str:
        """Return in which generation this run goes on.

        :raises InputError: when the spec asks for something else than the batch was begun with.
        """
        digest = self._spec.digest()
        if self._again:
            return f"{digest}-{self._token}"
        if begun is None:
            return digest
        # A task of Airflow that began the batch has numbers for its generations.
        if len(begun.generation) < len(digest):
            return begun.generation
        if not begun.generation.startswith(digest):
            raise InputError(
                f"The spec of {self.log.folder} has changed since its batch began",
                why="Other requests would be another purchase, and would cancel a job that still runs for the old ones",
                left="Nothing was sent, and no job was cancelled",
                todo="Run it with --again to ask anew; or give this spec a task_id, or this run a --run-id, of its own",
            )
        return begun.generation

    @property
    def has_jobs(self) -> bool:
        """Whether a job was bought, or may have been."""
        return any(isinstance(entry, Intent | Submission) for entry in self.log.entries())

    def go_on(self, wait_mode: WaitMode = WaitMode.WAIT) -> Wait | Skip | Finished:
        """Go on until the answers have landed, or there is nothing to do, or the run does not wait any longer.

        :raises VertexBatchError: saying what is wrong, what became of the jobs, and what to do.
        """
        attempt = Attempt(owes_repair=self._again)
        while True:
            batch = self._batch()
            match batch.advance(attempt):
                case Ask() as step:
                    attempt = self._asked(batch, step)
                case Wait() as step:
                    self._person.show_jobs(step.jobs)
                    outcomes = None if wait_mode is WaitMode.DETACH else self._outcomes(step, wait_mode)
                    if outcomes is None:
                        return step
                    attempt = step.attempt.after(outcomes, bool(self._spec.elsewhere))
                case Skip() as step:
                    return step
                case Done(rounds):
                    return self._land(rounds)

    def _outcomes(self, wait: Wait, wait_mode: WaitMode) -> list[Outcome] | None:
        """Return what came of the jobs; None where one look is not enough to know."""
        if wait_mode is WaitMode.ONCE:
            found = [drive_once(flow, service) for flow, service in self._flows(wait)]
            ended = [outcome for outcome in found if outcome is not None]
            is_over = len(ended) == len(found) or any(isinstance(outcome, Queued) for outcome in ended)
            return ended if is_over else None
        now = {job.name: job for job in wait.jobs}

        def seen(job: BatchJob) -> None:
            now[job.name] = job
            self._person.show_jobs(tuple(now.values()))

        return drive(*self._flows(wait), on_answer=seen)

    def _flows(self, wait: Wait) -> Iterator[tuple[Flow, JobService]]:
        for job in wait.jobs:
            flow = watch(job.job_name, self._spec.waiting(wait.limits.get(job.name)))
            yield flow, self._service(job.job_name.location)

    def _asked(self, batch: Batch, step: Ask) -> Attempt:
        """Ask whoever runs this. A repair round that nobody approves is given up: what was paid must land.

        :raises InputError: when the batch itself was not approved. That is not written down: the next run asks again.
        """
        by, approved = self._person.ask(step.question)
        if not approved and not step.round:
            raise InputError(
                step.question.subject,
                why=f"{by} said no" if by else "Nobody can be asked: this is no terminal",
                left="Nothing was sent",
                todo="Run it with --approve to pay that, or raise max_cost_usd",
            )
        batch.answered(step.question.id, by, approved=approved, of_round=step.round)
        if not approved:
            logger.warning("The repair round is not sent, since nobody approved it: %s", step.question.subject)
        return step.attempt

    def _batch(self) -> Batch:
        return Batch(
            buyer=self._buyer(),
            warehouse=self._cloud.warehouse,
            folder=self._folder,
            policy=self._spec.policy(self._prices),
            start=Start(
                generation=self._generation, rounds=self._spec.repair_rounds, on_clear=OnClear(self._spec.on_clear)
            ),
            prepare=self._prepare,
        )

    def _buyer(self) -> Buyer:
        spec = self._spec
        return Buyer(
            base=JobSpec(
                display_name=spec.display_name or display_name(self.log.identity),
                model=spec.model,
                inputs=(),
                output=spec.output_uri or str(self._folder / "output"),
                labels=spec.labels,
            ),
            log=self.log,
            store=self._cloud.store,
            service=self._service(spec.location),
            terms=spec.terms(self._generation),
            at=self._service,
        )

    def _service(self, location: str) -> JobService:
        if location not in self._at:
            self._at[location] = self._cloud.service(location)
        return self._at[location]

    def _prepare(self) -> Manifest:
        spec, store, warehouse = self._spec, self._cloud.store, self._cloud.warehouse
        self._cloud.check_destination(self._destination.uri)
        known = None
        if spec.skip_answered:
            known = partial(known_digests, self._destination.answers(store, warehouse), store, self._folder, spec.model)
        rows = spec.source().rows(store, warehouse)
        manifest = prepare(rows, spec.plan(), store, self._folder, self._token, known=known)
        logger.info("%s; manifest %s", manifest.summary(), manifest.uri)
        self.log.add(Prepared.of(manifest))
        return manifest

    @property
    def _destination(self) -> Destination:
        return self._spec.lands_at()

    def _land(self, rounds: Sequence[Round]) -> Finished:
        spec = self._spec
        plan = LandPlan.of(self.log.identity, self._day(), replace_partition=spec.replace_partition)
        landing = Landing(
            rounds, self._cloud.store, self._cloud.warehouse, plan,
            schema=spec.schema(), prices=self._prices, on_lost_output=self._spec.policy(self._prices).on_lost_output,
        )  # fmt: skip
        try:
            report = landing.land(self._destination)
        except VertexBatchError as error:
            error.supplement(
                left="The answers are safe where the jobs wrote them, and stay paid",
                todo="Then run the same spec again: it lands them, and buys nothing",
            )
            raise
        self.log.add(landed_entry(report, len(rounds) - 1))
        logger.info("Landed %s at %s", report.summary(), report.destination)
        try:
            spec.thresholds().check(report)
            refuse_bad_end(rounds, report)
        except VertexBatchError as error:
            return Finished(report, error)
        if quiet := only_unrepairable(report):
            logger.warning("%s.", quiet)
        return Finished(report)

    def _day(self) -> str:
        """Return the day of the rows: the spec's, or that on which the batch began, whenever it lands."""
        if day := self._spec.day():
            return day
        first = next(iter(self.log.entries()), None)
        return (first.at if first is not None else datetime.now(UTC)).astimezone(UTC).date().isoformat()
