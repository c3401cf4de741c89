"""How large are the requests of a batch? Characters, media and the limit of the answers, counted while they are
written.

Requests made from a template are counted by their texts. Ready-made requests are counted by their bytes: names and
punctuation of JSON count as characters, inline media do not. This counts a little too much, and takes next to no time.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.domain.manifest import Weight

if TYPE_CHECKING:
    from collections.abc import Iterable

_MIME = re.compile(rb'"mime_?[tT]ype":"([a-z]+)/')
_DATA = re.compile(rb'"data":"[^"\\]*"')
_MOST = re.compile(rb'"max_?[oO]utput_?[tT]okens":(\d+)')
_CANDIDATES = re.compile(rb'"candidate_?[cC]ount":(\d+)')
#: Bytes of UTF-8 that are not ASCII, and bytes that do not begin a character.
_NOT_ASCII, _NO_BEGIN = bytes(range(0x80, 0x100)), bytes(range(0x80, 0xC0))
_KINDS = frozenset({"image", "video", "audio"})
#: Members of a request that the model reads.
_READ = ("systemInstruction", "system_instruction", "tools")
_SCHEMAS = ("responseSchema", "responseJsonSchema", "response_schema", "response_json_schema")


def media_kind(mime: str) -> str:
    """Return ``image``, ``video``, ``audio`` or ``document`` for a MIME type."""
    kind = mime.partition("/")[0]
    return kind if kind in _KINDS else "document"


class WeightCounter:
    """Sums the weight of requests."""

    def __init__(self) -> None:
        self._ascii = self._other = self._most = 0
        self._media: Counter[str] = Counter()
        self._is_bounded = True

    @property
    def weight(self) -> Weight:
        """The weight of all requests so far together."""
        return Weight(
            ascii_chars=self._ascii,
            other_chars=self._other,
            media=dict(sorted(self._media.items())),
            max_output_tokens=self._most if self._is_bounded else 0,
        )

    def add_texts(self, texts: list[str]) -> None:
        """Add texts."""
        total = sum(map(len, texts))
        if all(map(str.isascii, texts)):
            self._ascii += total
            return
        plain = sum(len(text.encode("ascii", "ignore")) for text in texts)
        self._ascii += plain
        self._other += total - plain

    def add_media(self, mimes: Iterable[str]) -> None:
        """Add parts with media by their MIME types."""
        self._media.update(map(media_kind, mimes))

    def add_same(self, weight: Weight, count: int) -> None:
        """Add what is the same for `count` requests: see `constant_weight`."""
        self._ascii += weight.ascii_chars * count
        self._other += weight.other_chars * count
        self._bound(weight.max_output_tokens, count)

    def add_request(self, request: bytes) -> None:
        """Add one ready-made request by its bytes."""
        self._bound(_most_tokens(request), 1)
        if b'"mime' in request:
            self.add_media(kind.decode() for kind in _MIME.findall(request))
            request = _DATA.sub(b"", request)
        # Counted as bytes: as a text, one emoji would make a long line four times as large.
        plain = len(request) if request.isascii() else len(request.translate(None, _NOT_ASCII))
        self._ascii += plain
        self._other += len(request.translate(None, _NO_BEGIN)) - plain if plain < len(request) else 0

    def _bound(self, most: int, count: int) -> None:
        self._most += most * count
        self._is_bounded = self._is_bounded and (most > 0 or not count)


def constant_weight(members: dict[str, Any]) -> Weight:
    """Return the weight of a request's members apart from its contents, once."""
    config = members.get("generationConfig") or members.get("generation_config") or {}
    read = [members[name] for name in _READ if name in members]
    read += [config[name] for name in _SCHEMAS if name in config]
    counter = WeightCounter()
    counter.add_texts([encode(value).decode() for value in read])
    return msgspec.structs.replace(counter.weight, max_output_tokens=_most_tokens(encode(config)))


def _most_tokens(config: bytes) -> int:
    most, candidates = _MOST.search(config), _CANDIDATES.search(config)
    return int(most[1]) * int(candidates[1] if candidates else 1) if most else 0
