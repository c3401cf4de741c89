"""What do the lines of a batch look like, in both directions?

Request lines are ``{"key": …, "request": …}`` as on the user's page. Output lines are what the service writes. They are
read leniently, so that no odd member can break a row: unknown members are ignored, members of a wrong type are dropped
one by one.

Invariants: bytes in, bytes out, one line at a time. Nothing here keeps a line. Every line is either read, or it is the
one error of `read_output`.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, TypeVar

import msgspec

from airflow_vertex_batch.core.domain.errors import ResultError
from airflow_vertex_batch.core.domain.lines import too_long
from airflow_vertex_batch.core.domain.repair_json import is_deep, is_wide, repair_json, shallow

T = TypeVar("T", bound=msgspec.Struct)

#: An absent member. Not empty bytes: those would tear whatever they are written into.
NULL = msgspec.Raw(b"null")
_ABSENT = (b"", b"null", b"{}")

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


class Content(msgspec.Struct):
    """The parts of one candidate, whole: a member that we do not know may be the answer."""

    parts: list[Any] | dict[str, Any] | None = None

    @property
    def listed(self) -> list[dict[str, Any]]:
        """The parts as a list: one object may stand where a list is documented."""
        parts = [self.parts] if isinstance(self.parts, dict) else self.parts or []
        return [part for part in parts if isinstance(part, dict)]


class Candidate(msgspec.Struct, rename="camel"):
    """One candidate answer."""

    content: Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None


class PromptFeedback(msgspec.Struct, rename="camel"):
    """Why a prompt was refused."""

    block_reason: str | None = None
    block_reason_message: str | None = None


class Response(msgspec.Struct, rename="camel"):
    """What the model said, reduced to what decides a row."""

    candidates: list[Candidate] | None = None
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: dict[str, Any] | None = None
    model_version: str | None = None


class EchoConfig(msgspec.Struct, rename="camel", gc=False):
    """What a request's generation config says about the form of the answer, in both of its spellings."""

    response_mime_type: str | None = None
    snake_mime_type: str | None = msgspec.field(name="response_mime_type", default=None)
    response_format: Any = None
    snake_format: Any = msgspec.field(name="response_format", default=None)
    response_modalities: Any = None
    snake_modalities: Any = msgspec.field(name="response_modalities", default=None)


class Echo(msgspec.Struct, rename="camel", gc=False):
    """The request as it came back, reduced to what the answer is judged by and joined by."""

    generation_config: EchoConfig | None = None
    snake_config: EchoConfig | None = msgspec.field(name="generation_config", default=None)
    labels: dict[str, Any] | None = None


class OutputLine(msgspec.Struct):
    """One line of ``predictions.jsonl`` or one row of an output table; `response` and `request` stay bytes."""

    status: str | None = ""
    processed_time: str | None = ""
    request: msgspec.Raw = NULL
    response: msgspec.Raw = NULL
    #: As it came back: a text that looked like a number may have become one.
    key: str | int | float | bool | None = None

    @property
    def is_answered(self) -> bool:
        """Whether the service has written anything: a line of a request file has nothing of an output."""
        return bool(self.status or self.processed_time) or bytes(self.response) != b"null"


_decode_line = msgspec.json.Decoder(OutputLine).decode
_decode_response = msgspec.json.Decoder(Response).decode
_decode_echo = msgspec.json.Decoder(Echo).decode


def request_line(key: str, request: object) -> bytes:
    """Return one request line, newline included."""
    return encode({"key": key, "request": request}) + b"\n"


def read_output(raw: bytes, uri: str, number: int) -> OutputLine:
    """Decode one output line.

    :raises ResultError: when the line is not a JSON object: the file is torn, or is no output of a batch job.
    """
    try:
        return _decode_line(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        doc, why = decode_leniently(raw), too_long(raw) or str(error)
    if isinstance(doc, dict):
        return _lenient(_with_text_status(doc), OutputLine)
    raise ResultError(
        f"Line {number} of {uri} is no line of a batch output",
        uri=uri,
        line=number,
        why=why,
        todo="If the job is still writing, wait for its end; otherwise fetch the file and look at that line",
    )


def decode_leniently(raw: bytes) -> Any:
    """Decode what may have to be repaired; None where there is no JSON. What comes out can be encoded again."""
    return decode(repair_json(raw) or b"null")


def _with_text_status(doc: dict[str, Any]) -> dict[str, Any]:
    """Keep an error that came as an object or a number instead of a text."""
    status = doc.get("status")
    if status is None or isinstance(status, str):
        return doc
    return {**doc, "status": encode(status).decode() if status else ""}


def read_response(raw: bytes) -> tuple[bytes, Response | None]:
    """Decode the ``response`` member; return it as it can land, with None when it is absent, null, empty or no JSON."""
    raw = shallow(raw) if is_deep(raw) else raw
    raw = repair_json(raw) or raw if is_wide(raw) else raw
    if raw in _ABSENT:
        return raw, None
    try:
        return raw, _decode_response(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        repaired = repair_json(raw) or b"null"
    doc = decode(repaired)
    # A BigQuery output column may hold the response as a JSON text.
    if isinstance(doc, str):
        repaired = repair_json(doc.encode()) or repaired
        doc = decode(repaired)
    return repaired, _lenient(doc, Response) if isinstance(doc, dict) and doc else None


def read_echo(raw: bytes | msgspec.Raw) -> Echo | None:
    """Decode the ``request`` member of an output line, or return None where it is no request."""
    try:
        return _decode_echo(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        doc = decode_leniently(bytes(raw))
    # A BigQuery column may hold the request as a JSON text.
    doc = decode_leniently(doc.encode()) if isinstance(doc, str) else doc
    return _lenient(doc, Echo) if isinstance(doc, dict) else None


def _lenient(doc: object, kind: type[T]) -> T:
    """Build `kind` from what fits of `doc`, member by member, element by element."""
    values = {}
    for field in msgspec.structs.fields(kind):
        if not isinstance(doc, dict) or field.encode_name not in doc:
            continue
        value = doc[field.encode_name]
        try:
            values[field.name] = _member(value, field.type)
        except (msgspec.ValidationError, TypeError):
            continue
    return kind(**values)


def _member(value: Any, wanted: Any) -> Any:
    if wanted is msgspec.Raw:
        return msgspec.Raw(encode(value))
    inner = _struct_in(wanted)
    if inner is None:
        return msgspec.convert(value, wanted, strict=False)
    # `parts` may be an object where a list is documented (seen in the service's own samples); the reverse may come too.
    made = [_lenient(item, inner) for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]
    return made if "list" in str(wanted) else next(iter(made), None)


def _struct_in(wanted: Any) -> type[msgspec.Struct] | None:
    for part in (wanted, *getattr(wanted, "__args__", ())):
        for leaf in (part, *getattr(part, "__args__", ())):
            if isinstance(leaf, type) and issubclass(leaf, msgspec.Struct):
                return leaf
    return None


def contents_fingerprint(request: Any) -> str:
    """Return a digest of a request's ``contents`` that survives the echo.

    The service may leave out other members of the request, so the digest takes the contents alone.
    """
    contents = request.get("contents") if isinstance(request, dict) else request
    return hashlib.blake2b(encode(canonical(contents)), digest_size=16).hexdigest()


def canonical(value: Any) -> Any:
    """Return what a request and its echo have in common.

    The service sorts members, pads list elements with nulls, empty lists and objects of nulls, and writes ``1.0`` as
    ``1``; so members have one order and one spelling, what says nothing is left out, and a number is a number.
    """
    if isinstance(value, dict):
        items = sorted((_camel(name), canonical(item)) for name, item in value.items() if item is not None)
        # `parts` and `contents` may be one object instead of a list of one.
        return {
            name: [item] if name in _LISTS and isinstance(item, dict) else item
            for name, item in items
            if item not in _PADDING
        }
    if isinstance(value, list):
        return [canonical(item) for item in value]
    return _number(value) if type(value) in {int, float} else value


#: How what is not there looks where it is padded.
_PADDING: tuple[Any, ...] = (None, [], {})
_LISTS = ("parts", "contents")


def _number(value: float) -> float:
    """Return one of the spellings of a number: an integer where it is one of 64 bits."""
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else float(value)
    return int(value) if value.is_integer() and -(1 << 63) <= value < 1 << 63 else value


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name) if "_" in name else name
