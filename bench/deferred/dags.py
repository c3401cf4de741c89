"""A DAG of sensors, copied into the folder of a running Airflow. `bench.deferred.defer` says what they wait for."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_vertex_batch import VertexBatchJobSensor

#: As `bench.deferred` says: a DAG file can import nothing from there.
TASKS = 200

with DAG("waiting", schedule=None, max_active_runs=100, max_active_tasks=10_000):
    for number in range(TASKS):
        VertexBatchJobSensor(task_id=f"wait_{number}", jobs=[])
