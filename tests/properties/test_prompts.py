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
