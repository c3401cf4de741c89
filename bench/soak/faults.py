"""What goes wrong in a soak? About five of a hundred calls, jobs and rows, each in another way.

The emulator consumes a script in order. `RandomFaults` writes a new one for each short while, so that faults lie at
random places among the calls, and counts what was met of the old one.

Invariant: what was in the scenario before stays in it, behind ours.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from typing import Any

import requests

Json = dict[str, Any]
SHARE = 0.05
#: Only jobs of the soak are struck; a list names none, so it may be anybody's.
_LABELS = {"airflow-dag": "soak_*"}


def _http(status: int, **more: Any) -> Json:
    return {"do": "http", "status": status, **more}


#: A create must not be refused for good: that is a person's business. 35 seconds are more than a client waits.
_CREATE = (
    _http(503), _http(503, when="after"), _http(500, html=True), _http(504, when="after"), _http(429, retry_after=3),
    _http(429), {"do": "drop"}, {"do": "drop", "when": "after"}, {"do": "delay", "seconds": 4},
    {"do": "delay", "seconds": 4, "when": "after"}, {"do": "delay", "seconds": 35}, {"do": "expire_token"},
    {"do": "delay", "seconds": 35, "when": "after"}, _http(408, when="after"),
)  # fmt: skip
_READ = (
    _http(500), _http(502, html=True), _http(503), _http(504), _http(429, retry_after=5), _http(429), {"do": "drop"},
    {"do": "drop", "when": "after"}, {"do": "delay", "seconds": 4}, {"do": "expire_token"},
)  # fmt: skip
#: A late create and a late list together stay below the settle time of the tasks (see `dags`).
_LIST = (*_READ, {"do": "stale", "seconds": 10}, {"do": "stale", "seconds": 20})
_CALLS = {"create": _CREATE, "get": _READ, "list": _LIST}


def _end(state: str, **more: Any) -> Json:
    return {"do": "end", "state": f"JOB_STATE_{state}", **more}


_JOB = (
    _end("EXPIRED", after=0.5, code=4, message="Too late."), _end("CANCELLED", after=0.5, code=1),
    _end("FAILED", after=0.5, code=13, message="Internal error."), _end("PARTIALLY_SUCCEEDED", after=0.7),
    {"do": "hold", "state": "JOB_STATE_PENDING", "from_pending": True, "seconds": 150},
    {"do": "hold", "state": "JOB_STATE_PAUSED", "after": 0.5, "seconds": 100},
    {"do": "hold", "state": "JOB_STATE_OF_TOMORROW", "after": 0.5, "seconds": 100},
    _end("EXPIRED", after=0.25, code=4), _end("CANCELLED", after=0.75, code=1),
    # Without a row: the task fails for good, and a person clears it.
    _end("FAILED", from_pending=True, code=9, message="The service agent cannot read the input."),
)  # fmt: skip


def row_faults() -> list[Json]:
    """Return what strikes rows for as long as it is there: all but the last are cured by another try."""
    first = {"labels": _LABELS | {"avb-round": "0"}}
    kinds = [
        {"do": "row_error", "code": 429, **first}, {"do": "row_error", "code": 503, **first},
        {"do": "row_error", "code": 500, **first}, {"do": "missing", **first}, {"do": "empty", **first},
        {"do": "truncated", **first}, {"do": "finish", "reason": "OTHER", **first},
        {"do": "duplicated", "labels": _LABELS}, {"do": "thoughts_first", "labels": _LABELS},
        {"do": "no_usage", "labels": _LABELS}, {"do": "key", "becomes": "null", "labels": _LABELS},
        {"do": "key", "becomes": "dropped", "labels": _LABELS}, {"do": "blocked", "labels": _LABELS},
    ]  # fmt: skip
    width = SHARE / len(kinds)
    places = ({"times": None, "from_ratio": number * width, "ratio": width} for number in range(len(kinds)))
    return [fault | place for fault, place in zip(kinds, places, strict=True)]


class RandomFaults:
    """Faults for one emulator, a while at a time.

    :param url: of the emulator.
    """

    def __init__(self, url: str, seed: int = 4) -> None:
        self._scenario, self._books = f"{url}/emulator/scenario", f"{url}/emulator/books"
        self._before: list[Json] = [entry["fault"] for entry in self._get()["faults"]]
        self._chance = random.Random(seed)
        self._calls = {name: itertools.cycle(self._shuffled(kinds)) for name, kinds in _CALLS.items()}
        self._jobs = itertools.cycle(self._shuffled(_JOB))
        self.met: Counter[str] = Counter()
        self._expected = dict.fromkeys(_CALLS, 20)
        self._last: Counter[str] = Counter()

    def change(self) -> None:
        """Count what was met, and send faults for the next while."""
        self._count()
        calls = [fault for name in _CALLS for fault in self._spread(name)]
        self._put([*calls, *self._job_faults(), *row_faults(), *self._before])

    def clear(self) -> None:
        """Count what was met, and let everything be as it was."""
        self._count()
        self._put(self._before)

    def _spread(self, name: str) -> list[Json]:
        """Return faults for twice as many calls as the last while had, with calls between them that pass."""
        made: list[Json] = []
        labels = {} if name == "list" else {"labels": _LABELS}
        for _ in range(round(2 * self._expected[name] * SHARE)):
            # Each call has the same chance, whatever came before it.
            passing = int(math.log(1 - self._chance.random()) / math.log(1 - SHARE))
            if passing:
                made.append({"do": "pass", "on": name, "times": passing} | labels)
            made.append({"times": 1} | next(self._calls[name]) | {"on": name} | labels)
        return made

    def _job_faults(self) -> list[Json]:
        count = self._expected["create"] * SHARE
        chosen = int(count) + (self._chance.random() < count % 1)
        return [next(self._jobs) | {"labels": _LABELS, "times": 1} for _ in range(chosen)]

    def _count(self) -> None:
        """Count the faults met, and how many calls the next while may bring."""
        for entry in self._get()["faults"]:
            if entry["used"] and entry["fault"] not in self._before and entry["fault"]["do"] != "pass":
                self.met[described(entry["fault"])] += entry["used"]
        calls = Counter(requests.get(self._books, timeout=60).json()["calls"])
        self._expected = {name: max(20, calls[name] - self._last[name]) for name in _CALLS}
        self._last = calls

    def _shuffled(self, kinds: tuple[Json, ...]) -> list[Json]:
        return self._chance.sample(kinds, len(kinds))

    def _get(self) -> Json:
        answer = requests.get(self._scenario, timeout=60)
        answer.raise_for_status()
        return answer.json()  # type: ignore[no-any-return]

    def _put(self, faults: list[Json]) -> None:
        now = self._get()
        kept = {name: now[name] for name in ("switches", "pace", "limits", "catalog")}
        answer = requests.put(self._scenario, json={**kept, "faults": faults}, timeout=60)
        assert answer.ok, answer.text


def described(fault: Json) -> str:
    """Return what kind of fault this is: what is struck, and how."""
    if "on" in fault:
        how = f" {fault['status']}" if fault["do"] == "http" else ""
        return f"{fault['on']}: {fault['do']}{how} {fault.get('when') or ''}".rstrip()
    if "state" in fault:
        return f"job: {fault['do']} {fault['state'].removeprefix('JOB_STATE_').lower()}"
    return f"row: {fault['do']}"
