"""From finished jobs to a landed report: which job answered which file, which attempt counts, does the whole add up?

A batch is a list of rounds: the whole of it, then the rows that were sent again. Each row's best attempt lands, with
what all its attempts cost; a row whose request was sent under another key, or was answered by an earlier run, gets that
answer.

Invariants: every source row lands exactly once, whatever the number of rounds; memory does not grow with the rows,
since attempts that may be bettered wait on disk.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.address import JobName, TableId, Uri, model_id
from airflow_vertex_batch.core.collect import Batch, Collector, OnLostOutput
from airflow_vertex_batch.core.errors import InputError, JobError, ServiceError
from airflow_vertex_batch.core.estimate import estimate_cost
from airflow_vertex_batch.core.export import LandPlan, Sink, TableSink, land, rejected_rows
from airflow_vertex_batch.core.files import FileSink
from airflow_vertex_batch.core.given import items
from airflow_vertex_batch.core.jsonl import decode, encode
from airflow_vertex_batch.core.model import BatchJob, Manifest, Phase, Record
from airflow_vertex_batch.core.prepare import request_keys
from airflow_vertex_batch.core.prices import PriceTable
from airflow_vertex_batch.core.rows import ResultRow, RowStatus
from airflow_vertex_batch.core.schema import answer_checker
from airflow_vertex_batch.core.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_vertex_batch.core.answers import Answers
    from airflow_vertex_batch.core.ports import ObjectStore, Warehouse
    from airflow_vertex_batch.core.report import Report

log = logging.getLogger(__name__)


class Round(Record, frozen=True, kw_only=True):
    """One time of asking: what was asked, and the jobs that answered.

    :param manifest: None when the jobs' own input says what was asked.
    """

    manifest: Manifest | None
    jobs: tuple[BatchJob, ...]

    @property
    def asks_all_again(self) -> bool:
        """Whether it sends whatever had no answer before.

        One that completes an output does not: what that job did not come to has no line there. Nor does what was bought
        in the place of one job of many.
        """
        manifest = self.manifest
        return manifest is not None and manifest.round > 0 and not any(shard.resume_uri for shard in manifest.shards)


class Rounds:
    """The rows of a batch over all its rounds, each once, as its best attempt.

    :param check: says why a JSON answer does not fit the response schema.
    :param on_lost_output: what to do when an output does not hold what the service counted.
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
        self.rounds = tuple(rounds)
        self._store = store
        self._collectors = [Collector(store, warehouse, check, on_lost_output=on_lost_output) for _ in self.rounds]
        #: Good answers by the round they came from; complete once `rows` is exhausted.
        self.cured = [0] * len(self.rounds)

    @property
    def anomalies(self) -> dict[str, int]:
        """What the outputs held beside one line a request, added up over the rounds."""
        odd = [collector.anomalies for collector in self._collectors]
        return {name: sum(getattr(item, name) for item in odd) for name in type(odd[0]).__struct_fields__}

    @property
    def expected_count(self) -> int:
        """Requests in the input of the first round, as far as it has been read."""
        return self._collectors[0].expected_count

    def amiss(self) -> str:
        """Say which keys are missing or surplus, for totals that do not add up."""
        return self._collectors[0].amiss()

    def rows(self) -> Iterator[ResultRow]:
        """Yield each request's best attempt, with what its other attempts were billed."""
        if len(self.rounds) == 1:
            yield from self._counted(self._answers(0), 0)
            return
        with Shelf() as last, Shelf() as earlier:
            for number, later in enumerate(self.rounds[1:], start=1):
                for key in request_keys(later.manifest, self._store):
                    last.put(key, str(number).encode())
            for number in range(len(self.rounds)):
                yield from self._counted(self._settled(number, last, earlier), number)

    def _settled(self, number: int, last: Shelf, earlier: Shelf) -> Iterator[ResultRow]:
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
        """Yield one job's rows; those of a moved job name its model, by which they are priced, if nobody else did."""
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

        # Not a loop that yields: it would keep each row, which may be long, while it lands.
        return map(counted, rows)


_decode_row = msgspec.json.Decoder(ResultRow).decode


def better(before: ResultRow, now: ResultRow) -> ResultRow:
    """Return the better of two attempts at one request: a good answer, else any answer, else the later one.

    What belongs to the request stays, and what the other attempt was billed is remembered. Whether asking once more may
    help is for the later attempt to say.
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

    :raises InputError: when jobs and manifest do not belong together: landing would lose rows, or land none over many.
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
        # Of a moved job too: a row has its answer, whichever model gave it, and is not asked again by the next run.
        model = manifest.model or job.model
        found.append(Batch(job, (shard.uri,), shard.columns_uri, model=model, resumed=bool(shard.resume_uri)))
    return found


def _mismatch(what: str, why: str = "") -> InputError:
    todo = "Pass the manifest, and the jobs that were created from this manifest"
    return InputError(what, why=why, left="Nothing was landed", todo=todo)


def _is_other_model(asked: Round, job: BatchJob) -> bool:
    """Whether a job was moved to another model than its set was meant for."""
    meant = asked.manifest.model if asked.manifest is not None else ""
    return bool(meant and job.model) and _bare(meant) != _bare(job.model)


def _bare(model: str) -> str:
    """Return a model's id without its version: the service may spell the version out."""
    return model_id(model).partition("@")[0]


class Landing:
    """Everything between finished jobs and a report.

    :param schema: what answers are checked against; the manifest's own where None.
    :param answers: where the answers of earlier runs are, for a manifest that left those rows out.
    :param on_lost_output: what to do when an output does not hold what the service counted.
    """

    def __init__(
        self,
        rounds: Sequence[Round],
        store: ObjectStore,
        warehouse: Warehouse,
        plan: LandPlan,
        *,
        schema: dict[str, Any] | None = None,
        answers: Answers | None = None,
        prices: PriceTable | None = None,
        on_lost_output: OnLostOutput = OnLostOutput.FAIL,
    ) -> None:
        self._store, self._warehouse, self._plan, self._answers, self._prices = store, warehouse, plan, answers, prices
        self._manifest = rounds[0].manifest
        schema = schema or (self._manifest.response_schema if self._manifest else None)
        check = answer_checker(schema) if schema else None
        self._rounds = Rounds(rounds, store, warehouse, check, on_lost_output=on_lost_output)

    def files(self, folder: Uri, file_format: str) -> Sink:
        """Return a sink for files."""
        return FileSink(self._store, folder, self._plan, file_format)

    def table(self, table: TableId, dead: TableId, staging: Uri) -> Sink:
        """Return a sink for a table."""
        return TableSink(self._store, self._warehouse, table, dead, self._plan, staging)

    def land(self, sink: Sink) -> Report:
        """Land every row: those that were sent, those that were not, and those that were refused."""
        manifest = self._manifest
        rows = chain(
            self._with_duplicates(self._rounds.rows()),
            self._known_rows(),
            rejected_rows(self._store, manifest.rejected_uri if manifest else "", self._plan.run_id),
        )
        report = land(
            rows, sink, self._plan,
            expected=self._expected, prices=self._prices, model=self._model, amiss=self._rounds.amiss,
        )  # fmt: skip
        rounds = self._rounds.rounds
        return msgspec.structs.replace(
            report,
            jobs=tuple(job.name for asked in rounds for job in asked.jobs),
            rounds=list(self._round_facts()),
            estimate=self._estimate(),
            **self._rounds.anomalies,
        )

    def _estimate(self) -> dict[str, Any] | None:
        """What was estimated before the batch was bought, by the same figures."""
        if self._manifest is None or self._manifest.weight is None:
            return None
        created = (job.created_at for job in self._rounds.rounds[0].jobs if job.created_at is not None)
        bought = min(created, default=datetime.now(UTC))
        return estimate_cost(self._manifest, self._model, self._prices or PriceTable.shipped(), bought).as_dict()

    @property
    def _model(self) -> str:
        """The model that was asked."""
        asked = self._rounds.rounds[0]
        return (self._manifest.model if self._manifest else "") or (asked.jobs[0].model if asked.jobs else "")

    def _round_facts(self) -> Iterator[dict[str, int]]:
        for number, asked in enumerate(self._rounds.rounds):
            if number and asked.manifest is not None:
                yield {"round": number, "sent": asked.manifest.request_count, "cured": self._rounds.cured[number]}

    def _expected(self) -> int:
        """How many rows there must be: what prepare counted, or what the input files hold."""
        return self._manifest.row_count if self._manifest else self._rounds.expected_count

    def _with_duplicates(self, rows: Iterable[ResultRow]) -> Iterator[ResultRow]:
        """Yield every row, and behind it those whose request it was sent for too."""
        if self._manifest is None or not self._manifest.duplicate_count:
            yield from rows
            return
        with Shelf() as others:
            for line in self._side_lines(self._manifest.duplicates_uri):
                others.put(line["same_as"], encode(line))
            for row in rows:
                yield row
                for data in others.all(row.key):
                    other = decode(data)
                    yield msgspec.structs.replace(
                        row, key=other["key"], same_as=row.key, columns=other.get("columns"), usage=None, earlier=()
                    )

    def _known_rows(self) -> Iterator[ResultRow]:
        """Yield the rows that an earlier run has answered, and say so of those whose answer has gone since."""
        if self._manifest is None or not self._manifest.known_count:
            return
        with Shelf() as asked:
            for line in self._side_lines(self._manifest.known_uri):
                asked.put(line["request_digest"], encode(line))
            for answer in self._answers.rows() if self._answers is not None else ():
                for data in asked.take(answer.request_digest):
                    line = decode(data)
                    yield msgspec.structs.replace(answer, key=line["key"], columns=line.get("columns"))
            for digest, data in asked.items():
                line = decode(data)
                yield ResultRow(
                    key=line["key"],
                    status=RowStatus.MISSING,
                    code="ANSWER_GONE",
                    reason="Its answer of an earlier run is no longer at the destination",
                    columns=line.get("columns"),
                    request_digest=digest,
                    attempts=0,
                )

    def _side_lines(self, uri: str) -> Iterator[dict[str, Any]]:
        with self._store.open_read(Uri.parse(uri)) as stream:
            yield from map(decode, stream)


def read_jobs(jobs: Any, get: Callable[[JobName], BatchJob]) -> tuple[BatchJob, ...]:
    """Return the jobs a task was given, as they are now: one that was stored may not have named its output yet."""
    return tuple(
        _as_it_is_now(BatchJob.from_dict(item), get) if isinstance(item, dict) else get(JobName.parse(item))
        for item in items(jobs)
    )


def read_round(value: Any, get: Callable[[JobName], BatchJob]) -> Round:
    """Return a round that a task was given, with its jobs as they are now."""
    stored = Round.from_dict(value)
    return msgspec.structs.replace(stored, jobs=tuple(_as_it_is_now(job, get) for job in stored.jobs))


def _as_it_is_now(job: BatchJob, get: Callable[[JobName], BatchJob]) -> BatchJob:
    """Ask for a job; where that cannot be done, what is known of it must do: its output is compared with it."""
    try:
        return get(job.job_name)
    except ServiceError as error:
        log.warning("%s is taken as it was when it ended: %s", job.name, error)
        return job


def badly_ended(rounds: Sequence[Round]) -> list[BatchJob]:
    """Return the jobs that did not end well, and whose end no later round has made good."""
    since = max((number for number, asked in enumerate(rounds) if asked.asks_all_again), default=0)
    jobs = [job for asked in rounds[since:] for job in asked.jobs]
    return [job for job in jobs if job.state.phase not in {Phase.SUCCEEDED, Phase.PARTIAL}]


def refuse_bad_end(rounds: Sequence[Round], report: Report) -> None:
    """Fail when a job did not end well and left rows without an answer, although what it answered has been landed.

    :raises JobError: naming the first such job.
    """
    if not report.unanswered_count:
        return
    for job in badly_ended(rounds):
        raise JobError(
            f"{job.name} ended as {job.state_text or job.state}",
            job_name=job.name,
            state=str(job.state),
            retryable=False,
            why=job.error_message,
            left=f"What it answered has landed: {report.summary()}",
            todo="Clear the repair task, or VertexBatchOperator, to send only the rest; or look at the dead letters",
        )
