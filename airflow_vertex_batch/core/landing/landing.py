"""How do the rounds of a batch land? All its rows, also the rows that prepare rejected, go into one sink."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.answers.collect import OnLostOutput
from airflow_vertex_batch.core.answers.rounds import Round, Rounds, badly_ended
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.disk_multimap import DiskMultimap
from airflow_vertex_batch.core.domain.errors import JobError
from airflow_vertex_batch.core.domain.jsonl import decode, encode
from airflow_vertex_batch.core.domain.row import ResultRow, RowStatus
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.landing.sink import land, rejected_rows
from airflow_vertex_batch.core.money.estimate import estimate_cost
from airflow_vertex_batch.core.money.prices import PriceTable
from airflow_vertex_batch.core.purchase.entries import Landed
from airflow_vertex_batch.core.requests.answer_check import AnswerCheck

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_vertex_batch.core.answers.report import Report
    from airflow_vertex_batch.core.domain.ports import ObjectStore, Warehouse
    from airflow_vertex_batch.core.landing.destination import Destination

log = logging.getLogger(__name__)


class Landing:
    """Lands finished jobs, and returns a report.

    :param schema: the schema that answers are checked against; the manifest's own if None.
    :param on_lost_output: what to do when an output has fewer rows than the service counted.
    """

    def __init__(
        self,
        rounds: Sequence[Round],
        store: ObjectStore,
        warehouse: Warehouse,
        plan: LandPlan,
        *,
        schema: dict[str, Any] | None = None,
        prices: PriceTable | None = None,
        on_lost_output: OnLostOutput = OnLostOutput.FAIL,
    ) -> None:
        self._store, self._warehouse, self._plan, self._prices = store, warehouse, plan, prices
        self._manifest = rounds[0].manifest
        schema = schema or (self._manifest.response_schema if self._manifest else None)
        check = AnswerCheck(schema) if schema else None
        self._rounds = Rounds(rounds, store, warehouse, check, on_lost_output=on_lost_output)

    def land(self, destination: Destination) -> Report:
        """Land every row: rows that were sent, rows that were not sent, and rows that were rejected."""
        manifest = self._manifest
        sink = destination.sink(self._store, self._warehouse, self._plan)
        rows = chain(
            self._with_duplicates(self._rounds.rows()),
            self._known_rows(destination),
            rejected_rows(self._store, manifest.rejected_uri if manifest else "", self._plan.run_id),
        )
        report = land(
            rows, sink, self._plan,
            expected=self._expected, row_count=manifest.row_count if manifest else 0,
            prices=self._prices, model=self._model, now=self._rounds.ended_at,
            key_mismatch_text=self._rounds.key_mismatch_text,
        )  # fmt: skip
        rounds = self._rounds.rounds
        return msgspec.structs.replace(
            report,
            jobs=tuple(job.name for asked in rounds for job in asked.jobs),
            rounds=list(self._round_facts()),
            estimate=self._estimate(),
            **self._rounds.anomalies,
        )

    def _estimate(self) -> dict[str, Any] | None:
        """The estimate for the batch, made from the same figures as before the purchase."""
        if self._manifest is None or self._manifest.weight is None:
            return None
        created = (job.created_at for job in self._rounds.rounds[0].jobs if job.created_at is not None)
        bought = min(created, default=datetime.now(UTC))
        return estimate_cost(self._manifest, self._model, self._prices or PriceTable.shipped(), bought).as_dict()

    @property
    def _model(self) -> str:
        """The model that was asked."""
        asked = self._rounds.rounds[0]
        return (self._manifest.model if self._manifest else "") or (asked.jobs[0].model if asked.jobs else "")

    def _round_facts(self) -> Iterator[dict[str, int]]:
        for number, asked in enumerate(self._rounds.rounds):
            if number and asked.manifest is not None:
                yield {"round": number, "sent": asked.manifest.request_count, "cured": self._rounds.cured[number]}

    def _expected(self) -> int:
        """How many rows there must be: what prepare counted, or what the input files hold."""
        return self._manifest.row_count if self._manifest else self._rounds.expected_count

    def _with_duplicates(self, rows: Iterable[ResultRow]) -> Iterator[ResultRow]:
        """Yield every row, and after it the rows with the same request, which were not sent."""
        if self._manifest is None or not self._manifest.duplicate_count:
            yield from rows
            return
        with DiskMultimap() as others:
            for line in self._unsent_lines(self._manifest.duplicates_uri):
                others.put(line["same_as"], encode(line))
            for row in rows:
                yield row
                for data in others.all(row.key):
                    other = decode(data)
                    yield msgspec.structs.replace(
                        row, key=other["key"], same_as=row.key, columns=other.get("columns"), usage=None, earlier=()
                    )

    def _known_rows(self, destination: Destination) -> Iterator[ResultRow]:
        """Yield the rows that an earlier run has answered. If such an answer has been deleted since, the
        row says so.
        """
        if self._manifest is None or not self._manifest.known_count:
            return
        with DiskMultimap() as asked:
            for line in self._unsent_lines(self._manifest.known_uri):
                asked.put(line["request_digest"], encode(line))
            for answer in destination.answers(self._store, self._warehouse).rows():
                for data in asked.take(answer.request_digest):
                    line = decode(data)
                    yield msgspec.structs.replace(answer, key=line["key"], columns=line.get("columns"))
            for digest, data in asked.items():
                line = decode(data)
                yield ResultRow(
                    key=line["key"],
                    status=RowStatus.MISSING,
                    code="ANSWER_GONE",
                    reason="Its answer of an earlier run is no longer at the destination",
                    columns=line.get("columns"),
                    request_digest=digest,
                    attempts=0,
                )

    def _unsent_lines(self, uri: str) -> Iterator[dict[str, Any]]:
        with self._store.open_read(Uri.parse(uri)) as stream:
            yield from map(decode, stream)


def refuse_bad_end(rounds: Sequence[Round], report: Report) -> None:
    """Fail when a job did not end well and left rows without an answer. Its answered rows have landed already.

    :raises JobError: with the name of the first such job.
    """
    if not report.unanswered_count:
        return
    for job in badly_ended(rounds):
        raise JobError(
            f"{job.name} ended as {job.state_text or job.state}",
            job_name=job.name,
            state=str(job.state),
            retryable=False,
            why=job.error_message,
            left=f"What it answered has landed: {report.summary()}",
            todo="Clear the repair task, or VertexBatchOperator, to send only the rest; or look at the dead letters",
        )


def landed_entry(report: Report, rounds: int) -> Landed:
    """Return the entry of a batch's log that says what has landed.

    :param rounds: repair rounds that were made.
    """
    cost = report.cost_usd if report.is_cost_known else ""
    return Landed(destination=report.destination, rows=report.statuses, cost_usd=cost, rounds=rounds)
