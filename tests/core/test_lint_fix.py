"""`fix_line` cures what can be cured without changing what is asked, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_vertex_batch.core.requests.lint import Finding, fix_line, lint_lines
from tests.each_case import each_case

from .lint_corpus import BAD
from .lint_corpus_good import GOOD
from .lint_corpus_lines import (
    GOOD_LINE,
    HELLO,
    MOOD,
    SEED,
    asks,
    calls,
    config,
    content,
    line,
    prop,
    says,
    schema,
    tool,
)

#: A schema whose definitions refer to each other twelve deep and nine wide: finite on paper only.
EXPLODING = {
    "type": "OBJECT",
    "properties": {f"p{n}": {"$ref": "#/$defs/D0"} for n in range(9)},
    "$defs": {
        f"D{n}": {"type": "OBJECT", "properties": {f"q{m}": {"$ref": f"#/$defs/D{n + 1}"} for m in range(9)}}
        for n in range(12)
    },
}
RECURSIVE = {"$ref": "#/$defs/A", "$defs": {"A": {"type": "OBJECT", "properties": {"a": {"$ref": "#/$defs/A"}}}}}


def lint(lines: list[bytes]) -> list[Finding]:
    return list(lint_lines("requests.jsonl", lines))


def errors(row: bytes) -> set[str]:
    return {finding.rule for finding in lint([row]) if finding.severity == "error"}


class TestFix:
    @pytest.mark.parametrize(
        ("row", "cured"),
        [
            (b"\xef\xbb\xbf" + GOOD_LINE, GOOD_LINE),
            (GOOD_LINE.replace(b"\n", b"\r\n"), GOOD_LINE),
            (b"\n", b""),
            (b" \t\r\n", b""),
            (b"\xef\xbb\xbf\n", b""),
            (asks(generationConfig={"stopSequences": None}), line()),
            (asks(generationConfig={"thinkingConfig": {"thinkingBudget": None}}), line()),
            (content({"role": "user", "parts": {"text": "Hello"}}), line()),
            (line({"contents": HELLO[0]}), line()),
            (line(key="000123"), line(key="row-000123")),
            (line(key="_a"), line(key="row-_a")),
            (line(key=7), line(key="row-7")),
            (asks(generationConfig={}), line()),
            (asks(generationConfig={"thinkingConfig": {}}), line()),
            (asks(labels=None, cachedContent=None), line()),
            (calls({}), line({"contents": [*HELLO, {"role": "model", "parts": [{"functionCall": {"name": "f"}}]}]})),
            (tool({"googleSearch": {}}), tool({"googleSearch": {"excludeDomains": ["example.invalid"]}})),
            (tool({"google_search": {}}), tool({"google_search": {"excludeDomains": ["example.invalid"]}})),
            (
                tool({"functionDeclarations": [{"name": "f", "parameters": {"type": "object", "properties": {}}}]}),
                tool({"functionDeclarations": [{"name": "f"}]}),
            ),
            (schema({**MOOD, "$schema": "x", "$id": "y"}), schema(MOOD)),
            (
                schema({"type": "OBJECT", "properties": {"a": {"$ref": "#/$defs/A", "description": "d"}},
                        "$defs": {"A": {"type": "STRING", "enum": ["x"]}}}),
                prop({"type": "STRING", "enum": ["x"], "description": "d"}),
            ),
            (prop({"type": ["string", "null"]}), prop({"type": "string", "nullable": True})),
            (prop({"type": ["string"]}), prop({"type": "string"})),
            (prop({"type": "STRING", "enum": None}), prop({"type": "STRING"})),
            (prop({"type": "STRING", "enum": ["a", None]}), prop({"type": "STRING", "enum": ["a"], "nullable": True})),
            (prop({"type_": "STRING"}), prop({"type": "STRING"})),
            (
                config(responseMimeType="application/json", responseJsonSchema={"type": "string", "enum": None}),
                config(responseMimeType="application/json", responseJsonSchema={"type": "string"}),
            ),
        ],
        ids=[
            "bom", "crlf", "blank", "blanks", "bom of an empty file", "null alone", "null alone in empty",
            "single part", "single content", "numeric key", "key without a letter", "key a number", "empty config",
            "empty in empty", "nulls", "empty args", "empty search", "empty search in snake case",
            "function without parameters",
            "dollar members", "reference", "type or null", "type list of one", "enum null", "enum with null",
            "python name", "enum null in a JSON Schema",
        ],
    )  # fmt: skip
    def test_a_curable_line_is_cured(self, row: bytes, cured: bytes) -> None:
        fixed, notes = fix_line(row)
        assert fixed == cured
        assert notes
        assert not cured or errors(cured) == set()

    @pytest.mark.parametrize(
        "row",
        [
            schema({"title": None}),
            prop({"$comment": "x"}),
            asks(toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": {"a": "b"}}}),
            line({"generationConfig": {"topP": None}}),
            prop({"$ref": "#"}),
            prop({"$ref": "#/$defs/Missing"}),
            schema(RECURSIVE),
            schema(EXPLODING),
            tool({"urlContext": {}}),
            says({"text": "a"}, {}),
            line(key="7")[:-4],
            b'{"key":"7","key":"8","request":{"contents":[]}}\n',
            b"[]\n",
            b"\xff\n",
            b"",
        ],
        ids=[
            "schema of nulls", "schema of comments", "object for texts", "request of nulls",
            "itself", "missing", "recursive", "exploding", "no way round", "empty part",
            "cut", "twice", "list",
            "binary", "nothing",
        ],
    )  # fmt: skip
    def test_what_only_its_author_can_cure_stays_as_it_is(self, row: bytes) -> None:
        assert fix_line(row) == (row, [])

    @each_case(GOOD)
    def test_a_good_line_changes_at_most_its_nulls_and_single_objects(self, rows: list[bytes]) -> None:
        for row in rows:
            fixed, notes = fix_line(row)
            assert fixed == row or all("null" in note or "as a list" in note for note in notes)

    @each_case(BAD)
    def test_fixing_twice_is_fixing_once_and_adds_no_error(self, rows: list[bytes], expected: object) -> None:
        for row in rows:
            fixed, _ = fix_line(row)
            assert fix_line(fixed) == (fixed, [])
            assert errors(fixed) <= errors(row)

    @settings(max_examples=150, deadline=None)
    @given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
    def test_a_text_survives_every_cure(self, text: str) -> None:
        request = {**SEED, "contents": [{"role": "user", "parts": [{"text": text}]}], "labels": {}}
        fixed, notes = fix_line(line(request, "7"))
        assert notes
        assert json.loads(fixed)["request"]["contents"][0]["parts"][0]["text"] == text


def test_a_choice_inside_a_choice_is_not_left_with_company():
    """What stood beside the outer one was moved beside the inner one: fixing twice was not fixing once."""
    inner = {"anyOf": [{"type": "INTEGER"}, {"type": "STRING"}]}
    given = {"type": "OBJECT", "properties": {"due": {"anyOf": [inner, {"type": "STRING"}], "description": "d"}}}
    tools = [{"functionDeclarations": [{"name": "f", "parameters": given}]}]
    line = {"key": "r-1", "request": {"contents": [{"role": "user", "parts": [{"text": "x"}]}], "tools": tools}}
    fixed, _ = fix_line(json.dumps(line).encode() + b"\n")
    (function,) = json.loads(fixed)["request"]["tools"][0]["functionDeclarations"]
    first = {"anyOf": [{"description": "d", "type": "INTEGER"}, {"description": "d", "type": "STRING"}]}
    assert function["parameters"]["properties"]["due"] == {"anyOf": [first, {"description": "d", "type": "STRING"}]}
    assert fix_line(fixed) == (fixed, [])
