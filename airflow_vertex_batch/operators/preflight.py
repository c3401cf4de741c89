"""Will tonight's batch run? This is asked before anything is prepared. The checks are in `core.upkeep.preflight`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.unrendered import check_cloud_address, check_labels, check_output, refuse_idle
from airflow_vertex_batch.edge.base import as_rendered, fail_or_retry
from airflow_vertex_batch.operators.shared import DestinationOperator, ModelOperator, SchemaOperator

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Unpack

    from airflow.sdk import Context
    from airflow.sdk.definitions.xcom_arg import XComArg

    from airflow_vertex_batch.core.upkeep.preflight import Canary, Plan, Report
    from airflow_vertex_batch.hooks import VertexBatchHook
    from airflow_vertex_batch.parameters import PrepareSharedParameters, Text


class VertexBatchPreflightOperator(ModelOperator, SchemaOperator, DestinationOperator):
    """Find, in seconds, faults that would make a batch fail hours later: credentials, API, model and location, buckets,
    datasets, the service agent's rights, labels. Nothing is created. Nothing is paid, except for the canary.

    The task fails at once, without retries, when a check failed. Warnings and unknown results go to its log.

    :param source_uri: what prepare will read: ``bq://`` table, or ``gs://`` files. Templated.
    :param input_uri: what the job will read, if it reads ready input and not prepared files: ``gs://`` files or one
        ``bq://`` table. Templated.
    :param output_uri: where the job will write, if it does not write to the staging folder. Templated.
    :param labels: your own labels of the job. Templated.
    :param display_name: the job's name, up to 128 characters. Templated.
    :param canary: send one row to the model online, at the online price, and judge its answer like the answer of a
        batch row.
    :param canary_row: the row for the canary, a dict of the columns that `prompt` names. Templated.
    :param prompt: the batch's own prompt, a Jinja template over the row; ``Hello`` if not given.
    :param prompt_variables: the batch's own: further names for `prompt`. Templated.
    :param system_instruction: the batch's own. Templated.
    :param generation_config: the batch's own. Templated.
    :param allowed_failures: names of checks that only warn when they fail, such as ``["model"]``.
    :returns: counts by verdict, the texts of the checks that were not ok, and how many seconds the checks took.
    """

    templated: ClassVar[tuple[str, ...]] = (
        *("source_uri", "input_uri", "output_uri", "labels", "display_name"),
        *("canary_row", "prompt_variables", "system_instruction", "generation_config"),
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"generation_config": "json"}

    def __init__(
        self,
        *,
        source_uri: str | None = None,
        input_uri: str | None = None,
        output_uri: Text | None = None,
        labels: dict[str, str] | XComArg | None = None,
        display_name: Text | None = None,
        canary: bool = False,
        canary_row: dict[str, Any] | None = None,
        prompt: Text = "",
        prompt_variables: Mapping[str, Any] | XComArg | None = None,
        system_instruction: Text | dict[str, Any] | None = None,
        generation_config: dict[str, Any] | XComArg | None = None,
        allowed_failures: Collection[str] = (),
        **kwargs: Unpack[PrepareSharedParameters],
    ) -> None:
        super().__init__(**kwargs)
        self.source_uri, self.input_uri, self.output_uri = source_uri, input_uri, as_rendered(output_uri)
        self.labels, self.display_name = as_rendered(labels), as_rendered(display_name)
        self.canary, self.canary_row, self.prompt = canary, canary_row, as_rendered(prompt)
        self.prompt_variables = as_rendered(prompt_variables)
        self.system_instruction, self.generation_config = (
            as_rendered(system_instruction),
            as_rendered(generation_config),
        )
        self.allowed_failures = tuple(allowed_failures)
        check_output(output_uri, "output_uri")
        check_cloud_address(input_uri, "input_uri")
        check_labels(labels)
        self._check()
        self.require("staging_uri", "location")

    def _check(self) -> None:
        from airflow_vertex_batch.core.requests.prompt import compile_prompt
        from airflow_vertex_batch.core.upkeep.preflight import CHECKS

        if not self.model:
            raise InputError(f"Task {self.task_id} has no model", todo="Set model='gemini-…'")
        known = dict.fromkeys(check.name for check in CHECKS)
        if unknown := [name for name in self.allowed_failures if name not in known]:
            raise InputError(f"allowed_failures has {unknown[0]!r}, which is no check", todo=f"Use {', '.join(known)}")
        if not self.canary:
            names = ("prompt", "prompt_variables", "system_instruction", "generation_config", "response_schema")
            given = {name: getattr(self, name) for name in names}
            refuse_idle(self.task_id, given, why="Only a canary asks with it", todo="Set canary=True, or leave it out")
        if self.canary_row is not None and not (self.canary and self.prompt):
            raise InputError(f"Task {self.task_id} has a canary_row to no end", todo="Set canary=True and the prompt")
        if self.prompt:
            compile_prompt(self.prompt, {})

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the checks."""
        from airflow_vertex_batch.core.upkeep.preflight import preflight

        with fail_or_retry():
            if self.destination is not None:
                self.day(context)
            hook = self.hook()
            report = preflight(self._plan(hook), hook.doctor())
            self.log.info("Preflight of %s in %s:\n%s", report.model, report.location, report.text())
            if (error := report.error(self.allowed_failures)) is not None:
                raise error
            return self._summary(report)

    def _summary(self, report: Report) -> dict[str, Any]:
        from airflow_vertex_batch.core.upkeep.preflight import Verdict

        found = {
            verdict: [str(each) for each in report.of(verdict)] for verdict in Verdict if verdict is not Verdict.OK
        }
        for text in (*found[Verdict.FAILED], *found[Verdict.WARNING]):
            self.log.warning("%s", text)
        return {"verdicts": report.counts(), **{str(name): texts for name, texts in found.items()}} | {
            "seconds": report.seconds
        }

    def _plan(self, hook: VertexBatchHook) -> Plan:
        from airflow_vertex_batch.core.upkeep.preflight import Plan

        return Plan(
            project=hook.project,
            location=hook.location,
            model=str(self.model),
            staging=str(self.staging()),
            source=self.source_uri or "",
            destination=destination.uri if (destination := self.lands_at()) is not None else "",
            input=self.input_uri or "",
            output=self.output_uri or "",
            labels=self.labels or {},
            display_name=self.display_name or "",
            canary=self._canary() if self.canary else None,
        )

    def _canary(self) -> Canary:
        from airflow_vertex_batch.core.requests.request import RequestTemplate
        from airflow_vertex_batch.core.upkeep.preflight import Canary

        template = RequestTemplate(
            prompt=self.prompt or "Hello",
            system_instruction=self.system_instruction,
            generation_config=self.generation_config or {},
            response_schema=self.schema(),
            variables=dict(self.prompt_variables or {}),
        )
        return Canary(template=template, row=self.canary_row or {})
