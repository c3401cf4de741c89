"""How is a job given up that queues for too long? A note in the log says where to buy next. The note is written
before the job is cancelled, and the next purchase of these requests reads it.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import LogError
from airflow_vertex_batch.core.money.estimate import estimate_cost
from airflow_vertex_batch.core.purchase.decide import Terms, moves_of
from airflow_vertex_batch.core.purchase.ownership import parted, tell_of
from airflow_vertex_batch.core.purchase.place import Place
from airflow_vertex_batch.core.requests.lint import model_refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_vertex_batch.core.domain.job import BatchJob
    from airflow_vertex_batch.core.domain.manifest import Manifest
    from airflow_vertex_batch.core.domain.ports import ObjectStore
    from airflow_vertex_batch.core.money.estimate import Budget
    from airflow_vertex_batch.core.money.prices import PriceTable
    from airflow_vertex_batch.core.purchase.log import JobLog

logger = logging.getLogger(__name__)


def move(
    job: BatchJob,
    log: JobLog,
    fingerprint: str,
    places: Sequence[Place],
    terms: Terms = Terms(),  # noqa: B008 - frozen
) -> Place | None:
    """Note that a queued job is given up, before it is cancelled; noting it twice is noting it once.

    A job that still runs is given up only by the Airflow that bought it, and only if the log names it: whoever gives
    it up cancels it.

    :param fingerprint: of the purchase at its first place.
    :param places: where it may go, the best first; those where it has been are left out.
    :returns: the place of its successor; None when no place is left, or it is not ours, and nothing was noted.
    :raises LogError: when another writer is at work.
    """
    entries = log.entries()
    moves = moves_of(entries, fingerprint, terms)
    if not job.state.is_final and (beside := parted([job], entries, log.installation)[1]):
        tell_of(beside, log.folder)
        return None
    been = {entry.job_name: Place(entry.location, entry.model) for entry in moves}
    if job.name in been:
        return been[job.name]
    # To leave a job to another task is no place: that can be done with each.
    place = next((place for place in places if place == Place() or place not in been.values()), None)
    entry = log.moved(fingerprint, job.name, place or Place(), terms.generation)
    if place is not None and not log.append(entry):
        raise LogError(
            f"{job.name} was not moved", why="Another attempt is writing its log", todo="A retry goes on from there"
        )
    return place


def refused_there(manifest: Manifest, place: Place, store: ObjectStore) -> str:
    """Say what the model of a place is known to refuse of a batch; empty where it takes it, or nothing is known.

    The first request speaks for all: the settings of a batch that was made from a template are the same in each.
    """
    if not place.model or not manifest.shards:
        return ""
    with store.open_read(Uri.parse(manifest.shards[0].uri)) as stream:
        return model_refusal(stream.readline(), place.model)


def fits(
    manifest: Manifest,
    place: Place,
    own_model: str,
    store: ObjectStore,
    budget: Budget | None,
    prices: PriceTable,
    now: datetime,
) -> bool:
    """Whether a set may be bought at another place: its model takes the requests, for a price that is allowed.

    :param own_model: the task's own, which may be asked.
    :param now: when it would be bought: prices change.
    """
    if refusal := refused_there(manifest, place, store):
        logger.warning("%s is passed over: its model refuses these requests (%s).", place, refusal)
        return False
    if not place.model or budget is None or budget.allows(manifest, place.model, own_model, prices, now):
        return True
    logger.warning("%s is passed over: %s.", place, estimate_cost(manifest, place.model, prices, now))
    return False
