"""What a user reads when something is wrong: once, with the cure on a line of its own, leading to the right place."""

from __future__ import annotations

import json
import re
import traceback

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG

import airflow_vertex_batch as avb
from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.core.requests.lint import lint_lines
from airflow_vertex_batch.decorators import vertex_batch_task
from airflow_vertex_batch.edge.base import fail_or_retry
from airflow_vertex_batch.edge.unknown_arguments import _GENERATION, _OURS, _known
from airflow_vertex_batch.emulator.row_faults import RowError
from tests.airflow.test_bad_nights import InOneTask, InTheGroup
from tests.builders import a_line, jsonl


def fails(error):
    """Raise an error of ours because of another."""
    try:
        int("what Google's client says")
    except ValueError as cause:
        raise error from cause


TARGET = {"destination": "gs://b/answers"}


def of_a_function(**arguments):
    """Make a task of a function."""
    with DAG("d", schedule=None):
        vertex_batch_task(model="m", **TARGET, **arguments)(lambda: ["a"])()


class TestAnError:
    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (InputError("No bucket", why="404", left="Nothing was sent", todo="Make it"), AirflowFailException),
            (ServiceError("No answer", status=503, why="404", left="Nothing was sent", todo="Make it"), ServiceError),
        ],
        ids=["that fails at once", "that is tried again"],
    )
    def test_is_logged_once_and_says_what_to_do_on_a_line_of_its_own(self, error, kind):
        with pytest.raises(kind, match=r"^No (bucket|answer)") as caught, fail_or_retry():
            fails(error)
        logged = "".join(traceback.format_exception(caught.value))
        assert logged.count("Traceback") == 1
        assert "Google's client" not in logged
        assert str(caught.value).splitlines()[-1] == "To do: Make it."
        assert logged.count("Make it") == 1

    def test_without_a_cure_is_one_line(self):
        with pytest.raises(AirflowFailException, match=r"\AWhat\.\Z"), fail_or_retry():
            raise InputError("What")


class TestTheReport:
    @pytest.mark.parametrize("kind", [InOneTask, InTheGroup])
    def test_is_there_when_the_export_has_failed_its_limits(self, kind, serve):
        night = kind(serve, RowError(keys=("a[01]",), code=503))
        with pytest.raises(AirflowFailException, match="max_failed_ratio allows"):
            night.run(max_failed_ratio=0.1)
        task = night.contexts["export"]
        report = task["ti"].xcoms["report"]
        assert report["reasons"] == {"failed": {"UNAVAILABLE": report["statuses"]["failed"]}}
        assert report["statuses"]["succeeded"] > 0


class TestAnArgumentThatIsNotKnown:
    """It is refused when the DAG file is read, and said is where it belongs."""

    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("pool", r"It is an argument of every task: task_args=\{'pool': …\}"),
            ("execution_timeout", r"task_args=\{'execution_timeout': …\}"),
            ("queue", r"task_args=\{'queue': …\}"),
            ("trigger_rule", r"task_args=\{'trigger_rule': …\}"),
            ("conn_id", "Write gcp_conn_id='…'"),
            ("region", "Write location='…'"),
            ("project", "Write project_id='…'"),
            ("output", "Write destination='bq://project.dataset.table' or destination='gs://bucket/folder'"),
            ("dest", "Write destination='bq://"),
            ("input_files", "Write files='gs://"),
            ("temperature", r'It belongs into the request: generation_config=\{"temperature": …\}'),
            ("max_output_tokens", r'generation_config=\{"maxOutputTokens": …\}'),
            ("top_p", r'generation_config=\{"topP": …\}'),
            ("thinking_budget", r'generation_config=\{"thinkingConfig": \{"thinkingBudget": …\}\}'),
            ("output_schema", "Write response_schema=…"),
            ("system_prompt", "Write system_instruction='…'"),
            ("promt", r"Did you mean prompt\?"),
            ("execution_timeot", r"Did you mean task_args=\{'execution_timeout': …\}\?"),
            ("task_id", r"group_id='…'"),
            ("zzzz", "Known are .*sql_conn_id.*arguments of every task go into task_args"),
        ],
    )
    def test_by_the_group(self, name, place):
        words = rf"^vertex_batch\(\) knows no argument '{name}'\.\nTo do: .*{place}"
        with DAG("d", schedule=None), pytest.raises(InputError, match=words):
            avb.vertex_batch(model="m", rows=["a"], **TARGET, **{name: "x"})

    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("retires", r"Did you mean retries\?"),
            ("task_id", r"group_id='…'"),
            ("prompt", r"Write it beside task_args: vertex_batch\(…, prompt=…\)"),
            ("zzzz", "arguments of every Airflow task go there"),
        ],
    )
    def test_by_task_args(self, name, place):
        words = rf"^task_args has '{name}', which is no argument of every task\.\nTo do: .*{place}"
        with DAG("d", schedule=None), pytest.raises(InputError, match=words):
            avb.vertex_batch(model="m", rows=["a"], **TARGET, task_args={name: "x"})

    @pytest.mark.parametrize("wrong", [{"promt": "x"}, {"task_args": {"retires": 2}}])
    def test_by_the_group_with_the_author_s_line(self, wrong):
        """Airflow shows the last two frames of a DAG file that cannot be read: one of them is the author's."""
        with DAG("d", schedule=None), pytest.raises(InputError, match=r"promt|retires") as raised:
            avb.vertex_batch(model="m", rows=["a"], **TARGET, **wrong)
        assert [str(frame.path) for frame in raised.traceback][-2:][0] == __file__

    def test_what_every_step_knows_may_stand_in_task_args(self):
        with DAG("d", schedule=None) as dag:
            avb.vertex_batch(model="m", rows=["a"], **TARGET, task_args={"pool": "p", "gcp_conn_id": "c"})
        assert {(task.pool, task.gcp_conn_id) for task in dag.tasks} == {("p", "c")}

    def test_retries_go_to_every_task_of_the_group(self):
        with DAG("d", schedule=None) as dag:
            avb.vertex_batch(model="m", rows=["a"], **TARGET, retries=7)
        assert {task.retries for task in dag.tasks} == {7}

    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("region", "Write location='…'"),
            ("top_k", "generation_config="),
            ("promt", "Did you mean prompt"),
            ("retires", "Did you mean retries"),
        ],
    )
    def test_by_an_operator_mapped_or_made_of_a_function_too(self, name, place):
        wrong = {name: "x"}
        words = rf"VertexBatchOperator knows no argument '{name}'\.\nTo do: .*{place}"
        with pytest.raises(InputError, match=words):
            avb.VertexBatchOperator(task_id="t", model="m", rows=["a"], **TARGET, **wrong)
        with pytest.raises(InputError, match=words):
            avb.VertexBatchOperator.partial(task_id="t", model="m", **TARGET, **wrong)
        with pytest.raises(InputError, match=rf"knows no argument '{name}'\.\nTo do: .*{place}"):
            of_a_function(**wrong)

    def test_each_hint_leads_to_an_argument_that_there_is(self):
        kinds = [getattr(avb, name) for name in avb.__all__ if name.endswith(("Operator", "Sensor"))]
        known = set().union(*map(_known, kinds))
        meant = {name for text in _OURS.values() for name in re.findall(r"(\w+)=", text)}
        assert meant
        assert meant <= known

    @pytest.mark.parametrize("name", sorted(_GENERATION))
    def test_and_each_member_of_a_generation_config_is_one_of_the_api(self, name):
        config = json.loads(
            "{" + re.sub(r"\[…\]", "[]", re.sub(r"{…}", "{}", _GENERATION[name])).replace("…", "1") + "}"
        )
        line = jsonl(a_line("r1", generationConfig=config))
        findings = lint_lines("f", [line])
        assert [each for each in findings if each.rule == "unknown-member"] == []
