"""What can happen to a batch? One type for each kind of entry in its log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from airflow_vertex_batch.core.domain.manifest import Manifest

#: The time of an entry that has not been written yet.
_NOT_YET = datetime.min.replace(tzinfo=UTC)


class Part(msgspec.Struct, frozen=True, order=True):
    """The number of a job in its batch. Each job answers one request file of one round.

    :param round: 0 for the batch itself, n for its repair round n.
    :param shard: the number of the request file.
    """

    round: int = 0
    shard: int = 0


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True):
    """One entry of the log. `BatchLog.append` adds the members below.

    :param attempt: ``TRY:ID``, Airflow's number and id of the try.
    :param writer: identifies the process. Airflow may start an attempt again although the old process still runs.
    :param at: when it was written, aware UTC, by the store's own clock.
    :param installation: the name of the Airflow that wrote it.
    """

    attempt: str = ""
    writer: str = ""
    at: datetime = _NOT_YET
    installation: str = ""

    def is_of(self, other: Entry) -> bool:
        """Whether the same process wrote both."""
        return (self.attempt, self.writer) == (other.attempt, other.writer)


class JobEntry(Entry, frozen=True, kw_only=True):
    """An event of one job of the batch.

    :param fingerprint: identifies the purchase: requests, model and output.
    """

    round: int = 0
    shard: int = 0
    fingerprint: str

    @property
    def part(self) -> Part:
        """The number of the job in its batch."""
        return Part(self.round, self.shard)


class Intent(JobEntry, frozen=True, kw_only=True, tag="intent"):
    """Written before the create call. From now on a job may exist."""


class Submission(JobEntry, frozen=True, kw_only=True, tag="submission"):
    """Written after the create call, or when a job was found and adopted.

    :param replaces: the job that this job replaces, if any.
    :param generation: the generation of the task in which the job was bought; a clear begins a new one.
    """

    job_name: str
    replaces: str = ""
    generation: str = ""


class Refusal(JobEntry, frozen=True, kw_only=True, tag="refusal"):
    """Written when the service refused the create call for certain: there is no job of this intent."""

    reason: str


class Moved(JobEntry, frozen=True, kw_only=True, tag="moved"):
    """Written before a job is cancelled because it queues for too long. When the job has ended without a row, its
    requests are bought elsewhere.

    :param fingerprint: identifies the purchase at its first place.
    :param job_name: the job that is given up.
    :param location: the new location, or empty for the task's own location.
    :param model: the new model, or empty for the task's own model. If both are empty, another task buys the requests,
        and this task's result is the job that was given up.
    :param generation: as in `Submission`.
    """

    job_name: str
    location: str = ""
    model: str = ""
    generation: str = ""


class Begun(Entry, frozen=True, kw_only=True, tag="begun"):
    """The batch begins, or goes on after a clear.

    :param base: the manifest of the whole batch, from which it begins.
    :param generation: changes when a person clears the task; retries share it.
    :param since: the generation in which the batch began again. Its jobs are marked with it.
    :param upstream: the generation of the task whose jobs are taken over, or empty.
    :param rounds: the number of repair rounds that may be made from now on.
    :param jobs: digest of the jobs that are taken over, or empty.
    :param files: digest of the request files of `base`. Sets with the same digest ask the same requests.
    :param rows: how many requests `base` has.
    """

    base: str
    generation: str
    since: str = ""
    upstream: str = ""
    rounds: int = 0
    jobs: str = ""
    files: str = ""
    rows: int = 0

    def goes_on(self, before: Begun) -> bool:
        """Whether the rounds since `before` still count, because requests and jobs are the same."""
        return self.asks_as(before) and (self.since, self.jobs) == (before.since, before.jobs)

    def asks_as(self, before: Begun) -> bool:
        """Whether the requests are the same."""
        return self.base == before.base or bool(self.files and self.files == before.files)


class Repair(Entry, frozen=True, kw_only=True, tag="repair"):
    """A repair round was decided. From now on its jobs may exist.

    :param manifest_uri: the requests of the round.
    :param base: the set of the whole batch. Some of its rows are sent again.
    :param resume_uri: the output file that the round's job completes, or empty.
    :param rows: how many rows are sent again.
    """

    manifest_uri: str
    base: str
    resume_uri: str = ""
    rows: int = 0


class Prepared(Entry, frozen=True, kw_only=True, tag="prepared"):
    """Request files were written. Another task buys the jobs.

    :param base: the manifest.
    :param rows: rows of the source; `requests`: rows to send; `rejected`: rows that lint refused.
    """

    base: str
    rows: int
    requests: int
    rejected: int = 0

    @classmethod
    def of(cls, manifest: Manifest) -> Prepared:
        """Make the entry for a set."""
        return cls(
            base=manifest.uri, rows=manifest.row_count, requests=manifest.request_count,
            rejected=manifest.rejected_count,
        )  # fmt: skip


class Asked(Entry, frozen=True, kw_only=True, tag="asked"):
    """A person was asked whether money may be spent.

    :param question: as in `Answered`.
    :param text: the question.
    """

    question: str
    text: str


class End(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a job ended, for people. The program itself always asks the service."""

    job_name: str
    state: str
    answered: int = 0
    failed: int = 0


class Ended(Entry, frozen=True, kw_only=True, tag="ended"):
    """The jobs of a round were seen to have ended.

    :param round: 0 for the batch itself.
    """

    round: int = 0
    jobs: tuple[End, ...] = ()


class Landed(Entry, frozen=True, kw_only=True, tag="landed"):
    """The answers have landed.

    :param destination: where they landed.
    :param rows: the number of rows, by status.
    :param cost_usd: what was billed, US dollars, as text; empty if it is not known.
    :param rounds: repair rounds that were made.
    """

    destination: str
    rows: dict[str, int]
    cost_usd: str = ""
    rounds: int = 0


class Answered(Entry, frozen=True, kw_only=True, tag="answered"):
    """A person was asked whether money may be spent, and has answered.

    :param question: digest of the question: requests, model and cost.
    :param approved: whether it may be spent.
    :param by: the person's name.
    :param generation: the generation of the task in which the person was asked.
    """

    question: str
    approved: bool
    by: str
    generation: str = ""


AnyEntry = Intent | Submission | Refusal | Moved | Prepared | Begun | Repair | Asked | Answered | Ended | Landed
