"""How far is a step that reads many rows? It says so in the log: at each tenth, or each minute.

Invariants: a step that takes less than `QUIET_SECONDS` says nothing. Counting a row costs next to nothing.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: Seconds between two lines at least, also where tenths follow each other faster, and at most.
QUIET_SECONDS, LONGEST_SECONDS = 10.0, 60.0
_TENTHS = 10


class RowProgress:
    """Counts the rows of one step.

    :param what: what happens to them: "Prepared", "Landed".
    :param total: how many there will be; 0 where nobody knows.
    :param clock: seconds, from any moment on.
    """

    def __init__(self, what: str, total: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._total, self._clock = what, total, clock
        self._began = self._said_at = clock()
        self._said_tenth = self.count = 0

    def add(self, count: int = 1) -> None:
        """Count rows, and log how far the step is, if it is time to."""
        self.count += count
        now = self._clock()
        silent = now - self._said_at
        tenth = self.count * _TENTHS // self._total if self._total else 0
        if silent >= LONGEST_SECONDS or (silent >= QUIET_SECONDS and tenth > self._said_tenth):
            self._said_at, self._said_tenth = now, tenth
            log.info("%s", self._text(now - self._began))

    def _text(self, seconds: float) -> str:
        rate = self.count / seconds
        if not self._total:
            return f"{self._what} {self.count:,} rows so far: {rate:,.0f} rows a second."
        left = max(self._total - self.count, 0) / rate
        share = min(self.count / self._total, 1.0)
        return (
            f"{self._what} {self.count:,} of {self._total:,} rows ({share:.0%}): {rate:,.0f} rows a second, "
            f"about {_span(left)} left."
        )


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:,.0f} s" if not minutes else f"{minutes:,} min"
