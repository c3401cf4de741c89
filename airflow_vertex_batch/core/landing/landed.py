"""Which requests have a good answer already, from an earlier run? The destination itself is asked.

A row's ``request_digest`` identifies the request and the model. A good answer with the same digest is an answer to the
same request. Prepare asks for the digests and leaves those rows out. Landing asks for the answers and lands them again
under tonight's keys and date.

Invariants: if a row was left out and its answer has been deleted since, the row lands without an answer; it is never
lost. A task of a run decides once which rows it sends and which it leaves out, and decides the same every time. So a
clear prepares the same set and finds its job, whatever has landed since.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.disk_multimap import DiskMultimap
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.domain.row import ResultRow, RowStatus
from airflow_vertex_batch.core.landing.record import ANSWERS
from airflow_vertex_batch.core.landing.table import ensure_table
from airflow_vertex_batch.core.requests.prepare import read_manifest
from airflow_vertex_batch.core.requests.request import Digester

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_vertex_batch.core.domain.manifest import Manifest
    from airflow_vertex_batch.core.domain.ports import ObjectStore, Warehouse

_PAGE_ROWS = 1_000
_GOOD = "status = 'succeeded' AND request_digest IS NOT NULL"
#: The columns of a landed row that are needed to land the same answer again.
_MEMBERS = (
    *("request_digest", "text", "answer", "finish_reason", "model_version", "response", "processed_at", "job_name"),
    "run_id",
)


class Answers(Protocol):
    """Good answers that have landed."""

    def digests(self) -> Iterator[str]:
        """Yield the digest of every request that has a good answer; one may come twice."""

    def rows(self) -> Iterator[ResultRow]:
        """Yield a row for each good answer, without its key; a digest may come twice."""


class TableAnswers(msgspec.Struct, frozen=True):
    """The good answers in a BigQuery table. If necessary, the table is made or gets its newer columns."""

    warehouse: Warehouse
    table: TableId

    def digests(self) -> Iterator[str]:
        """Yield the digests of the table, for all days."""
        ensure_table(self.warehouse, self.table)
        sql = f"SELECT DISTINCT request_digest FROM `{self.table}` WHERE {_GOOD}"  # noqa: S608 - a parsed table name
        return (row["request_digest"] for row in self.warehouse.rows(sql))

    def rows(self) -> Iterator[ResultRow]:
        """Yield the newest answer to each request."""
        newest = "QUALIFY ROW_NUMBER() OVER (PARTITION BY request_digest ORDER BY partition_date DESC) = 1"
        sql = f"SELECT {', '.join(_MEMBERS)} FROM `{self.table}` WHERE {_GOOD} {newest}"  # noqa: S608 - as above
        return map(_row, self.warehouse.rows(sql))


class FileAnswers(msgspec.Struct, frozen=True):
    """The good answers in the answer files of a folder, for all days."""

    store: ObjectStore
    folder: Uri

    def digests(self) -> Iterator[str]:
        """Yield the digests of the folder's files."""
        return (record["request_digest"] for record in self._records())

    def rows(self) -> Iterator[ResultRow]:
        """Yield the answers in the folder's files, the newest day first."""
        return map(_row, self._records())

    def _records(self) -> Iterator[dict[str, Any]]:
        # The order of the names is the order of the days.
        for info in reversed(list(self.store.list(self.folder / f"{ANSWERS}/partition_date="))):
            read = _READERS.get(info.uri.basename.rpartition(".")[2])
            if read is not None:
                with self.store.open_read(info.uri) as stream:
                    yield from (record for record in read(stream) if record.get("request_digest"))


def known_digests(answers: Answers, store: ObjectStore, folder: Uri, model: str) -> Iterator[str]:
    """Yield the digests of the requests that need not be sent.

    :param folder: the folder of the task's prepared sets. What these sets decided is not changed.
    """
    digest_of = Digester(model)
    with DiskMultimap() as sent:
        for manifest in _earlier_sets(store, folder):
            for line in _lines(manifest.known_uri, store):
                yield _decode_known(line).request_digest
            for shard in manifest.shards:
                for line in _lines(shard.uri, store):
                    sent.put(digest_of(bytes(_decode_sent(line).request)).hex())
        yield from (digest for digest in answers.digests() if not sent.all(digest))


def _earlier_sets(store: ObjectStore, folder: Uri) -> Iterator[Manifest]:
    for info in store.list(folder / "manifests/"):
        manifest = read_manifest(store, info.uri)
        if not manifest.round:
            yield manifest


def _lines(uri: str, store: ObjectStore) -> Iterator[bytes]:
    if uri:
        with store.open_read(Uri.parse(uri)) as stream:
            yield from stream


class _Known(msgspec.Struct):
    request_digest: str


class _Sent(msgspec.Struct):
    request: msgspec.Raw


_decode_known, _decode_sent = msgspec.json.Decoder(_Known).decode, msgspec.json.Decoder(_Sent).decode


def _read_jsonl(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    return map(msgspec.json.Decoder(dict[str, Any]).decode, stream)


def _read_parquet(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    from pyarrow.parquet import ParquetFile

    for batch in ParquetFile(stream).iter_batches(batch_size=_PAGE_ROWS):
        for record in batch.to_pylist():
            parsed = {name: msgspec.json.decode(record[name]) for name in ("answer", "response") if record.get(name)}
            yield {**record, **parsed}


_READERS = {"jsonl": _read_jsonl, "parquet": _read_parquet}


def _row(record: dict[str, Any]) -> ResultRow:
    """Return a landed record as a row, without its key and its cost, because this time it was not sent."""
    at = record.get("processed_at") or ""
    response = record.get("response")
    return ResultRow(
        key="",
        status=RowStatus.SUCCEEDED,
        text=record.get("text"),
        answer=record.get("answer"),
        finish_reason=record.get("finish_reason") or "",
        model_version=record.get("model_version") or "",
        processed_at=at if isinstance(at, str) else at.isoformat(),
        response=encode(response) if response is not None else b"",
        job_name=record.get("job_name") or "",
        request_digest=record["request_digest"],
        attempts=0,
        run_id=record.get("run_id") or "",
    )
