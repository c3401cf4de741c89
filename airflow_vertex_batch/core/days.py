"""Which calendar day does a text, a number or a moment name? The one reader of days, whoever gives them.

Invariants: a moment with a time zone counts by the wall clock of the zone that is asked for, never by UTC's; what is no
day is refused with its name and never guessed.
"""

from __future__ import annotations

from datetime import date, datetime, tzinfo
from typing import Any

from airflow_vertex_batch.core.errors import InputError


def read_day(value: Any, zone: tzinfo, name: str) -> str:
    """Return the day as YYYY-MM-DD.

    :param value: a date, a datetime, or a text or number as Airflow's templates make them: ``2026-11-22``
        (``{{ ds }}``), ``20261122`` (``{{ ds_nodash }}``), ``2026-11-22T00:00:00+00:00`` (``{{ ts }}``),
        ``20261122T000000`` (``{{ ts_nodash }}``).
    :param zone: the time zone whose wall clock counts. A moment without a zone of its own is taken as it stands.
    :param name: what to call the value in an error.
    :raises InputError: when it is no day.
    """
    if isinstance(value, datetime):
        return (value.astimezone(zone) if value.tzinfo else value).date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str | int) and not isinstance(value, bool):
        moment = _moment(str(value).strip())
        if moment is not None:
            return read_day(moment, zone, name)
    raise InputError(f"{name} is {_shown(value)}, which is no date", todo="Write it as YYYY-MM-DD")


def _moment(text: str) -> date | None:
    # Python reads "2026" and "2026-W47" too: a year or a week is no day.
    if not any(text[:length].replace("-", "").isdecimal() for length in (8, 10)):
        return None
    for read in (date.fromisoformat, datetime.fromisoformat):
        try:
            return read(text)
        except ValueError:
            continue
    return None


def _shown(value: Any) -> str:
    """Return a value short enough for a message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004 - a message stays a line
