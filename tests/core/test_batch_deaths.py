"""A batch goes through its rounds: completed by the service's own resume, and whatever dies on the way."""

from __future__ import annotations

from airflow_vertex_batch.core.answers.repair import RepairPolicy
from airflow_vertex_batch.core.progress import Wait
from tests.core.worlds import Task, World, answers, fails, some_rows
from tests.fakes import Died, EffectLimit


class TestResume:
    """The service completes its own output."""

    def test_the_output_is_the_input_and_the_rows_it_has_are_not_sent(self):
        world = World({"a0": [fails(), answers("late")], "a1": [None, answers("found")]})
        task = Task(world, some_rows(4), rounds=2, policy=RepairPolicy(resume=True))
        report = task.land(task.to_the_end())
        second = world.jobs.paid[1]
        assert second.input_uris[0].endswith("predictions.jsonl")
        assert report.statuses == {"succeeded": 4}
        assert world.sent == {"a0": 2, "a1": 2, "a2": 1, "a3": 1}
        assert report.usage.prompt_tokens == 40
        assert report.foreign_count == 0

    def test_the_same_row_of_another_batch_is_another_purchase(self):
        """The job that completed the one's output has no answer for the other's."""
        world = World({"a0": [fails(), answers("late"), fails(), answers("later")]})
        task = Task(world, some_rows(3), rounds=1, policy=RepairPolicy(resume=True))
        task.to_the_end()
        task.rows = some_rows(2)
        assert task.land(task.to_the_end()).statuses == {"succeeded": 2}
        assert len(world.jobs.paid) == 4


class TestDeath:
    """The process dies after every single effect, and the next attempt goes on."""

    def test_one_job_a_round_and_each_row_once(self):
        count, script = 1, {"a0": [fails(), answers()], "a1": [None, fails(), answers()]}
        while True:
            world, effect_limit = World(script), EffectLimit(count)
            task = Task(world, some_rows(4), rounds=2)
            died = self._to_the_end(task, effect_limit)
            report = task.land(task.to_the_end())
            assert report.statuses == {"succeeded": 4}
            assert [sorted(keys) for keys in world.batches] == [["a0", "a1", "a2", "a3"], ["a0", "a1"], ["a1"]]
            assert len(task.landed()) == 4
            assert world.jobs.running == []
            if not died:
                break
            count += 1
        assert count > 15

    @staticmethod
    def _to_the_end(task, effect_limit):
        """Go on until death; say whether it came."""
        store, service = effect_limit.store(task.world.store), effect_limit.service(task.world.jobs)
        try:
            step = task.attempt(store, service)
            while isinstance(step, Wait):
                task.world.run()
                step = task.resume(store, service)
        except Died:
            return True
        return False
