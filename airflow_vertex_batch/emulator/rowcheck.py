"""May the model be asked this? The rules one request must pass; breaking one fails the row, not the job.

Requests come in camelCase or snake_case and with nulls in padded places; `canonical` gives them one spelling first.

Invariants: a check returns the service's words or nothing, and never raises; free-form parts of a request (schemas'
property names, function arguments, labels) are never respelt.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.emulator.rowfunctions import schema_problem
from airflow_vertex_batch.emulator.rowmodels import model_problem
from airflow_vertex_batch.emulator.wire import camel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Members of GenerateContentRequest (API discovery document aiplatform.v1, revision 20261106).
_REQUEST = frozenset(
    {
        "contents",
        "systemInstruction",
        "tools",
        "toolConfig",
        "safetySettings",
        "generationConfig",
        "labels",
        "cachedContent",
        "modelArmorConfig",
        "outputConfig",
        "continuationToken",
    }
)
_CONFIG = frozenset(
    {
        "responseMimeType",
        "responseSchema",
        "responseJsonSchema",
        "responseFormat",
        "thinkingConfig",
        "maxOutputTokens",
        "candidateCount",
        "seed",
        "stopSequences",
        "temperature",
        "topP",
        "topK",
        "mediaResolution",
        "responseModalities",
        "imageConfig",
        "responseLogprobs",
        "logprobs",
        "presencePenalty",
        "frequencyPenalty",
        "routingConfig",
        "speechConfig",
        "audioTimestamp",
        "enableAffectiveDialog",
        "translationConfig",
        "audioTranscriptionConfig",
    }
)
#: Members of ``Schema`` (same source).
_SCHEMA = frozenset(
    {
        "type",
        "format",
        "title",
        "description",
        "nullable",
        "enum",
        "items",
        "minItems",
        "maxItems",
        "properties",
        "required",
        "minProperties",
        "maxProperties",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "pattern",
        "example",
        "anyOf",
        "propertyOrdering",
        "default",
        "additionalProperties",
        "ref",
        "defs",
        "$ref",
        "$defs",
    }
)
#: (member, lowest, highest): ranges of Google's model reference, read 2026-11-22. How far topK goes depends on the
#: model, from 40 on.
_RANGES = (
    ("temperature", 0, 2),
    ("topP", 0, 1),
    ("topK", 1, math.inf),
    ("candidateCount", 1, 8),
    ("maxOutputTokens", 1, 65536),
    ("presencePenalty", -2, 2),
    ("frequencyPenalty", -2, 2),
    ("logprobs", 0, 20),
)
_MOST_STOP_SEQUENCES = 5
_DATA = frozenset(
    {"text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult"}
)
#: Members of ``Part`` (same source).
_PART = _DATA | {
    "thought",
    "thoughtSignature",
    "videoMetadata",
    "mediaResolution",
    "audioTranscription",
    "speechMetadata",
}
_FUNCTION_NAME = re.compile(r"[A-Za-z_][\w.:-]{0,127}", re.ASCII)
#: Members whose values are the caller's own, not the API's.
_FREE = frozenset(
    {
        "args",
        "response",
        "labels",
        "enum",
        "default",
        "example",
        "responseJsonSchema",
        "schema",  # of `responseFormat`
        "parametersJsonSchema",
        "responseParametersJsonSchema",
    }
)
#: Members that map the caller's names to API objects.
_MAPS = frozenset({"properties", "defs", "$defs"})


def canonical(value: Any) -> Any:
    """Return a request in camelCase, without nulls, with ``contents`` and ``parts`` as lists."""
    if isinstance(value, list):
        return [canonical(item) for item in value if item is not None]
    if not isinstance(value, dict):
        return value
    clean: dict[str, Any] = {}
    for raw, item in value.items():
        name = camel(raw) if "_" in raw else raw
        if item is None or name in _FREE:
            clean |= {} if item is None else {name: item}
        elif name in _MAPS and isinstance(item, dict):
            clean[name] = {key: canonical(inner) for key, inner in item.items()}
        else:
            made = canonical(item)
            # One object where a list is documented: samples of S3 do it, and it works.
            clean[name] = [made] if name in {"parts", "contents"} and isinstance(made, dict) else made
    return clean


def problem_of(
    request: Any,
    readable: Callable[[str], bool],
    *,
    model: str = "",
    takes_empty_objects: bool = False,
    takes_contested: bool = True,
) -> str:
    """Return why the service refuses a canonical request with 400 INVALID_ARGUMENT, or an empty text.

    :param readable: whether a ``gs://`` address can be read.
    :param model: that is asked, as the job names it; an unknown one takes all settings.
    :param takes_empty_objects: whether a schema may have an OBJECT without properties.
    :param takes_contested: whether settings pass of which reports disagree (see `rowmodels`).
    """
    if not isinstance(request, dict) or not request:
        return "The request is missing or is not an object."
    for check in (_unknown_member, _bad_contents, _bad_config, _bad_labels, _bad_tools):
        if text := check(request):
            return text
    if text := schema_problem(request, takes_empty_objects=takes_empty_objects):
        return text
    if text := model_problem(request.get("generationConfig", {}), model, takes_contested=takes_contested):
        return text
    return next((text for part in _parts(request) if (text := _bad_media(part, readable))), "")


def _unknown_member(request: dict[str, Any]) -> str:
    for name in request:
        if name not in _REQUEST:
            return f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
    if "cachedContent" in request:
        return "Explicit context caching (cachedContent) is not supported for batch prediction."
    return ""


def _bad_contents(request: dict[str, Any]) -> str:
    contents = request.get("contents")
    if not isinstance(contents, list) or not contents:
        return "Unable to submit request because at least one contents field is required."
    for content in contents:
        if not isinstance(content, dict):
            return "Invalid value at 'contents': an object is expected."
        if content.get("role", "user") not in ("user", "model"):
            return "Please use a valid role: user, model."
        parts = content.get("parts")
        if not isinstance(parts, list) or not parts:
            return "Unable to submit request because it must include at least one parts field."
        if text := next(filter(None, map(_part_problem, parts)), ""):
            return text
    return ""


def _part_problem(part: Any) -> str:
    if isinstance(part, dict) and (unknown := next((name for name in part if name not in _PART), "")):
        return f"Invalid JSON payload received. Unknown name \"{unknown}\" at 'contents.parts': Cannot find field."
    if not isinstance(part, dict) or not _DATA & part.keys():
        return "Unable to submit request because a part must have one initialized data field."
    return ""


def _bad_config(request: dict[str, Any]) -> str:
    config = request.get("generationConfig", {})
    if not isinstance(config, dict):
        return "Invalid value at 'generation_config': an object is expected."
    for name in config:
        if name not in _CONFIG:
            return f"Invalid JSON payload received. Unknown name \"{name}\" at 'generation_config': Cannot find field."
    for name, low, high in _RANGES:
        value = config.get(name)
        if value is not None and not low <= _number(value) <= high:
            return (
                f"Unable to submit request because it has a {name} value of {value} "
                f"but the supported range is from {low} (inclusive) to {high} (inclusive)."
            )
    if isinstance(stops := config.get("stopSequences"), list) and len(stops) > _MOST_STOP_SEQUENCES:
        return f"Unable to submit request because it has more than {_MOST_STOP_SEQUENCES} stop sequences."
    return _bad_schema(config.get("responseSchema"), "generation_config.response_schema")


def _number(value: Any) -> float:
    """Return a number, also one written as a text, as protobuf's JSON takes it; NaN, in no range, for anything else."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _bad_schema(schema: Any, where: str) -> str:
    if schema is None:
        return ""
    if not isinstance(schema, dict):
        return f"Invalid value at '{where}': an object is expected."
    for name in schema:
        if name not in _SCHEMA:
            return f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field."
    return next((text for name, inner in _inner(schema) if (text := _bad_schema(inner, f"{where}.{name}"))), "")


def _inner(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if "items" in schema:
        yield "items", schema["items"]
    choices = schema.get("anyOf")
    if isinstance(choices, list):
        yield from ((f"any_of[{index}]", inner) for index, inner in enumerate(choices))
    properties = schema.get("properties", {})
    if isinstance(properties, dict):
        yield from ((f"properties[{name}]", inner) for name, inner in properties.items())


def _bad_labels(request: dict[str, Any]) -> str:
    labels = request.get("labels", {})
    if not isinstance(labels, dict):
        return "Invalid value at 'labels': an object is expected."
    for key, value in labels.items():
        if not re.fullmatch(r"[a-z][\w-]{0,62}", key) or not re.fullmatch(r"[\w-]{0,63}", str(value)):
            return f"Invalid label {key!r}: keys begin with a letter, keys and values have at most 63 characters."
    return ""


def _bad_tools(request: dict[str, Any]) -> str:
    for tool in _dicts(request.get("tools")):
        for function in _dicts(tool.get("functionDeclarations")):
            name = function.get("name", "")
            if not _FUNCTION_NAME.fullmatch(str(name)):
                return f"FIELD_INVALID: tools.function_declarations.name {name!r} is not a valid function name."
    return ""


def _bad_media(part: dict[str, Any], readable: Callable[[str], bool]) -> str:
    if "fileData" not in part:
        return ""
    data = part["fileData"] if isinstance(part["fileData"], dict) else {}
    uri = data.get("fileUri", "")
    if not isinstance(uri, str) or not uri:
        return "Unable to submit request because it must have a fileUri parameter."
    if not data.get("mimeType"):
        return f"Unable to submit request because it must have a mimeType parameter for {uri}."
    if uri.startswith("gs://") and not readable(uri):
        return f"Cannot fetch content from the provided URL {uri}: the object does not exist or cannot be read."
    return ""


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _parts(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for content in request["contents"]:
        yield from content["parts"]
