"""What do all our operators share? The connection parameters, documented once, and the rules for how an error ends a
task.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar
from uuid import uuid4

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.bases.operator import BaseOperatorMeta

from airflow_vertex_batch.core.domain.address import Uri, cloud_folder
from airflow_vertex_batch.core.domain.errors import InputError, VertexBatchError
from airflow_vertex_batch.core.domain.identity import Identity
from airflow_vertex_batch.core.domain.unrendered import check_folder, check_location, check_project
from airflow_vertex_batch.core.domain.upstream_value import Origin, no_value_error, why_no_value
from airflow_vertex_batch.edge.arguments import DependencyPartial, check_arguments
from airflow_vertex_batch.edge.compat import default_retries, fail_exception, skip_exception, task_states, token_of
from airflow_vertex_batch.edge.rendering import TextRenderingMixin
from airflow_vertex_batch.edge.unknown_arguments import Signature
from airflow_vertex_batch.links import LINKS_KEY
from airflow_vertex_batch.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow.sdk import Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_vertex_batch.core.purchase.log import BatchLog
    from airflow_vertex_batch.hooks import VertexBatchHook
    from airflow_vertex_batch.parameters import Text, Texts

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Read once, when this module is loaded, as BaseOperator does.
DEFAULT_RETRIES = default_retries(BaseOperator.retries, os.environ)
#: XCom key of the reason why a task skipped itself.
SKIP_KEY = "skip_reason"
#: An argument that was not given at all. None has another meaning: an earlier task gave nothing.
NOT_GIVEN: Any = object()


#: Arguments that can also be set in the configuration, each as an author writes it.
_EXAMPLES = {"staging_uri": "staging_uri='gs://bucket/folder'", "location": "location='global', or a region,"}


class _OperatorMeta(BaseOperatorMeta):
    """Makes our operators. The worker makes the operator of a mapped task, with the output of an earlier task. An error
    then ends the task; otherwise it is an error of the DAG file.
    """

    if not TYPE_CHECKING:
        # A type checker would read the parameters of this method, and not those of `__init__`.
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - a metaclass
            """Make an operator. Airflow marks the operator of a mapped task."""
            with fail_or_retry() if kwargs.get("_airflow_from_mapped") else advice_on_own_line():
                check_arguments(cls, kwargs)
                return super().__call__(*args, **kwargs)


class VertexBatchBaseOperator(TextRenderingMixin, BaseOperator, metaclass=_OperatorMeta):
    """Base of the operators and the sensor.

    :param gcp_conn_id: Airflow connection of type ``google_cloud_platform``. Templated.
    :param impersonation_chain: service account to impersonate, or a chain of accounts; the last one is impersonated.
        Templated.
    :param project_id: project of the jobs; the connection's project if not given. Templated.
    :param location: location of new jobs: a region, ``global``, ``us`` or ``eu``; the option ``[vertex_batch]
        location`` if not given. Newer Gemini models are served for batch only in ``global``. Templated.
    :param staging_uri: ``gs://`` folder for request files, job output, manifests and logs; the option ``[vertex_batch]
        staging_uri`` if not given. Keep it for as long as runs may be cleared. Templated.
    :param retries: how often the task is tried again, 0 or more. If neither the task nor its DAG's ``default_args``
        says: ``[core] default_task_retries`` if that was set to a value other than Airflow's own 0, else 2. Between two
        tries Airflow waits `retry_delay` (5 minutes). An error that no retry can cure fails the task at once.
    """

    #: Arguments that Airflow renders: each class names those that it adds, and `template_fields` holds all of them.
    templated: ClassVar[tuple[str, ...]] = (
        *("gcp_conn_id", "impersonation_chain", "project_id", "location", "staging_uri"),
    )
    template_fields: Sequence[str] = templated
    #: Arguments that may hold the output of a task, and are never rendered.
    resolved_fields: ClassVar[tuple[str, ...]] = ()
    #: Parameters that the operator sets itself.
    set_inside: ClassVar[frozenset[str]] = frozenset()
    #: Arguments of Airflow's own classes that have no effect here, each with what to do instead.
    refused: ClassVar[Mapping[str, str]] = {}
    __signature__ = Signature()
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: Texts | None = None,
        project_id: Text | None = None,
        location: Text | None = None,
        staging_uri: Text | None = None,
        retries: int | None = DEFAULT_RETRIES,
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, **kwargs)
        self.gcp_conn_id = gcp_conn_id
        self.impersonation_chain = as_rendered(impersonation_chain)
        self.project_id = as_rendered(project_id)
        self.location = as_rendered(location)
        self.staging_uri = as_rendered(staging_uri)
        check_folder(staging_uri or None, "staging_uri")
        check_location(location)
        check_project(project_id or None)
        #: Where each wired argument comes from, by its name.
        self._origins: dict[str, Origin] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Collect the template fields of all classes that a new one is made of."""
        super().__init_subclass__(**kwargs)
        if "template_fields" not in vars(cls):
            cls.template_fields = _collected(cls)

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Do what Airflow does for every operator, and set our own defaults: Airflow below 3.3.2 ignores them."""
        with advice_on_own_line():
            check_arguments(cls, kwargs)
        plain = super().partial(**kwargs)
        made = DependencyPartial(operator_class=plain.operator_class, kwargs=plain.kwargs, params=plain.params)
        # This operator is the one that is mapped.
        plain._expand_called = True  # noqa: SLF001
        levels = (made.kwargs["dag"], made.kwargs["task_group"])
        said = [kwargs, kwargs.get("default_args"), *(level.default_args for level in levels if level is not None)]
        if not any("retries" in (each or ()) for each in said):
            made.kwargs["retries"] = DEFAULT_RETRIES
        return made

    def note_origins(self, **values: Any) -> None:
        """Note where arguments come from, before Airflow replaces placeholders by their values.

        :param values: the arguments; `NOT_GIVEN` for an argument that was not given.
        :raises InputError: for an argument that is None, because None would be read as not given.
        """
        self._origins |= {name: _origin(value) for name, value in values.items() if value is not NOT_GIVEN}
        for name, value in values.items():
            if value is None:
                raise self.no_value_error(name)

    def given(self, name: str) -> Any:
        """Return a wired argument; None if it was not given.

        :raises InputError: when there is no value, because the task that gives it failed, was skipped or returned
            nothing.
        """
        if name not in self._origins:
            return None
        value = getattr(self, name)
        if how := why_no_value(value):
            raise self.no_value_error(name, how)
        return value

    def no_value_error(self, name: str, how: str = "None") -> InputError:
        """Return the error for an argument whose task gave nothing.

        :param how: what was given instead.
        """
        origin = self._origins.get(name, Origin())
        tasks = origin.tasks or tuple(sorted(self.upstream_task_ids))
        return no_value_error(self.task_id, name, how, Origin(tasks, origin.template), task_states(tasks))

    def hook(self, location: str | None = None) -> VertexBatchHook:
        """Return the hook of this task's connection.

        :param location: another location than the task's.
        """
        from airflow_vertex_batch.hooks import VertexBatchHook

        return VertexBatchHook(
            gcp_conn_id=self.gcp_conn_id,
            impersonation_chain=self.impersonation_chain,
            project_id=self.project_id,
            location=location or self.location,
        )

    def staging(self) -> Uri:
        """Return the staging folder.

        :raises InputError: when none is set.
        """
        text = self.staging_uri or Settings.read().staging_uri
        if not text:
            raise InputError(
                f"Task {self.task_id} has no staging_uri",
                todo=f"Set {_EXAMPLES['staging_uri']} on the task, or [vertex_batch] staging_uri",
            )
        return cloud_folder(text, "staging_uri")

    def require(self, *names: str) -> None:
        """Insist on arguments that may also be options of ``[vertex_batch]``, when the DAG file is read.

        :raises InputError: for an argument that neither the task nor the configuration gives.
        """
        for name in names:
            if not getattr(self, name) and not Settings.option(name):
                raise InputError(
                    f"Task {self.task_id} has no {name}",
                    todo=f"Set {_EXAMPLES[name]} on the task, or [vertex_batch] {name}",
                )

    def folder(self, context: Context) -> Uri:
        """Return the folder in staging for this task of this run."""
        return self.staging() / identity_of(context).path

    def log_of(self, context: Context, hook: VertexBatchHook) -> BatchLog:
        """Return the log of this task's batch."""
        from airflow_vertex_batch.core.purchase.log import BatchLog

        return BatchLog(
            hook.store(),
            identity_of(context, str(self.staging())),
            token_of(context["ti"]),
            installation=Settings.read().installation,
        )

    def push_links(self, context: Context, links: dict[str, str]) -> None:
        """Store the addresses of this task's links."""
        if links:
            context["ti"].xcom_push(LINKS_KEY, links)


def _collected(kind: type) -> tuple[str, ...]:
    """Return the template fields of a class: those that our classes add, and those of Airflow's classes."""
    found: dict[str, None] = {}
    for cls in reversed(kind.__mro__):
        is_ours = issubclass(cls, VertexBatchBaseOperator)
        found |= dict.fromkeys(vars(cls).get("templated" if is_ours else "template_fields", ()))
    return tuple(name for name in found if name not in kind.set_inside)  # type: ignore[attr-defined]


def as_rendered(value: _T | XComArg) -> _T:
    """Return a value unchanged. For a type checker, it has the type that it has after Airflow has rendered it."""
    return value  # type: ignore[return-value]


def _origin(value: Any) -> Origin:
    """Return where an argument comes from, as far as the argument itself shows it."""
    tasks = {operator.task_id for operator, _ in XComArg.iter_xcom_references(value)}
    return Origin(tuple(sorted(tasks)), value if isinstance(value, str) and "{{" in value else "")


def identity_of(context: Any, staging: str = "") -> Identity:
    """Return the identity that a task's work belongs to: dag, task, run and map index, but not the try.

    :param staging: the staging folder, for the identity of jobs. Jobs of another folder have another identity.
    """
    ti = context["ti"]
    return Identity(
        staging=staging, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=getattr(ti, "map_index", -1)
    )


def generation_of(context: Any) -> str:
    """Return a text that changes when a person clears a task, and stays the same for retries."""
    return str(context["ti"].max_tries)


def attempt_token() -> str:
    """Return a unique name for the files and records of this attempt."""
    return uuid4().hex[:12]


def skip(context: Context, reason: str) -> NoReturn:
    """End the task as skipped. The reason goes to its log and to an XCom, because people look there."""
    log.warning("This task is skipped: %s", reason)
    context["ti"].xcom_push(SKIP_KEY, reason)
    raise skip_exception(reason)


@contextlib.contextmanager
def advice_on_own_line() -> Iterator[None]:
    """For an error of a DAG file, put the advice on a line of its own."""
    try:
        yield
    except VertexBatchError as error:
        error.put_advice_on_own_line()
        raise


@contextlib.contextmanager
def fail_or_retry() -> Iterator[None]:
    """End the task in the right way: an error that a retry cannot cure fails it at once.

    Airflow logs the traceback of the error that is raised, and of each error that caused it. Here the causes are logged
    only at DEBUG, so the message appears once.
    """
    try:
        yield
    except VertexBatchError as error:
        log.debug("Where the error comes from", exc_info=True)
        error.put_advice_on_own_line()
        raise (error if error.retryable else fail_exception(str(error))) from None


def texts(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return one text, or several texts, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)
