"""How do rows become request files? Rows become requests, then shards within the service's limits, then one manifest.

Invariants: rows stream, memory does not grow with their number. Every key occurs once. Every source row is either in a
shard or in one of the files beside the shards (rejected, duplicates, known), and the manifest says how many are in
each. The same rows in any order give the same fingerprint. A set that was prepared before is found again and not
prepared twice. The same requests stay in the same files, also if something beside them has changed
(`core.requests.prepare.earlier_set`).

Files are written below a folder of this attempt. One create-only write of the manifest makes them the prepared set. If
the attempt dies before that write, it leaves files that nothing refers to. If it dies later, the next attempt finds the
set. Once the manifest was sent it may exist, whatever the answer: from then on no file that it names is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.jsonl import decode, encode, request_line
from airflow_vertex_batch.core.domain.manifest import Manifest
from airflow_vertex_batch.core.domain.row_progress import RowProgress
from airflow_vertex_batch.core.requests.lint import Finding, Linter, fix_line
from airflow_vertex_batch.core.requests.prepare.earlier_set import request_keys, with_earlier_files
from airflow_vertex_batch.core.requests.prepare.line_router import CHUNK_BYTES, FIRST_CHUNK_ROWS, LineRouter
from airflow_vertex_batch.core.requests.prepare.lines import ReadyMaker, TemplateMaker
from airflow_vertex_batch.core.requests.prepare.plan import PreparePlan
from airflow_vertex_batch.core.requests.prepare.restore import is_there, is_whole, restore_files
from airflow_vertex_batch.core.requests.prepare.shards import ShardWriter
from airflow_vertex_batch.core.requests.readers import row_bytes
from airflow_vertex_batch.core.requests.request import KEY_LABEL, Correlation, RequestTemplate, key_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_vertex_batch.core.domain.ports import ObjectStore
    from airflow_vertex_batch.core.requests.prepare.lines import Maker
    from airflow_vertex_batch.core.requests.prepare.unsent import UnsentRows
    from airflow_vertex_batch.core.requests.sources import Placed

__all__ = [
    "PreparePlan",
    "check_template",
    "is_there",
    "prepare",
    "read_manifest",
    "request_keys",
    "whole_set",
    "write_set",
]

log = logging.getLogger(__name__)

T = TypeVar("T", bound=tuple[Any, ...])


def prepare(
    rows: Iterable[Placed],
    plan: PreparePlan,
    store: ObjectStore,
    folder: Uri,
    token: str,
    known: Callable[[], Iterable[str]] | None = None,
) -> Manifest:
    """Write the request files of `rows` and return their manifest.

    :param folder: the folder of this task's prepared sets.
    :param token: names this attempt's files; anything unique.
    :param known: yields the digests (`request_digest` for the plan's model) of requests with a good answer: their rows
        are not sent.
    :raises InputError: when a row is rejected and the plan says "fail", or too many are; no file is left behind.
    """
    maker, is_cured = _maker(plan)
    with _open(maker, plan, store, folder / f"requests-{token}", has_columns=_has_columns(plan)) as (router, writer):
        if known is not None:
            router.skip(known())
        _feed(rows, router.add, RowProgress("Prepared"))
        writer.finish_shard()
        if is_cured:
            router.fixed_count = writer.request_count
        return _publish(router, writer, plan, store, folder)


def write_set(
    lines: Iterable[tuple[str, bytes]], plan: PreparePlan, store: ObjectStore, folder: Uri, token: str, **members: Any
) -> Manifest:
    """Write lines that were prepared before as a set of their own, and return its manifest.

    :param lines: key, unique in the set, and the bytes of the ``request`` member.
    :param plan: its limits, schema and model count; the lines are taken as they are.
    :param members: further members of the manifest, such as ``round``.
    """
    plan = msgspec.structs.replace(
        plan, template=None, columns=(), lint=False, deduplicate=False, correlation=Correlation.CONTENTS
    )
    maker = ReadyMaker(plan.correlation)
    with _open(maker, plan, store, folder / f"requests-{token}", has_columns=False) as (router, writer):
        _feed(lines, router.add_made, RowProgress("Written again"))
        writer.finish_shard()
        return _publish(router, writer, plan, store, folder, **members)


def _feed(stream: Iterable[T], add: Callable[[list[T]], int], progress: RowProgress) -> None:
    """Hand on a stream in chunks of the size that is asked for."""
    items, size = iter(stream), FIRST_CHUNK_ROWS
    while chunk := _chunk(items, size):
        count = len(chunk)
        size = add(chunk)
        progress.add(count)
        # So that this chunk takes no memory while the next one is made.
        del chunk


def _chunk(items: Iterator[T], size: int) -> list[T]:
    """Take some of a stream, until they have so many bytes that more would not fit into memory together."""
    taken: list[T] = []
    left = CHUNK_BYTES
    for item in islice(items, size):
        taken.append(item)
        left -= row_bytes(item[-1])
        if left <= 0:
            break
    return taken


@contextlib.contextmanager
def _open(
    maker: Maker, plan: PreparePlan, store: ObjectStore, folder: Uri, *, has_columns: bool
) -> Iterator[tuple[LineRouter, ShardWriter]]:
    """Open what a batch needs, and leave no file behind when it fails.

    :param has_columns: whether something of the rows travels beside their answers.
    """
    writer = ShardWriter(maker.frame, store, folder, plan.max_requests, plan.max_bytes, has_columns=has_columns)
    with contextlib.ExitStack() as stack:
        try:
            yield LineRouter(maker, plan, writer, stack), writer
        except BaseException:
            writer.abandon()
            raise


def _has_columns(plan: PreparePlan) -> bool:
    return bool(plan.columns) or plan.template is None


def _maker(plan: PreparePlan) -> tuple[Maker, bool]:
    """Return what makes the lines, and whether the template had to be cured for it."""
    if plan.template is None:
        return ReadyMaker(plan.correlation, plan.key_column, plan.columns), False
    members = plan.template.constant_members()
    made = members
    if plan.lint:
        made = check_template(plan.template, plan.correlation, fix=plan.fix, ignore=plan.lint_ignore, model=plan.model)
    return TemplateMaker(plan.template, made, plan.key_column, plan.columns, plan.correlation), made != members


def check_template(
    template: RequestTemplate,
    correlation: Correlation = Correlation.CONTENTS,
    *,
    fix: bool = False,
    ignore: frozenset[str] = frozenset(),
    model: str = "",
) -> dict[str, Any]:
    """Find faults that would be in every request of a batch, before the first row is read. Warnings go to the log.

    :param fix: whether to cure what can be cured without changing the meaning.
    :param ignore: names of lint rules that let it pass.
    :param model: that the job will ask; empty where it is not known.
    :return: the members that are the same for every row, cured.
    :raises InputError: with the member, the reason and what to do.
    """
    members = template.constant_members()
    error, warnings = _template_findings(members, correlation, ignore, model)
    if error is not None and fix:
        cured, _ = fix_line(_template_line(members))
        members = {name: value for name, value in decode(cured)["request"].items() if name != "contents"}
        left, warnings = _template_findings(members, correlation, ignore, model)
        error = error if left is not None else None
    if error is None:
        for found in warnings:
            log.warning("Every request of this batch: %s [%s] at %s. %s", *found)
        return members
    raise InputError(
        f"No request of this batch could be sent: {error.path}", why=f"{error.message} [{error.rule}]",
        left="Nothing was uploaded", todo=error.cure,
    )  # fmt: skip


def _template_findings(
    members: dict[str, Any], correlation: Correlation, ignore: frozenset[str], model: str
) -> tuple[Finding | None, list[tuple[str, str, str, str]]]:
    """Return the first error, and message, rule, place and cure of each warning."""
    if correlation is Correlation.LABEL and isinstance(members.get("labels", {}), dict):
        members = {**members, "labels": {**members.get("labels", {}), KEY_LABEL: key_label("r-x")}}
    findings = Linter("the request template", ignore=ignore, model=model).check(1, _template_line(members))
    warnings = [(each.message, each.rule, each.path, each.cure) for each in findings if each.severity == "warning"]
    return next((finding for finding in findings if finding.severity == "error"), None), warnings


def _template_line(members: dict[str, Any]) -> bytes:
    contents = [{"role": "user", "parts": [{"text": "x"}]}]
    return request_line("r-x", {"contents": contents, **members})


def _publish(
    router: LineRouter, writer: ShardWriter, plan: PreparePlan, store: ObjectStore, folder: Uri, **members: Any
) -> Manifest:
    """Make the written files the prepared set, unless the same set exists already: then keep that one."""
    router.rejected.check_all(router.row_count)
    unsent = {"rejected": router.rejected, "duplicate": router.duplicates, "known": router.known}
    for name, file in unsent.items():
        uri_name = "duplicates_uri" if name == "duplicate" else f"{name}_uri"
        members |= {f"{name}_count": file.count, uri_name: _store_unsent(file, writer, store)}
    address = folder / "manifests" / f"{_manifest_name(router, writer, plan, members)}.json"
    manifest = Manifest(
        uri=str(address), fingerprint=writer.fingerprint, row_count=router.row_count,
        request_count=writer.request_count, fixed_count=router.fixed_count, shards=tuple(writer.shards),
        response_schema=plan.schema, model=plan.model, weight=router.weight_counter.weight, **members,
    )  # fmt: skip
    manifest = with_earlier_files(manifest, plan, writer, store)
    writer.note_manifest_sent()
    return manifest if store.write_new(address, encode(manifest)) else _found(manifest, writer, store)


def _found(made: Manifest, writer: ShardWriter, store: ObjectStore) -> Manifest:
    """Return the set that exists already, with all its files. Remove the files of this attempt that the set does not
    name.

    The set may be this attempt's own, if the answer to the first write was lost.
    """
    found = read_manifest(store, Uri.parse(made.uri))
    try:
        restored = restore_files(found, made, store)
    finally:
        writer.keep(found.files)
    if restored:
        log.warning("%d files of %s were missing and were written again: %s.", len(restored), found.uri, restored[0])
    return found


def _store_unsent(file: UnsentRows, writer: ShardWriter, store: ObjectStore) -> str:
    if not file.count:
        return ""
    uri = writer.new_file(file.name)
    with store.open_write(uri) as stream:
        file.copy_to(stream)
    return str(uri)


def _manifest_name(router: LineRouter, writer: ShardWriter, plan: PreparePlan, members: dict[str, Any]) -> str:
    """Return a name that is the same for the same set, whatever the order of its rows and the attempt."""
    # Which of two like rows is sent depends on their order, so duplicates are part of the writer's digests.
    beside = [str(file.digest) for file in (router.rejected, router.known)]
    others = {name: value for name, value in members.items() if not name.endswith("_uri")}
    parts = [writer.content, beside, others, plan.max_requests, plan.max_bytes, plan.schema, plan.model]
    return hashlib.sha256(encode(parts)).hexdigest()[:32]


def read_manifest(store: ObjectStore, address: Uri) -> Manifest:
    """Read a manifest back.

    :raises InputError: when there is none, or it is not one of ours.
    """
    data = store.read(address)
    if data is None:
        raise InputError(f"There is no manifest at {address}", todo="Clear the prepare task to make it again")
    return Manifest.from_dict(msgspec.json.decode(data))


def whole_set(store: ObjectStore, address: Uri) -> Manifest | None:
    """Return the set at an address; None if the manifest, or a file that it names, is not there as it was written."""
    if not is_there(address, None, store):
        return None
    manifest = read_manifest(store, address)
    return manifest if is_whole(manifest, store) else None
