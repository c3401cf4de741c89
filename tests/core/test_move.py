"""A job that queues for too long is given up, and its requests are bought elsewhere: once, whatever dies on the way."""

from __future__ import annotations

from decimal import Decimal

import pytest

from airflow_vertex_batch.core.answers.rounds import Round, taken_over
from airflow_vertex_batch.core.domain.errors import InputError, LogError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.money.estimate import Budget
from airflow_vertex_batch.core.progress import Done, Wait
from airflow_vertex_batch.core.purchase.decide import (
    Attach,
    OnChangedInput,
    Refuse,
    Reuse,
    Settle,
    Submit,
    Terms,
    decide,
    moves_of,
)
from airflow_vertex_batch.core.purchase.move import move
from airflow_vertex_batch.core.purchase.place import AllLocationsService, Place
from airflow_vertex_batch.core.purchase.submit import Order, job_fingerprint
from tests.builders import LOG, NIGHT, a_job, a_log, a_spec, an_identity
from tests.core.worlds import Task, World, fails, some_rows
from tests.fakes import Clock, Died, EffectLimit, Jobs, MemoryStore

EUROPE, LITE = Place(location="europe-west4"), Place(model="gemini-2.5-flash-lite")
HOME, THERE = "f-home", "f-there"


def the_log(store=None, attempt="a1"):
    return a_log(store or MemoryStore(), attempt, Clock())


def at(fingerprint, state, number=1, **members):
    return a_job(state, name=f"jobs/{number}", labels={"avb-fingerprint": fingerprint}, **members)


def _ended(name):
    return a_job(JobState.CANCELLED, name=name)


class TestNoting:
    """A move is noted before the job is cancelled."""

    def test_places_are_tried_in_order_once_each(self):
        log = the_log()
        went = [move(_ended(f"jobs/{number}"), log, HOME, [EUROPE, LITE]) for number in range(3)]
        assert went == [EUROPE, LITE, None]
        assert len(log.entries()) == 2

    def test_twice_is_once(self):
        log = the_log()
        assert [move(_ended("jobs/1"), log, HOME, places) for places in ([EUROPE], [LITE], [])] == [EUROPE] * 3
        assert len(log.entries()) == 1

    def test_a_new_edition_begins_anew(self):
        log, new = the_log(), Terms(generation="2", renew=True)
        assert move(_ended("jobs/1"), log, HOME, [EUROPE], Terms(generation="1")) == EUROPE
        assert moves_of(log.entries(), HOME, new) == []
        assert move(_ended("jobs/2"), log, HOME, [EUROPE], new) == EUROPE

    def test_any_number_of_jobs_can_be_left_to_another_task(self):
        log = the_log()
        assert [move(_ended(f"jobs/{number}"), log, HOME, [Place()]) for number in range(2)] == [Place(), Place()]

    def test_other_requests_begin_anew(self):
        log = the_log()
        assert [move(_ended(f"jobs/{name}"), log, name, [EUROPE]) for name in (HOME, "f-other")] == [EUROPE, EUROPE]

    def test_two_writers_do_not_both_move(self):
        class Raced(MemoryStore):
            def write_new(self, uri, data):
                return False

        with pytest.raises(LogError, match="Another attempt is writing its log"):
            move(_ended("jobs/1"), the_log(Raced()), HOME, [EUROPE])


class TestWhatStays:
    """Whoever gives a running job up cancels it: so only what the log names, and this Airflow bought, is given up."""

    def test_a_running_job_that_no_log_names(self, caplog):
        log = the_log()
        assert move(at(HOME, JobState.PENDING), log, HOME, [EUROPE]) is None
        assert log.entries() == ()
        assert "jobs/1" in caplog.text
        assert f"no entry in {LOG} names it" in caplog.text

    @pytest.mark.parametrize(("buyer", "goes"), [("here", EUROPE), ("there", None)])
    def test_a_running_job_goes_only_from_the_airflow_that_bought_it(self, buyer, goes):
        store = MemoryStore()
        theirs, ours = (a_log(store, "a", Clock(), installation=name) for name in (buyer, "here"))
        theirs.append(theirs.submission(HOME, "jobs/1"))
        assert move(at(HOME, JobState.PENDING), ours, HOME, [EUROPE]) == goes


class TestOrder:
    """What the moves in the log make of a purchase."""

    def order(self, *places):
        log, spec = the_log(), a_spec()
        for number, place in enumerate(places):
            move(_ended(f"jobs/{number}"), log, job_fingerprint("c", spec), [place])
        order = Order(spec=spec, content="c", log=log, service=Jobs(), at=Jobs().at)
        return order.placed(log.entries())

    def test_without_a_move_it_is_what_it_was(self):
        order = self.order()
        assert (order.spec, order.earlier, order.left) == (a_spec(), frozenset(), frozenset())
        assert isinstance(order.service, Jobs)

    def test_the_last_place_is_bought_and_the_ones_before_count(self):
        order, specs = self.order(EUROPE, LITE), [a_spec(), a_spec(location="europe-west4"), a_spec(model=LITE.model)]
        assert order.spec == specs[-1]
        assert order.earlier == {job_fingerprint("c", spec) for spec in specs[:-1]}
        assert order.fingerprint == job_fingerprint("c", specs[-1])
        assert isinstance(order.service, AllLocationsService)

    def test_what_is_left_to_another_task_stays_where_it_was(self):
        order = self.order(Place())
        assert (order.spec, order.left, order.earlier) == (a_spec(), {"jobs/0"}, frozenset())


#: Jobs by fingerprint and state, what may be reused, and what is done; jobs/1 was given up for a place of THERE.
MOVED = {
    "it ended without a row: bought there": ([at(HOME, JobState.CANCELLED, successful_count=0)], Reuse.ANY, "submit"),
    "it failed without a row: bought there": ([at(HOME, JobState.FAILED)], Reuse.ANY, "submit"),
    "it still queues: waited for": ([at(HOME, JobState.PENDING)], Reuse.ANY, "jobs/1"),
    "it is being cancelled: waited for": ([at(HOME, JobState.CANCELLING)], Reuse.ANY, "jobs/1"),
    "it began: kept": ([at(HOME, JobState.RUNNING)], Reuse.ANY, "jobs/1"),
    "it succeeded: kept": ([at(HOME, JobState.SUCCEEDED)], Reuse.WITH_ROWS, "jobs/1"),
    "it was cancelled with rows: kept": ([at(HOME, JobState.CANCELLED, successful_count=3)], Reuse.WITH_ROWS, "jobs/1"),
    "its successor runs": ([at(THERE, JobState.RUNNING, 2), at(HOME, JobState.CANCELLED)], Reuse.ANY, "jobs/2"),
    "its successor failed in this attempt": (
        [at(THERE, JobState.FAILED, 2), at(HOME, JobState.CANCELLED)], Reuse.ANY, "jobs/2"
    ),
    "its successor failed before this attempt": (
        [at(THERE, JobState.FAILED, 2), at(HOME, JobState.CANCELLED)], Reuse.WITH_ROWS, "submit"
    ),
    "nothing is left of it": ([], Reuse.ANY, "submit"),
}  # fmt: skip


class TestDecision:
    @pytest.mark.parametrize(("jobs", "reuse", "expected"), MOVED.values(), ids=MOVED)
    def test_after_a_move(self, jobs, reuse, expected):
        step = decide([], THERE, jobs, earlier={HOME}, now=NIGHT, terms=Terms(reuse=reuse))
        assert (step.job.name if isinstance(step, Attach) else "submit") == expected
        if isinstance(step, Submit):
            assert step.cancel == ()

    @pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.EXPIRED], ids=str)
    def test_what_was_left_to_another_task_is_not_bought_again(self, state):
        job = at(HOME, state)
        assert isinstance(decide([], HOME, [job], left={job.name}, now=NIGHT), Attach)

    def test_a_job_of_other_requests_is_in_the_way_as_before(self):
        step = decide(
            [],
            THERE,
            [at("f-other", JobState.RUNNING)],
            earlier={HOME},
            now=NIGHT,
            terms=Terms(on_changed_input=OnChangedInput.FAIL),
        )
        assert isinstance(step, Refuse)

    def test_a_move_does_not_hide_a_create_call_that_is_under_way(self):
        log = the_log()
        entries = [log.intent(THERE), log.moved(HOME, "jobs/1", EUROPE)]
        assert isinstance(decide(entries, THERE, [], earlier={HOME}, now=log.intent("").at), Settle)


def _report(task, done):
    return task.land(done).statuses


class TestTheCourse:
    """From place to place, for one task that does it all."""

    def test_a_queued_job_is_answered_elsewhere(self):
        world = World()
        task = Task(world, some_rows(4), elsewhere=[EUROPE])
        assert task.move(task.attempt()) == [EUROPE]
        assert isinstance(task.resume(), Wait)
        world.check_paid_once()
        world.run()
        assert _report(task, task.resume()) == {"succeeded": 4}
        assert [job.job_name.location for job in world.jobs.paid] == ["global", "europe-west4"]
        assert isinstance(task.attempt(), Done)
        assert len(world.jobs.paid) == 2

    def test_place_after_place_until_none_is_left(self):
        world = World()
        task = Task(world, some_rows(2), elsewhere=[EUROPE, LITE])
        went = [task.move(task.attempt())]
        went += [task.move(task.resume()) for _ in range(3)]
        assert went == [[EUROPE], [LITE], [None], [None]]
        last = world.jobs.running
        assert [(job.job_name.location, job.model.rpartition("/")[2]) for job in last] == [("global", LITE.model)]
        world.run()
        assert _report(task, task.resume()) == {"succeeded": 2}

    def test_only_the_shard_that_queues_is_moved(self):
        world = World()
        task = Task(world, some_rows(4), elsewhere=[EUROPE], plan={"max_requests": 2})
        step = task.attempt()
        world.jobs.change(step.job_names[0], state="JOB_STATE_RUNNING")
        assert task.move(task.resume()) == [EUROPE]
        task.resume()
        world.run()
        assert _report(task, task.resume()) == {"succeeded": 4}
        assert len(world.jobs.paid) == 3

    @pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.CANCELLED], ids=["to the end", "in part"])
    def test_a_job_that_began_in_the_meantime_is_kept(self, state):
        world = World()
        task = Task(world, some_rows(4), elsewhere=[EUROPE])
        step = task.attempt()
        task.move(step)
        world.jobs.change(step.job_names[0], state="JOB_STATE_RUNNING")
        world.run(state, only=None if state is JobState.SUCCEEDED else 3)
        step = task.resume(owes_repair=True)
        if isinstance(step, Wait):
            world.run()
            step = task.resume()
        assert _report(task, step) == {"succeeded": 4}
        assert sum(map(len, world.batches)) == 4

    def test_a_place_that_does_not_fit_is_passed_over(self):
        world = World()
        task = Task(
            world, some_rows(2), elsewhere=[Place(model="gemini-of-no-price"), EUROPE], budget=Budget.of(100, "fail")
        )
        assert task.move(task.attempt()) == [EUROPE]

    def test_a_repair_job_is_moved_too(self):
        world = World({"a0": [fails()]})
        task = Task(world, some_rows(2), rounds=1, elsewhere=[EUROPE])
        task.attempt()
        world.run()
        assert task.move(task.resume()) == [EUROPE]
        world.script = {}
        step = task.resume()
        assert (step.round, [job.job_name.location for job in step.jobs]) == (1, ["europe-west4"])
        world.run()
        assert _report(task, task.resume()) == {"succeeded": 2}

    def test_a_row_is_priced_by_the_model_that_answered_it(self):
        world = World()
        reports = []
        for elsewhere in ([], [LITE]):
            world = World()
            task = Task(world, some_rows(2), elsewhere=elsewhere, plan={"model": "gemini-2.5-flash"})
            step = task.attempt()
            if elsewhere:
                task.move(step)
                task.resume()
            world.run(names_model=False)
            reports.append(task.land(task.resume()))
        dear, cheap = (Decimal(report.cost_usd) for report in reports)
        assert 0 < cheap < dear
        assert {row["model_version"] for row in task.landed().values()} == {LITE.model}


class TestTakenOver:
    """What another task gave up is bought by the one that repairs, and handed on as a round of its own."""

    def test_only_what_ended_without_a_row_is_bought(self):
        world = World()
        first = Task(world, some_rows(6), plan={"max_requests": 2})
        step = first.attempt()
        given_up, began, _ = step.jobs
        for job in (given_up, began):
            world.jobs.cancel(job.job_name)
        world.jobs.change(began.name, state="JOB_STATE_RUNNING")
        world.run(JobState.CANCELLED, only=1)
        given = [world.jobs.get(job.job_name) for job in step.jobs]
        second = Task(world, [], elsewhere=[EUROPE], identity=an_identity(task_id="repair"))
        second.manifest = first.manifest
        waiting = second.take_over(given, fresh=True)
        assert [job.job_name.location for job in waiting.jobs] == ["europe-west4", "global", "global"]
        assert second.take_over(given) == waiting
        world.run()
        done = second.take_over(given)
        instead = taken_over(first.manifest, given, done.rounds[0].jobs)
        assert (instead.manifest.request_count, len(instead.manifest.shards), len(instead.jobs)) == (2, 1, 1)
        assert len(world.jobs.paid) == 4
        rounds = (Round(manifest=first.manifest, jobs=tuple(given)), instead)
        assert first.land(Done(rounds)).statuses == {"succeeded": 4, "cancelled": 2}
        assert len(first.landed()) == 6

    def test_nothing_is_a_round_when_nothing_was_given_up(self):
        world = World()
        task = Task(world, some_rows(2))
        task.attempt()
        world.run()
        jobs = task.resume().rounds[0].jobs
        assert taken_over(task.manifest, jobs, jobs) is None

    def test_jobs_of_another_set_are_not_taken_over(self):
        world = World()
        step = Task(world, some_rows(2)).attempt()
        other = Task(world, some_rows(3), identity=an_identity(task_id="other"), installation="other")
        other.attempt()
        second = Task(world, [], identity=an_identity(task_id="repair"))
        second.manifest = other.manifest
        with pytest.raises(InputError, match=r"answers no file of manifest"):
            second.take_over(step.jobs, fresh=True)


class TestDeath:
    """The process dies after every single effect, and the next attempt goes on."""

    def test_each_shard_is_moved_once_and_each_row_lands_once(self):
        count = 1
        while True:
            world, effect_limit = World(), EffectLimit(count)
            task = Task(world, some_rows(4), elsewhere=[EUROPE], plan={"max_requests": 2})
            lived = self._to_the_end(task, effect_limit) is not None
            done = self._to_the_end(task, EffectLimit(None))
            assert task.land(done).statuses == {"succeeded": 4}
            assert sorted(map(sorted, world.batches)) == [["a0", "a1"], ["a2", "a3"]]
            assert [job.job_name.location for job in world.jobs.paid].count("europe-west4") == 2
            assert (len(world.jobs.paid), len(task.landed()), world.jobs.running) == (4, 4, [])
            if lived:
                break
            count += 1
        assert count > 14

    @staticmethod
    def _to_the_end(task, effect_limit):
        """Go on until the end, or until death, which is None; jobs in Europe run, those at home queue for too long."""
        store, service = effect_limit.store(task.world.store), effect_limit.service(task.world.jobs)
        try:
            step = task.attempt(store, service)
            while isinstance(step, Wait):
                task.world.check_paid_once()
                if any(job.job_name.location == "global" and not job.state.is_final for job in step.jobs):
                    task.move(step, store, service)
                else:
                    task.world.run()
                step = task.resume(store, service)
        except Died:
            return None
        return step
