"""Do the members of one object fit each other? Pure checks of whole messages, without memory of other lines.

`object_check` gives the check for a message. Faults have the form of those in `values`. Some objects are refused
although each member is right by itself. These rules come from reports of the service's users, named beside the checks
(2026-11-28). Such a fault is the same on every line of a batch, so every row fails, after hours in the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from airflow_vertex_batch.core.requests.lint.api import camel, messages
from airflow_vertex_batch.core.requests.lint.values import Fault, member, suggestion

ObjectCheck = Callable[[dict[str, Any]], Iterator[Fault]]

#: The union of a part: exactly one of these may be set.
_PART_UNION = frozenset({
    "text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult",
})  # fmt: skip
_ROLE_HINTS = {
    "assistant": 'Write "model"', "ai": 'Write "model"', "human": 'Write "user"', "function": 'Write "user"',
    "tool": 'Write "user"', "system": "Move it to systemInstruction", "developer": "Move it to systemInstruction",
}  # fmt: skip
_LABEL_COUNT = 64
#: Members of a schema that belong to one type of value. `enum` and `format` belong to several.
_OF_TYPE = {
    "properties": "OBJECT", "required": "OBJECT", "propertyOrdering": "OBJECT", "minProperties": "OBJECT",
    "maxProperties": "OBJECT", "items": "ARRAY", "minItems": "ARRAY", "maxItems": "ARRAY",
}  # fmt: skip


def _request(obj: dict[str, Any]) -> Iterator[Fault]:
    if _is_nothing(member(obj, "contents")):
        yield ("", "no-contents", "the request has no contents", "")
    yield from _functions(obj)
    labels = member(obj, "labels")
    if isinstance(labels, dict) and len(labels) > _LABEL_COUNT:
        yield (".labels", "label", f"{len(labels)} labels, {_LABEL_COUNT} are allowed", "")


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(item is None for item in value))


def _content(obj: dict[str, Any]) -> Iterator[Fault]:
    role = obj.get("role")
    if role is None:
        yield ("", "role-missing", "the content has no role", "")
    elif isinstance(role, str) and role not in {"user", "model"}:
        yield (".role", "role", "neither user nor model", _ROLE_HINTS.get(role.lower(), ""))
    yield from _instruction(obj)


def _instruction(obj: dict[str, Any]) -> Iterator[Fault]:
    if _is_nothing(obj.get("parts")):
        yield ("", "no-parts", "the content has no parts", "")


def _part(obj: dict[str, Any]) -> Iterator[Fault]:
    filled = [camel(name) for name, value in obj.items() if value is not None]
    union = [name for name in filled if name in _PART_UNION]
    if len(union) > 1:
        yield ("", "part-union", f"the part holds {' and '.join(union)}", "")
    elif union == ["text"]:
        # A model's turn may carry its signature beside an empty text.
        if obj["text"] == "" and "thoughtSignature" not in filled:
            yield (".text", "empty-part", "the text is empty", "")
    elif not union and "audioTranscription" not in filled and messages()["Part"].keys() >= {*filled}:
        yield ("", "empty-part", "the part has neither text nor data", "")


def _file_data(obj: dict[str, Any]) -> Iterator[Fault]:
    if not member(obj, "fileUri"):
        yield ("", "no-file-uri", "fileData has no fileUri", "")
    if not member(obj, "mimeType"):
        yield ("", "no-mime-type", "fileData has no mimeType", "")


def _blob(obj: dict[str, Any]) -> Iterator[Fault]:
    if not member(obj, "data"):
        yield ("", "no-data", "inlineData has no data", "")
    if not member(obj, "mimeType"):
        yield ("", "no-mime-type", "inlineData has no mimeType", "")


def _generation_config(obj: dict[str, Any]) -> Iterator[Fault]:
    schemas = [name for name in ("responseSchema", "responseJsonSchema") if member(obj, name) is not None]
    mime = member(obj, "responseMimeType")
    # text/x.enum answers with one bare word of the schema's enum.
    if schemas and mime not in ("application/json", "text/x.enum"):
        yield ("", "schema-mime-type", f"{schemas[0]} needs responseMimeType application/json", "")
    if len(schemas) > 1:
        yield ("", "two-schemas", "two response schemas exclude each other", "")


def _schema(obj: dict[str, Any]) -> Iterator[Fault]:
    kind = _kind(obj)
    properties = obj.get("properties")
    if kind == "" and not any(member(obj, name) not in (None, []) for name in ("anyOf", "ref")) and "$ref" not in obj:
        # "didn't specify the schema type field": lean-lsp-mcp#185, confirmed live 2026-08-28.
        yield ("", "schema-no-type", "the schema has no type", "")
    if isinstance(properties, dict):
        yield from _unknown_names("schema-required", "required", obj.get("required"), properties)
        ordering = "property_ordering" if "property_ordering" in obj else "propertyOrdering"
        yield from _unknown_names("schema-ordering", ordering, obj.get(ordering), properties)
    if kind == "ARRAY" and obj.get("items") is None:
        yield ("", "schema-items", "an array without items", "")
    if kind == "OBJECT" and properties is None:
        # "should be non-empty for OBJECT type", or {} for every row: browser-use#3786, pydantic-ai#1203.
        yield ("", "schema-empty-object", "an object without properties", "")
    yield from _foreign_members(obj, kind)
    words = obj.get("enum")
    if isinstance(words, list) and "" in words:
        # kibana#286302.
        yield (f".enum[{words.index('')}]", "schema-empty-word", "an empty word", "")
    elif words == [] and obj.get("format") == "enum":
        yield (".enum", "schema-empty-word", "a choice without words", "")


def _kind(schema: dict[str, Any]) -> str | None:
    """Return a schema's type in capitals; empty where it has none, None where it is something odd."""
    kind = schema.get("type")
    return "" if kind is None else kind.upper() if isinstance(kind, str) else None


def _foreign_members(obj: dict[str, Any], kind: str | None) -> Iterator[Fault]:
    """Report members that belong to another type: "only allowed for OBJECT type" (mastra#22489)."""
    if not kind:
        return
    for name, value in obj.items():
        wanted = _OF_TYPE.get(camel(name))
        if value is not None and wanted is not None and wanted != kind:
            yield (f".{name}", "schema-foreign-member", f"belongs to a schema of type {wanted}, not {kind}", "")


def _unknown_names(rule: str, at: str, names: Any, properties: dict[str, Any]) -> Iterator[Fault]:
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str) and name not in properties:
            meant = suggestion(name, set(properties))
            yield (
                f".{at}[{index}]",
                rule,
                "names no property of this schema",
                f"Did you mean {meant}?" if meant else "",
            )


def _named(obj: dict[str, Any]) -> Iterator[Fault]:
    if not obj.get("name"):
        yield ("", "function-name", "the function has no name", "")


def _function(obj: dict[str, Any]) -> Iterator[Fault]:
    yield from _named(obj)
    for name in ("parameters", "response"):
        if obj.get(name) is not None and member(obj, f"{name}JsonSchema") is not None:
            # "mutually exclusive" (API discovery document aiplatform.v1, revision 20261106).
            yield (f".{name}", "two-schemas", f"{name} and {name}JsonSchema exclude each other", f"Keep {name}")
        schema = obj.get(name)
        if not isinstance(schema, dict):
            continue
        if name == "parameters" and _kind(schema) not in {"OBJECT", "", None}:
            # "parameters schema should be of type OBJECT": spring-ai#1373.
            yield (".parameters", "function-parameters", "the parameters are no OBJECT", "")
        yield from _crowded_choices(schema, f".{name}", 0)


#: The importer refuses what is nested deeper (see `rules.LIMITS`).
_MOST_LEVELS = 15


def _crowded_choices(schema: dict[str, Any], at: str, level: int) -> Iterator[Fault]:
    """Report an anyOf that has company: "it must be the only field set" (opencode#14788, vercel/ai#19000)."""
    choices = next((name for name in ("anyOf", "any_of") if isinstance(schema.get(name), list)), "")
    others = [name for name, value in schema.items() if name != choices and value is not None]
    if choices and others:
        yield (f"{at}.{choices}", "schema-crowded-choice", f"{', '.join(others[:5])} beside it", "")
    if level >= _MOST_LEVELS:
        return
    for place, inner in _below(schema):
        if isinstance(inner, dict):
            yield from _crowded_choices(inner, at + place, level + 1)


def _below(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in schema.items():
        if camel(name) == "properties" and isinstance(value, dict):
            yield from ((f".{name}.{key}", inner) for key, inner in value.items())
        elif camel(name) == "anyOf" and isinstance(value, list):
            yield from ((f".{name}[{index}]", inner) for index, inner in enumerate(value))
        elif name == "items":
            yield (".items", value)


def _tool(obj: dict[str, Any]) -> Iterator[Fault]:
    for name in ("googleSearchRetrieval", "google_search_retrieval"):
        if obj.get(name) is not None:
            # Refused by every model since Gemini 2.0: google-cloud-java#11470.
            yield (f".{name}", "search-retrieval", "a search tool of Gemini 1", "")


def _thinking(obj: dict[str, Any]) -> Iterator[Fault]:
    if member(obj, "thinkingBudget") is not None and member(obj, "thinkingLevel") is not None:
        # eclipse-peon-ai#115.
        yield ("", "thinking-twice", "both thinkingBudget and thinkingLevel", "")


def _declared(request: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield place and name of each function that a request declares."""
    tools = request.get("tools")
    for number, tool in enumerate([tools] if isinstance(tools, dict) else tools if isinstance(tools, list) else ()):
        functions = member(tool, "functionDeclarations") if isinstance(tool, dict) else None
        functions = [functions] if isinstance(functions, dict) else functions
        for index, function in enumerate(functions if isinstance(functions, list) else ()):
            if isinstance(function, dict) and isinstance(function.get("name"), str):
                yield f".tools[{number}].functionDeclarations[{index}]", function["name"]


def _functions(obj: dict[str, Any]) -> Iterator[Fault]:
    """Judge the functions of a whole request: declared once, and those that are wanted are declared."""
    known: set[str] = set()
    for place, name in _declared(obj):
        if name in known:
            # lobehub#12604.
            yield (place, "function-twice", f"the function {name[:64]!r} is declared twice", "")
        known.add(name)
    config = member(obj, "toolConfig")
    calling = member(config, "functionCallingConfig") if isinstance(config, dict) else None
    if not isinstance(calling, dict):
        return
    place, mode = ".toolConfig.functionCallingConfig", calling.get("mode")
    if isinstance(mode, str) and mode.upper() == "ANY" and not known:
        yield (place, "function-mode", "mode ANY in a request that declares no function", "")
    allowed = member(calling, "allowedFunctionNames")
    for name in allowed if isinstance(allowed, list) else ():
        if isinstance(name, str) and name not in known:
            meant = suggestion(name, known)
            hint = f"Did you mean {meant}?" if meant else ""
            yield (place, "function-mode", "allowedFunctionNames has a function that is not declared", hint)


_OBJECTS: dict[str, ObjectCheck] = {
    "GenerateContentRequest": _request,
    "Content": _content,
    "Part": _part,
    "FileData": _file_data,
    "Blob": _blob,
    "GenerationConfig": _generation_config,
    "Schema": _schema,
    "GenerationConfigThinkingConfig": _thinking,
    "Tool": _tool,
    "FunctionDeclaration": _function,
    "FunctionCall": _named,
    "FunctionResponse": _named,
}


def object_check(message: str, name: str) -> ObjectCheck | None:
    """Return the check of whole objects; a system instruction is a content whose role does not count."""
    return _instruction if name == "systemInstruction" else _OBJECTS.get(message)


#: What to write instead of an empty object, where leaving it out would change what is asked.
EMPTY_CURES = {
    "ToolGoogleSearch": 'Write "googleSearch": {"excludeDomains": ["example.invalid"]}',
    "UrlContext": "No way round is known: use BigQuery input with a JSON column for this tool",
    "ToolCodeExecution": "No way round is known: use BigQuery input with a JSON column for this tool",
}
