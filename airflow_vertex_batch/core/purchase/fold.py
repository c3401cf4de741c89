"""How far is a batch? Its log says with which set it began, which repair rounds were decided, and what people answered.

Pure functions: entries go in, the state comes out. `core.batch` writes the entries, and goes on from the state.
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
    """The state of a batch, as its log says it.

    :param begun: the last `Begun` entry; None before the batch has begun.
    :param repairs: the repair rounds of the same requests and jobs, oldest first.
    :param rounds_left: the number of repair rounds that may still be made.
    :param granted: whether a person asked for another round, and the round has not been made yet.
    :param answers: the last answer to each question.
    :param ended: names of the jobs that were seen to have ended.
    """

    begun: Begun | None = None
    repairs: tuple[Repair, ...] = ()
    rounds_left: int = 0
    granted: bool = False
    answers: dict[str, Answered] = {}
    ended: frozenset[str] = frozenset()


def fold(entries: Sequence[Entry], installation: str = "") -> State:
    """Read the state from the entries of a log. With other requests or jobs the batch begins again: the rounds before
    do not count.

    :param installation: the name of this Airflow.
    """
    state = State(
        answers={entry.question: entry for entry in entries if isinstance(entry, Answered)},
        ended=frozenset(end.job_name for entry in entries if isinstance(entry, Ended) for end in entry.jobs),
    )
    for entry in _visible_to(installation, entries):
        if isinstance(entry, Repair):
            state = _with(state, repairs=(*state.repairs, entry), rounds_left=state.rounds_left - 1, granted=False)
        elif state.begun is not None and entry.goes_on(state.begun):
            granted = state.granted or entry.rounds > state.rounds_left
            state = _with(state, begun=entry, rounds_left=entry.rounds, granted=granted)
        else:
            state = _with(state, begun=entry, repairs=(), rounds_left=entry.rounds, granted=False)
    return state


def _with(state: State, **members: object) -> State:
    return msgspec.structs.replace(state, **members)


def _visible_to(installation: str, entries: Sequence[Entry]) -> list[Begun | Repair]:
    """Leave out the batches that another Airflow began with other requests. With the same requests, both have one
    batch.
    """
    course = [entry for entry in entries if isinstance(entry, Begun | Repair)]
    begun = [entry for entry in course if isinstance(entry, Begun)]
    mine = [entry for entry in begun if entry.installation == installation]
    if not mine or len(mine) == len(begun):
        return course
    seen = {entry.base for entry in begun if entry in mine or any(map(entry.asks_as, mine))}
    return [entry for entry in course if entry.base in seen]


class Start(Record, frozen=True, kw_only=True):
    """The facts that an attempt begins with.

    :param generation: changes when a person clears the task; retries share it.
    :param upstream: the generation of the task whose jobs are taken over, or empty.
    :param rounds: how many repair rounds a batch may have.
    :param on_clear: what a clear means.
    :param alone: whether bad rows are sent once more when a person clears only this task, and not the tasks before it.
    """

    generation: str
    upstream: str = ""
    rounds: int = 0
    on_clear: OnClear = OnClear.ATTACH
    alone: bool = False


def begin(state: State, base: str, start: Start, jobs: str = "", files: str = "") -> Begun | None:
    """Return the entry to write before the attempt goes on; None if the batch goes on unchanged."""
    before, generation = state.begun, start.generation
    anew = Begun(
        base=base, generation=generation, since=generation, upstream=start.upstream, rounds=start.rounds, jobs=jobs,
        files=files,
    )  # fmt: skip
    if before is None:
        return anew
    cleared = before.generation != generation
    # If jobs are taken over, the task that gave them buys new ones, and not this task.
    renew = cleared and start.on_clear is OnClear.NEW and not jobs
    if not anew.asks_as(before) or before.jobs != jobs or renew:
        # If a retry has other input and the next one has the first input again, it finds its old jobs.
        keep = not cleared and before.jobs == jobs
        return msgspec.structs.replace(anew, since=before.since) if keep else anew
    if not cleared and before.base == base:
        return None
    again = cleared and (start.on_clear is OnClear.REPAIR or (start.alone and before.upstream == start.upstream))
    rounds = max(start.rounds, 1) if again else state.rounds_left
    return msgspec.structs.replace(anew, rounds=rounds, since=before.since)


def digest_of(names: Iterable[str]) -> str:
    """Return a digest of a list of names; an empty text for no names."""
    text = "\n".join(names)
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def begun_in(state: State, generation: str) -> str:
    """Return the set from which a retry goes on. A retry does not read the source again; a clear does.

    :returns: the address of the set; empty in the first attempt, and after a clear.
    """
    begun = state.begun
    return begun.base if begun is not None and begun.generation == generation else ""
