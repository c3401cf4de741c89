"""What may be printed to a terminal? The command line prints texts from files and from the service: names, notes,
messages. None of these texts may move the cursor, change colours or hide other text.

Invariant: nothing but a line break and a tab acts on the terminal; JSON that is printed stays JSON.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

#: Characters that a terminal obeys and does not show: control characters (ECMA-48's C0 and C1, except line break and
#: tab), characters that change the direction of writing (https://www.unicode.org/reports/tr9/, 2026-11-29), other line
#: breaks, and halves of surrogate pairs, which no terminal accepts.
_CONTROL_CHARACTERS = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BREAKS = re.compile("[\n\t]")


def printable(text: str) -> str:
    r"""Return a text in which characters that a terminal would obey are written as ``\u001b``, as in JSON."""
    return _CONTROL_CHARACTERS.sub(_escaped, text)


def one_line(text: object) -> str:
    """Return the text of something as one line."""
    return _BREAKS.sub(_escaped, printable(str(text)))


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


class _Printed:
    """A stream for a terminal: everything that is written to it goes through `printable`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, escaped; return how many characters were given."""
        self._stream.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def printed() -> Iterator[None]:
    """Let everything that is printed inside go through `printable`. Every command runs inside it."""
    # The stream is None if the shell has closed it.
    streams = (None if stream is None else _Printed(stream) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(next(streams)), contextlib.redirect_stderr(next(streams)):
        yield
