"""Would the service's importer accept these lines? One refused line makes the whole job fail, after hours in the queue.

Lines of one template differ only in their key, texts and files, and their keys are always valid. After one line with
the same kinds of parts was walked and found clean, the others can fail only by a text or an address. Only those are
then checked. Ready-made lines are walked one by one.

Invariants: no line passes that lint would report as an error in the job of its shard. Later lines are not compared with
a refused line. Memory does not grow with the lines.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.jsonl import decode, encode
from airflow_vertex_batch.core.requests.lint import Linter, file_uri, fix_line
from airflow_vertex_batch.core.requests.prepare.lines import HEAD, READY_MADE, Frame, Lines
from airflow_vertex_batch.core.requests.request import RowProblem

if TYPE_CHECKING:
    from collections.abc import Iterator
#: Kinds of parts to remember; a template has a handful.
_SHAPES = 64


class ImportCheck:
    """Lint, for the lines of one shard after the other.

    :param name: of the files, as messages shall show it.
    :param is_on: False lets everything pass.
    :param ignore: names of rules that let a line pass.
    :param model: that the job will ask; empty where it is not known.
    """

    def __init__(
        self, frame: Frame, name: str, *, is_on: bool, ignore: frozenset[str] = frozenset(), model: str = ""
    ) -> None:
        self._frame, self._name, self._is_on, self._ignore, self._model = frame, name, is_on, ignore, model
        self.next_shard()

    def next_shard(self) -> None:
        """Begin again. Lint compares lines only within a job (such as one type per path), and a shard is a job."""
        self._linter = Linter(self._name, ignore=self._ignore, rejecting=True, unique_keys=True, model=self._model)
        self._shapes: set[tuple[str, ...]] = set()

    def refused(self, lines: Lines) -> dict[int, RowProblem]:
        """Return which lines, by index, cannot be sent, and why."""
        if not self._is_on:
            return {}
        if self._frame is READY_MADE:
            found = iter([(index, self._look(lines, index)) for index in range(len(lines.keys))])
        else:
            found = self._by_shape(lines)
        return {index: problem for index, problem in found if problem is not None}

    def _by_shape(self, lines: Lines) -> Iterator[tuple[int, RowProblem | None]]:
        odd = {index for index, text in enumerate(lines.texts) if "\0" in text}
        if not lines.files and not odd and () in self._shapes:
            return
        odd.update(index for index, files in enumerate(lines.files) if any(map(_is_odd, files)))
        shapes = (
            (tuple(mime for _, mime in files) for files in lines.files) if lines.files else repeat((), len(lines.keys))
        )
        for index, shape in enumerate(shapes):
            if index in odd or shape not in self._shapes:
                problem = self._look(lines, index)
                yield index, problem
                if problem is None and len(self._shapes) < _SHAPES:
                    self._shapes.add(shape)

    def _look(self, lines: Lines, index: int) -> RowProblem | None:
        line = HEAD + lines.cores[index] + self._frame.tail
        for finding in self._linter.check(lines.placed[index][1], line):
            if finding.severity == "error":
                return RowProblem(finding.rule, f"{finding.path}: {finding.message}. {finding.cure}")
        return None


def cure(lines: Lines, index: int) -> bool:
    """Cure a ready-made line in place where its meaning stays the same; say whether there was anything to do."""
    cured, notes = fix_line(HEAD + lines.cores[index] + READY_MADE.tail)
    if notes:
        lines.bodies[index] = encode(decode(cured)["request"])
        lines.cores[index] = encode(lines.keys[index]) + READY_MADE.middle + lines.bodies[index]
    return bool(notes)


def _is_odd(file: tuple[str, str]) -> bool:
    return "\0" in file[0] or file_uri(file[0]) is not None
