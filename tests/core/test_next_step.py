"""What comes next, as a table: the log, what the attempt has found out, and the one step that follows."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from airflow_vertex_batch.core import next_step as steps
from airflow_vertex_batch.core.answers.repair import Selection, Wants
from airflow_vertex_batch.core.answers.rounds import Round
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.domain.manifest import Manifest, Shard
from airflow_vertex_batch.core.purchase.approval import Allowed, Question, Refused
from airflow_vertex_batch.core.purchase.entries import Begun, Repair
from airflow_vertex_batch.core.purchase.fold import State
from tests.builders import a_job

BASE = Manifest(
    uri="m1", fingerprint="f", row_count=3, request_count=3, shards=(Shard(uri="s", request_count=3, size_bytes=9),)
)
EMPTY = Manifest(uri="m1", fingerprint="f", row_count=0, request_count=0, shards=())
AGAIN = Manifest(uri="r1", fingerprint="g", row_count=1, request_count=1, shards=BASE.shards)
ROUND_1 = Repair(manifest_uri="r1", base="m1")
WHY = InputError("too dear")
QUESTION = Question("q", "subject", "body")
CHOSEN, NOTHING = Selection(AGAIN, 1, 0, Decimal(0)), Selection(None, 0, 0, Decimal(0))


def state(left: int = 0, *repairs: Repair, base: str = "m1", granted: bool = False) -> State:
    return State(Begun(base=base, generation="1"), repairs, left, granted)


def ended(job_state: JobState = JobState.SUCCEEDED, manifest: Manifest = BASE) -> Round:
    return Round(manifest=manifest, jobs=(a_job(state=job_state),))


def facts(*rounds: Round, **members: Any) -> steps.Facts:
    return steps.Facts(**{"base": BASE, "rounds": rounds} | members)


FRESH = {"fresh": True}
BEGUN = {"fresh": True, "has_begun": True}
TABLE: dict[str, tuple[State, steps.Facts, steps.Step]] = {
    "nothing is known": (State(), steps.Facts(fresh=True), steps.Prepare()),
    "a worker comes back": (state(), steps.Facts(), steps.Prepare()),
    "the set is known": (State(), facts(**FRESH), steps.Begin()),
    "an earlier attempt has begun": (state(), facts(**FRESH), steps.Begin()),
    "it has begun": (state(), facts(**BEGUN), steps.Estimate(0)),
    "a later attempt has begun from other requests": (state(base="m2"), facts(), steps.Replaced()),
    "the log is lost in a wait": (State(), facts(), steps.Replaced()),
    "it may be bought": (state(), facts(**BEGUN, may_spend=Allowed()), steps.Buy(0)),
    "a person has approved it": (state(), facts(may_spend=Allowed("Ada")), steps.Buy(0)),
    "a person must say": (state(), facts(may_spend=QUESTION), steps.AskApproval(QUESTION)),
    "it must not be bought": (state(), facts(may_spend=Refused(WHY)), steps.Refuse(Refused(WHY))),
    "it has no row": (state(), facts(**BEGUN | {"base": EMPTY}), steps.Stop()),
    "it had no row when the wait began": (state(), facts(base=EMPTY), steps.Estimate(0)),
    "a job runs": (state(2), facts(ended(JobState.RUNNING)), steps.Wait()),
    "a job queues": (state(2), facts(ended(JobState.QUEUED)), steps.Wait()),
    "a job is being cancelled": (state(2), facts(ended(JobState.CANCELLING)), steps.Wait()),
    "all have ended, and no round is left": (state(0), facts(ended()), steps.Land()),
    "all have ended, and a round is left": (state(1), facts(ended()), steps.Choose(Wants.CURABLE)),
    "a person asked for another round": (
        state(1, granted=True), facts(ended()), steps.Choose(Wants.CURABLE | Wants.AGAIN),
    ),
    "granted, but none is left": (state(0, granted=True), facts(ended()), steps.Land()),
    "a job failed, and this attempt completes": (
        state(0), facts(ended(JobState.FAILED), owes_repair=True), steps.Choose(Wants.UNANSWERED),
    ),
    "a job failed, and a round is left too": (
        state(1), facts(ended(JobState.FAILED), owes_repair=True), steps.Choose(Wants.UNANSWERED | Wants.CURABLE),
    ),
    "all ended well, and this attempt completes": (state(0), facts(ended(), owes_repair=True), steps.Land()),
    "a job failed, and nobody completes": (state(0), facts(ended(JobState.FAILED)), steps.Land()),
    "no row can be helped": (state(1), facts(ended(), selection=NOTHING), steps.Land()),
    "rows were chosen": (state(1), facts(ended(), selection=CHOSEN), steps.Estimate(1)),
    "they may be bought": (state(1), facts(ended(), selection=CHOSEN, may_spend=Allowed()), steps.Decide(AGAIN)),
    "a person must say of a round": (
        state(1), facts(ended(), selection=CHOSEN, may_spend=QUESTION), steps.AskApproval(QUESTION),
    ),
    "a round is too dear": (
        state(1), facts(ended(), selection=CHOSEN, may_spend=Refused(WHY)), steps.Land(WHY),
    ),
    "a round was decided": (state(0, ROUND_1), facts(ended()), steps.Buy(1, ROUND_1)),
    "a round was decided while a job of the batch runs": (
        state(0, ROUND_1), facts(ended(JobState.RUNNING)), steps.Wait(),
    ),
    "its job runs": (state(0, ROUND_1), facts(ended(), ended(JobState.RUNNING, AGAIN)), steps.Wait()),
    "its job has ended": (state(0, ROUND_1), facts(ended(), ended(manifest=AGAIN)), steps.Land()),
    "its job has ended, and another round is left": (
        state(1, ROUND_1), facts(ended(), ended(manifest=AGAIN)), steps.Choose(Wants.CURABLE),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("log", "found", "step"), TABLE.values(), ids=TABLE)
def test_one_step_follows(log, found, step):
    assert steps.next_step(log, found, goes_on_empty=False) == step


def test_what_another_task_bought_is_not_compared_with_the_limit():
    assert steps.next_step(state(), facts(**BEGUN), is_checked=False) == steps.Buy(0)


def test_a_night_without_a_row_is_landed_where_its_author_wants_that():
    assert steps.next_step(state(), facts(**BEGUN | {"base": EMPTY}), goes_on_empty=True) == steps.Estimate(0)
