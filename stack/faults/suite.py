"""Which faults happen to which calls, and what are the results? The plan of all runs with faults, and the table of
results.

A run without faults to each destination shows which calls there are, so a new call is tried as soon as it exists. With
a table as the destination, only BigQuery's calls are tried: the other calls are the same as in a run to files.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

from stack.faults import worker
from stack.faults.calls import BIGQUERY, STORAGE, Position
from stack.faults.kinds import KINDS
from stack.faults.worker import Case

if TYPE_CHECKING:
    from stack.faults.batch import Outcome

HEADERS = ("fault", "calls", "positions", "same attempt", "a retry", "a person", "not well", "longest")
#: The longest recovery is rounded to this number of seconds, because the pauses between tries are partly random.
_STEP_S = 30
#: After this number of cases the log shows the progress.
_TELL_EVERY = 50
log = logging.getLogger(__name__)


class Result(NamedTuple):
    """A fault, the call to which it happens, and the result.

    :param quiet_s: how long a run without faults takes, in seconds of its clock.
    """

    case: Case
    position: Position
    outcome: Outcome
    quiet_s: float

    @property
    def ended(self) -> str:
        """How it ended: one of the columns of the table."""
        if self.outcome.wrong or "hangs" in self.outcome.attempts:
            return "not well"
        if self.outcome.clears:
            return "a person"
        return "a retry" if len(self.outcome.attempts) > 1 else "same attempt"

    @property
    def line(self) -> tuple[str, str]:
        """The line of the table that it belongs to."""
        return self.case.kind, f"{self.position.service}: {self.position.group}"

    @property
    def recovery_s(self) -> float:
        """How much longer than a run without faults it took."""
        return max(self.outcome.elapsed_s - self.quiet_s, 0.0)

    def __str__(self) -> str:
        where = "to a table" if self.case.to_table else "to files"
        one = self.outcome
        return (
            f"{self.case.kind} at `{self.case.at}`, {where}: attempts {', '.join(one.attempts)}; {'; '.join(one.wrong)}"
            f"\n{one.errors}"
        )


class Night:
    """Processes that go through batches, each by its own clock.

    :param urls: service → address of its server on this machine.
    """

    def __init__(self, urls: Mapping[str, str], processes: int = 0) -> None:
        self._pool = ProcessPoolExecutor(
            processes or os.cpu_count() or 1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=worker.start,
            initargs=(dict(urls),),
        )
        self._to_table = BIGQUERY in urls

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def quiet(self) -> dict[bool, Outcome]:
        """Return the results of runs without faults, to files and to a table.

        Each is run twice, and its calls are those of both: on a busy machine a client may repeat a call.
        """
        cases = [Case(to_table) for to_table in ((False, True) if self._to_table else (False,))]
        outcomes = list(self._pool.map(worker.go, [*cases, *cases]))
        found = zip(cases, outcomes[: len(cases)], outcomes[len(cases) :], strict=True)
        return {case.to_table: with_common_calls(one, other) for case, one, other in found}

    def run(self, quiet: Mapping[bool, Outcome], chosen: Sequence[tuple[Case, Position]]) -> list[Result]:
        """Go through batches."""
        outcomes = self._pool.map(worker.go, [case for case, _ in chosen])
        results = []
        for (case, position), outcome in zip(chosen, outcomes, strict=True):
            results.append(Result(case, position, outcome, quiet[case.to_table].elapsed_s))
            if results[-1].ended == "not well":
                log.warning("%s", results[-1])
            if len(results) % _TELL_EVERY == 0:
                log.info("%d of %d cases", len(results), len(chosen))
        return results


def is_a_look(position: Position) -> bool:
    """Whether a call asks how far BigQuery is with a job: how often depends on how fast the server is."""
    return position.service == BIGQUERY and "look at job" in position.title


def with_common_calls(one: Outcome, other: Outcome) -> Outcome:
    """Return the result of a run without the calls that another run of the same kind does not have.

    :raises ValueError: when such a call is neither a repetition nor a look at a job: it would never be tried.
    """
    titles = [{position.title for position in run.positions} for run in (one, other)]
    differing = titles[0] ^ titles[1]
    strange = {
        position.title
        for position in (*one.positions, *other.positions)
        if position.title in differing and not _REPEATED.search(position.title) and not is_a_look(position)
    }
    if strange:
        raise ValueError(f"Only one of two runs without a fault has {', '.join(sorted(strange))}")
    common = tuple(position for position in one.positions if position.title not in differing)
    worse = one if one.attempts != ("success",) or one.wrong else other
    return msgspec.structs.replace(worse, positions=common)


#: The end of the title of a call that was made before.
_REPEATED = re.compile(r" \(\d+\)$")
#: A second piece of the rows, which only large ones have.
_SECOND_PIECE = Position("prepare: read source (2)", STORAGE, changes=False, is_source=True, is_media=True)


def cases(quiet: Mapping[bool, Outcome]) -> list[tuple[Case, Position]]:
    """Return every case, with the call to which the fault happens."""
    found = {}
    for to_table, outcome in quiet.items():
        for kind, fault in KINDS.items():
            for position in (*outcome.positions, *([_SECOND_PIECE] if fault.needs_large else [])):
                if (position.service == BIGQUERY) == to_table and fault.suits(position):
                    found[Case(to_table, kind, position.title)] = position
    return list(found.items())


def table(results: Iterable[Result]) -> list[list[str]]:
    """Return the lines of the table: one for each kind of fault and of call."""
    lines: defaultdict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        lines[result.line].append(result)
    order = [*KINDS]
    return [_row(*line, lines[line]) for line in sorted(lines, key=lambda line: (order.index(line[0]), line[1]))]


def _row(kind: str, calls: str, results: Sequence[Result]) -> list[str]:
    counts = [sum(result.ended == ended for result in results) for ended in HEADERS[3:7]]
    longest = max((result.recovery_s for result in results if result.ended in HEADERS[3:5]), default=0.0)
    return [kind, calls, str(len(results)), *(str(count or "") or "-" for count in counts), _told(longest)]


def _told(seconds: float) -> str:
    steps = -int(-seconds // _STEP_S)
    return f"≤ {steps * _STEP_S} s" if steps else "0 s"
