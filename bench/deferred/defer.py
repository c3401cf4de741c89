"""How are two thousand tasks deferred without two thousand workers? Their rows are written as Airflow writes them when
a worker defers (`TIDeferredStatePayload` in its execution API, 3.3.2).

A program for Airflow's environment: task ids and jobs as JSON in the standard input, the run as argument. A task
without a job gets a trigger of Airflow's own that waits for tomorrow.
"""

from __future__ import annotations

import json
import sys


def main(run_id: str, jobs: dict[str, str | None]) -> None:
    """Put the tasks of a run of a paused DAG into the hands of the triggerer."""
    from datetime import timedelta

    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.providers.standard.triggers.temporal import DateTimeTrigger
    from airflow.utils.session import create_session
    from airflow.utils.timezone import utcnow
    from sqlalchemy import update

    from airflow_vertex_batch.triggers import VertexBatchJobTrigger

    with create_session() as session:
        for task_id, job in jobs.items():
            waits = VertexBatchJobTrigger([job]) if job else DateTimeTrigger(utcnow() + timedelta(days=1))
            trigger = Trigger(*waits.serialize())
            session.add(trigger)
            session.flush()
            session.execute(
                update(TaskInstance)
                .where(TaskInstance.run_id == run_id, TaskInstance.task_id == task_id)
                .values(
                    state="deferred",
                    trigger_id=trigger.id,
                    next_method="execute_complete",
                    next_kwargs={},
                    try_number=1,
                    start_date=utcnow(),
                )
            )
        session.execute(update(DagRun).where(DagRun.run_id == run_id).values(state="running", start_date=utcnow()))


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin))
