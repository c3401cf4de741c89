"""What may a prompt template do? Read its row, and make a text of bounded length that is the same in every process.

Invariants: no step of a template makes a value that is larger than `MAX_PROMPT_CHARACTERS` needs. A missing value, at
any depth, is never printed as a word. A value without an order, such as a set, is neither printed nor looped over
unless the template sorts it.
"""

from __future__ import annotations

import re
from functools import wraps
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.requests.values import (
    PLAIN_TYPES,
    MissingError,
    NoTextError,
    OnNull,
    is_missing,
    stable_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: The longest text that a template may make of one row, and the longest padding in it. Far above what a model reads: a
#: million tokens are some four million characters.
MAX_PROMPT_CHARACTERS = 100_000_000
#: Jinja's globals that make something of their arguments; the others only print themselves.
_HELPERS = ("range", "dict", "cycler", "joiner", "namespace")
_PADDING = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill"})
#: Filters that take a number of characters, or items; Jinja bounds `range` by the same number of items.
_WIDTHS, _COUNTS, _MOST_ITEMS = ("center", "indent", "format"), ("batch", "slice"), 100_000
_WIDE = re.compile(r"\d{8,}")
_POINTER_BYTES = 8
_TOO_LONG = f"the text is longer than {MAX_PROMPT_CHARACTERS:,} characters"


class Missing:
    """Replaces a missing value in a template. It is false, equal to none, and may be printed only if the author wants
    that.
    """

    __slots__ = ("_on_null",)

    def __init__(self, on_null: OnNull) -> None:
        self._on_null = on_null

    def __str__(self) -> str:
        if self._on_null is OnNull.EMPTY:
            return ""
        raise MissingError

    def __repr__(self) -> str:
        return "None"

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Missing)

    def __hash__(self) -> int:
        return hash(None)


class _Unordered(frozenset[Any]):
    """Replaces a set in a template. It has a length and members, and can be sorted; it has no first member, and no
    text.
    """

    def __iter__(self) -> Iterator[Any]:
        raise NoTextError("a value of type set has no text to send: its order changes from process to process")

    def __repr__(self) -> str:
        iter(self)
        return ""

    __str__ = __repr__

    def in_order(self) -> list[Any]:
        """Return the members in an order that is the same in every process."""
        return sorted(frozenset(super().__iter__()), key=stable_text)


def template_value(value: Any, missing: Missing) -> Any:
    """Return a value of a row as a template sees it: missing values and sets are replaced."""
    kind = type(value)
    if kind in PLAIN_TYPES:
        return value
    if kind is dict:
        members = {name: template_value(item, missing) for name, item in value.items()}
        return members if any(members[name] is not item for name, item in value.items()) else value
    if kind is list or kind is tuple:
        items = [template_value(item, missing) for item in value]
        return kind(items) if any(map(_differ, items, value)) else value
    if isinstance(value, set | frozenset):
        return _Unordered(value)
    return missing if is_missing(value) else value


def _differ(one: Any, other: Any) -> bool:
    return one is not other


class TooLargeError(Exception):
    """A template makes a value that nobody could send. The message quotes nothing of a row."""


def joined(chunks: Iterable[Any]) -> str:
    """Join what a template makes.

    :raises TooLargeError: when it is more than a prompt may have.
    """
    parts, left = [], MAX_PROMPT_CHARACTERS
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise TooLargeError(_TOO_LONG)
        parts.append(chunk)
    return "".join(parts)


def _counted(items: Iterable[Any], between: int = 0) -> Iterator[Any]:
    """Yield items until their texts, with what stands between them, are too long."""
    left = MAX_PROMPT_CHARACTERS
    for item in items:
        left -= between + (len(item) if isinstance(item, str) else 0)
        if left < 0:
            raise TooLargeError(_TOO_LONG)
        yield item


def sandbox() -> Any:
    """Return the Jinja that prompts are written in."""
    from jinja2 import StrictUndefined, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.visitor import NodeTransformer

    class Bounded(NodeTransformer):
        def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - Jinja's name
            # The operator's own function has no place for a bound; the filter `join` gives the same text.
            self.generic_visit(node)
            texts = nodes.List(node.nodes, lineno=node.lineno)
            return nodes.Filter(texts, "join", [], [], None, None, lineno=node.lineno)

    class Sandbox(ImmutableSandboxedEnvironment):
        # What is intercepted is not computed while the template is read, either.
        intercepted_binops = frozenset({"*", "**", "%", "+"})
        concat = staticmethod(joined)

        def bounded(self, tree: nodes.Template) -> nodes.Template:
            Bounded().visit(tree)
            return tree.set_environment(self)  # type: ignore[return-value] # the same tree

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if _is_too_large(operator, left, right):
                raise TooLargeError(f"{operator} makes a value that is too large")
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
            return super().call(context, obj, *_bounded_arguments(obj, args), **kwargs)

    # Prompts are text, not HTML: escaping would change what the model reads.
    environment = Sandbox(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=_finalized)
    environment.globals = {name: environment.globals[name] for name in _HELPERS}
    _bound_filters(environment.filters)
    environment.tests["none"] = lambda value: value is None or isinstance(value, Missing)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "default": _json_default}
    return environment


def _is_too_large(operator: str, left: Any, right: Any) -> bool:
    if operator == "%":
        return isinstance(left, str) and _WIDE.search(left) is not None
    if operator == "**":
        return isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_PROMPT_CHARACTERS
    if operator == "+":
        return _size(left) + _size(right) > MAX_PROMPT_CHARACTERS
    for many, times in ((left, right), (right, left)):
        if isinstance(times, int):
            return _size(many) * times > MAX_PROMPT_CHARACTERS
    return False


def _size(value: Any) -> int:
    """Return how many characters, or bytes, a series has; nothing of a number."""
    if isinstance(value, str | bytes):
        return len(value)
    return _POINTER_BYTES * len(value) if isinstance(value, list | tuple) else 0


def _bounded_arguments(called: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse arguments with which a method makes a text that is too long.

    :return: the arguments, with those of `join` as a list.
    """
    name = getattr(called, "__name__", "")
    # The sandbox wraps the format methods of texts.
    owner = getattr(getattr(called, "__wrapped__", called), "__self__", "")
    wide = name in _PADDING and any(isinstance(arg, int) and arg > MAX_PROMPT_CHARACTERS for arg in args)
    if wide or (name in {"format", "format_map"} and _WIDE.search(str(owner))):
        raise TooLargeError(f"{name} makes a text that is too long")
    if isinstance(owner, str) and args:
        if name == "replace":
            _bound_replacing(owner, *args)
        if name == "translate":
            _bound_many(name, len(owner), [*args[0].values()] if isinstance(args[0], dict) else [])
        if name == "join":
            return [*_counted(args[0], len(owner))], *args[1:]
    return args


def _bound_replacing(text: str, old: Any = "", new: Any = "", *_: Any) -> None:
    if isinstance(old, str) and isinstance(new, str) and len(new) > len(old):
        _bound_many("replace", text.count(old), [new])


def _bound_many(name: str, times: int, texts: Iterable[Any]) -> None:
    if times * max((len(text) for text in texts if isinstance(text, str)), default=0) > MAX_PROMPT_CHARACTERS:
        raise TooLargeError(f"{name} makes a text that is too long")


def _bound_filters(filters: dict[str, Callable[..., Any]]) -> None:
    """Limit the filters that make their input larger, and allow sets for the filters that sort."""
    for name in (*_WIDTHS, *_COUNTS):
        filters[name] = _with_bound(filters[name], MAX_PROMPT_CHARACTERS if name in _WIDTHS else _MOST_ITEMS)
    for name in ("sort", "min", "max"):
        filters[name] = _of_sets_too(filters[name])
    join, replace, wrap = filters["join"], filters["replace"], filters["wordwrap"]

    @wraps(join)
    def bounded_join(context: Any, value: Any, d: str = "", attribute: Any = None) -> Any:
        return join(context, _counted(value, len(str(d))), d, attribute)

    @wraps(replace)
    def bounded_replace(context: Any, text: Any, old: Any, new: Any, *args: Any, **kwargs: Any) -> Any:
        _bound_replacing(str(text), str(old), str(new))
        return replace(context, text, old, new, *args, **kwargs)

    @wraps(wrap)
    def bounded_wrap(environment: Any, text: Any, *args: Any, **kwargs: Any) -> Any:
        _bound_many("wordwrap", len(text), (*args, *kwargs.values()))
        return wrap(environment, text, *args, **kwargs)

    filters |= {"join": bounded_join, "replace": bounded_replace, "wordwrap": bounded_wrap}


def _with_bound(original: Callable[..., Any], most: int) -> Callable[..., Any]:
    @wraps(original)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        for value in (*args[1:], *kwargs.values()):
            if isinstance(value, int) and value > most:
                raise TooLargeError("a filter makes a text that is too long")
        if original.__name__ == "do_format" and isinstance(args[0], str) and _WIDE.search(args[0]):
            raise TooLargeError("a filter makes a text that is too long")
        return original(*args, **kwargs)

    return bounded


def _of_sets_too(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def ordered(environment: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        value = value.in_order() if isinstance(value, _Unordered) else value
        return original(environment, value, *args, **kwargs)

    return ordered


def _json_default(value: Any) -> Any:
    if isinstance(value, Missing):
        return None
    return stable_text(value)


def _finalized(value: Any) -> Any:
    """Return what stands in the text for the value of an expression."""
    from jinja2 import Undefined

    if isinstance(value, str | Missing | Undefined):
        return value
    if is_missing(value):
        raise MissingError
    return stable_text(value)
