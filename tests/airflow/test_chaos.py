"""The chaos table: real processes die after every single effect, and the books say what was paid for.

`make chaos` runs every case and writes `docs/chaos.md`. Otherwise a part is tried, chosen by a seed: kills
after single effects in deferrable mode, everything else in one mode, deferrable where it can be, and of what hurts
everybody the first act; the page must say what was measured.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from stack.chaos import document
from stack.chaos.night import KEYS, Night, Outcome, a_night
from tests.airflow.chaos.cases import EVERY, MODES, TO_TABLE, Line, kills, quiet_runs, scenarios

PAGE = Path(__file__).resolve().parents[2] / "docs" / "chaos.md"
HEADERS = ("what happened", "after", "mode", "jobs billed", "rows landed", "jobs left running")
#: Every case, as against those that a change must pass.
ALL = os.environ.get("CHAOS") == "all"
pytestmark = pytest.mark.airflow
KILLED_IN = (*(MODES if ALL else ("deferrable",)), TO_TABLE)
ACTS = (1, 2, 3) if ALL else (1,)
#: So many kills in each way, and so many other disturbances, are tried for every change: all of them take a quarter
#: of an hour of both cores.
KILLS, OTHERS, SEED = 4, 12, 10


@dataclass(frozen=True)
class Result:
    """What was to happen, and what came of it."""

    line: Line
    outcome: Outcome

    @property
    def cells(self) -> tuple[str, str, str]:
        """The measured part of its line in the table."""
        one, jobs = self.outcome, len(self.outcome.jobs)
        cancelled = f" ({one.cancelled} cancelled)" if one.cancelled else ""
        wanted = len(KEYS) * max(self.line.disturbance.parts, 1)
        surplus = sum(one.landed.values()) - len(one.landed)
        rows = f"{len(one.landed)} of {wanted}" + (", each once" if one.landed and not surplus else "")
        return f"{jobs - one.repairs} + {one.repairs}{cancelled}", rows, str(one.running)

    def __str__(self) -> str:
        """All of it, for a failed test."""
        one = self.outcome
        jobs = [(job["displayName"], job["state"], job["createTime"]) for job in one.jobs]
        return (
            f"{self.line.case.name}: {self.line.disturbance.what} after {self.line.disturbance.after}\n"
            f"run {one.ended}; {self.cells}; struck {one.record.struck} {one.record.errors}\n"
            f"effects {one.record.effects}\njobs {jobs}\nlanded {dict(one.landed)}\ndead {dict(one.dead)}"
        )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """Everything that happened in one night."""
    with a_night(tmp_path_factory.mktemp("chaos"), Path(__file__).parent / "chaos" / "dags") as night:
        others = list(scenarios()) if ALL else chosen_scenarios()
        night.behave([line.case for line in others])
        with ThreadPoolExecutor(1) as pool:
            beside = pool.submit(_run, night, [line for line in others if not line.disturbance.act])
            quiet = _run(night, list(quiet_runs()))
            effects = {result.line.mode: result.outcome.record.effects for result in quiet}
            killed = _run(night, [line for mode in KILLED_IN for line in chosen_kills(mode, effects[mode])])
            found = [*quiet, *killed, *beside.result()]
        for act in ACTS:
            found += _run(night, [line for line in others if line.disturbance.act == act])
        return found


def chosen(lines: Sequence[Line], count: int) -> Sequence[Line]:
    """So many lines by the seed, or all of them."""
    return lines if ALL or len(lines) <= count else random.Random(SEED).sample(lines, count)


def chosen_kills(mode: str, effects: Sequence[str]) -> Sequence[Line]:
    """Kills after so many of a mode's effects, or after all of them.

    On a busy machine a call may be repeated in the quiet run alone; such a repetition has no line in the page.
    """
    return chosen([line for line in kills(mode, effects) if ALL or is_measured(line)], KILLS)


def chosen_scenarios() -> list[Line]:
    """What a change must pass: what kills after every effect, and some of all others."""
    measured = [line for line in scenarios() if is_for_every_change(line) and is_measured(line)]
    often = [line for line in measured if line.disturbance.after == EVERY]
    return [*often, *chosen([line for line in measured if line not in often], OTHERS)]


#: Entries of a log whose place among the steps is not told by the jobs that there are.
_LOGGED = ("whose log", "landed")


def is_for_every_change(line: Line) -> bool:
    """Whether a case is among those that a change must pass: ten minutes of killing are too many for each."""
    if line.disturbance.act:
        return line.disturbance.act in ACTS
    modes = line.disturbance.modes
    return line.mode == ("deferrable" if "deferrable" in modes else modes[0])


def is_measured(line: Line) -> bool:
    """Whether the page knows a case. One that is new is left to `make chaos`, which measures it in all its modes."""
    known = {(what, after) for what, after, *_ in document.read(PAGE, "chaos")}
    return (line.disturbance.what, line.disturbance.after) in known


def _run(night: Night, lines: Sequence[Line]) -> list[Result]:
    outcomes = night.run([line.case for line in lines])
    return [Result(line, outcome) for line, outcome in zip(lines, outcomes, strict=True)]


@pytest.fixture(scope="module")
def effects(results: list[Result]) -> dict[str, list[str]]:
    """The effects of a quiet run in each mode."""
    return {result.line.mode: result.outcome.record.effects for result in results if result.line.case.name[0] == "q"}


def all_but(results: Sequence[Result], holds) -> list[str]:
    """The results for which something does not hold."""
    return [str(result) for result in results if not holds(result)]


class TestEveryCase:
    def test_each_step_has_effects_in_each_mode(self, effects):
        for mode, titles in effects.items():
            # Each task says whose its log is when it first writes there, and that rows have landed when all is done.
            named = (
                title.partition(":")[0] for title in titles if not title.partition("write ")[2].startswith(_LOGGED)
            )
            steps = [step for step, _ in groupby(named)]
            assert steps == ["prepare", "create", "repair", "export"], mode

    def test_somebody_died_where_somebody_was_to_die(self, results):
        def holds(result):
            plan, record = result.outcome.record.plan, result.outcome.record
            wanted = bool(plan.after or plan.each or plan.create_late_s)
            return bool(record.struck) == wanted and not record.errors

        assert all_but(results, holds) == []

    def test_the_task_that_died_again_and_again_died_after_every_effect(self, results, effects):
        [often] = [result.outcome.record for result in results if result.line.disturbance.after == EVERY]
        # It is struck once for each title; the proxy numbers an effect that comes again, and lets it pass.
        assert {title for title in effects["sync"] if "(again" not in title} <= set(often.struck)

    def test_the_run_ended_as_it_should(self, results):
        assert all_but(results, lambda result: result.outcome.ended == result.line.disturbance.ends) == []

    def test_one_job_was_billed_and_one_for_the_bad_row(self, results):
        def holds(result):
            one, wanted = result.outcome, result.line.disturbance
            return (len(one.jobs) - one.repairs, one.repairs, one.cancelled) == (
                wanted.jobs,
                wanted.repairs,
                wanted.cancelled,
            )

        assert all_but(results, holds) == []

    def test_each_row_landed_once(self, results):
        def holds(result):
            parts = result.line.disturbance.parts
            keys = sorted(name.rpartition(" ")[2] for name in result.outcome.landed.elements())
            return keys == sorted(KEYS * parts) and set(result.outcome.landed.values()) <= {1}

        assert all_but(results, holds) == []
        assert all_but(results, lambda result: not result.outcome.dead) == []

    def test_no_job_is_left_running(self, results):
        assert all_but(results, lambda result: result.outcome.running == 0) == []


class TestThePage:
    def test_has_a_kill_after_each_effect(self, effects):
        """One that is new needs `make chaos`."""
        for mode, titles in effects.items():
            lines = [
                line for line in kills(mode, titles) if mode in KILLED_IN and "(again " not in line.disturbance.after
            ]
            assert [line.disturbance.after for line in lines if not is_measured(line)] == []

    def test_has_what_every_mode_repeats(self, effects):
        """That is no call that a busy machine repeated."""
        common = set.intersection(*map(set, effects.values()))
        lines = kills("deferrable", sorted(title for title in common if "(again " in title))
        assert [line.disturbance.after for line in lines if not is_measured(line)] == []

    def test_says_what_was_measured(self, results):
        """`make chaos` writes it, with all that is left out here."""
        measured = table(results)
        if os.environ.get("CHAOS_DOC"):
            rows = [[what, after, ", ".join(modes), *cells] for (what, after, *cells), modes in measured.items()]
            document.write(PAGE, "chaos", HEADERS, rows)
        page = {(what, after, *cells): modes.split(", ") for what, after, modes, *cells in document.read(PAGE, "chaos")}
        if ALL:
            assert measured == page
        else:
            assert {line: modes for line, modes in measured.items() if not {*modes} <= {*page.get(line, ())}} == {}


def table(results: Sequence[Result]) -> dict[tuple[str, ...], list[str]]:
    """The lines of the table, each with the modes in which it was so."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for result in results:
        one = result.line.disturbance
        lines.setdefault((one.what, one.after, *result.cells), []).append(result.line.mode)
    return lines
