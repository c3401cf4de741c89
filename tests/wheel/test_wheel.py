"""The wheel by itself, in an environment that holds nothing but it and what it needs: its own commands and Airflow's.

`make wheel` makes that environment and runs these tests; tests/test_distribution.py is the part of it that needs none.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import airflow_vertex_batch
from airflow_vertex_batch.provider import get_provider_info
from tools.wheel import VARIABLE

pytestmark = pytest.mark.skipif(VARIABLE not in os.environ, reason="`make wheel` makes the environment for it")
NAME = "airflow-vertex-batch"
GOOD = {"request": {"contents": [{"role": "user", "parts": [{"text": "x"}]}]}}
BAD = {"request": {"contents": []}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a command of the environment, in a folder that has nothing to do with ours."""
    folder = tmp_path_factory.mktemp("elsewhere")
    programs = Path(os.environ[VARIABLE]).parent
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "AIRFLOW_HOME": str(folder / "airflow")}

    def call(program: str, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [str(programs / program), *arguments], cwd=folder, env=env, text=True, capture_output=True, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    call.folder = folder
    return call


def test_the_package_is_the_installed_one_and_says_its_version(run):
    code = "import airflow_vertex_batch as p; print(p.__file__); print(p.__version__)"
    file, version = run("python", "-c", code).splitlines()
    assert "site-packages" in file
    assert version == airflow_vertex_batch.__version__


def test_every_public_name_can_be_imported(run):
    code = "import airflow_vertex_batch as p; print(*sorted(n for n in p.__all__ if getattr(p, n) is not None))"
    assert run("python", "-c", code).splitlines()[-1].split() == sorted(airflow_vertex_batch.__all__)


def test_its_version_is_told(run):
    assert run(NAME, "--version") == f"{airflow_vertex_batch.__version__}\n"


@pytest.mark.parametrize(("line", "status", "said"), [(GOOD, 0, ""), (BAD, 1, "contents")], ids=["good", "bad"])
def test_lint_needs_no_extra(run, line, status, said):
    (run.folder / "requests.jsonl").write_text(json.dumps(line) + "\n")
    assert said in run(NAME, "lint", "requests.jsonl", status=status)


def test_the_emulator_says_which_extra_is_missing(run):
    """Airflow has the emulator's web server too (3.3.2), so it is taken away here."""
    code = (
        "import sys; sys.modules['starlette'] = None; from airflow_vertex_batch.__main__ import main; sys.exit(main())"
    )
    assert f"Install {NAME}[emulator]" in run("python", "-c", code, "emulator", "--port", "0", status=2)


class TestWhatAirflowSees:
    def test_the_provider_is_complete(self, run):
        [provider] = json.loads(run("airflow", "providers", "get", NAME, "--full", "-o", "json"))
        assert provider["package-name"] == NAME
        text = json.dumps(provider)
        info = get_provider_info()
        kinds = ("operators", "sensors", "hooks", "triggers")
        modules = [module for kind in kinds for entry in info[kind] for module in entry["python-modules"]]
        classes = [entry["class-name"] for entry in info["task-decorators"]]
        wanted = [*modules, *classes, *info["extra-links"], *info["config"]["vertex_batch"]["options"]]
        assert [name for name in wanted if name not in text] == []

    @pytest.mark.parametrize(
        ("command", "said"),
        [
            ("list", NAME),
            ("links", "airflow_vertex_batch.links.VertexBatchJobLink"),
            ("triggers", "airflow_vertex_batch.triggers"),
            ("configs", NAME),
        ],
    )
    def test_and_listed(self, run, command, said):
        assert said in run("airflow", "providers", command, "-o", "plain")

    def test_an_option_has_its_default(self, run):
        assert run("airflow", "config", "get-value", "vertex_batch", "location").strip().splitlines()[-1:] in ([], [""])

    def test_the_macro_is_there(self, run):
        assert "vertex_batch" in run("airflow", "plugins", "-o", "plain")
