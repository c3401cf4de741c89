"""Do lint and the emulator's importer agree about this file? Two readings of one documentation check each other.

Four promises, for any bytes: where the importer refuses the job, lint has an error at that line; where the service
would refuse the row, lint has an error at that line (a name that is unknown to both is a warning: it may be newer than
either); a file without errors is imported whole; and so is what is left
of any file when lint rejects its bad lines one by one, as prepare does.
"""

from __future__ import annotations

import io
import re

from airflow_vertex_batch.core.requests.lint import Finding, Linter
from airflow_vertex_batch.emulator.importer import Importer, JobFailedError, decode, read_lines
from airflow_vertex_batch.emulator.rowcheck import canonical, problem_of

_POSITION = re.compile(r"in the row that starts at position (\d+)\)")
_MOST_BYTES = 100_000_000
_UNKNOWN_NAME = "Invalid JSON payload received. Unknown name"


def lint(data: bytes, *, shortcut: bool = True, model: str = "") -> list[Finding]:
    """Return what lint finds in a file."""
    linter = Linter("requests.jsonl", shortcut=shortcut, model=model)
    found = [finding for number, row in enumerate(io.BytesIO(data), 1) for finding in linter.check(number, row)]
    return found + linter.finish()


def refusals(data: bytes, model: str = "") -> dict[int, str]:
    """Return what the emulator refuses: line → its words; the first line the importer refuses is the last looked at.

    Line 0 stands for the file as a whole.

    :param model: that is asked; empty where nobody knows.
    """
    importer, found = Importer(), {}
    try:
        for position, line in read_lines(io.BytesIO(data), _MOST_BYTES):
            number = data.count(b"\n", 0, position) + 1
            importer.feed(line, "requests.jsonl", position)
            row = decode(line.removeprefix(b"\xef\xbb\xbf"))
            if row.get("response"):
                continue
            problem = problem_of(canonical(row.get("request")), lambda _: True, model=model)
            if problem and not problem.startswith(_UNKNOWN_NAME):
                found[number] = f"row: {problem}"
        importer.finish("requests.jsonl")
    except JobFailedError as error:
        at = _POSITION.search(error.message)
        found[data.count(b"\n", 0, int(at[1])) + 1 if at else 0] = f"job: {error.message}"
    return found


def disagreements(data: bytes, model: str = "") -> list[str]:
    """Say what the emulator refuses and lint does not; empty when the promises hold."""
    errors = {finding.line for finding in lint(data, model=model) if finding.severity == "error"}
    found = [
        f"line {number}: {words}"
        for number, words in refusals(data, model).items()
        if (number not in errors if number else not errors)
    ]
    kept = left_over(data, model)
    return found + [
        f"line {number} of what is left: {words}" for number, words in refusals(kept, model).items() if kept
    ]


def left_over(data: bytes, model: str = "") -> bytes:
    """Return the file without the lines that lint rejects."""
    linter, kept = Linter("requests.jsonl", rejecting=True, model=model), []
    for number, row in enumerate(io.BytesIO(data), 1):
        if not any(finding.severity == "error" for finding in linter.check(number, row)):
            kept.append(row if row.endswith(b"\n") else row + b"\n")
    return b"".join(kept)


def smallest(data: bytes) -> bytes:
    """Return a smaller file that still disagrees: lines are left out one by one."""
    rows = data.splitlines(keepends=True)
    for index in range(len(rows) - 1, -1, -1):
        fewer = rows[:index] + rows[index + 1 :]
        if disagreements(b"".join(fewer)):
            rows = fewer
    return b"".join(rows)
