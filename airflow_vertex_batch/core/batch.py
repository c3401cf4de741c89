"""How does one batch run, from its first job to its last repair round? As one object that does not know Airflow.

While jobs run, no worker need exist for the task. So nothing is kept in memory: the state of a batch is in its log
(`core.purchase.log`). `Batch.advance` reads the state from the log, asks `core.next_step` for the next step, and
carries the step out. It repeats this until it must wait, must ask a person, or is done, and returns which of these is
the case.

A crash may follow every effect. A set that was written but is not in the log is written again, with the same name. A
set that is in the log but was not bought is bought by the next attempt. If a job was bought, the next attempt attaches
to it.
"""

from __future__ import annotations

import logging
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from airflow_vertex_batch.core import next_step as steps
from airflow_vertex_batch.core.answers.repair import Selection, Wants, select, with_resume
from airflow_vertex_batch.core.answers.rounds import Round, Rounds, batches, shard_of
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import LogError
from airflow_vertex_batch.core.domain.job import BatchJob, JobState, Phase
from airflow_vertex_batch.core.landing.on_empty import CANCELLED, MAY_RUN, OnEmpty, empty_error
from airflow_vertex_batch.core.money.estimate import Estimate, estimate_cost
from airflow_vertex_batch.core.money.prices import PriceTable
from airflow_vertex_batch.core.progress import Ask, Attempt, Done, Policy, Progress, Skip, Wait
from airflow_vertex_batch.core.purchase.approval import Allowed, Question, Refused, Verdict, rejected, verdict
from airflow_vertex_batch.core.purchase.decide import OnChangedInput, Reuse
from airflow_vertex_batch.core.purchase.entries import Answered, Asked, End, Ended, Entry, Repair
from airflow_vertex_batch.core.purchase.fold import Start, State, begin, begun_in, digest_of, fold
from airflow_vertex_batch.core.purchase.move import fits
from airflow_vertex_batch.core.requests.prepare import read_manifest, whole_set
from airflow_vertex_batch.core.waiting.queue import handle_queued

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_vertex_batch.core.domain.manifest import Manifest
    from airflow_vertex_batch.core.domain.ports import Warehouse
    from airflow_vertex_batch.core.purchase.buyer import Buyer
    from airflow_vertex_batch.core.purchase.place import Place

logger = logging.getLogger(__name__)


class Batch:
    """One batch.

    :param buyer: buys each job once; its log is the log of the batch.
    :param folder: the folder of the batch's request files.
    :param start: the facts that this attempt begins with.
    :param prepare: reads the source and writes the request files. It is not called if the files exist already.
    :param base: the set that another task prepared, if there is one. The batch goes on from it.
    :param jobs: the jobs that another task bought for `base`; None if jobs are bought here.
    :param only_buys: whether the batch is done once its jobs exist, because another task waits for them.
    :param tell: is called with facts that people should see outside the log: a name, and a value for JSON.
    :param clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        buyer: Buyer,
        warehouse: Warehouse,
        folder: Uri,
        policy: Policy,
        start: Start,
        prepare: Callable[[], Manifest] | None = None,
        base: Manifest | None = None,
        jobs: Sequence[BatchJob] | None = None,
        only_buys: bool = False,
        tell: Callable[[str, Any], None] = lambda _name, _value: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._unmarked, self._warehouse, self._folder, self._policy = buyer, warehouse, folder, policy
        self._start, self._prepare, self._given, self._only_buys = start, prepare, base, only_buys
        self._jobs = None if jobs is None else tuple(jobs)
        self._store, self._log = buyer.store, buyer.log
        self._tell, self._clock, self._prices = tell, clock, policy.prices or PriceTable.shipped()

    def advance(self, attempt: Attempt = Attempt()) -> Progress:  # noqa: B008 - frozen
        """Go as far as possible.

        :raises InputError: when the batch must not be bought, or has no row.
        :raises LogError: when another attempt is at work, or the log cannot be trusted.
        :raises ServiceError: when the service refused, or could not be asked.
        """
        # A task that takes over jobs does not send their unanswered rows again. The task that bought the jobs does it,
        # on a retry.
        facts = steps.Facts(fresh=attempt.fresh, owes_repair=attempt.owes_repair and self._jobs is None)
        while True:
            state = self._state()
            step = self._next(state, facts)
            match step:
                case steps.Wait():
                    return self._wait(facts, attempt)
                case steps.AskApproval(question):
                    self._log.add(Asked(question=question.id, text=question.subject))
                    return Ask(
                        question=question,
                        round=len(facts.rounds),
                        attempt=msgspec.structs.replace(attempt, fresh=False),
                    )
                case steps.Refuse(refused):
                    return _refused(refused)
                case steps.Stop():
                    return self._without_rows(facts)
                case steps.Replaced():
                    raise _another_attempt(self._log.folder)
                case steps.Land(given_up):
                    if given_up is not None:
                        logger.warning("Repair round %d is given up: %s", len(facts.rounds), given_up.why)
                    return Done(facts.rounds)
                case _:
                    facts = self._do(step, state, facts)

    def answered(self, question: str, by: str, *, approved: bool, of_round: int, why: str = "") -> None:
        """Write a person's answer to the log, so that after a crash the person is not asked again.

        :param by: who answered; empty if the wait ended without an answer.
        :param of_round: the round in question, 0 for the whole batch. Without an approval the whole batch ends here; a
            repair round is given up.
        :raises InputError: when the whole batch was not approved.
        """
        if by or of_round:
            entry = Answered(question=question, approved=approved, by=by or "nobody", generation=self._start.generation)
            self._log.add(entry)
        if approved:
            logger.info("%s approved this batch.", by)
        elif not of_round:
            raise rejected(by or "Nobody", why, said=bool(by))

    def _state(self) -> State:
        return fold(self._log.entries(), self._log.installation)

    def _next(self, state: State, facts: steps.Facts) -> steps.Step:
        if self._only_buys and facts.rounds:
            return steps.Land()
        return steps.next_step(
            state,
            facts,
            is_checked=self._jobs is None,
            goes_on_empty=self._prepare is None or self._policy.on_empty is OnEmpty.SUCCEED,
        )

    def _do(self, step: steps.Step, state: State, facts: steps.Facts) -> steps.Facts:
        """Carry out one step, and return what is known after it."""
        match step:
            case steps.Prepare():
                return msgspec.structs.replace(facts, base=self._base(state, fresh=facts.fresh))
            case steps.Begin():
                self._begin(state, _base_of(facts))
                return msgspec.structs.replace(facts, has_begun=True)
            case steps.Estimate(number):
                return msgspec.structs.replace(facts, may_spend=self._may_spend(number, state, facts))
            case steps.Buy(_, repair):
                asked = self._buy(repair, state, facts)
                self._note_the_end(len(facts.rounds), asked, state)
                return msgspec.structs.replace(facts, rounds=(*facts.rounds, asked), selection=None, may_spend=None)
            case steps.Choose(wants):
                return msgspec.structs.replace(facts, selection=self._choose(facts, wants))
            case steps.Decide(manifest):
                self._decide(manifest, facts)
        return facts

    def _base(self, state: State, *, fresh: bool) -> Manifest:
        """Return the set of the whole batch. A retry goes on from the set of the first attempt, even if the source has
        changed. A clear reads the source again.
        """
        if self._given is not None:
            return self._given
        if not fresh and state.begun is not None:
            return read_manifest(self._store, Uri.parse(state.begun.base))
        if not fresh or self._prepare is None:
            raise LogError(
                f"The log {self._log.folder} no longer says what this batch asked",
                why="It is empty, and this attempt had begun",
                left="Nothing was sent; the jobs that run go on, and bill",
                todo="Nothing, if an attempt is left: it reads the source again, and finds the jobs by their labels",
            )
        uri = begun_in(state, self._start.generation)
        found = whole_set(self._store, Uri.parse(uri)) if uri else None
        if found is None or not found.request_count:
            return self._prepare()
        logger.info("This retry goes on from %s; the source is not read again.", found.uri)
        return found

    def _begin(self, state: State, base: Manifest) -> None:
        """Note the set from which the batch begins, and cancel running repair jobs of another set."""
        jobs, files = digest_of(job.name for job in self._jobs or ()), digest_of(shard.uri for shard in base.shards)
        entry = begin(state, base.uri, self._start, jobs, files)
        if entry is None:
            return
        if state.begun is not None and not entry.goes_on(state.begun):
            for number in range(1, len(state.repairs) + 1):
                self._unmarked.cancel_removed_parts(number)
            if self._state() != state:
                raise _another_attempt(self._log.folder)
        self._write(msgspec.structs.replace(entry, rows=base.request_count))

    def _buyer(self, state: State) -> Buyer:
        """Return the buyer of this batch's jobs. It marks them with the generation in which the batch began again."""
        return self._unmarked.of_generation(state.begun.since if state.begun is not None else "")

    def _reuse(self, facts: steps.Facts) -> Reuse:
        return Reuse.WITH_ROWS if facts.owes_repair or self._only_buys else Reuse.ANY

    def _buy(self, repair: Repair | None, state: State, facts: steps.Facts) -> Round:
        """Attach to the jobs of a round, and create those that nobody has created."""
        buyer, base = self._buyer(state), _base_of(facts)
        if repair is not None:
            manifest = with_resume(read_manifest(self._store, Uri.parse(repair.manifest_uri)), repair.resume_uri)
            return Round(manifest=manifest, jobs=tuple(buyer.buy(manifest, reuse=Reuse.ANY)))
        if self._jobs is not None:
            return Round(manifest=base, jobs=self._taken_over(base, self._jobs, buyer))
        return Round(manifest=base, jobs=tuple(buyer.buy(base, reuse=self._reuse(facts))))

    def _note_the_end(self, number: int, asked: Round, state: State) -> None:
        """Write to the log, once, how the jobs of a round ended. People may ask after the service has
        deleted the jobs.
        """
        if not asked.jobs or state.ended.issuperset(job.name for job in asked.jobs):
            return
        if all(job.state.is_final for job in asked.jobs):
            ends = (
                End(job.name, job.state_text or str(job.state), max(job.successful_count, 0), max(job.failed_count, 0))
                for job in asked.jobs
            )
            self._log.add(Ended(round=number, jobs=tuple(ends)))

    def _taken_over(self, base: Manifest, jobs: tuple[BatchJob, ...], buyer: Buyer) -> tuple[BatchJob, ...]:
        """Return the jobs of another task. If that task gave up a job because it queued for too long, its requests are
        bought here.

        :raises InputError: when they are not the jobs of this set.
        """
        batches(Round(manifest=base, jobs=jobs))
        given_up = {
            shard_of(base, job): job.name
            for job in jobs
            if job.state.phase in {Phase.CANCELLED, Phase.EXPIRED} and not job.has_rows and self.move(base, job)
        }
        bought = zip(sorted(given_up), buyer.buy(base, reuse=Reuse.ANY, only=given_up), strict=True)
        instead = {given_up[shard]: job for shard, job in bought} if given_up else {}
        return tuple(instead.get(job.name, job) for job in jobs)

    def _may_spend(self, number: int, state: State, facts: steps.Facts) -> Verdict:
        """Estimate the cost of a set, and compare it with the limit. A set that is bought already always passes."""
        buyer, spent = self._buyer(state), Decimal(0)
        manifest, purchase = _base_of(facts), _base_of(facts).fingerprint
        if number:
            manifest, spent = _chosen(facts)
            # After a clear, the person may be asked about the same rows again.
            purchase = f"{manifest.fingerprint} {self._start.generation}"
        elif buyer.terms.renew:
            purchase = f"{purchase} {buyer.terms.generation}"
        estimate = estimate_cost(manifest, buyer.base.model, self._prices, self._log.now())
        found = verdict(
            self._policy.budget,
            estimate,
            state.answers,
            purchase=purchase,
            generation=self._start.generation,
            spent_usd=spent,
        )
        if not number:
            self._say_estimate(estimate)
            if not isinstance(found, Allowed) and not buyer.would_begin(manifest, reuse=self._reuse(facts)):
                return Allowed()
        _say(found, f"Repair round {number}: {estimate}." if number else "")
        return found

    def _say_estimate(self, estimate: Estimate) -> None:
        logger.info("%s.", estimate)
        for sentence in estimate.warnings:
            logger.warning("%s.", sentence)
        self._tell("estimate", estimate.as_dict())

    def _choose(self, facts: steps.Facts, wants: Wants) -> Selection:
        """Read the answers, and write the set of rows that are sent again."""
        policy = self._policy
        merged = Rounds(facts.rounds, self._store, self._warehouse, policy.check, on_lost_output=policy.on_lost_output)
        chosen = select(
            merged, policy.repair, self._store, self._folder, uuid4().hex[:12], prices=policy.prices, wants=wants
        )
        if len(facts.rounds) > 1:
            logger.info("Repair round %d gave %s rows a good answer.", len(facts.rounds) - 1, f"{chosen.cured:,}")
        if chosen.manifest is None:
            left = f"{chosen.wanted_count:,} rows" if chosen.wanted_count else "No row"
            logger.info("%s could be helped by another try; none goes again.", left)
        return chosen

    def _decide(self, manifest: Manifest, facts: steps.Facts) -> None:
        """Note that a repair round will be bought."""
        count, base = manifest.request_count, _base_of(facts)
        self._write(
            Repair(manifest_uri=manifest.uri, base=base.uri, resume_uri=manifest.shards[0].resume_uri, rows=count)
        )
        wanted = facts.selection.wanted_count if facts.selection is not None else count
        logger.info(
            "Repair round %d: %s of %s rows without a good answer go again.",
            len(facts.rounds), f"{count:,}", f"{wanted:,}",
        )  # fmt: skip

    def _wait(self, facts: steps.Facts, attempt: Attempt) -> Wait:
        """Deal with jobs that queue for long, and return the jobs that must end."""
        asked = facts.rounds[-1]
        jobs, manifest = asked.jobs, asked.manifest or _base_of(facts)
        ending = tuple(job.name for job in jobs if job.state is JobState.CANCELLING)
        # A job that is being cancelled now was cancelled by an earlier attempt. It shows its rows only later.
        handled = msgspec.structs.replace(attempt.handled, ending=ending) if attempt.fresh else attempt.handled
        move = (lambda job: self.move(manifest, job)) if self._policy.elsewhere else None
        handled, overdue = handle_queued(self._policy.queue, jobs, handled, move, self._clock())
        owes_repair = attempt.owes_repair and (attempt.was_interrupted or bool(ending))
        # A moved job that began to run before its cancel has rows, but perhaps not all of them.
        owes_repair = owes_repair or not set(handled.moved).isdisjoint(job.name for job in jobs)
        return Wait(
            round=len(facts.rounds) - 1,
            jobs=jobs,
            manifest=manifest,
            attempt=Attempt(fresh=False, owes_repair=owes_repair, handled=handled),
            limits=self._policy.queue.limits(jobs, handled),
            overdue=tuple(overdue),
        )

    def move(self, manifest: Manifest, job: BatchJob) -> Place | None:
        """Give up a job that queues for too long: it is cancelled, and `advance` buys its requests at the next place.

        :param manifest: the set that has the job's request file.
        :returns: the next place; None when no place is left, and the job goes on.
        """
        own, policy, prices = self._unmarked.base.model, self._policy, self._prices
        now, store = self._log.now(), self._store
        places = [each for each in policy.elsewhere if fits(manifest, each, own, store, policy.budget, prices, now)]
        return self._buyer(self._state()).move(manifest, shard_of(manifest, job), job, places)

    def _without_rows(self, facts: steps.Facts) -> Skip:
        """Cancel jobs for rows that the source had before, unless `on_changed_input` is "fail", and end the task.

        :raises InputError: when `on_empty` is "fail".
        """
        buyer = self._buyer(self._state())
        buyer.cancel_removed_parts(0)
        jobs = MAY_RUN if buyer.terms.on_changed_input is OnChangedInput.FAIL else CANCELLED
        empty = empty_error(_base_of(facts), jobs)
        assert empty is not None
        if self._policy.on_empty is OnEmpty.FAIL:
            raise empty
        return Skip(str(empty))

    def _write(self, entry: Entry) -> None:
        if not self._log.append(entry):
            raise _another_attempt(self._log.folder)


def _base_of(facts: steps.Facts) -> Manifest:
    assert facts.base is not None
    return facts.base


def _chosen(facts: steps.Facts) -> tuple[Manifest, Decimal]:
    """Return the set that is sent again, and the cost of the rounds before it."""
    assert facts.selection is not None
    assert facts.selection.manifest is not None
    return facts.selection.manifest, facts.selection.cost_usd


def _refused(refused: Refused) -> Skip:
    if refused.skips:
        return Skip(str(refused.why))
    raise refused.why


def _say(found: Verdict, estimate: str) -> None:
    """Log why a set may be bought, or that a person is asked."""
    match found:
        case Allowed(by):
            if by:
                logger.info("Above the limit, and approved by %s.", by)
            if estimate:
                logger.info("%s", estimate)
        case Question(_, subject):
            logger.info("A person is asked: %s", subject)


def _another_attempt(folder: Uri) -> LogError:
    return LogError(
        f"Another attempt of this task is at work on {folder}",
        left="Nothing was sent",
        todo="Let it finish; a retry goes on where it ended",
    )
