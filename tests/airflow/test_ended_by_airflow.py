"""Airflow ends an attempt or a run while the job waits for its turn: the books say what became of the job, and the log
says which one was left.
"""

from __future__ import annotations

import pytest

EVERY = ("limit_deferred", "limit_from_trigger", "limit_run", "limit_run_worker", "refused_cancel")
#: The same moment as if the time were over: what Airflow looks at is moved two days back.
_RUN_IS_OVER = "UPDATE dag_run SET start_date = start_date - interval '2 days' WHERE dag_id = :dag_id"
_WAIT_IS_OVER = (
    "UPDATE task_instance SET trigger_timeout = now() - interval '1 second' "
    "WHERE dag_id = :dag_id AND task_id = 'batch'"
)


@pytest.fixture(scope="module")
def runs(stack):
    """Begin a run of each DAG, whose job stays in the queue; return their ids."""
    from tests.airflow.conftest import Cloud

    hold = {"do": "hold", "state": "JOB_STATE_PENDING", "from_pending": True, "times": None}
    faults = [{**hold, "labels": {"airflow-dag": dag_id}} for dag_id in EVERY]
    refusal = {"do": "http", "on": "cancel", "status": 503, "times": None, "labels": {"airflow-dag": "refused_cancel"}}
    client, cloud = stack.airflow.client, Cloud(stack)
    with cloud.misbehaving([*faults, refusal]):
        found = {}
        for dag_id in EVERY:
            client.wait_for_dag(dag_id)
            client.unpause(dag_id)
            found[dag_id] = client.trigger(dag_id)
        yield found
        for dag_id, run_id in found.items():
            client.set_run_state(dag_id, run_id, "failed")


@pytest.fixture
def said(airflow, runs):
    """Wait until the log of some attempt says something."""

    def wait(dag_id, words):
        where = (dag_id, runs[dag_id], "batch")

        def look():
            tries = range(1, airflow.task(*where)["try_number"] + 1)
            return True if any(words in airflow.log(*where, number) for number in tries) else None

        airflow.wait_for(f"{words!r} in the log of {dag_id}", look, lambda: str(airflow.task(*where)))

    return wait


@pytest.fixture
def is_cancelled(airflow, cloud):
    """Wait until the first job of a DAG was cancelled."""

    def wait(dag_id):
        def look():
            return True if "CANCEL" in cloud.jobs(dag_id)[0]["state"] else None

        airflow.wait_for(f"the cancel of {dag_id}", look, lambda: str(cloud.jobs(dag_id)))

    return wait


def move(stack, statement, dag_id):
    """Change Airflow's database."""
    import sqlalchemy

    with sqlalchemy.create_engine(stack.airflow.database_url).begin() as database:
        assert database.execute(sqlalchemy.text(statement), {"dag_id": dag_id}).rowcount == 1


def test_execution_timeout_ends_a_deferred_wait_and_cancels_the_job(said, is_cancelled):
    said("limit_deferred", "was not done when the task's execution_timeout was over")
    is_cancelled("limit_deferred")


def test_and_a_wait_that_no_worker_began(stack, said, is_cancelled):
    said("limit_from_trigger", "PENDING")
    move(stack, _WAIT_IS_OVER, "limit_from_trigger")
    said("limit_from_trigger", "was not done when the task's execution_timeout was over")
    is_cancelled("limit_from_trigger")


@pytest.mark.parametrize("dag_id", ["limit_run", "limit_run_worker"])
def test_dagrun_timeout_cancels_the_job(stack, said, is_cancelled, dag_id):
    """Airflow marks the task skipped; for its job that is the same as if a person had."""
    said(dag_id, "PENDING")
    move(stack, _RUN_IS_OVER, dag_id)
    said(dag_id, "its task was ended")
    is_cancelled(dag_id)


def test_a_job_that_could_not_be_cancelled_is_named_in_the_log(airflow, cloud, runs, said):
    """The service answers nothing but 503 for as long as Airflow lets `on_kill` run."""
    said("refused_cancel", "PENDING")
    [job] = cloud.jobs("refused_cancel")
    airflow.set_task_state("refused_cancel", runs["refused_cancel"], "batch", "failed")
    said("refused_cancel", f"1 of its jobs may still run, and bill: {job['name']} (HTTP 503")
