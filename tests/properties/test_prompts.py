"""The fast path of the prompt template gives the same text as Jinja, and row data is never rendered."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, StrictUndefined, TemplateSyntaxError, Undefined

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.requests.answer_check import AnswerCheck
from airflow_vertex_batch.core.requests.prompt import PromptError, compile_prompt
from airflow_vertex_batch.core.requests.request import RequestBuilder, RequestTemplate
from airflow_vertex_batch.core.requests.schema import json_schema, response_schema
from airflow_vertex_batch.core.requests.values import is_missing, stable_text

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
#: Keeps a template from the fast path, and changes nothing.
SLOWLY = "{% if false %}{% endif %}"


def _refusing(value):
    """What our template puts into a text, said once more: all but what has no stable text of its own."""
    if isinstance(value, str | Undefined):
        return value
    if is_missing(value):
        raise ValueError("missing")
    return stable_text(value)


JINJA = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=_refusing)


def _said(render) -> str:
    try:
        return f"said {render()}"
    except Exception:  # noqa: BLE001 - whatever it is, there is no text
        return "nothing"


def _by_jinja(source: str, row) -> str:
    """A row's text by Jinja alone; its variables win over the row's columns."""
    names = {**{name: value for name, value in row.items() if not is_missing(value)}, **VARIABLES, "row": row}
    return JINJA.from_string(source).render(names)


@given(TEMPLATES, ROWS)
def test_the_fast_path_is_jinja_to_the_character(template, row):
    try:
        ours, slow = compile_prompt(template, VARIABLES), compile_prompt(SLOWLY + template, VARIABLES)
    except InputError as error:
        assert "The prompt template has a mistake" in str(error)  # noqa: PT017 - a template may also have none
        with pytest.raises(TemplateSyntaxError, match=r"."):
            JINJA.from_string(template)
        return
    assert _said(lambda: ours(row)) == _said(lambda: slow(row))
    if not any(map(is_missing, row.values())):
        assert _said(lambda: ours(row)) == _said(lambda: _by_jinja(template, row))


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
#: Without what is missing: there Jinja alone is no measure.
WHOLE_ROWS = ROWS.map(lambda row: {name: value for name, value in row.items() if not is_missing(value)})


@given(PROGRAMS, st.lists(WHOLE_ROWS, max_size=4))
def test_one_row_leaves_nothing_to_the_next(template, rows):
    ours = compile_prompt(template, VARIABLES)
    for row in rows:
        assert _said(lambda row=row: ours(row)) == _said(lambda row=row: _by_jinja(template, row))


@given(TEMPLATES, st.lists(ROWS, max_size=4))
def test_many_rows_at_once_are_each_row_by_itself(template, rows):
    try:
        prompt = compile_prompt(template, VARIABLES)
        texts = prompt.all(rows)
    except (InputError, PromptError):  # then it goes row by row, which the test above is about
        return
    assert texts == [prompt(row) for row in rows]


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
    assert bool(AnswerCheck(there_and_back)(answer)) is bool(AnswerCheck(json_schema(schema))(answer))
