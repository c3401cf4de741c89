"""How does a task buy a job, or cancel one? A manifest or file names go in, job names come out. `core.purchase.submit`
decides whether to pay.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.unrendered import check_cloud_address
from airflow_vertex_batch.edge.asking import ask
from airflow_vertex_batch.edge.base import VertexBatchBaseOperator, fail_or_retry, skip
from airflow_vertex_batch.links import VertexBatchJobLink, VertexBatchOutputLink, addresses
from airflow_vertex_batch.operators.shared import BuyingOperator, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Unpack

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_vertex_batch.core.domain.job import BatchJob
    from airflow_vertex_batch.core.domain.manifest import Manifest
    from airflow_vertex_batch.core.progress import Attempt
    from airflow_vertex_batch.hooks import VertexBatchHook
    from airflow_vertex_batch.parameters import CreateSharedParameters, NamedCommonParameters


class VertexBatchCreateJobOperator(BuyingOperator):
    """Create the batch prediction jobs of a manifest or of ready input, once, and return their names.

    The task owns at most one job for each request file. After a retry, a crash or a clear, and in a second worker, the
    task attaches to the job that exists. It finds the job by its labels, even if nothing was recorded. A job that ended
    badly without a row is bought again. A job that answered rows is bought again only after a clear with
    ``on_clear="new"``.

    :param manifest: what the prepare task returned. Templated.
    :param input_uri: instead of a manifest: ``gs://….jsonl`` files (a list, or a glob), or one ``bq://`` table.
        Templated.
    :returns: full names of the jobs, in the order of the manifest's files; empty for an empty manifest.
    """

    templated: ClassVar[tuple[str, ...]] = ("manifest", "input_uri")
    operator_extra_links: Sequence[BaseOperatorLink] = (VertexBatchJobLink(), VertexBatchOutputLink())

    def __init__(
        self,
        *,
        manifest: Any = None,
        input_uri: str | Sequence[str] | None = None,
        **kwargs: Unpack[CreateSharedParameters],
    ) -> None:
        super().__init__(**kwargs)
        given = {"manifest": manifest, "input_uri": input_uri}
        self.note_origins(**{name: value for name, value in given.items() if value is not None})
        self.manifest, self.input_uri = manifest, input_uri
        for uri in input_uri if isinstance(input_uri, list | tuple) else (input_uri,):
            check_cloud_address(uri, "input_uri")
        if (manifest is None) == (input_uri is None):
            raise InputError(f"Task {self.task_id} needs a manifest or an input_uri", todo="Give exactly one of them")

        if self.budget() and input_uri is not None:
            raise InputError(
                f"Task {self.task_id} has max_cost_usd and an input_uri",
                why="What ready input weighs is not known before it is sent",
                todo="Give the files to VertexBatchPrepareOperator(requests=…) and its manifest to this task, or drop "
                "the limit",
            )

    def execute(self, context: Context) -> list[str]:
        """Create or attach, and return the job names."""
        from airflow_vertex_batch.core.progress import Attempt

        with fail_or_retry():
            return self.go_on(context, Attempt())

    def go_on(self, context: Context, attempt: Attempt, *, since: float | None = None) -> list[str]:  # noqa: ARG002 - no wait
        """Buy the jobs, or ask a person first. Meanwhile this attempt is responsible for the jobs."""
        from airflow_vertex_batch.core.domain.catalog import notices

        hook = self.hook()
        with self.responsible_for_jobs(context, hook):
            manifest = read_manifest(self.given("manifest"))
            if manifest is not None:
                return self._buy_set(context, hook, manifest, attempt)
            for notice in notices(str(self.model), datetime.now(UTC)):
                self.log.warning("%s.", notice)
            return self._names_with_links(context, self.buyer(context, hook, self.given("input_uri")).buy(None))

    def _buy_set(self, context: Context, hook: VertexBatchHook, manifest: Manifest, attempt: Attempt) -> list[str]:
        from airflow_vertex_batch.core.progress import Ask, Done, Skip

        match self.batch(context, hook, base=manifest, only_buys=True).advance(attempt):
            case Ask() as step:
                ask(context, step)
            case Skip(why):
                skip(context, why)
            case Done(rounds):
                names = self._names_with_links(context, rounds[0].jobs)
                if not names:
                    self.log.info("No job is created: nothing is to be sent. %s.", manifest.summary())
                return names
        raise AssertionError

    def _names_with_links(self, context: Context, jobs: Iterable[BatchJob]) -> list[str]:
        """Return the names of jobs. Store the link to each job as soon as its name is known."""
        names: list[str] = []
        for job in jobs:
            names.append(job.name)
            self.push_links(context, addresses(jobs=names, folder=self.output_of(context)))
        return names

    def on_kill(self) -> None:
        """Name the jobs that were bought so far. They go on, because the person who ended the task may not have meant
        them.
        """
        from airflow_vertex_batch.edge.cancelling import ENDED

        if self._responsible_hook is not None:
            self.tell_of_running(ENDED)
        super().on_kill()


class VertexBatchCancelJobOperator(VertexBatchBaseOperator):
    """Cancel jobs. A job that has ended already, or does not exist any more, is not an error. Rows that were answered
    stay and are billed.

    :param jobs: job names, or what the sensor returned. Templated.
    :returns: names of the jobs that were running and are now being cancelled.
    """

    templated: ClassVar[tuple[str, ...]] = ("jobs",)
    operator_extra_links: Sequence[BaseOperatorLink] = (VertexBatchJobLink(),)

    def __init__(self, *, jobs: Any, **kwargs: Unpack[NamedCommonParameters]) -> None:
        super().__init__(**kwargs)
        self.note_origins(jobs=jobs)
        self.jobs = jobs

    def execute(self, context: Context) -> list[str]:
        """Cancel, and return the names."""
        with fail_or_retry():
            from airflow_vertex_batch.core.domain.address import job_names

            hook, names = self.hook(), job_names(self.given("jobs"))
            self.push_links(context, addresses(jobs=[str(name) for name in names]))
            cancelled = [str(name) for name in names if hook.jobs(name).cancel(name)]
            self.log.info("Cancelling %s of %s jobs: %s", len(cancelled), len(names), cancelled)
            return cancelled
