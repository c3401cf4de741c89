"""Which output lines are plain answers, and which rows do they give? This is the fast path for common lines; `classify`
is the full path.

If a line has the shape of an earlier one (`core.domain.shapes`), only its key, time and response are read: the
echo says the same on every line.

Invariants: a row made here equals the row that `classify` makes of the same line (a property test compares them). Every
unusual line (an error, several candidates or parts, thoughts, odd types) is left to `classify`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from airflow_vertex_batch.core.answers.classify import LONGEST_TIME, Form, asked_form, time_or_nothing
from airflow_vertex_batch.core.answers.collect.echo import is_content, mark, mark_of, parts_of
from airflow_vertex_batch.core.domain.jsonl import NULL, Echo, decode, encode
from airflow_vertex_batch.core.domain.repair_json import is_deep
from airflow_vertex_batch.core.domain.row import MAX_TOKENS, ResultRow, RowStatus, Usage
from airflow_vertex_batch.core.domain.shapes import Shape, Shapes, ValuePosition, texts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Key, time and response of an output line without an error; the form that its request asked for; its mark.
    Plain = tuple[str, str, bytes, Form, int]

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]


class _Plain(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """Base of types that refuse unknown members: such a member may be nested too deeply, or be a number that is too
    large.
    """


class _Part(_Plain, gc=False):
    text: str
    thought: Literal[False] | None = None
    thought_signature: str | None = None


class _Content(_Plain, gc=False):
    parts: tuple[_Part]
    role: str | None = None


class _Rating(_Plain, gc=False):
    category: str | None = None
    probability: str | None = None
    probability_score: float | None = None
    severity: str | None = None
    severity_score: float | None = None
    blocked: bool | None = None


class _Candidate(_Plain, gc=False):
    content: _Content
    finish_reason: Literal["STOP"]
    avg_logprobs: float | None = None
    score: float | None = None
    index: Literal[0] | None = None
    safety_ratings: list[_Rating] | None = None


class _PromptTokens(_Plain, gc=False):
    """Tokens that are not counted separately. (Audio tokens are.)"""

    modality: Literal["TEXT", "IMAGE", "VIDEO", "DOCUMENT"] = "TEXT"
    token_count: _Count = 0


class _OutputTokens(_Plain, gc=False):
    modality: Literal["TEXT"] = "TEXT"
    token_count: _Count = 0


class _Usage(_Plain, gc=False):
    candidates_token_count: _Count = 0
    prompt_token_count: _Count = 0
    thoughts_token_count: _Count = 0
    cached_content_token_count: _Count = 0
    tool_use_prompt_token_count: _Count = 0
    total_token_count: _Count = 0
    prompt_tokens_details: list[_PromptTokens] = []
    candidates_tokens_details: list[_OutputTokens] = []
    cache_tokens_details: list[_PromptTokens] = []
    tool_use_prompt_tokens_details: list[_PromptTokens] = []
    billable_prompt_usage: dict[str, _Count] = {}
    traffic_type: str | None = None


class _Response(_Plain, gc=False):
    candidates: tuple[_Candidate]
    model_version: str
    usage_metadata: _Usage
    create_time: str | None = None
    response_id: str | None = None


class _Line(msgspec.Struct, gc=False):
    """One output line, with everything decoded except the response."""

    key: str
    status: Literal[""] | None = ""
    processed_time: str | None = ""
    request: Echo | None = None
    response: msgspec.Raw = NULL


_SUCCEEDED = RowStatus.SUCCEEDED
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_response = msgspec.json.Decoder(_Response).decode


class _OutputShape(Shape):
    """The shape of a line whose core is the response."""

    __slots__ = ("_contents", "_form", "form", "key_index", "time_index")

    def __init__(self, raw: bytes, places: list[ValuePosition], core: int) -> None:
        super().__init__(raw, places, core)
        self.key_index = self.paths.index(("key",))
        #: -1 for lines without a time.
        self.time_index = self.paths.index(_TIME) if _TIME in self.paths else -1
        self.form = asked_form(_decode_line(raw).request)
        self._contents = [index for index, path in enumerate(self.paths) if is_content(path)]
        self._form, found = parts_of(_request(raw))
        if len(found) != len(self._contents):
            self._form = 0  # a member is there twice

    def mark(self, raw: bytes, texts: list[str]) -> int:
        """Return the mark of the request that came back in a line of this shape."""
        if self._form:
            return mark(self._form, [texts[index] for index in self._contents])
        return mark_of(_request(raw))


class _Echoed(msgspec.Struct, gc=False):
    request: msgspec.Raw = NULL


_decode_request = msgspec.json.Decoder(_Echoed).decode


def _request(raw: bytes) -> bytes:
    return bytes(_decode_request(raw).request)


_TIME, _RESPONSE = ("processed_time",), ("response",)


def _output_shape(raw: bytes, places: list[ValuePosition]) -> _OutputShape | None:
    outermost = [place for place in places if len(place.path) == 1]
    # If a member is there twice, it is not clear which one counts.
    if len({place.path for place in outermost}) < len(outermost):
        return None
    response = next((place for place in outermost if place.path == _RESPONSE), None)
    if response is None or raw[response.start] != ord("{"):
        return None
    varying = sorted([*texts_of(raw, places), response], key=lambda place: place.start)
    return _OutputShape(raw, varying, varying.index(response))


class PlainLines:
    """Reads the output lines of one job that have no error, and learns their shapes."""

    def __init__(self) -> None:
        self._shapes = Shapes(_output_shape)

    def read(self, raw: bytes) -> Plain | None:
        """Read a line; return None if it is unusual. The response is not decoded yet."""
        found = self._shapes.match(raw)
        if found is not None:
            shape, texts, response = found
            at = shape.time_index
            time = texts[at] if at >= 0 else ""
            return texts[shape.key_index], time, response, shape.form, shape.mark(raw, texts)
        try:
            line = _decode_line(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        self._shapes.learn(raw)
        response, form = bytes(line.response), asked_form(line.request)
        return line.key, line.processed_time or "", response, form, mark_of(_request(raw))


def plain_row(line: Plain, job_name: str, request_digest: str, check: Callable[[Any], str] | None) -> ResultRow | None:
    """Return the row of a line that is one good answer; None if `classify` must look at the line."""
    key, time, response, form, _ = line
    try:
        doc = _decode_response(response)
        text, tokens = doc.candidates[0].content.parts[0].text, doc.usage_metadata
        answer = _answer(text) if form.json or check is not None else None
    except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError):
        return None
    if not text or form.media or not tokens.total_token_count or (check is not None and check(answer)):
        return None
    return ResultRow(
        key=key,
        status=_SUCCEEDED,
        text=text,
        answer=answer,
        finish_reason="STOP",
        model_version=doc.model_version,
        usage=_usage(tokens),
        processed_at=plain_time(time),
        response=response,
        job_name=job_name,
        request_digest=request_digest,
    )


def _answer(text: str) -> Any:
    """Decode a JSON answer. :raises OverflowError: where it cannot land as it is."""
    answer = decode(text)
    # This is twice as fast as searching the text for long numbers.
    encode(answer)
    if is_deep(text):
        raise RecursionError
    return answer


def plain_time(text: str) -> str:
    """Return what `time_or_nothing` returns. This is faster if an earlier line was written in the same second."""
    if text.endswith("+00:00") and len(text) <= LONGEST_TIME and text[20:-6].isdigit() and text.isascii():
        return text if _is_second(text[:20]) else time_or_nothing(text)
    return time_or_nothing(text)


@functools.lru_cache(maxsize=4096)
def _is_second(text: str) -> bool:
    """Whether a text is a time up to the point after its seconds."""
    return text.endswith(".") and time_or_nothing(full := f"{text}0+00:00") == full


def _usage(tokens: _Usage) -> Usage:
    return Usage(
        tokens.prompt_token_count,
        tokens.candidates_token_count,
        tokens.thoughts_token_count,
        tokens.cached_content_token_count,
        tokens.tool_use_prompt_token_count,
        tokens.total_token_count,
    )
