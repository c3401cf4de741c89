"""Lint against what real projects sent: what worked passes, what every row was refused for is found.

The files are described in `tests/cases/README.md` and `tests/cases/real/index.md`.
"""

from __future__ import annotations

import re
from pathlib import Path

from airflow_vertex_batch.core.requests.lint import fix_line, lint_files
from airflow_vertex_batch.emulator.importer import Importer, JobFailedError, decode
from airflow_vertex_batch.emulator.rowcheck import canonical, problem_of

CASES = Path(__file__).parents[1] / "cases"
#: What lint says of a line that the service refuses, by file; what it refuses nothing of, is None.
REFUSED = {
    "03-object-no-props": "schema-empty-object",
    "03c-additional": "schema-empty-object",
    "04f-enum-empty-string": "schema-empty-word",
    "05-tool-prop-no-type": "schema-no-type",
    "06-anyof-siblings-tool": "schema-crowded-choice",
    "06d-anyof-jsonnull": "schema-crowded-choice",
    "07b-required-on-string": "schema-foreign-member",
    "08-params-not-object": "function-parameters",
    "09-search-retrieval": "search-retrieval",
    "16-timerange-null": None,
    "23-thinking-both": "thinking-twice",
    "31-dup-function": "function-twice",
    "33-tool-config-no-tools": "function-mode",
}
#: Files of projects for which nobody shows an answer, and which the importer is known to refuse.
KNOWN_BAD = {
    "l03_json_schema": {"schema-ref"},
    "l07_tool_round": {"empty-object"},
    "l10_web_search": {"empty-object"},
    "r23_schema_type_underscore": {"schema-python-name", "schema-no-type"},
    "r24_url_context_empty": {"empty-object"},
    "r25_google_search_empty": {"empty-object"},
    # Worked from a BigQuery table, whose JSON column takes an empty object.
    "r36_langbatch_empty_tools": {"empty-object"},
    # Sent by LiteLLM's mapping; nobody shows what came of it, and `--fix` leaves the empty parameters out.
    "l06_tool_no_args": {"schema-empty-object"},
    # Nobody captured what comes back for such a key; see below.
    "r28_numeric_key": {"key-retyped"},
}


def errors(path: Path) -> set[str]:
    found = lint_files([(path.name, path.read_bytes().splitlines(keepends=True))])
    return {finding.rule for finding in found if finding.severity == "error"}


def refusals(path: Path) -> list[str]:
    """What the emulator says of a file: of the job, or of its rows."""
    importer, problems = Importer(), []
    try:
        for number, line in enumerate(path.read_bytes().splitlines()):
            importer.feed(line, path.name, number)
            problems.append(problem_of(canonical(decode(line).get("request")), lambda _: True))
        importer.finish(path.name)
    except JobFailedError as error:
        problems.append(error.message)
    return [problem for problem in problems if problem]


class TestWhatEveryRowIsRefusedFor:
    def test_lint_names_it_and_the_emulator_refuses_it(self):
        files = {path.stem: path for path in (CASES / "lint").glob("*.jsonl")}
        assert files.keys() == REFUSED.keys()
        assert {name: errors(path) for name, path in files.items()} == {
            name: {rule} if rule else set() for name, rule in REFUSED.items()
        }
        assert {name for name, path in files.items() if refusals(path)} == {n for n, rule in REFUSED.items() if rule}

    def test_what_stands_beside_a_choice_is_moved_into_it(self):
        for name in ("06-anyof-siblings-tool", "06d-anyof-jsonnull"):
            line = (CASES / "lint" / f"{name}.jsonl").read_bytes()
            cured, notes = fix_line(line)
            assert notes
            found = list(lint_files([(name, [cured])]))
            assert [finding for finding in found if finding.severity == "error"] == []

    def test_no_cure_makes_an_object_without_properties(self):
        line = (CASES / "lint" / "16-timerange-null.jsonl").read_bytes()
        assert b'"timeRangeFilter":null' in fix_line(line)[0].replace(b" ", b"")


class TestRequestsOfRealProjects:
    def test_every_file_that_worked_passes_and_the_others_are_refused_by_name(self):
        files = {path.stem: path for path in (CASES / "real" / "requests").glob("*.jsonl")}
        assert len(files) == 43
        found = {name: rules for name, path in files.items() if (rules := errors(path))}
        assert found == KNOWN_BAD

    def test_the_emulator_takes_what_worked(self):
        index = (CASES / "real" / "index.md").read_text()
        worked = re.findall(r"\| (\w+)\.jsonl \|.*\| worked\?? \|", index)
        assert len(worked) >= 20
        refused = {name: text for name in worked if (text := refusals(CASES / "real" / "requests" / f"{name}.jsonl"))}
        # What the column of a BigQuery table takes, the importer of files refuses.
        assert refused == {}
