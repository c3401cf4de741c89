"""Is there already a job for this input? If not, may we pay for one? This loop carries out the decision table.

`decide` is the table: from the log entries and the jobs of the service it chooses one step. `ensure_job` asks, decides,
acts and asks again until a job is attached. A crash may follow every effect:

- after the intent: the next attempt finds an intent without a job, waits until the settle time is over, looks again,
  then submits;
- after the create: the next attempt finds the job by its labels and adopts it;
- after the submission record: the next attempt attaches;
- after the record of a move, or the cancel that follows: the next attempt finds the job that was given up. If the job
  began to run, it is kept. If it has ended without a row, the requests are bought at the new place.

All times are times of the store's clock: the age of an intent is the store's time now minus the store's time when the
intent was written.
"""

from __future__ import annotations

import hashlib
import logging
import time
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.domain.address import JobName
from airflow_vertex_batch.core.domain.errors import AmbiguousError, InputError, LogError, ServiceError
from airflow_vertex_batch.core.domain.job import BatchJob, JobSpec
from airflow_vertex_batch.core.purchase.decide import Attach, Decision, Refuse, Settle, Submit, Terms, decide, moves_of
from airflow_vertex_batch.core.purchase.entries import Intent, JobEntry, Moved, Submission
from airflow_vertex_batch.core.purchase.log import JobLog, last_try
from airflow_vertex_batch.core.purchase.ownership import (
    FINGERPRINT_LABEL,
    GENERATION_LABEL,
    IDENTITY_LABEL,
    INSTALLATION_LABEL,
    labels_of,
    look_up,
    others_at_work,
    warn_about,
)
from airflow_vertex_batch.core.purchase.place import AllLocationsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow_vertex_batch.core.domain.identity import Identity
    from airflow_vertex_batch.core.domain.ports import JobService

logger = logging.getLogger(__name__)
#: Seconds between two look-ups while a job may still appear.
_LOOK_EVERY_SECONDS = 5.0
#: How often this tries to write an entry, or to buy a job, before it gives up. Waiting does not count.
_MAX_TRIES = 50
#: Seconds by which two clocks of Google may differ: the clock of the store and the clock of the service.
_CLOCKS_APART_SECONDS = 60.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One job to buy: its specification, its log, and the conditions.

    :param content: digest of the requests.
    :param at: makes the job service of another location, for jobs that were moved there.
    :param earlier: fingerprints of this purchase at earlier places. A job there counts if it runs or has rows.
    :param left: names of jobs that were left to another task. They count although they have no row.
    :param owns: returns whether this attempt may still buy and cancel.
    :param check_input: raises if the input is not there as it was prepared.
    """

    spec: JobSpec
    content: str
    log: JobLog
    service: JobService
    terms: Terms = Terms()
    at: Callable[[str], JobService] | None = None
    earlier: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    owns: Callable[[], bool] = lambda: True
    check_input: Callable[[], None] = lambda: None

    def stop_if_replaced(self, step: Decision) -> None:
        """Before a step buys or cancels anything, stop if this attempt was replaced while it slept.

        :raises LogError: when it was replaced.
        :raises InputError: when a job would be bought that must fail hours later, because its input is missing.
        """
        if isinstance(step, Submit):
            self.check_input()
        if (isinstance(step, Submit) or (isinstance(step, Attach) and step.cancel)) and not self.owns():
            raise replaced(self.log.identity)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the purchase. Two jobs with the same fingerprint are the same purchase."""
        return job_fingerprint(self.content, self.spec)

    def labelled(self) -> JobSpec:
        """Return the specification to send. It has the labels by which the service can be asked for the job."""
        ours = {
            **labels_of(self.log.identity, self.log.part),
            FINGERPRINT_LABEL: self.fingerprint,
            GENERATION_LABEL: self.terms.generation,
            INSTALLATION_LABEL: self.log.installation,
        }
        ours = {name: value for name, value in ours.items() if value}
        return msgspec.structs.replace(self.spec, labels={**self.spec.labels, **ours})

    def placed(self, entries: Sequence[JobEntry]) -> Order:
        """Return the order for the place of the last move in the log."""
        moves = moves_of(entries, self.fingerprint, self.terms)
        specs = [self.spec, *(_at_place(self.spec, move) for move in moves if move.location or move.model)]
        fingerprints = [job_fingerprint(self.content, spec) for spec in specs]
        return msgspec.structs.replace(
            self,
            spec=specs[-1],
            service=service_of_all_locations(moves, self.service, self.at),
            earlier=frozenset(fingerprints[:-1]),
            left=frozenset(move.job_name for move in moves if not (move.location or move.model)),
        )


def replaced(identity: Identity) -> LogError:
    """Return the error for an attempt that was replaced by a later attempt."""
    return LogError(
        f"Another attempt has taken {identity.path} over",
        left="Nothing was sent, and nothing cancelled",
        todo="Nothing: the task goes on there",
    )


def job_fingerprint(content: str, spec: JobSpec) -> str:
    """Return the fingerprint of a purchase: the requests, the model, and where the answers go.

    A location that a job was moved to is part of it; the task's own location is not.
    """
    parts = (content, spec.model, spec.output, *((spec.location,) if spec.location else ()))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def service_of_all_locations(
    entries: Sequence[JobEntry], home: JobService, at: Callable[[str], JobService] | None
) -> JobService:
    """Return a job service for all locations to which a job was moved."""
    locations = {entry.location for entry in entries if isinstance(entry, Moved) and entry.location}
    return AllLocationsService(home, at, locations) if locations and at else home


def _at_place(spec: JobSpec, move: Moved) -> JobSpec:
    return msgspec.structs.replace(spec, model=move.model or spec.model, location=move.location)


class Ensured(msgspec.Struct, frozen=True):
    """The job for this input, and whether this call paid for it.

    :param sharing: names of other Airflows that wrote into the same log.
    """

    job: BatchJob
    created: bool
    replaces: str = ""
    sharing: tuple[str, ...] = ()


def ensure_job(
    order: Order,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Ensured:
    """Return the one job of this identity and input. Create it only if nobody has created it.

    :raises InputError: when a job for other input is running and `on_changed_input` is "fail", or another Airflow
        bought it.
    :raises ServiceError: when the service refused, or could not be asked. An unknown job is not a missing job.
    :raises LogError: when the log cannot be trusted.
    """
    log, settle_seconds, tries = order.log, order.terms.settle_seconds, 0
    while tries < _MAX_TRIES:
        entries, placed, step = _next_step(order)
        tries += not isinstance(step, Settle)
        order.stop_if_replaced(step)
        sharing = others_at_work(entries, log.installation)
        match step:
            case Attach(job, recorded, cancel, left_running):
                if recorded or log.append(_submission_of(placed, job)):
                    cancel_all(cancel, "another job answers for its task now", placed.service)
                    warn_about(left_running, log.folder)
                    logger.info("Attached to %s (%s); nothing was created.", job.name, job.progress)
                    return Ensured(job, created=False, sharing=sharing)
            case Settle(seconds):
                logger.info("A create call may still be under way; looking again for up to %.0f s.", seconds)
                sleep(min(seconds, _LOOK_EVERY_SECONDS))
            case Refuse(why, todo):
                raise InputError("No job was created", why=why, left="That job goes on, and bills", todo=todo)
            case Submit():
                intent = log.intent(placed.fingerprint)
                if not log.append(intent):
                    continue
                cancel_all(step.cancel, step.why, placed.service)
                warn_about(step.left_running, log.folder)
                # If this process slept after its intent, it must not send: another attempt may have sent instead.
                if (log.now() - intent.at).total_seconds() > max(settle_seconds / 2, _LOOK_EVERY_SECONDS):
                    continue
                made = _create(step, placed)
                if made is not None:
                    return msgspec.structs.replace(made, sharing=sharing)
    raise LogError(
        f"No job could be settled for {order.log.identity.path}",
        why="Another writer keeps adding to the log",
        todo="See which other task runs under this identity",
    )


def would_buy(order: Order) -> bool:
    """Return whether `ensure_job` would pay for a job now. This only reads.

    While the result of a create call for the same input is not known, the result is False: that call was allowed
    already.

    :raises ServiceError: when the service could not be asked.
    :raises LogError: when the log cannot be trusted.
    """
    entries, placed, step = _next_step(order)
    if isinstance(step, Settle):
        last = last_try(entries)
        return last is None or last.fingerprint != placed.fingerprint
    return isinstance(step, Submit)


def is_bought(order: Order) -> bool:
    """Return whether a job exists that `ensure_job` would attach to, or may exist because a create call has no answer
    yet. This only reads.

    :raises ServiceError: when the service could not be asked.
    :raises LogError: when the log cannot be trusted.
    """
    entries, placed, step = _next_step(order)
    if isinstance(step, Settle):
        last = last_try(entries)
        return last is not None and last.fingerprint == placed.fingerprint
    return isinstance(step, Attach)


def _next_step(order: Order) -> tuple[Sequence[JobEntry], Order, Decision]:
    """Read the log, ask the service, and decide. Also return the order for the place to which it was moved."""
    entries = order.log.entries()
    # Taken before the service is asked: a job that had time to appear until now is seen, even if the answers take long.
    now = order.log.now()
    placed = order.placed(entries)
    jobs = look_up(placed.service, labels_of(order.log.identity, order.log.part), entries)
    jobs = [*_without_labels(placed, entries, jobs), *jobs]
    step = decide(
        entries, placed.fingerprint, jobs, earlier=placed.earlier, left=placed.left, now=now, terms=order.terms,
        installation=order.log.installation,
    )  # fmt: skip
    return entries, placed, step


def _without_labels(order: Order, entries: Sequence[JobEntry], jobs: Sequence[BatchJob]) -> list[BatchJob]:
    """Return the job of the last intent if the service lost the job's labels, and add the labels. Display name and
    input identify the job.

    The log does not have its name yet. The list has the newest jobs first, so only the newest are read.
    """
    last, labels = last_try(entries), order.labelled().labels
    if not isinstance(last, Intent) or last.fingerprint != order.fingerprint:
        return []
    labels |= {INSTALLATION_LABEL: last.installation} if last.installation else {}
    if any(labels.items() <= job.labels.items() for job in jobs):
        return []
    found = []
    for job in order.service.list({}):
        if job.created_at is not None and (last.at - job.created_at).total_seconds() > _CLOCKS_APART_SECONDS:
            break
        is_like = (job.display_name, job.input_uris) == (order.spec.display_name, order.spec.inputs)
        if is_like and IDENTITY_LABEL not in job.labels:
            found.append(msgspec.structs.replace(job, labels=labels))
    return found


def _submission_of(order: Order, job: BatchJob, replaces: str = "") -> Submission:
    """Return the submission record of our job. A job that was found keeps the fingerprint and generation
    in its labels.
    """
    generation = job.labels.get(GENERATION_LABEL, order.terms.generation)
    fingerprint = job.labels.get(FINGERPRINT_LABEL, order.fingerprint)
    return order.log.submission(fingerprint, job.name, replaces, generation)


def cancel_all(names: Iterable[str], why: str, service: JobService) -> None:
    """Cancel jobs, and log why."""
    for name in names:
        if service.cancel(JobName.parse(name)):
            logger.warning("Cancelled %s: %s.", name, why)


def _create(step: Submit, order: Order) -> Ensured | None:
    """Send the create call once. Return None if its result is unknown: the caller then looks again."""
    log = order.log
    try:
        job = order.service.create(order.labelled())
    except AmbiguousError as error:
        logger.warning("The create call got no clear answer (%s); asking the service whether the job exists.", error)
        # A new intent, because the job may appear from now on: a slow call must not use up the settle time.
        log.append(log.intent(order.fingerprint))
        return None
    except ServiceError as error:
        log.append(log.refusal(order.fingerprint, error.reason or str(error.status)))
        raise
    replaced = f" It replaces {step.replaces}." if step.replaces else ""
    logger.info("Created %s: %s.%s", job.name, step.why, replaced)
    # If another writer took this log number, the next attempt still finds the job by its labels.
    log.append(log.submission(order.fingerprint, job.name, step.replaces, order.terms.generation))
    return Ensured(job, created=True, replaces=step.replaces)
