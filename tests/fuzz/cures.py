"""Does `fix_line` keep its promises? Fixing twice is fixing once, no error is added, and the request asks the same.

`meaning` brings a request into one form in which what the API takes for the same is the same: written apart from
`core.requests.lint.fix`, so that each checks the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from airflow_vertex_batch.core.requests.lint import fix_line
from tests.fuzz.differential import lint

#: Members that hold lists; one object in place of a list of one is the same.
_LISTS = {"contents", "parts", "tools", "safetySettings", "functionDeclarations", "responseFormat"}
#: Members that say nothing when they are empty.
_SILENT = {
    "generationConfig", "toolConfig", "labels", "systemInstruction", "modelArmorConfig", "thinkingConfig",
    "imageConfig", "speechConfig", "routingConfig", "functionCallingConfig", "retrievalConfig", "videoMetadata",
    "mediaResolution", "args", "parameters", "response", "properties", "defs",
}  # fmt: skip
_SCHEMAS = {"responseSchema", "responseJsonSchema", "parameters", "parametersJsonSchema", "schema"}
#: Whose values are the caller's own.
_FREE = {"args", "labels", "customConfigs"}
_DATA = {"default", "example", "const", "examples"}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


def meaning(value: Any) -> Any:
    """Return a request in the one form of all requests that ask the same."""
    if isinstance(value, list):
        return [meaning(item) for item in value]
    if not isinstance(value, dict):
        return value
    made: dict[str, Any] = {}
    for raw, item in value.items():
        name = _camel(raw)
        if item is None:
            continue
        if name in _FREE or (name == "response" and not _is_schema(item)):
            said = item
        elif name in _SCHEMAS or name == "response":
            said = _schema(item, item, ())
            said = {} if name == "parameters" and isinstance(said, dict) and said.keys() == {"type"} else said
        else:
            said = meaning([item] if name in _LISTS and isinstance(item, dict) and item else item)
        if name == "googleSearch" and said == {}:
            said = {"excludeDomains": ["example.invalid"]}
        if said != {} or name not in _SILENT:
            made[raw] = said
    return made


def _is_schema(value: Any) -> bool:
    known = {"type", "properties", "anyOf", "any_of", "items"}
    return isinstance(value, dict) and any(name in known or name.startswith("$") for name in value)


def _schema(node: Any, root: Any, within: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_schema(item, root, within) for item in node]
    if not isinstance(node, dict):
        return node
    ref = node.get("$ref")
    target = _target(ref, root) if isinstance(ref, str) and ref not in within else None
    if target is not None:
        return _schema(
            {**target, **{name: item for name, item in node.items() if name != "$ref"}}, root, (*within, ref)
        )
    made: dict[str, Any] = {}
    for raw, item in node.items():
        name = raw.rstrip("_") or raw
        if raw.startswith("$") or raw == "definitions" or (item is None and name not in _DATA):
            continue
        said = item if name in _DATA | {"enum"} else _schema(item, root, within)
        if name in {"properties", "defs", "patternProperties"} and isinstance(item, dict):
            said = {key: _schema(sub, root, within) for key, sub in item.items()}
        if said != {} or name not in _SILENT:
            made[name] = said
    return _apart(_nullable(made))


def _apart(made: dict[str, Any]) -> dict[str, Any]:
    """Return a choice with what stands beside it in each of its members: said there, it means the same."""
    choices = made.get("anyOf")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        return made
    beside = {name: item for name, item in made.items() if name not in {"anyOf", "type"}}
    plain = [choice for choice in choices if str(choice.get("type", "")).lower() != "null"]
    if len(plain) < len(choices):
        beside["nullable"] = True
    said = [_apart({**beside, **choice}) for choice in plain]
    return said[0] if len(said) == 1 else {"anyOf": said}


def _nullable(made: dict[str, Any]) -> dict[str, Any]:
    kinds, words = made.get("type"), made.get("enum")
    if isinstance(kinds, list):
        plain = [kind for kind in kinds if not (isinstance(kind, str) and kind.lower() == "null")]
        if len(plain) == 1 and isinstance(plain[0], str):
            made["type"] = plain[0]
            made |= {"nullable": True} if len(kinds) > 1 else {}
    if isinstance(words, list) and None in words:
        made["enum"] = [word for word in words if word is not None]
        made["nullable"] = True
    return made


def _target(ref: str, root: Any) -> dict[str, Any] | None:
    found = root
    for name in ref.removeprefix("#/").split("/"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) and ref.startswith("#/") else None


def broken_promises(raw: bytes) -> Iterator[str]:
    """Yield the promises that `fix_line` does not keep for one line."""
    fixed, notes = fix_line(raw)
    if fix_line(fixed) != (fixed, []):
        yield "fixing twice is not fixing once"
    if (fixed == raw) != (not notes):
        yield "what was done and what was said differ"
    faults = _errors(raw)
    # A definition that is inlined comes into view, and what is wrong with it: only a line that had an error may.
    added = _errors(fixed) - faults - ({"no-requests"} if not fixed else set())
    if added and (not faults or "empty-object" in added):
        yield f"fixing added {', '.join(sorted(added))}"
    try:
        before, after = json.loads(raw.strip(b"\xef\xbb\xbf")), json.loads(fixed)
    except (ValueError, RecursionError):
        return
    if isinstance(before, dict) and isinstance(before.get("request"), dict):
        yield from _changes(before, after)


def _errors(row: bytes) -> set[str]:
    return {finding.rule for finding in lint(row) if finding.severity == "error"}


def _changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    if meaning(before.pop("request")) != meaning(after.pop("request")):
        yield "the request says something else"
    key, kept = before.pop("key", None), after.pop("key", None)
    if kept != key and kept != f"row-{str(key).strip()}":
        yield "the key is another"
    if before != after:
        yield "a column is another"
