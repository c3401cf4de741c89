"""How long does the check of an answer against the response schema take, against jsonschema alone?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from jsonschema.validators import validator_for

from airflow_vertex_batch.core.requests.answer_check import AnswerCheck

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMES, _ROUNDS = 3_000, 5
#: Kinds of properties that take turns, each with a value that fits.
_KINDS: tuple[tuple[dict[str, Any], Any], ...] = (
    ({"type": "string", "maxLength": 100}, "hello world"),
    ({"type": "number", "minimum": 0}, 3.5),
    ({"type": "string", "enum": ["good", "bad", "neutral"]}, "good"),
    ({"type": "array", "items": {"type": "string"}}, ["a", "b", "c"]),
)


def measure() -> tuple[list[str], list[list[object]]]:
    """Return the processor time of one good answer, the best of some rounds."""
    return ["good answer", "jsonschema", "ours", "times faster"], [_line(count) for count in (2, 12)]


def _line(count: int) -> list[object]:
    kinds = {f"p{number}": _KINDS[number % len(_KINDS)] for number in range(count)}
    schema = {"type": "object", "properties": {name: kind for name, (kind, _) in kinds.items()}, "required": [*kinds]}
    answer = {name: value for name, (_, value) in kinds.items()}
    judge, check = validator_for(schema)(schema), AnswerCheck(schema)
    plain, ours = (_microseconds(way, answer) for way in (judge.is_valid, check))
    return [f"{count} properties", f"{plain:.1f} µs", f"{ours:.2f} µs", f"{plain / ours:.0f}"]


def _microseconds(way: Callable[[Any], Any], answer: Any) -> float:
    spent = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(_TIMES):
            way(answer)
        spent.append(time.process_time() - began)
    return min(spent) / _TIMES * 1e6
