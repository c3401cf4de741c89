"""Which day does a run stand for? Every night of a year, in zones that change their clocks, by Airflow's timetables."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pendulum
import pytest
from airflow.sdk import DAG
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable as IntervalSchedule
from airflow.timetables.trigger import CronTriggerTimetable as TriggerSchedule

from airflow_vertex_batch.core.domain.days import read_day
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.macros import partition_date
from tests.airflow.versions import CronDataIntervalTimetable, CronTriggerTimetable, MultipleCronTriggerTimetable

ZONES = ("Europe/London", "Europe/Berlin", "Asia/Tokyo", "Pacific/Auckland", "America/New_York")
YEAR = 2026
ALL_DAYS = [date(YEAR, 1, 1) + timedelta(days=number) for number in range(365)]


def a_dag(timetable=None, zone: str = "UTC"):
    return DAG("d", schedule=timetable, start_date=pendulum.datetime(YEAR, 1, 1, tz=zone))


def a_day(dag, **run) -> str:
    return partition_date({"dag": dag, "dag_run": SimpleNamespace(**run), "params": {}})


def infos(schedule, zone: str):
    """The runs that Airflow's scheduler plans for a year."""
    year = TimeRestriction(pendulum.datetime(YEAR, 1, 1, tz=zone), None, catchup=True)
    last: DataInterval | None = None
    while (info := schedule.next_dagrun_info(last_automated_data_interval=last, restriction=year)) is not None:
        if info.data_interval.start.in_timezone(zone).year > YEAR:
            return
        yield info
        last = info.data_interval


class TestTheNightsOfAYear:
    @pytest.mark.parametrize("zone", ZONES)
    @pytest.mark.parametrize("cron", ["0 0 * * *", "30 2 * * *", "15 1 * * *", "0 3 * * *"])
    def test_each_local_day_of_a_scheduled_interval_comes_once(self, zone, cron):
        dag = a_dag(CronDataIntervalTimetable(cron, timezone=zone))
        days = [
            a_day(dag, data_interval_start=info.data_interval.start.in_timezone("UTC"), logical_date=info.logical_date)
            for info in infos(IntervalSchedule(cron, zone), zone)
        ]
        assert days == [str(day) for day in ALL_DAYS]

    @pytest.mark.parametrize("zone", ZONES)
    @pytest.mark.parametrize("cron", ["0 0 * * *", "30 2 * * *", "45 23 * * *"])
    def test_each_local_day_of_a_trigger_timetable_comes_once(self, zone, cron):
        dag = a_dag(CronTriggerTimetable(cron, timezone=zone))
        days = [
            a_day(dag, data_interval_start=info.data_interval.start.in_timezone("UTC"), logical_date=info.logical_date)
            for info in infos(TriggerSchedule(cron, timezone=zone), zone)
        ]
        assert days == [str(day) for day in ALL_DAYS]

    @pytest.mark.parametrize("zone", ZONES)
    def test_a_run_by_hand_belongs_to_the_local_day_on_which_it_was_triggered(self, zone):
        dag = a_dag(CronDataIntervalTimetable("@daily", timezone=zone))
        for day in ALL_DAYS:
            for hour in (0, 12, 23):
                moment = pendulum.datetime(day.year, day.month, day.day, hour, 30, tz=zone).in_timezone("UTC")
                assert a_day(dag, run_after=moment) == str(day)

    @pytest.mark.parametrize("zone", ZONES)
    def test_a_backfill_asks_for_the_same_days(self, zone):
        from tests.airflow.versions import DagSerialization

        dag = a_dag(CronDataIntervalTimetable("@daily", timezone=zone), zone)
        planned = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
        first, last = (pendulum.datetime(YEAR, month, 1, tz=zone) for month in (1, 12))
        runs = planned.iter_dagrun_infos_between(first, last)
        days = [a_day(dag, data_interval_start=run.data_interval.start, logical_date=run.logical_date) for run in runs]
        assert days == [str(day) for day in ALL_DAYS if day <= date(YEAR, 12, 1)]


class TestTheZone:
    def test_a_plain_cron_counts_by_the_zone_of_the_start_date(self):
        moment = datetime(2026, 6, 30, 22, 30, tzinfo=UTC)
        assert a_day(a_dag("0 1 * * *", "Europe/Berlin"), run_after=moment) == "2026-07-01"

    def test_a_dag_without_a_schedule_counts_by_its_own_zone(self):
        moment = datetime(2026, 6, 30, 15, 30, tzinfo=UTC)
        assert a_day(a_dag(None, "Asia/Tokyo"), run_after=moment) == "2026-07-01"

    def test_several_schedules_count_by_their_zone(self):
        dag = a_dag(MultipleCronTriggerTimetable("0 1 * * *", "0 13 * * *", timezone="Asia/Tokyo"))
        assert a_day(dag, run_after=datetime(2026, 6, 30, 16, tzinfo=UTC)) == "2026-07-01"

    def test_without_a_dag_it_is_utc(self):
        assert a_day(None, run_after=datetime(2026, 6, 30, 23, 59, tzinfo=UTC)) == "2026-06-30"


class TestADayByHand:
    @pytest.mark.parametrize(
        "given",
        [
            *("2026-11-22", "20261122", 20261122, "2026-11-22T00:00:00", "20261122T000000", " 2026-11-22\n"),
            *("2026-11-21T23:30:00+00:00", "2026-11-21T23:30:00Z", date(2026, 11, 22), datetime(2026, 11, 22, 5)),  # noqa: DTZ001 - a moment without a zone is a case
            datetime(2026, 11, 21, 23, 30, tzinfo=UTC),
        ],
    )
    def test_whatever_a_template_makes_of_a_day_is_read(self, given):
        dag = a_dag(CronDataIntervalTimetable("@daily", timezone="Europe/Berlin"))
        assert a_day(dag, conf={"partition_date": given}) == "2026-11-22"

    @pytest.mark.parametrize(
        "given",
        [
            "yesterday",
            "2026",
            2026,
            "2026-11",
            "2026-W47-7",
            "22.11.2026",
            True,
            0,
            [],
            1.5,
            "0001-01-01T00:00:00+14:00",
        ],
    )
    def test_what_is_no_day_is_refused_by_its_name(self, given):
        with pytest.raises(InputError, match=r"ds in conf is .* which is no date\. Write it as YYYY-MM-DD"):
            a_day(None, conf={"ds": given})

    def test_a_number_that_python_does_not_write_is_none(self):
        with pytest.raises(InputError, match="ds in conf is a number of thousands of digits, which is no date"):
            a_day(None, conf={"ds": 10**5_000})

    def test_a_long_value_is_cut_in_the_message(self):
        with pytest.raises(InputError, match=r"^day is 'x{36}\.\.\., which") as found:
            read_day("x" * 1_000_000, UTC, "day")
        assert len(str(found.value)) < 200

    @pytest.mark.parametrize("empty", [None, ""])
    def test_a_field_left_empty_says_nothing(self, empty):
        assert a_day(None, conf={"ds": empty}, run_after=datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02"
