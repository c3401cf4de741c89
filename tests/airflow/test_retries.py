"""How often is a task tried again? What Airflow's scheduler reads of our tasks, however they were made."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG, TaskGroup, task

import airflow_vertex_batch as avb
from airflow_vertex_batch.edge.base import DEFAULT_RETRIES, VertexBatchBaseOperator
from airflow_vertex_batch.edge.compat import RETRIES, default_retries
from tests.airflow.test_edge import OPERATORS
from tests.airflow.versions import DagSerialization

WHERE = {"model": "m", "prompt": "x", "destination": "gs://b/o"}


def a_task(**given):
    avb.VertexBatchOperator(task_id="t", rows=["a"], **WHERE, **given)


def a_sensor(**given):
    avb.VertexBatchJobSensor(task_id="t", jobs=[], **given)


def a_mapped_task(**given):
    avb.VertexBatchOperator.partial(task_id="t", **WHERE, **given).expand(rows=[["a"], ["b"]])


def a_function(**given):
    @task.vertex_batch(task_id="t", **WHERE, **given)
    def rows():
        return ["a"]

    rows()


def a_mapped_function(**given):
    @task.vertex_batch(task_id="t", **WHERE, **given)
    def rows(word):
        return [word]

    rows.expand(word=["a", "b"])


def a_mapped_function_with_a_constant(**given):
    @task.vertex_batch(task_id="t", **WHERE, **given)
    def rows(word, other):
        return [word, other]

    rows.partial(other="c").expand(word=["a", "b"])


def a_group(**given):
    avb.vertex_batch("g", rows=["a"], **WHERE, **given)


WAYS = (a_task, a_sensor, a_mapped_task, a_function, a_mapped_function, a_mapped_function_with_a_constant, a_group)


def seen_by_the_scheduler(make, given=None, **dag):
    """Return the retries of each task of a DAG, as they come out of Airflow's database."""
    with DAG("d", schedule=None, **dag) as made:
        make(**given or {})
    return {one.retries for one in DagSerialization.from_dict(DagSerialization.to_dict(made)).tasks}


@pytest.mark.parametrize("make", WAYS, ids=lambda make: make.__name__)
class TestWhatTheSchedulerReads:
    """One task, mapped tasks, functions, the group: Airflow makes each in a way of its own."""

    def test_nobody_says_anything(self, make):
        assert seen_by_the_scheduler(make) == {2}

    @pytest.mark.parametrize("count", [0, 7])
    def test_the_task_says_it(self, make, count):
        assert seen_by_the_scheduler(make, {"retries": count}) == {count}

    @pytest.mark.parametrize("count", [0, 7])
    def test_the_dag_s_default_args_say_it(self, make, count):
        assert seen_by_the_scheduler(make, default_args={"retries": count}) == {count}

    @pytest.mark.parametrize("count", [0, 7])
    def test_the_task_group_s_default_args_say_it(self, make, count):
        def grouped():
            with TaskGroup("outer", default_args={"retries": count}):
                make()

        assert seen_by_the_scheduler(grouped) == {count}

    def test_default_args_about_other_things_say_nothing(self, make):
        assert seen_by_the_scheduler(make, default_args={"owner": "us"}) == {2}


@pytest.mark.filterwarnings("ignore:.* was never mapped")
class TestTheOperators:
    @pytest.mark.parametrize("kind", [VertexBatchBaseOperator, *OPERATORS], ids=lambda kind: kind.__name__)
    def test_no_operator_has_another_default(self, kind):
        assert kind.partial(task_id="t").kwargs["retries"] == DEFAULT_RETRIES == RETRIES

    def test_default_args_of_the_one_task_say_it_too(self):
        made = avb.VertexBatchSweepOperator.partial(task_id="t", default_args={"retries": 0})
        assert made.kwargs["retries"] == 0


class TestTheInstallation:
    """`[core] default_task_retries`."""

    SAID = {"AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "0"}  # noqa: RUF012 - never changed

    @pytest.mark.parametrize(
        ("configured", "environment", "retries"),
        [(0, {}, RETRIES), (None, {}, RETRIES), (5, {}, 5), (1, SAID, 1), (0, SAID, 0)],
        ids=["Airflow's own 0", "nothing", "a number", "a number by environment", "0 by environment"],
    )
    def test_what_somebody_has_said_wins(self, configured, environment, retries):
        assert default_retries(configured, environment) == retries
