"""What does a token cost, and on which day? Prices by model, each with source and date, and the cost of a row by these
prices.

Prices change on days that Google names in advance. A row is billed at the price of the day on which it was answered,
because the bill counts usage in the hour in which it happened, and a job may run for days. No page of Google says so
about batches; it is how the bill counts all usage
(https://docs.cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/standard-usage, 2026-11-28).

Invariants: every attempt at a row is priced by itself, so that a long prompt pays its own tier. A cost that cannot be
known is None and never zero: there is no usage, or no price for the model, the day or a kind of token. A row that was
not sent costs nothing. Not included: what the service bills beside tokens, such as search queries of grounded answers.
"""

from __future__ import annotations

import functools
import hashlib
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from importlib import resources
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import msgspec

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.catalog import base_name
from airflow_vertex_batch.core.domain.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_vertex_batch.core.domain.ports import ObjectStore
    from airflow_vertex_batch.core.domain.row import ResultRow, Usage

#: "All date times begin at 12 AM US and Canadian Pacific Time"
#: (https://docs.cloud.google.com/python/docs/reference/billingbudgets/latest, ``CustomPeriod``, 2026-11-28).
_BILLING_ZONE = ZoneInfo("America/Los_Angeles")
_NEVER = "9999-12-31"
_MILLION = Decimal(1_000_000)
#: USD per million tokens. The highest published rate is 120 (images, LiteLLM 1.109.1, 2026-11-22). A rate far above it
#: was probably meant for another unit.
_DEAREST = Decimal(10_000)


class LongContext(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rates of a request whose prompt is longer than `above_tokens`."""

    above_tokens: int
    input: Decimal
    output: Decimal
    cached_input: Decimal


class CachedDiscount(StrEnum):
    """What a batch pays for tokens that are read from a cache. Contested, so it is a member of the price file.

    ``replaces``: the cache's discount on the list price takes the place of the batch's. Google's batch overview: "the
    discounts for cache and batch don't stack" (2026-11-28). The default: it is never the cheaper one.
    ``adds``: half of that. LiteLLM's price map (1.110.2) has such rates for Gemini 3.1 and newer from Google's pricing
    page, and the Developer API's page prints one for Gemini 3.5 Flash-Lite (github.com/pydantic/genai-prices/pull/547).
    """

    REPLACES = "replaces"
    ADDS = "adds"


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """USD per million tokens at the batch rate, from which day to which, and where that is written.

    :param valid_from: the first day, ISO, in Google's billing zone (US Pacific); empty for since ever.
    :param valid_until: the last day; empty where no change is known.
    :param cached_input_added: `cached_input` where both discounts count (`CachedDiscount.ADDS`).
    :param cached_audio_input: where cached audio costs another rate than cached text.
    :param audio_input: where audio costs another rate than text.
    :param image_output: for models that make images; an image from a model without it cannot be priced.
    """

    model: str
    input: Decimal
    output: Decimal
    cached_input: Decimal
    source: str
    date: str
    valid_from: str = ""
    valid_until: str = ""
    cached_input_added: Decimal | None = None
    cached_audio_input: Decimal | None = None
    audio_input: Decimal | None = None
    image_output: Decimal | None = None
    long_context: LongContext | None = None

    def cost(self, usage: Usage) -> Decimal | None:
        """Return the USD of one answer; None when a kind of its tokens has no price, or was not told.

        Thinking is billed as output, tool-use prompt tokens as input, all at the tier of the prompt's length.
        """
        rates = self.rates(usage.prompt_tokens)
        images = min(usage.image_tokens, usage.output_tokens)
        counted = usage.prompt_tokens + usage.output_tokens + usage.thinking_tokens + usage.tool_tokens
        if (images and self.image_output is None) or usage.total_tokens > counted:
            return None
        fresh = max(usage.prompt_tokens - usage.cached_tokens, 0) + usage.tool_tokens
        audio = 0
        if usage.audio_tokens and self.audio_input is not None:
            audio = min(max(usage.audio_tokens - usage.cached_audio_tokens, 0), fresh)
        spent = (fresh - audio) * rates.input
        spent += (usage.output_tokens - images + usage.thinking_tokens) * rates.output
        # Most rows have none of these, and every row passes here.
        if usage.cached_tokens:
            spent += self._cached(usage, rates)
        if audio and self.audio_input is not None:
            spent += audio * self.audio_input
        if images and self.image_output is not None:
            spent += images * self.image_output
        return spent / _MILLION

    def _cached(self, usage: Usage, rates: Price | LongContext) -> Decimal:
        audio = min(usage.cached_audio_tokens, usage.cached_tokens) if self.cached_audio_input is not None else 0
        return (usage.cached_tokens - audio) * rates.cached_input + audio * (self.cached_audio_input or 0)

    def holds_on(self, day: str) -> bool:
        """Whether this is the price of a billing day."""
        return self.valid_from <= day <= (self.valid_until or _NEVER)

    def discounted(self, discount: CachedDiscount) -> Price:
        """Return this price with the cached rates that a discount means."""
        if discount is CachedDiscount.REPLACES or self.cached_input_added is None:
            return self
        half = self.cached_input_added / self.cached_input if self.cached_input else Decimal(1)
        audio = self.cached_audio_input * half if self.cached_audio_input is not None else None
        return msgspec.structs.replace(self, cached_input=self.cached_input_added, cached_audio_input=audio)

    def rates(self, prompt_tokens: int) -> Price | LongContext:
        """Return the tier of a request whose prompt has so many tokens."""
        long = self.long_context
        return long if long is not None and prompt_tokens > long.above_tokens else self


def billing_day(when: datetime) -> str:
    """Return the day, ISO, that Google's bill puts a time on.

    :param when: with its timezone.
    """
    return when.astimezone(_BILLING_ZONE).date().isoformat()


class PriceTable:
    """Prices by model and day.

    :param prices: of one model, as many as there are periods.
    :param cached: what a batch pays for cached tokens; None for what is not said, which is `CachedDiscount.REPLACES`.
    """

    def __init__(self, prices: Iterable[Price], cached: CachedDiscount | None = None) -> None:
        self._prices, self.cached = tuple(prices), cached
        self._periods: dict[str, list[Price]] = {}
        for price in sorted(self._prices, key=lambda each: each.valid_from):
            self._periods.setdefault(price.model, []).append(price.discounted(cached or CachedDiscount.REPLACES))
        #: Names as they were asked for: a batch names the same few models in every row.
        self._found: dict[str, list[Price]] = {}

    @functools.cached_property
    def digest(self) -> str:
        """The same for the same prices."""
        return hashlib.sha256(msgspec.json.encode([self._prices, self.cached])).hexdigest()[:16]

    @classmethod
    @functools.cache
    def shipped(cls) -> PriceTable:
        """Return the table that ships with the package (`core/money/prices.json`)."""
        data = resources.files("airflow_vertex_batch.core.money").joinpath("prices.json").read_bytes()
        return cls(*_read(data, "the shipped prices.json"))

    @classmethod
    def read(cls, store: ObjectStore, uri: str) -> PriceTable:
        """Return the table of a JSON file in the format of the shipped one.

        :param uri: a local path or ``gs://…``.
        :raises InputError: naming the file and the entry, when there is no such file or an entry cannot be a price.
        """
        data = store.read(Uri.parse(uri))
        if data is None:
            raise InputError(f"Price file {uri} does not exist", todo="Check prices_file, or leave it out")
        return cls(*_read(data, uri))

    @classmethod
    def load(cls, store: ObjectStore, uri: str | None) -> PriceTable:
        """Return the shipped prices, with those of a file in their place where one is given."""
        return cls.shipped().override(cls.read(store, uri)) if uri else cls.shipped()

    def override(self, other: PriceTable) -> PriceTable:
        """Return this table with the entries of `other` added, or in place of all those for the same models."""
        theirs = {price.model for price in other}
        # In their places, so that a table that is printed keeps its order.
        kept: list[Price] = []
        for price in self:
            if price.model not in theirs:
                kept.append(price)
            elif price.model not in {each.model for each in kept}:
                kept.extend(each for each in other if each.model == price.model)
        known = {price.model for price in kept}
        return PriceTable((*kept, *(each for each in other if each.model not in known)), other.cached or self.cached)

    def text(self, day: str = "") -> str:
        """Return the table for people, the long-context tier of a model on a line of its own.

        :param day: of a price that holds on this day it is said.
        """
        from tabulate import tabulate

        rows = [cells for price in self for cells in _lines(price, day)]
        headers = ("model", "from", "until", "input", "output", "cached", "audio in", "image out", "date", "source")
        aligned = (*("left",) * 3, *("right",) * 5, "left", "left")
        # Left to itself it writes figures as floats.
        table = tabulate(rows, headers=headers, colalign=aligned if rows else None, disable_numparse=True)
        verb = "adds to" if self.cached is CachedDiscount.ADDS else "replaces"
        starred = f"\n\n* the price of {day}" if any(cells[2].endswith("*") for cells in rows) else ""
        return (
            f"US dollars per million tokens, at the batch rate; the discount on cached tokens {verb} the batch's\n\n"
            f"{table}{starred}"
        )

    def __iter__(self) -> Iterator[Price]:
        return iter(self._prices)

    def periods(self, model: str) -> Sequence[Price]:
        """Return all prices of a model, the earliest first, as a request or a response names it
        (``gemini-3.8-flash@default``).
        """
        if model not in self._found:
            name = model.rpartition("/")[2].partition("@")[0]
            self._found[model] = self._periods.get(name) or self._periods.get(base_name(model)) or []
        return self._found[model]

    def of(self, model: str, day: str) -> Price | None:
        """Return the price of a model on a billing day, or None."""
        return next((price for price in self.periods(model) if price.holds_on(day)), None)

    def between(self, model: str, first: str, last: str) -> Sequence[Price]:
        """Return the prices of a model on the billing days from `first` to `last`, the earliest first."""
        return [
            price
            for price in self.periods(model)
            if price.valid_from <= last and first <= (price.valid_until or _NEVER)
        ]

    def cost(self, row: ResultRow, model: str = "", day: str = "") -> Decimal | None:
        """Return what all attempts at a row cost; None when it cannot be known.

        A row that was answered without being sent costs nothing here: an earlier run, or another row, has paid for it.
        So does an attempt that the service failed. Earlier attempts are priced by the day of the last: theirs is not
        kept, and a round follows the other within days.

        :param model: the model that was asked, for rows whose last attempt named none.
        :param day: the billing day of rows that do not say when they were answered.
        """
        if not was_sent(row):
            return Decimal(0)
        price = self._of_row(row, model, day)
        if not row.earlier and row.usage is not None:
            return None if price is None else price.cost(row.usage)
        costs = [None if price is None else price.cost(usage) for usage in row.earlier]
        if row.usage is not None:
            costs.append(None if price is None else price.cost(row.usage))
        elif row.response:
            # Answered, and nothing said about tokens. Cent-exact bills show rows without a response at zero.
            return None
        known = [cost for cost in costs if cost is not None]
        return sum(known, Decimal(0)) if len(known) == len(costs) else None

    def has_price(self, row: ResultRow, model: str = "", day: str = "") -> bool:
        """Whether the model that answered a row has a price on that day."""
        return self._of_row(row, model, day) is not None

    def _of_row(self, row: ResultRow, model: str, day: str) -> Price | None:
        periods = self.periods(row.model_version or model)
        # Every row passes here, and most models have one price.
        if len(periods) == 1 and not (periods[0].valid_from or periods[0].valid_until):
            return periods[0]
        answered = _answered_on(row.processed_at) or day
        return next((price for price in periods if answered and price.holds_on(answered)), None)


def _answered_on(processed_at: str) -> str:
    """Return the billing day of a row's own time; nothing when it has none that can be read."""
    if processed_at.endswith(("Z", "+00:00")):
        # The rows of a job share a few hours, and a billing day begins with one.
        return _day_of(f"{processed_at[:13]}:00:00+00:00")
    return _day_of(processed_at)


@functools.lru_cache(maxsize=1024)
def _day_of(text: str) -> str:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return ""
    return billing_day(when) if when.tzinfo is not None else ""


def _lines(price: Price, day: str) -> Iterator[tuple[str, ...]]:
    """Yield the cells of a price, and of its tier for long prompts."""
    in_force = " *" if day and price.holds_on(day) and (price.valid_from or price.valid_until) else ""
    figures = (price.input, price.output, price.cached_input, price.audio_input or "", price.image_output or "")
    ends = (price.valid_from, price.valid_until + in_force)
    yield (price.model, *ends, *(str(figure) for figure in figures), price.date, price.source)
    if (tier := price.long_context) is not None:
        figures = (tier.input, tier.output, tier.cached_input, "", "")
        yield (f"… prompts above {tier.above_tokens:,}", "", "", *(str(figure) for figure in figures), "", "")


def was_sent(row: ResultRow) -> bool:
    """Whether the row's own request went to the service in this run."""
    return row.attempts > 0 and not row.same_as


class _PriceFile(msgspec.Struct):
    prices: list[msgspec.Raw]
    cached_discount: CachedDiscount | None = None


#: What the decoder raises for bytes that a person wrote.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _read(data: bytes, file: str) -> tuple[list[Price], CachedDiscount | None]:
    """Read a price file entry by entry, so that a mistake can name its entry."""
    try:
        content = msgspec.json.decode(data, type=_PriceFile)
    except _UNREADABLE as error:
        raise InputError(
            f"{file} is no price file", why=str(error), todo='Write {"prices": [{"model": …, "input": …}, …]}'
        ) from error
    prices: list[Price] = []
    for number, entry in enumerate(content.prices, start=1):
        price = _entry(entry, f"Entry {number} of {file}")
        if any(each.model == price.model and _share_a_day(each, price) for each in prices):
            raise InputError(
                f"Entry {number} of {file} prices {price.model} again",
                why="Two prices of a model may not hold on the same day",
                todo="Keep one entry for a model, or give them valid_from and valid_until",
            )
        prices.append(price)
    return prices, content.cached_discount


def _share_a_day(one: Price, other: Price) -> bool:
    return one.valid_from <= (other.valid_until or _NEVER) and other.valid_from <= (one.valid_until or _NEVER)


def _entry(entry: msgspec.Raw, where: str) -> Price:
    try:
        price = msgspec.json.decode(entry, type=Price)
    except _UNREADABLE as error:
        raise InputError(
            f"{where} is no price", why=str(error), todo="See core/money/prices.json for the format"
        ) from error
    if (why := _mistake(price)) is not None:
        raise InputError(f"{where}, model {price.model!r}, is no price", why=why, todo="Correct it in the file")
    return price


def _mistake(price: Price) -> str | None:
    if not price.model or not price.source:
        return "A model and a source must be named"
    for name in ("date", "valid_from", "valid_until"):
        day = getattr(price, name)
        if (day or name == "date") and not _is_day(day):
            return f"{name} is {day!r}, which is not YYYY-MM-DD"
    if price.valid_until and price.valid_until < price.valid_from:
        return f"valid_until {price.valid_until} is before valid_from {price.valid_from}"
    tiers = (price, price.long_context) if price.long_context else (price,)
    rates = [rate for tier in tiers for rate in (tier.input, tier.output, tier.cached_input)]
    more = (price.audio_input, price.image_output, price.cached_input_added, price.cached_audio_input)
    rates += [rate for rate in more if rate is not None]
    if not all(rate.is_finite() and 0 <= rate <= _DEAREST for rate in rates):
        return f"A rate is not between 0 and {_DEAREST:,} USD per million tokens"
    return None


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
