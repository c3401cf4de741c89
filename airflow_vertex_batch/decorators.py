"""How does a function become a batch? ``@task.vertex_batch``: what it yields are the rows, or the prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator, _TaskDecorator

from airflow_vertex_batch.arguments import check_arguments, run_after
from airflow_vertex_batch.base import DEFAULT_RETRIES
from airflow_vertex_batch.operators import VertexBatchOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator


class _DecoratedBatch(DecoratedOperator, VertexBatchOperator):
    """`VertexBatchOperator` whose rows are made by the decorated function, when the task runs."""

    custom_operator_name = "@task.vertex_batch"
    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *VertexBatchOperator.template_fields)
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
        """Call the function: what it returns or yields are the rows. Nothing of it is ever rendered."""
        from airflow.sdk.bases.decorator import determine_kwargs

        known = {**context, **self.op_kwargs}
        return self.python_callable(*self.op_args, **determine_kwargs(self.python_callable, self.op_args, known))


class _BatchDecorator(_TaskDecorator[..., Any, _DecoratedBatch]):
    """What Airflow makes of a decorated function. Mapped, it does not see that its operator has defaults of its own."""

    def _expand(self, *args: Any, **kwargs: Any) -> Any:
        made: Any = super()._expand(*args, **kwargs)
        given = made.operator.partial_kwargs
        check_arguments(_DecoratedBatch, given)
        given.setdefault("retries", DEFAULT_RETRIES)
        run_after(made.operator, given, _DecoratedBatch)
        return made


def vertex_batch_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a batch of a function that yields rows (dicts) or prompts (texts).

    It takes the parameters of `VertexBatchOperator`, but for a source. The function's arguments may name context
    variables, and take the output of other tasks.

    :param python_callable: the function, when used without parentheses.
    """
    # Like Airflow's `task_decorator_factory`, which knows no decorator but its own.
    shape = {name: kwargs.pop(name) for name in ("multiple_outputs",) if name in kwargs}

    def decorate(function: Callable[..., Any]) -> Any:
        return _BatchDecorator(function=function, operator_class=_DecoratedBatch, kwargs=kwargs, **shape)

    return decorate if python_callable is None else decorate(python_callable)  # type: ignore[return-value]
