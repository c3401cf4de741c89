"""What ``make demo`` and ``make up`` print for another terminal works as printed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from airflow_vertex_batch.emulator.scenario import Scenario
from stack import demo
from stack.__main__ import BAD_NIGHT, elsewhere


@pytest.fixture
def shell(stack, tmp_path):
    """Run a line in a shell that has read the variables, and no others; return what it printed."""
    (tmp_path / "requests.jsonl").write_text('{"request": {"contents": []}}\n')

    def run(line):
        env = {"PATH": os.defpath, "HOME": str(tmp_path)}
        command = ["sh", "-ec", f". {stack.variables}; {line}"]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def line_of(stack, word):
    """The command that stands behind a word."""
    lines = elsewhere(stack, demo.BUCKET).splitlines()
    [line] = [line for line in lines if line.startswith(word)]
    return line.removeprefix(word).strip()


needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")


@needs_curl
def test_a_file_is_uploaded(shell, stack, cloud):
    assert json.loads(shell(line_of(stack, "Upload a file")))["name"] == "requests/mine.jsonl"
    assert cloud.objects("requests/mine.jsonl")


@needs_curl
def test_the_emulator_is_asked_for_its_jobs(shell, stack):
    assert "jobs" in json.loads(shell(line_of(stack, "Jobs")))


def test_airflow_s_commands_know_this_airflow(shell, stack):
    assert shell("airflow config get-value core dags_folder").strip().endswith(str(stack.airflow.dags))


def test_our_commands_know_these_servers(shell, cloud):
    cloud.upload("requests/fine.jsonl", json.dumps(demo.ANIMALS) + "\n")
    said = shell(f"airflow-vertex-batch lint gs://{demo.BUCKET}/requests/fine.jsonl")
    assert said.endswith("errors: 0, warnings: 1\n"), said


def test_what_breaks_a_night_is_a_scenario(stack):
    text = line_of(stack, "Break it").partition("-d '")[2].removesuffix("'")
    assert json.loads(text) == BAD_NIGHT
    assert len(Scenario.parse(text).faults) == len(BAD_NIGHT["faults"])
