"""What does Cloud Storage's refusal mean for the reader? It names the object, and the right that is missing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.gcp.auth import credentials_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_vertex_batch.core.domain.address import Uri


@contextlib.contextmanager
def translated(uri: Uri, *, asks_bucket: bool = False) -> Iterator[None]:
    """Turn the client's exceptions into ours, naming the object and the right that is missing.

    :param asks_bucket: whether the bucket alone may be what is missing: for a list, and for what writes.
    """
    from google.api_core.exceptions import GoogleAPICallError, NotFound, RetryError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import InvalidResponse
    from requests.exceptions import RequestException

    try:
        yield
    except NotFound as error:
        raise _missing(uri, error.message.partition("\n")[0], asks_bucket=asks_bucket) from error
    except InvalidResponse as error:
        if error.response.status_code == NotFound.code:
            raise _missing(uri, str(error.args[0]).partition("\n")[0], asks_bucket=asks_bucket) from error
        raise _failure(uri, error.response.status_code, str(error)) from error
    except GoogleAPICallError as error:
        raise _failure(uri, int(error.code or 0), error.message) from error
    except GoogleAuthError as error:
        raise credentials_error(str(uri), error) from error
    except (RequestException, RetryError) as error:
        raise ServiceError(
            f"Cloud Storage did not answer about {uri}",
            status=0,
            why=type(error).__name__,
            todo="Check the network, and where Cloud Storage is a local server, that it runs",
        ) from error


def _missing(uri: Uri, why: str, *, asks_bucket: bool) -> InputError:
    """Return the error of what Cloud Storage does not find.

    :param why: its own words; of a missing bucket it says "The specified bucket does not exist".
    :param asks_bucket: as `translated` takes it.
    """
    if asks_bucket or "bucket does not exist" in why:
        todo = "Check the name of the bucket, or make the bucket"
        return InputError(f"The bucket gs://{uri.bucket} does not exist", why=why, todo=todo)
    return InputError(f"{uri} does not exist", why=why, todo="Check the name of the bucket and of the object")


def _failure(uri: Uri, status: int, message: str) -> ServiceError:
    todo = (
        "Grant the connection's account roles/storage.objectUser on the bucket"
        if status in {401, 403}
        else "Try again later"
    )
    return ServiceError(f"Cloud Storage refused {uri} with HTTP {status}", status=status, why=message, todo=todo)
