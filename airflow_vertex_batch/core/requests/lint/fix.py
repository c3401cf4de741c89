"""Which faults can be repaired without a change of meaning? `fix_line` repairs these, and only these.

Cured: byte order marks, CR LF and blank lines; keys without a letter in front; nulls; empty objects that the API treats
as absent; one object where a list is documented; in schemas references (inlined), ``$`` members, lists of types and
nulls that mean "nullable", Python's trailing underscores. The author must correct everything else.

Invariants: a line without a fault comes back byte for byte. Texts never change. Fixing a line twice gives the same as
fixing it once.
"""

from __future__ import annotations

from typing import Any

import msgspec

from airflow_vertex_batch.core.requests.lint.api import ANY, LIST, Type, camel, member_type, messages
from airflow_vertex_batch.core.requests.lint.lines import read_line, repeated_members
from airflow_vertex_batch.core.requests.lint.nodes import SCHEMA_LISTS
from airflow_vertex_batch.core.requests.lint.values import key_fault, member

KEY_PREFIX = "row-"
#: Messages for which "empty" means the same as "absent". This is not true for a tool or a part: there, an empty object
#: has a meaning.
_ABSENT_WHEN_EMPTY = {
    "GenerateContentRequest": {"generationConfig", "toolConfig", "labels", "systemInstruction", "modelArmorConfig"},
    "GenerationConfig": {"thinkingConfig", "imageConfig", "speechConfig", "routingConfig"},
    "ToolConfig": {"functionCallingConfig", "retrievalConfig"},
    "Part": {"videoMetadata", "mediaResolution"},
    "FunctionCall": {"args"},
    "FunctionDeclaration": {"parameters", "response"},
    "Schema": {"properties", "defs"},
}
#: A search that excludes a domain that cannot exist is the same search
#: (captured 2026-10-01: accepted, and the answer was grounded).
_SEARCH = {"excludeDomains": ["example.invalid"]}
#: Members of a schema that hold data, not schemas: left alone.
_DATA = frozenset({"enum", "const", "default", "example", "examples", "required", "propertyOrdering"})
_NAMED = frozenset({"properties", "$defs", "definitions", "defs", "patternProperties"})
#: Inlining can multiply: a schema that grows beyond this stays as it is.
_MAX_NODES = 5_000
#: Schemas of functions.
_OF_FUNCTIONS = frozenset({"parameters", "response"})
_BOM = b"\xef\xbb\xbf"


class _UnfixableError(Exception):
    """A schema that refers to itself, to nothing, or grows without end."""


def fix_line(raw: bytes) -> tuple[bytes, list[str]]:
    """Cure what can be cured without changing meaning.

    :param raw: one request line, with or without its line end.
    :return: the line, and what was done to it in words; the same bytes and no words when there was nothing to do. No
        bytes at all for a line that was blank.
    """
    made, notes = _bytes(raw)
    if not made.strip():
        return b"", ["removed the blank line"] if raw else []
    line, faults = read_line(made)
    if faults or not isinstance(line, dict) or any(True for _ in repeated_members(made)):
        return made, notes
    fixes = [*_key(line), *_request(line)]
    if not fixes:
        return made, notes
    try:
        encoded = msgspec.json.encode(line)
    except OverflowError:
        # A number of more than 64 bits: lint reports it, and nobody but its author can cure it.
        return made, notes
    return encoded + (b"\n" if made.endswith(b"\n") else b""), notes + fixes


def _bytes(raw: bytes) -> tuple[bytes, list[str]]:
    notes = []
    if raw.startswith(_BOM):
        while raw.startswith(_BOM):
            raw = raw[len(_BOM) :]
        notes.append("removed the byte order mark")
    if raw.endswith((b"\r\n", b"\r")):
        raw = raw.rstrip(b"\r\n") + (b"\n" if raw.endswith(b"\n") else b"")
        notes.append("wrote LF for CR LF")
    return raw, notes


def _key(line: dict[str, Any]) -> list[str]:
    key = line.get("key")
    if isinstance(key, int | float) and not isinstance(key, bool):
        line["key"] = f"{KEY_PREFIX}{key}"
    elif isinstance(key, str) and (fault := key_fault(key)) and fault[1] != "key-missing":
        line["key"] = f"{KEY_PREFIX}{key.strip()}"
    else:
        return []
    return [f"prefixed the key with {KEY_PREFIX}"]


def _request(line: dict[str, Any]) -> list[str]:
    notes: list[str] = []
    request = line.get("request")
    if isinstance(request, dict):
        _message(request, "GenerateContentRequest", "request", notes, may_vanish=False)
    return notes


def _message(obj: dict[str, Any], message: str, path: str, notes: list[str], *, may_vanish: bool) -> None:
    """Cure the members of one of the API's messages, in place.

    :param may_vanish: whether the message says the same empty as absent; if not, its only member stays even as a null.
    """
    for name in list(obj):
        kind = member_type(message, name)
        if kind is None:
            continue
        where = f"{path}.{name}"
        droppable = camel(name) in _ABSENT_WHEN_EMPTY.get(message, ()) and (may_vanish or len(obj) > 1)
        if obj[name] is None:
            if may_vanish or len(obj) > 1:
                del obj[name]
                notes.append(f"removed the null at {where}")
        elif kind.message == "Schema" or kind.is_json_schema:
            _replace_schema(obj, name, kind, where, notes)
        elif camel(name) == "googleSearch" and obj[name] == {}:
            obj[name] = dict(_SEARCH)
            notes.append(f"gave {where} a harmless member")
        else:
            obj[name] = _value(obj[name], kind, where, notes, may_vanish=droppable)
        if droppable and obj.get(name) == {}:
            del obj[name]
            notes.append(f"removed the empty {where}")


def _value(value: Any, kind: Type, path: str, notes: list[str], *, may_vanish: bool) -> Any:
    if isinstance(value, dict) and value and LIST in kind.kinds and kind.message:
        notes.append(f"wrote {path} as a list")
        value = [value]
    if isinstance(value, list):
        return [
            _value(item, kind.inner or ANY, f"{path}[{index}]", notes, may_vanish=False)
            for index, item in enumerate(value)
        ]
    if isinstance(value, dict) and kind.message in messages():
        _message(value, kind.message, path, notes, may_vanish=may_vanish)
    return value


def _replace_schema(owner: dict[str, Any], name: str, kind: Type, path: str, notes: list[str]) -> None:
    schema = owner[name]
    if not isinstance(schema, dict):
        return
    try:
        made = _Schema(schema, is_api=not kind.is_json_schema, is_function=name in _OF_FUNCTIONS).fixed()
    except (_UnfixableError, RecursionError):
        return
    if made != schema:
        owner[name] = made
        notes.append(f"rewrote the schema at {path} without references, $ members, empty objects or nulls")
    if name == "parameters" and made.keys() == {"type"} and member(owner, "name"):
        # The API's own advice for a function without parameters.
        del owner[name]
        notes.append(f"removed the parameters without properties at {path}")


class _Schema:
    """One schema, rewritten.

    :param schema: the schema's root, where its definitions are.
    :param is_api: whether it is the API's Schema, or a JSON Schema, where only ``$`` names are in the way.
    :param is_function: whether it belongs to a function, where a choice may have no company.
    """

    def __init__(self, schema: dict[str, Any], *, is_api: bool, is_function: bool = False) -> None:
        self._root = schema
        self._is_api, self._is_function = is_api, is_api and is_function
        self._nodes = 0

    def fixed(self) -> dict[str, Any]:
        """Return the rewritten schema.

        :raises _UnfixableError: when a reference cannot be inlined.
        """
        made: dict[str, Any] = self._node(self._root, ())
        return made

    def _node(self, node: Any, open_: tuple[str, ...]) -> Any:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise _UnfixableError
        if isinstance(node, list):
            return [self._node(item, open_) for item in node]
        if not isinstance(node, dict):
            return node
        if isinstance(ref := node.get("$ref"), str):
            if ref in open_:
                raise _UnfixableError
            rest = {name: value for name, value in node.items() if name != "$ref"}
            return self._node({**self._target(ref), **rest}, (*open_, ref))
        made: dict[str, Any] = {}
        for name, value in node.items():
            self._member(made, name, value, open_)
        if node and not made:
            # Nothing but $ members or nulls: what is left cannot be stored.
            raise _UnfixableError
        return self._api(made, is_root=node is self._root) if self._is_api else made

    def _member(self, made: dict[str, Any], name: str, value: Any, open_: tuple[str, ...]) -> None:
        if name.startswith("$") or name == "definitions":
            return
        if self._is_api:
            if value is None and name not in _DATA - SCHEMA_LISTS:
                return
            bare = name.rstrip("_")
            if bare != name and member_type("Schema", bare):
                name = bare
        elif value is None and name in SCHEMA_LISTS:
            return
        if name in _NAMED and isinstance(value, dict):
            value = {key: self._node(sub, open_) for key, sub in value.items()}
            if not value and self._is_api:
                return
        elif name not in _DATA:
            value = self._node(value, open_)
        made[name] = value

    def _api(self, made: dict[str, Any], *, is_root: bool) -> dict[str, Any]:
        """Say a node in the API's way.

        :raises _UnfixableError: when it is an object without properties, which only a function may drop.
        """
        made = self._nullable(made)
        if str(made.get("type", "")).upper() == "OBJECT" and "properties" not in made and not is_root:
            raise _UnfixableError
        return _alone(made) if self._is_function else made

    def _nullable(self, made: dict[str, Any]) -> dict[str, Any]:
        """Say in the API's way what JSON Schema says with a null."""
        kinds = made.get("type")
        if isinstance(kinds, list):
            plain = [kind for kind in kinds if not (isinstance(kind, str) and kind.lower() == "null")]
            if len(plain) == 1 and isinstance(plain[0], str):
                made["type"] = plain[0]
                if len(kinds) > 1:
                    made["nullable"] = True
        words = made.get("enum")
        if isinstance(words, list) and None in words:
            made["enum"] = [word for word in words if word is not None]
            made["nullable"] = True
        return made

    def _target(self, ref: str) -> dict[str, Any]:
        found: Any = self._root
        for name in ref.removeprefix("#/").split("/"):
            found = found.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        if not ref.startswith("#/") or not isinstance(found, dict):
            raise _UnfixableError
        return found


def _alone(node: dict[str, Any]) -> dict[str, Any]:
    """Move what stands beside a choice into each of its members; a choice of one type or null becomes that type."""
    choices = node.get("anyOf")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return node
    others = {name: value for name, value in node.items() if name not in {"anyOf", "type"}}
    plain = [choice for choice in choices if str(choice.get("type", "")).upper() != "NULL"]
    if not plain or (not others and len(node) == 1 and len(plain) == len(choices)):
        return node
    if len(plain) < len(choices):
        others["nullable"] = True
    # A member may be a choice itself, beside which the others would stand now.
    made = [_alone({**others, **choice}) for choice in plain]
    return made[0] if len(made) == 1 else {"anyOf": made}
