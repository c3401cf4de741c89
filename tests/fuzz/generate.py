"""What could stand in a request file? Files from any source of choices: hypothesis, a seed, or a fuzzer's bytes.

A file begins as valid requests; faults of the kinds the importer is known to refuse are put into some of them, and
bytes are broken here and there. Everything is drawn from a `Chooser`, so the same generator serves every driver.
"""

from __future__ import annotations

import copy
import json
from typing import Any, Protocol

from tests.core.lint_corpus import BAD
from tests.core.lint_corpus_good import GOOD, WARNED


class Chooser(Protocol):
    """The part of `random.Random` that the generator needs."""

    def randrange(self, stop: int, /) -> int:
        """Return a number below `stop`."""


#: One file is made of so many lines at most.
MOST_LINES = 6
_ROWS = [row for lines in GOOD.values() for row in lines if len(row) < 2_000]
_ROWS += [row for lines, _ in WARNED.values() for row in lines]
_BAD_ROWS = [row for lines, _ in BAD.values() for row in lines if len(row) < 2_000]
_SNIPPETS = [
    b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xef\xbb\xbf",
    b"\\u0000", b"\\ud800", b"null", b"{}", b"[]", b"[null]", b"[[1]]", b"1e999", b"NaN", b"-0", b'"key":"row-9",',
    b'"$a":1,', b'"a":{},', b" ", b"\t", b"\v", b'"},{"text":"', b'\\"', b'"tools":null,', b'"parts":null,',
    b"true", b"1", b'"x"', b'"status":"","response":{},',
]  # fmt: skip
#: Values that stand where others are expected.
_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 9, 0.5, 1e300, 2**31, 2**63, 2**64, "", "x", "7", "0.5", "NaN", "user", "000123",
    "2026-11-24", [], [None], [1], ["x"], ["x", 1], [[1]], [{}], [{"a": 1}], [{"a": 1}, {"a": "x"}], [{"text": "x"}],
    {}, {"a": 1}, {"a": None}, {"a": {}}, {"a": [None]}, {"text": "x"}, {"type": "STRING"}, {"parts": [{"text": "x"}]},
    {"functionDeclarations": [{"name": "f"}]}, {"type": ["STRING", "NULL"]}, {"$ref": "#/$defs/A"}, "gs://b/o",
]  # fmt: skip
_NAMES = [
    "a", "A", "b", "key", "text", "parts", "role", "contents", "request", "config", "tools", "enum", "required", "type",
    "items", "anyOf", "any_of", "properties", "propertyOrdering", "description", "nullable", "format", "default",
    "$ref", "$defs", "$schema", "defs", "definitions", "labels", "temperature", "topP", "top_p", "topK",
    "candidateCount", "maxOutputTokens", "stopSequences", "seed", "logprobs", "generationConfig", "generation_config",
    "thinking_config", "responseSchema", "response_schema", "responseJsonSchema", "responseMimeType",
    "systemInstruction", "safetySettings", "toolConfig", "cachedContent", "functionDeclarations", "functionCall",
    "functionResponse", "args", "response", "name", "parameters", "googleSearch", "urlContext", "fileData", "file_data",
    "fileUri", "mimeType", "inlineData", "data", "thought", "status", "processed_time", "additionalProperties",
    "my name", "1st", "größe", "_TABLE_x", "", "x" * 301, "modell", "allowedFunctionNames", "responseModalities",
    "type_", "id", "count", "meta",
]  # fmt: skip
#: Members with a range, and numbers at the edges of ranges.
_NUMBERS = [
    "temperature", "topP", "top_p", "topK", "candidateCount", "candidate_count", "maxOutputTokens", "logprobs",
    "presencePenalty", "frequencyPenalty", "seed",
]  # fmt: skip
_AMOUNTS = [
    -2.1,
    -2,
    -1,
    -0.1,
    0,
    0.5,
    1,
    1.1,
    2,
    2.1,
    8,
    9,
    20,
    21,
    41,
    65536,
    65537,
    2**31,
    "1",
    "9",
    "NaN",
    True,
    None,
]


def choose(chooser: Chooser, values: list[Any]) -> Any:
    """Return one of the values."""
    return values[chooser.randrange(len(values))]


def request_file(chooser: Chooser) -> bytes:
    """Return the bytes of one request file of up to `MOST_LINES` lines, most of them valid or nearly so."""
    # Lines of one template disagree less, and get further.
    rows = [choose(chooser, _ROWS)] if chooser.randrange(2) else _ROWS
    faults = choose(chooser, [[0], [0, 0, 0, 0, 1], [0, 0, 1, 1, 2]])
    rows = [_row(chooser, number, rows, faults) for number in range(1 + chooser.randrange(MOST_LINES))]
    data = b"".join(rows)
    kind = chooser.randrange(24)
    if kind == 0:
        data = b"\xef\xbb\xbf" + data
    elif kind == 1:
        data = data.replace(b"\n", b"\r\n")
    elif kind == 2:
        data = data[: chooser.randrange(len(data) + 1)]
    return data.removesuffix(b"\n") if kind == 3 else data


def _row(chooser: Chooser, number: int, rows: list[bytes], faults: list[int]) -> bytes:
    kind = chooser.randrange(24 if faults[-1] else 240)
    if kind == 0:
        return bytes(choose(chooser, [b"\n", b" \n", b"\r\n", b"[]\n", b"{}\n", b"null\n", b"x\n", b"\v\n"]))
    if kind == 1:
        return _terminated(choose(chooser, _BAD_ROWS))
    row = json.loads(choose(chooser, rows))
    if "key" in row:
        row["key"] = f"row-{number}"
    for _ in range(choose(chooser, faults)):
        _spoil(chooser, row)
    data = json.dumps(row, ensure_ascii=chooser.randrange(2) == 0).encode(errors="replace") + b"\n"
    return _terminated(_broken(chooser, data)) if kind == 2 else data


def _terminated(row: bytes) -> bytes:
    return row if row.endswith(b"\n") else row + b"\n"


def _broken(chooser: Chooser, row: bytes) -> bytes:
    start = chooser.randrange(len(row))
    return row[:start] + choose(chooser, _SNIPPETS) + row[start + chooser.randrange(4) :]


def _spoil(chooser: Chooser, row: dict[str, Any]) -> None:
    """Change one place of a line that may still be valid afterwards."""
    kind = chooser.randrange(12)
    if kind == 0:
        row[choose(chooser, _NAMES)] = _value(chooser)
    elif kind == 1:
        _call(row, _deep(chooser))
    elif kind == 2:
        _call(row, {choose(chooser, _NAMES): _value(chooser), "b": _value(chooser)})
    elif kind == 3:
        name = choose(chooser, ["responseSchema", "response_schema", "responseJsonSchema"])
        _request(row)["generationConfig"] = {"responseMimeType": "application/json", name: _schema(chooser, 0)}
    elif kind == 4:
        name = choose(chooser, ["parameters", "parametersJsonSchema", "response"])
        _request(row)["tools"] = [{"functionDeclarations": [{"name": "f", name: _schema(chooser, 0)}]}]
    elif kind == 5:
        _request(row)["generationConfig"] = {choose(chooser, _NUMBERS): choose(chooser, _AMOUNTS)}
    else:
        _move(chooser, row, kind)


def _move(chooser: Chooser, row: dict[str, Any], kind: int) -> None:
    """Rename, replace, remove or add one member or element, wherever it is."""
    places = [place for place in _places(row) if place]
    if not places:
        return
    place = choose(chooser, places)
    name = choose(chooser, list(place) if isinstance(place, dict) else list(range(len(place))))
    if kind == 6 and isinstance(place, dict):
        place[choose(chooser, _NAMES)] = place.pop(name)
    elif kind == 7 and isinstance(place, dict):
        place[choose(chooser, _NAMES)] = _value(chooser)
    elif kind == 8:
        del place[name]
    elif kind == 9 and isinstance(place, list):
        place.insert(name, _value(chooser))
    else:
        place[name] = _value(chooser)


def _value(chooser: Chooser) -> Any:
    return copy.deepcopy(choose(chooser, _VALUES))


def _request(row: dict[str, Any]) -> dict[str, Any]:
    found = row.get("request")
    return found if isinstance(found, dict) else row


def _call(row: dict[str, Any], args: Any) -> None:
    contents = _request(row).get("contents")
    if isinstance(contents, list):
        contents.append({"role": "model", "parts": [{"functionCall": {"name": "f", "args": args}}]})


def _deep(chooser: Chooser) -> Any:
    """Arguments whose innermost name is 14 to 17 levels deep; some levels are lists, which do not count."""
    value: Any = choose(chooser, ["x", ["x"], None, {}, []])
    for _ in range(9 + chooser.randrange(4)):
        value = {"a": [value] if isinstance(value, dict) and chooser.randrange(4) == 0 else value}
    return value


def _schema(chooser: Chooser, depth: int) -> Any:
    """A response schema, mostly valid."""
    kind = chooser.randrange(9) if depth < 6 else 0
    if kind < 3:
        made: dict[str, Any] = {"type": choose(chooser, ["STRING", "string", "NUMBER", "INTEGER"])}
    elif kind < 6:
        names = [choose(chooser, ["a", "b", "enum", "type", "A", "due date"]) for _ in range(1 + chooser.randrange(2))]
        made = {"type": "OBJECT", "properties": {name: _schema(chooser, depth + 1) for name in names}}
        made["required"] = list(made["properties"])
    elif kind == 6:
        made = {"type": "ARRAY", "items": _schema(chooser, depth + 1)}
    elif kind == 7:
        made = {"anyOf": [_schema(chooser, depth + 1), {"type": "STRING"}]}
    else:
        made = {"$ref": "#/$defs/A", "$defs": {"A": {"type": "STRING"}}}
    if chooser.randrange(8) == 0:
        made[choose(chooser, ["enum", "nullable", "default", "format", "title", "$id", "maxItems", "type"])] = _value(
            chooser
        )
    return made


def _places(value: Any) -> list[Any]:
    """Every object and list of a line, itself included."""
    found, pending = [], [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict | list):
            found.append(item)
            pending.extend(item.values() if isinstance(item, dict) else item)
    return found


#: Models of every family that a fact is about, in every way of naming one, and some that none is about.
MODELS = (
    "", "gemini-2.0-flash", "gemini-2.5-flash", "gemini-2.5-flash-lite-001", "gemini-2.5-flash-image",
    "gemini-2.5-pro-preview-06-05", "publishers/google/models/gemini-2.5-pro@default", "gemini-3-pro-preview",
    "gemini-3.1-pro-preview", "gemini-3.5-flash", "gemini-3.5-flash-lite", "gemini-3.7-flash", "gemini-3.8-flash",
    "gemini-4-argon", "gemini-4-carbon", "google/gemini-4-neon", "projects/p/locations/l/models/7",
)  # fmt: skip
_SETTINGS: dict[str, list[Any]] = {
    "presencePenalty": [0, 0.5, -2, "0", "0.5"], "frequency_penalty": [0.0, 1], "candidateCount": [1, 2, "2", 8],
    "responseLogprobs": [True, False], "temperature": [1], "topK": [40],
}  # fmt: skip
_BUDGETS = [-1, 0, 1, 127, 128, 511, 512, 24_576, 24_577, 32_768, 32_769, "0", "128", "70000", 0.0, None]
_LEVELS = ["MINIMAL", "minimal", "LOW", "Medium", "HIGH", "XHIGH", "THINKING_LEVEL_UNSPECIFIED", 1, None]


def settings_file(chooser: Chooser) -> bytes:
    """Return a file of good requests whose settings suit some models and not others."""
    rows = []
    for number in range(1 + chooser.randrange(MOST_LINES)):
        config: dict[str, Any] = {
            name: values[chooser.randrange(len(values))]
            for name, values in _SETTINGS.items()
            if chooser.randrange(4) == 0
        }
        thinking = [{}, {"thinkingBudget": _BUDGETS[chooser.randrange(len(_BUDGETS))]},
                    {"thinking_level": _LEVELS[chooser.randrange(len(_LEVELS))]}][chooser.randrange(3)]  # fmt: skip
        config |= {("thinkingConfig", "thinking_config")[number % 2]: thinking} if thinking else {}
        request = {"contents": [{"role": "user", "parts": [{"text": "x"}]}], "generationConfig": config or {"seed": 1}}
        rows.append(json.dumps({"key": f"r-{number}", "request": request}).encode() + b"\n")
    return b"".join(rows)
