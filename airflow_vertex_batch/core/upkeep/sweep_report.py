"""Which jobs were left behind, what is done about them, and what do they cost? Findings about jobs, for people and for
XCom.

Invariants: a figure that is not known is None, or ``-1`` rows, and is printed as not known, never as zero. A figure
that may be too low says so.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.answers.collect import Batch, Collector, OnLostOutput
from airflow_vertex_batch.core.answers.collect.inputs import input_requests
from airflow_vertex_batch.core.answers.report import Totals
from airflow_vertex_batch.core.domain.errors import JobError, VertexBatchError
from airflow_vertex_batch.core.domain.job import BatchJob
from airflow_vertex_batch.core.domain.manifest import Manifest
from airflow_vertex_batch.core.domain.record import Record
from airflow_vertex_batch.core.money.estimate import dollars, estimate_cost
from airflow_vertex_batch.core.money.prices import PriceTable
from airflow_vertex_batch.core.requests.prepare.weight import WeightCounter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_vertex_batch.core.domain.ports import ObjectStore, Warehouse

#: Findings that are listed in an XCom; the others are counted.
_MOST_LISTED = 100
_UNKNOWN = "unknown"


class Money(Record, frozen=True, kw_only=True):
    """What a job has cost, and may cost. Amounts are US dollars as text, so that no digit is lost.

    :param answered_count: rows answered so far, by the service's count or by the output; -1 when neither says.
    :param spent_usd: the cost of the rows that could be read and priced; None if there are no such rows.
    :param is_spent_complete: whether `spent_usd` includes all rows that were answered.
    :param expected_usd: the estimate for the whole job, while it runs; None if it is not known.
    :param at_most_usd: the upper figure of the same estimate.
    """

    answered_count: int = -1
    spent_usd: str | None = None
    is_spent_complete: bool = False
    expected_usd: str | None = None
    at_most_usd: str | None = None

    @property
    def spent(self) -> str:
        """What was spent, for people."""
        if self.spent_usd is None:
            return _UNKNOWN
        return f"{'' if self.is_spent_complete else 'at least '}{dollars(Decimal(self.spent_usd))}"

    @property
    def whole(self) -> str:
        """What the whole job may cost, for people; empty for a job that has ended."""
        if self.expected_usd is None or self.at_most_usd is None:
            return _UNKNOWN
        return f"{dollars(Decimal(self.expected_usd))}, at most {dollars(Decimal(self.at_most_usd))}"


def money_of(job: BatchJob, store: ObjectStore, warehouse: Warehouse, prices: PriceTable | None = None) -> Money:
    """Price a job: the answered rows by the tokens in its output; while it runs, also the whole job by its requests.

    This reads the job's files, row by row. If something cannot be read, its cost is not known.
    """
    prices = prices or PriceTable.shipped()
    said = job.successful_count
    money = Money(answered_count=said)
    try:
        money = _spent(money, job, store, warehouse, prices)
    except VertexBatchError:
        money = Money(answered_count=said)
    if job.state.is_final:
        return money
    try:
        return _estimated(money, job, store, warehouse, prices)
    except VertexBatchError:
        return money


def _spent(money: Money, job: BatchJob, store: ObjectStore, warehouse: Warehouse, prices: PriceTable) -> Money:
    if not job.output_uri:
        return money
    totals, answered = Totals(prices, job.model, job.ended_at or job.created_at), 0
    for row in Collector(store, warehouse, on_lost_output=OnLostOutput.LAND).rows(Batch(job, job.input_uris)):
        totals.add(row)
        answered += bool(row.response)
    if not answered:
        return money
    priced = answered - totals.unpriced_count
    return msgspec.structs.replace(
        money,
        answered_count=max(answered, money.answered_count),
        spent_usd=f"{totals.cost:.6f}" if priced else None,
        is_spent_complete=priced == answered >= money.answered_count and job.state.is_final,
    )


def _estimated(money: Money, job: BatchJob, store: ObjectStore, warehouse: Warehouse, prices: PriceTable) -> Money:
    counter, count = WeightCounter(), 0
    for _, request, *_ in input_requests(store, warehouse, job.input_uris):
        counter.add_request(bytes(request))
        count += 1
    whole = Manifest(
        uri="", fingerprint="", row_count=count, request_count=count, shards=(), model=job.model, weight=counter.weight
    )
    usd = estimate_cost(whole, job.model, prices, job.created_at or datetime.now(UTC)).cost_usd
    if not count or usd is None:
        return money
    return msgspec.structs.replace(money, expected_usd=f"{usd.expected:.6f}", at_most_usd=f"{usd.high:.6f}")


class Finding(Record, frozen=True, kw_only=True):
    """One job of ours, and what happens to it.

    :param dag: the DAG (and `task`: the task), from the job's name if its hash proves it, else from the labels.
    :param run_id: empty if the job's name does not have it.
    :param buyer: the name of the Airflow that bought it, from its label; empty without the label.
    :param is_running: whether it bills.
    :param action: ``keep``, ``adopt``, ``harvest``, ``cancel``, or ``tell`` (report it: only a person may cancel it);
        empty if it could not be judged.
    :param is_open: whether the action depends on the state of its run, which is not known.
    :param done: what was done, or why not; empty in a dry run.
    :param error: why it could not be judged, or the action failed.
    """

    job_name: str
    state: str
    dag: str = ""
    task: str = ""
    run_id: str = ""
    buyer: str = ""
    is_running: bool = False
    age_hours: float = 0.0
    action: str = ""
    why: str = ""
    money: Money = Money()
    done: str = ""
    error: str = ""
    is_open: bool = False

    @property
    def is_left_behind(self) -> bool:
        """Whether there is something to do about it, or to tell about it."""
        return self.action != "keep" or bool(self.error)


class SweepReport(Record, frozen=True, kw_only=True):
    """The result of a sweep. Small and versioned, for XCom and for people.

    :param looked_at_count: jobs that carry our labels.
    :param actions: jobs by action, those that are kept included.
    :param kept: jobs that are kept, by reason.
    :param findings: the jobs that were left behind, the first hundred of them.
    :param unlisted_count: the number of jobs that were left behind and are not in `findings`.
    :param spent_usd: the cost of all left-behind jobs whose cost is known, US dollars as text.
    :param unknown_spent_count: left-behind jobs whose cost is not known, or known in part.
    :param asked: the Airflow that was asked about runs; empty if none was asked.
    :param open_count: jobs that were judged although the state of their run is not known and matters.
    :param installation: the name of the Airflow whose jobs the sweep was for; empty if none was given.
    :param buyers: number of jobs by the name of the Airflow that bought them, if a label has the name.
    :param others_running_count: running jobs that are kept because another Airflow bought them.
    """

    version: int = 1
    is_dry_run: bool
    looked_at_count: int
    actions: dict[str, int]
    kept: dict[str, int]
    findings: tuple[Finding, ...]
    unlisted_count: int = 0
    error_count: int = 0
    spent_usd: str = "0"
    unknown_spent_count: int = 0
    asked: str = ""
    open_count: int = 0
    installation: str = ""
    buyers: dict[str, int] = {}  # noqa: RUF012 - msgspec copies defaults
    others_running_count: int = 0

    @classmethod
    def of(cls, found: Iterable[Finding], *, is_dry_run: bool, asked: str = "", installation: str = "") -> SweepReport:
        """Add findings up."""
        actions, kept, buyers = Counter[str](), Counter[str](), Counter[str]()
        left: list[Finding] = []
        count = errors = unknown = open_count = others = 0
        spent = Decimal(0)
        for finding in found:
            count += 1
            actions[finding.action] += bool(finding.action)
            errors += bool(finding.error)
            open_count += finding.is_open
            buyers[finding.buyer] += bool(finding.buyer)
            others += bool(installation) and finding.is_running and finding.buyer not in {"", installation}
            if not finding.is_left_behind:
                kept[finding.why] += 1
                continue
            left.append(finding)
            spent += Decimal(finding.money.spent_usd or 0)
            unknown += not finding.money.is_spent_complete
        return cls(
            is_dry_run=is_dry_run, looked_at_count=count, actions=dict(+actions), kept=dict(kept),
            findings=tuple(left[:_MOST_LISTED]), unlisted_count=len(left[_MOST_LISTED:]), error_count=errors,
            spent_usd=f"{spent:.6f}", unknown_spent_count=unknown, asked=asked, open_count=open_count,
            installation=installation, buyers=dict(+buyers), others_running_count=others,
        )  # fmt: skip

    @property
    def status(self) -> int:
        """The exit status of a command: 0 nothing to do, 1 something to do or done, 2 something could not be done, 3
        there may be more to do, because the state of some runs is not known, or because no job carries the given name.
        """
        if self.error_count or self.open_count or self.is_name_unknown:
            return 2 if self.error_count else 3
        return 1 if self.findings else 0

    @property
    def is_name_unknown(self) -> bool:
        """Whether jobs carry names of Airflows, but none carries the given name: the name may be misspelt."""
        return bool(self.installation and self.buyers) and self.installation not in self.buyers

    @property
    def headline(self) -> str:
        """Return a text about the limits of the result: whether jobs carry the given name, whether an Airflow was
        asked, and what it could not say.
        """
        if self.is_name_unknown:
            return (
                f"No job here was bought by {self.installation}; the names are {', '.join(sorted(self.buyers))}. Jobs "
                f"of other names are kept. If one of them is this Airflow's earlier name, give it. {self._reach}"
            )
        return self._reach

    @property
    def _reach(self) -> str:
        if not self.asked:
            return (
                "No Airflow was asked what became of runs: jobs of failed or deleted runs are kept. Give --airflow-url "
                "with --installation, or --airflow-here on a machine of that Airflow"
            )
        unknown = f"; it could not tell of {self.open_count:,} jobs that hang on it" if self.open_count else ""
        return f"Asked {self.asked} what became of runs{unknown}"

    def refuse_errors(self) -> None:
        """Fail when a job could not be judged or dealt with. The other jobs have been dealt with.

        :raises JobError: with the name of the first such job in the list.
        """
        first = next((finding for finding in self.findings if finding.error), None)
        if self.error_count:
            raise JobError(
                f"{self.error_count:,} of {self.looked_at_count:,} jobs could not be judged or dealt with",
                job_name=first.job_name if first else "", state=first.state if first else "",
                why=f"{first.job_name}: {first.error}" if first else "",
                left="The others were looked at" if self.is_dry_run else "The others have been dealt with",
                todo="A retry does what is left to do",
            )  # fmt: skip

    def summary(self) -> str:
        """One sentence with the totals."""
        left = len(self.findings) + self.unlisted_count
        is_open = f"; of {self.open_count:,} it is not known, nor what became of their runs" if self.open_count else ""
        others = self.others_running_count
        is_open += f"; {others:,} that run were bought by other installations and not judged" if others else ""
        if not left:
            return f"{self.looked_at_count:,} jobs looked at, none left behind{is_open}"
        parts = [f"{count:,} to {name}" for name, count in self.actions.items() if name != "keep"]
        parts += [f"{self.error_count:,} with an error"] if self.error_count else []
        unknown = f", {self.unknown_spent_count:,} not or not fully known" if self.unknown_spent_count else ""
        mode = "; a dry run, nothing was done" if self.is_dry_run else ""
        return (
            f"{self.looked_at_count:,} jobs looked at, {left:,} left behind: {', '.join(parts)}; "
            f"spent {dollars(Decimal(self.spent_usd))}{unknown}{is_open}{mode}"
        )

    def text(self) -> str:
        """Return the limits of the result, a table of the jobs that were left behind, why the others are kept, and the
        totals.
        """
        from tabulate import tabulate

        parts = [self.headline]
        if self.findings:
            headers = ("job", "dag.task", "state", "age, h", "rows", "spent", "whole", "action", "why", "done")
            parts.append(tabulate(map(_cells, self.findings), headers=headers, disable_numparse=True))
        if self.unlisted_count:
            parts.append(f"and {self.unlisted_count:,} more")
        if self.kept:
            parts.append("\n".join(f"kept {count:,}: {why}" for why, count in self.kept.items()))
        return "\n\n".join((*parts, self.summary()))


def _cells(finding: Finding) -> tuple[Any, ...]:
    money, judged = finding.money, finding.action != ""
    _, _, _, location, _, job_id = finding.job_name.split("/")
    runs = judged and finding.action in {"cancel", "adopt", "tell"}
    return (
        f"{location}/{job_id}",
        ".".join(name for name in (finding.dag, finding.task) if name),
        finding.state.removeprefix("JOB_STATE_"),
        f"{finding.age_hours:,.1f}",
        _UNKNOWN if money.answered_count < 0 else f"{money.answered_count:,}",
        money.spent,
        money.whole if runs else "",
        finding.action,
        finding.why,
        finding.error or finding.done,
    )
