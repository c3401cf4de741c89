"""A task whose input never came: Airflow renders None, and no operator may take it for an empty night."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG
from airflow.sdk.bases.operator import BaseOperator

import airflow_vertex_batch as avb
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.sensors import VertexBatchJobSensor
from tests.airflow.waiting import AGroup, Instance, SlowWorld, a_context, an_operator, deferred
from tests.emulator.worlds import World

LANDS = {"destination": "gs://out/landed", "partition_date": "2026-11-22"}
ASKS = {"model": "gemini-2.5-flash"}
MANIFEST = {"uri": "gs://in/m", "fingerprint": "f", "row_count": 0, "request_count": 0, "shards": []}
#: Each operator, with all its arguments; those that come from other tasks are wired one by one.
WIRED = [
    (avb.VertexBatchCreateJobOperator, "manifest", ASKS),
    (avb.VertexBatchCreateJobOperator, "input_uri", ASKS),
    (avb.VertexBatchJobSensor, "jobs", {}),
    (avb.VertexBatchRepairOperator, "jobs", ASKS | {"manifest": MANIFEST}),
    (avb.VertexBatchRepairOperator, "manifest", ASKS | {"jobs": []}),
    (avb.VertexBatchExportOperator, "jobs", LANDS),
    (avb.VertexBatchExportOperator, "manifest", LANDS | {"jobs": []}),
    (avb.VertexBatchExportOperator, "repairs", LANDS | {"jobs": []}),
    (avb.VertexBatchCancelJobOperator, "jobs", {}),
    (avb.VertexBatchPrepareOperator, "rows", {"prompt": "{{ x }}"}),
    (avb.VertexBatchPrepareOperator, "requests", {}),
    (avb.VertexBatchPrepareOperator, "files", {"prompt": "{{ x }}"}),
    (avb.VertexBatchPrepareOperator, "objects", {"prompt": "{{ x }}"}),
    (avb.VertexBatchPrepareOperator, "table", {"prompt": "{{ x }}"}),
    (avb.VertexBatchPrepareOperator, "sql", {"prompt": "{{ x }}"}),
    (avb.VertexBatchOperator, "rows", ASKS | LANDS),
    (avb.VertexBatchOperator, "files", ASKS | LANDS | {"prompt": "{{ x }}"}),
]


class FoundOutputs(Instance):
    """A task instance whose run has these outputs, and no others."""

    def __init__(self, task_id, **outputs):
        super().__init__(task_id)
        self._outputs = outputs

    def xcom_pull(self, task_ids, key="return_value", *, default=None, map_indexes=None):
        return self._outputs.get(task_ids, default)


class Before(BaseOperator):
    """A task that failed."""


def rendered(kind, name, value, outputs=None, *, hook_of=(None, ""), **arguments):
    """Return a task that Airflow has rendered, and its context: what it is wired to is the output of "before"."""
    with DAG("d", schedule=None):
        before = Before(task_id="before")
        task = an_operator(kind, *hook_of, task_id="after", **arguments, **{name: value(before)})
        before >> task
    context = a_context("after")
    context["ti"] = FoundOutputs("after", **outputs or {})
    task.render_template_fields(context)
    return task, context


def the_output(before):
    """Wire as Airflow's `XComArg`."""
    return before.output


def a_template(before):
    """Wire by Jinja, which renders None as its name."""
    return f"{{{{ ti.xcom_pull('{before.task_id}') }}}}"


def a_parameter(_before):
    """Wire to a parameter that nobody gave, which renders to an empty text."""
    return "{{ params.get('that_nobody_gave', '') }}"


class TestEveryArgumentThatComesFromAnotherTask:
    @pytest.mark.parametrize(
        ("kind", "name", "arguments", "wire"),
        [
            (*each, wire)
            for each in WIRED
            for wire in (the_output, a_template, a_parameter)
            # Rows are never rendered.
            if each[1] != "rows" or wire is the_output
        ],
        ids=lambda value: getattr(value, "__name__", value if isinstance(value, str) else ""),
    )
    def test_that_never_came_is_an_error_that_touches_nothing(self, kind, name, arguments, wire):
        world = World()
        before = dict(world.store.objects)
        task, context = rendered(kind, name, wire, hook_of=(world, "http://127.0.0.1:9"), **arguments)
        with pytest.raises(
            AirflowFailException,
            match=rf"(?s)Task after was given nothing as its {name} \('?(None)?'?\)\. It is the output of .*before.*"
            r"Nothing was sent, cancelled or landed.*Clear the task that gave nothing",
        ):
            task.execute(context)
        assert (world.store.objects, world.emulator.books()["jobs"]) == (before, [])

    def test_covers_every_operator_that_is_wired_to_another(self):
        wired = {(kind, name) for kind, name, _ in WIRED}
        for kind in (avb.VertexBatchCreateJobOperator, avb.VertexBatchRepairOperator, avb.VertexBatchExportOperator,
                     avb.VertexBatchCancelJobOperator, VertexBatchJobSensor):  # fmt: skip
            for name in {"jobs", "manifest", "repairs", "input_uri"} & set(kind.template_fields):
                assert (kind, name) in wired

    def test_a_list_with_a_gap_is_one_too(self):
        job = "projects/1/locations/global/batchPredictionJobs/2"
        task, context = rendered(
            avb.VertexBatchCancelJobOperator, "jobs", the_output, {"before": [job, None]}, hook_of=(World(), "")
        )
        with pytest.raises(AirflowFailException, match=r"nothing as its jobs \(1 of 2 are nothing\)"):
            task.execute(context)

    def test_rows_of_a_function_that_forgot_its_return(self):
        task = an_operator(avb.VertexBatchPrepareOperator, World(), "", rows=lambda: None, prompt="x")
        with pytest.raises(
            AirflowFailException, match=r"rows gave NoneType, not rows\. A function without a return gives"
        ):
            task.execute(a_context())


class TestWhatIsWiredWhenItIsMade:
    """None is a value like any other there: a mapped task gets it from a task that returned nothing."""

    @pytest.mark.parametrize("name", ["jobs", "manifest", "repairs"])
    def test_none_is_no_way_to_leave_an_argument_out(self, name):
        with pytest.raises(InputError, match=f"Task t was given nothing as its {name}"):
            avb.VertexBatchExportOperator(task_id="t", **LANDS | {"jobs": []} | {name: None})

    def test_a_mapped_task_of_which_one_manifest_is_missing(self):
        with DAG("d", schedule=None) as dag:
            avb.VertexBatchExportOperator.partial(task_id="t", **LANDS).expand_kwargs(
                [{"jobs": [], "manifest": {}}, {"jobs": [], "manifest": None}]
            )
        mapped = dag.get_task("t")
        assert mapped.unmap({"jobs": [], "manifest": {"a": 1}}).manifest == {"a": 1}
        with pytest.raises(AirflowFailException, match="Task t was given nothing as its manifest"):
            mapped.unmap({"jobs": [], "manifest": None})

    @pytest.mark.parametrize(
        ("kind", "given", "wrong", "message"),
        [
            (avb.VertexBatchCancelJobOperator, {}, {"jobs": None}, "given nothing as its jobs"),
            (VertexBatchJobSensor, {}, {"jobs": None}, "given nothing as its jobs"),
            (avb.VertexBatchCreateJobOperator, ASKS, {"manifest": None}, "needs a manifest or an input_uri"),
            (avb.VertexBatchOperator, ASKS | LANDS | {"prompt": "x"}, {"rows": None}, "has 0 sources"),
            (avb.VertexBatchPrepareOperator, {"prompt": "x"}, {"rows": ["a"], "on_null": "no"}, "on_null='no'"),
        ],
    )
    def test_what_is_wrong_with_one_of_a_mapped_task_is_not_tried_again(self, kind, given, wrong, message):
        """Airflow makes it in the worker, before it runs."""
        with DAG("d", schedule=None) as dag:
            kind.partial(task_id="t", **given).expand_kwargs([wrong])
        with pytest.raises(AirflowFailException, match=message):
            dag.get_task("t").unmap(wrong)


class TestASensorThatBeganInTheTriggerer:
    def test_names_the_task_that_gave_it_nothing(self):
        task, context = rendered(avb.VertexBatchJobSensor, "jobs", the_output, start_from_trigger=True)
        with pytest.raises(AirflowFailException, match=r"given nothing as its jobs .* output of task before"):
            task.execute_complete(context, {"outcomes": [], "error": "'None' is not the name of a job"})


@pytest.fixture
def landed(serve):
    """Return a world in which six rows have landed, the group that landed them, and its jobs."""
    world = SlowWorld(1)
    group = AGroup(world, serve(world))
    names = group.run("create")
    waits = deferred(lambda: group.run("wait", jobs=names))
    world.emulator.advance(3600)
    jobs = group.resumed("wait", waits)
    group.run("export", jobs=jobs, repairs=group.run("repair", jobs=jobs))
    return world, group, jobs


class TestAnEmptyListOfJobs:
    """It is what an empty night has, and only that."""

    def test_beside_requests_is_an_error_of_repair_and_of_export(self, landed):
        world, group, _ = landed
        before = dict(world.store.objects)
        for step in ("repair", "export"):
            with pytest.raises(
                AirflowFailException, match=r"No job answers gs://\S+ of manifest \S+\. Nothing was lan"
            ):
                group.run(step, jobs=[])
        assert {name: data for name, data in world.store.objects.items() if name in before} == before

    def test_without_a_manifest_is_an_error(self, landed):
        world, _, _ = landed
        before = dict(world.store.objects)
        task = an_operator(avb.VertexBatchExportOperator, world, "", **LANDS, jobs=[])
        with pytest.raises(AirflowFailException, match=r"neither a job nor a manifest.*Nothing was landed"):
            task.execute(a_context("export"))
        assert world.store.objects == before

    def test_jobs_of_another_manifest_are_an_error(self, landed):
        """An empty night's manifest, and the jobs of a full one: what has landed would be replaced by nothing."""
        world, group, jobs = landed
        before = dict(world.store.objects)
        empty = group.manifest | {"shards": [], "row_count": 0, "request_count": 0}
        for step in ("repair", "export"):
            with pytest.raises(AirflowFailException, match=r"answers no file of manifest .* Nothing was landed"):
                group.run(step, jobs=jobs, manifest=empty)
        assert {name: data for name, data in world.store.objects.items() if name in before} == before
