"""What does an answer look like that fits a response schema? A value for a schema, and one dialect for all of them.

Gemini takes schemas in two dialects: ``responseSchema`` (OpenAPI-like: upper-case types, ``nullable``) and
``responseJsonSchema`` (JSON Schema). `json_schema` turns the first into the second; `fill` makes a value for the
second.

Invariants: the same schema, words and seed give the same value; recursion ends, because optional members are left out
beyond `MAX_DEPTH`.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Below this depth only required members and the fewest items are made, so that recursive schemas end.
MAX_DEPTH = 6

_FORMATS = {
    "date": "2026-11-22",
    "date-time": "2026-11-22T08:00:00Z",
    "time": "08:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
#: Members of the OpenAPI-like dialect that JSON Schema does not know or takes otherwise.
_DROPPED = frozenset({"nullable", "propertyOrdering", "example", "type"})


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI-like schema (``STRING``, ``nullable``) as JSON Schema."""
    made: dict[str, Any] = {}
    if isinstance(kind := schema.get("type"), str):
        lowered = kind.lower()
        made["type"] = [lowered, "null"] if schema.get("nullable") else lowered
    for name, value in schema.items():
        if name in _DROPPED:
            continue
        made[name] = _translated(name, value)
    if schema.get("nullable") and "enum" in made:
        made["enum"] = [*made["enum"], None]
    return made


def _translated(name: str, value: Any) -> Any:
    if name in {"items", "additionalProperties"} and isinstance(value, dict):
        return json_schema(value)
    if name == "anyOf" and isinstance(value, list):
        return [json_schema(inner) for inner in value]
    if name == "properties" and isinstance(value, dict):
        return {key: json_schema(inner) for key, inner in value.items()}
    # The wire carries these int64 members as text or number.
    if name.startswith(("min", "max")) and isinstance(value, str):
        return float(value) if "." in value else int(value)
    return value


def fill(schema: Mapping[str, Any], words: Sequence[str], seed: str) -> Any:
    """Return a value that fits a JSON Schema.

    :param words: what texts are made of; an enum value among them is preferred.
    :param seed: decides whatever the schema leaves open.
    """
    return _Filler(schema, words).value(schema, (seed,))


class _Filler:
    def __init__(self, root: Mapping[str, Any], words: Sequence[str]) -> None:
        self._root, self._words = root, list(words) or ["nothing"]
        self._known = {word.lower() for word in self._words}

    def value(self, schema: Any, path: tuple[str, ...]) -> Any:  # noqa: PLR0911 - one line per type
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._choice(schema["enum"], path)
        for union in ("anyOf", "oneOf"):
            if options := [option for option in schema.get(union, []) if self._resolved(option).get("type") != "null"]:
                return self.value(options[self._pick(len(options), path) if len(path) <= MAX_DEPTH else 0], path)
        match self._kind(schema):
            case "object":
                return self._object(schema, path)
            case "array":
                return self._array(schema, path)
            case "string":
                return self._string(schema, path)
            case "integer" | "number" as kind:
                return self._number(schema, path, whole=kind == "integer")
            case "boolean":
                return self._pick(2, path) == 1
        return None

    def _resolved(self, schema: Any) -> dict[str, Any]:
        if not isinstance(schema, dict):
            return {"type": "string"} if schema is not False else {}
        if isinstance(reference := schema.get("$ref"), str):
            target: Any = self._root
            for step in reference.removeprefix("#").strip("/").split("/") if reference != "#" else []:
                target = target.get(step, {}) if isinstance(target, dict) else {}
            return self._resolved(target)
        merged: dict[str, Any] = dict(schema)
        for part in schema.get("allOf", []):
            inner = self._resolved(part)
            merged = {**inner, **merged, "properties": {**inner.get("properties", {}), **merged.get("properties", {})},
                      "required": [*inner.get("required", []), *merged.get("required", [])]}  # fmt: skip
        return merged

    @staticmethod
    def _kind(schema: dict[str, Any]) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "null")
        if kind is None:
            kind = "object" if schema.get("properties") else "array" if "items" in schema else "string"
        return str(kind)

    def _object(self, schema: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        wanted = properties if len(path) <= MAX_DEPTH else [name for name in properties if name in required]
        made = {name: self.value(properties[name], (*path, name)) for name in wanted}
        made |= {name: self.value(True, (*path, name)) for name in required if name not in made}
        for index in range(len(made), int(schema.get("minProperties", 0))):
            made[f"member{index}"] = self.value(schema.get("additionalProperties", True), (*path, str(index)))
        return made

    def _array(self, schema: dict[str, Any], path: tuple[str, ...]) -> list[Any]:
        low = int(schema.get("minItems", 0))
        count = max(low, min(int(schema.get("maxItems", 2)), 1 + self._pick(2, path)) if len(path) <= MAX_DEPTH else 0)
        prefix = schema.get("prefixItems", [])
        kinds = [*prefix, *([schema.get("items", True)] * (count - len(prefix)))]
        items: list[Any] = []
        for index, kind in enumerate(kinds):
            item = self.value(kind, (*path, str(index)))
            # A second try with another seed is enough for the enums and numbers that unique lists are made of.
            tries = (self.value(kind, (*path, str(index), str(attempt))) for attempt in range(20))
            items.append(
                next((one for one in tries if one not in items), item)
                if schema.get("uniqueItems") and item in items
                else item
            )
        return items

    def _string(self, schema: dict[str, Any], path: tuple[str, ...]) -> str:
        text = _FORMATS.get(str(schema.get("format")), "")
        if not text:
            start = self._pick(max(1, len(self._words) - 5), path)
            text = " ".join(self._words[start : start + 6])
        low, high = int(schema.get("minLength", 0)), schema.get("maxLength")
        text = text + " and so on" * math.ceil(max(0, low - len(text)) / 10)
        return text if high is None else text[: int(high)]

    def _number(self, schema: dict[str, Any], path: tuple[str, ...], *, whole: bool) -> float:
        step = float(schema.get("multipleOf", 1 if whole else 0.01))
        low, high = self._bounds(schema, step)
        steps = min(math.floor((high - low) / step + 1e-9), 10**6)
        value = low + step * (self._pick(steps + 1, path) if steps > 0 else 0)
        return int(value) if whole else round(value, 6)

    @staticmethod
    def _bounds(schema: dict[str, Any], step: float) -> tuple[float, float]:
        low, high = schema.get("minimum"), schema.get("maximum")
        if (above := schema.get("exclusiveMinimum")) is not None:
            low = float(above) + step
        if (below := schema.get("exclusiveMaximum")) is not None:
            high = float(below) - step
        if low is None:
            low = 0.0 if high is None else min(0.0, float(high))
        low = math.ceil(float(low) / step - 1e-9) * step
        return low, float(high) if high is not None else low + 100 * step

    def _choice(self, options: list[Any], path: tuple[str, ...]) -> Any:
        named = [option for option in options if str(option).lower() in self._known]
        options = named or [option for option in options if option is not None] or options
        return options[self._pick(len(options), path)]

    def _pick(self, count: int, path: tuple[str, ...]) -> int:
        digest = hashlib.blake2b("/".join(path).encode(), digest_size=8).digest()
        return int.from_bytes(digest) % count
