"""What time is it at Google? The ``Date`` of each answer, kept going by a clock of this machine that nobody sets.

Two workers' clocks may be minutes apart, and one clock may be set while a worker sleeps. Google's servers share one
time, and say it in every answer (`RFC 9110, 6.6.1 <https://www.rfc-editor.org/rfc/rfc9110#section-6.6.1>`_,
2026-11-28), to the second.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds for which an answer's time is carried on by this machine's clock before a server is asked again.
_FRESH_SECONDS = 3600.0


def ticks() -> float:
    """Return seconds that only grow, those included in which the machine slept, where it can tell."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class ServerClock:
    """The time that servers tell.

    An answer may be read long after it was given, by a process that was stopped meanwhile. So a time is never earlier
    than an answer before it makes it: a late one is no reason to turn the clock back.

    :param ticks: seconds that only grow, replaced in tests.
    """

    def __init__(self, ticks: Callable[[], float] = ticks) -> None:
        self._ticks = ticks
        self._heard: tuple[datetime, float] | None = None

    def hear(self, answer: Any, *_args: Any, **_kwargs: Any) -> None:
        """Note the time of an answer; a hook of `requests`. An answer without a time is no news."""
        try:
            told = parsedate_to_datetime(answer.headers.get("Date", ""))
        except ValueError:
            return
        told, carried = told.replace(tzinfo=told.tzinfo or UTC), self._carried()
        self._heard = (max(told, carried or told), self._ticks())

    def now(self) -> datetime | None:
        """Return the servers' time, aware UTC; None when none of them has told it of late."""
        is_fresh = self._heard is not None and self._ticks() - self._heard[1] <= _FRESH_SECONDS
        return self._carried() if is_fresh else None

    def _carried(self) -> datetime | None:
        """Return the last time, carried on to now."""
        if self._heard is None:
            return None
        told, at = self._heard
        return told + timedelta(seconds=self._ticks() - at)
