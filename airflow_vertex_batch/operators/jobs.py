"""How does a task buy a job, or cancel one? Names in and names out; whether to pay is decided in `core.submit`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.base import COMMON_TEMPLATE_FIELDS, VertexBatchBaseOperator, failing
from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.core.unrendered import check_cloud_address
from airflow_vertex_batch.links import VertexBatchJobLink, VertexBatchOutputLink, addresses
from airflow_vertex_batch.operators.shared import BuyingOperator, read_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_vertex_batch.hooks import VertexBatchHook


class VertexBatchCreateJobOperator(BuyingOperator):
    """Create the batch prediction jobs of a manifest or of ready input, once, and return their names.

    The task owns at most one job for each request file. A retry, a crash, a clear or a second worker attaches to the
    job that exists; it is found by its labels even when nothing was recorded. A job that ended badly without a row is
    bought again; one that answered rows only after a clear with ``on_clear="new"``.

    :param manifest: what the prepare task returned. Templated.
    :param input_uri: instead of a manifest: ``gs://….jsonl`` files (a list, or a glob), or one ``bq://`` table.
        Templated.
    :returns: full names of the jobs, in the order of the manifest's files; empty for an empty manifest.
    """

    template_fields: Sequence[str] = (
        *COMMON_TEMPLATE_FIELDS,
        *("model", "manifest", "input_uri", "output_uri", "display_name", "labels"),
    )
    operator_extra_links: Sequence[BaseOperatorLink] = (VertexBatchJobLink(), VertexBatchOutputLink())

    def __init__(self, *, manifest: Any = None, input_uri: str | Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        given = {"manifest": manifest, "input_uri": input_uri}
        self.wire(**{name: value for name, value in given.items() if value is not None})
        self.manifest, self.input_uri = manifest, input_uri
        for uri in input_uri if isinstance(input_uri, list | tuple) else (input_uri,):
            check_cloud_address(uri, "input_uri")
        if (manifest is None) == (input_uri is None):
            raise InputError(f"Task {self.task_id} needs a manifest or an input_uri", todo="Give exactly one of them")

        if self.budget() and input_uri is not None:
            raise InputError(
                f"Task {self.task_id} has max_cost_usd and an input_uri",
                why="what ready input weighs is not known before it is sent",
                todo="Give the files to VertexBatchPrepareOperator(requests=…) and its manifest to this task, or drop "
                "the limit",
            )

    def execute(self, context: Context) -> list[str]:
        """Create or attach, and return the job names."""
        with failing():
            hook = self.hook()
            with self.answering(context, hook):
                return self._buy(context, hook)

    def _buy(self, context: Context, hook: VertexBatchHook) -> list[str]:
        from airflow_vertex_batch.core.catalog import notices
        from airflow_vertex_batch.core.submit import Reuse

        manifest = read_manifest(self.given("manifest"))
        buyer = self.buyer(context, hook, self.given("input_uri"))
        if manifest is not None:
            self.check_budget(context, manifest, buyer, Reuse.WITH_ROWS)
        else:
            self.warn(notices(str(self.model), datetime.now(UTC)))
        names: list[str] = []
        for job in buyer.buy(manifest):
            names.append(job.name)
            self.push_links(context, addresses(jobs=names, folder=self.output_of(context)))
        if manifest is not None and not names:
            self.log.info("No job is created: nothing is to be sent. %s.", manifest.summary())
        return names

    def on_kill(self) -> None:
        """Name the jobs that were bought so far: whoever ended the task may not have meant them, so they run on."""
        from airflow_vertex_batch.killing import ENDED

        if self._answers_with is not None:
            self.tell_of_running(ENDED)
        super().on_kill()

    def execute_answered(self, context: Context, event: dict[str, Any], question: str) -> list[str]:
        """Go on with a person's answer to `question`."""
        with failing():
            self.gate(context, self.hook().store()).take_answer(event, question)
        return self.execute(context)


class VertexBatchCancelJobOperator(VertexBatchBaseOperator):
    """Cancel jobs. One that has ended already, or is gone, is no error. Rows that were answered stay, and stay billed.

    :param jobs: job names, or what the sensor returned. Templated.
    :returns: names of the jobs that were running and are now being cancelled.
    """

    template_fields: Sequence[str] = (*COMMON_TEMPLATE_FIELDS, "jobs")
    operator_extra_links: Sequence[BaseOperatorLink] = (VertexBatchJobLink(),)

    def __init__(self, *, jobs: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wire(jobs=jobs)
        self.jobs = jobs

    def execute(self, context: Context) -> list[str]:
        """Cancel, and return the names."""
        with failing():
            from airflow_vertex_batch.core.address import job_names

            hook, names = self.hook(), job_names(self.given("jobs"))
            self.push_links(context, addresses(jobs=[str(name) for name in names]))
            cancelled = [str(name) for name in names if hook.jobs(name).cancel(name)]
            self.log.info("Cancelling %s of %s jobs: %s", len(cancelled), len(names), cancelled)
            return cancelled
