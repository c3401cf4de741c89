"""The steps as Airflow operators: prepare, create, export, cancel. Each plugs the engine to the hook; the decisions are
in `core`.
"""

from airflow_vertex_batch.operators.export import VertexBatchExportOperator
from airflow_vertex_batch.operators.jobs import VertexBatchCancelJobOperator, VertexBatchCreateJobOperator
from airflow_vertex_batch.operators.prepare import VertexBatchPrepareOperator

__all__ = [
    "VertexBatchCancelJobOperator",
    "VertexBatchCreateJobOperator",
    "VertexBatchExportOperator",
    "VertexBatchPrepareOperator",
]
