"""How did the service write an output line at some time? The same answer, in the forms that real files show.

Evidence, all of it lines as their authors got them (`tests/cases/real/index.md`): o01 of 2024-11; o03 and o07 of
2025-08 and 2025-09; o05 of 2025-12 (o15 of 2025-10 has its order).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_vertex_batch.emulator.wire import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable

Form = Literal["page", "2024-11", "2025-08", "2025-11"]

#: Members of a response, a candidate and the usage that a form does not have yet.
_LATER = frozenset({"createTime", "responseId"})
_LATER_USAGE = frozenset({"billablePromptUsage", "promptTokensDetails", "candidatesTokensDetails", "trafficType"})
#: How long before its line was written an answer was made, in o05; and how long after, in o03.
_BEFORE, _AFTER = timedelta(milliseconds=636), timedelta(milliseconds=117)
_LAST = ("request", "status", "response", "processed_time")


def written(line: dict[str, Any], form: Form) -> dict[str, Any]:
    """Return a line in one of the forms; on the user's page, it is as it was made."""
    return _FORMS[form](line) if form in _FORMS else line


def _of_2024(line: dict[str, Any]) -> dict[str, Any]:
    response = _without(line.get("response") or {}, _LATER)
    if "usageMetadata" in response:
        response["usageMetadata"] = _without(response["usageMetadata"], _LATER_USAGE)
    return _plain(line | {"response": response})


def _of_summer(line: dict[str, Any]) -> dict[str, Any]:
    made = _plain(line)
    if "usageMetadata" in made["response"]:
        made["response"]["usageMetadata"] = _without(made["response"]["usageMetadata"], {"billablePromptUsage"})
    return _created(made, _AFTER)


def _of_winter(line: dict[str, Any]) -> dict[str, Any]:
    """Members beside the request come first; the time is written with six digits, after all others."""
    first = {name: value for name, value in line.items() if name not in _LAST}
    made = {**first, **{name: line[name] for name in _LAST if name in line}}
    time = datetime.fromisoformat(line["processed_time"])
    return _created(made | {"processed_time": time.isoformat(timespec="microseconds")}, -_BEFORE)


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line of before 2025-11: three digits of a second, and no score."""
    response = dict(line.get("response") or {})
    if "candidates" in response:
        response["candidates"] = [_candidate(candidate) for candidate in response["candidates"]]
    time = datetime.fromisoformat(line["processed_time"])
    return line | {"processed_time": time.isoformat(timespec="milliseconds"), "response": response}


def _candidate(candidate: dict[str, Any]) -> dict[str, Any]:
    made = _without(candidate, {"score"})
    # Of an answer without content there is no average: o01, line 9.
    return made | {"avgLogprobs": "NaN"} if made.get("finishReason") == "RECITATION" else made


def _created(line: dict[str, Any], later: timedelta) -> dict[str, Any]:
    if "createTime" not in (line.get("response") or {}):
        return line
    time = datetime.fromisoformat(line["processed_time"]) + later
    return line | {"response": line["response"] | {"createTime": rfc3339(time)}}


def _without(doc: dict[str, Any], names: frozenset[str] | set[str]) -> dict[str, Any]:
    return {name: value for name, value in doc.items() if name not in names}


_FORMS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "2024-11": _of_2024,
    "2025-08": _of_summer,
    "2025-11": _of_winter,
}
