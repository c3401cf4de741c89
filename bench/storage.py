"""How near to the Cloud Storage server's own rate do rows go in and answers come out? Over HTTP, to a local server.

The server's own rate is the same bytes sent, or fetched, by the same client and nothing else done with them. Wall-clock
seconds, the best of some rounds that take turns: the server works on the same cores.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.answers.collect import Collector
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.requests.sources import Rows
from airflow_vertex_batch.gcp.storage import GcsStore
from bench import export as answers
from bench import prepare as requests

if TYPE_CHECKING:
    from collections.abc import Callable

_ROWS, _ROUNDS = 30_000, 3
_BUCKET = Uri("gs", "bench", "")
_BLOCK = 1 << 20


def rates() -> tuple[list[str], list[list[object]]]:
    """Compare prepare and collect with a bare upload and download of the same bytes."""
    from stack.process import free_port
    from stack.servers import HOST, cloud_storage

    with tempfile.TemporaryDirectory() as home:
        server = cloud_storage(Path(home, "data"), Path(home, "server.log"), port := free_port())
        server.start()
        try:
            return _measured(_store(f"http://{HOST}:{port}"))
        finally:
            server.stop()


def _store(url: str) -> GcsStore:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client

    client: Any = Client(project="bench", credentials=AnonymousCredentials(), client_options={"api_endpoint": url})  # type: ignore[no-untyped-call]
    client.create_bucket(_BUCKET.bucket)
    return GcsStore(client)


def _measured(store: GcsStore) -> tuple[list[str], list[list[object]]]:
    manifest = _prepare(store, 0)
    sent = _fetched(store, Uri.parse(manifest.shards[0].uri))
    asked, made = answers.job_files(_ROWS)
    inputs, output = _BUCKET / "in.jsonl", _BUCKET / "out" / "predictions.jsonl"
    _send(store, inputs, asked)
    _send(store, output, made)
    up = _best({"server": lambda n: _send(store, _BUCKET / f"raw-{n}", sent), "ours": lambda n: _prepare(store, n + 1)})
    down = _best(
        {"server": lambda _: (_fetched(store, inputs), _fetched(store, output)), "ours": lambda _: _collect(store)}
    )
    rows = []
    for name, seconds, size in (
        ("prepare", up, len(sent)),
        ("collect", down, len(made) + len(asked)),
    ):
        own, ours = (size / seconds[way] / 1e6 for way in ("server", "ours"))
        rows.append([name, f"{size / 1e6:.0f}", f"{own:.0f}", f"{ours:.0f}", f"{ours / own:.0%}"])
    return ["through Cloud Storage", "MB", "server alone MB/s", "ours MB/s", "of the server's rate"], rows


def _best(ways: dict[str, Callable[[int], object]]) -> dict[str, float]:
    best = dict.fromkeys(ways, float("inf"))
    for number in range(_ROUNDS):
        for name, work in ways.items():
            began = time.perf_counter()
            work(number)
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def _prepare(store: GcsStore, number: int) -> Any:
    plan = PreparePlan(template=requests.simple_template(), key_column="id")
    return prepare(Rows(requests.rows(_ROWS)).rows(store, None), plan, store, _BUCKET / f"run-{number}", "bench")  # type: ignore[arg-type]


def _collect(store: GcsStore) -> None:
    batch = answers.batch(str(_BUCKET / "in.jsonl"), str(_BUCKET / "out"))
    for _ in Collector(store, None).rows(batch):  # type: ignore[arg-type]
        pass


def _send(store: GcsStore, uri: Uri, data: bytes) -> None:
    with store.open_write(uri) as stream:
        for at in range(0, len(data), _BLOCK):
            stream.write(data[at : at + _BLOCK])


def _fetched(store: GcsStore, uri: Uri) -> bytes:
    with store.open_read(uri) as stream:
        return b"".join(iter(lambda: stream.read(_BLOCK), b""))
