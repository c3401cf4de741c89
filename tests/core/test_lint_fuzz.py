"""Whatever stands on a line, lint answers; what it lets pass is a request; the short way and the long way agree."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_vertex_batch.core.requests.lint import Finding, Linter, fix_line
from tests.each_case import each_case

from .lint_corpus import BAD
from .lint_corpus_good import GOOD
from .lint_corpus_lines import HELLO, asks, calls, dump, line, says, schema, tool

MEDIA = {"fileData": {"fileUri": "gs://b/o.png", "mimeType": "image/png"}}
TYPED = {"responseMimeType": "application/json"}


def lint(lines: list[bytes], **options: Any) -> list[Finding]:
    """Return what a linter with these options finds in one file."""
    linter = Linter("requests.jsonl", **options)
    found = [finding for number, row in enumerate(lines, start=1) for finding in linter.check(number, row)]
    return found + linter.finish()


#: Bytes that break JSON in interesting places.
SNIPPETS = [
    b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"\\u0000",
    b"\\ud800", b"\\u0022", b"null", b"{}", b"[]", b"1e999", b"NaN", b'"key":"row-9",', b'"text":"x",', b'"$a":1,',
    b'"a":{},', b" ",
    b'"},{"text":"', b'\\"', b"\\\\", b'"text":"', b'","request":{"contents":[{"role":"user","parts":[{"text":"',
]  # fmt: skip
ROWS = [row for lines in GOOD.values() for row in lines]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["request", "contents", "parts", "text", "role", "key", "generationConfig", "responseSchema",
                         "properties", "type", "items", "tools", "fileData", "fileUri", "labels", "a", "A", "$ref"])
        | st.text(max_size=3),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good line with a snippet put somewhere, perhaps over what was there."""
    row = draw(st.sampled_from(ROWS))
    start = draw(st.integers(0, len(row)))
    stop = draw(st.integers(start, min(len(row), start + 12)))
    return row[:start] + draw(st.sampled_from(SNIPPETS)) + row[stop:]


def is_request_line(row: bytes) -> bool:
    """Whether a strict JSON decoder takes the line, and finds a request in it."""
    names: list[bool] = []

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        names.append(len({name for name, _ in members}) == len(members))
        return dict(members)

    try:
        value = json.loads(row.decode(), object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return False
    return all(names) and isinstance(value, dict) and isinstance(value.get("request"), dict)


class TestFuzz:
    @settings(max_examples=400, deadline=None)
    @given(row=st.binary(max_size=60) | mutated() | json_values.map(json.dumps).map(str.encode))
    def test_nothing_raises_and_nothing_that_is_no_request_passes(self, row: bytes) -> None:
        if not any(finding.severity == "error" for finding in lint([row])):
            assert is_request_line(row)

    @settings(max_examples=200, deadline=None)
    @given(value=json_values)
    def test_any_request_gets_an_answer(self, value: Any) -> None:
        lint([line(value), asks(tools=value), schema(value), calls(value), says(value), line(a=value)])

    @settings(max_examples=250, deadline=None)
    @given(
        texts=st.lists(st.text() | st.sampled_from([snippet.decode("latin-1") for snippet in SNIPPETS]), max_size=6),
        rows=st.lists(mutated(), max_size=4),
        order=st.randoms(use_true_random=False),
    )
    def test_the_shortcut_changes_no_finding(self, texts: list[str], rows: list[bytes], order: Any) -> None:
        rows = [*rows, *(says({"text": text}, key=f"k{text[:3]}{index % 4}") for index, text in enumerate(texts))]
        order.shuffle(rows)
        assert lint(rows) == lint(rows, shortcut=False)

    @each_case(BAD)
    def test_the_shortcut_changes_no_finding_of_the_corpus(self, lines: list[bytes], expected: Any) -> None:
        rows = [says({"text": "first"}, key="s1"), says({"text": "second"}, key="s2"), *lines, *lines]
        assert lint(rows) == lint(rows, shortcut=False)

    @pytest.mark.parametrize(
        "template",
        [
            lambda text, key: says({"text": text}, key=key),
            lambda text, key: dump({"request": {"contents": HELLO, "labels": {"row": text}}, "key": key}),
            lambda text, key: says(
                {"text": text}, {"fileData": {"fileUri": f"gs://b/{key}", "mimeType": "a/b"}}, key=key
            ),
            lambda text, key: json.dumps(
                {"key": key, "request": {"contents": HELLO, "labels": {"text": text}}}
            ).encode(),
            lambda text, key: calls({"text": text, "key": key, "n": {"fileUri": "gs://b/o"}}, key),
        ],
        ids=["text", "label, key last", "media", "label called text", "arguments"],
    )
    def test_lines_of_one_template_take_the_shortcut(self, template: Any) -> None:
        linter = Linter("a")
        rows = [template(f"t{number}", f"row-{number}") for number in range(5)]
        assert [linter.check(number, row) for number, row in enumerate(rows, start=1)] == [[]] * 5
        assert linter._shapes is not None
        assert linter._shapes.match(template("other", "row-9")) == "row-9"

    @pytest.mark.parametrize(
        ("first", "second", "rule"),
        [
            (
                asks(labels={"type": "string"}, generationConfig={**TYPED, "responseSchema": {"type": "string"}}),
                asks("b", labels={"type": "string"}, generationConfig={**TYPED, "responseSchema": {"type": "strng"}}),
                "unknown-value",
            ),
            (asks(labels={"text": "hello"}), asks("b", labels={"text": "Hello World"}), "label"),
            (line({"contents": HELLO}), line({"contents": HELLO}), "key-duplicate"),
            (line({"contents": HELLO}), line({"contents": HELLO}, "77"), "key-retyped"),
            (line({"contents": HELLO}), line({"contents": HELLO}, "true" + " " * 9), "key-retyped"),
            (says({"text": "a"}), says({"text": ""}, key="b"), "empty-part"),
            (says(MEDIA), says({"fileData": {**MEDIA["fileData"], "fileUri": "/o"}}, key="b"), "file-uri"),
            (says({"text": "a"}), says({"text": "a"}, key="b").replace(b'"a"', b'"a","text":"c"'), "duplicate-member"),
            (says({"text": "a"}), says({"text": "a"}, key="b").replace(b'"a"', b'"a"},{"text":""'), "empty-part"),
        ],
        ids=[
            "schema type",
            "label",
            "key",
            "numeric key",
            "padded key",
            "empty text",
            "file",
            "text twice",
            "further part",
        ],
    )
    def test_what_stands_in_a_varying_place_is_still_checked(self, first: bytes, second: bytes, rule: str) -> None:
        assert lint([first]) == []
        assert rule in {finding.rule for finding in lint([first, second]) if finding.line == 2}

    @settings(max_examples=200, deadline=None)
    @given(value=json_values)
    def test_fixing_raises_nothing_and_its_result_needs_no_fixing(self, value: Any) -> None:
        for row in (line(value), schema(value), tool(value), asks(systemInstruction=value), calls(value)):
            fixed, _ = fix_line(row)
            assert fix_line(fixed) == (fixed, [])
