"""One response schema: in the service's spelling on the way out, as a check on the way back."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.requests.answer_check import AnswerCheck
from airflow_vertex_batch.core.requests.schema import json_schema, response_schema


class Mood(Enum):
    GLAD = "glad"
    SAD = "sad"


class Item(BaseModel):
    name: str
    price: float | None = None


class Ticket(BaseModel):
    """A class as a user writes it."""

    mood: Mood
    language: Literal["de", "it"]
    items: list[Item] = Field(min_length=1)
    note: str | None = None


TICKET_API = {
    "type": "OBJECT",
    "properties": {
        "mood": {"type": "STRING", "enum": ["glad", "sad"]},
        "language": {"type": "STRING", "enum": ["de", "it"]},
        "items": {
            "type": "ARRAY",
            "minItems": 1,
            "items": {
                "type": "OBJECT",
                "properties": {"name": {"type": "STRING"}, "price": {"type": "NUMBER", "nullable": True}},
                "required": ["name"],
                "propertyOrdering": ["name", "price"],
            },
        },
        "note": {"type": "STRING", "nullable": True},
    },
    "required": ["mood", "language", "items"],
    "propertyOrdering": ["mood", "language", "items", "note"],
}


class TestResponseSchema:
    def test_a_pydantic_class_is_inlined_into_the_api_s_spelling(self):
        made = response_schema(json_schema(Ticket))
        assert made.pop("description") == "A class as a user writes it."
        assert made == TICKET_API

    def test_the_reasoning_comes_before_the_answer_where_the_class_has_it_so(self):
        class Judged(BaseModel):
            reasoning: str
            answer: str

        assert response_schema(json_schema(Judged))["propertyOrdering"] == ["reasoning", "answer"]

    def test_a_class_that_takes_anything_is_refused_where_it_does(self):
        class Loose(BaseModel):
            answer: Any

        with pytest.raises(InputError, match=r"response_schema\.answer has no type"):
            response_schema(json_schema(Loose))

    @pytest.mark.parametrize(
        ("schema", "api"),
        [
            ({"type": "string"}, {"type": "STRING"}),
            ({"type": ["string", "null"]}, {"type": "STRING", "nullable": True}),
            ({"type": "STRING", "nullable": True}, {"type": "STRING", "nullable": True}),
            ({"enum": ["a", None]}, {"type": "STRING", "enum": ["a"], "nullable": True}),
            ({"const": "a"}, {"type": "STRING", "enum": ["a"]}),
            (
                {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]},
            ),
            ({"oneOf": [{"type": "string"}, {"type": "null"}]}, {"type": "STRING", "nullable": True}),
            ({"allOf": [{"type": "string"}]}, {"type": "STRING"}),
            (
                {"type": "array", "items": {"type": "number"}, "maxItems": 3},
                {"type": "ARRAY", "items": {"type": "NUMBER"}, "maxItems": 3},
            ),
            (
                {"$schema": "x", "title": "T", "type": "string", "default": "x", "description": "d"},
                {"type": "STRING", "description": "d"},
            ),
            (
                {
                    "type": "object",
                    "properties": {
                        "type": {"type": "string"},
                        "nullable": {"type": "boolean"},
                        "items": {"type": "string"},
                    },
                },
                {
                    "type": "OBJECT",
                    "properties": {
                        "type": {"type": "STRING"},
                        "nullable": {"type": "BOOLEAN"},
                        "items": {"type": "STRING"},
                    },
                    "propertyOrdering": ["type", "nullable", "items"],
                },
            ),
            (
                {
                    "type": "object",
                    "properties": {"b": {"type": "string"}, "a": {"type": "string"}},
                    "propertyOrdering": ["a", "b"],
                },
                {
                    "type": "OBJECT",
                    "properties": {"b": {"type": "STRING"}, "a": {"type": "STRING"}},
                    "propertyOrdering": ["a", "b"],
                },
            ),
            (
                {"properties": {"a": {"items": {"pattern": "x"}}}},
                {"type": "OBJECT", "properties": {"a": {"type": "ARRAY", "items": {"type": "STRING", "pattern": "x"}}}},
            ),
            (
                {"$ref": "#/definitions/a", "description": "d", "definitions": {"a": {"type": "string"}}},
                {"type": "STRING", "description": "d"},
            ),
        ],
        ids=[
            "plain",
            "type or null",
            "the API's own",
            "enum or null",
            "const",
            "union",
            "union with null",
            "allOf of one",
            "array",
            "what only describes",
            "properties named like members",
            "an order of the author's",
            "types that follow from members",
            "definitions",
        ],
    )
    def test_it_says_the_same_in_the_api_s_words(self, schema, api):
        assert response_schema(json_schema(schema)) == api

    @pytest.mark.parametrize(
        ("schema", "message"),
        [
            ({"type": "object"}, "response_schema is an object without properties"),
            (
                {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}}}},
                r"response_schema\.a is an object without",
            ),
            ({"type": ["string", "integer"]}, "type has 2 types.*anyOf"),
            ({"type": "null"}, "type has 0 types"),
            ({"$ref": "#/$defs/a"}, "refers to '#/\\$defs/a', which is not defined"),
            ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "refers to itself"),
            (
                {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"b": {"$ref": "#/$defs/a"}}}}},
                "refers to itself",
            ),
            ({"allOf": [{"type": "string"}, {"type": "string"}]}, "allOf cannot be said.*Merge"),
            ({"type": "integer", "exclusiveMinimum": 0}, "exclusiveMinimum cannot be said.*check it afterwards"),
            ({"type": "integer", "enum": [1, 2]}, "values that are no texts"),
            ({"type": "array", "items": "string"}, r"response_schema\.items is not an object"),
            ({}, r"response_schema has no type"),
            ({"type": 5}, r"response_schema\.type is a int.*Write a str or list there"),
            ({"type": [5, 6]}, "type has 2 types"),
            ({"type": None}, "response_schema has no type"),
            ({"type": "object", "properties": []}, r"response_schema\.properties is a list.*Write a dict there"),
            ({"type": "object", "properties": None}, "is an object without properties"),
            ({"anyOf": "string"}, r"response_schema\.anyOf is a str.*Write a list or tuple there"),
            ({"anyOf": ["string", "null"]}, r"response_schema\.anyOf\[0\] is not an object"),
            ({"type": "string", "enum": "a"}, r"response_schema\.enum is a str"),
            ({"type": "object", "properties": {"a": {"type": "string"}}, "required": "a"}, "required is a str"),
            ({"$ref": "#/$defs/a", "$defs": {"a": 5}}, r"\$defs\.a is not an object"),
            ({"type": "string", "$defs": []}, r"response_schema\.\$defs is a list"),
            ({"$ref": "#/$defs/b"}, r"Define it under \$defs of this schema"),
            ({"type": "array", "items": {}}, r"response_schema\.items has no type.*Give it a type"),
            ({"type": "object", "properties": {"a": {"description": "anything"}}}, r"response_schema\.a has no type"),
        ],
        ids=lambda value: "" if isinstance(value, str) else "|".join(value),
    )
    def test_what_cannot_be_said_is_refused_by_name(self, schema, message):
        with pytest.raises(InputError, match=message):
            response_schema(json_schema(schema))

    @pytest.mark.parametrize("schema", [None, "text", 5, [{}], int], ids=repr)
    def test_what_is_no_schema_is_refused(self, schema):
        with pytest.raises(InputError, match="Give a JSON Schema as a dict, or a Pydantic model class"):
            json_schema(schema)


class TestAnswerChecker:
    @pytest.mark.parametrize("schema", [Ticket, TICKET_API], ids=["pydantic", "api"])
    @pytest.mark.parametrize(
        ("answer", "problem"),
        [
            ({"mood": "glad", "language": "de", "items": [{"name": "x"}]}, ""),
            ({"mood": "glad", "language": "de", "items": [{"name": "x", "price": None}], "note": None}, ""),
            (
                {"mood": "angry", "language": "de", "items": [{"name": "x"}]},
                "$.mood breaks 'enum' of the response schema",
            ),
            ({"mood": "glad", "language": "de", "items": []}, "$.items breaks 'minItems' of the response schema"),
            ({"mood": "glad", "language": "de", "items": [{}]}, "$.items[0] breaks 'required' of the response schema"),
            ([], "$ breaks 'type' of the response schema"),
        ],
        ids=["fits", "nulls fit", "enum", "too few", "missing", "another type"],
    )
    def test_a_problem_names_place_and_rule_never_the_value(self, schema, answer, problem):
        assert AnswerCheck(json_schema(schema))(answer) == problem

    def test_the_api_s_counts_may_be_texts(self):
        check = AnswerCheck(json_schema({"type": "ARRAY", "minItems": "2", "items": {"type": "STRING"}}))
        assert check(["a"]) == "$ breaks 'minItems' of the response schema"
        assert check(["a", "b"]) == ""

    def test_a_nullable_enum_takes_null(self):
        check = AnswerCheck(json_schema({"type": "STRING", "nullable": True, "enum": ["a"]}))
        assert (check(None), check("a")) == ("", "")
