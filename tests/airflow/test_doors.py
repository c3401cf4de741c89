"""What Airflow, or the configuration, says of every task and sensor means here what it says, or is refused."""

from __future__ import annotations

import inspect
import re
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk import DAG

import airflow_vertex_batch as avb
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.decorators import _DecoratedBatch
from airflow_vertex_batch.edge import compat, rendering, waiting
from tests.airflow.test_destination import NEEDS
from tests.airflow.test_edge import OPERATORS, _ours
from tests.airflow.waiting import SlowWorld, a_context, an_operator
from tests.emulator.worlds import INPUT, a_body

KINDS = [kind for kind in OPERATORS if kind.__name__ in NEEDS]
#: Every duration of an operator: that one argument, with what it goes with.
DURATIONS = {
    "poll_interval": {}, "job_timeout": {}, "queue_warning": {}, "settle_seconds": {},
    "queue_timeout": {"elsewhere": [{"location": "global"}]}, "older_than": {}, "owner_timeout": {}, "lookback": {},
}  # fmt: skip
named = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def made(kind, **arguments):
    """Return an operator with what it cannot do without."""
    return kind(task_id="t", **NEEDS[kind.__name__] | arguments)


def parameters(kind):
    """The parameters of an operator."""
    return inspect.signature(kind).parameters


def documented(kind):
    """The text that documents each parameter of ours, by its name."""
    found = {
        name: text
        for cls in reversed(_ours(kind))
        for name, text in re.findall(
            r"^:param (\w+): ((?:.|\n(?!:|\n))*)", inspect.cleandoc(cls.__doc__ or ""), re.MULTILINE
        )
    }
    return {name: text for name, text in found.items() if name in parameters(kind)}


class TestTemplateFields:
    @pytest.mark.parametrize("kind", [*KINDS, _DecoratedBatch], ids=lambda kind: kind.__name__)
    def test_are_what_the_documentation_calls_templated(self, kind):
        told = {name for name, text in documented(kind).items() if re.search(r"\bTemplated\b", text)}
        airflows = {"templates_dict", "op_args", "op_kwargs"} if kind is _DecoratedBatch else set()
        assert {*kind.template_fields} - airflows == told - {*kind.set_inside}

    @named
    def test_are_each_named_once(self, kind):
        names = [name for cls in _ours(kind) for name in vars(cls).get("templated", ())]
        assert sorted(names) == sorted({*names})
        assert len(kind.template_fields) == len({*kind.template_fields})

    def test_of_an_author_s_own_subclass_stay(self):
        class Mine(avb.VertexBatchOperator):
            template_fields = (*avb.VertexBatchOperator.template_fields, "note")

        class Plain(avb.VertexBatchOperator):
            templated = ("note",)

        assert Mine.template_fields[-1] == "note"
        assert {*Plain.template_fields} == {*avb.VertexBatchOperator.template_fields, "note"}

    def test_whose_texts_stay_texts_are_template_fields(self):
        assert {*rendering._KINDS} <= {name for kind in KINDS for name in kind.template_fields}


class TestDurations:
    @named
    def test_take_a_timedelta_or_seconds(self, kind):
        for name in DURATIONS.keys() & parameters(kind).keys():
            pair = (made(kind, **{name: value}, **DURATIONS[name]) for value in (3600, timedelta(hours=1)))
            assert [getattr(task, name) for task in pair] == [3600.0, 3600.0]

    @named
    @pytest.mark.parametrize("value", [0, -1, float("nan"), timedelta(seconds=-1)], ids=repr)
    def test_are_above_zero(self, kind, value):
        for name in DURATIONS.keys() & parameters(kind).keys():
            with pytest.raises(InputError, match=rf"(?s){name} is .*Give seconds, or a timedelta, of "):
                made(kind, **{name: value}, **DURATIONS[name])

    @named
    def test_are_no_bool_and_no_text(self, kind):
        for name in DURATIONS.keys() & parameters(kind).keys():
            for value in (True, "1h"):
                with pytest.raises(InputError, match=rf"{name}(='1h')? is a (bool|text)"):
                    made(kind, **{name: value}, **DURATIONS[name])

    @pytest.mark.parametrize("name", ["job_timeout", "queue_timeout", "queue_warning", "owner_timeout", "lookback"])
    def test_that_must_be_hours_are_asked_about(self, name):
        for kind in KINDS:
            if name in parameters(kind):
                with pytest.raises(InputError, match=rf"Write {name}=timedelta\(hours=97\) if hours were meant"):
                    made(kind, **{name: 97}, **DURATIONS[name])

    def test_are_all_among_them(self):
        shown = {
            name for kind in KINDS for name, each in parameters(kind).items()
            if re.search(r"Duration|timedelta", str(each.annotation)) and name in documented(kind)
        }  # fmt: skip
        assert shown == {*DURATIONS}


class TestWhatTheConfigurationMayGive:
    """A task that would fail when it runs is refused when its file is read."""

    @pytest.fixture(autouse=True)
    def nothing_configured(self, monkeypatch, configured):
        monkeypatch.delenv("AIRFLOW__VERTEX_BATCH__STAGING_URI")
        monkeypatch.delenv("AIRFLOW__VERTEX_BATCH__LOCATION")

    @pytest.mark.parametrize(
        ("kind", "needs"),
        [
            ("VertexBatchCancelJobOperator", set()),
            ("VertexBatchJobSensor", set()),
            ("VertexBatchExportOperator", {"staging_uri"}),
            ("VertexBatchPrepareOperator", {"staging_uri"}),
            *(
                (f"VertexBatch{name}Operator", {"staging_uri", "location"})
                for name in ("CreateJob", "", "Preflight", "Repair", "Sweep")
            ),
        ],
    )
    def test_is_needed(self, kind, needs):
        kind, both = getattr(avb, kind), {"staging_uri": "gs://b/s", "location": "global"}
        made(kind, **both)
        for name in both:
            given = {other: value for other, value in both.items() if other != name}
            if name in needs:
                with pytest.raises(InputError, match=rf"has no {name}.\nTo do: Set {name}=.*\[vertex_batch\] {name}"):
                    made(kind, **given)
            else:
                made(kind, **given)

    def test_is_enough(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW__VERTEX_BATCH__STAGING_URI", "gs://b/s")
        monkeypatch.setenv("AIRFLOW__VERTEX_BATCH__LOCATION", "global")
        for kind in KINDS:
            made(kind)

    def test_a_move_writes_to_the_staging_folder(self):
        with pytest.raises(InputError, match="Task t has no staging_uri"):
            made(avb.VertexBatchJobSensor, queue_timeout=36 * 3600, elsewhere=[{"location": "global"}])

    def test_other_locations_to_sweep_are_enough(self):
        made(avb.VertexBatchSweepOperator, staging_uri="gs://b/s", locations=["global"])

    def test_prepare_needs_a_location_to_ask_whether_answers_can_land(self):
        with pytest.raises(InputError, match="Task t has no location"):
            made(avb.VertexBatchPrepareOperator, staging_uri="gs://b/s", destination="gs://b/a")


class TestWaitingInTheTriggerer:
    @pytest.mark.parametrize(
        ("configured", "environment", "defers"),
        [
            (False, {}, True),
            (True, {}, True),
            (False, {"AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "False"}, False),
            (True, {"AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True"}, True),
        ],
    )
    def test_is_the_default_unless_the_environment_says_no(self, configured, environment, defers):
        assert compat.default_deferrable(environment, configured=configured) is defers

    @named
    def test_is_every_door_s_default(self, kind):
        if "deferrable" in parameters(kind):
            assert parameters(kind)["deferrable"].default is waiting.DEFAULT_DEFERRABLE
            assert made(kind).deferrable is waiting.DEFAULT_DEFERRABLE

    def test_is_what_start_from_trigger_means(self):
        assert made(avb.VertexBatchJobSensor, start_from_trigger=True).deferrable
        with pytest.raises(InputError, match="start_from_trigger=True waits in the triggerer"):
            made(avb.VertexBatchJobSensor, start_from_trigger=True, deferrable=False)


class TestArgumentsOfSensors:
    def test_to_reschedule_is_not_to_defer(self):
        assert not made(avb.VertexBatchJobSensor, mode="reschedule").deferrable
        with pytest.raises(InputError, match=r"(?s)mode='reschedule' with deferrable=True.*nothing is rescheduled"):
            made(avb.VertexBatchJobSensor, mode="reschedule", deferrable=True)

    def test_a_rescheduling_one_asks_at_its_poll_interval(self):
        task = made(avb.VertexBatchJobSensor, mode="reschedule", poll_interval=timedelta(minutes=3))
        assert (task.poke_interval, task.poll_interval) == (180, 180)

    @pytest.mark.parametrize(
        ("name", "value", "todo"),
        [
            ("poke_interval", 30, "Write poll_interval="),
            ("exponential_backoff", True, "poll_interval follows the job"),
            ("max_wait", 300, "or set poll_interval"),
            ("silent_fail", True, "what passes is waited out"),
            ("never_fail", True, "Write soft_fail=True"),
        ],
    )
    def test_that_mean_nothing_are_refused(self, name, value, todo):
        assert name in avb.VertexBatchJobSensor.refused
        with pytest.raises(InputError, match=rf"{name} means nothing to VertexBatchJobSensor.\nTo do: .*{todo}"):
            made(avb.VertexBatchJobSensor, **{name: value})
        with DAG("d", schedule=None), pytest.raises(InputError, match=f"{name} means nothing"):
            avb.VertexBatchJobSensor.partial(task_id="t", **{name: value})
        with DAG("d", schedule=None), pytest.raises(InputError, match=r"knows no argument|means nothing"):
            avb.vertex_batch(model="m", rows=["a"], destination="gs://b/a", **{name: value})

    def test_but_not_where_a_dag_says_so_for_all_of_its_sensors(self):
        defaults = {"poke_interval": 30, "exponential_backoff": True, "mode": "reschedule", "silent_fail": True}
        with DAG("d", schedule=None, default_args=defaults):
            task = made(avb.VertexBatchJobSensor, poll_interval=60)
            mapped = avb.VertexBatchJobSensor.partial(task_id="mapped").expand(jobs=[["a"], ["b"]])
        assert (task.poke_interval, task.exponential_backoff, task.silent_fail, task.deferrable) == (
            60,
            False,
            False,
            True,
        )
        assert mapped.task_id == "mapped"

    def test_every_argument_of_airflow_s_sensors_is_taken_or_refused(self):
        from airflow.sdk.bases.sensor import BaseSensorOperator

        airflows = {*inspect.signature(BaseSensorOperator.__init__).parameters} - {"self", "kwargs"}
        taken = {"mode", "timeout", "soft_fail"}
        assert airflows == taken | {*avb.VertexBatchJobSensor.refused}
        assert taken <= {*parameters(avb.VertexBatchJobSensor)}

    @pytest.mark.parametrize(
        "how", [{"deferrable": False}, {"mode": "reschedule"}, {}], ids=["worker", "again", "defers"]
    )
    def test_a_job_that_failed_skips_a_task_that_may_be_skipped(self, serve, how):
        """However it waits, and also where the job had ended before anything was waited for."""
        world = SlowWorld(hours=3)
        url = serve(world)
        world.store.put(INPUT, "no line of JSON")
        job = world.create(a_body())["name"]
        world.emulator.advance(2 * 3600)
        for soft, error in ((True, AirflowSkipException), (False, AirflowFailException)):
            task = an_operator(avb.VertexBatchJobSensor, world, url, jobs=[job], soft_fail=soft, **how)
            with pytest.raises(error, match="JOB_STATE_FAILED"):
                task.execute(a_context())
