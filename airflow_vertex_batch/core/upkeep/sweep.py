"""Which of our jobs has no owner any more, and what should happen to each? One decision table, one loop.

`decide_sweep` is pure: it takes a job, its log entries and the state of its run, and returns one decision. `Sweeper`
lists the jobs that carry our labels, decides about each, says what it costs, and (unless this is a dry run) adopts,
cancels or harvests it.

Invariants: these jobs are never touched: jobs without our labels, jobs that nothing ties to this staging folder, jobs
that another Airflow bought, and young jobs, because their task may be starting. Only a person cancels a running job
that no log names. Job, log and run are read again right before an effect; if they have changed, nothing is done. Doing
an effect twice gives the same as doing it once. Something that cannot be read never counts as absent, and an unknown
cost is never zero.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.answers.collect.lost_output import OUTPUT_SETTLE_SECONDS, OnLostOutput
from airflow_vertex_batch.core.answers.rounds import Round
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import LostOutputError, VertexBatchError
from airflow_vertex_batch.core.domain.identity import Identity, safe_name
from airflow_vertex_batch.core.domain.job import BatchJob
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.domain.ports import ANY_VALUE
from airflow_vertex_batch.core.landing.destination import Files
from airflow_vertex_batch.core.landing.landing import Landing
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.purchase.log import BatchLog, JobLog
from airflow_vertex_batch.core.purchase.ownership import (
    FINGERPRINT_LABEL,
    GENERATION_LABEL,
    IDENTITY_LABEL,
    INSTALLATION_LABEL,
    part_of,
)
from airflow_vertex_batch.core.upkeep.sweep_decision import (
    Adopt,
    Cancel,
    Harvest,
    Keep,
    Owner,
    SweepDecision,
    SweepPolicy,
    Tell,
    age,
    decide_sweep,
    ended_before,
    settled_by_itself,
)
from airflow_vertex_batch.core.upkeep.sweep_report import Finding, money_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from airflow_vertex_batch.core.answers.report import Report
    from airflow_vertex_batch.core.domain.ports import JobService, ObjectStore, Warehouse
    from airflow_vertex_batch.core.money.prices import PriceTable

#: Written last into the folder of a harvested job: the report of its landing.
_RECEIPT = "report.json"
_IDENTITY = re.compile(r"[0-9a-f]{32}")


def is_ours(job: BatchJob) -> bool:
    """Whether a job carries the labels of this package, as this package writes them."""
    return _IDENTITY.fullmatch(job.labels.get(IDENTITY_LABEL, "")) is not None and FINGERPRINT_LABEL in job.labels


def named_owner(job: BatchJob, staging: Uri | str = "") -> Identity | None:
    """Return the owner of a job if the staging folder has lost it. It is read from the display name, and proved by the
    hash in the label.

    None if the name was cut or is the user's own, or if the job was bought from another staging folder.
    """
    found = re.fullmatch(r"(.+?)(?:\[(\d+)\])? (\S+)(?: repair \d+)?(?: \d+/\d+)?", job.display_name)
    if found is None:
        return None
    names, map_index, run_id = found.groups()
    # Both ids may have dots. The hash shows which dot separates them.
    for dot in (place for place, char in enumerate(names) if char == "."):
        identity = Identity(
            staging=str(staging),
            dag_id=names[:dot],
            task_id=names[dot + 1 :],
            run_id=run_id,
            map_index=int(map_index) if map_index else -1,
        )
        if identity.key == job.labels.get(IDENTITY_LABEL):
            return identity
    return None


class Sweeper:
    """Finds the jobs that were left behind in one project and location.

    :param staging: the staging folder whose logs are read.
    :param prices: the prices; if None, the table of this package.
    :param harvest: the folder for rows that no task will land; if None, nothing is harvested.
    :param ask: returns what is known about the run that owns a job.
    :param installation: the name of the Airflow that `ask` asks; None if it asks none.
    :param attempt: the token that is stored in the log entries of adoptions.
    :param now: returns aware UTC; if None, the store's own clock is used.
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
        """Yield a finding for each job of ours, newest first. Unless this is a dry run, its action has been done
        before.

        An error about one job is in its finding; the other jobs are still dealt with.

        :raises ServiceError: when the jobs could not be listed.
        """
        for job in [job for job in self._service.list({IDENTITY_LABEL: ANY_VALUE}) if is_ours(job)]:
            yield self._look_at(job, dry_run=dry_run)

    def _look_at(self, job: BatchJob, *, dry_run: bool) -> Finding:
        owner = named_owner(job, self._staging)
        finding = Finding(
            job_name=job.name,
            state=job.state_text or str(job.state),
            dag=owner.dag_id if owner else job.labels.get("airflow-dag", ""),
            task=owner.task_id if owner else job.labels.get("airflow-task", ""),
            run_id=owner.run_id if owner else "",
            buyer=job.labels.get(INSTALLATION_LABEL, ""),
            is_running=not job.state.is_final,
            age_hours=round(age(job, self._now()) / 3600, 1),
        )
        try:
            settled = settled_by_itself(job, self._now(), self._policy)
            log = self._log(job) if settled is None else None
            finding = _owned(finding, log)
            verdict, is_open = (settled, False) if settled is not None else self._verdict(job, log)
            action = type(verdict).__name__.lower()
            finding = msgspec.structs.replace(finding, action=action, why=verdict.why, is_open=is_open)
            if isinstance(verdict, Keep):
                return finding
            money = money_of(job, self._store, self._warehouse, self._prices)
            finding = msgspec.structs.replace(finding, money=money)
            return finding if dry_run else msgspec.structs.replace(finding, done=self._act(job, log, verdict))
        except VertexBatchError as error:
            return msgspec.structs.replace(finding, error=str(error))

    def _verdict(self, job: BatchJob, log: JobLog | None) -> tuple[SweepDecision, bool]:
        """Judge a job by its log and its run as they are now.

        :returns: the verdict, and whether it depends on a run whose state is not known.
        """
        identity, entries = (log.identity, log.entries()) if log is not None else (None, ())
        files = (*job.input_uris, job.output_uri)
        is_local = identity is not None or any(uri.startswith(f"{self._staging / ''}") for uri in files)

        def judged(owner: Owner) -> SweepDecision:
            now, installation = self._now(), self._installation
            return decide_sweep(
                job, entries, now, self._policy, owner=owner, is_local=is_local, installation=installation
            )

        hangs = len({type(judged(owner)) for owner in Owner}) > 1
        owner = self._ask(identity) if hangs and identity is not None else Owner.UNKNOWN
        verdict = judged(owner)
        if isinstance(verdict, Harvest) and self._is_harvested(job):
            return Keep("it was harvested already"), False
        return verdict, hangs and owner is Owner.UNKNOWN

    def _act(self, job: BatchJob, log: JobLog | None, verdict: SweepDecision) -> str:
        """Carry out the verdict if it is still right; return what was done."""
        job = self._service.get(job.job_name)
        if type(self._verdict(job, log)[0]) is not type(verdict):
            return "nothing: it has changed since it was looked at"
        match verdict:
            case Cancel():
                return "cancelled" if self._service.cancel(job.job_name) else "nothing: it had just ended"
            case Adopt() if log is not None:
                generation = job.labels.get(GENERATION_LABEL, "")
                entry = log.submission(job.labels[FINGERPRINT_LABEL], job.name, generation=generation)
                return "adopted" if log.append(entry) else "nothing: its task is writing the log"
            case Tell():
                return "nothing: only a person may cancel it"
        return self._harvest(job)

    def _harvest(self, job: BatchJob) -> str:
        """Land a job's rows in separate files. Doing it again replaces the files. The receipt shows that it is done.

        If rows are lost for good, the other rows land, as soon as the lost rows can no longer appear.

        :raises LostOutputError: while the rest of an output may still appear.
        """
        folder = self._folder(job)
        if folder is None:
            return "nothing: no folder was given to harvest to"
        lost = ""
        try:
            report = self._land(job, folder, OnLostOutput.FAIL)
        except LostOutputError as error:
            if ended_before(job, self._now()) < OUTPUT_SETTLE_SECONDS:
                raise
            lost, report = f". {error.what}", self._land(job, folder, OnLostOutput.LAND)
        self._store.write_new(folder / _RECEIPT, encode(report.as_dict()))
        return f"harvested {report.good_count:,} good rows to {report.destination}{lost}"

    def _land(self, job: BatchJob, folder: Uri, on_lost_output: OnLostOutput) -> Report:
        log, born = self._log(job), job.created_at or self._now()
        plan = LandPlan(
            batch_id=job.name, partition_date=born.date().isoformat(), run_id=log.identity.run_id if log else ""
        )
        rounds = [Round(manifest=None, jobs=(job,))]
        landing = Landing(
            rounds, self._store, self._warehouse, plan, prices=self._prices, on_lost_output=on_lost_output
        )
        return landing.land(Files(folder))

    def _is_harvested(self, job: BatchJob) -> bool:
        folder = self._folder(job)
        return folder is not None and self._store.read(folder / _RECEIPT) is not None

    def _folder(self, job: BatchJob) -> Uri | None:
        """Return the folder of one job's rows."""
        if self._harvest_to is None:
            return None
        labels = [safe_name(job.labels.get(name, "")) or "unknown" for name in ("airflow-dag", "airflow-task")]
        return self._harvest_to / "/".join((*labels, job.job_name.location, job.job_name.job_id))

    def _log(self, job: BatchJob) -> JobLog | None:
        """Return the log entries of a job; None if its owner is not known."""
        options: dict[str, Any] = {"now": self._now, "installation": self._installation or ""}
        found = BatchLog.of_label(self._store, self._staging, job.labels[IDENTITY_LABEL], self._attempt, **options)
        if found is None and (owner := named_owner(job, self._staging)) is not None:
            found = BatchLog(self._store, owner, self._attempt, **options)
        return None if found is None else found.of_job(part_of(job))


def _owned(finding: Finding, log: JobLog | None) -> Finding:
    """Take the owner from the log: a display name may be the author's own, and labels are cut."""
    if log is None:
        return finding
    who = log.identity
    return msgspec.structs.replace(finding, dag=who.dag_id, task=who.task_id, run_id=who.run_id)
