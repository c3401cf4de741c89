"""Arguments of single steps, and a preflight before them: what `vertex_batch` makes of them."""

from __future__ import annotations

import inspect
from datetime import timedelta

import pytest
from airflow.sdk import DAG, BaseOperator

import airflow_vertex_batch as avb
from airflow_vertex_batch import parameters
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.operators.group import _STEPS
from tests.airflow.versions import NEWER_ARGUMENTS

WHOLE = {"model": "gemini-3.8-flash", "rows": ["a"], "prompt": "{{ x }}", "destination": "gs://b/a"}
AIRFLOWS = {*inspect.signature(BaseOperator.__init__).parameters} - {"self", "kwargs", "task_id"}


def steps(**arguments):
    """The tasks of a group, by step."""
    with DAG("d", schedule=None) as dag:
        avb.vertex_batch("g", **WHOLE | arguments)
    return {task_id.removeprefix("g."): task for task_id, task in dag.task_dict.items()}


class TestArgumentsOfOneStep:
    def test_are_its_task_s_alone_and_win_over_those_of_all(self):
        made = steps(
            task_args={"retries": 3, "pool": "vertex"},
            step_args={"wait": {"pool": "long", "execution_timeout": timedelta(hours=30)}, "export": {"retries": 5}},
        )
        assert {step: task.pool for step, task in made.items()} == dict.fromkeys(made, "vertex") | {"wait": "long"}
        assert {step: task.retries for step, task in made.items()} == dict.fromkeys(made, 3) | {"export": 5}
        assert [step for step, task in made.items() if task.execution_timeout] == ["wait"]

    def test_are_all_of_every_task_s(self):
        """Type checkers are told the same steps, and the same names."""
        assert {*parameters.StepParameters.__annotations__} == {*_STEPS}
        assert {*parameters.TaskParameters.__annotations__} - NEWER_ARGUMENTS == AIRFLOWS

    @pytest.mark.parametrize(
        ("step_args", "message"),
        [
            (["wait"], r"step_args is a list\. Give a dict, such as \{\"wait\""),
            ({"waits": {}}, r"no step 'waits'.\nTo do: The steps are preflight, prepare, create, wait, repair, export"),
            ({"wait": ["pool"]}, "step_args of wait is a list.\nTo do: Give a dict, such as"),
            ({"wait": {"pol": "x"}}, "step_args of wait has 'pol', which is no argument.*\nTo do: Did you mean pool?"),
            ({"wait": {"task_id": "x"}}, "The steps have their names"),
            ({"wait": {"poll_interval": 3}}, r"Write it beside step_args: vertex_batch\(…, poll_interval=…\)"),
            ({"prepare": {"zzz": 3}}, r"every Airflow task go there: .*pool, .*trigger_rule"),
            ({"preflight": {"pool": "x"}}, r"step_args for preflight, which would do nothing.*Set preflight=True"),
        ],
        ids=str,
    )
    def test_that_there_are_not_are_refused(self, step_args, message):
        with pytest.raises(InputError, match=f"(?s){message}"):
            steps(step_args=step_args)


class TestAPreflight:
    def test_is_no_task_of_the_group_where_nobody_asks_for_it(self):
        assert "preflight" not in steps()

    def test_comes_first_with_what_the_batch_is_going_to_use(self):
        made = steps(
            preflight=True, location="global", labels={"team": "support"}, task_args={"pool": "vertex"},
            allowed_failures=["model"], step_args={"preflight": {"retries": 1}},
        )  # fmt: skip
        task = made["preflight"]
        assert (task.upstream_task_ids, task.downstream_task_ids) == (set(), {"g.prepare"})
        assert (task.model, task.destination, task.location, task.labels, task.pool, task.retries) == (
            "gemini-3.8-flash", "gs://b/a", "global", {"team": "support"}, "vertex", 1,
        )  # fmt: skip
        assert (task.allowed_failures, task.canary, task.prompt, task.response_schema) == (("model",), False, "", None)

    def test_asks_one_row_as_the_batch_would(self):
        given = {"generation_config": {"temperature": 0}, "system_instruction": "Be brief."}
        task = steps(
            preflight=True, canary=True, canary_row={"x": "a"}, prompt="{{ x }} {{ tone }}",
            prompt_variables={"tone": "kind"}, **given,
        )["preflight"]  # fmt: skip
        assert {name: getattr(task, name) for name in given} == given
        assert (task.prompt, task.canary_row, task.prompt_variables) == (
            "{{ x }} {{ tone }}", {"x": "a"}, {"tone": "kind"},
        )  # fmt: skip
        assert task._canary().template.variables == {"tone": "kind"}

    @pytest.mark.parametrize(
        ("source", "uri"),
        [
            ({"table": "bq://p.d.t"}, "bq://p.d.t"),
            ({"table": "p.d.t"}, "bq://p.d.t"),
            ({"table": "{{ params.table }}"}, None),
            ({"files": "gs://b/*.csv"}, "gs://b/*.csv"),
            ({"files": ["gs://b/a.csv", "gs://b/b.csv"]}, "gs://b/a.csv"),
            ({"files": "gs://b/*.csv", "on_empty": "skip"}, None),
            ({"files": "/data/a.csv"}, None),
            ({"objects": "gs://b/images/"}, "gs://b/images/"),
            ({"sql": "SELECT 1"}, None),
        ],
        ids=str,
    )
    def test_looks_for_the_source_where_it_must_be_there(self, source, uri):
        assert steps(preflight=True, rows=None, **source)["preflight"].source_uri == uri

    @pytest.mark.parametrize("arguments", [{"canary": True}, {"canary_row": {"a": 1}}, {"allowed_failures": ["model"]}])
    def test_is_needed_for_what_only_it_knows(self, arguments):
        [name] = arguments
        with pytest.raises(InputError, match=rf"{name}, which would do nothing\. It has no preflight.*preflight=True"):
            steps(**arguments)
