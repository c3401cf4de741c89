"""What is nearly JSON becomes JSON that lands; what is none is said to be none."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.domain.jsonl import decode, encode
from airflow_vertex_batch.core.domain.repair_json import MAX_DEPTH, is_deep, is_wide, repair_json, shallow, well_encoded


def _nested(levels: int, inner: bytes = b"") -> bytes:
    return b"[" * levels + inner + b"]" * levels


class TestDepth:
    @pytest.mark.parametrize(
        ("raw", "deep"),
        [
            (_nested(MAX_DEPTH), False),
            (_nested(MAX_DEPTH + 1), True),
            (b"[" + b",".join([b"[{}]"] * 500) + b"]", False),
            (encode({"text": "[{" * 500}), False),
            (encode({"text": '\\"' * 300 + "[" * 500}), False),
            (b'{"a":' * 300 + b"1" + b"}" * 300, True),
        ],
        ids=["at the limit", "one deeper", "wide", "in a text", "behind quotation marks in a text", "objects"],
    )
    def test_it_is_that_of_brackets_outside_of_texts(self, raw, deep):
        assert is_deep(raw) is is_deep(raw.decode()) is deep

    def test_what_is_deeper_is_nothing_and_the_rest_stays(self):
        raw = b'{"a":' + _nested(20_000, b'"]"') + b',"b":"[[","c":' + _nested(2) + b"}"
        doc = decode(shallow(raw))
        assert (doc["b"], doc["c"]) == ("[[", [[]])
        assert not is_deep(shallow(raw))

    def test_what_is_torn_within_stays_torn(self):
        assert repair_json(b"[" * 20_000) is None


class TestNumbers:
    @pytest.mark.parametrize(
        ("raw", "repaired"),
        [
            (b"[18446744073709551615, -9223372036854775808]", [18446744073709551615, -9223372036854775808]),
            (b"[18446744073709551616]", [1.8446744073709552e19]),
            (b"[1e400, -1E+400, " + b"9" * 400 + b", " + b"9" * 5_000 + b"]", [None] * 4),
            (b"[0.12345678901234567890123, 1e-400]", [0.12345678901234568, 0.0]),
            (b'["1e400 99999999999999999999"]', ["1e400 99999999999999999999"]),
        ],
        ids=["64 bits", "65 bits", "beyond all", "many decimals", "in a text"],
    )
    def test_what_no_column_holds_becomes_the_nearest_that_is_one_or_nothing(self, raw, repaired):
        assert decode(repair_json(raw)) == repaired
        assert is_wide(raw) is (repaired in ([1.8446744073709552e19], [None] * 4))
        assert not is_wide(repair_json(raw))


class TestBytes:
    @pytest.mark.parametrize(
        ("raw", "doc"),
        [
            (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
            (b'\0\0{"a":1}\0\0\r', {"a": 1}),
            (b'{"a":"x\0y\tz"}', {"a": "x\0y\tz"}),
            (b'{"a":1,"a":2}', {"a": 2}),
        ],
        ids=["a byte order mark", "NULs around", "control characters in a text", "a member twice"],
    )
    def test_what_lenient_writers_let_through_is_read(self, raw, doc):
        assert decode(repair_json(raw)) == doc


class TestWellEncoded:
    def test_utf_8_stays_the_same_object(self):
        raw = "ä😀".encode() * 300_000
        assert well_encoded(raw) is raw

    @pytest.mark.parametrize("raw", [b"a\xffb", b"a" * ((1 << 20) - 1) + b"\xf0\x9f", b"\xed\xa0\x80"])
    def test_what_is_none_is_replaced(self, raw):
        assert well_encoded(raw) == raw.decode("utf-8", "replace").encode()
