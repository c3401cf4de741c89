"""Which account, which server, where no Airflow connection says so? What the environment says: for the command line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow_vertex_batch.gcp.auth import credentials_error

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

    from airflow_vertex_batch.gcp.vertex import VertexClient

#: Points every Vertex AI call at another server, as ``STORAGE_EMULATOR_HOST`` does for Cloud Storage.
ENDPOINT_VARIABLE = "VERTEX_BATCH_EMULATOR_HOST"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def job_service(project: str, location: str) -> VertexClient:
    """Return the job service of a project and location, with the application default credentials.

    :raises ServiceError: when there are no credentials.
    """
    from airflow_vertex_batch.gcp.vertex import VertexClient

    endpoint = os.environ.get(ENDPOINT_VARIABLE, "")
    return VertexClient(_credentials(f"jobs of {project}", emulated=bool(endpoint)), project, location, endpoint)


def default_account(emulator_variable: str) -> tuple[str, Credentials]:
    """Return project and credentials of the environment; a local server takes anybody's.

    :param emulator_variable: names the local server of the service, where there is one.
    """
    import google.auth
    from google.auth.credentials import AnonymousCredentials

    if os.environ.get(emulator_variable):
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
