"""What do the demo and the tests ask of a running Airflow, and what does it answer?

A thin client of the public REST API (version 2) and of the login route of the simple auth manager. Answers are the
API's own dictionaries. Waiting methods poll, call ``watch`` with what they saw, and give up with :class:`AirflowError`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote

import requests

Json = dict[str, Any]
#: States after which a run, or a task instance, does not move any more by itself.
RUN_ENDED = frozenset({"success", "failed"})
TASK_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
#: Seconds between two looks. The API server answers in 20 ms, and shares two cores with the scheduler.
POLL_S = 0.5
#: The default for the longest wait, in seconds. It is long, because a test must not fail on a busy machine.
LONGEST_WAIT_S = 1800.0
#: Most entries of one page (Airflow's ``maximum_page_limit``).
PAGE = 100


class AirflowError(Exception):
    """Airflow refused a request, or something did not happen in time."""


class AirflowClient:
    """A client of one Airflow.

    :param url: address of the API server, without a slash at its end.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy, no .netrc: the server is on this machine

    # -- the installation

    def health(self) -> Json:
        """State of the metadata database, scheduler, triggerer and dag processor; needs no login."""
        answer = self._session.get(f"{self.url}/api/v2/monitor/health", timeout=300)
        answer.raise_for_status()
        return answer.json()  # type: ignore[no-any-return]

    def import_errors(self) -> dict[str, str]:
        """DAG files that cannot be imported, with their tracebacks."""
        return {e["filename"]: e["stack_trace"] for e in self._pages("importErrors", "import_errors")}

    # -- DAGs

    def dag_ids(self) -> list[str]:
        """All DAGs Airflow has read."""
        return [dag["dag_id"] for dag in self._pages("dags", "dags")]

    def wait_for_dag(self, dag_id: str, timeout_s: float = LONGEST_WAIT_S) -> Json:
        """Wait until a DAG has been read from its file.

        :raises AirflowError: with the import errors, if it does not appear, or a file could not be imported twice.
        """
        broken: dict[str, str] = {}

        def look() -> Json | None:
            answer = self._send("GET", f"dags/{dag_id}", accept=(404,))
            # A file can be read and its DAG listed a moment before the version that a run needs is stored.
            if answer.get("dag_id"):
                return answer if self._has_version(dag_id) else None
            for error in self._pages("importErrors", "import_errors"):
                if broken.setdefault(error["filename"], error["timestamp"]) != error["timestamp"]:
                    raise AirflowError(f"DAG {dag_id} cannot come from {error['filename']}:\n{error['stack_trace']}")
            return None

        return self.wait_for(
            f"DAG {dag_id} to be read", look, lambda: "\n".join(self.import_errors().values()), timeout_s
        )

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler start runs of this DAG, those it owes included."""
        self._send("PATCH", f"dags/{dag_id}", json={"is_paused": False})

    def pause(self, dag_id: str) -> None:
        """Keep the scheduler from starting runs of this DAG."""
        self._send("PATCH", f"dags/{dag_id}", json={"is_paused": True})

    # -- runs

    def trigger(
        self, dag_id: str, *, logical_date: datetime | None = None, conf: Json | None = None, **more: Any
    ) -> str:
        """Start a run by hand and return its id.

        :param logical_date: None starts a run that has none, as the UI can.
        :param more: further fields of the request, such as ``dag_run_id`` or ``partition_key``.
        """
        date = logical_date.isoformat() if logical_date else None
        run = self._send("POST", f"dags/{dag_id}/dagRuns", json={"logical_date": date, "conf": conf or {}, **more})
        return str(run["dag_run_id"])

    def runs(self, dag_id: str) -> list[Json]:
        """All runs of a DAG, the oldest first."""
        return list(self._pages(f"dags/{dag_id}/dagRuns", "dag_runs", order_by="run_after"))

    def run(self, dag_id: str, run_id: str) -> Json:
        """One run."""
        return self._send("GET", _run(dag_id, run_id))

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        timeout_s: float = LONGEST_WAIT_S,
        watch: Callable[[list[Json]], None] | None = None,
    ) -> Json:
        """Wait until a run has ended, well or badly, and return it.

        :param watch: is called with the task instances at every look.
        :raises AirflowError: with the states of its tasks, if it does not end in time.
        """

        def look() -> Json | None:
            if watch:
                watch(self.tasks(dag_id, run_id))
            run = self.run(dag_id, run_id)
            return run if run["state"] in RUN_ENDED else None

        return self.wait_for(f"run {run_id} of {dag_id} to end", look, lambda: self._states(dag_id, run_id), timeout_s)

    def set_run_state(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a run ``success`` or ``failed``, or put it back to ``queued``."""
        self._send("PATCH", _run(dag_id, run_id), json={"state": state})

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run that has ended, with its task instances."""
        self._send("DELETE", _run(dag_id, run_id))

    # -- task instances

    def tasks(self, dag_id: str, run_id: str) -> list[Json]:
        """The task instances of a run; a mapped task has one for every ``map_index``."""
        return list(self._pages(f"{_run(dag_id, run_id)}/taskInstances", "task_instances"))

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Json:
        """One task instance."""
        return self._send("GET", _task(dag_id, run_id, task_id, map_index))

    def wait_for_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: set[str] | frozenset[str] = TASK_ENDED,
        *,
        map_index: int = -1,
        timeout_s: float = LONGEST_WAIT_S,
    ) -> Json:
        """Wait until a task instance is in one of ``states`` and return it.

        :raises AirflowError: with the states of the run's tasks, if that does not happen in time.
        """

        def look() -> Json | None:
            task = self.task(dag_id, run_id, task_id, map_index)
            return task if task["state"] in states else None

        what = f"task {task_id} of {dag_id} {run_id} to be {' or '.join(sorted(states))}"
        return self.wait_for(what, look, lambda: self._states(dag_id, run_id), timeout_s)

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task instance ``success``, ``failed`` or ``skipped``, as the UI's buttons do."""
        self._send("PATCH", _task(dag_id, run_id, task_id, map_index), json={"new_state": state})

    def clear(
        self, dag_id: str, run_id: str, task_ids: list[str] | None = None, *, downstream: bool = True
    ) -> list[str]:
        """Clear task instances (by default all of the run) so that they run again; return the cleared ones' ids."""
        body = {"dag_run_id": run_id, "task_ids": task_ids, "include_downstream": downstream}
        options = {"dry_run": False, "only_failed": False, "reset_dag_runs": True}
        cleared = self._send("POST", f"dags/{dag_id}/clearTaskInstances", json={**body, **options})
        return [task["task_id"] for task in cleared["task_instances"]]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """What a task returned, or pushed under ``key``."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        return self._send("GET", path, params={"map_index": map_index, "deserialize": False})["value"]

    def links(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, str | None]:
        """The task's extra links by their names."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/links"
        links: dict[str, str | None] = self._send("GET", path, params={"map_index": map_index})["extra_links"]
        return links

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """The log of one attempt as text, one event a line."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/logs/{try_number}"
        content = self._send("GET", path, params={"map_index": map_index, "full_content": True})["content"]
        return "\n".join(line if isinstance(line, str) else _log_line(line) for line in content)

    # -- backfill

    def backfill(self, dag_id: str, from_date: datetime, to_date: datetime, **more: Any) -> int:
        """Create a backfill over the dates, both included, and return its id.

        :param more: further fields of the request, such as ``reprocess_behavior`` or ``max_active_runs``.
        """
        dates = {"from_date": from_date.isoformat(), "to_date": to_date.isoformat()}
        return int(self._send("POST", "backfills", json={"dag_id": dag_id, **dates, **more})["id"])

    def backfills(self, dag_id: str) -> list[Json]:
        """All backfills of a DAG."""
        return list(self._send("GET", "backfills", params={"dag_id": dag_id})["backfills"])

    def wait_for_backfill(self, backfill_id: int, timeout_s: float = LONGEST_WAIT_S) -> Json:
        """Wait until all runs of a backfill have ended.

        :raises AirflowError: if they do not end in time.
        """

        def look() -> Json | None:
            answer = self._send("GET", f"backfills/{backfill_id}")
            return answer if answer["completed_at"] else None

        return self.wait_for(f"backfill {backfill_id} to complete", look, lambda: "", timeout_s)

    # -- plumbing

    def _has_version(self, dag_id: str) -> bool:
        return bool(self._send("GET", f"dags/{dag_id}/dagVersions", accept=(404,)).get("dag_versions"))

    def _states(self, dag_id: str, run_id: str) -> str:
        return ", ".join(f"{_task_name(task)}: {task['state']}" for task in self.tasks(dag_id, run_id))

    def wait_for(
        self,
        what: str,
        look: Callable[[], Json | None],
        why: Callable[[], str],
        timeout_s: float = LONGEST_WAIT_S,
    ) -> Json:
        """Look until there is something to see, and return it.

        :param what: what is waited for, for the error.
        :param look: returns what is there, None for nothing yet.
        :param why: says how things stand when it was in vain.
        :raises AirflowError: when there is nothing in time.
        """
        deadline = time.monotonic() + timeout_s
        while (seen := look()) is None:
            if time.monotonic() > deadline:
                raise AirflowError(f"Waited {timeout_s:.0f} s in vain for {what}. {why()}")
            time.sleep(POLL_S)
        return seen

    def _pages(self, path: str, field: str, **params: Any) -> Iterator[Json]:
        offset = 0
        while True:
            page = self._send("GET", path, params={**params, "limit": PAGE, "offset": offset})
            yield from page[field]
            offset += len(page[field])
            if not page[field] or offset >= page["total_entries"]:
                return

    def _send(self, method: str, path: str, *, accept: tuple[int, ...] = (), **options: Any) -> Json:
        if "Authorization" not in self._session.headers:
            self._log_in()
        answer = self._session.request(method, f"{self.url}/api/v2/{path}", timeout=300, **options)
        if not answer.ok and answer.status_code not in accept:
            raise AirflowError(f"{method} {path} was answered with {answer.status_code}: {answer.text[:1000]}")
        return answer.json() if answer.content else {}

    def _log_in(self) -> None:
        """Take a token. With all users admins, the route asks for no password."""
        answer = self._session.get(f"{self.url}/auth/token", timeout=300)
        answer.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


def _run(dag_id: str, run_id: str) -> str:
    return f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _task(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}"
    return path if map_index < 0 else f"{path}/{map_index}"


def _task_name(task: Json) -> str:
    return str(task["task_id"]) if task["map_index"] < 0 else f"{task['task_id']}[{task['map_index']}]"


#: What every message of a task carries beside its text; of no use to a reader who asked for this very task.
LOG_CONTEXT = {
    "event", "timestamp", "level", "logger", "error_detail", "filename", "lineno", "loc",
    "dag_id", "run_id", "task_id", "ti_id", "map_index", "try_number", "ti",
}  # fmt: skip


def _log_line(line: Json) -> str:
    """One structured log message as text."""
    extra = " ".join(f"{key}={value}" for key, value in line.items() if key not in LOG_CONTEXT)
    errors = "".join(f"\n  {e.get('exc_type')}: {e.get('exc_value')}" for e in line.get("error_detail") or [])
    return f"{line.get('level') or '':<8} {line.get('event', '')} {extra}".rstrip() + errors
