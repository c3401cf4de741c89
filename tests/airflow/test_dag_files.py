"""Every DAG file can be read by this Airflow: the examples, and those that the tests of a real Airflow run."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from airflow.sdk import DAG

ROOT = Path(__file__).resolve().parents[2]
FILES = [*sorted(ROOT.glob("dags/*.py")), *sorted(ROOT.glob("tests/airflow/dags/*.py"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_can_be_read(file, monkeypatch):
    monkeypatch.setenv("VERTEX_BATCH_BUCKET", "a-bucket")
    named = [found for found in runpy.run_path(str(file)).values() if isinstance(found, DAG)]
    assert all(dag.task_dict for dag in named)
