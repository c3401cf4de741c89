"""What may an author write as an argument? What stands for a value that comes later is put in, with its task before
this one, or it is refused when the DAG file is read.

Airflow puts in what stands in template fields. Arguments that must not be rendered, such as rows, are put in here; for
all others, nobody would.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.definitions.mappedoperator import OperatorPartial

from airflow_vertex_batch.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class DrawingPartial(OperatorPartial):
    """What `partial` returns. Airflow makes a mapped task run after what stands in its template fields only."""

    def _expand(self, *args: Any, **kwargs: Any) -> Any:
        made = super()._expand(*args, **kwargs)
        run_after(made, self.kwargs, self.operator_class)
        return made


def run_after(task: Any, given: Mapping[str, Any], kind: Any) -> None:
    """Make a task run after those whose outputs stand in its `resolved_fields`."""
    for name in kind.resolved_fields:
        XComArg.apply_upstream_relationship(task, given.get(name))


def is_one_of_mapped(task: Any) -> bool:
    """Whether a task is being made in the worker, of a mapped one: what it runs after is settled."""
    # Airflow has no public word for it.
    return bool(getattr(task, "_BaseOperator__from_mapped", False))


def stand_ins(value: Any) -> Iterator[ResolveMixin]:
    """Yield what, in a value, stands for one that comes later: a task's output, a mapped argument, `dag.param()`."""
    if isinstance(value, ResolveMixin):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from stand_ins(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from stand_ins(item)


def comes_later(value: Any) -> bool:
    """Whether a value stands, in whole or in part, for one that comes later."""
    return any(True for _ in stand_ins(value))


def put_in(value: Any, context: Any) -> Any:
    """Return a value with everything put in that has come."""
    if isinstance(value, ResolveMixin):
        return value.resolve(context)
    if isinstance(value, dict):
        return {name: put_in(item, context) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [put_in(item, context) for item in value]
    return value


def check_arguments(kind: Any, given: Mapping[str, Any]) -> None:
    """Refuse what an operator of ours cannot make use of.

    :raises InputError: naming the argument, and what to do.
    """
    may_come_later = {*kind.template_fields, *kind.resolved_fields}
    known = _annotations(kind)
    for name, value in given.items():
        if name not in known:
            continue
        if name not in may_come_later and comes_later(value):
            raise InputError(
                f"{name} of {kind.__name__} must be known when the DAG file is read",
                why=f"what was given comes later: {type(value).__name__}",
                todo=f"Give a value, or use .expand({name}=…); {', '.join(sorted(may_come_later))} may come later",
            )
        _check_kind(name, value, known[name])


def _check_kind(name: str, value: Any, annotation: str) -> None:
    if "Any" in annotation:
        return
    if value is None and "None" not in annotation:
        raise InputError(f"{name}=None", todo="Leave it out, or give a value")
    if isinstance(value, str) and "str" not in annotation:
        raise InputError(f"{name}={value!r} is a text", why="it is no template", todo=f"Give a value ({annotation})")


@functools.cache
def _annotations(kind: Any) -> dict[str, str]:
    """Return what our classes say of their parameters, as they write it."""
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        if issubclass(cls, BaseOperator) and cls.__module__.startswith("airflow_vertex_batch."):
            parameters: Iterable[inspect.Parameter] = inspect.signature(cls.__init__).parameters.values()
            found |= {one.name: str(one.annotation) for one in parameters if one.kind is one.KEYWORD_ONLY}
    return found
