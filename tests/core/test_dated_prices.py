"""Prices change on known days: the day on which a row was answered decides, at midnight in Google's billing zone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import pytest
import time_machine

from airflow_vertex_batch.core.answers.repair import RepairPolicy, select
from airflow_vertex_batch.core.answers.report import Totals
from airflow_vertex_batch.core.answers.rounds import Rounds
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.ports import LocalStore
from airflow_vertex_batch.core.domain.row import RowStatus, Usage
from airflow_vertex_batch.core.money.prices import CachedDiscount, Price, PriceTable, billing_day
from tests.builders import a_row
from tests.core.worlds import FOLDER, Task, World, fails, some_rows
from tests.fakes import MemoryWarehouse

#: The smallest case of the issue: a price that doubles on a day that is known.
BEFORE = Price("m", Decimal(1), Decimal(5), Decimal("0.1"), "test", "2026-11-28", valid_until="2026-11-30")
AFTER = Price("m", Decimal(2), Decimal(10), Decimal("0.2"), "test", "2026-11-28", valid_from="2026-12-01")
TABLE = PriceTable([AFTER, BEFORE])
MILLION = Usage(prompt_tokens=1_000_000)
ENTRY = {"model": "m", "input": 1, "output": 5, "cached_input": "0.1", "source": "test", "date": "2026-11-28"}


def _row(processed_at="", model="m", **members):
    return a_row(
        "r1", RowStatus.SUCCEEDED, model_version=model, response=b"{}", usage=MILLION, processed_at=processed_at,
        **members,
    )  # fmt: skip


def _read(tmp_path, *entries, **members):
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"prices": entries} | members))
    return PriceTable.read(LocalStore(), str(file))


class TestTheDayOfARow:
    @pytest.mark.parametrize(
        ("processed_at", "cost"),
        [
            ("2026-11-30T12:00:00Z", 1),
            ("2026-12-01T07:59:59.999999Z", 1),
            ("2026-12-01T08:00:00Z", 2),
            ("2026-12-01T00:00:00-08:00", 2),
            ("2026-12-01T09:00:00+02:00", 1),
            ("2027-06-01T00:00:00+00:00", 2),
        ],
        ids=[
            *("before", "the last moment, Pacific time", "midnight, Pacific time", "the same with its own offset"),
            *("an offset to the other side", "long after"),
        ],
    )
    def test_decides_its_price(self, processed_at, cost):
        assert TABLE.cost(_row(processed_at)) == cost

    @pytest.mark.parametrize("processed_at", ["", "soon", "2026-11-30T12:00:00"], ids=["none", "no time", "no zone"])
    def test_is_that_of_the_caller_where_the_row_tells_none(self, processed_at):
        assert TABLE.cost(_row(processed_at), day="2026-11-30") == 1
        assert TABLE.cost(_row(processed_at), day="2026-12-01") == 2
        assert TABLE.cost(_row(processed_at)) is None

    def test_counts_for_all_its_attempts(self):
        assert TABLE.cost(_row("2026-12-02T00:00:00Z", earlier=(MILLION,), attempts=2)) == 4

    def test_a_day_without_a_price_is_unknown_and_not_zero(self):
        assert PriceTable([BEFORE]).cost(_row("2026-12-02T00:00:00Z")) is None
        assert PriceTable([AFTER]).cost(_row("2026-11-02T00:00:00Z")) is None

    def test_totals_price_each_row_by_its_own(self):
        totals = Totals(TABLE, now=datetime(2026, 11, 30, 20, tzinfo=UTC))
        for processed_at in ("2026-11-30T12:00:00Z", "2026-12-01T12:00:00Z", ""):
            totals.add(_row(processed_at))
        assert totals.cost == 1 + 2 + 1

    @pytest.mark.parametrize(
        ("when", "day"),
        [
            (datetime(2026, 12, 1, 7, 59, tzinfo=UTC), "2026-11-30"),
            (datetime(2026, 12, 1, 8, tzinfo=UTC), "2026-12-01"),
            (datetime(2026, 7, 1, 7, tzinfo=UTC), "2026-07-01"),
        ],
        ids=["before midnight in winter", "midnight in winter", "midnight in summer"],
    )
    def test_begins_at_midnight_in_pacific_time(self, when, day):
        assert billing_day(when) == day


def test_a_batch_costs_the_same_whenever_it_is_read_and_lands():
    """Its lines do not say when they were answered: the day on which its last job ended counts, not today."""
    world = World({"a1": [fails()]})
    world.store.clock = world.clock
    task = Task(world, some_rows(3), rounds=1)
    done, costs = task.to_the_end(), set()
    for today in ("2026-11-29T12:00Z", "2030-01-01T12:00Z"):
        with time_machine.travel(today, tick=False):
            costs.add(f"{Decimal(task.land(done).cost_usd):.6f}")
            rounds = Rounds(done.rounds, world.store, MemoryWarehouse())
            costs.add(f"{select(rounds, RepairPolicy(), world.store, FOLDER, 't').cost_usd:.6f}")
    assert len(costs) == 1, costs
    assert costs == {"0.000026"}


class TestAFile:
    def test_may_hold_several_prices_of_a_model(self, tmp_path):
        table = _read(tmp_path, ENTRY | {"valid_until": "2026-11-30"}, ENTRY | {"valid_from": "2026-12-01", "input": 2})
        assert [table.of("m", day).input for day in ("2026-11-30", "2026-12-01")] == [1, 2]

    def test_replaces_all_prices_of_a_model_in_their_place(self, tmp_path):
        other = Price("n", *[Decimal(1)] * 3, "test", "2026-11-28")
        table = PriceTable([BEFORE, other, AFTER]).override(_read(tmp_path, ENTRY | {"input": 7}))
        assert [(price.model, price.input) for price in table] == [("m", 7), ("n", 1)]
        assert table.of("m", "2030-01-01").input == 7

    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            ([ENTRY | {"valid_until": "2026-12-01"}, ENTRY | {"valid_from": "2026-12-01"}], "m again. Two prices"),
            ([ENTRY | {"valid_from": "2026-12-01"}, ENTRY], "Entry 2 of .* prices m again"),
            ([ENTRY | {"valid_from": "1 May"}], "valid_from is '1 May', which is not YYYY-MM-DD"),
            ([ENTRY | {"valid_until": "20261201"}], "valid_until is '20261201', which is not YYYY-MM-DD"),
            (
                [ENTRY | {"valid_from": "2026-12-01", "valid_until": "2026-11-30"}],
                "valid_until 2026-11-30 is before valid_from 2026-12-01",
            ),
        ],
        ids=["one day twice", "since ever beside a day", "no day", "a day in another form", "the wrong way round"],
    )  # fmt: skip
    def test_with_days_that_mean_nothing_is_refused(self, tmp_path, entries, message):
        with pytest.raises(InputError, match=message):
            _read(tmp_path, *entries)


class TestCachedTokens:
    """Contested: does the batch's discount come on top of the cache's? The switch is a member of the price file."""

    PRICE = ENTRY | {"cached_input_added": "0.05", "cached_audio_input": "0.4", "audio_input": 3}
    USAGE = Usage(prompt_tokens=1_000_000, cached_tokens=1_000_000, audio_tokens=500_000, cached_audio_tokens=500_000)

    @pytest.mark.parametrize(
        ("members", "text", "with_audio"),
        [
            ({}, "0.1", "0.25"),
            ({"cached_discount": "replaces"}, "0.1", "0.25"),
            ({"cached_discount": "adds"}, "0.05", "0.125"),
        ],
        ids=["not said", "replaces", "adds"],
    )
    def test_cost_what_the_switch_says(self, tmp_path, members, text, with_audio):
        price = _read(tmp_path, self.PRICE, **members).of("m", "2026-11-28")
        assert price.cost(Usage(prompt_tokens=1_000_000, cached_tokens=1_000_000)) == Decimal(text)
        assert price.cost(self.USAGE) == Decimal(with_audio)

    def test_a_file_with_the_switch_alone_turns_it_for_the_shipped_prices(self, tmp_path):
        table = PriceTable.shipped().override(_read(tmp_path, cached_discount="adds"))
        assert PriceTable.shipped().of("gemini-3.5-flash", "2026-11-28").cached_input == Decimal("0.15")
        assert table.of("gemini-3.5-flash", "2026-11-28").cached_input == Decimal("0.075")
        assert "the discount on cached tokens adds to the batch's" in table.text()

    def test_a_model_without_such_a_rate_pays_the_other(self):
        assert PriceTable([BEFORE], CachedDiscount.ADDS).of("m", "2026-11-01").cached_input == Decimal("0.1")

    def test_audio_that_was_cached_is_not_paid_as_fresh_audio(self):
        usage = Usage.from_api(
            {
                "promptTokenCount": 100,
                "cachedContentTokenCount": 60,
                "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 80}],
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 50}, {"modality": "TEXT", "tokenCount": 10}],
            }
        )
        price = Price("m", Decimal(1), Decimal(5), Decimal("0.1"), "t", "2026-11-28", audio_input=Decimal(3),
                      cached_audio_input=Decimal("0.3"))  # fmt: skip
        # 30 fresh of sound, 10 fresh of text, 50 cached of sound, 10 cached of text.
        assert price.cost(usage) == (30 * 3 + 10 * 1 + 50 * Decimal("0.3") + 10 * Decimal("0.1")) / 1_000_000


class TestTheShippedTable:
    @pytest.mark.parametrize(
        ("model", "last", "input_", "output", "cached"),
        [
            ("gemini-4-argon", "2026-11-30", ("1", "2"), ("5", "10"), ("0.1", "0.2")),
            ("gemini-4-carbon", "2026-11-30", ("1", "2"), ("5", "10"), ("0.1", "0.2")),
            ("gemini-3.8-flash", "2026-12-31", ("0.375", "0.75"), ("1.875", "3.75"), ("0.075", "0.15")),
            ("gemini-3.7-flash", "2026-12-31", ("0.375", "0.75"), ("1.875", "3.75"), ("0.075", "0.15")),
        ],
    )
    def test_knows_the_changes_that_are_announced(self, model, last, input_, output, cached):
        before, after = PriceTable.shipped().periods(model)
        assert (before.valid_until, before.input, after.input) == (last, *map(Decimal, input_))
        assert (before.output, after.output) == tuple(map(Decimal, output))
        assert (before.cached_input, after.cached_input) == tuple(map(Decimal, cached))

    def test_leaves_no_day_between_two_prices_of_a_model(self):
        for model in {price.model for price in PriceTable.shipped()}:
            for before, after in pairwise(PriceTable.shipped().periods(model)):
                gap = datetime.fromisoformat(after.valid_from) - datetime.fromisoformat(before.valid_until)
                assert gap.days == 1


def test_the_table_for_people_says_what_its_star_means():
    text = PriceTable.shipped().text("2026-11-28")
    assert " *" in text.partition("\n")[2]
    assert text.endswith("\n\n* the price of 2026-11-28")
