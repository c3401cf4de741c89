"""What goes wrong in a bad night? Every disturbance of a row that the emulator knows, with what must come of it.

A `Night` gives each disturbance its own slice of the keys and says, from the disturbances alone, which rows each repair
round has to send and which end as dead letters. Seven rows of a hundred fail; two more have an odd but good answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from airflow_vertex_batch.emulator.row_faults import RowFault
from airflow_vertex_batch.emulator.scenario import fault_type

#: The first budget of the answers. Each repair round doubles it for truncated rows.
MAX_OUTPUT_TOKENS = 256
FAILING_SHARE, ODD_SHARE = 0.07, 0.02
SEED = 22

_ROUND_0, _ROUNDS_0_AND_1 = {"avb-round": "0"}, {"avb-round": "[01]"}


class Disturbance(msgspec.Struct, frozen=True):
    """One way in which a row can go wrong.

    :param fault: what the emulator's scenario says, but for the slice.
    :param rounds: the rounds that send the row.
    :param end: status and code of the dead letter; None when the row has a good answer after its last round.
    """

    fault: dict[str, Any]
    rounds: tuple[int, ...] = (0,)
    end: tuple[str, str] | None = None


def _finish(reason: str) -> dict[str, Any]:
    return {"do": "finish", "reason": reason}


def _error(code: int, **members: Any) -> dict[str, Any]:
    return {"do": "row_error", "code": code, "message": "No.", **members}


#: What may happen once, and is over when the row is sent again.
#: A part of an answer that is no text.
CALL = {"functionCall": {"args": {"id": 7}, "name": "look_up"}}
_PASSING: tuple[dict[str, Any], ...] = (
    *map(_finish, ("OTHER", "IMAGE_OTHER", "NO_IMAGE", "MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE")),
    *map(_finish, ("UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "CONTINUATION", "A_REASON_OF_TOMORROW")),
    *map(_error, (429, 499, 500, 503, 504)),
    _error(400, status="FAILED_PRECONDITION", message="Service agents are being provisioned."),
    {"do": "row_error", "text": "Deadline exceeded before prefill"},
    {"do": "missing"},
    {"do": "empty"},
    {"do": "parts"},
    {"do": "invalid_json"},
    {"do": "invalid_json", "text": '{"mood": "purple"}'},
    {"do": "finish", "reason": "OTHER", "partial": True},
    {"do": "truncated"},
)
_FAILING: tuple[Disturbance, ...] = (
    *(Disturbance(fault | {"labels": _ROUND_0}, (0, 1)) for fault in _PASSING),
    Disturbance({"do": "truncated", "below_tokens": 2 * MAX_OUTPUT_TOKENS}, (0, 1)),
    Disturbance({"do": "truncated", "below_tokens": 2 * MAX_OUTPUT_TOKENS, "thinking": True}, (0, 1)),
    Disturbance({"do": "truncated", "below_tokens": 4 * MAX_OUTPUT_TOKENS}, (0, 1, 2)),
    Disturbance({"do": "truncated", "below_tokens": 4 * MAX_OUTPUT_TOKENS, "thinking": True}, (0, 1, 2)),
    Disturbance(_error(503) | {"labels": _ROUNDS_0_AND_1}, (0, 1, 2)),
    Disturbance({"do": "missing", "labels": _ROUNDS_0_AND_1}, (0, 1, 2)),
    Disturbance({"do": "empty", "labels": _ROUNDS_0_AND_1}, (0, 1, 2)),
    Disturbance({"do": "invalid_json", "labels": _ROUNDS_0_AND_1}, (0, 1, 2)),
    # Nobody answers these, and asking again is no use.
    Disturbance({"do": "blocked"}, end=("blocked", "SAFETY")),
    Disturbance({"do": "blocked", "reason": "JAILBREAK", "message": "No."}, end=("blocked", "JAILBREAK")),
    *(
        Disturbance(_finish(reason), end=("blocked", reason))
        for reason in ("SAFETY", "RECITATION", "BLOCKLIST", "SPII")
    ),
    Disturbance(_finish("SAFETY") | {"partial": True}, end=("blocked", "SAFETY")),
    Disturbance(_error(400), end=("failed", "INVALID_ARGUMENT")),
    Disturbance(_error(403), end=("failed", "PERMISSION_DENIED")),
    # Worth asking again, and never answered.
    Disturbance(_error(500), (0, 1, 2), ("failed", "INTERNAL")),
    Disturbance({"do": "missing"}, (0, 1, 2), ("missing", "JOB_STATE_SUCCEEDED")),
)  # fmt: skip
_ODD: tuple[Disturbance, ...] = tuple(
    Disturbance(fault)
    for fault in (
        {"do": "duplicated"},
        {"do": "thoughts_first"},
        {"do": "cached"},
        {"do": "tool_use"},
        {"do": "parts", "parts": [CALL]},
        {"do": "no_usage"},
        {"do": "no_usage", "only_total": True},
        {"do": "key", "becomes": "dropped"},
        {"do": "key", "becomes": "null"},
        {"do": "key", "becomes": "number"},
    )
)


class Night:
    """Who is struck by what among `keys`.

    :param labels: labels of the jobs concerned, beside those of a disturbance.
    """

    def __init__(self, keys: Iterable[str], **labels: str) -> None:
        self.keys = frozenset(keys)
        disturbances = [
            (one, {**one.fault, **where, "labels": one.fault.get("labels", {}) | labels})
            for one, where in zip((*_FAILING, *_ODD), _slices(), strict=True)
        ]
        self._struck = dict(_strikes(self.keys, disturbances))
        struck = list(self._struck.values())
        #: For a scenario: those that strike a key, each in its slice.
        self.faults = [fault for one, fault in disturbances if one in struck]

    @property
    def failing(self) -> frozenset[str]:
        """The keys without a good answer after the first job."""
        return frozenset(key for key, one in self._struck.items() if one.rounds != (0,) or one.end)

    @property
    def dead(self) -> dict[str, tuple[str, str]]:
        """The keys that have no good answer in the end, with status and code."""
        return {key: one.end for key, one in self._struck.items() if one.end}

    def sent(self, number: int) -> frozenset[str]:
        """The keys that round `number` has to send."""
        if number == 0:
            return self.keys
        return frozenset(key for key, one in self._struck.items() if number in one.rounds)

    def struck_by(self, do: str, **members: Any) -> frozenset[str]:
        """The keys that a disturbance of this name and these members strikes."""
        wanted = {"do": do, **members}.items()
        return frozenset(key for key, one in self._struck.items() if wanted <= one.fault.items())


def _strikes(
    keys: Iterable[str], disturbances: list[tuple[Disturbance, dict[str, Any]]]
) -> Iterator[tuple[str, Disturbance]]:
    """Yield who is struck by what: the first in the script that chooses a row strikes it, as in the emulator."""
    read: list[tuple[Disturbance, RowFault]] = [
        (one, msgspec.convert(fault, fault_type())) for one, fault in disturbances
    ]
    for key in keys:
        struck = next((one for one, fault in read if fault.chooses(key, 0)), None)
        if struck is not None:
            yield key, struck


def _slices() -> list[dict[str, float]]:
    made: list[dict[str, float]] = []
    start = 0.0
    for group, share in ((_FAILING, FAILING_SHARE), (_ODD, ODD_SHARE)):
        made += [
            {"seed": SEED, "from_ratio": start + index * share / len(group), "ratio": share / len(group)}
            for index in range(len(group))
        ]
        start += share
    return made
