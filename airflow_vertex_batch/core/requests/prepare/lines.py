"""How does a chunk of rows become request lines? By a template, or from lines that are ready-made.

All lines of a batch share one `Frame`: the bytes around the two parts that differ, the key and the body. So a chunk is
handled as parallel lists, and a row costs a fraction of the time of encoding a whole request.

Invariants: a chunk gives exactly the bytes that its rows give one by one. A row that cannot become a line goes to the
rejected rows with its reason. Labels are put in last, when keys are final.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.jsonl import decode, encode
from airflow_vertex_batch.core.requests.prepare.weight import constant_weight
from airflow_vertex_batch.core.requests.request import (
    KEY_LABEL,
    Correlation,
    RequestBuilder,
    RequestTemplate,
    RowProblem,
    columns_json,
    content_key,
    key_label,
    row_key,
    row_keys,
    value_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_vertex_batch.core.requests.prepare.unsent import Rejected
    from airflow_vertex_batch.core.requests.prepare.weight import WeightCounter
    from airflow_vertex_batch.core.requests.readers import Row
    from airflow_vertex_batch.core.requests.sources import Placed

HEAD = b'{"key":'
_REQUEST = b',"request":'


class Frame(msgspec.Struct, frozen=True):
    """The bytes that all lines of a batch share, apart from `HEAD`.

    :param middle: between key and body.
    :param tail: behind the body, line end included.
    """

    middle: bytes
    tail: bytes

    def request(self, body: bytes) -> bytes:
        """Return the ``request`` member of a line."""
        return self.middle[len(_REQUEST) :] + body + self.tail[:-2]


#: The whole request is the body.
READY_MADE = Frame(_REQUEST, b"}\n")


class Lines(msgspec.Struct):
    """Some lines on their way, as lists of the same length.

    :param placed: the rows they come from.
    :param bodies: what stands between the frame's bytes.
    :param columns: the user's columns as JSON, or empty when none are kept.
    :param texts: prompts, or empty when the lines are ready-made.
    :param files: address and MIME type of media, or empty when the template has none.
    :param cores: each line without the frame's outer bytes: key, middle, body.
    :param digests: of the requests, or empty when nobody asks for them.
    """

    placed: list[Placed] = []
    keys: list[str] = []
    bodies: list[bytes] = []
    columns: list[bytes] = []
    texts: list[str] = []
    files: list[list[tuple[str, str]]] = []
    cores: list[bytes] = []
    digests: list[str] = []

    def pick(self, indexes: Iterable[int]) -> Lines:
        """Return the lines at some indexes."""
        wanted = list(indexes)
        return Lines(
            *([values[index] for index in wanted] if (values := getattr(self, name)) else [] for name in _LISTS)
        )

    def plus(self, other: Lines) -> Lines:
        """Return these lines and some more."""
        if not other.keys:
            return self
        if not self.keys:
            return other
        return Lines(*(getattr(self, name) + getattr(other, name) for name in _LISTS))

    def without(self, indexes: Iterable[int]) -> Lines:
        """Return the lines that are not at some indexes."""
        gone = set(indexes)
        return self.pick(index for index in range(len(self.keys)) if index not in gone) if gone else self

    def split(self, count: int) -> tuple[Lines, Lines]:
        """Return the first `count` lines, and the others."""
        every = range(len(self.keys))
        return (self, Lines()) if count >= len(every) else (self.pick(every[:count]), self.pick(every[count:]))


_LISTS = Lines.__struct_fields__


class Maker(Protocol):
    """Makes lines from rows."""

    frame: Frame

    def make(self, chunk: list[Placed], rejected: Rejected) -> Lines:
        """Return the lines of a chunk of rows, all but `cores`; what cannot be a line goes to `rejected`.

        The chunk may be emptied: nobody else needs it.
        """

    def complete(self, lines: Lines) -> None:
        """Fill in `cores`, and labels, now that the keys are final."""

    def add_weight(self, lines: Lines, weight_counter: WeightCounter) -> None:
        """Add what the lines weigh."""


def cores(frame: Frame, lines: Lines) -> list[bytes]:
    """Return each line without the frame's outer bytes."""
    middle = frame.middle
    return [key + middle + body for key, body in zip(map(encode, lines.keys), lines.bodies, strict=True)]


class TemplateMaker:
    """Makes lines by a template.

    :param members: the constant members, when they are not the template's own: cured ones.
    """

    def __init__(
        self, template: RequestTemplate, members: dict[str, Any], key_column: str | None, columns: tuple[str, ...],
        correlation: Correlation,
    ) -> None:  # fmt: skip
        self._build = RequestBuilder(template, members)
        self._key_column, self._columns, self._constant = key_column, columns, constant_weight(members)
        build = self._build
        # A prompt alone needs no list of parts: its text is the body.
        self._is_text = build.prompt is not None and not build.media
        before, after = (b'{"text":', b"}") if self._is_text else (b"", b"")
        self._plain = Frame(_REQUEST + build.head + before, after + build.tail + b"}\n")
        self.frame, self._label_end = self._plain, b""
        if correlation is Correlation.LABEL:
            begin, end = build.labelled_head
            self.frame, self._label_end = Frame(_REQUEST + begin, self._plain.tail), end + before

    def make(self, chunk: list[Placed], rejected: Rejected) -> Lines:
        """Return the lines of a chunk of rows, all but `cores`."""
        try:
            return self._all(chunk)
        except Exception:  # noqa: BLE001 - one of them is odd: row by row, which one and how is said
            return self._each(chunk, rejected)

    def _all(self, chunk: list[Placed]) -> Lines:
        rows: list[Any] = [row for _, _, row in chunk]
        prompt = self._build.prompt
        texts = prompt.all(rows) if prompt else []
        if prompt and not prompt.is_never_blank and not all(map(str.strip, texts)):
            raise RowProblem("empty-prompt", "One of the prompts is empty")
        files = [self._build.files(row) for row in rows] if self._build.media else []
        if self._is_text:
            bodies = list(map(encode, texts))
        else:
            bodies = [
                self._build.parts(text, media) for text, media in zip(texts or [""] * len(rows), files, strict=True)
            ]
        if self._key_column is None:
            keys = self._content_keys(bodies)
        else:
            keys = row_keys(list(map(itemgetter(self._key_column), rows)))
        columns = [columns_json(row, self._columns) for row in rows] if self._columns else []
        return Lines(chunk, keys, bodies, columns, texts, files)

    def _each(self, chunk: list[Placed], rejected: Rejected) -> Lines:
        lines = Lines()
        for placed in chunk:
            row = placed[2]
            if isinstance(row, InputError):
                rejected.add(placed, RowProblem("not-a-row", str(row)))
                continue
            try:
                self._one(placed, row, lines)
            except RowProblem as problem:
                rejected.add(placed, problem)
        return lines

    def _one(self, placed: Placed, row: Row, lines: Lines) -> None:
        text, files = self._build.text(row) if self._build.prompt else "", self._build.files(row)
        parts = self._build.parts(text, files)
        body = parts[len(b'{"text":') : -1] if self._is_text else parts
        key = row_key(value_of(row, self._key_column)) if self._key_column else self._content_keys([body])[0]
        columns = columns_json(row, self._columns)
        lines.placed.append(placed)
        lines.keys.append(key)
        lines.bodies.append(body)
        if self._columns:
            lines.columns.append(columns)
        if self._build.prompt:
            lines.texts.append(text)
        if self._build.media:
            lines.files.append(files)

    def _content_keys(self, bodies: list[bytes]) -> list[str]:
        return list(map(content_key, map(self._plain.request, bodies)))

    def complete(self, lines: Lines) -> None:
        """Fill in `cores`, and labels, now that the keys are final."""
        if self._label_end:
            lines.bodies = [
                key_label(key).encode() + self._label_end + body
                for key, body in zip(lines.keys, lines.bodies, strict=True)
            ]
        lines.cores = cores(self.frame, lines)

    def add_weight(self, lines: Lines, weight_counter: WeightCounter) -> None:
        """Add what the lines weigh."""
        weight_counter.add_texts(lines.texts)
        for files in lines.files:
            weight_counter.add_media(mime for _, mime in files)
        weight_counter.add_same(self._constant, len(lines.keys))


class ReadyMaker:
    """Takes request lines as they are; only a missing or unsafe key is replaced. The other members of the line are kept
    beside the answer.

    :param key_column: the member that names a line; ``key`` if not given.
    :param columns: the members that are kept; if empty, all except the request and its key.
    """

    frame = READY_MADE

    def __init__(self, correlation: Correlation, key_column: str | None = None, columns: tuple[str, ...] = ()) -> None:
        self._is_labelled = correlation is Correlation.LABEL
        self._key_column, self._columns = key_column, columns

    def make(self, chunk: list[Placed], rejected: Rejected) -> Lines:
        """Return the lines of a chunk of rows, all but `cores`."""
        lines = Lines()
        for placed in chunk:
            try:
                key, request, columns = self._one(placed[2])
            except RowProblem as problem:
                rejected.add(placed, problem)
                continue
            lines.placed.append((placed[0], placed[1], {}))
            lines.keys.append(key)
            lines.bodies.append(request)
            lines.columns.append(columns)
        # What a row holds is in its bytes now. Decoded it takes several times as much, which one long line shows.
        chunk.clear()
        return lines

    def _one(self, row: Row | InputError) -> tuple[str, bytes, bytes]:
        request = _ready_made(row)
        assert isinstance(row, dict)
        columns = columns_json(row, self._columns or [name for name in row if name not in {"request", self._own_key}])
        if self._key_column is not None:
            return row_key(value_of(row, self._key_column)), request, columns
        key = row.get("key")
        if isinstance(key, dict | list):
            raise RowProblem("odd-key", "The line's key is neither a text nor a number")
        return content_key(request) if key in {None, ""} else row_key(key), request, columns

    @property
    def _own_key(self) -> str:
        """The member that is nothing but the key; a column of the user's is more than that."""
        return "key" if self._key_column is None else ""

    def complete(self, lines: Lines) -> None:
        """Fill in `cores`, and labels, now that the keys are final."""
        if self._is_labelled:
            lines.bodies = [
                encode(_labelled(decode(body), key)) for key, body in zip(lines.keys, lines.bodies, strict=True)
            ]
        lines.cores = cores(self.frame, lines)

    def add_weight(self, lines: Lines, weight_counter: WeightCounter) -> None:
        """Add what the lines weigh."""
        for request in lines.bodies:
            weight_counter.add_request(request)


def _ready_made(row: Row | InputError) -> bytes:
    if isinstance(row, InputError):
        raise RowProblem("not-a-row", str(row))
    if not isinstance(row.get("request"), dict):
        raise RowProblem("no-request", "The line has no `request` object")
    try:
        return encode(row["request"])
    except (TypeError, UnicodeEncodeError) as error:
        raise RowProblem("not-json", f"The request cannot be JSON: {type(error).__name__}") from None


def _labelled(request: dict[str, Any], key: str) -> dict[str, Any]:
    """Put our label behind the user's labels, or in front of a request without any."""
    labels = request.get("labels")
    if not labels:
        others = {name: value for name, value in request.items() if name != "labels"}
        return {"labels": {KEY_LABEL: key_label(key)}, **others}
    if not isinstance(labels, dict):
        return request  # lint says what is wrong with them
    rest = {name: value for name, value in labels.items() if name != KEY_LABEL}
    return {**request, "labels": {**rest, KEY_LABEL: key_label(key)}}
