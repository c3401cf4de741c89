"""Is this model known, and are its batches served in this location? A table with sources, and Google where it can be
asked.

The service itself answers this only to the create call, which pays. So the place is inferred from `core/models.json`,
and Google is asked whether the model exists at all.
"""

from __future__ import annotations

import functools
import re
from fnmatch import fnmatchcase
from importlib import resources

import msgspec

from airflow_vertex_batch.core.address import MULTI_REGIONS, model_path
from airflow_vertex_batch.core.errors import CannotAskError, ServiceError
from airflow_vertex_batch.core.preflight.words import (
    Cloud,
    Plan,
    Seen,
    because,
    failed,
    good,
    unknown,
    warning,
)

_PATH = re.compile(r"(?:projects/[^/]+/locations/(?P<location>[^/]+)/)?(?P<short>(?:publishers/(?P<publisher>[^/]+)/)?"
                   r"(?:models|endpoints)/(?P<id>[^/]+))")  # fmt: skip
_TRAP = (
    "An online call to a model may work where its batches do not: Gemini 3 and newer take batches in 'global' only, "
    "Gemini 2 also in regions, tuned models only in the region that holds them"
)


class Served(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the table: where batches of a model run, who says so, and when."""

    model: str
    locations: tuple[str, ...]
    source: str
    date: str

    def takes(self, location: str) -> bool:
        """Whether batches run in `location`."""
        return any(fnmatchcase(location, glob) for glob in self.locations)

    @property
    def example(self) -> str:
        """A location that would do."""
        return next((name for name in self.locations if "*" not in name), "us-central1")

    def __str__(self) -> str:
        return f"{self.source}, {self.date}"


class _File(msgspec.Struct):
    models: tuple[Served, ...]


@functools.cache
def table() -> tuple[Served, ...]:
    """Return the table that ships with the package (`core/models.json`)."""
    data = resources.files("airflow_vertex_batch.core").joinpath("models.json").read_bytes()
    return msgspec.json.decode(data, type=_File).models


def model(plan: Plan, cloud: Cloud, _subject: str) -> Seen:
    """Say whether the model's batches are served in the plan's location."""
    path = model_path(plan.model)
    match = _PATH.fullmatch(path)
    if match is None:
        return unknown(f"{path} is no name that this check understands")
    name = f"{match['publisher']}/{match['id'].partition('@')[0]}" if match["publisher"] else "tuned"
    line = next((line for line in table() if fnmatchcase(name, line.model)), None)
    held = match["location"] or plan.location
    if held != plan.location:
        todo = f"Set location={held!r}, or name the model of {plan.location}"
        return failed(f"{path} is in {held}, the jobs are in {plan.location}", todo)
    if line is not None and not line.takes(plan.location) and plan.location not in MULTI_REGIONS:
        todo = f"{_TRAP}. Set location={line.example!r}"
        if name == "tuned":
            todo = f"{_TRAP}. Set the location that holds the model"
        return failed(f"batches of {path} are not served in {plan.location} ({line})", todo)
    return _asked(plan, cloud, match["short"] if match["publisher"] else path, line)


def _asked(plan: Plan, cloud: Cloud, path: str, line: Served | None) -> Seen:
    """Ask whether the model exists, and put that beside what the table says."""
    exists = ""
    try:
        cloud.model(path)
    except ServiceError as error:
        if error.is_not_found:
            return failed(because(error), "Check the model's name")
        exists = f"; whether it exists could not be asked ({because(error)})"
    except CannotAskError as error:
        exists = f"; whether it exists could not be asked ({because(error)})"
    if line is not None and line.takes(plan.location):
        if exists:
            return unknown(f"{path}: {plan.location} would serve its batches ({line}){exists}")
        return good(f"{path} exists, and {plan.location} serves its batches ({line})")
    what = f"{path}{exists}: nothing is known here about its batches in {plan.location}"
    if exists:
        return unknown(what, _TRAP)
    return warning(what, f"{_TRAP}. Try one small batch first")
