"""Which calendar day does a text, a number or a time mean? All days are read here.

Invariants: a time with a time zone is changed to the zone that the caller names; its day is the local day there, not
the day in UTC. A value that is not a day is refused; the error shows it. A day is never guessed.
"""

from __future__ import annotations

import contextlib
from datetime import date, datetime, tzinfo
from typing import Any

from airflow_vertex_batch.core.domain.errors import InputError


def read_day(value: Any, zone: tzinfo, name: str) -> str:
    """Return the day as YYYY-MM-DD.

    :param value: a date, a datetime, or a text or number as Airflow's templates make them: ``2026-11-22``
        (``{{ ds }}``), ``20261122`` (``{{ ds_nodash }}``), ``2026-11-22T00:00:00+00:00`` (``{{ ts }}``),
        ``20261122T000000`` (``{{ ts_nodash }}``).
    :param zone: the time zone whose local day counts. A time without a zone is not changed.
    :param name: what to call the value in an error.
    :raises InputError: when it is not a day.
    """
    # Near the first and the last possible year, the day in another zone may not exist; and a very large number has no
    # text.
    with contextlib.suppress(OverflowError, ValueError):
        moment = _moment(str(value).strip()) if _is_written(value) else value
        if isinstance(moment, datetime):
            return (moment.astimezone(zone) if moment.tzinfo else moment).date().isoformat()
        if isinstance(moment, date):
            return moment.isoformat()
    raise InputError(f"{name} is {_shown(value)}, which is no date", todo="Write it as YYYY-MM-DD")


def _is_written(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _moment(text: str) -> date | None:
    # Python also reads "2026" and "2026-W47", but a year or a week is not a day.
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
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004 - a message stays a line
