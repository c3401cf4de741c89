"""What can happen to a batch? One type for each kind of entry in its log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from airflow_vertex_batch.core.domain.manifest import Manifest

#: The time of an entry that is not written yet.
_NOT_YET = datetime.min.replace(tzinfo=UTC)


class Part(msgspec.Struct, frozen=True, order=True):
    """Which of a batch's jobs: one answers one request file of one round.

    :param round: 0 for the batch itself, n for its repair round n.
    :param shard: the number of the request file.
    """

    round: int = 0
    shard: int = 0


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True):
    """One line of the log. `BatchLog.append` stamps it.

    :param attempt: ``TRY:ID``, Airflow's number and id of the try.
    :param writer: the process: an attempt that Airflow has lost sight of may run twice.
    :param at: when, aware UTC, by the store's own clock.
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
    """What happened to one job of the batch.

    :param fingerprint: of what is bought: requests, model and output.
    """

    round: int = 0
    shard: int = 0
    fingerprint: str

    @property
    def part(self) -> Part:
        """Which job."""
        return Part(self.round, self.shard)


class Intent(JobEntry, frozen=True, kw_only=True, tag="intent"):
    """Written before the create call: from here on a job may exist."""


class Submission(JobEntry, frozen=True, kw_only=True, tag="submission"):
    """Written after the create call, or when a job was found and adopted.

    :param replaces: the job whose place this one takes, if any.
    :param generation: in which clear of its task it was bought.
    """

    job_name: str
    replaces: str = ""
    generation: str = ""


class Refusal(JobEntry, frozen=True, kw_only=True, tag="refusal"):
    """Written when the service definitely refused the create call: the intent before it left no job."""

    reason: str


class Moved(JobEntry, frozen=True, kw_only=True, tag="moved"):
    """Written before a job that queues for too long is cancelled: once it has ended without a row, its requests are
    bought elsewhere.

    :param fingerprint: of the purchase at its first place.
    :param job_name: the job that is given up.
    :param location: where to instead, or empty for the task's own location.
    :param model: the same for the model. With both empty another task buys them, and the job given up stays the answer
        of this one.
    :param generation: as of a submission.
    """

    job_name: str
    location: str = ""
    model: str = ""
    generation: str = ""


class Begun(Entry, frozen=True, kw_only=True, tag="begun"):
    """The batch begins, or goes on after a clear.

    :param base: what it begins from: the manifest of the whole batch.
    :param generation: changes when a person clears the task; retries share it.
    :param since: the generation in which it began anew: what its jobs are marked with.
    :param upstream: the generation of the task whose jobs are taken over, or empty.
    :param rounds: repair rounds that may be made from here on.
    :param jobs: digest of the jobs that are taken over, or empty.
    :param files: digest of the request files of `base`: sets that differ beside them are asked the same.
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
        """Whether the rounds made since `before` say something about this: they are of the same requests and jobs."""
        return self.asks_as(before) and (self.since, self.jobs) == (before.since, before.jobs)

    def asks_as(self, before: Begun) -> bool:
        """Whether the requests are the same."""
        return self.base == before.base or bool(self.files and self.files == before.files)


class Repair(Entry, frozen=True, kw_only=True, tag="repair"):
    """A repair round was decided: from here on its jobs may exist.

    :param manifest_uri: what is asked.
    :param base: the set of the whole batch, of which rows go again.
    :param resume_uri: the output file that its job completes, or empty.
    :param rows: how many rows go again.
    """

    manifest_uri: str
    base: str
    resume_uri: str = ""
    rows: int = 0


class Prepared(Entry, frozen=True, kw_only=True, tag="prepared"):
    """Request files were written for another task, which buys them.

    :param base: the manifest.
    :param rows: rows of the source; `requests`: of them to be sent; `rejected`: of them refused by lint.
    """

    base: str
    rows: int
    requests: int
    rejected: int = 0

    @classmethod
    def of(cls, manifest: Manifest) -> Prepared:
        """Make the entry of a set."""
        return cls(
            base=manifest.uri, rows=manifest.row_count, requests=manifest.request_count,
            rejected=manifest.rejected_count,
        )  # fmt: skip


class Asked(Entry, frozen=True, kw_only=True, tag="asked"):
    """A person was asked whether money may be spent.

    :param question: as of `Answered`.
    :param text: what was asked.
    """

    question: str
    text: str


class End(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a job ended, for people: what counts is what the service says when it is asked."""

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

    :param destination: where.
    :param rows: how many, by status.
    :param cost_usd: what was billed, US dollars, as text; empty where that is not known.
    :param rounds: repair rounds that were made.
    """

    destination: str
    rows: dict[str, int]
    cost_usd: str = ""
    rounds: int = 0


class Answered(Entry, frozen=True, kw_only=True, tag="answered"):
    """A person was asked whether money may be spent, and has answered.

    :param question: digest of what was asked: requests, model and figure.
    :param approved: whether it may be spent.
    :param by: the person's name.
    :param generation: the clear of the task in which it was asked.
    """

    question: str
    approved: bool
    by: str
    generation: str = ""


AnyEntry = Intent | Submission | Refusal | Moved | Prepared | Begun | Repair | Asked | Answered | Ended | Landed
