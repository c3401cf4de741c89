"""What one output line means: every word the API knows, and every odd thing the service has been seen to write."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import googleapiclient
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.answers.classify import FINISH_REASONS, PERMANENT_ERRORS, classify, row_error
from airflow_vertex_batch.core.domain.jsonl import encode, read_output
from airflow_vertex_batch.core.domain.row import ResultRow, RowStatus, Usage
from airflow_vertex_batch.core.requests.answer_check import AnswerCheck
from tests.builders import a_failed_output, a_request, a_response, an_output, seed


@cache
def _api_words(schema: str, member: str) -> tuple[str, ...]:
    """The words of an enum in Google's own API definition."""
    documents = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    doc = json.loads((documents / "aiplatform.v1.json").read_bytes())
    return tuple(doc["schemas"][f"GoogleCloudAiplatformV1{schema}"]["properties"][member]["enum"])


def _row(doc: Any, **options: Any) -> ResultRow:
    return classify(read_output(encode(doc), "gs://b/f", 1), "r1", job_name="j", **options)


def _answered(text: str | None = "Hi", **candidate: Any) -> ResultRow:
    return _row(an_output(response=a_response(text, **candidate)))


class TestSeedPage:
    def test_the_success_line_as_printed(self):
        row = _row(seed("success.json"))
        assert row.status is RowStatus.SUCCEEDED
        assert row.text.startswith("This video shows a Google Photos marketing campaign")
        assert (row.finish_reason, row.model_version) == ("STOP", "gemini-2.0-flash-001@default")
        assert row.usage == Usage(29180, 36, total_tokens=29216)
        assert row.processed_at == "2024-11-01T18:13:16.826+00:00"
        assert json.loads(row.response) == seed("success.json")["response"]
        assert not row.repairable

    def test_the_failed_line_as_printed(self):
        row = _row(seed("failed.json"))
        assert (row.status, row.code) == (RowStatus.FAILED, "INVALID_ARGUMENT")
        assert row.reason == "Please use a valid role: user, model."
        assert (row.text, row.usage, row.response) == (None, None, b"")
        assert not row.repairable


#: Finish reason → status, and whether asking again may help.
MEANINGS = {
    "FINISH_REASON_UNSPECIFIED": ("failed", True),
    "STOP": ("succeeded", False),
    "MAX_TOKENS": ("truncated", True),
    "SAFETY": ("blocked", False),
    "RECITATION": ("blocked", False),
    "OTHER": ("failed", True),
    "BLOCKLIST": ("blocked", False),
    "PROHIBITED_CONTENT": ("blocked", False),
    "SPII": ("blocked", False),
    "MALFORMED_FUNCTION_CALL": ("invalid_output", True),
    "MODEL_ARMOR": ("blocked", False),
    "IMAGE_SAFETY": ("blocked", False),
    "IMAGE_PROHIBITED_CONTENT": ("blocked", False),
    "IMAGE_RECITATION": ("blocked", False),
    "IMAGE_OTHER": ("failed", True),
    "UNEXPECTED_TOOL_CALL": ("invalid_output", True),
    "NO_IMAGE": ("invalid_output", True),
    "MALFORMED_RESPONSE": ("invalid_output", True),
    "CONTINUATION": ("truncated", True),
    "TOO_MANY_TOOL_CALLS": ("invalid_output", True),
    "LANGUAGE": (RowStatus.BLOCKED, False),
    "PUP_LIMITED_DISABLED": (RowStatus.BLOCKED, False),
    "MISSING_THOUGHT_SIGNATURE": (RowStatus.INVALID_OUTPUT, False),
    "ESCALATION": (RowStatus.FAILED, True),
}
#: Words that google-genai has and the API definition has not (2.34.0 to 3.6.1, 2026-11-28).
CLIENT_WORDS = ("LANGUAGE", "PUP_LIMITED_DISABLED", "MISSING_THOUGHT_SIGNATURE", "ESCALATION")


class TestFinishReasons:
    def test_the_table_has_every_word_of_the_api(self):
        assert set(FINISH_REASONS) == set(MEANINGS) == {*_api_words("Candidate", "finishReason"), *CLIENT_WORDS}

    def test_the_table_has_every_word_of_google_s_client(self):
        from google.genai import types

        assert {word.name for word in types.FinishReason} <= set(FINISH_REASONS)

    @pytest.mark.parametrize(("word", "meaning"), MEANINGS.items())
    def test_each_word_gives_its_status(self, word, meaning):
        row = _answered("Hi", finishReason=word, finishMessage="because")
        assert (row.status, row.repairable) == meaning
        assert (row.finish_reason, row.text) == (word, "Hi")
        assert (row.code, row.reason) == (("", "") if row.status.is_good else (word, "because"))

    @pytest.mark.parametrize("word", FINISH_REASONS)
    def test_what_is_not_repairable_by_status_is_not_by_word(self, word):
        status, repairable = FINISH_REASONS[word]
        assert status.repairable or not repairable

    def test_a_word_that_does_not_exist_yet_is_a_failed_row_worth_asking_again(self):
        row = _answered("Hi", finishReason="BORED")
        assert (row.status, row.code, row.repairable) == (RowStatus.FAILED, "BORED", True)
        assert row.reason == "The model stopped with BORED"

    @pytest.mark.parametrize("word", [None, ""], ids=["absent", "empty"])
    def test_an_answer_without_a_word_is_an_answer(self, word):
        assert _answered("Hi", finishReason=word).status is RowStatus.SUCCEEDED

    def test_a_budget_spent_on_thinking_is_truncated_not_empty(self):
        row = _answered(None, finishReason="MAX_TOKENS", content={"role": "model"})
        assert (row.status, row.text) == (RowStatus.TRUNCATED, None)


BLOCK_REASONS = {
    "BLOCKED_REASON_UNSPECIFIED", "SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "MODEL_ARMOR", "IMAGE_SAFETY",
    "JAILBREAK",
}  # fmt: skip


class TestBlocked:
    def test_the_words_are_those_of_the_api(self):
        assert set(_api_words("GenerateContentResponsePromptFeedback", "blockReason")) == BLOCK_REASONS

    @pytest.mark.parametrize("word", sorted(BLOCK_REASONS | {"A_WORD_THAT_DOES_NOT_EXIST_YET"}))
    def test_every_block_reason_is_blocked_for_good(self, word):
        row = _row(
            an_output(response={"promptFeedback": {"blockReason": word}, "usageMetadata": {"promptTokenCount": 9}})
        )
        assert (row.status, row.code, row.repairable) == (RowStatus.BLOCKED, word, False)
        assert row.reason == f"The prompt was blocked: {word}"
        assert row.usage.prompt_tokens == 9

    def test_the_service_s_own_message_is_kept(self):
        feedback = {"blockReason": "SAFETY", "blockReasonMessage": "Too dangerous."}
        assert _row(an_output(response={"promptFeedback": feedback})).reason == "Too dangerous."


class TestRowErrors:
    @pytest.mark.parametrize(
        ("code", "word", "repairable"),
        [
            (400, "INVALID_ARGUMENT", False),
            (400, "FAILED_PRECONDITION", True),
            (400, "OUT_OF_RANGE", False),
            (401, "UNAUTHENTICATED", True),
            (403, "PERMISSION_DENIED", False),
            (404, "NOT_FOUND", False),
            (409, "ABORTED", True),
            (429, "RESOURCE_EXHAUSTED", True),
            (499, "CANCELLED", True),
            (500, "INTERNAL", True),
            (501, "UNIMPLEMENTED", False),
            (503, "UNAVAILABLE", True),
            (504, "DEADLINE_EXCEEDED", True),
        ],
    )
    def test_an_error_says_whether_asking_again_may_help(self, code, word, repairable):
        row = _row(a_failed_output(code=code, word=word))
        assert (row.status, row.code, row.reason, row.repairable) == (RowStatus.FAILED, word, "No.", repairable)
        assert (word not in PERMANENT_ERRORS) is repairable

    @pytest.mark.parametrize(
        ("status", "word", "message"),
        [
            (
                'Bad Request: {"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}',
                "INVALID_ARGUMENT",
                "m",
            ),
            ('{"error": {"code": 429, "message": "m"}}', "RESOURCE_EXHAUSTED", "m"),
            ('{"code": 4, "message": "Deadline"}', "DEADLINE_EXCEEDED", "Deadline"),
            ('{"code": 13}', "INTERNAL", '{"code": 13}'),
            ('{"error": "text"}', "UNKNOWN", '{"error": "text"}'),
            ('{"error": {"code": "400"}}', "UNKNOWN", '{"error": {"code": "400"}}'),
            (
                "Deadline exceeded: DEADLINE_EXCEEDED before prefill",
                "DEADLINE_EXCEEDED",
                "Deadline exceeded: DEADLINE_EXCEEDED before prefill",
            ),
            ("503 Service Unavailable", "UNAVAILABLE", "503 Service Unavailable"),
            ("INTERNAL: try again", "INTERNAL", "INTERNAL: try again"),
            ("418 I'm a teapot", "UNKNOWN", "418 I'm a teapot"),
            ("Something broke {", "UNKNOWN", "Something broke {"),
            ("{not json} 429", "RESOURCE_EXHAUSTED", "{not json} 429"),
            ("[1]", "UNKNOWN", "[1]"),
        ],
    )
    def test_every_text_gives_a_word_and_a_message(self, status, word, message):
        assert row_error(status) == (word, message)

    def test_an_error_as_an_object_is_an_error_too(self):
        row = _row(an_output(status={"code": 3, "message": "bad"}, response={}))
        assert (row.status, row.code, row.reason) == (RowStatus.FAILED, "INVALID_ARGUMENT", "bad")

    @pytest.mark.parametrize("response", [{}, None, "", "{}"], ids=repr)
    def test_neither_status_nor_response_is_worth_asking_again(self, response):
        row = _row(an_output(response=response))
        assert (row.status, row.code, row.repairable) == (RowStatus.FAILED, "NO_RESPONSE", True)


class TestText:
    @pytest.mark.parametrize(
        ("parts", "text"),
        [
            ([{"text": "a"}, {"text": "b"}], "ab"),
            ([{"text": "hm", "thought": True}, {"text": "a"}], "a"),
            ([{"text": ""}, {"text": "a"}], "a"),
            ({"text": "a"}, "a"),
            ([{"text": "a", "thoughtSignature": "xyz"}], "a"),
            ([{"text": "é😀\n"}], "é😀\n"),
        ],
        ids=["joined", "thoughts are no answer", "empty part", "an object for a list", "signature", "any character"],
    )
    def test_the_parts_are_joined_without_thoughts(self, parts, text):
        row = _answered(content={"parts": parts})
        assert (row.status, row.text) == (RowStatus.SUCCEEDED, text)

    @pytest.mark.parametrize(
        "content",
        [
            {},
            {"parts": []},
            {"parts": [{"text": ""}]},
            {"parts": [{"text": "hm", "thought": True}]},
            None,
            {"parts": [{"functionCall": None}]},
        ],
        ids=["no parts", "empty parts", "empty text", "only thoughts", "null", "a null call"],
    )
    def test_saying_nothing_is_no_answer(self, content):
        row = _answered(content=content)
        assert (row.status, row.code, row.text, row.repairable) == (RowStatus.FAILED, "EMPTY_ANSWER", None, True)

    @pytest.mark.parametrize(
        "part", [{"functionCall": {"name": "f"}}, {"inlineData": {"mimeType": "image/png"}}], ids=str
    )
    def test_a_call_or_an_image_is_an_answer(self, part):
        row = _answered(content={"parts": [part]})
        assert (row.status, row.text) == (RowStatus.SUCCEEDED, None)

    @pytest.mark.parametrize(
        "response", [{"candidates": []}, {"modelVersion": "m"}, {"candidates": None, "promptFeedback": {}}], ids=str
    )
    def test_no_candidate_and_no_reason_is_worth_asking_again(self, response):
        row = _row(an_output(response=response))
        assert (row.status, row.code, row.repairable) == (RowStatus.FAILED, "NO_CANDIDATES", True)


def _candidate(text: str | None, finish: str = "STOP") -> dict[str, Any]:
    return {"content": {"parts": [] if text is None else [{"text": text}]}, "finishReason": finish}


class TestCandidates:
    @pytest.mark.parametrize(
        ("candidates", "status", "text"),
        [
            ([_candidate("a"), _candidate("b")], "succeeded", "a"),
            ([_candidate("a"), _candidate("b", "SAFETY")], "succeeded", "a"),
            ([_candidate("a", "SAFETY"), _candidate("b")], "succeeded", "b"),
            ([_candidate("a", "MAX_TOKENS"), _candidate("b", "SAFETY"), _candidate("c")], "succeeded", "c"),
            ([_candidate(None), _candidate("b")], "succeeded", "b"),
            ([_candidate("a", "MAX_TOKENS"), _candidate("b", "SAFETY")], "truncated", "a"),
            ([_candidate("b", "SAFETY"), _candidate("a", "MAX_TOKENS")], "blocked", "b"),
            ([_candidate(None), _candidate("b", "SAFETY")], "failed", None),
        ],
    )
    def test_the_first_good_one_is_the_answer_and_else_the_first_one_decides(self, candidates, status, text):
        row = _row(an_output(response={"candidates": candidates}))
        assert (row.status, row.text) == (status, text)
        assert row.finish_reason == next(c["finishReason"] for c in candidates if (_text_of(c) or None) == text)
        assert json.loads(row.response)["candidates"] == candidates, "all of them are kept"

    def test_where_json_was_asked_for_a_good_one_is_json_that_fits(self):
        candidates = [_candidate("prose"), _candidate('{"a": "x"}'), _candidate('{"a": 1}'), _candidate('{"a": 2}')]
        row = _row(an_output(response={"candidates": candidates}), check=TestJson.CHECK)
        assert (row.status, row.answer) == (RowStatus.SUCCEEDED, {"a": 1})
        row = _row(an_output(response={"candidates": candidates[:2]}), check=TestJson.CHECK)
        assert (row.status, row.code, row.text) == (RowStatus.INVALID_OUTPUT, "NOT_JSON", "prose")


def _text_of(candidate: dict[str, Any]) -> str:
    return "".join(part["text"] for part in candidate["content"]["parts"])


JSON_REQUEST = a_request(generationConfig={"responseMimeType": "application/json"})


class TestJson:
    CHECK = staticmethod(AnswerCheck({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}))

    @pytest.mark.parametrize(
        "text",
        ['{"a": 1}', ' {"a": 1}\n', '```json\n{"a": 1}\n```', '```\n{"a": 1}\n```\n'],
        ids=["plain", "white space", "fenced as json", "fenced"],
    )
    def test_an_answer_that_fits_is_parsed(self, text):
        row = _row(an_output(text=text), check=self.CHECK)
        assert (row.status, row.answer, row.text) == (RowStatus.SUCCEEDED, {"a": 1}, text)

    @pytest.mark.parametrize(
        ("text", "code", "answer"),
        [
            ('{"a": "x"}', "SCHEMA", {"a": "x"}),
            ("[]", "SCHEMA", []),
            ("Sure! Here you are", "NOT_JSON", None),
            ('{"a": 1} and more', "NOT_JSON", None),
            ('{"a": NaN}', "NOT_JSON", None),
            ("   \n\n", "NOT_JSON", None),
            ("[" * 100_000, "NOT_JSON", None),
            ('{"a": "\\ud83d"}', "NOT_JSON", None),
        ],
        ids=[
            "wrong type",
            "another shape",
            "prose",
            "trailing prose",
            "NaN",
            "white space alone",
            "absurdly deep",
            "half a character",
        ],
    )
    def test_an_answer_that_does_not_fit_is_invalid_output(self, text, code, answer):
        row = _row(an_output(text=text), check=self.CHECK)
        assert (row.status, row.code, row.answer, row.repairable) == (RowStatus.INVALID_OUTPUT, code, answer, True)
        assert row.text == text

    @pytest.mark.parametrize(
        "text",
        ['{"answer": "cut', '```json\n{"a": 1,', '{"a": 1   \n\n\n', "[1, -", '{"a": tru', '"\\u00'],
        ids=["in a text", "in a fence", "at white space", "in a number", "in a word", "in an escape"],
    )
    def test_json_that_ends_too_early_is_truncated_whatever_the_model_says(self, text):
        """Seen in the field with STOP."""
        row = _row(an_output(text=text), check=self.CHECK)
        assert (row.status, row.code, row.repairable) == (RowStatus.TRUNCATED, "CUT_JSON", True)
        assert (row.finish_reason, row.text, row.answer) == ("STOP", text, None)

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text('aé"\\\n'),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
            max_leaves=8,
        ).filter(lambda doc: isinstance(doc, list | dict)),
        st.data(),
        st.booleans(),
    )
    def test_json_cut_anywhere_is_cut_and_never_prose(self, doc, data, escaped):
        text = json.dumps(doc, ensure_ascii=escaped)
        cut = data.draw(st.integers(1, len(text) - 1))
        assert _row(an_output(text=text[:cut]), check=lambda _: "").code == "CUT_JSON"
        assert _row(an_output(text=text), check=lambda _: "").status is RowStatus.SUCCEEDED
        assert _row(an_output(text=f"{text[:cut]} Sorry"), check=lambda _: "").code in {"NOT_JSON", "CUT_JSON"}

    @pytest.mark.parametrize("mark", ["```json\n", "```", "```json", "\n\n"])
    def test_a_million_line_breaks_cost_no_time(self, mark):
        row = _row(an_output(text=mark + "\n" * 1_000_000), check=self.CHECK)
        assert row.status is RowStatus.INVALID_OUTPUT

    def test_json_whose_fence_was_never_closed_is_whole(self):
        assert _row(an_output(text='```json\n{"a": 1}'), check=self.CHECK).answer == {"a": 1}

    def test_json_that_was_cut_by_the_token_limit_is_truncated_by_that(self):
        row = _row(an_output(response=a_response('{"a": ', finishReason="MAX_TOKENS")), check=self.CHECK)
        assert row.status is RowStatus.TRUNCATED

    @pytest.mark.parametrize(
        "request_doc",
        [
            JSON_REQUEST,
            {"generation_config": {"response_mime_type": "application/json"}},
            {"generationConfig": {"responseMimeType": "application/json", "topK": "odd"}, "labels": 5},
        ],
        ids=["camelCase", "snake_case", "beside odd members"],
    )
    def test_the_echo_says_that_json_was_asked_for(self, request_doc):
        assert _row(an_output(text='{"a": 1}', request=request_doc)).answer == {"a": 1}
        assert _row(an_output(text="prose", request=request_doc)).code == "NOT_JSON"

    @pytest.mark.parametrize(
        "request_doc",
        [
            a_request(),
            a_request(generationConfig={"responseMimeType": "text/plain"}),
            {"contents": [{"parts": [{"fileData": {"mimeType": "application/json"}}]}], "generationConfig": None},
            None,
            "no request",
        ],
        ids=["no config", "text asked for", "a JSON file to read", "null", "a text"],
    )
    def test_text_that_happens_to_be_json_stays_text(self, request_doc):
        row = _row(an_output(text='{"a": 1}', request=request_doc))
        assert (row.status, row.answer) == (RowStatus.SUCCEEDED, None)

    def test_the_reason_never_quotes_the_answer(self):
        assert "secret" not in _row(an_output(text='{"a": "secret"}'), check=self.CHECK).reason


class TestOddLines:
    @pytest.mark.parametrize(
        "raw",
        [
            b'{"response": {"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "avgLogprobs": NaN}]}}',
            b'{"response": {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}], "modelVersion": "\\ud83d"}}',
            b'{"response": {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}], "modelVersion": "\xff"}}',
            b'{"response": {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}], "unknown": "\xff"}}',
            b'{"response": {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}], "usageMetadata": "x"}, "new": 1}',
        ],
        ids=["NaN", "half a character", "not UTF-8", "not UTF-8 where nobody looks", "odd usage"],
    )
    def test_no_odd_member_breaks_a_row(self, raw):
        row = classify(read_output(raw, "gs://b/f", 1), "r1")
        assert (row.status, row.text) == (RowStatus.SUCCEEDED, "Hi")
        assert json.loads(row.response)["candidates"]

    def test_a_response_that_is_no_json_at_all_is_a_failed_row(self):
        """A BigQuery column may hold any text."""
        row = _row(an_output(response="Internal error {"))
        assert (row.status, row.code) == (RowStatus.FAILED, "NO_RESPONSE")

    @pytest.mark.parametrize(
        ("time", "kept"),
        [
            ("2024-11-01T18:13:16.826+00:00", True),
            ("2025-11-07T10:24:52.76+00:00", True),
            ("2025-11-07T10:24:52.764602+00:00", True),
            ("2025-11-07T10:24:52Z", True),
            ("2025-11-07 10:24:52.764602+00:00", True),
            ("soon", False),
            ("2024-13-01T18:13:16+00:00", False),
            ("2024-11-01T18:13:16", False),
            ("2024-11-01T18:13:16,5+00:00", False),
            ("2024-W44-5T18:13:16+00:00", False),
            ("2024-11-01T18:13:16+0000", False),
            ("20241101T181316.000000+00:00", False),
            ("", False),
            (None, False),
        ],
        ids=repr,
    )
    def test_a_time_that_is_none_is_left_out(self, time, kept):
        """A table with a TIMESTAMP column refuses the whole load for one odd text."""
        assert _row(an_output(processed_time=time)).processed_at == (time if kept else "")

    def test_no_usage_is_unknown_not_zero(self):
        response = a_response()
        del response["usageMetadata"]
        assert _row(an_output(response=response)).usage is None
