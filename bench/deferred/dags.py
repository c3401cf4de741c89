"""DAGs of sensors that no worker begins, each for a job that the run names. Copied into a running Airflow's folder.

Airflow hands a trigger that begins without a worker its whole DAG, so these are small.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_vertex_batch import VertexBatchJobSensor

#: As `bench.deferred` says: a DAG file can import nothing from there.
DAGS, TASKS = 40, 5

for number in range(DAGS):
    with DAG(f"waiting_{number:02}", schedule=None, max_active_runs=100, max_active_tasks=1000):
        for task in range(TASKS):
            VertexBatchJobSensor(
                task_id=f"wait_{task}", jobs=f"{{{{ dag_run.conf['jobs'][{task}] }}}}", start_from_trigger=True
            )
