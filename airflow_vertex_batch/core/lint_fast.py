"""Is this line the same as one already found clean, but for its key and its texts? Then only those need a look.

A request file is one template filled in many times. `Shapes` keeps the constant bytes between the varying texts of
clean lines. A line made of exactly those bytes, with valid JSON strings between them, has the same members, types and
depth, so the walk would find the same: nothing. Every constant byte is compared, so what stands outside the texts
cannot hide.

Invariants: no line is accepted here that the walk would report; a few shapes are kept, the last used first.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from airflow_vertex_batch.core.lint_values import file_uri, is_retyped

#: Texts that differ from line to line. "data" is left out: base64 is long, and looking at it is what costs.
_SLOT = re.compile(rb'"(?:key|text|fileUri|file_uri)"\s*:\s*"')
_STRING_END = re.compile(rb'(?:[^"\\]|\\.)*"', re.DOTALL)
#: Shapes kept; a job has one or two. And how often to learn at all, for files where every line is another shape.
_KEPT, _LEARNED = 4, 64
#: "infinity": what begins with a letter and is longer is nothing but text.
_LONGEST_WORD = 8
_decode_text = msgspec.json.Decoder(str).decode


class Shape:
    """The constant bytes of one template.

    :param constants: the bytes before, between and behind the varying texts, quotation marks included.
    :param uris: which texts are a ``fileUri``.
    :param has_key: whether the first varying text is the key.
    """

    __slots__ = ("_has_key", "_head", "_middle", "_tail", "_tail_length", "_uris")

    def __init__(self, constants: list[bytes], uris: frozenset[int], *, has_key: bool) -> None:
        self._head, *self._middle, self._tail = constants
        #: Without the quotation mark that ends the last text.
        self._tail_length = len(self._tail) - 1
        self._has_key = has_key
        self._uris = uris

    def match(self, raw: bytes) -> str | None:
        """Return the key of a line of this shape ("" when the shape has none), or None."""
        if not raw.startswith(self._head) or not raw.endswith(self._tail):
            return None
        start = len(self._head)
        texts = []
        try:
            for constant in self._middle:
                # The constant begins with the quotation mark that ends the text before it. Were that mark part of the
                # text, a backslash would stand before it, and the text cut there would not decode.
                end = raw.find(constant, start)
                texts.append(_decode_text(raw[start - 1 : end + 1]))
                start = end + len(constant)
            # A negative `end` or tail that overlaps leaves a slice that is no JSON string either.
            texts.append(_decode_text(raw[start - 1 : len(raw) - self._tail_length]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        for text in texts:
            if not text or "\0" in text:
                return None
        if self._uris and any(file_uri(texts[index]) for index in self._uris):
            return None
        return texts[0] if self._has_key else ""


class Shapes:
    """The shapes of one job's clean lines."""

    def __init__(self) -> None:
        self._shapes: list[Shape] = []
        self._budget = _LEARNED

    def match(self, raw: bytes) -> str | None:
        """Return the key of a line that fits a known shape ("" when the shape has none), or None."""
        for position, shape in enumerate(self._shapes):
            key = shape.match(raw)
            if key is not None:
                if position:
                    self._shapes.insert(0, self._shapes.pop(position))
                return key
        return None

    def forget(self) -> None:
        """Drop every shape: a later line has changed what is clean."""
        self._shapes.clear()

    def learn(self, raw: bytes, line: Any) -> None:
        """Keep the shape of a line that was walked and found clean."""
        if self._budget <= 0 or self.match(raw) is not None:
            return
        self._budget -= 1
        shape = _shape(raw, line)
        if shape is not None:
            self._shapes.insert(0, shape)
            del self._shapes[_KEPT:]


def _shape(raw: bytes, line: dict[str, Any]) -> Shape | None:
    """Cut a line at its varying texts: its key, when it comes first, and the texts of its contents.

    :param line: what `raw` holds; its `request` is an object.
    """
    varying = _texts(line.get("request", {}).get("contents"))
    constants: list[bytes] = []
    uris: set[int] = set()
    has_key, last = False, 0
    for found in _SLOT.finditer(raw):
        end = _STRING_END.match(raw, found.end())
        if end is None or found.end() < last:
            continue
        is_key = not constants and raw[: found.start()].strip() == b"{" and found[0].startswith(b'"key"')
        text = _decode_text(raw[found.end() - 1 : end.end()])
        if not text or not (is_key or (text in varying and not found[0].startswith(b'"key"'))):
            continue
        if found[0].startswith(b'"file'):
            uris.add(len(constants))
        has_key = has_key or is_key
        constants.append(raw[last : found.end()])
        last = end.end() - 1
    if not constants or ("key" in line) != has_key:
        return None
    return Shape([*constants, raw[last:]], frozenset(uris), has_key=has_key)


def _texts(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(_texts, children))


def is_plain_key(key: str) -> bool:
    """Whether a key needs no finding of its own."""
    return key[:1].isalpha() and (len(key) > _LONGEST_WORD or not is_retyped(key))
