"""The lines of a batch: written exactly, read leniently."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.domain.errors import ResultError
from airflow_vertex_batch.core.domain.jsonl import (
    contents_fingerprint,
    decode,
    encode,
    read_echo,
    read_output,
    read_response,
    request_line,
)
from airflow_vertex_batch.core.domain.lines import read_blocks, read_lines
from airflow_vertex_batch.core.domain.repair_json import repair_json
from tests.builders import a_request, a_response, an_output


class TestRequestLine:
    def test_it_is_one_line_with_key_and_request(self):
        line = request_line("r1", a_request("two\nlines"))
        assert line.count(b"\n") == 1
        assert json.loads(line) == {"key": "r1", "request": a_request("two\nlines")}

    @given(st.text())
    def test_every_text_survives(self, text):
        if not text.isprintable() and any(0xD800 <= ord(c) <= 0xDFFF for c in text):
            return
        assert json.loads(request_line("r1", a_request(text)))["request"] == a_request(text)


class TestReadLines:
    def test_lines_keep_their_numbers_and_lose_their_ends(self):
        stream = io.BytesIO(b'{"a":1}\r\n\n  \n{"b":2}')
        assert list(read_lines(stream)) == [(1, b'{"a":1}'), (4, b'{"b":2}')]


class TestBlocks:
    @given(st.lists(st.sampled_from([b'{"key":"a"}', b"{}", b"", b"  ", b"x" * 70_000]), max_size=6), st.booleans())
    def test_blocks_are_the_lines_with_their_numbers(self, lines, ends):
        data = b"\n".join(lines) + (b"\n" if ends and lines else b"")
        blocks = list(read_blocks(io.BytesIO(data)))
        assert b"".join(line for _, block in blocks for line in block) == data
        firsts = [first for first, _ in blocks]
        assert firsts == [1 + sum(len(block) for _, block in blocks[:index]) for index in range(len(blocks))]
        numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
        assert list(read_lines(io.BytesIO(data))) == numbered


class TestReadEcho:
    @pytest.mark.parametrize(
        ("raw", "labels"),
        [
            (b'{"labels": {"a": "b"}}', {"a": "b"}),
            (b'"{\\"labels\\": {\\"a\\": \\"b\\"}}"', {"a": "b"}),
            (b'{"labels": {"a": "b"}, "generationConfig": 7}', {"a": "b"}),
            (b'{"labels": {"a": "b"}, "x": NaN}', {"a": "b"}),
            (b'{"labels": [1]}', None),
            (b"{}", None),
        ],
        ids=["plain", "as a JSON text", "beside an odd member", "beside no number", "odd", "none"],
    )
    def test_the_labels_are_found_in_every_shape(self, raw, labels):
        assert read_echo(raw).labels == labels

    @pytest.mark.parametrize(
        "raw", [b"null", b"", b"[1]", b'"text"', b"{", b"[" * 200_000], ids=lambda raw: str(raw[:9])
    )
    def test_what_is_no_request_is_none(self, raw):
        assert read_echo(raw) is None


class TestReadOutput:
    def test_the_members_that_decide_a_row_are_read(self):
        line = read_output(encode(an_output("r1")), "gs://b/f", 1)
        assert (line.key, line.status) == ("r1", "")
        assert line.processed_time == "2026-11-22T03:04:05.678901+00:00"
        assert decode(line.request) == a_request()
        assert decode(line.response) == a_response()

    @pytest.mark.parametrize(
        ("raw", "key", "status"),
        [
            (b'{"status": "x"}', None, "x"),
            (b'{"key": 12, "status": null}', 12, None),
            (b'{"key": [1], "status": "x"}', None, "x"),
            (b'{"key": {"a": 1}, "status": "x", "new": [{}]}', None, "x"),
            (b'{"status": {"code": 3, "message": "no"}}', None, '{"code":3,"message":"no"}'),
            (b'{"status": 0}', None, ""),
            (b'{"status": {}}', None, ""),
            (b'{"status": "\xff"}', None, "�"),
            (b'{"status": "\\ud800!"}', None, "?!"),
            (b'{"status": "x", "response": {"avgLogprobs": NaN}}', None, "x"),
            (b'{"status": [1], "response": "\xff"}', None, "[1]"),
        ],
    )
    def test_odd_members_break_nothing(self, raw, key, status):
        line = read_output(raw, "gs://b/f", 1)
        assert (line.key, line.status) == (key, status)

    def test_absent_members_survive_being_put_aside(self):
        """A line without request or response is spooled as JSON; empty raw bytes would tear the spool."""
        line = read_output(b'{"key": "zzz"}', "gs://b/f", 1)
        assert json.loads(encode(line))["request"] is None

    @pytest.mark.parametrize("raw", [b'{"key": "r', b"Not found", b"12", b"null", b'["r1"]', b"\xff\xfe"], ids=repr)
    def test_what_is_no_output_line_says_where_it_is(self, raw):
        with pytest.raises(
            ResultError, match=r"Line 7 of gs://b/f is no line of a batch output.*look at that line"
        ) as caught:
            read_output(raw, "gs://b/f", 7)
        assert (caught.value.uri, caught.value.line) == ("gs://b/f", 7)


class TestReadResponse:
    @pytest.mark.parametrize("raw", [b"", b"null", b"{}", b'"{}"', b'"null"', b"[1]", b"3"], ids=repr)
    def test_nothing_is_nothing(self, raw):
        assert read_response(raw)[1] is None

    @pytest.mark.parametrize(
        "doc",
        [
            a_response("Hi"),
            json.dumps(a_response("Hi")),
            {"candidates": {"content": {"parts": {"text": "Hi"}}}},
            {
                "candidates": [{"content": {"parts": [{"text": "Hi", "thought": "?"}, {"text": 3}, "x", None]}}],
                "usageMetadata": 5,
            },
            {"candidates": [None, {"content": {"parts": [{"text": "Hi"}]}}], "modelVersion": ["odd"], "score": 1.5},
        ],
        ids=["plain", "as a JSON text", "objects where lists belong", "odd parts", "odd members"],
    )
    def test_the_answer_is_found_in_every_shape(self, doc):
        _, response = read_response(encode(doc))
        assert response.candidates[0].content.listed[0]["text"] == "Hi"


class TestRepaired:
    @pytest.mark.parametrize(
        ("raw", "doc"),
        [
            (b'{"a": "\xff"}', {"a": "�"}),
            (b'{"a": "\\ud83d"}', {"a": "?"}),
            (b'{"a": NaN, "b": -Infinity}', {"a": None, "b": None}),
            (b'{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        ],
    )
    def test_what_lenient_writers_let_through_becomes_json(self, raw, doc):
        assert decode(repair_json(raw)) == doc

    @pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 200_000], ids=["empty", "torn", "bytes", "too deep"])
    def test_what_is_no_json_is_none(self, raw):
        assert repair_json(raw) is None


class TestContentsFingerprint:
    @pytest.mark.parametrize(
        "echo",
        [
            {"contents": [{"parts": [{"fileData": None, "text": "Hello"}], "role": "user"}]},
            {"contents": [{"parts": {"text": "Hello"}, "role": "user"}]},
            {
                "contents": [{"role": "user", "parts": [{"text": "Hello", "file_data": None}]}],
                "generationConfig": {"topP": 1},
            },
        ],
        ids=["sorted and padded, as the seed page shows", "one object for a list of one", "other members"],
    )
    def test_it_survives_what_the_service_does_to_the_echo(self, echo):
        assert contents_fingerprint(echo) == contents_fingerprint(a_request("Hello"))

    def test_spelling_does_not_matter(self):
        camel = {"contents": [{"parts": [{"fileData": {"fileUri": "gs://b/x", "mimeType": "image/png"}}]}]}
        snake = {"contents": [{"parts": [{"file_data": {"file_uri": "gs://b/x", "mime_type": "image/png"}}]}]}
        assert contents_fingerprint(camel) == contents_fingerprint(snake)

    @pytest.mark.parametrize(
        "other",
        [
            {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]},
            {"contents": [{"role": "model", "parts": [{"text": "Hello"}]}]},
            {"contents": [{"role": "user", "parts": [{"text": "Hello"}, {"text": ""}]}]},
            {"contents": []},
            {},
        ],
    )
    def test_other_contents_are_others(self, other):
        assert contents_fingerprint(other) != contents_fingerprint(a_request("Hello"))
