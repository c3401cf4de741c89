"""How does the preflight ask Google? `core.upkeep.preflight.Cloud` with plain REST calls.

Invariants: every question is asked once, and its answer, or error, is kept. A host that did not answer is not asked
again, so without a network there is only one timeout for each host. A local server is never asked about rights: it has
none, and some servers say yes to everything. Only `generate` costs money.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec

from airflow_vertex_batch.core.domain.address import TableId, Uri, api_host
from airflow_vertex_batch.core.domain.errors import CannotAskError, ServiceError
from airflow_vertex_batch.gcp.auth import credentials_error
from airflow_vertex_batch.gcp.environment import BIGQUERY_VARIABLE, ENDPOINT_VARIABLE, STORAGE_VARIABLE, local_server

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from google.auth.credentials import Credentials
    from google.auth.transport.requests import AuthorizedSession

#: Seconds for one question: Google answers these in well under one.
TIMEOUT_SECONDS = 10.0
#: Seconds for the canary: a model may think.
CANARY_SECONDS = 120.0
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class Hosts(msgspec.Struct, frozen=True):
    """Where the services are; empty texts are Google's own.

    :param local: services that are local servers: ``vertex``, ``storage``, ``bigquery``.
    """

    vertex: str = ""
    storage: str = ""
    bigquery: str = ""
    resource_manager: str = ""
    local: frozenset[str] = frozenset()

    @classmethod
    def from_environment(cls, vertex: str = "") -> Hosts:
        """Read ``VERTEX_BATCH_EMULATOR_HOST``, ``STORAGE_EMULATOR_HOST`` and ``BIGQUERY_EMULATOR_HOST``.

        :param vertex: wins over the first of them.
        :raises InputError: when one is no address.
        """
        found = {
            "vertex": vertex or local_server(ENDPOINT_VARIABLE),
            "storage": local_server(STORAGE_VARIABLE),
            "bigquery": local_server(BIGQUERY_VARIABLE),
        }
        addresses = {name: _address(host) for name, host in found.items() if host}
        return cls(**addresses, local=frozenset(addresses))


def _address(host: str) -> str:
    return (host if "://" in host else f"http://{host}").rstrip("/")


def environment_credentials(hosts: Hosts) -> Credentials:
    """Return the credentials of this machine; none are needed where the services are local servers."""
    if {"vertex", "storage"} <= hosts.local:
        from google.auth.credentials import AnonymousCredentials

        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    from google.auth import default

    found: Credentials = default(scopes=[_SCOPE])[0]
    return found


class GoogleCloud:
    """Google, asked under one account about one project and location.

    :param credentials: gets the credentials; called when the first question is asked.
    :param timeout: seconds one question may take.
    """

    def __init__(
        self,
        credentials: Callable[[], Credentials],
        project: str,
        location: str,
        hosts: Hosts | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._get, self._timeout = credentials, timeout
        self._parent, self._hosts = f"projects/{project}/locations/{location}", hosts or Hosts()
        self._vertex = self._hosts.vertex or f"https://{api_host(location)}"
        self._credentials: Credentials | None = None
        self._lost: ServiceError | None = None
        self._session: AuthorizedSession | None = None
        self._answers: dict[str, dict[str, Any] | ServiceError | CannotAskError] = {}
        #: Hosts that gave no answer, and how.
        self._silent: dict[str, str] = {}

    # Account and project ----------------------------------------------------------------------------------------------

    def principal(self) -> str:
        """Get a token, and return whose it is; empty where the credentials do not say."""
        from google.auth.credentials import AnonymousCredentials

        from airflow_vertex_batch.gcp.transport import token_request

        credentials = self._account()
        if isinstance(credentials, AnonymousCredentials):
            raise CannotAskError("no credentials are used with local servers")
        if not credentials.valid:
            self._guarded(lambda: credentials.refresh(token_request()))  # type: ignore[no-untyped-call]
        return str(getattr(credentials, "service_account_email", "") or getattr(credentials, "account", "") or "")

    def project(self, project: str) -> dict[str, Any]:
        """``cloudresourcemanager.projects.get``."""
        return self._ask("GET", self._resource_manager(f"projects/{project}"), f"project {project}")

    def project_policy(self, project: str) -> dict[str, Any]:
        """``cloudresourcemanager.projects.getIamPolicy``."""
        url = self._resource_manager(f"projects/{project}:getIamPolicy")
        return self._ask("POST", url, f"the policy of project {project}", body={})

    def project_permissions(self, project: str, wanted: Collection[str]) -> frozenset[str]:
        """``cloudresourcemanager.projects.testIamPermissions``."""
        url = self._resource_manager(f"projects/{project}:testIamPermissions")
        return _permissions(self._ask("POST", url, f"rights on {project}", body={"permissions": list(wanted)}))

    # Vertex AI --------------------------------------------------------------------------------------------------------

    def jobs(self) -> list[dict[str, Any]]:
        """``batchPredictionJobs.list`` of one job."""
        url = f"{self._vertex}/v1/{self._parent}/batchPredictionJobs"
        jobs = self._ask("GET", url, f"the jobs of {self._parent}", [("pageSize", "1")]).get("batchPredictionJobs", [])
        return list(jobs)

    def model(self, path: str) -> dict[str, Any]:
        """``publishers.models.get``, or ``projects.locations.models.get`` of a tuned model.

        A publisher's model is asked for without a project, at the location's host, as google-genai 2.34.0 does
        (`_api_client.py`, ``query_vertex_base_models``).
        """
        return self._ask("GET", f"{self._vertex}/v1/{quote(path, safe='/@')}", f"the model {path}")

    def generate(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """``publishers.models.generateContent``: the one call that is paid, sent once."""
        url = f"{self._vertex}/v1/{quote(path, safe='/@')}:generateContent"
        return self._ask("POST", url, f"one request to {path}", body=request, timeout=CANARY_SECONDS)

    # Cloud Storage ----------------------------------------------------------------------------------------------------

    def bucket(self, bucket: str) -> dict[str, Any]:
        """``storage.buckets.get``."""
        return self._ask("GET", self._storage(bucket), f"bucket {bucket}")

    def bucket_policy(self, bucket: str) -> dict[str, Any]:
        """``storage.buckets.getIamPolicy``."""
        self._needs_rights("storage")
        return self._ask("GET", f"{self._storage(bucket)}/iam", f"the policy of bucket {bucket}")

    def bucket_permissions(self, bucket: str, wanted: Collection[str]) -> frozenset[str]:
        """``storage.buckets.testIamPermissions``; takes no right itself."""
        self._needs_rights("storage")
        params = [("permissions", name) for name in wanted]
        url = f"{self._storage(bucket)}/iam/testPermissions"
        return _permissions(self._ask("GET", url, f"rights on bucket {bucket}", params))

    def has_objects(self, uri: Uri) -> bool:
        """``storage.objects.list`` of one object."""
        params = [("prefix", uri.glob_prefix), ("maxResults", "1")]
        return bool(self._ask("GET", f"{self._storage(uri.bucket)}/o", f"the objects of {uri}", params).get("items"))

    # BigQuery ---------------------------------------------------------------------------------------------------------

    def dataset(self, project: str, dataset: str) -> dict[str, Any]:
        """``bigquery.datasets.get``."""
        return self._ask("GET", self._bigquery(project, dataset), f"dataset {project}.{dataset}")

    def table(self, table: TableId) -> dict[str, Any]:
        """``bigquery.tables.get``."""
        return self._ask("GET", self._bigquery(table.project, table.dataset, table.table), f"table {table}")

    def table_permissions(self, table: TableId, wanted: Collection[str]) -> frozenset[str]:
        """``bigquery.tables.testIamPermissions``."""
        self._needs_rights("bigquery")
        url = f"{self._bigquery(table.project, table.dataset, table.table)}:testIamPermissions"
        return _permissions(self._ask("POST", url, f"rights on table {table}", body={"permissions": list(wanted)}))

    # ------------------------------------------------------------------------------------------------------------------

    def _resource_manager(self, path: str) -> str:
        if "vertex" in self._hosts.local and not self._hosts.resource_manager:
            raise CannotAskError("there is no Resource Manager beside the local servers")
        return f"{self._hosts.resource_manager or 'https://cloudresourcemanager.googleapis.com'}/v3/{path}"

    def _storage(self, bucket: str) -> str:
        return f"{self._hosts.storage or 'https://storage.googleapis.com'}/storage/v1/b/{quote(bucket, safe='')}"

    def _bigquery(self, project: str, dataset: str, table: str = "") -> str:
        host = self._hosts.bigquery or "https://bigquery.googleapis.com"
        path = f"projects/{project}/datasets/{dataset}" + (f"/tables/{table}" if table else "")
        return f"{host}/bigquery/v2/{quote(path, safe='/:')}"

    def _needs_rights(self, service: str) -> None:
        if service in self._hosts.local:
            raise CannotAskError("the local server knows no rights")

    def _ask(self, method: str, url: str, what: str, params: Any = (), **options: Any) -> dict[str, Any]:
        """Ask once; the same question again gets the same answer, or error."""
        question = json.dumps([method, url, list(params), options.get("body")], sort_keys=True)
        if question not in self._answers:
            try:
                self._answers[question] = self._answer(method, url, what, params, **options)
            except (ServiceError, CannotAskError) as error:
                self._answers[question] = error
        answer = self._answers[question]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _answer(
        self, method: str, url: str, what: str, params: Any, *, body: Any = None, timeout: float | None = None
    ) -> dict[str, Any]:
        from requests.exceptions import RequestException

        host = urlsplit(url).netloc
        if host in self._silent:
            raise _no_answer(what, host, self._silent[host])
        session, seconds = self._opened(), timeout or self._timeout
        try:
            answer = self._guarded(
                lambda: session.request(  # type: ignore[no-untyped-call]
                    method, url, params=params, json=body, timeout=seconds, max_allowed_time=seconds,
                    allow_redirects=False,
                )
            )  # fmt: skip
        except RequestException as error:
            self._silent[host] = type(error).__name__
            raise _no_answer(what, host, self._silent[host]) from error
        return _read(what, host, answer.status_code, answer.text)

    def _account(self) -> Credentials:
        if self._lost is not None:
            raise CannotAskError("there are no credentials to ask with") from self._lost
        if self._credentials is None:
            self._credentials = self._guarded(self._get)
        return self._credentials

    def _opened(self) -> AuthorizedSession:
        from airflow_vertex_batch.gcp.transport import bounded_session

        if self._session is None:
            self._session = bounded_session(self._account())
        if self._lost is not None:
            raise CannotAskError("there are no credentials to ask with") from self._lost
        return self._session

    def _guarded(self, use: Callable[[], Any]) -> Any:
        """Use the credentials; once they have failed, nothing else is asked with them."""
        from google.auth.exceptions import GoogleAuthError

        try:
            return use()
        except GoogleAuthError as error:
            self._lost = credentials_error("the preflight", error)
            raise self._lost from error


def _no_answer(what: str, host: str, how: str) -> ServiceError:
    why = f"{host} gave no answer: {how}"
    return ServiceError(f"Google did not answer about {what}", status=0, reason="UNAVAILABLE", why=why)


def _read(what: str, host: str, status: int, text: str) -> dict[str, Any]:
    """Return the document of a good answer."""
    doc = _json(text)
    if 200 <= status < 300 and doc is not None:  # noqa: PLR2004
        return doc
    error = (doc or {}).get("error")
    error = error if isinstance(error, dict) else {}
    # An answer that is not JSON comes from a proxy or from a host without the service. It is not useful to quote it.
    message = str(error.get("message", "")) or f"{host} gave no reason"
    raise ServiceError(f"HTTP {status} about {what}", status=status, reason=_reason(error), why=message)


def _reason(error: dict[str, Any]) -> str:
    """Return the most exact word that Google gave: the reason in ErrorInfo, else the status, else an old
    API's reason.
    """
    details = [each for each in error.get("details", ()) if isinstance(each, dict)]
    reason = next((each["reason"] for each in details if each.get("reason")), "") or error.get("status", "")
    return str(reason or next((each.get("reason", "") for each in error.get("errors", ())), ""))


def _permissions(doc: dict[str, Any]) -> frozenset[str]:
    return frozenset(doc.get("permissions", ()))


def _json(text: str) -> dict[str, Any] | None:
    try:
        doc = json.loads(text or "{}")
    except ValueError:
        return None
    return doc if isinstance(doc, dict) else None
