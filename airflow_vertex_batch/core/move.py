"""How is a job given up that queues for too long? By a note in its ledger, before it is cancelled: whoever buys its
requests next finds there where to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_vertex_batch.core.claim import parted, tell_of
from airflow_vertex_batch.core.errors import LedgerError
from airflow_vertex_batch.core.place import Place
from airflow_vertex_batch.core.submit import Terms, moves_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_vertex_batch.core.ledger import Ledger
    from airflow_vertex_batch.core.model import BatchJob


def move(
    job: BatchJob,
    ledger: Ledger,
    fingerprint: str,
    places: Sequence[Place],
    terms: Terms = Terms(),  # noqa: B008 - frozen
) -> Place | None:
    """Note that a queued job is given up, before it is cancelled; noting it twice is noting it once.

    A job that still runs is given up only by the Airflow that bought it, and only if the ledger names it: whoever gives
    it up cancels it.

    :param fingerprint: of the purchase at its first place.
    :param places: where it may go, the best first; those where it has been are left out.
    :returns: the place of its successor; None when no place is left, or it is not ours, and nothing was noted.
    :raises LedgerError: when another writer is at work.
    """
    entries = ledger.entries()
    moves = moves_of(entries, fingerprint, terms)
    if not job.state.is_final and (beside := parted([job], entries, ledger.installation)[1]):
        tell_of(beside, ledger.folder)
        return None
    been = {entry.job_name: Place(entry.location, entry.model) for entry in moves}
    if job.name in been:
        return been[job.name]
    # To leave a job to another task is no place: that can be done with each.
    place = next((place for place in places if place == Place() or place not in been.values()), None)
    entry = ledger.moved(fingerprint, job.name, place or Place(), terms.edition)
    if place is not None and not ledger.append(entry, len(entries)):
        raise LedgerError(
            f"{job.name} was not moved", why="another attempt is writing its ledger", todo="A retry goes on from there"
        )
    return place
