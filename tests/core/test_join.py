"""Whose answer is a line without its key? The request label, the contents and a re-typed key say, in this order."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_vertex_batch.core.answers.collect.join import KEY_LABEL, key_label
from airflow_vertex_batch.core.domain.row import RowStatus
from tests.builders import a_failed_output, a_line, a_request, an_output, jsonl, seed
from tests.core.collecting import ASKED, KEYS, Case, answered, asked, failed, without_key


class TestKeysLost:
    def test_lines_without_keys_are_joined_by_their_contents(self):
        case = Case(ASKED, jsonl(*[without_key(answered(key)) for key in reversed(KEYS)]))
        assert {key: row.text for key, row in case.by_key().items()} == {key: f"answer {key}" for key in KEYS}
        assert case.odd == (0, 0, 3)

    @pytest.mark.parametrize(
        ("key", "came_back"), [("000123", 123), ("true", True), ("1e3", 1000.0), ("7", 7)], ids=repr
    )
    def test_a_key_that_was_retyped_is_found_by_its_contents(self, key, came_back):
        case = Case([asked(key), asked("r2")], jsonl(answered(key) | {"key": came_back}, answered("r2")))
        assert case.by_key()[key].text == f"answer {key}"
        assert case.odd == (0, 0, 1)

    def test_a_sorted_and_padded_echo_is_still_the_same_contents(self):
        echo = {"contents": [{"parts": [{"fileData": None, "text": "question r1"}], "role": "user"}]}
        case = Case(ASKED, jsonl(without_key(answered("r1")) | {"request": echo}, answered("r2"), answered("r3")))
        assert case.by_key()["r1"].text == "answer r1"

    def test_requests_with_the_same_contents_get_one_line_each(self):
        asked = [a_line("r1", "same"), a_line("r2", "same")]
        lines = [without_key(an_output(text=text, request=a_request("same"))) for text in ("a", "b")]
        rows = Case(asked, jsonl(*lines)).by_key()
        assert {row.text for row in rows.values()} == {"a", "b"}

    def test_of_those_the_one_without_any_line_comes_first(self):
        """r1 has its own failed line, so the line that lost its key must be r2's."""
        asked = [a_line("r1", "same"), a_line("r2", "same")]
        lines = [a_failed_output("r1"), without_key(an_output(text="b", request=a_request("same")))]
        rows = Case(asked, jsonl(*lines)).by_key()
        assert (rows["r1"].status, rows["r2"].text) == (RowStatus.FAILED, "b")

    def test_good_beats_bad_also_without_keys(self):
        lines = [without_key(failed("r1")), without_key(answered("r1"))]
        assert Case(ASKED[:1], jsonl(*lines)).by_key()["r1"].status is RowStatus.SUCCEEDED

    def test_the_seed_page_s_lines_are_joined_by_contents(self):
        """Request, success and failed line exactly as printed: none of them has a key."""
        failed = seed("failed.json")
        asked = [seed("request.jsonl"), {"request": failed["request"]}]
        case = Case(asked, jsonl(failed, seed("success.json")))
        first, second = sorted(case.rows(), key=lambda row: row.status.is_good, reverse=True)
        assert first.text.startswith("This video shows")
        assert second.reason == "Please use a valid role: user, model."
        assert case.odd == (0, 0, 2)


class TestRequestLabels:
    """The second channel: the key's digest as a label of the request, which comes back in the echo."""

    @staticmethod
    def _labelled(key: str, text: str = "same") -> dict[str, Any]:
        return a_request(text, labels={"team": "search", KEY_LABEL: key_label(key)})

    def test_they_tell_requests_apart_that_are_alike(self):
        asked = [{"key": key, "request": self._labelled(key)} for key in KEYS]
        lines = [without_key(an_output(text=f"for {key}", request=self._labelled(key))) for key in reversed(KEYS)]
        case = Case(asked, jsonl(*lines))
        assert {key: row.text for key, row in case.by_key().items()} == {key: f"for {key}" for key in KEYS}
        assert case.odd == (0, 0, 3)

    def test_they_go_before_contents(self):
        asked = [{"key": key, "request": self._labelled(key, f"question {key}")} for key in KEYS]
        line = without_key(an_output(text="for r2", request=self._labelled("r2", "question r1")))
        rows = Case(asked, jsonl(line)).by_key()
        assert (rows["r2"].text, rows["r1"].status) == ("for r2", RowStatus.MISSING)

    @pytest.mark.parametrize("labels", [{KEY_LABEL: "k0"}, {KEY_LABEL: 7}, {}, "odd", None], ids=repr)
    def test_a_label_that_says_nothing_leaves_it_to_the_contents(self, labels):
        line = without_key(an_output(text="for r1", request=a_request("question r1", labels=labels)))
        assert Case(ASKED, jsonl(line)).by_key()["r1"].text == "for r1"

    def test_a_key_that_did_come_back_goes_before_the_label(self):
        line = an_output("r1", text="for r1", request=self._labelled("r2", "question r1"))
        assert Case(ASKED, jsonl(line)).by_key()["r1"].text == "for r1"


class TestRetypedKeys:
    @pytest.mark.parametrize(
        ("key", "came_back"),
        [("000123", 123), ("123", 123), ("1e3", 1000.0), ("-7", -7), ("1.50", 1.5), ("true", True), ("FALSE", False)],
        ids=repr,
    )
    def test_a_line_without_a_request_is_joined_by_the_value_of_its_key(self, key, came_back):
        case = Case([asked(key), asked("r2")], jsonl({"key": came_back, "status": "503 Unavailable"}))
        assert case.by_key()[key].code == "UNAVAILABLE"
        assert case.odd == (0, 0, 1)

    @pytest.mark.parametrize(
        ("keys", "came_back"),
        [(["007", "7"], 7), (["r-7"], 7), (["true"], 1), (["1"], True), (["9007199254740993"], 9007199254740992.0)],
        ids=repr,
    )
    def test_but_never_where_another_request_can_have_been_meant(self, keys, came_back):
        case = Case([asked(key) for key in keys], jsonl({"key": came_back, "status": "503 Unavailable"}))
        assert {row.status for row in case.rows()} == {RowStatus.MISSING}
        assert case.odd == (0, 1, 0)

    def test_it_tells_requests_apart_that_are_alike(self):
        asked = [a_line(key, "same") for key in ("1", "2", "3")]
        lines = [an_output(number, text=f"for {number}", request=a_request("same")) for number in (3, 1, 2)]
        rows = Case(asked, jsonl(*lines)).by_key()
        assert {key: row.text for key, row in rows.items()} == {key: f"for {key}" for key in "123"}

    def test_contents_go_before_it(self):
        line = answered("r2") | {"key": 1}
        assert Case([asked("1"), asked("r2")], jsonl(line)).by_key()["r2"].text == "answer r2"
