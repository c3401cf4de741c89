"""What has happened to a batch, and what comes next? Its log, in sentences: what an on-call person reads at 3 a.m.

Pure functions: the input is the entries of logs and, if the service was asked, its jobs. It needs no Airflow.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.job import BatchJob, Phase
from airflow_vertex_batch.core.domain.record import Record
from airflow_vertex_batch.core.money.estimate import dollars
from airflow_vertex_batch.core.purchase.entries import (
    Answered,
    Asked,
    Begun,
    Ended,
    Entry,
    Intent,
    JobEntry,
    Landed,
    Moved,
    Prepared,
    Refusal,
    Repair,
    Submission,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from airflow_vertex_batch.core.purchase.log import BatchLog


class Line(msgspec.Struct, frozen=True):
    """One thing that happened.

    :param at: when, aware UTC, by the clock of the storage.
    :param task: which task wrote it, with its map index.
    :param attempt: Airflow's number of the try; empty if there is none.
    """

    at: datetime
    task: str
    attempt: str
    kind: str
    text: str


class Story(Record, frozen=True, kw_only=True):
    """What happened, in order, and what comes next.

    :param jobs: the jobs that the logs name, and what is known about each.
    """

    dag_id: str
    run_id: str
    lines: tuple[Line, ...]
    jobs: dict[str, str]
    next: str

    def text(self) -> str:
        """Return it as text for people."""
        tasks = {line.task for line in self.lines}
        width = max(map(len, tasks), default=0) if len(tasks) > 1 else 0
        parts = [f"{self.dag_id} {self.run_id} {' '.join(sorted(tasks)) if width == 0 else ''}".rstrip(), ""]
        for line in self.lines:
            attempt = f"try {line.attempt}" if line.attempt else ""
            where = f"{line.task:{width}}  " if width else ""
            parts.append(f"{line.at:%Y-%m-%d %H:%M:%S}  {where}{attempt:5}  {line.text}")
        if self.jobs:
            parts += ["", "Jobs:", *(f"  {name}: {said}" for name, said in self.jobs.items())]
        return "\n".join([*parts, "", f"Next: {self.next}"])


def story(logs: Sequence[BatchLog], seen: Mapping[str, BatchJob] | None = None) -> Story:
    """Return the story in the logs of a task, or of all tasks of a group.

    :param logs: at least one log, all of one run.
    :param seen: the jobs as the service shows them now, by name; None if it was not asked.
    """
    found = [(log, entry, known) for log in logs for entry, known in _with_those_before(log.entries())]
    found.sort(key=lambda each: each[1].at)
    lines = tuple(
        Line(entry.at, _task_of(log), entry.attempt.partition(":")[0], _kind(entry), _sentence(entry, before))
        for log, entry, before in found
    )
    entries = [entry for _, entry, _ in found]
    first = logs[0].identity
    return Story(
        dag_id=first.dag_id, run_id=first.run_id, lines=lines, jobs=_jobs(entries, seen), next=_next(entries, seen)
    )


def _with_those_before(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Sequence[Entry]]]:
    return ((entry, entries[:number]) for number, entry in enumerate(entries))


def _task_of(log: BatchLog) -> str:
    who = log.identity
    return f"{who.task_id}[{who.map_index}]" if who.map_index >= 0 else who.task_id


def _kind(entry: Entry) -> str:
    return str(type(entry).__struct_config__.tag)


def _sentence(entry: Entry, before: Sequence[Entry]) -> str:
    """Return an entry as a sentence."""
    return _SENTENCES[type(entry)](entry, before)


def _prepared(entry: Prepared, _before: Sequence[Entry]) -> str:
    rejected = f", {entry.rejected:,} rejected" if entry.rejected else ""
    return f"Prepared {_plural(entry.requests, 'request')} from {_plural(entry.rows, 'row')}{rejected}: {entry.base}."


def _begun(entry: Begun, before: Sequence[Entry]) -> str:
    last = next((each for each in reversed(before) if isinstance(each, Begun)), None)
    requests, rounds = _plural(entry.rows, "request"), "no repair round"
    if entry.rounds:
        rounds = f"up to {_plural(entry.rounds, 'repair round')}"
    if last is None:
        return f"Began with {requests} and {rounds}: {entry.base}."
    how = "A person cleared the task" if last.generation != entry.generation else "The requests are others now"
    if entry.goes_on(last):
        return f"{how}. It goes on with the same {requests} and {rounds} left."
    return f"{how}. It began anew with {requests} and {rounds}: {entry.base}."


def _intent(entry: Intent, before: Sequence[Entry]) -> str:
    again = isinstance(before[-1] if before else None, Intent) and before[-1].is_of(entry)
    what = _what(entry)
    return (
        f"The call got no clear answer: looking for the job of {what}."
        if again
        else f"About to create the job of {what}."
    )


def _submission(entry: Submission, before: Sequence[Entry]) -> str:
    mine = before and isinstance(before[-1], Intent) and before[-1].is_of(entry)
    verb = "Created" if mine else "Found, and attached to,"
    replaces = f" It replaces {_short(entry.replaces)}." if entry.replaces else ""
    return f"{verb} job {_short(entry.job_name)} for {_what(entry)}.{replaces}"


def _refusal(entry: Refusal, _before: Sequence[Entry]) -> str:
    return f"Vertex AI refused to create the job of {_what(entry)} ({entry.reason}): no job was made."


def _moved(entry: Moved, _before: Sequence[Entry]) -> str:
    parts = [f"location {entry.location}"] * bool(entry.location) + [f"model {entry.model}"] * bool(entry.model)
    to = f"bought again in {', '.join(parts)}" if parts else "left to the task that repairs"
    return f"Job {_short(entry.job_name)} had queued for too long: it is cancelled, and its requests are {to}."


def _repair(entry: Repair, before: Sequence[Entry]) -> str:
    number = 1 + sum(isinstance(each, Repair) and each.base == entry.base for each in before)
    goes = "goes" if entry.rows == 1 else "go"
    return f"Repair round {number}: {_plural(entry.rows, 'row')} without a good answer {goes} again."


def _asked(entry: Asked, _before: Sequence[Entry]) -> str:
    return f"Asked a person: {entry.text}"


def _answered(entry: Answered, _before: Sequence[Entry]) -> str:
    who = entry.by[:1].upper() + entry.by[1:]
    return f"{who} {'approved' if entry.approved else 'did not approve'} it."


def _ended(entry: Ended, _before: Sequence[Entry]) -> str:
    return " ".join(
        f"Job {_short(end.job_name)} ended as {_state(end.state)}: {_plural(end.answered, 'row')} answered, "
        f"{end.failed:,} failed."
        for end in entry.jobs
    )


def _landed(entry: Landed, _before: Sequence[Entry]) -> str:
    rows = ", ".join(f"{count:,} {status}" for status, count in entry.rows.items() if count)
    return f"Landed at {entry.destination}: {rows or 'no row'}; {_cost(entry)}."


_SENTENCES: dict[type[Entry], Callable[[Any, Sequence[Entry]], str]] = {
    Prepared: _prepared, Begun: _begun, Intent: _intent, Submission: _submission, Refusal: _refusal, Moved: _moved,
    Repair: _repair, Asked: _asked, Answered: _answered, Ended: _ended, Landed: _landed,
}  # fmt: skip


def _cost(entry: Landed) -> str:
    from decimal import Decimal

    return f"billed {dollars(Decimal(entry.cost_usd))}" if entry.cost_usd else "its cost is not known"


def _what(entry: JobEntry) -> str:
    file = f"request file {entry.shard + 1}"
    return f"{file} of repair round {entry.round}" if entry.round else file


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _state(text: str) -> str:
    return text.removeprefix("JOB_STATE_")


def _short(job_name: str) -> str:
    """Return a job's number, as the console shows it."""
    return job_name.rpartition("/")[2]


def _jobs(entries: Iterable[Entry], seen: Mapping[str, BatchJob] | None) -> dict[str, str]:
    """Return what is known about each job: what the service shows or, without that, what the log says about its end."""
    entries = list(entries)
    names = dict.fromkeys(entry.job_name for entry in entries if isinstance(entry, Submission))
    ends = {end.job_name: end.state for entry in entries if isinstance(entry, Ended) for end in entry.jobs}
    found = dict.fromkeys(names, "its end is not in the log")
    found |= {
        entry.job_name: "given up, because it had queued for too long" for entry in entries if isinstance(entry, Moved)
    }
    found |= {name: f"ended as {_state(state)}" for name, state in ends.items()}
    if seen is not None:
        found |= {name: seen[name].progress if name in seen else "the service has no such job" for name in names}
    return found


#: What comes next after an entry, if this depends only on the entry.
_NEXT: dict[type[Entry], str] = {
    Landed: "nothing: the answers have landed. A retry or a clear lands them again, and pays nothing.",
    Asked: "a person answers in the Airflow UI, under Required Actions.",
    Answered: "the job is created.",
    Intent: "look for the job of that call; if there is none when the settle time is over, create it.",
    Refusal: "the next attempt tries to create it again.",
    Begun: "attach to the jobs that exist, and create those that are missing.",
    Repair: "attach to the jobs that exist, and create those that are missing.",
    Moved: "once that job has ended without a row, its requests are bought at the next place.",
    Ended: "read the answers; rows without a good one go again if a round is left, else all is landed.",
}


def _next(entries: Sequence[Entry], seen: Mapping[str, BatchJob] | None) -> str:
    """Return what the next attempt does, as far as the log shows it."""
    course = [entry for entry in entries if not isinstance(entry, Prepared)]
    last = course[-1] if course else None
    if last is None:
        return "the requests are bought." if entries else "nothing is known: the first attempt prepares the requests."
    running = [name for name, job in (seen or {}).items() if job.state.phase is Phase.WAITING]
    if running:
        return f"wait for {_listed(running)}, then read the answers."
    if isinstance(last, Answered) and not last.approved:
        return "nothing is bought for it; clear the task to be asked again."
    if type(last) in _NEXT:
        return _NEXT[type(last)]
    waits = _still_awaited(course)
    return f"wait for {_listed(waits)}, then read the answers." if waits else "read the answers and land them."


def _still_awaited(entries: Sequence[Entry]) -> list[str]:
    """Return the jobs that are used for a request file and whose end is not in the log."""
    latest = {entry.part: entry.job_name for entry in entries if isinstance(entry, Submission)}
    ends = {end.job_name for entry in entries if isinstance(entry, Ended) for end in entry.jobs}
    return [name for name in latest.values() if name not in ends]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(_short, itertools.islice(names, 3)))
    return f"job {shown}" if len(names) == 1 else f"{len(names)} jobs ({shown}{', …' if len(names) > 3 else ''})"  # noqa: PLR2004
