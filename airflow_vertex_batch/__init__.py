"""Apache Airflow provider for nightly Gemini batches on Vertex AI: prepare, create, wait, export.

Importing this package loads neither Airflow nor Google; the public names below load their module when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_vertex_batch.hooks import VertexBatchHook as VertexBatchHook
    from airflow_vertex_batch.macros import partition_date as partition_date
    from airflow_vertex_batch.operators import VertexBatchCancelJobOperator as VertexBatchCancelJobOperator
    from airflow_vertex_batch.operators import VertexBatchCreateJobOperator as VertexBatchCreateJobOperator
    from airflow_vertex_batch.operators import VertexBatchExportOperator as VertexBatchExportOperator
    from airflow_vertex_batch.operators import VertexBatchOperator as VertexBatchOperator
    from airflow_vertex_batch.operators import VertexBatchPreflightOperator as VertexBatchPreflightOperator
    from airflow_vertex_batch.operators import VertexBatchPrepareOperator as VertexBatchPrepareOperator
    from airflow_vertex_batch.operators import VertexBatchRepairOperator as VertexBatchRepairOperator
    from airflow_vertex_batch.operators import VertexBatchSweepOperator as VertexBatchSweepOperator
    from airflow_vertex_batch.operators.group import vertex_batch as vertex_batch
    from airflow_vertex_batch.sensors import VertexBatchJobSensor as VertexBatchJobSensor
    from airflow_vertex_batch.triggers import VertexBatchJobTrigger as VertexBatchJobTrigger

__version__ = "0.1.0"

_MODULE_OF = {
    "VertexBatchCancelJobOperator": "operators",
    "VertexBatchCreateJobOperator": "operators",
    "VertexBatchExportOperator": "operators",
    "VertexBatchHook": "hooks",
    "VertexBatchJobSensor": "sensors",
    "VertexBatchJobTrigger": "triggers",
    "VertexBatchOperator": "operators",
    "VertexBatchPreflightOperator": "operators",
    "VertexBatchPrepareOperator": "operators",
    "VertexBatchRepairOperator": "operators",
    "VertexBatchSweepOperator": "operators",
    "partition_date": "macros",
    "vertex_batch": "operators.group",
}
__all__ = [*sorted(_MODULE_OF), "__version__"]  # noqa: PLE0604 - built from the one table of public names


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
