"""What will a batch cost, and is that within the budget? A lower, an expected and an upper figure, from the characters
and media that prepare counted.

The service is not asked, so every figure is a range. If the price changes while the job may run, the range covers both
prices. A budget is compared with the upper figure, which is meant to be safe: it assumes dense text, long media, and
answers that use all the output they are allowed. The ranges leave out discounts for cached tokens (the bill is lower
then), and everything that is billed beside tokens, such as search queries of grounded answers. A model without a price
has no figure at all: unknown is not zero.
"""

from __future__ import annotations

import itertools
import re
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.catalog import JOB_LIFE, notices
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.manifest import Manifest, Weight
from airflow_vertex_batch.core.domain.record import Record
from airflow_vertex_batch.core.money.prices import billing_day

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow_vertex_batch.core.money.prices import Price, PriceTable

_MILLION = Decimal(1_000_000)
_MICRO = Decimal("0.000001")
_CENT = Decimal("0.01")
_ZERO = Decimal(0)


class Span(msgspec.Struct, frozen=True):
    """Tokens between two bounds, and the figure to expect."""

    low: int
    expected: int
    high: int

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, count: int) -> Span:
        return Span(self.low * count, self.expected * count, self.high * count)

    def capped(self, most: int) -> Span:
        """Return the span with no figure above `most`."""
        return Span(min(self.low, most), min(self.expected, most), min(self.high, most))

    def __str__(self) -> str:
        return f"{self.expected:,} ({self.low:,} to {self.high:,})"


#: Tokens of 100 ASCII characters. "A token is equivalent to about 4 characters. 100 tokens is equal to about 60-80
#: English words" (https://ai.google.dev/gemini-api/docs/tokens, 2026-11-24), and 60 to 80 words of English are 3.4 to
#: 4.6 characters a token. Low: 5 characters a token, plain prose. High: 2 a token, code, JSON and figures.
_ASCII = Span(20, 25, 50)
#: Tokens of 100 other characters. Google publishes no figure. Expected: 1.5 characters a token, between alphabets
#: with a large share of the vocabulary (2 to 3) and Chinese or Japanese (about 1). Low: 3 a token. High: 2 tokens a
#: character, rare scripts and emoji, which fall back to pieces of their UTF-8 bytes (2 to 4 a character).
_OTHER = Span(33, 67, 200)
#: Tokens of one piece of media. Its size is not known here, so the range runs from the smallest to the largest that
#: the service takes. Rates: https://ai.google.dev/gemini-api/docs/tokens (image 258 a tile, video 263 and audio 32 a
#: second), https://ai.google.dev/gemini-api/docs/document-processing (258 a page); for Gemini 3 at its default
#: resolution https://ai.google.dev/gemini-api/docs/media-resolution (video 70 a frame, image 1,120, page 560). Longest:
#: https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/video-understanding (about 1 hour),
#: …/audio-understanding (about 8.4 hours), …/document-understanding (1,000 pages). All 2026-11-24.
_MEDIA: Mapping[str, Span] = {
    "image": Span(258, 4 * 258, 16 * 258),  # one tile; 1,024 x 1,024 pixels; 16 tiles, above 3,000 x 3,000
    "video": Span(70, 60 * 263, 3_600 * 263),  # a second; a minute; an hour
    "audio": Span(32, 60 * 32, 30_240 * 32),  # a second; a minute; 8.4 hours
    "document": Span(258, 10 * 258, 1_000 * 560),  # a page; 10 pages; 1,000 pages
}
_ANY_MEDIA = Span(32, 10 * 258, 30_240 * 32)
#: Most prompt tokens of one request (https://cloud.google.com/vertex-ai/generative-ai/docs/models, 2026-11-24: the same
#: for every Gemini of 2.0 and above).
_MAX_PROMPT_TOKENS = 1_048_576
#: Most output tokens of one request, thinking included, where it sets no `maxOutputTokens` (same page).
_MAX_OUTPUT_TOKENS = 65_536
_MAX_OUTPUT_TOKENS_BEFORE_2_5 = 8_192
#: Output tokens to expect of one request, thinking included. A guess from what batches show: an answer of 134 tokens
#: with 1,759 of thinking, classifications of 30 without. Never more than half of what is allowed.
_EXPECTED_OUTPUT_TOKENS = 1_000


class Usd(msgspec.Struct, frozen=True):
    """Money between two bounds, US dollars, and the figure to expect."""

    low: Decimal
    expected: Decimal
    high: Decimal

    def __str__(self) -> str:
        return f"{dollars(self.expected)} ({dollars(self.low)} to {dollars(self.high)})"


def dollars(amount: Decimal) -> str:
    """Write an amount for people, rounded up: whole cents from one dollar on, up to six decimals below."""
    if amount >= 1:
        return f"${amount.quantize(_CENT, rounding=ROUND_CEILING):,f}"
    whole, _, part = f"{amount.quantize(_MICRO, rounding=ROUND_CEILING):f}".partition(".")
    return f"${whole}.{part.rstrip('0').ljust(2, '0')}"


class Period(msgspec.Struct, frozen=True):
    """What a batch will cost if it is answered under one price.

    :param valid_from: the first billing day of that price, ISO; empty for the price of today.
    """

    valid_from: str
    cost_usd: Usd


class Estimate(Record, frozen=True, kw_only=True):
    """What a batch will weigh and cost. Small, for XCom and for people.

    :param prompt_tokens: None when the requests were not weighed.
    :param is_bounded: whether every request sets `maxOutputTokens`; if not, the model's own limit is the upper figure.
    :param cost_usd: None when it is not known, and `unknown` says why.
    :param price_date: when the price was read, ISO; `price_source` says where.
    :param periods: each price that may count, where it changes while the job may run; else nothing. A row is billed at
        the price of the day on which it is answered.
    :param warnings: what the author should know before this is bought, one sentence each.
    """

    version: int = 1
    model: str
    request_count: int
    prompt_tokens: Span | None = None
    output_tokens: Span
    is_bounded: bool
    cost_usd: Usd | None = None
    unknown: str = ""
    price_source: str = ""
    price_date: str = ""
    periods: tuple[Period, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        requests = f"{self.request_count:,} requests to {self.model}"
        if self.cost_usd is None:
            return f"What {requests} will cost is not known: {self.unknown}"
        why = "" if self.is_bounded else ", the model's own limit, because not every request sets maxOutputTokens"
        return (
            f"{requests} are estimated at {self.cost_usd}: {self.prompt_tokens} prompt tokens and "
            f"{self.output_tokens.expected:,} output tokens (at most {self.output_tokens.high:,}{why}){self._changes()}"
        )

    def _changes(self) -> str:
        if not self.periods:
            return ""
        now, *later = self.periods
        return f"; at today's price {now.cost_usd}" + "".join(
            f", at that of {period.valid_from} {period.cost_usd}" for period in later
        )


def estimate_cost(manifest: Manifest, model: str, prices: PriceTable, now: datetime) -> Estimate:
    """Estimate a prepared set before anything is paid.

    :param model: the model that will be asked, as the job names it.
    :param now: when the job is created, with its timezone: the price that counts is that of the days that follow.
    """
    output, bounded = _output(manifest, model)
    name, count = model.rpartition("/")[2], manifest.request_count
    base = Estimate(model=name, request_count=count, output_tokens=output, is_bounded=bounded)
    if count == 0:
        free = Usd(_ZERO, _ZERO, _ZERO)
        return msgspec.structs.replace(base, prompt_tokens=Span(0, 0, 0), is_bounded=True, cost_usd=free)
    base = msgspec.structs.replace(base, warnings=notices(model, now))
    if manifest.weight is None:
        return msgspec.structs.replace(base, unknown="its requests were not weighed when they were prepared")
    prompt = _prompt(manifest.weight).capped(count * _MAX_PROMPT_TOKENS)
    base = msgspec.structs.replace(base, prompt_tokens=prompt)
    days = _days(now)
    valid = prices.between(model, days[0], days[-1])
    if not valid:
        return msgspec.structs.replace(base, unknown=f"there is no price for {name} in the price table")
    if blank := next((day for day in days if prices.of(model, day) is None), ""):
        return msgspec.structs.replace(base, unknown=f"the price table has no price for {name} on {blank}")
    audio = _MEDIA["audio"] * manifest.weight.media.get("audio", 0)
    costs = [_cost(price, count, prompt, audio, output) for price in valid]
    return _priced(base, valid, costs)


def _days(now: datetime) -> list[str]:
    """Return the billing days on which a job that is created now may answer."""
    starts = (now + timedelta(days=number) for number in range(JOB_LIFE.days + 1))
    return sorted({billing_day(when) for when in (*starts, now + JOB_LIFE)})


def _priced(base: Estimate, valid: Sequence[Price], costs: Sequence[Usd]) -> Estimate:
    """Add the money: of several prices the lowest, today's and the highest."""
    priced = msgspec.structs.replace(
        base,
        cost_usd=Usd(min(each.low for each in costs), costs[0].expected, max(each.high for each in costs)),
        price_source=valid[0].source,
        price_date=valid[0].date,
    )
    if len(valid) == 1:
        return priced
    starts = ("", *(price.valid_from for price in valid[1:]))
    periods = tuple(Period(start, cost) for start, cost in zip(starts, costs, strict=True))
    changed = tuple(
        f"The price of {base.model} changes on {after.valid_from}, while the job may still run: {before.cost_usd} "
        f"before, {after.cost_usd} from then on; a row is billed at the price of the day on which it is answered"
        for before, after in itertools.pairwise(periods)
    )
    return msgspec.structs.replace(priced, periods=periods, warnings=(*changed, *base.warnings))


def _prompt(weight: Weight) -> Span:
    # Rounded up for the whole set, not for each request: a token is never shared, and the ranges are far wider.
    texts = _ASCII * weight.ascii_chars + _OTHER * weight.other_chars
    total = Span(*(-(-figure // 100) for figure in msgspec.structs.astuple(texts)))
    for kind, count in weight.media.items():
        total += _MEDIA.get(kind, _ANY_MEDIA) * count
    return total


def _output(manifest: Manifest, model: str) -> tuple[Span, bool]:
    """Return the output tokens, and whether the requests bound them themselves."""
    count, bound = manifest.request_count, manifest.weight.max_output_tokens if manifest.weight else 0
    before_2_5 = re.match(r"gemini-(1|2\.0)\b", model.rpartition("/")[2])
    limit = _MAX_OUTPUT_TOKENS_BEFORE_2_5 if before_2_5 else _MAX_OUTPUT_TOKENS
    # A bound may be above the model's limit for one answer: it counts every candidate that a request asks for.
    most = bound or count * limit
    low = min(count, most)
    return Span(low, max(low, min(count * _EXPECTED_OUTPUT_TOKENS, most // 2)), most), bound > 0


def _cost(price: Price, count: int, prompt: Span, audio: Span, output: Span) -> Usd:
    """Price the three figures. The long-context tier applies when the average prompt is that long."""

    def usd(read: int, heard: int, written: int, image_output: Decimal) -> Decimal:
        heard = min(heard, read) if price.audio_input is not None else 0
        rates = price.rates(-(-read // count))
        spent = (read - heard) * rates.input + heard * (price.audio_input or _ZERO)
        spent += written * max(rates.output, image_output)
        return (spent / _MILLION).quantize(_MICRO, rounding=ROUND_CEILING)

    # Images cost far more than text. Only the lowest figure assumes that the model makes no images.
    images = price.image_output or _ZERO
    return Usd(
        usd(prompt.low, audio.low, output.low, _ZERO),
        usd(prompt.expected, audio.expected, output.expected, images),
        usd(prompt.high, audio.high, output.high, images),
    )


class OnOverBudget(StrEnum):
    """What to do with a batch that may cost more than its limit."""

    FAIL = "fail"
    SKIP = "skip"
    ASK = "ask"


class Budget(msgspec.Struct, frozen=True):
    """The most a batch may cost, and what happens above it."""

    max_cost_usd: Decimal
    on_over_budget: OnOverBudget = OnOverBudget.FAIL

    @classmethod
    def of(cls, max_cost_usd: Any, on_over_budget: str) -> Budget | None:
        """Read an author's parameters; None without a limit.

        :raises InputError: when they mean nothing.
        """
        if on_over_budget not in set(OnOverBudget):
            raise InputError(
                f"on_over_budget={on_over_budget!r} is not known", todo=f"Use one of {', '.join(OnOverBudget)}"
            )
        policy = OnOverBudget(on_over_budget)
        if max_cost_usd is None:
            if policy is not OnOverBudget.FAIL:
                raise InputError(f"on_over_budget={on_over_budget!r} without a limit", todo="Set max_cost_usd")
            return None
        try:
            limit = Decimal(str(max_cost_usd))
        except InvalidOperation:
            limit = Decimal("NaN")
        if isinstance(max_cost_usd, bool) or not limit.is_finite() or limit <= 0:
            raise InputError(
                f"max_cost_usd={max_cost_usd!r} is no limit",
                why="No batch would pass" if limit == 0 else "",
                todo="Give US dollars above 0, or leave it out for no limit. To pay nothing, run prepare alone",
            )
        return cls(limit, policy)

    def allows(self, manifest: Manifest, model: str, instead_of: str, prices: PriceTable, now: datetime) -> bool:
        """Whether a set that may be bought from one model may also be bought from another: if the other is not more
        expensive, or within the limit too.

        :param instead_of: the model that may be asked.
        """
        there, here = (estimate_cost(manifest, each, prices, now) for each in (model, instead_of))
        if there.cost_usd is not None and here.cost_usd is not None and there.cost_usd.high <= here.cost_usd.high:
            return True
        # The cost of the rounds before a repair round is not known here, so its limit cannot be checked.
        return not manifest.round and self.excess(there) is None

    def excess(self, estimate: Estimate, spent_usd: Decimal = _ZERO) -> InputError | None:
        """Return why this batch must not be bought, or None when its upper figure is within the limit.

        :param spent_usd: what earlier rounds of the same batch have cost: it counts.
        """
        left = "No further job was created" if spent_usd else "No job was created and nothing was paid"
        limit = dollars(self.max_cost_usd)
        if estimate.cost_usd is None:
            return InputError(
                f"There is a limit of {limit}, and no figure to compare with it",
                why=str(estimate),
                left=left,
                todo="Check the model's name; if it is right, add it to a price file ([vertex_batch] prices_file) and "
                "prepare again, or drop max_cost_usd",
            )
        total = estimate.cost_usd.high + spent_usd
        if total <= self.max_cost_usd:
            return None
        spent = f" beside {dollars(spent_usd)} already spent, {dollars(total)} together" if spent_usd else ""
        verb = "Lower" if estimate.is_bounded else "Set"
        return InputError(
            f"This batch may cost up to {dollars(estimate.cost_usd.high)}{spent}; the limit, max_cost_usd, is {limit}",
            why=str(estimate),
            left=left,
            todo=f"{verb} maxOutputTokens in generation_config, send fewer rows, or raise max_cost_usd to "
            f"{dollars(total)[1:].replace(',', '')}",
        )
