"""What the entries of a log add up to, and what a new attempt writes: pure tables."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.purchase.decide import OnClear
from airflow_vertex_batch.core.purchase.entries import Answered, Begun, End, Ended, Repair
from airflow_vertex_batch.core.purchase.fold import Start, State, begin, begun_in, fold


def _begun(base, generation, upstream, rounds, since="", jobs="", files=""):
    return Begun(
        base=base, generation=generation, upstream=upstream, rounds=rounds, since=since, jobs=jobs, files=files
    )


def _repair(manifest, base):
    return Repair(manifest_uri=manifest, base=base)


TWICE = State(_begun("m1", "1", "", 2), (_repair("r1", "m1"), _repair("r2", "m1")), 0)
TAKEN = _begun("m1", "1", "", 0, "1", "j")


class TestTheLog:
    """The log adds up to one state."""

    ONE = Begun(base="m1", generation="1", upstream="", rounds=2)

    @pytest.mark.parametrize(
        ("entries", "state"),
        [
            ([], State()),
            ([ONE], State(ONE, (), 2)),
            ([ONE, _repair("r1", "m1")], State(ONE, (_repair("r1", "m1"),), 1)),
            (
                [ONE, _repair("r1", "m1"), _begun("m1", "2", "", 1)],
                State(_begun("m1", "2", "", 1), (_repair("r1", "m1"),), 1),
            ),
            ([ONE, _repair("r1", "m1"), _begun("m2", "1", "", 2)], State(_begun("m2", "1", "", 2), (), 2)),
        ],
        ids=["nothing", "begun", "asked", "cleared", "other-base"],
    )
    def test_entries_are_added_up(self, entries, state):
        assert fold(entries) == state

    @pytest.mark.parametrize(
        ("before", "start", "rounds"),
        [
            (State(), Start(generation="1", rounds=2, alone=True), 2),
            (State(ONE, (), 2), Start(generation="1", rounds=2, alone=True), None),
            (TWICE, Start(generation="2", rounds=2, alone=True), 2),
            (TWICE, Start(generation="2", rounds=2), 0),
            (TWICE, Start(generation="2", rounds=2, on_clear=OnClear.REPAIR), 2),
            (
                State(ONE, (_repair("r1", "m1"), _repair("r2", "m1")), 0),
                Start(generation="2", rounds=2, upstream="changed too", alone=True),
                0,
            ),
            (
                State(ONE, (_repair("r1", "m1"), _repair("r2", "m1")), 0),
                Start(generation="2", rounds=2, upstream="changed too", on_clear=OnClear.REPAIR),
                2,
            ),
            (
                State(ONE, (_repair("r1", "m1"),), 1),
                Start(generation="2", rounds=2, upstream="changed too", alone=True),
                1,
            ),
            (_begun("m1", "1", "", 0), Start(generation="2", on_clear=OnClear.REPAIR), 1),
        ],
        ids=[
            *("first", "retry", "cleared-alone", "cleared-attach", "cleared-repair", "run-cleared"),
            *("run-cleared-repair", "run-cleared-with-a-round-left", "none-was-planned"),
        ],
    )
    def test_a_clear_asks_for_more_or_repeats_nothing(self, before, start, rounds):
        before = before if isinstance(before, State) else State(before, (), before.rounds)
        entry = begin(before, "m1", start)
        assert (entry and entry.rounds) == rounds

    @pytest.mark.parametrize(
        ("before", "start", "jobs", "since", "goes_on"),
        [
            (None, Start(generation="1"), "", "1", None),
            (_begun("m1", "1", "", 0, "1"), Start(generation="2"), "", "1", True),
            (_begun("m1", "1", "", 0, "1"), Start(generation="2", on_clear=OnClear.REPAIR), "", "1", True),
            (_begun("m1", "1", "", 0, "1"), Start(generation="2", on_clear=OnClear.NEW), "", "2", False),
            (_begun("m0", "2", "", 0, "1"), Start(generation="2", on_clear=OnClear.NEW), "", "1", False),
            (_begun("m0", "1", "", 0, "1"), Start(generation="2", on_clear=OnClear.NEW), "", "2", False),
            (
                _begun("m1", "1", "", 0, "1", "j"),
                Start(generation="2", on_clear=OnClear.NEW, alone=True),
                "j",
                "1",
                True,
            ),
            (TAKEN, Start(generation="2", alone=True), "other", "2", False),
        ],
        ids=[
            *("first", "attach", "repair", "new", "retry-with-other-input", "new-with-other-input"),
            *("the-jobs-before-are-the-same", "the-jobs-before-are-new"),
        ],
    )
    def test_new_jobs_are_marked_with_the_clear_that_asked_for_them(self, before, start, jobs, since, goes_on):
        entry = begin(State(before, (), 0) if before else State(), "m1", start, jobs)
        assert entry.since == since
        assert goes_on is None or entry.goes_on(before) is goes_on

    @pytest.mark.parametrize(
        ("before", "files", "start", "rounds", "goes_on"),
        [
            (_begun("m0", "1", "", 2, "1", files="f"), "f", Start(generation="1", rounds=2, alone=True), 1, True),
            (_begun("m0", "1", "", 2, "1", files="f"), "g", Start(generation="1", rounds=2), 2, False),
            (_begun("m0", "1", "", 2, "1"), "f", Start(generation="1", rounds=2), 2, False),
            (_begun("m0", "1", "", 2, "1"), "", Start(generation="1", rounds=2), 2, False),
            (_begun("m1", "1", "", 2, "1"), "f", Start(generation="2", rounds=2), 1, True),
            (_begun("m0", "1", "", 2, "1", files="f"), "f", Start(generation="2", rounds=2), 1, True),
            (_begun("m0", "1", "", 2, "1", files="f"), "f", Start(generation="2", rounds=2, alone=True), 2, True),
            (
                _begun("m0", "1", "", 2, "1", files="f"),
                "f",
                Start(generation="2", rounds=2, on_clear=OnClear.NEW),
                2,
                False,
            ),
        ],
        ids=[
            *("same-files", "other-files", "files-not-noted", "no-files", "same-set", "cleared", "cleared-alone"),
            "cleared-for-new-jobs",
        ],
    )
    def test_another_set_of_the_same_files_goes_on(self, before, files, start, rounds, goes_on):
        """One repair round has been made, one is left."""
        entry = begin(State(before, (_repair("r1", "m1"),), 1), "m1", start, files=files)
        assert (entry.base, entry.rounds, entry.goes_on(before)) == ("m1", rounds, goes_on)


class TestWhatARetryGoesOnFrom:
    @pytest.mark.parametrize(
        ("state", "base"),
        [(State(), ""), (State(_begun("m1", "1", "", 0)), "m1"), (State(_begun("m1", "0", "", 0)), "")],
        ids=["the-first-attempt", "a-retry", "a-clear"],
    )
    def test_is_the_set_of_the_attempt_before_unless_a_person_cleared_the_task(self, state, base):
        assert begun_in(state, "1") == base


class TestWhatPeopleSaid:
    def test_the_last_answer_to_a_question_counts(self):
        said = [Answered(question="q", approved=number > 0, by="Ada") for number in range(2)]
        assert fold(said).answers == {"q": said[1]}

    def test_an_end_is_known_whoever_wrote_it_down(self):
        ended = Ended(jobs=(End("jobs/1", "JOB_STATE_SUCCEEDED"), End("jobs/2", "JOB_STATE_FAILED")))
        assert fold([ended]).ended == {"jobs/1", "jobs/2"}
