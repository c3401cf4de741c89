"""What is the state of a DAG run? This is asked outside a task: over Airflow's REST API, or in the database of this
installation.

Invariants: the result is "deleted" only if Airflow was reached, proved to be an Airflow, and let us see the DAG. Every
other answer is "unknown". No password or token is ever printed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_vertex_batch.core.domain.errors import InputError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from airflow_vertex_batch.core.domain.identity import Identity

#: Environment variables with the secrets. On a command line, everybody on the machine could read them.
TOKEN_VARIABLE, PASSWORD_VARIABLE = "VERTEX_BATCH_AIRFLOW_TOKEN", "VERTEX_BATCH_AIRFLOW_PASSWORD"
#: Seconds to wait for an answer.
_TIMEOUT_SECONDS = 30.0
_NOT_FOUND = 404


class RestRuns:
    """Runs of an Airflow, read over its REST API (version 2, Airflow 3).

    :param url: address of the API server.
    :param user: the user whose password is in `PASSWORD_VARIABLE`. Without user and password, `TOKEN_VARIABLE` has a
        token.
    :raises InputError: when there is no Airflow at the address.
    :raises ServiceError: when it cannot be reached, or refuses our credentials.
    """

    def __init__(self, url: str, user: str = "") -> None:
        import requests

        self.name, self._url, self._session = url, url.rstrip("/"), requests.Session()
        version = self._send("GET", "api/v2/version")
        if not version.ok or "version" not in _json(version):
            raise InputError(
                f"{url} is no Airflow 3",
                why=f"It answered HTTP {version.status_code} to api/v2/version",
                left="Nothing was touched",
                todo="Give the address of the API server, as in the browser, without /home",
            )
        self._session.headers["Authorization"] = f"Bearer {os.environ.get(TOKEN_VARIABLE) or self._log_in(user)}"

    def state(self, identity: Identity) -> str | None:
        """Return the state of a run; ``deleted`` if there is no such run, None if the state is unknown.

        :raises ServiceError: when Airflow cannot be reached, or no longer accepts our credentials.
        """
        run = f"{quote(identity.dag_id, safe='')}/dagRuns/{quote(identity.run_id, safe='')}"
        answer = self._send("GET", f"api/v2/dags/{run}")
        if answer.status_code == 401:  # noqa: PLR2004 - an HTTP status reads best as its number
            raise self._refused(answer.status_code)
        detail = _json(answer).get("detail")
        if answer.status_code == _NOT_FOUND and isinstance(detail, str) and identity.run_id in detail:
            return "deleted"
        state = _json(answer).get("state") if answer.ok else None
        return str(state) if state else None

    def _log_in(self, user: str) -> str:
        if user:
            secret = {"username": user, "password": os.environ.get(PASSWORD_VARIABLE, "")}
            answer = self._send("POST", "auth/token", json=secret)
        else:
            # If all users are admins, Airflow's simple auth manager gives a token to anybody.
            answer = self._send("GET", "auth/token")
        token = _json(answer).get("access_token") if answer.ok else None
        if not token:
            raise self._refused(answer.status_code)
        return str(token)

    def _refused(self, status: int) -> ServiceError:
        return ServiceError(
            f"Airflow at {self._url} does not let us in (HTTP {status})",
            status=status,
            left="Nothing was touched",
            todo=f"Set {TOKEN_VARIABLE}, or --airflow-user and {PASSWORD_VARIABLE}, to those of an account that may "
            "see every DAG's runs",
        )

    def _send(self, method: str, path: str, **options: Any) -> requests.Response:
        from requests.exceptions import RequestException

        try:
            return self._session.request(method, f"{self._url}/{path}", timeout=_TIMEOUT_SECONDS, **options)
        except RequestException as error:
            raise ServiceError(
                f"Airflow at {self._url} did not answer",
                status=0,
                why=type(error).__name__,
                left="Nothing was touched",
                todo="Give the address of the API server, as in the browser: http://host:8080",
            ) from error


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        doc = answer.json()
    except ValueError:
        return {}
    return doc if isinstance(doc, dict) else {}


def runs_here() -> Callable[[Identity], str | None]:
    """Return a function that reads the state of a run from the metadata database of this process's Airflow.

    :raises InputError: when Airflow or its database is not available here.
    """
    try:
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import func, select
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise _not_here(str(error)) from error
    try:
        with create_session() as session:
            count = session.scalar(select(func.count()).select_from(DagRun))
    except (SQLAlchemyError, RuntimeError) as error:
        raise _not_here(type(error).__name__) from error
    if not count:
        raise _not_here("its database holds no run at all: this is not the Airflow that bought the jobs")

    def state(identity: Identity) -> str | None:
        found = select(DagRun.state).where(DagRun.dag_id == identity.dag_id, DagRun.run_id == identity.run_id)
        with create_session() as session:
            row = session.execute(found).first()
        return "deleted" if row is None else str(getattr(row[0], "value", row[0]))

    return state


def _not_here(why: str) -> InputError:
    return InputError(
        "The Airflow of this machine cannot be asked",
        why=why,
        left="Nothing was touched",
        todo="Run it where the scheduler or the API server runs, with their environment, or give --airflow-url",
    )
