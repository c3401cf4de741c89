"""Is this value right for this member? Pure checks of one value, without memory of other lines; `objects` has the
checks of whole objects.

A check returns faults: ``(place below the value, rule, message, cure)``. An empty cure stands for the cure of the rule.
No fault quotes a value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher, get_close_matches
from typing import Any

from airflow_vertex_batch.core.requests.lint.api import NEWER_WORDS, REVISION_DATE, Type, camel

#: Place below the value, rule, message, cure.
Fault = tuple[str, str, str, str]
ValueCheck = Callable[[Any], Fault | None]

_INT32 = range(-(2**31), 2**31)
#: Lower and upper bound. Sources: the discovery document's descriptions (see lint_api; its temperature range excludes
#: 0, which the service has always taken as greedy decoding), and for counts the table of parameters in
#: https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference, 2026-11-22. How far topK goes
#: depends on the model, from 40 on; 65,536 tokens is the most any model writes.
_RANGES: dict[tuple[str, str], tuple[float, float]] = {
    ("GenerationConfig", "temperature"): (0, 2),
    ("GenerationConfig", "topP"): (0, 1),
    ("GenerationConfig", "topK"): (1, 2**31),
    ("GenerationConfig", "candidateCount"): (1, 8),
    ("GenerationConfig", "maxOutputTokens"): (1, 65_536),
    ("GenerationConfig", "logprobs"): (0, 20),
    ("GenerationConfig", "presencePenalty"): (-2, 2),
    ("GenerationConfig", "frequencyPenalty"): (-2, 2),
    # -1 lets the model decide.
    ("GenerationConfigThinkingConfig", "thinkingBudget"): (-1, 2**31),
    # The document's lower bound is "above 0".
    ("VideoMetadata", "fps"): (5e-324, 24),
    ("VertexAISearch", "maxResults"): (0, 10),
    ("GoogleTypeLatLng", "latitude"): (-90, 90),
    ("GoogleTypeLatLng", "longitude"): (-180, 180),
}
#: Fewest and most elements of a list, from the same sources.
_LENGTHS: dict[tuple[str, str], tuple[int, int]] = {
    ("GenerationConfig", "stopSequences"): (0, 5),
    ("Tool", "functionDeclarations"): (0, 512),
    ("ToolGoogleSearch", "excludeDomains"): (0, 2_000),
    ("EnterpriseWebSearch", "excludeDomains"): (0, 2_000),
    ("MultiSpeakerVoiceConfig", "speakerVoiceConfigs"): (2, 2),
}
#: Both alphabets: protobuf's JSON takes the URL-safe one as well.
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_="
_GS = re.compile(r"gs://[a-z0-9][a-z0-9._-]*/[^\r\n]+\Z")
_YOUTUBE = re.compile(r"https?://((www|m)\.)?(youtube\.com/|youtu\.be/)")
#: ``video/*`` is what Vertex AI Studio writes for YouTube.
_MIME = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/(\*|[A-Za-z0-9!#$&^_.+-]+)(\s*;.*)?\Z")
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}\Z")
#: Sizes above 1K: docs.cloud.google.com, "batch inference", 2026-11-22.
_LARGE = frozenset({"2K", "4K"})
_LABEL_LENGTH = 63
#: From here on a difference is a slip of the pen: "temprature" is 0.95 near "temperature", while newer words are near
#: older ones too ("XHIGH" is 0.89 near "HIGH").
_NEAR = 0.9
#: What BigQuery's type inference takes for something other than text
#: (cloud.google.com/bigquery/docs/schema-detect, 2026-11-22; "000000" came back as 0 in a captured job).
_RETYPED = re.compile(
    r"""\s*(?: [+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?      # a number
        | [+-]?(?:nan|inf|infinity) | true | false | null
        | \d{4}-\d{1,2}-\d{1,2}(?:[t\ ].*)?                # a date, a timestamp
        | \d{1,2}:\d{1,2}(?::\d{1,2}(?:\.\d+)?)?           # a time
        )\s*\Z""",
    re.IGNORECASE | re.VERBOSE | re.ASCII,
)


def member(obj: dict[str, Any], name: str) -> Any:
    """Return a member in either spelling, None when absent."""
    if name in obj:
        return obj[name]
    for other, value in obj.items():
        if "_" in other and camel(other) == name:
            return value
    return None


def spelling(obj: Any, name: str) -> str:
    """Return a member's name as an object spells it, or in the document's way when absent."""
    return next((other for other in obj if camel(other) == name), name) if isinstance(obj, dict) else name


def is_retyped(text: str) -> bool:
    """Whether the importer's type inference would take this text for a number, date, time or truth value."""
    return _RETYPED.match(text) is not None


def key_fault(key: str) -> Fault | None:
    """Judge one key, apart from its being unique."""
    if not key.strip():
        return ("", "key-missing", "the key is empty", "")
    if is_retyped(key):
        return ("", "key-retyped", f"the service re-types the key {key[:64]!r}", "")
    if not key[0].isalpha():
        return ("", "key-first-letter", "the key does not begin with a letter", "")
    return None


def suggestion(name: str, known: Iterator[str] | set[str]) -> str:
    """Return the known name this one was probably meant to be, or ""."""
    folded = {word.lower(): word for word in known}
    close = get_close_matches(camel(name).lower().strip("_"), folded, n=1, cutoff=0.7)
    return folded[close[0]] if close else ""


def is_near(name: str, meant: str) -> bool:
    """Whether a name is so near a known one that it is a slip of the pen, not a newer name."""
    pair = (camel(name).lower().strip("_"), meant.lower())
    return SequenceMatcher(None, *pair).ratio() >= _NEAR


# One value.


def value_check(message: str, name: str, kind: Type) -> ValueCheck | None:
    """Return the check of one member's values; `name` in the document's spelling."""
    if special := _SPECIAL.get((message, name)):
        return special
    if lengths := _LENGTHS.get((message, name)):
        return lambda value: _length(value, lengths)
    bounds = _RANGES.get((message, name))
    if bounds or kind.scalar == "int32":
        return lambda value: _number(value, kind, bounds)
    if kind.scalar == "bytes":
        return _base64
    if kind.words:
        words = kind.words | NEWER_WORDS.get((message, name), {}).keys()
        return lambda value: _word(value, words)
    return None


def _number(value: Any, kind: Type, bounds: tuple[float, float] | None) -> Fault | None:
    value = as_number(value)
    if value is None:
        return None
    if kind.scalar == "int32" and (not math.isfinite(value) or value != int(value) or int(value) not in _INT32):
        return ("", "wrong-type", "must be a whole number of 32 bits", "")
    if bounds and not bounds[0] <= value <= bounds[1]:
        lower = "above 0" if 0 < bounds[0] < 1 else f"at least {bounds[0]:g}"
        upper = "" if bounds[1] == _INT32.stop else f" and at most {bounds[1]:,}"
        return ("", "out-of-range", f"must be {lower}{upper}", "")
    return None


def as_number(value: Any) -> int | float | None:
    """Return a number, also one written as a text; what is none has been reported as a wrong type."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value


def _length(value: Any, lengths: tuple[int, int]) -> Fault | None:
    if not isinstance(value, list) or lengths[0] <= len(value) <= lengths[1]:
        return None
    allowed = f"exactly {lengths[0]}" if lengths[0] == lengths[1] else f"at most {lengths[1]:,}"
    return ("", "list-length", f"the list has {len(value)} elements, must have {allowed}", "")


def _word(value: Any, words: frozenset[str]) -> Fault | None:
    # The service's parser takes enumerations in any case: its own guides write "type": "object".
    if not isinstance(value, str) or value.upper() in words:
        return None
    meant = suggestion(value, set(words))
    hint = f'Did you mean "{meant}"?' if meant else ""
    if meant and is_near(value, meant):
        return ("", "unknown-value", "not one of the documented words", hint)
    return ("", "newer-value", f"not one of the words documented on {REVISION_DATE}", hint)


def _base64(value: Any) -> Fault | None:
    if not isinstance(value, str):
        return None
    if value.startswith("data:"):
        return ("", "base64", "a data: URL", "Write only what follows the comma; the MIME type goes to mimeType")
    if not value.isascii() or value.encode().translate(None, _BASE64):
        return ("", "base64", "holds characters outside base64", "")
    return None


def file_uri(value: Any) -> Fault | None:
    """Judge a ``fileUri``."""
    if not isinstance(value, str) or _GS.match(value) or _YOUTUBE.match(value):
        return None
    if value.startswith("https://"):
        return ("", "file-uri-https", "a web address other than YouTube's", "")
    if value.startswith("gs://"):
        return ("", "file-uri", "no gs://bucket/object", "Name the bucket and the object")
    return ("", "file-uri", "neither gs:// nor a YouTube URL", "")


def _mime_type(value: Any) -> Fault | None:
    if not isinstance(value, str) or _MIME.match(value):
        return None
    return ("", "mime-type", "not of the form type/subtype", "")


def _function_name(value: Any) -> Fault | None:
    if not isinstance(value, str) or _FUNCTION.match(value):
        return None
    return ("", "function-name", "not a valid function name", "")


def label_fault(text: Any, *, is_key: bool) -> Fault | None:
    """Judge the key or the value of a request label."""
    if not isinstance(text, str):
        return None
    fits = len(text) <= _LABEL_LENGTH and all(c in "_-" or (c.isalnum() and not c.isupper()) for c in text)
    if fits and (not is_key or text[:1].isalpha()):
        return None
    return ("", "label", f"the {'key' if is_key else 'value'} is longer or written otherwise than labels may be", "")


def label_value(value: Any) -> Fault | None:
    """Judge the value of a request label."""
    return label_fault(value, is_key=False)


def _image_size(value: Any) -> Fault | None:
    if isinstance(value, str) and value.upper() in _LARGE:
        return ("", "image-size", "larger than batch makes images", "")
    return None


_SPECIAL: dict[tuple[str, str], ValueCheck] = {
    ("FileData", "fileUri"): file_uri,
    ("ImageConfig", "imageSize"): _image_size,
    ("FunctionResponseFileData", "fileUri"): file_uri,
    **{(message, "mimeType"): _mime_type for message in ("FileData", "Blob", "FunctionResponseFileData")},
    ("FunctionResponseBlob", "mimeType"): _mime_type,
    **{(message, "name"): _function_name for message in ("FunctionDeclaration", "FunctionCall", "FunctionResponse")},
}
