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
    """Return seconds of a monotonic clock. It also counts the time in which the machine slept, if the machine can
    measure it.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class ServerClock:
    """The time that servers tell.

    A process that was stopped may read an answer long after it was sent. So the time never goes back: an old time in a
    late answer is ignored.

    :param ticks: a monotonic clock, in seconds. Tests replace it.
    """

    def __init__(self, ticks: Callable[[], float] = ticks) -> None:
        self._ticks = ticks
        self._noted: tuple[datetime, float] | None = None

    def note_time(self, answer: Any, *_args: Any, **_kwargs: Any) -> None:
        """Note the time of an answer; a hook of `requests`. An answer without a time is ignored."""
        try:
            server_time = parsedate_to_datetime(answer.headers.get("Date", ""))
        except ValueError:
            return
        server_time, carried = server_time.replace(tzinfo=server_time.tzinfo or UTC), self._carried()
        self._noted = (max(server_time, carried or server_time), self._ticks())

    def now(self) -> datetime | None:
        """Return the servers' time, aware UTC; None if no server has told it recently."""
        is_fresh = self._noted is not None and self._ticks() - self._noted[1] <= _FRESH_SECONDS
        return self._carried() if is_fresh else None

    def _carried(self) -> datetime | None:
        """Return the last time, carried on to now."""
        if self._noted is None:
            return None
        server_time, at = self._noted
        return server_time + timedelta(seconds=self._ticks() - at)
