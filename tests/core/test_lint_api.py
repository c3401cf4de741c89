"""The tables of the API's members are those of the discovery document they were read from."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest

from airflow_vertex_batch.core.requests.lint.api import messages
from tests.each_case import compare_each


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    """The messages of the discovery document that ships with google-api-python-client."""
    documents = resources.files("googleapiclient.discovery_cache.documents")
    return json.loads((documents / "aiplatform.v1.json").read_text())["schemas"]  # type: ignore[no-any-return]


class TestApiTables:
    """The tables of members against the discovery document they were read from."""

    def test_a_message_has_the_members_and_types_of_the_document(self, schemas: dict[str, Any]) -> None:
        def documented(message: str) -> dict[str, str]:
            members = _schema_of(message, schemas).get("properties", {})
            return {name: _notation(member) for name, member in members.items()}

        compare_each({name: (name, members) for name, members in messages().items()}, documented)

    def test_every_message_below_the_request_is_there(self, schemas: dict[str, Any]) -> None:
        pending, reached = ["GenerateContentRequest"], set()
        while pending:
            message = pending.pop()
            if message not in reached:
                reached.add(message)
                for member in _schema_of(message, schemas).get("properties", {}).values():
                    pending.extend(_references(member))
        assert reached == messages().keys()


_PREFIX = "GoogleCloudAiplatformV1"


def _schema_of(message: str, schemas: dict[str, Any]) -> dict[str, Any]:
    return schemas.get(_PREFIX + message) or schemas[message]  # type: ignore[no-any-return]


def _references(member: dict[str, Any]) -> list[str]:
    if "$ref" in member:
        return [member["$ref"].removeprefix(_PREFIX)]
    inner = [member[name] for name in ("items", "additionalProperties") if isinstance(member.get(name), dict)]
    return [name for item in inner for name in _references(item)]


def _notation(member: dict[str, Any]) -> str:
    """Write a member of the document as lint_api writes it."""
    if "$ref" in member:
        return str(member["$ref"]).removeprefix(_PREFIX)
    if member["type"] == "array":
        return f"[{_notation(member['items'])}]"
    if member["type"] == "object":
        return f"{{{_notation(member['additionalProperties'])}}}"
    if "enum" in member:
        return f"<{'|'.join(member['enum'])}>"
    scalar = member.get("format") if member.get("format") in {"int32", "int64", "byte"} else member["type"]
    return {"boolean": "bool", "byte": "bytes"}.get(scalar, scalar)
