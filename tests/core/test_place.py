"""Places that an author names, and one service over all of them."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.domain.address import JobName
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.purchase.place import AllLocationsService, Place, read_places
from tests.builders import a_spec
from tests.fakes import Clock, Jobs

EUROPE = Place(location="europe-west4")


class TestReading:
    def test_each_is_a_location_or_a_model_or_both(self):
        given = [{"location": "europe-west4"}, {"model": "lite"}, {"location": "europe-west4", "model": "lite"}]
        places = read_places(given)
        assert places == (EUROPE, Place(model="lite"), Place("europe-west4", "lite"))
        assert [str(place) for place in places] == [
            "location europe-west4", "model lite", "location europe-west4, model lite",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ([{"region": "europe-west4"}], r"unknown field `region`.*Give a list such as"),
            ([{"location": 4}], r"Expected `str`, got `int`"),
            ("europe-west4", r"elsewhere is no list of places"),
            (["europe-west4"], r"Expected `object`, got `str`"),
            ([{"model": "lite"}, {}], r"elsewhere\[1\] names neither location nor model"),
            ([{"model": "lite"}, {"model": "lite"}], r"elsewhere\[1\] is there twice"),
        ],
        ids=["misspelt", "a number", "a text", "texts", "nothing", "twice"],
    )
    def test_what_is_no_place_is_named(self, given, message):
        with pytest.raises(InputError, match=message):
            read_places(given)


class TestEverywhere:
    def test_each_call_goes_where_the_job_is(self):
        clock = Clock()
        home = Jobs(clock)
        service = AllLocationsService(home, home.at, {"europe-west4"})
        here = service.create(a_spec(labels={"a": "b"}))
        clock.sleep(60)
        there = service.create(a_spec(labels={"a": "b"}, location="europe-west4"))
        assert (here.job_name.location, there.job_name.location) == ("global", "europe-west4")
        assert [job.name for job in service.list({"a": "b"})] == [there.name, here.name]
        assert [service.get(job.job_name).name for job in (here, there)] == [here.name, there.name]
        assert [service.cancel(job.job_name) for job in (here, there, there)] == [True, True, False]

    def test_a_place_that_is_the_task_s_own_shows_its_jobs_once(self):
        home = Jobs()
        service = AllLocationsService(home, home.at, {"global"})
        job = service.create(a_spec(labels={"a": "b"}))
        assert [each.name for each in service.list({"a": "b"})] == [job.name]
        assert service.get(JobName.parse(job.name)) == job
