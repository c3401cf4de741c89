"""What can this Airflow do? The one place that asks, so that the floor (3.3.0) can drop later without a search."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any, NoReturn
from zoneinfo import ZoneInfo

from airflow_vertex_batch.core.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: States in which a person, not the machinery, has ended a task: only then may its job be cancelled.
ENDED_BY_A_PERSON = frozenset({"failed", "success", "skipped", "removed"})


#: How often a task is tried again where nobody has said: the README's promises are what the next attempt does.
RETRIES = 2
#: The option ``[core] default_task_retries`` as an environment variable.
_RETRIES_VARIABLE = "AIRFLOW__CORE__DEFAULT_TASK_RETRIES"


def default_retries(configured: int | None, environment: Mapping[str, str]) -> int:
    """Return how often a task is tried again where neither it nor its DAG says.

    What the installation says wins. Airflow's own 0 says nothing: Airflow writes it into every ``airflow.cfg`` that it
    makes (3.3.2, 2026-11-28). As an environment variable, somebody has written it.

    :param configured: ``[core] default_task_retries``.
    """
    return configured or 0 if configured or _RETRIES_VARIABLE in environment else RETRIES


def fail_exception(message: str) -> Exception:
    """Return the exception that fails a task without further retries."""
    from airflow.sdk.exceptions import AirflowFailException

    return AirflowFailException(message)


def skip_exception(message: str) -> Exception:
    """Return the exception that skips a task."""
    from airflow.sdk.exceptions import AirflowSkipException

    return AirflowSkipException(message)


def ask_a_person(
    context: Any, *, subject: str, body: str, options: list[str], resume: str, kwargs: dict[str, Any]
) -> NoReturn:
    """Put a question into the UI (Required Actions) and park the task until it is answered; no worker is held.

    :param body: Markdown.
    :param resume: the operator's method that is called with `kwargs` and ``event``: ``chosen_options``,
        ``responded_by_user`` (a dict of ``id`` and ``name``) and ``responded_at``. The try stays the same.
    """
    from airflow.sdk.exceptions import TaskAwaitingInput
    from airflow.sdk.execution_time.hitl import upsert_hitl_detail

    # `params` must be said: its default is None, which the API server refuses (Airflow 3.3.0).
    upsert_hitl_detail(ti_id=context["ti"].id, options=options, subject=subject, body=body, params={})
    raise TaskAwaitingInput(method_name=resume, kwargs=kwargs)


def task_state(dag_id: str, task_id: str, run_id: str, map_index: int) -> str | None:
    """Return a task instance's state as the scheduler sees it now; None where nobody can be asked."""
    try:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        states = RuntimeTaskInstance.get_task_states(
            dag_id=dag_id, task_ids=[task_id], run_ids=[run_id], map_index=map_index
        )
    except (ImportError, AttributeError, NameError):
        return None
    # The inner key is the task id, with the map index behind it for mapped tasks: with one task asked for, take the
    # value.
    found = next(iter((states.get(run_id) or {}).values()), None)
    return None if found is None else str(getattr(found, "value", found))


def task_states(task_ids: Sequence[str]) -> dict[str, str | None]:
    """Return the states of other tasks of the running task's run, mapped like it or not at all; for messages.

    None stands where there is no such state, or nobody to ask.
    """
    from airflow.sdk import get_current_context

    try:
        ti = get_current_context()["ti"]
    except RuntimeError:
        return {}
    # In the same mapped task group it has the same index; elsewhere it has none.
    indexes = {-1 if ti.map_index is None else ti.map_index, -1}

    def state(task_id: str) -> str | None:
        found = (task_state(ti.dag_id, task_id, ti.run_id, index) for index in sorted(indexes, reverse=True))
        return next(filter(None, found), None)

    return {task_id: state(task_id) for task_id in task_ids}


def run_state(dag_id: str, run_id: str) -> str | None:
    """Return the state of a DAG run; ``deleted`` where there is no such run, None where nobody can be asked."""
    try:
        from airflow.sdk.exceptions import AirflowRuntimeError
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    except ImportError:
        return None
    try:
        # Asked first, because the state of a run that does not exist is an error like any other.
        if not RuntimeTaskInstance.get_dr_count(dag_id=dag_id, run_ids=[run_id]):
            return "deleted"
        state = RuntimeTaskInstance.get_dagrun_state(dag_id=dag_id, run_id=run_id)
    except (AirflowRuntimeError, ImportError, AttributeError, NameError):
        return None
    return str(getattr(state, "value", state))


def was_ended_by_a_person(ti: Any) -> bool:
    """Whether somebody marked, failed or skipped this task, as against a clear, a restart or a takeover."""
    return task_state(ti.dag_id, ti.task_id, ti.run_id, ti.map_index) in ENDED_BY_A_PERSON


def on_kill_seconds() -> float:
    """Return how long Airflow lets a trigger's `on_kill` run."""
    from airflow.sdk import conf

    # The option has no entry among Airflow's own defaults (3.3.2, airflow/jobs/triggerer_job_runner.py).
    return float(conf.getfloat("triggerer", "on_kill_timeout", fallback=30.0))


def is_out_of_time(next_method: str, next_kwargs: Mapping[str, Any] | None) -> bool:
    """Whether Airflow resumes a task because its deferral took too long: only to fail it."""
    from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason

    return next_method == TRIGGER_FAIL_REPR and (next_kwargs or {}).get("error") == TriggerFailureReason.TRIGGER_TIMEOUT


#: XCom key of the token of the attempt that owns a task's jobs.
ATTEMPT_KEY = "vertex_batch_attempt"


def token_of(ti: Any) -> str:
    """Return what tells an attempt from others: ``TRY:ID``, Airflow's number and id of the try."""
    return f"{ti.try_number}:{ti.id}"


def own(ti: Any) -> str:
    """Note that this attempt owns its task's jobs from here on, and return its token.

    XComs outlive a deferral, and a worker that begins the next try wipes them. Where a try begins in the triggerer
    nobody does (Airflow 3.3.2): what is noted may be an earlier attempt's, and says so by its number.

    :raises LedgerError: when a later attempt has: this one slept, and Airflow has given its task to the other.
    """
    token = token_of(ti)
    with suppress(ImportError):
        number = (_noted(ti) or "").rpartition(":")[0]
        if number and int(number) > ti.try_number:
            raise LedgerError(
                f"Try {number} of this task has begun, and this is try {ti.try_number}",
                left="Nothing was sent, and nothing cancelled",
                todo="Nothing: the task goes on there",
            )
    ti.xcom_push(ATTEMPT_KEY, token)
    return token


def _noted(ti: Any) -> str | None:
    """Return the token that is noted for a task.

    :raises ImportError: outside a worker and a triggerer, where there is nobody to ask.
    """
    from airflow.sdk.execution_time.xcom import XCom

    found = XCom.get_one(
        key=ATTEMPT_KEY, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index
    )
    return None if found is None else str(found)


def still_owns(ti: Any, token: str | None) -> bool:
    """Whether no later attempt of this task is known to have taken its jobs over.

    One that begins in the triggerer is known once a worker has seen it: a trigger can ask Airflow for the state of its
    task, not for the number of its try (3.3.2). Until then both own the jobs, whose deadline is the same for both.

    :param ti: the task instance as this attempt knows it.
    :param token: what `own` returned; None for an attempt that no worker began. Older versions noted the id alone.
    """
    try:
        noted = _noted(ti)
    except ImportError:
        # There is nobody to ask, nor any other attempt.
        return True
    if noted is None:
        return token is None
    number, _, ti_id = noted.rpartition(":")
    if token is None:
        # The same number is a worker's that went on from here. Without one, it may be a later attempt's.
        return bool(number) and int(number) < ti.try_number
    return ti_id == token.rpartition(":")[2]


def first_poke(context: Any) -> float | None:
    """Return when this attempt of a rescheduling sensor first looked, seconds since the epoch; None if it is now."""
    when = context["ti"].get_first_reschedule_date(context)
    return None if when is None else float(when.timestamp())


def partition_key(context: Mapping[str, Any]) -> str | None:
    """Return the partition key of a run, on the Airflows that have such runs."""
    run = context.get("dag_run")
    return getattr(run, "partition_key", None)


def timetable_zone(dag: Any) -> tzinfo:
    """Return the time zone whose days a DAG's runs stand for: the timetable's own, else the DAG's, else UTC.

    A DAG's own is that of its ``start_date``, or ``[core] default_timezone``. A timetable of several schedules names
    one zone for all (Airflow 3.3.2, airflow/sdk/definitions/timetables/trigger.py, 2026-11-28).
    """
    timetable = getattr(dag, "timetable", None)
    several = getattr(timetable, "timetables", None) or [timetable]
    found = getattr(several[0], "timezone", None) or getattr(dag, "timezone", None) or UTC
    return ZoneInfo(found) if isinstance(found, str) else found
