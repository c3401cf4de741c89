"""A batch in one file: what may stand in it, and what each mistake says."""

from __future__ import annotations

import re
from datetime import date

import msgspec
import pytest

from airflow_vertex_batch import parameters
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.standalone import spec as module
from airflow_vertex_batch.core.standalone.spec import Spec
from airflow_vertex_batch.operators import VertexBatchOperator

#: Everything that must be there.
LEAST = """
model = "gemini-3.8-flash"
location = "global"
staging_uri = "gs://b/staging"
destination = "gs://b/out"
files = "tickets.csv"
prompt = "Which mood? {{ body }}"
"""


def read(more="", name="moods.toml", **given):
    return Spec.read((LEAST + more).encode(), name, **given)


def members(text):
    """A spec without some of its lines, and with others."""
    return Spec.read(text.encode(), "moods.toml")


class TestReading:
    def test_what_is_not_said_is_as_in_an_operator(self):
        spec = read()
        given = {name: getattr(spec, name) for name in ("model", "location", "files", "prompt", "destination")}
        operator = VertexBatchOperator(task_id="moods", staging_uri="gs://b/staging", **given)
        assert (spec.task_id, spec.dag_id, spec.run_id) == ("moods", "run", "run")
        same = set(Spec.__struct_fields__) - {"dag_id", "run_id", "labels"}
        assert {name: getattr(spec, name) for name in same} == {name: getattr(operator, name) for name in same}

    def test_what_is_given_beside_it_wins(self):
        spec = read(destination="bq://p.d.t", run_id="r", dag_id=None)
        assert (spec.destination, spec.run_id, spec.dag_id) == ("bq://p.d.t", "r", "run")

    def test_a_day_may_be_a_date_of_toml(self):
        assert read("partition_date = 2026-11-22").partition_date == date(2026, 11, 22)

    def test_lists_and_tables(self):
        spec = read(
            'columns = ["a", "b"]\nqueue_timeout = 90000\nelsewhere = [{location = "global"}]\n'
            '[labels]\nteam = "x"\n[response_schema]\ntype = "object"\nproperties = {mood = {type = "string"}}\n'
        )
        assert spec.columns == ("a", "b")
        assert [place.location for place in spec.places()] == ["global"]
        assert spec.plan().schema == {"type": "object", "properties": {"mood": {"type": "string"}}}
        assert spec.policy(None).check is not None


class TestEveryArgument:
    """A spec and an operator know the same arguments, and the same words."""

    TASK = frozenset({"retries", *parameters.TaskParameters.__annotations__})

    def test_each_of_an_operator_can_be_given_or_is_refused_by_name(self):
        known = parameters.BatchParameters.__annotations__.keys() - self.TASK
        assert known - set(Spec.__struct_fields__) - module._OF_AIRFLOW.keys() == set()

    def test_nothing_else_can(self):
        assert set(Spec.__struct_fields__) - set(parameters.BatchParameters.__annotations__) == {"dag_id", "run_id"}

    def test_the_words_are_the_same(self):
        theirs = {name: kind.__forward_arg__ for name, kind in parameters.BatchParameters.__annotations__.items()}
        mine = {name: kind for each in Spec.__mro__ for name, kind in vars(each).get("__annotations__", {}).items()}
        asked = {name: (_words(kind), _words(mine.get(name, ""))) for name, kind in theirs.items()}
        assert {name for name, (their, my) in asked.items() if my and my != their} == set()
        assert sum(bool(my) for _, my in asked.values()) > 8

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("repair_rounds", 11), ("repair_rounds", -1), ("repair_max_output_tokens", 0), ("settle_seconds", 5),
            ("repair_max_output_tokens", 65_537), ("max_requests_per_job", 0), ("max_rejected_ratio", 2.0),
            ("job_timeout", 97), ("queue_warning", 0.0), ("poll_interval", 0.0), ("max_cost_usd", 0.0),
            ("max_failed_ratio", 1.5), ("min_succeeded_rows", -1), ("on_clear", "never"), ("on_timeout", "x"),
            ("on_changed_input", "x"), ("on_over_budget", "x"), ("repair_by", "x"), ("on_lost_output", "x"),
            ("on_empty", "x"), ("on_null", "x"), ("correlation", "x"), ("file_format", "csv"), ("on_rejected_row", "x"),
            ("queue_timeout", 90_000.0), ("elsewhere", []), ("location", "moon 1"), ("labels", {"A": "b"}),
            ("staging_uri", "b"), ("destination", "b"), ("output_uri", "b"), ("lint_ignore", ["x"]),
        ],
        ids=str,
    )  # fmt: skip
    def test_what_an_operator_refuses_a_spec_refuses(self, name, value):
        least = {
            "model": "gemini-3.8-flash", "location": "global", "staging_uri": "gs://b/s", "destination": "gs://b/o",
            "files": "t.csv", "prompt": "{{ b }}", "task_id": "moods",
        }  # fmt: skip
        with pytest.raises(InputError, match=r"\S"):
            VertexBatchOperator(**least | {name: value})
        with pytest.raises(InputError, match=name.partition("_")[0]):
            Spec.read(LEAST.encode(), "moods.toml", **{name: value})


def _words(annotation):
    """The words that an annotation, as text, allows."""
    return {word for words in re.findall(r"Literal\[(.*?)\]", str(annotation)) for word in re.findall(r"\w+", words)}


class TestMistakes:
    @pytest.mark.parametrize(
        ("more", "what"),
        [
            ('promt = "x"', r"moods\.toml: 'promt' is no argument of a batch\. Write prompt"),
            ("zzz = 1", r"moods\.toml: 'zzz' is no argument of a batch\. Use one of "),
            ('gcp_conn_id = "x"', r"gcp_conn_id means nothing without Airflow\. Leave it out: the account is"),
            ('sql_conn_id = "x"', r"sql_conn_id means nothing without Airflow\. .*`sql` asks BigQuery"),
            ("deferrable = true", "deferrable means nothing without Airflow"),
            ('group_id = "g"', r"group_id means nothing without Airflow\. Name the batch with task_id"),
            ("repair_rounds = 'two'", r"moods\.toml does not fit\. repair_rounds: Expected `int`, got `str`"),
            ("repair_rounds = 11", r"repair_rounds: Expected `int` <= 10"),
            ('on_clear = "never"', r"on_clear: Invalid enum value 'never'"),
            ("columns = 3", r"columns: Expected `str \| array`, got `int`"),
            ('repair_by = "resume"', "repair_by, which would do nothing. It has no repair round"),
            ('task_id = ""', "task_id is empty"),
            ('run_id = "a\\u0000b"', "run_id is odd"),
            (f'dag_id = "{"x" * 251}"', "dag_id is longer than 250 characters"),
            (
                'display_name = "{{ ds }}"',
                r"display_name holds a template, '\{\{ ds \}\}', and only Airflow renders it",
            ),
            ('[labels]\na = "{{ ds_nodash }}"', r"labels\.a holds a template"),
            ("[response_schema]\nminimum = nan", "response_schema.minimum is nan"),
            ("x = " + "[" * 2000, "is no TOML"),
            ('sql = "SELECT 1"', r"moods has 2 sources \(sql, files\)"),
            ("model = ", r"moods\.toml is no TOML\. Invalid value"),
            ("job_timeout = 97", r"job_timeout = 97 is 97 seconds\. .*97 hours are 349200"),
        ],
        ids=lambda value: value[:20],
    )
    def test_say_what_is_wrong_and_what_to_do(self, more, what):
        with pytest.raises(InputError, match=what):
            read(more)

    @pytest.mark.parametrize("name", ["model", "location", "staging_uri", "destination"])
    def test_what_must_be_there_is_named(self, name):
        text = "\n".join(line for line in LEAST.splitlines() if not line.startswith(name))
        with pytest.raises(InputError, match=rf"moods\.toml does not fit\. .*missing required field `{name}`"):
            members(text)

    def test_a_mark_of_byte_order_is_no_mistake(self):
        assert Spec.read(b"\xef\xbb\xbf" + LEAST.encode(), "moods.toml") == read()

    @pytest.mark.parametrize("value", ["''", "[]"])
    def test_a_source_that_names_nothing_is_refused(self, value):
        with pytest.raises(InputError, match="files of task moods is empty"):
            members(LEAST.replace('"tickets.csv"', value))

    @pytest.mark.parametrize(
        ("name", "task"), [("a/b.c.toml", "b.c"), ("gs://b/moods.toml", "moods"), ("moods", "moods"), (".toml", "spec")]
    )
    def test_a_batch_is_named_as_its_file_is(self, name, task):
        assert read(name=name).task_id == task

    def test_what_is_no_text_is_refused(self):
        with pytest.raises(InputError, match="is no TOML"):
            Spec.read(b"\xff", "moods.toml")


class TestItsDigest:
    def test_is_the_same_for_the_same_spec(self):
        assert read().digest() == read().digest()

    @pytest.mark.parametrize(
        "more", ["fix_requests = true", 'system_instruction = "Be brief."', "[generation_config]\ntemperature = 0"]
    )
    def test_changes_with_what_is_asked(self, more):
        assert read(more).digest() != read().digest()

    @pytest.mark.parametrize("more", ["repair_rounds = 1", "partition_date = 2026-11-22", 'on_null = "reject"'])
    def test_stays_with_all_else(self, more):
        assert read(more).digest() == read().digest()

    def test_does_not_depend_on_the_order_of_members(self):
        first, second = "[generation_config]\na = 1\nb = 2", "[generation_config]\nb = 2\na = 1"
        assert read(first).digest() == read(second).digest()


def test_a_spec_is_frozen():
    with pytest.raises(AttributeError, match="immutable"):
        read().model = "x"
    assert msgspec.structs.replace(read(), model="x").model == "x"
