"""How does a row become a prompt? A Jinja template over the row's columns, in a sandbox.

Invariants: row data is put into the prompt and never rendered itself; the same row gives the same text in every process
(see `core.text`); a name means the row's column unless the author's `variables` have it, and never something of
Jinja's that happens to have the name; an error names columns, never their content; neither reading nor rendering a
template takes more memory than `MAX_PROMPT_CHARACTERS` needs.
"""

from __future__ import annotations

import ast
import contextlib
import re
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.core.text import PLAIN_TYPES, NoTextError, OnNull, is_missing, stable_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from airflow_vertex_batch.core.readers import Row

#: The longest text that a template may make of one row, and the longest padding in it. Far above what a model reads: a
#: million tokens are some four million characters.
MAX_PROMPT_CHARACTERS = 100_000_000
#: Names that Jinja, or we, give a meaning of their own in a template.
_SPECIAL = frozenset({"row", "self"})
#: Jinja's globals that make something of their arguments; the others only print themselves.
_HELPERS = ("range", "dict", "cycler", "joiner", "namespace")
_PADDING = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill"})
_WIDE = re.compile(r"\d{8,}")
_MOST_NAMED = 20


class PromptError(Exception):
    """A prompt cannot be made of a row. The message names columns, never their content."""


class Prompt:
    """A compiled prompt template.

    :param render: gives one row's text, by Jinja.
    :param join: gives the texts of several rows, for a template that only names columns.
    :param is_never_blank: whether every text holds more than white space.
    """

    def __init__(
        self, render: Callable[[Row], str], join: Callable[[list[Row]], list[str]] | None, *, is_never_blank: bool
    ) -> None:
        self._render, self._join, self.is_never_blank = render, join, is_never_blank

    def __call__(self, row: Row) -> str:
        """Return one row's text.

        :raises PromptError: when there is none.
        """
        return self.all([row])[0]

    def all(self, rows: list[Row]) -> list[str]:
        """Return the texts of several rows at once, for less.

        :raises PromptError: when one of them has none.
        """
        # A dict of another kind may make up columns, where Jinja does not.
        if self._join is not None and {*map(type, rows)} <= {dict}:
            with contextlib.suppress(KeyError, ValueError):  # Jinja says which column it is
                return self._join(rows)
        return list(map(self._render, rows))


def compile_prompt(source: str, variables: dict[str, Any] | None = None, on_null: OnNull = OnNull.REJECT) -> Prompt:
    """Compile a prompt template. A template of plain ``{{ column }}`` places takes a fast path with the same result.

    :param variables: further names, the same for every row; they win over columns of the same name.
    :raises InputError: when the template is not valid Jinja.
    """
    from jinja2 import TemplateSyntaxError

    environment, variables = _environment(), variables or {}
    try:
        tree = environment.parse(source)
        template = environment.from_string(source)
    except TemplateSyntaxError as error:
        raise InputError(
            f"The prompt template has a mistake in line {error.lineno}",
            why=error.message or "",
            todo="Correct `prompt`",
        ) from error
    render = _Renderer(template, tree, variables, on_null)
    pieces = _plain_pieces(tree)
    if pieces is None or any(is_name and (text in _SPECIAL or text in variables) for text, is_name in pieces):
        return Prompt(render, None, is_never_blank=False)
    is_never_blank = any(text.strip() and not is_name for text, is_name in pieces)
    return Prompt(render, _joiner(pieces), is_never_blank=is_never_blank)


def _environment() -> ImmutableSandboxedEnvironment:
    """Return the Jinja that prompts are written in."""
    from jinja2 import StrictUndefined
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        # What is intercepted is not computed while the template is read, either.
        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if _is_too_large(operator, left, right):
                raise SecurityError(f"{operator} makes a value that is too large")
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
            name = getattr(obj, "__name__", "")
            wide = name in _PADDING and any(isinstance(arg, int) and arg > MAX_PROMPT_CHARACTERS for arg in args)
            # The sandbox wraps the format methods of texts.
            owner = getattr(getattr(obj, "__wrapped__", obj), "__self__", "")
            if wide or (name in {"format", "format_map"} and _WIDE.search(str(owner))):
                raise SecurityError(f"{name} makes a text that is too long")
            return super().call(context, obj, *args, **kwargs)

    # Prompts are text, not HTML: escaping would change what the model reads.
    environment = Sandbox(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=_finalized)
    environment.globals = {name: environment.globals[name] for name in _HELPERS}
    for name in ("center", "indent", "format"):
        environment.filters[name] = _bounded_filter(environment.filters[name])
    environment.tests["none"] = lambda value: value is None or isinstance(value, _Missing)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "default": _json_default}
    return environment


def _is_too_large(operator: str, left: Any, right: Any) -> bool:
    if operator == "%":
        return isinstance(left, str) and _WIDE.search(left) is not None
    if operator == "**":
        return isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_PROMPT_CHARACTERS
    for many, times in ((left, right), (right, left)):
        if isinstance(many, str | bytes | list | tuple) and isinstance(times, int):
            return len(many) * times > MAX_PROMPT_CHARACTERS
    return False


def _bounded_filter(original: Any) -> Any:
    from functools import wraps

    from jinja2.exceptions import SecurityError

    @wraps(original)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            is_wide = isinstance(value, int) and value > MAX_PROMPT_CHARACTERS
            if is_wide or (original.__name__ == "do_format" and isinstance(value, str) and _WIDE.search(value)):
                raise SecurityError("a filter makes a text that is too long")
        return original(*args, **kwargs)

    return bounded


class _Missing:
    """Stands in a template for a value that is missing: false, equal to none, and printed only where that is wanted."""

    __slots__ = ("_on_null",)

    def __init__(self, on_null: OnNull) -> None:
        self._on_null = on_null

    def __str__(self) -> str:
        if self._on_null is OnNull.EMPTY:
            return ""
        raise NoTextError("a value is missing")

    def __repr__(self) -> str:
        return "None"

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, _Missing)

    def __hash__(self) -> int:
        return hash(None)


def _json_default(value: Any) -> Any:
    if isinstance(value, _Missing):
        return None
    return stable_text(value)


def _finalized(value: Any) -> Any:
    """Return what stands in the text for the value of an expression."""
    from jinja2 import Undefined

    if isinstance(value, str | _Missing | Undefined):
        return value
    if is_missing(value):
        raise NoTextError("a value is missing")
    return stable_text(value)


class _Renderer:
    """Renders one row.

    Jinja makes a context for each text, which takes longer than a short template. What a template may leave behind in
    it is names that it sets, macros, and what belongs to other templates; one without any of these gets the same
    context for every row.
    """

    def __init__(self, template: Any, tree: Any, variables: dict[str, Any], on_null: OnNull) -> None:
        from jinja2 import meta, nodes

        leaving = (nodes.Assign, nodes.AssignBlock, nodes.Block, nodes.CallBlock, nodes.Extends, nodes.FromImport,
                   nodes.Import, nodes.Include, nodes.Macro, nodes.Scope)  # fmt: skip
        self._template, self._variables, self._missing = template, variables, _Missing(on_null)
        self._context = None if next(tree.find_all(leaving), None) is not None else template.new_context()
        self._globals = dict(template.environment.globals)
        #: What the template reads: columns, but for the names of `variables`.
        self._names = meta.find_undeclared_variables(tree) - {*variables, *_SPECIAL}

    def __call__(self, row: Row) -> str:
        values = row
        if any(map(is_missing, row.values())):
            values = {name: self._missing if is_missing(value) else value for name, value in row.items()}
        try:
            return _joined(self._template.root_render_func(self._filled(values)))
        except Exception as error:  # noqa: BLE001 - a template runs whatever its author wrote
            # Jinja's own message may quote the value it failed on, and so may the error's context.
            raise PromptError(self._reason(error, row)) from None

    def _filled(self, row: Row) -> Any:
        context = self._context or self._template.new_context()
        context.parent.clear()
        context.parent.update(self._globals)
        context.parent.update(row)
        context.parent.update(self._variables)
        context.parent["row"] = row
        return context

    def _reason(self, error: Exception, row: Row) -> str:
        """Say what is wrong in terms of columns."""
        from jinja2 import UndefinedError
        from jinja2.exceptions import SecurityError

        absent = sorted(name for name in self._names if name not in row and name not in self._globals)
        if absent and isinstance(error, UndefinedError):
            return f"{_named('column', absent)} not there; the row has {_listed(list(row))}"
        if isinstance(error, NoTextError):
            if missing := sorted(name for name in self._names if name in row and is_missing(row[name])):
                cure = f"{{{{ {missing[0]} or '…' }}}}"
                return f"{_named('column', missing)} without a value; write {cure}, or set on_null='empty'"
            odd = [f"{name!r}: {why}" for name in sorted(self._names) if (why := _odd(row.get(name)))]
            return "; ".join(odd) if odd else str(error)
        return str(error) if isinstance(error, SecurityError | _TooLongError) else type(error).__name__


def _named(what: str, names: list[str]) -> str:
    return f"{what} {names[0]!r} is" if len(names) == 1 else f"{what}s {_listed(names)} are"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(repr, names[:_MOST_NAMED])) + more or "no column at all"


def _odd(value: Any) -> str:
    try:
        stable_text(value)
    except NoTextError as error:
        return str(error)
    return ""


class _TooLongError(Exception):
    """The template makes a text that nobody could send."""


def _joined(chunks: Iterable[str]) -> str:
    parts, left = [], MAX_PROMPT_CHARACTERS
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise _TooLongError(f"the text is longer than {MAX_PROMPT_CHARACTERS:,} characters")
        parts.append(chunk)
    return "".join(parts)


def _joiner(pieces: list[tuple[str, bool]]) -> Callable[[list[Row]], list[str]]:
    """Return what puts columns between constant texts.

    It raises KeyError or ValueError for whatever a second look by Jinja is better at.
    """
    texts = _each_row(ast.JoinedStr([_piece(text, is_name=is_name) for text, is_name in pieces]))
    names = {text for text, is_name in pieces if is_name}
    kinds = _each_row(ast.Tuple([_kind_of(name) for name in names], ast.Load()))

    def join(rows: list[Row]) -> list[str]:
        if any(not PLAIN_TYPES.issuperset(found) for found in kinds(rows)):
            raise ValueError("a value is no plain text")
        return texts(rows)

    return join if names else texts


def _each_row(element: ast.expr) -> Callable[[list[Row]], list[Any]]:
    """Return a function of rows that makes `element` of each `row`: built as a syntax tree, so nothing is quoted."""
    tree = ast.parse("lambda rows: [() for row in rows]", mode="eval")
    tree.body.body.elt = element  # type: ignore[attr-defined]
    code = compile(ast.fix_missing_locations(tree), "<prompt>", "eval")
    made: Callable[[list[Row]], list[Any]] = eval(code, {"__builtins__": {}, "type": type})  # noqa: S307 - as above
    return made


def _column(name: str) -> ast.expr:
    return ast.Subscript(ast.Name("row", ast.Load()), ast.Constant(name), ast.Load())


def _piece(text: str, *, is_name: bool) -> ast.expr:
    # `!s`: as Jinja does, not as `format` would.
    return ast.FormattedValue(_column(text), conversion=ord("s")) if is_name else ast.Constant(text)


def _kind_of(name: str) -> ast.expr:
    return ast.Call(ast.Name("type", ast.Load()), [_column(name)], [])


def _plain_pieces(tree: Any) -> list[tuple[str, bool]] | None:
    """Return a template as (text or name, is it a name), or None when it does more than name columns."""
    from jinja2 import nodes

    pieces: list[tuple[str, bool]] = []
    for node in tree.body:
        if not isinstance(node, nodes.Output):
            return None
        for piece in node.nodes:
            if isinstance(piece, nodes.TemplateData):
                pieces.append((piece.data, False))
            elif isinstance(piece, nodes.Name):
                pieces.append((piece.name, True))
            else:
                return None
    return pieces
