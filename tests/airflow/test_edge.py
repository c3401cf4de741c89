"""The operators, the sensor, the trigger and the provider's metadata, without a running Airflow."""

from __future__ import annotations

import importlib
import inspect
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
from airflow.sdk import DAG
from airflow.sdk.definitions.xcom_arg import XComArg
from pydantic import BaseModel

import airflow_vertex_batch as avb
from airflow_vertex_batch import operators, sensors
from airflow_vertex_batch.core.domain.errors import InputError, JobError, ServiceError
from airflow_vertex_batch.core.requests.prepare import check_template
from airflow_vertex_batch.edge import compat
from airflow_vertex_batch.edge.base import VertexBatchBaseOperator
from airflow_vertex_batch.macros import partition_date
from airflow_vertex_batch.provider import get_provider_info
from airflow_vertex_batch.triggers import VertexBatchJobTrigger

JOB = "projects/1/locations/us-central1/batchPredictionJobs/2"
EUROPE, DAY = {"location": "europe-west4"}, 24 * 3600
WHOLE = {"model": "m", "rows": ["a"], "destination": "gs://b/o"}
OPERATORS = [
    kind
    for module in (operators, sensors)
    for kind in vars(module).values()
    if inspect.isclass(kind) and issubclass(kind, VertexBatchBaseOperator) and kind is not VertexBatchBaseOperator
]


def _ours(kind):
    """An operator and what it inherits its parameters from."""
    return [cls for cls in kind.__mro__ if cls.__module__.startswith("airflow_vertex_batch.")]


def _parameters(kind):
    names = {name for cls in _ours(kind) for name in inspect.signature(cls.__init__).parameters}
    return names - {"self", "args", "kwargs"}


def _documentation(kind):
    return "".join(cls.__doc__ or "" for cls in _ours(kind))


class TestParameters:
    """What is wrong with a task is said when its file is read."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"prompt": "x"}, r"has 0 sources \(none\)"),
            ({"prompt": "x", "sql": "select 1", "table": "bq://p.d.t"}, r"has 2 sources \(sql, table\)"),
            ({"sql": "select 1"}, "has no prompt"),
            ({"prompt": "x", "rows": [], "on_rejected_row": "ignore"}, "on_rejected_row='ignore' is not known"),
            ({"prompt": "x", "rows": [], "max_requests_per_job": 0}, "Use 1 to 200,000"),
            ({"prompt": "x", "rows": [], "max_requests_per_job": 200_001}, "Use 1 to 200,000"),
            ({"prompt": "x", "rows": [], "response_schema": 3}, "response_schema is a int"),
            ({"prompt": "x", "rows": [], "response_schema": {"type": "object"}}, "object without properties"),
            ({"prompt": "{{ x", "rows": []}, "mistake in line 1"),
            ({"prompt": "x", "rows": [], "max_rejected_ratio": 2}, "share from 0 to 1"),
            ({"prompt": "x", "rows": [], "correlation": "luck"}, "'contents' or 'label'"),
            ({"prompt": "x", "rows": [], "skip_answered": True}, "cannot know what has been answered"),
        ],
        ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
    )
    def test_prepare(self, arguments, message):
        with pytest.raises(InputError, match=message):
            avb.VertexBatchPrepareOperator(task_id="t", **arguments)

    @pytest.mark.parametrize(
        ("kind", "arguments", "message"),
        [
            ("CreateJobOperator", {"model": "gemini-x"}, "manifest or an input_uri"),
            ("CreateJobOperator", {"model": "m", "manifest": {}, "input_uri": "gs://a/b"}, "manifest or an input_uri"),
            ("CreateJobOperator", {"model": "m", "manifest": {}, "on_changed_input": "x"}, "on_changed_input='x'"),
            ("CreateJobOperator", {"model": "m", "manifest": {}, "settle_seconds": 29}, "of 30 to 3,600 seconds"),
            ("CreateJobOperator", {"manifest": {}}, "has no model"),
            ("RepairOperator", {"model": "m", "jobs": [], "manifest": {}, "repair_rounds": 11}, "Use 0 to 10"),
            (
                "RepairOperator",
                {"model": "m", "jobs": [], "manifest": {}, "repair_actions": {"succeeded": "as_is"}},
                "no status of a row that was sent",
            ),
            (
                "RepairOperator",
                {"model": "m", "jobs": [], "manifest": {}, "repair_actions": {"blocked": "insist"}},
                "Use one of 'as_is', 'more_tokens', 'give_up'",
            ),
            (
                "RepairOperator",
                {"model": "m", "jobs": [], "manifest": {}, "repair_by": "prayer"},
                "'requests' or 'resume'",
            ),
            ("ExportOperator", {"jobs": []}, "has no destination"),
            ("ExportOperator", {"jobs": [], "destination": "gs://a/b", "file_format": "csv"}, "file_format='csv'"),
            ("JobSensor", {"jobs": [], "on_timeout": "x"}, "on_timeout='x'"),
            ("JobSensor", {"jobs": [], "poll_interval": 0}, "above zero"),
            ("JobSensor", {"jobs": [], "queue_warning": timedelta(0)}, "above zero"),
            ("JobSensor", {"jobs": [], "queue_timeout": 0}, "above zero"),
            ("JobSensor", {"jobs": [], "elsewhere": [EUROPE]}, "elsewhere without queue_timeout would do nothing"),
            ("JobSensor", {"jobs": [], "queue_timeout": DAY}, "queue_timeout without elsewhere would do nothing"),
            ("JobSensor", {"jobs": [], "queue_timeout": DAY, "elsewhere": []}, "elsewhere names no place"),
            ("JobSensor", {"jobs": [], "elsewhere": []}, "elsewhere names no place"),
            ("JobSensor", {"jobs": [], "queue_timeout": DAY, "elsewhere": ["x"]}, "elsewhere is a list with a str"),
        ],
    )
    def test_the_others(self, kind, arguments, message):
        with pytest.raises(InputError, match=message):
            getattr(avb, f"VertexBatch{kind}")(task_id="t", **arguments)

    @pytest.mark.parametrize(
        ("kind", "arguments", "named"),
        [
            *(
                ("PrepareOperator", {"requests": "gs://b/r.jsonl", name: value}, name)
                for name, value in {
                    "prompt": "{{ x }}",
                    "prompt_variables": {"a": 1},
                    "system_instruction": "Be brief.",
                    "generation_config": {"temperature": 0},
                    "tools": [{"googleSearch": {"a": 1}}],
                    "safety_settings": [{"a": 1}],
                    "media_columns": ["uri"],
                    "on_null": "empty",
                    "sql_parameters": {"day": "{{ ds }}"},
                    "sql_conn_id": "pg",
                    "files_format": "csv",
                    "max_rejected_ratio": 0.1,
                }.items()
            ),
            ("PrepareOperator", {"table": "bq://p.d.t", "prompt": "x", "sql_parameters": {"a": 1}}, "sql_parameters"),
            ("PrepareOperator", {"files": "a.csv", "prompt": "x", "sql_conn_id": "{{ var.value.c }}"}, "sql_conn_id"),
            ("PrepareOperator", {"sql": "select 1", "prompt": "x", "files_format": "csv"}, "files_format"),
            ("PrepareOperator", {"objects": "gs://b/i/", "media_columns": ["uri"], "prompt_variables": {"a": 1}},
             "prompt_variables"),
            ("ExportOperator", {"jobs": [], "destination": "bq://p.d.t", "file_format": "parquet"},
             "file_format"),
            ("Operator", WHOLE | {"repair_by": "resume"}, "repair_by"),
            ("Operator", WHOLE | {"repair_actions": {"blocked": "as_is"}, "on_clear": "new"}, "repair_actions"),
            ("Operator", WHOLE | {"repair_max_output_tokens": 100}, "repair_max_output_tokens"),
            ("PreflightOperator", {"model": "m", "generation_config": {"temperature": 0}}, "generation_config"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )  # fmt: skip
    def test_what_would_do_nothing_is_refused(self, kind, arguments, named):
        with pytest.raises(InputError, match=f"Task t has {named}, which would do nothing"):
            getattr(avb, f"VertexBatch{kind}")(task_id="t", **arguments)

    def test_a_cap_of_tokens_is_refused_where_no_row_gets_more(self):
        with pytest.raises(InputError, match="has repair_max_output_tokens, and repair_actions gives no row more"):
            avb.VertexBatchRepairOperator(
                task_id="t", model="m", jobs=[], manifest={}, repair_max_output_tokens=100,
                repair_actions={"truncated": "give_up"},
            )  # fmt: skip

    def test_what_may_do_something_is_not_refused(self):
        """The repair task sends rows again when it is cleared, also without a round of its own."""
        for arguments in ({"repair_rounds": 1}, {"on_clear": "repair"}):
            avb.VertexBatchOperator(task_id="t", **WHOLE, repair_by="resume", **arguments)
        with DAG("d", schedule=None):
            avb.vertex_batch(
                model="m", destination="gs://b/o", file_format="parquet", replace_partition=True, rows=["a"],
                prompt_variables={"a": 1}, on_null="empty", repair_by="resume", on_rejected_row="dead_letter",
                max_rejected_ratio=0.1,
            )  # fmt: skip

    def test_what_is_no_dict_of_arguments_is_refused(self):
        with (
            DAG("d", schedule=None),
            pytest.raises(InputError, match=r"task_args is a list\. Give a dict, such as"),
        ):
            avb.vertex_batch(model="m", rows=["a"], task_args=["pool"])

    def test_an_unknown_argument_of_the_group_is_named_with_a_guess(self):
        with (
            DAG("d", schedule=None),
            pytest.raises(InputError, match=r"knows no argument 'promt'.\nTo do: Did you mean prompt\?"),
        ):
            avb.vertex_batch(model="m", promt="x")

    @pytest.mark.parametrize("kind", OPERATORS, ids=lambda kind: kind.__name__)
    def test_every_template_field_is_a_documented_parameter(self, kind):
        for name in kind.template_fields:
            assert name in _parameters(kind)
            assert f":param {name}:" in _documentation(kind)

    @pytest.mark.parametrize("kind", OPERATORS, ids=lambda kind: kind.__name__)
    def test_every_parameter_is_documented(self, kind):
        assert {name for name in _parameters(kind) if f":param {name}:" not in _documentation(kind)} == set()

    def test_default_args_reach_the_common_parameters(self):
        with DAG("d", schedule=None, default_args={"location": "global", "gcp_conn_id": "mine"}):
            sensor = avb.VertexBatchJobSensor(task_id="t", jobs=[])
        assert (sensor.location, sensor.gcp_conn_id) == ("global", "mine")


class Answer(BaseModel):
    """A schema by class."""

    mood: str


class TestTheGroup:
    """`vertex_batch` wires the five steps."""

    def test_steps_follow_each_other_and_get_what_they_know(self):
        with DAG("d", schedule=None) as dag:
            avb.vertex_batch(
                "g", model="m", rows=[], prompt="{{ x }}", response_schema=Answer, location="global",
                poll_interval=timedelta(minutes=2),
                destination="gs://b/o", task_args={"retries": 4},
            )  # fmt: skip
        order = ["g.prepare", "g.create", "g.wait", "g.repair", "g.export"]
        assert [task.task_id for task in dag.topological_sort()] == order
        assert {dag.task_dict[name].location for name in order} == {"global"}
        assert {dag.task_dict[name].retries for name in order} == {4}
        assert dag.task_dict["g.wait"].poll_interval == 120
        assert dag.task_dict["g.export"].response_schema is Answer

    def test_prepare_knows_the_model_that_will_be_asked(self):
        settings = {"thinkingConfig": {"thinkingBudget": 0}}
        with DAG("d", schedule=None) as dag:
            avb.vertex_batch(
                "g", model="gemini-4-argon", rows=["x"], generation_config=settings, destination="gs://b/o"
            )
        plan = dag.task_dict["g.prepare"]._prepare_arguments().plan()
        with pytest.raises(InputError, match=r"thinkingBudget.*\[model-refuses\]"):
            check_template(plan.template, model=plan.model)

    def test_who_waits_knows_where_else_to_go(self):
        moves = {"queue_timeout": timedelta(hours=36), "elsewhere": [EUROPE]}
        with DAG("d", schedule=None) as dag:
            avb.vertex_batch("g", model="m", rows=[], prompt="x", destination="gs://b/o", **moves)
        for name in ("g.wait", "g.repair"):
            assert (dag.task_dict[name].queue_timeout, dag.task_dict[name].elsewhere) == (129_600, [EUROPE])

    def test_rows_of_another_task_make_it_upstream_and_are_no_template(self):
        with DAG("d", schedule=None) as dag:
            first = avb.VertexBatchPrepareOperator(task_id="first", rows=[])
            second = avb.VertexBatchPrepareOperator(task_id="second", rows=XComArg(first))
        assert dag.task_dict["second"].upstream_task_ids == {"first"}
        assert "rows" not in second.template_fields
        assert "prompt" not in second.template_fields


class TestTheTrigger:
    """It comes back from the database as it went in, and carries names only."""

    def test_one_that_0_1_0_stored_still_loads(self):
        """A task may wait for days, over an upgrade."""
        stored = {"job_names": [JOB], "gcp_conn_id": "conn", "poll_interval": 60.0, "timeout": 349_200.0}
        now = VertexBatchJobTrigger(**stored).serialize()[1]
        assert (now["jobs"], now["queue_limit"]) == ([JOB], None)

    def test_round_trip_through_airflows_serialization(self):
        from airflow.models.trigger import Trigger

        trigger = VertexBatchJobTrigger(
            [JOB], "conn", ["a@x", "b@x"], 30.0, 3600.0, "fail", cancel_on_kill=False, queue_limit={JOB: 60.0}
        )
        stored = Trigger.from_object(trigger)
        module, _, name = stored.classpath.rpartition(".")
        back = getattr(importlib.import_module(module), name)(**stored.kwargs)
        assert back.serialize() == trigger.serialize()

    def test_what_is_stored_is_plain_and_small(self):
        _, kwargs = VertexBatchJobTrigger([JOB]).serialize()
        assert len(json.dumps(kwargs)) < 500

    def test_on_kill_without_a_task_cancels_nothing(self):
        """`dag.test()` has no task instance to ask about; there is no connection here either, so a cancel would
        raise."""
        import asyncio

        asyncio.run(VertexBatchJobTrigger([JOB]).on_kill())


class TestHowLongAKillMayTake:
    @pytest.mark.parametrize(("setting", "seconds"), [(None, 30.0), ("12", 12.0)], ids=["Airflow's own", "set"])
    def test_airflow_says(self, monkeypatch, setting, seconds):
        if setting is not None:
            monkeypatch.setenv("AIRFLOW__TRIGGERER__ON_KILL_TIMEOUT", setting)
        assert compat.on_kill_seconds() == seconds


class TestErrors:
    """An error that a retry cannot cure ends the task at once."""

    @pytest.mark.parametrize(
        ("error", "retried"),
        [
            (InputError("x"), False),
            (ServiceError("x", status=403), False),
            (ServiceError("x", status=503), True),
            (JobError("x", job_name="j", state="s"), True),
            (JobError("x", job_name="j", state="s", retryable=False), False),
        ],
        ids=["input", "403", "503", "job", "job-ended"],
    )
    def test_only_errors_that_may_pass_are_retried(self, error, retried):
        from airflow.providers.common.compat.sdk import AirflowFailException

        from airflow_vertex_batch.edge.base import fail_or_retry

        with pytest.raises(type(error) if retried else AirflowFailException, match=r"^x"), fail_or_retry():
            raise error


class TestPartitionDate:
    """The one right date of a run, whichever way it began."""

    @pytest.mark.parametrize(
        ("run", "params", "expected"),
        [
            (
                {
                    "data_interval_start": datetime(2026, 11, 21, tzinfo=UTC),
                    "logical_date": datetime(2026, 11, 21, tzinfo=UTC),
                },
                {},
                "2026-11-21",
            ),
            ({"logical_date": datetime(2026, 11, 22, tzinfo=UTC)}, {}, "2026-11-22"),
            ({"run_after": datetime(2026, 11, 23, 7, tzinfo=UTC)}, {}, "2026-11-23"),
            (
                {"partition_key": "2026-11-20T02:00:00", "run_after": datetime(2026, 11, 23, tzinfo=UTC)},
                {},
                "2026-11-20",
            ),
            (
                {"conf": {"partition_date": "2026-01-02"}, "logical_date": datetime(2026, 11, 22, tzinfo=UTC)},
                {"ds": "2026-03-04"},
                "2026-01-02",
            ),
            ({"conf": {}, "logical_date": datetime(2026, 11, 22, tzinfo=UTC)}, {"ds": "2026-03-04"}, "2026-03-04"),
            ({"conf": None, "logical_date": datetime(2026, 11, 22, tzinfo=UTC)}, {"ds": None}, "2026-11-22"),
        ],
        ids=["scheduled", "manual-dated", "manual-without-date", "partition", "conf-wins", "params", "nothing-given"],
    )
    def test_table(self, run, params, expected):
        assert partition_date({"dag_run": SimpleNamespace(**run), "params": params}) == expected

    def test_what_is_no_date_is_said(self):
        with pytest.raises(InputError, match=r"ds in conf is .yesterday., which is no date"):
            partition_date({"dag_run": SimpleNamespace(conf={"ds": "yesterday"}), "params": {}})

    def test_it_works_in_a_template(self):
        from jinja2 import Environment

        template = Environment(autoescape=True).from_string("{{ f() }}", globals={"f": partition_date})
        run = SimpleNamespace(logical_date=datetime(2026, 11, 22, tzinfo=UTC))
        assert template.render(dag_run=run, params={}) == "2026-11-22"


class TestProviderInfo:
    """An invalid dictionary would stop every airflow command."""

    def test_it_is_valid_for_the_installed_airflow(self):
        import airflow

        schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
        jsonschema.validate(get_provider_info(), schema)

    def test_every_name_in_it_can_be_imported(self):
        info = get_provider_info()
        for part in ("operators", "sensors", "hooks", "triggers"):
            for module in info[part][0]["python-modules"]:
                importlib.import_module(module)
        for link in info["extra-links"]:
            module, _, name = link.rpartition(".")
            assert hasattr(importlib.import_module(module), name)

    def test_every_link_of_an_operator_is_registered(self):
        registered = {link.rpartition(".")[2] for link in get_provider_info()["extra-links"]}
        for kind in OPERATORS:
            assert {type(link).__name__ for link in kind.operator_extra_links} <= registered
