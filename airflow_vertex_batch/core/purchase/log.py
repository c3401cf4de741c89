"""What do we know about a batch? Its log: entries are added and never changed, in a folder that a person can find by
name.

Each entry is one small object, ``<staging>/<dag>/<run>/<task>[/<map index>]/log/000007.json``. It is written with a
create-only precondition, so nothing is ever overwritten and no job name is lost. Two writers cannot both get the same
number. So one of them learns of the other before anything is paid. An entry that cannot be read is an error; it is
never treated as missing.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import msgspec

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import LogError, VertexBatchError
from airflow_vertex_batch.core.domain.identity import Identity, safe_name
from airflow_vertex_batch.core.purchase.entries import (
    AnyEntry,
    Entry,
    Intent,
    JobEntry,
    Moved,
    Part,
    Refusal,
    Submission,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from airflow_vertex_batch.core.domain.ports import ObjectStore
    from airflow_vertex_batch.core.purchase.place import Place

#: The version of the entry format. Another version of this package may write another format.
VERSION = 1
#: How often writing an entry is tried when others write too.
_MAX_TRIES = 20
#: The folder in the staging folder that maps a job's label to its batch.
_OWNERS = "owners"
E = TypeVar("E", bound=Entry)
J = TypeVar("J", bound=JobEntry)


class _Head(msgspec.Struct, frozen=True):
    """The members that every entry has, in every version."""

    version: int


class _Owned(msgspec.Struct, frozen=True):
    identity: Identity


_read_head = msgspec.json.Decoder(_Head).decode
_read_entry = msgspec.json.Decoder(AnyEntry).decode


class BatchLog:
    """The log of one batch.

    It remembers the last entry that was read. `append` writes the next entry, and only if nobody else has written
    since.

    :param identity: whose batch it is, with its staging folder.
    :param attempt: ``TRY:ID``, stored in every entry that is written.
    :param now: returns aware UTC. If None, the store's own clock is used, so that times from different workers can be
        compared.
    :param installation: the name of this Airflow, stored in every entry too.
    """

    def __init__(
        self,
        store: ObjectStore,
        identity: Identity,
        attempt: str,
        now: Callable[[], datetime] | None = None,
        *,
        installation: str = "",
    ) -> None:
        self._store, self._attempt, self._writer = store, attempt, uuid4().hex[:8]
        self.identity, self.installation = identity, installation
        self._staging = Uri.parse(identity.staging)
        self.folder = self._staging / identity.path / "log"
        self.now: Callable[[], datetime] = now or (lambda: store.now(self.folder / ""))
        self._entries: tuple[Entry, ...] = ()

    @classmethod
    def of_label(cls, store: ObjectStore, staging: Uri, key: str, attempt: str, **options: Any) -> BatchLog | None:
        """Return the log of the batch that a job's label names; None if this staging folder has no such batch.

        :param key: the value of the label, `Identity.key`.
        :param options: as in `BatchLog`.
        :raises LogError: when the entry for this label in the staging folder cannot be read.
        """
        uri = staging / _OWNERS / f"{key}.json"
        with _explained(uri):
            data = store.read(uri)
        if data is None:
            return None
        try:
            identity = msgspec.structs.replace(msgspec.json.decode(data, type=Identity), staging=str(staging))
        except msgspec.MsgspecError as error:
            raise _damaged(uri, str(error)) from error
        if identity.key != key:
            raise _damaged(uri, f"it names {identity.path}, which is another batch")
        return cls(store, identity, attempt, **options)

    def entries(self) -> tuple[Entry, ...]:
        """Read the log in order.

        :raises LogError: when the log cannot be read, has a gap, or has an entry that this package did not write.
        """
        known = len(self._entries)
        with _explained(self.folder):
            found = [info.uri for info in self._store.list(self.folder / "")]
            texts = [self._store.read(uri) for uri in found[known:]]
        wanted = [self._object(number) for number in range(len(found))]
        if found != wanted or len(found) < known or None in texts:
            raise _damaged(self.folder, f"it holds {[uri.basename for uri in found]}")
        self._entries += tuple(self._read(text) for text in texts if text is not None)
        return self._entries

    def append(self, entry: Entry) -> bool:
        """Write the next entry; False when another writer has written since the log was last read."""
        number = len(self._entries)
        if not number:
            # Written before the entry, so that every job that can be found leads to its log.
            owner = msgspec.structs.replace(self.identity, staging="")
            self._store.write_new(self._staging / _OWNERS / f"{self.identity.key}.json", msgspec.json.encode(owner))
        entry = entry if entry.writer else self.stamped(entry)
        head = {"version": VERSION, "identity": self._who(), **msgspec.to_builtins(entry)}
        if not self._store.write_new(self._object(number), msgspec.json.encode(head)):
            return False
        self._entries += (entry,)
        return True

    def add(self, entry: Entry) -> None:
        """Write an entry that is right whatever others write at the same time.

        :raises LogError: when it cannot be written because others keep writing.
        """
        for _ in range(_MAX_TRIES):
            self.entries()
            if self.append(entry):
                return
        raise LogError(f"{self.folder} could not be written", why="Other writers keep adding to it", todo="Retry")

    def stamped(self, entry: E) -> E:
        """Return an entry with the members of this attempt and the time now."""
        return msgspec.structs.replace(
            entry, attempt=self._attempt, writer=self._writer, at=self.now(), installation=self.installation
        )

    def of_job(self, part: Part) -> JobLog:
        """Return the part of the log about one job."""
        return JobLog(self, part)

    def _who(self) -> dict[str, Any]:
        who = msgspec.structs.asdict(self.identity)
        return {name: value for name, value in who.items() if name != "staging"}

    def _read(self, text: bytes) -> Entry:
        try:
            version = _read_head(text).version
            if version == VERSION:
                entry: Entry = _read_entry(text)
                return entry
        except msgspec.DecodeError as error:
            raise _damaged(self.folder, str(error)) from error
        raise LogError(
            f"The log {self.folder} was written by another version of airflow-vertex-batch",
            why=f"An entry is of version {version}, and this one reads version {VERSION}",
            left="Nothing was sent",
            todo="Let the version that began this batch end it, or clear the run with another staging folder",
        )

    def _object(self, number: int) -> Uri:
        return self.folder / f"{number:06d}.json"


class JobLog:
    """The part of a batch's log about one of its jobs. This attempt can add to it."""

    def __init__(self, log: BatchLog, part: Part = Part()) -> None:  # noqa: B008 - frozen
        self._log, self.part = log, part

    @property
    def identity(self) -> Identity:
        """The identity of the batch."""
        return self._log.identity

    @property
    def installation(self) -> str:
        """The name of this Airflow."""
        return self._log.installation

    @property
    def folder(self) -> Uri:
        """The folder of the log."""
        return self._log.folder

    def now(self) -> datetime:
        """Return the time, by the clock that stamps the entries."""
        return self._log.now()

    def entries(self) -> tuple[JobEntry, ...]:
        """Read the entries of this job, in order.

        :raises LogError: as `BatchLog.entries` does.
        """
        return tuple(entry for entry in self._log.entries() if isinstance(entry, JobEntry) and entry.part == self.part)

    def append(self, entry: JobEntry) -> bool:
        """Write the next entry; False when another writer has written since the log was last read."""
        return self._log.append(entry)

    def intent(self, fingerprint: str) -> Intent:
        """Make an intent stamped with this attempt and now."""
        return self._stamped(Intent(fingerprint=fingerprint))

    def submission(self, fingerprint: str, job_name: str, replaces: str = "", generation: str = "") -> Submission:
        """Make a submission."""
        made = Submission(fingerprint=fingerprint, job_name=job_name, replaces=replaces, generation=generation)
        return self._stamped(made)

    def moved(self, fingerprint: str, job_name: str, place: Place, generation: str = "") -> Moved:
        """Make a move."""
        made = Moved(
            fingerprint=fingerprint, job_name=job_name, location=place.location, model=place.model,
            generation=generation,
        )  # fmt: skip
        return self._stamped(made)

    def refusal(self, fingerprint: str, reason: str) -> Refusal:
        """Make a refusal."""
        return self._stamped(Refusal(fingerprint=fingerprint, reason=reason))

    def _stamped(self, entry: J) -> J:
        where = msgspec.structs.replace(entry, round=self.part.round, shard=self.part.shard)
        return self._log.stamped(where)


@contextlib.contextmanager
def _explained(uri: Uri) -> Iterator[None]:
    """Turn an error of the store into an error that says what it means for the log."""
    try:
        yield
    except VertexBatchError as error:
        raise LogError(
            f"The log {uri} cannot be read",
            why=". ".join(part for part in (error.what, error.why) if part),
            left="Nothing was sent",
            todo=f"{error.todo or 'Restore access'}; then retry: a job that exists will be found",
        ) from error


def _damaged(uri: Uri, why: str) -> LogError:
    return LogError(
        f"The log {uri} is damaged",
        why=why,
        left="Nothing was sent",
        todo="Look at its objects; remove the folder only when the console shows no job with its identity label",
    )


def pending_seconds(entries: Sequence[JobEntry], settle_seconds: float, now: datetime) -> float:
    """Return how long a job of the last intent may still appear, in seconds. If the create call was answered, 0."""
    last = last_try(entries)
    return settle_seconds - (now - last.at).total_seconds() if isinstance(last, Intent) else 0.0


def last_try(entries: Sequence[JobEntry]) -> JobEntry | None:
    """Return the last entry about a create call. A move is not about a create call. Another attempt's record of a job
    for other requests is not counted either: the job of an earlier call may still appear.
    """
    last: JobEntry | None = None
    for entry in entries:
        is_other = isinstance(entry, Submission) and isinstance(last, Intent) and not entry.is_of(last)
        if not isinstance(entry, Moved) and not (is_other and last and entry.fingerprint != last.fingerprint):
            last = entry
    return last


def logs_of(
    store: ObjectStore, staging: Uri, dag_id: str, run_id: str, task_id: str, map_index: int | None = None
) -> list[BatchLog]:
    """Return the logs of a task in a run, or of all tasks of a task group, in the order of their names.

    :param task_id: the id of the task, or of the group.
    :param map_index: the index of a mapped task; None for all indexes.
    """
    run = staging / Identity(dag_id=dag_id, task_id="", run_id=run_id).path.rstrip("/")
    name = safe_name(task_id)
    found: dict[tuple[str, int], Uri] = {}
    for info in store.list(run / name):
        path = str(info.uri).removeprefix(f"{run}/").split("/")
        if path[-2:-1] != ["log"] or not (path[0] == name or path[0].startswith(f"{name}.")):
            continue
        index = int(path[1]) if len(path) > 3 and path[1].isdecimal() else -1  # noqa: PLR2004 - task, index, log, entry
        if map_index in {None, index}:
            found.setdefault((path[0], index), info.uri)
    return [_log_at(store, staging, uri) for _, uri in sorted(found.items())]


def _log_at(store: ObjectStore, staging: Uri, uri: Uri) -> BatchLog:
    """Return the log that an entry belongs to. Each entry names its batch."""
    with _explained(uri):
        data = store.read(uri)
    try:
        who = msgspec.json.decode(data or b"", type=_Owned).identity
    except msgspec.MsgspecError as error:
        raise _damaged(uri, str(error)) from error
    return BatchLog(store, msgspec.structs.replace(who, staging=str(staging)), "")
