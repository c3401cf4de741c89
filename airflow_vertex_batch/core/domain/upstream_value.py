"""Did a task get the outputs of the tasks before it? A task that failed or was skipped gives nothing.

Nothing is not the same as an empty night: an empty night has a manifest that says so, and an empty list of jobs.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Texts that templates make from nothing: Jinja renders None as "None", and an unknown name as an empty text.
_NOTHING = frozenset({"", "None", "null"})


class Origin(msgspec.Struct, frozen=True):
    """Where an argument comes from.

    :param tasks: ids of the tasks whose output it is, or may be.
    :param template: the template that makes it, as the author wrote it; empty where there is none.
    """

    tasks: tuple[str, ...] = ()
    template: str = ""

    def description(self, states: Mapping[str, str | None]) -> str:
        """Say it for people.

        :param states: how the tasks ended, by their ids; None where nobody knows.
        """
        tasks = ", ".join(f"{task} ({states[task]})" if states.get(task) else task for task in self.tasks)
        parts = (self.template, f"task {tasks}" if tasks else "")
        return f"It is the output of {', '.join(filter(None, parts))}" if any(parts) else ""


def items(value: Any) -> list[Any]:
    """Return what a task was given as a list: one text or record, or several.

    A list may also come as its text, as a template such as ``{{ ti.xcom_pull("create") }}`` renders it.
    """
    if isinstance(value, str) and value.startswith("["):
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | dict) else [value]


def why_no_value(value: Any) -> str:
    """Return in which way a value is nothing, or contains nothing where something is expected; empty if it is a real
    value.
    """
    if _is_no_value(value):
        return repr(value)
    if isinstance(value, dict) or (isinstance(value, str) and not value.startswith("[")):
        return ""
    found = items(value)
    count = sum(map(_is_no_value, found))
    return f"{count:,} of {len(found):,} are nothing" if count else ""


def _is_no_value(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip() in _NOTHING)


def no_value_error(
    task_id: str, name: str, how: str, origin: Origin, states: Mapping[str, str | None] | None = None
) -> InputError:
    """Return the error for a task that was given nothing.

    :param name: the argument.
    :param how: what was given instead (`why_no_value`).
    """
    return InputError(
        f"Task {task_id} was given nothing as its {name} ({how})",
        why=origin.description(states or {}),
        left="Nothing was sent, cancelled or landed, and what has landed before is as it was",
        todo="Clear the task that gave nothing, with what comes after it. If this task ran because of its trigger_rule,"
        " 'all_success' keeps it from running without its input",
    )
