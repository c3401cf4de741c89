"""How far is a batch? Its log says with which set it began, which repair rounds were decided, and what a person said.

Pure: entries go in, the state comes out. `core.batch` writes the entries, and goes on from the state.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.domain.record import Record
from airflow_vertex_batch.core.purchase.decide import OnClear
from airflow_vertex_batch.core.purchase.entries import Answered, Begun, Ended, Entry, Repair

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class State(msgspec.Struct, frozen=True):
    """What the log says.

    :param begun: how the batch began last; None before it has.
    :param repairs: the repair rounds of that base, oldest first.
    :param left: repair rounds that may still be made.
    :param granted: whether a person asked for another round, and none has been made since.
    :param answers: what a person said last to each question.
    :param ended: names of the jobs that were seen to have ended.
    """

    begun: Begun | None = None
    repairs: tuple[Repair, ...] = ()
    left: int = 0
    granted: bool = False
    answers: dict[str, Answered] = {}
    ended: frozenset[str] = frozenset()


def fold(entries: Sequence[Entry], installation: str = "") -> State:
    """Add the log up. Another base begins anew: rounds of other requests or jobs say nothing about these.

    :param installation: the name of the Airflow that asks.
    """
    state = State(
        answers={entry.question: entry for entry in entries if isinstance(entry, Answered)},
        ended=frozenset(end.job_name for entry in entries if isinstance(entry, Ended) for end in entry.jobs),
    )
    for entry in _seen_by(installation, entries):
        if isinstance(entry, Repair):
            state = _with(state, repairs=(*state.repairs, entry), left=state.left - 1, granted=False)
        elif state.begun is not None and entry.goes_on(state.begun):
            granted = state.granted or entry.rounds > state.left
            state = _with(state, begun=entry, left=entry.rounds, granted=granted)
        else:
            state = _with(state, begun=entry, repairs=(), left=entry.rounds, granted=False)
    return state


def _with(state: State, **members: object) -> State:
    return msgspec.structs.replace(state, **members)


def _seen_by(installation: str, entries: Sequence[Entry]) -> list[Begun | Repair]:
    """Leave out what another Airflow began from other requests; the same requests are one batch of both."""
    course = [entry for entry in entries if isinstance(entry, Begun | Repair)]
    begun = [entry for entry in course if isinstance(entry, Begun)]
    mine = [entry for entry in begun if entry.installation == installation]
    if not mine or len(mine) == len(begun):
        return course
    seen = {entry.base for entry in begun if entry in mine or any(map(entry.asks_as, mine))}
    return [entry for entry in course if entry.base in seen]


class Start(Record, frozen=True, kw_only=True):
    """What an attempt begins with.

    :param generation: changes when a person clears the task; retries share it.
    :param upstream: the same of the task whose jobs are taken over, or empty.
    :param rounds: repair rounds of a batch.
    :param on_clear: what a clear means.
    :param alone: whether a clear of this task alone, not of those before it too, asks to send bad rows once more.
    """

    generation: str
    upstream: str = ""
    rounds: int = 0
    on_clear: OnClear = OnClear.ATTACH
    alone: bool = False


def begin(state: State, base: str, start: Start, jobs: str = "", files: str = "") -> Begun | None:
    """Return the entry to write before going on, or None when the batch goes on as it was."""
    before, generation = state.begun, start.generation
    anew = Begun(
        base=base, generation=generation, since=generation, upstream=start.upstream, rounds=start.rounds, jobs=jobs,
        files=files,
    )  # fmt: skip
    if before is None:
        return anew
    cleared = before.generation != generation
    # The task whose jobs are taken over is the one that buys anew.
    renew = cleared and start.on_clear is OnClear.NEW and not jobs
    if not anew.asks_as(before) or before.jobs != jobs or renew:
        # A retry with other input and back again finds the jobs it had.
        keep = not cleared and before.jobs == jobs
        return msgspec.structs.replace(anew, since=before.since) if keep else anew
    if not cleared and before.base == base:
        return None
    again = cleared and (start.on_clear is OnClear.REPAIR or (start.alone and before.upstream == start.upstream))
    rounds = max(start.rounds, 1) if again else state.left
    return msgspec.structs.replace(anew, rounds=rounds, since=before.since)


def digest_of(names: Iterable[str]) -> str:
    """Return what tells a list of names from another; empty for none."""
    text = "\n".join(names)
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def begun_in(state: State, generation: str) -> str:
    """Return the set from which an attempt goes on as a retry: a clear reads the source again, a retry does not.

    :returns: its address; empty in the first attempt, and after a clear.
    """
    begun = state.begun
    return begun.base if begun is not None and begun.generation == generation else ""
