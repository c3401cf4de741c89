"""Lint finds what would sink a job, says where and how to cure it, and is silent about everything else."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_vertex_batch.core.requests.lint import RULES, Finding, Limits, Linter, lint_files, lint_lines
from tests.each_case import compare_each, each_case

from .lint_corpus import BAD
from .lint_corpus_good import GOOD, LIMITED, WARNED
from .lint_corpus_lines import GOOD_LINE, HELLO, asks, calls, config, content, dump, line, prop, raw, says, tool


def lint(lines: list[bytes], **options: Any) -> list[Finding]:
    """Return what a linter with these options finds in one file."""
    linter = Linter("requests.jsonl", **options)
    found = [finding for number, row in enumerate(lines, start=1) for finding in linter.check(number, row)]
    return found + linter.finish()


def places(findings: list[Finding]) -> set[tuple[int, str]]:
    return {(finding.line, finding.rule) for finding in findings}


#: Without the lines that are long on purpose.
SHORT = [row for lines, _ in BAD.values() for row in lines if len(row) < 5_000]


class TestCorpus:
    def test_a_bad_file_gives_its_findings_and_no_others(self) -> None:
        compare_each(BAD, lambda lines: places(list(lint_lines("requests.jsonl", lines))))

    def test_a_good_file_gives_nothing(self) -> None:
        good = {name: (lines, []) for name, lines in GOOD.items()}
        compare_each(good, lambda lines: list(lint_lines("requests.jsonl", lines)))

    @each_case(WARNED)
    def test_a_legal_file_gives_warnings_at_most(self, lines: list[bytes], rules: set[str]) -> None:
        findings = list(lint_lines("requests.jsonl", lines))
        assert {finding.rule for finding in findings} == rules
        assert {finding.severity for finding in findings} == {"warning"}

    def test_a_file_over_a_limit_gives_its_findings_and_no_others(self) -> None:
        compare_each(LIMITED, lambda limits, lines: places(lint(lines, limits=Limits(**limits))))

    @each_case(BAD)
    def test_every_finding_says_where_what_and_how_to_cure_it(self, lines: list[bytes], expected: Any) -> None:
        for finding in lint_lines("requests.jsonl", lines):
            assert finding.as_dict().keys() == {"file", "line", "rule", "severity", "path", "message", "cure"}
            assert finding.file == "requests.jsonl"
            assert finding.severity == RULES[finding.rule].severity
            assert finding.path.startswith("$")
            assert finding.message
            assert finding.cure

    def test_every_rule_has_a_case(self) -> None:
        shown = {rule for _, found in BAD.values() for _, rule in found}
        shown |= {rule for _, _, found in LIMITED.values() for _, rule in found}
        shown |= {rule for _, rules in WARNED.values() for rule in rules}
        shown |= {finding.rule for finding in lint_lines("requests.jsonl.gz", [GOOD_LINE])}
        shown |= {"model-refuses", "model-may-refuse"}  # test_lint_models.py
        assert shown == RULES.keys()

    def test_the_corpus_is_large(self) -> None:
        assert len(BAD) >= 150
        assert len(GOOD) >= 30


class TestTheJobsLimits:
    """The real ones; the corpus has small ones in their place."""

    def test_200_000_requests_pass_and_the_next_does_not(self) -> None:
        linter = Linter("a")
        found = [finding for number in range(1, 200_002) for finding in linter.check(number, line(key=f"r{number}"))]
        assert places(found) == {(200_001, "too-many-requests")}

    def test_a_gigabyte_passes_and_the_next_line_does_not(self) -> None:
        """The limit is the job's, not a file's."""
        first, second = line(), line(key="row-2")
        linter = Linter("a")
        linter.check(1, first)
        # As if the lines between had been checked.
        linter.byte_count = 10**9 - len(second)
        linter.next_file("b")
        assert linter.check(1, second) == []
        (finding,) = linter.check(2, line(key="row-3"))
        assert (finding.rule, finding.file, finding.line) == ("too-many-bytes", "b", 2)

    def test_a_line_longer_than_a_row_is_an_error_wherever_it_stands(self) -> None:
        found = lint([line(), says({"text": "x" * 100_000_000}, key="row-2"), line(key="row-3")])
        assert places(found) == {(2, "line-too-long")}


class TestFindings:
    @pytest.mark.parametrize(
        ("row", "path", "words"),
        [
            (asks(generationConfigs={"a": 1}), "$.request.generationConfigs", "Did you mean generationConfig?"),
            (config(maxOutputToken=5), "$.request.generationConfig.maxOutputToken", "Did you mean maxOutputTokens?"),
            (config(top_pp=1), "$.request.generationConfig.top_pp", "Did you mean topP?"),
            (asks(temperature=1), "$.request.temperature", "Move it to request.generationConfig"),
            (asks(model="x"), "$.request.model", "on the job"),
            (says({"text": "a", "mimeType": "a/b"}), "$.request.contents[0].parts[0].mimeType", "fileData or"),
            (content({"role": "assistant", "parts": [{"text": "a"}]}), "$.request.contents[0].role", 'Write "model"'),
            (content({"role": "system", "parts": [{"text": "a"}]}), "$.request.contents[0].role", "systemInstruction"),
            (prop({"$ref": "#/$defs/A"}), '$.request.generationConfig.responseSchema.properties.a["$ref"]', "Inline"),
            (prop({"type": "STRNG"}), "$.request.generationConfig.responseSchema.properties.a.type", 'mean "STRING"'),
            (
                prop({"type": "OBJECT", "properties": {"mood": {"type": "STRING"}}, "required": ["moood"]}),
                "$.request.generationConfig.responseSchema.properties.a.required[0]",
                "Did you mean mood?",
            ),
            (tool({"googleSearch": {}}), "$.request.tools[0].googleSearch", "excludeDomains"),
            (dump({"contents": HELLO, "key": "a"}), "$", "wrap it"),
            (dump({"Request": {"contents": HELLO}, "key": "a"}), "$", "'Request'"),
            (calls({"my name": 1}), '$.request.contents[1].parts[0].functionCall.args["my name"]', "letters"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_finding_names_the_path_and_knows_a_cure(self, row: bytes, path: str, words: str) -> None:
        finding = lint([row])[0]
        assert finding.path == path
        assert words in finding.cure

    def test_a_syntax_error_names_its_column(self) -> None:
        (finding,) = lint([b'{"key": "row-1" "request": {}}\n'])
        assert "column 17" in finding.message

    def test_two_lines_that_disagree_are_both_named(self) -> None:
        first, second = sorted(lint([calls({"a": 1}), calls({"a": "x"}, "row-2")]), key=lambda finding: finding.line)
        assert "line 2" in first.message
        assert "line 1" in second.message
        assert first.path == second.path == "$.request.contents[1].parts[0].functionCall.args.a"

    def test_files_of_one_job_are_compared_with_each_other(self) -> None:
        found = list(lint_files([("a.jsonl", [calls({"a": 1})]), ("b.jsonl", [calls({"a": "x"}, "row-2"), line()])]))
        assert {(finding.file, finding.line, finding.rule) for finding in found} == {
            ("a.jsonl", 1, "mixed-types"), ("b.jsonl", 1, "mixed-types"), ("b.jsonl", 2, "key-duplicate"),
        }  # fmt: skip
        assert any("line 1 of a.jsonl" in finding.message for finding in found)

    def test_a_finding_reads_like_a_compilers(self) -> None:
        (finding,) = lint([line(key="42")])
        assert str(finding).startswith("requests.jsonl:1: error: ")
        assert "[key-retyped]" in str(finding)

    @pytest.mark.parametrize(
        "row",
        [
            says({"text": ["SECRET"]}),
            says({"text": "SECRET", "fileData": {"fileUri": "SECRET", "mimeType": "SECRET"}}),
            says({"inlineData": {"data": "SECRET!", "mimeType": "SECRET"}}),
            content({"role": "SECRET", "parts": [{"text": "SECRET"}]}),
            config(temperature="SECRET", responseModalities=["SECRET"]),
            prop({"type": "SECRET", "enum": ["SECRET", 1]}),
            asks(systemInstruction="SECRET", labels={"team": "SECRET WORD"}),
            line("SECRET"),
            line(status="SECRET", day="2026-01-01", note=["SECRET"]),
            says({"text": "SECRET"})[:-9],
            says({"text": "SECRET"}).replace(b"SECRET", b"SECRET\t"),
            says({"text": "SECRET"}).replace(b"SECRET", b"SECRET\xff"),
            raw(r'{"key":"a","request":{"contents":[{"role":"user","parts":[{"text":"SECRET\ud800"}]}]}}'),
            raw(r'{"key":"a","request":{"contents":[{"role":"user","parts":[{"text":"SECRET\u0000"}]}]}}'),
            b"SECRET\n",
        ],
    )  # fmt: skip
    def test_no_finding_quotes_a_text(self, row: bytes) -> None:
        findings = lint([row])
        assert findings
        assert not any("SECRET" in str(finding) for finding in findings)

    def test_warnings_are_said_once_and_errors_every_time(self) -> None:
        findings = lint([line(key=None, n=1), line(key="7"), line(key=None, n=1), line(key="8")])
        assert [(finding.line, finding.rule) for finding in findings] == [
            (1, "key-missing"), (2, "key-retyped"), (4, "key-retyped"),
        ]  # fmt: skip

    def test_an_ignored_rule_is_silent(self) -> None:
        assert lint([line(key="42")], ignore=frozenset({"key-retyped"})) == []

    def test_a_rule_that_does_not_exist_cannot_be_ignored(self) -> None:
        with pytest.raises(ValueError, match="No such lint rule: key-retypd"):
            Linter("a", ignore=frozenset({"key-retypd"}))

    def test_the_linter_counts_what_it_saw(self) -> None:
        linter = Linter("a")
        for number, row in enumerate([line(key=None), b"\n", line(key="7"), GOOD_LINE], start=1):
            linter.check(number, row)
        assert (linter.request_count, linter.error_count, linter.warning_count) == (3, 2, 1)
        assert linter.byte_count == len(line(key=None)) + len(line(key="7")) + len(GOOD_LINE)


class TestRejecting:
    """Where prepare leaves bad rows out, a row that was left out must not count against the next."""

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (line(key="7", n=1), line(key="row-2", n="x")),
            (config("row-1", temperature=9, stopSequences=["x"]), config("row-1", stopSequences=["x"])),
            (calls({"a": 1, "b": {}}), calls({"a": "x"}, "row-2")),
            (calls({"a": None, "b": {}}), calls({"a": ["x"]}, "row-2")),
            (line({"contents": []}), line(key="row-1")),
        ],
        ids=["other type", "same key", "other type below", "null before a list", "same key, no contents"],
    )
    def test_a_rejected_row_leaves_no_trace(self, first: bytes, second: bytes) -> None:
        linter = Linter("rows", rejecting=True)
        assert any(finding.severity == "error" for finding in linter.check(1, first))
        assert linter.check(2, second) == []
        assert (linter.request_count, linter.byte_count) == (1, len(second))

    def test_findings_are_about_the_row_at_hand_only(self) -> None:
        linter = Linter("rows", rejecting=True)
        assert linter.check(1, calls({"a": 1})) == []
        assert [(finding.line, finding.rule) for finding in linter.check(2, calls({"a": "x"}, "row-2"))] == [
            (2, "mixed-types")
        ]

    def test_every_row_over_the_limit_is_rejected(self) -> None:
        linter = Linter("rows", rejecting=True, limits=Limits(requests=2))
        found = [finding for number in range(1, 6) for finding in linter.check(number, line(key=f"r{number}"))]
        assert places(found) == {(number, "too-many-requests") for number in (3, 4, 5)}

    @settings(max_examples=150, deadline=None)
    @given(rows=st.lists(st.sampled_from(SHORT), max_size=12))
    def test_what_is_left_is_a_job_without_errors(self, rows: list[bytes]) -> None:
        linter = Linter("rows", rejecting=True)
        kept = [
            row for number, row in enumerate(rows, start=1)
            if not any(finding.severity == "error" for finding in linter.check(number, row))
        ]  # fmt: skip
        assert linter.request_count == len(kept)
        assert not [finding for finding in lint(kept) if finding.severity == "error" and finding.rule != "no-requests"]


class TestStreaming:
    def test_findings_come_with_their_line(self) -> None:
        """A file without end is linted without end."""
        endless = itertools.chain([line(key="7")], (line(key=f"r{number}") for number in itertools.count()))
        assert next(lint_lines("pipe", endless)).rule == "key-retyped"

    @pytest.mark.parametrize("shortcut", [True, False])
    def test_memory_does_not_grow_with_the_lines(self, *, shortcut: bool) -> None:
        linter = Linter("a", shortcut=shortcut, ignore=frozenset({"key-missing"}))
        rows = (says({"text": f"prompt {number}"}).replace(b'"key":"row-1",', b"") for number in itertools.count())
        for number in range(1, 1_000):
            linter.check(number, next(rows))
        tracemalloc.start()
        for number in range(1_000, 6_000):
            assert linter.check(number, next(rows)) == []
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert grown < 50_000

    def test_a_key_costs_no_more_than_its_hash_and_its_line(self) -> None:
        linter = Linter("a")
        tracemalloc.start()
        for number in range(1, 10_001):
            linter.check(number, line(key=f"row-{'x' * 200}-{number}"))
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert grown / 10_000 < 150

    @pytest.mark.parametrize("shortcut", [True, False])
    def test_keys_that_are_known_to_be_unique_cost_nothing(self, *, shortcut: bool) -> None:
        linter = Linter("a", unique_keys=True, shortcut=shortcut)
        linter.check(1, line(key="row-0"))
        tracemalloc.start()
        for number in range(1, 3_000):
            assert linter.check(number, line(key=f"row-{number}")) == []
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert grown < 20_000

    def test_names_without_end_do_not_fill_the_memory(self) -> None:
        linter = Linter("a", limits=Limits(columns=50))
        for number in range(1, 1_000):
            linter.check(number, line(key="row-1", **{f"n{number}": "7"}))
        tracemalloc.start()
        for number in range(1_000, 3_000):
            linter.check(number, line(key="row-1", **{f"n{number}": "7"}))
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert grown < 50_000


class TestRemembering:
    """A configuration that stands on every line is walked once, and its findings still stand on every line."""

    def test_an_error_in_it_is_reported_on_every_line(self) -> None:
        rows = [asks(f"row-{number}", generationConfig={"topP": 2}) for number in range(5)]
        assert places(lint(rows)) == {(number, "out-of-range") for number in range(1, 6)}

    def test_a_name_twice_is_found_behind_it(self) -> None:
        row = config("row-2", topP=1)
        twice = row.replace(b'"key":"row-2"', b'"key":"row-3","key":"row-2"')
        assert places(lint([config("row-1", topP=1), row, twice])) == {(3, "duplicate-member"), (3, "key-duplicate")}

    def test_a_null_that_a_later_line_makes_wrong_is_found_again(self) -> None:
        rows = [prop({"type": "STRING", "default": value}, f"row-{n}") for n, value in enumerate([None, ["x"], None])]
        found = places(lint(rows, ignore=frozenset({"many-schemas"})))
        assert found == {(1, "null-in-list"), (2, "null-in-list"), (3, "null-in-list")}
