"""What the emulator's tests run against: Cloud Storage and BigQuery in memory, and short ways to make jobs and
requests.

The warehouse is SQLite, so that SQL the emulator sends is really executed.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import json
import socket
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.core.domain.ports import LocalStore, ObjectInfo, replaced
from airflow_vertex_batch.emulator.clock import VirtualClock
from airflow_vertex_batch.emulator.faults import Call, Fault, Reply
from airflow_vertex_batch.emulator.rest import Rest
from airflow_vertex_batch.emulator.scenario import Scenario, Switches
from airflow_vertex_batch.emulator.server import make_server
from airflow_vertex_batch.emulator.service import Emulator

PARENT = "/v1/projects/demo/locations/global/batchPredictionJobs"
INPUT, OUTPUT = "gs://in/requests.jsonl", "gs://out/answers"


class MemoryStore:
    """`ObjectStore` in a dict, with buckets that may be missing or closed."""

    def __init__(self, *buckets: str) -> None:
        self.buckets = set(buckets or ("in", "out"))
        self.read_only: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.write_count = 0

    def now(self, near: Uri) -> datetime:
        return datetime.now(UTC)

    def list(self, folder: Uri) -> Iterator[ObjectInfo]:
        self._check(folder)
        prefix = f"gs://{folder.bucket}/{folder.glob_prefix}"
        for name in sorted(self.objects):
            if name.startswith(prefix) and (not folder.has_glob or fnmatch.fnmatchcase(name, str(folder))):
                yield ObjectInfo(Uri.parse(name), len(self.objects[name]))

    @contextlib.contextmanager
    def open_read(self, uri: Uri, version: str = "") -> Iterator[IO[bytes]]:
        self._check(uri)
        if str(uri) not in self.objects:
            raise InputError(f"{uri} does not exist")
        yield io.BytesIO(self.objects[str(uri)])

    @contextlib.contextmanager
    def open_write(self, uri: Uri, content_type: str = "application/x-ndjson") -> Iterator[IO[bytes]]:
        self._check(uri)
        if uri.bucket in self.read_only:
            raise ServiceError(f"{uri} refused", status=403)
        stream = io.BytesIO()
        yield stream
        self.objects[str(uri)] = stream.getvalue()
        self.write_count += 1

    def version(self, uri: Uri) -> str:
        data = self.objects.get(str(uri))
        return "" if data is None else str(hash(data))

    @contextlib.contextmanager
    def open_replace(self, uri: Uri, version: str, content_type: str = "application/x-ndjson") -> Iterator[IO[bytes]]:
        with self.open_write(uri, content_type) as stream:
            yield stream
            if self.version(uri) != version:
                raise replaced(uri)

    def read(self, uri: Uri) -> bytes | None:
        return self.objects.get(str(uri))

    def write_new(self, uri: Uri, data: bytes) -> bool:
        return self.objects.setdefault(str(uri), data) is data

    def delete(self, uri: Uri) -> None:
        self.objects.pop(str(uri), None)

    def put(self, uri: str, *lines: Any) -> None:
        """Write an object; what is not bytes becomes one JSON line."""
        self.objects[uri] = b"".join(
            line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines
        )

    def _check(self, uri: Uri) -> None:
        if uri.bucket not in self.buckets:
            raise InputError(f"gs://{uri.bucket} does not exist")


class FolderStore(LocalStore):
    """`ObjectStore` whose buckets are folders: what several processes can share.

    :param root: the folder of the buckets.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def _file(self, uri: Uri) -> Uri:
        if not (self._root / uri.bucket).is_dir():
            raise InputError(f"gs://{uri.bucket} does not exist")
        return Uri("file", "", str(self._root / uri.bucket / uri.name))

    def list(self, folder: Uri) -> Iterator[ObjectInfo]:
        for item in super().list(self._file(folder)):
            name = str(Path(item.uri.name).relative_to(self._root / folder.bucket))
            yield ObjectInfo(Uri("gs", folder.bucket, name), item.size_bytes)

    def open_read(self, uri: Uri, version: str = "") -> Any:
        return super().open_read(self._file(uri), version)

    def open_write(self, uri: Uri, content_type: str = "application/x-ndjson") -> Any:
        return super().open_write(self._file(uri), content_type)

    def delete(self, uri: Uri) -> None:
        super().delete(self._file(uri))


class SqliteWarehouse:
    """`Warehouse` over SQLite: a table's full name is its name there."""

    def __init__(self, store: MemoryStore) -> None:
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._store = store
        self.schemas: dict[str, dict[str, str]] = {}
        self.loads: list[str] = []

    def put(self, table: str, schema: dict[str, str], *rows: dict[str, Any]) -> None:
        """Make a table with rows, and its line in INFORMATION_SCHEMA."""
        self._make(table, schema)
        for row in rows:
            self._insert(table, row)

    def all(self, table: str) -> list[dict[str, Any]]:
        """Return a table's rows, JSON columns parsed."""
        return list(self.rows(TableId.parse(table)))

    def rows(self, query: str | TableId, parameters: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        sql = f"SELECT * FROM `{query}`" if isinstance(query, TableId) else query.replace("@", ":")
        schema = self.schemas.get(str(query), {})
        for row in self._db.execute(sql, dict(parameters or {})).fetchall():
            yield {
                name: json.loads(value) if schema.get(name) == "JSON" and value else value
                for name, value in dict(row).items()
            }

    def count(self, table: TableId) -> int | None:
        if str(table) not in self.schemas:
            return None
        return int(self._db.execute(f"SELECT count(*) FROM `{table}`").fetchone()[0])

    def create_table(self, table: TableId, schema: Iterable[Mapping[str, Any]], **options: Any) -> None:
        self._make(str(table), {field["name"]: field["type"] for field in schema})

    def load(self, uris: Iterable[str], table: TableId, schema: Iterable[Mapping[str, Any]], *, job_id: str) -> int:
        self.loads.append(job_id)
        self._make(str(table), {field["name"]: field["type"] for field in schema})
        lines = [line for uri in uris for line in self._store.objects[uri].splitlines()]
        for line in lines:
            self._insert(str(table), json.loads(line))
        return len(lines)

    def execute(self, sql: str, *, job_id: str, parameters: Mapping[str, Any] | None = None) -> int:
        return self._db.execute(sql, dict(parameters or {})).rowcount

    def drop(self, table: TableId) -> None:
        self._db.execute(f"DROP TABLE `{table}`")
        del self.schemas[str(table)]

    def _make(self, table: str, schema: dict[str, str]) -> None:
        self._db.execute(f"DROP TABLE IF EXISTS `{table}`")
        self._db.execute(f"CREATE TABLE `{table}` ({', '.join(f'`{name}`' for name in schema)})")
        self.schemas[table] = schema
        dataset, _, name = table.rpartition(".")
        columns = f"`{dataset}.INFORMATION_SCHEMA.COLUMNS`"
        self._db.execute(f"CREATE TABLE IF NOT EXISTS {columns} (table_name, column_name, data_type, ordinal_position)")
        self._db.executemany(
            f"INSERT INTO {columns} VALUES (?, ?, ?, ?)",
            [(name, column, kind, index) for index, (column, kind) in enumerate(schema.items())],
        )

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        schema = self.schemas[table]
        assert row.keys() <= schema.keys(), f"{row.keys() - schema.keys()} are no columns of {table}"
        values = [
            json.dumps(row.get(name)) if kind == "JSON" and row.get(name) is not None else row.get(name)
            for name, kind in schema.items()
        ]
        self._db.execute(f"INSERT INTO `{table}` VALUES ({', '.join('?' * len(values))})", values)


class World:
    """One emulator on a clock moved by hand, its store and warehouse, and calls in process."""

    def __init__(self, store: MemoryStore | None = None, **options: Any) -> None:
        self.store = store or MemoryStore()
        self.warehouse = SqliteWarehouse(self.store)
        options = {"store": self.store, "warehouse": self.warehouse, "clock": VirtualClock(), "seed": 1} | options
        self.emulator = Emulator(**options)
        self.rest = Rest(self.emulator)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Make one call, everything through JSON."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        reply = self.rest.handle(Call(method, path, query or {}, raw, headers or {}))
        return Reply(reply.status, json.loads(json.dumps(reply.document)), reply.headers)

    def create(self, body: Any = None, path: str = PARENT) -> dict[str, Any]:
        """Create a job that is accepted."""
        reply = self.call("POST", path, a_body() if body is None else body)
        assert reply.status == 200, reply.document
        return reply.document

    def get(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return a job as it is now."""
        return self.call("GET", f"/v1/{job['name']}").document

    def ended(self, job: dict[str, Any], seconds: float = 3600) -> dict[str, Any]:
        """Let time pass and return the job."""
        self.emulator.advance(seconds)
        return self.get(job)

    def run(self, *lines: Any, **body: Any) -> dict[str, Any]:
        """Write requests, create a job over them, and return it when it has ended."""
        self.store.put(INPUT, *lines)
        return self.ended(self.create(a_body(**body)))

    def output(self, job: dict[str, Any], name: str = "predictions.jsonl") -> list[dict[str, Any]]:
        """Return a job's output lines."""
        return [
            json.loads(line)
            for line in self.store.objects[f"{job['outputInfo']['gcsOutputDirectory']}/{name}"].splitlines()
        ]


@contextlib.contextmanager
def listening(world: World) -> Iterator[str]:
    """Serve a world on a free port of this machine; give its URL."""
    server = make_server(world.emulator)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # Connections wait here until the server is up: nobody needs to ask when that is.
        listener.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield "http://{}:{}".format(*listener.getsockname())
        finally:
            server.should_exit = True
            thread.join()


def a_request(text: str = "Say hello.", **members: Any) -> dict[str, Any]:
    """Return a request of one user turn."""
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], **members}


def a_line(key: str = "k1", text: str = "Say hello.", **members: Any) -> dict[str, Any]:
    """Return a request line."""
    return {"key": key, "request": a_request(text, **members)}


def a_body(**members: Any) -> dict[str, Any]:
    """Return a create body from Cloud Storage to Cloud Storage."""
    return {
        "displayName": "a-job",
        "model": "publishers/google/models/gemini-2.5-flash",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [INPUT]}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": OUTPUT}},
        **members,
    }


def from_table(table: str) -> dict[str, Any]:
    """Return an ``inputConfig`` over a BigQuery table."""
    return {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": f"bq://{table}"}}


def to_table(table: str) -> dict[str, Any]:
    """Return an ``outputConfig`` into BigQuery."""
    return {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": f"bq://{table}"}}


#: A line whose row is refused.
BAD = {"key": "bad", "request": {"contents": []}}


def a_world(*faults: Fault, lines: Iterable[Any] = (), **switches: Any) -> World:
    """Return a world with faults and switches, and requests: ten with the keys k0 to k9 by default."""
    world = World(scenario=Scenario(switches=Switches(**switches), faults=faults))
    world.store.put(INPUT, *(lines or [a_line(f"k{number}", f"Question {number}.") for number in range(10)]))
    return world
