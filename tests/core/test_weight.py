"""What requests weigh: characters, media, and the bound of their answers."""

from __future__ import annotations

import json

import pytest

from airflow_vertex_batch.core.domain.manifest import Weight
from airflow_vertex_batch.core.requests.prepare.weight import WeightCounter, constant_weight, media_kind
from tests.builders import a_request


def _weigh(*requests) -> Weight:
    counter = WeightCounter()
    for request in requests:
        counter.add_request(json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode())
    return counter.weight


class TestTexts:
    @pytest.mark.parametrize(
        ("texts", "ascii_chars", "other_chars"),
        [([], 0, 0), (["abc", "d"], 4, 0), (["Grüße", "a"], 4, 2), (["привет 😀"], 1, 7)],
        ids=["none", "ASCII", "some others", "most others"],
    )
    def test_characters_count_by_their_alphabet(self, texts, ascii_chars, other_chars):
        counter = WeightCounter()
        counter.add_texts(texts)
        assert (counter.weight.ascii_chars, counter.weight.other_chars) == (ascii_chars, other_chars)

    @pytest.mark.parametrize("text", ["plain", "Grüße é", "привет 😀 日本", "\U0010ffff\u0080\u07ff\uffff"])
    def test_a_request_counts_by_its_characters_though_it_comes_as_bytes(self, text):
        weight, frame = _weigh(a_request(text)), _weigh(a_request(""))
        ascii_count = sum(map(str.isascii, text))
        assert weight.ascii_chars - frame.ascii_chars == ascii_count
        assert weight.other_chars == len(text) - ascii_count

    def test_a_ready_made_request_weighs_a_little_more_than_its_texts(self):
        weight = _weigh(a_request("ü" * 100), a_request("a" * 1_000))
        assert weight.other_chars == 100
        assert 1_000 <= weight.ascii_chars < 1_200

    def test_inline_media_are_no_text(self):
        part = {"inlineData": {"mimeType": "image/png", "data": "A" * 10_000}}
        weight = _weigh({"contents": [{"role": "user", "parts": [part]}]})
        assert weight.ascii_chars < 200
        assert weight.media == {"image": 1}


class TestMedia:
    @pytest.mark.parametrize(
        ("mime", "kind"),
        [("image/png", "image"), ("video/mp4", "video"), ("audio/wav", "audio"), ("application/pdf", "document"),
         ("text/plain", "document")],
    )  # fmt: skip
    def test_they_are_counted_by_kind(self, mime, kind):
        assert media_kind(mime) == kind
        file = {"fileData": {"fileUri": "gs://b/o", "mimeType": mime}}
        request = {
            "contents": [{"role": "user", "parts": [file, file]}],
            "generationConfig": {"responseMimeType": mime},
        }
        assert _weigh(request).media == {kind: 2}


BOUND = {"generationConfig": {"maxOutputTokens": 100, "candidateCount": 2}}


class TestAnswers:
    @pytest.mark.parametrize(
        ("members", "most"),
        [
            ([BOUND, BOUND], 400),
            ([BOUND, {"generation_config": {"max_output_tokens": 7}}], 207),
            ([BOUND, {}], 0),
            ([{}, BOUND], 0),
            ([], 0),
        ],
        ids=["each", "snake case", "one without", "the first without", "no request"],
    )
    def test_their_bound_is_the_sum_or_none(self, members, most):
        assert _weigh(*[a_request("x", **member) for member in members]).max_output_tokens == most


class TestConstant:
    def test_what_every_request_repeats_counts_for_every_request(self):
        members = {
            "systemInstruction": {"parts": [{"text": "é" * 10}]},
            "generationConfig": {"maxOutputTokens": 5, "responseSchema": {"type": "STRING", "description": "d" * 30}},
            "safetySettings": [{"category": "x" * 1_000, "threshold": "y"}],
        }
        once, counter = constant_weight(members), WeightCounter()
        counter.add_same(once, 3)
        assert (once.other_chars, once.max_output_tokens) == (10, 5)
        assert 30 < once.ascii_chars < 150
        assert (counter.weight.ascii_chars, counter.weight.max_output_tokens) == (3 * once.ascii_chars, 15)
