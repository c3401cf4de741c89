"""Does this line differ from a line that was found clean only in its key and its texts? Then only key and texts must be
checked.

A request file is one template, filled in many times. `Shapes` keeps the constant bytes between the changing texts of
clean lines. If a line is made of exactly those bytes, with valid JSON strings between them, it has the same members,
types and depth. So the walk would find no fault in it either. Every constant byte is compared, so no change outside the
texts is missed.

Invariants: no line is accepted here that the walk would report. Only a few shapes are kept, the last used first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from airflow_vertex_batch.core.requests.lint.values import ValueCheck, file_uri, is_retyped, label_value

#: Members whose texts differ from line to line, apart from labels. "data" is left out: base64 is long, and looking at
#: it is what costs.
_NAMES = (b"key", b"text", b"fileUri", b"file_uri")
#: Stands in for a text. One that a line happens to hold already is found twice, and stays constant.
_MARKER = "@%d@"
#: Names of places no member can have: member names that are no columns are found before.
_KEY, _LABEL = "the key", "a label"
_CHECKS: dict[str, ValueCheck] = {"fileUri": file_uri, "file_uri": file_uri, _LABEL: label_value}
#: Shapes kept; a job has one or two. And how often to learn at all, for files where every line is another shape.
_KEPT, _LEARNED = 4, 64
#: The longest line that is learned. A longer line is mostly text, so learning it saves little; and a shape keeps all
#: its constant bytes.
_LEARNED_BYTES = 1 << 18
_decode = msgspec.json.Decoder().decode
_decode_text = msgspec.json.Decoder(str).decode


class Shape:
    """The constant bytes of one template.

    :param constants: the bytes before, between and behind the varying texts, quotation marks included.
    :param checks: which texts need a look of their own, beyond being neither empty nor holding a NUL.
    :param key_index: which of the varying texts is the key, None for lines without one.
    """

    __slots__ = ("_checks", "_head", "_key_index", "_middle", "_tail", "_tail_length")

    def __init__(
        self, constants: list[bytes], checks: tuple[tuple[int, ValueCheck], ...], key_index: int | None
    ) -> None:
        self._head, *self._middle, self._tail = constants
        #: Without the quotation mark that ends the last text.
        self._tail_length = len(self._tail) - 1
        self._key_index = key_index
        self._checks = checks

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
                end = raw.find(b'"', start)
                if not raw.startswith(constant, end):
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
        for index, check in self._checks:
            if check(texts[index]):
                return None
        return "" if self._key_index is None else texts[self._key_index]


class Shapes:
    """The shapes of one job's clean lines."""

    def __init__(self) -> None:
        self._shapes: list[Shape] = []
        self._budget = _LEARNED

    def match(self, raw: bytes) -> str | None:
        """Return the key of a line that fits a known shape ("" when the shape has none), or None."""
        shapes = self._shapes
        for shape in shapes:
            key = shape.match(raw)
            if key is not None:
                if shape is not shapes[0]:
                    shapes.remove(shape)
                    shapes.insert(0, shape)
                return key
        return None

    def forget(self) -> None:
        """Drop every shape: a later line has changed what is clean."""
        self._shapes.clear()

    def learn(self, raw: bytes, line: Any) -> None:
        """Keep the shape of a line that was walked and found clean."""
        if self._budget <= 0 or len(raw) > _LEARNED_BYTES or self.match(raw) is not None:
            return
        self._budget -= 1
        shape = _shape(raw, line)
        if shape is not None:
            self._shapes.insert(0, shape)
            del self._shapes[_KEPT:]


def _shape(raw: bytes, line: dict[str, Any]) -> Shape | None:
    """Cut a line at its varying texts: its key, the texts of its contents and labels.

    :param line: what `raw` holds; its `request` is an object.
    """
    spans = _spans(raw, line["request"].get("labels") or {})
    varying = _varying(raw, spans)
    constants: list[bytes] = []
    checks: list[tuple[int, ValueCheck]] = []
    key_index, last = None, 0
    for index, (start, end) in enumerate(spans):
        name = varying.get(_MARKER % index)
        if name is None:
            continue
        if name == _KEY:
            key_index = len(constants)
        elif name in _CHECKS:
            checks.append((len(constants), _CHECKS[name]))
        constants.append(raw[last:start])
        last = end
    if not constants or (key_index is None) != ("key" not in line):
        return None
    return Shape([*constants, raw[last:]], tuple(checks), key_index)


def _spans(raw: bytes, labels: dict[str, Any]) -> list[tuple[int, int]]:
    """Return start and end of the texts whose names may stand for varying ones, quotation marks left out."""
    names = b"|".join([*_NAMES, *(re.escape(name.encode()) for name in labels)])
    pattern = re.compile(rb'"(?:' + names + rb')"\s*:\s*"((?!")[^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
    return [found.span(1) for found in pattern.finditer(raw)]


def _varying(raw: bytes, spans: list[tuple[int, int]]) -> dict[str, str]:
    """Return which spans lie where texts may vary: the marker that stands in for each, and the name found there.

    A name by itself says little: ``type`` is a label here and a schema's member there. So markers are written into the
    line, and the places they turn up at decide.
    """
    probe, last = b"", 0
    for index, (start, end) in enumerate(spans):
        probe += raw[last:start] + (_MARKER % index).encode()
        last = end
    line = _decode(probe + raw[last:])
    request = line["request"]
    found = list(_named(request["contents"], "text"))
    found += [(_LABEL, label) for label in (request.get("labels") or {}).values()]
    found += [(_KEY, line["key"])] if "key" in line else []
    count = Counter(text for _, text in found)
    return {text: name for name, text in found if count[text] == 1}


def _named(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield every text below a value with the name of its member."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for inner, item in value.items():
            yield from _named(item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from _named(item, name)


def is_plain_key(key: str) -> bool:
    """Whether a key needs no finding of its own."""
    return key[:1].isalpha() and not is_retyped(key)
