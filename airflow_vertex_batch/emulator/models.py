"""Who answers? `Model` is what answers a request; `DeterministicModel` always answers the same; `local_model` is a
real one.

Tokens are counted by one stated rule, not by a tokenizer: a text has one token per four bytes of UTF-8, rounded up;
media cost what Google publishes (https://ai.google.dev/gemini-api/docs/tokens, read 2026-11-22) for the length
assumed here, because nothing is decoded: an image or a document page 258, a second of video 263, a second of audio
32; a video or a sound lasts 60 seconds unless its part says otherwise, a document has one page.

Invariants: an answer depends on nothing but the request; requests arrive canonical (see `rowcheck.canonical`) and
checked.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_vertex_batch.emulator.schemas import fill, json_schema

if TYPE_CHECKING:
    from collections.abc import Iterator


BYTES_PER_TOKEN = 4
#: Members of a generation config that hold a schema.
_SCHEMA_MEMBERS = ("responseSchema", "responseJsonSchema", "responseFormat")
_PER_ITEM = {"IMAGE": 258, "DOCUMENT": 258}
_PER_SECOND = {"VIDEO": 263, "AUDIO": 32}
_ASSUMED_SECONDS = 60.0
#: Thinking tokens of a request that asks for thinking without a budget.
_THINKING_TOKENS = 16
#: Words of the prompt that a plain answer repeats.
_ECHO_WORDS = 24
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
#: An answer's image (one pixel) and sound (one sample of silence), with their tokens: 1,290 for an image of up to 1024
#: pixels a side (https://ai.google.dev/gemini-api/docs/image-generation), 25 for a second of speech
#: (https://ai.google.dev/gemini-api/docs/tokens), both read 2026-11-28.
_SPOKEN = {
    "IMAGE": ({"data": _PIXEL, "mimeType": "image/png"}, 1290),
    "AUDIO": ({"data": "AAA=", "mimeType": "audio/L16;codec=pcm;rate=24000"}, 25),
}
#: Gemini's own limit of one answer (its model pages, read 2026-11-22), used where a request sets none.
MAX_OUTPUT_TOKENS = 65_536


class Candidate(msgspec.Struct, frozen=True):
    """One answer: its parts, why it ended, and its size.

    :param media_tokens: the part of `token_count` that is not text, by modality.
    """

    parts: tuple[dict[str, Any], ...]
    finish_reason: str
    token_count: int
    media_tokens: dict[str, int] = {}


class Answer(msgspec.Struct, frozen=True):
    """What a model says to one request.

    :param prompt_tokens: tokens of the request by modality (TEXT, IMAGE, VIDEO, AUDIO, DOCUMENT).
    """

    candidates: tuple[Candidate, ...]
    prompt_tokens: dict[str, int]
    thinking_tokens: int = 0


class Model(Protocol):
    """Something that answers. May be called from `parallel` threads at once."""

    parallel: int

    def answer(self, request: dict[str, Any]) -> Answer:
        """Answer a canonical, valid GenerateContentRequest."""


def text_tokens(text: str) -> int:
    """Return the tokens of a text: one per four bytes, rounded up."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def prompt_tokens(request: dict[str, Any]) -> dict[str, int]:
    """Return the tokens of a request by modality; tools and schemas count as their JSON text."""
    counts = {"TEXT": 0}
    for part in _all_parts(request):
        modality, tokens = _part_tokens(part)
        counts[modality] = counts.get(modality, 0) + tokens
    config = request.get("generationConfig", {})
    for extra in (request.get("tools"), *(config.get(name) for name in _SCHEMA_MEMBERS)):
        if extra:
            counts["TEXT"] += text_tokens(msgspec.json.encode(extra).decode())
    return counts


def output_budget(request: dict[str, Any]) -> int:
    """Return the most tokens an answer may have."""
    return int(request.get("generationConfig", {}).get("maxOutputTokens", MAX_OUTPUT_TOKENS))


def wanted_schema(request: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema an answer must fit, as JSON Schema, or None when no JSON is asked for."""
    config = request.get("generationConfig", {})
    if isinstance(given := config.get("responseJsonSchema"), dict):
        return given
    if isinstance(given := config.get("responseSchema"), dict):
        return json_schema(given)
    for text in _text_formats(config):
        if isinstance(given := text.get("schema"), dict):
            return given
    return {"type": "object", "properties": {"answer": {"type": "string"}}} if _wants_json(config) else None


def last_text(request: dict[str, Any]) -> str:
    """Return the texts of the last user turn."""
    turns = [content for content in request["contents"] if content.get("role", "user") == "user"] or request["contents"]
    return " ".join(part["text"] for part in turns[-1]["parts"] if isinstance(part.get("text"), str))


def _wants_json(config: dict[str, Any]) -> bool:
    formats = (text.get("mimeType") for text in _text_formats(config))
    return config.get("responseMimeType") == "application/json" or "APPLICATION_JSON" in formats


def _text_formats(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what ``responseFormat`` says of text."""
    given = config.get("responseFormat") or []
    for item in given if isinstance(given, list) else [given]:
        if isinstance(item, dict) and isinstance(text := item.get("text"), dict):
            yield text


def _all_parts(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    instruction = request.get("systemInstruction")
    contents = [*([instruction] if isinstance(instruction, dict) else []), *request["contents"]]
    for content in contents:
        yield from content.get("parts", [])


def _part_tokens(part: dict[str, Any]) -> tuple[str, int]:
    media = part.get("fileData") or part.get("inlineData")
    if not isinstance(media, dict):
        text = part.get("text")
        return "TEXT", text_tokens(text if isinstance(text, str) else msgspec.json.encode(part).decode())
    modality = str(media.get("mimeType", "")).partition("/")[0].upper()
    if modality not in {"IMAGE", "VIDEO", "AUDIO", "TEXT"}:
        modality = "DOCUMENT"
    if modality in _PER_SECOND:
        return modality, round(_PER_SECOND[modality] * _seconds(part))
    return modality, _PER_ITEM.get(modality, _PER_ITEM["DOCUMENT"])


def _seconds(part: dict[str, Any]) -> float:
    span = part.get("videoMetadata") or {}
    try:
        start, end = (
            float(str(span.get(name, default)).rstrip("s"))
            for name, default in (("startOffset", 0), ("endOffset", _ASSUMED_SECONDS))
        )
    except ValueError:
        return _ASSUMED_SECONDS
    return max(end - start, 1.0)


class DeterministicModel:
    """Answers from the request alone: JSON that fits its schema, a function call where one is demanded, or a short
    echo; an image or a sound where the request asks for one, without text where it asks for no text.
    """

    parallel = 1

    def answer(self, request: dict[str, Any]) -> Answer:
        """Answer; the same request always gets the same answer."""
        config = request.get("generationConfig", {})
        seed = hashlib.blake2b(msgspec.json.encode(request, order="sorted"), digest_size=12).hexdigest()
        count = int(config.get("candidateCount", 1))
        candidates = tuple(self._candidate(request, seed if index == 0 else f"{seed}{index}") for index in range(count))
        thinking = config.get("thinkingConfig") or {}
        thought = _thinking_tokens(thinking)
        if thought and thinking.get("includeThoughts"):
            candidates = tuple(_with_thought(candidate) for candidate in candidates)
        return Answer(candidates, prompt_tokens(request), thought)

    def _candidate(self, request: dict[str, Any], seed: str) -> Candidate:
        if call := _demanded_call(request, seed):
            part = {"functionCall": call}
            return Candidate((part,), "STOP", text_tokens(msgspec.json.encode(part).decode()))
        asked = request.get("generationConfig", {}).get("responseModalities") or ["TEXT"]
        said = _cut(self._text(request, seed), request) if _SPOKEN.keys().isdisjoint(asked) or "TEXT" in asked else None
        return _with_media(said, [name for name in asked if name in _SPOKEN])

    @staticmethod
    def _text(request: dict[str, Any], seed: str) -> str:
        words = last_text(request).split()
        schema = wanted_schema(request)
        if schema is None:
            return _echo(request, words)
        value = fill(schema, words, seed)
        if request["generationConfig"].get("responseMimeType") == "text/x.enum":
            return str(value)
        return msgspec.json.encode(value).decode()


def _thinking_tokens(thinking: dict[str, Any]) -> int:
    budget = thinking.get("thinkingBudget")
    if not thinking or budget == 0:
        return 0
    return min(int(budget), _THINKING_TOKENS) if isinstance(budget, int) and budget > 0 else _THINKING_TOKENS


def _with_thought(candidate: Candidate) -> Candidate:
    thought = {"text": "I read the request and decide what to say.", "thought": True}
    return msgspec.structs.replace(candidate, parts=(thought, *candidate.parts))


def _with_media(said: Candidate | None, media: list[str]) -> Candidate:
    """Add an image or a sound after the answer's text."""
    parts, reason, text_count = (said.parts, said.finish_reason, said.token_count) if said else ((), "STOP", 0)
    tokens = {name: _SPOKEN[name][1] for name in media}
    spoken = tuple({"inlineData": _SPOKEN[name][0]} for name in media)
    return Candidate((*parts, *spoken), reason, text_count + sum(tokens.values()), tokens)


def _demanded_call(request: dict[str, Any], seed: str) -> dict[str, Any] | None:
    """A function call, when the tool configuration leaves no choice (mode ANY)."""
    calling = (request.get("toolConfig") or {}).get("functionCallingConfig") or {}
    if calling.get("mode") != "ANY":
        return None
    functions = [function for tool in request.get("tools", []) for function in tool.get("functionDeclarations", [])]
    allowed = calling.get("allowedFunctionNames") or [function["name"] for function in functions]
    function = next((function for function in functions if function["name"] in allowed), None)
    if function is None:
        return None
    parameters = function.get("parametersJsonSchema") or json_schema(function.get("parameters") or {"type": "OBJECT"})
    return {"name": function["name"], "args": fill(parameters, last_text(request).split(), seed)}


def _echo(request: dict[str, Any], words: list[str]) -> str:
    media = [part["fileData"]["fileUri"].rpartition("/")[2] for part in _all_parts(request) if "fileData" in part]
    about = f"About {' and '.join(media)}: " if media else "In short: "
    said = " ".join(words[:_ECHO_WORDS]) or "nothing was asked"
    if len(words) > _ECHO_WORDS:
        return f"{about}{said} …"
    return about + said + ("" if said.endswith((".", "!", "?")) else ".")


def _cut(text: str, request: dict[str, Any]) -> Candidate:
    """End a text where a stop sequence or the token budget ends it."""
    config, reason = request.get("generationConfig", {}), "STOP"
    for stop in config.get("stopSequences") or []:
        text = text.partition(stop)[0] if stop else text
    budget = output_budget(request)
    if text_tokens(text) > budget:
        text, reason = text.encode()[: budget * BYTES_PER_TOKEN].decode(errors="ignore"), "MAX_TOKENS"
    return Candidate(({"text": text},), reason, text_tokens(text))
