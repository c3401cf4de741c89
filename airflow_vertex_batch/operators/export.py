"""How does a task land answers? Finished jobs go in; rows at the destination and a report come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_vertex_batch.core.domain.errors import InputError, VertexBatchError
from airflow_vertex_batch.core.landing.destination import DestinationArguments
from airflow_vertex_batch.edge.base import NOT_GIVEN, as_rendered, fail_or_retry, identity_of
from airflow_vertex_batch.links import VertexBatchJobLink, VertexBatchOutputLink, VertexBatchTableLink, addresses
from airflow_vertex_batch.operators.shared import (
    DestinationOperator,
    ReadingOperator,
    SchemaOperator,
    price_table,
    read_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, Unpack

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_vertex_batch.core.answers.report import Report, Thresholds
    from airflow_vertex_batch.core.answers.rounds import Round
    from airflow_vertex_batch.core.domain.address import JobName
    from airflow_vertex_batch.core.domain.job import BatchJob
    from airflow_vertex_batch.core.landing.record import LandPlan
    from airflow_vertex_batch.hooks import VertexBatchHook
    from airflow_vertex_batch.parameters import ExportSharedParameters, Text


class VertexBatchExportOperator(SchemaOperator, DestinationOperator, ReadingOperator):
    """Land the answers of finished jobs: in Cloud Storage as JSONL or Parquet, or in a BigQuery table.

    A row replaces the row of the same day and key, whichever run landed it; the other rows of the day stay. Files are
    ``<destination>/answers/partition_date=YYYY-MM-DD/answers-<id>.jsonl`` and, for dead letters, the same below
    ``dead-letters/``. All runs of a task for one day share these two files.

    Every request ends as exactly one row: with a good answer at the destination, or with its reason among the dead
    letters. If the task runs again, there is still one copy of each row. If a job did not end well, the task lands the
    rows that there are, and then fails.

    :param jobs: what the sensor returned, or job names. Templated.
    :param manifest: what the prepare task returned. If not given, the input of the jobs is read. Templated.
    :param repairs: what the repair task returned: the rounds that sent rows again. Templated.
    :param dead_letters: where rows without a good answer go: a ``gs://`` folder if `destination` is a folder, a
        ``bq://`` table if it is a table. If not given, they go beside the answers: to ``<destination>/dead-letters/``,
        or to the table ``<table>_dead_letters``. Templated.
    :param file_format: the format of files: ``jsonl`` (default) or ``parquet``.
    :param replace_partition: also remove rows of that day that this batch does not have, such as rows of other runs of
        that day. Set it for a table only if a single task fills the table. Files are safe: each task has its own.
    :param max_failed_ratio: the largest share of rows without a good answer, 0 to 1. Above it the task fails, after
        landing.
    :param min_succeeded_rows: the smallest number of rows with a good answer, 0 or more. Below it the task fails, after
        landing. If not given, the task fails when none of the rows that were sent has a good answer; if no row was
        sent, when no row at all has one. 0 lets such a night pass, as does a `max_failed_ratio` of 1. One kind of night
        passes with a warning: answers of earlier runs land (`skip_answered`), and all rows that were sent are rows that
        no repair can heal (blocked, ``INVALID_ARGUMENT`` and the like). Such rows are sent again every night.
    :returns: the report: counts by status, tokens and cost.
    """

    templated: ClassVar[tuple[str, ...]] = ("jobs", "manifest", "repairs", "dead_letters")
    operator_extra_links: Sequence[BaseOperatorLink] = (
        VertexBatchOutputLink(),
        VertexBatchTableLink(),
        VertexBatchJobLink(),
    )

    def __init__(
        self,
        *,
        jobs: Any,
        manifest: Any = NOT_GIVEN,
        repairs: Any = NOT_GIVEN,
        dead_letters: Text | None = None,
        file_format: Literal["jsonl", "parquet"] | None = None,
        replace_partition: bool = False,
        max_failed_ratio: float | None = None,
        min_succeeded_rows: int | None = None,
        **kwargs: Unpack[ExportSharedParameters],
    ) -> None:
        super().__init__(**kwargs)
        self.note_origins(jobs=jobs, manifest=manifest, repairs=repairs)
        self.jobs = jobs
        self.manifest, self.repairs = (None if value is NOT_GIVEN else value for value in (manifest, repairs))
        self.dead_letters, self.file_format = as_rendered(dead_letters), file_format
        self.replace_partition = replace_partition
        self.max_failed_ratio, self.min_succeeded_rows = max_failed_ratio, min_succeeded_rows
        if self.destination is None:
            raise InputError(
                f"Task {self.task_id} has no destination",
                todo="Set destination='gs://bucket/folder' for files, or destination='bq://project.dataset.table'",
            )
        self._arguments().check(self.task_id)
        self.thresholds()
        self.require("staging_uri")

    def execute(self, context: Context) -> dict[str, Any]:
        """Land, and return the report."""
        with fail_or_retry():
            from airflow_vertex_batch.core.answers.rounds import Round, read_jobs, read_round

            hook = self.hook()

            def get(name: JobName) -> BatchJob:
                return hook.jobs(name).get(name)

            first = Round(manifest=read_manifest(self.given("manifest")), jobs=read_jobs(self.given("jobs"), get))
            repairs = [read_round(value, get) for value in self.given("repairs") or ()]
            return self.land(context, hook, [first, *repairs]).as_dict()

    def land(self, context: Context, hook: VertexBatchHook, rounds: Sequence[Round]) -> Report:
        """Land the best answer of every row. Then raise an error if the batch did not end well.

        :raises LostOutputError: when an output does not hold what the service counted; nothing has landed.
        :raises ResultError: when too many rows have no good answer; all rows have landed.
        :raises JobError: when a job ended badly and left rows without an answer; the rows that it answered have landed.
        """
        from airflow_vertex_batch.core.answers.report import only_unrepairable
        from airflow_vertex_batch.core.landing.landing import Landing, landed_entry, refuse_bad_end

        store = hook.store()
        landing = Landing(
            rounds, store, hook.warehouse(), self._land_plan(context),
            schema=self.schema(), prices=price_table(store), on_lost_output=self.lost_output(),
        )  # fmt: skip
        destination = self._arguments().read(self.task_id, self.staging())
        jobs = [job for asked in rounds for job in asked.jobs]
        self.push_links(
            context,
            addresses(jobs=[job.name for job in jobs], destination=destination),
        )
        try:
            report = landing.land(destination)
        except VertexBatchError as error:
            error.supplement(
                left="The answers are safe where the jobs wrote them, and stay paid",
                todo="Then clear this task, if no retry is left: it lands them, and buys nothing",
            )
            raise
        self.log.info("Landed %s at %s\n%s", report.summary(), report.destination, report.text())
        context["ti"].xcom_push("report", report.as_dict())
        self.log_of(context, hook).add(landed_entry(report, len(rounds) - 1))
        self.thresholds().check(report)
        refuse_bad_end(rounds, report)
        if quiet := only_unrepairable(report):
            self.log.warning("%s.", quiet)
        return report

    def thresholds(self) -> Thresholds:
        """Return how many rows may fail."""
        from airflow_vertex_batch.core.answers.report import Thresholds

        return Thresholds.of(self.max_failed_ratio, self.min_succeeded_rows)

    def _land_plan(self, context: Context) -> LandPlan:
        from airflow_vertex_batch.core.landing.record import LandPlan

        return LandPlan.of(identity_of(context), self.day(context), replace_partition=self.replace_partition)

    def _arguments(self) -> DestinationArguments:
        return DestinationArguments(self.destination, self.project_id, self.dead_letters, self.file_format)
