"""What may happen to a batch? Every misfortune of the chaos table as data: add a case to `SCENARIOS`, and it is run.

The kills after each single effect are not listed: `kills` makes one case for each effect that a quiet run was seen to
have, so that a new effect is tried as soon as there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from stack.chaos.effects import QUESTION
from stack.chaos.night import Case, Outcome, Scene
from stack.chaos.proxy import Plan
from stack.chaos.victims import (
    kill_supervisor,
    kill_task_and_supervisor,
    spare,
    stop_task_and_supervisor,
    waken,
)

#: Mode → DAG.
MODES = {"sync": "chaos_sync", "deferrable": "chaos_deferrable", "start-from-trigger": "chaos_from_trigger"}
INTENT, CREATED, RECORDED = "create: write intent", "create: create job", "create: write submission"
ANSWERS = "export: write answers"
#: The task of the group that creates the jobs.
_CREATE_TASK = "batch.create"


def never_ending(**more: Any) -> dict[str, Any]:
    """Return a fault that keeps a job in the queue."""
    return {"do": "hold", "state": "JOB_STATE_PENDING", "from_pending": True, **more}


#: Long enough that somebody can do something while the job waits: 20 seconds at the night's speed.
A_WHILE = never_ending(seconds=400.0)
FOR_EVER = never_ending()


@dataclass(frozen=True)
class Misfortune:
    """One line of the table, for one mode or several.

    :param what: what happens, for a reader.
    :param after: after what, for a reader.
    :param jobs: jobs that must be billed: the batch, and the row that failed at first.
    """

    what: str
    after: str
    plan: Callable[[Scene], Plan] = lambda _scene: Plan()
    meanwhile: Callable[[Scene], None] | None = None
    faults: tuple[dict[str, Any], ...] = ()
    modes: tuple[str, ...] = tuple(MODES)
    dag_id: str = ""
    jobs: int = 2
    ends: str = "success"
    lands: bool = True


def struck(after: str, **more: Any) -> Callable[[Scene], Plan]:
    """Return a plan that does not depend on the scene."""
    return lambda _scene: Plan(after=after, **more)


# What people and other processes do ----------------------------------------------------------------------------------


def clear_the_run(scene: Scene) -> None:
    """Clear everything after the run's success."""
    scene.until_ended()
    scene.clear()


def clear_create(scene: Scene) -> None:
    """Clear the task that creates the jobs, and no other."""
    scene.until_ended()
    scene.clear([_CREATE_TASK], downstream=False)


def clear_repair(scene: Scene) -> None:
    """Clear the repair task and what follows."""
    scene.until_ended()
    scene.clear(["batch.repair"])


def clear_one_part(scene: Scene) -> None:
    """Clear one of two mapped tasks."""
    scene.until_ended()
    scene.clear([["batch", 1]])


def clear_while_waiting(scene: Scene) -> None:
    """Clear the run while its job is in the queue."""
    scene.until_waiting()
    scene.clear()


def edit_and_clear(scene: Scene) -> None:
    """Edit the input while its job is in the queue, and clear the run."""
    scene.until_waiting()
    scene.write_input("edited row {key} of {case}")
    scene.clear()


def mark_failed(scene: Scene) -> None:
    """Mark the waiting task failed."""
    task = scene.until_waiting()
    scene.airflow.set_task_state(scene.case.dag_id, scene.run_id, task["task_id"], "failed")


def waken_after_the_job(scene: Scene) -> None:
    """Let the stopped attempt go on once its successor has created the job."""
    scene.until("the successor's job", lambda: scene.record.jobs)
    waken(scene.record.victim)


SCENARIOS: tuple[Misfortune, ...] = (
    Misfortune("task and its supervisor killed", CREATED, struck(CREATED, strike=kill_task_and_supervisor)),
    Misfortune("task and its supervisor killed", ANSWERS, struck(ANSWERS, strike=kill_task_and_supervisor)),
    Misfortune(
        "two at once: supervisor killed, the task works on", INTENT, struck(INTENT, strike=kill_supervisor),
        modes=("sync", "start-from-trigger"),
    ),
    Misfortune(
        "two at once: task stopped, wakes beside its successor", INTENT,
        struck(INTENT, strike=stop_task_and_supervisor), waken_after_the_job,
        modes=("sync", "start-from-trigger"),
    ),
    Misfortune("task killed while it waits", QUESTION, struck(QUESTION), modes=("sync",)),
    Misfortune("task killed, its create call arrives 10 s later", INTENT, lambda _: Plan(create_late_s=10.0)),
    Misfortune("task killed, the list lags 20 s", CREATED, struck(CREATED, hides_s=20.0)),
    Misfortune(
        "task killed, its ledger lost", CREATED,
        lambda scene: Plan(after=CREATED, then=lambda: scene.forget("ledger")),
    ),
    Misfortune(
        "task killed, its ledger lost", RECORDED,
        lambda scene: Plan(after=RECORDED, then=lambda: scene.forget("ledger")),
    ),
    Misfortune("task killed, its job's labels lost", RECORDED, struck(RECORDED, strips_labels=True)),
    Misfortune("run cleared", "its success", meanwhile=clear_the_run),
    Misfortune("create task cleared", "its success", meanwhile=clear_create, modes=("start-from-trigger",)),
    Misfortune("repair task cleared", "its success", meanwhile=clear_repair, modes=("start-from-trigger",)),
    Misfortune(
        "one of two mapped tasks cleared", "its success", meanwhile=clear_one_part, modes=("deferrable",),
        dag_id="chaos_mapped", jobs=4,
    ),
    Misfortune("run cleared while it waits", RECORDED, meanwhile=clear_while_waiting, faults=(A_WHILE,)),
    Misfortune(
        "input edited and run cleared while it waits", RECORDED, meanwhile=edit_and_clear, faults=(FOR_EVER,), jobs=3
    ),
    Misfortune(
        "marked failed while it waits", RECORDED, meanwhile=mark_failed, faults=(FOR_EVER,),
        jobs=1, ends="failed", lands=False,
    ),
)  # fmt: skip


def scenarios() -> Iterator[tuple[Misfortune, str, Case]]:
    """Yield every misfortune in each of its modes."""
    for number, one in enumerate(SCENARIOS, start=1):
        for mode in one.modes:
            name = f"{number:02d}_{mode.replace('-', '_')}"
            yield one, mode, Case(
                name=name, dag_id=one.dag_id or MODES[mode], plan=one.plan, meanwhile=one.meanwhile, faults=one.faults,
                jobs=one.jobs, ends=one.ends, lands=one.lands,
            )  # fmt: skip


def kills(mode: str, effects: Sequence[str]) -> Iterator[tuple[Misfortune, str, Case]]:
    """Yield a kill of the task after each of its effects."""
    for number, effect in enumerate(effects, start=1):
        one = Misfortune("task killed", effect, struck(effect))
        name = f"kill_{mode.replace('-', '_')}_{number:02d}"
        yield one, mode, Case(name=name, dag_id=MODES[mode], plan=one.plan)
