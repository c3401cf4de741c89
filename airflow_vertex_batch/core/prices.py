"""What does a token cost? Prices by model, each with its source and date, and what one row cost by them.

Invariants: every attempt at a row is priced by itself, so that a long prompt pays its own tier; what cannot be priced
(no usage, a model or a kind of token without a price) is None and never zero; a row that was not sent costs nothing.
Not included: what the service bills beside tokens, such as search queries of grounded answers.
"""

from __future__ import annotations

import functools
import re
from datetime import date
from decimal import Decimal
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.address import Uri
from airflow_vertex_batch.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_vertex_batch.core.ports import ObjectStore
    from airflow_vertex_batch.core.rows import ResultRow, Usage

_MILLION = Decimal(1_000_000)
#: USD per million tokens. The dearest published rate is 120 (images, LiteLLM 1.109.1, 2026-11-22): what is far above it
#: was meant per something else.
_DEAREST = Decimal(10_000)


class LongContext(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rates of a request whose prompt is longer than `above_tokens`."""

    above_tokens: int
    input: Decimal
    output: Decimal
    cached_input: Decimal


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """USD per million tokens at the batch rate, and where that is written.

    :param audio_input: where audio costs another rate than text.
    :param image_output: for models that make images; an image from a model without it cannot be priced.
    """

    model: str
    input: Decimal
    output: Decimal
    cached_input: Decimal
    source: str
    date: str
    audio_input: Decimal | None = None
    image_output: Decimal | None = None
    long_context: LongContext | None = None

    def cost(self, usage: Usage) -> Decimal | None:
        """Return the USD of one answer; None when a kind of its tokens has no price, or was not told.

        Thinking is billed as output, tool-use prompt tokens as input, all at the tier of the prompt's length.
        """
        rates = self.rates(usage.prompt_tokens)
        images = min(usage.image_tokens, usage.output_tokens)
        told = usage.prompt_tokens + usage.output_tokens + usage.thinking_tokens + usage.tool_tokens
        if (images and self.image_output is None) or usage.total_tokens > told:
            return None
        fresh = max(usage.prompt_tokens - usage.cached_tokens, 0) + usage.tool_tokens
        audio = min(usage.audio_tokens, fresh) if self.audio_input is not None else 0
        spent = (fresh - audio) * rates.input
        spent += (usage.output_tokens - images + usage.thinking_tokens) * rates.output
        # Most rows have none of these, and every row passes here.
        if usage.cached_tokens:
            spent += usage.cached_tokens * rates.cached_input
        if audio and self.audio_input is not None:
            spent += audio * self.audio_input
        if images and self.image_output is not None:
            spent += images * self.image_output
        return spent / _MILLION

    def rates(self, prompt_tokens: int) -> Price | LongContext:
        """Return the tier of a request whose prompt has so many tokens."""
        long = self.long_context
        return long if long is not None and prompt_tokens > long.above_tokens else self


class PriceTable:
    """Prices by model."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._prices = {price.model: price for price in prices}
        #: Names as they were asked for: a batch names the same few models in every row.
        self._found: dict[str, Price | None] = {}

    @classmethod
    @functools.cache
    def shipped(cls) -> PriceTable:
        """Return the table that ships with the package (`core/prices.json`)."""
        data = resources.files("airflow_vertex_batch.core").joinpath("prices.json").read_bytes()
        return cls(_read(data, "the shipped prices.json"))

    @classmethod
    def read(cls, store: ObjectStore, uri: str) -> PriceTable:
        """Return the table of a JSON file in the format of the shipped one.

        :param uri: a local path or ``gs://…``.
        :raises InputError: naming the file and the entry, when there is no such file or an entry cannot be a price.
        """
        data = store.read(Uri.parse(uri))
        if data is None:
            raise InputError(f"Price file {uri} does not exist", todo="Check prices_file, or leave it out")
        return cls(_read(data, uri))

    @classmethod
    def load(cls, store: ObjectStore, uri: str | None) -> PriceTable:
        """Return the shipped prices, with those of a file in their place where one is given."""
        return cls.shipped().override(cls.read(store, uri)) if uri else cls.shipped()

    def override(self, other: PriceTable) -> PriceTable:
        """Return this table with the entries of `other` added, or in place of those for the same models."""
        return PriceTable({**self._prices, **other._prices}.values())

    def text(self) -> str:
        """Return the table for people, the long-context tier of a model on a line of its own."""
        from tabulate import tabulate

        rows: list[tuple[Any, ...]] = []
        for price in self:
            extras = (price.audio_input or "", price.image_output or "", price.date, price.source)
            rows.append((price.model, price.input, price.output, price.cached_input, *extras))
            if (tier := price.long_context) is not None:
                above = f"… prompts above {tier.above_tokens:,}"
                rows.append((above, tier.input, tier.output, tier.cached_input, "", "", "", ""))
        headers = ("model", "input", "output", "cached", "audio in", "image out", "date", "source")
        aligned = ("left", *("right",) * 5, "left", "left")
        texts = [[str(cell) for cell in row] for row in rows]
        # Left to itself it writes figures as floats.
        table = tabulate(texts, headers=headers, colalign=aligned if rows else None, disable_numparse=True)
        return f"US dollars per million tokens, at the batch rate\n\n{table}"

    def __iter__(self) -> Iterator[Price]:
        return iter(self._prices.values())

    def of(self, model: str) -> Price | None:
        """Return the price of a model as a request or a response names it (``gemini-2.0-flash-001@default``)."""
        if model not in self._found:
            name = model.rpartition("/")[2].partition("@")[0]
            plain = re.sub(r"-(\d{3}|\d{2}-\d{2}|\d{2}-\d{4}|latest)$", "", name)
            self._found[model] = self._prices.get(name) or self._prices.get(plain)
        return self._found[model]

    def cost(self, row: ResultRow, model: str = "") -> Decimal | None:
        """Return what all attempts at a row cost; None when it cannot be known.

        A row that was answered without being sent costs nothing here: an earlier run, or another row, has paid for it.
        So does an attempt that the service failed.

        :param model: the model that was asked, for rows whose last attempt named none.
        """
        if not was_sent(row):
            return Decimal(0)
        price = self.of(row.model_version or model)
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


def was_sent(row: ResultRow) -> bool:
    """Whether the row's own request went to the service in this run."""
    return row.attempts > 0 and not row.same_as


class _PriceFile(msgspec.Struct):
    prices: list[msgspec.Raw]


def _read(data: bytes, file: str) -> list[Price]:
    """Read a price file entry by entry, so that a mistake can name its entry."""
    try:
        entries = msgspec.json.decode(data, type=_PriceFile).prices
    except msgspec.DecodeError as error:
        raise InputError(
            f"{file} is no price file", why=str(error), todo='Write {"prices": [{"model": …, "input": …}, …]}'
        ) from error
    prices: dict[str, Price] = {}
    for number, entry in enumerate(entries, start=1):
        price = _entry(entry, f"Entry {number} of {file}")
        if price.model in prices:
            raise InputError(f"Entry {number} of {file} prices {price.model} again", todo="Keep one entry for a model")
        prices[price.model] = price
    return list(prices.values())


def _entry(entry: msgspec.Raw, where: str) -> Price:
    try:
        price = msgspec.json.decode(entry, type=Price)
    except msgspec.DecodeError as error:
        raise InputError(f"{where} is no price", why=str(error), todo="See core/prices.json for the format") from error
    if (why := _mistake(price)) is not None:
        raise InputError(f"{where}, model {price.model!r}, is no price", why=why, todo="Correct it in the file")
    return price


def _mistake(price: Price) -> str | None:
    if not price.model or not price.source:
        return "a model and a source must be named"
    try:
        date.fromisoformat(price.date)
    except ValueError:
        return f"date is {price.date!r}, which is not YYYY-MM-DD"
    tiers = (price, price.long_context) if price.long_context else (price,)
    rates = [rate for tier in tiers for rate in (tier.input, tier.output, tier.cached_input)]
    rates += [rate for rate in (price.audio_input, price.image_output) if rate is not None]
    if not all(rate.is_finite() and 0 <= rate <= _DEAREST for rate in rates):
        return f"a rate is not between 0 and {_DEAREST:,} USD per million tokens"
    return None
