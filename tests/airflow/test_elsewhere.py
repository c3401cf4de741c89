"""A job that queues for too long is bought elsewhere: the operators and the trigger against the emulator over HTTP."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

import airflow_vertex_batch as avb
from airflow_vertex_batch.emulator.faults import Hold, Http
from airflow_vertex_batch.emulator.scenario import Pace, Scenario
from tests.airflow.waiting import AGroup, SlowWorld, a_context, a_whole, an_operator, deferred, resumed
from tests.emulator.worlds import INPUT, a_body, a_line

HOUR = 3600
EUROPE, LITE, PRO = {"location": "europe-west4"}, {"model": "gemini-2.5-flash-lite"}, {"model": "gemini-2.5-pro"}
NO_CANCEL = Http(on="cancel", status=403)


def crowded(times=1, *faults, hours=36):
    """Return a world of so many hours ago in which the first jobs never get their turn."""
    hold = Hold(state="JOB_STATE_PENDING", from_pending=True, times=times)
    return SlowWorld(hours, scenario=Scenario(faults=(hold, *faults)))


def moving(*places, **arguments):
    """Return the parameters of moving after 35 hours."""
    return {
        "queue_timeout": 35 * HOUR, "elsewhere": list(places or (EUROPE,)),
    } | arguments  # fmt: skip


def places(world):
    """Return the location and the model of each job, oldest first."""
    return [
        (job["name"].split("/")[3], job["model"].rpartition("/")[2], job["state"].removeprefix("JOB_STATE_"))
        for job in world.emulator.books()["jobs"]
    ]


MOVED = [("global", "gemini-2.5-flash", "CANCELLED"), ("europe-west4", "gemini-2.5-flash", "SUCCEEDED")]


class TestOneTaskForItAll:
    def test_the_triggerer_wakes_the_worker_which_moves_the_job(self, serve, warnings):
        world = crowded()
        task, context = a_whole(world, serve(world), **moving(queue_timeout=37 * HOUR)), a_context()
        waits = deferred(lambda: task.execute(context))
        assert list(waits.trigger.queue_limit.values()) == [37 * HOUR]
        world.grow_older(1.5 * HOUR)
        waits = deferred(lambda: resumed(task, context, waits))
        assert (world.states, waits.trigger.queue_limit) == (["CANCELLED"], {})
        world.emulator.advance(35.5 * HOUR)
        waits = deferred(lambda: resumed(task, context, waits))
        assert waits.trigger.jobs[0].split("/")[3] == "europe-west4"
        world.emulator.advance(HOUR)
        report = resumed(task, context, waits)
        assert (report["statuses"], places(world)) == ({"succeeded": 6}, MOVED)
        assert "its requests go to location europe-west4 unless it has begun meanwhile" in warnings()[-1]

    def test_a_worker_that_blocks_does_the_same(self, serve):
        world = crowded()
        task = a_whole(world, serve(world), deferrable=False, **moving())
        world.seconds_a_question = 35.5 * HOUR
        report = task.execute(a_context())
        assert (report["statuses"], places(world)) == ({"succeeded": 6}, MOVED)

    def test_another_attempt_buys_nothing_more(self, serve):
        world = crowded()
        url = serve(world)
        world.seconds_a_question = 35.5 * HOUR
        for _ in range(2):
            report = a_whole(world, url, deferrable=False, **moving()).execute(a_context())
            assert report["statuses"] == {"succeeded": 6}
        assert places(world) == MOVED

    def test_nor_one_whose_author_has_taken_the_parameters_away(self, serve):
        world = crowded()
        url = serve(world)
        world.seconds_a_question = 35.5 * HOUR
        a_whole(world, url, deferrable=False, **moving()).execute(a_context())
        report = a_whole(world, url, deferrable=False).execute(a_context())
        assert (report["statuses"], places(world)) == ({"succeeded": 6}, MOVED)

    def test_a_clear_that_buys_anew_begins_at_home(self, serve):
        world, context = crowded(), a_context()
        url = serve(world)
        world.seconds_a_question = 35.5 * HOUR
        for _ in range(2):
            task = a_whole(world, url, deferrable=False, on_clear="new", **moving())
            assert task.execute(context)["statuses"] == {"succeeded": 6}
            context["ti"].max_tries += 1
        assert places(world) == [*MOVED, ("global", "gemini-2.5-flash", "SUCCEEDED")]

    def test_an_attempt_that_dies_before_the_cancel_is_taken_up(self, serve):
        world = crowded(1, NO_CANCEL)
        url = serve(world)
        with pytest.raises(AirflowFailException, match="HTTP 403"):
            a_whole(world, url, **moving()).execute(a_context())
        assert world.states == ["PENDING"]
        world.seconds_a_question = 35.5 * HOUR
        report = a_whole(world, url, deferrable=False, **moving()).execute(a_context())
        assert (report["statuses"], places(world)) == ({"succeeded": 6}, MOVED)

    def test_a_job_that_begins_before_its_cancel_is_completed_where_it_was(self, serve):
        hold = Hold(state="JOB_STATE_PENDING", from_pending=True, seconds=35 * HOUR)
        world = SlowWorld(36, scenario=Scenario(faults=(hold,), pace=Pace(running_s=1_000)))
        world.seconds_a_cancel, world.seconds_a_question = 35 * HOUR + 600, 2_000
        task = a_whole(world, serve(world), deferrable=False, **moving())
        assert task.execute(a_context())["statuses"] == {"succeeded": 6}
        assert [(location, state) for location, _, state in places(world)] == [
            ("global", "CANCELLED"), ("global", "SUCCEEDED"),
        ]  # fmt: skip
        assert (world.billed[0] > 0, sum(world.billed)) == (True, 6)

    def test_another_model_is_priced_by_its_own_price(self, serve):
        costs = []
        for elsewhere in ({}, moving(LITE)):
            world = crowded() if elsewhere else SlowWorld(36)
            world.seconds_a_question = 35.5 * HOUR
            report = a_whole(world, serve(world), deferrable=False, **elsewhere).execute(a_context())
            costs.append(float(report["cost_usd"]))
        assert places(world)[-1] == ("global", "gemini-2.5-flash-lite", "SUCCEEDED")
        assert 0 < costs[1] < costs[0]

    def test_a_dearer_model_above_the_budget_is_passed_over(self, serve):
        world = crowded()
        task = a_whole(world, serve(world), deferrable=False, max_cost_usd=0.6, **moving(PRO, EUROPE))
        world.seconds_a_question = 35.5 * HOUR
        assert task.execute(a_context())["statuses"] == {"succeeded": 6}
        assert places(world) == MOVED

    def test_a_model_that_refuses_the_requests_is_passed_over(self, serve):
        world = crowded()
        config = {"thinkingConfig": {"thinkingBudget": 0}}
        asked = moving({"model": "gemini-4-argon"}, EUROPE)
        task = a_whole(world, serve(world), deferrable=False, generation_config=config, **asked)
        world.seconds_a_question = 35.5 * HOUR
        assert task.execute(a_context())["statuses"] == {"succeeded": 6}
        assert places(world) == MOVED

    def test_when_no_place_is_left_it_waits(self, serve, warnings):
        world = crowded(2)
        task, context = a_whole(world, serve(world), **moving()), a_context()
        waits = deferred(lambda: task.execute(context))
        waits = deferred(lambda: resumed(task, context, waits))
        assert (waits.kwargs["attempt"]["handled"]["stuck"], waits.trigger.queue_limit) == (waits.trigger.jobs, {})
        assert "there is no place left to move it to; it goes on waiting" in warnings()[-1]
        assert world.states == ["CANCELLED", "PENDING"]


class TestTheGroup:
    """The sensor gives the job up, the repair task buys its requests."""

    def to_the_end(self, group, world):
        jobs = group.run("create")
        waits = deferred(lambda: group.run("wait", jobs=jobs))
        jobs = group.resumed("wait", waits)
        world.emulator.advance(35.5 * HOUR)
        waits = deferred(lambda: group.run("repair", jobs=jobs))
        world.emulator.advance(HOUR)
        return group.run("export", jobs=jobs, repairs=group.resumed("repair", waits))

    @pytest.mark.parametrize("shards", [1, 2], ids=["one job", "one of two jobs"])
    def test_every_row_lands_once(self, serve, shards):
        world = crowded()
        options = {"max_requests_per_job": 3} if shards > 1 else {}
        group = AGroup(world, serve(world), **moving(), **options)
        if shards > 1:
            self.let_the_second_run(group, world)
        report = self.to_the_end(group, world)
        assert report["statuses"] == {"succeeded": 6}
        assert report["rounds"] == [{"round": 1, "sent": 6 // shards, "cured": 6 // shards}]
        assert sum(world.billed) == 6
        assert len(report["jobs"]) == len(world.states) == shards + 1

    @staticmethod
    def let_the_second_run(group, world):
        group.run("create")
        world.emulator.advance(600)

    def test_clearing_the_run_buys_nothing(self, serve):
        world = crowded()
        group = AGroup(world, serve(world), **moving())
        self.to_the_end(group, world)
        group.run("prepare")
        jobs = group.run("wait", jobs=group.run("create"))
        repairs = group.run("repair", jobs=jobs)
        assert group.run("export", jobs=jobs, repairs=repairs)["statuses"] == {"succeeded": 6}
        assert places(world) == MOVED

    def test_clearing_it_to_buy_anew_begins_at_home_and_may_move_again(self, serve):
        world = crowded(hours=80)
        group = AGroup(world, serve(world), on_clear="new", **moving())
        self.to_the_end(group, world)
        for context in group.contexts.values():
            context["ti"].max_tries += 1
        world.emulator.set_scenario(Scenario(faults=(Hold(state="JOB_STATE_PENDING", from_pending=True),)))
        assert self.to_the_end(group, world)["statuses"] == {"succeeded": 6}
        assert places(world) == [*MOVED, *MOVED]

    def test_a_sensor_that_dies_after_the_cancel_hands_the_job_on(self, serve):
        world = crowded()
        group = AGroup(world, serve(world), **moving())
        jobs = group.run("create")
        deferred(lambda: group.run("wait", jobs=jobs))
        [job] = group.run("wait", jobs=jobs)
        assert (job["state"], job["successful_count"] <= 0) == ("JOB_STATE_CANCELLED", True)

    def test_one_that_dies_before_it_cancels_then(self, serve):
        world = crowded(1, NO_CANCEL)
        group = AGroup(world, serve(world), **moving(deferrable=False))
        jobs = group.run("create")
        with pytest.raises(AirflowFailException, match="HTTP 403"):
            group.run("wait", jobs=jobs)
        assert world.states == ["PENDING"]
        [job] = group.run("wait", jobs=jobs)
        assert job["state"] == "JOB_STATE_CANCELLED"

    def test_a_sensor_that_reschedules(self, serve):
        world = crowded()
        url = serve(world)
        jobs = AGroup(world, url).run("create")
        task = an_operator(
            avb.VertexBatchJobSensor, world, url, jobs=jobs, deferrable=False, mode="reschedule", **moving()
        )
        assert not task.poke(a_context()).is_done
        done = task.poke(a_context())
        assert (done.is_done, [job["state"] for job in done.xcom_value]) == (True, ["JOB_STATE_CANCELLED"])

    def test_a_job_that_a_person_cancelled_is_not_bought_elsewhere(self, serve):
        world = crowded()
        group = AGroup(world, serve(world), **moving())
        [name] = group.run("create")
        world.call("POST", f"/v1/{name}:cancel", {})
        with pytest.raises(AirflowFailException, match="ended as JOB_STATE_CANCELLED"):
            group.run("wait", jobs=[name])

    def test_a_job_of_somebody_else_stays(self, serve, warnings):
        world = crowded()
        url = serve(world)
        world.store.put(INPUT, a_line())
        name = world.create(a_body())["name"]
        task = an_operator(avb.VertexBatchJobSensor, world, url, jobs=[name], **moving())
        deferred(lambda: task.execute(a_context()))
        assert (world.states, "no place left" in warnings()[-1]) == (["PENDING"], True)
