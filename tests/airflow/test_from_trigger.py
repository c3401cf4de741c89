"""A sensor that no worker begins: what it hands to the scheduler, and what the triggerer makes of it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from airflow.sdk import DAG, task_group
from jinja2 import Environment
from markupsafe import escape

import airflow_vertex_batch as avb
from airflow_vertex_batch import triggers
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.triggers import VertexBatchJobTrigger
from tests.airflow.versions import DagSerialization, since_3_3
from tests.airflow.waiting import SlowWorld, a_context, an_operator, deferred
from tests.emulator.worlds import World, a_body, listening

JOB = "projects/1/locations/us-central1/batchPredictionJobs/2"
OTHER = JOB + "2"


def create():
    """Return a task whose output names jobs."""
    return avb.VertexBatchCreateJobOperator(task_id="create", model="m", manifest={})


def mapped():
    """Return the same, once for each of two manifests."""
    return avb.VertexBatchCreateJobOperator.partial(task_id="create", model="m").expand(manifest=[{}, {}])


def grouped():
    """Return a task in a mapped group, and the sensor behind it in the same group."""
    made = []

    @task_group
    def group(number):
        first = create()
        made.extend([first, sensor(first.output)])

    group.expand(number=[1, 2])
    return made


def sensor(jobs, **arguments):
    """Return a sensor that begins in the triggerer."""
    return avb.VertexBatchJobSensor(task_id="wait", jobs=jobs, start_from_trigger=True, **arguments)


def arrived(dag, context):
    """Take the sensor through the database and give it to the triggerer, which renders the trigger."""
    from airflow.models.trigger import Trigger
    from airflow.serialization.decoders import smart_decode_trigger_kwargs

    task = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag)))).get_task("wait")
    assert task.start_from_trigger
    row = Trigger(task.start_trigger_args.trigger_cls, task.start_trigger_args.trigger_kwargs)
    stored = Trigger._decrypt_kwargs(row.encrypted_kwargs)
    trigger = VertexBatchJobTrigger(**{name: smart_decode_trigger_kwargs(value) for name, value in stored.items()})
    trigger.task_instance = Instance(task)
    trigger.render_template_fields(context)
    return trigger


class Instance:
    """A task instance as the triggerer knows it, with the XComs of its run."""

    def __init__(self, task=None, map_index=-1, **xcoms):
        self.task, self.task_id, self.map_index, self._xcoms = task, "wait", map_index, xcoms

    def xcom_pull(self, task_ids, key="return_value", map_indexes=None):
        # Without a map index it asks for all of them, which no triggerer answers (Airflow 3.3.2).
        assert map_indexes == self.map_index
        return self._xcoms[f"{task_ids}_{key}"]


@since_3_3
class TestWhatArrives:
    @pytest.mark.parametrize(
        "jobs",
        [JOB, [JOB, OTHER], "{{ params.jobs }}", ["{{ params.one }}", OTHER]],
        ids=["a name", "names", "a template", "templates"],
    )
    def test_names_and_templates_are_rendered(self, jobs):
        with DAG("d", schedule=None) as dag:
            sensor(jobs, gcp_conn_id="{{ params.connection }}", poll_interval=30, job_timeout=timedelta(hours=1))
        trigger = arrived(dag, {"params": {"jobs": [JOB, OTHER], "one": JOB, "connection": "mine"}})
        names = [str(name) for name in triggers.job_names(trigger.jobs)]
        assert names == ([JOB] if jobs == JOB else [JOB, OTHER])
        assert (trigger.gcp_conn_id, trigger.poll_interval, trigger.timeout) == ("mine", 30, 3600)

    @pytest.mark.parametrize(
        ("arguments", "handed"),
        [
            ({"timeout": 600}, timedelta(minutes=10)),
            ({"timeout": timedelta(days=5), "job_timeout": timedelta(days=6)}, timedelta(days=5)),
            ({"timeout": timedelta(days=5)}, None),
            ({"timeout": timedelta.max}, None),
            ({}, None),
        ],
        ids=["a short one", "below a long job_timeout", "above it", "no scheduler could add it", "the default"],
    )
    def test_the_sensor_s_own_timeout_is_handed_to_the_scheduler_where_it_comes_first(self, arguments, handed):
        with DAG("d", schedule=None) as dag:
            sensor(JOB, **arguments)
        task = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag)))).get_task("wait")
        assert task.start_trigger_args.timeout == handed

    def test_the_output_of_the_create_task_is_pulled_in_the_triggerer(self):
        with DAG("d", schedule=None) as dag:
            wait = sensor(create().output)
        trigger = arrived(dag, {"ti": Instance(create_return_value=[JOB, OTHER])})
        assert [str(name) for name in triggers.job_names(trigger.jobs)] == [JOB, OTHER]
        assert wait.upstream_task_ids == {"create"}

    def test_in_a_mapped_group_it_is_the_output_of_the_same_part(self):
        with DAG("d", schedule=None):
            template = grouped()[1].start_trigger_args.trigger_kwargs["jobs"]
        instance = Instance(map_index=1, **{"group.create_return_value": [JOB]})
        assert Environment(autoescape=True).from_string(template).render(ti=instance) == escape(str([JOB]))

    def test_another_key_is_asked_for(self):
        with DAG("d", schedule=None) as dag:
            sensor(create().output["jobs"])
        assert arrived(dag, {"ti": Instance(create_jobs=[JOB])}).jobs == str([JOB])

    def test_the_group_can_be_told(self):
        with DAG("d", schedule=None) as dag:
            avb.vertex_batch("g", model="m", rows=[], prompt="x", destination="gs://b/o", start_from_trigger=True)
        assert (
            dag.task_dict["g.wait"].start_trigger_args.trigger_kwargs["jobs"].startswith("{{ ti.xcom_pull('g.create'")
        )

    def test_a_mapped_sensor_begins_on_a_worker(self):
        """Airflow cannot do it; nothing is handed to the scheduler."""
        with DAG("d", schedule=None):
            mapped = avb.VertexBatchJobSensor.partial(task_id="wait", start_from_trigger=True).expand(jobs=[[JOB]])
        assert mapped.start_trigger_args is None

    def test_nothing_is_handed_over_without_being_asked_for(self):
        with DAG("d", schedule=None):
            plain = avb.VertexBatchJobSensor(task_id="wait", jobs=JOB)
        assert (plain.start_from_trigger, plain.start_trigger_args) == (False, None)


class TestBelow33:
    """The scheduler hands no task to the triggerer, and the triggerer renders nothing: a worker begins the sensor."""

    @pytest.fixture(autouse=True)
    def below_3_3(self, monkeypatch):
        monkeypatch.setattr("airflow_vertex_batch.sensors.can_start_from_trigger", lambda: False)

    def test_nothing_is_handed_to_the_scheduler(self):
        with DAG("d", schedule=None):
            wait = sensor(create().output)
        assert (wait.start_from_trigger, wait.start_trigger_args) == (False, None)

    def test_the_worker_asks_once_and_defers(self, serve):
        world = SlowWorld(1)
        name = world.create(a_body())["name"]
        task = an_operator(avb.VertexBatchJobSensor, world, serve(world), jobs=[name], start_from_trigger=True)
        context = a_context()
        waits = deferred(lambda: task.execute(context))
        assert waits.trigger.jobs == [name]
        assert "vertex_batch_generation" in context["ti"].xcoms

    def test_what_3_3_could_not_resolve_is_refused_all_the_same(self):
        """So that the DAG file goes on when Airflow does."""
        with DAG("d", schedule=None):
            given = mapped().output
            with pytest.raises(InputError, match="cannot resolve these jobs"):
                sensor(given)


class TestWhatIsRefused:
    """At parse time, not in the triggerer."""

    def test_waiting_in_a_worker(self):
        with pytest.raises(InputError, match="Leave out deferrable=False"):
            sensor(JOB, deferrable=False)

    @pytest.mark.parametrize(
        "jobs",
        [
            lambda: mapped().output,
            lambda: mapped().output.map(str),
            lambda: [create().output],
            lambda: grouped()[0].output,
        ],
        ids=["of a mapped task", "mapped", "in a list", "of a task in a mapped group"],
    )
    def test_outputs_that_the_triggerer_cannot_resolve(self, jobs):
        with DAG("d", schedule=None):
            given = jobs()
            with pytest.raises(InputError, match=r"(?s)cannot resolve these jobs.*Pass create\.output itself"):
                sensor(given)


class TestTheTrigger:
    """It runs here as in a triggerer, against the emulator over HTTP."""

    @pytest.fixture(autouse=True)
    def connection(self, monkeypatch, settles_at_once):
        monkeypatch.setenv(
            "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT",
            json.dumps({"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True}}),
        )

    async def event(self, trigger):
        """Run a trigger to its one event."""
        events = [event async for event in trigger.run()]
        assert len(events) == 1
        return events[0].payload

    async def test_a_job_s_end_is_one_event(self, monkeypatch):
        world = World()
        with listening(world) as url:
            monkeypatch.setenv("VERTEX_BATCH_EMULATOR_HOST", url)
            name = world.create(a_body())["name"]
            world.emulator.advance(10_000)
            payload = await self.event(VertexBatchJobTrigger(name))
        assert [outcome["job"]["name"] for outcome in payload["outcomes"]] == [name]

    async def test_what_names_no_job_ends_the_task_and_not_the_trigger(self):
        payload = await self.event(VertexBatchJobTrigger("None"))
        assert payload == {
            "outcomes": [],
            "error": "'None' is not the name of a batch prediction job. "
            "Use projects/PROJECT/locations/LOCATION/batchPredictionJobs/ID.",
        }


@since_3_3
class TestTheEnd:
    """`execute_complete` does what `execute` never could: links and generation."""

    def complete(self, event):
        pushed = {}

        class Ending(Instance):
            max_tries = 3

            def xcom_push(self, key, value):
                pushed[key] = value

        with DAG("d", schedule=None):
            result = sensor(JOB).execute_complete({"ti": Ending()}, event)
        return result, pushed

    def test_links_and_generation_are_pushed(self):
        from airflow_vertex_batch.core.waiting.watch import Ended, pack
        from tests.builders import a_job

        result, pushed = self.complete({"outcomes": pack([Ended(a_job(name=JOB))])})
        assert [job["name"] for job in result] == [JOB]
        assert pushed["vertex_batch_generation"] == "3"
        assert any(JOB.rpartition("/")[2] in str(value) for value in pushed.values())

    def test_an_error_fails_the_task_for_good(self):
        from airflow.providers.common.compat.sdk import AirflowFailException

        with pytest.raises(AirflowFailException, match="'None' is not the name"):
            self.complete({"outcomes": [], "error": "'None' is not the name of a batch prediction job."})
