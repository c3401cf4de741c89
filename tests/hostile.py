"""What may a line of a batch output hold? Lines that were damaged, or meant to do damage; always the same."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

from tests.builders import a_failed_output, a_request, an_output

if TYPE_CHECKING:
    from collections.abc import Callable

#: Deeper than any decoder follows.
DEEP = 20_000
_MEMBERS = (
    "key", "status", "processed_time", "request", "response", "candidates", "content", "parts", "text", "finishReason",
    "usageMetadata", "promptTokenCount", "totalTokenCount", "modelVersion", "generationConfig", "contents",
)  # fmt: skip
#: Values as they stand in JSON.
_VALUES = (
    "null", "true", "0", "-1", "1.5", '""', '"x"', "[]", "{}", "[[]]", '{"a":1}', "9" * 400, "9" * 5_000, str(2**63),
    str(2**64), "-" + str(2**70), "1e400", "-1e400", "1e-400", "NaN", "Infinity", r'"\ud800"', r'"\udc00 \ud800"',
    r'"\u0000"', '"\0"', '"\xff"', '"9999-12-31T23:59:59-14:00"', '"0001-01-01T00:00:00+14:00"',
    '"2026-11-22T03:04:05.123456789Z"', '"2026-11-22T24:00:00Z"', '"Bad Request: {\\"error\\": {\\"code\\": 1e999}}"',
    '"Bad Request: {\\"error\\": {\\"message\\": ' + "9" * 5_000 + '}}"',
    '"' + "{" * 1_000 + '"', '"' + "x" * 5_000 + '"',
)  # fmt: skip
_JUNK = (b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\0" * 512, b"<html>", b"}", b"]", b'"', b"\\", b",", b"\x1b[2J", b"\r")


def hostile_lines(seed: int, keys: list[str]) -> list[bytes]:
    """Return one line for each key, line end included."""
    random = Random(seed)
    return [random.choice(_DAMAGES)(random, key).replace(b"\n", b" ") + b"\n" for key in keys]


def hostile_rows(seed: int, keys: list[str]) -> list[dict[str, Any]]:
    """Return one row of an output table for each key, as BigQuery's client hands them out."""
    return [_table_row(key, raw) for key, raw in zip(keys, hostile_lines(seed, keys), strict=True)]


def _table_row(key: str, raw: bytes) -> dict[str, Any]:
    """Put what a line holds into columns; what is no JSON becomes the text of one."""
    text = raw.decode("utf-8", "replace").strip()
    try:
        doc = json.loads(text)
    except (ValueError, RecursionError):
        doc = None
    columns = doc if isinstance(doc, dict) else {"response": text}
    return {"key": key, "status": "", "request": json.dumps(_request(key)), "response": None, **columns} | {"key": key}


def _request(key: str) -> dict[str, Any]:
    return a_request(f"question {key}")


def _line(key: str) -> dict[str, Any]:
    return an_output(key, text=f"answer {key}", request=_request(key))


def _odd_member(random: Random, key: str) -> bytes:
    """Put an odd value at some member."""
    doc, name = _line(key), random.choice(_MEMBERS)
    raw = json.dumps(_with(doc, name, "@@"))
    return raw.replace('"@@"', random.choice(_VALUES)).encode("latin-1", "replace")


def _with(value: Any, name: str, put: str) -> Any:
    if isinstance(value, dict):
        return {item: put if item == name else _with(inner, name, put) for item, inner in value.items()}
    return [_with(item, name, put) for item in value] if isinstance(value, list) else value


def _odd_tokens(random: Random, key: str) -> bytes:
    doc = _line(key)
    names = ("promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount")
    doc["response"]["usageMetadata"][random.choice(names)] = random.choice(
        [10**400, 2**63, 2**64, -(2**70), "9" * 400, 1e300, str(2**63), {"a": 1}, 2**62]
    )
    return json.dumps(doc).encode()


def _deep(random: Random, key: str) -> bytes:
    levels = random.choice([150, 210, 600, 2_000, DEEP])
    deep = random.choice(["[" * levels + "]" * levels, '{"a":' * levels + "1" + "}" * levels, "[" * levels])
    place = random.choice(["request", "response", "extra", "status", "key"])
    if place == "response":
        return (
            json.dumps(_line(key) | {"response": {**_line(key)["response"], "deep": "@@"}})
            .replace('"@@"', deep)
            .encode()
        )
    return json.dumps(_line(key) | {place: "@@"}).replace('"@@"', deep).encode()


def _deep_answer(random: Random, key: str) -> bytes:
    levels = random.choice([150, 210, 600, DEEP])
    config = {"generationConfig": {"responseMimeType": "application/json"}}
    answer = random.choice(
        ["[" * levels + "]" * levels, "9" * 30, "9" * 400, "[1e400]", f'{{"a": {2**64}}}', "9" * 5_000]
    )
    return json.dumps(an_output(key, text=answer, request=_request(key) | config)).encode()


def _junk(random: Random, key: str) -> bytes:
    """Put junk somewhere, or cut."""
    raw = json.dumps(random.choice([_line(key), a_failed_output(key, request=_request(key))])).encode()
    at = random.choice([0, len(raw), random.randrange(len(raw))])
    return raw[:at] + random.choice(_JUNK) + raw[at + random.choice([0, 0, 1, len(raw)]) :]


def _twice(random: Random, key: str) -> bytes:
    """Repeat a member."""
    raw = json.dumps(_line(key))
    name = random.choice(["key", "status", "response", "request", "processed_time"])
    return (raw[:-1] + f', "{name}": {random.choice(_VALUES)}}}').encode("latin-1", "replace")


def _no_line(random: Random, key: str) -> bytes:
    """Return something that never was a line; blank lines are no lines."""
    return random.choice(
        [b"null", b"[]", b"12", b'"r1"', b"{}", b"", b"\0" * 4_096, b"{" * DEEP, bytes(range(32, 256))]
    )


def _whole(random: Random, key: str) -> bytes:
    return json.dumps(_line(key)).encode()


_DAMAGES: tuple[Callable[[Random, str], bytes], ...] = (
    _odd_member, _odd_member, _odd_tokens, _deep, _deep_answer, _junk, _junk, _twice, _no_line, _whole,
)  # fmt: skip
