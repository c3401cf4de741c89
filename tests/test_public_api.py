"""The public names are stable: each can be imported from the package and from its module, and nothing is missing."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import airflow_vertex_batch

#: The promise of the first release: name → module.
PUBLIC = {
    "VertexBatchCancelJobOperator": "operators",
    "VertexBatchCreateJobOperator": "operators",
    "VertexBatchExportOperator": "operators",
    "VertexBatchHook": "hooks",
    "VertexBatchJobSensor": "sensors",
    "VertexBatchJobTrigger": "triggers",
    "VertexBatchOperator": "operators",
    "VertexBatchPreflightOperator": "operators",
    "VertexBatchPrepareOperator": "operators",
    "VertexBatchRepairOperator": "operators",
    "VertexBatchSweepOperator": "operators",
    "partition_date": "macros",
    "vertex_batch": "operators.group",
}


@pytest.mark.parametrize(("name", "module"), PUBLIC.items())
def test_each_name_is_one_object_wherever_it_is_imported_from(name, module):
    found = getattr(airflow_vertex_batch, name)
    assert found is getattr(importlib.import_module(f"airflow_vertex_batch.{module}"), name)
    assert found.__name__ == name
    assert found.__doc__


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_listed(name):
    assert name in airflow_vertex_batch.__all__
    assert name in dir(airflow_vertex_batch)


def test_editors_are_told_the_same_names():
    """What a type checker sees under TYPE_CHECKING is what is loaded lazily."""
    tree = ast.parse(Path(airflow_vertex_batch.__file__).read_text())
    told = {
        (alias.asname or alias.name, node.module.removeprefix("airflow_vertex_batch."))
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == {(name, module) for name, module in airflow_vertex_batch._MODULE_OF.items()}
    assert {name for name, _ in told} | {"__version__"} == set(airflow_vertex_batch.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'VertexBatchTeapot'"):
        airflow_vertex_batch.VertexBatchTeapot  # noqa: B018 - looking it up is the test


def test_the_version_is_the_distribution_s():
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert re.search(r'^version = "(.*)"$', text, re.MULTILINE)[1] == airflow_vertex_batch.__version__
