"""What every test may use: the local Cloud Storage and BigQuery servers, a fresh bucket, and no network beside
loopback."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.ports import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_vertex_batch.gcp.bigquery import BigQueryWarehouse
    from airflow_vertex_batch.gcp.storage import GcsStore

PROJECT = "demo"
#: The files of `tests/airflow` that drive a real Airflow, and which one: each is started by one process of tests. They
#: mostly wait, so three of them together need little longer than one. A file that is not named here is refused.
REAL_AIRFLOW = {
    f"tests/airflow/test_{name}.py": which
    for which, names in {
        "chaos": ("chaos",),
        "airflow 1": ("repair", "runs"),
        "airflow 2": ("another_terminal", "budget", "canaries", "ended_by_airflow", "hourly", "soak"),
    }.items()
    for name in names
}

# A slow machine is no fault in the code: what is slow is measured by `make bench`, not by a deadline per example.
# A suite that draws other values each time fails for somebody who changed nothing: `thorough`, `make stateful` and
# `make fuzz` are what looks for more.
settings.register_profile(
    "fast",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    max_examples=30,
)
settings.register_profile("thorough", settings.get_profile("fast"), max_examples=2_000, derandomize=False)
# For what runs more than once and looks for something else than odd values.
settings.register_profile("once", settings.get_profile("fast"), max_examples=1, phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


class LeftTheMachineError(RuntimeError):
    """A test opened, or looked up, something that is not on this machine."""


def _is_here(host: object) -> bool:
    if not isinstance(host, str | bytes) or not host:
        return True
    text = host.decode() if isinstance(host, bytes) else host
    if text in {"localhost", socket.gethostname()}:
        return True
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def _loopback_only(event: str, args: tuple[Any, ...]) -> None:
    """Audit hook: raising here keeps the connection from being made."""
    if event == "socket.connect":
        address = args[1]
        inside = not isinstance(address, tuple) or _is_here(address[0])
    elif event == "socket.getaddrinfo":
        address, inside = args[0], _is_here(args[0])
    else:
        return
    if not inside:
        raise LeftTheMachineError(f"A test tried to reach {address!r}; tests use loopback servers only")


sys.addaudithook(_loopback_only)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share out the tests where they run side by side (`-n 4`): each real Airflow is driven by one process, and all of
    them begin at once, for they take longest. The fourth process takes file by file.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByServers(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return REAL_AIRFLOW.get(file, file)

    return ByServers(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest."""
    order = [*dict.fromkeys(REAL_AIRFLOW.values()), ""]
    items.sort(key=lambda item: order.index(REAL_AIRFLOW.get(item.nodeid.partition("::")[0], "")))


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    """The store over files; see `folder`."""
    return LocalStore()


@pytest.fixture
def folder(tmp_path: Path) -> Uri:
    """An empty folder of the local store."""
    return Uri.parse(str(tmp_path / "data"))


@pytest.fixture(scope="session")
def storage_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running Cloud Storage server."""
    from stack.process import free_port
    from stack.servers import HOST, cloud_storage

    home, port = tmp_path_factory.mktemp("cloud-storage"), free_port()
    server = cloud_storage(home / "data", home / "server.log", port)
    server.start()
    yield f"http://{HOST}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def storage_client(storage_url: str) -> Any:
    """Google's client of the local Cloud Storage server."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client

    return Client(project=PROJECT, credentials=AnonymousCredentials(), client_options={"api_endpoint": storage_url})


@pytest.fixture
def bucket(storage_client: Any) -> Uri:
    """A bucket that nobody else uses."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    storage_client.create_bucket(name)
    return Uri("gs", name, "")


@pytest.fixture
def gcs(storage_client: Any) -> GcsStore:
    """Our store over the local Cloud Storage server; see `bucket`."""
    from airflow_vertex_batch.gcp.storage import GcsStore

    return GcsStore(storage_client)


@pytest.fixture(scope="session")
def bigquery_url(storage_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running BigQuery server that loads from the Cloud Storage server."""
    from stack.process import StackError, free_port
    from stack.servers import HOST, bigquery

    home, port = tmp_path_factory.mktemp("bigquery"), free_port()
    try:
        server = bigquery(home / "data", home / "server.log", port, free_port(), storage_url)
    except StackError as error:
        pytest.skip(str(error))
    server.start()
    yield f"http://{HOST}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def bigquery_client(bigquery_url: str) -> Any:
    """Google's client of the local BigQuery server."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.bigquery import Client

    return Client(project=PROJECT, credentials=AnonymousCredentials(), client_options={"api_endpoint": bigquery_url})


@pytest.fixture
def warehouse(bigquery_client: Any) -> BigQueryWarehouse:
    """Our warehouse over the local BigQuery server; see `table`."""
    from airflow_vertex_batch.gcp.bigquery import BigQueryWarehouse

    return BigQueryWarehouse(bigquery_client)


@pytest.fixture
def table(bigquery_client: Any) -> TableId:
    """A table name in a dataset that nobody else uses."""
    dataset = f"d_{uuid.uuid4().hex[:12]}"
    bigquery_client.create_dataset(dataset)
    return TableId(PROJECT, dataset, "answers")


@pytest.fixture(autouse=True)
def _no_cloud_by_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on what the developer's shell points at."""
    for name in [name for name in os.environ if name.endswith("_EMULATOR_HOST") or name.startswith("GOOGLE_")]:
        monkeypatch.delenv(name)
