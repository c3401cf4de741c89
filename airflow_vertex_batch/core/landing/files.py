"""How do rows land in files, so that a day's files behave like a table? As JSONL or Parquet, merged on their keys.

::

    <destination>/answers/partition_date=2026-11-22/answers-<id>.jsonl
    <destination>/dead-letters/partition_date=2026-11-22/dead-letters-<id>.jsonl

The two folders stand side by side. So a reader of all answers never meets a dead letter, even if it reads every file
below a folder. The id is made from the batch's identity, never from the run or the attempt: all runs of a task for one
day share the two files. A landing reads both files and replaces them. Its rows replace older rows of the same key in
either file; the other rows stay.

Invariants: each row is there once. Each file is replaced only if it is still the version that was read, the dead
letters first; a landing that finds another version reads both files again. So landings at the same moment have an
order, the order in which they replaced the answers, and each merges the rows that the one before it left. If a landing
dies between the two files, landing again completes it. Memory does not grow with the rows: they wait on disk.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

import msgspec

from airflow_vertex_batch.core.domain.disk_multimap import DiskMultimap
from airflow_vertex_batch.core.domain.errors import ChangedError, ResultError
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.domain.temporary import temporary_file
from airflow_vertex_batch.core.landing.formats import FORMATS, Format, brief_of, line_of
from airflow_vertex_batch.core.landing.record import ANSWERS, DEAD_LETTERS, LandedRow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_vertex_batch.core.domain.address import Uri
    from airflow_vertex_batch.core.domain.ports import ObjectStore
    from airflow_vertex_batch.core.landing.record import LandPlan

#: How often the files are read and merged before a landing gives up. If several landings run at the same moment, each
#: time one of them succeeds.
_MERGES = 20


class FileSink:
    """Lands in a folder, as JSONL or Parquet. It is a context manager: leaving it without an error merges the rows that
    it was given.

    :param file_format: ``jsonl`` or ``parquet``.
    :param dead_letters: the folder of the dead letters; ``dead_letters-letters/`` below `folder` if not given.
    :raises ChangedError: when others kept replacing the files; a retry merges again.
    :raises ResultError: when the day's file is no longer a file that this package wrote.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: Uri,
        plan: LandPlan,
        file_format: str = "jsonl",
        dead_letters: Uri | None = None,
    ) -> None:
        self._store, self._plan, self._format = store, plan, FORMATS[file_format]
        stem = hashlib.sha256(plan.batch_id.encode()).hexdigest()[:10]
        self._answers, self._dead = (
            where / f"partition_date={plan.partition_date}/{name}-{stem}.{file_format}"
            for where, name in ((folder / ANSWERS, ANSWERS), (dead_letters or folder / DEAD_LETTERS, DEAD_LETTERS))
        )
        self.destination, self.dead_letters = str(self._answers), str(self._dead)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._good, self._bad = (stack.enter_context(_Waiting()) for _ in range(2))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        with self._stack:
            if kind is None:
                self._land()

    def add(self, record: LandedRow, *, good: bool) -> None:
        """Take one record."""
        (self._good if good else self._bad).add(record)

    def _land(self) -> None:
        with _Index(self._good, self._bad) as index:
            for left in reversed(range(_MERGES)):
                try:
                    self._merge(index)
                except ChangedError as error:
                    if left:
                        continue
                    raise ChangedError(
                        f"{self.destination} or {self.dead_letters} was replaced each of {_MERGES} times that it was "
                        "merged",
                        why=error.what,
                        todo="A retry merges again; let fewer runs of a day end at the same moment",
                    ) from error
                return

    def _merge(self, index: _Index) -> None:
        """Read both files and replace them, if nobody has changed them since they were read."""
        # Both versions are read before either file is written: if another landing ends in between, the version of the
        # answers differs.
        read = [(uri, self._store.version(uri)) for uri in (self._dead, self._answers)]
        for (uri, version), waiting in zip(read, (self._bad, self._good), strict=True):
            with (
                DiskMultimap() as kept,
                self._store.open_replace(uri, version, self._format.content_type) as stream,
            ):
                stays = self._staying(uri, version, index, kept) if version else ()
                self._format.write(stream, chain(stays, self._landing(waiting, kept)))

    def _staying(self, uri: Uri, version: str, index: _Index, kept: DiskMultimap) -> Iterator[Any]:
        """Yield the records of a file that this batch does not replace.

        If an answer of an earlier run is there already, it keeps its cost: only the columns beside it may be newer. It
        is stored in `kept`.
        """
        with _ours(uri, self._format), self._store.open_read(uri, version) as stream:
            for key, record in self._format.read(stream):
                here = index.find(key)
                if here is None:
                    if not self._plan.replace_partition:
                        yield record
                elif here and (line := self._format.line(record)) and _is_same_answer(line, here):
                    kept.put(key, line)

    def _landing(self, waiting: _Waiting, kept: DiskMultimap) -> Iterator[Any]:
        """Yield the records of this batch, in its order."""
        # Unlike a loop, `map` holds neither a line nor its record while the record is written.
        return map(functools.partial(self._record, kept), waiting.lines())

    def _record(self, kept: DiskMultimap, line: bytes) -> Any:
        old = kept.last(brief_of(line).row_key) if kept.count else None
        return self._format.record(_with_columns(old, line) if old else line)


def _is_same_answer(old: bytes, new: bytes) -> bool:
    before, now = brief_of(old), brief_of(new)
    return before.status == "succeeded" and before.request_digest == now.request_digest


def _with_columns(old: bytes, new: bytes) -> bytes:
    return encode(msgspec.structs.replace(line_of(old), columns=line_of(new).columns)) + b"\n"


class _Waiting:
    """Lines that wait on disk until all lines have come."""

    def __enter__(self) -> Self:
        self._file = temporary_file("as much as the rows that land")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def add(self, record: LandedRow) -> None:
        """Append a record."""
        self._file.write(encode(record))
        self._file.write(b"\n")

    def lines(self) -> Iterator[bytes]:
        """Yield all lines from the start, each with its line break."""
        self._file.seek(0)
        yield from self._file


class _Index:
    """The keys of a batch. It is filled at the first question. If there is no file yet, nobody asks."""

    def __init__(self, *waiting: _Waiting) -> None:
        self._waiting = waiting
        self._is_filled = False

    def __enter__(self) -> Self:
        self._keys = DiskMultimap().__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._keys.__exit__(*exc_info)

    def find(self, key: str) -> bytes | None:
        """Return the line of a key; None if the batch does not have the key.

        :returns: the line, if it is a good answer of an earlier run; otherwise only empty bytes, which mean that the
            key exists.
        """
        if not self._is_filled:
            self._fill()
        return self._keys.last(key)

    def _fill(self) -> None:
        self._is_filled = True
        for waiting in self._waiting:
            for line in waiting.lines():
                brief = brief_of(line)
                is_known = brief.attempts == 0 and brief.status == "succeeded"
                self._keys.put(brief.row_key, line if is_known else b"")


@contextlib.contextmanager
def _ours(uri: Uri, file_format: Format) -> Iterator[None]:
    """Add the name of the file to errors of decoders, which only know bytes."""
    try:
        yield
    except file_format.errors as error:
        raise ResultError(
            f"{uri} is not as a landing left it",
            uri=str(uri),
            why=type(error).__name__,
            left="Nothing was landed",
            todo="Move it out of this folder, or restore it, and clear this task",
        ) from error
