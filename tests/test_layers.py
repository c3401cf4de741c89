"""Who may import whom, and how long a file may be: the promises that keep the code readable, kept by tests."""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "airflow_vertex_batch"
FOLDERS = ("airflow_vertex_batch", "bench", "dags", "stack", "tests", "tools")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

#: Prints every module that importing the arguments has loaded.
LOADED = """
import importlib, json, sys
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def _loaded_by(*modules: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter loads with some modules."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *modules], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def _modules(folder: str) -> list[str]:
    return sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (PACKAGE / folder).rglob("*.py")
        if path.stem != "__init__"
    )


def test_the_contracts_hold():
    """The contracts are in pyproject.toml; import-linter checks them over the real imports."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert ", 0 broken." in done.stdout


def test_core_loads_neither_airflow_nor_google_nor_anything_heavy():
    """Measured, not read: what its imports really load."""
    heavy = {"airflow", "google", "pyarrow", "jinja2", "aiohttp", "requests", "jsonschema", "pydantic"}
    assert _loaded_by(*_modules("core")) & heavy == set()


def test_importing_the_package_or_its_command_line_loads_next_to_nothing():
    assert (
        _loaded_by("airflow_vertex_batch", "airflow_vertex_batch.__main__")
        & {"airflow", "google", "msgspec", "aiohttp"}
        == set()
    )


def test_the_google_edge_loads_google_when_it_is_used_not_when_it_is_imported():
    # Its classes are of `requests` and google-auth; whoever uses it, imports it in a function.
    modules = [name for name in _modules("gcp") if name != "airflow_vertex_batch.gcp.transport"]
    assert _loaded_by(*modules) & {"airflow", "google", "requests", "aiohttp"} == set()


def test_no_file_is_too_long_to_read():
    """400 lines in the package; 500 in tests and tools."""

    def limit(path: Path) -> int:
        return 400 if path.is_relative_to(PACKAGE) else 500

    counts = {path: len(path.read_text().splitlines()) for path in SOURCES}
    assert [f"{_name(path)}: {count}" for path, count in counts.items() if count > limit(path)] == []


def test_functions_fit_a_screen():
    """Of the package: half have five lines of code or fewer, none has more than 35; docstrings not counted."""
    lengths = sorted(
        _code_lines(node)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert statistics.median(lengths) <= 5
    assert lengths[-1] <= 35


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_every_module_says_which_question_it_answers():
    docs = {path: ast.get_docstring(ast.parse(path.read_text())) or "" for path in sorted(PACKAGE.rglob("*.py"))}
    assert [_name(path) for path, doc in docs.items() if len(doc) <= 30] == []


def test_every_error_that_a_test_expects_is_known_by_more_than_its_type():
    """By its words (``match=``), or where it has none by what it holds (``check=``); ruff's PT011 skips variables."""
    calls = [
        (path, node)
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"pytest.raises", "raises"}
    ]
    assert len(calls) > 100
    unknown = [(path, node) for path, node in calls if not {"match", "check"} & {each.arg for each in node.keywords}]
    assert sorted(f"{_name(path)}:{node.lineno}: {ast.unparse(node)}" for path, node in unknown) == []


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))
