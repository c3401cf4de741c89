"""How does a row become a prompt? A Jinja template over the row's columns, in a sandbox.

Invariants: row data is put into the prompt and never rendered itself. The same row gives the same text in every process
(see `core.requests.values`). A name means one of the author's `variables`, or else the row's column. It never means an
object of Jinja's that has the same name. An error names columns, never their content. Neither reading nor rendering a
template takes more memory than `MAX_PROMPT_CHARACTERS` needs.
"""

from __future__ import annotations

import ast
import contextlib
import re
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.requests.sandbox import (
    MAX_PROMPT_CHARACTERS,
    Missing,
    TooLargeError,
    joined,
    sandbox,
    template_value,
)
from airflow_vertex_batch.core.requests.values import (
    PLAIN_TYPES,
    MissingError,
    NoTextError,
    OnNull,
    holds_missing,
    is_missing,
    stable_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_vertex_batch.core.requests.readers import Row

__all__ = ["MAX_PROMPT_CHARACTERS", "PromptError", "compile_prompt", "listed", "refuse_single_braces"]

#: Names with a special meaning in a template.
_SPECIAL = frozenset({"row", "self"})
_MOST_NAMED = 20
#: A placeholder of `str.format`, and one of Jinja.
_SINGLE, _JINJA = re.compile(r"{\s*(\w+)\s*}"), re.compile(r"{[{%]")

#: The text that Python makes for an object without its own text, also with URL encoding.
_ADDRESS = re.compile(r"(?:object|function)(?: |%20)(?:\S+(?: |%20))?at(?: |%20)0x[0-9a-f]{6,}", re.IGNORECASE)


class PromptError(Exception):
    """A prompt cannot be made from a row. The message names columns, never their content."""


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
        """Return the texts of several rows at once. This is faster than one by one.

        :raises PromptError: when one of them has none.
        """
        # A subclass of dict may make up missing columns; Jinja does not ask it to.
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

    environment, variables = sandbox(), variables or {}
    try:
        tree = environment.parse(source)
        _check(tree, environment)
        template = environment.from_string(environment.bounded(environment.parse(source)))
    except TemplateSyntaxError as error:
        raise _mistake(error.lineno, error.message or "") from None  # it quotes the whole line
    except InputError:
        raise
    except (ValueError, SyntaxError, OverflowError, RecursionError, MemoryError) as error:
        raise InputError(
            "The prompt template cannot be read", why=type(error).__name__, todo="Nest it less, and shorten its numbers"
        ) from None
    render = _Renderer(template, tree, variables, on_null)
    pieces = _plain_pieces(tree)
    if pieces is None or any(is_name and (text in _SPECIAL or text in variables) for text, is_name in pieces):
        return Prompt(render, None, is_never_blank=False)
    is_never_blank = any(text.strip() and not is_name for text, is_name in pieces)
    return Prompt(render, _joiner(pieces), is_never_blank=is_never_blank)


def refuse_single_braces(source: str) -> None:
    """Refuse a template that names columns only in single braces, as Python's formats do: every row would send the same
    prompt.

    :raises InputError: when it has ``{name}`` and nothing that Jinja puts in.
    """
    found = _SINGLE.search(source)
    if found and not _JINJA.search(source):
        raise InputError(
            f"The prompt has {found[0]} in single braces, and names no column",
            why="Each row would ask the same question",
            todo=f"Write {{{{ {found[1]} }}}} for a column; for the braces themselves, {{{{ '{found[0]}' }}}}",
        )


def _mistake(line: int, why: str) -> InputError:
    return InputError(f"The prompt template has a mistake in line {line}", why=why, todo="Correct `prompt`")


def _check(tree: Any, environment: Any) -> None:
    """Refuse parts of a template that Jinja would refuse only for some rows, and parts whose text differs each time.

    :raises InputError: with the line.
    """
    from jinja2 import nodes

    files = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
    if (node := next(tree.find_all(files), None)) is not None:
        raise _mistake(node.lineno, "A prompt is one text, and has no other templates beside it")
    for kind, word, known in ((nodes.Filter, "filter", environment.filters), (nodes.Test, "test", environment.tests)):
        for node in tree.find_all(kind):
            if node.name == "random" and kind is nodes.Filter:
                why = "The filter random gives another prompt in each attempt, and each would be paid for"
                raise _mistake(node.lineno, why)
            if node.name not in known and node.name is not None:
                raise _mistake(node.lineno, f"No {word} named {node.name!r} found.")


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
        self._template, self._given, self._missing = template, variables, Missing(on_null)
        self._variables = template_value(variables, self._missing)
        self._context = None if next(tree.find_all(leaving), None) is not None else template.new_context()
        self._globals = dict(template.environment.globals)
        #: The names that the template reads, without those of `variables`: its columns.
        self._names = meta.find_undeclared_variables(tree) - {*variables, *_SPECIAL}
        #: Columns that it asks `row` for.
        self._asked = set(_asked_of_row(tree))
        #: What it asks any other value for, as it stands in the template.
        self._parts = sorted(set(_asked_of_values(tree)))
        self._texts = [node.data for node in tree.find_all(nodes.TemplateData)]

    def __call__(self, row: Row) -> str:
        try:
            is_plain = PLAIN_TYPES.issuperset(map(type, row.values()))
            values = row if is_plain else {name: template_value(value, self._missing) for name, value in row.items()}
            text = joined(self._template.root_render_func(self._filled(values)))
            if ("0x" in text or "0X" in text) and _ADDRESS.search(text):
                self._refuse_addresses(text, row)
        except Exception as error:  # noqa: BLE001 - a template runs whatever its author wrote
            # Jinja's own message may quote the value it failed on, and so may the error's context.
            raise PromptError(self._reason(error, row)) from None
        return text

    def _refuse_addresses(self, text: str, row: Row) -> None:
        """Refuse a text with a memory address of an object, because it differs in each process."""
        written = {found for each in _texts([*row.values(), self._given, self._texts]) for found in _found(each)}
        if _found(text) - written:
            raise NoTextError("a value has no text to send: its text holds an address in memory")

    def _filled(self, row: Row) -> Any:
        context = self._context or self._template.new_context()
        context.parent.clear()
        context.parent.update(self._globals)
        context.parent.update(row)
        context.parent.update(self._variables)
        context.parent["row"] = row
        return context

    def _reason(self, error: Exception, row: Row) -> str:
        """Return what is wrong, with the names of columns."""
        from jinja2 import UndefinedError
        from jinja2.exceptions import SecurityError

        if isinstance(error, UndefinedError) and (said := self._absent(row)):
            return said
        if isinstance(error, NoTextError):
            return self._without_text(row, is_missing_one=isinstance(error, MissingError)) or str(error)
        if isinstance(error, TooLargeError):
            return str(error)
        if isinstance(error, SecurityError):
            return f"it asks for an attribute that is unsafe{self._place(error)}"
        return f"{type(error).__name__}{self._place(error)}"

    def _absent(self, row: Row) -> str:
        absent = sorted(name for name in self._names if name not in row and name not in self._globals)
        absent += sorted(name for name in self._asked - {*absent} if name not in row)
        if absent:
            return f"{_named('column', absent)} not there; the row has {listed(list(row))}"
        if self._parts:
            one = "" if len(self._parts) == 1 else "one of "
            return f"{one}{listed(self._parts)} is not there in a value that the template asks for it"
        return ""

    def _without_text(self, row: Row, *, is_missing_one: bool) -> str:
        """Return a text with the columns that have no text to send."""
        used = sorted(self._names | self._asked)
        if missing := [name for name in used if name in row and is_missing(row[name])]:
            cure = f"{{{{ {missing[0]} or '…' }}}}"
            return f"{_named('column', missing)} without a value; write {cure}, or set on_null='empty'"
        if missing := sorted(name for name, value in self._given.items() if is_missing(value)):
            return f"{_named('variable', missing)} without a value; give it one in prompt_variables"
        if is_missing_one and (missing := [name for name in used if holds_missing(row.get(name, ""))]):
            return (
                f"a part of {_named('column', missing)} without a value; set on_null='empty', or ask whether it is none"
            )
        values = {**{name: row.get(name) for name in used}, **self._given}
        return "; ".join(f"{name!r}: {why}" for name, value in values.items() if (why := _odd(value)))

    def _place(self, error: Exception) -> str:
        """Return the line of the template in which it was raised."""
        lines, frame = [], error.__traceback__
        while frame is not None:
            if frame.tb_frame.f_globals.get("__jinja_template__") is self._template or (
                frame.tb_frame.f_code.co_filename == self._template.filename
            ):
                lines.append(self._template.get_corresponding_lineno(frame.tb_lineno))
            frame = frame.tb_next
        return f" in line {lines[-1]} of the template" if lines else ""


def _found(text: str) -> set[str]:
    return {found.lower() for found in _ADDRESS.findall(text)}


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in (*value, *(value.values() if isinstance(value, dict) else ())):
            yield from _texts(item)


def _asked_of_values(tree: Any) -> Iterator[str]:
    """Yield what a template asks values for, other than `row`: ``b`` in ``a.b``, and in ``a["b"]``."""
    from jinja2 import nodes

    for node in tree.find_all((nodes.Getitem, nodes.Getattr)):
        if not (isinstance(node.node, nodes.Name) and node.node.name == "row"):
            name = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
            if isinstance(name, str | int):
                yield str(name)


def _asked_of_row(tree: Any) -> Iterator[str]:
    """Yield the columns that stand in a template as ``row["name"]`` or ``row.name``."""
    from jinja2 import nodes

    for node in tree.find_all((nodes.Getitem, nodes.Getattr)):
        if isinstance(node.node, nodes.Name) and node.node.name == "row":
            name = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
            # `row.items` and the like are a dict's own.
            if isinstance(name, str) and not hasattr(dict, name):
                yield name


def _named(what: str, names: list[str]) -> str:
    return f"{what} {names[0]!r} is" if len(names) == 1 else f"{what}s {listed(names)} are"


def listed(names: list[str]) -> str:
    """Return names of columns for a message, the first of them where there are very many."""
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(repr, names[:_MOST_NAMED])) + more or "no column at all"


def _odd(value: Any) -> str:
    try:
        stable_text(value)
    except NoTextError as error:
        return str(error)
    return ""


def _joiner(pieces: list[tuple[str, bool]]) -> Callable[[list[Row]], list[str]]:
    """Return a function that puts columns between constant texts.

    It raises KeyError or ValueError for rows that Jinja must look at.
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
