"""What do we know we have sent? Append-only records, written with create-only preconditions.

Each entry is one small object named by its number. Nothing is ever overwritten, so no job name is lost; two writers who
want the same number cannot both have it, so one of them learns of the other before anything is paid. What cannot be
read is an error, never "nothing". `Ledger` records one identity's jobs; `core.course` keeps its rounds in the same way.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from airflow_vertex_batch.core.address import Uri
from airflow_vertex_batch.core.errors import LedgerError, VertexBatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_vertex_batch.core.place import Place
    from airflow_vertex_batch.core.ports import ObjectStore


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True):
    """One line of the record.

    :param attempt: the token of the attempt that wrote it.
    :param at: when, aware UTC, by the store's own clock.
    :param installation: the name of the Airflow that wrote it.
    """

    fingerprint: str
    attempt: str
    at: datetime
    installation: str = ""


class Intent(Entry, frozen=True, kw_only=True, tag="intent"):
    """Written before the create call: from here on a job may exist."""


class Submission(Entry, frozen=True, kw_only=True, tag="submission"):
    """Written after the create call, or when a job was found and adopted.

    :param replaces: the job whose place this one takes, if any.
    :param edition: changes when a clear asks for a new job; empty in records of 0.1.
    """

    job_name: str
    replaces: str = ""
    edition: str = ""


class Refusal(Entry, frozen=True, kw_only=True, tag="refusal"):
    """Written when the service definitely refused the create call: the intent before it left no job."""

    reason: str


class Moved(Entry, frozen=True, kw_only=True, tag="moved"):
    """Written before a job that queues for too long is cancelled: once it has ended without a row, its requests are
    bought elsewhere.

    :param fingerprint: of the purchase at its first place.
    :param job_name: the job that is given up.
    :param location: where to instead, or empty for the task's own location.
    :param model: the same for the model. With both empty another task buys them, and the job given up stays the answer
        of this one.
    :param edition: as of a submission.
    """

    job_name: str
    location: str = ""
    model: str = ""
    edition: str = ""


E = TypeVar("E", bound=msgspec.Struct)


class Journal(Generic[E]):
    """Entries in the order in which they were written.

    :param folder: where they lie: beside the results, never inside, so that nobody's clean-up of results takes them.
    :param kind: the type of an entry: a tagged struct, or a union of them.
    """

    def __init__(self, store: ObjectStore, folder: Uri, kind: type[E]) -> None:
        self._store, self._folder, self._decoder = store, folder, msgspec.json.Decoder(kind)

    def entries(self) -> tuple[E, ...]:
        """Read the record in order.

        :raises LedgerError: when it cannot be read, has a gap, or holds what we did not write.
        """
        try:
            found = [info.uri for info in self._store.list(self._folder / "")]
            texts = [self._store.read(uri) for uri in found]
        except VertexBatchError as error:
            raise LedgerError(
                f"The ledger {self._folder} cannot be read",
                why=str(error),
                left="Nothing was sent",
                todo="Restore access and retry; a job that exists will be found",
            ) from error
        wanted = [self._object(number) for number in range(len(found))]
        if found != wanted or None in texts:
            raise self._broken(f"it holds {[uri.basename for uri in found]}")
        try:
            return tuple(self._decoder.decode(text) for text in texts if text is not None)
        except msgspec.DecodeError as error:
            raise self._broken(str(error)) from error

    def append(self, entry: E, after: int) -> bool:
        """Write `entry` as number `after`; False when another writer has that number."""
        return self._store.write_new(self._object(after), msgspec.json.encode(entry))

    def _object(self, number: int) -> Uri:
        return self._folder / f"{number:06d}.json"

    def _broken(self, why: str) -> LedgerError:
        return LedgerError(
            f"The ledger {self._folder} is damaged",
            why=why,
            left="Nothing was sent",
            todo="Look at its objects; remove the folder only when the console shows no job with its identity label",
        )


class Ledger(Journal[Entry]):
    """The entries of one identity.

    :param attempt: the token of this attempt, stamped on everything it writes.
    :param now: aware UTC; the store's own clock where None, so that entries of workers whose clocks differ compare.
    :param installation: the name of this Airflow, stamped like the token.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: Uri,
        attempt: str,
        now: Callable[[], datetime] | None = None,
        *,
        installation: str = "",
    ) -> None:
        super().__init__(store, folder, Intent | Submission | Refusal | Moved)  # type: ignore[arg-type]  # a union is no type
        self._attempt, self.installation = attempt, installation
        self.now: Callable[[], datetime] = now or (lambda: store.now(folder / ""))

    @property
    def folder(self) -> Uri:
        """Where its entries lie."""
        return self._folder

    def intent(self, fingerprint: str) -> Intent:
        """Make an intent stamped with this attempt and now."""
        return Intent(fingerprint=fingerprint, **self._stamp())

    def submission(self, fingerprint: str, job_name: str, replaces: str = "", edition: str = "") -> Submission:
        """Make a submission stamped with this attempt and now."""
        return Submission(
            fingerprint=fingerprint, job_name=job_name, replaces=replaces, edition=edition, **self._stamp()
        )

    def moved(self, fingerprint: str, job_name: str, place: Place, edition: str = "") -> Moved:
        """Make a move stamped with this attempt and now."""
        return Moved(
            fingerprint=fingerprint, job_name=job_name, location=place.location, model=place.model, edition=edition,
            **self._stamp(),
        )  # fmt: skip

    def refusal(self, fingerprint: str, reason: str) -> Refusal:
        """Make a refusal stamped with this attempt and now."""
        return Refusal(fingerprint=fingerprint, reason=reason, **self._stamp())

    def _stamp(self) -> dict[str, Any]:
        return {"attempt": self._attempt, "at": self.now(), "installation": self.installation}


def pending_seconds(entries: Sequence[Entry], settle_seconds: float, now: datetime) -> float:
    """Return how long the last intent may still turn into a job; an intent that was answered may not."""
    last = last_try(entries)
    return settle_seconds - (now - last.at).total_seconds() if isinstance(last, Intent) else 0.0


def last_try(entries: Sequence[Entry]) -> Entry | None:
    """Return the last entry about a create call. A move says nothing about one, nor does another attempt's record of a
    job for other requests: the call that was sent before it may still turn into a job.
    """
    last: Entry | None = None
    for entry in entries:
        is_other = isinstance(entry, Submission) and isinstance(last, Intent) and entry.attempt != last.attempt
        if not isinstance(entry, Moved) and not (is_other and last and entry.fingerprint != last.fingerprint):
            last = entry
    return last
