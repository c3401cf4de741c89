"""Where do rows go that are not sent? Rejected rows, duplicates, and rows that are answered already: counted, spooled
to disk, and copied beside the shards when the set is published.

Invariants: every row that is not sent stands in exactly one of the three files; memory does not grow with their number.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Self

from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.core.jsonl import encode
from airflow_vertex_batch.core.prepare.keys import digest_sum
from airflow_vertex_batch.core.request import OnRejectedRow, RowProblem
from airflow_vertex_batch.core.temporary import temporary_file

if TYPE_CHECKING:
    from airflow_vertex_batch.core.sources import Placed

#: Rejected rows that are named in an error before preparing stops: enough to see what is wrong, not a flood.
_MAX_NAMED = 20


class Aside:
    """Lines of one file that is written at the end, if there are any."""

    def __init__(self, name: str) -> None:
        self.name, self.count, self.digest = name, 0, 0
        self._spool = temporary_file("as much as the rows that are not sent")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._spool.close()

    def write(self, doc: dict[str, Any], same: bytes) -> None:
        """Append one line.

        :param same: what tells this line from another one, whatever the order of the rows.
        """
        self.count += 1
        self.digest += digest_sum([same])
        self._spool.write(encode(doc) + b"\n")

    def copy_to(self, stream: IO[bytes]) -> None:
        """Write the lines."""
        self._spool.seek(0)
        while block := self._spool.read(1 << 20):
            stream.write(block)


class Rejected(Aside):
    """Rows that cannot be sent, and what that means for the task.

    :param max_ratio: of all rows, the share that may be rejected when they are dead letters; 0 to 1.
    """

    def __init__(self, policy: OnRejectedRow, max_ratio: float) -> None:
        super().__init__("rejected.jsonl")
        self._policy, self._max_ratio = policy, max_ratio
        self._named: list[str] = []

    def add(self, placed: Placed, problem: RowProblem) -> None:
        """Note one row."""
        place, number, _ = placed
        if len(self._named) < _MAX_NAMED:
            self._named.append(f"{place}:{number}: {problem.reason} [{problem.code}]")
        doc = {"source": place, "line": number, "status": "rejected", "code": problem.code, "reason": problem.reason}
        self.write(doc, encode((place, problem.code, problem.reason)))

    def check(self) -> None:
        """Stop as soon as enough rows can be named, when any rejected row fails the task.

        :raises InputError: naming them.
        """
        if self._policy is OnRejectedRow.FAIL and self.count >= _MAX_NAMED:
            self._fail()

    def check_all(self, row_count: int) -> None:
        """Decide after the last row whether too many were rejected.

        :raises InputError: naming the first of them, the share and the limit.
        """
        if self._policy is OnRejectedRow.FAIL and self.count:
            self._fail()
        if self.count > self._max_ratio * row_count:
            raise InputError(
                f"{self.count:,} of {row_count:,} rows ({self.count / row_count:.2%}) cannot be sent, more than the "
                f"{self._max_ratio:.2%} that max_rejected_ratio={self._max_ratio:g} allows:\n{self._list()}",
                left="Nothing was uploaded and no job was created",
                todo="Correct the rows or the prompt, or raise max_rejected_ratio",
            )

    def _fail(self) -> None:
        raise InputError(
            f"{self.count} rows cannot be sent:\n{self._list()}",
            left="Nothing was uploaded for them and no job was created",
            todo="Correct the rows or the prompt, or set on_rejected_row='dead_letter' to send the others",
        )

    def _list(self) -> str:
        more = f"\n… and {self.count - len(self._named)} more" if self.count > len(self._named) else ""
        return "\n".join(self._named) + more
