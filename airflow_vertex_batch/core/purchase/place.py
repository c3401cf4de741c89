"""Where can a job be bought? At the places that the user names. One job service covers all of them.

A place is a location, a model, or both. What a place leaves out is taken from the task.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from airflow_vertex_batch.core.domain.address import JobName
    from airflow_vertex_batch.core.domain.job import BatchJob, JobSpec
    from airflow_vertex_batch.core.domain.ports import JobService


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place. An empty member means the task's own value."""

    location: str = ""
    model: str = ""

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in msgspec.structs.asdict(self).items() if value)


def read_places(elsewhere: Any) -> tuple[Place, ...]:
    """Read an author's list of places.

    :raises InputError: with the entry that is not a place.
    """
    hint = "Give a list such as [{'location': 'global'}, {'model': 'gemini-3.5-flash-lite'}]"
    try:
        places = msgspec.convert(elsewhere, tuple[Place, ...])
    except msgspec.ValidationError as error:
        raise InputError("elsewhere is no list of places", why=str(error), todo=hint) from error
    for number, place in enumerate(places):
        if place == Place():
            raise InputError(f"elsewhere[{number}] names neither location nor model", todo=hint)
        if place in places[:number]:
            raise InputError(f"elsewhere[{number}] is there twice", todo="Each place is tried once: leave it out")
    return places


def check_moves(elsewhere: Any, places: Collection[Place], queue_timeout: float | None) -> None:
    """Refuse `elsewhere` without `queue_timeout`, and `queue_timeout` without `elsewhere`: each needs the other.

    :param elsewhere: the author's argument; None if it was not given.
    :param places: the places in `elsewhere`.
    :raises InputError: which says what to do.
    """
    if elsewhere is not None and not places:
        raise InputError("elsewhere names no place", todo="Set elsewhere=[{'location': '…'}], or a model, or both")
    if queue_timeout is not None and not places:
        raise InputError(
            "queue_timeout without elsewhere would do nothing",
            why="A job that still waits has nowhere else to go",
            todo="Set elsewhere=[{'location': '…'}] too; queue_warning only says that a job waits for long",
        )
    if places and queue_timeout is None:
        todo = "Set queue_timeout too, such as timedelta(hours=36)"
        raise InputError("elsewhere without queue_timeout would do nothing", todo=todo)


class AllLocationsService:
    """A `JobService` for the task's own location and for all locations to which jobs were moved.

    :param home: the service of the task's own location.
    :param at: makes the service of another location.
    :param locations: the other locations.
    """

    def __init__(self, home: JobService, at: Callable[[str], JobService], locations: Collection[str]) -> None:
        self._home, self._others = home, {location: at(location) for location in sorted(locations)}

    def create(self, spec: JobSpec) -> BatchJob:
        """Create a job at its place, sending once."""
        return self._at(spec.location).create(spec)

    def get(self, name: JobName) -> BatchJob:
        """Return one job as it is now."""
        return self._at(name.location).get(name)

    def list(self, labels: Mapping[str, str]) -> Iterator[BatchJob]:
        """Yield the jobs that carry all `labels`, of every location, newest first."""
        found = {job.name: job for each in (self._home, *self._others.values()) for job in each.list(labels)}
        yield from sorted(found.values(), key=_created, reverse=True)

    def cancel(self, name: JobName) -> bool:
        """Ask for a job to be cancelled; return whether it was still running."""
        return self._at(name.location).cancel(name)

    def _at(self, location: str) -> JobService:
        return self._others.get(location, self._home)


def _created(job: BatchJob) -> datetime:
    return job.created_at or datetime.min.replace(tzinfo=UTC)
