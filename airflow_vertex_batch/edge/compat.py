"""What can this Airflow do? All differences between Airflow 3.1, 3.2 and 3.3 are handled here and nowhere else.

Names that only moved between these versions come from ``airflow.providers.common.compat.sdk``. For a feature that an
older Airflow does not have, this module has a substitute; docs/compatibility.md lists them.
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

#: States in which a person has ended a task, and not Airflow itself. Only then may its job be cancelled.
ENDED_BY_A_PERSON = frozenset({"failed", "success", "skipped", "removed"})


#: How often a task is tried again if nobody has set it. docs/outcomes.md says what the next attempt does.
RETRIES = 2
#: The option ``[core] default_task_retries`` as an environment variable.
_RETRIES_VARIABLE = "AIRFLOW__CORE__DEFAULT_TASK_RETRIES"


def default_retries(configured: int | None, environment: Mapping[str, str]) -> int:
    """Return how often a task is tried again if neither the task nor its DAG says.

    The configuration of the installation wins. But a 0 in ``airflow.cfg`` does not count, because Airflow writes it
    into every ``airflow.cfg`` that it makes (3.3.2, 2026-11-28). A 0 in the environment variable counts, because a
    person has set it.

    :param configured: ``[core] default_task_retries``.
    """
    return configured or 0 if configured or _RETRIES_VARIABLE in environment else RETRIES


#: The option ``[operators] default_deferrable`` as an environment variable.
_DEFERRABLE_VARIABLE = "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE"


def default_deferrable(environment: Mapping[str, str], *, configured: bool) -> bool:
    """Return whether a task waits in the triggerer if its author has not said.

    A False in ``airflow.cfg`` does not count, as with `default_retries`. A False in the environment variable counts.

    :param configured: ``[operators] default_deferrable``.
    """
    return configured or _DEFERRABLE_VARIABLE not in environment


def airflow_exceptions() -> tuple[type[Exception], ...]:
    """Return the exceptions with which Airflow, or a DAG's author, ends a task on purpose."""
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
    """Return those of the known values, such as the context's variables, that a function takes by keyword.

    :param arguments: the positional arguments of the function.
    """
    try:
        from airflow.sdk.bases.decorator import determine_kwargs
    except ImportError:
        from airflow.utils.operator_helpers import determine_kwargs  # type: ignore[attr-defined]
    return {**determine_kwargs(function, arguments, known)}


def ask_a_person(
    context: Any, *, subject: str, body: str, options: list[str], resume: str, kwargs: dict[str, Any]
) -> NoReturn:
    """Put a question into the UI (Required Actions) and suspend the task until it is answered. No worker slot is used.

    Below Airflow 3.3 the task is deferred: the standard provider's trigger asks every few seconds for the answer.

    :param body: Markdown.
    :param resume: the operator's method to call then, with `kwargs` and an ``event``: ``chosen_options``,
        ``responded_by_user`` (a dict of ``id`` and ``name``) and ``responded_at``. The try stays the same.
    """
    from airflow.sdk.execution_time.hitl import upsert_hitl_detail

    ti_id = context["ti"].id
    # `params` must be given: its default is None, which the API server refuses (Airflow 3.3.0).
    upsert_hitl_detail(ti_id=ti_id, options=options, subject=subject, body=body, params={})
    try:
        from airflow.sdk.exceptions import TaskAwaitingInput as Parked
    except ImportError:
        raise _deferred_until_answered(ti_id, options, resume, kwargs) from None
    raise Parked(method_name=resume, kwargs=kwargs)


def _deferred_until_answered(ti_id: Any, options: list[str], resume: str, kwargs: dict[str, Any]) -> BaseException:
    """Return the exception that defers a task until a person has answered. Its event has the keys of `ask_a_person`."""
    from airflow.providers.common.compat.sdk import TaskDeferred
    from airflow.providers.standard.triggers.hitl import HITLTrigger

    trigger = HITLTrigger(ti_id=ti_id, options=options, params={}, timeout_datetime=None)
    return TaskDeferred(trigger=trigger, method_name=resume, kwargs=kwargs)


def task_state(dag_id: str, task_id: str, run_id: str, map_index: int) -> str | None:
    """Return the current state of a task instance; None if Airflow cannot be asked."""
    try:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        states = RuntimeTaskInstance.get_task_states(
            dag_id=dag_id, task_ids=[task_id], run_ids=[run_id], map_index=map_index
        )
    except (ImportError, AttributeError, NameError):
        return None
    # The inner key is the task id, followed by the map index for mapped tasks. One task was asked for, so take the only
    # value.
    found = next(iter((states.get(run_id) or {}).values()), None)
    return None if found is None else str(getattr(found, "value", found))


def task_states(task_ids: Sequence[str]) -> dict[str, str | None]:
    """Return the states of other tasks of this run, for messages. Each has the map index of the running task, or none.

    A state is None if there is no such task, or if Airflow cannot be asked.
    """
    from airflow.sdk import get_current_context

    try:
        ti = get_current_context()["ti"]
    except RuntimeError:
        return {}
    # A task in the same mapped task group has the same index. Any other task has no index.
    indexes = {-1 if ti.map_index is None else ti.map_index, -1}

    def state(task_id: str) -> str | None:
        found = (task_state(ti.dag_id, task_id, ti.run_id, index) for index in sorted(indexes, reverse=True))
        return next(filter(None, found), None)

    return {task_id: state(task_id) for task_id in task_ids}


def run_state(dag_id: str, run_id: str) -> str | None:
    """Return the state of a DAG run; ``deleted`` if there is no such run, None if Airflow cannot be asked."""
    try:
        from airflow.sdk.exceptions import AirflowRuntimeError
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    except ImportError:
        return None
    try:
        # The count is asked first: for a run that does not exist, the state raises the same error as other failures.
        if not RuntimeTaskInstance.get_dr_count(dag_id=dag_id, run_ids=[run_id]):
            return "deleted"
        state = RuntimeTaskInstance.get_dagrun_state(dag_id=dag_id, run_id=run_id)
    except (AirflowRuntimeError, ImportError, AttributeError, NameError):
        return None
    return str(getattr(state, "value", state))


def was_ended_by_a_person(ti: Any) -> bool:
    """Whether a person ended this task in the UI or API. A clear, a restart or a takeover is not such an end."""
    return task_state(ti.dag_id, ti.task_id, ti.run_id, ti.map_index) in ENDED_BY_A_PERSON


def is_kill(cancelled: asyncio.CancelledError) -> bool:
    """Whether Airflow cancels this one trigger because its task does not wait any more. Otherwise the whole triggerer
    stops.

    From 3.3 on, Airflow gives a reason only when it cancels one trigger. Before 3.3 it never gives a reason; but a
    process that stops cancels everything that runs in it.

    :param cancelled: the exception with which the trigger was cancelled.
    """
    from airflow.triggers.base import BaseTrigger

    if hasattr(BaseTrigger, "on_kill"):
        return bool(cancelled.args)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return any(not task.cancelling() for task in others)


def can_start_from_trigger() -> bool:
    """Whether the scheduler can give a task to the triggerer, which then renders the trigger's
    arguments: from 3.3 on.
    """
    from airflow.triggers.base import BaseTrigger

    return hasattr(BaseTrigger, "render_template_fields")


def on_kill_seconds() -> float:
    """Return how long Airflow lets a trigger's `on_kill` run."""
    from airflow.providers.common.compat.sdk import conf

    # The option has no entry among Airflow's own defaults (3.3.2, airflow/jobs/triggerer_job_runner.py).
    return float(conf.getfloat("triggerer", "on_kill_timeout", fallback=30.0))


def is_out_of_time(next_method: str, next_kwargs: Mapping[str, Any] | None) -> bool:
    """Whether Airflow resumes a task only to fail it, because its deferral took too long."""
    from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason

    return next_method == TRIGGER_FAIL_REPR and (next_kwargs or {}).get("error") == TriggerFailureReason.TRIGGER_TIMEOUT


#: XCom key of the token of the attempt that owns a task's jobs.
ATTEMPT_KEY = "vertex_batch_attempt"


def token_of(ti: Any) -> str:
    """Return the unique name of an attempt: ``TRY:ID``, Airflow's number and id of the try."""
    return f"{ti.try_number}:{ti.id}"


def take_ownership(ti: Any) -> str:
    """Note that this attempt owns its task's jobs from now on, and return its token.

    XComs survive a deferral. A worker that begins the next try deletes them. If a try begins in the triggerer, nobody
    deletes them (Airflow 3.3.2). So the noted token may belong to an earlier attempt; its number shows that.

    :raises LogError: when a later attempt owns the jobs: this attempt stalled, and Airflow has given its task to the
        later one.
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
    """Return the token that was noted for a task.

    :raises ImportError: outside a worker and a triggerer, where Airflow cannot be asked.
    """
    from airflow.sdk.execution_time.xcom import XCom

    found = XCom.get_one(
        key=ATTEMPT_KEY, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index
    )
    return None if found is None else str(found)


def still_owns(ti: Any, token: str | None) -> bool:
    """Whether this attempt still owns its task's jobs, as far as Airflow knows.

    An attempt that begins in the triggerer is known only after a worker has seen it: a trigger can ask Airflow for the
    state of its task, but not for the number of its try (3.3.2). Until then two attempts own the jobs. The deadline of
    the jobs is the same for both.

    :param ti: the task instance as this attempt knows it.
    :param token: the result of `take_ownership`; None for an attempt that no worker began. Older versions noted only
        the id.
    """
    try:
        noted = _noted(ti)
    except ImportError:
        # Airflow cannot be asked here, so there is no other attempt either.
        return True
    if noted is None:
        return token is None
    number, _, ti_id = noted.rpartition(":")
    if token is None:
        # The same number means that a worker went on with this attempt. A token without a number may be of a later
        # attempt.
        return bool(number) and int(number) < ti.try_number
    return ti_id == token.rpartition(":")[2]


def first_poke(context: Any) -> float | None:
    """Return when this attempt of a rescheduling sensor asked for the first time, seconds since the epoch; None if that
    is now.
    """
    when = context["ti"].get_first_reschedule_date(context)
    return None if when is None else float(when.timestamp())


def partition_key(context: Mapping[str, Any]) -> str | None:
    """Return the partition key of a run, if this version of Airflow has such runs."""
    run = context.get("dag_run")
    return getattr(run, "partition_key", None)


def timetable_zone(dag: Any) -> tzinfo:
    """Return the time zone for the days of a DAG's runs: the timetable's own, else the DAG's, else UTC.

    A DAG's own time zone is that of its ``start_date``, or ``[core] default_timezone``. A timetable of several
    schedules names one zone for all (Airflow 3.3.2, airflow/sdk/definitions/timetables/trigger.py, 2026-11-28). In
    Airflow 3.1 both names begin with an underscore (3.1.8, airflow/timetables/_cron.py and trigger.py, 2026-11-29).
    """
    timetable = getattr(dag, "timetable", None)
    first = (_either(timetable, "timetables") or [timetable])[0]
    found = _either(first, "timezone") or getattr(dag, "timezone", None) or UTC
    return ZoneInfo(found) if isinstance(found, str) else found


def _either(timetable: Any, name: str) -> Any:
    return getattr(timetable, name, None) or getattr(timetable, f"_{name}", None)
