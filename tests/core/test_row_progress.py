"""A step that reads many rows says how far it is."""

from __future__ import annotations

import logging

import pytest

from airflow_vertex_batch.core.domain.row_progress import RowProgress


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "airflow_vertex_batch")
    return lambda: caplog.messages


class Second:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self):
        return self.now


def test_a_step_of_seconds_says_nothing(said):
    second = Second()
    progress = RowProgress("Landed", 100_000, clock=second)
    for _ in range(100):
        second.now += 0.09
        progress.add(1_000)
    assert said() == []


def test_a_long_step_says_each_tenth_with_what_is_left(said):
    second = Second()
    progress = RowProgress("Landed", 1_000_000, clock=second)
    for _ in range(1_000_000 // 500):
        second.now += 0.1
        progress.add(500)
    assert len(said()) == 10
    assert said()[0] == "Landed 100,000 of 1,000,000 rows (10%): 5,000 rows a second, about 3 min left."
    assert said()[-2] == "Landed 900,000 of 1,000,000 rows (90%): 5,000 rows a second, about 20 s left."


def test_a_slow_step_speaks_every_minute(said):
    second = Second()
    progress = RowProgress("Landed", 10_000_000, clock=second)
    for _ in range(10):
        second.now += 30
        progress.add(1_000)
    assert len(said()) == 5


def test_where_nobody_knows_how_many_there_are_it_says_how_many_there_were(said):
    second = Second()
    progress = RowProgress("Prepared", clock=second)
    second.now += 60
    progress.add(120_000)
    assert said() == ["Prepared 120,000 rows so far: 2,000 rows a second."]


def test_more_rows_than_were_told_are_no_more_than_all(said):
    second = Second()
    progress = RowProgress("Landed", 1_000, clock=second)
    second.now += 60
    progress.add(3_000)
    assert said() == ["Landed 3,000 of 1,000 rows (100%): 50 rows a second, about 0 s left."]
