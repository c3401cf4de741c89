"""How did each row end? Each row has one status and its tokens, and the counts of a tally must add up.

Invariants: one request ends as exactly one `ResultRow`. Every row has the same members, whatever its status. A tally
either adds up to the number of requests, or says how many rows are missing or too many.
"""

from __future__ import annotations

import re
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


#: The most tokens that one count may say: a thousand times the longest context, and so few that those of all rows
#: and attempts are a 64-bit number.
MAX_TOKENS = 10**10
#: Members of ``usageMetadata`` that are known (API discovery document aiplatform.v1, revision 20261106).
USAGE_MEMBERS = frozenset({
    "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount", "totalTokenCount",
    "cachedContentTokenCount", "promptTokensDetails", "candidatesTokensDetails", "cacheTokensDetails",
    "toolUsePromptTokensDetails", "trafficType",
})  # fmt: skip
_DIGITS = 20


class RowStatus(StrEnum):
    """How one request ended."""

    SUCCEEDED = "succeeded"
    TRUNCATED = "truncated"
    BLOCKED = "blocked"
    INVALID_OUTPUT = "invalid_output"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    MISSING = "missing"
    REJECTED = "rejected"

    @property
    def is_good(self) -> bool:
        """Whether the row has the answer that was asked for."""
        return self is RowStatus.SUCCEEDED

    @property
    def repairable(self) -> bool:
        """Whether asking again may give an answer. A single row may know better (see `ResultRow.repairable`)."""
        return self not in {RowStatus.SUCCEEDED, RowStatus.BLOCKED, RowStatus.REJECTED}


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one row, or of many added together.

    :param prompt_tokens: tokens read, as the service counts them (``promptTokenCount``); cached tokens and tokens of
        tools are not subtracted.
    :param output_tokens: tokens answered (``candidatesTokenCount``), without thinking.
    :param thinking_tokens: billed as output (``thoughtsTokenCount``).
    :param cached_tokens: the part of `prompt_tokens` read from a cache.
    :param tool_tokens: prompt tokens that came from tools (``toolUsePromptTokenCount``).
    :param total_tokens: the service's total, which may leave `tool_tokens` out; the sum of the parts where it did not
        say.
    :param audio_tokens: the part of `prompt_tokens` that was audio, which some models price apart.
    :param image_tokens: the part of `output_tokens` that was images, priced apart.
    :param cached_audio_tokens: the part of `audio_tokens` read from a cache.
    """

    prompt_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    cached_tokens: int = 0
    tool_tokens: int = 0
    total_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0
    cached_audio_tokens: int = 0

    @classmethod
    def from_api(cls, doc: dict[str, Any]) -> Self | None:
        """Read ``usageMetadata``; counts may be strings or absent. None where one says more than can be true."""
        prompt, output = _count(doc.get("promptTokenCount")), _count(doc.get("candidatesTokenCount"))
        thinking, tool = _count(doc.get("thoughtsTokenCount")), _count(doc.get("toolUsePromptTokenCount"))
        total = _count(doc.get("totalTokenCount")) or prompt + output + thinking + tool
        audio = _modality(doc.get("promptTokensDetails"), "AUDIO")
        images = _modality(doc.get("candidatesTokensDetails"), "IMAGE")
        cached_audio = min(audio, _modality(doc.get("cacheTokensDetails"), "AUDIO"))
        cached = _count(doc.get("cachedContentTokenCount"))
        counts = (prompt, output, thinking, cached, tool, total, audio, images, cached_audio)
        return cls(*counts) if max(counts) <= MAX_TOKENS else None

    def __add__(self, other: Usage) -> Usage:
        # Written out because every row passes here: three times as fast as a loop over the members.
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.output_tokens + other.output_tokens,
            self.thinking_tokens + other.thinking_tokens,
            self.cached_tokens + other.cached_tokens,
            self.tool_tokens + other.tool_tokens,
            self.total_tokens + other.total_tokens,
            self.audio_tokens + other.audio_tokens,
            self.image_tokens + other.image_tokens,
            self.cached_audio_tokens + other.cached_audio_tokens,
        )


def _modality(details: object, name: str) -> int:
    """Add up the tokens of one modality in a ``…TokensDetails`` list."""
    return sum(
        _count(item.get("tokenCount"))
        for item in (details if isinstance(details, list) else ())
        if isinstance(item, dict) and item.get("modality") == name
    )


def _count(value: object) -> int:
    """Read a token count, which may be a number, a text, or absent."""
    if type(value) is int:
        return max(value, 0)
    if value is None:
        return 0
    if isinstance(value, float):
        return int(value) if value.is_integer() and value > 0 else 0
    if isinstance(value, str) and re.fullmatch(r"\d+(\.0)?", value, re.ASCII):
        # More digits than a real count has: all that matters is that there are too many.
        return int(value.partition(".")[0][:_DIGITS])
    return 0


class ResultRow(msgspec.Struct, frozen=True, kw_only=True):
    """One request's end. Every row has every member, whatever its status.

    :param key: the request's key, begins with a letter.
    :param reason: why there is no good answer, for people; empty when there is one.
    :param code: the machine word behind `reason`: a finish reason, a block reason, a gRPC status name, or a rule.
    :param text: the answer's text, thoughts left out, parts joined; None where the answer has no text: a function call,
        code and its result, an image, a part that we do not know. All of it is in `response`.
    :param answer: the parsed JSON answer where JSON was asked for and the model did not call a function instead; None
        otherwise.
    :param usage: None when the service reported no tokens: such a row cannot be priced.
    :param response: the service's response as it was, JSON; empty when there is none. Bytes: as a text an emoji in it
        would make it four times as large.
    :param columns: the user's own columns of this row.
    """

    key: str
    status: RowStatus
    reason: str = ""
    code: str = ""
    text: str | None = None
    answer: Any = None
    finish_reason: str = ""
    model_version: str = ""
    usage: Usage | None = None
    processed_at: str = ""
    response: bytes = b""
    columns: dict[str, Any] | None = None
    job_name: str = ""
    #: Whether asking again may help; a row error such as INVALID_ARGUMENT never heals.
    repairable: bool = False
    #: Digest of the request and its model (`core.requests.request.request_digest`): rows that share it share an answer.
    request_digest: str = ""
    #: The key of the row whose answer this is, where an identical request was sent once; empty for a row of its own.
    same_as: str = ""
    #: How often the row was sent; 0 when an answer of an earlier run was used.
    attempts: int = 1
    #: The Airflow run that paid for an answer of an earlier run; empty for this run's own.
    run_id: str = ""
    #: The tokens of its earlier attempts, which were billed too.
    earlier: tuple[Usage, ...] = ()


class Tally(msgspec.Struct, frozen=True):
    """How many rows ended how. Immutable: adding makes a new one."""

    counts: dict[str, int] = {}

    @classmethod
    def of(cls, statuses: Iterable[RowStatus]) -> Self:
        """Count statuses."""
        return cls({str(status): count for status, count in Counter(statuses).items()})

    def __add__(self, other: Tally) -> Tally:
        return Tally(dict(Counter(self.counts) + Counter(other.counts)))

    def __getitem__(self, status: RowStatus) -> int:
        return self.counts.get(str(status), 0)

    @property
    def total(self) -> int:
        """Rows counted."""
        return sum(self.counts.values())

    def as_dict(self) -> dict[str, int]:
        """Return counts by status in the order of `RowStatus`, statuses without rows left out."""
        return {str(status): self[status] for status in RowStatus if self[status]}

    def __str__(self) -> str:
        parts = ", ".join(f"{count:,} {status}" for status, count in self.as_dict().items())
        return f"{self.total:,} rows" + (f": {parts}" if parts else "")
