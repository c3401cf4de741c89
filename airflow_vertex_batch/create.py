"""The step that pays: create the jobs of a manifest, once, and within the budget."""

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
from airflow_vertex_batch.budget import BudgetGate, price_table
from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.links import VertexBatchJobLink, VertexBatchOutputLink, addresses

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.sdk import Context

    from airflow_vertex_batch.core.estimate import Budget
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
    :param max_cost_usd: the most the batch may cost, US dollars; no limit where not given. The upper figure of the
        estimate is compared with it before anything is paid, so set ``maxOutputTokens`` too. A retry or a clear that
        only attaches to a job always passes. Needs a manifest.
    :param on_over_budget: above the limit, or when the cost is not known: ``fail`` (default), ``skip`` this task, or
        ``ask`` a person to approve in the Airflow UI. An approval holds for retries of the same batch.
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
        max_cost_usd: float | None = None,
        on_over_budget: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model, self.manifest, self.input_uri, self.output_uri = model, manifest, input_uri, output_uri
        self.display_name, self.labels = display_name, labels
        self.on_changed_input, self.settle_seconds = on_changed_input, settle_seconds
        self.max_cost_usd, self.on_over_budget = max_cost_usd, on_over_budget
        self._check()

    def _check(self) -> None:
        """Find what is wrong where the author is looking: when the DAG file is read."""
        manifest, input_uri = self.manifest, self.input_uri
        on_changed_input, settle_seconds = self.on_changed_input, self.settle_seconds
        if (manifest is None) == (input_uri is None):
            raise InputError(f"Task {self.task_id} needs a manifest or an input_uri", todo="Give exactly one of them")
        if on_changed_input not in {"resubmit", "fail"}:
            raise InputError(f"on_changed_input={on_changed_input!r} is not known", todo="Use 'resubmit' or 'fail'")
        # One create call may take 30 s; before that is over, an absent job says nothing.
        if not 30 <= settle_seconds <= 3600:  # noqa: PLR2004 - the documented range
            raise InputError(f"settle_seconds={settle_seconds}", todo="Use 30 to 3600 seconds")
        if self._budget() and input_uri is not None:
            raise InputError(
                f"Task {self.task_id} has max_cost_usd and an input_uri",
                why="what ready input weighs is not known before it is sent",
                todo="Give the files to VertexBatchPrepareOperator(requests=…) and its manifest to this task, or drop "
                "the limit",
            )

    def execute(self, context: Context) -> list[str]:
        """Create or attach, and return the job names."""
        with failing():
            from airflow_vertex_batch.core.submit import ensure_job

            hook, staging = self.hook(), self.staging()
            store, manifest = hook.store(), self._manifest()
            output = self.output_uri or str(staging / identity_of(context).path / "output")
            orders = list(self._orders(context, store, hook.jobs(), output))
            if manifest is not None:
                self._check_budget(context, manifest, store, orders)
            names: list[str] = []
            for order in orders:
                names.append(ensure_job(**order).job.name)
                self.push_links(context, addresses(jobs=names, folder=output))
            return names

    def execute_complete(self, context: Context, event: dict[str, Any], question: str) -> list[str]:
        """Go on with a person's answer to `question`."""
        with failing():
            self._gate(context, self.hook().store()).take_answer(event, question)
        return self.execute(context)

    def _orders(self, context: Context, store: Any, service: Any, output: str) -> Iterator[dict[str, Any]]:
        """Yield the arguments of `ensure_job` for each job of this task."""
        from airflow_vertex_batch.core.ledger import Ledger
        from airflow_vertex_batch.core.purchase import purchases
        from airflow_vertex_batch.core.submit import OnChangedInput

        identity, ledgers = identity_of(context), self.staging() / "ledger"
        for number, (spec, content) in enumerate(purchases(self._spec(context, output), self._manifest(), store)):
            owner = identity.of_shard(number)
            yield {
                "spec": spec,
                "identity_key": owner.key,
                "content": content,
                "ledger": Ledger(store, ledgers / owner.key, attempt_token()),
                "service": service,
                "settle_seconds": self.settle_seconds,
                "on_changed_input": OnChangedInput(self.on_changed_input),
            }

    def _check_budget(self, context: Context, manifest: Manifest, store: Any, orders: list[dict[str, Any]]) -> None:
        """Say what the batch will cost, and stop above the limit when any of its jobs has yet to be paid."""
        from airflow_vertex_batch.core.estimate import estimate_cost
        from airflow_vertex_batch.core.submit import would_buy

        estimate = estimate_cost(manifest, self.model, price_table(store))
        self.log.info("%s.", estimate)
        context["ti"].xcom_push("estimate", estimate.as_dict())
        self._gate(context, store).check(
            context,
            estimate,
            purchase=manifest.fingerprint,
            would_buy=lambda: any(would_buy(**order) for order in orders),
        )

    def _gate(self, context: Context, store: Any) -> BudgetGate:
        return BudgetGate(self._budget(), store, self.staging(), identity_of(context))

    def _budget(self) -> Budget | None:
        from airflow_vertex_batch.core.estimate import Budget

        return Budget.of(self.max_cost_usd, self.on_over_budget)

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
