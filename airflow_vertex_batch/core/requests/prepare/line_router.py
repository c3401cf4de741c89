"""Where does each line go? Into a shard, or into one of the files beside the shards: rejected, duplicates or known.

Invariants: each line ends in exactly one place. A line is checked against the importer's rules in the job of its shard.
Only lines that are written can have duplicates. Memory does not grow with the lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.requests.prepare.import_check import ImportCheck, cure
from airflow_vertex_batch.core.requests.prepare.keys import Digests, SeenKeys
from airflow_vertex_batch.core.requests.prepare.lines import Lines
from airflow_vertex_batch.core.requests.prepare.unsent import Rejected, UnsentRows
from airflow_vertex_batch.core.requests.prepare.weight import WeightCounter
from airflow_vertex_batch.core.requests.request import Digester, RowProblem

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterable

    from airflow_vertex_batch.core.requests.prepare.lines import Maker
    from airflow_vertex_batch.core.requests.prepare.plan import PreparePlan
    from airflow_vertex_batch.core.requests.prepare.shards import ShardWriter
    from airflow_vertex_batch.core.requests.sources import Placed

#: Rows that are handled together, as long as they have no more than so many bytes: what a processor's cache holds.
_CHUNK_ROWS, CHUNK_BYTES = 512, 1 << 21
FIRST_CHUNK_ROWS = 16


class LineRouter:
    """Takes rows, or lines, chunk by chunk.

    :param stack: closes the temporary files.
    """

    def __init__(self, maker: Maker, plan: PreparePlan, writer: ShardWriter, stack: contextlib.ExitStack) -> None:
        self._maker, self._plan, self._writer, self._stack = maker, plan, writer, stack
        self._keys = stack.enter_context(SeenKeys())
        self.rejected = stack.enter_context(Rejected(plan.on_rejected_row, plan.max_rejected_ratio))
        self.duplicates = stack.enter_context(UnsentRows("duplicates.jsonl"))
        self.known = stack.enter_context(UnsentRows("known.jsonl"))
        self._sent = stack.enter_context(Digests()) if plan.deduplicate else None
        self._answered: Digests | None = None
        self._digester = Digester(plan.model)
        self._import_check = ImportCheck(
            maker.frame, str(writer.folder), is_on=plan.lint, ignore=plan.lint_ignore, model=plan.model
        )
        self.weight_counter = WeightCounter()
        self.row_count = self.fixed_count = 0
        #: Lines of this chunk that were cured, by key, and what was wrong with them.
        self._cured: dict[str, RowProblem] = {}

    def skip(self, digests: Iterable[str]) -> None:
        """Let no request pass that has one of the digests."""
        self._answered = self._stack.enter_context(Digests())
        self._answered.add((digest, "") for digest in digests)

    def add(self, chunk: list[Placed]) -> int:
        """Take some rows, and return how many to take next.

        :raises InputError: when rejected rows fail the task.
        """
        self.row_count += len(chunk)
        lines = self._with_unique_keys(self._maker.make(chunk, self.rejected))
        self._maker.complete(lines)
        size = self._send(lines)
        self.rejected.check()
        return size

    def add_made(self, chunk: list[tuple[str, bytes]]) -> int:
        """Take some lines whose keys are unique, and return how many to take next."""
        self.row_count += len(chunk)
        keys = [key for key, _ in chunk]
        lines = Lines([(key, 0, {}) for key in keys], keys, [request for _, request in chunk])
        self._maker.complete(lines)
        return self._send(lines)

    def _with_unique_keys(self, lines: Lines) -> Lines:
        repeated = self._keys.repeated(lines.keys)
        if self._plan.key_column is None:
            for index in repeated:
                lines.keys[index] = self._keys.numbered(lines.keys[index])
            return lines
        for index in repeated:
            problem = RowProblem("duplicate-key", f"The key {lines.keys[index]!r} occurs more than once")
            self.rejected.add(lines.placed[index], problem)
        return lines.without(repeated)

    def _send(self, lines: Lines) -> int:
        """Send every line to its place, and return how many lines of this size a chunk should have."""
        self._cured.clear()
        size, count = self._writer.size(lines), len(lines.keys)
        if size > self._plan.max_bytes:
            lines = self._without_too_large(lines)
        if self._answered is not None or self._sent is not None:
            lines.digests = [self._digest(lines, index) for index in range(len(lines.keys))]
        left = size
        while lines.keys:
            lines = self._step(lines, left)
            left = self._writer.size(lines)
        return max(1, min(_CHUNK_ROWS, count * CHUNK_BYTES // size if size else _CHUNK_ROWS))

    def _step(self, lines: Lines, size: int) -> Lines:
        """Send some of the lines to their place, and return the lines that are left."""
        lines, later = self._diverted(lines) if lines.digests else (lines, Lines())
        count = self._writer.fit(lines, size)
        if lines.keys and not count:
            self._writer.finish_shard()
            self._import_check.next_shard()
            return lines.plus(later)
        now, rest = lines.split(count)
        refused = self._import_check.refused(now)
        again = self._refused(now, refused) if refused else Lines()
        self._write(now.without(refused))
        return again.plus(rest).plus(later)

    def _write(self, lines: Lines) -> None:
        self._writer.write(lines)
        self._maker.add_weight(lines, self.weight_counter)
        if self._sent is not None:
            self._sent.add(zip(lines.digests, lines.keys, strict=True))
        if self._cured:
            self.fixed_count += len(self._cured.keys() & set(lines.keys))

    def _diverted(self, lines: Lines) -> tuple[Lines, Lines]:
        """Put aside lines that need not be sent. Return the other lines, and lines that must wait until an identical
        line is sent.
        """
        answered = self._answered.find(lines.digests) if self._answered is not None else {}
        sent = self._sent.find(lines.digests) if self._sent is not None else {}
        here, left, later = set(), [], []
        for index, digest in enumerate(lines.digests):
            if digest in answered:
                self._write_unsent(self.known, lines, index, "request_digest", digest)
            elif digest in sent:
                self._write_unsent(self.duplicates, lines, index, "same_as", sent[digest])
                self._writer.count_duplicates(lines.pick([index]))
            elif digest in here:
                later.append(index)
            else:
                left.append(index)
                if self._sent is not None:
                    here.add(digest)
        return (lines, Lines()) if len(left) == len(lines.keys) else (lines.pick(left), lines.pick(later))

    def _write_unsent(self, file: UnsentRows, lines: Lines, index: int, name: str, value: str) -> None:
        columns = lines.columns[index] if lines.columns else b"{}"
        doc = {"key": lines.keys[index], name: value, "columns": msgspec.Raw(columns)}
        file.write(doc, encode((lines.keys[index], lines.digests[index])) + columns)

    def _refused(self, lines: Lines, refused: dict[int, RowProblem]) -> Lines:
        """Reject lines, and return those that are cured and get a second try."""
        again = []
        for index, problem in refused.items():
            key = lines.keys[index]
            if self._plan.fix and self._plan.template is None and key not in self._cured and cure(lines, index):
                self._cured[key] = problem
                if lines.digests:
                    lines.digests[index] = self._digest(lines, index)
                again.append(index)
            else:
                self.rejected.add(lines.placed[index], self._cured.pop(key, problem))
        return self._without_too_large(lines.pick(again))

    def _without_too_large(self, lines: Lines) -> Lines:
        most = self._plan.max_bytes
        room = most - self._writer.frame_bytes
        large = [index for index, core in enumerate(lines.cores) if len(core) > room]
        for index in large:
            size = len(lines.cores[index]) + self._writer.frame_bytes
            problem = RowProblem("too-large", f"The request has {size:,} bytes; one file may have {most:,}")
            self.rejected.add(lines.placed[index], problem)
        return lines.without(large)

    def _digest(self, lines: Lines, index: int) -> str:
        return self._digester(self._maker.frame.request(lines.bodies[index])).hex()
