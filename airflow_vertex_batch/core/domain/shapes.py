"""Does this line differ from a line that was read in full only in its key and its texts? Then only those need reading.

The lines of one job are one template, filled in many times. The system instruction, the schema and the settings are
most of a line's bytes, and they are the same in every line. A `Shape` keeps those bytes. If a line consists of exactly
these bytes, with valid JSON in the places between them, it is the same JSON except for these places, wherever each
place ends. Bytes are compared ten times as fast as they are parsed. Lint, prepare and collect all read this way.

Invariants: a line that matches reads as the full path would read it. Any line may fail to match; it is then read in
full.
"""

from __future__ import annotations

import contextlib
import re
from itertools import islice
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    #: Member names and list indexes, from the outermost.
    Path = tuple[str | int, ...]

#: Members of a request's contents whose texts differ from line to line.
_NAMES = frozenset({"text", "fileUri", "file_uri", "key"})
#: Shapes kept; a job has one or two. And how often to learn at all, for files where every line is another shape.
_KEPT, _LEARNED = 4, 64
#: The longest line that is learned. A longer line is mostly text, so learning it saves little; and a shape keeps all
#: its constant bytes.
_LEARNED_BYTES = 1 << 18
#: How many bytes of a constant are searched for if a text has quotation marks. A longer search text takes longer to
#: prepare; a shorter one has more false hits.
_NEEDLE = 16
#: Possessive quantifiers: backtracking into a text would need 120 bytes of memory for each of its characters.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]]|[^\s{}\[\],:"]++', re.DOTALL)
#: The largest number of values in a line that is learned. Each value is kept for a moment; a short value takes ten
#: times its size.
_MOST_VALUES = 4096
_decode_text = msgspec.json.Decoder(str).decode


class ValuePosition(NamedTuple):
    """A value in a line: its path in the JSON, and the positions of its first byte and after its last byte."""

    path: Path
    start: int
    end: int


class Shape:
    """The constant bytes of one template, and the places between them: texts, and one `core` of any type.

    :param places: the places where the line may vary, in order.
    :param core: the index of the core among the places. The end of the core is found from the end of the line, without
        a search.
    """

    __slots__ = ("_back", "_front", "_head", "_tail", "paths")

    def __init__(self, raw: bytes, places: list[ValuePosition], core: int) -> None:
        # Quotation marks and braces of the places belong to the constants.
        bounds = [0, *(bound for place in places for bound in (place.start + 1, place.end - 1)), len(raw)]
        constants = [raw[start:end] for start, end in zip(bounds[::2], bounds[1::2], strict=True)]
        self._head, self._tail = constants[0], constants[-1]
        self._front = [(constant, constant[:_NEEDLE]) for constant in constants[1 : core + 1]]
        self._back = [(constant, constant[-_NEEDLE:]) for constant in reversed(constants[core + 1 : -1])]
        #: The paths of the texts that `match` returns: first those before the core in order, then those after it in
        #: reverse order.
        self.paths = [place.path for place in (*places[:core], *reversed(places[core + 1 :]))]

    def match(self, raw: bytes) -> tuple[list[str], bytes] | None:
        """Return the texts of a line of this shape and the bytes of its core, not decoded; None if the line does not
        match.

        A text may be cut at any quotation mark: if the bytes between two constants decode as one string, they are this
        string.
        """
        if not raw.startswith(self._head) or not raw.endswith(self._tail):
            return None
        start, end, texts = len(self._head), len(raw) - len(self._tail), []
        try:
            for constant, needle in self._front:
                # The constant begins with the quotation mark that ends the text before it. Mostly that is the next
                # quotation mark.
                stop = raw.find(b'"', start)
                if not raw.startswith(constant, stop):
                    stop = raw.find(needle, start)
                    if not raw.startswith(constant, stop):
                        return None
                texts.append(_decode_text(raw[start - 1 : stop + 1]))
                start = stop + len(constant)
            for constant, needle in self._back:
                begin = raw.rfind(b'"', start, end) + 1
                if not raw.endswith(constant, 0, begin):
                    begin = raw.rfind(needle, start, end) + len(needle)
                    if not raw.endswith(constant, 0, begin):
                        return None
                texts.append(_decode_text(raw[begin - 1 : end + 1]))
                end = begin - len(constant)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        # If constants overlap, the bytes between them are too short to be JSON.
        return texts, raw[start - 1 : end + 1]


S = TypeVar("S", bound="Shape")


class Shapes(Generic[S]):
    """The shapes of one file's lines, the last used first.

    :param make: makes a shape from a line and its values, or returns None if the line cannot have a shape.
    """

    def __init__(self, make: Callable[[bytes, list[ValuePosition]], S | None]) -> None:
        self._make, self._budget = make, _LEARNED
        self._shapes: list[S] = []

    def match(self, raw: bytes) -> tuple[S, list[str], bytes] | None:
        """Return the shape of a line and the result of `Shape.match`; None if no shape matches."""
        for shape in self._shapes:
            found = shape.match(raw)
            if found is not None:
                if shape is not self._shapes[0]:
                    self._shapes.remove(shape)
                    self._shapes.insert(0, shape)
                return shape, found[0], found[1]
        return None

    def learn(self, raw: bytes) -> None:
        """Keep the shape of a line that was read in full."""
        if not self._budget or len(raw) > _LEARNED_BYTES:
            return
        self._budget -= 1
        # The full path may accept lines that this code cannot read, because it does not look at every byte.
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError, RuntimeError):
            values = list(islice(_values(raw), _MOST_VALUES + 1))
            shape = self._make(raw, values) if len(values) <= _MOST_VALUES else None
            if shape is not None:
                self._shapes.insert(0, shape)
                del self._shapes[_KEPT:]

    def forget(self) -> None:
        """Drop every shape: what lines may hold has changed."""
        self._shapes.clear()


def texts_of(raw: bytes, places: Iterable[ValuePosition]) -> list[ValuePosition]:
    """Return the texts that vary from line to line: the key, the time, and those of the request."""
    return sorted((place for place in places if raw[place.start] == ord('"') and _varies(place.path)), key=_start)


def _start(place: ValuePosition) -> int:
    return place.start


def _varies(path: Path) -> bool:
    if path[:2] == ("request", "contents"):
        return path[-1] in _NAMES
    return path[:2] == ("request", "labels") or path in {("key",), ("processed_time",)}


def _values(raw: bytes) -> Iterator[ValuePosition]:
    tokens = _TOKEN.finditer(raw)
    return _below(tokens, next(tokens), ())


def _below(tokens: Iterator[re.Match[bytes]], first: re.Match[bytes], path: Path) -> Iterator[ValuePosition]:
    """Yield the values below a value, then the value itself."""
    last, mark = first, _mark(first)
    if mark == ord("{"):
        while _mark(last := next(tokens)) != ord("}"):
            yield from _below(tokens, next(tokens), (*path, _decode_text(last[0])))
    elif mark == ord("["):
        for index, last in enumerate(tokens):
            if _mark(last) == ord("]"):
                break
            yield from _below(tokens, last, (*path, index))
    yield ValuePosition(path, first.start(), last.end())


def _mark(token: re.Match[bytes]) -> int:
    """Return the first byte of a token, without a copy of it."""
    mark: int = token.string[token.start()]
    return mark
