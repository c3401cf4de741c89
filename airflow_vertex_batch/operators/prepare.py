"""How does a task prepare? Rows and a prompt go in, request files and a manifest come out. `core` decides."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_vertex_batch.edge.arguments import fill_placeholders, has_placeholder, is_one_of_mapped, run_after
from airflow_vertex_batch.edge.base import as_rendered, attempt_token, fail_or_retry, skip
from airflow_vertex_batch.edge.compat import airflow_exceptions, keywords_of
from airflow_vertex_batch.links import VertexBatchOutputLink, addresses
from airflow_vertex_batch.operators.shared import DestinationOperator, ModelOperator, SchemaOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal, Unpack

    from airflow.sdk import BaseOperatorLink, Context
    from airflow.sdk.definitions.xcom_arg import XComArg

    from airflow_vertex_batch.core.domain.manifest import Manifest
    from airflow_vertex_batch.core.requests.prepare_arguments import PrepareArguments
    from airflow_vertex_batch.core.requests.sources import Source
    from airflow_vertex_batch.hooks import VertexBatchHook
    from airflow_vertex_batch.parameters import PrepareSharedParameters, Text, Texts


class VertexBatchPrepareOperator(ModelOperator, SchemaOperator, DestinationOperator):
    """Turn source rows and a prompt into request files in Cloud Storage, and return their manifest.

    Exactly one source is given: `sql`, `table`, `files`, `objects`, `rows` or `requests`. Rows stream: memory does not
    grow with their number. A retry finds the set that an earlier attempt prepared from the same rows.

    :param sql: a query for BigQuery or, with `sql_conn_id`, for any DB-API connection. A ``.sql`` file name loads the
        file. Templated.
    :param sql_parameters: values for the query's parameters (``@name`` in BigQuery, the driver's style elsewhere).
        Templated.
    :param sql_conn_id: Airflow connection that runs the query instead of BigQuery. Templated.
    :param table: a BigQuery table, ``bq://project.dataset.table``. Templated.
    :param files: JSONL, CSV or Parquet files, local or ``gs://``, by name, folder or glob. Templated.
    :param files_format: the format of `files`: ``jsonl``, ``csv`` or ``parquet``. If not given, the ending of each file
        name decides.
    :param objects: media in Cloud Storage by prefix or glob: each object is a row with the columns ``uri``, ``name``,
        ``mime_type`` and ``size_bytes``, and a ``fileData`` part of its request. Templated.
    :param rows: dicts or texts; an iterable, the output of another task, or a callable, which may ask for context
        variables by name. A list may hold outputs of tasks, at any depth. Never rendered.
    :param requests: ready-made request JSONL, by name or glob: each line has a ``request``, and may have a ``key``.
        Every other member of the line is a column. `key_column` may name one of these columns. All of them, or only
        those in `columns`, are kept beside the answer. Templated.
    :param prompt: a Jinja template over the row: ``{{ column }}``, ``{{ row["odd name"] }}``, and `prompt_variables`.
        The worker renders it for each row; Airflow does not. The data in a row is never treated as a template.
        `prompt`, `tools`, `safety_settings` and `media_columns` may be the output of another task, in whole or in part.
    :param prompt_variables: further names for `prompt`, the same for every row. Put values such as ``{{ params.tone
        }}`` here. Templated.
    :param system_instruction: text, or a ``Content`` object. Templated.
    :param generation_config: ``GenerationConfig`` of the API: ``temperature``, ``maxOutputTokens`` and so on.
        Templated.
    :param tools: ``Tool`` objects of the API. The importer refuses empty objects such as ``{"googleSearch": {}}``.
    :param safety_settings: ``SafetySetting`` objects of the API.
    :param media_columns: columns that hold an address of media: a list, or a dict of column to MIME type.
    :param key_column: the column that names a row, unique within the batch. If not given, the key is made from the
        content. Templated.
    :param columns: source columns to keep beside each answer. The model does not see them. Templated.
    :param on_rejected_row: ``fail`` (default) names the rows that cannot be sent and sends nothing; ``dead_letter``
        sends the other rows, and the rows that cannot be sent end as ``rejected``.
    :param max_rejected_ratio: with ``dead_letter``, the share of rows (0 to 1, default 1) that may be rejected; above
        it the task fails and sends nothing.
    :param on_empty: when the source has no row: ``fail`` (default) fails at once. ``skip`` skips this task and the
        tasks after it; the reason is in the log and in the XCom ``skip_reason``. ``succeed`` goes on without a job and
        lands no row; with `replace_partition` it also removes the rows that earlier runs of that day have landed. A
        source is not empty if all its rows have an answer already, or if all are rejected.
    :param on_null: what to do when the prompt uses a column without a value (NULL, None, NaN): ``reject`` (default)
        rejects the row and names the column, ``empty`` puts an empty text there. With ``empty`` the prompt can choose
        another text: ``{{ column or "none" }}``.
    :param lint_ignore: names of lint rules that are not applied, such as ``["schema-empty-object"]``. Use it if the
        service accepts something that this package still refuses. `airflow-vertex-batch lint` prints the names.
    :param fix_requests: repair faults that can be repaired without a change of meaning (a ``$ref``, an empty object, a
        key that would come back as a number), instead of rejecting the row.
    :param deduplicate: send identical requests once, and give the answer to every row with this request.
    :param skip_answered: do not send a row if the destination has a good answer to the same prompt, model, schema and
        parameters. The row lands again with that answer, at no cost. A row that never gets a good answer is sent every
        night: see `min_succeeded_rows` of the export. Needs `model` and a destination.
    :param correlation: how an answer finds its request if its key did not come back: by the ``contents`` (default), or
        by a request ``label``. A label also distinguishes rows with the same contents; it appears in the billing
        export.
    :param max_requests_per_job: the largest number of requests in one job, 1 to 200,000 (the service's limit,
        2026-11-22).
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
        **kwargs: Unpack[PrepareSharedParameters],
    ) -> None:
        super().__init__(**kwargs)
        self.prompt, self.prompt_variables = as_rendered(prompt), as_rendered(prompt_variables)
        self.sql, self.sql_parameters, self.sql_conn_id = (
            as_rendered(sql),
            as_rendered(sql_parameters),
            as_rendered(sql_conn_id),
        )
        self.table, self.files, self.files_format = as_rendered(table), as_rendered(files), files_format
        self.objects, self.rows, self.requests = as_rendered(objects), rows, as_rendered(requests)
        self.system_instruction, self.generation_config = (
            as_rendered(system_instruction),
            as_rendered(generation_config),
        )
        self.tools, self.safety_settings = as_rendered(tools), as_rendered(safety_settings)
        self.media_columns, self.key_column, self.columns = (
            as_rendered(media_columns),
            as_rendered(key_column),
            as_rendered(columns),
        )
        self.on_rejected_row, self.max_requests_per_job = on_rejected_row, max_requests_per_job
        self.max_rejected_ratio, self.on_empty, self.fix_requests = max_rejected_ratio, on_empty, fix_requests
        self.deduplicate, self.skip_answered, self.correlation = deduplicate, skip_answered, correlation
        self.on_null, self.lint_ignore = on_null, lint_ignore
        self._check()
        self.require("staging_uri", *(["location"] if self.destination else []))
        if not is_one_of_mapped(self):
            run_after(self, vars(self), type(self))

    def _check(self) -> None:
        """Find wrong arguments when the DAG file is read, because the author looks there first."""
        from airflow_vertex_batch.core.landing.on_empty import OnEmpty

        OnEmpty.of(self.on_empty)
        later = [name for name in self.resolved_fields if has_placeholder(getattr(self, name))]
        source = self._prepare_arguments().check(later)
        self.note_origins(**{name: getattr(self, name) for name in (source, *later)})

    def _prepare_arguments(self) -> PrepareArguments:
        """Return the author's arguments about rows and requests, before or after Airflow has rendered them."""
        from airflow_vertex_batch.core.requests.prepare_arguments import PrepareArguments

        return PrepareArguments(**{name: getattr(self, name) for name in PrepareArguments.__struct_fields__})

    def execute(self, context: Context) -> dict[str, Any]:
        """Prepare, and return the manifest."""
        from airflow_vertex_batch.core.purchase.entries import Prepared

        with fail_or_retry():
            self.push_links(context, addresses(folder=str(self.folder(context))))
            hook = self.hook()
            manifest = self.prepare(context, hook)
            self.log_of(context, hook).add(Prepared.of(manifest))
            self._handle_empty(context, manifest)
            return manifest.as_dict()

    def prepare(self, context: Context, hook: VertexBatchHook) -> Manifest:
        """Write the request files, or find those that an earlier attempt wrote from the same rows."""
        from airflow_vertex_batch.core.landing.landed import known_digests
        from airflow_vertex_batch.core.requests.prepare import prepare

        self._fill_placeholders(context)
        destination = self.check_destination(context, hook)
        store, folder = hook.store(), self.folder(context)
        rows = self._source(context).rows(store, hook.warehouse())

        known = None
        if self.skip_answered and destination is not None:
            answers = destination.answers(store, hook.warehouse())
            known = partial(known_digests, answers, store, folder, self.model or "")
        manifest = prepare(rows, self._prepare_arguments().plan(), store, folder, attempt_token(), known=known)
        made = f"; request file {manifest.shards[0].uri}" if manifest.shards else ""
        more = " and those beside it" if len(manifest.shards) > 1 else ""
        self.log.info("%s%s%s; manifest %s", manifest.summary(), made, more, manifest.uri)
        return manifest

    def _fill_placeholders(self, context: Context) -> None:
        """Replace the outputs of earlier tasks by their values; not `rows`, because rows stream."""
        for name in self.resolved_fields:
            value = getattr(self, name)
            if name != "rows" and has_placeholder(value):
                setattr(self, name, fill_placeholders(value, context))
                self.given(name)
                self._prepare_arguments().check_known(name)

    def _handle_empty(self, context: Context, manifest: Manifest) -> None:
        """End the task as `on_empty` says, if there is no row.

        :raises InputError: with `on_empty` "fail".
        :raises AirflowSkipException: with "skip".
        """
        from airflow_vertex_batch.core.landing.on_empty import OnEmpty, empty_error

        policy, empty = OnEmpty(self.on_empty), empty_error(manifest)
        if policy is OnEmpty.SUCCEED or empty is None:
            return
        if policy is OnEmpty.FAIL:
            raise empty
        skip(context, str(empty))

    def _source(self, context: Context) -> Source:
        from airflow.sdk import XComArg

        from airflow_vertex_batch.core.requests.sources import Rows

        if self.rows is not None:
            rows = self._rows(context)
            if rows is None and isinstance(self.rows, XComArg):
                raise self.no_value_error("rows")
            return Rows(rows, passed_on=airflow_exceptions())
        said = self._prepare_arguments()
        for name in said.SOURCES:
            self.given(name)
        return said.source(self._connect)

    def _connect(self) -> Any:
        from airflow.sdk import BaseHook

        return BaseHook.get_hook(str(self.sql_conn_id)).get_conn()

    def _rows(self, context: Context) -> Any:
        if not callable(self.rows) and has_placeholder(self.rows):
            return fill_placeholders(self.rows, context)
        return self.called(self.rows, keywords_of(self.rows, (), context)) if callable(self.rows) else self.rows

    @staticmethod
    def called(function: Callable[..., Any], keywords: Mapping[str, Any], arguments: Sequence[Any] = ()) -> Any:
        """Call the author's function. Airflow's own exceptions, such as a skip, are passed on unchanged."""
        from airflow_vertex_batch.core.requests.sources import rows_of

        return rows_of(function, *arguments, passed_on=airflow_exceptions(), **keywords)
