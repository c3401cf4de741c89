"""The fast path of the prompt template gives the same text as Jinja, and row data is never rendered."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, StrictUndefined, TemplateSyntaxError

from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.core.request import RequestBuilder, RequestTemplate, compile_prompt
from airflow_vertex_batch.core.schema import answer_checker, json_schema, response_schema

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
#: Names that are a column, a variable of the template, a name of Jinja's, or nothing at all.
NAMES = st.sampled_from(["a", "b", "c", "lang", "row", "self", "loop", "range", "dict", "caller", "_x", "none", "True"])
VALUES = st.one_of(
    TEXTS,
    st.sampled_from(["{{ a }}", "{% for x in y %}", "{# x #}", "{{", "\r\n", "<b>&</b>"]),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.decimals(allow_nan=False),
    st.dates(),
    st.datetimes(),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(TEXTS, st.integers(), max_size=2),
    st.just(Decimal("1.50")),
)
ROWS = st.dictionaries(st.sampled_from(["a", "b", "c", "lang", "loop", "range", "caller", "_x"]), VALUES)
SPACES = st.sampled_from(["", " ", "  ", "\n"])
PLACES = st.builds(lambda left, name, right: "{{" + left + name + right + "}}", SPACES, NAMES, SPACES)
#: Trimming dashes, remarks and everything that is more than naming columns.
OTHERS = st.sampled_from(
    [
        "{{- a -}}",
        "{# remark #}",
        "{{ a|upper }}",
        "{{ row.a }}",
        "{% if a %}x{% endif %}",
        "{{ 1 }}",
        "\n",
        "{",
        "}}",
        "%",
    ]
)
TEMPLATES = st.lists(st.one_of(TEXTS.filter(lambda text: "{" not in text), PLACES, OTHERS), max_size=6).map("".join)

VARIABLES = {"lang": "it"}
JINJA = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)


def _said(render) -> str:
    try:
        return render()
    except Exception as error:  # noqa: BLE001 - whatever Jinja does, the fast path must do
        return f"{type(error).__name__}: {error}"


@given(TEMPLATES, ROWS)
def test_the_fast_path_is_jinja_to_the_character(template, row):
    try:
        plain = JINJA.from_string(template, globals=VARIABLES)
    except TemplateSyntaxError:
        with pytest.raises(InputError, match="The prompt template has a mistake"):
            compile_prompt(template, VARIABLES)
        return
    ours = compile_prompt(template, VARIABLES)
    # Objects such as `self` print their address.
    said, wanted = (
        text.partition(" object at ")[0].partition(" of None")[0]
        for text in (_said(lambda: ours(row)), _said(lambda: plain.render(row, row=row)))
    )
    assert said == wanted


#: More than naming columns: all of it leaves the context as it was, or takes a new one for each row.
PROGRAMS = st.sampled_from(
    [
        "{% for x in a %}{{ loop.index }}{{ x }}{% endfor %}{{ x is defined }}",
        "{% if a %}{% set c = 1 %}{% endif %}{{ c is defined }}{{ b is defined }}",
        "{% set n = namespace(i=0) %}{% for x in a %}{% set n.i = n.i + 1 %}{% endfor %}{{ n.i }}",
        "{% macro m(x) %}[{{ x }}{{ b is defined }}]{% endmacro %}{{ m(a) }}{{ lang }}{{ row | length }}",
        "{% with b = a %}{{ b }}{% endwith %}{{ b is defined }}{{ c | default(lang) }}",
        "{{ a | string | upper }}{{ lang }}{{ range(2) | list }}{{ row.b is defined }}",
    ]
)


@given(PROGRAMS, st.lists(ROWS, max_size=4))
def test_one_row_leaves_nothing_to_the_next(template, rows):
    ours, plain = compile_prompt(template, VARIABLES), JINJA.from_string(template, globals=VARIABLES)
    for row in rows:
        said, wanted = (
            text.partition(" object at ")[0]
            for text in (_said(lambda row=row: ours(row)), _said(lambda row=row: plain.render(row, row=row)))
        )
        assert said == wanted


@given(TEMPLATES, st.lists(ROWS, max_size=4))
def test_many_rows_at_once_are_each_row_by_itself(template, rows):
    try:
        prompt = compile_prompt(template, VARIABLES)
        texts = prompt.all(rows)
    except Exception:  # noqa: BLE001 - then it goes row by row, which the test above is about
        return
    assert [_nameless(text) for text in texts] == [_nameless(prompt(row)) for row in rows]


def _nameless(text: str) -> str:
    return text.partition(" object at ")[0]


@given(TEXTS.filter(str.strip), st.booleans())
def test_a_text_arrives_as_it_is(text, slow):
    """To the byte: whatever template syntax it holds."""
    import json

    prompt = "{{ a }}{% if true %}{% endif %}" if slow else "{{ a }}"
    request = json.loads(RequestBuilder(RequestTemplate(prompt=prompt))({"a": text}))
    assert request["contents"][0]["parts"] == [{"text": text}]


LEAVES = st.sampled_from(
    [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {"type": ["number", "null"]}, {"enum": ["a", "b"]}]
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.dictionaries(st.sampled_from(["type", "items", "nullable", "x"]), inner, min_size=1, max_size=3).map(
            lambda properties: {"type": "object", "properties": properties, "required": sorted(properties)}
        ),
    ),
    max_leaves=6,
)


@given(
    SCHEMAS,
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from(["a", "c"])),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "items", "x"]), inner, max_size=3)
        ),
        max_leaves=5,
    ),
)
def test_the_api_s_spelling_checks_the_same_answers(schema, answer):
    """There and back: what the service is asked for is what answers are checked against."""
    there_and_back = json_schema(response_schema(json_schema(schema)))
    assert bool(answer_checker(there_and_back)(answer)) is bool(answer_checker(json_schema(schema))(answer))
