"""What does one output line mean? Tables of finish reasons and error words turn one line into one row.

Invariants: every line becomes exactly one `ResultRow`, whatever it holds. A word that is not in the tables makes a
failed row that may be sent again, never an exception. Thoughts are not an answer. Everything else from the model is an
answer, also parts that we do not know: an answer is empty only if the model said nothing. An answer must have the form
that its request asked for: JSON, or only an image, or only audio. Of several candidates the first good one is the
answer; if none is good, the first one gives the reason.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.jsonl import (
    Candidate,
    Echo,
    EchoConfig,
    OutputLine,
    Response,
    decode,
    decode_leniently,
    encode,
    read_echo,
    read_response,
)
from airflow_vertex_batch.core.domain.repair_json import MAX_DEPTH, is_deep, repair_json, well_encoded
from airflow_vertex_batch.core.domain.row import ResultRow, RowStatus, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Finish reason → what it means for the row, and whether asking again may help. All of the API's `FinishReason` words
#: (API discovery document aiplatform.v1, revision 20261106) and of google-genai's; a test compares them.
FINISH_REASONS: dict[str, tuple[RowStatus, bool]] = {
    "FINISH_REASON_UNSPECIFIED": (RowStatus.FAILED, True),
    "STOP": (RowStatus.SUCCEEDED, False),
    "MAX_TOKENS": (RowStatus.TRUNCATED, True),
    "SAFETY": (RowStatus.BLOCKED, False),
    "RECITATION": (RowStatus.BLOCKED, False),
    "BLOCKLIST": (RowStatus.BLOCKED, False),
    "PROHIBITED_CONTENT": (RowStatus.BLOCKED, False),
    "SPII": (RowStatus.BLOCKED, False),
    "MODEL_ARMOR": (RowStatus.BLOCKED, False),
    "IMAGE_SAFETY": (RowStatus.BLOCKED, False),
    "IMAGE_PROHIBITED_CONTENT": (RowStatus.BLOCKED, False),
    "IMAGE_RECITATION": (RowStatus.BLOCKED, False),
    "OTHER": (RowStatus.FAILED, True),
    "IMAGE_OTHER": (RowStatus.FAILED, True),
    "NO_IMAGE": (RowStatus.INVALID_OUTPUT, True),
    "MALFORMED_FUNCTION_CALL": (RowStatus.INVALID_OUTPUT, True),
    "MALFORMED_RESPONSE": (RowStatus.INVALID_OUTPUT, True),
    "UNEXPECTED_TOOL_CALL": (RowStatus.INVALID_OUTPUT, True),
    "TOO_MANY_TOOL_CALLS": (RowStatus.INVALID_OUTPUT, True),
    "CONTINUATION": (RowStatus.TRUNCATED, True),
    # Words that only google-genai has (2.34.0 to 3.6.1, 2026-11-28). The same request has the same language, signature
    # or policy problem again.
    "LANGUAGE": (RowStatus.BLOCKED, False),
    "PUP_LIMITED_DISABLED": (RowStatus.BLOCKED, False),
    "MISSING_THOUGHT_SIGNATURE": (RowStatus.INVALID_OUTPUT, False),
    "ESCALATION": (RowStatus.FAILED, True),
}

#: Row errors that the same request will get again (https://cloud.google.com/apis/design/errors, 2026-11-22).
PERMANENT_ERRORS = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNIMPLEMENTED", "OUT_OF_RANGE"})

#: Codes of rows that every further try will get again.
UNREPAIRABLE_CODES = PERMANENT_ERRORS | {"RECITATION", "IMAGE_RECITATION"}

#: Those of these errors that a person can repair without changing the row: lost rights, missing media.
_CORRECTED_ELSEWHERE = frozenset({"NOT_FOUND", "PERMISSION_DENIED"})

#: google.rpc.Code by number, for errors that give only the number.
_GRPC_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_HTTP_CODES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
#: Words by number, for gRPC and HTTP. The two ranges of numbers do not overlap.
_WORDS = {**dict(enumerate(_GRPC_CODES)), **_HTTP_CODES}
#: Members of a part that describe it and say nothing by themselves (API discovery document aiplatform.v1 and v1beta1,
#: revision 20261106; the last row is google-genai's, 3.6.1). A member that is not listed here counts as said by the
#: model.
_DESCRIPTIONS = frozenset({
    "thought", "thoughtSignature", "mediaResolution", "mediaProcessing", "videoMetadata", "speechMetadata",
    "partMetadata", "audioMetadata", "documentMetadata", "spreadsheetMetadata",
})  # fmt: skip
#: Values of a member that is not really there, if a writer pads all parts to one shape.
_NOTHING: tuple[Any, ...] = (None, "", [], False)
_YES = (True, "true")
#: Members of a part that are not an image, sound or video.
_NO_MEDIA = frozenset({
    "text", "functionCall", "functionResponse", "executableCode", "codeExecutionResult", "toolCall", "toolResponse",
})  # fmt: skip
#: All members of a part that are known; `make api` compares them.
ANSWER_MEMBERS = _DESCRIPTIONS | _NO_MEDIA | {"inlineData", "fileData", "audioTranscription"}
_MEDIA = {"IMAGE": "an image", "AUDIO": "audio", "VIDEO": "a video"}
_JSON_TYPES = frozenset({"application/json", "APPLICATION_JSON"})
#: ``2026-11-22T03:04:05Z``
_TIME_LENGTH = 20
LONGEST_TIME = len("2026-11-22T03:04:05.123456+00:00")
_FENCE = "```"
#: Where the decoder stopped, in its own words.
_BYTE = re.compile(r"\(byte (\d+)\)$")


class Form(msgspec.Struct, frozen=True):
    """The form of answer that a request asked for.

    :param json: whether the text must be JSON.
    :param media: ``IMAGE``, ``AUDIO``, ``VIDEO``: one of them must be in the answer. Empty if a text is an answer too.
    """

    json: bool = False
    media: tuple[str, ...] = ()


def classify(
    line: OutputLine,
    key: str,
    *,
    job_name: str = "",
    request_digest: str = "",
    check: Callable[[Any], str] | None = None,
) -> ResultRow:
    """Return the row of one output line.

    :param key: the key of the request that this line answers.
    :param check: returns why a JSON answer does not fit, or an empty text. It is given when a schema was asked for.
    """
    made: dict[str, Any] = {
        "key": key,
        "processed_at": time_or_nothing(line.processed_time),
        "job_name": job_name,
        "request_digest": request_digest,
    }
    if line.status:
        code, reason = row_error(line.status)
        return ResultRow(
            **made, status=RowStatus.FAILED, code=code, reason=reason, repairable=code not in PERMANENT_ERRORS
        )
    raw, response = read_response(bytes(line.response))
    if response is None:
        return ResultRow(**made, **_failed("NO_RESPONSE", "The line has neither a status nor a response"))
    made |= {
        "response": well_encoded(raw),
        "model_version": response.model_version or "",
        "usage": Usage.from_api(response.usage_metadata) if response.usage_metadata else None,
    }
    form = asked_form(read_echo(line.request))
    return ResultRow(**made, **_verdict(response, form, check))


def time_or_nothing(text: str | None) -> str:
    """Return an RFC 3339 time as it is, and an empty text for anything else: one wrong time would make a table refuse
    all rows.

    A time that is not UTC, or finer than a table holds, is written as UTC with microseconds.
    """
    # `fromisoformat` checks the calendar. The other conditions exclude the other formats that it accepts.
    if not text or len(text) < _TIME_LENGTH or text[13:17:3] != "::" or text[10] not in "T " or text[5] == "W":
        return ""
    if text[-1] != "Z" and (text[-6] not in "+-" or text[-3] != ":" or text[19] == ","):
        return ""
    try:
        utc = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return ""
    is_plain = text.endswith(("Z", "+00:00")) and text[11:13] != "24"
    return text if is_plain and len(text) <= LONGEST_TIME - 5 * (text[-1] == "Z") else utc.isoformat()


def _in_fence(text: str) -> str | None:
    """Return the content of a Markdown fence, closed or not; None if there is no fence.

    Without a regular expression: a model may answer with a million line breaks, for which a pattern takes hours.
    """
    mark, line_break, body = text.lstrip().partition("\n")
    if not line_break or mark.rstrip() not in {_FENCE, f"{_FENCE}json"}:
        return None
    return body.rstrip().removesuffix(_FENCE).rstrip()


def is_unrepairable(row: ResultRow) -> bool:
    """Whether a row has no good answer and will never get one, because of the request itself and not because of rights
    or missing media.
    """
    if row.status.is_good or row.code in _CORRECTED_ELSEWHERE:
        return False
    return not row.repairable or row.code in UNREPAIRABLE_CODES


def _failed(code: str, reason: str) -> dict[str, Any]:
    return {"status": RowStatus.FAILED, "code": code, "reason": reason, "repairable": True}


def _verdict(response: Response, form: Form, check: Callable[[Any], str] | None) -> dict[str, Any]:
    """Return those members of the row that depend on the candidates."""
    verdicts = (_judged(candidate, form, check) for candidate in response.candidates or ())
    first = next(verdicts, None)
    if first is not None:
        good = (verdict for verdict in verdicts if verdict["status"].is_good)
        return first if first["status"].is_good else next(good, first)
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason:
        reason = feedback.block_reason_message or f"The prompt was blocked: {feedback.block_reason}"
        return {"status": RowStatus.BLOCKED, "code": feedback.block_reason, "reason": reason}
    return _failed("NO_CANDIDATES", "The response has no candidate")


def _judged(candidate: Candidate, form: Form, check: Callable[[Any], str] | None) -> dict[str, Any]:
    parts = _answer_parts(candidate)
    finish, text = candidate.finish_reason or "", _text(parts)
    made = {"finish_reason": finish, "text": text}
    status, repairable = FINISH_REASONS.get(finish or "STOP", (RowStatus.FAILED, True))
    if status is not RowStatus.SUCCEEDED:
        reason = candidate.finish_message or f"The model stopped with {finish}"
        return {**made, "status": status, "code": finish, "reason": reason, "repairable": repairable}
    if not parts:
        return {**made, **_failed("EMPTY_ANSWER", "The model stopped without saying anything")}
    return {**made, **_judged_form(parts, text, form, check)}


def _judged_form(
    parts: list[dict[str, Any]], text: str | None, form: Form, check: Callable[[Any], str] | None
) -> dict[str, Any]:
    """Return the members of a row with an answer: does the answer have the form that was asked for?"""
    if form.media:
        if any(_is_medium(part, form.media) for part in parts):
            return {"status": RowStatus.SUCCEEDED}
        reason = f"The request asked for {' or '.join(_MEDIA[name] for name in form.media)}, and the answer has none"
        return _invalid(f"NO_{form.media[0]}", reason)
    if not form.json and check is None:
        return {"status": RowStatus.SUCCEEDED}
    if text is not None:
        return judged_json(text, check)
    # A request with functions and a schema gets a function call or JSON.
    if any(part.get("functionCall") for part in parts):
        return {"status": RowStatus.SUCCEEDED}
    return _invalid("NOT_JSON", "JSON was asked for and the answer has no text")


def _invalid(code: str, reason: str) -> dict[str, Any]:
    return {"status": RowStatus.INVALID_OUTPUT, "code": code, "reason": reason, "repairable": True}


def judged_json(text: str, check: Callable[[Any], str] | None) -> dict[str, Any]:
    """Return the members of a row whose answer had to be JSON."""
    body = text
    if is_deep(text) and repair_json(text.encode()) is not None:
        return _invalid("TOO_DEEP", f"The answer is JSON that is nested deeper than {MAX_DEPTH} levels")
    try:
        try:
            answer = decode(text)
        except msgspec.DecodeError:
            # A text in a fence is not JSON, so it gets here. Looking for a fence first would take longer than all other
            # steps.
            fenced = _in_fence(text)
            if fenced is None:
                raise
            answer = decode(body := fenced)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        status, code, reason = RowStatus.INVALID_OUTPUT, "NOT_JSON", "JSON was asked for and the answer is not JSON"
        if _is_cut(body, error):
            # This was also seen with the finish reason STOP.
            status, code, reason = RowStatus.TRUNCATED, "CUT_JSON", "The answer is JSON that ends too early"
        return {"status": status, "code": code, "reason": reason, "repairable": True}
    try:
        encode(answer)
    except OverflowError:
        # Integers of more than 64 bits are rounded, as a table would do. The text has all of their digits.
        answer = decode_leniently(body.encode())
    problem = check(answer) if check is not None else ""
    if problem:
        return {**_invalid("SCHEMA", problem), "answer": answer}
    return {"status": RowStatus.SUCCEEDED, "answer": answer}


def _is_cut(text: str, error: Exception) -> bool:
    """Whether the text is JSON that was cut: the decoder needed more at the end of the text."""
    if not isinstance(error, msgspec.DecodeError) or not text.strip():
        return False
    if "truncated" in str(error):
        # The decoder also reports half a character near the end. The lenient decoder accepts that.
        return repair_json(text.encode("utf-8", "replace")) is None
    # For a number that ends in its sign, point or exponent, the error is at the byte after the last one.
    at = _BYTE.search(str(error))
    return at is not None and int(at[1]) >= len(text.encode())


def _answer_parts(candidate: Candidate) -> list[dict[str, Any]]:
    """Return the parts that say something, without thoughts."""
    parts = candidate.content.listed if candidate.content is not None else ()
    return [part for part in parts if part.get("thought") not in _YES and _is_answer_part(part)]


def _is_answer_part(part: dict[str, Any]) -> bool:
    return any(value not in _NOTHING for name, value in part.items() if name not in _DESCRIPTIONS)


def _text(parts: list[dict[str, Any]]) -> str | None:
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str)) or None


def _is_medium(part: dict[str, Any], media: tuple[str, ...]) -> bool:
    """Whether a part is, or may be, one of these media: bytes, an address, or a member that we do not know."""
    for name, value in part.items():
        if value in _NOTHING or name in _DESCRIPTIONS or name in _NO_MEDIA:
            continue
        mime = value.get("mimeType") if isinstance(value, dict) else None
        if not mime or _word(mime).partition("/")[0].upper() in media:
            return True
    return False


def asked_form(echo: Echo | None) -> Form:
    """Return the form of answer that a request asked for."""
    configs = (echo.generation_config, echo.snake_config) if echo is not None else ()
    for config in configs:
        if config is not None:
            types = {config.response_mime_type, config.snake_mime_type, *_text_types(config)}
            return Form(bool(types & _JSON_TYPES), _media_alone(config.response_modalities or config.snake_modalities))
    return Form()


def _text_types(config: EchoConfig) -> Iterator[str]:
    """Yield the MIME types of ``responseFormat``: a list by its definition, one object in examples."""
    given = config.response_format or config.snake_format
    for item in given if isinstance(given, list) else [given]:
        text = item.get("text") if isinstance(item, dict) else None
        if isinstance(text, dict):
            yield _word(text.get("mimeType") or text.get("mime_type"))


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _media_alone(modalities: Any) -> tuple[str, ...]:
    """Return the modalities in ``responseModalities``; nothing if text is one of them."""
    named = tuple(_word(word).upper() for word in modalities) if isinstance(modalities, list) else ()
    return named if all(word in _MEDIA for word in named) else ()


def row_error(status: str) -> tuple[str, str]:
    """Return the error word and the message of a row's status: a reason phrase, a colon, then JSON; or any text."""
    error = _error_of(status)
    if error is None:
        number = re.search(r"\b(4\d\d|5\d\d)\b", status)
        found = re.search(r"\b([A-Z]{2,}(?:_[A-Z]+)+|INTERNAL|UNAVAILABLE|ABORTED|UNKNOWN|CANCELLED)\b", status)
        return (found[1] if found else _HTTP_CODES.get(int(number[1]) if number else 0, "UNKNOWN")), status
    code = error.get("code")
    word = error.get("status") or (_WORDS.get(code) if isinstance(code, int) else None)
    return str(word or "UNKNOWN"), str(error.get("message") or status)


def _error_of(status: str) -> dict[str, Any] | None:
    start = status.find("{")
    if start < 0:
        return None
    doc = decode_leniently(status[start:].encode())
    error = doc.get("error", doc) if isinstance(doc, dict) else None
    return error if isinstance(error, dict) else None
