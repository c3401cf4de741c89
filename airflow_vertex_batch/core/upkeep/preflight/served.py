"""Is this model known, are its batches served in this location, and does it live long enough? A table with sources says
so; Google is asked where that is possible.

The service itself answers this only to the create call, which costs money. So place and life are read from
`core.domain.catalog`. Google is asked only whether the model exists, and from which model a tuned one was made.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.domain.address import MULTI_REGIONS, model_path
from airflow_vertex_batch.core.domain.catalog import base_name, life_of, misspelt, places, retirement
from airflow_vertex_batch.core.domain.errors import CannotAskError, ServiceError
from airflow_vertex_batch.core.upkeep.preflight.definitions import (
    CheckResult,
    Cloud,
    Plan,
    failed,
    good,
    reason_text,
    unknown,
    warning,
)

if TYPE_CHECKING:
    from airflow_vertex_batch.core.domain.catalog import ModelLocations

_PATH = re.compile(r"(?:projects/[^/]+/locations/(?P<location>[^/]+)/)?(?P<short>(?:publishers/(?P<publisher>[^/]+)/)?"
                   r"(?:models|endpoints)/(?P<id>[^/]+))")  # fmt: skip
_TRAP = (
    "An online call to a model may work where its batches do not: Gemini 3 and newer take batches in 'global' only, "
    "Gemini 2 also in regions, tuned models of Gemini 2 only in the region that holds them, newer tuned ones nowhere"
)
#: The label that names the model a tuned one was made from (google-cloud-aiplatform, `vertexai/language_models/
#: _language_models.py`, ``_TUNING_BASE_MODEL_ID_LABEL_KEY``); its value has ``-`` where the name has ``.``.
_BASE_LABEL = "google-vertex-llm-tuning-base-model-id"
#: Tuned models of Gemini 3 and newer have no batch (Google's batch overview, 2026-09-03).
_NO_BATCH_TUNED = re.compile(r"gemini-([3-9]|\d\d)\b")


def model(plan: Plan, cloud: Cloud, _subject: str) -> CheckResult:
    """Say whether the model's batches are served in the plan's location."""
    path = model_path(plan.model)
    match = _PATH.fullmatch(path)
    if match is None:
        return unknown(f"{path} is no name that this check understands")
    name = f"{match['publisher']}/{match['id'].partition('@')[0]}" if match["publisher"] else "tuned"
    line = next((line for line in places() if fnmatchcase(name, line.model)), None)
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


def life(plan: Plan, _cloud: Cloud, _subject: str) -> CheckResult:
    """Say whether the model lives as long as a job of it may run."""
    if said := retirement(plan.model, plan.begins):
        return warning(said, "Choose a model that is served for as long as the job may run, 97 hours")
    known = life_of(plan.model)
    if known is None or not known.retires:
        return unknown(f"until when {base_name(plan.model)} is served is not known here")
    return good(
        f"{known.model} is served until {known.retires}{' or later' if known.or_later else ''} ({known.source})"
    )


def _asked(plan: Plan, cloud: Cloud, path: str, line: ModelLocations | None) -> CheckResult:
    """Ask whether the model exists, and put that beside what the table says."""
    exists, near = "", misspelt(plan.model)
    try:
        tuned_from = _base_of(cloud.model(path))
    except ServiceError as error:
        if error.is_not_found:
            return failed(
                reason_text(error), f"Check the model's name: {near} is known" if near else "Check the model's name"
            )
        exists, tuned_from = f"; whether it exists could not be asked ({reason_text(error)})", ""
    except CannotAskError as error:
        exists, tuned_from = f"; whether it exists could not be asked ({reason_text(error)})", ""
    if _NO_BATCH_TUNED.match(tuned_from):
        what = f"{path} was tuned from {tuned_from}: tuned models of Gemini 3 and newer have no batch"
        return failed(what, "Ask the model that it was tuned from, or tune an older one")
    if exists and near:
        return warning(f"{path}{exists}, and no model of that name is known here", f"Check the name: {near} is known")
    return _placed(plan, path, line, exists)


def _base_of(doc: dict[str, Any]) -> str:
    """Return the model that a tuned one was made from; nothing where Google does not say."""
    return str((doc.get("labels") or {}).get(_BASE_LABEL, ""))


def _placed(plan: Plan, path: str, line: ModelLocations | None, exists: str) -> CheckResult:
    if line is not None and line.takes(plan.location):
        if exists:
            return unknown(f"{path}: {plan.location} would serve its batches ({line}){exists}")
        return good(f"{path} exists, and {plan.location} serves its batches ({line})")
    what = f"{path}{exists}: nothing is known here about its batches in {plan.location}"
    if exists:
        return unknown(what, _TRAP)
    return warning(what, f"{_TRAP}. Try one small batch first")
