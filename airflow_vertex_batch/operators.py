"""The steps as Airflow operators: prepare, create, export, cancel. Each plugs the engine to the hook; the decisions are
in `core`. The step that pays has a module of its own, `create`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_vertex_batch.base import (
    COMMON_TEMPLATE_FIELDS,
    VertexBatchBaseOperator,
    attempt_token,
    failing,
    identity_of,
    texts,
)
from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.create import VertexBatchCreateJobOperator
from airflow_vertex_batch.links import (
    VertexBatchJobLink,
    VertexBatchOutputLink,
    VertexBatchTableLink,
    addresses,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_vertex_batch.core.model import Manifest
    from airflow_vertex_batch.core.report import Thresholds
    from airflow_vertex_batch.core.sources import Source


__all__ = [
    "VertexBatchCancelJobOperator",
    "VertexBatchCreateJobOperator",
    "VertexBatchExportOperator",
    "VertexBatchPrepareOperator",
]


class VertexBatchPrepareOperator(VertexBatchBaseOperator):
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
    :param file_format: ``jsonl``, ``csv`` or ``parquet``; by each file's ending where not given.
    :param objects: media in Cloud Storage by prefix or glob: each object is a row with the columns ``uri``, ``name``,
        ``mime_type`` and ``size_bytes``, and a ``fileData`` part of its request. Templated.
    :param rows: dicts or texts; an iterable, the output of another task, or a callable, which may ask for context
        variables by name. Never rendered.
    :param requests: ready-made request JSONL, by name or glob. Templated.
    :param prompt: a Jinja template over the row: ``{{ column }}``, ``{{ row["odd name"] }}``, and `prompt_variables`.
        It is rendered for each row by the worker, not by Airflow; row data is never rendered itself.
    :param prompt_variables: further names for `prompt`, the same for every row. Templated, so this is where
        ``{{ params.tone }}`` and the like go.
    :param system_instruction: text, or a ``Content`` object. Templated.
    :param generation_config: ``GenerationConfig`` of the API: ``temperature``, ``maxOutputTokens`` and so on.
        Templated.
    :param response_schema: a JSON Schema or a Pydantic model class: asks for JSON, and export checks every answer
        against it.
    :param tools: ``Tool`` objects of the API. The importer refuses empty objects such as ``{"googleSearch": {}}``.
    :param safety_settings: ``SafetySetting`` objects of the API.
    :param media_columns: columns that hold an address of media: a list, or a dict of column to MIME type.
    :param key_column: the column that names a row, unique within the batch; by content where not given. Templated.
    :param columns: source columns to keep beside each answer. They do not pass through the model. Templated.
    :param on_rejected_row: ``fail`` (default) names the rows that cannot be sent and sends nothing; ``dead_letter``
        sends the others, and those rows end as ``rejected``.
    :param max_requests_per_job: most requests in one job, 1 to 200,000 (the service's limit, 2026-11-22).
    :returns: the manifest: files, counts and fingerprint, no rows.
    """

    template_fields: Sequence[str] = (
        *COMMON_TEMPLATE_FIELDS,
        *("sql", "sql_parameters", "sql_conn_id", "table", "files", "objects", "requests"),
        *("prompt_variables", "system_instruction", "generation_config", "key_column", "columns"),
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "generation_config": "json"}
    operator_extra_links = (VertexBatchOutputLink(),)

    def __init__(
        self,
        *,
        prompt: str = "",
        sql: str | None = None,
        sql_parameters: Mapping[str, Any] | None = None,
        sql_conn_id: str | None = None,
        table: str | None = None,
        files: str | Sequence[str] | None = None,
        file_format: str = "",
        objects: str | None = None,
        rows: Any = None,
        requests: str | Sequence[str] | None = None,
        prompt_variables: Mapping[str, Any] | None = None,
        system_instruction: str | dict[str, Any] | None = None,
        generation_config: dict[str, Any] | None = None,
        response_schema: Any = None,
        tools: list[dict[str, Any]] | None = None,
        safety_settings: list[dict[str, Any]] | None = None,
        media_columns: Sequence[str] | Mapping[str, str] | None = None,
        key_column: str | None = None,
        columns: Sequence[str] = (),
        on_rejected_row: str = "fail",
        max_requests_per_job: int = 200_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prompt, self.prompt_variables = prompt, prompt_variables
        self.sql, self.sql_parameters, self.sql_conn_id = sql, sql_parameters, sql_conn_id
        self.table, self.files, self.file_format = table, files, file_format
        self.objects, self.rows, self.requests = objects, rows, requests
        self.system_instruction, self.generation_config = system_instruction, generation_config
        self.response_schema, self.tools, self.safety_settings = response_schema, tools, safety_settings
        self.media_columns, self.key_column, self.columns = media_columns, key_column, columns
        self.on_rejected_row, self.max_requests_per_job = on_rejected_row, max_requests_per_job
        self._check()
        self._wait_for_rows()

    def _check(self) -> None:
        """Find what is wrong where the author is looking: when the DAG file is read."""
        from airflow_vertex_batch.core.request import MAX_REQUESTS, OnRejectedRow, compile_prompt

        names = ("sql", "table", "files", "objects", "rows", "requests")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                f"Task {self.task_id} has {len(given)} sources ({', '.join(given) or 'none'})",
                todo=f"Give exactly one of {', '.join(names)}",
            )
        if not self.prompt and given[0] not in {"requests", "rows"} and not self.media_columns:
            raise InputError(f"Task {self.task_id} has no prompt", todo="Set prompt='… {{ column }} …'")
        if self.on_rejected_row not in set(OnRejectedRow):
            raise InputError(
                f"on_rejected_row={self.on_rejected_row!r} is not known", todo="Use 'fail' or 'dead_letter'"
            )
        if not 1 <= self.max_requests_per_job <= MAX_REQUESTS:
            raise InputError(f"max_requests_per_job={self.max_requests_per_job}", todo=f"Use 1 to {MAX_REQUESTS:,}")
        compile_prompt(self.prompt)
        if self.response_schema is not None:
            from airflow_vertex_batch.core.schema import json_schema, response_schema

            response_schema(json_schema(self.response_schema))

    def _wait_for_rows(self) -> None:
        """Run after the task whose output `rows` is. It is no template field, so that its texts are never rendered."""
        from airflow.sdk import XComArg

        XComArg.apply_upstream_relationship(self, self.rows)

    def execute(self, context: Context) -> dict[str, Any]:
        """Prepare, and return the manifest."""
        with failing():
            from airflow_vertex_batch.core.prepare import prepare

            hook = self.hook()
            store = hook.store()
            folder = self.staging() / identity_of(context).path
            self.push_links(context, addresses(folder=str(folder)))
            rows = self._source(context).rows(store, hook.warehouse())
            manifest = prepare(rows, self._plan(), store, folder, attempt_token())
            self.log.info(
                "Prepared %s requests in %d files (%s bytes), %d rows rejected; manifest %s",
                f"{manifest.request_count:,}",
                len(manifest.shards),
                f"{manifest.size_bytes:,}",
                manifest.rejected_count,
                manifest.uri,
            )
            return manifest.as_dict()

    def _source(self, context: Context) -> Source:
        from airflow_vertex_batch.core import sources

        if self.sql is not None:
            if self.sql_conn_id:
                return sources.DbApiQuery(self._connect, self.sql, self.sql_parameters)
            return sources.Query(self.sql, dict(self.sql_parameters or {}))
        if self.requests is not None:
            return sources.Requests(texts(self.requests))
        if self.rows is not None:
            return sources.Rows(self._rows(context))
        return self._stored_source()

    def _stored_source(self) -> Source:
        from airflow_vertex_batch.core import sources

        if self.table is not None:
            from airflow_vertex_batch.core.address import TableId

            return sources.Table(TableId.parse(self.table, self.project_id or ""))
        if self.objects is not None:
            return sources.Objects(self.objects)
        return sources.Files(texts(self.files or ()), self.file_format)

    def _connect(self) -> Any:
        from airflow.sdk import BaseHook

        return BaseHook.get_hook(str(self.sql_conn_id)).get_conn()

    def _rows(self, context: Context) -> Any:
        from airflow.sdk import XComArg
        from airflow.sdk.bases.decorator import determine_kwargs

        rows = self.rows.resolve(context) if isinstance(self.rows, XComArg) else self.rows
        return rows(**determine_kwargs(rows, (), context)) if callable(rows) else rows

    def _plan(self) -> Any:
        from airflow_vertex_batch.core.prepare import PreparePlan
        from airflow_vertex_batch.core.request import OnRejectedRow, RequestTemplate
        from airflow_vertex_batch.core.schema import json_schema

        schema = json_schema(self.response_schema) if self.response_schema is not None else None
        media = self.media_columns or (("uri",) if self.objects is not None else ())
        template = RequestTemplate(
            prompt=self.prompt or ("{{ prompt }}" if self.rows is not None and not media else ""),
            system_instruction=self.system_instruction,
            generation_config=self.generation_config or {},
            response_schema=schema,
            tools=self.tools or [],
            safety_settings=self.safety_settings or [],
            media=dict(media) if isinstance(media, dict) else dict.fromkeys(media),
            variables=dict(self.prompt_variables or {}),
        )
        return PreparePlan(
            template=None if self.requests is not None else template,
            key_column=self.key_column,
            columns=tuple(self.columns),
            on_rejected_row=OnRejectedRow(self.on_rejected_row),
            max_requests=self.max_requests_per_job,
            schema=schema,
        )


class VertexBatchExportOperator(VertexBatchBaseOperator):
    """Land the answers of finished jobs: in Cloud Storage as JSONL or Parquet, or in a BigQuery table.

    Every request ends as exactly one row: with a good answer at the destination, or with its reason among the dead
    letters. Running it again leaves one copy. The task fails when a job did not end well, after landing what there is.

    :param jobs: what the sensor returned, or job names. Templated.
    :param manifest: what the prepare task returned; the jobs' own input is read where not given. Templated.
    :param destination_uri: ``gs://`` folder for files. Templated.
    :param destination_table: ``bq://project.dataset.table``, made if it does not exist, partitioned by
        ``partition_date``. Rows are merged on ``partition_date`` and ``row_key``. Templated.
    :param dead_letter_table: table for rows without a good answer; the destination's name with ``_dead_letters`` where
        not given. Templated.
    :param file_format: ``jsonl`` (default) or ``parquet``.
    :param partition_date: the day the rows belong to, YYYY-MM-DD; the run's own (`macros.partition_date`) where not
        given. Templated.
    :param response_schema: a JSON Schema or a Pydantic model class that answers are checked against; the manifest's own
        where not given.
    :param replace_partition: also remove rows of that day that this batch no longer has. Only for a table that one task
        fills.
    :param max_failed_ratio: fail, after landing, when a larger share of the rows has no good answer; 0 to 1.
    :param min_succeeded_rows: fail, after landing, when fewer rows have a good answer.
    :returns: the report: counts by status, tokens and cost.
    """

    template_fields: Sequence[str] = (
        *COMMON_TEMPLATE_FIELDS,
        *("jobs", "manifest", "destination_uri", "destination_table", "dead_letter_table", "partition_date"),
    )
    operator_extra_links = (VertexBatchOutputLink(), VertexBatchTableLink(), VertexBatchJobLink())

    def __init__(
        self,
        *,
        jobs: Any,
        manifest: Any = None,
        destination_uri: str | None = None,
        destination_table: str | None = None,
        dead_letter_table: str | None = None,
        file_format: str = "jsonl",
        partition_date: str | None = None,
        response_schema: Any = None,
        replace_partition: bool = False,
        max_failed_ratio: float | None = None,
        min_succeeded_rows: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.jobs, self.manifest, self.partition_date = jobs, manifest, partition_date
        self.destination_uri, self.destination_table = destination_uri, destination_table
        self.dead_letter_table, self.file_format = dead_letter_table, file_format
        self.response_schema, self.replace_partition = response_schema, replace_partition
        self.max_failed_ratio, self.min_succeeded_rows = max_failed_ratio, min_succeeded_rows
        if (destination_uri is None) == (destination_table is None):
            raise InputError(
                f"Task {self.task_id} needs one destination", todo="Give destination_uri or destination_table, not both"
            )
        if file_format not in {"jsonl", "parquet"}:
            raise InputError(f"file_format={file_format!r} is not known", todo="Use 'jsonl' or 'parquet'")
        self._thresholds()

    def execute(self, context: Context) -> dict[str, Any]:
        """Land, and return the report."""
        with failing():
            from airflow_vertex_batch.core.landing import Landing, read_jobs, refuse_bad_end

            hook = self.hook()
            landing = Landing(hook.store(), hook.warehouse(), self._plan(context), self._manifest(), self._schema())
            jobs = read_jobs(self.jobs, lambda name: hook.jobs(name).get(name))
            sink = self._sink(context, landing)
            self.push_links(
                context,
                addresses(
                    jobs=[job.name for job in jobs],
                    folder=self.destination_uri or "",
                    table=self.destination_table or "",
                ),
            )
            report = landing.land(jobs, sink)
            self.log.info("Landed %s at %s\n%s", report.summary(), report.destination, report.text())
            context["ti"].xcom_push("report", report.as_dict())
            self._thresholds().check(report)
            refuse_bad_end(jobs, report)
            return report.as_dict()

    def _thresholds(self) -> Thresholds:
        from airflow_vertex_batch.core.report import Thresholds

        return Thresholds.of(self.max_failed_ratio, self.min_succeeded_rows)

    def _plan(self, context: Context) -> Any:
        from airflow_vertex_batch.core.export import LandPlan
        from airflow_vertex_batch.macros import partition_date

        identity = identity_of(context)
        day = self.partition_date or partition_date(context)
        return LandPlan(
            batch_id="\0".join((identity.dag_id, identity.task_id, str(identity.map_index), day)),
            partition_date=day,
            run_id=identity.run_id,
            replace_partition=self.replace_partition,
        )

    def _sink(self, context: Context, landing: Any) -> Any:
        from airflow_vertex_batch.core.address import TableId, Uri

        if self.destination_uri is not None:
            return landing.files(Uri.parse(self.destination_uri), self.file_format)
        table = TableId.parse(str(self.destination_table), self.project_id or "")
        dead = (
            TableId.parse(self.dead_letter_table)
            if self.dead_letter_table
            else table.sibling(f"{table.table}_dead_letters")
        )
        return landing.table(table, dead, self.staging() / identity_of(context).path / f"landing-{attempt_token()}")

    def _manifest(self) -> Manifest | None:
        from airflow_vertex_batch.core.model import Manifest

        return Manifest.from_dict(self.manifest) if self.manifest is not None else None

    def _schema(self) -> dict[str, Any] | None:
        from airflow_vertex_batch.core.schema import json_schema

        return json_schema(self.response_schema) if self.response_schema is not None else None


class VertexBatchCancelJobOperator(VertexBatchBaseOperator):
    """Cancel jobs. One that has ended already, or is gone, is no error. Rows that were answered stay, and stay billed.

    :param jobs: job names, or what the sensor returned. Templated.
    :returns: names of the jobs that were running and are now being cancelled.
    """

    template_fields: Sequence[str] = (*COMMON_TEMPLATE_FIELDS, "jobs")
    operator_extra_links = (VertexBatchJobLink(),)

    def __init__(self, *, jobs: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.jobs = jobs

    def execute(self, context: Context) -> list[str]:
        """Cancel, and return the names."""
        with failing():
            from airflow_vertex_batch.core.landing import job_names

            hook, names = self.hook(), job_names(self.jobs)
            self.push_links(context, addresses(jobs=[str(name) for name in names]))
            cancelled = [str(name) for name in names if hook.jobs(name).cancel(name)]
            self.log.info("Cancelling %s of %s jobs: %s", len(cancelled), len(names), cancelled)
            return cancelled
