"""Who answers: always the same answer, JSON that fits its schema, tokens by the stated rule."""

from __future__ import annotations

import json

import jsonschema
import pytest

from airflow_vertex_batch.emulator.models import DeterministicModel, prompt_tokens, text_tokens
from airflow_vertex_batch.emulator.named_model import load_model
from airflow_vertex_batch.emulator.schemas import json_schema
from tests.emulator.worlds import a_request

MODEL = DeterministicModel()


def text_of(request):
    return MODEL.answer(request).candidates[0].parts[0]["text"]


def asking_for(schema, member="responseSchema", text="The parcel is late and nobody answers."):
    return a_request(text, generationConfig={"responseMimeType": "application/json", member: schema})


TICKET = {
    "type": "OBJECT",
    "required": ["mood", "urgency", "summary", "tags"],
    "properties": {
        "mood": {"type": "STRING", "enum": ["calm", "angry", "late"]},
        "urgency": {"type": "INTEGER", "minimum": 1, "maximum": 5},
        "summary": {"type": "STRING", "maxLength": 40},
        "tags": {"type": "ARRAY", "minItems": "1", "maxItems": "3", "items": {"type": "STRING"}},
        "refund": {"type": "NUMBER", "nullable": True, "minimum": 0},
        "solved": {"type": "BOOLEAN"},
        "contact": {
            "anyOf": [
                {"type": "STRING", "format": "email"},
                {"type": "OBJECT", "properties": {"phone": {"type": "STRING"}}},
            ]
        },
    },
}


class TestTheSameRequest:
    def test_gets_the_same_answer_whatever_the_order_of_its_members(self):
        one = {"contents": [{"role": "user", "parts": [{"text": "a"}]}], "generationConfig": {"topP": 1, "seed": 3}}
        other = {"generationConfig": {"seed": 3, "topP": 1}, "contents": [{"parts": [{"text": "a"}], "role": "user"}]}
        assert MODEL.answer(one) == MODEL.answer(other)

    def test_gets_another_answer_when_it_differs(self):
        assert text_of(a_request("one")) != text_of(a_request("two"))


class TestASchemaIsHonoured:
    @pytest.mark.parametrize(
        "text", ["", "late", "a b c", "日本語", "x " * 500], ids=["empty", "word", "words", "kana", "long"]
    )
    def test_in_the_dialect_of_gemini(self, text):
        answer = json.loads(text_of(asking_for(TICKET, text=text or " ")))
        jsonschema.validate(answer, json_schema(TICKET))
        assert isinstance(answer["urgency"], int)

    def test_with_the_enum_value_that_the_prompt_names(self):
        assert json.loads(text_of(asking_for(TICKET)))["mood"] == "late"

    @pytest.mark.parametrize(
        "schema",
        [
            pytest.param(
                {"type": "array", "items": {"type": "integer", "exclusiveMinimum": 3, "multipleOf": 5}}, id="numbers"
            ),
            pytest.param({"type": "array", "minItems": 4, "maxItems": 4, "items": {"const": "x"}}, id="four of a kind"),
            pytest.param(
                {"type": "array", "minItems": 3, "uniqueItems": True, "items": {"enum": ["a", "b", "c", "d"]}},
                id="unique",
            ),
            pytest.param({"type": ["string", "null"], "minLength": 300}, id="a long text"),
            pytest.param({"type": "string", "maxLength": 2}, id="a short text"),
            pytest.param({"type": "string", "format": "date-time"}, id="a time"),
            pytest.param({"type": "number", "minimum": -2.5, "maximum": -1.5}, id="below zero"),
            pytest.param({"oneOf": [{"type": "null"}, {"type": "boolean"}]}, id="one of"),
            pytest.param(
                {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2}, id="tuple"
            ),
            pytest.param(
                {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"required": ["a"]}]},
                id="all of",
            ),
            pytest.param(
                {"type": "object", "minProperties": 2, "additionalProperties": {"type": "integer"}}, id="a map"
            ),
            pytest.param(
                {
                    "$defs": {
                        "Node": {
                            "type": "object",
                            "required": ["name", "children"],
                            "properties": {
                                "name": {"type": "string"},
                                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                            },
                        }
                    },
                    "$ref": "#/$defs/Node",
                },
                id="recursive",
            ),
        ],
    )
    def test_in_json_schema(self, schema):
        for text in ("one", "two words", "three more words"):
            answer = json.loads(text_of(asking_for(schema, "responseJsonSchema", text)))
            jsonschema.validate(answer, schema)

    def test_as_a_bare_enum(self):
        config = {"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["red", "blue"]}}
        assert text_of(a_request("Is the sky blue ?", generationConfig=config)) == "blue"

    def test_as_json_when_no_schema_says_more(self):
        assert json.loads(text_of(a_request(generationConfig={"responseMimeType": "application/json"})))

    def test_named_by_response_format(self):
        asked = [{"text": {"mimeType": "APPLICATION_JSON", "schema": {"type": "array", "items": {"type": "integer"}}}}]
        answer = json.loads(text_of(a_request("Count.", generationConfig={"responseFormat": asked})))
        assert all(isinstance(number, int) for number in answer)
        asked = [{"text": {"mimeType": "APPLICATION_JSON"}}]
        assert json.loads(text_of(a_request("Count.", generationConfig={"responseFormat": asked})))["answer"]

    def test_in_a_function_call_that_is_demanded(self):
        parameters = {"type": "OBJECT", "required": ["id"], "properties": {"id": {"type": "INTEGER"}}}
        request = a_request(
            tools=[{"functionDeclarations": [{"name": "look"}, {"name": "refund", "parameters": parameters}]}],
            toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["refund"]}},
        )
        call = MODEL.answer(request).candidates[0].parts[0]["functionCall"]
        assert call["name"] == "refund"
        jsonschema.validate(call["args"], json_schema(parameters))


class TestTokens:
    @pytest.mark.parametrize(("text", "count"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("日本", 2)])
    def test_of_a_text_are_one_per_four_bytes(self, text, count):
        assert text_tokens(text) == count

    @pytest.mark.parametrize(
        ("part", "expected"),
        [
            pytest.param(
                {"fileData": {"fileUri": "gs://b/a.png", "mimeType": "image/png"}}, {"IMAGE": 258}, id="image"
            ),
            pytest.param(
                {"inlineData": {"data": "AA", "mimeType": "audio/mp3"}}, {"AUDIO": 32 * 60}, id="a minute of audio"
            ),
            pytest.param({"fileData": {"fileUri": "u", "mimeType": "application/pdf"}}, {"DOCUMENT": 258}, id="a page"),
            pytest.param(
                {
                    "fileData": {"fileUri": "u", "mimeType": "video/mp4"},
                    "videoMetadata": {"startOffset": "5s", "endOffset": "15s"},
                },
                {"VIDEO": 2630},
                id="ten seconds of video",
            ),
        ],
    )
    def test_of_media_follow_the_published_rule(self, part, expected):
        assert prompt_tokens({"contents": [{"parts": [part]}]}) == {"TEXT": 0, **expected}

    def test_of_the_instruction_the_tools_and_the_schema_count_too(self):
        plain = prompt_tokens(a_request())["TEXT"]
        full = a_request(
            systemInstruction={"parts": [{"text": "abcd"}]},
            tools=[{"functionDeclarations": [{"name": "f"}]}],
            generationConfig={"responseSchema": {"type": "STRING"}},
        )
        assert prompt_tokens(full)["TEXT"] > plain + 2

    def test_are_cut_at_the_limit(self):
        answer = MODEL.answer(a_request("word " * 50, generationConfig={"maxOutputTokens": 3}))
        assert (answer.candidates[0].finish_reason, answer.candidates[0].token_count) == ("MAX_TOKENS", 3)

    @pytest.mark.parametrize(
        ("thinking", "count"),
        [
            ({}, 0),
            ({"thinkingBudget": 0}, 0),
            ({"thinkingBudget": 5}, 5),
            ({"thinkingBudget": -1}, 16),
            ({"thinkingLevel": "LOW"}, 16),
        ],
    )
    def test_of_thinking_follow_its_budget(self, thinking, count):
        assert MODEL.answer(a_request(generationConfig={"thinkingConfig": thinking})).thinking_tokens == count


class TestTheConfiguration:
    def test_gives_as_many_candidates_as_asked_for(self):
        assert len(MODEL.answer(asking_for(TICKET)).candidates) == 1
        request = asking_for(TICKET)
        request["generationConfig"]["candidateCount"] = 3
        assert len(MODEL.answer(request).candidates) == 3

    def test_stops_at_a_stop_sequence(self):
        assert text_of(a_request("one two three", generationConfig={"stopSequences": [" two"]})) == "In short: one"

    def test_puts_the_thoughts_first_when_they_are_wanted(self):
        parts = (
            MODEL.answer(a_request(generationConfig={"thinkingConfig": {"includeThoughts": True}})).candidates[0].parts
        )
        assert [part.get("thought") for part in parts] == [True, None]


class TestAnImageOrASound:
    @pytest.mark.parametrize(
        ("modalities", "kinds", "tokens"),
        [
            (["IMAGE"], ["image/png"], {"IMAGE": 1290}),
            (["AUDIO"], ["audio/L16;codec=pcm;rate=24000"], {"AUDIO": 25}),
            (["TEXT", "IMAGE"], ["text", "image/png"], {"IMAGE": 1290}),
            (["TEXT"], ["text"], {}),
        ],
        ids=str,
    )
    def test_is_answered_where_the_request_asks_for_it(self, modalities, kinds, tokens):
        (said,) = MODEL.answer(a_request("Draw.", generationConfig={"responseModalities": modalities})).candidates
        assert [part["inlineData"]["mimeType"] if "inlineData" in part else "text" for part in said.parts] == kinds
        texts = sum(text_tokens(part.get("text", "")) for part in said.parts)
        assert (said.media_tokens, said.token_count) == (tokens, sum(tokens.values()) + texts)


def test_an_unknown_model_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"There is no model 'gpt'. Use deterministic, smollm2"):
        load_model("gpt")
