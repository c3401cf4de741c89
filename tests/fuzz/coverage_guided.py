"""Where do lint and the importer differ, if a fuzzer that watches their branches chooses the bytes? Needs `atheris`.

Run by ``make fuzz`` when atheris is importable, or by hand with libFuzzer's own options::

    python -m tests.fuzz.coverage_guided -max_total_time=300 -print_final_stats=1 FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["airflow_vertex_batch"]):
    from tests.fuzz.cures import broken_promises
    from tests.fuzz.differential import disagreements
    from tests.fuzz.generate import request_file

from tests.core.lint_corpus import BAD
from tests.core.lint_corpus_good import GOOD, WARNED

#: The first byte says what the others are: choices for the generator, or the file itself.
CHOICES, FILE = b"\0", b"\1"


class Choices:
    """The generator's choices, taken from the fuzzer's bytes."""

    def __init__(self, data: bytes) -> None:
        self._provider: Any = atheris.FuzzedDataProvider(data)

    def randrange(self, stop: int) -> int:
        """Return a number below `stop`; 0 when the bytes are used up."""
        return int(self._provider.ConsumeIntInRange(0, stop - 1))


def check(data: bytes) -> None:
    """Compare both readings of one file.

    :raises AssertionError: when they differ.
    """
    file = request_file(Choices(data[1:])) if data[:1] == CHOICES else data[1:]
    if found := disagreements(file):
        raise AssertionError(f"{found}\n{file!r}")
    for row in file.splitlines(keepends=True):
        if broken := list(broken_promises(row)):
            raise AssertionError(f"{broken}\n{row!r}")


def write_seeds(folder: Path) -> None:
    """Write the corpus of lint as files to begin with."""
    files = [*GOOD.values(), *(lines for lines, _ in (*BAD.values(), *WARNED.values()))]
    for number, lines in enumerate(files):
        data = b"".join(lines)
        if len(data) < 4_000:
            (folder / f"seed-{number}").write_bytes(FILE + data)


if __name__ == "__main__":
    write_seeds(Path(sys.argv[-1]))
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
