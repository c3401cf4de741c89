"""Which day do the rows of a run belong to? There is one rule for all kinds of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import pass_context

from airflow_vertex_batch.core.domain.days import read_day
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.edge.compat import partition_key, timetable_zone

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Names under which a person may give the day by hand, in ``conf`` or ``params``.
_BY_HAND = ("partition_date", "ds")


@pass_context
def partition_date(context: Mapping[str, Any]) -> str:
    """Return the ISO date that a run's rows belong to: the local day of the DAG's timetable.

    In this order: ``partition_date`` or ``ds`` of the run's conf, then of its params; the partition key; the start of
    the data interval; the logical date; the time when the run was due. So scheduled, manual (with and without a logical
    date), backfill and partitioned runs each get their day. A retry or a clear gets the same day again.

    A time is read in the time zone of the timetable, or of the DAG if the timetable has none. So the night of 22
    November in Berlin is ``2026-11-22``, although its data interval begins on the 21st in UTC. ``{{ ds }}`` is the day
    in UTC.

    In a template: ``{{ macros.vertex_batch.partition_date() }}``.

    :raises InputError: when what was given by hand is not a date.
    """
    run, zone = context.get("dag_run"), timetable_zone(context.get("dag"))
    for place, given in (("conf", getattr(run, "conf", None) or {}), ("params", context.get("params") or {})):
        for name in _BY_HAND:
            # Airflow's form sends None for an empty field, so None counts as not given. Zero is an error, because it is
            # not a date.
            if given.get(name) is not None and given.get(name) != "":
                return read_day(given[name], zone, f"{name} in {place}")
    if key := partition_key(context):
        return read_day(key, zone, "the partition key")
    for name in ("data_interval_start", "logical_date", "run_after"):
        if (moment := getattr(run, name, None)) is not None:
            return read_day(moment, zone, name)
    raise InputError("This run has no date at all", todo='Give one: --conf \'{"partition_date": "2026-11-22"}\'')
