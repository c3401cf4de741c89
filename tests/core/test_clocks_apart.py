"""Workers whose clocks differ: the store's clock says how old an intent is, so one job is bought."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_vertex_batch.core.purchase.decide import SETTLE_SECONDS
from airflow_vertex_batch.core.purchase.entries import Intent
from airflow_vertex_batch.core.purchase.submit import would_buy
from tests.builders import a_log, an_order
from tests.core.submitting import World
from tests.fakes import Died, EffectLimit

TEN_MINUTES = timedelta(minutes=10)


class StoreOnAnotherClock(World):
    """A store whose clock differs from this machine's, and moves on when somebody sleeps."""

    def __init__(self, by: timedelta, **jobs) -> None:
        super().__init__(**jobs)
        self.clock.now = datetime.now(UTC) + by


@pytest.mark.parametrize("by", [-TEN_MINUTES, TEN_MINUTES], ids=["behind", "ahead"])
class TestTenMinutesApart:
    def test_a_job_that_the_list_shows_late_is_the_only_one(self, by):
        """The creator dies with its record unwritten; its successor, whose clock differs, looks for long enough."""
        world = StoreOnAnotherClock(by, list_lags=10)
        effect_limit = EffectLimit(3)
        with pytest.raises(Died, match="after effect 3: create"):
            world.attempt(store=effect_limit.store(world.store), service=effect_limit.service(world.service))
        ensured = world.attempt(token="b")
        assert (ensured.created, len(world.service.paid)) == (False, 1)

    def test_an_intent_without_a_job_is_waited_out_in_full(self, by):
        world = StoreOnAnotherClock(by)
        with pytest.raises(Died, match="after effect 2: write_new"):
            world.attempt(store=EffectLimit(2).store(world.store))
        assert world.attempt(token="b").created
        assert sum(world.clock.slept) == pytest.approx(SETTLE_SECONDS)

    def test_a_budget_is_asked_about_by_the_same_clock(self, by):
        world = StoreOnAnotherClock(by)
        with pytest.raises(Died, match="after effect 2: write_new"):
            world.attempt(store=EffectLimit(2).store(world.store))
        order = an_order(a_log(world.store, "reader"), world.service)
        assert not would_buy(order)
        world.clock.sleep(SETTLE_SECONDS + 1)
        assert would_buy(order)

    def test_a_job_without_labels_is_found_among_those_since_the_intent(self, by):
        world = StoreOnAnotherClock(by)
        effect_limit = EffectLimit(3)
        with pytest.raises(Died, match="after effect 3: create"):
            world.attempt(store=effect_limit.store(world.store), service=effect_limit.service(world.service))
        world.service.change(world.service.paid[0].name, labels={})
        assert not world.attempt(token="b").created

    def test_an_entry_is_stamped_with_the_store_s_time(self, by):
        world = StoreOnAnotherClock(by)
        world.attempt()
        first = a_log(world.store, "reader").entries()[0]
        assert isinstance(first, Intent)
        assert abs(first.at - datetime.now(UTC) - by) < timedelta(minutes=5)
