"""Which output lines are plain answers, and what rows are they? The short way through `classify` for the common line.

Invariants: a row made here equals the one that `classify` makes of the same line (a property test compares them);
whatever is out of the ordinary (an error, several candidates or parts, thoughts, odd types) is left to `classify`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from airflow_vertex_batch.core.classify import asks_json, judged_json, time_or_nothing
from airflow_vertex_batch.core.jsonl import NULL, Echo
from airflow_vertex_batch.core.rows import ResultRow, RowStatus, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Part(msgspec.Struct, gc=False):
    text: str
    thought: bool | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part]


class _Candidate(msgspec.Struct, rename="camel", gc=False):
    content: _Content
    finish_reason: str


class _Tokens(msgspec.Struct, rename="camel", gc=False):
    modality: str = ""
    token_count: _Count = 0


class _Usage(msgspec.Struct, rename="camel", gc=False):
    prompt_token_count: _Count = 0
    candidates_token_count: _Count = 0
    thoughts_token_count: _Count = 0
    cached_content_token_count: _Count = 0
    tool_use_prompt_token_count: _Count = 0
    total_token_count: _Count = 0
    prompt_tokens_details: list[_Tokens] = []


class _Response(msgspec.Struct, rename="camel", gc=False):
    candidates: list[_Candidate]
    usage_metadata: _Usage
    model_version: str


class QuickLine(msgspec.Struct, gc=False):
    """One output line, all of it but the response decoded."""

    status: str | None = ""
    processed_time: str | None = ""
    request: Echo | None = None
    response: msgspec.Raw = NULL
    key: str | int | float | bool | None = None


_SUCCEEDED = RowStatus.SUCCEEDED
_PLAIN: dict[str, Any] = {"status": _SUCCEEDED}
_decode = msgspec.json.Decoder(_Response).decode


def quick_row(
    line: QuickLine, key: str, *, job_name: str, request_digest: str, check: Callable[[Any], str] | None
) -> ResultRow | None:
    """Return the row of a line that is one plain and good answer, or None where `classify` has to look at it."""
    if line.status:
        return None
    try:
        response, raw = _decode(line.response), str(line.response, "utf-8")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    candidates = response.candidates
    if len(candidates) != 1 or candidates[0].finish_reason != "STOP":
        return None
    parts, usage = candidates[0].content.parts, _usage(response.usage_metadata)
    if len(parts) != 1 or parts[0].thought or not (text := parts[0].text) or not usage.total_tokens:
        return None
    judged = judged_json(text, check) if check is not None or asks_json(line.request) else _PLAIN
    if judged["status"] is not _SUCCEEDED:
        return None
    return ResultRow(
        key=key,
        status=_SUCCEEDED,
        text=text,
        answer=judged.get("answer"),
        finish_reason="STOP",
        model_version=response.model_version,
        usage=usage,
        processed_at=time_or_nothing(line.processed_time),
        response=raw,
        job_name=job_name,
        request_digest=request_digest,
    )


def _usage(tokens: _Usage) -> Usage:
    prompt, output, thinking, tool = (
        tokens.prompt_token_count,
        tokens.candidates_token_count,
        tokens.thoughts_token_count,
        tokens.tool_use_prompt_token_count,
    )
    audio = 0
    for item in tokens.prompt_tokens_details:
        if item.modality == "AUDIO":
            audio += item.token_count
    total = tokens.total_token_count or prompt + output + thinking + tool
    return Usage(prompt, output, thinking, tokens.cached_content_token_count, tool, total, audio)
