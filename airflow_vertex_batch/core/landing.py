"""From finished jobs to a landed report: which job answered which file, and does the whole add up?"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.address import JobName, TableId, Uri
from airflow_vertex_batch.core.collect import Batch, Collector
from airflow_vertex_batch.core.errors import InputError, JobError
from airflow_vertex_batch.core.export import FileSink, LandPlan, Sink, TableSink, land, rejected_rows
from airflow_vertex_batch.core.model import BatchJob, Manifest, Phase
from airflow_vertex_batch.core.schema import answer_checker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_vertex_batch.core.ports import ObjectStore, Warehouse
    from airflow_vertex_batch.core.report import Report


def job_names(jobs: Any) -> list[JobName]:
    """Return the names in what a task was given: one name, names, or the small dicts of the sensor.

    :raises InputError: when it is none of these.
    """
    items = [jobs] if isinstance(jobs, str | dict) else list(jobs or ())
    return [JobName.parse(item["name"] if isinstance(item, dict) else item) for item in items]


class Landing:
    """Everything between finished jobs and a report.

    :param schema: what answers are checked against; the manifest's own where None.
    """

    def __init__(
        self,
        store: ObjectStore,
        warehouse: Warehouse,
        plan: LandPlan,
        manifest: Manifest | None,
        schema: dict[str, Any] | None = None,
    ) -> None:
        self._store, self._warehouse, self._plan, self._manifest = store, warehouse, plan, manifest
        schema = schema or (manifest.response_schema if manifest else None)
        self._collector = Collector(store, warehouse, answer_checker(schema) if schema else None)

    def files(self, folder: Uri, file_format: str) -> Sink:
        """Return a sink for files."""
        return FileSink(self._store, folder, self._plan, file_format)

    def table(self, table: TableId, dead: TableId, staging: Uri) -> Sink:
        """Return a sink for a table."""
        return TableSink(self._store, self._warehouse, table, dead, self._plan, staging)

    def land(self, jobs: Sequence[BatchJob], sink: Sink) -> Report:
        """Land every row of `jobs`, and of the rows that were never sent."""
        batches = self._batches(jobs)
        rejected = rejected_rows(self._store, self._manifest.rejected_uri if self._manifest else "")
        rows = chain(chain.from_iterable(map(self._collector.rows, batches)), rejected)
        report = land(rows, sink, self._plan, expected=self._expected, amiss=self._collector.amiss)
        odd = self._collector.anomalies
        return msgspec.structs.replace(
            report,
            jobs=tuple(job.name for job in jobs),
            duplicate_count=odd.duplicate_count,
            foreign_count=odd.foreign_count,
            rejoined_count=odd.rejoined_count,
        )

    def _expected(self) -> int:
        """How many rows there must be: what prepare counted, or what the input files hold."""
        return self._manifest.row_count if self._manifest else self._collector.expected_count

    def _batches(self, jobs: Sequence[BatchJob]) -> list[Batch]:
        if self._manifest is None:
            return [Batch(job, job.input_uris) for job in jobs]
        by_input = {job.input_uris: job for job in jobs}
        batches = []
        for shard in self._manifest.shards:
            job = by_input.get((shard.uri,))
            if job is None:
                raise InputError(
                    f"No job answers {shard.uri} of manifest {self._manifest.uri}",
                    left="Nothing was landed",
                    todo="Pass the jobs that were created from this manifest",
                )
            batches.append(Batch(job, (shard.uri,), shard.columns_uri))
        return batches


def read_jobs(jobs: Any, get: Callable[[JobName], BatchJob]) -> list[BatchJob]:
    """Return the jobs a task was given; those given by name are asked for."""
    items = [jobs] if isinstance(jobs, str | dict) else list(jobs or ())
    return [BatchJob.from_dict(item) if isinstance(item, dict) else get(JobName.parse(item)) for item in items]


def refuse_bad_end(jobs: Sequence[BatchJob], report: Report) -> None:
    """Fail when a job did not end well, although what it answered has been landed.

    :raises JobError: naming the first such job.
    """
    for job in jobs:
        if job.state.phase not in {Phase.SUCCEEDED, Phase.PARTIAL}:
            raise JobError(
                f"{job.name} ended as {job.state_text or job.state}",
                job_name=job.name,
                state=str(job.state),
                retryable=False,
                why=job.error_message,
                left=f"What it answered has landed: {report.summary()}",
                todo="Clear the create task to send the batch again, or look at the dead letters",
            )
