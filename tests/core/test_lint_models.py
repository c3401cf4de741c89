"""Rules that know the model: what some models refuse and others take; the emulator's reading of the same sources is
compared in `tests/fuzz`.
"""

from __future__ import annotations

import json
import logging
import re

import pytest

from airflow_vertex_batch.__main__ import main
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.requests.lint import Finding, lint_files
from airflow_vertex_batch.core.requests.lint.models import _FACTS, facts_of
from airflow_vertex_batch.core.requests.prepare import check_template
from airflow_vertex_batch.core.requests.request import RequestTemplate
from tests.each_case import compare_each
from tests.fakes import MemoryStore

from .lint_corpus_lines import config
from .preparing import DEAD_LETTER, prepared, ready_made

REFUSES, MAY_REFUSE = "model-refuses", "model-may-refuse"


def budget(value):
    return {"thinkingConfig": {"thinkingBudget": value}}


def level(value):
    return {"thinkingConfig": {"thinkingLevel": value}}


#: Model, settings, and the rule that they break; each fact is met at least once.
CASES = [
    ("gemini-4-argon", budget(0), REFUSES),
    ("gemini-4-neon", budget(-1), REFUSES),
    ("gemini-4-argon", level("MINIMAL"), REFUSES),
    ("gemini-4-argon", level("minimal"), REFUSES),
    ("gemini-4-argon", level("LOW"), ""),
    ("gemini-4-neon", level("XHIGH"), ""),
    ("gemini-4-argon", level("XHIGH"), MAY_REFUSE),
    ("gemini-3.8-flash", level("XHIGH"), MAY_REFUSE),
    ("gemini-4-argon", {"candidateCount": 2}, REFUSES),
    ("gemini-4-argon", {"candidateCount": 1}, ""),
    ("gemini-4-argon", {"presencePenalty": 0.5}, REFUSES),
    ("gemini-4-argon", {"frequencyPenalty": -1}, REFUSES),
    ("gemini-4-argon", {"frequencyPenalty": 0}, ""),
    ("gemini-4-argon", {"temperature": 1}, MAY_REFUSE),
    ("gemini-4-argon", {"topP": 1}, MAY_REFUSE),
    ("gemini-4-argon", {"topK": 40}, MAY_REFUSE),
    ("gemini-3.1-pro-preview", level("MINIMAL"), REFUSES),
    ("gemini-3-pro-preview", level("MINIMAL"), REFUSES),
    ("gemini-3.7-flash", level("MINIMAL"), REFUSES),
    ("gemini-3.8-flash", level("MINIMAL"), ""),
    ("gemini-3.8-flash", budget(1024), ""),
    ("gemini-3.8-flash", {"candidateCount": 2}, MAY_REFUSE),
    ("gemini-3.8-flash", {"presencePenalty": 0.1}, REFUSES),
    ("gemini-3.8-flash", {"frequencyPenalty": 0.1}, REFUSES),
    ("gemini-3.5-flash-lite", budget(0), MAY_REFUSE),
    ("gemini-3.5-flash-lite", budget(512), ""),
    ("gemini-3.5-flash", {"responseLogprobs": True}, REFUSES),
    ("gemini-2.5-flash", {"responseLogprobs": True}, ""),
    ("gemini-2.5-flash", level("LOW"), REFUSES),
    ("gemini-2.5-flash", budget(0), ""),
    ("gemini-2.5-flash", budget(24_576), ""),
    ("gemini-2.5-flash", budget(24_577), REFUSES),
    ("gemini-2.5-flash-lite", budget(0), ""),
    ("gemini-2.5-flash-lite", budget(511), REFUSES),
    ("gemini-2.5-flash-lite", budget("512"), ""),
    ("gemini-2.5-pro", budget(0), REFUSES),
    ("gemini-2.5-pro", budget(-1), ""),
    ("gemini-2.5-pro", budget(32_768), ""),
    ("gemini-2.5-pro", budget("32769"), REFUSES),
    ("gemini-2.5-flash", {"candidateCount": 2}, ""),
    ("gemini-2.5-flash", {"presencePenalty": 0.1}, MAY_REFUSE),
    ("gemini-2.5-flash", {"frequencyPenalty": 0.1}, MAY_REFUSE),
    # Null is nothing, and of these models nothing is known.
    ("gemini-4-argon", {"thinkingConfig": {"thinkingBudget": None, "thinkingLevel": "LOW"}}, ""),
    ("", budget(0), ""),
    ("gemini-9-flash", budget(0), ""),
    ("projects/p/locations/us-central1/models/gemini-4-argon", budget(0), ""),
    ("publishers/anthropic/models/gemini-4-argon", budget(0), ""),
    # Every way of naming one of Google's.
    ("publishers/google/models/gemini-4-argon", budget(0), REFUSES),
    ("google/gemini-4-argon", budget(0), REFUSES),
    ("gemini-2.5-pro-001", budget(0), REFUSES),
    ("gemini-2.5-pro@default", budget(0), REFUSES),
]


def _found(model: str, settings: dict) -> list[Finding]:
    return [
        found for found in lint_files([("a", [config(**settings)])], model=model) if found.rule.startswith("model-")
    ]


class TestARule:
    def test_knows_its_models(self):
        cases = [(model, settings, [rule] if rule else []) for model, settings, rule in CASES]
        compare_each(cases, lambda model, settings: [found.rule for found in _found(model, settings)])

    def test_has_a_case_and_a_source_with_its_date(self):
        met = {
            id(fact)
            for model, settings, rule in CASES
            for fact in facts_of(model)
            if rule == fact.rule and set(fact.path) & {*settings, *settings.get("thinkingConfig", {})}
        }
        for fact in _FACTS:
            assert id(fact) in met, fact
            assert re.search(r"\d{4}-\d{2}", fact.source), fact

    def test_names_the_member_as_the_line_spells_it(self):
        (found,) = lint_files([("a", [config(thinking_config={"thinking_budget": 5})])], model="gemini-4-argon")
        assert found.path == "$.request.generationConfig.thinking_config.thinking_budget"
        assert "5" not in found.message

    def test_is_said_of_every_line_though_their_settings_are_the_same(self):
        lines = [config(f"row-{number}", **budget(0)) for number in range(3)]
        found = list(lint_files([("a", lines)], model="gemini-4-argon"))
        assert [(each.line, each.rule) for each in found] == [(1, REFUSES), (2, REFUSES), (3, REFUSES)]


class TestPrepare:
    TEMPLATE = RequestTemplate(prompt="{{ a }}", generation_config=budget(0))

    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    def test_refuses_a_template_that_the_model_refuses(self, store):
        with pytest.raises(InputError, match=r"thinkingBudget.*\[model-refuses\].*Write"):
            prepared([{"a": "x"}], store, template=self.TEMPLATE, model="gemini-4-argon")
        assert not store.objects

    def test_takes_it_for_another_model_and_where_the_rule_is_ignored(self, store):
        assert prepared([{"a": "x"}], store, template=self.TEMPLATE, model="gemini-3.8-flash").request_count == 1
        ignore = frozenset({REFUSES})
        manifest = prepared([{"a": "x"}], store, template=self.TEMPLATE, model="gemini-4-argon", lint_ignore=ignore)
        assert manifest.request_count == 1

    def test_rejects_ready_made_requests_one_by_one(self, store):
        bad, good = (
            json.loads(config(f"row-{number}", **settings)) for number, settings in enumerate((budget(0), {"seed": 1}))
        )
        manifest = ready_made([bad, good], store, model="gemini-4-argon", on_rejected_row=DEAD_LETTER)
        assert (manifest.request_count, manifest.rejected_count) == (1, 1)

    def test_says_a_warning_once(self, caplog):
        template = RequestTemplate(prompt="{{ a }}", generation_config={"temperature": 0.7})
        with caplog.at_level(logging.WARNING):
            check_template(template, model="gemini-4-argon")
        (record,) = caplog.records
        assert "Gemini 4 ignores temperature [model-may-refuse]" in record.getMessage()
        assert "0.7" not in record.getMessage()


class TestTheCommand:
    def test_asks_for_the_model(self, tmp_path, capsys):
        path = tmp_path / "requests.jsonl"
        path.write_bytes(config(**budget(0)))
        assert main(["lint", str(path)]) == 0
        assert main(["lint", str(path), "--model", "gemini-4-argon"]) == 1
        assert "[model-refuses] at $.request.generationConfig.thinkingConfig.thinkingBudget" in capsys.readouterr().out
        assert main(["lint", "--fix", str(path), "--model", "gemini-4-argon"]) == 1
