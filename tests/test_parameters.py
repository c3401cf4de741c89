"""The doors are typed: editors, type checkers and `help()` know every parameter, and no other."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.bases.sensor import BaseSensorOperator

import airflow_vertex_batch as avb
from airflow_vertex_batch import decorators, parameters
from airflow_vertex_batch.core.domain.errors import InputError
from stack.chaos import document
from tests import parameter_groups
from tests.airflow.versions import NEWER_ARGUMENTS, since_3_3

ROOT = Path(__file__).resolve().parents[1]
#: What a type checker is told of each, beside the parameters that its own `__init__` spells out.
TOLD = {
    avb.VertexBatchPrepareOperator: parameters.PrepareSharedParameters,
    avb.VertexBatchCreateJobOperator: parameters.CreateSharedParameters,
    avb.VertexBatchCancelJobOperator: parameters.NamedCommonParameters,
    avb.VertexBatchJobSensor: parameters.WaitSharedParameters,
    avb.VertexBatchRepairOperator: parameters.RepairSharedParameters,
    avb.VertexBatchExportOperator: parameters.ExportSharedParameters,
    avb.VertexBatchOperator: parameters.BatchParameters,
    avb.VertexBatchPreflightOperator: parameters.PrepareSharedParameters,
    avb.VertexBatchSweepOperator: parameters.NamedCommonParameters,
}
AIRFLOWS = {
    *inspect.signature(BaseOperator.__init__).parameters,
    *inspect.signature(BaseSensorOperator.__init__).parameters,
}


def own(kind):
    """The parameters that a class spells out itself."""
    found = inspect.signature(kind.__init__).parameters.values()
    return {each.name for each in found if each.kind is inspect.Parameter.KEYWORD_ONLY}


def text(annotation):
    """An annotation as it is written."""
    return getattr(annotation, "__forward_arg__", annotation).replace("'", '"')


@pytest.mark.parametrize("kind", TOLD, ids=lambda kind: kind.__name__)
class TestAnOperator:
    def test_takes_what_type_checkers_are_told(self, kind):
        told = {*TOLD[kind].__annotations__} | (own(kind) if TOLD[kind] is not parameters.BatchParameters else set())
        assert {*inspect.signature(kind).parameters} == told - NEWER_ARGUMENTS

    def test_of_the_same_types(self, kind):
        shown, told = inspect.signature(kind).parameters, TOLD[kind].__annotations__
        ours = shown.keys() & told.keys() - AIRFLOWS
        assert {name: text(shown[name].annotation) for name in ours} == {name: text(told[name]) for name in ours}

    def test_shows_them_in_help_by_name(self, kind):
        assert "kwargs" not in str(inspect.signature(kind))


class TestTheGroup:
    def test_takes_what_type_checkers_are_told(self):
        told = {*parameters.GroupParameters.__annotations__, "group_id", "model", "preflight", "task_args", "step_args"}
        assert {*inspect.signature(avb.vertex_batch).parameters} == told

    def test_is_told_of_every_argument_of_a_task(self):
        assert {*parameters.TaskParameters.__annotations__} - NEWER_ARGUMENTS == {
            *inspect.signature(BaseOperator.__init__).parameters
        } - {"self", "kwargs", "task_id"}


class TestTheDecorator:
    def test_takes_what_type_checkers_are_told(self):
        told = {*parameters.DecoratorParameters.__annotations__, "python_callable"}
        assert {*inspect.signature(decorators.vertex_batch_task).parameters} == told - NEWER_ARGUMENTS

    @pytest.mark.parametrize("name", parameters.SourceParameters.__annotations__)
    def test_takes_no_source_but_its_function(self, name):
        with pytest.raises(InputError, match=rf"takes no {name}\. What the function yields are the rows"):
            decorators.vertex_batch_task(model="m", **{name: "x"})


@since_3_3
class TestThePage:
    """`docs/parameters.md` says what there is; `PARAMETERS_DOC=1` writes it."""

    @pytest.mark.parametrize(
        ("table", "headers", "cells"),
        [
            ("groups", ("group", "parameters", "names"), parameter_groups.groups),
            ("counts", parameter_groups.COUNT_HEADERS, parameter_groups.counts),
            ("others", ("callable", "parameters", "names"), parameter_groups.others),
        ],
    )
    def test_says_what_there_is(self, table, headers, cells):
        if os.environ.get("PARAMETERS_DOC"):
            document.write(parameter_groups.PAGE, table, headers, cells())
        assert document.read(parameter_groups.PAGE, table) == cells()

    def test_has_each_parameter_in_one_group(self):
        grouped = [name for known in parameter_groups.GROUPS.values() for name in known]
        shown = {name for door in parameter_groups.CALLABLES.values() for name in parameter_groups.names(door)}
        assert sorted(grouped) == sorted(shown - parameter_groups.AIRFLOWS)

    def test_has_every_public_callable(self):
        public = {name for name in avb.__all__ if name != "__version__"} | {"@task.vertex_batch"}
        assert {name.removesuffix("()") for name in {**parameter_groups.CALLABLES, **parameter_groups.OTHERS}} == public


DAG_FILE = "tests/typing_cases/dag.py"


def test_mypy_finds_what_is_wrong_in_a_dag_file_and_nothing_else():
    pytest.importorskip("mypy", reason="The environments of `make matrix` have no type checker")
    command = [sys.executable, "-m", "mypy", "--strict", DAG_FILE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "Success: no issues found in 1 source file\n"), done.stdout


def test_so_does_pyright():
    """As editors run it: in its standard mode, blind to the comments that are for mypy."""
    config = Path(DAG_FILE).with_name("pyrightconfig.json")
    pytest.importorskip("basedpyright", reason="The environments of `make matrix` have no type checker")
    program = Path(sys.executable).with_name("basedpyright")
    command = [program, "-p", config, "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    found = json.loads(done.stdout)["generalDiagnostics"]
    lines = (ROOT / DAG_FILE).read_text().splitlines()
    wrong = [number for number, line in enumerate(lines) if "# type: ignore" in line]
    assert len(wrong) >= 20
    assert sorted({each["range"]["start"]["line"] for each in found}) == wrong, done.stdout
