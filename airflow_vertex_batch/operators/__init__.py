"""The steps as Airflow operators: preflight, prepare, create, repair, export, cancel, and all of them in one. Each
operator connects the engine to the hook. The decisions are in `core`.
"""

from airflow_vertex_batch.operators.batch import VertexBatchOperator
from airflow_vertex_batch.operators.create import VertexBatchCancelJobOperator, VertexBatchCreateJobOperator
from airflow_vertex_batch.operators.export import VertexBatchExportOperator
from airflow_vertex_batch.operators.preflight import VertexBatchPreflightOperator
from airflow_vertex_batch.operators.prepare import VertexBatchPrepareOperator
from airflow_vertex_batch.operators.repair import VertexBatchRepairOperator
from airflow_vertex_batch.operators.sweep import VertexBatchSweepOperator

__all__ = [
    "VertexBatchCancelJobOperator",
    "VertexBatchCreateJobOperator",
    "VertexBatchExportOperator",
    "VertexBatchOperator",
    "VertexBatchPreflightOperator",
    "VertexBatchPrepareOperator",
    "VertexBatchRepairOperator",
    "VertexBatchSweepOperator",
]
