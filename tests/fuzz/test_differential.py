"""A quick slice of ``make fuzz``: lint, the emulator's importer and `fix_line` read one documentation, and agree."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_vertex_batch.core.requests.answer_check import AnswerCheck
from airflow_vertex_batch.core.requests.lint import fix_line
from airflow_vertex_batch.core.requests.schema import json_schema
from tests.core.lint_corpus import BAD
from tests.core.lint_corpus_good import GOOD, WARNED
from tests.core.lint_corpus_lines import schema
from tests.each_case import compare_each
from tests.fuzz.cures import broken_promises
from tests.fuzz.differential import disagreements, lint, refusals
from tests.fuzz.generate import MODELS, request_file, settings_file

#: What the importer, and not the API, refuses.
IMPORT_RULES = {
    "not-utf8", "not-json", "truncated-line", "trailing-garbage", "lone-surrogate", "not-object", "empty-object",
    "null-in-list", "nested-list", "too-deep", "field-name", "field-name-case", "mixed-types", "schema-ref",
    "schema-dollar", "no-requests",
}  # fmt: skip
#: "One type per key path" is known of objects, lists and plain values. What a column does with texts *and* numbers is
#: not; the emulator makes them texts, as type inference would, and lint, which cannot be too careful, refuses both.
PLAIN_VALUES = {
    "line: sibling that changes its type", "importer: number here, text there", "importer: true here, number there",
    "importer: types mixed within a list", "importer: types mixed between elements",
    "importer: every later line that disagrees", "importer: maxItems as number and as text",
    "api: temperature as text, then as number", "schema: nested default of two types",
    "schema: responseJsonSchema with types of two kinds",
}  # fmt: skip
#: The API has no member of this name, whatever its value: the row fails, not the job.
ROW_ONLY = {"schema: definitions"}

ANSWERS = st.recursive(
    st.sampled_from([None, True, 1, 0.5, "x", "y"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=4,
)


def referring_schema(chooser: random.Random) -> dict[str, Any]:
    """Return a schema whose definitions refer to later ones only, so that all of them can be inlined."""

    def node(depth: int) -> dict[str, Any]:
        kind = chooser.randrange(6) if depth < 4 else 0
        if kind == 1:
            return {"type": "object", "properties": {"a": node(depth + 1), "b": node(depth + 1)}, "required": ["a"]}
        if kind == 2:
            return {"type": "array", "items": node(depth + 1)}
        if kind == 3:
            return {"anyOf": [node(depth + 1), {"type": "integer"}]}
        if kind > 3:
            return {"$ref": f"#/$defs/D{depth}"}
        return chooser.choice([{"type": "string"}, {"type": ["string", "null"]}, {"type": "string", "enum": ["x"]}])

    return {**node(0), "$defs": {f"D{depth}": node(depth + 1) for depth in range(4)}}


class TestTheTwoReadings:
    @settings(max_examples=800, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 2**64))
    def test_what_the_importer_refuses_lint_reports_at_that_line(self, seed: int) -> None:
        assert disagreements(request_file(random.Random(seed))) == []

    @settings(max_examples=600, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 2**64), model=st.sampled_from(MODELS))
    def test_what_a_model_refuses_lint_reports_at_that_line(self, seed: int, model: str) -> None:
        assert disagreements(settings_file(random.Random(seed)), model) == []

    def test_lint_says_of_no_model_what_the_emulator_takes(self) -> None:
        """The other direction, which holds for settings: every error about a model is a refusal."""
        said = dict.fromkeys(MODELS, 0)
        for seed, model in itertools.product(range(60), MODELS):
            data = settings_file(random.Random(seed))
            found = [finding for finding in lint(data, model=model) if finding.severity == "error"]
            about_model = {finding.line for finding in found if finding.rule == "model-refuses"}
            assert about_model <= refusals(data, model).keys()
            said[model] += len(about_model)
        assert {model for model, count in said.items() if not count} == {
            "",
            "projects/p/locations/l/models/7",
            "gemini-2.0-flash",
        }

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(data=st.binary(max_size=80))
    def test_any_bytes_are_judged_alike(self, data: bytes) -> None:
        assert disagreements(data) == []

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 2**64))
    def test_the_short_way_finds_what_the_long_way_finds(self, seed: int) -> None:
        chooser = random.Random(seed)
        data = request_file(chooser) + request_file(chooser)
        assert lint(data) == lint(data, shortcut=False)

    def test_the_corpus_is_judged_alike(self) -> None:
        compare_each(
            {name: (lines, []) for name, (lines, _) in BAD.items()}, lambda lines: disagreements(b"".join(lines))
        )

    def test_a_case_of_an_importer_s_rule_is_refused_by_the_importer(self) -> None:
        cases = {
            name: (lines, name not in PLAIN_VALUES | ROW_ONLY)
            for name, (lines, found) in BAD.items()
            if IMPORT_RULES & {rule for _, rule in found}
        }
        compare_each(cases, lambda lines: any(text.startswith("job: ") for text in refusals(b"".join(lines)).values()))

    def test_a_good_file_is_imported_and_every_row_answered(self) -> None:
        assert not GOOD.keys() & WARNED.keys()
        files = GOOD | {name: lines for name, (lines, _) in WARNED.items()}
        compare_each({name: (lines, {}) for name, lines in files.items()}, lambda lines: refusals(b"".join(lines)))

    def test_the_generator_reaches_every_rule_of_the_importer(self) -> None:
        """A fuzzer that only makes one kind of mistake proves little."""
        files = [request_file(random.Random(seed)) for seed in range(1_500)]
        shown = {rule for file in files for rule in (finding.rule for finding in lint(file))}
        assert shown >= IMPORT_RULES
        assert sum(not refusals(file) for file in files) > 200
        fragments = " ".join(text for file in files for text in refusals(file).values())
        for fragment in (
            "with no fields", "Repeated field must be", "specified for non-record", "nested too deeply, at least 16",
            "Invalid field name", "Only optional fields", "Nested arrays", "Case Insensitive", "JSON parsing error",
            "valid role", "supported range", "one contents field", "parts field", "initialized data",
        ):  # fmt: skip
            assert fragment in fragments


class TestTheCures:
    @settings(max_examples=500, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 2**64))
    def test_they_add_no_error_and_change_no_meaning(self, seed: int) -> None:
        for row in request_file(random.Random(seed)).splitlines(keepends=True):
            assert list(broken_promises(row)) == []

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 2**64), answers=st.lists(ANSWERS, min_size=8, max_size=8))
    def test_a_cured_schema_takes_the_same_answers(self, seed: int, answers: list[Any]) -> None:
        given = referring_schema(random.Random(seed))
        fixed = json.loads(fix_line(schema(given))[0])["request"]["generationConfig"]["responseSchema"]
        assert "$" not in json.dumps(fixed)
        before, after = AnswerCheck(json_schema(given)), AnswerCheck(json_schema(fixed))
        for answer in [*answers, {"a": answers[0], "b": answers[1]}, {"a": {"a": answers[2], "b": answers[3]}}]:
            assert bool(before(answer)) == bool(after(answer))

    def test_they_do_so_in_the_corpus(self) -> None:
        cases = {name: (lines, [[]] * len(lines)) for name, (lines, _) in BAD.items()}
        compare_each(cases, lambda lines: [list(broken_promises(row)) for row in lines])
