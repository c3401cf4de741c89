"""Which requests did a job get? This module reads the keys and requests of the job's input: once before the output, and
seldom again.

If a line has the shape of an earlier one (`core.domain.shapes`), only its texts are read.

Invariants: a request is the same bytes as in the file. A line that is not a request is an error that names the line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.answers.collect.echo import is_content, mark, mark_of, parts_of
from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.errors import ResultError
from airflow_vertex_batch.core.domain.jsonl import NULL, decode_leniently, encode
from airflow_vertex_batch.core.domain.lines import read_blocks, too_long
from airflow_vertex_batch.core.domain.ports import inputs_at
from airflow_vertex_batch.core.domain.shapes import Shape, Shapes, ValuePosition, texts_of
from airflow_vertex_batch.core.requests.request import KEY_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_vertex_batch.core.answers.collect.expected import Request
    from airflow_vertex_batch.core.domain.ports import ObjectStore, Warehouse


class _Line(msgspec.Struct, gc=False):
    key: str | int | float | bool | None = None
    request: msgspec.Raw = NULL


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_text = msgspec.json.Decoder(str).decode


def input_requests(store: ObjectStore, warehouse: Warehouse, inputs: Iterable[str]) -> Iterator[Request]:
    """Yield every request of a job's input: its key as it is there, its bytes, whether it may have our label, and its
    mark.

    :raises ResultError: when a line is not a request.
    """
    lines = _RequestLines()
    for address in inputs:
        if address.startswith("bq://"):
            for row in warehouse.rows(TableId.parse(address)):
                request = row.get("request")
                made = request.encode() if isinstance(request, str) else encode(request)
                yield row.get("key"), made, True, mark_of(made)
            continue
        for info in inputs_at(store, Uri.parse(address)):
            with store.open_read(info.uri, info.version) as stream:
                for first, block in read_blocks(stream):
                    for number, raw in enumerate(block, start=first):
                        request = lines.read(raw) or _odd_line(raw.strip(), str(info.uri), number)
                        if request is not None:
                            yield request


class _RequestShape(Shape):
    """The shape of a line with a key and a request, in this order. Its core is the last text."""

    __slots__ = ("_begin", "_between", "_contents", "_end", "_form", "_is_labelled")

    def __init__(self, raw: bytes, texts: list[ValuePosition], request: ValuePosition, *, is_labelled: bool) -> None:
        super().__init__(raw, texts, len(texts) - 1)
        key_end = texts[0].end - 1
        # These bytes begin with the quotation mark that ends the key. A key cannot contain them, because quotation
        # marks in it have a backslash.
        self._between = raw[key_end : request.start + 1]
        self._begin, self._end = request.start - key_end, request.end - len(raw)
        self._is_labelled = is_labelled
        #: The indexes of the texts that are part of the contents. The last text is one of them.
        self._contents = [index for index, place in enumerate(texts) if is_content(place.path)]
        self._form, found = parts_of(raw[request.start : request.end])
        if len(found) != len(self._contents):
            self._form = 0  # a member is there twice

    def request(self, raw: bytes, texts: list[str]) -> Request:
        """Return what `input_requests` yields for a line that matches.

        :param texts: all texts of the line.
        """
        request = raw[raw.find(self._between) + self._begin : self._end]
        found = mark(self._form, [texts[index] for index in self._contents]) if self._form else mark_of(request)
        return texts[0], request, self._is_labelled, found


def _request_shape(raw: bytes, places: list[ValuePosition]) -> _RequestShape | None:
    outermost = [place for place in places if len(place.path) == 1]
    texts = texts_of(raw, places)
    if [place.path for place in outermost] != [("key",), ("request",)] or len(texts) < 2:  # noqa: PLR2004 - key, prompt
        return None
    if texts[0].path != ("key",) or raw[outermost[1].start] != ord("{"):
        return None
    is_labelled = any(KEY_LABEL in place.path for place in places)
    return _RequestShape(raw, texts, outermost[1], is_labelled=is_labelled)


class _RequestLines:
    """Reads request lines, and learns their shapes."""

    def __init__(self) -> None:
        self._shapes = Shapes(_request_shape)

    def read(self, raw: bytes) -> Request | None:
        """Read a line; return None if it is unusual."""
        found = self._shapes.match(raw)
        if found is not None:
            shape, texts, core = found
            try:
                return shape.request(raw, [*texts, _decode_text(core)])
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass  # it has more parts than the line that the shape was learnt from
        try:
            line = _decode_line(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        self._shapes.learn(raw)
        request = bytes(line.request)
        return line.key, request, True, mark_of(request)


def _odd_line(raw: bytes, uri: str, number: int) -> Request | None:
    """Read a line with the lenient decoder; None if it is blank."""
    if not raw:
        return None
    doc = decode_leniently(raw)
    if not isinstance(doc, dict):
        raise ResultError(
            f"Line {number} of {uri} is no request",
            uri=uri,
            line=number,
            why=too_long(raw) or "not a JSON object",
            todo="Restore the file as it was when the job was created",
        )
    request = encode(doc.get("request"))
    return doc.get("key"), request, True, mark_of(request)
