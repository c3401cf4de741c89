"""Where do rows go if they are not sent? Rejected rows, duplicates, and rows that have an answer already are counted,
kept on disk, and copied beside the shards when the set is published.

Invariants: every row that is not sent is in exactly one of the three files. Memory does not grow with the number of
rows.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Self

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.domain.temporary import temporary_file
from airflow_vertex_batch.core.requests.prepare.keys import digest_sum
from airflow_vertex_batch.core.requests.request import OnRejectedRow, RowProblem

if TYPE_CHECKING:
    from airflow_vertex_batch.core.requests.sources import Placed

#: Reasons that an error names, each once with its first places: enough to see what is wrong, not a flood.
_MAX_REASONS, _MAX_PLACES = 20, 3
#: After this number of rejected rows preparing stops, if one rejected row fails the task anyway.
_MAX_REJECTED = 1_000


class UnsentRows:
    """Rows of one kind that are not sent: the lines of a file that is written at the end, if there are any."""

    def __init__(self, name: str) -> None:
        self.name, self.count, self.digest = name, 0, 0
        self._spool = temporary_file("as much as the rows that are not sent")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._spool.close()

    def write(self, doc: dict[str, Any], same: bytes) -> None:
        """Append one line.

        :param same: bytes that identify this line, independent of the order of the rows.
        """
        self.count += 1
        self.digest += digest_sum([same])
        self._spool.write(encode(doc) + b"\n")

    def copy_to(self, stream: IO[bytes]) -> None:
        """Write the lines."""
        self._spool.seek(0)
        while block := self._spool.read(1 << 20):
            stream.write(block)


class Rejected(UnsentRows):
    """Rows that cannot be sent, and what that means for the task.

    :param max_ratio: of all rows, the share that may be rejected when they are dead letters; 0 to 1.
    """

    def __init__(self, policy: OnRejectedRow, max_ratio: float) -> None:
        super().__init__("rejected.jsonl")
        self._policy, self._max_ratio = policy, max_ratio
        #: By reason: how many rows, and the first places.
        self._reasons: dict[str, tuple[int, list[str]]] = {}
        self._other_count = 0

    def add(self, placed: Placed, problem: RowProblem) -> None:
        """Note one row."""
        place, number, _ = placed
        self._note(f"{place}:{number}", f"{problem.reason} [{problem.code}]")
        doc = {"source": place, "line": number, "status": "rejected", "code": problem.code, "reason": problem.reason}
        self.write(doc, encode((place, problem.code, problem.reason)))

    def _note(self, place: str, reason: str) -> None:
        if reason not in self._reasons and len(self._reasons) >= _MAX_REASONS:
            self._other_count += 1
            return
        count, places = self._reasons.setdefault(reason, (0, []))
        if len(places) < _MAX_PLACES:
            places.append(place)
        self._reasons[reason] = (count + 1, places)

    def check(self) -> None:
        """If any rejected row fails the task, stop early: when there are more reasons than the error can name, or very
        many rows.

        :raises InputError: naming the reasons.
        """
        if self._policy is OnRejectedRow.FAIL and (self._other_count or self.count >= _MAX_REJECTED):
            self._fail(" so far: preparing stopped here")

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

    def _fail(self, end: str = "") -> None:
        rows = "1 row" if self.count == 1 else f"{self.count:,} rows"
        raise InputError(
            f"{rows} cannot be sent{end}:\n{self._list()}",
            left="Nothing was uploaded for them and no job was created",
            todo="Correct the rows or the prompt, or set on_rejected_row='dead_letter' to send the others",
        )

    def _list(self) -> str:
        lines = [f"{_placed(count, places)}: {reason}" for reason, (count, places) in self._reasons.items()]
        if self._other_count:
            lines.append(f"… and {self._other_count:,} rows for other reasons")
        return "\n".join(lines)


def _placed(count: int, places: list[str]) -> str:
    """Name rows by their first places."""
    more = f" and {count - len(places):,} more" if count > len(places) else ""
    return ", ".join(places) + more
