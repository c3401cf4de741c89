"""The importer's rules: one bad line fails the job, with the service's words."""

from __future__ import annotations

import io
import json

import pytest

from airflow_vertex_batch.emulator.importer import Importer, JobFailedError, read_lines, retyped
from tests.emulator.worlds import a_line, a_request


def the_import_of(*lines):
    importer = Importer()
    for line in lines:
        importer.feed(line if isinstance(line, bytes) else json.dumps(line).encode(), "gs://in/x.jsonl", 10)
    return importer.finish("gs://in/x.jsonl")


def with_schema(schema, **members):
    return a_line(generationConfig={"responseMimeType": "application/json", "responseSchema": schema}, **members)


def nested(levels):
    """A call whose arguments end in a name that is `levels` deep: request is 1, args 5, its first member 6."""
    args = "x"
    for _ in range(levels - 5):
        args = {"a": args}
    return {"key": "k", "request": {"contents": [{"parts": [{"functionCall": {"name": "f", "args": args}}]}]}}


class TestALineIsRefused:
    @pytest.mark.parametrize(
        ("lines", "fragment"),
        [
            pytest.param(
                [a_line(tools=[{"googleSearch": {}}])],
                "Cannot store struct 'request.tools.googleSearch' with no fields",
                id="an empty tool",
            ),
            pytest.param(
                [a_line(tools=[{"google_search": {}}])],
                "Cannot store struct 'request.tools.google_search' with no fields",
                id="an empty tool in snake_case",
            ),
            pytest.param(
                [{**a_line(), "request": {"contents": [{"parts": [{"functionCall": {"name": "f", "args": {}}}]}]}}],
                "Cannot store struct 'request.contents.parts.functionCall.args' with no fields",
                id="a function call without arguments",
            ),
            pytest.param(
                [with_schema({"type": "OBJECT", "properties": {}})],
                "responseSchema.properties' with no fields",
                id="empty properties",
            ),
            pytest.param(
                [{**a_line(), "extra": {}}], "Cannot store struct 'extra' with no fields", id="an empty sibling"
            ),
            pytest.param(
                [with_schema({"type": "STRING"}), with_schema({"type": ["STRING", "NULL"]})],
                "Repeated field must be imported as a JSON array",
                id="a text first, then a list",
            ),
            pytest.param(
                [with_schema({"type": ["STRING", "NULL"]}), with_schema({"type": "STRING"})],
                "Repeated field must be imported as a JSON array",
                id="a list first, then a text",
            ),
            pytest.param(
                [{"key": "a", "request": {"contents": [{"parts": {"text": "x"}}]}}, a_line()],
                "Repeated field must be imported as a JSON array",
                id="parts as an object, then as a list",
            ),
            pytest.param(
                [{**a_line(), "meta": "x"}, {**a_line(), "meta": {"a": 1}}],
                "JSON object specified for non-record field: meta",
                id="a text, then an object",
            ),
            pytest.param([nested(16)], "Schema nested too deeply, at least 16", id="sixteen levels"),
            pytest.param(
                [with_schema({"type": "OBJECT", "properties": {"a": {"$ref": "#/$defs/A"}}})],
                'Invalid field name "$ref"',
                id="a reference",
            ),
            pytest.param(
                [with_schema({"type": "OBJECT", "$defs": {"A": {"type": "STRING"}}})],
                'Invalid field name "$defs"',
                id="definitions",
            ),
            pytest.param(
                [with_schema({"type": "OBJECT", "properties": {"due date": {"type": "STRING"}}})],
                'Invalid field name "due date"',
                id="a property with a space",
            ),
            pytest.param([{**a_line(), "2nd": 1}], 'Invalid field name "2nd"', id="a digit first"),
            pytest.param([{**a_line(), "a" * 301: 1}], "Invalid field name", id="a very long name"),
            pytest.param([{**a_line(), "_PARTITIONTIME": 1}], "Invalid field name", id="a name BigQuery keeps"),
            pytest.param(
                [{**a_line(), "day": 1}, {**a_line(), "Day": 1}],
                "Duplicate(Case Insensitive) field names: day and Day",
                id="two names that differ in case",
            ),
            pytest.param(
                [with_schema({"type": "STRING", "enum": None})],
                "Only optional fields can be set to NULL",
                id="a null where the API has a list",
            ),
            pytest.param(
                [{**a_line(), "tags": ["x"]}, {**a_line(), "tags": None}],
                "Only optional fields can be set to NULL",
                id="a null where another line has a list",
            ),
            pytest.param(
                [{**a_line(), "tags": None}, {**a_line(), "tags": ["x"]}],
                "Only optional fields can be set to NULL",
                id="a list where another line has a null",
            ),
            pytest.param(
                [{**a_line(), "tags": ["x", None]}], "Only optional fields can be set to NULL", id="a null in a list"
            ),
            pytest.param(
                [{**a_line(), "tags": [["x"]]}], "Nested arrays not allowed. Field: tags", id="a list of lists"
            ),
            pytest.param([b"[" * 100_000], "JSON parsing error", id="nested beyond any decoder"),
            pytest.param([b'{"request": {"contents"'], "JSON parsing error", id="half a line"),
            pytest.param([b"[1, 2]"], "Start of object expected", id="no object"),
            pytest.param([b'{"request": "\xff"}'], "JSON parsing error", id="no UTF-8"),
            pytest.param([{"key": "a"}], "Required column request was not found", id="no request anywhere"),
        ],
    )
    def test_with_code_3_and_the_documented_words(self, lines, fragment):
        with pytest.raises(JobFailedError, match="Failed to import data") as caught:
            the_import_of(*lines)
        assert fragment in caught.value.message
        assert caught.value.code == 3

    def test_even_when_only_the_last_of_many_lines_is_bad(self):
        good = [a_line(f"k{number}") for number in range(50)]
        with pytest.raises(JobFailedError, match="googleSearch"):
            the_import_of(*good, a_line("bad", tools=[{"googleSearch": {}}]))


class TestALineIsTaken:
    @pytest.mark.parametrize(
        "lines",
        [
            pytest.param([nested(15)], id="fifteen levels"),
            pytest.param(
                [a_line(tools=[{"googleSearch": {"excludeDomains": ["example.invalid"]}}])], id="a tool with a field"
            ),
            pytest.param([a_line(tools=[{"googleSearch": {"timeRangeFilter": None}}])], id="a tool with a null"),
            pytest.param([{**a_line(), "note": None}, {**a_line(), "note": "x"}], id="a null in an optional place"),
            pytest.param([{**a_line(), "tags": []}, {**a_line(), "tags": ["x"]}], id="an empty list"),
            pytest.param([{**a_line(), "n": 1}, {**a_line(), "n": "one"}], id="a number and a text"),
            pytest.param([a_line(), {"key": "k", "request": None}], id="one line without a request"),
            pytest.param(
                [a_line(), {**a_line(), "status": "", "response": {}}], id="an output line with an empty response"
            ),
            pytest.param([{"key": "a", "request": {"contents": [{"parts": {"text": "x"}}]}}], id="parts as an object"),
            pytest.param(
                [
                    {**a_line(), "status": "", "response": {}, "tags": ["x", None]},
                    {"key": "k", "status": "", "response": None, "request": {"contents": [{"parts": None}]}},
                ],
                id="an output line's own nulls",
            ),
            pytest.param(
                [a_line(labels={"tools": None, "team": "x"}), with_schema({"properties": {"parts": None}})],
                id="a null under a name of the caller's own",
            ),
        ],
    )
    def test_when_it_breaks_no_rule(self, lines):
        assert the_import_of(*lines)["key"] == "STRING"

    def test_with_a_byte_order_mark_at_the_very_beginning(self):
        importer = Importer()
        importer.feed(b"\xef\xbb\xbf" + json.dumps(a_line()).encode(), "gs://in/x.jsonl", 0)
        assert importer.finish("x") == {"key": "STRING"}


class TestColumns:
    @pytest.mark.parametrize(
        ("values", "kind", "stored"),
        [
            pytest.param(["000000", "17"], "INTEGER", [0, 17], id="all look like integers"),
            pytest.param(["1.50", "2"], "FLOAT", [1.5, 2.0], id="all look like numbers"),
            pytest.param(["k1", "17"], "STRING", ["k1", "17"], id="one letter keeps all"),
            pytest.param([17, "k1"], "STRING", ["17", "k1"], id="numbers among texts become texts"),
            pytest.param([1, 2.5], "FLOAT", [1.0, 2.5], id="integers among floats"),
            pytest.param([True, False], "BOOLEAN", [True, False], id="booleans"),
            pytest.param([True, "x"], "STRING", ["true", "x"], id="booleans among texts"),
            pytest.param([None, "5"], "INTEGER", [None, 5], id="nulls say nothing"),
            pytest.param([{"a": "1"}, {"a": "2"}], "JSON", [{"a": "1"}, {"a": "2"}], id="objects"),
            pytest.param(["12345678901234567890"], "STRING", ["12345678901234567890"], id="too long for an integer"),
        ],
    )
    def test_have_one_type_each(self, values, kind, stored):
        columns = the_import_of(*({"id": value, "request": a_request()} for value in values))
        assert columns["id"] == kind
        assert [retyped(value, kind) for value in values] == stored


class TestLines:
    def test_are_split_across_chunks_with_positions_and_without_blanks(self):
        big = b'{"a": "' + b"x" * (3 << 20) + b'"}'
        found = list(read_lines(io.BytesIO(b"one\r\n\n" + big + b"\n  \nlast"), 1 << 30))
        assert [line.strip() for _, line in found] == [b"one", big, b"last"]
        assert [position for position, _ in found] == [0, 6, 6 + len(big) + 1 + 3]

    def test_have_a_greatest_length(self):
        with pytest.raises(ValueError, match="Row size is larger than: 100"):
            list(read_lines(io.BytesIO(b"x" * (2 << 20)), 100))
        with pytest.raises(ValueError, match="Row size is larger than: 100"):
            list(read_lines(io.BytesIO(b"x" * 101 + b"\n"), 100))
