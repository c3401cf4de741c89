"""Which account and which server are used without an Airflow connection? Those in the environment. This is for the
command line.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.gcp.auth import credentials_error

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

    from airflow_vertex_batch.gcp.vertex import VertexClient

#: Points every Vertex AI call at another server, as ``STORAGE_EMULATOR_HOST`` does for Cloud Storage.
ENDPOINT_VARIABLE = "VERTEX_BATCH_EMULATOR_HOST"
#: The same for the other services, as their own clients read them.
STORAGE_VARIABLE, BIGQUERY_VARIABLE = "STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def local_server(variable: str) -> str:
    """Return the address that a variable of the environment names, without a slash at its end, or an empty text.

    :raises InputError: when it is not an address. Otherwise every call would fail, and no error would name the
        variable.
    """
    if not (address := os.environ.get(variable, "")):
        return ""
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise InputError(
            f"{variable} is {address!r}, which is no address",
            todo=f"Set it to the local server, such as {variable}=http://localhost:9000, or unset it",
        )
    return address.rstrip("/")


def job_service(project: str, location: str, outage_seconds: float) -> VertexClient:
    """Return the job service of a project and location, with the application default credentials.

    :param outage_seconds: for which a call that fails is repeated.
    :raises ServiceError: when there are no credentials.
    """
    from airflow_vertex_batch.gcp.vertex import VertexClient

    endpoint = local_server(ENDPOINT_VARIABLE)
    credentials = _credentials(f"jobs of {project}", emulated=bool(endpoint))
    return VertexClient(credentials, project, location, endpoint, outage_seconds=outage_seconds)


def own_project() -> str:
    """Return the project of the environment's account; an empty text if the account names none.

    :raises ServiceError: when there are no credentials.
    """
    from google.auth.exceptions import GoogleAuthError

    try:
        return default_account(ENDPOINT_VARIABLE)[0]
    except GoogleAuthError as error:
        raise credentials_error("this machine's account", error) from error


def default_account(emulator_variable: str) -> tuple[str, Credentials]:
    """Return project and credentials of the environment. A local server accepts any credentials.

    :param emulator_variable: names the local server of the service, where there is one.
    """
    import google.auth
    from google.auth.credentials import AnonymousCredentials

    if local_server(emulator_variable):
        return "emulator", AnonymousCredentials()  # type: ignore[no-untyped-call]
    credentials, project = google.auth.default(scopes=[_SCOPE])
    return project or "", credentials


def _credentials(subject: str, *, emulated: bool) -> Credentials:
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import GoogleAuthError

    if emulated:
        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
    except GoogleAuthError as error:
        raise credentials_error(subject, error) from error
    return credentials
