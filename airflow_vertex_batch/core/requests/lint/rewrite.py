"""Where does a cured request file go, and what was changed in it? The originals stay as they are.

Invariants: no target is one of the files that are read. A target appears whole or not at all. Lines stream, and the
counts of cures are bounded. The cured lines are linted while they are written, the files together as one job.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import IO

import msgspec

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.ports import ObjectStore
from airflow_vertex_batch.core.requests.lint import Finding, Linter, fix_line
from airflow_vertex_batch.core.requests.sources import open_text

_NUMBERS = re.compile(r"\[\d+\]")
#: Kinds of cures counted one by one. Places are named, and the names of schemas are the author's.
_KINDS = 1_000
_OTHERS = "other cures"


class Cure(msgspec.Struct, frozen=True):
    """One kind of cure in one file.

    :param source: the file that was read.
    :param what: what was done, without the numbers of list elements.
    :param first_line: 1-based line of the first one in `source`.
    """

    source: str
    what: str
    line_count: int
    first_line: int

    def as_dict(self) -> dict[str, str | int]:
        """Return the members for JSON output."""
        return msgspec.structs.asdict(self)

    def __str__(self) -> str:
        """Read as one line of a compiler's output."""
        lines = "line" if self.line_count == 1 else "lines"
        return f"{self.source}:{self.first_line}: cured: {self.what} ({self.line_count:,} {lines})"


def targets(sources: Iterable[Uri], folder: Uri | None = None) -> dict[Uri, Uri]:
    """Return where the cured copy of each file goes: beside it as ``name.fixed.jsonl``, or into a folder by its name.

    A source that is another's target is the result of an earlier run, and left out.

    :raises InputError: when a copy would stand in place of a file that is read, or of another copy.
    """
    found = list(dict.fromkeys(sources))
    made = {source: _beside(source) if folder is None else folder / _plain(source.basename) for source in found}
    if folder is None:
        copies = set(made.values())
        made = {source: target for source, target in made.items() if source not in copies}
    taken: dict[str, Uri] = {_place(source): source for source in found if folder is not None}
    for source, target in made.items():
        if (other := taken.setdefault(_place(target), source)) is not source or _place(source) == _place(target):
            raise InputError(
                f"The cured copy of {source} would stand in place of {other if other is not source else source}",
                left="Nothing was written",
                todo="Name another --output folder",
            )
    return made


def rewrite(
    store: ObjectStore, pairs: dict[Uri, Uri], *, ignore: frozenset[str] = frozenset(), model: str = ""
) -> Iterator[Finding | Cure]:
    """Write the cured copies, and yield what was cured in each file and what is left, in the order it is known.

    :param pairs: source → target, from `targets`.
    :param ignore: names of rules to leave out.
    :param model: that the job will ask; empty where it is not known.
    """
    linter: Linter | None = None
    for source, target in pairs.items():
        if linter is None:
            linter = Linter(str(target), ignore=ignore, model=model)
        else:
            linter.next_file(str(target))
        counts: dict[str, tuple[int, int]] = {}
        with open_text(store, source) as lines, store.open_write(target) as written:
            yield from _copied(lines, written, linter, counts)
        yield from (Cure(str(source), what, count, first) for what, (count, first) in counts.items())
    if linter is not None:
        yield from linter.finish()


def _copied(
    lines: IO[bytes], written: IO[bytes], linter: Linter, counts: dict[str, tuple[int, int]]
) -> Iterator[Finding]:
    number = 0
    for source_number, raw in enumerate(lines, start=1):
        fixed, notes = fix_line(raw)
        for what in dict.fromkeys(_NUMBERS.sub("[]", note) for note in notes):
            kind = what if what in counts or len(counts) < _KINDS else _OTHERS
            count, first = counts.get(kind, (0, source_number))
            counts[kind] = (count + 1, first)
        if fixed:
            number += 1
            written.write(fixed)
            yield from linter.check(number, fixed)


def _plain(name: str) -> str:
    """A copy of a packed file is written unpacked: the service reads no ``.gz``."""
    return name.removesuffix(".gz")


def _beside(source: Uri) -> Uri:
    name = _plain(source.name)
    stem, dot, ending = name.rpartition(".")
    fixed = f"{stem}.fixed.{ending}" if dot and "/" not in ending else f"{name}.fixed.jsonl"
    return Uri(source.scheme, source.bucket, fixed)


def _place(uri: Uri) -> str:
    """One text for one place, however a local path is written."""
    if uri.scheme != "file":
        return str(uri)
    from pathlib import Path

    return str(Path(uri.name).resolve())
