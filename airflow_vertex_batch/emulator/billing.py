"""What did each row cost, and what did they cost together? The emulator's own account, for tests to compare with.

Invariants: one `Bill` per request; only answered rows carry tokens; accounts add up in any order.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Bill(msgspec.Struct, frozen=True, omit_defaults=True):
    """The price of one request in tokens. ``copied`` rows came from an earlier output and cost nothing.

    :param key: the request's key as it was sent, empty when it had none.
    :param outcome: ``unanswered`` for rows that their job did not get to before it ended.
    :param prompt: tokens read, `cached` and `audio` included, `tool` not.
    :param cached: the part of `prompt` read from a cache.
    :param tool: prompt tokens that came from tools.
    :param audio: the part of `prompt` that was audio.
    """

    key: str = ""
    outcome: Literal["answered", "failed", "missing", "copied", "unanswered"] = "answered"
    prompt: int = 0
    output: int = 0
    thinking: int = 0
    cached: int = 0
    tool: int = 0
    audio: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the row as the books print it, zeros included."""
        return msgspec.structs.asdict(self)


class Written(msgspec.Struct, frozen=True):
    """What one request came to: its output lines (usually one) and its bill."""

    lines: tuple[dict[str, Any], ...]
    bill: Bill


class Account(msgspec.Struct, omit_defaults=True):
    """The bills of one job together. The one mutable value here: it only ever grows."""

    answered: int = 0
    failed: int = 0
    missing: int = 0
    copied: int = 0
    prompt: int = 0
    output: int = 0
    thinking: int = 0
    cached: int = 0
    tool: int = 0
    audio: int = 0

    def add(self, bill: Bill) -> None:
        """Add one row that was done."""
        setattr(self, bill.outcome, getattr(self, bill.outcome) + 1)
        self.prompt += bill.prompt
        self.output += bill.output
        self.thinking += bill.thinking
        self.cached += bill.cached
        self.tool += bill.tool
        self.audio += bill.audio

    @property
    def row_count(self) -> int:
        """The number of rows that are done, with any result."""
        return self.answered + self.failed + self.missing + self.copied

    @property
    def successful_count(self) -> int:
        """What ``completionStats.successfulCount`` says."""
        return self.answered + self.copied

    def as_dict(self) -> dict[str, Any]:
        """Return the account as the books print it; cached and audio tokens are parts of the prompt's."""
        parts = {"cached": self.cached, "audio": self.audio}
        tokens = {"prompt": self.prompt, "output": self.output, "thinking": self.thinking, "tool": self.tool}
        return {
            "rows": {"answered": self.answered, "failed": self.failed, "missing": self.missing, "copied": self.copied},
            "billedRows": self.answered,
            "tokens": tokens | parts | {"total": sum(tokens.values())},
        }
