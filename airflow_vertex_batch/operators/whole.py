"""How does one task do it all? Prepare, create, wait, repair and land through the same core as the single steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_vertex_batch.base import failing
from airflow_vertex_batch.core.unrendered import refuse_idle
from airflow_vertex_batch.links import VertexBatchJobLink, VertexBatchOutputLink, VertexBatchTableLink
from airflow_vertex_batch.operators.export import VertexBatchExportOperator
from airflow_vertex_batch.operators.prepare import VertexBatchPrepareOperator
from airflow_vertex_batch.operators.repair import RoundsOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_vertex_batch.core.course import Course, Progress
    from airflow_vertex_batch.core.landing import Round
    from airflow_vertex_batch.core.model import Manifest
    from airflow_vertex_batch.hooks import VertexBatchHook

#: What the steps pass to each other, and this task keeps to itself.
_WIRED = {"jobs", "manifest", "repairs"}


class VertexBatchOperator(VertexBatchPrepareOperator, RoundsOperator, VertexBatchExportOperator):
    """The whole life of a batch in one task: prepare, create, wait in the triggerer, repair, land. Can be mapped.

    It takes the parameters of the steps. A retry goes on from the set that the first attempt prepared, whatever the
    source holds by then; only a clear reads the source again. It attaches to the jobs that exist, and lands the same
    rows once. After a job that ended badly, the next attempt sends only the rows that it did not answer.

    :returns: the report: counts by status, tokens and cost.
    """

    template_fields: Sequence[str] = tuple(
        dict.fromkeys(
            name
            for name in (
                *VertexBatchPrepareOperator.template_fields,
                *("output_uri", "display_name", "labels"),
                *VertexBatchExportOperator.template_fields,
            )
            if name not in _WIRED
        )
    )
    template_fields_renderers: ClassVar[dict[str, str]] = VertexBatchPrepareOperator.template_fields_renderers
    operator_extra_links: Sequence[BaseOperatorLink] = (
        VertexBatchJobLink(),
        VertexBatchOutputLink(),
        VertexBatchTableLink(),
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "jobs": ()})
        if not self.repair_rounds and self.on_clear != "repair":
            given = {
                "repair_actions": self.repair_actions,
                "repair_by": None if self.repair_by == "requests" else self.repair_by,
                "repair_max_output_tokens": self.repair_max_output_tokens != 65_536,  # noqa: PLR2004 - the default
            }
            todo = "Set repair_rounds, or on_clear='repair'"
            refuse_idle(self.task_id, given, why="it has no repair round", todo=todo)

    def execute(self, context: Context) -> dict[str, Any]:
        """Go through the whole course, and return the report."""
        with failing():
            return self.go_on(context, fresh=True, complete=True)  # type: ignore[no-any-return]

    def step(self, context: Context, hook: VertexBatchHook, course: Course, *, fresh: bool, complete: bool) -> Progress:
        """Prepare in a first attempt or after a clear; else go on from the set that there is."""
        from airflow_vertex_batch.core.address import Uri
        from airflow_vertex_batch.core.prepare import read_manifest
        from airflow_vertex_batch.core.submit import Reuse

        reuse = Reuse.WITH_ROWS if complete else Reuse.ANY
        if fresh:
            manifest = self._first_set(context, hook, course)
        else:
            manifest = read_manifest(hook.store(), Uri.parse(course.base_uri))
        self.check_budget(context, manifest, course.buyer, reuse)
        return course.advance(manifest, reuse=reuse, complete=complete)

    def _first_set(self, context: Context, hook: VertexBatchHook, course: Course) -> Manifest:
        """Begin the course, or go on with it as a retry."""
        start = self.start(context)
        if (found := course.base_of_retry(start.generation)) is not None:
            self.log.info("This retry goes on from %s; the source is not read again.", found.uri)
            return found
        manifest = self.prepare(context, hook)
        course.begin(manifest, start)
        self.see_to_emptiness(context, manifest, course.leave_all)
        return manifest

    def finish(self, context: Context, hook: VertexBatchHook, rounds: Sequence[Round]) -> dict[str, Any]:
        """Land."""
        return self.land(context, hook, rounds).as_dict()
