"""Is there a job for this already, and if not, may we pay for one? One decision table, one loop that carries it out.

`decide` is pure: what the ledger recorded and what the service shows in, one step out. `ensure_job` asks, decides, acts
and asks again until a job is attached. Every effect may be the last before a crash:

- after the intent: the next attempt finds an intent without a job, waits out the settle time, looks again, then
  submits;
- after the create: the next attempt finds the job by its labels and adopts it;
- after the submission record: the next attempt attaches;
- after the record of a move, or the cancel that follows: the next attempt finds the job that was given up, keeps it if
  it began after all, and buys at the new place only when it has ended without a row.

Time is the store's: an intent's age is what the store's clock says now, less what it said when the intent was written.
"""

from __future__ import annotations

import hashlib
import logging
import time
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.address import JobName
from airflow_vertex_batch.core.claim import (
    EDITION_LABEL,
    FINGERPRINT_LABEL,
    IDENTITY_LABEL,
    INSTALLATION_LABEL,
    Beside,
    Claim,
    fingerprint_of,
    look_up,
    others_at_work,
    parted,
    tell_of,
)
from airflow_vertex_batch.core.errors import AmbiguousError, InputError, LedgerError, ServiceError
from airflow_vertex_batch.core.ledger import Entry, Intent, Ledger, Moved, Submission, last_try, pending_seconds
from airflow_vertex_batch.core.model import BatchJob, JobSpec, Phase
from airflow_vertex_batch.core.place import Everywhere

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime

    from airflow_vertex_batch.core.ports import JobService

log = logging.getLogger(__name__)

#: Seconds after an intent during which its job may still appear: above the time one create call may take, with room for
#: a list that lags behind. The service states no bound for that lag.
SETTLE_SECONDS = 90.0
#: Seconds between look-ups while an intent settles.
_LOOK_EVERY_SECONDS = 5.0
#: Times an entry is tried to be written, or a job to be bought, before this gives up. Waiting does not count.
_MAX_TRIES = 50
#: Seconds by which the clocks of two servers of Google's may differ: the store's, and that of the service.
_CLOCKS_APART_SECONDS = 60.0


class OnChangedInput(StrEnum):
    """What to do when the task already owns a running job for other input."""

    RESUBMIT = "resubmit"
    FAIL = "fail"


class OnClear(StrEnum):
    """What a person means by clearing a task whose job is paid."""

    #: Land again what was paid for; nothing is sent.
    ATTACH = "attach"
    #: Send the rows that are still without a good answer once more.
    REPAIR = "repair"
    #: Buy the whole again.
    NEW = "new"


class Reuse(StrEnum):
    """Which jobs that ended badly still answer for their input, so that it is not bought again."""

    #: Those that answered rows: the rows are landed, and only the others are sent again.
    WITH_ROWS = "with_rows"
    #: All: one purchase, whatever came of it.
    ANY = "any"


class Attach(msgspec.Struct, frozen=True):
    """Use this job; record it first if the ledger does not know it, and cancel what runs for other input.

    :param beside: what runs for other input as well, and must stay.
    """

    job: BatchJob
    recorded: bool
    cancel: tuple[str, ...] = ()
    beside: tuple[Beside, ...] = ()


class Submit(msgspec.Struct, frozen=True):
    """Pay for a new job, after cancelling those that it replaces.

    :param beside: as of `Attach`.
    """

    why: str
    cancel: tuple[str, ...] = ()
    replaces: str = ""
    beside: tuple[Beside, ...] = ()


class Settle(msgspec.Struct, frozen=True):
    """A job may be on its way: look again."""

    seconds: float


class Refuse(msgspec.Struct, frozen=True):
    """Do nothing; a person must choose."""

    why: str
    todo: str = "Cancel it, or set on_changed_input='resubmit'"


Decision = Attach | Submit | Settle | Refuse


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """On which terms a job is bought.

    :param settle_seconds: how long after an intent its job may still appear.
    :param reuse: which jobs that ended badly are not bought again.
    :param edition: what a job is marked with: the same until a clear asks for a new one.
    :param renew: whether only a job of this edition will do.
    """

    settle_seconds: float = SETTLE_SECONDS
    on_changed_input: OnChangedInput = OnChangedInput.RESUBMIT
    reuse: Reuse = Reuse.WITH_ROWS
    edition: str = ""
    renew: bool = False


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One job to buy: what, for whom, on which terms, and where that is written down.

    :param identity_key: who the job belongs to.
    :param content: digest of the requests.
    :param at: makes the service of another location, for what was moved there.
    :param earlier: fingerprints of the places before: a job there that began, or has rows, is as good.
    :param left: names of jobs that were left to another task: they answer for their requests though they have no row.
    :param owns: whether this attempt is still the one that may buy and cancel.
    :param check_input: raises where what is to be sent is not there as it was prepared.
    """

    spec: JobSpec
    identity_key: str
    content: str
    ledger: Ledger
    service: JobService
    terms: Terms = Terms()
    at: Callable[[str], JobService] | None = None
    earlier: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    owns: Callable[[], bool] = lambda: True
    check_input: Callable[[], None] = lambda: None

    def insist(self, step: Decision) -> None:
        """Stop, before a step buys or cancels anything, if this attempt was replaced while it slept.

        :raises LedgerError: when it was.
        :raises InputError: when a job would be bought that must fail, hours later, for want of its input.
        """
        if isinstance(step, Submit):
            self.check_input()
        if (isinstance(step, Submit) or (isinstance(step, Attach) and step.cancel)) and not self.owns():
            raise replaced(self.identity_key)

    @property
    def fingerprint(self) -> str:
        """What makes two jobs the same purchase."""
        return job_fingerprint(self.content, self.spec)

    def labelled(self) -> JobSpec:
        """Return what to send: it carries what the service can be asked for."""
        ours = {
            IDENTITY_LABEL: self.identity_key,
            FINGERPRINT_LABEL: self.fingerprint,
            EDITION_LABEL: self.terms.edition,
            INSTALLATION_LABEL: self.ledger.installation,
        }
        ours = {name: value for name, value in ours.items() if value}
        return msgspec.structs.replace(self.spec, labels={**self.spec.labels, **ours})

    def placed(self, entries: Sequence[Entry]) -> Order:
        """Return the order at the place that its last move in the ledger went to."""
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


def replaced(identity_key: str) -> LedgerError:
    """Return the error of an attempt whose task has gone on without it."""
    return LedgerError(
        f"Another attempt has taken identity {identity_key} over",
        left="Nothing was sent, and nothing cancelled",
        todo="Nothing: the task goes on there",
    )


def job_fingerprint(content: str, spec: JobSpec) -> str:
    """Return what makes two jobs the same purchase: the requests, the model, and where the answers go.

    A location counts where a job was moved to it; the task's own does not.
    """
    parts = (content, spec.model, spec.output, *((spec.location,) if spec.location else ()))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def wherever(entries: Sequence[Entry], home: JobService, at: Callable[[str], JobService] | None) -> JobService:
    """Return a service that knows every location to which a job was moved."""
    locations = {entry.location for entry in entries if isinstance(entry, Moved) and entry.location}
    return Everywhere(home, at, locations) if locations and at else home


def _at_place(spec: JobSpec, move: Moved) -> JobSpec:
    return msgspec.structs.replace(spec, model=move.model or spec.model, location=move.location)


def moves_of(entries: Sequence[Entry], fingerprint: str, terms: Terms) -> list[Moved]:
    """Return the moves of a purchase, oldest first; a new edition begins where the first did."""
    moves = [entry for entry in entries if isinstance(entry, Moved) and entry.fingerprint == fingerprint]
    return [entry for entry in moves if not terms.renew or entry.edition == terms.edition]


def decide(
    entries: Sequence[Entry],
    fingerprint: str,
    jobs: Sequence[BatchJob],
    *,
    earlier: Collection[str] = (),
    left: Collection[str] = (),
    now: datetime,
    terms: Terms = Terms(),  # noqa: B008 - frozen
    installation: str = "",
) -> Decision:
    """Choose one step.

    :param entries: the ledger, oldest first.
    :param jobs: what the service has for this identity, and what the ledger names, newest first.
    :param earlier: fingerprints of the same purchase at places that were given up.
    :param left: names of jobs that were left to another task.
    :param now: by the clock that stamped the entries.
    :param installation: the name of this Airflow: only what it bought, and the ledger names, is cancelled.
    """
    submissions = [entry for entry in entries if isinstance(entry, Submission)]
    wanted, edition = {fingerprint, *earlier}, terms.edition if terms.renew else None
    known, last = {entry.job_name: entry for entry in submissions}, submissions[-1] if submissions else None
    ours = [job for job in jobs if _answers(job, known.get(job.name), wanted, edition)]
    others = [job for job in jobs if job not in ours and job.state.phase is Phase.WAITING]

    def is_enough(job: BatchJob) -> bool:
        # Of a place that was given up only what has begun, or what has rows, is as good as a job at the next.
        is_here = fingerprint_of(job, known.get(job.name)) == fingerprint
        return job.name in left or _is_usable(job, terms.reuse if is_here else Reuse.WITH_ROWS)

    if usable := next(filter(is_enough, ours), None):
        keep = terms.on_changed_input is OnChangedInput.FAIL
        cancel, beside = ((), ()) if keep else parted(others, entries, installation)
        recorded = last is not None and last.job_name == usable.name
        return Attach(usable, recorded=recorded, cancel=cancel, beside=beside)
    if (pending := pending_seconds(entries, terms.settle_seconds, now)) > 0:
        return Settle(pending)
    renewed = [job for job in jobs if terms.renew and _answers(job, known.get(job.name), wanted, None)]
    if others and terms.on_changed_input is OnChangedInput.FAIL and others[0] not in renewed:
        return Refuse(f"{others[0].name} is running for other input of the same task")
    cancel, beside = parted(others, entries, installation)
    if foreign := next((each for each in beside if each.claim is Claim.ANOTHERS), None):
        return _refuse_foreign(foreign, installation)
    if renewed and not ours:
        why = "the task was cleared with on_clear='new'"
        return Submit(why, cancel, replaces=renewed[0].name, beside=beside)
    why, replaces = _reason(ours, others, last.job_name if last else "", {job.name for job in jobs})
    return Submit(why, cancel, replaces, beside)


def _refuse_foreign(beside: Beside, installation: str) -> Refuse:
    return Refuse(
        f"{beside.job.name} ({beside.job.display_name}) is running for other input of the same task, and installation "
        f"{beside.buyer} bought it; this one is {installation}",
        todo="Wait until that job has ended, or let a person cancel it. Then give each Airflow a staging folder of its "
        f"own; if both names are this Airflow's, set [vertex_batch] installation to {beside.buyer}",
    )


def _answers(job: BatchJob, record: Submission | None, wanted: Collection[str], edition: str | None) -> bool:
    """Whether a job is the purchase that is wanted; what the ledger says of it counts more than its labels.

    :param wanted: fingerprints.
    :param edition: None for any.
    """
    is_wanted = fingerprint_of(job, record) in wanted
    if not is_wanted or edition is None:
        return is_wanted
    return ((record.edition if record else "") or job.labels.get(EDITION_LABEL, "")) == edition


def _reason(ours: list[BatchJob], others: list[BatchJob], last: str, known: set[str]) -> tuple[str, str]:
    """Say why a new job is needed, and which one it replaces.

    :param last: the job recorded last, if any.
    :param known: every job there is.
    """
    if ours:
        return f"{ours[0].name} ended as {ours[0].state_text or ours[0].state}", ours[0].name
    if others:
        return "the input changed", others[0].name
    if last and last not in known:
        return f"{last} no longer exists", last
    return "no job exists for this input", last


def _is_usable(job: BatchJob, reuse: Reuse) -> bool:
    """Whether there is, or will be, something to land."""
    return not job.state.is_final or reuse is Reuse.ANY or job.has_rows


class Ensured(msgspec.Struct, frozen=True):
    """The job that answers for this input, and whether this call paid for it.

    :param sharing: names of other Airflows that wrote into the same ledger.
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
    :raises LedgerError: when the ledger cannot be trusted.
    """
    ledger, settle_seconds, tries = order.ledger, order.terms.settle_seconds, 0
    while tries < _MAX_TRIES:
        entries, placed, step = _next_step(order)
        tries += not isinstance(step, Settle)
        order.insist(step)
        sharing = others_at_work(entries, ledger.installation)
        match step:
            case Attach(job, recorded, cancel, beside):
                if recorded or ledger.append(_submission_of(placed, job), len(entries)):
                    cancel_all(cancel, "another job answers for its task now", placed.service)
                    tell_of(beside, ledger.folder)
                    log.info("Attached to %s (%s); nothing was created.", job.name, job.progress)
                    return Ensured(job, created=False, sharing=sharing)
            case Settle(seconds):
                log.info("A create call may still be under way; looking again for up to %.0f s.", seconds)
                sleep(min(seconds, _LOOK_EVERY_SECONDS))
            case Refuse(why, todo):
                raise InputError("No job was created", why=why, left="That job goes on, and bills", todo=todo)
            case Submit():
                intent = ledger.intent(placed.fingerprint)
                if not ledger.append(intent, len(entries)):
                    continue
                cancel_all(step.cancel, step.why, placed.service)
                tell_of(step.beside, ledger.folder)
                # A writer that slept on its intent must not send: somebody else may take it for dead and send instead.
                if (ledger.now() - intent.at).total_seconds() > max(settle_seconds / 2, _LOOK_EVERY_SECONDS):
                    continue
                made = _create(step, placed, len(entries) + 1)
                if made is not None:
                    return msgspec.structs.replace(made, sharing=sharing)
    raise LedgerError(
        f"No job could be settled for identity {order.identity_key}",
        why="another writer keeps changing the ledger",
        todo="See which other task runs under this identity",
    )


def would_buy(order: Order) -> bool:
    """Say whether `ensure_job` would pay for a job, as things stand. Reads only.

    No while a create call for the same input may be under way: whoever sent it has been allowed to.

    :raises ServiceError: when the service could not be asked.
    :raises LedgerError: when the ledger cannot be trusted.
    """
    entries, placed, step = _next_step(order)
    if isinstance(step, Settle):
        last = last_try(entries)
        return last is None or last.fingerprint != placed.fingerprint
    return isinstance(step, Submit)


def is_bought(order: Order) -> bool:
    """Say whether a job exists that `ensure_job` would attach to, or a create call for it may be under way. Reads only.

    :raises ServiceError: when the service could not be asked.
    :raises LedgerError: when the ledger cannot be trusted.
    """
    entries, placed, step = _next_step(order)
    if isinstance(step, Settle):
        last = last_try(entries)
        return last is not None and last.fingerprint == placed.fingerprint
    return isinstance(step, Attach)


def _next_step(order: Order) -> tuple[Sequence[Entry], Order, Decision]:
    """Read the ledger, ask the service, decide; also return the order as it has been moved."""
    entries = order.ledger.entries()
    # Before the service is asked: what has settled by now is seen by that look, however long the answers take.
    now = order.ledger.now()
    placed = order.placed(entries)
    jobs = look_up(placed.service, order.identity_key, entries)
    jobs = [*_without_labels(placed, entries, jobs), *jobs]
    step = decide(
        entries, placed.fingerprint, jobs, earlier=placed.earlier, left=placed.left, now=now, terms=order.terms,
        installation=order.ledger.installation,
    )  # fmt: skip
    return entries, placed, step


def _without_labels(order: Order, entries: Sequence[Entry], jobs: Sequence[BatchJob]) -> list[BatchJob]:
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
    edition = job.labels.get(EDITION_LABEL, order.terms.edition)
    fingerprint = job.labels.get(FINGERPRINT_LABEL, order.fingerprint)
    return order.ledger.submission(fingerprint, job.name, replaces, edition)


def cancel_all(names: Iterable[str], why: str, service: JobService) -> None:
    """Cancel jobs, and say why."""
    for name in names:
        if service.cancel(JobName.parse(name)):
            log.warning("Cancelled %s: %s.", name, why)


def _create(step: Submit, order: Order, number: int) -> Ensured | None:
    """Send the create call once. None when its outcome is unknown: the caller looks again."""
    ledger = order.ledger
    try:
        job = order.service.create(order.labelled())
    except AmbiguousError as error:
        log.warning("The create call got no clear answer (%s); asking the service whether the job exists.", error)
        # The job may appear from now on: a slow call must not have used up the time in which it is looked for.
        ledger.append(ledger.intent(order.fingerprint), number)
        return None
    except ServiceError as error:
        ledger.append(ledger.refusal(order.fingerprint, error.reason or str(error.status)), number)
        raise
    replaced = f" It replaces {step.replaces}." if step.replaces else ""
    log.info("Created %s: %s.%s", job.name, step.why, replaced)
    # If another writer took this number, the next attempt still finds the job by its labels.
    ledger.append(ledger.submission(order.fingerprint, job.name, step.replaces, order.terms.edition), number)
    return Ensured(job, created=True, replaces=step.replaces)
