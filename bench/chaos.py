"""What is paid twice? Our operator beside the Google provider's two, each disturbed alike, by the emulator's books.

All run in one real Airflow, behind the proxy of `stack.chaos`; their clients are led to the emulator, and nothing else
about them is changed (`bench/chaos_preload`). Each cell is one run: jobs billed, and jobs that nobody waits for.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.chaos import document
from stack.chaos.effects import QUESTION
from stack.chaos.night import Case, Outcome, Scene, a_night
from stack.chaos.process_kills import kill_task, kill_task_and_supervisor
from stack.chaos.proxy import Plan

#: Operator → the first part of its DAGs' names.
_OPERATORS = {
    "VertexBatchOperator": "ours",
    "CreateBatchPredictionJobOperator": "vertex_ai",
    "GenAIGeminiCreateBatchJobOperator": "gen_ai",
}
_HERE = Path(__file__).parent
_PAGE = _HERE.parent / "docs" / "chaos.md"
_CREATED = "create: create job"
#: A quarter of a minute at the night's speed: Airflow 3.3 fails a task whose trigger ends in its first seconds, and
#: only our trigger waits for that to be over.
_PENDING_S = 300.0


@dataclass(frozen=True)
class _Disturbance:
    """What happens to all operators alike.

    :param apart: in an act of its own, because it also hurts the runs beside it.
    """

    what: str
    plan: Callable[[Scene], Plan] = lambda _scene: Plan()
    meanwhile: Callable[[Scene], None] | None = None
    faults: tuple[dict[str, Any], ...] = ()
    modes: tuple[str, ...] = ("sync", "deferrable")
    apart: bool = False


def _clear(scene: Scene) -> None:
    scene.until_ended()
    scene.clear()


def _clear_waiting(scene: Scene) -> None:
    scene.until_waiting()
    scene.clear()
    scene.release()


def _mark_failed(scene: Scene) -> None:
    task = scene.until_waiting()
    scene.airflow.set_task_state(scene.case.dag_id, scene.run_id, task["task_id"], "failed")


#: Until it is released or cancelled: how long a clear takes depends on the machine.
_HELD: tuple[dict[str, Any], ...] = ({"do": "hold", "state": "JOB_STATE_PENDING", "from_pending": True},)


def _killing_triggerer(scene: Scene) -> Plan:
    barrier = scene.night.barrier("triggerer", len(_OPERATORS), lambda: scene.night.kill("triggerer"))
    return Plan(after=QUESTION, strike=barrier.strike)


_DISTURBANCES = (
    _Disturbance("nothing"),
    _Disturbance("answer to the create call lost", faults=({"do": "drop", "on": "create", "when": "after"},)),
    _Disturbance("one question answered with 503", faults=({"do": "http", "on": "get", "status": 503},)),
    _Disturbance("task and supervisor killed after the create call",
                 lambda _: Plan(_CREATED, strike=kill_task_and_supervisor), modes=("sync",)),
    _Disturbance("task killed while it waits", lambda _: Plan(QUESTION), modes=("sync",)),
    _Disturbance("run cleared after its success", meanwhile=_clear),
    _Disturbance("run cleared while it waits", meanwhile=_clear_waiting, faults=_HELD),
    _Disturbance("marked failed while it waits", meanwhile=_mark_failed, faults=_HELD),
    # Whoever sends the create call: a task, or the triggerer with all that waits in it.
    _Disturbance("its process killed after the create call", lambda _: Plan(_CREATED, strike=kill_task), apart=True),
    _Disturbance("triggerer killed while it waits", _killing_triggerer, modes=("deferrable",), apart=True),
)  # fmt: skip


def measure() -> tuple[list[str], list[list[object]]]:
    """Return the jobs billed and left running, for each disturbance and mode, by operator."""
    found: dict[tuple[str, str], dict[str, Outcome]] = {}
    paths = (str(_HERE / "chaos_preload"), os.environ.get("PYTHONPATH", ""))
    lines = [(disturbance, mode, name, case) for disturbance, mode, name, case in _cases()]
    with (
        tempfile.TemporaryDirectory() as folder,
        a_night(Path(folder), _HERE / "chaos_dags", {"PYTHONPATH": os.pathsep.join(paths)}) as night,
    ):
        night.line = _request
        night.behave([case for *_, case in lines], pending_s=_PENDING_S)
        acts = [[line for line in lines if not line[0].apart]]
        acts += [
            [line for line in lines if line[0] is disturbance] for disturbance in _DISTURBANCES if disturbance.apart
        ]
        for act in acts:
            outcomes = night.run([case for *_, case in act])
            for (disturbance, mode, name, _), outcome in zip(act, outcomes, strict=True):
                found.setdefault((disturbance.what, mode), {})[name] = outcome
    headers = ["jobs billed, of these left running", "mode", *_OPERATORS]
    rows = [[what, mode, *(_cell(by[name]) for name in _OPERATORS)] for (what, mode), by in found.items()]
    if os.environ.get("CHAOS_DOC"):
        document.write(_PAGE, "comparison", headers, rows)
    return headers, rows  # type: ignore[return-value]  # texts are objects


def _cases() -> list[tuple[_Disturbance, str, str, Case]]:
    return [
        (
            each, mode, operator,
            Case(f"{name}_{mode}_{number:02d}", f"{name}_{mode}", each.plan, None, each.meanwhile, each.faults),
        )
        for number, each in enumerate(_DISTURBANCES)
        for mode in each.modes
        for operator, name in _OPERATORS.items()
    ]  # fmt: skip


def _request(key: str, text: str) -> dict[str, Any]:
    """Return a row as the request line that all three can send."""
    return {"key": key, "request": {"contents": [{"role": "user", "parts": [{"text": text}]}]}}


def _cell(outcome: Outcome) -> str:
    ended = "" if outcome.ended == "success" else f", run {outcome.ended}"
    return f"{len(outcome.jobs)}, {outcome.running}{ended}"
