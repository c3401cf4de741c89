"""What can this Airflow do? The one place that asks: from 3.1 to 3.3 each has its own ways.

Names that only moved between these versions come from ``airflow.providers.common.compat.sdk``. What an older Airflow
does not have gets the second best here; docs/compatibility.md lists it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any, NoReturn
from zoneinfo import ZoneInfo

from airflow_vertex_batch.core.domain.errors import LogError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

#: States in which a person, not the machinery, has ended a task: only then may its job be cancelled.
ENDED_BY_A_PERSON = frozenset({"failed", "success", "skipped", "removed"})


#: How often a task is tried again where nobody has said: docs/outcomes.md says what the next attempt does.
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


#: The option ``[operators] default_deferrable`` as an environment variable.
_DEFERRABLE_VARIABLE = "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE"


def default_deferrable(environment: Mapping[str, str], *, configured: bool) -> bool:
    """Return whether a task waits in the triggerer where its author has not said.

    Airflow's own False says nothing, as with `default_retries`; as an environment variable, somebody has written it.

    :param configured: ``[operators] default_deferrable``.
    """
    return configured or _DEFERRABLE_VARIABLE not in environment


def airflows_own() -> tuple[type[Exception], ...]:
    """Return the errors by which Airflow, and a DAG's author, end a task as they want it."""
    from airflow.providers.common.compat.sdk import AirflowException
    from airflow.sdk.exceptions import AirflowRuntimeError

    return AirflowException, AirflowRuntimeError


def fail_exception(message: str) -> Exception:
    """Return the exception that fails a task without further retries."""
    from airflow.providers.common.compat.sdk import AirflowFailException

    return AirflowFailException(message)


def skip_exception(message: str) -> Exception:
    """Return the exception that skips a task."""
    from airflow.providers.common.compat.sdk import AirflowSkipException

    return AirflowSkipException(message)


def keywords_of(function: Callable[..., Any], arguments: Collection[Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a function takes by keyword of what is known, such as the context's variables.

    :param arguments: what it is given by position.
    """
    try:
        from airflow.sdk.bases.decorator import determine_kwargs
    except ImportError:
        from airflow.utils.operator_helpers import determine_kwargs  # type: ignore[attr-defined]
    return {**determine_kwargs(function, arguments, known)}


def ask_a_person(
    context: Any, *, subject: str, body: str, options: list[str], resume: str, kwargs: dict[str, Any]
) -> NoReturn:
    """Put a question into the UI (Required Actions) and park the task until it is answered; no worker is held.

    Below Airflow 3.3 the task is deferred: the standard provider's trigger asks every few seconds for the answer.

    :param body: Markdown.
    :param resume: the operator's method that is called with `kwargs` and ``event``: ``chosen_options``,
        ``responded_by_user`` (a dict of ``id`` and ``name``) and ``responded_at``. The try stays the same.
    """
    from airflow.sdk.execution_time.hitl import upsert_hitl_detail

    ti_id = context["ti"].id
    # `params` must be said: its default is None, which the API server refuses (Airflow 3.3.0).
    upsert_hitl_detail(ti_id=ti_id, options=options, subject=subject, body=body, params={})
    try:
        from airflow.sdk.exceptions import TaskAwaitingInput as Parked
    except ImportError:
        raise _deferred_until_answered(ti_id, options, resume, kwargs) from None
    raise Parked(method_name=resume, kwargs=kwargs)


def _deferred_until_answered(ti_id: Any, options: list[str], resume: str, kwargs: dict[str, Any]) -> BaseException:
    """Return what defers a task until a person has answered; its event has the keys of `ask_a_person`."""
    from airflow.providers.common.compat.sdk import TaskDeferred
    from airflow.providers.standard.triggers.hitl import HITLTrigger

    trigger = HITLTrigger(ti_id=ti_id, options=options, params={}, timeout_datetime=None)
    return TaskDeferred(trigger=trigger, method_name=resume, kwargs=kwargs)


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


def is_kill(cancelled: asyncio.CancelledError) -> bool:
    """Whether Airflow cancels one trigger, because its task waits no more; otherwise its triggerer stops.

    From 3.3 on Airflow gives a reason for the first, and none for the second. Before, it gives none for either; but a
    process that stops cancels everything that runs in it.

    :param cancelled: what the trigger was cancelled with.
    """
    from airflow.triggers.base import BaseTrigger

    if hasattr(BaseTrigger, "on_kill"):
        return bool(cancelled.args)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return any(not task.cancelling() for task in others)


def can_start_from_trigger() -> bool:
    """Whether the scheduler hands a task to the triggerer, which renders its trigger's arguments: from 3.3 on."""
    from airflow.triggers.base import BaseTrigger

    return hasattr(BaseTrigger, "render_template_fields")


def on_kill_seconds() -> float:
    """Return how long Airflow lets a trigger's `on_kill` run."""
    from airflow.providers.common.compat.sdk import conf

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

    :raises LogError: when a later attempt has: this one slept, and Airflow has given its task to the other.
    """
    token = token_of(ti)
    with suppress(ImportError):
        number = (_noted(ti) or "").rpartition(":")[0]
        if number and int(number) > ti.try_number:
            raise LogError(
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
    one zone for all (Airflow 3.3.2, airflow/sdk/definitions/timetables/trigger.py, 2026-11-28). In Airflow 3.1 both
    names begin with an underscore (3.1.8, airflow/timetables/_cron.py and trigger.py, 2026-11-29).
    """
    timetable = getattr(dag, "timetable", None)
    first = (_either(timetable, "timetables") or [timetable])[0]
    found = _either(first, "timezone") or getattr(dag, "timezone", None) or UTC
    return ZoneInfo(found) if isinstance(found, str) else found


def _either(timetable: Any, name: str) -> Any:
    return getattr(timetable, name, None) or getattr(timetable, f"_{name}", None)
