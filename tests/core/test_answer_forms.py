"""Is there an answer, and has it the form that was asked for? Whatever the model said is one; only silence is empty."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_vertex_batch.core.answers.classify import Form, asked_form, classify
from airflow_vertex_batch.core.domain.jsonl import encode, read_echo, read_output
from airflow_vertex_batch.core.domain.row import ResultRow, RowStatus
from airflow_vertex_batch.core.requests.answer_check import AnswerCheck
from tests.builders import a_request, a_response, an_output

CODE = {"executableCode": {"code": "print(6 * 7)", "language": "PYTHON"}}
RESULT = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "42\n"}}
CALL = {"functionCall": {"name": "look_up", "args": {"id": 7}}}
PNG = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
STORED_PNG = {"fileData": {"mimeType": "image/png", "fileUri": "gs://b/a.png"}}
WAV = {"inlineData": {"mimeType": "audio/L16;codec=pcm;rate=24000", "data": "AAAA"}}
UNKNOWN = {"hologram": {"data": "AAAA"}}


def _row(*parts: Any, config: dict[str, Any] | None = None, **options: Any) -> ResultRow:
    request = a_request(generationConfig=config) if config else a_request()
    doc = an_output(response=a_response(content={"role": "model", "parts": list(parts)}), request=request)
    return classify(read_output(encode(doc), "gs://b/f", 1), "r1", **options)


class TestWhatIsSaid:
    @pytest.mark.parametrize(
        "part",
        [
            CODE,
            RESULT,
            CALL,
            PNG,
            STORED_PNG,
            WAV,
            UNKNOWN,
            {"functionResponse": {"name": "look_up", "response": {"a": 1}}},
            {"toolCall": {"toolType": "GOOGLE_SEARCH"}},
            {"toolResponse": {"toolType": "GOOGLE_SEARCH"}},
            {"audioTranscription": {"text": "Hi"}},
            {"executableCode": {}},
            {"number": 7},
        ],
        ids=lambda part: next(iter(part)),
    )
    @pytest.mark.parametrize("padding", [{}, {"text": None, "thought": None, "list": []}], ids=["bare", "padded"])
    def test_in_any_part_is_an_answer_that_is_not_bought_again(self, part, padding):
        row = _row(padding | part)
        assert (row.status, row.code, row.repairable) == (RowStatus.SUCCEEDED, "", False)
        assert (row.text, row.answer) == (None, None)
        assert next(iter(part)).encode() in row.response, "all of it is kept"

    def test_in_text_among_other_parts_is_the_text(self):
        row = _row({"text": "I compute. "}, CODE, RESULT, {"text": "It is 42.", "thoughtSignature": "eA=="})
        assert (row.status, row.text) == (RowStatus.SUCCEEDED, "I compute. It is 42.")

    @pytest.mark.parametrize("odd", ["?", "false", [], None, {"a": 1}], ids=str)
    def test_beside_an_odd_thought_is_no_thought(self, odd):
        assert _row({"text": "Hi", "thought": odd}).text == "Hi"

    @pytest.mark.parametrize(
        "parts",
        [
            [{"text": "hm", "thought": True}],
            [{"text": "hm", "thought": "true"}],
            [{**PNG, "thought": True}],
            [{**CODE, "thought": True}, {"text": ""}],
            [{"thoughtSignature": "eA=="}],
            [{"text": "", "thoughtSignature": "eA==", "videoMetadata": {"fps": 1}}],
            [{"text": None, "inlineData": None, "functionCall": None, "thought": False, "list": []}],
            [{}],
            ["no object", None],
            [],
        ],
        ids=[
            "a thought",
            "a thought in words",
            "an image thought up",
            "code thought up",
            "a signature",
            "an empty text with descriptions",
            "padding",
            "no member",
            "no parts at all",
            "nothing",
        ],
    )
    def test_nothing_is_empty_and_asked_again(self, parts):
        row = _row(*parts)
        assert (row.status, row.code, row.text, row.repairable) == (RowStatus.FAILED, "EMPTY_ANSWER", None, True)


AS_JSON = [
    {"responseMimeType": "application/json"},
    {"response_mime_type": "application/json"},
    {"responseFormat": [{"text": {"mimeType": "APPLICATION_JSON", "schema": {"type": "object"}}}]},
    {"responseFormat": [{"image": {"imageSize": "IMAGE_SIZE_ONE_K"}}, {"text": {"mimeType": "APPLICATION_JSON"}}]},
    {"responseFormat": [{"image": None, "text": {"mimeType": "APPLICATION_JSON"}}], "responseModalities": []},
    {"responseFormat": {"text": {"mimeType": "application/json"}}},
    {"response_format": [{"text": {"mime_type": "APPLICATION_JSON"}}]},
]
AS_TEXT = [
    {"responseFormat": [{"text": {"mimeType": "TEXT_PLAIN"}}]},
    {"responseFormat": [{"text": {"schema": {"type": "object"}}}]},
    {"responseFormat": [{"text": None}, None, 7]},
    {"responseFormat": "APPLICATION_JSON"},
    {"responseModalities": "IMAGE"},
    {"responseModalities": ["TEXT"]},
    {"responseModalities": ["TEXT", "IMAGE"]},
    {"responseModalities": ["MODALITY_UNSPECIFIED"]},
    {"responseModalities": []},
]


class TestTheFormAskedFor:
    @pytest.mark.parametrize("config", AS_JSON, ids=str)
    @pytest.mark.parametrize("member", ["generationConfig", "generation_config"])
    def test_is_json_in_each_spelling(self, config, member):
        assert asked_form(read_echo(encode({member: config}))) == Form(json=True)
        doc = an_output(text='{"a": 1}', request=a_request(**{member: config}))
        assert classify(read_output(encode(doc), "gs://b/f", 1), "r1").answer == {"a": 1}

    @pytest.mark.parametrize("config", AS_TEXT, ids=str)
    def test_is_text_where_neither_json_nor_a_medium_alone_is_named(self, config):
        assert asked_form(read_echo(encode({"generationConfig": config}))) == Form()
        assert _row({"text": "prose"}, config=config).status is RowStatus.SUCCEEDED

    @pytest.mark.parametrize("config", AS_JSON, ids=str)
    def test_in_json_is_checked(self, config):
        row = _row({"text": "prose"}, config=config)
        assert (row.status, row.code, row.repairable) == (RowStatus.INVALID_OUTPUT, "NOT_JSON", True)

    def test_in_json_fits_the_schema(self):
        check = AnswerCheck({"type": "object", "required": ["a"]})
        assert _row({"text": "{}"}, config=AS_JSON[2], check=check).code == "SCHEMA"

    @pytest.mark.parametrize("parts", [[CODE, RESULT], [PNG], [UNKNOWN]], ids=["code", "an image", "unknown"])
    def test_in_json_is_not_met_by_other_parts(self, parts):
        row = _row(*parts, config=AS_JSON[0])
        assert (row.status, row.code, row.text) == (RowStatus.INVALID_OUTPUT, "NOT_JSON", None)

    def test_in_json_may_be_a_function_call_instead(self):
        row = _row(CALL, config=AS_JSON[0], check=lambda _: "no")
        assert (row.status, row.text, row.answer) == (RowStatus.SUCCEEDED, None, None)


class TestAMediumAlone:
    @pytest.mark.parametrize(
        ("modalities", "parts"),
        [
            (["IMAGE"], [PNG]),
            (["IMAGE"], [{"text": "Here it is:"}, STORED_PNG]),
            (["IMAGE"], [{"inlineData": {"data": "AAAA"}}]),
            (["IMAGE"], [UNKNOWN]),
            (["image"], [PNG]),
            (["AUDIO"], [WAV]),
            (["IMAGE", "AUDIO"], [WAV]),
            (["VIDEO"], [{"fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/a.mp4"}}]),
        ],
        ids=str,
    )
    def test_in_the_answer_is_good(self, modalities, parts):
        assert _row(*parts, config={"responseModalities": modalities}).status is RowStatus.SUCCEEDED

    @pytest.mark.parametrize(
        ("modalities", "parts", "code", "asked"),
        [
            (["IMAGE"], [{"text": "I drew it."}], "NO_IMAGE", "an image"),
            (["IMAGE"], [CODE, RESULT], "NO_IMAGE", "an image"),
            (["IMAGE"], [{**PNG, "thought": True}, {"text": "Done."}], "NO_IMAGE", "an image"),
            (["IMAGE"], [WAV], "NO_IMAGE", "an image"),
            (["IMAGE"], [{"text": "I drew it.", "inlineData": None, "mediaResolution": {}}], "NO_IMAGE", "an image"),
            (["AUDIO"], [{"text": "I said it."}], "NO_AUDIO", "audio"),
            (["AUDIO", "IMAGE"], [{"text": "Neither."}], "NO_AUDIO", "audio or an image"),
        ],
        ids=str,
    )
    def test_that_is_not_in_the_answer_is_invalid(self, modalities, parts, code, asked):
        row = _row(*parts, config={"responseModalities": modalities})
        assert (row.status, row.code, row.repairable) == (RowStatus.INVALID_OUTPUT, code, True)
        assert row.reason == f"The request asked for {asked}, and the answer has none"

    def test_and_thoughts_alone_are_empty(self):
        assert _row({"text": "hm", "thought": True}, config={"responseModalities": ["IMAGE"]}).code == "EMPTY_ANSWER"
