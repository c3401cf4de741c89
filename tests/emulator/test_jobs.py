"""The states a job passes, on a clock moved by hand."""

from __future__ import annotations

import time

import pytest

from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.emulator.faults import End, Hold
from airflow_vertex_batch.emulator.models import DeterministicModel
from airflow_vertex_batch.emulator.run import _PIECE_SECONDS
from airflow_vertex_batch.emulator.scenario import Limits, Pace, Scenario, Switches
from tests.emulator.worlds import INPUT, PARENT, World, a_body, a_line

HOUR = 3600


def states(world, job, *moments):
    """The job's state at each moment, in seconds from now on."""
    seen, passed = [], 0.0
    for moment in moments:
        world.emulator.advance(moment - passed)
        passed = moment
        seen.append(world.get(job)["state"].removeprefix("JOB_STATE_"))
    return seen


def a_world(*lines, **options):
    world = World(**options)
    world.store.put(INPUT, *(lines or [a_line(f"k{number}") for number in range(10)]))
    return world


class TestALife:
    def test_passes_the_states_in_their_usual_time(self):
        world = a_world()
        job = world.create()
        assert job["state"] == "JOB_STATE_PENDING"
        assert states(world, job, 89, 91, 209, 211) == ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]

    def test_can_begin_in_the_queue(self):
        world = a_world(scenario=Scenario(pace=Pace(queued_s=30)))
        job = world.create()
        assert job["state"] == "JOB_STATE_QUEUED"
        assert states(world, job, 31, 121, 300) == ["PENDING", "RUNNING", "SUCCEEDED"]

    def test_is_as_much_shorter_as_the_speed_says(self):
        world = a_world(speed=10)
        assert states(world, world.create(), 8, 10, 20, 22) == ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]

    def test_shows_each_time_once_it_has_come(self):
        world = a_world()
        job = world.create()
        assert {"createTime", "updateTime"} == {name for name in job if name.endswith("Time")}
        running = world.ended(job, 100)
        assert (running["createTime"], running["startTime"]) == (
            "2026-11-22T00:00:00.000000Z",
            "2026-11-22T00:01:30.000000Z",
        )
        assert "endTime" not in running
        assert world.ended(job)["endTime"] == "2026-11-22T00:03:30.200000Z"

    def test_shows_rows_while_it_runs_and_all_of_them_in_the_end(self):
        world = a_world()
        job = world.create()
        halfway = world.ended(job, 90 + 61)
        assert halfway["state"] == "JOB_STATE_RUNNING"
        assert len(world.output(halfway)) == 5
        assert "completionStats" not in halfway
        done = world.ended(job)
        assert len(world.output(done)) == 10
        assert done["completionStats"] == {"successfulCount": "10"}

    def test_reads_several_objects_and_wildcards(self):
        world = World()
        world.store.put("gs://in/day/a.jsonl", a_line("a"))
        world.store.put("gs://in/day/b.jsonl", b"\n", a_line("b"), b"\r\n")
        world.store.put("gs://in/day/c.txt", a_line("c"))
        world.store.put("gs://in/more.jsonl", a_line("d"))
        uris = ["gs://in/day/*.jsonl", "gs://in/more.jsonl"]
        job = world.create(a_body(inputConfig={"instancesFormat": "jsonl", "gcsSource": {"uris": uris}}))
        assert {line["key"] for line in world.output(world.ended(job))} == {"a", "b", "d"}

    def test_with_three_jobs_at_once_keeps_their_rows_apart(self):
        world = World()
        jobs = []
        for name in "abc":
            world.store.put(f"gs://in/{name}.jsonl", *(a_line(f"{name}{number}") for number in range(20)))
            source = {"instancesFormat": "jsonl", "gcsSource": {"uris": [f"gs://in/{name}.jsonl"]}}
            sink = {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": f"gs://out/{name}/"}}
            jobs.append(world.create(a_body(inputConfig=source, outputConfig=sink)))
        world.emulator.advance(HOUR)
        for name, job in zip("abc", jobs, strict=True):
            lines = world.output(world.get(job))
            assert {line["key"] for line in lines} == {f"{name}{number}" for number in range(20)}


class TestALifeThatFails:
    @pytest.mark.parametrize(
        ("body", "code", "words"),
        [
            pytest.param(
                {"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://nowhere/x.jsonl"]}}},
                9,
                "location of the bucket gs://nowhere",
                id="no input bucket",
            ),
            pytest.param(
                {"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://nowhere/*.jsonl"]}}},
                9,
                "location of the bucket gs://nowhere",
                id="a wildcard in no bucket",
            ),
            pytest.param(
                {"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://in/absent.jsonl"]}}},
                5,
                "Not found: gs://in/absent.jsonl",
                id="no input object",
            ),
            pytest.param(
                {"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://in/none-*.jsonl"]}}},
                5,
                "Not found: gs://in/none-*.jsonl",
                id="a wildcard that matches nothing",
            ),
            pytest.param(
                {
                    "outputConfig": {
                        "predictionsFormat": "jsonl",
                        "gcsDestination": {"outputUriPrefix": "gs://nowhere/out"},
                    }
                },
                9,
                "gs://nowhere/out",
                id="no output bucket",
            ),
        ],
    )
    def test_ends_before_it_runs_and_bills_nothing(self, body, code, words):
        world = a_world()
        job = world.ended(world.create(a_body(**body)))
        assert (job["state"], job["error"]["code"]) == ("JOB_STATE_FAILED", code)
        assert words in job["error"]["message"]
        assert "startTime" not in job
        assert "outputInfo" not in job
        assert "completionStats" not in job
        assert world.emulator.books()["billed"] == {"rows": 0, "tokens": 0}

    def test_for_one_bad_line_although_all_others_are_good(self):
        world = a_world(*(a_line(f"k{number}") for number in range(20)), a_line("bad", tools=[{"googleSearch": {}}]))
        job = world.ended(world.create())
        assert (job["state"], job["error"]["code"]) == ("JOB_STATE_FAILED", 3)
        assert job["error"]["message"].startswith("Failed to import data")
        assert "googleSearch" in job["error"]["message"]
        assert not world.store.write_count

    def test_for_an_empty_input(self):
        world = a_world(b"\n\n")
        assert world.ended(world.create())["error"]["message"].startswith("Failed to import data")

    def test_after_the_work_when_the_output_may_not_be_written(self):
        world = a_world()
        world.store.read_only.add("out")
        job = world.ended(world.create())
        assert (job["state"], job["error"]["code"]) == ("JOB_STATE_FAILED", 7)
        assert "storage.objects.create" in job["error"]["message"]
        assert int(job["completionStats"]["successfulCount"]) > 0
        assert job["outputInfo"]["gcsOutputDirectory"].startswith("gs://out/")

    @pytest.mark.parametrize(
        ("limits", "words"),
        [
            pytest.param(Limits(requests=9), "more than 9 requests", id="requests"),
            pytest.param(Limits(input_bytes=100), "more than 100 input bytes", id="bytes"),
        ],
    )
    def test_when_the_input_exceeds_a_limit(self, limits, words):
        world = a_world(scenario=Scenario(limits=limits))
        job = world.ended(world.create())
        assert (job["error"]["code"], words in job["error"]["message"]) == (3, True)

    def test_and_not_when_the_limit_is_switched_off(self):
        world = a_world(scenario=Scenario(limits=Limits(requests=None, input_bytes=None)))
        assert world.ended(world.create())["state"] == "JOB_STATE_SUCCEEDED"


class TestTheServicesPatience:
    def test_ends_after_three_days_in_the_queue(self):
        world = a_world(scenario=Scenario(pace=Pace(pending_s=100 * HOUR)))
        job = world.create()
        assert states(world, job, 71 * HOUR, 73 * HOUR) == ["PENDING", "EXPIRED"]
        ended = world.get(job)
        assert "endTime" not in ended
        assert "outputInfo" not in ended

    @pytest.mark.parametrize(
        ("cutoff", "state"), [("cancelled", "CANCELLED"), ("failed", "FAILED")], ids=["as S1 says", "as S3 says"]
    )
    def test_ends_after_a_day_of_running_and_keeps_what_is_done(self, cutoff, state):
        world = a_world(
            scenario=Scenario(switches=Switches(run_cutoff=cutoff), pace=Pace(running_s=48 * HOUR, per_row_s=0))
        )
        job = world.create()
        assert states(world, job, 23 * HOUR, 25 * HOUR) == ["RUNNING", state]
        ended = world.get(job)
        assert len(world.output(ended)) == 5
        assert ended["completionStats"] == {"successfulCount": "5", "incompleteCount": "5"}
        assert world.emulator.books()["billed"]["rows"] == 5

    def test_is_not_over_because_this_machine_is_slower_than_the_speed_says(self):
        """At a high speed, a day of the service is shorter than what a real model needs for the rows."""

        class Slow(DeterministicModel):
            def answer(self, request):
                world.emulator.clock.sleep(3 * HOUR)
                # So long that the driver looks at the job again after each row.
                time.sleep(_PIECE_SECONDS)
                return super().answer(request)

        world = a_world(model=Slow())
        assert world.ended(world.create())["completionStats"] == {"successfulCount": "10"}


class TestACancel:
    def cancel(self, world, job):
        return world.call("POST", f"/v1/{job['name']}:cancel")

    def test_of_a_pending_job_is_at_once(self):
        world = a_world()
        job = world.create()
        assert self.cancel(world, job).document == {}
        ended = world.get(job)
        assert (ended["state"], ended["error"]) == ("JOB_STATE_CANCELLED", {"code": 1, "message": "CANCELED"})
        assert "completionStats" not in ended
        assert world.ended(job)["state"] == "JOB_STATE_CANCELLED"
        assert not world.store.write_count

    def test_of_a_running_job_takes_a_while_and_leaves_finished_rows(self):
        world = a_world()
        job = world.create()
        world.emulator.advance(90 + 61)
        self.cancel(world, job)
        assert states(world, job, 1, 11) == ["CANCELLING", "CANCELLED"]
        ended = world.get(job)
        assert len(world.output(ended)) == 5
        assert ended["completionStats"] == {"successfulCount": "5", "incompleteCount": "5"}
        assert world.emulator.books()["billed"]["rows"] == 5

    def test_that_comes_too_late_leaves_a_job_that_succeeded(self):
        world = a_world(
            scenario=Scenario(pace=Pace(per_row_s=0, cancelling_s=60), faults=(Hold(state="JOB_STATE_RUNNING"),))
        )
        job = world.create()
        world.emulator.advance(300)
        self.cancel(world, job)
        assert states(world, job, 1, 61) == ["CANCELLING", "SUCCEEDED"]

    @pytest.mark.parametrize("moment", [1, 100, HOUR], ids=["cancelled", "cancelling", "succeeded"])
    def test_of_a_job_that_cannot_be_cancelled_is_refused(self, moment):
        world = a_world()
        job = world.create()
        world.emulator.advance(moment)
        self.cancel(world, job)
        reply = self.cancel(world, job)
        assert (reply.status, reply.document["error"]["status"]) == (400, "FAILED_PRECONDITION")
        assert reply.document["error"]["code"] == 400


class TestAScriptedCourse:
    @pytest.mark.parametrize("state", [state for state in JobState if state.is_final])
    @pytest.mark.parametrize("from_pending", [True, False], ids=["before running", "after half the rows"])
    def test_ends_in_any_state(self, state, from_pending):
        fault = End(state=state, code=13, message="System error.", after=0.5, from_pending=from_pending)
        world = a_world(scenario=Scenario(faults=(fault,)))
        job = world.ended(world.create())
        assert (job["state"], job["error"]) == (state, {"code": 13, "message": "System error."})
        rows = world.output(job) if "outputInfo" in job else []
        assert len(rows) == (0 if from_pending else 5)
        assert world.emulator.books()["billed"]["rows"] == len(rows)
        world.emulator.script.check_used()

    def test_of_partial_success_leaves_gaps(self):
        fault = End(state=JobState.PARTIALLY_SUCCEEDED, after=0.7)
        world = a_world(scenario=Scenario(faults=(fault,)))
        job = world.ended(world.create())
        assert job["state"] == "JOB_STATE_PARTIALLY_SUCCEEDED"
        assert job["completionStats"] == {"successfulCount": "7", "incompleteCount": "3"}
        assert "error" not in job

    @pytest.mark.parametrize("state", ["JOB_STATE_PAUSED", "JOB_STATE_UPDATING", "JOB_STATE_OF_THE_FUTURE"])
    def test_holds_a_job_in_any_state_and_lets_it_go_on(self, state):
        world = a_world(scenario=Scenario(faults=(Hold(state=state, seconds=500, after=0.5),)))
        job = world.create()
        assert states(world, job, 140, 160, 640, 660, 800)[1:] == [
            state.removeprefix("JOB_STATE_"),
            state.removeprefix("JOB_STATE_"),
            "RUNNING",
            "SUCCEEDED",
        ]
        assert len(world.output(world.get(job))) == 10

    @pytest.mark.parametrize("moment", [0, 300], ids=["before it is held", "while it is held"])
    @pytest.mark.parametrize("fate", [{"from_pending": True}, {"after": 0.5}], ids=["in the queue", "half way"])
    def test_holds_a_job_until_it_is_released(self, moment, fate):
        world = a_world(scenario=Scenario(faults=(Hold(state="JOB_STATE_PAUSED", **fate),)))
        job = world.create(a_body(displayName="night-1", labels={"team": "a"}))
        assert states(world, job, moment) == ["PAUSED" if moment else "PENDING"]
        named = {"job": "night-*", "labels": {"team": "?"}}
        assert world.call("POST", "/emulator/release", named).document == {"released": [job["name"]]}
        assert states(world, job, moment + 300) == ["SUCCEEDED"]
        assert len(world.output(world.get(job))) == 10

    @pytest.mark.parametrize(
        ("named", "status"), [({"job": "day-*"}, 404), ({"labels": {"team": "b"}}, 404), ({"jobs": "night-*"}, 400)]
    )
    def test_holds_on_to_a_job_that_a_release_does_not_name(self, named, status):
        world = a_world(scenario=Scenario(faults=(Hold(state="JOB_STATE_PAUSED", from_pending=True),)))
        job = world.create(a_body(displayName="night-1", labels={"team": "a"}))
        world.emulator.advance(HOUR)
        assert world.call("POST", "/emulator/release", named).status == status
        assert states(world, job, 2 * HOUR) == ["PAUSED"]

    def test_that_is_over_has_nothing_to_release(self):
        world = a_world(scenario=Scenario(faults=(Hold(state=JobState.PENDING, from_pending=True, seconds=10),)))
        world.ended(world.create())
        assert world.emulator.release() == ()

    def test_stuck_in_the_queue_expires(self):
        world = a_world(scenario=Scenario(faults=(Hold(state=JobState.PENDING, from_pending=True),)))
        assert states(world, world.create(), HOUR, 71 * HOUR, 73 * HOUR) == ["PENDING", "PENDING", "EXPIRED"]

    def test_stuck_while_running_is_cut_off_after_a_day(self):
        world = a_world(scenario=Scenario(faults=(Hold(state=JobState.RUNNING, after=0.5),)))
        job = world.create()
        assert states(world, job, HOUR, 23 * HOUR, 25 * HOUR) == ["RUNNING", "RUNNING", "CANCELLED"]
        assert len(world.output(world.get(job))) == 5

    def test_is_taken_by_the_jobs_it_names_in_the_order_of_their_creation(self):
        faults = (
            End(state=JobState.FAILED, code=13, from_pending=True, job="night-*"),
            End(state=JobState.EXPIRED, from_pending=True, labels={"team": "a"}),
        )
        world = a_world(scenario=Scenario(faults=faults))
        names = ("day", "night-1", "night-2", "other")
        jobs = [
            world.create(a_body(displayName=name, labels={"team": "a" if name == "other" else "b"})) for name in names
        ]
        world.emulator.advance(HOUR)
        assert [world.get(job)["state"].removeprefix("JOB_STATE_") for job in jobs] == [
            "SUCCEEDED",
            "FAILED",
            "SUCCEEDED",
            "EXPIRED",
        ]


def test_a_job_of_the_emulators_own_failure_says_so(caplog):
    world = World()
    world.store.put(INPUT, a_line())
    world.store.open_read = lambda _: 1 / 0  # a store that breaks its contract
    job = world.ended(world.create(path=PARENT))
    assert (job["state"], job["error"]["code"]) == ("JOB_STATE_FAILED", 13)
    assert "ZeroDivisionError" in job["error"]["message"]
    assert "The emulator itself failed" in caplog.text
