"""Is the request that came back with an answer the same request that was sent under its key?

The service echoes each request. It sorts the members, adds nulls, and writes numbers in its own way. The canonical form
of the request stays the same. The mark of a request is a number made from that form and from the texts of its contents.
Lines of one template differ only in those texts, so the form is made once for each shape of lines.

Two different marks prove nothing yet, because the service may leave members out. `members` then tells whether a member
that both sides have is different.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.jsonl import canonical, decode, decode_leniently, encode
from airflow_vertex_batch.core.domain.repair_json import is_deep

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_vertex_batch.core.domain.shapes import Path

#: The mark of something that is not a request. It is not compared.
NO_MARK = 0
#: Members of a request's contents whose texts differ from line to line, as `canonical` spells them.
_NAMES = frozenset({"text", "fileUri"})


def mark_of(request: bytes) -> int:
    """Return the mark of a request; `NO_MARK` if it is not a request."""
    form, texts = parts_of(request)
    return mark(form, texts) if form else NO_MARK


def mark(form: int, texts: Iterable[str]) -> int:
    """Return the mark of a request from its form and its texts. The order of the texts does not matter."""
    return hash((form, *sorted(texts)))


def parts_of(request: bytes) -> tuple[int, list[str]]:
    """Return the form of a request (0 if it is not a request) and the texts of its contents."""
    doc, texts = _members(request), list[str]()
    if not doc.get("contents"):
        return 0, texts
    doc["contents"] = _without_texts(doc["contents"], texts)
    return hash(encode(doc)), texts


def is_content(path: Path) -> bool:
    """Whether a place that varies from line to line is a text of the request's contents."""
    return path[:2] == ("request", "contents")


def members(request: bytes) -> dict[str, int]:
    """Return a digest of each member of a request."""
    return {name: hash(encode(value)) for name, value in _members(request).items()}


def is_same(sent: dict[str, int], echo: dict[str, int]) -> bool:
    """Whether all members that both have are the same, including the contents."""
    return "contents" in sent.keys() & echo.keys() and all(
        sent.get(name, value) == value for name, value in echo.items()
    )


def _members(request: bytes) -> dict[str, Any]:
    """Return the canonical members of a request, without its labels, which are only for the bill."""
    try:
        doc = decode_leniently(request) if is_deep(request) else decode(request)
    except (msgspec.DecodeError, UnicodeDecodeError):
        doc = decode_leniently(request)
    if isinstance(doc, str):  # a text column of BigQuery
        return _members(doc.encode())
    made = canonical(doc) if isinstance(doc, dict) else {}
    made.pop("labels", None)
    return made


def _without_texts(value: Any, texts: list[str]) -> Any:
    if isinstance(value, list):
        return [_without_texts(item, texts) for item in value]
    if not isinstance(value, dict):
        return value
    texts += (item for name, item in value.items() if name in _NAMES and isinstance(item, str))
    return {
        name: "" if name in _NAMES and isinstance(item, str) else _without_texts(item, texts)
        for name, item in value.items()
    }
