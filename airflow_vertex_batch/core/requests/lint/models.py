"""What does one model refuse that others take? A table of facts, each with its source. It is asked only if the model is
known.

Each fact is the same on every line of a batch, so every row fails, after hours in the queue. *error*: the service's
documentation says 400, or users of Vertex AI met it. *warning*: reports disagree, or the member does nothing. There are
no facts about tuned models, models of other publishers, and models that the table does not name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from airflow_vertex_batch.core.domain.catalog import base_name, is_outside_catalog
from airflow_vertex_batch.core.requests.lint.values import Fault, as_number, member, spelling

REFUSED, _DOUBTFUL = "model-refuses", "model-may-refuse"


class Fact(msgspec.Struct, frozen=True):
    """One member of ``generationConfig`` that some models do not take.

    :param models: globs over names without path and version.
    :param path: of the member, below ``generationConfig``.
    :param is_wrong: whether a value is one of those that they do not take.
    :param source: who says so, and when.
    """

    models: tuple[str, ...]
    path: tuple[str, ...]
    is_wrong: Callable[[Any], bool]
    rule: str
    message: str
    cure: str
    source: str


def _any(_value: Any) -> bool:
    return True


def _word(*words: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value.upper() in words


def _above(limit: int) -> Callable[[Any], bool]:
    return lambda value: (number := as_number(value)) is not None and number > limit


def _nonzero(value: Any) -> bool:
    # 0 changes nothing and is taken everywhere: github.com/google-gemini/cookbook/issues/1290.
    return bool(as_number(value))


def _outside(low: int, high: int, *others: int) -> Callable[[Any], bool]:
    """Whether a budget is neither within these bounds nor -1, with which the model decides."""
    taken = {-1, *others}
    return lambda value: (number := as_number(value)) is not None and not low <= number <= high and number not in taken


_BUDGET, _LEVEL = ("thinkingConfig", "thinkingBudget"), ("thinkingConfig", "thinkingLevel")
#: "Each of these is a documented 400": thinking_budget, MINIMAL, both penalties, more than one candidate.
_NEON = "dev.to/aihubmix, Gemini 4 Neon migration, after Google's developer guide, 2026-11-29"
_GUIDE = "Google's thinking guide, ai.google.dev/gemini-api/docs/thinking, 2026-11-29"
_FACTS = (
    Fact(
        ("gemini-4-*",), _BUDGET, _any, REFUSED, "Gemini 4 takes no thinkingBudget",
        'Write "thinkingLevel": "LOW", "MEDIUM" or "HIGH"', _NEON,
    ),
    Fact(("gemini-4-*",), _LEVEL, _word("MINIMAL"), REFUSED, "Gemini 4 has no level MINIMAL", 'Write "LOW"', _NEON),
    Fact(
        ("gemini-3-pro*", "gemini-3.?-pro*"), _LEVEL, _word("MINIMAL"), REFUSED, "Pro models have no level MINIMAL",
        'Write "LOW"', "github.com/vellum-ai/vellum-assistant/pull/32687, 2026-05-30",
    ),
    Fact(
        ("gemini-3.7-flash",), _LEVEL, _word("MINIMAL"), REFUSED, "this model has no level MINIMAL", 'Write "LOW"',
        "Firebase's table of levels, github.com/checkmarble/llmberjack/pull/14, 2026-11-29",
    ),
    Fact(
        ("gemini-[123]*", "gemini-4-argon*", "gemini-4-carbon*"), _LEVEL, _word("XHIGH"), _DOUBTFUL,
        "only Gemini 4 Hydrogen and Neon are known to have the level XHIGH", 'Write "HIGH"',
        "Google's guide of Gemini 4 Argon has low, medium and high, ai.google.dev, 2026-11-29",
    ),
    Fact(
        ("gemini-2.5-*",), _LEVEL, _any, REFUSED, "Gemini 2.5 takes no thinkingLevel", 'Write "thinkingBudget"',
        "github.com/RooCodeInc/Roo-Code/issues/10700, 2026-01-13; QwenLM/qwen-code#9094, 2026-08-13",
    ),
    Fact(
        ("gemini-2.5-pro*",), _BUDGET, _outside(128, 32_768), REFUSED,
        "the budget of this model is 128 to 32,768, or -1",
        "Write one of these", f"{_GUIDE}; github.com/earendil-works/pi/issues/3460, 2026-04-20",
    ),
    Fact(
        ("gemini-2.5-flash-lite*",), _BUDGET, _outside(512, 24_576, 0), REFUSED,
        "the budget of this model is 0, 512 to 24,576, or -1", "Write one of these", _GUIDE,
    ),
    Fact(
        ("gemini-2.5-flash", "gemini-2.5-flash-[!li]*"), _BUDGET, _outside(0, 24_576), REFUSED,
        "the budget of this model is 0 to 24,576, or -1", "Write one of these", _GUIDE,
    ),
    Fact(
        ("gemini-3.5-flash-lite*",), _BUDGET, lambda value: as_number(value) == 0, _DOUBTFUL,
        "this model was seen to refuse a budget of 0", 'Write "thinkingLevel": "MINIMAL"',
        "github.com/googleapis/python-genai/issues/2936, on the Developer API, 2026-09-08",
    ),
    Fact(
        ("gemini-4-*",), ("candidateCount",), _above(1), REFUSED, "Gemini 4 gives one candidate",
        "Leave it out, and send the row several times", _NEON,
    ),
    Fact(
        ("gemini-3*",), ("candidateCount",), _above(1), _DOUBTFUL, "Gemini 3 may give one candidate only",
        "Leave it out, and send the row several times",
        "refused in googleapis/js-genai#1609, 2026-05-18; taken by Vertex AI in python-genai#1723, 2026-04-10",
    ),
    *(
        Fact((model,), (name,), _nonzero, rule, f"{who} {name}", "Leave it out", source)
        for name in ("presencePenalty", "frequencyPenalty")
        for model, rule, who, source in (
            ("gemini-4-*", REFUSED, "Gemini 4 takes no", _NEON),
            ("gemini-3*", REFUSED, "Gemini 3 takes no",
             "github.com/google-gemini/cookbook/issues/1290, 2026-07-17; Ikalus1988/MisakaNet#1473, 2026-09-04"),
            ("gemini-2.5-*", _DOUBTFUL, "Gemini 2.5 was seen to refuse",
             "github.com/vercel/ai/issues/8943, on the Developer API, 2025-09"),
        )
    ),
    Fact(
        ("gemini-3.5-flash",), ("responseLogprobs",), lambda value: value is True, REFUSED,
        "this model gives no logprobs", "Leave it out, and logprobs too",
        "github.com/GoogleCloudPlatform/generative-ai/issues/2947, 2026-06-22",
    ),
    *(
        Fact(("gemini-4-*",), (name,), _any, _DOUBTFUL, f"Gemini 4 ignores {name}", "Leave it out", _NEON)
        for name in ("temperature", "topP", "topK")
    ),
)  # fmt: skip


@functools.lru_cache(maxsize=16)
def facts_of(model: str) -> tuple[Fact, ...]:
    """Return what is known of a model; nothing for one that is not Google's own.

    :param model: as a job names it.
    """
    name = "" if is_outside_catalog(model) else base_name(model)
    return tuple(fact for fact in _FACTS if any(fnmatchcase(name, glob) for glob in fact.models))


def model_faults(config: dict[str, Any], facts: tuple[Fact, ...]) -> Iterator[Fault]:
    """Report what a model does not take of a ``generationConfig``."""
    for fact in facts:
        value: Any = config
        at = ""
        for name in fact.path:
            at += f".{spelling(value, name)}"
            value = member(value, name) if isinstance(value, dict) else None
        if value is not None and fact.is_wrong(value):
            yield (at, fact.rule, fact.message, fact.cure)
