"""Tasks that wait, without a running Airflow: the operators and the trigger against the emulator over HTTP."""

from __future__ import annotations

import json

import pytest

import airflow_vertex_batch as avb
from airflow_vertex_batch import triggers
from airflow_vertex_batch.core.errors import JobError
from airflow_vertex_batch.emulator.scenario import Pace, Scenario
from tests.airflow.waiting import AGroup, SlowWorld, a_context, a_whole, an_operator, deferred, resumed
from tests.emulator.worlds import INPUT, a_body, a_line, listening


@pytest.fixture
def serve(monkeypatch):
    """Return what serves a world to operators and triggers, until the test is over."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT",
        json.dumps({"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True}}),
    )
    monkeypatch.setattr(triggers, "SETTLE_SECONDS", 0.01)
    servers = []

    def start(world):
        servers.append(listening(world))
        url = servers[-1].__enter__()
        monkeypatch.setenv("VERTEX_BATCH_EMULATOR_HOST", url)
        return url

    yield start
    for server in servers:
        server.__exit__(None, None, None)


def cancelling_for_days():
    """Return a world of 100 hours ago, in which a job ends 99 hours after it was cancelled."""
    pace = Pace(pending_s=90, running_s=1_000, cancelling_s=99 * 3600)
    return SlowWorld(100, scenario=Scenario(pace=pace))


class TestAfterACancelOnTimeout:
    """The very next attempt lands what the cancelled job answered, and sends only the rest."""

    @pytest.mark.parametrize("running", [600, 0], ids=["with rows", "without rows"])
    def test_in_the_triggerer_even_while_the_job_is_still_being_cancelled(self, serve, running):
        world = cancelling_for_days()
        task, context = a_whole(world, serve(world), job_timeout=7200), a_context()
        waits = deferred(lambda: task.execute(context))
        world.emulator.advance(91 + running)
        with pytest.raises(JobError, match="It is being cancelled; rows it has answered stay"):
            resumed(task, context, waits)
        assert world.states == ["CANCELLING"]

        waits = deferred(lambda: task.execute(context))
        assert waits.kwargs == {"complete": True}
        world.emulator.advance(99 * 3600)
        waits = deferred(lambda: resumed(task, context, waits))
        assert waits.kwargs == {"complete": False}
        world.emulator.advance(3600)
        report = resumed(task, context, waits)
        self.check(world, report)

    def test_in_the_worker_too(self, serve):
        world = cancelling_for_days()
        task, context = a_whole(world, serve(world), job_timeout=7200, deferrable=False), a_context()
        world.seconds_a_question = 691
        with pytest.raises(JobError, match="It is being cancelled"):
            task.execute(context)
        world.seconds_a_question = 99 * 3600
        self.check(world, task.execute(context))

    @staticmethod
    def check(world, report):
        assert world.states == ["CANCELLED", "SUCCEEDED"]
        assert report["statuses"] == {"succeeded": 6}
        assert (sum(world.billed), world.billed[0] < 6) == (6, True)

    def test_the_sensor_hands_the_job_on(self, serve):
        world = cancelling_for_days()
        url, context = serve(world), a_context()
        world.store.put(INPUT, *(a_line(f"k{number}") for number in range(6)))
        name = world.create(a_body())["name"]
        task = an_operator(avb.VertexBatchJobSensor, world, url, jobs=[name], job_timeout=7200)
        world.emulator.advance(691)
        with pytest.raises(JobError, match="It is being cancelled"):
            task.execute(context)
        waits = deferred(lambda: task.execute(context))
        world.emulator.advance(99 * 3600)
        [job] = resumed(task, context, waits)
        assert (job["state"], job["successful_count"] > 0) == ("JOB_STATE_CANCELLED", True)

    def test_in_the_group_repair_sends_the_rest(self, serve):
        world = cancelling_for_days()
        group = AGroup(world, serve(world), job_timeout=7200, repair_rounds=1)
        jobs = group.run("create")
        world.emulator.advance(691)
        with pytest.raises(JobError, match="It is being cancelled"):
            group.run("wait", jobs=jobs)
        waits = deferred(lambda: group.run("wait", jobs=jobs))
        world.emulator.advance(99 * 3600)
        jobs = group.resumed("wait", waits)
        waits = deferred(lambda: group.run("repair", jobs=jobs))
        world.emulator.advance(3600)
        repairs = group.resumed("repair", waits)
        self.check(world, group.run("export", jobs=jobs, repairs=repairs))
