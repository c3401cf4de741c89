"""What does it mean when Google's credentials fail? One answer for all services.

Invariant: a call whose credentials failed never left this machine, or was refused with 401: it changed nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.errors import ServiceError

if TYPE_CHECKING:
    from google.auth.exceptions import GoogleAuthError


def credentials_error(subject: str, error: GoogleAuthError) -> ServiceError:
    """Return our error for an error of google-auth: retryable if the token server did not answer, status 401 otherwise.

    :param subject: what could not be done.
    """
    from google.auth.exceptions import TransportError

    passing = isinstance(error, TransportError) or error.retryable
    return ServiceError(
        f"No credentials for {subject}",
        status=0 if passing else 401,
        reason="UNAVAILABLE" if passing else "UNAUTHENTICATED",
        why=str(error.args[0] if error.args else type(error).__name__),
        left="Nothing was changed",
        todo="Check the network, and try again"
        if passing
        else "Check the connection's credentials; on a laptop, run gcloud auth application-default login",
    )
