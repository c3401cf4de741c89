"""What has a batch still to do? Its course from the first job over every repair round to the last, one step at a time.

A task's worker comes and goes while jobs run, so nothing is remembered but what lies in the store: a journal says which
set the course began from and which sets were asked in repair rounds, the ledgers say which jobs answer them. `advance`
reads them, does what can be done, and returns either the jobs to wait for or the finished rounds.

Every effect may be the last before a crash: a set that was written and not journalled is written again, with the same
name; one that was journalled and not bought is bought by the next attempt; what was bought is attached to.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.address import Uri
from airflow_vertex_batch.core.collect import OnLostOutput
from airflow_vertex_batch.core.empty import CANCELLED, MAY_RUN
from airflow_vertex_batch.core.errors import InputError, LedgerError
from airflow_vertex_batch.core.landing import Round, Rounds, badly_ended, batches
from airflow_vertex_batch.core.ledger import Journal
from airflow_vertex_batch.core.model import BatchJob, JobState, Manifest, Phase, Record
from airflow_vertex_batch.core.prepare import read_manifest, whole_set
from airflow_vertex_batch.core.repair import RepairPolicy, Selection, Wants, select, with_resume
from airflow_vertex_batch.core.submit import OnChangedInput, OnClear, Reuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from decimal import Decimal

    from airflow_vertex_batch.core.place import Place
    from airflow_vertex_batch.core.ports import ObjectStore, Warehouse
    from airflow_vertex_batch.core.prices import PriceTable
    from airflow_vertex_batch.core.purchase import Buyer

log = logging.getLogger(__name__)


class Begun(msgspec.Struct, frozen=True, tag_field="kind", tag="begun"):
    """The course begins, or goes on after a clear.

    :param base: what it begins from: the manifest of the whole batch.
    :param generation: changes when a person clears the task; retries share it.
    :param upstream: the same of the task whose jobs are taken over, or empty.
    :param rounds: repair rounds that may be made from here on.
    :param edition: the generation in which it began anew: what its jobs are marked with.
    :param jobs: digest of the jobs that are taken over, or empty.
    :param files: digest of the request files of `base`: sets that differ beside them are asked the same.
    """

    base: str
    generation: str
    upstream: str
    rounds: int
    edition: str = ""
    jobs: str = ""
    files: str = ""

    def goes_on(self, before: Begun) -> bool:
        """Whether the rounds made since `before` say something about this: they are of the same requests and jobs."""
        return self.asks_as(before) and (self.edition, self.jobs) == (before.edition, before.jobs)

    def asks_as(self, before: Begun) -> bool:
        """Whether the requests are the same."""
        return self.base == before.base or bool(self.files and self.files == before.files)


class Asked(msgspec.Struct, frozen=True, tag_field="kind", tag="asked"):
    """A repair round was decided: from here on its jobs may exist.

    :param resume_uri: the output file that its job completes, or empty.
    """

    manifest_uri: str
    resume_uri: str = ""


Entry = Begun | Asked


class State(msgspec.Struct, frozen=True):
    """What the journal says.

    :param begun: how the course began last; None before it has.
    :param asked: the repair rounds of that base, oldest first.
    :param left: repair rounds that may still be made.
    :param granted: whether a person asked for another round, and none has been made since.
    """

    begun: Begun | None = None
    asked: tuple[Asked, ...] = ()
    left: int = 0
    granted: bool = False


def read_state(entries: Sequence[Entry]) -> State:
    """Add the journal up. Another base begins anew: rounds of other requests or jobs say nothing about these."""
    state = State()
    for entry in entries:
        if isinstance(entry, Asked):
            state = State(state.begun, (*state.asked, entry), state.left - 1)
        elif state.begun is not None and entry.goes_on(state.begun):
            state = State(entry, state.asked, entry.rounds, state.granted or entry.rounds > state.left)
        else:
            state = State(entry, (), entry.rounds)
    return state


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
    """Return the entry to write before going on, or None when the course goes on as it was."""
    before, generation = state.begun, start.generation
    anew = Begun(base, generation, start.upstream, start.rounds, generation, jobs, files)
    if before is None:
        return anew
    cleared = before.generation != generation
    # The task whose jobs are taken over is the one that buys anew.
    renew = cleared and start.on_clear is OnClear.NEW and not jobs
    if not anew.asks_as(before) or before.jobs != jobs or renew:
        # A retry with other input and back again finds the jobs it had.
        keep = not cleared and before.jobs == jobs
        return msgspec.structs.replace(anew, edition=before.edition) if keep else anew
    if not cleared and before.base == base:
        return None
    again = cleared and (start.on_clear is OnClear.REPAIR or (start.alone and before.upstream == start.upstream))
    rounds = max(start.rounds, 1) if again else state.left
    return msgspec.structs.replace(anew, rounds=rounds, edition=before.edition)


def begun_in(state: State, generation: str) -> str:
    """Return the set from which an attempt goes on as a retry: a clear reads the source again, a retry does not.

    :returns: its address; empty in the first attempt, and after a clear.
    """
    begun = state.begun
    return begun.base if begun is not None and begun.generation == generation else ""


class Waiting(msgspec.Struct, frozen=True):
    """Jobs that must end before the course goes on.

    :param round: 0 for the whole batch, n for repair round n.
    :param jobs: all jobs of that round, as they are now.
    :param manifest: what they were asked.
    """

    round: int
    jobs: tuple[BatchJob, ...]
    manifest: Manifest

    @property
    def job_names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(job.name for job in self.jobs)

    @property
    def ending(self) -> tuple[str, ...]:
        """Names of those that are being cancelled: what an earlier attempt ended, this one has yet to complete."""
        return tuple(job.name for job in self.jobs if job.state is JobState.CANCELLING)


class Done(msgspec.Struct, frozen=True):
    """The course is over."""

    rounds: tuple[Round, ...]


Progress = Waiting | Done


class Course:
    """The course of one batch.

    :param buyer: buys jobs once.
    :param folder: where this task's prepared sets lie, and its journal.
    :param approve: called before a repair round is bought, with its set and what the rounds before it cost; False gives
        the round up.
    :param elsewhere: where requests may go whose job queues for too long, the best place first.
    :param fits: whether a set may be bought at a place, for its price.
    :param on_lost_output: what to do when an output does not hold what the service counted: rows that are only not
        visible yet are not sent again.
    """

    def __init__(
        self,
        *,
        buyer: Buyer,
        store: ObjectStore,
        warehouse: Warehouse,
        folder: Uri,
        policy: RepairPolicy,
        check: Callable[[Any], str] | None = None,
        prices: PriceTable | None = None,
        approve: Callable[[Manifest, Decimal], bool] = lambda _manifest, _spent: True,
        elsewhere: Sequence[Place] = (),
        fits: Callable[[Manifest, Place], bool] = lambda _manifest, _place: True,
        on_lost_output: OnLostOutput = OnLostOutput.FAIL,
    ) -> None:
        self._unmarked, self._store, self._warehouse, self._folder = buyer, store, warehouse, folder
        self._policy, self._check, self._prices, self._approve = policy, check, prices, approve
        self._elsewhere, self._fits, self._on_lost_output = elsewhere, fits, on_lost_output
        self._journal: Journal[Any] = Journal(store, folder / "course", Entry)  # type: ignore[arg-type]

    def begin(self, base: Manifest, start: Start, jobs: Sequence[BatchJob] = ()) -> None:
        """Note where the course begins, and cancel what rounds of another one have running.

        Call it once an attempt, not when a wait is over.

        :param jobs: those that are taken over from another task.
        """
        entries = self._journal.entries()
        state = read_state(entries)
        files = _digest(shard.uri for shard in base.shards)
        entry = begin(state, base.uri, start, _digest(job.name for job in jobs), files)
        if entry is None:
            return
        if state.begun is not None and not entry.goes_on(state.begun):
            for number in range(1, len(state.asked) + 1):
                self._unmarked.leave(number)
        self._write(entry, len(entries))

    def base_of_retry(self, generation: str) -> Manifest | None:
        """Return the set that an earlier attempt of this generation began from: jobs may be running for it.

        :returns: None when the rows must be prepared: there was no such attempt, it had nothing to send, or a file is
            gone.
        """
        uri = begun_in(read_state(self._journal.entries()), generation)
        found = whole_set(self._store, Uri.parse(uri)) if uri else None
        return found if found is not None and found.request_count else None

    @property
    def base_uri(self) -> str:
        """The address of the set that the course began from, or an empty text before it has begun."""
        begun = read_state(self._journal.entries()).begun
        return begun.base if begun is not None else ""

    @property
    def buyer(self) -> Buyer:
        """What buys the jobs of this course, marked with its edition."""
        begun = read_state(self._journal.entries()).begun
        return self._unmarked.of_edition(begun.edition if begun is not None else "")

    def advance(
        self,
        base: Manifest,
        jobs: Sequence[BatchJob] | None = None,
        *,
        reuse: Reuse = Reuse.ANY,
        complete: bool = False,
    ) -> Progress:
        """Go as far as possible.

        :param jobs: the jobs of the whole batch where another task has waited for them; None to buy them here.
        :param reuse: which jobs of the whole batch are not bought again although they ended badly.
        :param complete: also send what a job did not answer because it ended badly, if no round is left.
        """
        self._read(base)
        buyer = self.buyer
        found = tuple(buyer.buy(base, reuse=reuse)) if jobs is None else self._taken_over(base, tuple(jobs))
        if waiting := _waiting(0, found, base):
            return waiting
        rounds = [Round(manifest=base, jobs=found)]
        while True:
            manifest = self._next_set(base, rounds, complete=complete)
            if manifest is None:
                return Done(tuple(rounds))
            found = tuple(buyer.buy(manifest, reuse=Reuse.ANY))
            if waiting := _waiting(len(rounds), found, manifest):
                return waiting
            rounds.append(Round(manifest=manifest, jobs=found))

    def leave_all(self) -> str:
        """Cancel what runs for rows that the source had before, where that is wanted; say what becomes of it.

        Call it after `begin`, which sees to the repair rounds.
        """
        buyer = self.buyer
        buyer.leave(0)
        return MAY_RUN if buyer.terms.on_changed_input is OnChangedInput.FAIL else CANCELLED

    def move(self, manifest: Manifest, job: BatchJob) -> Place | None:
        """Give up a job that queues for too long: it is cancelled, and `advance` buys its requests at the next place.

        :param manifest: what it was asked, with others or alone.
        :returns: that place; None when none is left, and the job stays as it is.
        """
        places = [place for place in self._elsewhere if self._fits(manifest, place)]
        return self.buyer.move(manifest, _shard_of(manifest, job), job, places)

    def _taken_over(self, base: Manifest, jobs: tuple[BatchJob, ...]) -> tuple[BatchJob, ...]:
        """Return the jobs of another task; those that it gave up because they queued for too long are bought here.

        :raises InputError: when they are not the jobs of this set.
        """
        batches(Round(manifest=base, jobs=jobs))
        given_up = {
            _shard_of(base, job): job.name
            for job in jobs
            if job.state.phase in {Phase.CANCELLED, Phase.EXPIRED} and not job.has_rows and self.move(base, job)
        }
        bought = zip(sorted(given_up), self.buyer.buy(base, reuse=Reuse.ANY, only=given_up), strict=True)
        instead = {given_up[shard]: job for shard, job in bought} if given_up else {}
        return tuple(instead.get(job.name, job) for job in jobs)

    def _read(self, base: Manifest) -> tuple[tuple[Any, ...], State]:
        """Return the journal, and what it says of the course from `base`.

        :raises LedgerError: when a later attempt has begun from other requests: its rounds are not this one's.
        """
        entries = self._journal.entries()
        state = read_state(entries)
        if state.begun is not None and state.begun.base != base.uri:
            raise _another_attempt(self._folder)
        return entries, state

    def _next_set(self, base: Manifest, rounds: list[Round], *, complete: bool) -> Manifest | None:
        """Return the set of the next round: the one that was decided, or a new one if there may be one."""
        entries, state = self._read(base)
        if len(rounds) <= len(state.asked):
            asked = state.asked[len(rounds) - 1]
            return with_resume(read_manifest(self._store, Uri.parse(asked.manifest_uri)), asked.resume_uri)
        wants = Wants.CURABLE if state.left > 0 else Wants(0)
        # Who asks for another try has a reason, and requests that a job did not come to are no worse for it.
        wants |= Wants.AGAIN if state.granted else Wants(0)
        wants |= Wants.UNANSWERED if complete and badly_ended(rounds) else Wants(0)
        if not wants & (Wants.CURABLE | Wants.UNANSWERED):
            log.info("No repair round is left: what has no good answer stays as it is.")
            return None
        step = self._selected(rounds, wants)
        if step.manifest is not None:
            self._write(Asked(step.manifest.uri, step.manifest.shards[0].resume_uri), len(entries))
        return step.manifest

    def _selected(self, rounds: list[Round], wants: Wants) -> Selection:
        """Select what goes again, and have it approved."""
        merged = Rounds(rounds, self._store, self._warehouse, self._check, on_lost_output=self._on_lost_output)
        token = self._unmarked.attempt
        step = select(merged, self._policy, self._store, self._folder, token, prices=self._prices, wants=wants)
        if len(rounds) > 1:
            log.info("Repair round %d gave %s rows a good answer.", len(rounds) - 1, f"{step.cured:,}")
        if step.manifest is None:
            left = f"{step.wanted_count:,} rows" if step.wanted_count else "No row"
            log.info("%s could be helped by another try; none goes again.", left)
            return step
        if not self._approve(step.manifest, step.cost_usd):
            return msgspec.structs.replace(step, manifest=None)
        log.info(
            "Repair round %d: %s of %s rows without a good answer go again.",
            len(rounds), f"{step.manifest.request_count:,}", f"{step.wanted_count:,}",
        )  # fmt: skip
        return step

    def _write(self, entry: Entry, number: int) -> None:
        if not self._journal.append(entry, number):
            raise _another_attempt(self._folder)


def _another_attempt(folder: Uri) -> LedgerError:
    return LedgerError(
        f"Another attempt of this task is at work on {folder}",
        left="Nothing was sent",
        todo="Let it finish; a retry goes on where it ended",
    )


def _digest(names: Iterable[str]) -> str:
    text = "\n".join(names)
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def _shard_of(manifest: Manifest, job: BatchJob) -> int:
    """Return the number of the request file that a job answers."""
    for number, shard in enumerate(manifest.shards):
        if job.input_uris == ((shard.resume_uri or shard.uri),):
            return number
    raise InputError(f"{job.name} answers no file of {manifest.uri}", todo="Pass the jobs made from this manifest")


def taken_over(base: Manifest, given: Sequence[BatchJob], jobs: Sequence[BatchJob]) -> Round | None:
    """Return what was bought in the place of another task's jobs, as a round of its own; None when nothing was.

    :param given: that task's jobs.
    :param jobs: those of the batch in the end.
    """
    known = {job.name for job in given}
    bought = sorted((_shard_of(base, job), job.name) for job in jobs if job.name not in known)
    if not bought:
        return None
    shards = tuple(base.shards[number] for number, _ in bought)
    count = sum(shard.request_count for shard in shards)
    part = msgspec.structs.replace(base, shards=shards, request_count=count)
    return Round(manifest=part, jobs=tuple(job for job in jobs if job.name not in known))


def _waiting(number: int, jobs: Sequence[BatchJob], manifest: Manifest) -> Waiting | None:
    running = any(job.state.phase is Phase.WAITING for job in jobs)
    return Waiting(number, tuple(jobs), manifest) if running else None
