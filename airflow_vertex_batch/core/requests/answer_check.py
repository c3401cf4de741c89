"""Does an answer fit the response schema? If it does not, why?

`jsonschema` decides. It is written in Python, and checking every answer with it takes longer than all other work on an
answer. So `jsonschema_rs`, which is compiled, looks first, and most answers are good. Only what it does not accept goes
to `jsonschema`, which also gives the reason.

Invariant: an answer that `jsonschema` refuses is never accepted. The compiled check is used only for schemas in which
both mean the same (`is_certain`); a property test compares them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from xxhash import xxh3_128_hexdigest

from airflow_vertex_batch.core.domain.jsonl import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

#: Members whose meaning is the same in both libraries, by what they hold: no schema, one, a list of them, or a map.
#: `pattern` is not among them (each library has its own regular expressions), nor is `multipleOf` (each rounds in its
#: own way).
_PLAIN = frozenset({
    "type", "enum", "const", "required", "minItems", "maxItems", "minLength", "maxLength", "minProperties",
    "maxProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
})  # fmt: skip
_ONE, _LISTS, _MAPS = (
    frozenset({"items", "additionalProperties"}),
    frozenset({"anyOf", "oneOf", "allOf"}),
    frozenset({"properties", "$defs", "definitions"}),
)
#: Members that check nothing. (`format` only describes, unless a check of formats is asked for.)
_DESCRIPTIONS = frozenset({
    "title", "description", "$comment", "default", "examples", "deprecated", "format", "nullable", "propertyOrdering",
    "discriminator",
})  # fmt: skip
#: To a definition itself: a longer way may lead through data, such as a member of an enum.
_REFERENCE = re.compile(r"#/(\$defs|definitions)/[^/]+")
_DIALECTS = frozenset({"https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#"})


class AnswerCheck:
    """Says why an answer does not fit a schema, or an empty text when it does.

    The reason names the place and the rule, never the value.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        from jsonschema.validators import validator_for

        self._is_good: Callable[[Any], bool] = _never
        try:
            data = encode(schema)
        except (TypeError, ValueError, OverflowError, RecursionError):
            # It cannot be sent either; whoever only checks with it gets what jsonschema makes of it.
            self._judge = validator_for(schema)(schema)
            self.digest = uuid4().hex
            return
        plain = decode(data)
        self._judge, self._is_good = validator_for(plain)(plain), _compiled(plain)
        #: The same for the same schema.
        self.digest = xxh3_128_hexdigest(data)

    def __call__(self, answer: Any) -> str:
        """Return the reason."""
        if self._is_good(answer):
            return ""
        error = next(self._judge.iter_errors(answer), None)
        return f"{error.json_path} breaks {error.validator!r} of the response schema" if error else ""


def _compiled(schema: dict[str, Any]) -> Callable[[Any], bool]:
    """Return a fast check whose yes is certain. Its no says nothing."""
    import jsonschema_rs

    if schema.get("$schema", next(iter(_DIALECTS))) not in _DIALECTS or not is_certain(schema, is_root=True):
        return _never
    try:
        is_valid = jsonschema_rs.validator_for(schema, validate_formats=False).is_valid
    except ValueError:
        # It is no schema. `jsonschema` reports that with the first answer that comes to the wrong member.
        return _never

    def is_good(answer: Any) -> bool:
        try:
            return is_valid(answer)
        except ValueError:
            # A value that it cannot take: nested too deeply.
            return False

    return is_good


def _never(_answer: Any) -> bool:
    return False


def is_certain(node: Any, *, is_root: bool = False) -> bool:
    """Whether both libraries accept the same answers for a schema."""
    if isinstance(node, bool):
        return True
    return isinstance(node, dict) and all(_is_certain_member(name, value, is_root) for name, value in node.items())


def _is_certain_member(name: str, value: Any, is_root: bool) -> bool:  # noqa: FBT001 - of the node it stands in
    if name in _ONE:
        return is_certain(value)
    if name in _LISTS:
        return isinstance(value, list) and all(map(is_certain, value))
    if name in _MAPS:
        return isinstance(value, dict) and all(map(is_certain, value.values()))
    if name == "$ref":
        return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None
    return name in _PLAIN or name in _DESCRIPTIONS or (name == "$schema" and is_root)
