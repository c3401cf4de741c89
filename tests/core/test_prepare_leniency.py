"""What an author may let pass: rules of lint by their names, and columns without a value."""

from __future__ import annotations

import json

import pytest

from airflow_vertex_batch.__main__ import main
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.requests.request import RequestTemplate
from airflow_vertex_batch.core.requests.values import OnNull
from tests.builders import a_request
from tests.fakes import MemoryStore

from .preparing import DEAD_LETTER, prepared, read_jsonl, ready_made, requests_of

EMPTY_OBJECT = {"type": "OBJECT", "properties": {"a": {"type": "OBJECT"}}}
CONFIG = {"responseMimeType": "application/json", "responseSchema": EMPTY_OBJECT}
LINE = {"key": "r1", "request": a_request("x", generationConfig=CONFIG)}
IGNORE = frozenset({"schema-empty-object"})


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class TestIgnoredRules:
    def test_a_ready_made_request_passes_a_rule_that_is_ignored(self, store):
        assert ready_made([LINE], store, on_rejected_row=DEAD_LETTER).rejected_count == 1
        assert ready_made([LINE], store, lint_ignore=IGNORE).request_count == 1

    def test_so_does_a_template(self, store):
        template = RequestTemplate(prompt="{{ a }}", extra={"generationConfig": CONFIG})
        with pytest.raises(InputError, match="schema-empty-object"):
            prepared([{"a": "x"}], store, template=template)
        assert prepared([{"a": "x"}], store, template=template, lint_ignore=IGNORE).request_count == 1

    def test_and_a_file_of_the_command_line(self, tmp_path, capsys):
        path = tmp_path / "requests.jsonl"
        path.write_text(json.dumps(LINE) + "\n")
        assert main(["lint", str(path)]) == 1
        assert main(["lint", str(path), "--ignore", "schema-empty-object"]) == 0
        assert "schema-empty-object" not in capsys.readouterr().out.splitlines()[-1]

    def test_a_rule_that_does_not_exist_is_refused_with_those_that_do(self, tmp_path, capsys):
        assert main(["lint", str(tmp_path / "x.jsonl"), "--ignore", "schema-empty"]) == 2
        assert "--ignore names no rule 'schema-empty'" in capsys.readouterr().err


class TestColumnsWithoutAValue:
    ROWS = ({"id": "r1", "a": None}, {"id": "r2", "a": "x"})

    def test_their_rows_are_rejected_by_the_name_of_the_column(self, store):
        template = RequestTemplate(prompt="Say {{ a }}")
        manifest = prepared(self.ROWS, store, template=template, key_column="id", on_rejected_row=DEAD_LETTER)
        (rejected,) = read_jsonl(store, manifest.rejected_uri)
        assert manifest.request_count == 1
        assert "column 'a' is without a value" in rejected["reason"]

    def test_or_sent_with_an_empty_text(self, store):
        template = RequestTemplate(prompt="Say {{ a }}", on_null=OnNull.EMPTY)
        manifest = prepared(self.ROWS, store, template=template, key_column="id")
        texts = [line["request"]["contents"][0]["parts"][0]["text"] for line in requests_of(store, manifest)]
        assert texts == ["Say ", "Say x"]
