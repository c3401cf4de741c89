"""Whatever becomes of rows round by round: each lands once, and only rows worth another try are sent again."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_vertex_batch.core.answers.repair import ACTIONS, Action, RepairPolicy, select
from airflow_vertex_batch.core.answers.rounds import Rounds
from airflow_vertex_batch.core.domain.errors import LostOutputError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.domain.row import RowStatus
from airflow_vertex_batch.core.money.prices import PriceTable
from tests.builders import a_row, jsonl
from tests.core.worlds import FOLDER, Task, World, answers, fails, some_rows
from tests.fakes import MemoryWarehouse

#: What may come of a row in one round, and whether asking again is right.
FATES = {
    "good": (answers(), False),
    "unavailable": (fails(503, "UNAVAILABLE"), True),
    "exhausted": (fails(429, "RESOURCE_EXHAUSTED"), True),
    "no line": (None, True),
    "cut": (answers("half", "MAX_TOKENS"), True),
    "invalid": (fails(400, "INVALID_ARGUMENT"), False),
    "safety": (answers("", "SAFETY"), False),
    "recitation": (answers("", "RECITATION"), False),
}
#: How the first job ends; the others end well.
ENDS = [JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED, JobState.CANCELLED, JobState.EXPIRED, JobState.FAILED]


@st.composite
def nights(draw):
    """Draw what becomes of each of some rows, how many of them the first job answers, and how it ends."""
    count = draw(st.integers(1, 8))
    fates = st.lists(st.sampled_from(sorted(FATES)), min_size=1, max_size=4)
    script = {f"a{number}": draw(fates) for number in range(count)}
    end = draw(st.sampled_from(ENDS))
    return script, draw(st.integers(1, count)), end, draw(st.integers(0, 3))


def _play(script, answered, end, rounds):
    world = World({key: [FATES[fate][0] for fate in fates] for key, fates in script.items()})
    task = Task(world, some_rows(len(script)), rounds=rounds)
    step = task.attempt()
    world.run(end, only=None if end is JobState.SUCCEEDED else answered)
    # A job without a good line fails the task before anything is repaired: that is the sensor's to say.
    step = task.resume()
    while not hasattr(step, "rounds"):
        world.run()
        step = task.resume()
    return world, task, step


@settings(deadline=None)
@given(nights())
@example(({"a0": ["cut", "good"], "a1": ["cut", "invalid"]}, 1, JobState.SUCCEEDED, 2))
def test_each_row_lands_once_and_a_good_answer_is_never_asked_again(night):
    script, answered, end, rounds = night
    world, task, done = _play(script, answered, end, rounds)
    report = task.land(done)
    assert sorted(task.landed()) == sorted(script)
    assert report.request_count == sum(report.statuses.values()) == len(script)
    assert len(world.batches) <= rounds + 1
    for number, keys in enumerate(world.batches[1:], start=1):
        for key in keys:
            before = [fate for batch, fate in _fates(script, world, key) if batch < number]
            assert not before or FATES[before[-1]][1], f"{key} was sent again after {before}"
    assert max(Counter(key for keys in world.batches for key in keys).values()) <= rounds + 1


@settings(deadline=None)
@given(nights())
def test_what_all_attempts_were_billed_is_in_the_report(night):
    script, answered, end, rounds = night
    world, task, done = _play(script, answered, end, rounds)
    fates = [fate for key in script for _, fate in _fates(script, world, key)]
    billed = sum(1 for fate in fates if (line := FATES[fate][0]) is not None and line["response"])
    assert task.land(done).usage.prompt_tokens == 10 * billed


@settings(deadline=None)
@given(nights())
def test_the_same_rounds_give_the_same_set_and_landing_twice_is_landing_once(night):
    script, answered, end, rounds = night
    world, task, done = _play(script, answered, end, rounds)
    first = task.land(done)
    before = dict(world.store.objects)
    assert hasattr(task.resume(), "rounds")
    assert task.land(done) == first
    assert world.store.objects == before
    assert len(world.jobs.paid) == len(world.batches)


@settings(deadline=None)
@given(nights())
def test_a_decision_from_the_last_round_is_the_decision_from_all_of_them(night):
    script, answered, end, rounds = night
    world, _, done = _play(script, answered, end, rounds)
    for count in range(2, len(done.rounds) + 1):
        from_the_last = _selection(world, done.rounds[:count])
        kept = {name: data for name, data in world.store.objects.items() if "/sent-rows/" in name}
        for name in kept:
            del world.store.objects[name]
        assert _selection(world, done.rounds[:count]) == from_the_last
        world.store.objects.update(kept)


def test_a_later_decision_does_not_read_the_first_output():
    """A night of a million rows is not read again to send ten of them."""
    script = {"a0": ["unavailable", "unavailable", "good"], "a1": ["unavailable", "good"], "a2": ["good"]}
    world, _, done = _play(script, 3, JobState.SUCCEEDED, 2)
    world.store.opened.clear()
    assert _selection(world, done.rounds[:2]).manifest.request_count == 1
    outputs = [asked.jobs[0].output_uri for asked in done.rounds]
    assert [any(name.startswith(f"{uri}/") for name in world.store.opened) for uri in outputs] == [False, True, False]


class TestWhatChangedSinceTheLastDecision:
    """Then everything is read again."""

    @pytest.fixture
    def night(self):
        """After two rounds, a0 has no good answer."""
        script = {"a0": ["unavailable", "unavailable", "good"], "a1": ["unavailable", "good"], "a2": ["good"]}
        world, _, done = _play(script, 3, JobState.SUCCEEDED, 2)
        assert _selection(world, done.rounds[:2]).manifest.request_count == 1
        return world, done.rounds[:2]

    @staticmethod
    def output_of(world, asked):
        (name,) = [name for name in world.store.objects if name.startswith(f"{asked.jobs[0].output_uri}/")]
        return name

    def test_a_line_that_came_late_is_a_good_answer(self, night):
        world, rounds = night
        request = json.loads(world.store.objects[rounds[0].manifest.shards[0].uri].splitlines()[0])
        late = {"key": "a0", "processed_time": "", "request": request["request"], **answers()}
        world.store.objects[self.output_of(world, rounds[0])] += jsonl(late)
        assert _selection(world, rounds).manifest is None

    def test_an_output_that_was_lost_is_an_error_before_more_is_paid(self, night):
        world, rounds = night
        del world.store.objects[self.output_of(world, rounds[0])]
        with pytest.raises(LostOutputError, match="output"):
            _selection(world, rounds)

    def test_other_prices_are_the_prices_of_all_rounds(self, night):
        world, rounds = night
        assert _selection(world, rounds).cost_usd > 0
        assert _selection(world, rounds, prices=PriceTable(())).cost_usd == 0

    @pytest.mark.parametrize("data", [b"", b"garbage", b"{}\n", b'{"conditions": 1}\n'])
    def test_a_file_that_cannot_be_read_is_as_good_as_none(self, night, data):
        world, rounds = night
        wanted = _selection(world, rounds)
        for name in [name for name in world.store.objects if "/sent-rows/" in name]:
            world.store.objects[name] = data
        assert _selection(world, rounds) == wanted


def test_a_small_batch_leaves_no_file_for_it():
    """An object more in each batch is too much where thousands of batches run."""
    world, _, done = _play({"a0": ["unavailable", "unavailable", "good"]}, 1, JobState.SUCCEEDED, 2)
    for name in [name for name in world.store.objects if "/sent-rows/" in name]:
        del world.store.objects[name]
    assert _selection(world, done.rounds[:1], reread_rows=1).manifest.request_count == 1
    assert not [name for name in world.store.objects if "/sent-rows/" in name]


def _selection(world, rounds, reread_rows=0, **options):
    so_far = Rounds(rounds, world.store, MemoryWarehouse())
    return select(so_far, RepairPolicy(reread_rows=reread_rows), world.store, FOLDER, "t", **options)


def _fates(script, world, key):
    """Yield the jobs that a key was sent in, and what came of it there."""
    times = 0
    for number, keys in enumerate(world.batches):
        if key in keys:
            yield number, script[key][min(times, len(script[key]) - 1)]
            times += 1


@given(
    st.sampled_from(list(RowStatus)), st.booleans(), st.sampled_from(["", "INVALID_ARGUMENT", "RECITATION", "SAFETY"])
)
def test_only_a_repairable_row_of_a_repairable_status_goes_again(status, repairable, code):
    action = RepairPolicy().action(a_row(status=status, repairable=repairable, code=code))
    if action is not Action.GIVE_UP:
        assert status.repairable
        assert repairable
        assert code not in {"INVALID_ARGUMENT", "RECITATION"}
    assert set(ACTIONS) == set(RowStatus)


@given(st.dictionaries(st.sampled_from([*RowStatus][1:-1]), st.sampled_from(list(Action))))
def test_no_choice_of_actions_sends_what_never_heals(actions):
    policy = RepairPolicy(actions=actions)
    for status in RowStatus:
        for code in ("INVALID_ARGUMENT", "RECITATION", "PERMISSION_DENIED"):
            assert policy.action(a_row(status=status, repairable=True, code=code)) is Action.GIVE_UP
        assert policy.action(a_row(status=status, repairable=True, attempts=0)) is Action.GIVE_UP
    assert policy.action(a_row()) is Action.GIVE_UP
