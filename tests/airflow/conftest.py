"""One real Airflow for all tests of this folder: scheduler, triggerer, API server, PostgreSQL, and the local
servers."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import requests

from airflow_vertex_batch.edge import cancelling, responsible
from stack import demo
from stack.laptop import PROJECT, Stack
from tests.airflow.waiting import (  # noqa: F401 - fixtures of the tests that need no Airflow
    serve,
    settles_at_once,
    supervised,
    warnings,
)
from tests.conftest import REAL_AIRFLOW

ROOT = Path(__file__).resolve().parents[2]
#: Jobs end about ten seconds after their creation: long enough that every wait defers.
SPEED = 20.0

NIGHTLY = "nightly_tickets"
#: The days that a backfill runs, as ages: Airflow makes no run of a day to come.
BACKFILLED = (32, 31, 30)
#: When the tests began: the day of that is not always the day on which a test ends.
BEGAN = datetime.now(UTC)
EXAMPLES = ("requests_from_cloud_storage", "describe_images", "steps_one_by_one", "one_task", "sweep_orphans")
CASES = (
    "hold",
    "empty_night",
    "quiet_day",
    "cancelling",
    "bad_request",
    "blocking",
    "rescheduling",
    "from_trigger",
    "database_rows",
    "mapped",
    "from_upstream",
)
#: The importer refuses the empty object.
BAD_REQUEST = {
    "key": "a",
    "request": {"contents": [{"role": "user", "parts": [{"text": "x"}]}], "tools": [{"googleSearch": {}}]},
}


@pytest.fixture(autouse=True)
def time_to_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a worker's `on_kill` all the time it needs: what it does with the 3.5 s that it has is tested by itself."""
    monkeypatch.setattr(cancelling, "WORKER_SECONDS", 600.0)
    monkeypatch.setattr(responsible, "_OUT_OF_TIME_SECONDS", 600.0)


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say where, for the tasks of tests that do not: what is not said is refused when a DAG file is read."""
    monkeypatch.setenv("AIRFLOW__VERTEX_BATCH__STAGING_URI", "gs://configured/staging")
    monkeypatch.setenv("AIRFLOW__VERTEX_BATCH__LOCATION", "us-central1")


class Cloud:
    """The Google side as the tests look at it: the emulator's books, the tables, the bucket."""

    def __init__(self, stack: Stack) -> None:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery, storage

        def client(kind: type, variable: str):
            options = {"api_endpoint": stack.env[variable]}
            return kind(project=PROJECT, credentials=AnonymousCredentials(), client_options=options)

        self._vertex = stack.env["VERTEX_BATCH_EMULATOR_HOST"]
        self._bigquery = client(bigquery.Client, "BIGQUERY_EMULATOR_HOST")
        self._bucket = client(storage.Client, "STORAGE_EMULATOR_HOST").bucket(demo.BUCKET)

    def books(self, *, rows: bool = False) -> dict:
        """What was asked of the service, and billed; with `rows` also the bill of every request."""
        return requests.get(f"{self._vertex}/emulator/books", params={"rows": int(rows)}, timeout=300).json()

    def jobs(self, dag_id: str, *, rows: bool = False) -> list[dict]:
        """The jobs that a DAG has created, in order."""
        return [job for job in self.books(rows=rows)["jobs"] if job["labels"].get("airflow-dag") == dag_id]

    def behave(self, **scenario: object) -> None:
        """Let the service behave differently from now on; nothing restores its defaults."""
        answer = requests.put(f"{self._vertex}/emulator/scenario", json=scenario, timeout=300)
        assert answer.ok, answer.text

    @contextlib.contextmanager
    def misbehaving(self, faults: list[dict]) -> Iterator[None]:
        """Add faults to those of the scenario for the length of a block; insist that each was met."""
        address = f"{self._vertex}/emulator/scenario"
        before = [entry["fault"] for entry in requests.get(address, timeout=300).json()["faults"]]
        self.behave(faults=[*faults, *before])
        try:
            yield
            used = requests.get(address, timeout=300).json()["faults"][: len(faults)]
            assert [entry["fault"] for entry in used if not entry["used"]] == []
        finally:
            self.behave(faults=before)

    def query(self, sql: str) -> list[dict]:
        """Rows of a query."""
        return [dict(row.items()) for row in self._bigquery.query(sql).result()]

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Objects of the demo bucket below a prefix."""
        return {blob.name: blob.download_as_bytes() for blob in self._bucket.list_blobs(prefix=prefix)}

    def upload(self, name: str, text: str) -> str:
        """Put an object into the demo bucket and return its address."""
        self._bucket.blob(name).upload_from_string(text)
        return f"gs://{demo.BUCKET}/{name}"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory):
    """Every server up, the example DAGs and the tests' own loaded, tickets of all days that a test asks for."""
    state = tmp_path_factory.mktemp("stack")
    dags = state / "dags"
    shutil.copytree(ROOT / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (Path(__file__).parent / "dags").glob("*.py"):
        shutil.copy(file, dags)
    env = {
        "VERTEX_BATCH_PROJECT": PROJECT,
        "VERTEX_BATCH_BUCKET": demo.BUCKET,
        "VERTEX_BATCH_POLL_INTERVAL": "2",
        "AIRFLOW__VERTEX_BATCH__STAGING_URI": f"gs://{demo.BUCKET}/vertex-batch",
        "AIRFLOW__VERTEX_BATCH__LOCATION": "us-central1",
        # Tasks mostly wait for the servers.
        "AIRFLOW__CORE__PARALLELISM": "8",
        # Nobody edits the DAG files.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    }
    with Stack(state, dags=dags, speed=SPEED, env=env) as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.env.items():
            patch.setenv(name, value)
        patch.setenv("AIRFLOW_HOME", str(running.airflow.home))
        demo.load_samples()
        _load_tickets()
        _connect_shop(running)
        yield running


def _connect_shop(stack: Stack) -> None:
    """Add a database connection: Airflow's own PostgreSQL, which can generate rows."""
    sockets = stack.airflow.database_url.partition("host=")[2]
    shop = {"connection_id": "shop", "conn_type": "postgres", "host": sockets, "login": "postgres", "schema": "airflow"}
    stack.airflow.client._send("POST", "connections", json=shop)


def days_ago(count: int) -> date:
    """The day so many days before the tests began: it stays that day when a day ends meanwhile."""
    return BEGAN.date() - timedelta(days=count)


def _load_tickets() -> None:
    """Load tickets of three days a month ago, and of the days that may be today or yesterday when a test is done."""
    from google.cloud import bigquery

    rows = [
        {"ticket_id": f"R-{day}-{number}", "created_on": str(day), "subject": "s", "body": "b"}
        for day in map(days_ago, (*BACKFILLED, 1, 0, -1))
        for number in range(5)
    ]
    config = bigquery.LoadJobConfig(write_disposition="WRITE_APPEND", source_format="NEWLINE_DELIMITED_JSON")
    demo._bigquery().load_table_from_json(rows, f"{PROJECT}.support.tickets", job_config=config).result()


@pytest.fixture
def cloud(stack: Stack) -> Cloud:
    """The Google side."""
    return Cloud(stack)


@pytest.fixture
def airflow(stack: Stack):
    """A client of the running Airflow."""
    return stack.airflow.client


@pytest.fixture(scope="session")
def begun(stack: Stack) -> dict[str, str]:
    """Run ids by DAG: every DAG that a test looks at is begun at once, so that they wait for their jobs together."""
    client, cloud = stack.airflow.client, Cloud(stack)
    # The jobs of these stay in the queue: one is waited for while the test looks, one must be there to be cancelled.
    hold = {"do": "hold", "state": "JOB_STATE_PENDING", "from_pending": True, "times": None}
    cloud.behave(faults=[{**hold, "labels": {"airflow-dag": dag_id}} for dag_id in ("hold", "cancelling")])
    conf = {"bad_request": {"input_uri": cloud.upload("requests/bad.jsonl", dumps([BAD_REQUEST]))}}
    runs = {}
    for dag_id in (*EXAMPLES, *CASES):
        client.wait_for_dag(dag_id)
        client.unpause(dag_id)
        runs[dag_id] = client.trigger(dag_id, conf=conf.get(dag_id))
    return runs


def dumps(lines: list[dict]) -> str:
    """JSON lines."""
    return "".join(json.dumps(line) + "\n" for line in lines)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the running Airflow, so that it can be left out, and run in one process.

    :raises pytest.UsageError: for a file that needs it and does not say so.
    """
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.airflow)
        file = item.nodeid.partition("::")[0]
        if item.get_closest_marker("airflow") and file not in REAL_AIRFLOW:
            raise pytest.UsageError(f"{file} drives a real Airflow: name it in REAL_AIRFLOW of tests/conftest.py")
