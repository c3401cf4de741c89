"""A batch goes through its rounds, whatever dies, is cleared or runs twice on the way."""

from __future__ import annotations

import contextlib

import pytest

from airflow_vertex_batch.core.answers.repair import RepairPolicy
from airflow_vertex_batch.core.domain.errors import InputError, LogError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.money.estimate import Budget
from airflow_vertex_batch.core.progress import Ask, Done, Skip, Wait
from airflow_vertex_batch.core.purchase.decide import OnClear
from tests.core.worlds import Task, World, answers, fails, some_rows
from tests.fakes import Died, EffectLimit


class TestRounds:
    """Only rows without a good answer go again."""

    def test_a_batch_without_a_bad_row_is_one_job(self):
        world = World()
        task = Task(world, some_rows(5), rounds=2)
        report = task.land(task.to_the_end())
        assert (report.statuses, report.rounds) == ({"succeeded": 5}, [])
        assert len(world.jobs.paid) == 1

    def test_each_round_is_smaller_and_no_good_row_is_sent_twice(self):
        world = World({"a1": [fails(), answers("late")], "a2": [None, fails(), answers("later")], "a3": [fails(400)]})
        task = Task(world, some_rows(6), rounds=2)
        report = task.land(task.to_the_end())
        assert world.batches == [["a0", "a1", "a2", "a3", "a4", "a5"], ["a1", "a2", "a3"], ["a2", "a3"]]
        assert report.statuses == {"succeeded": 5, "failed": 1}
        assert report.rounds == [{"round": 1, "sent": 3, "cured": 1}, {"round": 2, "sent": 2, "cured": 1}]
        landed = task.landed()
        assert [landed[key]["text"] for key in ("a1", "a2")] == ["late", "later"]
        assert [landed[key]["attempts"] for key in ("a0", "a1", "a2")] == [1, 2, 3]

    @pytest.mark.parametrize(
        "line", [fails(400, "INVALID_ARGUMENT"), answers("", "RECITATION"), answers("", "SAFETY")],
        ids=["invalid-argument", "recitation", "safety"],
    )  # fmt: skip
    def test_what_never_heals_is_given_up_at_once(self, line):
        world = World({"a0": [line, answers()]})
        task = Task(world, some_rows(3), rounds=3)
        task.to_the_end()
        assert len(world.jobs.paid) == 1

    def test_a_round_that_cures_nothing_is_the_last(self):
        world = World({"a0": [fails()]})
        task = Task(world, some_rows(3), rounds=5)
        report = task.land(task.to_the_end())
        assert len(world.jobs.paid) == 2
        assert report.rounds == [{"round": 1, "sent": 1, "cured": 0}]

    def test_a_round_that_a_person_rejects_is_not_bought_and_what_there_is_lands(self):
        world = World({"a0": [fails()]})
        task = Task(world, some_rows(3), rounds=2, budget=Budget.of(0.000001, "ask"))
        first = task.attempt()
        assert (type(first), first.round, world.jobs.paid) == (Ask, 0, [])
        task.answer(first, approved=True)
        task.resume()
        world.run()
        second = task.resume()
        assert (type(second), second.round) == (Ask, 1)
        assert second.question.id != first.question.id
        task.answer(second, approved=False)
        report = task.land(task.resume())
        assert len(world.jobs.paid) == 1
        assert report.statuses == {"succeeded": 2, "failed": 1}

    def test_a_clear_asks_again_about_what_was_rejected(self):
        world = World()
        task = Task(world, some_rows(3), budget=Budget.of(0.000001, "ask"))
        with pytest.raises(InputError, match=r"Ada rejected this batch\. No job was created for it\. Clear this task"):
            task.answer(task.attempt(), approved=False)
        with pytest.raises(InputError, match="This batch may cost up to"):
            task.attempt()
        task.clear()
        assert isinstance(task.attempt(), Ask)
        assert world.jobs.paid == []

    def test_the_jobs_of_a_round_say_so(self):
        world = World({"a0": [fails(), answers()]})
        Task(world, some_rows(2), rounds=1).to_the_end()
        first, second = world.jobs.paid
        assert (first.labels["avb-round"], second.labels["avb-round"]) == ("0", "1")
        assert first.labels["team"] == second.labels["team"] == "support"
        assert second.display_name.endswith(" repair 1")
        assert first.labels["avb-identity"] == second.labels["avb-identity"]


class TestMoreTokens:
    """A truncated row goes again with room for twice as many tokens."""

    def test_the_bound_is_doubled_up_to_the_cap_and_then_given_up(self):
        cut = answers("half", "MAX_TOKENS")
        slow, quick = [fails(), fails(), answers()], [fails(), answers()]
        world = World({"a0": [cut, cut, cut, answers("whole")], "a1": slow, "a2": quick})
        task = Task(
            world, some_rows(3), rounds=5, policy=RepairPolicy(max_output_tokens=300),
            plan={"template": _bounded(100)},
        )  # fmt: skip
        task.to_the_end()
        bounds = [world.bounds("a0", number) for number in range(3)]
        assert bounds == [100, 200, 300]
        assert world.batches[1:] == [["a0", "a1", "a2"], ["a0", "a1"]]

    def test_without_a_bound_it_goes_as_it_was(self):
        world = World({"a0": [answers("half", "MAX_TOKENS"), answers("whole")]})
        task = Task(world, some_rows(2), rounds=1)
        assert task.land(task.to_the_end()).statuses == {"succeeded": 2}


class TestBadEnds:
    """What a job answered is harvested before anything is sent again."""

    @pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.EXPIRED, JobState.FAILED], ids=str)
    def test_a_job_that_ended_badly_is_completed_not_bought_again(self, state):
        world = World()
        task = Task(world, some_rows(6), rounds=1)
        assert isinstance(task.attempt(), Wait)
        world.run(state, only=4)
        assert isinstance(task.resume(), Wait)
        world.run()
        done = task.resume()
        assert task.land(done).statuses == {"succeeded": 6}
        assert [len(keys) for keys in world.batches] == [4, 2]

    def test_without_rounds_it_is_the_next_attempt_that_sends_the_rest(self):
        world = World()
        task = Task(world, some_rows(6))
        task.attempt()
        world.run(JobState.CANCELLED, only=4)
        assert isinstance(task.resume(), Done)
        assert isinstance(task.attempt(), Wait)
        world.run()
        assert task.land(task.resume()).statuses == {"succeeded": 6}
        assert sum(map(len, world.batches)) == 6

    @pytest.mark.parametrize(("answered", "asked"), [(4, [4, 2]), (0, [0, 6])], ids=["with rows", "without rows"])
    def test_an_attempt_that_begins_while_a_job_is_being_cancelled_completes_it(self, answered, asked):
        world = World()
        task = Task(world, some_rows(6))
        assert task.attempt().attempt.handled.ending == ()
        world.cancel()
        step = task.attempt()
        assert step.attempt.handled.ending == step.job_names
        world.run(JobState.CANCELLED, only=answered)
        assert isinstance(task.resume(owes_repair=step.attempt.owes_repair), Wait)
        world.run()
        assert task.land(task.resume()).statuses == {"succeeded": 6}
        assert [len(keys) for keys in world.batches] == asked

    @pytest.mark.parametrize(("rounds", "statuses"), [(1, {"succeeded": 1, "failed": 1}), (2, {"succeeded": 2})])
    def test_a_repair_job_that_fails_says_nothing_of_its_rows_but_used_up_a_round(self, rounds, statuses):
        world = World({"a0": [fails(), answers()]})
        task = Task(world, some_rows(2), rounds=rounds)
        task.attempt()
        world.run()
        task.resume()
        world.run(JobState.FAILED, only=0)
        step = task.resume()
        if rounds > 1:
            world.run()
            step = task.resume()
        assert task.land(step).statuses == statuses
        assert len(world.jobs.paid) == 1 + rounds

    def test_but_the_next_attempt_sends_the_rest_once_more(self):
        """Whatever ended the job says nothing against the requests that it did not come to."""
        world = World()
        task = Task(world, some_rows(4), rounds=1)
        task.attempt()
        world.run(JobState.CANCELLED, only=2)
        assert isinstance(task.resume(), Wait)
        world.run(JobState.CANCELLED, only=0)
        assert isinstance(task.resume(), Done)
        assert isinstance(task.attempt(), Wait)
        world.run()
        assert task.land(task.resume()).statuses == {"succeeded": 4}
        assert [len(keys) for keys in world.batches] == [2, 0, 2]

    def test_and_a_row_that_was_answered_badly_is_no_rest(self):
        world = World({"a0": [fails()]})
        task = Task(world, some_rows(3))
        task.attempt()
        world.run(JobState.CANCELLED)
        assert isinstance(task.resume(), Done)
        assert isinstance(task.attempt(), Done)
        assert len(world.jobs.paid) == 1


class TestEditing:
    """What runs for input that is no more is cancelled."""

    def test_files_that_there_are_no_more(self):
        world = World()
        task = Task(world, some_rows(5), plan={"max_requests": 2})
        task.attempt()
        assert len(world.jobs.running) == 3
        task.rows = some_rows(2)
        task.attempt()
        assert [job.input_uris[0] for job in world.jobs.running] == [task.manifest.shards[0].uri]

    def test_rounds_of_the_batch_before(self):
        world = World({"a0": [fails(), answers()]})
        task = Task(world, some_rows(3), rounds=1)
        task.attempt()
        world.run()
        assert isinstance(task.resume(), Wait)
        task.rows = some_rows(2)
        task.to_the_end()
        assert world.jobs.running == []
        assert [job.state for job in world.jobs.paid] == [
            "JOB_STATE_SUCCEEDED",
            "JOB_STATE_CANCELLED",
            "JOB_STATE_SUCCEEDED",
        ]


class TestClearing:
    """A clear is told from a retry, and means what was asked for."""

    def test_a_retry_and_a_clear_that_attaches_buy_nothing(self):
        world = World({"a0": [fails()]})
        task = Task(world, some_rows(3), rounds=1)
        task.to_the_end()
        for step in (lambda: None, task.clear):
            step()
            assert isinstance(task.attempt(), Done)
        assert len(world.jobs.paid) == 2

    def test_a_clear_that_repairs_sends_the_rows_that_are_still_bad(self):
        world = World({"a0": [fails(), fails(), answers("at last")], "a1": [fails(), answers()]})
        task = Task(world, some_rows(4), rounds=1, on_clear="repair")
        task.to_the_end()
        task.clear()
        report = task.land(task.to_the_end())
        assert world.batches[1:] == [["a0", "a1"], ["a0"]]
        assert report.statuses == {"succeeded": 4}
        assert task.landed()["a0"]["attempts"] == 3

    def test_a_clear_that_repairs_does_so_also_after_a_round_that_cured_nothing(self):
        world = World({"a0": [fails(), fails(), answers("at last")]})
        task = Task(world, some_rows(3), rounds=1, on_clear="repair")
        task.to_the_end()
        assert isinstance(task.attempt(), Done)
        task.clear()
        assert task.land(task.to_the_end()).statuses == {"succeeded": 3}

    def test_a_clear_for_new_jobs_buys_the_whole_again_once_and_its_rounds_too(self):
        world = World({"a0": [fails(), answers(), fails(), answers("anew")]})
        task = Task(world, some_rows(3), rounds=1, on_clear="new")
        task.to_the_end()
        task.attempt()
        assert len(world.jobs.paid) == 2
        task.clear()
        report = task.land(task.to_the_end())
        assert world.batches == [["a0", "a1", "a2"], ["a0"]] * 2
        assert isinstance(task.attempt(), Done)
        assert report.statuses == {"succeeded": 3}
        assert task.landed()["a0"]["text"] == "anew"

    def test_a_job_that_runs_when_a_new_one_is_asked_for_is_cancelled(self):
        world = World()
        task = Task(world, some_rows(3), on_clear="new")
        task.attempt()
        task.clear()
        assert isinstance(task.attempt(), Wait)
        first, second = world.jobs.paid
        assert [job.name for job in world.jobs.running] == [second.name]
        assert world.jobs.get(first.job_name).state is JobState.CANCELLED

    @pytest.mark.parametrize("effects", range(1, 9))
    def test_dying_on_the_way_to_new_jobs_buys_them_once(self, effects):
        world = World()
        task = Task(world, some_rows(3), on_clear="new")
        task.to_the_end()
        task.clear()
        effect_limit = EffectLimit(effects)
        with contextlib.suppress(Died):
            task.attempt(effect_limit.store(world.store), effect_limit.service(world.jobs))
        assert task.land(task.to_the_end()).statuses == {"succeeded": 3}
        assert len(world.jobs.paid) == 2

    def test_back_to_attach_the_newest_is_landed(self):
        world = World()
        task = Task(world, some_rows(3), on_clear="new")
        task.to_the_end()
        task.clear()
        task.to_the_end()
        task.on_clear = OnClear.ATTACH
        task.clear()
        [landed] = task.to_the_end().rounds
        assert landed.jobs[0].name == world.jobs.paid[1].name

    def test_on_demand_only(self):
        """With no round planned, nothing goes again until a person asks."""
        world = World({"a0": [fails(), answers()]})
        task = Task(world, some_rows(3), on_clear="repair")
        task.to_the_end()
        assert len(world.jobs.paid) == 1
        task.clear()
        assert task.land(task.to_the_end()).statuses == {"succeeded": 3}
        assert world.batches[1] == ["a0"]

    def test_other_input_begins_anew(self):
        world = World({"a0": [fails(), answers(), answers()]})
        task = Task(world, some_rows(3), rounds=1)
        task.to_the_end()
        task.rows = [*some_rows(3), {"id": "b", "text": "new"}]
        task.clear()
        task.to_the_end()
        assert world.batches == [["a0", "a1", "a2"], ["a0"], ["a0", "a1", "a2", "b"]]


class TestTwoAttempts:
    """An old attempt that wakes up beside a new one with other input stands back: their rounds are not each other's."""

    def test_the_old_one_neither_buys_nor_plans_a_round(self):
        world = World({"a0": [fails()]})
        task = Task(world, some_rows(3), rounds=1)
        task.attempt()
        old, changed = task.manifest, [*some_rows(2), {"id": "a2", "text": "edited"}]
        task.rows = changed
        task.attempt()
        world.run()
        new, task.manifest, paid = task.manifest, old, len(world.jobs.paid)
        with pytest.raises(LogError, match="Another attempt of this task is at work"):
            task.resume()
        assert len(world.jobs.paid) == paid
        task.manifest = new
        assert isinstance(task.resume(), Wait)
        world.run()
        assert world.batches[-1] == ["a0"]
        assert isinstance(task.resume(), Done)


class TestTwoAirflows:
    """They share a staging folder, and run the same task of the same run."""

    def test_one_with_other_input_changes_nothing_for_the_one_whose_job_runs(self):
        world = World({"a0": [fails()]})
        first = Task(world, some_rows(3), rounds=1, installation="first")
        second = Task(world, [*some_rows(2), {"id": "a2", "text": "other"}], rounds=1, installation="second")
        first.attempt()
        for _ in range(2):
            with pytest.raises(InputError, match="installation first bought it"):
                second.attempt()
        base = first.state().begun.base
        assert base == first.manifest.uri
        world.run()
        assert isinstance(first.resume(), Wait), "the row that failed goes again"
        world.run()
        assert isinstance(first.resume(), Done)
        assert world.batches == [["a0", "a1", "a2"], ["a0"]]
        assert isinstance(second.to_the_end(), Done), "nothing of the first runs any more"
        # The round of its own asks the same of the same row, and one job answers for both.
        assert world.batches[2:] == [["a0", "a1", "a2"]]
        assert first.state().begun.base == base

    def test_the_same_input_is_one_batch_of_both(self):
        world = World({"a0": [fails()]})
        first, second = (Task(world, some_rows(3), rounds=1, installation=name) for name in ("first", "second"))
        first.attempt()
        second.attempt()
        world.run()
        first.resume()
        second.resume()
        world.run()
        assert all(isinstance(task.resume(), Done) for task in (first, second))
        assert world.batches == [["a0", "a1", "a2"], ["a0"]]


def _bounded(tokens):
    from airflow_vertex_batch.core.requests.request import RequestTemplate

    return RequestTemplate(prompt="{{ text }}", generation_config={"maxOutputTokens": tokens})


class TestALostLog:
    """Somebody deletes it while the jobs run."""

    def test_the_attempt_that_waits_says_so_and_the_next_one_finds_the_jobs(self):
        world = World()
        task = Task(world, some_rows(3))
        task.attempt()
        for name in [name for name in world.store.objects if "/log/" in name]:
            del world.store.objects[name]
        prepared, task.manifest = task.manifest, None
        with pytest.raises(
            LogError, match=r"no longer says what this batch asked.*finds the jobs by their labels"
        ) as lost:
            task.resume()
        assert lost.value.retryable
        task.manifest = prepared
        assert isinstance(task.attempt(), Wait)
        assert len(world.jobs.paid) == 1


class TestAnswers:
    """A person answers, or does not, and the log has it."""

    BUDGET = Budget.of(0.000001, "ask")

    def asked(self, world=None, policy="ask"):
        task = Task(world or World(), some_rows(3), budget=Budget.of(0.000001, policy))
        return task, task.attempt()

    @pytest.mark.parametrize(
        ("by", "why", "text"),
        [
            ("Ada", "", "Ada rejected this batch. No job was created for it"),
            ("", "timed out", "Nobody approved this batch. timed out. No job was created for it"),
        ],
        ids=["said", "nobody"],
    )
    def test_a_batch_that_is_not_approved_ends_with_who_and_why(self, by, why, text):
        task, step = self.asked()
        with pytest.raises(InputError, match=rf"^{text}"):
            task.batch().answered(step.question.id, by, approved=False, of_round=0, why=why)
        assert (step.question.id in task.state().answers) == bool(by)
        assert task.world.jobs.paid == []

    def test_a_round_that_nobody_approved_is_given_up(self):
        world = World({"a0": [fails()]})
        task = Task(world, some_rows(3), rounds=1, budget=self.BUDGET)
        task.answer(task.attempt(), approved=True)
        task.resume()
        world.run()
        step = task.resume()
        task.batch().answered(step.question.id, "", approved=False, of_round=step.round)
        given = task.state().answers[step.question.id]
        assert (step.round, given.by, given.approved) == (1, "nobody", False)
        assert isinstance(task.resume(), Done)
        assert len(world.jobs.paid) == 1

    def test_a_skip_says_why(self):
        _, step = self.asked(policy="skip")
        assert step == Skip(step.why)
        assert "may cost up to" in step.why

    def test_another_attempt_at_work_is_named_with_its_log(self):
        world = World()
        task, other = Task(world, some_rows(3)), Task(world, some_rows(4))
        task.attempt()
        other.clear()
        other.attempt()
        with pytest.raises(
            LogError, match=r"Another attempt of this task is at work on gs://.*/log\. Nothing was sent\. Let it finish"
        ):
            task.resume()
