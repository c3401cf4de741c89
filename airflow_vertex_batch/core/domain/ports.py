"""What does the engine need from outside? Three ports, and a store on the local disk that lets the engine run alone.

`gcp` implements the ports for Google Cloud. Every error that an implementation raises is one of `core.domain.errors`.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Protocol

import msgspec

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import ChangedError, InputError
from airflow_vertex_batch.core.domain.temporary import file_below, written_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from airflow_vertex_batch.core.domain.address import JobName, TableId
    from airflow_vertex_batch.core.domain.job import BatchJob, JobSpec


#: Asked for as a label's value, it is any value: the job only has to carry the label.
ANY_VALUE = "*"


class ObjectInfo(msgspec.Struct, frozen=True):
    """One object of a listing."""

    uri: Uri
    size_bytes: int
    content_type: str = ""
    #: Changes when the content changes; empty where the store keeps none.
    checksum: str = ""
    #: Tells this content from any other that had, or will have, the same name; empty where the store keeps none.
    version: str = ""


def objects_at(store: ObjectStore, address: Uri) -> list[ObjectInfo]:
    """Return the objects that a person means by an address: the one of this name, else those of the folder, or of names
    that begin so. ``a.csv`` is not also ``a.csv.bak``.

    A pattern is matched as one.
    """
    found = list(store.list(address))
    if address.has_glob:
        return found
    named = [info for info in found if info.uri == address]
    return named or [info for info in found if info.uri.name.startswith(f"{address.name.rstrip('/')}/")] or found


def inputs_at(store: ObjectStore, address: Uri) -> list[ObjectInfo]:
    """Return the objects that a job reads at one of its addresses: the service takes a name as that name alone.

    A pattern is matched as one.
    """
    return [info for info in store.list(address) if address.scheme != "gs" or address.has_glob or info.uri == address]


class ObjectStore(Protocol):
    """Objects by address. A written object appears whole or not at all."""

    def list(self, folder: Uri) -> Iterator[ObjectInfo]:
        """Yield the objects whose name begins with the folder's, in name order; a glob is matched as a pattern."""

    def open_read(self, uri: Uri, version: str = "") -> AbstractContextManager[IO[bytes]]:
        """Open one object as a stream, all of whose bytes are of one version.

        :param version: which, as the listing told it; empty for the one that is there now.
        :raises InputError: when it does not exist.
        :raises ChangedError: also while reading, or at the block's end, when it is another one by then.
        """

    def open_write(self, uri: Uri, content_type: str = "application/x-ndjson") -> AbstractContextManager[IO[bytes]]:
        """Stream into an object that appears when the block ends without an error, replacing what was there."""

    def version(self, uri: Uri) -> str:
        """Return the version of one object that is there now, as a listing tells it; empty when there is none."""

    def open_replace(
        self, uri: Uri, version: str, content_type: str = "application/x-ndjson"
    ) -> AbstractContextManager[IO[bytes]]:
        """Do as `open_write` does, but replace no other version than the one that was read. Atomic between writers.

        :param version: the one that is replaced; empty where there must be none.
        :raises ChangedError: when another is there at the block's end. So may a call that was repeated because its
            answer was lost: it then meets its own object.
        """

    def read(self, uri: Uri) -> bytes | None:
        """Return a small object, or None when there is none."""

    def write_new(self, uri: Uri, data: bytes) -> bool:
        """Write a small object unless one is there; say whether what is there is this call's. Atomic between writers.

        A call that is repeated because its answer was lost meets its own object: that is told by its contents.
        """

    def delete(self, uri: Uri) -> None:
        """Delete one object; one that does not exist is no error."""

    def now(self, near: Uri) -> datetime:
        """Return the store's own time, aware UTC: the same for all workers, whatever their clocks say.

        :param near: an address that this account may list, asked about if the store has not told its time yet.
        """


class Warehouse(Protocol):
    """Tables by name."""

    def rows(self, query: str | TableId, parameters: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Stream the rows of a table or of a query."""

    def count(self, table: TableId) -> int | None:
        """Return a table's row count, or None when there is no such table."""

    def create_table(self, table: TableId, schema: Iterable[Mapping[str, Any]], **options: Any) -> None:
        """Create a table unless it exists; `schema` in BigQuery's API form."""

    def load(self, uris: Iterable[str], table: TableId, schema: Iterable[Mapping[str, Any]], *, job_id: str) -> int:
        """Replace `table` with the JSON rows of `uris`; the same `job_id` twice loads once. Return the rows loaded."""

    def execute(self, sql: str, *, job_id: str, parameters: Mapping[str, Any] | None = None) -> int:
        """Run one idempotent statement and return the rows it touched; `job_id` begins its id."""

    def drop(self, table: TableId) -> None:
        """Delete a table; one that does not exist is no error."""


class JobService(Protocol):
    """batchPredictionJobs of one project and location."""

    def create(self, spec: JobSpec) -> BatchJob:
        """Create a job, sending once. :raises AmbiguousError: when it may or may not exist now."""

    def get(self, name: JobName) -> BatchJob:
        """Return one job as it is now."""

    def list(self, labels: Mapping[str, str]) -> Iterator[BatchJob]:
        """Yield the jobs that carry all `labels`, `ANY_VALUE` being any value, newest first."""

    def cancel(self, name: JobName) -> bool:
        """Ask for a job to be cancelled; say whether there was anything left to cancel."""


class LocalStore:
    """`ObjectStore` over local files, for the command line and for an engine without a cloud."""

    def list(self, folder: Uri) -> Iterator[ObjectInfo]:
        """Yield files below a folder, matching a glob, or the one file."""
        path = Path(folder.name)
        # A name that is there is that name, and no pattern.
        if folder.has_glob and not path.exists():
            found = [Path(name) for name in glob.glob(folder.name, recursive=True)]  # noqa: PTH207 - Path.glob takes no absolute pattern
        else:
            found = list(path.rglob("*")) if path.is_dir() else [path]
        # Hidden files are other writers' unfinished ones.
        for item in sorted(item for item in found if item.is_file() and not item.name.startswith(".")):
            state, uri = item.stat(), Uri("file", "", str(item))
            yield ObjectInfo(uri, state.st_size, checksum=str(state.st_mtime_ns), version=_version(state))

    def open_read(self, uri: Uri, version: str = "") -> AbstractContextManager[IO[bytes]]:
        """Open a file for reading. One that is replaced meanwhile is read on; one that is written into is an error."""
        with _readable(uri):
            return _unchanged(Path(uri.name).open("rb"), uri, version)

    def open_write(self, uri: Uri, content_type: str = "application/x-ndjson") -> AbstractContextManager[IO[bytes]]:  # noqa: ARG002
        """Write beside the target and rename: readers see the old file or the new one."""
        return _renamed(uri, lambda: None)

    def version(self, uri: Uri) -> str:
        """Return a file's version, or an empty text when there is none."""
        try:
            return _version(Path(uri.name).stat())
        except FileNotFoundError:
            return ""

    def open_replace(
        self,
        uri: Uri,
        version: str,
        content_type: str = "application/x-ndjson",  # noqa: ARG002
    ) -> AbstractContextManager[IO[bytes]]:
        """Do as `open_write` does; writers of one folder look and rename one after the other."""

        def check() -> None:
            if self.version(uri) != version:
                raise replaced(uri)

        return _renamed(uri, check)

    def read(self, uri: Uri) -> bytes | None:
        """Return a file's bytes, or None."""
        with _readable(uri):
            try:
                return Path(uri.name).read_bytes()
            except FileNotFoundError:
                return None

    def write_new(self, uri: Uri, data: bytes) -> bool:
        """Link a finished temporary file into place: exactly one writer wins."""
        stream, temporary, path = _beside(uri)
        try:
            with stream:
                stream.write(data)
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def delete(self, uri: Uri) -> None:
        """Delete a file if it is there."""
        Path(uri.name).unlink(missing_ok=True)

    def now(self, near: Uri) -> datetime:  # noqa: ARG002 - a disk has the time of its machine
        """Return this machine's time."""
        return datetime.now(UTC)


@contextlib.contextmanager
def _readable(uri: Uri) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        todo = "Check the path, and whether this account may read it"
        raise InputError(f"Cannot read {uri}", why=why, todo=todo) from error


@contextlib.contextmanager
def _renamed(uri: Uri, check: Callable[[], None]) -> Iterator[IO[bytes]]:
    """Yield a stream into a hidden file, which takes the name of another at the end if `check` does not raise."""
    stream, temporary, path = _beside(uri)
    try:
        with stream:
            yield stream
        with written_below(str(path.parent)), _alone_in(path.parent):
            check()
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until nobody else is in this block for the folder; a process that dies is out of it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def replaced(uri: Uri) -> ChangedError:
    """Return the error of meeting another version than the one that should be replaced."""
    return ChangedError(
        f"{uri} was replaced, made or deleted by somebody else meanwhile",
        left="It is as it was left",
        todo="A retry reads it anew",
    )


def _beside(uri: Uri) -> tuple[BinaryIO, Path, Path]:
    """Open a hidden file beside a file that is to be made; return it, its path and the file's."""
    path = Path(uri.name)
    with written_below(str(path.parent)):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    return file_below(str(path.parent), descriptor), Path(temporary), path


@contextlib.contextmanager
def _unchanged(stream: IO[bytes], uri: Uri, version: str) -> Iterator[IO[bytes]]:
    """Yield a file's stream. What was made of it counts for nothing, and no error of it either, if it has changed."""
    with stream:
        at_first = _version(os.fstat(stream.fileno()))
        if version and version != at_first:
            raise _changed(uri)
        try:
            yield stream
        except Exception as error:
            if _version(os.fstat(stream.fileno())) != at_first:
                raise _changed(uri) from error
            raise
        if not stream.closed and _version(os.fstat(stream.fileno())) != at_first:
            raise _changed(uri)


def _version(found: os.stat_result) -> str:
    """Return what changes with a file; nothing for a pipe or a device."""
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}" if stat.S_ISREG(found.st_mode) else ""


def _changed(uri: Uri) -> ChangedError:
    return ChangedError(
        f"{uri} was changed while it was read",
        left="Nothing of it was used",
        todo="A retry reads it anew; write it under another name and rename it when it is finished",
    )
