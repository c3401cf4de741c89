"""How does a task prepare? Rows and a prompt in, request files and their manifest out; the decisions are in `core`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.unrendered import check_plain, refuse_idle
from airflow_vertex_batch.edge.arguments import comes_later, is_one_of_mapped, put_in, run_after
from airflow_vertex_batch.edge.base import attempt_token, failing, plain, skip, texts
from airflow_vertex_batch.edge.compat import airflows_own, keywords_of
from airflow_vertex_batch.links import VertexBatchOutputLink, addresses
from airflow_vertex_batch.operators.shared import AskingOperator, CheckingOperator, LandingOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal, Unpack

    from airflow.sdk import BaseOperatorLink, Context
    from airflow.sdk.definitions.xcom_arg import XComArg

    from airflow_vertex_batch.core.domain.manifest import Manifest
    from airflow_vertex_batch.core.requests.sources import Source
    from airflow_vertex_batch.hooks import VertexBatchHook
    from airflow_vertex_batch.parameters import PrepareRest, Text, Texts

#: Of what kind arguments are that may come from a task before.
_KINDS_OF: dict[str, tuple[type, ...]] = {
    "prompt": (str,), "media_columns": (list, tuple, dict, str), "tools": (list, tuple),
    "safety_settings": (list, tuple),
}  # fmt: skip
#: What a request is made of.
_OF_A_REQUEST = ("prompt", "system_instruction", "generation_config", "tools", "safety_settings", "media_columns")
#: Parts of every request that are sent as they are.
_PLAIN = ("system_instruction", "generation_config", "tools", "safety_settings")
_SOURCES = ("sql", "table", "files", "objects", "rows", "requests")


class VertexBatchPrepareOperator(AskingOperator, CheckingOperator, LandingOperator):
    """Turn source rows and a prompt into request files in Cloud Storage, and return their manifest.

    Exactly one source is given: `sql`, `table`, `files`, `objects`, `rows` or `requests`. Rows stream: memory does not
    grow with their number. A retry finds the set that an earlier attempt prepared from the same rows.

    :param sql: a query: BigQuery, or with `sql_conn_id` any DB-API connection. A ``.sql`` file name loads the file.
        Templated.
    :param sql_parameters: values for the query's parameters (``@name`` in BigQuery, the driver's style elsewhere).
        Templated.
    :param sql_conn_id: Airflow connection to ask instead of BigQuery. Templated.
    :param table: a BigQuery table, ``bq://project.dataset.table``. Templated.
    :param files: JSONL, CSV or Parquet files, local or ``gs://``, by name, folder or glob. Templated.
    :param files_format: of `files`: ``jsonl``, ``csv`` or ``parquet``; by each file's ending where not given.
    :param objects: media in Cloud Storage by prefix or glob: each object is a row with the columns ``uri``, ``name``,
        ``mime_type`` and ``size_bytes``, and a ``fileData`` part of its request. Templated.
    :param rows: dicts or texts; an iterable, the output of another task, or a callable, which may ask for context
        variables by name. A list may hold outputs of tasks, at any depth. Never rendered.
    :param requests: ready-made request JSONL, by name or glob: each line has a ``request``, and may have a ``key``.
        What else stands beside the request is a column: `key_column` may name one, and all of them, or those that
        `columns` names, travel beside the answer. Templated.
    :param prompt: a Jinja template over the row: ``{{ column }}``, ``{{ row["odd name"] }}``, and `prompt_variables`.
        It is rendered for each row by the worker, not by Airflow; row data is never rendered itself. It may be the
        output of another task, as may `tools`, `safety_settings` and `media_columns`, in whole or in part.
    :param prompt_variables: further names for `prompt`, the same for every row. Templated, so this is where
        ``{{ params.tone }}`` and the like go.
    :param system_instruction: text, or a ``Content`` object. Templated.
    :param generation_config: ``GenerationConfig`` of the API: ``temperature``, ``maxOutputTokens`` and so on.
        Templated.
    :param tools: ``Tool`` objects of the API. The importer refuses empty objects such as ``{"googleSearch": {}}``.
    :param safety_settings: ``SafetySetting`` objects of the API.
    :param media_columns: columns that hold an address of media: a list, or a dict of column to MIME type.
    :param key_column: the column that names a row, unique within the batch; by content where not given. Templated.
    :param columns: source columns to keep beside each answer. They do not pass through the model. Templated.
    :param on_rejected_row: ``fail`` (default) names the rows that cannot be sent and sends nothing; ``dead_letter``
        sends the others, and those rows end as ``rejected``.
    :param max_rejected_ratio: with ``dead_letter``, the share of rows (0 to 1, default 1) that may be rejected; above
        it the task fails and sends nothing.
    :param on_empty: when the source has no row: ``fail`` (default) at once; ``skip`` this task, and with it what comes
        after, for the reason in the log and in the XCom ``skip_reason``; ``succeed`` goes on without a job and lands
        no row, in place of what earlier runs of that day have landed where `replace_partition` says so. Rows that all
        have an answer already, or are all rejected, are not an empty source.
    :param on_null: where the prompt puts a column without a value (NULL, None, NaN): ``reject`` (default) rejects the
        row and names the column, ``empty`` puts an empty text there. ``{{ column or "none" }}`` decides in the prompt.
    :param lint_ignore: names of lint rules that let a request pass, such as ``["schema-empty-object"]``: for what the
        service takes by now and this package does not know yet. `airflow-vertex-batch lint` prints the names.
    :param fix_requests: cure what can be cured without changing meaning (a ``$ref``, an empty object, a key that would
        come back as a number) instead of rejecting the row.
    :param deduplicate: send identical requests once, and give every such row the answer.
    :param skip_answered: do not send rows whose prompt, model, schema and parameters have a good answer at the
        destination; they land again with that answer, for nothing. A row that never gets one is sent every night: see
        `min_succeeded_rows` of the export. Needs `model` and a destination.
    :param correlation: how an answer finds its request where its key did not come back: by its ``contents`` (default),
        or by a request ``label``, which also tells rows with the same contents apart, and shows in the billing export.
    :param max_requests_per_job: most requests in one job, 1 to 200,000 (the service's limit, 2026-11-22).
    :returns: the manifest: files, counts and fingerprint, no rows.
    """

    templated: ClassVar[tuple[str, ...]] = (
        *("sql", "sql_parameters", "sql_conn_id", "table", "files", "objects", "requests"),
        *("prompt_variables", "system_instruction", "generation_config", "key_column", "columns"),
    )
    resolved_fields: ClassVar[tuple[str, ...]] = ("rows", "prompt", "tools", "safety_settings", "media_columns")
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "generation_config": "json"}
    operator_extra_links: Sequence[BaseOperatorLink] = (VertexBatchOutputLink(),)

    def __init__(
        self,
        *,
        prompt: Text = "",
        sql: Text | None = None,
        sql_parameters: Mapping[str, Any] | Sequence[Any] | XComArg | None = None,
        sql_conn_id: Text | None = None,
        table: Text | None = None,
        files: Texts | None = None,
        files_format: Literal["", "jsonl", "csv", "parquet"] = "",
        objects: Text | None = None,
        rows: Any = None,
        requests: Texts | None = None,
        prompt_variables: Mapping[str, Any] | XComArg | None = None,
        system_instruction: Text | dict[str, Any] | None = None,
        generation_config: dict[str, Any] | XComArg | None = None,
        tools: list[dict[str, Any]] | XComArg | None = None,
        safety_settings: list[dict[str, Any]] | XComArg | None = None,
        media_columns: Sequence[str] | Mapping[str, str] | XComArg | None = None,
        key_column: Text | None = None,
        columns: Sequence[str] | XComArg = (),
        on_rejected_row: Literal["fail", "dead_letter"] = "fail",
        max_rejected_ratio: float = 1.0,
        on_empty: Literal["fail", "skip", "succeed"] = "fail",
        on_null: Literal["reject", "empty"] = "reject",
        lint_ignore: Sequence[str] = (),
        fix_requests: bool = False,
        deduplicate: bool = False,
        skip_answered: bool = False,
        correlation: Literal["contents", "label"] = "contents",
        max_requests_per_job: int = 200_000,
        **kwargs: Unpack[PrepareRest],
    ) -> None:
        super().__init__(**kwargs)
        self.prompt, self.prompt_variables = plain(prompt), plain(prompt_variables)
        self.sql, self.sql_parameters, self.sql_conn_id = plain(sql), plain(sql_parameters), plain(sql_conn_id)
        self.table, self.files, self.files_format = plain(table), plain(files), files_format
        self.objects, self.rows, self.requests = plain(objects), rows, plain(requests)
        self.system_instruction, self.generation_config = plain(system_instruction), plain(generation_config)
        self.tools, self.safety_settings = plain(tools), plain(safety_settings)
        self.media_columns, self.key_column, self.columns = plain(media_columns), plain(key_column), plain(columns)
        self.on_rejected_row, self.max_requests_per_job = on_rejected_row, max_requests_per_job
        self.max_rejected_ratio, self.on_empty, self.fix_requests = max_rejected_ratio, on_empty, fix_requests
        self.deduplicate, self.skip_answered, self.correlation = deduplicate, skip_answered, correlation
        self.on_null, self.lint_ignore = on_null, lint_ignore
        self._check()
        self.insist("staging_uri", *(["location"] if self.destination else []))
        if not is_one_of_mapped(self):
            run_after(self, vars(self), type(self))

    def _check(self) -> None:
        """Find what is wrong where the author is looking: when the DAG file is read."""
        from airflow_vertex_batch.core.requests.request import MAX_REQUESTS

        source = self._the_source()
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
        for name in _PLAIN:
            check_plain(getattr(self, name), name)
        self._refuse_idle(source)
        for name in self.resolved_fields:
            if comes_later(getattr(self, name)):
                self.wire(**{name: getattr(self, name)})
            else:
                self._check_come(name)
        self.wire(**{source: getattr(self, source)})

    def _check_words(self) -> None:
        from airflow_vertex_batch.core.landing.on_empty import OnEmpty
        from airflow_vertex_batch.core.requests.lint import RULES
        from airflow_vertex_batch.core.requests.readers import READERS
        from airflow_vertex_batch.core.requests.request import Correlation, OnRejectedRow
        from airflow_vertex_batch.core.requests.values import OnNull

        OnEmpty.of(self.on_empty)
        words = {
            "on_rejected_row": OnRejectedRow, "correlation": Correlation, "on_null": OnNull,
            "files_format": READERS if self.files_format else [""],
        }  # fmt: skip
        for name, known in words.items():
            if (word := getattr(self, name)) not in set(known):
                raise InputError(f"{name}={word!r} is not known", todo=f"Use {' or '.join(map(repr, map(str, known)))}")
        if unknown := sorted({*texts(self.lint_ignore)} - RULES.keys()):
            raise InputError(f"lint_ignore names no rule {unknown[0]!r}", todo=f"Use names of {', '.join(RULES)}")

    def _check_come(self, name: str) -> None:
        """Check an argument that is there: when the DAG file is read, or once it has come.

        :raises InputError: when it is not of its kind.
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

    def _refuse_idle(self, source: str) -> None:
        """Refuse what this source, or a task without a prompt, makes no use of.

        :raises InputError: naming the arguments.
        """
        refuse = partial(refuse_idle, self.task_id)
        on_null = {"on_null": None if self.on_null == "reject" else self.on_null}
        if source == "requests":
            why, todo = "What `requests` names is sent as it is", "Put it into the request lines, or prepare rows"
            refuse(self._of(*_OF_A_REQUEST, "prompt_variables") | on_null, why=why, todo=todo)
        if not self.prompt and source != "rows":
            refuse(self._of("prompt_variables") | on_null, why="It has no prompt", todo="Set prompt='…'")
        if source != "sql":
            refuse(self._of("sql_parameters", "sql_conn_id"), why="It asks no query", todo="Give sql, or leave it out")
        if source != "files":
            refuse(self._of("files_format"), why="It reads no files", todo="Give files, or leave it out")
        if self.on_rejected_row == "fail":
            share = {"max_rejected_ratio": self.max_rejected_ratio != 1}
            refuse(share, why="Each rejected row fails the task", todo="Set on_rejected_row='dead_letter'")

    def _of(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}

    def _the_source(self) -> str:
        """Return which source is given.

        :raises InputError: when it is not exactly one, or needs a prompt and has none.
        """
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                f"Task {self.task_id} has {len(given)} sources ({', '.join(given) or 'none'})",
                todo=f"Give exactly one of {', '.join(_SOURCES)}",
            )
        if not self.prompt and given[0] not in {"requests", "rows"} and not self.media_columns:
            raise InputError(f"Task {self.task_id} has no prompt", todo="Set prompt='… {{ column }} …'")
        return given[0]

    def execute(self, context: Context) -> dict[str, Any]:
        """Prepare, and return the manifest."""
        from airflow_vertex_batch.core.purchase.entries import Prepared

        with failing():
            self.push_links(context, addresses(folder=str(self.folder(context))))
            hook = self.hook()
            manifest = self.prepare(context, hook)
            self.log_of(context, hook).add(Prepared.of(manifest))
            self._see_to_emptiness(context, manifest)
            return manifest.as_dict()

    def prepare(self, context: Context, hook: VertexBatchHook) -> Manifest:
        """Write the request files, or find those that an earlier attempt wrote from the same rows."""
        from airflow_vertex_batch.core.landing.landed import known_digests
        from airflow_vertex_batch.core.requests.prepare import prepare

        self._put_in(context)
        destination = self.check_destination(context, hook)
        store, folder = hook.store(), self.folder(context)
        rows = self._source(context).rows(store, hook.warehouse())

        known = None
        if self.skip_answered and destination is not None:
            answers = destination.answers(store, hook.warehouse())
            known = partial(known_digests, answers, store, folder, self.model or "")
        manifest = prepare(rows, self._plan(), store, folder, attempt_token(), known=known)
        made = f"; request file {manifest.shards[0].uri}" if manifest.shards else ""
        more = " and those beside it" if len(manifest.shards) > 1 else ""
        self.log.info("%s%s%s; manifest %s", manifest.summary(), made, more, manifest.uri)
        return manifest

    def _put_in(self, context: Context) -> None:
        """Put in what tasks before this one gave, but for rows, which stream."""
        for name in self.resolved_fields:
            value = getattr(self, name)
            if name != "rows" and comes_later(value):
                setattr(self, name, put_in(value, context))
                self.given(name)
                self._check_come(name)

    def _see_to_emptiness(self, context: Context, manifest: Manifest) -> None:
        """End the task, as its author wants it, when there is no row.

        :raises InputError: with `on_empty` "fail".
        :raises AirflowSkipException: with "skip".
        """
        from airflow_vertex_batch.core.landing.on_empty import OnEmpty, emptiness

        policy, empty = OnEmpty(self.on_empty), emptiness(manifest)
        if policy is OnEmpty.SUCCEED or empty is None:
            return
        if policy is OnEmpty.FAIL:
            raise empty
        skip(context, str(empty))

    def _source(self, context: Context) -> Source:
        from airflow.sdk import XComArg

        from airflow_vertex_batch.core.requests import sources

        if self.rows is not None:
            rows = self._rows(context)
            if rows is None and isinstance(self.rows, XComArg):
                raise self.given_nothing("rows")
            return sources.Rows(rows, passing=airflows_own())
        if (sql := self.given("sql")) is not None:
            if self.sql_conn_id:
                return sources.DbApiQuery(self._connect, sql, self.sql_parameters)
            return sources.Query(sql, dict(self.sql_parameters or {}))
        return self._stored_source()

    def _stored_source(self) -> Source:
        from airflow_vertex_batch.core.requests import sources

        if (table := self.given("table")) is not None:
            from airflow_vertex_batch.core.domain.address import TableId

            return sources.Table(TableId.parse(table, self.project_id or ""))
        if (requests := self.given("requests")) is not None:
            return sources.Requests(texts(requests))
        if (objects := self.given("objects")) is not None:
            return sources.Objects(objects)
        return sources.Files(texts(self.given("files")), self.files_format)

    def _connect(self) -> Any:
        from airflow.sdk import BaseHook

        return BaseHook.get_hook(str(self.sql_conn_id)).get_conn()

    def _rows(self, context: Context) -> Any:
        if not callable(self.rows) and comes_later(self.rows):
            return put_in(self.rows, context)
        return self.called(self.rows, keywords_of(self.rows, (), context)) if callable(self.rows) else self.rows

    @staticmethod
    def called(function: Callable[..., Any], keywords: Mapping[str, Any], arguments: Sequence[Any] = ()) -> Any:
        """Call the author's function; Airflow's own errors, such as a skip, go on as they are."""
        from airflow_vertex_batch.core.requests.sources import rows_of

        return rows_of(function, *arguments, passing=airflows_own(), **keywords)

    def _plan(self) -> Any:
        from airflow_vertex_batch.core.requests.prepare import PreparePlan
        from airflow_vertex_batch.core.requests.request import Correlation, OnRejectedRow

        return PreparePlan(
            template=None if self.requests is not None else self._template(),
            key_column=self.key_column,
            columns=texts(self.columns),
            on_rejected_row=OnRejectedRow(self.on_rejected_row),
            max_rejected_ratio=self.max_rejected_ratio,
            max_requests=self.max_requests_per_job,
            schema=self.schema(),
            model=self.model or "",
            fix=self.fix_requests,
            deduplicate=self.deduplicate,
            correlation=Correlation(self.correlation),
            lint_ignore=frozenset(texts(self.lint_ignore)),
        )

    def _template(self) -> Any:
        from airflow_vertex_batch.core.requests.request import RequestTemplate
        from airflow_vertex_batch.core.requests.values import OnNull

        for name in _PLAIN:
            check_plain(getattr(self, name), name)
        media = self.media_columns or (("uri",) if self.objects is not None else ())
        return RequestTemplate(
            prompt=self.prompt or ("{{ prompt }}" if self.rows is not None and not media else ""),
            on_null=OnNull(self.on_null),
            system_instruction=self.system_instruction,
            generation_config=self.generation_config or {},
            response_schema=self.schema(),
            tools=self.tools or [],
            safety_settings=self.safety_settings or [],
            media=dict(media) if isinstance(media, Mapping) else dict.fromkeys(texts(media)),
            variables=dict(self.prompt_variables or {}),
        )
