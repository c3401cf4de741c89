"""What people install holds what the package needs. `make wheel` tries it; this only looks inside."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from airflow_vertex_batch.provider import get_provider_info

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "airflow_vertex_batch"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from this folder with the hatchling of this environment."""
    into = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", into, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [file] = into.iterdir()
    with zipfile.ZipFile(file) as opened:
        yield opened


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel):
    ours = {
        str(file.relative_to(ROOT)) for file in PACKAGE.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    }
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == ours


def test_airflow_finds_the_provider_and_the_plugin(wheel):
    [name] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    text = wheel.read(name).decode()
    assert "[apache_airflow_provider]" in text
    assert "[airflow.plugins]" in text
    assert "airflow-vertex-batch = airflow_vertex_batch.__main__:main" in text


def test_the_emulator_s_web_server_is_an_extra(wheel):
    [name] = [name for name in wheel.namelist() if name.endswith("METADATA")]
    lines = wheel.read(name).decode().splitlines()
    needed = [line for line in lines if line.startswith(("Requires-Dist: starlette", "Requires-Dist: uvicorn"))]
    assert [line.partition("; ")[2] for line in needed] == ["extra == 'emulator'"] * 2


def test_the_provider_names_only_modules_that_are_there(wheel):
    info = get_provider_info()
    kinds = ("operators", "sensors", "hooks", "triggers")
    modules = [module for kind in kinds for entry in info[kind] for module in entry["python-modules"]]
    classes = [*info["extra-links"], *(entry["class-name"] for entry in info["task-decorators"])]
    wanted = {*modules, *(name.rpartition(".")[0] for name in classes)}
    there = set(wheel.namelist())
    paths = {name.replace(".", "/") for name in wanted}
    assert {path for path in paths if not there & {f"{path}.py", f"{path}/__init__.py"}} == set()
