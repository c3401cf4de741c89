"""How do rows become request files? Rows → requests → shards within the service's limits → one manifest.

Invariants: rows stream, memory does not grow with their number; every key occurs once; every source row is either in a
shard or in the dead-letter file, and the manifest says how many of each; the same rows in any order give the same
fingerprint, and a set that was prepared before is found again instead of being prepared twice.

Files are written under a folder of this attempt and become the prepared set by one create-only write of the manifest.
Dying before that leaves files that nothing refers to; dying after it leaves a set that the next attempt finds.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import tempfile
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Self

import msgspec

from airflow_vertex_batch.core.address import Uri
from airflow_vertex_batch.core.errors import InputError, VertexBatchError
from airflow_vertex_batch.core.jsonl import encode
from airflow_vertex_batch.core.lint import Linter
from airflow_vertex_batch.core.model import Manifest, Shard
from airflow_vertex_batch.core.request import (
    MAX_BYTES,
    MAX_REQUESTS,
    OnRejectedRow,
    RequestBuilder,
    RequestTemplate,
    RowProblem,
    carried,
    content_key,
    row_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_vertex_batch.core.lint import Finding
    from airflow_vertex_batch.core.ports import ObjectStore
    from airflow_vertex_batch.core.sources import Placed, Row

#: Rejected rows that are named in an error before preparing stops: enough to see what is wrong, not a flood.
_MAX_NAMED = 20
_CHUNK_ROWS = 1_000


class PreparePlan(msgspec.Struct, frozen=True, kw_only=True):
    """How to prepare.

    :param template: what the requests have in common; None when the rows are ready-made request lines.
    :param key_column: the column that names a row; None to go by content.
    :param columns: the user's own columns to keep beside each answer.
    :param max_requests: most requests in a shard, 1 to `MAX_REQUESTS`.
    :param max_bytes: most bytes in a shard, up to `MAX_BYTES`.
    """

    template: RequestTemplate | None
    key_column: str | None = None
    columns: tuple[str, ...] = ()
    on_rejected_row: OnRejectedRow = OnRejectedRow.FAIL
    max_requests: int = MAX_REQUESTS
    max_bytes: int = MAX_BYTES
    #: The JSON Schema that answers are checked against, kept in the manifest.
    schema: dict[str, Any] | None = None


class _Line(msgspec.Struct):
    """One row on its way: where it came from, its key, its request, and the columns that travel beside it."""

    place: str
    number: int
    key: str
    line: bytes
    columns: bytes


def prepare(rows: Iterable[Placed], plan: PreparePlan, store: ObjectStore, folder: Uri, token: str) -> Manifest:
    """Write the request files of `rows` and return their manifest.

    :param folder: where this task's prepared sets lie.
    :param token: names this attempt's files; anything unique.
    :raises InputError: when a row is rejected and the plan says "fail"; no file is left behind.
    """
    if plan.template is not None:
        check_template(plan.template)
    with contextlib.ExitStack() as stack:
        keys = stack.enter_context(_SeenKeys())
        writer = _ShardWriter(plan, store, folder / f"requests-{token}")
        rejected = stack.enter_context(_Rejected(plan.on_rejected_row))
        try:
            make = _ready_made if plan.template is None else _Maker(plan.template, plan)
            stream = iter(rows)
            while chunk := list(islice(stream, _CHUNK_ROWS)):
                made = _made(chunk, make, rejected)
                _write(keys.unique(made, rejected, named=plan.key_column is not None), writer, rejected)
                rejected.check()
            rejected.check(final=True)
            writer.close()
            return _publish(writer, rejected, plan, store, folder)
        except BaseException:
            writer.abandon()
            raise


def _made(chunk: list[Placed], make: Any, rejected: _Rejected) -> Iterator[_Line]:
    for place, number, row in chunk:
        if isinstance(row, InputError):
            rejected.add(place, number, RowProblem("not-a-row", str(row)))
            continue
        try:
            yield make(place, number, row)
        except RowProblem as problem:
            rejected.add(place, number, problem)


def _write(lines: Iterable[_Line], writer: _ShardWriter, rejected: _Rejected) -> None:
    for line in lines:
        try:
            writer.add(line)
        except RowProblem as problem:
            rejected.add(line.place, line.number, problem)


class _Maker:
    """Makes lines from rows by the template."""

    def __init__(self, template: RequestTemplate, plan: PreparePlan) -> None:
        self._build, self._plan = RequestBuilder(template), plan

    def __call__(self, place: str, number: int, row: Row) -> _Line:
        request = self._build(row)
        column = self._plan.key_column
        key = row_key(row.get(column)) if column else content_key(request)
        return _Line(place, number, key, request, carried(row, self._plan.columns))


def _ready_made(place: str, number: int, row: Row) -> _Line:
    """Take a request line as it is; only a missing or unsafe key is replaced."""
    if not isinstance(row.get("request"), dict):
        raise RowProblem("no-request", "The line has no `request` object")
    try:
        request = encode(row["request"])
    except (TypeError, UnicodeEncodeError) as error:
        raise RowProblem("not-json", f"The request cannot be JSON: {type(error).__name__}") from None
    key = row.get("key")
    if isinstance(key, dict | list):
        raise RowProblem("odd-key", "The line's key is neither a text nor a number")
    return _Line(place, number, content_key(request) if key in {None, ""} else row_key(key), request, b"{}")


class _SeenKeys:
    """Makes every key unique, in constant memory: what was seen lies in a temporary file.

    A key by content that occurs again gets a number behind it; a key from the user's column that occurs again is a
    problem.
    """

    def __enter__(self) -> Self:
        self._file = tempfile.NamedTemporaryFile(prefix="avb-keys-")
        self._db = sqlite3.connect(self._file.name, isolation_level=None)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-8192"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("CREATE TABLE seen (digest INTEGER PRIMARY KEY, times INTEGER) WITHOUT ROWID")
        self._db.execute("BEGIN")
        self._times: dict[int, int] = {}
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._db.close()
        self._file.close()

    def unique(self, lines: Iterable[_Line], rejected: _Rejected, *, named: bool) -> Iterator[_Line]:
        """Yield the lines of one chunk, each with a key that has not been used."""
        chunk = list(lines)
        digests = [_key_digest(line.key) for line in chunk]
        # One question and one change for the whole chunk: a statement for each row would cost more than all the rest.
        self._times = {**dict.fromkeys(digests, 0), **self._stored(digests)}
        for line in chunk:
            times = self._count(line.key)
            if times > 1 and named:
                problem = RowProblem("duplicate-key", f"The key {line.key!r} occurs more than once")
                rejected.add(line.place, line.number, problem)
                continue
            if times > 1:
                line.key = self._numbered(line.key, times)
            yield line
        self._db.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?)", sorted(self._times.items()))

    def _stored(self, digests: list[int]) -> dict[int, int]:
        wanted = "SELECT digest, times FROM seen WHERE digest IN (SELECT value FROM json_each(?))"
        return dict(self._db.execute(wanted, (encode(digests).decode(),)))

    def _numbered(self, key: str, number: int) -> str:
        """Return the key with a number behind it that nobody has; "a-2" may be another row's own key."""
        while self._count(made := f"{key}-{number}") > 1:
            number += 1
        return made

    def _count(self, key: str) -> int:
        digest = _key_digest(key)
        if digest not in self._times:
            self._times[digest] = self._stored([digest]).get(digest, 0)
        self._times[digest] += 1
        return self._times[digest]


def _key_digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), signed=True)


class _Rejected:
    """Counts and keeps the rows that cannot be sent."""

    def __init__(self, policy: OnRejectedRow) -> None:
        self._policy, self.count = policy, 0
        self._spool = tempfile.SpooledTemporaryFile(max_size=1_000_000)  # noqa: SIM115 - closed in __exit__
        self._named: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._spool.close()

    def add(self, place: str, number: int, problem: RowProblem) -> None:
        """Note one row."""
        self.count += 1
        if len(self._named) < _MAX_NAMED:
            self._named.append(f"{place}:{number}: {problem.reason} [{problem.code}]")
        doc = {"source": place, "line": number, "status": "rejected", "code": problem.code, "reason": problem.reason}
        self._spool.write(encode(doc) + b"\n")

    def check(self, *, final: bool = False) -> None:
        """Stop when rows were rejected and the policy is to fail: once enough of them can be named, or at the end."""
        if self._policy is OnRejectedRow.FAIL and self.count and (final or self.count >= _MAX_NAMED):
            more = f"\n… and {self.count - len(self._named)} more" if self.count > len(self._named) else ""
            raise InputError(
                f"{self.count} rows cannot be sent:\n" + "\n".join(self._named) + more,
                left="Nothing was uploaded for them and no job was created",
                todo="Correct the rows or the prompt, or set on_rejected_row='dead_letter' to send the others",
            )

    def copy_to(self, stream: IO[bytes]) -> None:
        """Write the noted rows."""
        self._spool.seek(0)
        while block := self._spool.read(1 << 20):
            stream.write(block)


class _ShardWriter:
    """Writes lines into shards, one open at a time, and sums the fingerprint."""

    def __init__(self, plan: PreparePlan, store: ObjectStore, folder: Uri) -> None:
        self._plan, self._store, self.folder = plan, store, folder
        self.shards: list[Shard] = []
        self._files: list[Uri] = []
        self._open: _OpenShard | None = None
        self._linter = Linter(str(folder), rejecting=True)
        self._requests_sum = self._columns_sum = 0

    def add(self, line: _Line) -> None:
        """Append one line, opening the next shard when the limits say so.

        :raises RowProblem: when no file may hold the line, or the service's importer would refuse it: one refused line
            costs the whole job, after hours in the queue.
        """
        data = b'{"key":' + encode(line.key) + b',"request":' + line.line + b"}\n"
        if len(data) > self._plan.max_bytes:
            raise RowProblem(
                "too-large", f"The request has {len(data):,} bytes; one file may have {self._plan.max_bytes:,}"
            )
        if self._open is not None and self._open.is_full(len(data), self._plan):
            self._finish_open()
        _refuse_errors(self._linter.check(line.number, data))
        if self._open is None:
            self._open = self._next_shard()
        self._open.write(data, line)
        # A sum of digests does not depend on the order in which a source yields its rows.
        self._requests_sum += _digest(data)
        if self._plan.columns:
            self._columns_sum += _digest(_columns_line(line))

    @property
    def fingerprint(self) -> str:
        """Digest of the requests and their keys, whatever their order."""
        return _hex(self._requests_sum)

    @property
    def content(self) -> str:
        """Digest of the requests and of the columns that travel beside them."""
        return _hex(self._requests_sum * 3 + self._columns_sum)

    def _next_shard(self) -> _OpenShard:
        number = len(self.shards)
        uri = self.new_file(f"requests-{number:05d}.jsonl")
        columns_uri = self.new_file(f"columns-{number:05d}.jsonl") if self._plan.columns else None
        return _OpenShard(self._store, uri, columns_uri)

    def new_file(self, name: str) -> Uri:
        """Return the address of a file of this attempt, which `abandon` removes."""
        self._files.append(self.folder / name)
        return self._files[-1]

    def _finish_open(self) -> None:
        if self._open is not None:
            self.shards.append(self._open.finish())
            self._open = None
            # What lint compares, such as one type per path, holds within a job, and a shard is a job.
            self._linter = Linter(str(self.folder), rejecting=True)

    def close(self) -> None:
        """Finish the last shard."""
        self._finish_open()

    def abandon(self) -> None:
        """Remove what was written. What cannot be removed stays as a file that nothing refers to."""
        if self._open is not None:
            self._open.abort()
        for uri in self._files:
            with contextlib.suppress(VertexBatchError):
                self._store.delete(uri)


def _refuse_errors(findings: list[Finding]) -> None:
    for finding in findings:
        if finding.severity == "error":
            raise RowProblem(finding.rule, f"{finding.path}: {finding.message}. {finding.cure}")


def check_template(template: RequestTemplate) -> None:
    """Find what would refuse every request of a batch, before the first row is read.

    :raises InputError: naming the member, the reason and the cure.
    """
    contents = [{"role": "user", "parts": [{"text": "x"}]}]
    line = encode({"key": "r-x", "request": {"contents": contents, **template.constant_members()}}) + b"\n"
    for finding in Linter("the request template").check(1, line):
        if finding.severity == "error":
            raise InputError(
                f"No request of this batch could be sent: {finding.path}", why=f"{finding.message} [{finding.rule}]",
                left="Nothing was uploaded", todo=finding.cure,
            )  # fmt: skip


def _columns_line(line: _Line) -> bytes:
    return b'{"key":' + encode(line.key) + b',"columns":' + line.columns + b"}\n"


class _OpenShard:
    """One request file being written, with the file of its columns beside it."""

    _FLUSH_BYTES = 1 << 20

    def __init__(self, store: ObjectStore, uri: Uri, columns_uri: Uri | None) -> None:
        self.uri, self.columns_uri = uri, columns_uri
        self._stack = contextlib.ExitStack()
        self._stream = self._stack.enter_context(store.open_write(self.uri))
        self._columns = self._stack.enter_context(store.open_write(self.columns_uri)) if self.columns_uri else None
        self.count = self.size = self._buffered = 0
        self._lines: list[bytes] = []
        self._column_lines: list[bytes] = []

    def is_full(self, more: int, plan: PreparePlan) -> bool:
        """Whether `more` bytes no longer fit."""
        return self.count >= plan.max_requests or self.size + more > plan.max_bytes

    def write(self, data: bytes, line: _Line) -> None:
        """Append one line."""
        self.count += 1
        self.size += len(data)
        self._buffered += len(data)
        self._lines.append(data)
        if self._columns is not None:
            self._column_lines.append(_columns_line(line))
        if self._buffered >= self._FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._stream.write(b"".join(self._lines))
        self._lines.clear()
        self._buffered = 0
        if self._columns is not None:
            self._columns.write(b"".join(self._column_lines))
            self._column_lines.clear()

    def finish(self) -> Shard:
        """Complete the files."""
        self._flush()
        self._stack.close()
        return Shard(
            uri=str(self.uri), request_count=self.count, size_bytes=self.size, columns_uri=str(self.columns_uri or "")
        )

    def abort(self) -> None:
        """Leave no trace of the files."""
        stop = InputError("abandoned")
        with contextlib.suppress(InputError):
            self._stack.__exit__(InputError, stop, None)


def _publish(writer: _ShardWriter, rejected: _Rejected, plan: PreparePlan, store: ObjectStore, folder: Uri) -> Manifest:
    """Make the written files the prepared set, unless the same set exists already: then keep that one."""
    rejected_uri = ""
    if rejected.count:
        uri = writer.new_file("rejected.jsonl")
        with store.open_write(uri) as stream:
            rejected.copy_to(stream)
        rejected_uri = str(uri)
    request_count = sum(shard.request_count for shard in writer.shards)
    address = folder / "manifests" / f"{_manifest_name(writer, rejected, plan)}.json"
    manifest = Manifest(
        uri=str(address),
        fingerprint=writer.fingerprint,
        row_count=request_count + rejected.count,
        request_count=request_count,
        rejected_count=rejected.count,
        rejected_uri=rejected_uri,
        shards=tuple(writer.shards),
        response_schema=plan.schema,
    )
    if store.write_new(address, encode(manifest)):
        return manifest
    writer.abandon()
    return read_manifest(store, address)


def _manifest_name(writer: _ShardWriter, rejected: _Rejected, plan: PreparePlan) -> str:
    parts = encode([writer.content, rejected.count, plan.max_requests, plan.max_bytes, plan.schema])
    return hashlib.sha256(parts).hexdigest()[:32]


def read_manifest(store: ObjectStore, address: Uri) -> Manifest:
    """Read a manifest back.

    :raises InputError: when there is none, or it is not one of ours.
    """
    data = store.read(address)
    if data is None:
        raise InputError(f"There is no manifest at {address}", todo="Clear the prepare task to make it again")
    return Manifest.from_dict(msgspec.json.decode(data))


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=16).digest())


def _hex(total: int) -> str:
    return f"{total % (1 << 128):032x}"
