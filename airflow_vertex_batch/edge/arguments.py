"""What may an author write as an argument? An argument may be a placeholder for a later value, such as the output of a
task. Either that task runs first and the placeholder is replaced, or the placeholder is refused when the DAG file is
read.

Airflow replaces placeholders in template fields. This module replaces them in arguments that must not be rendered, such
as rows. In all other arguments nobody would replace them, so they are refused there.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.definitions.mappedoperator import OperatorPartial

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.unrendered import dump_of, is_template
from airflow_vertex_batch.edge.unknown_arguments import refuse_unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class DependencyPartial(OperatorPartial):
    """The result of `partial`. Airflow makes a mapped task run only after the tasks in its template fields; this class
    adds those in `resolved_fields`.
    """

    def _expand(self, *args: Any, **kwargs: Any) -> Any:
        made = super()._expand(*args, **kwargs)
        run_after(made, self.kwargs, self.operator_class)
        return made


def run_after(task: Any, given: Mapping[str, Any], kind: Any) -> None:
    """Make a task run after the tasks whose outputs are in its `resolved_fields`."""
    for name in kind.resolved_fields:
        XComArg.apply_upstream_relationship(task, given.get(name))


def is_one_of_mapped(task: Any) -> bool:
    """Whether the worker is making this task from a mapped task. Then the order of tasks is already fixed."""
    # Airflow has no public name for it.
    return bool(getattr(task, "_BaseOperator__from_mapped", False))


def placeholders(value: Any) -> Iterator[ResolveMixin]:
    """Yield the placeholders in a value: outputs of tasks, mapped arguments, `dag.param()`."""
    if isinstance(value, ResolveMixin):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from placeholders(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from placeholders(item)


def has_placeholder(value: Any) -> bool:
    """Whether a value is, or contains, a placeholder for a later value."""
    return any(True for _ in placeholders(value))


def fill_placeholders(value: Any, context: Any) -> Any:
    """Return a value with its placeholders replaced."""
    if isinstance(value, ResolveMixin):
        return value.resolve(context)
    if isinstance(value, dict):
        return {name: fill_placeholders(item, context) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [fill_placeholders(item, context) for item in value]
    return value


def check_arguments(kind: Any, given: Mapping[str, Any]) -> None:
    """Refuse arguments that our operators cannot use.

    :raises InputError: with the name of the argument, and what to do.
    """
    refuse_unknown(kind, given)
    may_come_later = {*kind.template_fields, *kind.resolved_fields}
    known = _annotations(kind)
    for name, value in given.items():
        if name not in known:
            continue
        if name not in may_come_later and has_placeholder(value):
            raise InputError(
                f"{name} of {kind.__name__} must be known when the DAG file is read",
                why=f"What was given comes later: {type(value).__name__}",
                todo=f"Give a value, or use .expand({name}=…); {', '.join(sorted(may_come_later))} may come later",
            )
        _check_kind(name, value, known[name], is_rendered=name in kind.template_fields)


def _check_kind(name: str, value: Any, annotation: str, *, is_rendered: bool) -> None:
    if annotation == "Any" or isinstance(value, ResolveMixin) or (is_rendered and is_template(value)):
        return
    if value is None and "None" not in annotation:
        raise InputError(f"{name}=None", todo="Leave it out, or give a value")
    if isinstance(value, str) and "str" not in annotation:
        why = "This argument is not templated, and takes no text"
        raise InputError(f"{name}={value!r} is a text", why=why, todo=f"Give a value ({annotation})")
    kinds = annotation.split(" | ")
    if not any(_fits(value, one) for one in kinds):
        inner = [one.partition("[")[2][:-1] for one in kinds if one.partition("[")[0] in _SERIES]
        odd = [item for item in value if not any(_fits(item, one) for one in inner)] if _is_series(value) else []
        of = f" with a {type(odd[0]).__name__}" if odd and inner else ""
        todo = dump_of(next(iter(odd), value)) or f"Give a value ({annotation})"
        raise InputError(f"{name} is a {type(value).__name__}{of}", todo=todo)


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value has the type of an annotation. A placeholder may become any type."""
    head, _, inner = annotation.partition("[")
    if head in _SERIES:
        return (_is_series(value) or isinstance(value, str)) and all(_fits(each, inner[:-1]) for each in _each(value))
    return head not in _KINDS or (
        isinstance(value, (*_KINDS[head], ResolveMixin)) and (head == "bool" or not isinstance(value, bool))
    )


def _is_series(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset)


def _each(value: Any) -> Iterable[Any]:
    # A single text means a list with this text.
    return (value,) if isinstance(value, str) else value


#: Types in our annotations, and the types that may be given for them.
_SERIES = frozenset({"Sequence", "Collection", "list"})
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str, os.PathLike),
    "date": (date,),
    "bool": (bool,),
    "int": (Integral,),
    "float": (Real, Decimal),
    "timedelta": (timedelta,),
    "dict": (Mapping,),
    "Mapping": (Mapping,),
    "None": (type(None),),
}


#: The aliases of `parameters`, and the types of placeholders, as the annotations that are checked here.
_IN_WORDS = (
    (re.compile(r"\bTexts\b"), "str | Sequence[str]"),
    (re.compile(r"\bText\b"), "str"),
    (re.compile(r"\bDuration\b"), "float | timedelta"),
    (re.compile(r"\bLiteral\[[^]]*\]"), "str"),
    (re.compile(r" \| XComArg\b"), ""),
)


def _in_words(annotation: str) -> str:
    for pattern, words in _IN_WORDS:
        annotation = pattern.sub(words, annotation)
    return annotation


@functools.cache
def _annotations(kind: Any) -> dict[str, str]:
    """Return the annotations of our classes for their parameters, without aliases."""
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        if issubclass(cls, BaseOperator) and cls.__module__.startswith("airflow_vertex_batch."):
            parameters: Iterable[inspect.Parameter] = inspect.signature(cls.__init__).parameters.values()
            found |= {one.name: _in_words(str(one.annotation)) for one in parameters if one.kind is one.KEYWORD_ONLY}
    return found
