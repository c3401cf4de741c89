"""What the package imports is what pyproject.toml says that it needs, and no more."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "airflow_vertex_batch"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Modules of packages that another one of ours promises to bring: it has them in its own interface.
BROUGHT = {
    "google.api_core": "google-cloud-storage",
    "urllib3": "requests",
    "sqlalchemy": "apache-airflow",
}
#: Where modules have another name than their package.
MODULES = {
    "apache-airflow": "airflow",
    "apache-airflow-providers-common-compat": "airflow.providers.common.compat",
    "apache-airflow-providers-google": "airflow.providers.google",
    "apache-airflow-providers-standard": "airflow.providers.standard",
    "google-auth": "google.auth",
    "google-cloud-bigquery": "google.cloud.bigquery",
    "google-cloud-storage": "google.cloud.storage",
}
#: The local model is looked for, and the emulator answers without it.
EXTRAS = ("emulator", "local-model")


def names(requirements):
    """The names of packages in a list of requirements."""
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


def imported_by(file: Path) -> set[str]:
    """Every name that a file imports, in full."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported(folder: Path) -> set[str]:
    """Every module that is imported anywhere below a folder, by its full name."""
    found = set().union(*map(imported_by, folder.rglob("*.py")))
    ours = {*sys.stdlib_module_names, "airflow_vertex_batch"}
    return {name for name in found if name.partition(".")[0] not in ours}


def owner(module: str, owners: dict[str, str]) -> str | None:
    """The package that a module belongs to: the longest name wins."""
    fits = [name for name in owners if f"{module}.".startswith(f"{name}.")]
    return owners[max(fits, key=len)] if fits else None


def used(folder: Path, declared: set[str]) -> tuple[set[str], set[str]]:
    """The declared packages that are imported, and the modules that belong to none."""
    owners = {MODULES.get(name, name.replace("-", "_")): name for name in declared} | BROUGHT
    found = {module: owner(module, owners) for module in imported(folder)}
    return {name for name in found.values() if name}, {module for module, name in found.items() if name is None}


def test_every_import_is_declared_and_everything_declared_is_imported():
    extras = set().union(*(names(PROJECT["optional-dependencies"][extra]) for extra in EXTRAS))
    needed = names(PROJECT["dependencies"])
    found, unknown = used(PACKAGE, needed | extras)
    assert unknown == set()
    assert found == needed | extras


def test_what_only_the_emulator_and_the_model_import_is_an_extra():
    folders = [path for path in PACKAGE.iterdir() if path.is_dir() and path.name != "emulator"]
    tops = {module.partition(".")[0] for folder in folders for module in imported(folder)}
    assert {"airflow", "google"} <= tops
    assert not {"starlette", "uvicorn", "xllamacpp"} & tops


#: Where Airflow 3.1 does not have what 3.3 has there; `airflow.providers.common.compat.sdk` has it on both.
MOVED = ("airflow.sdk.conf", "airflow.sdk.configuration", "airflow.sdk.exceptions", "airflow.sdk.plugins_manager")
#: In all of them.
STAYED = {"airflow.sdk.exceptions.AirflowRuntimeError"}


def test_what_moved_in_airflow_is_imported_from_where_every_airflow_has_it():
    modules = {
        str(file.relative_to(PACKAGE)): imported_by(file) for file in PACKAGE.rglob("*.py") if file.name != "compat.py"
    }
    wrong = {
        file: moved
        for file, names in modules.items()
        if (moved := {name for name in names - STAYED if f"{name}.".startswith(tuple(f"{place}." for place in MOVED))})
    }
    assert wrong == {}


def test_every_bound_is_met_here():
    """Each package is there, at its lower bound or above it."""
    from packaging.requirements import Requirement

    missed = [
        text
        for text in PROJECT["dependencies"]
        if not (wanted := Requirement(text)).specifier.contains(importlib.metadata.version(wanted.name))
    ]
    assert missed == []
