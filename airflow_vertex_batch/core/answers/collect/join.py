"""Which request does a line belong to, if its key did not come back?

There are three ways, the most certain first: the request label in the echo, the contents of the echo, and a key that
the service turned into a number or a truth value. If several requests share the same contents, the re-typed key tells
them apart; without one, each of these requests gets one of the lines. A re-typed key counts only if exactly one request
can be meant.

Memory grows with the lines that lost their key, not with the job.
"""

from __future__ import annotations

import decimal
import re
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.jsonl import contents_fingerprint, decode, decode_leniently, read_echo
from airflow_vertex_batch.core.domain.repair_json import is_deep
from airflow_vertex_batch.core.requests.request import KEY_LABEL, key_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_vertex_batch.core.domain.jsonl import OutputLine

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
#: Enough digits for any key that is no digest.
_EXACT = decimal.Context(prec=80)


class Evidence(msgspec.Struct, frozen=True):
    """What a line without its key says about its request. A member is empty if the line does not say it."""

    label: str = ""
    contents: str = ""
    value: str = ""

    @classmethod
    def of(cls, line: OutputLine) -> Evidence:
        """Read a line."""
        echo = read_echo(line.request)
        label = (echo.labels or {}).get(KEY_LABEL) if echo is not None else None
        return cls(
            label=label if isinstance(label, str) else "",
            contents=_echo_fingerprint(bytes(line.request)),
            value="" if isinstance(line.key, str) else typed(line.key),
        )


class Joiner:
    """Finds the requests for lines that lost their key.

    :param lines: the evidence of all these lines.
    :param named: every request's name and bytes.
    :param state: the state of a name, for sorting: the name with the worst state gets a line first.
    """

    def __init__(
        self,
        lines: Iterable[Evidence],
        named: Iterable[tuple[str, bytes]],
        state: Callable[[str], int],
    ) -> None:
        self._labels: dict[str, list[str]] = {}
        self._contents: dict[str, list[str]] = {}
        self._values: dict[str, list[str]] = {}
        for line in lines:
            self._labels.setdefault(line.label, [])
            self._contents.setdefault(line.contents, [])
            self._values.setdefault(line.value, [])
        for channel in (self._labels, self._contents, self._values):
            channel.pop("", None)
        for name, request in named:
            for channel, word in self._words(name, request):
                if word in channel:
                    channel[word].append(name)
        for names in self._contents.values():
            names.sort(key=state)

    def _words(self, name: str, request: bytes) -> Iterator[tuple[dict[str, list[str]], str]]:
        if self._labels:
            yield self._labels, key_label(name)
        if self._contents:
            yield self._contents, _echo_fingerprint(request)
        if self._values:
            yield self._values, _as_typed(name)

    def name_of(self, line: Evidence) -> str | None:
        """Return the name of the request that a line answers, or None."""
        labelled = self._labels.get(line.label, [])
        if len(labelled) == 1:
            return labelled[0]
        alike, retyped = self._contents.get(line.contents, []), self._values.get(line.value, [])
        both = [name for name in alike if name in retyped] if retyped else []
        if not alike:
            return retyped[0] if len(retyped) == 1 else None
        name = both[0] if len(both) == 1 else alike[0]
        if len(alike) > 1:
            alike.remove(name)
        return name


def typed(value: object) -> str:
    """Return one spelling for a number or truth value, for all ways to write it; an empty text for anything else."""
    if isinstance(value, bool):
        return str(value).lower()
    return _one_spelling(repr(value)) if isinstance(value, int | float) else ""


def _as_typed(key: str) -> str:
    """Return the same spelling for the text of a key."""
    lowered = key.lower()
    return lowered if lowered in {"true", "false"} else _one_spelling(key)


def _one_spelling(text: str) -> str:
    # Not with a float: two long numbers must not become equal.
    return str(_EXACT.create_decimal(text).normalize(_EXACT)) if _NUMBER.fullmatch(text) else ""


def _echo_fingerprint(raw: bytes) -> str:
    """Return the fingerprint of a request's contents; an empty text if it has no contents."""
    doc: Any = None
    try:
        doc = decode_leniently(raw) if is_deep(raw) else decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        doc = decode_leniently(raw)
    if isinstance(doc, str):  # a text column of BigQuery
        return _echo_fingerprint(doc.encode("utf-8", "replace"))
    contents = doc.get("contents") if isinstance(doc, dict) else None
    return contents_fingerprint({"contents": contents}) if contents else ""
