"""An answer lands by its key only if it answers what was sent under that key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_vertex_batch.core.answers.collect.echo import is_same, mark_of, members
from airflow_vertex_batch.core.domain.row import RowStatus
from tests.builders import a_line, a_request, an_output, jsonl
from tests.core.collecting import ASKED, KEYS, Case, answered, without_key

SENT = a_request(
    "What is this?",
    systemInstruction={"parts": [{"text": "Be brief."}]},
    generationConfig={"temperature": 1.0, "top_p": 0.95, "maxOutputTokens": 10, "stopSequences": []},
    tools=[{"google_search": {"timeRangeFilter": None}}],
    labels={"team": "search"},
)
SAME = {
    "as it was": SENT,
    "members sorted": dict(sorted(SENT.items(), reverse=True)),
    "numbers spelt otherwise": SENT | {"generationConfig": {"temperature": 1, "top_p": 0.95, "maxOutputTokens": 10.0}},
    "in an exponent": json.loads('{"generationConfig": {"temperature": 1e0, "top_p": 95e-2, "maxOutputTokens": 1e1}}'),
    "padded with nulls": SENT
    | {
        "contents": [{"parts": [{"fileData": None, "text": "What is this?", "x": {"y": None}}], "role": "user"}],
        "a": None,
    },
    "padded with empty lists": SENT | {"safetySettings": []},
    "one object for a list of one": SENT | {"contents": {"parts": {"text": "What is this?"}, "role": "user"}},
    "in camel case": SENT | {"tools": [{"googleSearch": {"timeRangeFilter": None}}]},
    "other labels": SENT | {"labels": {"team": "2"}},
    "members left out": {"contents": SENT["contents"]},
    "members added": SENT | {"modelArmorConfig": {"promptTemplateName": "x"}},
}
SAME["in an exponent"] = SENT | SAME["in an exponent"]
OTHER = {
    "another text": SENT | {"contents": a_request("What is that?")["contents"]},
    "another role": SENT | {"contents": [{"role": "model", "parts": [{"text": "What is this?"}]}]},
    "one part more": SENT | {"contents": [{"role": "user", "parts": [{"text": "What is this?"}, {"text": "?"}]}]},
    "another image": SENT | {"contents": [{"parts": [{"inlineData": {"data": "AA=="}}, {"text": "What is this?"}]}]},
    "another instruction": SENT | {"systemInstruction": {"parts": [{"text": "Be long."}]}},
    "another number": SENT | {"generationConfig": {"temperature": 0.5}},
}


def _case(*echoes: Any, requests: list[Any] | None = None) -> Case:
    requests = requests or [a_line(f"r{number}") | {"request": SENT} for number in range(len(echoes))]
    lines = [an_output(f"r{number}", request=echo) for number, echo in enumerate(echoes)]
    return Case(requests, jsonl(*lines))


class TestAnswers:
    @pytest.mark.parametrize("echo", SAME.values(), ids=SAME)
    def test_to_the_request_that_was_sent_land(self, echo):
        case = _case(SENT, echo, echo)
        assert [row.status for row in case.rows()] == [RowStatus.SUCCEEDED] * 3
        assert case.collector.anomalies.unmatched_count == 0

    @pytest.mark.parametrize("echo", OTHER.values(), ids=OTHER)
    def test_to_another_one_do_not(self, echo):
        case = _case(SENT, echo, SENT, echo)
        rows = case.by_key()
        assert [rows[f"r{number}"].status for number in range(4)] == ["succeeded", "missing", "succeeded", "missing"]
        assert case.collector.anomalies.unmatched_count == 2

    @pytest.mark.parametrize("echo", [None, "odd {", {}, 7], ids=repr)
    def test_that_say_nothing_of_their_request_land(self, echo):
        assert [row.status for row in _case(echo).rows()] == [RowStatus.SUCCEEDED]

    def test_in_texts_of_a_table_are_told_apart_too(self):
        case = _case(json.dumps(SENT), json.dumps(OTHER["another text"]))
        assert sorted(row.status for row in case.rows()) == ["missing", "succeeded"]

    def test_that_were_given_to_each_other_s_keys_do_not(self):
        lines = [answered("r1") | {"key": "r2"}, answered("r2") | {"key": "r1"}, answered("r3")]
        case = Case(ASKED, jsonl(*lines))
        rows = case.by_key()
        assert [rows[key].status for key in KEYS] == ["missing", "missing", "succeeded"]

    def test_of_which_a_later_one_is_right_are_found(self):
        lines = [answered("r1") | {"request": a_request("of another day")}, answered("r1")]
        case = Case(ASKED[:1], jsonl(*lines))
        assert [(row.status, row.text) for row in case.rows()] == [(RowStatus.SUCCEEDED, "answer r1")]

    def test_without_a_key_are_joined_whatever_the_spelling_of_numbers(self):
        asked = [a_line("r1") | {"request": {"contents": [{"parts": [{"text": "a", "videoMetadata": {"fps": 1.0}}]}]}}]
        echo = {"contents": [{"parts": [{"text": "a", "videoMetadata": {"fps": 1}}]}]}
        (row,) = Case(asked, jsonl(without_key(an_output(request=echo)))).rows()
        assert row.status is RowStatus.SUCCEEDED


class TestMarks:
    @pytest.mark.parametrize("raw", [b"", b"null", b"[1]", b"{", b'"x"', b'{"contents": null}', b"[" * 20_000], ids=len)
    def test_what_is_no_request_has_none(self, raw):
        assert mark_of(raw) == 0

    def test_members_are_compared_one_by_one(self):
        sent, echo = (members(json.dumps(request).encode()) for request in (SENT, SAME["members left out"]))
        assert is_same(sent, echo)
        assert not is_same(sent, {})
