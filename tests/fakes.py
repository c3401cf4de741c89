"""Real small implementations of the engine's ports, kept in memory.

Everything that a service would keep passes through JSON or bytes, so a second attempt sees what it would see in
production.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
from datetime import UTC, datetime, timedelta
from typing import IO, TYPE_CHECKING, Any

from airflow_vertex_batch.core.domain.address import JobName, TableId, Uri
from airflow_vertex_batch.core.domain.errors import AmbiguousError, InputError, ServiceError
from airflow_vertex_batch.core.domain.job import BatchJob, JobSpec, JobState
from airflow_vertex_batch.core.domain.ports import ANY_VALUE, ObjectInfo, replaced
from airflow_vertex_batch.gcp.storage import glob_pattern
from tests.builders import NIGHT, a_job_doc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


class MemoryStore:
    """`ObjectStore` in a dict."""

    def __init__(self, **objects: bytes) -> None:
        self.objects: dict[str, bytes] = dict(objects)
        #: Names of the objects that were read as streams, in order.
        self.opened: list[str] = []
        self._written = 0
        self._versions: dict[str, int] = {}
        #: Its own clock, which no worker reads but here.
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def now(self, near: Uri) -> datetime:
        return self.clock()

    def list(self, folder: Uri) -> Iterator[ObjectInfo]:
        matches = glob_pattern(str(folder)).fullmatch if folder.has_glob else None
        prefix = (
            f"{folder.scheme}://{folder.bucket}/{folder.glob_prefix}" if folder.scheme == "gs" else folder.glob_prefix
        )
        for name in sorted(self.objects):
            if name.startswith(prefix) and (matches is None or matches(name)):
                yield ObjectInfo(Uri.parse(name), len(self.objects[name]), checksum=str(hash(self.objects[name])))

    @contextlib.contextmanager
    def open_read(self, uri: Uri, version: str = "") -> Iterator[IO[bytes]]:
        if str(uri) not in self.objects:
            raise InputError(f"{uri} does not exist")
        if version and version != self.version(uri):
            raise replaced(uri)
        self.opened.append(str(uri))
        yield io.BytesIO(self.objects[str(uri)])

    @contextlib.contextmanager
    def open_write(self, uri: Uri, content_type: str = "application/x-ndjson") -> Iterator[IO[bytes]]:
        stream = io.BytesIO()
        yield stream
        self._written += 1
        self._versions[str(uri)] = self._written
        self.objects[str(uri)] = stream.getvalue()

    def version(self, uri: Uri) -> str:
        """An object that a test put there has a version, too: that of its content."""
        data = self.objects.get(str(uri))
        return "" if data is None else f"{self._versions.get(str(uri), 0)}-{hash(data)}"

    @contextlib.contextmanager
    def open_replace(self, uri: Uri, version: str, content_type: str = "application/x-ndjson") -> Iterator[IO[bytes]]:
        stream = io.BytesIO()
        yield stream
        if self.version(uri) != version:
            raise replaced(uri)
        with self.open_write(uri) as target:
            target.write(stream.getvalue())

    def read(self, uri: Uri) -> bytes | None:
        return self.objects.get(str(uri))

    def write_new(self, uri: Uri, data: bytes) -> bool:
        if str(uri) in self.objects:
            return False
        self.objects[str(uri)] = data
        return True

    def delete(self, uri: Uri) -> None:
        self.objects.pop(str(uri), None)


class MemoryWarehouse:
    """`Warehouse` in a dict: tables are lists of JSON texts. It runs no SQL, but remembers what it was asked to run.

    :param store: where `load` finds its files.
    """

    def __init__(self, store: MemoryStore | None = None, **tables: list[dict[str, Any]]) -> None:
        self._store = store or MemoryStore()
        self._tables = {name: [json.dumps(row) for row in rows] for name, rows in tables.items()}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.executed: list[tuple[str, str, dict[str, Any]]] = []
        self.loaded: list[tuple[str, list[dict[str, Any]]]] = []

    def put(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Make a table."""
        self._tables[table] = [json.dumps(row) for row in rows]

    @property
    def tables(self) -> list[str]:
        """Every table there is."""
        return sorted(self._tables)

    def rows(self, query: str | TableId, parameters: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        self.asked.append((str(query), dict(parameters or {})))
        if str(query) not in self._tables:
            raise InputError(f"{query} does not exist")
        yield from map(json.loads, self._tables[str(query)])

    def count(self, table: TableId) -> int | None:
        rows = self._tables.get(str(table))
        return None if rows is None else len(rows)

    def create_table(self, table: TableId, schema: Iterable[Mapping[str, Any]], **options: Any) -> None:
        self._tables.setdefault(str(table), [])

    def load(self, uris: Iterable[str], table: TableId, schema: Iterable[Mapping[str, Any]], *, job_id: str) -> int:
        lines = [line for uri in uris for line in self._store.objects[uri].decode().splitlines()]
        self._tables[str(table)] = lines
        self.loaded.append((job_id, [json.loads(line) for line in lines]))
        return len(lines)

    def execute(self, sql: str, *, job_id: str, parameters: Mapping[str, Any] | None = None) -> int:
        self.executed.append((job_id, sql, dict(parameters or {})))
        return 0

    def drop(self, table: TableId) -> None:
        self._tables.pop(str(table), None)


class Clock:
    """A clock that only moves when somebody sleeps."""

    def __init__(self, start: datetime = NIGHT) -> None:
        self.now = start
        self.slept: list[float] = []

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        return self.now.timestamp()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


class Jobs:
    """`JobService` in memory: every job is a JSON text, as the service would keep it.

    :param lost_answers: for each create to come, what happens to its answer: "committed" or "dropped" means that the
        caller gets an `AmbiguousError` and the job exists or not; None is a good answer; an error is a refusal.
    :param list_lags: how many lists do not show a new job yet.
    :param location: where its jobs are made; those of another location are not to be had here.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        creates: list[str | ServiceError | None] | None = None,
        list_lags: int = 0,
        location: str = "global",
    ):
        self.clock, self.location = clock or Clock(), location
        self._docs: dict[str, str] = {}
        self._creates = creates or []
        self._list_lags, self._lists_since_create = list_lags, 0
        self.list_errors: list[ServiceError] = []

    def at(self, location: str) -> Jobs:
        """Return the same service in another location."""
        other = copy.copy(self)
        other.location = location
        return other

    @property
    def paid(self) -> list[BatchJob]:
        """Every job that was ever made, oldest first."""
        return [BatchJob.from_api(json.loads(doc)) for doc in self._docs.values()]

    @property
    def running(self) -> list[BatchJob]:
        """The jobs that cost money now."""
        return [job for job in self.paid if not job.state.is_final]

    def put(self, **members: Any) -> BatchJob:
        """Make a job that somebody else created."""
        number = len(self._docs) + 1
        name = f"projects/123/locations/{self.location}/batchPredictionJobs/{number}"
        doc = a_job_doc(name=name, createTime=self.clock().isoformat()) | members
        self._docs[doc["name"]] = json.dumps(doc)
        return BatchJob.from_api(doc)

    def change(self, name: str, **members: Any) -> None:
        """Let a job pass to another state."""
        self._docs[name] = json.dumps(json.loads(self._docs[name]) | members)

    def forget(self, name: str) -> None:
        """Delete a job."""
        del self._docs[name]

    def create(self, spec: JobSpec) -> BatchJob:
        fate = self._creates.pop(0) if self._creates else None
        if isinstance(fate, ServiceError):
            raise fate
        if fate != "dropped":
            job = self.put(**json.loads(json.dumps(spec.body())), state="JOB_STATE_PENDING")
            self._lists_since_create = 0
        if fate is not None:
            raise AmbiguousError("The answer was lost", status=503)
        return job

    def get(self, name: JobName) -> BatchJob:
        if str(name) not in self._docs or name.location != self.location:
            raise ServiceError(f"{name} does not exist", status=404, reason="NOT_FOUND")
        return BatchJob.from_api(json.loads(self._docs[str(name)]))

    def list(self, labels: Mapping[str, str]) -> Iterator[BatchJob]:
        if self.list_errors:
            raise self.list_errors.pop(0)
        self._lists_since_create += 1
        hidden = self._lists_since_create <= self._list_lags
        here = [job for job in reversed(self.paid) if job.job_name.location == self.location]
        for job in here[1 if hidden else 0 :]:
            if all(name in job.labels and value in (ANY_VALUE, job.labels[name]) for name, value in labels.items()):
                yield job

    def cancel(self, name: JobName) -> bool:
        if self.get(name).state.is_final:
            return False
        self.change(str(name), state=str(JobState.CANCELLED))
        return True

    @property
    def is_used_up(self) -> bool:
        """Whether every scripted fate has been met."""
        return not self._creates and not self.list_errors


class Died(BaseException):
    """The process was killed; the text says after which effect."""


class DyingPort:
    """A port that dies right after the n-th effect of all wrapped ports together.

    :param effects: the methods that change something.
    """

    def __init__(self, effect_limit: EffectLimit, port: Any, effects: frozenset[str]) -> None:
        self._effect_limit, self._port, self._effects = effect_limit, port, effects

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if name == "at":
            return lambda location: DyingPort(self._effect_limit, method(location), self._effects)
        if name in {"open_write", "open_replace"}:
            return lambda *args: self._closing(method, *args)
        return self._dying(method) if name in self._effects else method

    def _dying(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._effect_limit.check()
            result = method(*args, **kwargs)
            self._effect_limit.spend(method.__name__)
            return result

        return call

    @contextlib.contextmanager
    def _closing(self, method: Callable[..., Any], *args: Any) -> Iterator[Any]:
        with method(*args) as stream:
            yield stream
            self._effect_limit.check()
        self._effect_limit.spend(method.__name__)


class EffectLimit:
    """How many effects happen before the process dies; a dead process does nothing more.

    :param count: effects until death; None for no death.
    """

    def __init__(self, count: int | None) -> None:
        self.count = count
        self.spent, self.last = 0, "none"

    def spend(self, effect: str) -> None:
        """Note one effect, by the name of its method."""
        self.spent, self.last = self.spent + 1, effect
        self.check()

    def check(self) -> None:
        """Stop a dead process from doing anything."""
        if self.count is not None and self.spent >= self.count:
            raise Died(f"killed after effect {self.spent}: {self.last}")

    def store(self, port: Any) -> Any:
        """Wrap an object store."""
        return DyingPort(self, port, frozenset({"write_new", "delete"}))

    def service(self, port: Any) -> Any:
        """Wrap a job service."""
        return DyingPort(self, port, frozenset({"create", "cancel"}))

    def warehouse(self, port: Any) -> Any:
        """Wrap a warehouse."""
        return DyingPort(self, port, frozenset({"create_table", "load", "execute", "drop"}))
