"""How request lines are written down in the corpus: builders that differ from a good line in one place."""

from __future__ import annotations

import json
from typing import Any

Lines = list[bytes]

SEED = {
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "What is the relation between the following video and image samples?"},
                {
                    "fileData": {
                        "fileUri": "gs://cloud-samples-data/generative-ai/video/animals.mp4",
                        "mimeType": "video/mp4",
                    }
                },
                {
                    "fileData": {
                        "fileUri": "gs://cloud-samples-data/generative-ai/image/cricket.jpeg",
                        "mimeType": "image/jpeg",
                    }
                },
            ],
        }
    ],
    "generationConfig": {"temperature": 0.9, "topP": 1, "maxOutputTokens": 256},
}
HELLO = [{"role": "user", "parts": [{"text": "Hello"}]}]
MOOD = {"type": "OBJECT", "properties": {"mood": {"type": "STRING"}}, "required": ["mood"]}


def dump(value: Any) -> bytes:
    """Encode compactly, as most writers do, one line with its line end."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def line(request: Any = None, key: Any = "row-1", **siblings: Any) -> bytes:
    """Return a request line; `key` None leaves the key out."""
    body = {"contents": HELLO} if request is None else request
    return dump({**({} if key is None else {"key": key}), "request": body, **siblings})


def asks(key: str = "row-1", **members: Any) -> bytes:
    """Return a line whose request has further members."""
    return line({"contents": HELLO, **members}, key)


def says(*parts: Any, key: str = "row-1") -> bytes:
    """Return a line whose one content has these parts."""
    return line({"contents": [{"role": "user", "parts": list(parts)}]}, key)


def content(value: Any, key: str = "row-1") -> bytes:
    """Return a line with one content."""
    return line({"contents": [value]}, key)


def config(key: str = "row-1", **members: Any) -> bytes:
    """Return a line with a generationConfig."""
    return asks(key, generationConfig=members)


def schema(value: Any, key: str = "row-1") -> bytes:
    """Return a line with a response schema."""
    return config(key, responseMimeType="application/json", responseSchema=value)


def prop(value: Any, key: str = "row-1") -> bytes:
    """Return a line whose response schema has one property."""
    return schema({"type": "OBJECT", "properties": {"a": value}}, key)


def tool(*tools: Any, key: str = "row-1") -> bytes:
    """Return a line with tools."""
    return asks(key, tools=list(tools))


def calls(args: Any, key: str = "row-1") -> bytes:
    """Return a line whose history holds a function call: the place for free-form members."""
    return line(
        {"contents": [*HELLO, {"role": "model", "parts": [{"functionCall": {"name": "f", "args": args}}]}]}, key
    )


def deep(levels: int) -> Any:
    """Return objects nested that deep, with one text at the bottom."""
    return {"a": deep(levels - 1)} if levels > 1 else {"a": "x"}


def raw(text: str) -> bytes:
    """Return a line as it is written."""
    return text.encode() + b"\n"


def one(rule: str, *lines: bytes) -> tuple[Lines, set[tuple[int, str]]]:
    """Expect one finding, on the last of the lines."""
    return list(lines), {(len(lines), rule)}


def at(lines: Lines, *expected: tuple[int, str]) -> tuple[Lines, set[tuple[int, str]]]:
    """Expect these findings."""
    return lines, set(expected)


GOOD_LINE = line()
OTHER = line(key="row-2")


def function(parameters: Any, key: str = "row-1") -> bytes:
    """Return a line with a function of these parameters."""
    return tool({"functionDeclarations": [{"name": "f", "parameters": parameters}]}, key=key)
