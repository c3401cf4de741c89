"""How does one task do all steps? It prepares, creates, waits, repairs and lands with the same core as the single
steps.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from airflow_vertex_batch.links import VertexBatchJobLink, VertexBatchOutputLink, VertexBatchTableLink
from airflow_vertex_batch.operators.export import VertexBatchExportOperator
from airflow_vertex_batch.operators.prepare import VertexBatchPrepareOperator
from airflow_vertex_batch.operators.repair import RoundsOperator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Unpack

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_vertex_batch.core.answers.rounds import Round
    from airflow_vertex_batch.core.batch import Batch
    from airflow_vertex_batch.core.progress import Policy
    from airflow_vertex_batch.hooks import VertexBatchHook
    from airflow_vertex_batch.parameters import BatchParameters

#: Arguments that the single steps pass to each other. This task sets them itself, so nobody can give them.
_SET_INSIDE = frozenset({"jobs", "manifest", "repairs"})


class VertexBatchOperator(VertexBatchPrepareOperator, RoundsOperator, VertexBatchExportOperator):
    """The whole life of a batch in one task: prepare, create, wait in the triggerer, repair, land. Can be mapped.

    It takes the parameters of the steps. A retry goes on from the set that the first attempt prepared, even if the
    source has changed; only a clear reads the source again. The retry attaches to the jobs that exist, and lands the
    same rows once. After a job that ended badly, the next attempt sends only the rows that this job did not answer.

    :returns: the report: counts by status, tokens and cost.
    """

    template_fields_renderers: ClassVar[dict[str, str]] = VertexBatchPrepareOperator.template_fields_renderers
    set_inside: ClassVar[frozenset[str]] = _SET_INSIDE
    operator_extra_links: Sequence[BaseOperatorLink] = (
        VertexBatchJobLink(),
        VertexBatchOutputLink(),
        VertexBatchTableLink(),
    )

    def __init__(self, **kwargs: Unpack[BatchParameters]) -> None:
        given: dict[str, Any] = {**kwargs, "jobs": ()}
        super().__init__(**given)
        if not self.repair_rounds:
            from airflow_vertex_batch.core.answers.repair import refuse_idle_repair

            refuse_idle_repair(self.task_id, self.repair_policy(), self.repair_rounds, self.on_clear)

    def batch(self, context: Context, hook: VertexBatchHook, **parts: Any) -> Batch:
        """Return the batch. This task prepares it too."""
        return super().batch(context, hook, **{"prepare": partial(self.prepare, context, hook), **parts})

    def policy(self, hook: VertexBatchHook) -> Policy:
        """Return the author's settings for the batch."""
        from airflow_vertex_batch.core.landing.on_empty import OnEmpty

        return msgspec.structs.replace(super().policy(hook), on_empty=OnEmpty(self.on_empty))

    execute = RoundsOperator.execute

    def finish(self, context: Context, hook: VertexBatchHook, rounds: Sequence[Round]) -> dict[str, Any]:
        """Land the rows, and return the report."""
        return self.land(context, hook, rounds).as_dict()
