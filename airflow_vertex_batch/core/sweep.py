"""Which of our jobs does nobody own any more, and what is to be done about each? One decision table, one loop.

`judge` is pure: a job, the ledger of its identity and what is known of its owner in, one verdict out. `Sweeper` lists
the jobs that carry our labels, judges each, says what it costs, and on demand adopts, cancels or harvests.

Invariants: a job without our labels is never touched, nor one that nothing ties to this staging folder, nor one that
another Airflow bought; what runs and no log names is cancelled by nobody but a person; a young job is never touched,
for its task may be starting; job, ledger and owner are read again right before an effect, and when they say something
else by then, nothing is done; every effect done twice is done once. What cannot be read is never taken for absent, and
a cost that is not known is never zero.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.address import Uri
from airflow_vertex_batch.core.claim import (
    EDITION_LABEL,
    FINGERPRINT_LABEL,
    IDENTITY_LABEL,
    INSTALLATION_LABEL,
    buyer_of,
    intents_of,
)
from airflow_vertex_batch.core.collect.owed import OUTPUT_SETTLE_SECONDS, OnLostOutput
from airflow_vertex_batch.core.errors import InputError, LostOutputError, VertexBatchError
from airflow_vertex_batch.core.export import LandPlan
from airflow_vertex_batch.core.jsonl import encode
from airflow_vertex_batch.core.landing import Landing, Round
from airflow_vertex_batch.core.ledger import Entry, Intent, Ledger, Submission, last_try
from airflow_vertex_batch.core.leftovers import Finding, money_of
from airflow_vertex_batch.core.lifecycle import DEFAULT_TIMEOUT_SECONDS
from airflow_vertex_batch.core.model import BatchJob, Identity, JobState, safe_name
from airflow_vertex_batch.core.ports import ANY_VALUE
from airflow_vertex_batch.core.purchase import ROUND_LABEL
from airflow_vertex_batch.core.submit import SETTLE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from airflow_vertex_batch.core.ports import JobService, ObjectStore, Warehouse
    from airflow_vertex_batch.core.prices import PriceTable
    from airflow_vertex_batch.core.report import Report

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

    #: Nobody was asked, or could say: the ledger alone decides.
    UNKNOWN = "unknown"
    ALIVE = "alive"
    #: It ended well. Its job may be awaited by another DAG, so this alone is no reason to cancel it.
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    #: Airflow was asked, and has no such run.
    DELETED = "deleted"

    @classmethod
    def of_run(cls, state: str | None) -> Owner:
        """Read the state of a DAG run.

        :param state: ``deleted`` where there is no such run; None where nobody can say.
        """
        active = {"running": cls.ALIVE, "queued": cls.ALIVE}
        return {"success": cls.SUCCEEDED, "failed": cls.FAILED, "deleted": cls.DELETED, **active}.get(
            state or "", cls.UNKNOWN
        )


#: Why nobody waits for a job, by what became of its run.
_NOBODY = {Owner.FAILED: "its run has failed", Owner.DELETED: "its run was deleted"}


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


class Tell(msgspec.Struct, frozen=True):
    """Say that it runs, and do nothing: a person must decide."""

    why: str


Verdict = Keep | Adopt | Harvest | Cancel | Tell


class Link(StrEnum):
    """How a ledger knows a job."""

    #: Its last submission: the task's next attempt attaches to it.
    OWNED = "owned"
    #: An earlier submission, in whose place there is a later one.
    REPLACED = "replaced"
    #: Not named, but the last thing meant was to buy just this, and no other job was recorded for it.
    INTENDED = "intended"
    #: Not named, but an intent to buy just this explains it; something else was meant, or recorded, since.
    EXPLAINED = "explained"
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, job: BatchJob, entries: Sequence[Entry]) -> Link:
        """Look a job up."""
        names = [entry.job_name for entry in entries if isinstance(entry, Submission)]
        if job.name in names:
            return cls.OWNED if names[-1] == job.name else cls.REPLACED
        if not (intents := intents_of(job, entries)):
            return cls.UNKNOWN
        last = last_try(entries)
        is_last = not isinstance(last, Submission) and last is not None and last.fingerprint == intents[-1].fingerprint
        return cls.INTENDED if is_last else cls.EXPLAINED


def judge(
    job: BatchJob,
    entries: Sequence[Entry],
    now: datetime,
    policy: SweepPolicy,
    *,
    owner: Owner = Owner.UNKNOWN,
    is_local: bool = True,
    installation: str | None = None,
) -> Verdict:
    """Choose what becomes of one job.

    :param entries: the ledger of its identity, oldest first.
    :param is_local: whether it was bought from the staging folder that the ledger is in.
    :param installation: the name of the Airflow that `owner` was asked of; None where none was.
    """
    settled = settled_by_itself(job, now, policy) or _judged_elsewhere(job, entries, installation)
    if settled is not None:
        return settled
    last = last_try(entries)
    if isinstance(last, Intent) and (now - last.at).total_seconds() < policy.older_than:
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
        (job.state.is_final and not job.has_rows, "it ended without rows: there is nothing to land"),
        (job.state.is_final and _ended_before(job, now) > policy.lookback, "it ended too long ago"),
    )
    return next((Keep(why) for holds, why in reasons if holds), None)


def _judged_elsewhere(job: BatchJob, entries: Sequence[Entry], installation: str | None) -> Keep | None:
    """Keep a job that another Airflow bought: its run is absent here, and may be alive there."""
    buyer = buyer_of(job, entries)
    if installation is None:
        is_shared = len({buyer, *(entry.installation for entry in entries)} - {""}) > 1
        return Keep("several installations write its ledger: say which one this sweep is of") if is_shared else None
    is_anothers = buyer not in {"", installation}
    return Keep(f"installation {buyer} bought it: its own sweep judges it") if is_anothers else None


def _judge_running(link: Link, entries: Sequence[Entry], owner: Owner, *, is_late: bool) -> Verdict:
    if link in {Link.REPLACED, Link.EXPLAINED}:
        return Cancel(_instead(entries))
    if link is Link.UNKNOWN:
        return _LOST if owner is Owner.ALIVE else Tell("no log names it: only a person may cancel it, in the console")
    if owner in _NOBODY:
        return Cancel(f"{_NOBODY[owner]}: nobody waits for it")
    if is_late:
        return Cancel("it is older than a task waits for, or the service lets a job run")
    return _MEANT if link is Link.INTENDED else Keep("it is its task's own: the next attempt attaches to it")


def _judge_ended(link: Link, entries: Sequence[Entry], owner: Owner) -> Verdict:
    if link in {Link.REPLACED, Link.EXPLAINED}:
        return Harvest(_instead(entries))
    if owner in _NOBODY:
        return Harvest(f"{_NOBODY[owner]}: what it answered may not have landed")
    if link is Link.UNKNOWN:
        return _LOST if owner is Owner.ALIVE else Harvest("no log names it")
    return _MEANT if link is Link.INTENDED else Keep("its task lands it, and lands it again when it is cleared")


_LOST = Adopt("its run is active, and its ledger was lost")
_MEANT = Adopt("its task meant to buy it and has not recorded it")


def _instead(entries: Sequence[Entry]) -> str:
    """Say what the task has meant since it bought a job."""
    names = [entry.job_name for entry in entries if isinstance(entry, Submission)]
    return f"{names[-1].rpartition('/')[2]} has taken its place" if names else "its task has meant other input since"


def _age(job: BatchJob, now: datetime) -> float:
    return (now - job.created_at).total_seconds() if job.created_at is not None else 0.0


def _ended_before(job: BatchJob, now: datetime) -> float:
    return (now - job.ended_at).total_seconds() if job.ended_at is not None else _age(job, now)


def is_ours(job: BatchJob) -> bool:
    """Whether a job carries the labels of this package, as this package writes them."""
    return _IDENTITY.fullmatch(job.labels.get(IDENTITY_LABEL, "")) is not None and FINGERPRINT_LABEL in job.labels


def owner_of(job: BatchJob, staging: Uri | str = "") -> Identity | None:
    """Return whose job it is, read from its display name and proved by the hash in its label.

    None when the name was cut short or is the user's own, or when it was bought from another staging folder.
    """
    number = job.labels.get(ROUND_LABEL, "0")
    found = re.fullmatch(r"(.+?)(?:\[(\d+)\])? (\S+)(?: repair \d+)?(?: (\d+)/\d+)?", job.display_name)
    if found is None or not number.isdecimal():
        return None
    names, map_index, run_id, shard = found.groups()
    # Both ids may hold dots: the hash says which one parts them.
    for dot in (place for place, char in enumerate(names) if char == "."):
        identity = Identity(
            staging=str(staging),
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
    :param installation: the name of the Airflow that `ask` asks; None where it asks none.
    :param attempt: the token that adoptions are stamped with.
    :param now: aware UTC; the store's own clock where None.
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
        installation: str | None = None,
        attempt: str = "sweep",
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._service, self._store, self._warehouse = service, store, warehouse
        self._staging, self._policy, self._prices, self._harvest_to = staging, policy, prices, harvest
        self._ask, self._installation, self._attempt = ask, installation, attempt
        self._now: Callable[[], datetime] = now or (lambda: store.now(staging / ""))

    def sweep(self, *, dry_run: bool = True) -> Iterator[Finding]:
        """Yield what was found out about each job of ours, newest first, having done it unless this is a dry run.

        An error about one job is its finding, and the others go on.

        :raises ServiceError: when the jobs could not be listed.
        """
        for job in [job for job in self._service.list({IDENTITY_LABEL: ANY_VALUE}) if is_ours(job)]:
            yield self._look_at(job, dry_run=dry_run)

    def _look_at(self, job: BatchJob, *, dry_run: bool) -> Finding:
        owner = owner_of(job, self._staging)
        finding = Finding(
            job_name=job.name,
            state=job.state_text or str(job.state),
            dag=owner.dag_id if owner else job.labels.get("airflow-dag", ""),
            task=owner.task_id if owner else job.labels.get("airflow-task", ""),
            run_id=owner.run_id if owner else "",
            buyer=job.labels.get(INSTALLATION_LABEL, ""),
            is_running=not job.state.is_final,
            age_hours=round(_age(job, self._now()) / 3600, 1),
        )
        try:
            verdict, is_open = self._verdict(job)
            action = type(verdict).__name__.lower()
            finding = msgspec.structs.replace(finding, action=action, why=verdict.why, is_open=is_open)
            if isinstance(verdict, Keep):
                return finding
            money = money_of(job, self._store, self._warehouse, self._prices)
            finding = msgspec.structs.replace(finding, money=money)
            return finding if dry_run else msgspec.structs.replace(finding, done=self._act(job, verdict))
        except VertexBatchError as error:
            return msgspec.structs.replace(finding, error=str(error))

    def _verdict(self, job: BatchJob) -> tuple[Verdict, bool]:
        """Judge a job by what its ledger and its owner say now.

        :returns: the verdict, and whether it hangs on a run of which nobody knows what became.
        """
        settled = settled_by_itself(job, self._now(), self._policy)
        if settled is not None:
            return settled, False
        identity, entries = owner_of(job, self._staging), self._ledger(job).entries()
        files = (*job.input_uris, job.output_uri)
        is_local = identity is not None or any(uri.startswith(f"{self._staging / ''}") for uri in files)

        def judged(owner: Owner) -> Verdict:
            now, installation = self._now(), self._installation
            return judge(job, entries, now, self._policy, owner=owner, is_local=is_local, installation=installation)

        hangs = len({type(judged(owner)) for owner in Owner}) > 1
        owner = self._ask(identity) if hangs and identity is not None else Owner.UNKNOWN
        verdict = judged(owner)
        if isinstance(verdict, Harvest) and self._is_harvested(job):
            return Keep("it was harvested already"), False
        return verdict, hangs and owner is Owner.UNKNOWN

    def _act(self, job: BatchJob, verdict: Verdict) -> str:
        """Do what was decided, if it still holds, and say what was done."""
        job = self._service.get(job.job_name)
        entries = self._ledger(job).entries()
        if type(self._verdict(job)[0]) is not type(verdict):
            return "nothing: it has changed since it was looked at"
        match verdict:
            case Cancel():
                return "cancelled" if self._service.cancel(job.job_name) else "nothing: it had just ended"
            case Adopt():
                ledger = self._ledger(job)
                edition = job.labels.get(EDITION_LABEL, "")
                entry = ledger.submission(job.labels[FINGERPRINT_LABEL], job.name, edition=edition)
                return "adopted" if ledger.append(entry, len(entries)) else "nothing: its task is writing the ledger"
            case Tell():
                return "nothing: only a person may cancel it"
        return self._harvest(job)

    def _harvest(self, job: BatchJob) -> str:
        """Land a job's rows in files of its own; doing it again replaces them, the receipt says that it is done.

        What is lost for good is no reason to leave the rest: once it can no longer appear, what is there lands.

        :raises LostOutputError: while the rest of an output may still appear.
        """
        folder = self._folder(job)
        if folder is None:
            return "nothing: no folder was given to harvest to"
        lost = ""
        try:
            report = self._land(job, folder, OnLostOutput.FAIL)
        except LostOutputError as error:
            if _ended_before(job, self._now()) < OUTPUT_SETTLE_SECONDS:
                raise
            lost, report = f". {error.what}", self._land(job, folder, OnLostOutput.LAND)
        self._store.write_new(folder / _RECEIPT, encode(report.as_dict()))
        return f"harvested {report.good_count:,} good rows to {report.destination}{lost}"

    def _land(self, job: BatchJob, folder: Uri, on_lost_output: OnLostOutput) -> Report:
        owner, born = owner_of(job, self._staging), job.created_at or self._now()
        plan = LandPlan(batch_id=job.name, partition_date=born.date().isoformat(), run_id=owner.run_id if owner else "")
        rounds = [Round(manifest=None, jobs=(job,))]
        landing = Landing(
            rounds, self._store, self._warehouse, plan, prices=self._prices, on_lost_output=on_lost_output
        )
        return landing.land(landing.files(folder, "jsonl"))

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
        return Ledger(self._store, folder, self._attempt, self._now, installation=self._installation or "")
