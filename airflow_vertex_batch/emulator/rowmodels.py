"""Does this model take these settings? Settings that some models refuse with 400, according to users of the service and
its documentation (2026-11-29; the source of each is named beside it).

Invariants: as in `rowcheck`: a check takes a canonical request, returns the service's words or nothing, and never
raises. Tuned models and those of other publishers take everything here.
"""

from __future__ import annotations

import math
import re
from typing import Any

from airflow_vertex_batch.core.domain.catalog import base_name, is_outside_catalog

_FAMILY = re.compile(r"gemini-(\d)(?:\.(\d+))?-")


def model_problem(config: dict[str, Any], model: str, *, takes_contested: bool) -> str:
    """Return why a model refuses a ``generationConfig``, or an empty text.

    :param model: as the job names it.
    :param takes_contested: whether settings pass of which reports disagree, or that only the Developer API was seen to
        refuse.
    """
    name = base_name(model)
    match = _FAMILY.match(name)
    if match is None or is_outside_catalog(model):
        return ""
    family = (int(match[1]), int(match[2] or 0))
    thinking = config.get("thinkingConfig")
    thinking = thinking if isinstance(thinking, dict) else {}
    found = (
        _level_problem(str(thinking.get("thinkingLevel", "")).upper(), name, family, takes_contested),
        _budget_problem(thinking.get("thinkingBudget"), name, family, takes_contested),
        _candidates_problem(_number(config.get("candidateCount")), family, takes_contested),
        _penalty_problem(config, family, takes_contested),
        _logprobs_problem(config, name),
    )
    return next(filter(None, found), "")


def _level_problem(level: str, name: str, family: tuple[int, int], takes_contested: bool) -> str:  # noqa: FBT001 - handed down
    if level and family == (2, 5):
        # github.com/RooCodeInc/Roo-Code/issues/10700, 2026-01-13.
        return "Thinking level is not supported for this model."
    has_no_minimal = family[0] == 4 or (family[0] == 3 and "-pro" in name) or name == "gemini-3.7-flash"  # noqa: PLR2004
    has_no_highest = name.startswith(("gemini-4-argon", "gemini-4-carbon")) or family[0] < 4  # noqa: PLR2004
    if (level == "MINIMAL" and has_no_minimal) or (level == "XHIGH" and has_no_highest and not takes_contested):
        # github.com/vellum-ai/vellum-assistant/pull/32687, 2026-05-30; of Gemini 4: dev.to/aihubmix, 2026-11-29.
        return f"Thinking level {level} is not supported for this model."
    return ""


def _budget_problem(value: Any, name: str, family: tuple[int, int], takes_contested: bool) -> str:  # noqa: FBT001 - handed down
    if value is None:
        return ""
    if family[0] == 4:  # noqa: PLR2004
        # dev.to/aihubmix, Gemini 4 Neon migration, 2026-11-29; its words: github.com/aduermael/herm/issues/23.
        return "Thinking budget is not supported for this model."
    budget = _number(value)
    if family == (2, 5) and not _fits(budget, name):
        # github.com/RooCodeInc/Roo-Code/issues/4399, 2025-06-06; ranges: ai.google.dev/gemini-api/docs/thinking.
        return f"The thinking budget ({value}) is invalid."
    if budget == 0 and name.startswith("gemini-3.5-flash-lite") and not takes_contested:
        # github.com/googleapis/python-genai/issues/2936, 2026-09-08.
        return "The thinking budget (0) is invalid."
    return ""


def _fits(budget: float, name: str) -> bool:
    if budget == -1:
        return True
    if name.startswith("gemini-2.5-pro"):
        return 128 <= budget <= 32_768  # noqa: PLR2004
    if name.startswith("gemini-2.5-flash-lite"):
        return budget == 0 or 512 <= budget <= 24_576  # noqa: PLR2004
    return 0 <= budget <= 24_576 or not name.startswith("gemini-2.5-flash") or "image" in name  # noqa: PLR2004


def _candidates_problem(count: float, family: tuple[int, int], takes_contested: bool) -> str:  # noqa: FBT001 - handed down
    if count > 1 and (family[0] == 4 or (family[0] == 3 and not takes_contested)):  # noqa: PLR2004
        # googleapis/js-genai#1609, 2026-05-18; python-genai#1723 has it work on Vertex AI, 2026-04-10.
        return "Multiple candidates is not enabled for this model"
    return ""


def _penalty_problem(config: dict[str, Any], family: tuple[int, int], takes_contested: bool) -> str:  # noqa: FBT001 - handed down
    values = [_number(config.get(name)) for name in ("presencePenalty", "frequencyPenalty")]
    if any(values) and (family >= (3, 0) or (family == (2, 5) and not takes_contested)):
        # github.com/google-gemini/cookbook/issues/1290, 2026-07-17: 0 is taken, everything else is not.
        return "Penalty is not enabled for this model"
    return ""


def _logprobs_problem(config: dict[str, Any], name: str) -> str:
    if config.get("responseLogprobs") is True and name == "gemini-3.5-flash":
        # github.com/GoogleCloudPlatform/generative-ai/issues/2947, 2026-06-22.
        return "Unable to submit request because Logprobs is not supported for this model."
    return ""


def _number(value: Any) -> float:
    """Return a number, also if it is written as a text; 0 for anything else, which other checks refuse."""
    try:
        number = 0.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) else 0.0
