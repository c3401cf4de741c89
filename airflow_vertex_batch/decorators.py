"""How does a function become a batch? With ``@task.vertex_batch``: the function yields rows or prompts."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator, _TaskDecorator

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.edge.arguments import check_arguments, run_after
from airflow_vertex_batch.edge.base import DEFAULT_RETRIES
from airflow_vertex_batch.edge.compat import keywords_of
from airflow_vertex_batch.operators import VertexBatchOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from typing import Unpack

    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator

    from airflow_vertex_batch.parameters import DecoratorParameters


#: Arguments that name a source of rows. They are refused here, because the function is the source.
_OF_A_SOURCE = frozenset(
    ("sql", "sql_parameters", "sql_conn_id", "table", "files", "files_format", "objects", "rows", "requests")
)


class _DecoratedBatch(DecoratedOperator, VertexBatchOperator):
    """`VertexBatchOperator` whose rows are made by the decorated function, when the task runs."""

    custom_operator_name = "@task.vertex_batch"
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **VertexBatchOperator.template_fields_renderers,
    }

    def __init__(
        self,
        *,
        python_callable: Callable[..., Iterable[Any]],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            rows=python_callable,
            **kwargs,
        )

    def _rows(self, context: Context) -> Any:
        """Call the function. It returns or yields the rows. They are never rendered."""
        known = {**context, **self.op_kwargs}
        keywords = keywords_of(self.python_callable, self.op_args, known)
        return self.called(self.python_callable, keywords, tuple(self.op_args))


class _BatchDecorator(_TaskDecorator[..., Any, _DecoratedBatch]):
    """Airflow's decorator for our operator. For a mapped task, Airflow's own class ignores the defaults of the
    operator.
    """

    def _expand(self, *args: Any, **kwargs: Any) -> Any:
        made: Any = super()._expand(*args, **kwargs)
        given = made.operator.partial_kwargs
        check_arguments(_DecoratedBatch, given)
        given.setdefault("retries", DEFAULT_RETRIES)
        run_after(made.operator, given, _DecoratedBatch)
        return made


def vertex_batch_task(
    python_callable: Callable[..., Any] | None = None, **kwargs: Unpack[DecoratorParameters]
) -> TaskDecorator:
    """Make a batch of a function that yields rows (dicts) or prompts (texts).

    It takes the parameters of `VertexBatchOperator`, except those that name a source. The function's arguments may name
    context variables, and may be the output of other tasks.

    :param python_callable: the function, when used without parentheses.
    :raises InputError: for an argument that names a source, because the function is the source.
    """
    given: dict[str, Any] = {**kwargs}
    if sources := sorted(_OF_A_SOURCE & given.keys()):
        raise InputError(
            f"@task.vertex_batch takes no {sources[0]}",
            why="What the function yields are the rows",
            todo="Leave it out, or use VertexBatchOperator",
        ).put_advice_on_own_line()
    # Like Airflow's `task_decorator_factory`, which knows no decorator but its own.
    shape = {name: given.pop(name) for name in ("multiple_outputs",) if name in given}

    def decorate(function: Callable[..., Any]) -> Any:
        return _BatchDecorator(function=function, operator_class=_DecoratedBatch, kwargs=given, **shape)

    return decorate if python_callable is None else decorate(python_callable)  # type: ignore[return-value]


def _signature() -> inspect.Signature:
    """Return the signature of the decorator for ``help()``: every argument by its name."""
    first, _ = inspect.signature(vertex_batch_task).parameters.values()
    batch = inspect.signature(VertexBatchOperator).parameters.items()
    return inspect.Signature(
        [first, *(each for name, each in batch if name not in _OF_A_SOURCE)], return_annotation="TaskDecorator"
    )


vertex_batch_task.__signature__ = _signature()  # type: ignore[attr-defined]
