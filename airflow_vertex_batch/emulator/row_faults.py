"""What can happen to a row? Faults that change the line that a request is answered with."""

# ruff: noqa: D102 - what a fault's one method does is said by its class

from __future__ import annotations

import hashlib
import re
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, ClassVar, Literal

import msgspec

from airflow_vertex_batch.emulator.billing import Bill, Written
from airflow_vertex_batch.emulator.faults import Fault
from airflow_vertex_batch.emulator.models import output_budget
from airflow_vertex_batch.emulator.wire import row_status

#: What users call the member that names a request, most used first.
KEY_MEMBERS = ("key", "custom_id", "id")


# Faults of a row ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _place(seed: int, subject: str) -> float:
    """Return where a row lies between 0 and 1. Remembered, because all faults of a script ask it of the same row."""
    digest = hashlib.blake2b(f"{seed}:{subject}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


class RowFault(Fault, frozen=True, kw_only=True):
    """Base of the faults that rewrite the result of one request.

    Rows are chosen by `keys` (globs) and `positions` (0-based, in the input's order); with neither, by a seeded hash
    of the key that falls into the slice of `ratio` that begins at `from_ratio`. Faults of one seed whose slices do
    not overlap choose different rows; faults of different seeds choose independently, and the first in the script wins.

    :param times: how many rows in all; None for every chosen one.
    :param ratio: the share of rows, 0 to 1.
    :param from_ratio: where the slice begins: ``from_ratio=0.02, ratio=0.01`` takes the third hundredth.
    """

    #: Whether it also acts on rows that failed by themselves; the others need an answer to rewrite.
    takes_failed: ClassVar[bool] = False

    times: int | None = None
    keys: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()
    ratio: float = 1.0
    from_ratio: float = 0.0
    seed: int = 0

    def chooses(self, key: str, position: int) -> bool:
        """Whether this row is meant."""
        if self.keys or self.positions:
            return position in self.positions or any(fnmatchcase(key, glob) for glob in self.keys)
        return self.from_ratio <= _place(self.seed, key or str(position)) < self.from_ratio + self.ratio

    def suits(self, request: dict[str, Any]) -> bool:  # noqa: ARG002 - most faults take any request
        """Whether this fault can happen to the canonical request of a chosen row."""
        return True

    def apply(self, row: Written) -> Written:
        """Return the row that is written and billed instead of `row`."""
        raise NotImplementedError


def _with_candidate(row: Written, usage: dict[str, Any] | None = None, **members: Any) -> Written:
    """Return `row` with members of its first candidate (None removes one) and its usage replaced."""
    first, *others = row.lines[0]["response"]["candidates"]
    changed = {name: value for name, value in {**first, **members}.items() if value is not None}
    return _with_response(row, candidates=[changed, *others], usageMetadata=usage or _usage(row))


def _with_response(row: Written, **members: Any) -> Written:
    """Return `row` with members of its response replaced; None removes one."""
    line = row.lines[0]
    changed = {name: value for name, value in {**line["response"], **members}.items() if value is not None}
    return msgspec.structs.replace(row, lines=({**line, "response": changed},))


def _parts(row: Written) -> list[dict[str, Any]]:
    return row.lines[0]["response"]["candidates"][0]["content"]["parts"]  # type: ignore[no-any-return]


def _usage(row: Written) -> dict[str, Any]:
    return row.lines[0]["response"]["usageMetadata"]  # type: ignore[no-any-return]


def _half(row: Written) -> dict[str, Any]:
    """The content of the first candidate up to the middle of its text."""
    text = "".join(part.get("text", "") for part in _parts(row))
    return {"parts": [{"text": text[: len(text) // 2]}], "role": "model"}


class Finish(RowFault, frozen=True, kw_only=True, tag="finish"):
    """End a candidate with another ``finishReason``; billed, as refusals are.

    :param reason: any text, so that reasons which don't exist yet can be tried.
    :param partial: keep the first half of the text, as a filter does that strikes in the middle; else no content.
    """

    reason: str
    message: str = ""
    partial: bool = False

    def apply(self, row: Written) -> Written:
        content = _half(row) if self.partial else None
        return _with_candidate(row, content=content, finishReason=self.reason, finishMessage=self.message or None)


class Truncated(RowFault, frozen=True, kw_only=True, tag="truncated"):
    """Stop at MAX_TOKENS half way through, or with the whole budget spent on thinking.

    :param below_tokens: only while the request's ``maxOutputTokens`` is below this, so that a larger one is the cure;
        a request without one has the model's own limit (`models.MAX_OUTPUT_TOKENS`).
    """

    thinking: bool = False
    below_tokens: int | None = None

    def suits(self, request: dict[str, Any]) -> bool:
        return self.below_tokens is None or output_budget(request) < self.below_tokens

    def apply(self, row: Written) -> Written:
        if not self.thinking:
            return _with_candidate(row, content=_half(row), finishReason="MAX_TOKENS")
        kept = {name: count for name, count in _usage(row).items() if not name.startswith("candidatesToken")}
        thinking = row.bill.thinking + row.bill.output
        candidate = {"content": {"role": "model"}, "finishReason": "MAX_TOKENS"}
        changed = _with_response(row, candidates=[candidate], usageMetadata=kept | {"thoughtsTokenCount": thinking})
        return msgspec.structs.replace(changed, bill=msgspec.structs.replace(row.bill, output=0, thinking=thinking))


class Blocked(RowFault, frozen=True, kw_only=True, tag="blocked"):
    """Refuse the prompt: ``promptFeedback`` and no candidates, an empty ``status``; the prompt is billed."""

    reason: str = "SAFETY"
    message: str = ""

    def apply(self, row: Written) -> Written:
        feedback = {"blockReason": self.reason} | ({"blockReasonMessage": self.message} if self.message else {})
        kept = {"promptTokenCount", "promptTokensDetails", "trafficType"}
        usage = {name: value for name, value in _usage(row).items() if name in kept}
        usage["totalTokenCount"] = usage.get("promptTokenCount", 0)
        changed = _with_response(row, candidates=None, promptFeedback=feedback, usageMetadata=usage)
        return msgspec.structs.replace(changed, bill=msgspec.structs.replace(row.bill, output=0, thinking=0))


class RowError(RowFault, frozen=True, kw_only=True, tag="row_error"):
    """Fail the row: a ``status`` and no response; not billed.

    :param text: the whole status instead, for texts that are no JSON.
    """

    takes_failed: ClassVar[bool] = True

    code: int = 429
    status: str = ""
    message: str = "Resource exhausted. Please try again later."
    text: str = ""

    def apply(self, row: Written) -> Written:
        status = self.text or row_status(self.code, self.message, self.status)
        return Written(({**row.lines[0], "status": status, "response": {}},), Bill(outcome="failed"))


class Missing(RowFault, frozen=True, kw_only=True, tag="missing"):
    """Write nothing for the row; not billed."""

    takes_failed: ClassVar[bool] = True

    def apply(self, row: Written) -> Written:  # noqa: ARG002 - whatever it was
        return Written((), Bill(outcome="missing"))


class Duplicated(RowFault, frozen=True, kw_only=True, tag="duplicated"):
    """Write the row's line twice; billed once."""

    takes_failed: ClassVar[bool] = True

    def apply(self, row: Written) -> Written:
        return msgspec.structs.replace(row, lines=row.lines * 2)


class ThoughtsFirst(RowFault, frozen=True, kw_only=True, tag="thoughts_first"):
    """Put a thought before the answer: the first part is not the text that was asked for."""

    def apply(self, row: Written) -> Written:
        thought, tokens = {"text": "First, let me think about what is asked.", "thought": True}, 10
        usage = dict(_usage(row))
        usage["thoughtsTokenCount"] = usage.get("thoughtsTokenCount", 0) + tokens
        usage["totalTokenCount"] += tokens
        changed = _with_candidate(row, usage, content={"parts": [thought, *_parts(row)], "role": "model"})
        bill = msgspec.structs.replace(row.bill, thinking=row.bill.thinking + tokens)
        return msgspec.structs.replace(changed, bill=bill)


class InvalidJson(RowFault, frozen=True, kw_only=True, tag="invalid_json"):
    """End with STOP, but with a text that is not JSON."""

    text: str = '{"answer": "cut'

    def apply(self, row: Written) -> Written:
        return _with_candidate(row, content={"parts": [{"text": self.text}], "role": "model"})


class Empty(RowFault, frozen=True, kw_only=True, tag="empty"):
    """End with STOP and no parts."""

    def apply(self, row: Written) -> Written:
        return _with_candidate(row, content={"parts": [], "role": "model"})


class Parts(RowFault, frozen=True, kw_only=True, tag="parts"):
    """Say something in other parts than were asked for: by default code and its result, as in litellm#34802.

    :param parts: any, so that parts which don't exist yet can be tried. Thoughts alone where an image was asked for:
        CLIProxyAPI#4866; text alone: genkit#5859.
    """

    parts: tuple[dict[str, Any], ...] = (
        {"executableCode": {"code": "print(6 * 7)", "language": "PYTHON"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "42\n"}},
    )

    def apply(self, row: Written) -> Written:
        return _with_candidate(row, content={"parts": list(self.parts), "role": "model"})


class NoUsage(RowFault, frozen=True, kw_only=True, tag="no_usage"):
    """Leave out ``usageMetadata``, or only its total; billed all the same."""

    only_total: bool = False

    def apply(self, row: Written) -> Written:
        without_total = {name: value for name, value in _usage(row).items() if name != "totalTokenCount"}
        return _with_response(row, usageMetadata=without_total if self.only_total else None)


class Cached(RowFault, frozen=True, kw_only=True, tag="cached"):
    """Read a part of the prompt from a cache (``cachedContentTokenCount``), as implicit caching does.

    :param share: the part of the prompt's tokens, 0 to 1.
    """

    share: float = 0.5

    def apply(self, row: Written) -> Written:
        count = int(row.bill.prompt * self.share)
        details = [{"modality": "TEXT", "tokenCount": count}]
        usage = _usage(row) | {"cacheTokensDetails": details, "cachedContentTokenCount": count}
        bill = msgspec.structs.replace(row.bill, cached=count)
        return msgspec.structs.replace(_with_candidate(row, usage), bill=bill)


class ToolUse(RowFault, frozen=True, kw_only=True, tag="tool_use"):
    """Bill prompt tokens that a tool brought in (``toolUsePromptTokenCount``), which ``promptTokenCount`` leaves
    out; whether the total has them, the switch ``tool_total`` says.
    """

    tokens: int = 20

    def apply(self, row: Written) -> Written:
        usage = dict(_usage(row))
        usage["toolUsePromptTokenCount"] = self.tokens
        usage["toolUsePromptTokensDetails"] = [{"modality": "TEXT", "tokenCount": self.tokens}]
        bill = msgspec.structs.replace(row.bill, tool=self.tokens)
        return msgspec.structs.replace(_with_candidate(row, usage), bill=bill)


class Key(RowFault, frozen=True, kw_only=True, tag="key"):
    """Spoil the key of the row's line: leave it out, make it null, or make its digits a number (F1)."""

    takes_failed: ClassVar[bool] = True

    becomes: Literal["dropped", "null", "number"] = "dropped"

    def apply(self, row: Written) -> Written:
        return msgspec.structs.replace(row, lines=tuple(map(self._spoilt, row.lines)))

    def _spoilt(self, line: dict[str, Any]) -> dict[str, Any]:
        name = next((name for name in KEY_MEMBERS if line.get(name) is not None), None)
        if name is None:
            return line
        if self.becomes == "dropped":
            return {member: value for member, value in line.items() if member != name}
        digits = "".join(re.findall(r"\d", str(line[name]))) or "0"
        return line | {name: int(digits) if self.becomes == "number" else None}
