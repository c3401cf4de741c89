"""Do the datasets exist, are they in the right place, and may a table be made in them?

There are two rules of place; which one applies depends on who moves the rows. A table that the *job* reads or writes
must be in the job's own region, and multi-region datasets are refused (Google's batch guide for BigQuery, 2026-11-22).
A table that *export* loads must be near the staging bucket, whatever the job's location.
"""

from __future__ import annotations

from typing import Any

from airflow_vertex_batch.core.domain.address import MULTI_REGIONS, Uri
from airflow_vertex_batch.core.domain.errors import CannotAskError, ServiceError
from airflow_vertex_batch.core.upkeep.preflight.buckets import holds, places, settings
from airflow_vertex_batch.core.upkeep.preflight.definitions import (
    DATASET_WRITERS,
    CheckResult,
    Cloud,
    Plan,
    dataset_of,
    failed,
    good,
    reason_text,
    unknown,
    warning,
)

_CREATE = "bigquery.tables.create"
_RUN = "bigquery.jobs.create"


def dataset(_plan: Plan, cloud: Cloud, uri: str) -> CheckResult:
    """Say whether the dataset exists."""
    owner, name = dataset_of(uri)
    if not name:
        return unknown(f"{uri} names no dataset: the service makes one")
    try:
        doc = cloud.dataset(owner, name)
    except ServiceError as error:
        if error.is_not_found:
            return failed(reason_text(error), "Create the dataset in the right region; this provider only makes tables")
        if error.status == 403:  # noqa: PLR2004 - an HTTP status reads best as its number
            return failed(reason_text(error), "Grant the connection's account roles/bigquery.dataEditor on the dataset")
        raise
    return good(f"in {doc.get('location', 'a place it does not say')}")


def _settings(cloud: Cloud, uri: str) -> dict[str, Any]:
    owner, name = dataset_of(uri)
    if not name:
        raise CannotAskError(f"{uri} names no dataset")
    try:
        return cloud.dataset(owner, name)
    except ServiceError as error:
        raise CannotAskError(f"the settings of {owner}.{name} could not be read") from error


def place(plan: Plan, cloud: Cloud, uri: str) -> CheckResult:
    """Say whether the dataset is where those who move the rows need it."""
    (where,) = places(_settings(cloud, uri))
    if not where:
        return unknown("it does not say where it is")
    return _near_job(plan, where) if uri in plan.job_tables() else _near_bucket(plan, cloud, where)


def _near_job(plan: Plan, where: str) -> CheckResult:
    todo = "Let the job write to gs://, and export load the table (destination='bq://…')"
    if where in MULTI_REGIONS:
        return failed(f"in the multi-region {where.upper()}, which jobs refuse", f"{todo}, or use a regional dataset")
    if plan.location == "global":
        # The guide asks for the same region and gives `global` as a location; Google's notebook runs `global` with a
        # dataset in us-central1 (GoogleCloudPlatform/generative-ai, commit e138350fa, 2025-12-19).
        return warning(f"in {where}, jobs in global: Google's pages contradict each other on whether that works", todo)
    if where == plan.location:
        return good(f"in {where}, as the jobs")
    return failed(
        f"in {where}, jobs in {plan.location}: a job does not find a dataset of another region, and its error names a "
        "project that is not yours",
        f"Use a dataset in {plan.location}. {todo}",
    )


def _near_bucket(plan: Plan, cloud: Cloud, where: str) -> CheckResult:
    """Loads want bucket and dataset together (https://cloud.google.com/bigquery-transfer/docs/locations, 2026-11-25); a
    dataset in US takes any bucket's.
    """
    staged = plan.staging if plan.staging.startswith("gs://") else ""
    if not staged:
        return unknown(f"in {where}; there is no staging bucket to compare with")
    regions = places(settings(cloud, Uri.parse(staged).bucket))
    if where == "us" or any(holds(where, region) for region in regions) or where in regions:
        return good(f"in {where}, files in {', '.join(regions)}; jobs in {plan.location} do not touch it")
    return warning(
        f"in {where}, files in {', '.join(regions)}: BigQuery loads from a bucket in the dataset's own place",
        f"Use a staging bucket in {where}",
    )


def rights(plan: Plan, cloud: Cloud, uri: str) -> CheckResult:
    """Say whether the caller may make tables in the dataset and run the load."""
    owner, _ = dataset_of(uri)
    hidden = ""
    try:
        held = {project: cloud.project_permissions(project, (_CREATE, _RUN)) for project in (owner, plan.project)}
        if _RUN not in held[plan.project]:
            todo = f"Grant the connection's account roles/bigquery.jobUser on {plan.project}"
            return failed(f"{_RUN} is missing on {plan.project}", todo)
        if _CREATE in held[owner]:
            return good(f"{_CREATE} on all of {owner}")
    except (ServiceError, CannotAskError) as error:
        hidden = reason_text(error)
    return _by_access_list(cloud, uri, hidden)


def _by_access_list(cloud: Cloud, uri: str, hidden: str) -> CheckResult:
    """Look for the caller on the dataset's own list: Google has no call that asks for rights on a dataset.

    :param hidden: why the project could not be asked; whether a load may be run is open then.
    """
    role = _own_role(cloud, uri)
    if role and not hidden:
        return good(f"the caller is {role} of the dataset")
    if role:
        return unknown(f"the caller is {role} of the dataset; {_RUN} cannot be asked ({hidden})")
    todo = "Grant the connection's account roles/bigquery.dataEditor on the dataset"
    if hidden:
        return unknown(f"rights cannot be asked ({hidden})", todo)
    return unknown(f"{_CREATE} is not held on the whole project; a group or a role on the dataset may grant it", todo)


def _own_role(cloud: Cloud, uri: str) -> str:
    """Return the caller's writing role on the dataset's list, or nothing."""
    try:
        who = cloud.principal()
    except CannotAskError:
        return ""
    roles = (each.get("role", "") for each in _settings(cloud, uri).get("access", ()) if each.get("userByEmail") == who)
    return next((role for role in roles if who and role in DATASET_WRITERS), "")
