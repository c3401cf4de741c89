"""Our prices against LiteLLM's map: what differs, what explains it, and what makes `make prices` fail."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from airflow_vertex_batch.core.money.prices import Price, PriceTable
from tools.known import idle
from tools.prices import KNOWN, Difference, Known, differences, explain, main

ROOT = Path(__file__).resolve().parents[1]
OURS = PriceTable(
    [
        Price("gemini-a", *map(Decimal, ("1", "5", "0.2")), "t", "2026-11-28", valid_until="2026-11-30"),
        Price("gemini-a", *map(Decimal, ("2", "10", "0.4")), "t", "2026-11-28", valid_from="2026-12-01"),
    ]
)


def an_entry(**members):
    return {
        "litellm_provider": "vertex_ai-language-models",
        "input_cost_per_token_batches": 1e-06,
        "output_cost_per_token_batches": 5e-06,
        "cache_read_input_token_cost": 2e-07,
    } | members


def _found(theirs, day="2026-11-28"):
    return [(each.model, each.member, each.ours, each.theirs) for each in differences(OURS, theirs, day)]


class TestADifference:
    @pytest.mark.parametrize(
        ("theirs", "expected"),
        [
            ({"gemini-a": an_entry()}, []),
            ({"vertex_ai/gemini-a": an_entry(), "gemini-a": an_entry()}, []),
            ({"gemini-a": an_entry(input_cost_per_audio_token_batches=1e-06)}, []),
            ({"gemini-a": an_entry(output_cost_per_token_batches=6e-06)}, [("gemini-a", "output", "5", "6")]),
            (
                {"gemini-a": an_entry(), "vertex_ai/gemini-a": an_entry(output_cost_per_token_batches=6e-06)},
                [("gemini-a", "output", "5", "6")],
            ),
            (
                {"gemini-a": an_entry(cache_read_input_token_cost_batches=1e-07)},
                [("gemini-a", "cached_input_added", "", "0.1")],
            ),
            ({}, [("gemini-a", "model", "priced", "")]),
            ({"gemini-a": an_entry(), "gemini-b": an_entry()}, [("gemini-b", "model", "", "priced")]),
            ({"gemini-a": an_entry(), "gemini/gemini-b": an_entry(litellm_provider="gemini")}, []),
            ({"gemini-a": an_entry(), "gemini-b": {"litellm_provider": "vertex_ai"}}, []),
        ],
        ids=[
            *("the same", "the same, twice", "sound at the rate of text", "another rate", "in one of two entries"),
            *(
                "a rate that we lack",
                "a model that they lack",
                "a model that we lack",
                "another provider",
                "no batches",
            ),
        ],
    )
    def test_is_found(self, theirs, expected):
        assert _found(theirs) == expected

    def test_is_about_the_price_of_the_day(self):
        members = {member for _, member, _, _ in _found({"gemini-a": an_entry()}, "2026-12-01")}
        assert members == {"input", "output", "cached_input"}

    def test_is_about_the_last_day_of_a_model_too(self):
        entry = an_entry(deprecation_date="2027-01-01")
        assert ("gemini-3.7-flash", "retires", "2027-01-28", "2027-01-01") in _found({"gemini-3.7-flash": entry})


class TestAnExplanation:
    @pytest.mark.parametrize(
        ("known", "explains"),
        [
            (Known("gemini-*", "output", "6", "because", "2026-11-28"), True),
            (Known("gemini-a", "out*", "*", "because", "2026-11-28"), True),
            (Known("gemini-a", "output", "7", "because", "2026-11-28"), False),
            (Known("gemini-a", "input", "6", "because", "2026-11-28"), False),
            (Known("gemini-b", "output", "6", "because", "2026-11-28"), False),
        ],
        ids=["a glob", "any figure", "theirs has changed since", "another member", "another model"],
    )
    def test_holds_for_one_figure_of_theirs(self, known, explains):
        found = Difference("gemini-a", "output", "5", "6")
        assert explain(found, [known]) == ("because (2026-11-28)" if explains else "")
        assert idle([found], [known]) == ([] if explains else [known])

    def test_is_not_needed_for_our_price_of_another_day(self):
        found = differences(OURS, {"gemini-a": an_entry()}, "2026-12-01")
        assert {explain(each, []) for each in found} == {"their map knows no days: it is our price of another day"}

    def test_each_that_is_kept_has_a_reason_and_a_date(self):
        for known in msgspec.json.decode(KNOWN.read_bytes(), type=list[Known]):
            assert len(known.reason) > 20
            assert re.fullmatch(r"\d{4}-\d\d-\d\d", known.date)


class TestTheProgram:
    def _main(self, tmp_path, theirs):
        file = tmp_path / "map.json"
        file.write_text(json.dumps(theirs))
        return main(["--map", str(file), "--day", "2026-11-28"])

    def test_fails_when_a_difference_is_not_explained(self, tmp_path, capsys):
        assert self._main(tmp_path, {"gemini-3.5-flash": an_entry()}) == 1
        printed = capsys.readouterr().out
        assert "NOT EXPLAINED" in printed
        assert "No longer needed in known_price_differences.json: gemini-2.5-flash-lite, audio_input" in printed

    @pytest.mark.parametrize("content", ["no JSON", None], ids=["nonsense", "no file"])
    def test_says_that_it_could_not_have_the_map(self, tmp_path, capsys, content):
        if content:
            (tmp_path / "map.json").write_text(content)
        assert main(["--map", str(tmp_path / "map.json")]) == 2
        assert "LiteLLM's price map could not be had" in capsys.readouterr().err

    def test_names_no_host(self):
        for file in (ROOT / "tools" / "prices.py", ROOT / "Makefile"):
            assert "://" not in file.read_text().replace("https?://", "")
