"""Do the buckets exist, are they in a place that fits, and may the caller use them? And is there anything to read?"""

from __future__ import annotations

from typing import Any

from airflow_vertex_batch.core.domain.address import MULTI_REGIONS, TableId, Uri
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

_NEEDED = ("storage.objects.create", "storage.objects.get", "storage.objects.list")
#: A file that is written again replaces one, which takes this right
#: (https://cloud.google.com/storage/docs/access-control/iam-permissions, 2026-11-25).
_WANTED = "storage.objects.delete"
_READS = "storage.objects.get"
#: What the multi-regions and the old dual-regions hold (https://cloud.google.com/storage/docs/locations, 2026-11-25).
_WITHIN = {"us": ("us-",), "eu": ("europe-",), "asia": ("asia-",)}
_PAIRS = {
    "nam4": ("us-central1", "us-east1"),
    "eur4": ("europe-north1", "europe-west4"),
    "asia1": ("asia-northeast1", "asia-northeast2"),
}


def places(doc: dict[str, Any]) -> tuple[str, ...]:
    """Return the regions of a bucket or a dataset as its settings name them, in lower case; a multi-region is one."""
    chosen = (doc.get("customPlacementConfig") or {}).get("dataLocations") or ()
    name = str(doc.get("location", "")).lower()
    return tuple(place.lower() for place in chosen) or _PAIRS.get(name, (name,))


def holds(place: str, region: str) -> bool:
    """Whether a region, or a multi-region, is or contains another."""
    return place == region or region.startswith(_WITHIN.get(place, ("-",)))


def settings(cloud: Cloud, name: str) -> dict[str, Any]:
    """Return a bucket's settings.

    :raises CannotAskError: when they cannot be read: the check `bucket` has said why.
    """
    try:
        return cloud.bucket(name)
    except ServiceError as error:
        raise CannotAskError(f"the settings of {name} could not be read") from error


def bucket(_plan: Plan, cloud: Cloud, name: str) -> CheckResult:
    """Say whether the bucket exists."""
    try:
        doc = cloud.bucket(name)
    except ServiceError as error:
        if error.is_not_found:
            return failed(reason_text(error), "Check the bucket's name, or create it")
        if error.status == 403:  # noqa: PLR2004 - an HTTP status reads best as its number
            return unknown(
                f"its settings may not be read, which running a batch does not need ({reason_text(error)})",
                "Grant storage.buckets.get (roles/storage.legacyBucketReader) to have place and soft delete checked",
            )
        raise
    return good(f"in {doc.get('location', 'a place it does not say')}")


def staging_is_remote(plan: Plan, _cloud: Cloud, _subject: str) -> CheckResult:
    """Say whether the staging folder is one that Google can read."""
    if Uri.parse(plan.staging).scheme == "gs":
        return good(plan.staging)
    return failed(f"{plan.staging} is on this machine, where Vertex AI cannot read it", "Name a gs:// folder")


def caller_rights(_plan: Plan, cloud: Cloud, name: str) -> CheckResult:
    """Say whether the caller may read and write objects."""
    try:
        held = cloud.bucket_permissions(name, (*_NEEDED, _WANTED))
    except CannotAskError as error:
        return _listed(cloud, name, error)
    missing = [right for right in (*_NEEDED, _WANTED) if right not in held]
    todo = "Grant the connection's account roles/storage.objectUser on the bucket"
    if not missing:
        return good("objects can be listed, read, written and replaced")
    if missing == [_WANTED]:
        return warning(
            f"objects cannot be replaced: {_WANTED} is missing, so a retry fails where it writes again", todo
        )
    return failed(f"missing: {', '.join(missing)}", todo)


def _listed(cloud: Cloud, name: str, error: CannotAskError) -> CheckResult:
    cloud.has_objects(Uri("gs", name, ""))
    return unknown(f"its objects can be listed; whether they can be written cannot be asked ({reason_text(error)})")


def place(plan: Plan, cloud: Cloud, name: str) -> CheckResult:
    """Say whether bucket and jobs are in one place. No page of Google's demands it today, so it is never a failure."""
    found = places(settings(cloud, name))
    where = ", ".join(found)
    if not any(found):
        return unknown("it does not say where it is")
    if plan.location == "global" or any(holds(each, plan.location) for each in found):
        return good(f"in {where}, jobs in {plan.location}")
    if plan.location in MULTI_REGIONS and any(holds(plan.location, each) for each in found):
        return good(f"in {where}, jobs in {plan.location}")
    return warning(
        f"in {where}, jobs in {plan.location}: requests and answers cross between them, which costs, and may be "
        "against rules on where data stays",
        f"Use a bucket in {plan.location}",
    )


def soft_delete(_plan: Plan, cloud: Cloud, name: str) -> CheckResult:
    """Say whether overwritten objects are kept, and paid."""
    policy = settings(cloud, name).get("softDeletePolicy")
    if policy is None:
        return unknown("it does not say whether it keeps deleted objects")
    seconds = int(policy.get("retentionDurationSeconds", 0))
    if not seconds:
        return good("off")
    return warning(
        f"on, {seconds / 86400:g} days: the service rewrites its output while a job runs, and old versions are billed",
        f"Run: gcloud storage buckets update gs://{name} --clear-soft-delete",
    )


def source(_plan: Plan, cloud: Cloud, uri: str) -> CheckResult:
    """Say whether what prepare, or the job, reads is there and can be read."""
    is_table = uri.startswith("bq://")
    try:
        return _table(cloud, TableId.parse(uri)) if is_table else _files(cloud, Uri.parse(uri))
    except ServiceError as error:
        if error.status != 403:  # noqa: PLR2004 - an HTTP status reads best as its number
            raise
        role = "roles/bigquery.dataViewer" if is_table else "roles/storage.objectViewer"
        return failed(reason_text(error), f"Grant the connection's account {role}")


def _files(cloud: Cloud, address: Uri) -> CheckResult:
    if address.scheme == "file":
        return unknown(f"{address} is a local file: it is read where its task runs")
    if not cloud.has_objects(address):
        return failed(f"no object's name begins with {address.glob_prefix!r}", "Check the name, or wait for the files")
    try:
        held = cloud.bucket_permissions(address.bucket, (_READS,))
    except CannotAskError as error:
        return unknown(f"objects are there; whether they can be read cannot be asked ({reason_text(error)})")
    if _READS in held:
        return good("objects are there, and can be read")
    return failed(f"objects are there, {_READS} is missing", "Grant roles/storage.objectViewer on the bucket")


def _table(cloud: Cloud, table: TableId) -> CheckResult:
    doc = cloud.table(table)
    rows = doc.get("numRows")
    size = f"{int(rows):,} rows" if rows is not None else str(doc.get("type", "a table")).lower()
    try:
        held = cloud.table_permissions(table, ("bigquery.tables.getData",))
    except CannotAskError as error:
        return unknown(f"it has {size}; whether they can be read cannot be asked ({reason_text(error)})")
    if held:
        return good(f"{size}, and they can be read")
    return failed(f"it has {size}, bigquery.tables.getData is missing", "Grant roles/bigquery.dataViewer on the table")
