"""Can Vertex AI be reached, with which account, and would it take the job? The checks of account, project and names."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.errors import CannotAskError, ServiceError
from airflow_vertex_batch.core.domain.unrendered import MAX_LABELS, OUR_LABELS, is_legal_label
from airflow_vertex_batch.core.upkeep.preflight.definitions import (
    CheckResult,
    Cloud,
    Plan,
    Verdict,
    failed,
    good,
    reason_text,
    unknown,
    warning,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROLE = "Grant the connection's account roles/aiplatform.user on the project"
#: What a refused list means, by Google's reason word, and what to do. The words are those of google.api.ErrorReason
#: (https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto, 2026-11-25) and google.rpc.Code.
_REFUSALS: dict[str, tuple[str, str]] = {
    "SERVICE_DISABLED": (
        "the Vertex AI API is not enabled",
        "Run: gcloud services enable aiplatform.googleapis.com --project {project} (it takes some minutes to spread)",
    ),
    "BILLING_DISABLED": ("the project has no billing account", "Link a billing account to project {project}"),
    "CONSUMER_INVALID": ("there is no such project, or it is being deleted", "Check the name of project {project}"),
    "USER_PROJECT_DENIED": (
        "the account may not use the project that its quota is charged to",
        "Grant roles/serviceusage.serviceUsageConsumer, or set the quota project with gcloud auth application-default",
    ),
    "SECURITY_POLICY_VIOLATED": (
        "a VPC Service Controls perimeter keeps this machine out",
        "Run where the perimeter allows it, or add an access level",
    ),
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": (
        "the token lacks the scope cloud-platform",
        "Add https://www.googleapis.com/auth/cloud-platform to the connection's scopes",
    ),
    "LOCATION_ORG_POLICY_VIOLATED": ("an organisation policy forbids {location}", "Choose a location it allows"),
    "LOCATION_POLICY_VIOLATED": ("an organisation policy forbids {location}", "Choose a location it allows"),
    # `global` blocked by a policy on locations comes as this (docs/vertex-batch-api.md, field report).
    "FAILED_PRECONDITION": (
        "{location} is refused, as by an organisation policy on locations",
        "Choose a location that gcp.resourceLocations allows; Gemini 3 needs 'global' there",
    ),
    # A freshly enabled API answers so for minutes.
    "IAM_PERMISSION_DENIED": ("the account may not list jobs, or the API was enabled minutes ago", _ROLE),
    "PERMISSION_DENIED": ("the account may not list jobs, or the API was enabled minutes ago", _ROLE),
    "UNAUTHENTICATED": ("the token was refused", "Check the connection's credentials"),
    "NOT_FOUND": ("there is nothing at {location}", "Check the location's spelling"),
    "INVALID_ARGUMENT": ("{project} or {location} is refused", "Check the spelling of both"),
}
#: For answers that give no word.
_WORDS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
_NEEDED = (
    "aiplatform.batchPredictionJobs.create",
    "aiplatform.batchPredictionJobs.get",
    "aiplatform.batchPredictionJobs.list",
)
_WANTED = "aiplatform.batchPredictionJobs.cancel"
_ONLINE = "aiplatform.endpoints.predict"
#: Characters of a display name (API discovery document aiplatform.v1, revision 20261106).
MAX_DISPLAY_NAME = 128


def credentials(_plan: Plan, cloud: Cloud, _subject: str) -> CheckResult:
    """Say whose token there is."""
    try:
        who = cloud.principal()
    except ServiceError as error:
        todo = error.todo or "Check that this machine reaches Google's token server"
        return CheckResult(Verdict.FAILED, reason_text(error), todo, is_temporary=error.retryable)
    return good(who or "a token; the credentials do not say whose")


def project(plan: Plan, cloud: Cloud, _subject: str) -> CheckResult:
    """Say whether the project exists, and its number."""
    try:
        doc = cloud.project(plan.project)
    except ServiceError as error:
        if error.status == 403:  # noqa: PLR2004 - an HTTP status reads best as its number
            return unknown(
                f"{plan.project} may not be looked at, or does not exist: Google says both alike "
                f"({reason_text(error)})",
                "Grant resourcemanager.projects.get (roles/browser) to have its number shown",
            )
        raise
    number, state = doc.get("name", "").rpartition("/")[2], doc.get("state", "ACTIVE")
    if state != "ACTIVE":
        return failed(f"{plan.project} is {state}", "Restore the project, or name another")
    return good(f"{doc.get('projectId', plan.project)}, number {number}")


def project_number(plan: Plan, cloud: Cloud) -> str:
    """Return the project's number, from Resource Manager or from the name of one of its jobs; empty when unknown."""
    if plan.project.isdigit():
        return plan.project
    with contextlib.suppress(ServiceError, CannotAskError):
        return str(cloud.project(plan.project)["name"]).rpartition("/")[2]
    with contextlib.suppress(ServiceError, CannotAskError):
        for job in cloud.jobs():
            return str(job["name"]).split("/")[1]
    return ""


def api(plan: Plan, cloud: Cloud, _subject: str) -> CheckResult:
    """Say whether the API answers for this project and location."""
    try:
        cloud.jobs()
    except ServiceError as error:
        if error.status == 0:
            todo = f"Check the spelling of location {plan.location!r}, and that this machine's network reaches the host"
            return CheckResult(Verdict.FAILED, reason_text(error), todo, is_temporary=True)
        refusal = _REFUSALS.get(error.reason) or _REFUSALS.get(_WORDS.get(error.status, ""))
        if refusal is None:
            raise
        what, todo = (text.format(project=plan.project, location=plan.location) for text in refusal)
        return failed(f"{what} ({reason_text(error)})", todo)
    return good(f"it answers for {plan.project} in {plan.location}")


def rights(plan: Plan, cloud: Cloud, _subject: str) -> CheckResult:
    """Say whether the caller may create jobs and follow them."""
    wanted = (*_NEEDED, _WANTED, *((_ONLINE,) if plan.canary else ()))
    held = cloud.project_permissions(plan.project, wanted)
    missing = [name for name in wanted if name not in held]
    if not missing:
        return good(f"all {len(wanted)} rights that jobs need")
    found = f"missing on {plan.project}: {', '.join(missing)}"
    return (failed if set(missing) & set(_NEEDED) else warning)(found, _ROLE)


def names(plan: Plan, _cloud: Cloud, _subject: str) -> CheckResult:
    """Say whether display name and labels are legal."""
    if problems := list(_problems(plan)):
        return failed("; ".join(problems), "Use lower-case letters, digits, '_' and '-', at most 64 characters")
    return good(f"{len(plan.labels)} labels, display name of {len(plan.display_name)} characters")


def _problems(plan: Plan) -> Iterator[str]:
    if len(plan.display_name) > MAX_DISPLAY_NAME:
        yield f"the display name has {len(plan.display_name)} characters, {MAX_DISPLAY_NAME} are allowed"
    if len(plan.labels) > MAX_LABELS - OUR_LABELS:
        yield f"{len(plan.labels)} labels; {MAX_LABELS} are allowed, and {OUR_LABELS} are our own"
    for key, value in plan.labels.items():
        if not key or not is_legal_label(key):
            yield f"label key {key!r} is not legal"
        elif not is_legal_label(str(value)):
            yield f"the value of label {key!r} is not legal"
