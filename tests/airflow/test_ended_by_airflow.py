"""Airflow ends an attempt or a run while the job waits for its turn: the books say what became of the job, and the log
says which one was left.
"""

from __future__ import annotations

import pytest

CANCELLED = ("limit_deferred", "limit_worker", "limit_from_trigger", "limit_run", "limit_run_worker")
EVERY = (*CANCELLED, "limit_kept", "refused_cancel")


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
            client.wait_for_dag(dag_id, timeout_s=180)
            client.unpause(dag_id)
            found[dag_id] = client.trigger(dag_id)
        yield found


@pytest.fixture
def ended(airflow, cloud, runs):
    """Wait until a run has failed; return its job's state as soon as it says that it was cancelled, and its log."""

    def wait(dag_id, wanted):
        assert airflow.wait_for_run(dag_id, runs[dag_id], timeout_s=400)["state"] == "failed"

        def look():
            [job] = cloud.jobs(dag_id)
            return job if job["state"].removeprefix("JOB_STATE_").startswith(wanted) else None

        airflow._wait(f"the job of {dag_id}: {wanted}", look, 60, lambda: str(cloud.jobs(dag_id)))
        return airflow.log(dag_id, runs[dag_id], "batch")

    return wait


@pytest.mark.parametrize("dag_id", ["limit_deferred", "limit_worker", "limit_from_trigger"])
def test_execution_timeout_cancels_the_job_wherever_the_task_waits(ended, dag_id):
    assert "was not done when the task's execution_timeout was over" in ended(dag_id, "CANCEL")


def test_execution_timeout_leaves_a_job_that_is_to_be_kept(ended):
    log = ended("limit_kept", "PENDING")
    assert "It may still run, and bill" in log
    assert "then on_timeout='keep'" in log


@pytest.mark.parametrize("dag_id", ["limit_run", "limit_run_worker"])
def test_the_end_of_the_run_s_own_time_cancels_the_job(ended, dag_id):
    """Airflow marks the task skipped; for its job that is the same as if a person had."""
    assert "its task was ended" in ended(dag_id, "CANCEL")


def test_a_job_that_could_not_be_cancelled_is_named_in_the_log(airflow, cloud, runs):
    """The service answers nothing but 503 for as long as Airflow lets `on_kill` run."""
    where = ("refused_cancel", runs["refused_cancel"], "batch")

    def said(words):
        return airflow._wait(f"{words!r}", lambda: True if words in airflow.log(*where) else None, 200, lambda: "")

    said("PENDING")
    [job] = cloud.jobs("refused_cancel")
    airflow.set_task_state(*where, "failed")
    said(f"1 of its jobs may still run, and bill: {job['name']} (HTTP 503")
