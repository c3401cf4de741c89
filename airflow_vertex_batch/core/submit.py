"""Is there a job for this already, and if not, may we pay for one? One decision table, one loop that carries it out.

`decide` is pure: what the ledger recorded and what the service shows in, one step out. `ensure_job` asks, decides, acts
and asks again until a job is attached. Every effect may be the last before a crash:

- after the intent: the next attempt finds an intent without a job, waits out the settle time, looks again, then
  submits;
- after the create: the next attempt finds the job by its labels and adopts it;
- after the submission record: the next attempt attaches;
- after the record of a move, or the cancel that follows: the next attempt finds the job that was given up, keeps it if
  it began after all, and buys at the new place only when it has ended without a row.
"""

from __future__ import annotations

import hashlib
import logging
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.address import JobName
from airflow_vertex_batch.core.errors import AmbiguousError, InputError, LedgerError, ServiceError
from airflow_vertex_batch.core.ledger import Entry, Intent, Ledger, Moved, Submission
from airflow_vertex_batch.core.model import BatchJob, JobSpec, Phase
from airflow_vertex_batch.core.place import Everywhere, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from airflow_vertex_batch.core.ports import JobService

log = logging.getLogger(__name__)

#: Job labels that carry our identity, so that the service can be asked "do you have this one?".
IDENTITY_LABEL = "avb-identity"
FINGERPRINT_LABEL = "avb-fingerprint"
#: Seconds after an intent during which its job may still appear: above the time one create call may take, with room for
#: a list that lags behind. The service states no bound for that lag.
SETTLE_SECONDS = 90.0
#: Seconds between look-ups while an intent settles.
_LOOK_EVERY_SECONDS = 5.0
_MAX_STEPS = 200


class OnChangedInput(StrEnum):
    """What to do when the task already owns a running job for other input."""

    RESUBMIT = "resubmit"
    FAIL = "fail"


class Reuse(StrEnum):
    """Which jobs that ended badly still answer for their input, so that it is not bought again."""

    #: None: what failed or was cancelled is bought again; what expired after it answered rows is landed.
    EXPIRED = "expired"
    #: Those that answered rows: the rows are landed, and only the others are sent again.
    WITH_ROWS = "with_rows"
    #: All: one purchase, whatever came of it.
    ANY = "any"


class Attach(msgspec.Struct, frozen=True):
    """Use this job; record it first if the ledger does not know it."""

    job: BatchJob
    recorded: bool


class Submit(msgspec.Struct, frozen=True):
    """Pay for a new job, after cancelling those that it replaces."""

    why: str
    cancel: tuple[str, ...] = ()
    replaces: str = ""


class Settle(msgspec.Struct, frozen=True):
    """A job may be on its way: look again."""

    seconds: float


class Refuse(msgspec.Struct, frozen=True):
    """Do nothing; a person must choose."""

    why: str


Decision = Attach | Submit | Settle | Refuse


def job_fingerprint(content: str, spec: JobSpec) -> str:
    """Return what makes two jobs the same purchase: the requests, the model, and where the answers go.

    A location counts where a job was moved to it; the task's own does not.
    """
    parts = (content, spec.model, spec.output, *((spec.location,) if spec.location else ()))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be bought, and what answers for it already, as the moves in the ledger have it.

    :param spec: with model and location of the place that the last move went to.
    :param fingerprint: of `spec`.
    :param earlier: fingerprints of the places before: a job there that began, or has rows, is as good.
    :param left: names of jobs that were left to another task: they answer for their requests though they have no row.
    :param locations: the locations beside the task's own in which jobs may be.
    """

    spec: JobSpec
    fingerprint: str
    earlier: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    locations: frozenset[str] = frozenset()

    @classmethod
    def of(cls, spec: JobSpec, content: str, entries: Sequence[Entry]) -> Order:
        """Follow the moves of one purchase."""
        home = job_fingerprint(content, spec)
        moves = [entry for entry in entries if isinstance(entry, Moved) and entry.fingerprint == home]
        specs = [spec, *(_at_place(spec, move) for move in moves if move.location or move.model)]
        fingerprints = [job_fingerprint(content, each) for each in specs]
        return cls(
            spec=specs[-1],
            fingerprint=fingerprints[-1],
            earlier=frozenset(fingerprints[:-1]),
            left=frozenset(move.job_name for move in moves if not (move.location or move.model)),
            locations=frozenset(move.location for move in moves if move.location),
        )


def _at_place(spec: JobSpec, move: Moved) -> JobSpec:
    return msgspec.structs.replace(spec, model=move.model or spec.model, location=move.location)


def move(job_name: str, ledger: Ledger, fingerprint: str, places: Sequence[Place]) -> Place | None:
    """Note that a queued job is given up, before it is cancelled; noting it twice is noting it once.

    :param fingerprint: of the purchase at its first place.
    :param places: where it may go, the best first; those where it has been are left out.
    :returns: the place of its successor; None when no place is left, and nothing was noted.
    :raises LedgerError: when another writer is at work.
    """
    entries = ledger.entries()
    moves = [entry for entry in entries if isinstance(entry, Moved) and entry.fingerprint == fingerprint]
    been = {entry.job_name: Place(entry.location, entry.model) for entry in moves}
    if job_name in been:
        return been[job_name]
    place = next((place for place in places if place not in been.values()), None)
    if place is not None and not ledger.append(ledger.moved(fingerprint, job_name, place), len(entries)):
        raise LedgerError(
            f"{job_name} was not moved", why="another attempt is writing its ledger", todo="A retry goes on from there"
        )
    return place


def decide(
    entries: Sequence[Entry],
    fingerprint: str,
    jobs: Sequence[BatchJob],
    *,
    earlier: Collection[str] = (),
    left: Collection[str] = (),
    now: datetime,
    settle_seconds: float = SETTLE_SECONDS,
    on_changed_input: OnChangedInput = OnChangedInput.RESUBMIT,
    reuse: Reuse = Reuse.EXPIRED,
) -> Decision:
    """Choose one step.

    :param entries: the ledger, oldest first.
    :param jobs: what the service has for this identity, and what the ledger names, newest first.
    :param earlier: fingerprints of the same purchase at places that were given up.
    :param left: names of jobs that were left to another task.
    """
    submissions = [entry for entry in entries if isinstance(entry, Submission)]
    recorded = {entry.job_name: entry.fingerprint for entry in submissions}
    prints = {job.name: recorded.get(job.name, job.labels.get(FINGERPRINT_LABEL, "")) for job in jobs}
    ours = [job for job in jobs if prints[job.name] == fingerprint or prints[job.name] in earlier]
    others = [job for job in jobs if job not in ours and job.state.phase is Phase.WAITING]

    def answers(job: BatchJob) -> bool:
        # Of a place that was given up only what has begun, or what has rows, is as good as a job at the next.
        enough = reuse if prints[job.name] == fingerprint else Reuse.WITH_ROWS
        return job.name in left or _is_usable(job, enough)

    if usable := next(filter(answers, ours), None):
        return Attach(usable, recorded=bool(submissions) and submissions[-1].job_name == usable.name)
    if (pending := _pending_seconds(entries, settle_seconds, now)) > 0:
        return Settle(pending)
    if others and on_changed_input is OnChangedInput.FAIL:
        return Refuse(f"{others[0].name} is running for other input of the same task")
    return _submit(ours, others, submissions[-1].job_name if submissions else "", {job.name for job in jobs})


def _submit(ours: list[BatchJob], others: list[BatchJob], last: str, known: set[str]) -> Submit:
    """Say why a new job is needed, and which one it replaces.

    :param last: the job recorded last, if any.
    :param known: every job there is.
    """
    if ours:
        why = f"{ours[0].name} ended as {ours[0].state_text or ours[0].state}"
        return Submit(why, tuple(job.name for job in others), replaces=ours[0].name)
    if others:
        return Submit("the input changed", tuple(job.name for job in others), replaces=others[0].name)
    if last and last not in known:
        return Submit(f"{last} no longer exists", replaces=last)
    return Submit("no job exists for this input", replaces=last)


def _is_usable(job: BatchJob, reuse: Reuse) -> bool:
    """Whether there is, or will be, something to land."""
    if job.state.phase in {Phase.WAITING, Phase.SUCCEEDED, Phase.PARTIAL} or reuse is Reuse.ANY:
        return True
    return job.successful_count > 0 and (reuse is Reuse.WITH_ROWS or job.state.phase is Phase.EXPIRED)


def _pending_seconds(entries: Sequence[Entry], settle_seconds: float, now: datetime) -> float:
    """Return how long the last intent may still turn into a job; an intent that was answered may not."""
    last = _last_try(entries)
    return settle_seconds - (now - last.at).total_seconds() if isinstance(last, Intent) else 0.0


def _last_try(entries: Sequence[Entry]) -> Entry | None:
    """Return the last entry about a create call; a move says nothing about one."""
    return next((entry for entry in reversed(entries) if not isinstance(entry, Moved)), None)


class Ensured(msgspec.Struct, frozen=True):
    """The job that answers for this input, and whether this call paid for it."""

    job: BatchJob
    created: bool
    replaces: str = ""


def ensure_job(
    spec: JobSpec,
    *,
    identity_key: str,
    content: str,
    ledger: Ledger,
    service: JobService,
    settle_seconds: float = SETTLE_SECONDS,
    on_changed_input: OnChangedInput = OnChangedInput.RESUBMIT,
    reuse: Reuse = Reuse.EXPIRED,
    at: Callable[[str], JobService] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Ensured:
    """Return the one job of this identity and input, creating it only if nobody has.

    :param content: digest of the requests.
    :param at: makes the service of another location, for requests that were moved there.
    :raises InputError: when `on_changed_input` is "fail" and a job for other input is running.
    :raises ServiceError: when the service refused, or could not be asked: unknown is not absent.
    :raises LedgerError: when the ledger cannot be trusted.
    """
    for _ in range(_MAX_STEPS):
        entries = ledger.entries()
        order = Order.of(spec, content, entries)
        everywhere, fingerprint = _serving(order, service, at), order.fingerprint
        jobs = _look_up(everywhere, identity_key, entries)
        step = decide(
            entries, fingerprint, jobs, earlier=order.earlier, left=order.left, now=now(),
            settle_seconds=settle_seconds, on_changed_input=on_changed_input, reuse=reuse,
        )  # fmt: skip
        match step:
            case Attach(job, recorded):
                if recorded or ledger.append(ledger.submission(fingerprint, job.name), len(entries)):
                    log.info("Attached to %s (%s); nothing was created.", job.name, job.progress)
                    return Ensured(job, created=False)
            case Settle(seconds):
                log.info("A create call may still be under way; looking again for up to %.0f s.", seconds)
                sleep(min(seconds, _LOOK_EVERY_SECONDS))
            case Refuse(why):
                raise InputError("No job was created", why=why, todo="Cancel it, or set on_changed_input='resubmit'")
            case Submit():
                intent = ledger.intent(fingerprint)
                if not ledger.append(intent, len(entries)):
                    continue
                _cancel(step, everywhere)
                # A writer that slept on its intent must not send: somebody else may take it for dead and send instead.
                if (now() - intent.at).total_seconds() > max(settle_seconds / 2, _LOOK_EVERY_SECONDS):
                    continue
                labelled = _labelled(order, identity_key)
                made = _create(step, labelled, fingerprint, ledger, everywhere, len(entries) + 1)
                if made is not None:
                    return made
    raise LedgerError(
        f"No job could be settled for identity {identity_key}",
        why="another writer keeps changing the ledger",
        todo="See which other task runs under this identity",
    )


def would_buy(
    spec: JobSpec,
    *,
    identity_key: str,
    content: str,
    ledger: Ledger,
    service: JobService,
    settle_seconds: float = SETTLE_SECONDS,
    on_changed_input: OnChangedInput = OnChangedInput.RESUBMIT,
    reuse: Reuse = Reuse.EXPIRED,
    at: Callable[[str], JobService] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> bool:
    """Say whether `ensure_job` with the same arguments would pay for a job, as things stand. Reads only.

    No while a create call for the same input may be under way: whoever sent it has been allowed to.

    :raises ServiceError: when the service could not be asked.
    :raises LedgerError: when the ledger cannot be trusted.
    """
    entries = ledger.entries()
    order = Order.of(spec, content, entries)
    jobs = _look_up(_serving(order, service, at), identity_key, entries)
    step = decide(
        entries, order.fingerprint, jobs, earlier=order.earlier, left=order.left, now=now(),
        settle_seconds=settle_seconds, on_changed_input=on_changed_input, reuse=reuse,
    )  # fmt: skip
    if isinstance(step, Settle):
        last = _last_try(entries)
        return last is None or last.fingerprint != order.fingerprint
    return isinstance(step, Submit)


def _serving(order: Order, service: JobService, at: Callable[[str], JobService] | None) -> JobService:
    return Everywhere(service, at, order.locations) if order.locations and at is not None else service


def _labelled(order: Order, identity_key: str) -> JobSpec:
    labels = {**order.spec.labels, IDENTITY_LABEL: identity_key, FINGERPRINT_LABEL: order.fingerprint}
    return msgspec.structs.replace(order.spec, labels=labels)


def _cancel(step: Submit, service: JobService) -> None:
    for name in step.cancel:
        service.cancel(JobName.parse(name))
        log.warning("Cancelled %s: its input has changed.", name)


def _create(
    step: Submit, spec: JobSpec, fingerprint: str, ledger: Ledger, service: JobService, number: int
) -> Ensured | None:
    """Send the create call once. None when its outcome is unknown: the caller looks again."""
    try:
        job = service.create(spec)
    except AmbiguousError as error:
        log.warning("The create call got no clear answer (%s); asking the service whether the job exists.", error)
        return None
    except ServiceError as error:
        ledger.append(ledger.refusal(fingerprint, error.reason or str(error.status)), number)
        raise
    replaced = f" It replaces {step.replaces}." if step.replaces else ""
    log.info("Created %s: %s.%s", job.name, step.why, replaced)
    # If another writer took this number, the next attempt still finds the job by its labels.
    ledger.append(ledger.submission(fingerprint, job.name, step.replaces), number)
    return Ensured(job, created=True, replaces=step.replaces)


def _look_up(service: JobService, identity_key: str, entries: Sequence[Entry]) -> list[BatchJob]:
    """Return every job of this identity: those the list shows, and those the ledger names."""
    jobs = list(service.list({IDENTITY_LABEL: identity_key}))
    known = {job.name for job in jobs}
    for entry in entries:
        if isinstance(entry, Submission) and entry.job_name not in known:
            try:
                jobs.append(service.get(JobName.parse(entry.job_name)))
            except ServiceError as error:
                if not error.is_not_found:
                    raise
            known.add(entry.job_name)
    return jobs
