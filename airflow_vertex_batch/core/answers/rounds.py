"""What is the result of a batch and its repair rounds? For each row, the best answer of all rounds."""

from __future__ import annotations

import logging
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.answers.collect import Batch, Collector, OnLostOutput
from airflow_vertex_batch.core.domain.address import JobName, TableId, Uri, model_id
from airflow_vertex_batch.core.domain.disk_multimap import DiskMultimap
from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.core.domain.job import BatchJob, Phase
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.domain.manifest import Manifest
from airflow_vertex_batch.core.domain.record import Record
from airflow_vertex_batch.core.domain.row import ResultRow
from airflow_vertex_batch.core.domain.upstream_value import items
from airflow_vertex_batch.core.requests.prepare import request_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from airflow_vertex_batch.core.domain.ports import ObjectStore, Warehouse

log = logging.getLogger(__name__)


class Round(Record, frozen=True, kw_only=True):
    """One round: the requests that were sent, and the jobs that answer them.

    :param manifest: the requests; None if the input of the jobs has them.
    """

    manifest: Manifest | None
    jobs: tuple[BatchJob, ...]

    @property
    def asks_all_again(self) -> bool:
        """Whether the round sends all rows that had no answer before.

        A round that completes an output does not: rows that the earlier job did not reach have no line in that output.
        A round that replaces one of several jobs does not either.
        """
        manifest = self.manifest
        return manifest is not None and manifest.round > 0 and not any(shard.resume_uri for shard in manifest.shards)


class Rounds:
    """The rows of a batch over all its rounds: each row once, with its best answer.

    :param check: returns why a JSON answer does not fit the response schema.
    :param on_lost_output: what to do when an output has fewer rows than the service counted.
    """

    def __init__(
        self,
        rounds: Sequence[Round],
        store: ObjectStore,
        warehouse: Warehouse,
        check: Callable[[Any], str] | None = None,
        *,
        on_lost_output: OnLostOutput = OnLostOutput.FAIL,
    ) -> None:
        self.rounds, self.check = tuple(rounds), check
        self._store, self._warehouse = store, warehouse
        self._collectors = [Collector(store, warehouse, check, on_lost_output=on_lost_output) for _ in self.rounds]
        #: Number of good answers by the round that they came from; complete when `rows` has been read to the end.
        self.cured = [0] * len(self.rounds)

    @property
    def anomalies(self) -> dict[str, int]:
        """The odd lines of all outputs, added up over the rounds."""
        odd = [collector.anomalies for collector in self._collectors]
        return {name: sum(getattr(item, name) for item in odd) for name in type(odd[0]).__struct_fields__}

    @property
    def expected_count(self) -> int:
        """The number of requests in the input of the first round, as far as it has been read."""
        return self._collectors[0].expected_count

    @property
    def ended_at(self) -> datetime | None:
        """When the last job ended, or was created: rows that do not say when they were answered are priced by that day,
        whenever they land.
        """
        return last_end(self.rounds)

    def output_states(self, count: int) -> list[object]:
        """Return what the outputs of the first rounds consist of. It changes when a line comes or goes, as it may after
        a job was cancelled.
        """
        return [self._output_state(job.output_uri) for asked in self.rounds[:count] for job in asked.jobs]

    def _output_state(self, output_uri: str) -> object:
        if output_uri.startswith("bq://"):
            return self._warehouse.count(TableId.parse(output_uri))
        found = self._store.list(Uri.parse(output_uri) / "") if output_uri else ()
        return [(str(info.uri), info.size_bytes, info.checksum) for info in found]

    def key_mismatch_text(self) -> str:
        """Return which keys are missing or surplus, for totals that do not add up."""
        return self._collectors[0].key_mismatch_text()

    def rows(self) -> Iterator[ResultRow]:
        """Yield the best answer to each request, together with the bills of its other attempts."""
        if len(self.rounds) == 1:
            yield from self._counted(self._answers(0), 0)
            return
        with DiskMultimap() as last, DiskMultimap() as earlier:
            for number, later in enumerate(self.rounds[1:], start=1):
                for key in request_keys(later.manifest, self._store):
                    last.put(key, str(number).encode())
            for number in range(len(self.rounds)):
                yield from self._counted(self._settled(number, last, earlier), number)

    def last_answers(self) -> Iterator[ResultRow]:
        """Yield the answers of the last round alone."""
        number = len(self.rounds) - 1
        return self._counted(self._answers(number), number)

    def _settled(self, number: int, last: DiskMultimap, earlier: DiskMultimap) -> Iterator[ResultRow]:
        """Yield the rows of one round that were not sent again; put the others aside."""
        for answer in self._answers(number):
            row = answer
            for data in earlier.take(row.key):
                row = better(_decode_row(data), row)
            if int(last.last(row.key) or 0) > number:
                earlier.put(row.key, encode(row))
            else:
                yield row

    def _answers(self, number: int) -> Iterator[ResultRow]:
        asked, collector = self.rounds[number], self._collectors[number]
        return chain.from_iterable(self._of_batch(asked, batch, collector) for batch in batches(asked))

    @staticmethod
    def _of_batch(asked: Round, batch: Batch, collector: Collector) -> Iterator[ResultRow]:
        """Yield the rows of one job. A row of a moved job that names no model gets the model of the job,
        for its price.
        """
        rows = collector.rows(batch)
        if not _is_other_model(asked, batch.job):
            return rows
        model = model_id(batch.job.model)
        return (
            row if row.model_version or not row.response else msgspec.structs.replace(row, model_version=model)
            for row in rows
        )

    def _counted(self, rows: Iterable[ResultRow], number: int) -> Iterator[ResultRow]:
        def counted(row: ResultRow) -> ResultRow:
            self.cured[number] += row.status.is_good
            return row

        # `map`, not a loop with `yield`: the loop would keep each row, which may be long, in memory while the row
        # lands.
        return map(counted, rows)


_decode_row = msgspec.json.Decoder(ResultRow).decode


def better(before: ResultRow, now: ResultRow) -> ResultRow:
    """Return the better of two attempts at one request: a good answer, else any answer, else the later one.

    The members of the request stay, and the bill of the other attempt is kept. The later attempt decides whether
    another try may help.
    """
    best, other = (before, now) if _worth(before) > _worth(now) else (now, before)
    billed = (*before.earlier, *now.earlier, *((other.usage,) if other.usage is not None else ()))
    return msgspec.structs.replace(
        best,
        columns=before.columns,
        request_digest=before.request_digest,
        attempts=before.attempts + now.attempts,
        repairable=now.repairable and not best.status.is_good,
        earlier=billed,
    )


def _worth(row: ResultRow) -> int:
    return 2 if row.status.is_good else 1 if row.response else 0


def batches(asked: Round) -> list[Batch]:
    """Return each job with the requests it answers.

    :raises InputError: when jobs and manifest do not belong together. Landing would then lose rows, or replace many
        rows by none.
    """
    manifest = asked.manifest
    if manifest is None:
        if not asked.jobs:
            raise _mismatch("There is neither a job nor a manifest", "an empty night has a manifest that says so")
        return [Batch(job, job.input_uris) for job in asked.jobs]
    by_input = {job.input_uris: job for job in asked.jobs}
    inputs = {(shard.resume_uri or shard.uri,) for shard in manifest.shards}
    for other in asked.jobs:
        if other.input_uris not in inputs:
            raise _mismatch(f"{other.name} answers no file of manifest {manifest.uri}")
    found = []
    for shard in manifest.shards:
        job = by_input.get((shard.resume_uri or shard.uri,))
        if job is None:
            raise _mismatch(f"No job answers {shard.uri} of manifest {manifest.uri}")
        # The manifest's model, for a moved job too: a row that another model answered is not sent again by the next
        # run.
        model = manifest.model or job.model
        found.append(Batch(job, (shard.uri,), shard.columns_uri, model=model, resumed=bool(shard.resume_uri)))
    return found


def _mismatch(what: str, why: str = "") -> InputError:
    todo = "Pass the manifest, and the jobs that were created from this manifest"
    return InputError(what, why=why, left="Nothing was landed", todo=todo)


def _is_other_model(asked: Round, job: BatchJob) -> bool:
    """Whether a job was moved to a model that is not the model of its set."""
    meant = asked.manifest.model if asked.manifest is not None else ""
    return bool(meant and job.model) and _bare(meant) != _bare(job.model)


def _bare(model: str) -> str:
    """Return a model's id without its version, because the service may add the version."""
    return model_id(model).partition("@")[0]


def last_end(rounds: Iterable[Round]) -> datetime | None:
    """Return when the last job of some rounds ended or, where that is not known, was created."""
    jobs = (job for asked in rounds for job in asked.jobs)
    known = (at for job in jobs if (at := job.ended_at or job.created_at) is not None)
    return max(known, default=None)


def read_jobs(jobs: Any, get: Callable[[JobName], BatchJob]) -> tuple[BatchJob, ...]:
    """Return the jobs that a task was given, as they are now. A stored job may not have had its output address yet."""
    return tuple(
        _as_it_is_now(BatchJob.from_dict(item), get) if isinstance(item, dict) else get(JobName.parse(item))
        for item in items(jobs)
    )


def read_round(value: Any, get: Callable[[JobName], BatchJob]) -> Round:
    """Return the round that a task was given, with its jobs as they are now."""
    stored = Round.from_dict(value)
    return msgspec.structs.replace(stored, jobs=tuple(_as_it_is_now(job, get) for job in stored.jobs))


def _as_it_is_now(job: BatchJob, get: Callable[[JobName], BatchJob]) -> BatchJob:
    """Ask for a job. If that fails, use the stored job: its output will be compared with its counts."""
    try:
        return get(job.job_name)
    except ServiceError as error:
        log.warning("%s is taken as it was when it ended: %s", job.name, error)
        return job


def badly_ended(rounds: Sequence[Round]) -> list[BatchJob]:
    """Return the jobs that did not end well, if no later round has sent their unanswered rows again."""
    since = max((number for number, asked in enumerate(rounds) if asked.asks_all_again), default=0)
    jobs = [job for asked in rounds[since:] for job in asked.jobs]
    return [job for job in jobs if job.state.phase not in {Phase.SUCCEEDED, Phase.PARTIAL}]


def shard_of(manifest: Manifest, job: BatchJob) -> int:
    """Return the number of the request file that a job answers.

    :raises InputError: when it answers none of them.
    """
    for number, shard in enumerate(manifest.shards):
        if job.input_uris == ((shard.resume_uri or shard.uri),):
            return number
    raise InputError(f"{job.name} answers no file of {manifest.uri}", todo="Pass the jobs made from this manifest")


def taken_over(base: Manifest, given: Sequence[BatchJob], jobs: Sequence[BatchJob]) -> Round | None:
    """Return the jobs that were bought to replace another task's jobs, as a round; None if there are none.

    :param given: the jobs of the other task.
    :param jobs: the jobs that the batch has in the end.
    """
    known = {job.name for job in given}
    bought = sorted((shard_of(base, job), job.name) for job in jobs if job.name not in known)
    if not bought:
        return None
    shards = tuple(base.shards[number] for number, _ in bought)
    count = sum(shard.request_count for shard in shards)
    part = msgspec.structs.replace(base, shards=shards, request_count=count)
    return Round(manifest=part, jobs=tuple(job for job in jobs if job.name not in known))
