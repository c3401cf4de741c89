"""Where does a line end, and how long may it be? Streams become lines, some dozen at a time.

Invariants: a line is held once, and twice while its pieces are joined. A line that is longer than `MAX_LINE_BYTES` is
never held: it arrives as `TOO_LONG`, which is not JSON, and only this line is lost.
"""

from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes read at once: some dozen lines, which stay in a processor's cache.
BLOCK_BYTES = 1 << 16
#: The longest line that is read. The service's importer takes 100 MB a row (BigQuery's limit of a JSON row,
#: https://cloud.google.com/bigquery/quotas#load_jobs, 2026-11-28); an output line holds the request again, and as much
#: of answer. A worker needs some 4 to 8 times the longest line: 2 GB for the longest that there can be.
MAX_LINE_BYTES = 256 << 20
#: Stands for a line that is longer.
TOO_LONG = b"\0too long\n"


def read_blocks(stream: IO[bytes], longest: int = MAX_LINE_BYTES) -> Iterator[tuple[int, list[bytes]]]:
    """Yield blocks of lines as they stand in the stream, each with the 1-based number of its first line.

    :param longest: bytes of a line, its end included; at least `BLOCK_BYTES`.
    """
    number, begun = 1, _Begun(longest)
    while piece := stream.read(BLOCK_BYTES):
        end = piece.rfind(b"\n") + 1
        if not end:
            begun.add(piece)
            continue
        first = piece.find(b"\n") + 1
        begun.add(piece[:first])
        block = [begun.take(), *io.BytesIO(piece[first:end])]
        begun.add(piece[end:])
        # Whoever iterates keeps what it was given while the next line is read.
        del piece
        number += len(block)
        yield number - len(block), block
        del block
    if begun.size:
        yield number, [begun.take()]


class _Begun:
    """A line whose end has not come yet."""

    def __init__(self, longest: int) -> None:
        self._longest, self.size = longest, 0
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Append a piece, unless the line is too long by now."""
        self.size += len(piece)
        if self.size > self._longest:
            self._pieces.clear()
        elif piece:
            self._pieces.append(piece)

    def take(self) -> bytes:
        """Return the line, and begin the next."""
        line = TOO_LONG if self.size > self._longest else b"".join(self._pieces)
        self._pieces, self.size = [], 0
        return line


def read_lines(stream: IO[bytes], longest: int = MAX_LINE_BYTES) -> Iterator[tuple[int, bytes]]:
    """Yield 1-based line numbers and lines without their line end; blank lines are skipped."""
    for first, block in read_blocks(stream, longest):
        for number, line in enumerate(block, start=first):
            if stripped := line.strip():
                yield number, stripped


def too_long(line: bytes) -> str:
    """Say of a line that it is too long; nothing of any other."""
    return f"it is longer than {MAX_LINE_BYTES:,} bytes" if line.strip() == TOO_LONG.strip() else ""
