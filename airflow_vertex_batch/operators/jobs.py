"""How does a task buy a job, or cancel one? Names in and names out; whether to pay is decided in `core.submit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.base import (
    COMMON_TEMPLATE_FIELDS,
    VertexBatchBaseOperator,
    attempt_token,
    failing,
    identity_of,
    texts,
)
from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.links import VertexBatchJobLink, VertexBatchOutputLink, addresses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_vertex_batch.core.model import JobSpec, Manifest


class VertexBatchCreateJobOperator(VertexBatchBaseOperator):
    """Create the batch prediction jobs of a manifest or of ready input, once, and return their names.

    The task owns at most one job for each request file. A retry, a crash, a clear or a second worker attaches to the
    job that exists; it is found by its labels even when nothing was recorded. A job that failed or was cancelled is
    bought again.

    :param model: ``gemini-…``, ``publishers/…/models/…``, or ``projects/…/locations/…/models/…`` for a tuned model.
        Templated.
    :param manifest: what the prepare task returned. Templated.
    :param input_uri: instead of a manifest: ``gs://….jsonl`` files (a list, or a glob), or one ``bq://`` table.
        Templated.
    :param output_uri: ``gs://`` folder, or ``bq://project.dataset[.table]``; a folder in the staging folder where not
        given. Each job of a manifest gets its own folder or table below it. Templated.
    :param display_name: readable name, up to 128 characters; dag, task and run where not given. Templated.
    :param labels: further job labels; keys and values of lower-case letters, digits, ``_`` and ``-``. Templated.
    :param on_changed_input: when this task's running job was made from other input: ``resubmit`` (default) cancels it
        and creates a new one, ``fail`` does nothing.
    :param settle_seconds: how long after an interrupted create call its job may still appear, 30 to 3600 seconds.
    :returns: full names of the jobs, in the order of the manifest's files; empty for an empty manifest.
    """

    template_fields: Sequence[str] = (
        *COMMON_TEMPLATE_FIELDS,
        *("model", "manifest", "input_uri", "output_uri", "display_name", "labels"),
    )
    operator_extra_links = (VertexBatchJobLink(), VertexBatchOutputLink())

    def __init__(
        self,
        *,
        model: str,
        manifest: Any = None,
        input_uri: str | Sequence[str] | None = None,
        output_uri: str | None = None,
        display_name: str | None = None,
        labels: dict[str, str] | None = None,
        on_changed_input: str = "resubmit",
        settle_seconds: float = 90.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model, self.manifest, self.input_uri, self.output_uri = model, manifest, input_uri, output_uri
        self.display_name, self.labels = display_name, labels
        self.on_changed_input, self.settle_seconds = on_changed_input, settle_seconds
        if (manifest is None) == (input_uri is None):
            raise InputError(f"Task {self.task_id} needs a manifest or an input_uri", todo="Give exactly one of them")
        if on_changed_input not in {"resubmit", "fail"}:
            raise InputError(f"on_changed_input={on_changed_input!r} is not known", todo="Use 'resubmit' or 'fail'")
        # One create call may take 30 s; before that is over, an absent job says nothing.
        if not 30 <= settle_seconds <= 3600:  # noqa: PLR2004 - the documented range
            raise InputError(f"settle_seconds={settle_seconds}", todo="Use 30 to 3600 seconds")

    def execute(self, context: Context) -> list[str]:
        """Create or attach, and return the job names."""
        with failing():
            from airflow_vertex_batch.core.ledger import Ledger
            from airflow_vertex_batch.core.purchase import purchases
            from airflow_vertex_batch.core.submit import OnChangedInput, ensure_job

            hook = self.hook()
            store, service, staging = hook.store(), hook.jobs(), self.staging()
            identity = identity_of(context)
            output = self.output_uri or str(staging / identity.path / "output")
            names = []
            for number, (spec, content) in enumerate(purchases(self._spec(context, output), self._manifest(), store)):
                owner = identity.of_shard(number)
                ensured = ensure_job(
                    spec,
                    identity_key=owner.key,
                    content=content,
                    ledger=Ledger(store, staging / "ledger" / owner.key, attempt_token()),
                    service=service,
                    settle_seconds=self.settle_seconds,
                    on_changed_input=OnChangedInput(self.on_changed_input),
                )
                names.append(ensured.job.name)
                self.push_links(context, addresses(jobs=names, folder=output))
            return names

    def _manifest(self) -> Manifest | None:
        from airflow_vertex_batch.core.model import Manifest

        return Manifest.from_dict(self.manifest) if self.manifest is not None else None

    def _spec(self, context: Context, output: str) -> JobSpec:
        from airflow_vertex_batch.core.model import JobSpec
        from airflow_vertex_batch.core.purchase import display_name, owner_labels

        identity = identity_of(context)
        return JobSpec(
            display_name=self.display_name or display_name(identity),
            model=self.model,
            inputs=texts(self.input_uri) if self.input_uri else (),
            output=output,
            labels={**owner_labels(identity), **(self.labels or {})},
        )


class VertexBatchCancelJobOperator(VertexBatchBaseOperator):
    """Cancel jobs. One that has ended already, or is gone, is no error. Rows that were answered stay, and stay billed.

    :param jobs: job names, or what the sensor returned. Templated.
    :returns: names of the jobs that were running and are now being cancelled.
    """

    template_fields: Sequence[str] = (*COMMON_TEMPLATE_FIELDS, "jobs")
    operator_extra_links = (VertexBatchJobLink(),)

    def __init__(self, *, jobs: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.jobs = jobs

    def execute(self, context: Context) -> list[str]:
        """Cancel, and return the names."""
        with failing():
            from airflow_vertex_batch.core.landing import job_names

            hook, names = self.hook(), job_names(self.jobs)
            self.push_links(context, addresses(jobs=[str(name) for name in names]))
            cancelled = [str(name) for name in names if hook.jobs(name).cancel(name)]
            self.log.info("Cancelling %s of %s jobs: %s", len(cancelled), len(names), cancelled)
            return cancelled
