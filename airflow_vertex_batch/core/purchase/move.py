"""How is a job given up when it queues for too long? An entry in the log says where its requests are bought next. The
entry is written before the job is cancelled. The next purchase of these requests reads it.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import LogError
from airflow_vertex_batch.core.money.estimate import estimate_cost
from airflow_vertex_batch.core.purchase.decide import Terms, moves_of
from airflow_vertex_batch.core.purchase.ownership import split_by_claim, warn_about
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
    """Write to the log that a queued job is given up, before the job is cancelled. A second call changes nothing.

    A job that has not ended is given up only by the Airflow that bought it, and only if the log names the job, because
    it will be cancelled.

    :param fingerprint: identifies the purchase at its first place.
    :param places: the places to choose from, the best first. Places that were used already are left out.
    :returns: the place of the next job; None if no place is left or the job is not ours. Then nothing was written.
    :raises LogError: when another writer is at work.
    """
    entries = log.entries()
    moves = moves_of(entries, fingerprint, terms)
    if not job.state.is_final and (left_running := split_by_claim([job], entries, log.installation)[1]):
        warn_about(left_running, log.folder)
        return None
    been = {entry.job_name: Place(entry.location, entry.model) for entry in moves}
    if job.name in been:
        return been[job.name]
    # The empty place means that another task buys the requests. It can be used for every job.
    place = next((place for place in places if place == Place() or place not in been.values()), None)
    entry = log.moved(fingerprint, job.name, place or Place(), terms.generation)
    if place is not None and not log.append(entry):
        raise LogError(
            f"{job.name} was not moved", why="Another attempt is writing its log", todo="A retry goes on from there"
        )
    return place


def refused_there(manifest: Manifest, place: Place, store: ObjectStore) -> str:
    """Return what the model of a place refuses in this batch; empty if it takes the batch, or if nothing is known.

    Only the first request is checked: all requests that were made from one template have the same settings.
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
    """Whether a set may be bought at another place: the model there takes the requests, and the price is allowed.

    :param own_model: the task's own model, which is always allowed.
    :param now: when it would be bought: prices change.
    """
    if refusal := refused_there(manifest, place, store):
        logger.warning("%s is passed over: its model refuses these requests (%s).", place, refusal)
        return False
    if not place.model or budget is None or budget.allows(manifest, place.model, own_model, prices, now):
        return True
    logger.warning("%s is passed over: %s.", place, estimate_cost(manifest, place.model, prices, now))
    return False
