"""Who may import whom, and how long a file may be: the promises that keep the code readable, kept by tests."""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_over_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500


def test_functions_fit_a_screen():
    """Of the package: half have eight lines of code or fewer, nine of ten have 25 or fewer; docstrings not counted."""
    lengths = sorted(
        _code_lines(node)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert statistics.median(lengths) <= 8
    assert lengths[len(lengths) * 9 // 10] <= 25


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_which_question_it_answers(path):
    assert len(ast.get_docstring(ast.parse(path.read_text())) or "") > 30
