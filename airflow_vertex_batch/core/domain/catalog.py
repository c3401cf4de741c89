"""Which models are there, until when, and is an unknown name a misspelt one? A table with sources.

The table (`core/domain/models.json`) holds what Google has said so far. A name that is not in it may be newer than this
package. So no name is refused: this module only gives warnings.

Invariants: nothing here looks at a clock: the caller gives the time. A date is the last day on which a model is
promised.
"""

from __future__ import annotations

import functools
import re
from datetime import timedelta
from fnmatch import fnmatchcase
from importlib import resources
from itertools import takewhile
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from datetime import datetime

#: The model that every example names: documents, DAGs, docstrings, benches. It is served for batch (Google's batch API
#: reference lists it; seen to run in `global`, field report of 2026-10-01). Of the models at its price it is promised
#: longest: until 2027-09-02 or later. `gemini-4-argon` is promised six weeks longer, but costs 2.7 times as much, which
#: is too expensive for an example. Read 2026-11-28.
EXAMPLE_MODEL = "gemini-3.8-flash"
#: Where its batches run.
EXAMPLE_LOCATION = "global"
#: The longest that a job lives: 72 hours of queue and 24 of running, with an hour between them
#: (https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini, 2026-11-22).
JOB_LIFE = timedelta(hours=97)
#: "One month before the retirement date, new access to the model is blocked for online inference, batch inference, and
#: tuning" (https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/model-versions, 2026-11-28).
_CLOSED_TO_NEW = timedelta(days=30)


class ModelLocations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In which locations batches of some models run. A glob names the models; the source and its date are given too."""

    model: str
    locations: tuple[str, ...]
    source: str
    date: str

    def takes(self, location: str) -> bool:
        """Whether batches run in `location`."""
        return any(fnmatchcase(location, glob) for glob in self.locations)

    @property
    def example(self) -> str:
        """One of these locations, as an example."""
        return next((name for name in self.locations if "*" not in name), "us-central1")

    def __str__(self) -> str:
        return f"{self.source}, {self.date}"


class Lifetime(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long a model lives. Dates are ISO; empty where Google has not said.

    :param retires: the last day on which it is promised.
    :param or_later: whether Google may extend that, and will not shorten it.
    :param shuts_down: the last day for those who used it before it retired; `retires` where empty.
    :param instead: what Google names as its replacement.
    """

    model: str
    released: str = ""
    retires: str = ""
    or_later: bool = False
    shuts_down: str = ""
    instead: str = ""
    source: str
    date: str

    def notice(self, begins: datetime, ends: datetime) -> str:
        """Return a notice about the end of this model for a job from `begins` to `ends`; empty if there is none."""
        if not self.retires or (ends + _CLOSED_TO_NEW).date().isoformat() < self.retires:
            return ""
        todo = f". Google names {self.instead} instead" if self.instead else ". Choose a model that lives longer"
        said = f"{self.retires}{' or later' if self.or_later else ''} ({self.source}, {self.date})"
        if begins.date().isoformat() > self.retires:
            verb = "may have retired" if self.or_later else "has retired"
            return f"{self.model} {verb}: its last day was {said}{self._for_old_users(begins)}{todo}"
        if ends.date().isoformat() >= self.retires:
            verb = "may retire" if self.or_later else "retires"
            return f"{self.model} {verb} while the job may still run: its last day is {said}{todo}"
        return f"{self.model} is about to retire, its last day is {said}: who has not used it yet may be refused{todo}"

    def _for_old_users(self, now: datetime) -> str:
        if not self.shuts_down or now.date().isoformat() > self.shuts_down:
            return ""
        return f", and only who used it before is served until {self.shuts_down}"


class _File(msgspec.Struct):
    places: tuple[ModelLocations, ...]
    lives: tuple[Lifetime, ...]


@functools.cache
def _file() -> _File:
    data = resources.files("airflow_vertex_batch.core.domain").joinpath("models.json").read_bytes()
    return msgspec.json.decode(data, type=_File)


def places() -> tuple[ModelLocations, ...]:
    """Return where batches run. The first line whose glob fits ``publisher/model`` counts."""
    return _file().places


@functools.cache
def lives() -> dict[str, Lifetime]:
    """Return the models that are known, by name."""
    return {life.model: life for life in _file().lives}


def base_name(model: str) -> str:
    """Return a model's name without path, version and date: ``gemini-3.8-flash`` of ``…/gemini-3.8-flash-001@default``.

    :param model: as a job, a request or a response names it.
    """
    name = model.rpartition("/")[2].partition("@")[0]
    return re.sub(r"-(\d{3}|\d{2}-\d{2}|\d{2}-\d{4}|latest)$", "", name)


def life_of(model: str) -> Lifetime | None:
    """Return how long a model lives, or None where that is not known."""
    return lives().get(model.rpartition("/")[2].partition("@")[0]) or lives().get(base_name(model))


def misspelt(model: str) -> str:
    """Return the known model whose name somebody may have meant, or nothing.

    One letter too many, too few or another one, two that changed places, other signs between the words, or a
    ``-preview`` left out. More than that may be a model that is newer than this table, and so may another version.
    """
    if is_outside_catalog(model) or life_of(model) is not None:
        return ""
    name = _plain(base_name(model))
    return next((known for known in lives() if _is_typo(name, _plain(known)) or _plain(known) == name + "preview"), "")


def retirement(model: str, begins: datetime) -> str:
    """Return a notice about the end of a model for a job that is created at `begins`; empty if there is none.

    :param begins: with its timezone.
    """
    life = None if is_outside_catalog(model) else life_of(model)
    return life.notice(begins, begins + JOB_LIFE) if life is not None else ""


def notices(model: str, begins: datetime) -> tuple[str, ...]:
    """Return all warnings about a model before a job is created, one sentence each."""
    near = misspelt(model)
    spelling = f"{base_name(model)} is no model that is known here, and {near} is: check the name" if near else ""
    return tuple(said for said in (spelling, retirement(model, begins)) if said)


def is_outside_catalog(model: str) -> bool:
    """Whether a name is of another publisher's model, or of a tuned one: nothing here knows those.

    :param model: as a job names it.
    """
    path, _, _ = model.rpartition("/")
    return bool(path) and not path.endswith(("publishers/google/models", "google")) and path != "models"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_typo(name: str, known: str) -> bool:
    """Whether two names differ by at most one typing mistake. A different digit does not count: it is
    another version.
    """
    start = _shared(name, known)
    end = _shared(name[start:][::-1], known[start:][::-1])
    wrong, right = name[start : len(name) - end], known[start : len(known) - end]
    if re.search(r"\d", wrong + right):
        return False
    return max(len(wrong), len(right)) <= 1 or (len(wrong) == len(right) == 2 and wrong == right[::-1])  # noqa: PLR2004


def _shared(one: str, other: str) -> int:
    """Return the length of the common beginning of two texts."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
