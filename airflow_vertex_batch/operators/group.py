"""The whole batch in one call: prepare, create, wait, repair, export as one visible TaskGroup."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TaskGroup

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.unrendered import is_template, refuse_idle
from airflow_vertex_batch.edge.unknown_arguments import unknown_argument, unknown_in_step_args, unknown_in_task_args
from airflow_vertex_batch.operators import (
    VertexBatchCreateJobOperator,
    VertexBatchExportOperator,
    VertexBatchPreflightOperator,
    VertexBatchPrepareOperator,
    VertexBatchRepairOperator,
)
from airflow_vertex_batch.sensors import VertexBatchJobSensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack

    from airflow_vertex_batch.parameters import GroupParameters, StepParameters, TaskParameters, Text

_STEPS: dict[str, type[BaseOperator]] = {
    "preflight": VertexBatchPreflightOperator,
    "prepare": VertexBatchPrepareOperator,
    "create": VertexBatchCreateJobOperator,
    "wait": VertexBatchJobSensor,
    "repair": VertexBatchRepairOperator,
    "export": VertexBatchExportOperator,
}
#: Arguments that the steps pass to each other, or that the group sets itself.
_SET_INSIDE = {"manifest", "jobs", "repairs", "input_uri", "source_uri"}
#: Arguments that only the preflight has, and arguments that it uses only for its canary.
_OF_PREFLIGHT = ("canary", "canary_row", "allowed_failures")
_OF_CANARY = {"prompt", "prompt_variables", "system_instruction", "generation_config", "response_schema"}


def vertex_batch(
    group_id: str = "vertex_batch",
    *,
    model: Text,
    preflight: bool = False,
    task_args: TaskParameters | None = None,
    step_args: StepParameters | None = None,
    **arguments: Unpack[GroupParameters],
) -> TaskGroup:
    """Make the TaskGroup ``prepare >> create >> wait >> repair >> export``.

    Every argument of the five operators can be given; each goes to the steps that know it (`gcp_conn_id`, `project_id`,
    `location` and the other common ones to all). With ``repair_rounds=0`` the repair task does nothing until a person
    clears it. Then it sends the rows of that run without a good answer once more. The report is the output of the task
    ``<group_id>.export``.

    :param group_id: name of the group, unique in the DAG.
    :param model: the model to ask, such as ``gemini-3.8-flash``.
    :param preflight: add a first task ``preflight`` (`VertexBatchPreflightOperator`). In seconds it finds faults that
        would make the batch fail hours later. `canary`, `canary_row` and `allowed_failures` are arguments of this task.
    :param task_args: arguments of every task, such as ``{"retries": 3, "pool": "vertex"}``.
    :param step_args: arguments of one step's task, such as ``{"wait": {"pool": "long"}, "export": {"retries": 5}}``.
        They win over `task_args`.
    :raises InputError: for an argument that no step knows, and for one in `task_args` or `step_args` that does not
        belong there.
    """
    more, own = _checked(task_args, "task_args", '{"retries": 3}'), _checked(step_args, "step_args", '{"wait": {…}}')
    given: dict[str, Any] = {"model": model, **arguments}
    known = {name: _parameters(operator) for name, operator in _STEPS.items()}
    # Raised here: for a DAG file that cannot be read, Airflow shows the last two frames, and one of them must be the
    # author's.
    if wrong := (
        _unknown(given, frozenset().union(*known.values()))
        or unknown_in_task_args(more, known)
        or unknown_in_step_args(own, known)
    ):
        raise wrong
    chosen = {
        step: {name: value for name, value in given.items() if name in known[step]} | more | own.get(step, {})
        for step in _STEPS
    }
    if not preflight:
        idle = {name: given.get(name) for name in _OF_PREFLIGHT} | {"step_args for preflight": own.get("preflight")}
        refuse_idle(group_id, idle, why="It has no preflight", todo="Set preflight=True")
    with TaskGroup(group_id) as group:
        prepare = VertexBatchPrepareOperator(task_id="prepare", **chosen["prepare"])
        create = VertexBatchCreateJobOperator(task_id="create", manifest=prepare.output, **chosen["create"])
        wait = VertexBatchJobSensor(task_id="wait", jobs=create.output, **chosen["wait"])
        done: dict[str, Any] = {"jobs": wait.output, "manifest": prepare.output}
        repair = VertexBatchRepairOperator(task_id="repair", **done, **chosen["repair"])
        VertexBatchExportOperator(task_id="export", **done, repairs=repair.output, **chosen["export"])
        if preflight:
            _preflight(given, chosen["preflight"]).set_downstream(prepare)
    return group


def _preflight(given: Mapping[str, Any], chosen: dict[str, Any]) -> VertexBatchPreflightOperator:
    idle = set() if given.get("canary") else _OF_CANARY
    arguments = {name: value for name, value in chosen.items() if name not in idle}
    return VertexBatchPreflightOperator(task_id="preflight", source_uri=_source(given), **arguments)


def _source(given: Mapping[str, Any]) -> str | None:
    """Return the source that the preflight looks for: a table, or files that must exist."""
    table = given.get("table")
    if isinstance(table, str) and not is_template(table):
        return f"bq://{table.removeprefix('bq://')}"
    if given.get("on_empty", "fail") != "fail":
        return None
    sources = (given.get(name) for name in ("files", "objects", "requests"))
    firsts = (source[0] if isinstance(source, list | tuple) and source else source for source in sources)
    return next((uri for uri in firsts if isinstance(uri, str) and uri.startswith("gs://")), None)


def _checked(given: Any, name: str, example: str) -> dict[str, Any]:
    """Check that an argument is a dict, and return it; an empty dict if it is not given.

    :raises InputError: when it is not a dict.
    """
    made = given or {}
    if not isinstance(made, dict):
        raise InputError(f"{name} is a {type(made).__name__}", todo=f"Give a dict, such as {example}")
    return made


def _parameters(operator: type[BaseOperator]) -> frozenset[str]:
    """Return the parameters of a step, without those that every Airflow task has."""
    kinds = (cls for cls in operator.__mro__ if issubclass(cls, BaseOperator) and cls is not BaseOperator)
    own = frozenset(name for cls in kinds for name in inspect.signature(cls.__init__).parameters)
    return own - {"self", "kwargs", "args", *_SET_INSIDE, *getattr(operator, "refused", ())}


def _signature() -> inspect.Signature:
    """Return the signature of `vertex_batch` for ``help()``: every argument by its name."""
    own = list(inspect.signature(vertex_batch).parameters.values())[:-1]
    steps = (parameter for step in _STEPS.values() for parameter in inspect.signature(step).parameters.items())
    known = frozenset().union(*map(_parameters, _STEPS.values())) - {"model"}
    more = {name: parameter for name, parameter in steps if name in known}
    return inspect.Signature([*own, *more.values()], return_annotation="TaskGroup")


def _unknown(given: Mapping[str, Any], known: frozenset[str]) -> InputError | None:
    """Return an error for the first argument that no step knows, or None."""
    errors = (unknown_argument("vertex_batch()", name, known, is_group=True) for name in given if name not in known)
    return next(errors, None)


vertex_batch.__signature__ = _signature()  # type: ignore[attr-defined]
