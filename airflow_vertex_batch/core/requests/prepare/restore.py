"""Is a set that was found still whole? Then this set is sent. Its missing files are written again.

A job may have been bought for the request files, and an answer is found by the file that its job was given. So a
missing file comes back under its own name, from the same rows that were just read.

Invariant: a file is written again only with the same requests. Nothing else of the set changes.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_vertex_batch.core.domain.manifest import Manifest
    from airflow_vertex_batch.core.domain.ports import ObjectStore


def restore_files(found: Manifest, made: Manifest, store: ObjectStore) -> list[Uri]:
    """Write the files again that a set names and that are not there as they were written; return them.

    :param made: the same set, as this attempt has just written it.
    :raises InputError: when this attempt divided the requests differently: then its files do not fit the others.
    """
    gone = {uri for uri, size in _files(found) if not is_there(Uri.parse(uri), size, store)}
    if not gone:
        return []
    if _digests(found) != _digests(made):
        raise InputError(
            f"{min(gone)} is not there as it was prepared",
            why=f"the set {found.uri} names it, and the rows now come in another order, so it cannot be written again",
            left="No job was created now; jobs may have been bought for this set before",
            todo="Restore the object (Cloud Storage keeps deleted ones for 7 days where soft delete is on), or delete "
            f"{found.uri} to prepare the rows again: then jobs are bought again too",
        )
    pairs = zip(_files(found), _files(made), strict=True)
    again = [(Uri.parse(old), Uri.parse(new)) for (old, _), (new, _) in pairs if old in gone]
    for old, new in again:
        with store.open_read(new) as source, store.open_write(old) as target:
            shutil.copyfileobj(source, target, 1 << 20)
    return [old for old, _ in again]


def is_whole(manifest: Manifest, store: ObjectStore) -> bool:
    """Whether every file that a set names is there as it was written."""
    return all(is_there(Uri.parse(uri), size, store) for uri, size in _files(manifest))


def is_there(uri: Uri, size_bytes: int | None, store: ObjectStore) -> bool:
    """Whether an object exists, with that size where one is given."""
    return any(info.uri == uri and size_bytes in (None, info.size_bytes) for info in store.list(uri))


def _files(manifest: Manifest) -> Iterator[tuple[str, int | None]]:
    """Yield the address of each file of a set, in one order for all, and its size where that is known."""
    for shard in manifest.shards:
        yield shard.uri, shard.size_bytes
        if shard.columns_uri:
            yield shard.columns_uri, None
    for uri in (manifest.rejected_uri, manifest.duplicates_uri, manifest.known_uri):
        if uri:
            yield uri, None


def _digests(manifest: Manifest) -> list[str]:
    return [shard.digest for shard in manifest.shards]
