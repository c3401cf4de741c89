"""Where are a job's requests and answers while it runs? In files, so that memory does not grow, and the job goes on
after a restart.

`Requests` is the imported input with an index of fixed width, so that rows can be read in any order. `Answers` is
append-only: one record per request done, its bill and its output lines together. That file is the truth about what was
answered: after a crash it is read back, a torn last record is cut off, and no row is answered or billed twice. When the
job is over the rows go, and only their bills stay: keys and tokens, no prompt and no answer.

Invariants: memory does not grow with the number of rows; a record counts once its newline is written.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.emulator.billing import Account, Bill, Written

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Width of one offset in the index.
_OFFSET_BYTES = 8

_encode = msgspec.json.Encoder().encode
_decode_bill = msgspec.json.Decoder(Bill).decode


def shuffled(count: int, seed: int) -> Iterator[int]:
    """Yield every number below `count` once, in an order that is not the input's and needs no memory.

    A stride near the golden section of `count`, coprime to it, visits all of them and keeps neighbours apart.
    """
    if count == 0:
        return
    stride = max(1, int(count * 0.618))
    while math.gcd(stride, count) != 1:
        stride += 1
    # Below three rows every stride is 1: only the start can differ from the input's order.
    start = 1 + seed % (count - 1) if count > 1 else 0
    for step in range(count):
        yield (start + step * stride) % count


class Requests:
    """The imported lines of one job.

    :param folder: where its two files are.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = (folder / "requests.jsonl").open("a+b")
        self._index = (folder / "requests.idx").open("a+b")
        self._size_bytes = 0

    def clear(self) -> None:
        """Begin again: an interrupted import is useless."""
        self._size_bytes = 0
        self._lines.truncate(0)
        self._index.truncate(0)

    def append(self, line: bytes) -> None:
        """Add one line."""
        self._index.write(self._size_bytes.to_bytes(_OFFSET_BYTES))
        self._size_bytes += self._lines.write(line + b"\n")

    def all(self) -> Iterator[bytes]:
        """Yield every line, by a stream of its own."""
        with Path(self._lines.name).open("rb") as stream:
            yield from (line.rstrip(b"\n") for line in stream)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._lines.flush()
        self._index.flush()

    def __getitem__(self, number: int) -> bytes:
        self._index.seek(number * _OFFSET_BYTES)
        self._lines.seek(int.from_bytes(self._index.read(_OFFSET_BYTES)))
        return self._lines.readline().rstrip(b"\n")

    def close(self) -> None:
        """Close both files."""
        self._lines.close()
        self._index.close()

    def remove(self) -> None:
        """Delete both files."""
        for stream in (self._lines, self._index):
            Path(stream.name).unlink(missing_ok=True)


class Answers:
    """The finished rows of one job, in the order of their output.

    :param folder: where the file is.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "answers.jsonl"
        self._stream = self._path.open("ab")
        self._pending: list[Bill] = []
        self.account = self._recount()

    @property
    def row_count(self) -> int:
        """Rows done, those not flushed yet included."""
        return self.account.row_count + len(self._pending)

    def append(self, row: Written) -> None:
        """Add one request's rows. They are billed by `flush`."""
        # Encoded JSON holds no raw tab, so tabs can part the record.
        self._stream.write(b"\t".join((_encode(row.bill), *map(_encode, row.lines))) + b"\n")
        self._pending.append(row.bill)

    def flush(self) -> None:
        """Hand everything to the operating system: from here on the rows survive this process."""
        self._stream.flush()
        for bill in self._pending:
            self.account.add(bill)
        self._pending.clear()

    def records(self) -> Iterator[list[bytes]]:
        """Yield the output lines of each request done: none, one or two."""
        with self._path.open("rb") as stream:
            for record in stream:
                yield record.rstrip(b"\n").split(b"\t")[1:]

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def remove(self, unanswered: Iterator[Bill]) -> None:
        """Delete the file; the bills stay, in a file of their own, with those of requests never answered."""
        _archive(self._path.parent, unanswered)
        self._path.unlink(missing_ok=True)

    def _recount(self) -> Account:
        """Add up the records that are there, and cut off an incomplete one."""
        account, whole = Account(), 0
        with self._path.open("rb") as stream:
            for record in stream:
                if not record.endswith(b"\n"):
                    break
                account.add(_decode_bill(record.partition(b"\t")[0].rstrip(b"\n")))
                whole += len(record)
        self._stream.truncate(whole)
        return account


def bills(folder: Path) -> Iterator[Bill]:
    """Yield the bill of each request of a job: those done so far while it runs, all of them when it is over.

    May be called while another thread works on the job.
    """
    # A job's end writes the second file before it removes the first, so one of three looks finds one.
    for name in ("bills.jsonl", "answers.jsonl", "bills.jsonl"):
        try:
            stream = (folder / name).open("rb")
        except FileNotFoundError:
            continue
        with stream:
            yield from (_decode_bill(line.partition(b"\t")[0]) for line in stream if line.endswith(b"\n"))
        return


def _archive(folder: Path, unanswered: Iterator[Bill]) -> None:
    new = folder / "bills.new"
    with new.open("wb") as stream:
        for bill in itertools.chain(bills(folder), unanswered):
            stream.write(_encode(bill) + b"\n")
    new.replace(folder / "bills.jsonl")
