"""Does the compiled check ever accept an answer that jsonschema refuses?"""

from __future__ import annotations

import enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema.validators import validator_for

from airflow_vertex_batch.core.domain.jsonl import decode
from airflow_vertex_batch.core.requests.answer_check import AnswerCheck, is_certain

NAMES = st.sampled_from(["a", "b", "é", "type", "nullable", "$ref"])
#: Numbers at the ends of what 64 bits and doubles hold, where libraries differ.
NUMBERS = st.integers(-3, 3) | st.sampled_from(
    [0.0, -0.0, 0.1, 0.5, 1.0, 1e16, 1e308, 2**53, 2**53 + 1, 9007199254740993.0, 2**63 - 1, 2**64 - 1, -(2**63)]
)
SCALARS = st.none() | st.booleans() | NUMBERS | st.sampled_from(["", "a", "é", "😀", "ab", "ab\n", "٣"])
ANSWERS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "null"])
COUNTS = st.integers(0, 3)


def _node(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True),
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": st.booleans() | inner,
            "items": inner,
            "enum": st.lists(ANSWERS, min_size=1, max_size=3),
            "const": ANSWERS,
            **dict.fromkeys(("anyOf", "oneOf", "allOf"), several),
            **dict.fromkeys(
                ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"), COUNTS
            ),
            **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), NUMBERS),
            # What the libraries understand differently, or we do not know.
            "pattern": st.sampled_from(["^a$", r"^\d$", "^(?!b)"]),
            "multipleOf": st.sampled_from([0.1, 2]),
            "format": st.sampled_from(["date", "date-time", "email"]),
            "uniqueItems": st.booleans(),
            "nullable": st.booleans(),
            "$ref": st.just("#/$defs/d"),
        },
    )


SCHEMAS = st.recursive(st.fixed_dictionaries({}, optional={"type": TYPES}), _node, max_leaves=5)
DIALECTS = st.sampled_from(
    [
        {},
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
        {"$schema": "http://json-schema.org/draft-07/schema#"},
        {"$schema": "http://json-schema.org/draft-04/schema#"},
    ]
)


@given(
    schema=SCHEMAS, definition=_node(SCALARS.map(lambda _: {})), dialect=DIALECTS, answers=st.lists(ANSWERS, max_size=5)
)
def test_it_says_what_jsonschema_says(schema, definition, dialect, answers):
    """The same reason for every answer, and the same answers without one."""
    meant = {name: value for name, value in definition.items() if name != "$ref"}
    whole = {**schema, **dialect, "$defs": {"d": meant}}
    check, judge = AnswerCheck(whole), validator_for(whole)(whole)
    for answer in answers:
        error = next(judge.iter_errors(answer), None)
        wanted = f"{error.json_path} breaks {error.validator!r} of the response schema" if error else ""
        assert check(answer) == wanted


@pytest.mark.parametrize(
    ("schema", "certain"),
    [
        ({"type": "object", "properties": {"mood": {"type": "string", "enum": ["glad"]}}, "required": ["mood"]}, True),
        ({"$defs": {"d": {"type": "null"}}, "anyOf": [{"$ref": "#/$defs/d"}, {"items": {"maximum": 3}}]}, True),
        ({"properties": {"pattern": {"type": "string"}}}, True),
        ({"properties": {"a": {"type": "string", "pattern": "^a$"}}}, False),
        ({"type": "number", "multipleOf": 0.1}, False),
        ({"$ref": "https://example.com/schema"}, False),
        ({"$defs": {"d": {"enum": [{"multipleOf": 0.1}]}}, "$ref": "#/$defs/d/enum/0"}, False),
        ({"unheard": 1}, False),
        ({"anyOf": {"type": "string"}}, False),
    ],
    ids=[
        "usual",
        "references",
        "a property's name",
        "pattern",
        "rounding",
        "elsewhere",
        "into data",
        "unknown",
        "no list",
    ],
)
def test_only_what_both_understand_alike_is_compiled(schema, certain):
    assert is_certain(schema) is certain


def test_an_answer_that_the_compiled_check_cannot_take_is_checked_all_the_same():
    """A list in a list, five hundred times."""
    check = AnswerCheck({"$defs": {"l": {"type": "array", "items": {"$ref": "#/$defs/l"}}}, "$ref": "#/$defs/l"})
    assert check(decode("[" * 90 + "]" * 90)) == ""
    assert check(decode("[" * 90 + "1" + "]" * 90)).startswith("$[0][0]")


class _Mood(enum.Enum):
    GLAD = "glad"


def test_a_schema_is_judged_as_it_is_sent():
    """As JSON: a member of an enum is its value."""
    check = AnswerCheck({"enum": [_Mood.GLAD]})
    assert check("glad") == ""
    assert check("sad") == "$ breaks 'enum' of the response schema"


def test_a_schema_that_is_no_json_is_judged_all_the_same():
    check = AnswerCheck({"type": "string", "default": object()})
    assert (check("a"), check(1)) == ("", "$ breaks 'type' of the response schema")
    assert check.digest != AnswerCheck({"type": "string", "default": object()}).digest
