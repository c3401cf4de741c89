"""Whose job is it, and may this Airflow cancel it without asking a person? The log of the staging folder says so.

A job is found by its labels. But labels only say what the creator of the job wanted; another Airflow may have written
them. So a job is cancelled only if the log names it. That is the case if a submission has its name, or if an intent to
buy exactly this job explains it: the creator may have died before it wrote the name. A job that another Airflow bought
belongs to that Airflow, even if both write into one log.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.domain.address import JobName
from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.core.domain.job import BatchJob
from airflow_vertex_batch.core.purchase.entries import Intent, JobEntry, Part, Submission

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_vertex_batch.core.domain.address import Uri
    from airflow_vertex_batch.core.domain.identity import Identity
    from airflow_vertex_batch.core.domain.ports import JobService

log = logging.getLogger(__name__)

#: Job label with the identity of the batch, so that the service can be asked for its jobs.
IDENTITY_LABEL = "avb-identity"
FINGERPRINT_LABEL = "avb-fingerprint"
#: Job labels with the number of the job in its batch. A bill can be split by the round.
ROUND_LABEL, SHARD_LABEL = "avb-round", "avb-shard"
#: Job label that distinguishes a job that was bought after a clear from the job before it.
GENERATION_LABEL = "avb-generation"
#: Job label with the name of the Airflow that bought it, so that a bill can be split.
INSTALLATION_LABEL = "avb-installation"
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Claim(StrEnum):
    """Whose a job is that this Airflow found. It decides whether the job may be cancelled."""

    #: The log names it, and this Airflow bought it: it may be cancelled.
    OURS = "ours"
    #: Another Airflow bought it.
    ANOTHERS = "anothers"
    #: No entry in the log explains it: its record was lost, or somebody copied its labels.
    UNNAMED = "unnamed"


class LeftRunning(msgspec.Struct, frozen=True):
    """A running job that is not cancelled, although another job is used for its task. A person must look at it."""

    job: BatchJob
    claim: Claim
    buyer: str = ""

    def text(self, log_folder: Uri) -> str:
        """Return a text: which job runs, why it is not cancelled, and what a person can do."""
        reasons = {
            Claim.ANOTHERS: f"installation {self.buyer} bought it",
            Claim.UNNAMED: f"no entry in {log_folder} names it",
        }
        return (
            f"{self.job.name} ({self.job.display_name}) runs for other input of this task, and bills. It was not "
            f"cancelled, because {reasons[self.claim]}. Cancel it in the console if nobody waits for it"
        )


def labels_of(identity: Identity, part: Part) -> dict[str, str]:
    """Return the labels by which a job is found again: the identity of the batch, and the number of the job in it."""
    return {IDENTITY_LABEL: identity.key, ROUND_LABEL: str(part.round), SHARD_LABEL: str(part.shard)}


def part_of(job: BatchJob) -> Part:
    """Return the number of a job in its batch, from its labels."""
    numbers = (job.labels.get(name, "0") for name in (ROUND_LABEL, SHARD_LABEL))
    return Part(*(int(number) if number.isdecimal() else 0 for number in numbers))


def look_up(service: JobService, labels: Mapping[str, str], entries: Sequence[JobEntry]) -> list[BatchJob]:
    """Return every job with these labels, newest first: the jobs that the list shows, and those that the log names."""
    jobs = list(service.list(labels))
    known = {job.name for job in jobs}
    for entry in entries:
        if isinstance(entry, Submission) and entry.job_name not in known:
            try:
                jobs.append(service.get(JobName.parse(entry.job_name)))
            except ServiceError as error:
                if not error.is_not_found:
                    raise
            known.add(entry.job_name)
    # Jobs that are missing in the list are put at their place by age, because the newest of several jobs is used.
    place = {entry.job_name: number for number, entry in enumerate(entries) if isinstance(entry, Submission)}
    return sorted(jobs, key=lambda job: (job.created_at or _LONG_AGO, place.get(job.name, -1)), reverse=True)


def record_of(job: BatchJob, entries: Iterable[JobEntry]) -> Submission | None:
    """Return the last record of a job's name, if there is one."""
    found = [entry for entry in entries if isinstance(entry, Submission) and entry.job_name == job.name]
    return found[-1] if found else None


def fingerprint_of(job: BatchJob, record: Submission | None) -> str:
    """Return the fingerprint of the purchase that a job belongs to. The log counts more than the job's labels."""
    return record.fingerprint if record else job.labels.get(FINGERPRINT_LABEL, "")


def intents_of(job: BatchJob, entries: Iterable[JobEntry]) -> list[Intent]:
    """Return the intents that explain a job whose name is not in the log."""
    fingerprint = job.labels.get(FINGERPRINT_LABEL, "")
    return [entry for entry in entries if isinstance(entry, Intent) and entry.fingerprint == fingerprint]


def buyer_of(job: BatchJob, entries: Sequence[JobEntry]) -> str:
    """Return the name of the Airflow that bought a job, or an empty text.

    The label has it. If the service lost the label, the first record of the job's name has it, or else the last intent
    to buy it.
    """
    if label := job.labels.get(INSTALLATION_LABEL):
        return label
    records = [entry for entry in entries if isinstance(entry, Submission) and entry.job_name == job.name]
    sources = [*records[:1], *intents_of(job, entries)[-1:]]
    return sources[0].installation if sources else ""


def claim_on(job: BatchJob, entries: Sequence[JobEntry], installation: str) -> Claim:
    """Return whose job it is.

    :param entries: the log entries of the job.
    :param installation: the name of this Airflow.
    """
    if buyer_of(job, entries) not in {"", installation}:
        return Claim.ANOTHERS
    is_named = record_of(job, entries) is not None or bool(intents_of(job, entries))
    return Claim.OURS if is_named else Claim.UNNAMED


def split_by_claim(
    jobs: Iterable[BatchJob], entries: Sequence[JobEntry], installation: str
) -> tuple[tuple[str, ...], tuple[LeftRunning, ...]]:
    """Split running jobs: first the names of those that may be cancelled, then those that must not be."""
    claims = [(job, claim_on(job, entries, installation)) for job in jobs]
    cancel = tuple(job.name for job, claim in claims if claim is Claim.OURS)
    left_running = (LeftRunning(job, claim, buyer_of(job, entries)) for job, claim in claims if claim is not Claim.OURS)
    return cancel, tuple(left_running)


def warn_about(left_running: Iterable[LeftRunning], log_folder: Uri) -> None:
    """Log a warning for each job that is not cancelled."""
    for each in left_running:
        log.warning("%s.", each.text(log_folder))


def others_at_work(entries: Iterable[JobEntry], installation: str) -> tuple[str, ...]:
    """Return the names of other Airflows that wrote into a log, in the order of their first entries."""
    names = dict.fromkeys(entry.installation for entry in entries)
    return tuple(name for name in names if name not in {"", installation})


def sharing_text(names: Sequence[str], installation: str, log_folder: Uri) -> str:
    """Return the text that two Airflows share a staging folder, what that means, and what to do."""
    others = " and ".join(names)
    return (
        f"{others} has written {log_folder} too, and this Airflow is {installation}: they share a staging folder. One "
        "job answers for both while their input is the same, and neither cancels the other's jobs. Give each Airflow a "
        f"staging folder of its own. If both names are this Airflow's, set [vertex_batch] installation to {names[0]}"
    )
