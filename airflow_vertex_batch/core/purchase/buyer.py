"""Which jobs must be bought for a manifest, or for ready input? One job for each request file, each with its own
output. Each job is bought only once (`core.purchase.submit`).
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Self

import msgspec

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.identity import Identity
from airflow_vertex_batch.core.domain.job import JobSpec
from airflow_vertex_batch.core.domain.manifest import Manifest
from airflow_vertex_batch.core.domain.ports import inputs_at
from airflow_vertex_batch.core.purchase.create_retry import ensure_job_with_retries
from airflow_vertex_batch.core.purchase.decide import OnChangedInput, Reuse, Terms
from airflow_vertex_batch.core.purchase.entries import JobEntry, Part
from airflow_vertex_batch.core.purchase.move import move
from airflow_vertex_batch.core.purchase.ownership import ROUND_LABEL, sharing_text
from airflow_vertex_batch.core.purchase.removed_parts import cancel_removed_part
from airflow_vertex_batch.core.purchase.submit import Order, is_bought, would_buy
from airflow_vertex_batch.core.requests.prepare import is_there

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from airflow_vertex_batch.core.domain.job import BatchJob
    from airflow_vertex_batch.core.domain.manifest import Shard
    from airflow_vertex_batch.core.domain.ports import JobService, ObjectStore
    from airflow_vertex_batch.core.purchase.log import BatchLog
    from airflow_vertex_batch.core.purchase.place import Place

logger = logging.getLogger(__name__)

#: The largest length of a job's display name, in characters (API discovery document aiplatform.v1, 2026-11-22).
_MAX_DISPLAY_NAME = 128
#: The largest length of a label value that every Google Cloud service takes, in characters; this service documents 64
#: (https://cloud.google.com/compute/docs/labeling-resources#requirements, 2026-11-22).
_MAX_LABEL = 63


def display_name(identity: Identity) -> str:
    """Return a name by which a person finds the job in the console."""
    mapped = f"[{identity.map_index}]" if identity.map_index >= 0 else ""
    return f"{identity.dag_id}.{identity.task_id}{mapped} {identity.run_id}"[:_MAX_DISPLAY_NAME]


class Buyer(msgspec.Struct, frozen=True, kw_only=True):
    """Buys the jobs of one task, each once, even after crashes, retries and clears, or if the task runs twice.

    :param base: the part that all jobs have in common. Its labels are the user's own labels.
    :param log: the batch's log.
    :param terms: the conditions of each purchase.
    :param at: makes the job service of another location, for jobs that were moved there.
    :param owns: returns whether this attempt may still buy and cancel. It is called before each purchase and each
        cancel.
    :param in_time: raises when the time of this attempt is over. It is called before each job is bought.
    :param note: is called with the job of each request file, as soon as the job is known.
    :param sleep: waits while a job may still appear. Tests replace it.
    """

    base: JobSpec
    log: BatchLog
    store: ObjectStore
    service: JobService
    terms: Terms = Terms()
    at: Callable[[str], JobService] | None = None
    owns: Callable[[], bool] = lambda: True
    in_time: Callable[[], None] = lambda: None
    note: Callable[[BatchJob], None] = lambda _job: None
    sleep: Callable[[float], None] = time.sleep
    #: Other Airflows that share the folder and were already reported. Copies of a buyer share this set.
    warned_of: set[str] = msgspec.field(default_factory=set)

    def buy(
        self, manifest: Manifest | None, *, reuse: Reuse = Reuse.WITH_ROWS, only: Collection[int] | None = None
    ) -> Iterator[BatchJob]:
        """Yield the job of each request file, in the order of the files. Create a job if nobody has created it.

        :param manifest: the requests; None for the ready input of `base`.
        :param reuse: for which jobs that ended badly no new job is bought.
        :param only: numbers of the request files whose jobs are wanted; None for all.
        """
        count = 0
        for number, order in enumerate(self._orders(manifest, reuse)):
            count = number + 1
            if only is None or number in only:
                ensured = ensure_job_with_retries(order, sleep=self.sleep)
                self.note(ensured.job)
                self._warn_of_sharing(ensured.sharing)
                yield ensured.job
        self.cancel_removed_parts(manifest.round if manifest is not None else 0, count)

    def cancel_removed_parts(self, number: int, first: int = 0) -> None:
        """Cancel running jobs of request files that do not exist any more, because the input was changed.

        :param number: the repair round; 0 for the batch itself.
        :param first: the first number without a request file.
        """
        if self.terms.on_changed_input is OnChangedInput.FAIL:
            return
        parts = {entry.part for entry in self.log.entries() if isinstance(entry, JobEntry)}
        for part in sorted(part for part in parts if part.round == number and part.shard >= first):
            cancel_removed_part(
                self.log.of_job(part),
                self.service,
                at=self.at,
                settle_seconds=self.terms.settle_seconds,
                owns=self.owns,
                sleep=self.sleep,
            )

    def _warn_of_sharing(self, names: Sequence[str]) -> None:
        """Warn once about each other Airflow that writes into the same folder."""
        if names and not self.warned_of.issuperset(names):
            self.warned_of.update(names)
            logger.warning("%s.", sharing_text(names, self.log.installation, self.log.folder))

    def of_generation(self, generation: str) -> Self:
        """Return the same buyer, for jobs of another generation."""
        return msgspec.structs.replace(self, terms=msgspec.structs.replace(self.terms, generation=generation))

    def move(self, manifest: Manifest, shard: int, job: BatchJob, places: Sequence[Place]) -> Place | None:
        """Give up a job that queues for too long: note it, then cancel the job. When the job has ended without a row,
        `buy` buys its requests elsewhere.

        :param shard: the number of the job's request file.
        :param places: the places to choose from, the best first. Places that were used already are left out.
        :returns: the next place; None when no place is left, and the job goes on.
        """
        order = next(itertools.islice(self._orders(manifest, Reuse.ANY), shard, None))
        place = move(job, order.log, order.fingerprint, places, order.terms)
        if place is not None and not job.state.is_final:
            service = self.at(job.job_name.location) if self.at is not None else self.service
            service.cancel(job.job_name)
        return place

    def would_begin(self, manifest: Manifest | None, *, reuse: Reuse = Reuse.WITH_ROWS) -> bool:
        """Return whether `buy` would now pay for the first job of a set. This only reads.

        If one job of a set was bought, the rest may be bought without a check: half of a set is not worth its cost.
        """
        orders = list(self._orders(manifest, reuse))
        return not any(map(is_bought, orders)) and any(map(would_buy, orders))

    def _orders(self, manifest: Manifest | None, reuse: Reuse) -> Iterator[Order]:
        number = manifest.round if manifest is not None else 0
        base = self._base_of(number)
        for shard, (spec, content) in enumerate(purchases(base, manifest, self.store)):
            yield Order(
                spec=spec,
                content=content,
                log=self.log.of_job(Part(number, shard)),
                service=self.service,
                terms=msgspec.structs.replace(self.terms, reuse=reuse),
                at=self.at,
                owns=self.owns,
                check_input=partial(self._check, manifest.shards[shard] if manifest is not None else None),
            )

    def _check(self, shard: Shard | None) -> None:
        """Refuse to buy a job that must fail, because the attempt has no time left or the request file is gone.

        :raises VertexBatchError: which says which of the two it is.
        """
        self.in_time()
        _check_file(shard, self.store)

    def _base_of(self, number: int) -> JobSpec:
        labels = {**owner_labels(self.log.identity), **self.base.labels}
        if not number:
            return msgspec.structs.replace(self.base, labels=labels)
        name = f"{self.base.display_name[: _MAX_DISPLAY_NAME - 12]} repair {number}"
        output = f"{self.base.output.rstrip('/')}{'_' if self.base.output.startswith('bq://') else '/'}repair_{number}"
        return msgspec.structs.replace(self.base, labels=labels, display_name=name, output=output)


def owner_labels(identity: Identity) -> dict[str, str]:
    """Return the labels by which a bill can be split. `purchase.submit` adds the labels by which a job
    is found again.
    """
    return {"airflow-dag": label_value(identity.dag_id), "airflow-task": label_value(identity.task_id)}


def is_repair(job: BatchJob) -> bool:
    """Whether a job was bought for a repair round."""
    return job.labels.get(ROUND_LABEL, "0") != "0"


def label_value(text: str) -> str:
    """Return `text` as a legal label value."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:_MAX_LABEL]


def purchases(base: JobSpec, manifest: Manifest | None, store: ObjectStore) -> Iterator[tuple[JobSpec, str]]:
    """Yield the specification of each job, with the digest of its requests.

    :param base: the common part. Its inputs are used if there is no manifest.
    """
    if manifest is None:
        yield base, _content(base.inputs, store)
        return
    for number, shard in enumerate(manifest.shards):
        name = (
            base.display_name
            if len(manifest.shards) == 1
            else f"{base.display_name} {number + 1}/{len(manifest.shards)}"
        )
        spec = msgspec.structs.replace(
            base,
            inputs=(shard.resume_uri or shard.uri,),
            output=_output(base.output, number, len(manifest.shards)),
            display_name=name[-_MAX_DISPLAY_NAME:],
        )
        # A job belongs to one file. Another file of the same size may have other rows.
        file = shard.uri if manifest.version > 1 else shard.size_bytes
        # Two batches may repair the same rows. But a job that completes the output of one batch does not complete the
        # other's.
        resumed = f"/{shard.resume_uri}" if shard.resume_uri else ""
        yield spec, f"{manifest.fingerprint}/{number}/{file}{resumed}"


def _check_file(shard: Shard | None, store: ObjectStore) -> None:
    """Refuse to buy a job whose request file is gone, because the job would fail after it had queued.

    :param shard: None for ready input, whose files were listed just now.
    :raises InputError: with the name of the file.
    """
    if shard is None:
        return
    uri = Uri.parse(shard.resume_uri or shard.uri)
    if not is_there(uri, None if shard.resume_uri else shard.size_bytes, store):
        raise InputError(
            f"{uri} is not there as it was prepared",
            left="No job was created for it",
            todo="Clear the task that prepared it, with the tasks after it: what is missing is written again",
        )


def _output(output: str, number: int, count: int) -> str:
    """Give each job its own output. Otherwise two jobs that begin in the same moment could share a folder."""
    if not output.startswith("bq://"):
        return f"{output.rstrip('/')}/{number:05d}"
    # In a project or a dataset the service makes a new table for each job anyway. A table name gets a number.
    return output if count == 1 or output.count(".") < 2 else f"{output}_{number:05d}"  # noqa: PLR2004


def _content(inputs: tuple[str, ...], store: ObjectStore) -> str:
    """Return a digest that changes when the content of the input changes."""
    if any(uri.startswith("bq://") for uri in inputs) and len(inputs) > 1:
        raise InputError(f"{len(inputs)} inputs, one of them a table", todo="Give one bq:// table, or gs:// files only")
    parts = []
    for uri in inputs:
        if uri.startswith("bq://"):
            parts.append(uri)
            continue
        if not uri.startswith("gs://"):
            raise InputError(
                f"{uri!r} is no input for a batch job", todo="Give gs://….jsonl or bq://project.dataset.table"
            )
        found = inputs_at(store, Uri.parse(uri))
        if not found:
            raise InputError(f"{uri} matches no file", left="No job was created", todo="Check the name of the object")
        parts += [f"{info.uri} {info.size_bytes} {info.checksum}" for info in found]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
