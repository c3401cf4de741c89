"""The models that are known, until when they are served, and names that are near one of theirs."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import permutations

import pytest

from airflow_vertex_batch.core.domain.catalog import (
    EXAMPLE_LOCATION,
    EXAMPLE_MODEL,
    Lifetime,
    base_name,
    life_of,
    lives,
    misspelt,
    notices,
    places,
    retirement,
)
from airflow_vertex_batch.core.money.prices import PriceTable


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class TestTheTable:
    def test_every_place_has_a_source_and_a_date(self):
        for place in places():
            assert place.source
            assert date.fromisoformat(place.date) <= date(2027, 1, 1)

    @pytest.mark.parametrize("life", lives().values(), ids=lives())
    def test_every_life_has_a_source_and_dates_in_order(self, life):
        assert len(life.source) > 10
        days = [day for day in (life.released, life.retires, life.shuts_down) if day]
        assert [date.fromisoformat(day).isoformat() for day in days] == sorted(days)
        assert not life.instead or life.instead in lives()

    def test_every_model_with_a_price_has_a_life(self):
        assert {price.model for price in PriceTable.shipped()} <= lives().keys()


class TestTheExample:
    def test_outlives_all_others_of_its_price(self):
        mine = life_of(EXAMPLE_MODEL)
        price = PriceTable.shipped().of(EXAMPLE_MODEL, "2026-11-28")
        longer = [life.model for life in lives().values() if life.retires > mine.retires]
        assert mine.or_later
        for model in longer:
            assert PriceTable.shipped().of(model, "2026-11-28").output > 2 * price.output

    def test_runs_where_the_examples_run(self):
        place = next(each for each in places() if each.model == "google/gemini-[3-9]*")
        assert place.takes(EXAMPLE_LOCATION)


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "gemini-2.0-flash",
            "gemini-2.0-flash-001",
            "gemini-2.0-flash-001@default",
            "gemini-2.0-flash@001",
            "publishers/google/models/gemini-2.0-flash",
            "projects/p/locations/global/publishers/google/models/gemini-2.0-flash-001",
            "google/gemini-2.0-flash",
        ],
    )
    def test_a_version_or_a_path_is_the_same_model(self, name):
        assert base_name(name) == "gemini-2.0-flash"
        assert life_of(name).retires == "2026-06-01"
        assert misspelt(name) == ""

    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("gemini-2.5-flahs", "gemini-2.5-flash"),
            ("publishers/google/models/gemini-2.5-flahs", "gemini-2.5-flash"),
            ("gemini-2.5-flahs-001@default", "gemini-2.5-flash"),
            ("gemini-3.8-flas", "gemini-3.8-flash"),
            ("gemini-3.8-flasch", "gemini-3.8-flash"),
            ("gemini-4-argom", "gemini-4-argon"),
            ("Gemini-3.8-Flash", "gemini-3.8-flash"),
            ("gemini_3.8_flash", "gemini-3.8-flash"),
            ("gemini3.8-flash", "gemini-3.8-flash"),
            ("gemini-38-flash", "gemini-3.8-flash"),
            ("gemini-3.1-pro", "gemini-3.1-pro-preview"),
        ],
        ids=[
            *(
                "two letters changed places",
                "with its path",
                "with its version",
                "a letter left out",
                "a letter too many",
            ),
            *("another letter", "capitals", "underscores", "no hyphen", "no point", "preview left out"),
        ],
    )
    def test_one_slip_of_the_finger_is_found(self, name, near):
        assert misspelt(name) == near

    @pytest.mark.parametrize(
        "name",
        [
            "gemini-3.9-flash",
            "gemini-4-xenon",
            "gemini-3.8-flash-tts",
            "gemini-5-argon",
            "gemini-flash-latest",
            "something-new",
            "",
            "anthropic/gemini-3.8-flas",
            "projects/p/locations/l/models/gemini-3.8-flas",
            "projects/p/locations/l/endpoints/7",
        ],
        ids=[
            *("another version", "another element", "a longer name", "an element of another version", "an alias"),
            *("nothing like it", "nothing", "another publisher's", "a tuned one", "an endpoint"),
        ],
    )
    def test_what_may_be_another_model_is_not(self, name):
        assert misspelt(name) == ""

    def test_no_known_model_is_taken_for_a_misspelt_other(self):
        for one, other in permutations(lives(), 2):
            assert misspelt(one) == ""
            assert one != other


class TestRetirement:
    @pytest.mark.parametrize(
        ("model", "begins", "said"),
        [
            ("gemini-3.7-flash", "2026-12-01T00:00", ""),
            ("gemini-3.7-flash", "2027-01-04T00:00", "is about to retire, its last day is 2027-01-28"),
            ("gemini-3.7-flash", "2027-01-23T00:00", "is about to retire"),
            ("gemini-3.7-flash", "2027-01-24T00:00", "retires while the job may still run: its last day is 2027-01-28"),
            ("gemini-3.7-flash", "2027-01-28T23:00", "retires while the job may still run"),
            ("gemini-3.7-flash", "2027-01-29T00:00", "has retired: its last day was 2027-01-28"),
            ("gemini-3.8-flash", "2026-11-28T00:00", ""),
            ("gemini-3.8-flash", "2027-08-31T00:00", "may retire while the job may still run"),
            ("gemini-3.8-flash", "2028-01-01T00:00", "may have retired: its last day was 2027-09-02 or later"),
            ("gemini-2.5-flash", "2026-11-28T00:00", "and only who used it before is served until 2027-03-31"),
            ("gemini-2.5-flash", "2026-11-28T00:00", "Google names gemini-3.8-flash instead"),
            ("gemini-3.1-pro-preview", "2030-01-01T00:00", ""),
            ("something-new", "2030-01-01T00:00", ""),
            ("projects/p/locations/l/models/gemini-2.5-flash", "2030-01-01T00:00", ""),
        ],
    )
    def test_is_said_by_when_the_job_begins(self, model, begins, said):
        found = retirement(model, _at(begins))
        assert said in found
        assert bool(said) is bool(found)

    def test_those_who_used_it_are_not_promised_a_day_that_is_over(self):
        assert "only who used it" not in retirement("gemini-2.5-flash", _at("2027-04-01"))

    def test_a_notice_says_source_and_date(self):
        life = Lifetime(model="m", retires="2026-12-01", source="a page", date="2026-11-28")
        assert life.notice(_at("2026-11-30"), _at("2026-12-04")) == (
            "m retires while the job may still run: its last day is 2026-12-01 (a page, 2026-11-28). "
            "Choose a model that lives longer"
        )

    def test_notices_are_about_spelling_and_life(self):
        assert notices("gemini-3.8-flash", _at("2026-11-28")) == ()
        assert notices("gemini-2.5-flahs", _at("2026-11-28")) == (
            "gemini-2.5-flahs is no model that is known here, and gemini-2.5-flash is: check the name",
        )
        assert len(notices("gemini-2.5-flash", _at("2026-11-28"))) == 1
