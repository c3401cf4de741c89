"""The whole batch in one call: prepare, create, wait, repair, export as one visible TaskGroup."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TaskGroup

from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.operators import (
    VertexBatchCreateJobOperator,
    VertexBatchExportOperator,
    VertexBatchPrepareOperator,
    VertexBatchRepairOperator,
)
from airflow_vertex_batch.sensors import VertexBatchJobSensor

if TYPE_CHECKING:
    from collections.abc import Mapping

_STEPS: dict[str, type] = {
    "prepare": VertexBatchPrepareOperator,
    "create": VertexBatchCreateJobOperator,
    "wait": VertexBatchJobSensor,
    "repair": VertexBatchRepairOperator,
    "export": VertexBatchExportOperator,
}
#: What the steps pass to each other.
_WIRED = {"manifest", "jobs", "repairs", "input_uri"}


def vertex_batch(
    group_id: str = "vertex_batch", *, model: str, task_args: Mapping[str, Any] | None = None, **arguments: Any
) -> TaskGroup:
    """Make the TaskGroup ``prepare >> create >> wait >> repair >> export``.

    Every argument of the five operators can be given; each goes to the steps that know it (`gcp_conn_id`, `project_id`,
    `location` and the other common ones to all). With ``repair_rounds=0`` the repair task does nothing until a person
    clears it: then the rows of that run that are without a good answer go once more. The report is the output of the
    task ``<group_id>.export``.

    :param group_id: name of the group, unique in the DAG.
    :param model: the model to ask, such as ``gemini-3.8-flash``.
    :param task_args: arguments of every task, such as ``{"retries": 3, "pool": "vertex"}``.
    :raises InputError: for an argument that no step knows.
    """
    given = {"model": model, **arguments}
    known = {name: _parameters(operator) for name, operator in _STEPS.items()}
    _refuse_unknown(given, set().union(*known.values()))
    chosen = {
        step: {name: value for name, value in given.items() if name in known[step]} | dict(task_args or {})
        for step in _STEPS
    }
    with TaskGroup(group_id) as group:
        prepare = VertexBatchPrepareOperator(task_id="prepare", **chosen["prepare"])
        create = VertexBatchCreateJobOperator(task_id="create", manifest=prepare.output, **chosen["create"])
        wait = VertexBatchJobSensor(task_id="wait", jobs=create.output, **chosen["wait"])
        done: dict[str, Any] = {"jobs": wait.output, "manifest": prepare.output}
        repair = VertexBatchRepairOperator(task_id="repair", **done, **chosen["repair"])
        VertexBatchExportOperator(task_id="export", **done, repairs=repair.output, **chosen["export"])
    return group


def _parameters(operator: type) -> set[str]:
    """Return what a step can be given beside the arguments of every Airflow task."""
    kinds = (cls for cls in operator.__mro__ if issubclass(cls, BaseOperator) and cls is not BaseOperator)
    own = {name for cls in kinds for name in inspect.signature(cls.__init__).parameters}
    return own - {"self", "kwargs", "args", *_WIRED}


def _refuse_unknown(given: Mapping[str, Any], known: set[str]) -> None:
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else "Arguments of every task go into task_args"
            raise InputError(f"vertex_batch() knows no argument {name!r}", todo=hint)
