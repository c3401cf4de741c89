"""Where answers land is looked at when a DAG file is read, and again before anything is paid."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

import airflow_vertex_batch as avb
from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from tests.airflow.test_edge import OPERATORS
from tests.airflow.waiting import (
    NO_DATASET,
    AGroup,
    SlowWorld,
    a_context,
    a_whole,
    an_operator,
    known_arguments,
    six_rows,
)

#: What each operator cannot do without.
NEEDS = {
    "VertexBatchCancelJobOperator": {"jobs": []},
    "VertexBatchCreateJobOperator": {"model": "m", "input_uri": "gs://b/in.jsonl"},
    "VertexBatchExportOperator": {"jobs": [], "destination": "gs://b/a"},
    "VertexBatchJobSensor": {"jobs": []},
    "VertexBatchOperator": {"model": "m", "prompt": "x", "rows": ["a"], "destination": "gs://b/a"},
    "VertexBatchPreflightOperator": {"model": "m"},
    "VertexBatchPrepareOperator": {"prompt": "x", "rows": ["a"]},
    "VertexBatchRepairOperator": {"model": "m", "jobs": [], "manifest": {}},
    "VertexBatchSweepOperator": {},
}
WRONG = {
    "staging_uri": "my-bucket/staging", "destination": "my-bucket/answers", "harvest_uri": "/tmp/harvest",
    "output_uri": "my-bucket/out", "dead_letters": "bad", "location": "Iowa",
}  # fmt: skip
CASES = [
    (kind, name) for kind in OPERATORS for name in WRONG if name in known_arguments(kind) and kind.__name__ in NEEDS
]


@pytest.mark.parametrize(("kind", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_an_address_that_is_none_is_refused_when_the_dag_file_is_read(kind, name):
    given = {**NEEDS[kind.__name__], name: WRONG[name]}
    with pytest.raises(InputError, match=rf"(?s){WRONG[name]}.*To do: (Write it as|Give a region)"):
        kind(task_id="t", **given)


def test_every_operator_is_among_them():
    assert {kind.__name__ for kind, _ in CASES} == set(NEEDS)
    assert {name for _, name in CASES} == set(WRONG)


#: What is only known when the task runs, and what is said then.
ONLY_THEN = [
    ({"destination": "my-bucket/answers"}, r"destination='my-bucket/answers' is an address neither in Cloud"),
    (
        {"destination": "gs://nowhere/answers"},
        r"No answer can land at gs://nowhere/answers\. .*nowhere is not there",
    ),
    ({"destination": "bq://answers"}, r"'bq://answers' names no BigQuery table"),
    (
        {"destination": f"bq://p.{NO_DATASET}.t"},
        rf"No answer can land at bq://p.{NO_DATASET}.t\. .*Nothing was prepared and no job was paid",
    ),
    ({"partition_date": "yesterday"}, r"partition_date is 'yesterday', which is no date"),
    ({"partition_date": "2026-W47"}, r"which is no date"),
    ({"partition_date": ""}, r"partition_date is '', which is no date"),
]


def rendered(task, arguments):
    """Put in what Airflow has rendered."""
    for name, value in arguments.items():
        setattr(task, name, value)
    return task


@pytest.mark.parametrize(
    ("arguments", "message"), ONLY_THEN, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
class TestBeforeAnythingIsPaid:
    def test_the_one_task_says_what_is_wrong(self, arguments, message):
        world = SlowWorld(hours=0)
        task = rendered(a_whole(world, "http://127.0.0.1:9"), arguments)
        with pytest.raises(AirflowFailException, match=message):
            task.execute(a_context())
        assert (world.states, world.store.objects) == ([], {})

    def test_so_does_prepare(self, arguments, message):
        world = SlowWorld(hours=0)
        kind = avb.VertexBatchPrepareOperator
        given = {name: value for name, value in six_rows().items() if name in known_arguments(kind)}
        task = rendered(an_operator(kind, world, "http://127.0.0.1:9", **given), arguments)
        with pytest.raises(AirflowFailException, match=message):
            task.execute(a_context())
        assert world.store.objects == {}


@pytest.mark.parametrize("given", ["2026-11-22", "20261122", 20261122, "2026-11-22T03:00:00+00:00", "20261122T030000"])
def test_a_day_lands_as_itself_however_a_template_wrote_it(given, serve):
    world = SlowWorld(hours=30)
    world.seconds_a_question = 3600
    report = a_whole(world, serve(world), partition_date=given, deferrable=False).execute(a_context())
    assert report["partition_date"] == "2026-11-22"


class TestAnExportThatFails:
    def test_says_that_the_answers_are_safe_and_what_lands_them(self, serve):
        world = SlowWorld(hours=30)
        world.seconds_a_question = 3600
        group = AGroup(world, serve(world), deferrable=False)
        jobs = group.run("wait", jobs=group.run("create"))
        world.store.read_only.add("out")
        safe = r"(?s)The answers are safe where the jobs wrote them, and stay paid\..*clear this task.*lands them"
        with pytest.raises((AirflowFailException, ServiceError), match=safe):
            group.run("export", jobs=jobs)
        world.store.read_only.clear()
        assert group.run("export", jobs=jobs)["request_count"] == 6
        assert world.billed == [6]
