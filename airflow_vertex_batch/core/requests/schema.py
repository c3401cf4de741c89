"""What must an answer look like? One JSON Schema, in the service's spelling when it is sent.

`response_schema` turns a JSON Schema or a Pydantic class into the ``responseSchema`` of the API. The API's importer
refuses ``$`` names and empty objects. So references are inlined, and everything that the API cannot express is refused,
with its name. `core.requests.answer_check` checks the answers that come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.domain.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Members of the API's `Schema` that carry a meaning over from JSON Schema (API discovery document aiplatform.v1,
#: 2026-11-22).
_KEPT = frozenset({
    "description", "enum", "format", "required", "minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength",
    "pattern", "minProperties", "maxProperties", "propertyOrdering", "nullable",
})  # fmt: skip
#: Members that only describe. They are left out without a warning.
_DROPPED = frozenset(
    {
        "title",
        "$schema",
        "$id",
        "$comment",
        "$defs",
        "definitions",
        "default",
        "examples",
        "additionalProperties",
        "deprecated",
        "discriminator",
    }
)
#: Members that hold schemas by name, in a list, and 64-bit counts.
_MAPS = frozenset({"properties", "$defs", "definitions"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf"})
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_MAX_DEPTH = 12
#: What members of a JSON Schema are, where that is one thing.
_SHAPES: dict[str, tuple[type, ...]] = (
    dict.fromkeys(_MAPS, (dict,)) | dict.fromkeys([*_LISTS, "enum", "required"], (list, tuple)) | {"type": (str, list)}
)
#: What a node without a type must be, by a member that only such a node has.
_IMPLIED = {
    "properties": "OBJECT", "required": "OBJECT", "items": "ARRAY", "minItems": "ARRAY", "maxItems": "ARRAY",
    "enum": "STRING", "pattern": "STRING", "minLength": "STRING", "maxLength": "STRING",
}  # fmt: skip


def json_schema(schema: Any) -> dict[str, Any]:
    """Return the JSON Schema of a dict or a Pydantic model class.

    :raises InputError: for anything else.
    """
    if isinstance(schema, dict):
        return _standard(schema)  # type: ignore[no-any-return]
    if callable(make := getattr(schema, "model_json_schema", None)):
        return make()  # type: ignore[no-any-return]
    raise InputError(
        f"response_schema is a {type(schema).__name__}", todo="Give a JSON Schema as a dict, or a Pydantic model class"
    )


def _standard(node: Any) -> Any:
    """Change the API's own spelling (``"type": "STRING", "nullable": true``) to that of JSON Schema."""
    if not isinstance(node, dict):
        return node
    made = {name: _standard_member(name, value) for name, value in node.items() if name != "nullable"}
    if isinstance(kind := made.get("type"), str):
        made["type"] = [kind.lower(), "null"] if node.get("nullable") is True else kind.lower()
        if node.get("nullable") is True and isinstance(made.get("enum"), list) and None not in made["enum"]:
            made["enum"] = [*made["enum"], None]
    return made


def _standard_member(name: str, value: Any) -> Any:
    # Where names are the user's own, a property called "nullable" or "type" is no member of the schema.
    if name in _MAPS and isinstance(value, dict):
        return {key: _standard(sub) for key, sub in value.items()}
    if name in _LISTS and isinstance(value, list):
        return [_standard(sub) for sub in value]
    # The API writes 64-bit counts as texts.
    if name in _COUNTS and isinstance(value, str) and value.isdigit():
        return int(value)
    return _standard(value) if name == "items" else value


def response_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the API's ``responseSchema`` for a JSON Schema.

    :raises InputError: when it says what the API cannot: recursion, objects without properties, unknown members.
    """
    schema = _shaped(schema, "response_schema")
    definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    return _convert(schema, definitions, "response_schema", 0)


def _convert(node: Any, definitions: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise InputError(f"{path} is nested too deeply or refers to itself", why="The importer takes 15 levels in all")
    node = _shaped(node, path)
    if "$ref" in node:
        name = str(node["$ref"]).rpartition("/")[2]
        if name not in definitions:
            raise InputError(
                f"{path} refers to {node['$ref']!r}, which is not defined", todo="Define it under $defs of this schema"
            )
        meant = {**_shaped(definitions[name], f"$defs.{name}"), **{k: v for k, v in node.items() if k != "$ref"}}
        # A definition that is only another reference counts as a level, so that a circle of references ends.
        return _convert(meant, definitions, path, depth + ("$ref" in meant))
    made: dict[str, Any] = {}
    for name, value in node.items():
        _member(made, name, value, lambda sub, at: _convert(sub, definitions, f"{path}.{at}", depth + 1), path)
    return _typed(made, path)


def _shaped(node: Any, path: str) -> dict[str, Any]:
    """Return a node without members that are null. (A null as a constant stays.)

    :raises InputError: when it, or one of its members, is another thing than JSON Schema has there.
    """
    if not isinstance(node, dict):
        raise InputError(f"{path} is not an object", todo="Write a schema there")
    node = {name: value for name, value in node.items() if value is not None or name in {"const", "default"}}
    for name, kinds in _SHAPES.items():
        if name in node and not isinstance(node[name], kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise InputError(f"{path}.{name} is a {type(node[name]).__name__}", todo=f"Write a {wanted} there")
    return node  # type: ignore[no-any-return]


def _typed(made: dict[str, Any], path: str) -> dict[str, Any]:
    """Return a converted node with the type and the order of properties that the service wants to be told.

    :raises InputError: when its type is not known, or it is an object without properties.
    """
    if "type" not in made and "anyOf" not in made:
        if not (kind := next((_IMPLIED[name] for name in _IMPLIED if name in made), "")):
            raise InputError(
                f"{path} has no type",
                why="The service refuses every row whose schema has a node without a type",
                todo="Give it a type, such as string",
            )
        made = {"type": kind, **made}
    if made.get("type") == "OBJECT" and not made.get("properties"):
        raise InputError(
            f"{path} is an object without properties",
            why="The importer refuses empty objects",
            todo="Name its properties, or make it a string that holds JSON",
        )
    names = list(made.get("properties") or ())
    # Without it the service orders them by the alphabet: an answer would come before its reasoning. Google's own client
    # sends it too (google-genai 2.34.0, `_transformers.py`, 2026-11-28).
    return {**made, "propertyOrdering": names} if len(names) > 1 and "propertyOrdering" not in made else made


def _member(
    made: dict[str, Any], name: str, value: Any, convert: Callable[[Any, str], dict[str, Any]], path: str
) -> None:
    if name == "type":
        made.update(_type(value, path))
    elif name == "properties":
        made["properties"] = {key: convert(sub, key) for key, sub in value.items()}
    elif name == "items":
        made["items"] = convert(value, "items")
    elif name in {"anyOf", "oneOf", "allOf"}:
        made.update(_union(name, value, convert, path))
    elif name in {"const", "enum"}:
        made.update(_choices([value] if name == "const" else value, path))
    elif name in _KEPT:
        made[name] = value
    elif name not in _DROPPED:
        raise InputError(
            f"{path}.{name} cannot be said in responseSchema", todo=f"Leave {name!r} out and check it afterwards"
        )


def _choices(values: list[Any], path: str) -> dict[str, Any]:
    texts = [item for item in values if item is not None]
    if not all(isinstance(item, str) for item in texts):
        raise InputError(
            f"{path} is a choice of values that are no texts",
            why="responseSchema's enum holds texts only",
            todo="Make them texts, or bound a number with minimum and maximum",
        )
    made = {"type": "STRING", "enum": texts}
    return {**made, "nullable": True} if len(texts) < len(values) else made


def _type(value: Any, path: str) -> dict[str, Any]:
    names = [value] if isinstance(value, str) else list(value)
    plain = [name for name in names if str(name).lower() != "null"]
    if len(plain) != 1:
        raise InputError(f"{path}.type has {len(plain)} types", todo="Use anyOf for a choice of types")
    made = {"type": str(plain[0]).upper()}
    return {**made, "nullable": True} if len(plain) < len(names) else made


def _union(name: str, value: Any, convert: Callable[[Any, str], dict[str, Any]], path: str) -> dict[str, Any]:
    plain = [item for item in value if not (isinstance(item, dict) and item.get("type") == "null")]
    null = {"nullable": True} if len(plain) < len(value) else {}
    if len(plain) == 1:
        return {**convert(plain[0], f"{name}[0]"), **null}
    if name == "allOf":
        raise InputError(f"{path}.allOf cannot be said in responseSchema", todo="Merge its members into one schema")
    return {"anyOf": [convert(item, f"{name}[{i}]") for i, item in enumerate(plain)], **null}
