"""May Google's own account read and write for the job, as far as policies show it?

A job runs under the AI Platform service agent, not under the caller. If a bucket is open to the caller and closed to
the agent, the job fails hours after it was accepted. Groups, folders and organisations are not visible from here, so an
agent that is not listed is a warning and never a failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.domain.errors import CannotAskError, ServiceError
from airflow_vertex_batch.core.upkeep.preflight.buckets import settings
from airflow_vertex_batch.core.upkeep.preflight.definitions import (
    DATASET_WRITERS,
    CheckResult,
    Cloud,
    Plan,
    dataset_of,
    good,
    reason_text,
    unknown,
    warning,
)
from airflow_vertex_batch.core.upkeep.preflight.vertex import project_number

if TYPE_CHECKING:
    from collections.abc import Callable

#: Roles that let an account read and write objects, alone or as a pair
#: (https://cloud.google.com/storage/docs/access-control/iam-roles, 2026-11-25).
_BOTH = frozenset({"roles/storage.admin", "roles/storage.objectAdmin", "roles/storage.objectUser"})
_READ = frozenset({"roles/storage.objectViewer", "roles/storage.legacyObjectReader"})
_WRITE = frozenset({"roles/storage.objectCreator", "roles/storage.legacyBucketWriter"})
#: What Google grants its agent on the project when the API is first used; it reads and writes the project's buckets and
#: tables (https://cloud.google.com/iam/docs/service-agents, 2026-11-25). Some organisations take it away again.
_AGENT_ROLE = "roles/aiplatform.serviceAgent"


class _Resource(msgspec.Struct, frozen=True):
    """A bucket or a dataset.

    :param roles: the roles that it grants an account.
    :param are_enough: whether such roles let a job work with it.
    :param is_in: whether it belongs to the project of that number.
    """

    roles: Callable[[str], frozenset[str]]
    are_enough: Callable[[frozenset[str]], bool]
    is_in: Callable[[str], bool]
    todo: str


def of_bucket(plan: Plan, cloud: Cloud, name: str) -> CheckResult:
    """Say whether the service agent may read and write a bucket."""

    def roles(agent: str) -> frozenset[str]:
        bindings = cloud.bucket_policy(name).get("bindings", ())
        return frozenset(each["role"] for each in bindings if f"serviceAccount:{agent}" in each.get("members", ()))

    def are_enough(found: frozenset[str]) -> bool:
        return bool(found & _BOTH) or bool(found & _READ and found & _WRITE)

    def is_in(number: str) -> bool:
        return str(settings(cloud, name).get("projectNumber", "")) == number

    todo = f"Run: gcloud storage buckets add-iam-policy-binding gs://{name} --member=serviceAccount:AGENT"
    return _look(plan, cloud, _Resource(roles, are_enough, is_in, f"{todo} --role=roles/storage.objectUser"))


def of_table(plan: Plan, cloud: Cloud, uri: str) -> CheckResult:
    """Say whether the service agent may use the dataset that a job reads or writes."""
    owner, dataset = dataset_of(uri)

    def roles(agent: str) -> frozenset[str]:
        access = cloud.dataset(owner, dataset).get("access", ()) if dataset else ()
        return frozenset(str(each.get("role", "")) for each in access if each.get("userByEmail") == agent)

    def are_enough(found: frozenset[str]) -> bool:
        return bool(found & DATASET_WRITERS) or (uri == plan.input and bool(found))

    def is_in(number: str) -> bool:
        return owner in {plan.project, number}

    todo = "Grant roles/bigquery.dataEditor on the dataset, and roles/bigquery.user on the project, to AGENT"
    return _look(plan, cloud, _Resource(roles, are_enough, is_in, todo))


def _look(plan: Plan, cloud: Cloud, resource: _Resource) -> CheckResult:
    number = project_number(plan, cloud)
    if not number:
        return unknown("the project's number is not known, and with it the service agent's name")
    agent = f"service-{number}@gcp-sa-aiplatform.iam.gserviceaccount.com"
    todo, hidden = resource.todo.replace("AGENT", agent), []
    try:
        if resource.are_enough(roles := resource.roles(agent)):
            return good(f"{agent} has {', '.join(sorted(roles))}")
    except (ServiceError, CannotAskError) as error:
        hidden.append(reason_text(error))
    try:
        if _is_agent_of(plan.project, cloud, agent) and resource.is_in(number):
            return good(f"{agent} has {_AGENT_ROLE} on the project, and this is the project's")
    except (ServiceError, CannotAskError) as error:
        hidden.append(reason_text(error))
    if hidden:
        return unknown(f"what {agent} may do cannot be seen ({'; '.join(hidden)})", todo)
    return warning(f"{agent} is not listed; a group or a folder may still let it in", todo)


def _is_agent_of(project: str, cloud: Cloud, agent: str) -> bool:
    return any(
        binding.get("role") == _AGENT_ROLE and f"serviceAccount:{agent}" in binding.get("members", ())
        for binding in cloud.project_policy(project).get("bindings", ())
    )
