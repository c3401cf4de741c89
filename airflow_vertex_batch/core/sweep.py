"""Which of our jobs does nobody own any more, and what is to be done about each? One decision table, one loop.

`judge` is pure: a job, the ledger of its identity and what is known of its owner in, one verdict out. `Sweeper` lists
the jobs that carry our labels, judges each, says what it costs, and on demand adopts, cancels or harvests.

Invariants: a job without our labels is never touched, nor one that nothing ties to this staging folder; a young job is
never touched, for its task may be starting; job, ledger and owner are read again right before an effect, and when they
say something else by then, nothing is done; every effect done twice is done once. What cannot be read is never taken
for absent, and a cost that is not known is never zero.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.address import Uri
from airflow_vertex_batch.core.errors import InputError, VertexBatchError
from airflow_vertex_batch.core.export import LandPlan
from airflow_vertex_batch.core.jsonl import encode
from airflow_vertex_batch.core.landing import Landing, Round
from airflow_vertex_batch.core.ledger import Entry, Intent, Ledger, Submission
from airflow_vertex_batch.core.leftovers import Finding, money_of
from airflow_vertex_batch.core.lifecycle import DEFAULT_TIMEOUT_SECONDS
from airflow_vertex_batch.core.model import BatchJob, Identity, JobState, safe_name
from airflow_vertex_batch.core.ports import ANY_VALUE
from airflow_vertex_batch.core.purchase import ROUND_LABEL
from airflow_vertex_batch.core.submit import EDITION_LABEL, FINGERPRINT_LABEL, IDENTITY_LABEL, SETTLE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_vertex_batch.core.ports import JobService, ObjectStore, Warehouse
    from airflow_vertex_batch.core.prices import PriceTable

_DAY_SECONDS = 24 * 3600.0
#: Written last into the folder of a harvested job: the report of its landing.
_RECEIPT = "report.json"
_IDENTITY = re.compile(r"[0-9a-f]{32}")


class SweepPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as old.

    :param older_than: seconds since its creation before a job is looked at, and since an intent before its create call
        counts as over; at least the settle time of `core.submit`, 90. The longest that a task may set is an hour.
    :param owner_timeout: seconds since its creation after which a running job that is its task's own counts as left
        behind; above what the service itself allows a job.
    :param lookback: seconds since its end after which an ended job is no longer looked at: each one that is costs a
        look into its ledger, and is most often in order.
    """

    older_than: float = 3600.0
    owner_timeout: float = DEFAULT_TIMEOUT_SECONDS + 3600.0
    lookback: float = 7 * _DAY_SECONDS

    def __post_init__(self) -> None:
        if not SETTLE_SECONDS <= self.older_than <= self.owner_timeout:
            raise InputError(
                f"older_than is {self.older_than:g} s and owner_timeout {self.owner_timeout:g} s",
                why=f"a job that was created less than {SETTLE_SECONDS:g} s ago may not be in the ledger yet",
                left="Nothing was touched",
                todo=f"Use {SETTLE_SECONDS:g} s <= older_than <= owner_timeout",
            )


class Owner(StrEnum):
    """What is known of the run that a job was bought for."""

    #: Nobody was asked, or nobody knows such a run: the ledger alone decides.
    UNKNOWN = "unknown"
    ALIVE = "alive"
    #: It ended well. Its job may be awaited by another DAG, so this alone is no reason to cancel it.
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @classmethod
    def of_run(cls, state: str | None) -> Owner:
        """Read the state of a DAG run; None where it is not known."""
        known = {"success": cls.SUCCEEDED, "failed": cls.FAILED, "running": cls.ALIVE, "queued": cls.ALIVE}
        return known.get(state or "", cls.UNKNOWN)


class Keep(msgspec.Struct, frozen=True):
    """Leave it alone."""

    why: str


class Adopt(msgspec.Struct, frozen=True):
    """Record it in its ledger, so that the next attempt of its task attaches to it."""

    why: str


class Harvest(msgspec.Struct, frozen=True):
    """Land what it answered beside the results: it is paid, and no task will."""

    why: str


class Cancel(msgspec.Struct, frozen=True):
    """Stop paying for it. Rows that it has answered stay; a later sweep harvests them."""

    why: str


Verdict = Keep | Adopt | Harvest | Cancel


class Link(StrEnum):
    """How a ledger knows a job."""

    #: Its last submission: the task's next attempt attaches to it.
    OWNED = "owned"
    #: An earlier submission, in whose place there is a later one.
    REPLACED = "replaced"
    #: Not named, but an intent to buy just this stands last, without an answer.
    INTENDED = "intended"
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, job: BatchJob, entries: Sequence[Entry]) -> Link:
        """Look a job up."""
        names = [entry.job_name for entry in entries if isinstance(entry, Submission)]
        if job.name in names:
            return cls.OWNED if names[-1] == job.name else cls.REPLACED
        last = entries[-1] if entries else None
        if isinstance(last, Intent) and last.fingerprint == job.labels.get(FINGERPRINT_LABEL):
            return cls.INTENDED
        return cls.UNKNOWN


def judge(
    job: BatchJob,
    entries: Sequence[Entry],
    now: datetime,
    policy: SweepPolicy,
    *,
    owner: Owner = Owner.UNKNOWN,
    is_local: bool = True,
) -> Verdict:
    """Choose what becomes of one job.

    :param entries: the ledger of its identity, oldest first.
    :param is_local: whether its input or output lies in the staging folder that the ledger is in.
    """
    settled = settled_by_itself(job, now, policy)
    if settled is not None:
        return settled
    if entries and isinstance(entries[-1], Intent) and (now - entries[-1].at).total_seconds() < policy.older_than:
        return Keep("a create call of its task may be under way")
    link = Link.of(job, entries)
    if link is Link.UNKNOWN and not is_local:
        # Another installation in the same project, with a staging folder of its own, looks just like this.
        return Keep("neither the ledger nor its files tie it to this staging folder")
    if job.state.is_final:
        return _judge_ended(link, entries, owner)
    is_late = _age(job, now) > policy.owner_timeout and owner is not Owner.ALIVE
    return _judge_running(link, entries, owner, is_late=is_late)


def settled_by_itself(job: BatchJob, now: datetime, policy: SweepPolicy) -> Keep | None:
    """Return the verdict on a job that is left alone whatever its ledger says, or None."""
    reasons = (
        (job.created_at is None, "its age is not known"),
        (_age(job, now) < policy.older_than, "it is young: its task may be starting"),
        (job.state is JobState.CANCELLING, "it is being cancelled"),
        (job.state.is_final and not _has_rows(job), "it ended without rows: there is nothing to land"),
        (job.state.is_final and _ended_before(job, now) > policy.lookback, "it ended too long ago"),
    )
    return next((Keep(why) for holds, why in reasons if holds), None)


def _judge_running(link: Link, entries: Sequence[Entry], owner: Owner, *, is_late: bool) -> Verdict:
    if other := _other(link, entries):
        return Cancel(other)
    if owner is Owner.FAILED:
        return Cancel("its run has failed: nobody waits for it")
    if is_late and link is not Link.UNKNOWN:
        return Cancel("it is older than a task waits for, or the service lets a job run")
    return _by_link(link, owner, Keep("it is its task's own: the next attempt attaches to it"), Cancel)


def _judge_ended(link: Link, entries: Sequence[Entry], owner: Owner) -> Verdict:
    if other := _other(link, entries):
        return Harvest(other)
    if owner is Owner.FAILED:
        return Harvest("its run has failed: what it answered may not have landed")
    return _by_link(link, owner, Keep("its task lands it, and lands it again when it is cleared"), Harvest)


def _by_link(link: Link, owner: Owner, owned: Keep, orphaned: type[Cancel | Harvest]) -> Verdict:
    """Judge a job that no other has replaced and whose run has not failed, as far as is known."""
    if link is Link.OWNED:
        return owned
    if link is Link.INTENDED:
        return Adopt("its task meant to buy it and has not recorded it")
    if owner is Owner.ALIVE:
        return Adopt("its run is active, and its ledger was lost")
    return orphaned("no ledger knows it")


def _other(link: Link, entries: Sequence[Entry]) -> str:
    """Say which other job answers for the same task, if one does."""
    names = [entry.job_name for entry in entries if isinstance(entry, Submission)]
    if not names or link in {Link.OWNED, Link.INTENDED}:
        return ""
    return f"{names[-1].rpartition('/')[2]} has taken its place"


def _has_rows(job: BatchJob) -> bool:
    return job.successful_count > 0 or (job.successful_count < 0 and bool(job.output_uri))


def _age(job: BatchJob, now: datetime) -> float:
    return (now - job.created_at).total_seconds() if job.created_at is not None else 0.0


def _ended_before(job: BatchJob, now: datetime) -> float:
    return (now - job.ended_at).total_seconds() if job.ended_at is not None else _age(job, now)


def is_ours(job: BatchJob) -> bool:
    """Whether a job carries the labels of this package, as this package writes them."""
    return _IDENTITY.fullmatch(job.labels.get(IDENTITY_LABEL, "")) is not None and FINGERPRINT_LABEL in job.labels


def owner_of(job: BatchJob) -> Identity | None:
    """Return whose job it is, read from its display name and proved by the hash in its label.

    None when the name was cut short or is the user's own.
    """
    number = job.labels.get(ROUND_LABEL, "0")
    found = re.fullmatch(r"(.+?)(?:\[(\d+)\])? (\S+)(?: repair \d+)?(?: (\d+)/\d+)?", job.display_name)
    if found is None or not number.isdecimal():
        return None
    names, map_index, run_id, shard = found.groups()
    # Both ids may hold dots: the hash says which one parts them.
    for dot in (place for place, char in enumerate(names) if char == "."):
        identity = Identity(
            dag_id=names[:dot],
            task_id=names[dot + 1 :],
            run_id=run_id,
            map_index=int(map_index) if map_index else -1,
            shard=int(shard) - 1 if shard else 0,
            round=int(number),
        )
        if identity.key == job.labels.get(IDENTITY_LABEL):
            return identity
    return None


class Sweeper:
    """Finds what was left behind in one project and location.

    :param staging: the staging folder whose ledgers are read.
    :param prices: the shipped table where None.
    :param harvest: where rows land that no task will land; nothing is harvested where None.
    :param ask: what is known of the run that owns a job.
    :param attempt: the token that adoptions are stamped with.
    :param now: aware UTC, replaced in tests.
    """

    def __init__(
        self,
        service: JobService,
        store: ObjectStore,
        warehouse: Warehouse,
        staging: Uri,
        policy: SweepPolicy,
        *,
        prices: PriceTable | None = None,
        harvest: Uri | None = None,
        ask: Callable[[Identity], Owner] = lambda _identity: Owner.UNKNOWN,
        attempt: str = "sweep",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._service, self._store, self._warehouse = service, store, warehouse
        self._staging, self._policy, self._prices, self._harvest_to = staging, policy, prices, harvest
        self._ask, self._attempt, self._now = ask, attempt, now

    def sweep(self, *, dry_run: bool = True) -> Iterator[Finding]:
        """Yield what was found out about each job of ours, newest first, having done it unless this is a dry run.

        An error about one job is its finding, and the others go on.

        :raises ServiceError: when the jobs could not be listed.
        """
        for job in [job for job in self._service.list({IDENTITY_LABEL: ANY_VALUE}) if is_ours(job)]:
            yield self._look_at(job, dry_run=dry_run)

    def _look_at(self, job: BatchJob, *, dry_run: bool) -> Finding:
        owner = owner_of(job)
        finding = Finding(
            job_name=job.name,
            state=job.state_text or str(job.state),
            dag=owner.dag_id if owner else job.labels.get("airflow-dag", ""),
            task=owner.task_id if owner else job.labels.get("airflow-task", ""),
            run_id=owner.run_id if owner else "",
            age_hours=round(_age(job, self._now()) / 3600, 1),
        )
        try:
            verdict = self._verdict(job)
            finding = msgspec.structs.replace(finding, action=type(verdict).__name__.lower(), why=verdict.why)
            if isinstance(verdict, Keep):
                return finding
            money = money_of(job, self._store, self._warehouse, self._prices)
            finding = msgspec.structs.replace(finding, money=money)
            return finding if dry_run else msgspec.structs.replace(finding, done=self._act(job, verdict))
        except VertexBatchError as error:
            return msgspec.structs.replace(finding, error=str(error))

    def _verdict(self, job: BatchJob) -> Verdict:
        """Judge a job by what its ledger and its owner say now."""
        settled = settled_by_itself(job, self._now(), self._policy)
        if settled is not None:
            return settled
        identity, entries = owner_of(job), self._ledger(job).entries()
        owner = self._ask(identity) if identity is not None else Owner.UNKNOWN
        local = any(uri.startswith(f"{self._staging / ''}") for uri in (*job.input_uris, job.output_uri))
        verdict = judge(job, entries, self._now(), self._policy, owner=owner, is_local=local)
        if isinstance(verdict, Harvest) and self._is_harvested(job):
            return Keep("it was harvested already")
        return verdict

    def _act(self, job: BatchJob, verdict: Verdict) -> str:
        """Do what was decided, if it still holds, and say what was done."""
        job = self._service.get(job.job_name)
        entries = self._ledger(job).entries()
        if type(self._verdict(job)) is not type(verdict):
            return "nothing: it has changed since it was looked at"
        match verdict:
            case Cancel():
                return "cancelled" if self._service.cancel(job.job_name) else "nothing: it had just ended"
            case Adopt():
                ledger = self._ledger(job)
                edition = job.labels.get(EDITION_LABEL, "")
                entry = ledger.submission(job.labels[FINGERPRINT_LABEL], job.name, edition=edition)
                return "adopted" if ledger.append(entry, len(entries)) else "nothing: its task is writing the ledger"
        return self._harvest(job)

    def _harvest(self, job: BatchJob) -> str:
        """Land a job's rows in files of its own; doing it again replaces them, the receipt says that it is done."""
        folder = self._folder(job)
        if folder is None:
            return "nothing: no folder was given to harvest to"
        owner, born = owner_of(job), job.created_at or self._now()
        plan = LandPlan(batch_id=job.name, partition_date=born.date().isoformat(), run_id=owner.run_id if owner else "")
        rounds = [Round(manifest=None, jobs=(job,))]
        landing = Landing(rounds, self._store, self._warehouse, plan, prices=self._prices)
        report = landing.land(landing.files(folder, "jsonl"))
        self._store.write_new(folder / _RECEIPT, encode(report.as_dict()))
        return f"harvested {report.good_count:,} good rows to {report.destination}"

    def _is_harvested(self, job: BatchJob) -> bool:
        folder = self._folder(job)
        return folder is not None and self._store.read(folder / _RECEIPT) is not None

    def _folder(self, job: BatchJob) -> Uri | None:
        """Return the folder of one job's rows."""
        if self._harvest_to is None:
            return None
        labels = [safe_name(job.labels.get(name, "")) or "unknown" for name in ("airflow-dag", "airflow-task")]
        return self._harvest_to / "/".join((*labels, job.job_name.location, job.job_name.job_id))

    def _ledger(self, job: BatchJob) -> Ledger:
        folder = self._staging / "ledger" / job.labels[IDENTITY_LABEL]
        return Ledger(self._store, folder, self._attempt, self._now)
