"""Does this line differ from a line that was found clean only in its key and its texts? Then only key and texts must be
checked.

If a line has the shape of a clean line (`core.domain.shapes`), it has the same members, types and depth. So the walk
would find no fault in it either. Every constant byte is compared, so no change outside the texts is missed.

Invariant: no line is accepted here that the walk would report.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.domain.shapes import Shape, Shapes, ValuePosition, texts_of
from airflow_vertex_batch.core.requests.lint.values import ValueCheck, file_uri, is_retyped, label_value

if TYPE_CHECKING:
    from airflow_vertex_batch.core.domain.shapes import Path

#: Which texts need a look of their own, by the name of their member.
_CHECKS: dict[str, ValueCheck] = {"fileUri": file_uri, "file_uri": file_uri}
_decode_text = msgspec.json.Decoder(str).decode


class _CleanShape(Shape):
    """The shape of a clean line. The last text is its core."""

    __slots__ = ("_checks", "_key_index")

    def __init__(self, raw: bytes, texts: list[ValuePosition]) -> None:
        super().__init__(raw, texts, len(texts) - 1)
        paths = [text.path for text in texts]
        self._key_index = paths.index(("key",)) if ("key",) in paths else -1
        found = ((index, _check(path)) for index, path in enumerate(paths))
        self._checks = tuple((index, check) for index, check in found if check is not None)

    def key(self, texts: list[str]) -> str | None:
        """Return the key of a line with these texts ("" where the shape has none), or None where one is at fault."""
        for text in texts:
            if not text or "\0" in text:
                return None
        for index, check in self._checks:
            if check(texts[index]):
                return None
        return texts[self._key_index] if self._key_index >= 0 else ""


def _check(path: Path) -> ValueCheck | None:
    return label_value if path[:2] == ("request", "labels") else _CHECKS.get(str(path[-1]))


class CleanLines:
    """The shapes of one job's clean lines."""

    def __init__(self) -> None:
        self._shapes = Shapes(_clean_shape)

    def match(self, raw: bytes) -> str | None:
        """Return the key of a line that fits a known shape ("" when the shape has none), or None."""
        found = self._shapes.match(raw)
        if found is None:
            return None
        shape, texts, last = found
        try:
            return shape.key([*texts, _decode_text(last)])
        except (msgspec.DecodeError, UnicodeDecodeError):
            # It has more members than the line that the shape was learnt from.
            return None

    def forget(self) -> None:
        """Drop every shape: a later line has changed what is clean."""
        self._shapes.forget()

    def learn(self, raw: bytes) -> None:
        """Keep the shape of a line that was walked and found clean."""
        if self._shapes.match(raw) is None:
            self._shapes.learn(raw)


def _clean_shape(raw: bytes, places: list[ValuePosition]) -> _CleanShape | None:
    texts = [place for place in texts_of(raw, places) if place.path != ("processed_time",)]
    count = Counter(place.path for place in places)
    # A member that is there twice may be read at either place; a key that is no text is another finding each time.
    is_twice = any(count[text.path] > 1 for text in texts)
    is_odd = ("key",) in count and ("key",) not in {text.path for text in texts}
    return None if not texts or is_twice or is_odd else _CleanShape(raw, texts)


def is_plain_key(key: str) -> bool:
    """Whether a key needs no finding of its own."""
    return key[:1].isalpha() and not is_retyped(key)
