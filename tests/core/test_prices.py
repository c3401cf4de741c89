"""What a token costs, and what a row cost: to the last digit, and never zero for what is not known."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.ports import LocalStore
from airflow_vertex_batch.core.domain.row import RowStatus, Usage
from airflow_vertex_batch.core.money.prices import LongContext, Price, PriceTable
from tests.builders import a_row

PLAIN = Price("plain", Decimal(2), Decimal(10), Decimal("0.2"), "test", "2026-11-22")
LONG = Price(
    "long", Decimal(2), Decimal(10), Decimal("0.2"), "test", "2026-11-22",
    long_context=LongContext(200_000, Decimal(4), Decimal(15), Decimal("0.4")),
)  # fmt: skip
AUDIO = Price("audio", Decimal(2), Decimal(10), Decimal("0.2"), "test", "2026-11-22", audio_input=Decimal(6))
IMAGES = Price("images", Decimal(2), Decimal(10), Decimal("0.2"), "test", "2026-11-22", image_output=Decimal(60))
TABLE = PriceTable([PLAIN, LONG, AUDIO, IMAGES])
MILLION = Decimal(1_000_000)
DAY = "2026-11-28"


def _row(model="plain", *, response=b"{}", status=RowStatus.SUCCEEDED, earlier=(), attempts=1, same_as="", **usage):
    return a_row(
        "r1", status, model_version=model, response=response, usage=Usage(**usage) if usage else None,
        earlier=tuple(Usage(prompt_tokens=tokens) for tokens in earlier), attempts=attempts, same_as=same_as,
    )  # fmt: skip


class TestPrice:
    @pytest.mark.parametrize(
        ("price", "usage", "micro_usd"),
        [
            (PLAIN, Usage(prompt_tokens=100), 200),
            (PLAIN, Usage(output_tokens=100), 1_000),
            (PLAIN, Usage(thinking_tokens=100), 1_000),
            (PLAIN, Usage(prompt_tokens=100, cached_tokens=40), 60 * 2 + 40 * Decimal("0.2")),
            (PLAIN, Usage(prompt_tokens=10, tool_tokens=5), 15 * 2),
            (PLAIN, Usage(prompt_tokens=10, cached_tokens=50), 50 * Decimal("0.2")),
            (PLAIN, Usage(prompt_tokens=10, audio_tokens=10), 20),
            (PLAIN, Usage(), 0),
            (LONG, Usage(prompt_tokens=200_000, output_tokens=1), 400_000 + 10),
            (LONG, Usage(prompt_tokens=200_001, output_tokens=1, thinking_tokens=1), 800_004 + 30),
            (LONG, Usage(prompt_tokens=300_000, cached_tokens=100_000), 200_000 * 4 + 100_000 * Decimal("0.4")),
            (AUDIO, Usage(prompt_tokens=100, audio_tokens=30), 70 * 2 + 30 * 6),
            (AUDIO, Usage(prompt_tokens=100, cached_tokens=90, audio_tokens=30), 90 * Decimal("0.2") + 10 * 6),
            (IMAGES, Usage(output_tokens=1_300, image_tokens=1_290), 10 * 10 + 1_290 * 60),
            (IMAGES, Usage(output_tokens=5, image_tokens=9), 5 * 60),
        ],
        ids=[
            "prompt", "output", "thinking is output", "cached", "tool prompts are input", "more cached than read",
            "audio without a price of its own", "nothing", "at the limit", "above the limit, all of it",
            "long and cached", "audio", "audio partly cached", "images beside text", "more images than output",
        ],
    )  # fmt: skip
    def test_a_row_pays_its_own_rates(self, price, usage, micro_usd):
        assert price.cost(usage) == micro_usd / MILLION

    @pytest.mark.parametrize(
        "usage",
        [Usage(output_tokens=5, image_tokens=5), Usage(total_tokens=15), Usage(10, 4, total_tokens=15)],
        ids=["images without a price", "a total and no parts", "a total above its parts"],
    )
    def test_what_has_no_rate_has_no_cost(self, usage):
        assert PLAIN.cost(usage) is None

    @given(st.builds(Usage, *[st.integers(0, 10**6)] * 9))
    def test_a_cost_is_never_negative_and_unknown_tokens_are_never_free(self, usage):
        told = usage.prompt_tokens + usage.output_tokens + usage.thinking_tokens + usage.tool_tokens
        for cost in (price.cost(usage) for price in (PLAIN, LONG, AUDIO, IMAGES)):
            assert (cost is None) if usage.total_tokens > told else (cost is None or cost >= 0)


class TestPriceTable:
    @pytest.mark.parametrize("price", list(PriceTable.shipped()), ids=lambda price: f"{price.model} {price.valid_from}")
    def test_every_shipped_price_is_sane_and_has_source_and_date(self, price):
        assert len(price.source) > 10
        assert date.fromisoformat(price.date)
        assert price.cached_input_added is None or price.cached_input_added < price.cached_input
        assert 0 < price.cached_input < price.input < price.output
        if price.long_context:
            assert price.long_context.input > price.input
            assert price.long_context.output > price.output

    def test_the_seed_of_the_sheet_is_what_the_field_pays(self):
        """Spot checks against the fact sheet, section 6: batch is half of list."""
        found = {name: PriceTable.shipped().of(name, DAY) for name in ("gemini-2.5-pro", "gemini-2.5-flash")}
        assert (found["gemini-2.5-pro"].input, found["gemini-2.5-pro"].output) == (Decimal("0.625"), Decimal(5))
        assert (found["gemini-2.5-flash"].input, found["gemini-2.5-flash"].output) == (Decimal("0.15"), Decimal("1.25"))

    @pytest.mark.parametrize(
        ("name", "known"),
        [
            ("plain", True),
            ("plain@default", True),
            ("plain-001", True),
            ("plain-001@default", True),
            ("plain-09-2025", True),
            ("plain-05-20", True),
            ("plain-latest", True),
            ("publishers/google/models/plain", True),
            ("plain-lite", False),
            ("plainer", False),
            ("", False),
        ],
    )
    def test_a_model_is_found_by_how_responses_name_it(self, name, known):
        assert (TABLE.of(name, DAY) is not None) is known


class TestRowCost:
    @pytest.mark.parametrize(
        ("row", "cost"),
        [
            (_row(prompt_tokens=1_000_000), Decimal(2)),
            (_row(status=RowStatus.BLOCKED, prompt_tokens=1_000_000), Decimal(2)),
            (_row("unheard-of", prompt_tokens=1), None),
            (_row(), None),
            (_row("", response=b"", status=RowStatus.FAILED), Decimal(0)),
            (_row("", response=b"", status=RowStatus.MISSING), Decimal(0)),
            (_row(prompt_tokens=1_000_000, earlier=[500_000, 250_000], attempts=3), Decimal("3.5")),
            (_row("long", prompt_tokens=150_000, earlier=[150_000], attempts=2), Decimal("0.6")),
            (_row(earlier=[500_000], attempts=2), None),
            (_row("unheard-of", response=b"", earlier=[1], attempts=2, status=RowStatus.FAILED), None),
            (_row(response=b"", earlier=[500_000], attempts=2, status=RowStatus.FAILED), Decimal(1)),
            (_row(prompt_tokens=1_000_000, attempts=0), Decimal(0)),
            (_row("unheard-of", prompt_tokens=1, attempts=0), Decimal(0)),
            (_row(prompt_tokens=1_000_000, same_as="r0"), Decimal(0)),
        ],
        ids=[
            "answered", "blocked is billed", "model without a price", "no usage", "row error is free",
            "missing is free", "every attempt is billed", "attempts do not add up to a long prompt",
            "a last attempt without usage", "an earlier attempt of an unknown model", "an earlier attempt alone",
            "known: free", "known, of a model without a price: free", "another row's answer: free",
        ],
    )  # fmt: skip
    def test_what_cannot_be_known_is_none_and_never_zero(self, row, cost):
        assert TABLE.cost(row) == cost

    def test_a_row_that_names_no_model_is_priced_by_the_one_that_was_asked(self):
        row = _row("", response=b"", earlier=[500_000], attempts=2, status=RowStatus.FAILED)
        assert TABLE.cost(row) is None
        assert TABLE.cost(row, "publishers/google/models/plain") == Decimal(1)


MINE = {
    "model": "plain",
    "input": 0.1,
    "output": "0.3",
    "cached_input": 0,
    "source": "contract 7",
    "date": "2026-11-23",
}


class TestPriceFile:
    """A file in the format of the shipped one, whose entries replace the shipped ones by model."""

    @staticmethod
    def read(tmp_path, content):
        file = tmp_path / "prices.json"
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return PriceTable.read(LocalStore(), str(file))

    def test_entries_override_by_model_and_the_others_stay(self, tmp_path):
        table = TABLE.override(self.read(tmp_path, {"prices": [MINE, MINE | {"model": "new"}]}))
        assert [price.model for price in table] == ["plain", "long", "audio", "images", "new"]
        assert table.of("plain", DAY) == Price(
            "plain", Decimal("0.1"), Decimal("0.3"), Decimal(0), "contract 7", "2026-11-23"
        )
        assert table.of("long", DAY) == LONG
        assert TABLE.of("plain", DAY) == PLAIN

    def test_without_a_file_the_shipped_prices_are_in_force(self):
        assert PriceTable.load(LocalStore(), None) is PriceTable.shipped()
        assert PriceTable.load(LocalStore(), "") is PriceTable.shipped()

    def test_what_is_printed_as_json_can_be_read_back(self, tmp_path):
        shipped = [msgspec.to_builtins(price) for price in PriceTable.shipped()]
        assert list(self.read(tmp_path, {"prices": shipped})) == list(PriceTable.shipped())

    def test_a_file_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"Price file .*/none\.json does not exist"):
            PriceTable.load(LocalStore(), str(tmp_path / "none.json"))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"model,input", r"prices\.json is no price file\."),
            ([MINE], r"prices\.json is no price file\. Expected `object`, got `array`"),
            ({"price": [MINE]}, "missing required field `prices`"),
            ({"prices": [MINE, 3]}, r"Entry 2 of .*prices\.json is no price\. Expected `object`, got `int`"),
            ({"prices": [MINE | {"input": "cheap"}]}, r"Entry 1 of .* - at `\$\.input`"),
            ({"prices": [{"model": "m"}]}, "Entry 1 of .* missing required field `input`"),
            ({"prices": [MINE | {"cached": 1}]}, "Entry 1 of .* unknown field `cached`"),
            ({"prices": [MINE | {"input": -1}]}, "model 'plain', is no price. A rate is not between 0 and 10,000"),
            ({"prices": [MINE | {"output": "NaN"}]}, "A rate is not between 0 and 10,000"),
            ({"prices": [MINE | {"audio_input": 10**6}]}, "A rate is not between 0 and 10,000"),
            ({"prices": [MINE | {"date": "yesterday"}]}, "date is 'yesterday', which is not YYYY-MM-DD"),
            ({"prices": [MINE | {"source": ""}]}, "A model and a source must be named"),
            ({"prices": [MINE, MINE]}, r"Entry 2 of .* prices plain again"),
            (
                {"prices": [MINE | {"long_context": {"above_tokens": 1, "input": 1, "output": "Infinity",
                                                     "cached_input": 1}}]},
                "A rate is not between 0",
            ),
        ],
        ids=[
            "no JSON", "a list", "no prices", "no object", "no number", "a member left out", "a member too many",
            "negative", "NaN", "per token by mistake", "no date", "no source", "twice", "an infinite tier",
        ],
    )  # fmt: skip
    def test_a_mistake_names_file_entry_and_reason(self, tmp_path, content, message):
        with pytest.raises(InputError, match=message):
            self.read(tmp_path, content)


def test_the_table_for_people_shows_every_tier_with_source_and_date():
    text = TABLE.text()
    assert "US dollars per million tokens" in text
    assert "… prompts above 200,000" in text
    assert text.count("2026-11-22") == 4
    assert PriceTable([]).text().startswith("US dollars")
