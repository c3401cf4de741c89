"""Which arguments describe rows and their requests? One set of arguments, for a task of Airflow and for a batch without
Airflow. They are checked, and turned into a source and a plan.

A task checks twice: when its DAG file is read, while some values are still templates or outputs of earlier tasks; and
again when these values are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.unrendered import check_plain, refuse_idle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_vertex_batch.core.requests.prepare import PreparePlan
    from airflow_vertex_batch.core.requests.request import RequestTemplate
    from airflow_vertex_batch.core.requests.sources import Source

#: The types of arguments that may come from an earlier task.
_KINDS_OF: dict[str, tuple[type, ...]] = {
    "prompt": (str,), "media_columns": (list, tuple, dict, str), "tools": (list, tuple),
    "safety_settings": (list, tuple),
}  # fmt: skip
#: The arguments that a request is made from.
_OF_A_REQUEST = ("prompt", "system_instruction", "generation_config", "tools", "safety_settings", "media_columns")
#: Parts of every request that are sent as they are.
_PLAIN = ("system_instruction", "generation_config", "tools", "safety_settings")


class PrepareArguments(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of `VertexBatchPrepareOperator`, which documents each of them.

    :param task_id: the task that prepares, for error messages.
    :param response_schema: a JSON Schema, or a Pydantic model class.
    """

    SOURCES: ClassVar[tuple[str, ...]] = ("sql", "table", "files", "objects", "rows", "requests")

    task_id: str
    model: str | None = None
    project_id: str | None = None
    destination: str | None = None
    response_schema: Any = None
    sql: str | None = None
    sql_parameters: dict[str, Any] | list[Any] | None = None
    sql_conn_id: str | None = None
    table: str | None = None
    files: str | tuple[str, ...] | None = None
    files_format: str = ""
    objects: str | None = None
    rows: Any = None
    requests: str | tuple[str, ...] | None = None
    prompt: str = ""
    prompt_variables: dict[str, Any] | None = None
    system_instruction: str | dict[str, Any] | None = None
    generation_config: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    safety_settings: list[dict[str, Any]] | None = None
    media_columns: str | tuple[str, ...] | dict[str, str] | None = None
    key_column: str | None = None
    columns: str | tuple[str, ...] = ()
    on_rejected_row: Literal["fail", "dead_letter"] = "fail"
    max_rejected_ratio: float = 1.0
    on_null: Literal["reject", "empty"] = "reject"
    lint_ignore: str | tuple[str, ...] = ()
    fix_requests: bool = False
    deduplicate: bool = False
    skip_answered: bool = False
    correlation: Literal["contents", "label"] = "contents"
    max_requests_per_job: int = 200_000

    def check(self, later: Collection[str] = ()) -> str:
        """Check the arguments, and return the name of the source.

        :param later: arguments whose values are not known yet.
        :raises InputError: with the wrong argument, and what to do.
        """
        from airflow_vertex_batch.core.requests.request import MAX_REQUESTS

        source = self.source_name
        if source != "rows" and getattr(self, source) in ("", [], ()):
            raise InputError(f"{source} of task {self.task_id} is empty", todo="Name what is to be read")
        self._check_words()
        if not 1 <= self.max_requests_per_job <= MAX_REQUESTS:
            raise InputError(f"max_requests_per_job={self.max_requests_per_job}", todo=f"Use 1 to {MAX_REQUESTS:,}")
        if not 0 <= self.max_rejected_ratio <= 1:
            raise InputError(f"max_rejected_ratio={self.max_rejected_ratio}", todo="Use a share from 0 to 1")
        if self.skip_answered and not (self.model and self.destination):
            raise InputError(
                f"Task {self.task_id} cannot know what has been answered",
                todo="With skip_answered=True, also give model and destination",
            )
        if isinstance(self.sql_parameters, list | tuple) and self.sql_conn_id is None:
            raise InputError("sql_parameters is a list", why="BigQuery's have names", todo="Give a dict: {'day': …}")
        self._check_plain()
        self._refuse_idle(source)
        for name in ("rows", *_KINDS_OF):
            if name not in later:
                self.check_known(name)
        return source

    @property
    def source_name(self) -> str:
        """Which source is given.

        :raises InputError: when there is not exactly one source, or the source needs a prompt and there is none.
        """
        given = [name for name in self.SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                f"Task {self.task_id} has {len(given)} sources ({', '.join(given) or 'none'})",
                todo=f"Give exactly one of {', '.join(self.SOURCES)}",
            )
        if not self.prompt and given[0] not in {"requests", "rows"} and not self.media_columns:
            raise InputError(f"Task {self.task_id} has no prompt", todo="Set prompt='… {{ column }} …'")
        return given[0]

    def check_known(self, name: str) -> None:
        """Check an argument whose value is known now.

        :raises InputError: when it does not have its type.
        """
        from airflow_vertex_batch.core.requests.prompt import compile_prompt, refuse_single_braces
        from airflow_vertex_batch.core.requests.sources import refuse_no_rows

        value, kinds = getattr(self, name), _KINDS_OF.get(name)
        if value is not None and kinds is not None and not isinstance(value, kinds):
            raise InputError(
                f"{name} of task {self.task_id} is a {type(value).__name__}",
                todo=f"Give a {' or a '.join(kind.__name__ for kind in kinds)}",
            )
        if name == "prompt":
            refuse_single_braces(value)
            compile_prompt(value)
        elif name == "rows" and value is not None:
            refuse_no_rows(value)

    def source(self, connect: Callable[[], Any] | None = None) -> Source:
        """Return the source of the rows, after all its arguments are known.

        :param connect: opens the database connection that `sql_conn_id` names.
        :raises InputError: when an address is not valid.
        """
        from airflow_vertex_batch.core.requests import sources

        if self.rows is not None:
            return sources.Rows(self.rows)
        if self.sql is None:
            return self._stored_source()
        if self.sql_conn_id and connect is not None:
            return sources.DbApiQuery(connect, self.sql, self.sql_parameters)
        return sources.Query(self.sql, dict(self.sql_parameters or {}))

    def _stored_source(self) -> Source:
        from airflow_vertex_batch.core.domain.address import TableId
        from airflow_vertex_batch.core.requests import sources

        if self.table is not None:
            return sources.Table(TableId.parse(self.table, self.project_id or ""))
        if self.requests is not None:
            return sources.Requests(_texts(self.requests))
        if self.objects is not None:
            return sources.Objects(self.objects)
        return sources.Files(_texts(self.files or ()), self.files_format)

    def plan(self) -> PreparePlan:
        """Return how requests are made from the rows."""
        from airflow_vertex_batch.core.requests.prepare import PreparePlan
        from airflow_vertex_batch.core.requests.request import Correlation, OnRejectedRow

        return PreparePlan(
            template=None if self.requests is not None else self._template(),
            key_column=self.key_column,
            columns=_texts(self.columns),
            on_rejected_row=OnRejectedRow(self.on_rejected_row),
            max_rejected_ratio=self.max_rejected_ratio,
            max_requests=self.max_requests_per_job,
            schema=self.schema(),
            model=self.model or "",
            fix=self.fix_requests,
            deduplicate=self.deduplicate,
            correlation=Correlation(self.correlation),
            lint_ignore=frozenset(_texts(self.lint_ignore)),
        )

    def schema(self) -> dict[str, Any] | None:
        """Return the JSON Schema of answers, or None."""
        from airflow_vertex_batch.core.requests.schema import json_schema

        return json_schema(self.response_schema) if self.response_schema is not None else None

    def _template(self) -> RequestTemplate:
        from airflow_vertex_batch.core.requests.request import RequestTemplate
        from airflow_vertex_batch.core.requests.values import OnNull

        self._check_plain()
        media = self.media_columns or (("uri",) if self.objects is not None else ())
        return RequestTemplate(
            prompt=self.prompt or ("{{ prompt }}" if self.rows is not None and not media else ""),
            on_null=OnNull(self.on_null),
            system_instruction=self.system_instruction,
            generation_config=self.generation_config or {},
            response_schema=self.schema(),
            tools=self.tools or [],
            safety_settings=self.safety_settings or [],
            media=dict(media) if isinstance(media, Mapping) else dict.fromkeys(_texts(media)),
            variables=dict(self.prompt_variables or {}),
        )

    def _check_plain(self) -> None:
        for name in _PLAIN:
            check_plain(getattr(self, name), name)
        if isinstance(self.response_schema, dict):
            check_plain(self.response_schema, "response_schema")

    def _check_words(self) -> None:
        from airflow_vertex_batch.core.requests.lint import RULES
        from airflow_vertex_batch.core.requests.readers import READERS
        from airflow_vertex_batch.core.requests.request import Correlation, OnRejectedRow
        from airflow_vertex_batch.core.requests.values import OnNull

        words = {
            "on_rejected_row": OnRejectedRow, "correlation": Correlation, "on_null": OnNull,
            "files_format": READERS if self.files_format else [""],
        }  # fmt: skip
        for name, known in words.items():
            if (word := getattr(self, name)) not in set(known):
                raise InputError(f"{name}={word!r} is not known", todo=f"Use {' or '.join(map(repr, map(str, known)))}")
        if unknown := sorted({*_texts(self.lint_ignore)} - RULES.keys()):
            raise InputError(f"lint_ignore names no rule {unknown[0]!r}", todo=f"Use names of {', '.join(RULES)}")

    def _refuse_idle(self, source: str) -> None:
        """Refuse arguments that have no effect with this source, or without a prompt.

        :raises InputError: with the names of the arguments.
        """
        refuse = partial(refuse_idle, self.task_id)
        on_null = {"on_null": None if self.on_null == "reject" else self.on_null}
        if source == "requests":
            why, todo = "What `requests` names is sent as it is", "Put it into the request lines, or prepare rows"
            refuse(self._given_of(*_OF_A_REQUEST, "prompt_variables") | on_null, why=why, todo=todo)
        if not self.prompt and source != "rows":
            refuse(self._given_of("prompt_variables") | on_null, why="It has no prompt", todo="Set prompt='…'")
        if source != "sql":
            refuse(
                self._given_of("sql_parameters", "sql_conn_id"),
                why="It asks no query",
                todo="Give sql, or leave it out",
            )
        if source != "files":
            refuse(self._given_of("files_format"), why="It reads no files", todo="Give files, or leave it out")
        if self.on_rejected_row == "fail":
            share = {"max_rejected_ratio": self.max_rejected_ratio != 1}
            refuse(share, why="Each rejected row fails the task", todo="Set on_rejected_row='dead_letter'")

    def _given_of(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
