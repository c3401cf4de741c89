"""What does one output line mean? One table of finish reasons and error words, one row out.

Invariants: every line becomes exactly one `ResultRow`, whatever it holds; a word that is not in the tables is a failed
row that may be asked again, never an exception; thoughts are no answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.jsonl import Candidate, OutputLine, Response, decode, read_response, repaired
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
#: One text that is no time would make a table refuse all rows.
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)


def classify(line: OutputLine, key: str, *, job_name: str = "", check: Callable[[Any], str] | None = None) -> ResultRow:
    """Return the row of one output line.

    :param key: the key of the request that this line answers.
    :param check: says why a JSON answer does not fit, or nothing; given when a schema was asked for.
    """
    at = line.processed_time or ""
    made: dict[str, Any] = {"key": key, "processed_at": at if _TIME.fullmatch(at) else "", "job_name": job_name}
    if line.status:
        code, reason = row_error(line.status)
        return ResultRow(
            **made, status=RowStatus.FAILED, code=code, reason=reason, repairable=code not in PERMANENT_ERRORS
        )
    raw, response = _response(line)
    if response is None:
        return ResultRow(
            **made,
            status=RowStatus.FAILED,
            code="NO_RESPONSE",
            reason="The line has neither a status nor a response",
            repairable=True,
        )
    made |= {
        "response": raw.decode("utf-8", "replace"),
        "model_version": response.model_version or "",
        "usage": Usage.from_api(response.usage_metadata) if response.usage_metadata else None,
    }
    return _answered(made, response, wants_json=check is not None or _asks_json(line), check=check)


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


def _answered(
    made: dict[str, Any], response: Response, *, wants_json: bool, check: Callable[[Any], str] | None
) -> ResultRow:
    if not response.candidates:
        feedback = response.prompt_feedback
        if feedback is not None and feedback.block_reason:
            reason = feedback.block_reason_message or f"The prompt was blocked: {feedback.block_reason}"
            return ResultRow(**made, status=RowStatus.BLOCKED, code=feedback.block_reason, reason=reason)
        return ResultRow(
            **made,
            status=RowStatus.FAILED,
            code="NO_CANDIDATES",
            reason="The response has no candidate",
            repairable=True,
        )
    candidate = response.candidates[0]
    finish = candidate.finish_reason or ""
    text = _text(candidate)
    made |= {"finish_reason": finish, "text": text}
    status, repairable = FINISH_REASONS.get(finish or "STOP", (RowStatus.FAILED, True))
    if status is not RowStatus.SUCCEEDED:
        reason = candidate.finish_message or f"The model stopped with {finish}"
        return ResultRow(**made, status=status, code=finish, reason=reason, repairable=repairable)
    if text is None:
        if _has_other_parts(candidate):
            return ResultRow(**made, status=RowStatus.SUCCEEDED)
        return ResultRow(
            **made,
            status=RowStatus.FAILED,
            code="EMPTY_ANSWER",
            reason="The model stopped without saying anything",
            repairable=True,
        )
    return _json_row(made, text, check) if wants_json else ResultRow(**made, status=RowStatus.SUCCEEDED)


def _json_row(made: dict[str, Any], text: str, check: Callable[[Any], str] | None) -> ResultRow:
    fenced = _FENCE.fullmatch(text)
    try:
        answer = decode(fenced[1] if fenced else text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ResultRow(
            **made,
            status=RowStatus.INVALID_OUTPUT,
            code="NOT_JSON",
            reason="JSON was asked for and the answer is not JSON",
            repairable=True,
        )
    problem = check(answer) if check is not None else ""
    if problem:
        return ResultRow(
            **made, status=RowStatus.INVALID_OUTPUT, code="SCHEMA", reason=problem, answer=answer, repairable=True
        )
    return ResultRow(**made, status=RowStatus.SUCCEEDED, answer=answer)


def _text(candidate: Candidate) -> str | None:
    parts = candidate.content.parts if candidate.content is not None else None
    texts = [part.text for part in parts or () if part.text is not None and not part.thought]
    return "".join(texts) if any(texts) else None


def _has_other_parts(candidate: Candidate) -> bool:
    parts = candidate.content.parts if candidate.content is not None else None
    return any(bytes(raw) != b"null" for part in parts or () for raw in (part.function_call, part.inline_data))


def _asks_json(line: OutputLine) -> bool:
    # The echo holds the request's generationConfig; a text search is enough to know that JSON was asked for.
    request = bytes(line.request)
    if b'"application/json"' not in request:
        return False
    return b'"responseMimeType"' in request or b'"response_mime_type"' in request


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
