"""Has an earlier attempt written the same requests? Then its request files are the ones that are sent.

A job may have been paid for these files, and an answer is found by the file that its job was given. If other things
have changed since (columns, rejected rows, a schema), they are written again beside the same request files.

Invariants: request files are kept only for the same requests in the same number of files, within the limits that hold
now. Columns are beside the file with their row's request. A duplicate names the row that was sent for it. Both are
right for any order of the rows. Memory does not grow with the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.disk_multimap import DiskMultimap
from airflow_vertex_batch.core.domain.jsonl import decode, encode
from airflow_vertex_batch.core.domain.manifest import Manifest
from airflow_vertex_batch.core.requests.prepare.restore import is_there

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_vertex_batch.core.domain.manifest import Shard
    from airflow_vertex_batch.core.domain.ports import ObjectStore
    from airflow_vertex_batch.core.requests.prepare.plan import PreparePlan
    from airflow_vertex_batch.core.requests.prepare.shards import ShardWriter


class _Keyed(msgspec.Struct):
    key: str


_decode_key = msgspec.json.Decoder(_Keyed).decode


def request_keys(manifest: Manifest | None, store: ObjectStore) -> Iterator[str]:
    """Yield the keys of a prepared set."""
    for shard in manifest.shards if manifest is not None else ():
        yield from _keys(shard, store)


def _keys(shard: Shard, store: ObjectStore) -> Iterator[str]:
    with store.open_read(Uri.parse(shard.uri)) as stream:
        yield from (_decode_key(line).key for line in stream)


def with_earlier_files(made: Manifest, plan: PreparePlan, writer: ShardWriter, store: ObjectStore) -> Manifest:
    """Return a set as it was made, or with the request files of an earlier set of the same requests.

    :param made: the new set. Everything in it is right, and its request files may be replaced by the earlier ones.
    :param writer: the writer of the new set. It removes the files that the result does not name.
    """
    earlier = _earlier(made, plan, store)
    if earlier is None:
        return made
    kept = _WithEarlierFiles(made, earlier, writer, store).manifest()
    writer.keep({kept.rejected_uri, kept.duplicates_uri, kept.known_uri, *(shard.columns_uri for shard in kept.shards)})
    return kept


def _earlier(made: Manifest, plan: PreparePlan, store: ObjectStore) -> Manifest | None:
    """Return an earlier set of the same requests; None if there is none, or if exactly this set exists already."""
    addresses = [info.uri for info in store.list(Uri.parse(made.uri.rpartition("/")[0]) / "")]
    if Uri.parse(made.uri) in addresses:
        return None
    read = (store.read(address) for address in addresses)
    sets = (Manifest.from_dict(decode(data)) for data in read if data is not None)
    return next((found for found in sets if _is_same(made, found, plan) and _is_there(found, store)), None)


def _is_same(made: Manifest, earlier: Manifest, plan: PreparePlan) -> bool:
    def asked(manifest: Manifest) -> tuple[Any, ...]:
        # The fingerprint does not show whether identical rows are sent once, because it includes the line of every row.
        counts = (manifest.request_count, manifest.duplicate_count, len(manifest.shards))
        return (manifest.fingerprint, manifest.model, manifest.round, *counts)

    fits = all(
        shard.request_count <= plan.max_requests and shard.size_bytes <= plan.max_bytes for shard in earlier.shards
    )
    return bool(made.shards) and fits and asked(made) == asked(earlier)


def _is_there(manifest: Manifest, store: ObjectStore) -> bool:
    """Whether no request file was removed since."""
    return all(is_there(Uri.parse(shard.uri), shard.size_bytes, store) for shard in manifest.shards)


class _WithEarlierFiles:
    """Changes a set so that it uses the request files of an earlier set."""

    def __init__(self, made: Manifest, earlier: Manifest, writer: ShardWriter, store: ObjectStore) -> None:
        self._made, self._earlier, self._writer, self._store = made, earlier, writer, store
        self._has_columns = any(shard.columns_uri for shard in made.shards)

    def manifest(self) -> Manifest:
        """Write the files beside the requests again, so that they match the kept request files; return the set."""
        with DiskMultimap() as beside:
            if self._has_columns:
                for shard in self._made.shards:
                    for line in self._lines(shard.columns_uri):
                        beside.put(_decode_key(line).key, line)
            duplicates_uri = self._duplicates(beside) if self._made.duplicate_count else ""
            shards = tuple(self._shard(number, shard, beside) for number, shard in enumerate(self._earlier.shards))
        return msgspec.structs.replace(
            self._made, version=self._earlier.version, shards=shards, duplicates_uri=duplicates_uri
        )

    def _shard(self, number: int, shard: Shard, beside: DiskMultimap) -> Shard:
        """Return a kept request file, with this set's columns beside it."""
        if not self._has_columns:
            return msgspec.structs.replace(shard, columns_uri="")
        uri = self._writer.new_file(f"columns-of-{number:05d}.jsonl")
        with self._store.open_write(uri) as stream:
            for key in _keys(shard, self._store):
                stream.write(b"".join(beside.take(key)))
        return msgspec.structs.replace(shard, columns_uri=str(uri))

    def _duplicates(self, beside: DiskMultimap) -> str:
        """Rewrite `same_as` of each duplicate to match the kept files.

        Which of several identical rows is sent depends on their order. If the kept files have another of these rows,
        the two rows change places.
        """
        uri = self._writer.new_file("duplicates-of.jsonl")
        with DiskMultimap() as sent, DiskMultimap() as instead, self._store.open_write(uri) as stream:
            for key in request_keys(self._earlier, self._store):
                sent.put(key)
            for doc in map(decode, self._lines(self._made.duplicates_uri)):
                if sent.all(doc["key"]):
                    instead.put(doc["same_as"], encode(doc["key"]))
            for doc in map(decode, self._lines(self._made.duplicates_uri)):
                for key in map(decode, instead.all(doc["same_as"])):
                    doc = self._changed(doc, key, beside)  # noqa: PLW2901 - the same row
                stream.write(encode(doc) + b"\n")
        return str(uri)

    def _changed(self, doc: dict[str, Any], sent: str, beside: DiskMultimap) -> dict[str, Any]:
        """Return a duplicate's line for the kept files, in which the row `sent` has the request.

        If the duplicate itself is `sent`, return a line for the row that it was like.
        """
        if doc["key"] != sent:
            return {**doc, "same_as": sent}
        columns: dict[str, Any] = {}
        if self._has_columns:
            [line] = beside.take(doc["same_as"])
            columns = decode(line)["columns"]
            beside.put(sent, encode({"key": sent, "columns": doc["columns"]}) + b"\n")
        return {"key": doc["same_as"], "same_as": sent, "columns": columns}

    def _lines(self, uri: str) -> Iterator[bytes]:
        with self._store.open_read(Uri.parse(uri)) as stream:
            yield from stream
