"""What an author writes as an argument comes as it is meant, with its task before this one, or is refused at once."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG, task, task_group
from airflow.sdk.bases.operator import BaseOperator

import airflow_vertex_batch as avb
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.requests.values import NoTextError, stable_text
from airflow_vertex_batch.decorators import vertex_batch_task
from tests.airflow.test_edge import OPERATORS, _ours
from tests.airflow.test_wiring import FoundOutputs
from tests.airflow.waiting import a_context, an_operator
from tests.emulator.worlds import World

TOOL = {"functionDeclarations": [{"name": "f", "description": "{{ no template }}"}]}
SAFETY = {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}


class Up(BaseOperator):
    """A task before."""

    def execute(self, context):
        """Return nothing."""


def prepared(arguments, gives, **dag):
    """Prepare as Airflow does, and return the requests and the tasks that had to run before.

    :param arguments: makes them of a task and its DAG.
    :param gives: what that task returned.
    """
    world = World()
    with DAG("d", schedule=None, **dag) as made:
        up = Up(task_id="up")
        batch = an_operator(avb.VertexBatchPrepareOperator, world, "", **arguments(up, made))
    context = a_context("batch") | {"ds_nodash": "20261122"}
    context["ti"], context["dag_run"].conf = FoundOutputs("batch", up=gives), {"tone": "kind"}
    batch.render_template_fields(context)
    manifest = batch.execute(context)
    lines = [line for shard in manifest["shards"] for line in world.store.objects[shard["uri"]].splitlines()]
    return [json.loads(line)["request"] for line in lines], batch.upstream_task_ids


def asked(requests):
    """The texts of some requests."""
    return [request["contents"][0]["parts"][0]["text"] for request in requests]


class TestTheOutputOfATask:
    @pytest.mark.parametrize(
        ("rows", "prompt", "gives"),
        [
            (lambda output: output, "{{ x }}", [{"x": "one"}, {"x": "two"}]),
            (lambda output: [{"x": output}, {"x": "two"}], "{{ x }}", "one"),
            (lambda output: ({"x": {"deep": [output]}}, {"x": {"deep": ["two"]}}), "{{ x.deep[0] }}", "one"),
            (lambda output: [output, {"x": "two"}], "{{ x }}", {"x": "one"}),
        ],
        ids=["as the rows", "in a row", "deep in a row", "as a row"],
    )
    def test_is_put_in(self, rows, prompt, gives):
        requests, before = prepared(lambda up, _: {"rows": rows(up.output), "prompt": prompt}, gives)
        assert (asked(requests), before) == (["one", "two"], {"up"})

    @pytest.mark.parametrize(
        ("name", "gives", "member", "wanted"),
        [
            ("prompt", "Say {{ x }}", None, None),
            ("tools", [TOOL], "tools", [TOOL]),
            ("safety_settings", [SAFETY], "safetySettings", [SAFETY]),
        ],
    )
    def test_is_the_argument(self, name, gives, member, wanted):
        given = {"rows": [{"x": "one"}], "prompt": "{{ x }}"}
        [request], before = prepared(lambda up, _: given | {name: up.output}, gives)
        assert before == {"up"}
        assert asked([request]) == (["Say one"] if name == "prompt" else ["one"])
        assert member is None or request[member] == wanted

    def test_is_a_part_of_the_argument(self):
        given = {"rows": ["one"], "safety_settings": [SAFETY]}
        [request], before = prepared(
            lambda up, _: given | {"safety_settings": [SAFETY | {"threshold": up.output}]}, "BLOCK_ONLY_HIGH"
        )
        assert (request["safetySettings"][0]["threshold"], before) == ("BLOCK_ONLY_HIGH", {"up"})

    def test_is_the_media_columns(self):
        given = {"rows": [{"image": "gs://in/a.png"}], "prompt": "x"}
        [request], before = prepared(lambda up, _: given | {"media_columns": up.output}, ["image"])
        assert [part for part in request["contents"][0]["parts"] if "fileData" in part]
        assert before == {"up"}

    @pytest.mark.parametrize(("name", "gives"), [("prompt", 3), ("tools", {"a": 1}), ("media_columns", 3)])
    def test_that_is_of_another_kind_is_refused_before_anything_is_read(self, name, gives):
        given = {"rows": ["one"], "prompt": "x"}
        with pytest.raises(
            AirflowFailException, match=rf"{name} of task batch is a {type(gives).__name__}\.\nTo do: Give a "
        ):
            prepared(lambda up, _: given | {name: up.output}, gives)

    @pytest.mark.parametrize("name", ["rows", "prompt", "tools", "safety_settings", "media_columns"])
    def test_that_never_came_is_said(self, name):
        words = rf"(?s)was given nothing as its {name} \(None\). It is the output of task up.*Clear the task that gave"
        with pytest.raises(AirflowFailException, match=words):
            prepared(lambda up, _: {"rows": ["one"], "prompt": "x"} | {name: up.output}, None)

    def test_in_a_row_that_a_function_made_is_refused(self):
        """Nobody could draw what it waits for, and its text is a template."""
        with DAG("d", schedule=None):
            output = Up(task_id="up").output
        with pytest.raises(NoTextError, match="it stands for the output of a task"):
            stable_text(output)


class TestAParameterOfTheDag:
    def test_is_put_in(self):
        requests, _ = prepared(
            lambda _, dag: {"rows": [{"x": dag.param("tone")}], "prompt": "{{ x }}"}, None, params={"tone": "harsh"}
        )
        assert asked(requests) == ["kind"]


class TestAMappedTask:
    def test_runs_after_what_all_of_its_tasks_are_given(self):
        with DAG("d", schedule=None) as dag:
            up = Up(task_id="up")
            tools = Up(task_id="tools")
            avb.VertexBatchPrepareOperator.partial(
                task_id="t", rows=up.output, tools=[tools.output], prompt="{{ x }}"
            ).expand(location=["global", "us-central1"])
        assert dag.get_task("t").upstream_task_ids == {"up", "tools"}

    def test_of_a_function_too(self):
        with DAG("d", schedule=None) as dag:
            up = Up(task_id="up")

            @vertex_batch_task(model="m", destination="gs://b/o", prompt=up.output)
            def ask(x):
                yield {"x": x}

            ask.expand(x=[1, 2])
        assert dag.get_task("ask").upstream_task_ids == {"up"}

    def test_of_a_mapped_group_takes_its_argument(self):
        @task
        def up():
            return [1]

        @task_group
        def each(given):
            avb.VertexBatchPrepareOperator(task_id="t", rows=[{"x": given}], prompt="{{ x }}")

        with DAG("d", schedule=None) as dag:
            each.expand(given=up())
        assert dag.get_task("each.t").upstream_task_ids == {"up"}

    def test_is_told_early_what_may_not_come_late(self):
        with DAG("d", schedule=None):
            output = Up(task_id="up").output
            with pytest.raises(InputError, match="max_requests_per_job of VertexBatchPrepareOperator must be known"):
                avb.VertexBatchPrepareOperator.partial(task_id="t", max_requests_per_job=output)


class TestWhatIsRefusedWhenTheFileIsRead:
    @pytest.mark.parametrize("kind", OPERATORS)
    def test_an_argument_that_comes_later_where_nobody_would_put_it_in(self, kind):
        known = {
            one.name
            for cls in _ours(kind)
            if issubclass(cls, BaseOperator)
            for one in inspect.signature(cls.__init__).parameters.values()
            if one.kind is one.KEYWORD_ONLY
        }
        plain = known - {*kind.template_fields, *kind.resolved_fields}
        with DAG("d", schedule=None):
            output = Up(task_id="up").output
            for name in plain:
                for value in (output, [output], {"a": (output,)}):
                    with pytest.raises(InputError, match=f"{name} of .* must be known when the DAG file is read"):
                        kind(task_id="t", **{name: value})

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"columns": None}, "columns=None.\nTo do: Leave it out"),
            ({"prompt": None}, "prompt=None.\nTo do: Leave it out"),
            ({"lint_ignore": None}, "lint_ignore=None"),
            ({"max_rejected_ratio": None}, "max_rejected_ratio=None"),
            (
                {"max_requests_per_job": "{{ params.n }}"},
                r"'{{ params.n }}' is a text. This argument is not templated.*\nTo do: Give a value \(int\)",
            ),
            ({"skip_answered": "false"}, "skip_answered='false' is a text"),
            ({"prompt": "How is {body}?"}, r"\{body\} in single braces.*\nTo do: Write \{\{ body \}\}"),
            ({"tools": "search"}, "tools is a str"),
            ({"tools": {"a": 1}}, r"tools is a dict.\nTo do: Give a value \(list\[dict"),
            ({"prompt": 3}, "prompt is a int.\nTo do: Give a value"),
            ({"rows": "one text"}, "rows is one str, not a list of rows"),
            ({"rows": {"x": 1}}, "rows is one dict, not a list of rows"),
            (
                {"rows": SimpleNamespace(to_dict=None, columns=[])},
                r"rows is a SimpleNamespace.\nTo do: Pass frame.to_dict",
            ),
            ({"rows": 3}, "rows gave int, not rows"),
            ({"key_column": 5}, r"key_column is a int.\nTo do: Give a value \(str \| None\)"),
            ({"columns": ["id", 5]}, "columns is a list with a int"),
            ({"tools": [TOOL, "search"]}, "tools is a list with a str"),
            ({"generation_config": "temperature"}, "generation_config is a str"),
            ({"generation_config": {"temperature": float("nan")}}, "generation_config.temperature is nan. it cannot"),
            ({"generation_config": {"stopSequences": [{"a"}]}}, r"generation_config.stopSequences\[0\] is a set"),
            (
                {"tools": [{"functionDeclarations": [Up]}]},
                r"tools\[0\].functionDeclarations\[0\] is a .*cannot be JSON",
            ),
            ({"safety_settings": [{1: 2}]}, r"safety_settings\[0\] is a member whose name is no text"),
            ({"max_requests_per_job": 1.5}, "max_requests_per_job is a float"),
            ({"max_rejected_ratio": True}, "max_rejected_ratio is a bool"),
            ({"deduplicate": 1}, "deduplicate is a int"),
            ({"on_null": ["reject"]}, "on_null is a list"),
            ({"correlation": "labels"}, r"correlation='labels' is not known.\nTo do: Use 'contents' or 'label'"),
            ({"files_format": "xlsx"}, r"files_format='xlsx' is not known.\nTo do: Use 'jsonl' or 'csv' or 'parquet'"),
            ({"project_id": 123456}, "project_id is a int"),
            ({"project_id": "my project"}, "'my project' is no project"),
            ({"model": "gemini 3"}, "'gemini 3' is not a model name"),
            ({"staging_uri": "gs://b/x\n"}, "holds a line end"),
            (
                {"rows": None, "sql": "SELECT 1", "sql_parameters": ["a"]},
                "sql_parameters is a list. BigQuery's have names",
            ),
            ({"rows": None, "sql": ["SELECT 1"]}, "sql is a list"),
            ({"rows": None, "files": ["a.csv", None]}, "files is a list with a NoneType"),
        ],
        ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
    )
    def test_what_is_of_no_use(self, arguments, message):
        with pytest.raises(InputError, match=message):
            avb.VertexBatchPrepareOperator(task_id="t", **{"rows": ["a"], "prompt": "x"} | arguments)

    @pytest.mark.parametrize(
        "labels", [{"Team": "support"}, {"team": "Support"}, {"team": "x" * 65}, {"": "x"}, {"n": 1}]
    )
    def test_a_label_that_the_service_refuses(self, labels):
        with pytest.raises(InputError, match=r"labels=\{.*is no label.\nTo do: Use a text of lower-case letters"):
            avb.VertexBatchCreateJobOperator(task_id="t", model="m", input_uri="gs://b/x.jsonl", labels=labels)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ({f"l{number}": "x" for number in range(58)}, "labels has 58 members. A job has at most 64 .* 8 are our"),
            ({"avb-identity": "mine"}, r"labels=\{'avb-identity': 'mine'\} is one of our own"),
        ],
        ids=["too many", "ours"],
    )  # fmt: skip
    def test_labels_that_leave_no_room_for_ours(self, labels, message):
        for kind, needs in ((avb.VertexBatchCreateJobOperator, {"input_uri": "gs://b/x.jsonl"}),
                            (avb.VertexBatchPreflightOperator, {})):  # fmt: skip
            with pytest.raises(InputError, match=message):
                kind(task_id="t", model="m", labels=labels, **needs)

    def test_not_a_label_that_a_template_makes(self):
        labels = {"team": "{{ params.Team }}", "{{ A }}": "support", "straße": ""}
        avb.VertexBatchCreateJobOperator(task_id="t", model="m", input_uri="gs://b/x.jsonl", labels=labels)

    def test_of_another_library_is_told_what_to_give(self):
        thing = SimpleNamespace(model_dump=None)
        for arguments in ({"tools": [thing]}, {"generation_config": thing}, {"generation_config": {"a": thing}}):
            with pytest.raises(InputError, match=r"is a .*\nTo do: Give what .model_dump\(mode='json'"):
                avb.VertexBatchPrepareOperator(task_id="t", rows=["a"], **arguments)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"columns": "id", "model": "{{ params.model }}", "project_id": "123456", "max_rejected_ratio": 1},
            {"generation_config": "{{ params.config }}", "system_instruction": {"parts": [{"text": "x"}]}},
            {"rows": None, "files": Path("/data/a.csv"), "impersonation_chain": ("a", "b")},
            {"rows": None, "sql": "SELECT 1", "sql_conn_id": "shop", "sql_parameters": ["a"]},
        ],
        ids="-".join,
    )
    def test_what_is_of_use_is_not(self, arguments):
        avb.VertexBatchPrepareOperator(task_id="t", **{"rows": ["a"], "prompt": "x"} | arguments)

    def test_an_async_function(self):
        async def rows():
            yield {}

        async def returns_rows():
            return []

        for function in (rows, returns_rows):
            with pytest.raises(InputError, match=r"It is asynchronous.\nTo do: Use def, not async def"):
                avb.VertexBatchPrepareOperator(task_id="t", rows=function, prompt="x")
        with DAG("d", schedule=None), pytest.raises(InputError, match="It is asynchronous"):
            vertex_batch_task(model="m", destination="gs://b/o")(rows)()


class TestFilesOfSql:
    def test_are_loaded_for_sql_alone(self, tmp_path):
        (tmp_path / "q.sql").write_text("select '{{ ds_nodash }}'")
        with DAG("d", schedule=None, template_searchpath=[str(tmp_path)]):
            made = avb.VertexBatchPrepareOperator(
                task_id="t", sql="q.sql", prompt="x", prompt_variables={"file": "q.sql"}, key_column="a.sql",
                system_instruction="Read no.sql",
            )  # fmt: skip
        made.resolve_template_files()
        assert made.sql == "select '{{ ds_nodash }}'"
        made.render_template_fields(a_context() | {"ds_nodash": "20261122"})
        assert made.sql == "select '20261122'"
        assert (made.prompt_variables, made.key_column, made.system_instruction) == (
            {"file": "q.sql"}, "a.sql", "Read no.sql",
        )  # fmt: skip

    def test_that_are_missing_are_named(self):
        with DAG("d", schedule=None):
            made = avb.VertexBatchPrepareOperator(task_id="t", sql="no.sql", prompt="x")
        with pytest.raises(InputError, match=r"sql='no.sql' names a file that is not there"):
            made.resolve_template_files()


class TestNativeRendering:
    def test_texts_stay_texts(self):
        texts = {
            "labels": {"day": "{{ ds_nodash }}", "{{ no }}": "007"},
            "key_column": "{{ ds_nodash }}",
            "display_name": "{{ ds_nodash }}",
            "system_instruction": "{{ ds_nodash }}",
            "model": "{{ ds_nodash }}",
            "columns": ["{{ ds_nodash }}", "a"],
            "partition_date": "{{ ds_nodash }}",
        }
        with DAG("d", schedule=None, render_template_as_native_obj=True):
            made = avb.VertexBatchOperator(
                task_id="t", rows=["a"], destination="gs://b/o", sql=None, **texts,
                generation_config={"maxOutputTokens": "{{ ds_nodash }}"}, prompt="{{ tone }}",
                prompt_variables={"tone": "{{ ds_nodash }}"},
            )  # fmt: skip
        made.render_template_fields(a_context() | {"ds_nodash": "20261122"})
        assert {name: getattr(made, name) for name in texts} == {
            "labels": {"day": "20261122", "{{ no }}": "007"},
            "key_column": "20261122",
            "display_name": "20261122",
            "system_instruction": "20261122",
            "model": "20261122",
            "columns": ["20261122", "a"],
            "partition_date": "20261122",
        }
        assert made.generation_config == {"maxOutputTokens": 20261122}, "there, a number is meant"

    def test_a_list_is_still_a_list(self):
        with DAG("d", schedule=None, render_template_as_native_obj=True):
            made = avb.VertexBatchPrepareOperator(
                task_id="t", files="{{ found }}", prompt="x", columns="{{ kept }}", system_instruction="{{ told }}"
            )
        made.render_template_fields(a_context() | {"found": ["gs://b/a"], "kept": ["x"], "told": {"parts": []}})
        assert (made.files, made.columns, made.system_instruction) == (["gs://b/a"], ["x"], {"parts": []})
