"""How do rows land, in files or in a table? They go into a sink one after the other, and are counted: no row may be
lost or doubled.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol, Self

import msgspec

from airflow_vertex_batch.core.answers.report import Report, Totals
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import ResultError
from airflow_vertex_batch.core.domain.row import ResultRow, RowStatus
from airflow_vertex_batch.core.domain.row_progress import RowProgress
from airflow_vertex_batch.core.landing.record import LandedRow, LandPlan, landed_row
from airflow_vertex_batch.core.money.prices import PriceTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from airflow_vertex_batch.core.domain.ports import ObjectStore


class Sink(Protocol):
    """A place to land. It is a context manager: leaving it without an error completes the landing."""

    destination: str
    dead_letters: str

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None: ...
    def add(self, record: LandedRow, *, good: bool) -> None:
        """Take one record."""


def land(
    rows: Iterable[ResultRow],
    sink: Sink,
    plan: LandPlan,
    *,
    expected: Callable[[], int],
    row_count: int = 0,
    prices: PriceTable | None = None,
    model: str = "",
    now: datetime | None = None,
    key_mismatch_text: Callable[[], str] | None = None,
) -> Report:
    """Land every row and return the report.

    :param model: the model that was asked, for the price of rows that do not name one.
    :param now: as in `Totals`.
    :param row_count: how many rows there will be, for the lines in the log; 0 where nobody knows.
    :param expected: returns how many rows there must be, after all have been read.
    :param key_mismatch_text: returns which rows are missing or surplus (`Collector.key_mismatch_text`). It is called
        only if the totals differ.
    :raises ResultError: when there are more or fewer rows than expected. Then nothing has landed.
    """
    totals, progress = Totals(prices, model, now), RowProgress("Landed", row_count)
    with sink:
        for row in rows:
            progress.add()
            good, record = row.status.is_good, landed_row(row, plan, totals.add(row))
            # A long row must not be in memory in both forms while it is written.
            del row
            sink.add(record, good=good)
            del record
        report = totals.report(
            destination=sink.destination, dead_letters=sink.dead_letters, partition_date=plan.partition_date
        )
        if report.request_count != (wanted := expected()):
            raise ResultError(
                f"{wanted:,} rows went in and {report.request_count:,} came out",
                uri=sink.destination,
                why=key_mismatch_text() if key_mismatch_text else "",
                left="Nothing was landed",
                todo="Restore the request files as they were when the jobs were created, or prepare the batch again",
            )
    return report


def rejected_rows(store: ObjectStore, uri: str, run_id: str) -> Iterator[ResultRow]:
    """Yield the rows that prepare rejected. They have no keys of their own.

    :param run_id: a part of their keys, so that they do not replace rows of another run of that day.
    """
    if uri:
        run = hashlib.sha256(run_id.encode()).hexdigest()[:10]
        with store.open_read(Uri.parse(uri)) as stream:
            for number, line in enumerate(stream, start=1):
                doc = msgspec.json.decode(line)
                where = f"{doc['source']}:{doc['line']}: {doc['reason']}"
                yield ResultRow(
                    key=f"rejected-{run}-{number}",
                    status=RowStatus.REJECTED,
                    code=doc["code"],
                    reason=where,
                    attempts=0,
                )
