"""Which day does a run stand for? One answer for every way a run can begin."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from jinja2 import pass_context

from airflow_vertex_batch.compat import partition_key
from airflow_vertex_batch.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Names under which a person may give the day by hand, in ``conf`` or ``params``.
_BY_HAND = ("partition_date", "ds")


@pass_context
def partition_date(context: Mapping[str, Any]) -> str:
    """Return the ISO date that a run's rows belong to.

    In this order: ``partition_date`` or ``ds`` of the run's conf, then of its params; the partition key; the start of
    the data interval; the logical date; the time the run was due. So scheduled, manual (with and without a logical
    date), backfill and partitioned runs each get their day, and a retry or a clear gets the same one again.

    In a template: ``{{ macros.vertex_batch.partition_date() }}``.

    :raises InputError: when what was given by hand is not a date.
    """
    run = context.get("dag_run")
    for given in (getattr(run, "conf", None) or {}, context.get("params") or {}):
        for name in _BY_HAND:
            if given.get(name):
                return _iso(given[name], name)
    if key := partition_key(context):
        return _iso(key, "the partition key")
    for name in ("data_interval_start", "logical_date", "run_after"):
        if (moment := getattr(run, name, None)) is not None:
            return str(moment.astimezone(UTC).date().isoformat())
    raise InputError("This run has no date at all", todo='Give one: --conf \'{"partition_date": "2026-11-22"}\'')


def _iso(value: Any, name: str) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()[:10]
    try:
        return date.fromisoformat(str(value)[:10]).isoformat()
    except ValueError:
        raise InputError(f"{name} is {str(value)!r}, which is no date", todo="Write it as YYYY-MM-DD") from None
