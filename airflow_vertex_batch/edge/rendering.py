"""What does Airflow's rendering do with our arguments? Texts stay texts, and a file is loaded only if one is meant.

With ``render_template_as_native_obj=True`` Airflow turns a rendered text into a Python value: the text 20261122 becomes
a number. But a label, a name or a key column must be a text. Such a template is rendered once more, as a text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.domain.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.sdk import BaseOperator, Context

    _Base = BaseOperator
else:
    # The class has no parameters of its own. It changes methods of the operator.
    _Base = object

_TEXTS = (
    *("gcp_conn_id", "project_id", "location", "staging_uri", "model", "sql", "sql_conn_id", "table", "objects"),
    *("key_column", "destination", "dead_letters", "partition_date", "output_uri"),
    *("display_name", "source_uri"),
)
_LISTS = ("files", "requests", "columns", "input_uri", "impersonation_chain")
#: Template fields whose texts stay texts, each with the other types that it may have.
_KINDS: dict[str, tuple[type, ...]] = (
    dict.fromkeys(_TEXTS, ())
    | dict.fromkeys(_LISTS, (list, tuple))
    | {"labels": (dict,), "system_instruction": (dict,)}
)
_SQL_FILE = ".sql"


class TextRenderingMixin(_Base):
    """A base class of our operators. It comes before Airflow's operator class."""

    #: Other types that the field which is being rendered may have; None for any type.
    _kinds: tuple[type, ...] | None = None
    _as_text = False

    def resolve_template_files(self) -> None:
        """Load a ``.sql`` file that `sql` names, and no other file. Other arguments may end in ``.sql`` and not be
        files.
        """
        self._load_sql()
        self.prepare_template()

    def _load_sql(self, jinja_env: Any = None) -> None:
        name = getattr(self, "sql", None)
        if isinstance(name, str) and name.endswith(_SQL_FILE):
            from jinja2 import TemplateNotFound

            env = jinja_env or self.get_template_env()
            if env.loader is None:
                return
            try:
                self.sql = env.loader.get_source(env, name)[0]
            except TemplateNotFound as error:
                raise InputError(
                    f"sql={name!r} names a file that is not there",
                    todo="Name it relative to the DAG file, or to template_searchpath of the DAG",
                ) from error

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        if parent is not self:
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
            return
        self._load_sql(jinja_env)
        for name in template_fields:
            self._kinds = _KINDS.get(name)
            try:
                super()._do_render_template_fields(parent, (name,), context, jinja_env, seen_oids)
            finally:
                self._kinds = None

    def render_template(
        self, content: Any, context: Context, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render as Airflow does. If a text became another type and the field must be a text, render it again as a
        text.
        """
        made = super().render_template(content, context, jinja_env, seen_oids)
        if self._kinds is None or not isinstance(content, str) or isinstance(made, (str, type(None), *self._kinds)):
            return made
        dag = self.get_dag()
        self._as_text = True
        try:
            env = dag.get_template_env(force_sandboxed=True) if dag is not None else None
            return super().render_template(content, context, env, seen_oids)
        finally:
            self._as_text = False

    def _render(self, template: Any, context: Context, dag: Any = None) -> Any:
        if not self._as_text:
            return super()._render(template, context, dag)
        from airflow.sdk.definitions.context import render_template_to_string

        return render_template_to_string(template, context)
