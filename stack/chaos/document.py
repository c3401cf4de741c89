"""How does a measured table get into a page of the documentation, and how is the page held to it?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def read(page: Path, name: str) -> list[list[str]]:
    """Return the cells of a page's table, without its head.

    :raises ValueError: when the page has no such table.
    """
    found = _place(name).search(page.read_text())
    if found is None:
        raise ValueError(f"{page} has no table {name!r}")
    return [line[2:-2].split(" | ") for line in found[2].strip().splitlines()[2:]]


def write(page: Path, name: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Put a table between the two marks of its name."""
    table = "\n".join(map(_line, [headers, ["---"] * len(headers), *rows]))
    page.write_text(_place(name).sub(lambda found: f"{found[1]}\n{table}\n{found[3]}", page.read_text()))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _place(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name}: begin[^>]*-->)(.*?)(<!-- {name}: end -->)", re.DOTALL)
