"""How long? A duration as an author writes it, a timedelta or a number of seconds, read in one place."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from airflow_vertex_batch.core.domain.errors import InputError

#: Longer than any job, or wait, can be: ten years.
LONGEST_SECONDS = 10 * 365 * 24 * 3600
#: A smaller bare number is refused, because its author probably meant minutes or hours: a limit of ten minutes is too
#: short for every batch job. A timedelta has a unit, so it may be shorter.
BARE_SECONDS = 600


def seconds(value: Any, name: str, *, least: float = 0, most: float = LONGEST_SECONDS, is_limit: bool = False) -> float:
    """Return a duration in seconds.

    :param value: seconds, or a timedelta.
    :param name: the argument, for the error.
    :param least: the shortest, seconds; anything above zero if not given.
    :param most: the longest, seconds.
    :param is_limit: whether it is a time after which something happens to a job. Such a limit is never a few minutes.
    :raises InputError: when it is not such a duration; also for a bare number that is too small to be seconds.
    """
    made = value.total_seconds() if isinstance(value, timedelta) else value
    # Every comparison with NaN is false, so a NaN deadline would never come.
    is_number = isinstance(made, int | float | Decimal) and not isinstance(made, bool)
    if not (is_number and 0 < made <= most and made >= least):
        shown = f"above {most:,}" if is_number and made > most else repr(value)
        span = f"{least:,} to {most:,} seconds" if least else f"above zero and at most {most:,} seconds"
        raise InputError(f"{name} is {shown}", todo=f"Give seconds, or a timedelta, of {span}")
    if is_limit and made < BARE_SECONDS and not isinstance(value, timedelta):
        raise InputError(
            f"{name}={value} is {value} seconds",
            why="No batch job is that quick",
            todo=f"Write {name}=timedelta(hours={value}) if hours were meant, or {name}=timedelta(seconds={value})",
        )
    return float(made)
