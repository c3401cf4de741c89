"""How a row becomes a request: template, constant members, media, key."""

from __future__ import annotations

import json
import re
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from airflow_vertex_batch.core.requests.request import (
    KEY_LABEL,
    MAX_KEY_LENGTH,
    RequestBuilder,
    RequestTemplate,
    RowProblem,
    columns_json,
    content_key,
    key_label,
    request_digest,
    row_key,
    row_keys,
)
from tests.builders import seed


def _build(row, **template):
    return json.loads(RequestBuilder(RequestTemplate(**template))(row))


def _parts(row, **template):
    return _build(row, **template)["contents"][0]["parts"]


class TestConstantMembers:
    def test_a_request_with_everything(self):
        request = _build(
            {"text": "hi"},
            prompt="{{ text }}",
            system_instruction="Be brief.",
            generation_config={"temperature": 0.1},
            response_schema={"type": "string"},
            tools=[{"functionDeclarations": [{"name": "f"}]}],
            safety_settings=[{"category": "c", "threshold": "t"}],
            extra={"labels": {"team": "x"}},
        )
        assert request == {
            "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "generationConfig": {
                "temperature": 0.1,
                "responseMimeType": "application/json",
                "responseSchema": {"type": "STRING"},
            },
            "tools": [{"functionDeclarations": [{"name": "f"}]}],
            "safetySettings": [{"category": "c", "threshold": "t"}],
            "labels": {"team": "x"},
        }

    def test_empty_members_are_left_out(self):
        """The importer refuses empty objects."""
        assert list(_build({}, prompt="hi", system_instruction="", generation_config={}, tools=[])) == ["contents"]

    def test_a_content_object_stays_as_it_is(self):
        instruction = {"role": "system", "parts": [{"text": "x"}]}
        assert _build({}, prompt="hi", system_instruction=instruction)["systemInstruction"] == instruction


class TestMedia:
    @pytest.mark.parametrize("value", [None, float("nan"), pd.NA, pd.NaT, "", []], ids=repr)
    def test_a_missing_one_is_none(self, value):
        """A table of pandas has NA and NaN where a row has no image."""
        assert _parts({"a": "x", "image": value}, prompt="{{ a }}", media={"image": "image/png"}) == [{"text": "x"}]

    @pytest.mark.parametrize("kind", [None, float("nan"), pd.NA, ""], ids=repr)
    def test_a_missing_media_type_is_told_by_the_name(self, kind):
        row = {"image": "gs://b/x.png", "image_mime_type": kind, "mime_type": kind}
        assert _parts(row, media={"image": None})[0]["fileData"]["mimeType"] == "image/png"

    @pytest.mark.parametrize("value", [["gs://b/a.png"], {"uri": "gs://b/a.png"}, b"gs://b/a.png", 5, {"a"}], ids=repr)
    def test_what_is_no_address_is_said_so(self, value):
        with pytest.raises(RowProblem, match=r"Column 'image' holds a \w+, not the address of one file"):
            _parts({"image": value}, media={"image": "image/png"})

    def test_a_line_end_behind_an_address_is_none_of_it(self):
        assert _parts({"image": "gs://b/a.png\n"}, media={"image": None})[0]["fileData"]["fileUri"] == "gs://b/a.png"

    def test_the_seed_page_s_request_can_be_made_from_a_row(self):
        row = {
            "video": "gs://cloud-samples-data/generative-ai/video/animals.mp4",
            "image": "gs://cloud-samples-data/generative-ai/image/cricket.jpeg",
        }
        made = _build(
            row,
            prompt="What is the relation between the following video and image samples?",
            media={"video": None, "image": None},
            generation_config={"temperature": 0.9, "topP": 1, "maxOutputTokens": 256},
        )
        assert made == seed("request.jsonl")["request"]

    @pytest.mark.parametrize(
        ("row", "kind", "mime"),
        [
            ({"file": "gs://b/x.png"}, None, "image/png"),
            ({"file": "gs://b/x.png"}, "image/special", "image/special"),
            ({"file": "gs://b/x", "file_mime_type": "audio/wav"}, None, "audio/wav"),
            ({"file": "gs://b/x", "mime_type": "audio/mp4"}, None, "audio/mp4"),
        ],
        ids=["ending", "given", "column's own", "row's"],
    )
    def test_the_media_type_comes_from_who_knows_best(self, row, kind, mime):
        assert _parts(row, media={"file": kind}) == [{"fileData": {"fileUri": row["file"], "mimeType": mime}}]

    def test_an_empty_column_adds_no_part(self):
        assert _parts({"file": None}, prompt="hi", media={"file": None}) == [{"text": "hi"}]

    @pytest.mark.parametrize(
        ("row", "code"),
        [
            ({"file": "gs://b/x"}, "no-mime-type"),
            ({"file": ""}, "no-content"),
            ({"other": 1}, "no-column"),
            ({"file": "gs://b/\ud800.png"}, "not-unicode"),
        ],
        ids=["unknown type", "empty", "absent", "lone surrogate"],
    )
    def test_media_that_cannot_be_sent_is_a_problem_of_that_row(self, row, code):
        with pytest.raises(RowProblem, match=code) as caught:
            _build(row, media={"file": None})
        assert caught.value.code == code


class TestKeys:
    @pytest.mark.parametrize("value", [["a"], {"contents": "a prompt"}, ("a",)], ids=lambda it: type(it).__name__)
    def test_a_value_with_members_names_no_row(self, value):
        with pytest.raises(RowProblem, match=r"cannot name this row: it holds a (list|dict|tuple)") as caught:
            row_key(value)
        assert caught.value.code == "odd-key"

    @pytest.mark.parametrize(
        ("value", "key"),
        [
            ("ticket-1", "ticket-1"),
            ("000123", "r-000123"),
            (7, "r-7"),
            (1.5, "r-1.5"),
            (True, "r-True"),
            ("nan", "r-nan"),
            ("Infinity ", "r-Infinity "),
            ("null-1", "null-1"),
            ("ticket", "ticket"),
            (date(2026, 11, 22), "r-2026-11-22"),
            ("-x", "r--x"),
            ("Ünlü", "r-Ünlü"),
            ("a b/c:d", "a b/c:d"),
            (0, "r-0"),
            (Decimal("1.50"), "r-1.50"),
        ],
        ids=repr,
    )
    def test_a_key_begins_with_a_letter(self, value, key):
        """The service turns texts that look like numbers into numbers."""
        assert row_key(value) == key

    def test_keys_of_many_values_are_the_keys_of_each(self):
        values = [7, "a", True, "000123", "nan", -3, 10**70, 1.5, date(2026, 11, 22)]
        assert row_keys(values) == [row_key(value) for value in values]
        assert row_keys([]) == []

    @pytest.mark.parametrize("value", ["x" * 64, "a\nb", "a\x00b"], ids=["long", "newline", "NUL"])
    def test_what_would_not_fit_a_label_is_replaced_by_its_digest(self, value):
        assert row_key(value) == row_key(value)
        assert row_key(value) != row_key(value + "!")
        assert row_key(value).startswith("r-")
        assert len(row_key(value)) <= MAX_KEY_LENGTH

    @pytest.mark.parametrize(
        ("value", "code"),
        [
            *((None, "no-key"), ("", "no-key"), (float("nan"), "no-key"), ("\ud800", "not-unicode")),
            *(({1, 2}, "odd-key"), (object(), "odd-key"), (b"x", "odd-key"), (10**5000, "odd-key")),
        ],
        ids=lambda value: repr(value)[:12] if not isinstance(value, int) else "5,001 digits",
    )
    def test_no_key_is_a_problem_of_that_row(self, value, code):
        with pytest.raises(RowProblem, match=code) as caught:
            row_key(value)
        assert caught.value.code == code

    def test_the_same_content_has_the_same_key(self):
        assert content_key(b"x") == content_key(b"x") != content_key(b"y")
        assert content_key(b"x")[0] == "r"


class TestKeyLabel:
    @pytest.mark.parametrize("key", ["ticket-1", "r-Ünlü", "x" * 63], ids=["plain", "not ASCII", "long"])
    def test_it_is_legal_whatever_the_key(self, key):
        assert re.fullmatch(r"k[0-9a-f]{30}", key_label(key))
        assert key_label(key) == key_label(key) != key_label(key + "!")


class TestDigest:
    PLAIN = b'{"contents":[{"role":"user","parts":[{"text":"a"}]}]}'

    @pytest.mark.parametrize(
        ("plain", "labelled"),
        [
            (PLAIN, b'{"labels":{"avb_key":"%s"},"contents":[{"role":"user","parts":[{"text":"a"}]}]}'),
            (b'{"labels":{"a":"b"},"contents":[]}', b'{"labels":{"a":"b","avb_key":"%s"},"contents":[]}'),
            (b'{"contents":[],"labels":{"a":"b"}}', b'{"contents":[],"labels":{"a":"b","avb_key":"%s"}}'),
        ],
        ids=["no labels", "labels in front", "labels behind"],
    )
    def test_our_label_does_not_count(self, plain, labelled):
        labelled = labelled.replace(b"%s", key_label("r-1").encode())
        assert KEY_LABEL.encode() in labelled
        assert request_digest(labelled, "m") == request_digest(plain, "m")

    @pytest.mark.parametrize(
        "other",
        [
            b'{"contents":[{"role":"user","parts":[{"text":"b"}]}]}',
            b'{"labels":{"team":"x"},"contents":[{"role":"user","parts":[{"text":"a"}]}]}',
            b'{"contents":[{"role":"user","parts":[{"text":"\\"avb_key\\":\\"k\\""}]}]}',
        ],
        ids=["text", "the user's labels", "a text that looks like our label"],
    )
    def test_everything_else_does(self, other):
        assert request_digest(other) != request_digest(self.PLAIN)

    def test_the_model_counts_whatever_its_spelling(self):
        assert request_digest(self.PLAIN, "gemini-a") != request_digest(self.PLAIN, "gemini-b")
        assert request_digest(self.PLAIN, "publishers/google/models/gemini-a") == request_digest(self.PLAIN, "gemini-a")


class TestCarried:
    def test_what_a_table_of_pandas_holds_travels(self):
        """As `frame.to_dict("records")` gives it, which our own error of a DataFrame tells people to pass."""
        row = {
            "day": pd.Timestamp("2026-01-02 03:04:05+00:00"), "gone": pd.NA, "never": pd.NaT, "nan": float("nan"),
            "count": np.int64(3), "share": np.float64(0.5), "flag": np.bool_(True), "list": np.array([1, 2]),
        }  # fmt: skip
        assert json.loads(columns_json(row, row)) == {
            "day": "2026-01-02T03:04:05+00:00", "gone": None, "never": None, "nan": None,
            "count": 3, "share": 0.5, "flag": True, "list": [1, 2],
        }  # fmt: skip

    def test_the_user_s_columns_are_json(self):
        row = {"id": 1, "day": date(2026, 11, 22), "price": Decimal("1.50"), "blob": b"x", "other": object()}
        assert json.loads(columns_json(row, ("id", "day", "price", "blob"))) == {
            "id": 1,
            "day": "2026-11-22",
            "price": "1.50",
            "blob": "eA==",
        }

    @pytest.mark.parametrize(
        ("row", "code"),
        [
            ({}, "no-column"),
            ({"id": object()}, "not-json"),
            ({"id": "\ud800"}, "not-json"),
            ({"id": 10**5000}, "not-json"),
        ],
        ids=["absent", "no JSON type", "lone surrogate", "a number without end"],
    )
    def test_a_column_that_cannot_travel_is_a_problem_of_that_row(self, row, code):
        with pytest.raises(RowProblem, match=code) as caught:
            columns_json(row, ("id",))
        assert caught.value.code == code
