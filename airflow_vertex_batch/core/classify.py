"""What does one output line mean? One table of finish reasons and error words, one row out.

Invariants: every line becomes exactly one `ResultRow`, whatever it holds; a word that is not in the tables is a failed
row that may be asked again, never an exception; thoughts are no answer; of several candidates the first good one is
the answer, and where none is good the first one says why.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.jsonl import (
    Candidate,
    Echo,
    OutputLine,
    Response,
    decode,
    read_echo,
    read_response,
    repaired,
)
from airflow_vertex_batch.core.rows import ResultRow, RowStatus, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

#: Finish reason → what it means for the row, and whether asking again may help. All of the API's `FinishReason` words
#: (API discovery document aiplatform.v1, revision 20261106); a test compares them.
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
}

#: Row errors that the same request will meet again (https://cloud.google.com/apis/design/errors, 2026-11-22).
PERMANENT_ERRORS = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNIMPLEMENTED", "OUT_OF_RANGE"})

#: google.rpc.Code by number, for errors that give only that.
_GRPC_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_HTTP_CODES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
#: Both by the number an error may give instead of the word; the two ranges do not meet.
_WORDS = {**dict(enumerate(_GRPC_CODES)), **_HTTP_CODES}
#: ``2026-11-22T03:04:05Z``
_TIME_LENGTH = 20
_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)(?:\n?\s*```\s*)?", re.DOTALL)
#: Where the decoder stopped, in its own words.
_BYTE = re.compile(r"\(byte (\d+)\)$")


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
    :param check: says why a JSON answer does not fit, or nothing; given when a schema was asked for.
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
    raw, response = _response(line)
    if response is None:
        return ResultRow(**made, **_failed("NO_RESPONSE", "The line has neither a status nor a response"))
    made |= {
        "response": raw.decode("utf-8", "replace"),
        "model_version": response.model_version or "",
        "usage": Usage.from_api(response.usage_metadata) if response.usage_metadata else None,
    }
    wants_json = check is not None or asks_json(read_echo(line.request))
    return ResultRow(**made, **_verdict(response, wants_json=wants_json, check=check))


def time_or_nothing(text: str | None) -> str:
    """Return an RFC 3339 time as it is, anything else as nothing: one odd text would make a table refuse all rows."""
    # `fromisoformat` knows the calendar; the rest rules out the other forms that it takes.
    if not text or len(text) < _TIME_LENGTH or text[13:17:3] != "::" or text[10] not in "T " or text[5] == "W":
        return ""
    if text[-1] != "Z" and (text[-6] not in "+-" or text[-3] != ":" or text[19] == ","):
        return ""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return ""
    return text


def _response(line: OutputLine) -> tuple[bytes, Response | None]:
    raw = bytes(line.response)
    try:
        return raw, read_response(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raw = repaired(raw) or b"null"
    try:
        return raw, read_response(raw)
    except msgspec.DecodeError:
        return raw, None


def _failed(code: str, reason: str) -> dict[str, Any]:
    return {"status": RowStatus.FAILED, "code": code, "reason": reason, "repairable": True}


def _verdict(response: Response, *, wants_json: bool, check: Callable[[Any], str] | None) -> dict[str, Any]:
    """Return the members of the row that the candidates decide."""
    verdicts = (_judged(candidate, wants_json=wants_json, check=check) for candidate in response.candidates or ())
    first = next(verdicts, None)
    if first is not None:
        good = (verdict for verdict in verdicts if verdict["status"].is_good)
        return first if first["status"].is_good else next(good, first)
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason:
        reason = feedback.block_reason_message or f"The prompt was blocked: {feedback.block_reason}"
        return {"status": RowStatus.BLOCKED, "code": feedback.block_reason, "reason": reason}
    return _failed("NO_CANDIDATES", "The response has no candidate")


def _judged(candidate: Candidate, *, wants_json: bool, check: Callable[[Any], str] | None) -> dict[str, Any]:
    finish, text = candidate.finish_reason or "", _text(candidate)
    made = {"finish_reason": finish, "text": text}
    status, repairable = FINISH_REASONS.get(finish or "STOP", (RowStatus.FAILED, True))
    if status is not RowStatus.SUCCEEDED:
        reason = candidate.finish_message or f"The model stopped with {finish}"
        return {**made, "status": status, "code": finish, "reason": reason, "repairable": repairable}
    if text is None:
        if _has_other_parts(candidate):
            return {**made, "status": RowStatus.SUCCEEDED}
        return {**made, **_failed("EMPTY_ANSWER", "The model stopped without saying anything")}
    return {**made, **(judged_json(text, check) if wants_json else {"status": RowStatus.SUCCEEDED})}


def judged_json(text: str, check: Callable[[Any], str] | None) -> dict[str, Any]:
    """Return the members of a row whose answer had to be JSON."""
    body = text
    try:
        try:
            answer = decode(text)
        except msgspec.DecodeError:
            # What stands in a fence is no JSON with it, and to look for one first takes longer than all the rest.
            fenced = _FENCE.fullmatch(text)
            if fenced is None:
                raise
            answer = decode(body := fenced[1])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        status, code, reason = RowStatus.INVALID_OUTPUT, "NOT_JSON", "JSON was asked for and the answer is not JSON"
        if _is_cut(body, error):
            # Seen in the field with STOP, too.
            status, code, reason = RowStatus.TRUNCATED, "CUT_JSON", "The answer is JSON that ends too early"
        return {"status": status, "code": code, "reason": reason, "repairable": True}
    problem = check(answer) if check is not None else ""
    if problem:
        status = RowStatus.INVALID_OUTPUT
        return {"status": status, "code": "SCHEMA", "reason": problem, "answer": answer, "repairable": True}
    return {"status": RowStatus.SUCCEEDED, "answer": answer}


def _is_cut(text: str, error: Exception) -> bool:
    """Whether the decoder met the end of the text where it wanted more: all that came before was JSON."""
    if not isinstance(error, msgspec.DecodeError) or not text.strip():
        return False
    if "truncated" in str(error):
        # It also says so of half a character near the end, which the lenient decoder takes.
        return repaired(text.encode("utf-8", "replace")) is None
    # A number that ends in its sign, point or exponent is reported at the byte behind the last one.
    at = _BYTE.search(str(error))
    return at is not None and int(at[1]) >= len(text.encode())


def _text(candidate: Candidate) -> str | None:
    parts = candidate.content.parts if candidate.content is not None else None
    texts = [part.text for part in parts or () if part.text is not None and not part.thought]
    return "".join(texts) if any(texts) else None


def _has_other_parts(candidate: Candidate) -> bool:
    parts = candidate.content.parts if candidate.content is not None else None
    return any(bytes(raw) != b"null" for part in parts or () for raw in (part.function_call, part.inline_data))


def asks_json(echo: Echo | None) -> bool:
    """Whether a request asked for JSON."""
    for config in (echo.generation_config, echo.snake_config) if echo is not None else ():
        if config is not None and "application/json" in {config.response_mime_type, config.snake_mime_type}:
            return True
    return False


def row_error(status: str) -> tuple[str, str]:
    """Return the error word and the message of a row's status: a reason phrase, a colon, then JSON; or any text."""
    error = _error_of(status)
    if error is None:
        number = re.search(r"\b(4\d\d|5\d\d)\b", status)
        told = re.search(r"\b([A-Z]{2,}(?:_[A-Z]+)+|INTERNAL|UNAVAILABLE|ABORTED|UNKNOWN|CANCELLED)\b", status)
        return (told[1] if told else _HTTP_CODES.get(int(number[1]) if number else 0, "UNKNOWN")), status
    code = error.get("code")
    word = error.get("status") or (_WORDS.get(code) if isinstance(code, int) else None)
    return str(word or "UNKNOWN"), str(error.get("message") or status)


def _error_of(status: str) -> dict[str, Any] | None:
    start = status.find("{")
    if start < 0:
        return None
    try:
        doc = decode(status[start:])
    except msgspec.DecodeError:
        return None
    error = doc.get("error", doc) if isinstance(doc, dict) else None
    return error if isinstance(error, dict) else None
