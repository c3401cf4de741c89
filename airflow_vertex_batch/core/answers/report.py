"""How many rows of a batch are good, what did they cost, and is that good enough? One small record has counts, tokens
and money: as text for people, as a dict for XCom. The limits that a batch must meet are here too.

Invariants: each row is counted once, and each attempt at it is priced at its own tier. A row that cannot be priced is
counted as such and never as zero. A row that was answered without being sent adds neither tokens nor money.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from airflow_vertex_batch.core.answers.classify import is_unrepairable
from airflow_vertex_batch.core.domain.catalog import base_name
from airflow_vertex_batch.core.domain.errors import InputError, ResultError
from airflow_vertex_batch.core.domain.record import Record
from airflow_vertex_batch.core.domain.row import ResultRow, RowStatus, Tally, Usage
from airflow_vertex_batch.core.money.estimate import Estimate, dollars
from airflow_vertex_batch.core.money.prices import PriceTable, billing_day, was_sent

#: How many keys of each status are shown in a message, and how many reasons are counted. The others are in the rows.
_SAMPLES, _REASONS = 3, 5
#: How many different reasons are kept for each status.
_MOST_REASONS = 100
#: The form of a reason: one word of the service, of the linter or of this package. Any other text may quote a row.
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)
_NO_WORD = "OTHER"


class Report(Record, frozen=True, kw_only=True):
    """The result of an export. Small and versioned, for XCom and for people.

    :param request_count: rows that had to be accounted for, rejected ones included.
    :param statuses: rows by status; they add up to `request_count`.
    :param samples: up to three keys of each status that is not good.
    :param reasons: for each status that is not good, its five most frequent reasons with their rows: the column
        ``code`` of the landed rows, such as ``{"failed": {"INVALID_ARGUMENT": 7}}``. Never a text.
    :param usage: tokens of all attempts at all rows.
    :param cost_usd: what the priced rows cost, US dollars with six decimals, as text so that no digit is lost.
    :param unpriced_count: rows that were billed but could not be priced.
    :param unpriced_models: models without a price on the day on which they answered, each once.
    :param unanswered_count: rows that no job has a line for.
    :param sent_count: rows whose own request was sent in this run.
    :param hopeless_count: of these, rows that no repair can heal: blocked, or refused with an error that never heals.
    :param known_count: rows answered by an earlier run, and not sent.
    :param shared_count: rows answered by another row's identical request, and not sent themselves.
    :param rounds: what each repair round sent and cured: ``{"round": 1, "sent": 70, "cured": 61}``.
    :param estimate: the estimate before the purchase (`core.money.estimate.Estimate` as a dict), or None.
    """

    version: int = 2
    request_count: int
    statuses: dict[str, int]
    samples: dict[str, list[str]] = {}  # noqa: RUF012 - msgspec copies defaults
    reasons: dict[str, dict[str, int]] = {}  # noqa: RUF012 - msgspec copies defaults
    usage: Usage = Usage()
    cost_usd: str = "0"
    unpriced_count: int = 0
    unpriced_models: tuple[str, ...] = ()
    duplicate_count: int = 0
    foreign_count: int = 0
    rejoined_count: int = 0
    unreadable_count: int = 0
    unmatched_count: int = 0
    jobs: tuple[str, ...] = ()
    destination: str = ""
    dead_letters: str = ""
    partition_date: str = ""
    unanswered_count: int = 0
    sent_count: int = 0
    hopeless_count: int = 0
    known_count: int = 0
    shared_count: int = 0
    rounds: list[dict[str, int]] = []  # noqa: RUF012 - msgspec copies defaults
    estimate: dict[str, Any] | None = None

    @property
    def tally(self) -> Tally:
        """The counts as a tally."""
        return Tally(self.statuses)

    @property
    def good_count(self) -> int:
        """Rows with the answer that was asked for."""
        return self.tally[RowStatus.SUCCEEDED]

    def summary(self) -> str:
        """One sentence with the totals."""
        return f"{self.tally}; {self.usage.total_tokens:,} tokens, {self.money}{self._unpriced()}"

    @property
    def is_cost_known(self) -> bool:
        """Whether any of the billed rows has a price. A cost of zero is right only if nothing was billed."""
        return not self.unpriced_count or bool(Decimal(self.cost_usd))

    @property
    def money(self) -> str:
        """The cost of the batch, as text for people."""
        return f"${Decimal(self.cost_usd):,.6f}" if self.is_cost_known else "cost not known"

    def _unpriced(self) -> str:
        """Return a text: for how many rows the cost is not known, and which models have no price."""
        if not self.unpriced_count:
            return ""
        models = ", ".join(self.unpriced_models)
        why = f": no price is known for {models}, add it to [vertex_batch] prices_file" if models else ""
        return f" ({self.unpriced_count:,} rows could not be priced{why})"

    def text(self) -> str:
        """Return tables for people."""
        return "\n\n".join(self._tables("simple", "plain"))

    def markdown(self) -> str:
        """Return the same tables as Markdown."""
        return "\n\n".join((f"**{self.summary()}**", *self._tables("github", "github")))

    def _tables(self, grid: str, plain: str) -> list[str]:
        """Return rows by status, repair rounds if there were any, then tokens and money."""
        from tabulate import tabulate

        # By default, tabulate reads figures as numbers, and rounds money to six digits.
        table = functools.partial(tabulate, disable_numparse=True)
        # A key is the user's own text. A "|" in it must not end a Markdown cell.
        statuses = self._status_rows("|" if grid == "simple" else "\\|")
        aligned = ("left", "right", "right", "left", "left")
        made = [
            table(
                statuses,
                headers=("status", "rows", "share", "reasons", "for example"),
                colalign=aligned if statuses else None,
                tablefmt=grid,
            )
        ]
        if self.rounds:
            rounds = [[f"{each.get(name, 0):,}" for name in ("round", "sent", "cured")] for each in self.rounds]
            made.append(
                table(rounds, headers=("repair round", "sent", "cured"), colalign=("right",) * 3, tablefmt=grid)
            )
        headers = ("", "actual", "estimated") if self.estimate or plain != "plain" else ()
        made.append(table(self._money_rows(), headers=headers, colalign=("left", "right", "left"), tablefmt=plain))
        return made

    def _status_rows(self, bar: str) -> list[tuple[str, ...]]:
        total = max(self.request_count, 1)
        return [
            (
                status,
                f"{count:,}",
                f"{count / total:.1%}",
                _counted(self.reasons.get(status, {})),
                ", ".join(self.samples.get(status, [])).replace("|", bar),
            )
            for status, count in self.tally.as_dict().items()
        ]

    def _money_rows(self) -> list[tuple[str, str, str]]:
        usage = self.usage
        estimate = Estimate.from_dict(self.estimate) if self.estimate else None
        rows = [
            ("prompt tokens", usage.prompt_tokens, estimate.prompt_tokens if estimate else None),
            ("  of these cached", usage.cached_tokens, None),
            # The estimate's output includes thinking, as its price does.
            ("output tokens", usage.output_tokens, estimate.output_tokens if estimate else None),
            ("thinking tokens", usage.thinking_tokens, "included above" if estimate else None),
            # The service adds these tokens, for example from a search. They cannot be estimated.
            ("tool tokens, at the prompt's price", usage.tool_tokens, None),
            ("rows known, not sent", self.known_count, None),
            ("rows sent as another", self.shared_count, None),
            ("rows not priced", self.unpriced_count, None),
        ]
        optional = {"tool tokens, at the prompt's price", "rows known, not sent", "rows sent as another"}
        made = [(name, f"{count:,}", str(guess or "")) for name, count, guess in rows if count or name not in optional]
        cost = f"{Decimal(self.cost_usd):,.6f}" if self.is_cost_known else f"not known{self._unpriced()}"
        made.insert(5 if usage.tool_tokens else 4, ("cost, USD", cost, self._against(estimate)))
        return made

    def _against(self, estimate: Estimate | None) -> str:
        """Return a text with the estimate, and how near it was."""
        if estimate is None:
            return ""
        if estimate.cost_usd is None:
            return f"not known: {estimate.unknown}"
        expected = estimate.cost_usd.expected
        is_told = expected and self.is_cost_known
        share = f"; actual is {Decimal(self.cost_usd) / expected:.0%} of expected" if is_told else ""
        return f"{estimate.cost_usd}{share}"


class Totals:
    """Adds up rows, one after the other.

    :param prices: the prices; the table of this package if not given.
    :param model: the model that was asked, for rows that do not name the one that answered.
    :param now: rows that do not say when they were answered get the price of this day; now if not given.
    """

    def __init__(self, prices: PriceTable | None = None, model: str = "", now: datetime | None = None) -> None:
        self._prices, self._model = prices or PriceTable.shipped(), model
        self._day = billing_day(now or datetime.now(UTC))
        self._unpriced_models: set[str] = set()
        self._statuses: dict[str, int] = {}
        self._samples: dict[str, list[str]] = {}
        self._reasons: dict[str, Counter[str]] = {}
        self._cost = Decimal(0)
        self.usage = Usage()
        self.unpriced_count = self.known_count = self.shared_count = self.unanswered_count = 0
        self.sent_count = self.hopeless_count = 0

    def add(self, row: ResultRow) -> Decimal | None:
        """Count one row and return what all attempts at it cost."""
        status = str(row.status)
        self._statuses[status] = self._statuses.get(status, 0) + 1
        if not row.status.is_good:
            keys = self._samples.setdefault(status, [])
            if len(keys) < _SAMPLES:
                keys.append(row.key)
            self._add_reason(status, row.code)
        if was_sent(row):
            self._add_sent(row)
        elif row.same_as:
            self.shared_count += 1
        elif row.status.is_good:
            self.known_count += 1
        # A row that no job answered has its job's state as its code: see `core.answers.collect`.
        self.unanswered_count += row.code.startswith("JOB_STATE_")
        cost = self._prices.cost(row, self._model, self._day)
        if cost is None:
            self.unpriced_count += 1
            if not self._prices.has_price(row, self._model, self._day):
                self._unpriced_models.add(base_name(row.model_version or self._model))
        else:
            self._cost += cost
        return cost

    def _add_reason(self, status: str, code: str) -> None:
        counts = self._reasons.setdefault(status, Counter())
        word = code if _WORD.fullmatch(code) else _NO_WORD
        counts[word if word in counts or len(counts) < _MOST_REASONS else _NO_WORD] += 1

    def _add_sent(self, row: ResultRow) -> None:
        self.sent_count += 1
        self.hopeless_count += is_unrepairable(row)
        if row.usage is not None:
            self.usage += row.usage
        for usage in row.earlier:
            self.usage += usage

    @property
    def cost(self) -> Decimal:
        """The cost of the priced rows so far, US dollars."""
        return self._cost

    def report(self, **facts: Any) -> Report:
        """Return the totals together with further facts. A fact that is given here wins."""
        tally = Tally(self._statuses)
        counted: dict[str, Any] = {
            "request_count": tally.total,
            "statuses": tally.as_dict(),
            "samples": self._samples,
            "reasons": {status: dict(counts.most_common(_REASONS)) for status, counts in self._reasons.items()},
            "usage": self.usage,
            "cost_usd": f"{self._cost:.6f}",
            "unpriced_count": self.unpriced_count,
            "sent_count": self.sent_count,
            "hopeless_count": self.hopeless_count,
            "unpriced_models": tuple(sorted(self._unpriced_models)),
            "known_count": self.known_count,
            "shared_count": self.shared_count,
            "unanswered_count": self.unanswered_count,
        }
        return Report(**counted | facts)


class Thresholds(msgspec.Struct, frozen=True):
    """How many rows may fail. A row has failed when it has no good answer, whatever the reason.

    :param max_failed_ratio: largest share of failed rows that passes, 0 to 1; None for any.
    :param min_succeeded_rows: smallest number of good rows that passes, 0 or more. None asks for one good answer from
        this run, if the run sent anything. Then a batch without any good answer passes only in two cases:
        `max_failed_ratio` is 1; or answers of earlier runs land, and all rows that were sent are rows that no repair
        can heal.
    """

    max_failed_ratio: float | None = None
    min_succeeded_rows: int | None = None

    @classmethod
    def of(cls, max_failed_ratio: float | None, min_succeeded_rows: int | None) -> Thresholds:
        """Read an author's parameters.

        :raises InputError: when one is out of its range.
        """
        if max_failed_ratio is not None and not 0 <= max_failed_ratio <= 1:
            raise InputError(f"max_failed_ratio={max_failed_ratio!r}", todo="Use a share of the rows, 0 to 1")
        if min_succeeded_rows is not None and min_succeeded_rows < 0:
            raise InputError(f"min_succeeded_rows={min_succeeded_rows!r}", todo="Use 0 or more rows")
        return cls(max_failed_ratio, min_succeeded_rows)

    def check(self, report: Report) -> None:
        """Check the landed rows against the limits.

        :raises ResultError: with every limit that was missed, the statuses and sample keys.
        """
        missed = [why for why in (self._too_many_failed(report), self._too_few_good(report)) if why]
        if missed:
            raise ResultError(
                "; ".join(missed),
                uri=report.destination,
                why=_failed_statuses(report),
                left=_landed(report),
                todo="Look at the dead letters, then repair those rows or change the limit",
            )

    def _too_many_failed(self, report: Report) -> str:
        failed, total = report.request_count - report.good_count, report.request_count
        if self.max_failed_ratio is None or not total or failed / total <= self.max_failed_ratio:
            return ""
        return (
            f"{failed:,} of {total:,} rows failed, {failed / total:.2%}, "
            f"and max_failed_ratio allows {self.max_failed_ratio:.2%}"
        )

    def _too_few_good(self, report: Report) -> str:
        if self.min_succeeded_rows is None:
            why = "" if self.max_failed_ratio == 1 else _without_any(report)
            return why and f"{why}, and only min_succeeded_rows=0 lets that pass"
        if report.good_count >= self.min_succeeded_rows:
            return ""
        return f"{report.good_count:,} rows succeeded, and min_succeeded_rows asks for {self.min_succeeded_rows:,}"


def _without_any(report: Report) -> str:
    """Return a text if no row of this run has a good answer although something was sent; else an empty text."""
    if report.sent_count and report.good_count == report.known_count and not only_unrepairable(report):
        return f"None of {report.sent_count:,} rows that were sent has a good answer"
    if report.request_count and not report.good_count:
        return f"None of {report.request_count:,} rows has a good answer"
    return "The input of its jobs has no row" if report.jobs and not report.request_count else ""


def only_unrepairable(report: Report) -> str:
    """Return a text if answers of earlier runs land, no sent row has a good answer, and no repair can change that; else
    an empty text.

    Such rows are sent every night, because they never get an answer. A night with no other rows must not fail because
    of them.
    """
    if not report.known_count or not report.sent_count or report.sent_count != report.hopeless_count:
        return ""
    return (
        f"None of {report.sent_count:,} rows that were sent has a good answer, and no repair can heal them; this "
        f"passes because {report.known_count:,} rows were answered by an earlier run"
    )


def _failed_statuses(report: Report) -> str:
    counts = {status: count for status, count in report.tally.as_dict().items() if not RowStatus(status).is_good}
    return "; ".join(f"{count:,} {status}{_details(report, status, count)}" for status, count in counts.items())


def _details(report: Report, status: str, count: int) -> str:
    """Name the reasons of a status, and some of its keys."""
    parts = (_counted(report.reasons.get(status, {})), _some(report.samples.get(status, []), count))
    return f" ({'; '.join(part for part in parts if part)})" if any(parts) else ""


def _counted(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())


def _some(keys: list[str], count: int) -> str:
    return ", ".join(keys) + (", …" if count > len(keys) else "")


def _landed(report: Report) -> str:
    where = f" at {report.destination}" if report.destination else ""
    dead = f", the others at {report.dead_letters}" if report.dead_letters else ""
    cost = f"the batch cost {dollars(Decimal(report.cost_usd))}" if report.is_cost_known else "its cost is not known"
    return f"{report.good_count:,} good rows have landed{where}{dead}; {cost}"
