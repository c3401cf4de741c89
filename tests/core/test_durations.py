"""A duration is a timedelta or seconds, wherever one is given, and says what is wrong in the same words."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from airflow_vertex_batch.core.domain.durations import seconds
from airflow_vertex_batch.core.domain.errors import InputError

NO_DURATION = r"\. Give seconds, or a timedelta, of above zero and at most 315,360,000 seconds\."


@pytest.mark.parametrize(
    ("value", "made"), [(90, 90.0), (0.5, 0.5), (Decimal("1.5"), 1.5), (timedelta(minutes=2), 120.0)], ids=str
)
def test_is_read_as_seconds(value, made):
    assert seconds(value, "poll_interval") == made


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (-1, "-1"),
        (True, "True"),
        ("60", "'60'"),
        (float("nan"), "nan"),
        (float("inf"), "above 315,360,000"),
        (10**400, "above 315,360,000"),
        (timedelta(0), r"datetime.timedelta\(0\)"),
        (timedelta(seconds=-1), r"datetime.timedelta\(days=-1, seconds=86399\)"),
        (timedelta.max, "above 315,360,000"),
    ],
    ids=repr,
)
def test_anything_else_is_refused_in_the_same_words(value, shown):
    with pytest.raises(InputError, match=rf"^poll_interval is {shown}{NO_DURATION}"):
        seconds(value, "poll_interval")


@pytest.mark.parametrize("value", [29, timedelta(seconds=29), 3601])
def test_bounds_are_named(value):
    with pytest.raises(InputError, match=r"settle_seconds is .*of 30 to 3,600 seconds"):
        seconds(value, "settle_seconds", least=30, most=3600)


def test_hours_that_are_taken_for_seconds_are_asked_about():
    said = (
        r"job_timeout=97 is 97 seconds\. No batch job is that quick\. Write job_timeout=timedelta\(hours=97\) if hours "
        r"were meant, or job_timeout=timedelta\(seconds=97\)"
    )
    with pytest.raises(InputError, match=said):
        seconds(97, "job_timeout", is_limit=True)
    assert [seconds(each, "job_timeout", is_limit=True) for each in (600, timedelta(seconds=97))] == [600, 97]
