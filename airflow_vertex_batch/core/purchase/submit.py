"""Is there a job for this already? If not, may we pay for one? This is the loop that carries out a decision table.

`decide` is the table: it takes what the log says and what the service shows, and returns one step. `ensure_job`
asks, decides, acts and asks again until a job is attached. A crash may follow every effect:

- after the intent: the next attempt finds an intent without a job, waits out the settle time, looks again, then
  submits;
- after the create: the next attempt finds the job by its labels and adopts it;
- after the submission record: the next attempt attaches;
- after the record of a move, or the cancel that follows: the next attempt finds the job that was given up, keeps it if
  it began after all, and buys at the new place only when it has ended without a row.

All times are times of the store: the age of an intent is the store's time now minus its time when the intent was
written.
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
    tell_of,
)
from airflow_vertex_batch.core.purchase.place import Everywhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow_vertex_batch.core.domain.identity import Identity
    from airflow_vertex_batch.core.domain.ports import JobService

logger = logging.getLogger(__name__)
#: Seconds between look-ups while an intent settles.
_LOOK_EVERY_SECONDS = 5.0
#: Times an entry is tried to be written, or a job to be bought, before this gives up. Waiting does not count.
_MAX_TRIES = 50
#: Seconds by which the clocks of two servers of Google's may differ: the store's, and that of the service.
_CLOCKS_APART_SECONDS = 60.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One job to buy: what, for whom, on which terms, and where that is written down.

    :param content: digest of the requests.
    :param at: makes the service of another location, for what was moved there.
    :param earlier: fingerprints of the places before: a job there that began, or has rows, is as good.
    :param left: names of jobs that were left to another task: they answer for their requests though they have no row.
    :param owns: whether this attempt is still the one that may buy and cancel.
    :param check_input: raises where what is to be sent is not there as it was prepared.
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

    def insist(self, step: Decision) -> None:
        """Stop, before a step buys or cancels anything, if this attempt was replaced while it slept.

        :raises LogError: when it was.
        :raises InputError: when a job would be bought that must fail, hours later, for want of its input.
        """
        if isinstance(step, Submit):
            self.check_input()
        if (isinstance(step, Submit) or (isinstance(step, Attach) and step.cancel)) and not self.owns():
            raise replaced(self.log.identity)

    @property
    def fingerprint(self) -> str:
        """What makes two jobs the same purchase."""
        return job_fingerprint(self.content, self.spec)

    def labelled(self) -> JobSpec:
        """Return what to send: it carries what the service can be asked for."""
        ours = {
            **labels_of(self.log.identity, self.log.part),
            FINGERPRINT_LABEL: self.fingerprint,
            GENERATION_LABEL: self.terms.generation,
            INSTALLATION_LABEL: self.log.installation,
        }
        ours = {name: value for name, value in ours.items() if value}
        return msgspec.structs.replace(self.spec, labels={**self.spec.labels, **ours})

    def placed(self, entries: Sequence[JobEntry]) -> Order:
        """Return the order at the place that its last move in the log went to."""
        moves = moves_of(entries, self.fingerprint, self.terms)
        specs = [self.spec, *(_at_place(self.spec, move) for move in moves if move.location or move.model)]
        fingerprints = [job_fingerprint(self.content, spec) for spec in specs]
        return msgspec.structs.replace(
            self,
            spec=specs[-1],
            service=wherever(moves, self.service, self.at),
            earlier=frozenset(fingerprints[:-1]),
            left=frozenset(move.job_name for move in moves if not (move.location or move.model)),
        )


def replaced(identity: Identity) -> LogError:
    """Return the error of an attempt whose task has gone on without it."""
    return LogError(
        f"Another attempt has taken {identity.path} over",
        left="Nothing was sent, and nothing cancelled",
        todo="Nothing: the task goes on there",
    )


def job_fingerprint(content: str, spec: JobSpec) -> str:
    """Return what makes two jobs the same purchase: the requests, the model, and where the answers go.

    A location counts where a job was moved to it; the task's own does not.
    """
    parts = (content, spec.model, spec.output, *((spec.location,) if spec.location else ()))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def wherever(entries: Sequence[JobEntry], home: JobService, at: Callable[[str], JobService] | None) -> JobService:
    """Return a service that knows every location to which a job was moved."""
    locations = {entry.location for entry in entries if isinstance(entry, Moved) and entry.location}
    return Everywhere(home, at, locations) if locations and at else home


def _at_place(spec: JobSpec, move: Moved) -> JobSpec:
    return msgspec.structs.replace(spec, model=move.model or spec.model, location=move.location)


class Ensured(msgspec.Struct, frozen=True):
    """The job that answers for this input, and whether this call paid for it.

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
    """Return the one job of this identity and input, creating it only if nobody has.

    :raises InputError: when a job for other input is running and `on_changed_input` is "fail", or another Airflow
        bought it.
    :raises ServiceError: when the service refused, or could not be asked: unknown is not absent.
    :raises LogError: when the log cannot be trusted.
    """
    log, settle_seconds, tries = order.log, order.terms.settle_seconds, 0
    while tries < _MAX_TRIES:
        entries, placed, step = _next_step(order)
        tries += not isinstance(step, Settle)
        order.insist(step)
        sharing = others_at_work(entries, log.installation)
        match step:
            case Attach(job, recorded, cancel, beside):
                if recorded or log.append(_submission_of(placed, job)):
                    cancel_all(cancel, "another job answers for its task now", placed.service)
                    tell_of(beside, log.folder)
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
                tell_of(step.beside, log.folder)
                # A writer that slept on its intent must not send: somebody else may take it for dead and send instead.
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
    """Say whether `ensure_job` would pay for a job, as things stand. Reads only.

    No while a create call for the same input may be under way: whoever sent it has been allowed to.

    :raises ServiceError: when the service could not be asked.
    :raises LogError: when the log cannot be trusted.
    """
    entries, placed, step = _next_step(order)
    if isinstance(step, Settle):
        last = last_try(entries)
        return last is None or last.fingerprint != placed.fingerprint
    return isinstance(step, Submit)


def is_bought(order: Order) -> bool:
    """Say whether a job exists that `ensure_job` would attach to, or a create call for it may be under way. Reads only.

    :raises ServiceError: when the service could not be asked.
    :raises LogError: when the log cannot be trusted.
    """
    entries, placed, step = _next_step(order)
    if isinstance(step, Settle):
        last = last_try(entries)
        return last is not None and last.fingerprint == placed.fingerprint
    return isinstance(step, Attach)


def _next_step(order: Order) -> tuple[Sequence[JobEntry], Order, Decision]:
    """Read the log, ask the service, decide; also return the order as it has been moved."""
    entries = order.log.entries()
    # Before the service is asked: what has settled by now is seen by that look, however long the answers take.
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
    """Return what the last intent made, if the service lost its labels, with them: display name and input tell it.

    Nothing has told us its name yet. Jobs are listed newest first, so that only the latest are looked at.
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
    """Return the record of a job that is ours; a job that was found keeps what it was bought as."""
    generation = job.labels.get(GENERATION_LABEL, order.terms.generation)
    fingerprint = job.labels.get(FINGERPRINT_LABEL, order.fingerprint)
    return order.log.submission(fingerprint, job.name, replaces, generation)


def cancel_all(names: Iterable[str], why: str, service: JobService) -> None:
    """Cancel jobs, and say why."""
    for name in names:
        if service.cancel(JobName.parse(name)):
            logger.warning("Cancelled %s: %s.", name, why)


def _create(step: Submit, order: Order) -> Ensured | None:
    """Send the create call once. None when its outcome is unknown: the caller looks again."""
    log = order.log
    try:
        job = order.service.create(order.labelled())
    except AmbiguousError as error:
        logger.warning("The create call got no clear answer (%s); asking the service whether the job exists.", error)
        # The job may appear from now on: a slow call must not have used up the time in which it is looked for.
        log.append(log.intent(order.fingerprint))
        return None
    except ServiceError as error:
        log.append(log.refusal(order.fingerprint, error.reason or str(error.status)))
        raise
    replaced = f" It replaces {step.replaces}." if step.replaces else ""
    logger.info("Created %s: %s.%s", job.name, step.why, replaced)
    # If another writer took this number, the next attempt still finds the job by its labels.
    log.append(log.submission(order.fingerprint, job.name, step.replaces, order.terms.generation))
    return Ensured(job, created=True, replaces=step.replaces)
