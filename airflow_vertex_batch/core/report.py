"""What came of it, and what did it cost? Tallies, tokens and money as one small record: text for people, a dict for
XCom.

Invariants: rows are priced one by one, so that a long-context row pays its own tier; a row that cannot be priced (no
usage, or a model without a price) is counted as such and never as zero; every price has a source and a date.
"""

from __future__ import annotations

import functools
import re
from decimal import Decimal
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.model import Record
from airflow_vertex_batch.core.rows import ResultRow, RowStatus, Tally, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MILLION = Decimal(1_000_000)
#: Keys shown of each status in a message.
_SAMPLES = 3


class LongContext(msgspec.Struct, frozen=True):
    """The rates of a request whose prompt is longer than `above_tokens`."""

    above_tokens: int
    input: Decimal
    output: Decimal
    cached_input: Decimal


class Price(msgspec.Struct, frozen=True):
    """USD per million tokens at the batch rate, and where that is written."""

    model: str
    input: Decimal
    output: Decimal
    cached_input: Decimal
    source: str
    date: str
    audio_input: Decimal | None = None
    long_context: LongContext | None = None

    def cost(self, usage: Usage) -> Decimal:
        """Return the USD of one row. Thinking is billed as output, tool-use prompt tokens as input."""
        rates: Price | LongContext = self
        if self.long_context is not None and usage.prompt_tokens > self.long_context.above_tokens:
            rates = self.long_context
        fresh = max(usage.prompt_tokens - usage.cached_tokens, 0) + usage.tool_tokens
        audio = min(usage.audio_tokens, fresh) if self.audio_input is not None else 0
        spent = (
            (fresh - audio) * rates.input
            + audio * (self.audio_input or Decimal(0))
            + usage.cached_tokens * rates.cached_input
            + (usage.output_tokens + usage.thinking_tokens) * rates.output
        )
        return spent / _MILLION


class _PriceFile(msgspec.Struct):
    prices: tuple[Price, ...]


class PriceTable:
    """Prices by model."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._prices = {price.model: price for price in prices}

    @classmethod
    @functools.cache
    def shipped(cls) -> PriceTable:
        """Return the table that ships with the package (`core/prices.json`)."""
        data = resources.files("airflow_vertex_batch.core").joinpath("prices.json").read_bytes()
        return cls(msgspec.json.decode(data, type=_PriceFile).prices)

    def __iter__(self) -> Iterator[Price]:
        return iter(self._prices.values())

    def of(self, model_version: str) -> Price | None:
        """Return the price of a model as a response names it (``gemini-2.0-flash-001@default``), or None."""
        name = model_version.rpartition("/")[2].partition("@")[0]
        return self._prices.get(name) or self._prices.get(re.sub(r"-(\d{3}|\d{2}-\d{2}|\d{2}-\d{4}|latest)$", "", name))

    def cost(self, row: ResultRow) -> Decimal | None:
        """Return what a row cost; None when it cannot be known. A row the service failed costs nothing."""
        if row.usage is None:
            return Decimal(0) if _is_free(row) else None
        price = self.of(row.model_version)
        return None if price is None else price.cost(row.usage)


def _is_free(row: ResultRow) -> bool:
    """Whether nothing was answered: a row error, or no line at all. Cent-exact bills show such rows at zero."""
    return not row.response


class Report(Record, frozen=True, kw_only=True):
    """What an export did. Small and versioned, for XCom and for people.

    :param request_count: rows that had to be accounted for, rejected ones included.
    :param statuses: rows by status; they add up to `request_count`.
    :param samples: up to three keys of each status that is not good.
    :param cost_usd: what the priced rows cost, US dollars with six decimals, as text so that no digit is lost.
    :param unpriced_count: rows that were billed but could not be priced.
    """

    version: int = 1
    request_count: int
    statuses: dict[str, int]
    samples: dict[str, list[str]] = {}  # noqa: RUF012 - msgspec copies defaults
    usage: Usage = Usage()
    cost_usd: str = "0"
    unpriced_count: int = 0
    duplicate_count: int = 0
    foreign_count: int = 0
    rejoined_count: int = 0
    jobs: tuple[str, ...] = ()
    destination: str = ""
    dead_letters: str = ""
    partition_date: str = ""

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
        unpriced = f" ({self.unpriced_count:,} rows could not be priced)" if self.unpriced_count else ""
        return f"{self.tally}; {self.usage.total_tokens:,} tokens, ${Decimal(self.cost_usd):,.6f}{unpriced}"

    def text(self) -> str:
        """Return a table for people."""
        from tabulate import tabulate

        total = max(self.request_count, 1)
        rows = [
            (status, f"{count:,}", f"{count / total:.1%}", ", ".join(self.samples.get(status, [])))
            for status, count in self.tally.as_dict().items()
        ]
        usage = self.usage
        money = [
            ("prompt tokens", f"{usage.prompt_tokens:,}"),
            ("  of these cached", f"{usage.cached_tokens:,}"),
            ("output tokens", f"{usage.output_tokens:,}"),
            ("thinking tokens", f"{usage.thinking_tokens:,}"),
            ("cost, USD", f"{Decimal(self.cost_usd):,.6f}"),
            ("rows not priced", f"{self.unpriced_count:,}"),
        ]
        # Left to itself it reads figures as numbers, and rounds money to six digits.
        table = functools.partial(tabulate, disable_numparse=True)
        headers, aligned = ("status", "rows", "share", "for example"), ("left", "right", "right", "left")
        head = table(rows, headers=headers, colalign=aligned if rows else None)
        return f"{head}\n\n{table(money, colalign=('left', 'right'), tablefmt='plain')}"


class Totals:
    """Adds rows up as they pass."""

    def __init__(self, prices: PriceTable | None = None) -> None:
        self._prices = prices or PriceTable.shipped()
        self._statuses: dict[str, int] = {}
        self._samples: dict[str, list[str]] = {}
        self._cost = Decimal(0)
        self.usage = Usage()
        self.unpriced_count = 0

    def add(self, row: ResultRow) -> Decimal | None:
        """Count one row and return what it cost."""
        status = str(row.status)
        self._statuses[status] = self._statuses.get(status, 0) + 1
        if not row.status.is_good:
            keys = self._samples.setdefault(status, [])
            if len(keys) < _SAMPLES:
                keys.append(row.key)
        if row.usage is not None:
            self.usage += row.usage
        cost = self._prices.cost(row)
        if cost is None:
            self.unpriced_count += 1
        else:
            self._cost += cost
        return cost

    def report(self, **facts: Any) -> Report:
        """Return the totals with the facts the counter does not know."""
        tally = Tally(self._statuses)
        return Report(
            request_count=tally.total,
            statuses=tally.as_dict(),
            samples=self._samples,
            usage=self.usage,
            cost_usd=f"{self._cost:.6f}",
            unpriced_count=self.unpriced_count,
            **facts,
        )
