"""On which Airflows and Pythons do the tests of the edge pass, with the newest dependencies and with the oldest?

Run by ``make matrix``, which is ``python -m tools.matrix``. Each cell of the matrix is one Airflow, one Python and one
resolution of the dependencies in pyproject.toml: ``highest``, or ``lowest-direct`` (our own dependencies at their lower
bounds). Each cell has its own environment below ``.local/matrix``, which uv makes and keeps. Its tests are those of the
edge (`EDGE`); with ``lowest-direct`` also those of the layers below (`BELOW`), because these check the other bounds.
``--live`` also runs a nightly batch, a clear and a kill in a real Airflow of that cell (`LIVE`).

The counts go into docs/compatibility.md; a cell that is not run keeps what the page says. Exit status: 0 every test of
every cell passed, 1 one did not, or a cell could not be made.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from xml.etree import ElementTree as ET

from stack.chaos import document

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".local" / "matrix"
PAGE = ROOT / "docs" / "compatibility.md"
_UV = ROOT / ".local" / "uv" / "bin" / "uv"

#: Stands for the newest release that pyproject.toml allows.
NEWEST = "newest"
AIRFLOWS = ("3.1.8", "3.2.2", NEWEST)
PYTHONS = ("3.11", "3.13")
RESOLUTIONS = ("highest", "lowest-direct")
#: Tests of code that imports Airflow, and so may differ between its versions.
EDGE = ("tests/airflow", "tests/test_parameters.py", "tests/test_public_api.py")
BELOW = ("tests/core", "tests/gcp", "tests/emulator/test_server.py")
#: The nightly DAG in every way a run can begin, every example, a clear and a mark failed of a waiting task; a person's
#: answer.
LIVE = ("tests/airflow/test_runs.py", "tests/airflow/test_budget.py::TestInARealAirflow")
HEADERS = ("Airflow", "Python", "Dependencies", "Passed", "Failed", "Skipped", "A live night")
_COUNTS, _LIVE = (3, 4, 5), 6
_NOT_RUN = "not run"


@dataclass(frozen=True)
class Cell:
    """One environment.

    :param airflow: a version, in full.
    :param python: a minor version, such as 3.11.
    :param resolution: ``highest`` or ``lowest-direct``.
    """

    airflow: str
    python: str
    resolution: str

    @property
    def home(self) -> Path:
        """The folder of its environment."""
        return HOME / f"airflow-{self.airflow}-python-{self.python}-{self.resolution}"

    @property
    def key(self) -> list[str]:
        """The first cells of its line in the table."""
        return [self.airflow, self.python, self.resolution]

    def __str__(self) -> str:
        """Its name for people."""
        return f"Airflow {self.airflow}, Python {self.python}, {self.resolution}"

    def make(self, *, live: bool) -> None:
        """Make its environment, or bring it up to date.

        :param live: with what runs a real Airflow.
        :raises subprocess.CalledProcessError: when uv could not.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        pinned, ours, tests = (self.home / name for name in ("airflow.in", "package.txt", "tests.txt"))
        pinned.write_text(f"apache-airflow=={self.airflow}\n")
        wanted = ("--extra", "emulator", "--extra", "local", "--resolution", self.resolution)
        self._compile(ours, "pyproject.toml", *wanted, "--constraint", str(pinned))
        extra = ("requirements/live.in",) if live else ()
        self._compile(tests, "requirements/test.in", *extra, "--constraint", str(ours))
        venv = self.home / "venv"
        if not (venv / "bin" / "python").exists():
            _uv("venv", "--python", self.python, str(venv))
        _uv("pip", "sync", "--python", str(venv), str(ours), str(tests))
        _uv("pip", "install", "--python", str(venv), "--no-deps", "--editable", str(ROOT))

    def _compile(self, into: Path, *arguments: str) -> None:
        _uv("pip", "compile", "--quiet", "--python-version", self.python, "-o", str(into), *arguments)

    def test(self, what: Sequence[str], name: str, arguments: Sequence[str]) -> Counts:
        """Run tests, with their output in ``NAME.log``, and return their counts."""
        report, log = self.home / f"{name}.xml", self.home / f"{name}.log"
        report.unlink(missing_ok=True)
        command = [str(self.home / "venv" / "bin" / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        with log.open("w") as output:
            subprocess.run(
                [*command, f"--junitxml={report}", *arguments, *what],
                cwd=ROOT,
                env={**_environment(), "AIRFLOW_HOME": str(self.home / "airflow")},
                stdout=output,
                stderr=output,
                check=False,
            )
        return Counts.read(report)


@dataclass(frozen=True)
class Counts:
    """The result of some tests.

    :param failures: the names of the tests that failed; of a run that did not begin, that.
    """

    passed: int
    skipped: int
    failures: tuple[str, ...]

    @classmethod
    def read(cls, report: Path) -> Self:
        """Read a report in the form of JUnit."""
        if not report.exists():
            return cls(0, 0, ("the tests did not begin",))
        # Written by the pytest that we called.
        cases = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314
        failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
        skipped = sum(case.find("skipped") is not None for case in cases)
        names = tuple(f"{case.get('classname')}::{case.get('name')}" for case in failed)
        return cls(len(cases) - len(failed) - skipped, skipped, names)

    @property
    def cells(self) -> list[str]:
        """Their cells in the table."""
        return [f"{self.passed:,}", str(len(self.failures)), str(self.skipped)]

    @property
    def verdict(self) -> str:
        """They in few words."""
        return f"{self.passed} passed" if not self.failures else f"{len(self.failures)} failed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cells that are asked for; return the exit status."""
    options = _options(arguments)
    is_clean = True
    for cell in _cells(options.airflow, options.python, options.resolution):
        news: dict[int, str] = {}
        is_clean &= _run(cell, news, live=options.live, arguments=options.tests)
        if not options.keep_page:
            _note(cell, news)
    return 0 if is_clean else 1


def _note(cell: Cell, news: dict[int, str]) -> None:
    """Write the new values of a cell into its line of the page. The page is read again first, because another process
    may have run other cells.
    """
    lines = {tuple(line[:3]): line for line in document.read(PAGE, "matrix")}
    line = lines.setdefault(tuple(cell.key), [*cell.key, *[_NOT_RUN] * (len(HEADERS) - 3)])
    for column, text in news.items():
        line[column] = text
    document.write(PAGE, "matrix", HEADERS, sorted(lines.values(), key=_order))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make matrix", description="The tests of the edge on other Airflows.")
    parser.add_argument("--airflow", action="append", metavar="VERSION", help=f"of {', '.join(AIRFLOWS)}, or any other")
    parser.add_argument("--python", action="append", metavar="VERSION", help=f"of {', '.join(PYTHONS)}, or any other")
    parser.add_argument("--resolution", action="append", choices=RESOLUTIONS)
    parser.add_argument("--live", action="store_true", help="also run a night, a clear and a kill in a real Airflow")
    parser.add_argument("--keep-page", action="store_true", help="do not write docs/compatibility.md")
    parser.add_argument("tests", nargs="*", metavar="-- ARGUMENT", help="arguments for pytest, after --")
    options = parser.parse_args(arguments)
    for name, default in (("airflow", AIRFLOWS), ("python", PYTHONS), ("resolution", RESOLUTIONS)):
        setattr(options, name, getattr(options, name) or list(default))
    return options


def _cells(airflows: Iterable[str], pythons: Sequence[str], resolutions: Sequence[str]) -> Iterator[Cell]:
    for airflow in airflows:
        version = _newest() if airflow == NEWEST else airflow
        for python in pythons:
            for resolution in resolutions:
                yield Cell(version, python, resolution)


def _run(cell: Cell, news: dict[int, str], *, live: bool, arguments: Sequence[str]) -> bool:
    """Run one cell; return whether all is well.

    :param news: takes what came of it, by column of the table.
    """
    print(f"{cell} …", flush=True)
    began = time.monotonic()
    try:
        cell.make(live=live)
    except subprocess.CalledProcessError as error:
        print(f"  could not be made: {error.stderr.strip()[-2000:]}")
        return False
    what = [*EDGE, *(BELOW if cell.resolution == "lowest-direct" else ())]
    found = {"tests": cell.test(what, "tests", ["-m", "not airflow and not browser", *arguments])}
    news.update(zip(_COUNTS, found["tests"].cells, strict=True))
    if live:
        found["live"] = cell.test(LIVE, "live", ["-p", "no:xdist", *arguments])
        news[_LIVE] = found["live"].verdict
    for name, counts in found.items():
        print(f"  {name}: {counts.verdict}, {counts.skipped} skipped; {cell.home.relative_to(ROOT)}/{name}.log")
        print("".join(f"    {failure}\n" for failure in counts.failures[:50]), end="")
    print(f"  {time.monotonic() - began:.0f} s", flush=True)
    return not any(counts.failures for counts in found.values())


def _order(line: Sequence[str]) -> list[list[int]]:
    return [[int(part) for part in re.findall(r"\d+", cell)] for cell in line[:2]]


def _newest() -> str:
    """Return the newest Airflow that pyproject.toml allows."""
    said = _uv("pip", "compile", "--quiet", "--no-annotate", "--python-version", PYTHONS[-1], "pyproject.toml")
    found = re.search(r"^apache-airflow==(\S+)", said, re.MULTILINE)
    assert found is not None, said
    return found[1]


def _uv(*arguments: str) -> str:
    done = subprocess.run(
        [str(_UV), *arguments], cwd=ROOT, env=_environment(), text=True, capture_output=True, check=True
    )
    return done.stdout


def _environment() -> dict[str, str]:
    """Return the environment of uv and of the tests: uv finds pyenv's Pythons, and no active environment counts."""
    kept = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    path = [kept.get("PATH", ""), *(str(found / "bin") for found in sorted(pyenv.glob("3.*")))]
    more = {"PATH": os.pathsep.join(path), "UV_PYTHON_INSTALL_DIR": str(ROOT / ".local" / "python")}
    if "PIP_INDEX_URL" in kept and not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & kept.keys():
        more["UV_DEFAULT_INDEX"] = kept["PIP_INDEX_URL"]
    return {**kept, **more, "UV_NO_PROGRESS": "1"}


if __name__ == "__main__":
    sys.exit(main())
