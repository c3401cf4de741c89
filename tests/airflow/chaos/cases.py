"""What may happen to a batch? Every disturbance of the chaos table as data: add one to `SCENARIOS`, and it is run.

The kills after each single effect are not listed: `kills` makes one case for each effect that a quiet run was seen to
have, so that a new effect is tried as soon as there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stack.chaos.effects import QUESTION
from stack.chaos.night import Case, Scene
from stack.chaos.process_kills import kill_supervisor, kill_task_and_supervisor, stop_task_and_supervisor, waken
from stack.chaos.proxy import Plan
from stack.chaos.second_airflow import REFUSED, WAITS
from tests.airflow.chaos.other_airflows import (
    by_command,
    by_operator,
    second_airflow_runs,
    swept_after_its_run_was_deleted,
)

#: Mode → DAG.
MODES = {"sync": "chaos_sync", "deferrable": "chaos_deferrable", "start-from-trigger": "chaos_from_trigger"}
#: Lands in a table: only its export differs from the others.
TO_TABLE = "deferrable-to-table"
INTENT, CREATED, RECORDED = "create: write intent", "create: create job", "create: write submission"
ANSWERS, CANCELLED, SUCCESS = "export: write answers", "cancel job", "its success"
EVERY = "every effect, one by one"
#: The first day of the DAGs that only a backfill runs.
_DAY = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Disturbance:
    """One line of the table, in one mode or several.

    :param what: what happens, for a reader.
    :param after: after what, for a reader.
    :param jobs: jobs of the batch that must be billed.
    :param repairs: jobs that must be billed for the row that fails at first.
    :param cancelled: how many of them must have been cancelled.
    :param parts: how many times the rows must have landed, each in a file of its own; 0 for not at all.
    :param ends: how the run must end.
    :param act: 0 for the cases that run side by side; those of acts 1 to 3 hurt every run, so each act runs alone.
    """

    what: str
    after: str
    plan: Callable[[Scene], Plan] = lambda _scene: Plan()
    begins: Callable[[Scene], None] | None = None
    meanwhile: Callable[[Scene], None] | None = None
    faults: tuple[dict[str, Any], ...] = ()
    modes: tuple[str, ...] = tuple(MODES)
    dag_id: str = ""
    jobs: int = 1
    repairs: int = 1
    cancelled: int = 0
    parts: int = 1
    ends: str = "success"
    act: int = 0

    def case(self, name: str, mode: str) -> Case:
        """Return what is to be run in a mode."""
        return Case(
            name=f"{name}_{mode.replace('-', '_')}",
            dag_id=self.dag_id or MODES.get(mode, "chaos_to_table"),
            plan=self.plan,
            begins=in_a_dataset if mode == TO_TABLE else self.begins,
            meanwhile=self.meanwhile,
            faults=self.faults,
        )


@dataclass(frozen=True)
class Line:
    """A disturbance in one mode, and the case that tries it."""

    disturbance: Disturbance
    mode: str
    case: Case


def struck(after: str, **more: Any) -> Callable[[Scene], Plan]:
    """Return a plan that does not depend on the scene."""
    return lambda _scene: Plan(after=after, **more)


def losing_log(after: str) -> Callable[[Scene], Plan]:
    """Return a plan that kills the task, and deletes what it wrote down about its jobs."""
    return lambda scene: Plan(after=after, then=scene.forget_logs)


#: Keeps a batch's first job in the queue until it is cancelled or the case lets it go: how long people and servers need
#: for what they do meanwhile depends on the machine.
HELD: tuple[dict[str, Any], ...] = ({"do": "hold", "state": "JOB_STATE_PENDING", "from_pending": True},)


# What people and other processes do ----------------------------------------------------------------------------------


def clear_the_run(scene: Scene) -> None:
    """Clear everything after the run's success."""
    scene.until_ended()
    scene.clear()


def clearing(*tasks: Any, downstream: bool = True) -> Callable[[Scene], None]:
    """Return what clears these tasks after the run's success."""

    def clear(scene: Scene) -> None:
        scene.until_ended()
        scene.clear(tasks, downstream=downstream)

    return clear


def clear_while_waiting(scene: Scene) -> None:
    """Clear the run while its job is in the queue."""
    scene.until_waiting()
    scene.clear()


def clear_and_let_go(scene: Scene) -> None:
    """Clear the run while its job is in the queue, and let the job go on."""
    clear_while_waiting(scene)
    scene.release()


def edit_and_clear(scene: Scene) -> None:
    """Edit the input while its job is in the queue, and clear the run."""
    scene.until_waiting()
    scene.write_input("edited row {key} of {case}")
    scene.clear()


def lose_the_input_and_clear(scene: Scene) -> None:
    """Delete the input after the run's success, and clear the run: prepare fails, and gives nothing."""
    scene.until_ended()
    scene.remove_input()
    scene.clear()


def empty_the_input_and_clear(scene: Scene) -> None:
    """Take every row out of the input after the run's success, and clear the run: prepare is skipped."""
    scene.until_ended()
    scene.write_input(keys=())
    scene.clear()


def mark_failed(scene: Scene) -> None:
    """Mark the waiting task failed."""
    task = scene.until_waiting()
    scene.airflow.set_task_state(scene.case.dag_id, scene.run_id, task["task_id"], "failed")


def waken_after_the_job(scene: Scene) -> None:
    """Let the stopped attempt go on once its successor has created the job."""
    scene.until("the successor's job", lambda: scene.record.jobs)
    waken(scene.record.killed_pid)


def in_a_dataset(scene: Scene) -> None:
    """Make a dataset for the run's tables, and begin the run."""
    scene.night.warehouse.create_dataset(scene.dataset)
    scene.trigger()


def backfill(scene: Scene, **how: Any) -> None:
    """Let a backfill run the day."""
    conf = {"case": scene.place}
    number = scene.airflow.backfill(scene.case.dag_id, _DAY, _DAY, dag_run_conf=conf, **how)
    scene.run_id = f"backfill__{_DAY.isoformat()}"
    scene.until_ended()
    scene.airflow.wait_for_backfill(number)


def backfill_again(scene: Scene) -> None:
    """Let another backfill reprocess the day."""
    backfill(scene, reprocess_behavior="completed")


# What hurts everybody ------------------------------------------------------------------------------------------------


def hurting(after: str, kill: Callable[[Scene], Callable[[], None]], modes: Sequence[str]) -> Callable[[Scene], Plan]:
    """Return a plan for all modes together: when the last has come so far, one kill strikes."""

    def plan(scene: Scene) -> Plan:
        barrier = scene.night.barrier(f"{after} {scene.case.name[:3]}", len(modes), kill(scene))
        return Plan(after=after, strike=barrier.strike)

    return plan


def killing(server: str) -> Callable[[Scene], Callable[[], None]]:
    """Return the kill that kills a server of Airflow with everything it has started."""
    return lambda scene: lambda: scene.night.kill(server)


def stalling(scene: Scene) -> Plan:
    """Stop the triggerer when it asks for the last of the jobs that wait in it."""
    stop = scene.night.barrier("stall", len(WAITING), scene.night.stall_triggerer)
    return Plan(after=QUESTION, strike=stop.pass_on)


def wake_after_takeover(scene: Scene) -> None:
    """Wake the stopped triggerer once another one has taken its triggers over."""
    before = scene.until("a trigger", lambda: _triggerers(scene) if scene.record.struck else None)
    scene.until("another triggerer", lambda: _triggerers(scene) - before)
    scene.night.barrier("wake", len(WAITING), scene.night.wake_triggerer).wait()
    scene.release()


def _triggerers(scene: Scene) -> set[int]:
    jobs = (task["triggerer_job"] for task in scene.tasks("deferred"))
    return {job["id"] for job in jobs if job}


#: The modes that wait in the triggerer.
WAITING = ("deferrable", "start-from-trigger")
#: What needs a group of tasks, and what needs a task that makes its own way beside its successor.
_GROUP, _BESIDE = ("start-from-trigger",), ("sync", "start-from-trigger")
SCENARIOS: tuple[Disturbance, ...] = (
    Disturbance("task and its supervisor killed", CREATED, struck(CREATED, strike=kill_task_and_supervisor)),
    Disturbance("task and its supervisor killed", ANSWERS, struck(ANSWERS, strike=kill_task_and_supervisor)),
    Disturbance("task killed", QUESTION, struck(QUESTION), modes=("sync",)),
    Disturbance("task killed again and again", EVERY, lambda _: Plan(each=True), modes=("sync",)),
    Disturbance(
        "two at once: supervisor killed, its task works on", INTENT, struck(INTENT, strike=kill_supervisor),
        modes=_BESIDE,
    ),
    Disturbance(
        "two at once: task stopped, wakes when its successor has a job", INTENT,
        struck(INTENT, strike=stop_task_and_supervisor), meanwhile=waken_after_the_job, modes=_BESIDE,
    ),
    Disturbance("task killed, its create call arrives 10 s later", INTENT, lambda _: Plan(create_late_s=10.0)),
    Disturbance("task killed, the list of jobs lags 20 s", CREATED, struck(CREATED, hides_s=20.0)),
    Disturbance("task killed, its log lost", CREATED, losing_log(CREATED)),
    Disturbance("task killed, its log lost", RECORDED, losing_log(RECORDED)),
    Disturbance("task killed, the job's labels lost", CREATED, struck(CREATED, strips_labels=True)),
    Disturbance("task killed, the job's labels lost", RECORDED, struck(RECORDED, strips_labels=True)),
    Disturbance("run cleared", SUCCESS, meanwhile=clear_the_run),
    Disturbance("create task cleared", SUCCESS, meanwhile=clearing("batch.create", downstream=False), modes=_GROUP),
    Disturbance("repair task cleared", SUCCESS, meanwhile=clearing("batch.repair"), modes=_GROUP),
    Disturbance(
        "one of two mapped tasks cleared", SUCCESS, meanwhile=clearing(["batch", 1]), modes=("deferrable",),
        dag_id="chaos_mapped", jobs=2, repairs=2, parts=2,
    ),
    Disturbance(
        "day reprocessed by a backfill", SUCCESS, begins=backfill, meanwhile=backfill_again, modes=("deferrable",),
        dag_id="chaos_daily",
    ),
    *(
        Disturbance(f"run cleared ({meaning})", SUCCESS, meanwhile=clear_the_run, modes=modes, dag_id=dag_id, **jobs)
        for meaning, dag_id, modes, jobs in (
            ("on_clear='repair', the bad row is still there", "chaos_repair", ("deferrable",), {}),
            ("on_clear='repair', the bad row is still there", "chaos_repair_group", _GROUP, {}),
            ("on_clear='new'", "chaos_new", ("deferrable",), {"jobs": 2, "repairs": 2}),
            ("on_clear='new'", "chaos_new_group", _GROUP, {"jobs": 2, "repairs": 2}),
        )
    ),
    Disturbance(
        "create task cleared with what follows (on_clear='new')", SUCCESS, meanwhile=clearing("batch.create"),
        modes=_GROUP, dag_id="chaos_new_group", jobs=2, repairs=2,
    ),
    Disturbance(
        "one of two mapped tasks cleared (on_clear='new')", SUCCESS, meanwhile=clearing(["batch", 1]),
        modes=("deferrable",), dag_id="chaos_new_mapped", jobs=3, repairs=3, parts=2,
    ),
    Disturbance(
        "day reprocessed by a backfill (on_clear='new')", SUCCESS, begins=backfill, meanwhile=backfill_again,
        modes=("deferrable",), dag_id="chaos_new_daily", jobs=2, repairs=2,
    ),
    Disturbance(
        "run cleared (on_clear='new')", QUESTION, meanwhile=clear_while_waiting, faults=HELD,
        modes=("deferrable",), dag_id="chaos_new", jobs=2, cancelled=1,
    ),
    Disturbance("run cleared", QUESTION, meanwhile=clear_and_let_go, faults=HELD),
    Disturbance(
        "input edited, run cleared", QUESTION, meanwhile=edit_and_clear, faults=HELD, jobs=2, cancelled=1
    ),
    Disturbance(
        "marked failed", QUESTION, meanwhile=mark_failed, faults=HELD,
        repairs=0, cancelled=1, parts=0, ends="failed",
    ),
    *(
        Disturbance(
            f"{what}, the run cleared, {rule}{into}", SUCCESS, meanwhile=happens, modes=_GROUP, ends="failed",
            dag_id=f"{dag_id}{place}", begins=begins,
        )
        for what, rule, happens, dag_id in (
            ("prepare fails", "all tasks run all the same (all_done)", lose_the_input_and_clear, "chaos_all_done"),
            ("prepare is skipped", "export runs all the same (none_failed)", empty_the_input_and_clear, "chaos_skip"),
        )
        for into, place, begins in (("", "", None), (", replace_partition", "_to_table", in_a_dataset))
    ),
    Disturbance(
        "another Airflow runs it, own staging folder, other input", QUESTION, modes=("deferrable",), faults=HELD,
        meanwhile=second_airflow_runs(shared=False, same_input=False, ends=WAITS, says="Created"), jobs=2,
    ),
    Disturbance(
        "another Airflow runs it, shared staging folder, same input", QUESTION, modes=("deferrable",), faults=HELD,
        meanwhile=second_airflow_runs(shared=True, same_input=True, ends=WAITS, says="they share a staging folder"),
    ),
    Disturbance(
        "another Airflow runs it, shared staging folder, other input", QUESTION, modes=("deferrable",),
        faults=HELD, meanwhile=second_airflow_runs(shared=True, same_input=False, ends=REFUSED, says="bought it"),
    ),
    *(
        Disturbance(
            f"run marked failed and deleted, swept by the {which}", QUESTION, modes=("deferrable",), faults=HELD,
            meanwhile=swept_after_its_run_was_deleted(sweep), dag_id="chaos_kept",
            repairs=0, cancelled=1, parts=0, ends="deleted",
        )
        for which, sweep in (("operator", by_operator), ("command", by_command))
    ),
    Disturbance(
        "marked failed, the cancel meets HTTP 503 twice", QUESTION, meanwhile=mark_failed,
        faults=(*HELD, {"do": "http", "on": "cancel", "status": 503, "times": 2}),
        repairs=0, cancelled=1, parts=0, ends="failed",
    ),
    Disturbance(
        "marked failed, the connection for the cancel takes 6 s", QUESTION, meanwhile=mark_failed, faults=HELD,
        modes=("deferrable",), dag_id="chaos_slow_connection", repairs=0, cancelled=1, parts=0, ends="failed",
    ),
    Disturbance(
        "scheduler killed with all its tasks", CREATED, hurting(CREATED, killing("scheduler"), tuple(MODES)), act=1
    ),
    Disturbance(
        "triggerer killed", QUESTION, hurting(QUESTION, killing("triggerer"), WAITING), modes=WAITING, act=1
    ),
    Disturbance(
        "scheduler killed, its tasks work on", CREATED,
        lambda scene: Plan(
            after=CREATED,
            strike=scene.night.barrier("crash", len(MODES), lambda: scene.night.crash("scheduler")).pass_on,
        ),
        act=2,
    ),
    Disturbance(
        "marked failed, triggerer killed", CANCELLED, hurting(CANCELLED, killing("triggerer"), WAITING),
        meanwhile=mark_failed, faults=HELD, modes=WAITING,
        repairs=0, cancelled=1, parts=0, ends="failed", act=2,
    ),
    Disturbance(
        "triggerer stopped, wakes when another has its triggers", QUESTION, stalling,
        meanwhile=wake_after_takeover, faults=HELD, modes=WAITING, act=3,
    ),
)  # fmt: skip


def scenarios(disturbances: Iterable[Disturbance] = SCENARIOS) -> Iterator[Line]:
    """Yield every disturbance in each of its modes."""
    for number, one in enumerate(disturbances, start=1):
        for mode in one.modes:
            yield Line(one, mode, one.case(f"{'sdef'[one.act]}{number:02d}", mode))


def quiet_runs() -> Iterator[Line]:
    """Yield a run in each mode to which nothing happens."""
    for mode in (*MODES, TO_TABLE):
        yield Line(one := Disturbance("nothing", "—"), mode, one.case("quiet", mode))


def kills(mode: str, effects: Sequence[str]) -> Iterator[Line]:
    """Yield a kill of the task after each of its effects."""
    for number, effect in enumerate(effects, start=1):
        if mode == TO_TABLE and not effect.startswith("export"):
            continue
        one = Disturbance("task killed", effect, struck(effect))
        yield Line(one, mode, one.case(f"k{number:02d}", mode))
