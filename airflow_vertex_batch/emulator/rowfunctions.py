"""May the model be given these schemas and functions? These checks refuse requests in which each member is right by
itself, but the combination is not. They come from reports of users of the service (2026-11-28; the threads are named
beside each check).

Invariants: as in `rowcheck`: a check takes a canonical request, returns the service's words or nothing, and never
raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Members of a schema that belong to one type.
_OF_TYPE = {"properties": "OBJECT", "required": "OBJECT", "propertyOrdering": "OBJECT", "items": "ARRAY"}
_MOST_LEVELS = 20


def schema_problem(request: dict[str, Any], *, takes_empty_objects: bool) -> str:
    """Return why the service refuses a response schema or a function of a request, or an empty text.

    :param takes_empty_objects: whether an OBJECT without properties is accepted; its answer is then ``{}``.
    """
    config = request.get("generationConfig")
    config = config if isinstance(config, dict) else {}
    checks = [_node_problem(config.get("responseSchema"), "generation_config.response_schema", takes_empty_objects)]
    names: set[str] = set()
    for function in _functions(request):
        checks.append(_function_problem(function, takes_empty_objects))
        name = str(function.get("name"))
        if name in names:
            # lobehub#12604.
            checks.append(f"Duplicate function declaration found: {name}")
        names.add(name)
    checks += [_mode_problem(request, names), _tool_problem(request), _thinking_problem(config)]
    return next(filter(None, checks), "")


def _node_problem(schema: Any, where: str, takes_empty_objects: bool, level: int = 0) -> str:  # noqa: FBT001 - handed down
    if not isinstance(schema, dict) or level > _MOST_LEVELS:
        return ""
    kind = _kind(schema)
    if kind == "" and not schema.get("anyOf") and "$ref" not in schema and "ref" not in schema:
        # lean-lsp-mcp#185, confirmed live 2026-08-28.
        return f"Unable to submit request because {where} didn't specify the schema type field."
    if kind == "OBJECT" and not schema.get("properties") and not takes_empty_objects:
        # browser-use#3786.
        return f"{where}.properties: should be non-empty for OBJECT type"
    for name, wanted in _OF_TYPE.items():
        if schema.get(name) is not None and kind and kind != wanted:
            # mastra#22489.
            return f"{where}.{name}: only allowed for {wanted} type"
    words = schema.get("enum")
    if isinstance(words, list) and ("" in words or (not words and schema.get("format") == "enum")):
        # kibana#286302.
        return f"{where}.enum[0]: cannot be empty"
    below = ((place, inner) for place, inner in _below(schema))
    found = (_node_problem(inner, f"{where}.{place}", takes_empty_objects, level + 1) for place, inner in below)
    return next(filter(None, found), "")


def _kind(schema: dict[str, Any]) -> str | None:
    """Return a schema's type in capitals, empty where it has none; None for a number, which protobuf's JSON takes too:
    of those nobody has reported anything.
    """
    given = schema.get("type", "")
    return given.upper() if isinstance(given, str) else None


def _below(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if "items" in schema:
        yield "items", schema["items"]
    choices, properties = schema.get("anyOf"), schema.get("properties")
    yield from ((f"any_of[{index}]", inner) for index, inner in enumerate(choices if isinstance(choices, list) else ()))
    if isinstance(properties, dict):
        yield from ((f"properties[{name}]", inner) for name, inner in properties.items())


def _function_problem(function: dict[str, Any], takes_empty_objects: bool) -> str:  # noqa: FBT001 - handed down
    where = f"{function.get('name')} functionDeclaration parameters"
    schema = function.get("parameters")
    if schema is not None and function.get("parametersJsonSchema") is not None:
        # "This field is mutually exclusive with parameters": FunctionDeclaration of google-genai 3.6.1, 2026-11-29.
        return f"{where} and parameters_json_schema are mutually exclusive."
    if not isinstance(schema, dict):
        return ""
    if (_kind(schema) or "OBJECT") != "OBJECT":
        # spring-ai#1373.
        return f"{where} schema should be of type OBJECT."
    return _node_problem(schema, where, takes_empty_objects) or _choice_problem(schema, where, 0)


def _choice_problem(schema: Any, where: str, level: int) -> str:
    if not isinstance(schema, dict) or level > _MOST_LEVELS:
        return ""
    if "anyOf" in schema and len(schema) > 1:
        # opencode#14788, vercel/ai#19000.
        return (
            f"Unable to submit request because {where} specified other fields alongside any_of. "
            "When using any_of, it must be the only field set."
        )
    found = (_choice_problem(inner, f"{where}.{place}", level + 1) for place, inner in _below(schema))
    return next(filter(None, found), "")


def _functions(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for tool in _dicts(request.get("tools")):
        yield from _dicts(tool.get("functionDeclarations"))


def _mode_problem(request: dict[str, Any], names: set[str]) -> str:
    config = request.get("toolConfig")
    calling = config.get("functionCallingConfig") if isinstance(config, dict) else None
    if not isinstance(calling, dict):
        return ""
    if str(calling.get("mode", "")).upper() == "ANY" and not names:
        return "Function calling config is set without function_declarations."
    allowed = calling.get("allowedFunctionNames")
    if any(isinstance(name, str) and name not in names for name in (allowed if isinstance(allowed, list) else ())):
        return "tool_config.function_calling_config.allowed_function_names: contains a function that is not declared."
    return ""


def _tool_problem(request: dict[str, Any]) -> str:
    if any(tool.get("googleSearchRetrieval") is not None for tool in _dicts(request.get("tools"))):
        # google-cloud-java#11470.
        return "Unable to submit request because google_search_retrieval is not supported; please use google_search."
    return ""


def _thinking_problem(config: dict[str, Any]) -> str:
    thinking = config.get("thinkingConfig")
    if isinstance(thinking, dict) and {"thinkingBudget", "thinkingLevel"} <= thinking.keys():
        # eclipse-peon-ai#115.
        return "You can only set only one of thinking budget and thinking level."
    return ""


def _dicts(value: Any) -> list[dict[str, Any]]:
    values = [value] if isinstance(value, dict) else value
    return [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []
