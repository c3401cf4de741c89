"""Which jobs does ``filter=`` select? The grammar of batchPredictionJobs.list.

::

    filter      = factor {"AND" factor}
    factor      = term {"OR" term}              OR binds tighter than AND (https://google.aip.dev/160, read 2026-11-22)
    term        = ["NOT" | "-"] ( "(" filter ")" | restriction )
    restriction = field operator value

Fields, in snake_case or camelCase, and their operators (API discovery document aiplatform.v1, revision 20261106):
``display_name`` ``= != :`` (``:`` with ``*`` as wildcard), ``model_display_name`` and ``state`` ``= !=``,
``create_time`` ``= != < <= > >=``, ``labels.KEY=VALUE`` and ``labels.KEY:*``.

Invariants: what is not in this grammar is an `ApiError` 400, never a filter that selects everything.
"""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.emulator.wire import ApiError, invalid

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Takes the members of a job's resource document that a filter may name: its body, ``state`` and ``createTime``.
Predicate = Callable[[dict[str, Any]], bool]


class Filter(msgspec.Struct, frozen=True):
    """A filter that was read.

    :param matches: whether a job is selected.
    :param labels: labels that every selected job has, as far as the filter shows that at once.
    """

    matches: Predicate
    labels: tuple[tuple[str, str], ...] = ()


_TOKEN = re.compile(
    r"""\s*(?:
      (?P<paren>[()])
    | (?P<operator>!=|<=|>=|=|<|>|:)
    | "(?P<double>(?:[^"\\]|\\.)*)"
    | '(?P<single>(?:[^'\\]|\\.)*)'
    | (?P<word>[^\s()"'=<>!:]+)
    )""",
    re.VERBOSE,
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def parse_filter(text: str) -> Filter:
    """Compile a filter; an empty one selects every job.

    :raises ApiError: 400, when the text is no filter.
    """
    if not text.strip():
        return Filter(lambda _: True)
    parser = _Parser(text)
    predicate = parser.conjunction()
    if parser.peek() != ("end", ""):
        raise parser.error(f"unexpected {parser.peek()[1]!r}")
    return Filter(predicate, tuple(parser.required))


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [*self._scan(text), ("end", "")]
        self._index = 0
        #: The label that the last restriction asks for, if it was one.
        self._asked: tuple[str, str] | None = None
        #: Labels that all of the outermost conjunction's terms ask for.
        self.required: list[tuple[str, str]] = []

    def peek(self) -> tuple[str, str]:
        return self._tokens[self._index]

    def error(self, why: str) -> ApiError:
        return invalid(f"Invalid filter {self._text!r}: {why}.", field="filter")

    def conjunction(self) -> Predicate:
        terms, required = [self._disjunction()], [self._asked]
        while self._word("AND"):
            terms.append(self._disjunction())
            required.append(self._asked)
        self.required, self._asked = [label for label in required if label is not None], None
        return lambda job: all(term(job) for term in terms)

    def _disjunction(self) -> Predicate:
        terms = [self._term()]
        while self._word("OR"):
            terms.append(self._term())
            self._asked = None
        return lambda job: any(term(job) for term in terms)

    def _term(self) -> Predicate:
        if self._word("NOT") or self._minus():
            inner = self._term()
            self._asked = None
            return lambda job: not inner(job)
        if self.peek() == ("paren", "("):
            self._next()
            inner = self.conjunction()
            if self._next() != ("paren", ")"):
                raise self.error("a parenthesis is not closed")
            return inner
        return self._restriction()

    def _restriction(self) -> Predicate:
        kind, field = self._next()
        if kind != "word":
            raise self.error(f"a field is expected, not {field!r}" if field else "it ends where a field is expected")
        if field == "labels." and self.peek()[0] == "quoted":
            field += self._next()[1]
        sign_kind, sign = self._next()
        if sign_kind != "operator":
            raise self.error(f"an operator is expected after {field!r}")
        value_kind, value = self._next()
        if value_kind not in {"word", "quoted"}:
            raise self.error(f"a value is expected after {field!r} {sign}")
        return self._compile(field, sign, value)

    def _compile(self, field: str, sign: str, value: str) -> Predicate:
        self._asked = None
        if field.startswith("labels."):
            return self._label(field.removeprefix("labels."), sign, value)
        name = re.sub(r"(?<=[a-z])([A-Z])", lambda match: "_" + match[1].lower(), field)
        match name:
            case "display_name" | "model_display_name":
                return self._text_field(name, sign, value)
            case "state":
                return self._state(sign, value)
            case "create_time":
                return self._time(sign, value)
        raise self.error(f"field {field!r} is not supported")

    def _text_field(self, name: str, sign: str, value: str) -> Predicate:
        read: Callable[[dict[str, Any]], str] = _display_name if name == "display_name" else _model_display_name
        if sign == ":" and name == "display_name":
            # Only the star is a wildcard here. `fnmatch` makes a pattern that never tries a piece twice.
            pattern = re.compile(fnmatch.translate(value.replace("[", "[[]").replace("?", "[?]")))
            return lambda job: pattern.match(read(job)) is not None
        compare = self._equality(name, sign)
        return lambda job: compare(read(job), value)

    def _state(self, sign: str, value: str) -> Predicate:
        compare = self._equality("state", sign)
        if JobState.read(value) is JobState.UNSPECIFIED and value != JobState.UNSPECIFIED:
            raise self.error(f"{value!r} is not a state")
        return lambda job: compare(job["state"], value)

    def _time(self, sign: str, value: str) -> Predicate:
        if sign not in _COMPARE:
            raise self.error(f"create_time does not support {sign}")
        try:
            moment = msgspec.convert(value, datetime)
        except msgspec.ValidationError as error:
            raise self.error(f"{value!r} is not an RFC 3339 time") from error
        if moment.tzinfo is None:
            raise self.error(f"{value!r} has no time zone")
        return lambda job: _COMPARE[sign](msgspec.convert(job["createTime"], datetime), moment)

    def _label(self, key: str, sign: str, value: str) -> Predicate:
        if not key:
            raise self.error("a label needs a key")
        if sign == ":" and value == "*":
            return lambda job: key in job.get("labels", {})
        if sign != "=":
            raise self.error(f"labels support = and :*, not {sign}{value}")
        self._asked = (key, value)
        return lambda job: job.get("labels", {}).get(key) == value

    def _equality(self, name: str, sign: str) -> Callable[[Any, Any], bool]:
        if sign not in {"=", "!="}:
            raise self.error(f"{name} does not support {sign}")
        return _COMPARE[sign]

    def _next(self) -> tuple[str, str]:
        token = self.peek()
        self._index = min(self._index + 1, len(self._tokens) - 1)
        return token

    def _word(self, word: str) -> bool:
        found = self.peek() == ("word", word)
        self._index += found
        return found

    def _minus(self) -> bool:
        kind, text = self.peek()
        if kind != "word" or not text.startswith("-") or not text[1:]:
            return False
        self._tokens[self._index] = (kind, text[1:])
        return True

    def _scan(self, text: str) -> Iterator[tuple[str, str]]:
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                raise self.error(f"cannot be read from {text[position:].strip()!r} on")
            value = match[match.lastgroup]
            quoted = match.lastgroup in {"double", "single"}
            yield ("quoted", re.sub(r"\\(.)", r"\1", value)) if quoted else (match.lastgroup, value)
            position = match.end()


def _display_name(job: dict[str, Any]) -> str:
    return str(job.get("displayName", ""))


def _model_display_name(job: dict[str, Any]) -> str:
    # A publisher model has no display name of its own; its id stands for it.
    return str(job.get("model", "")).rpartition("/")[2].partition("@")[0]
