"""What came of it and what it cost: to the last digit, and never zero for what is not known."""

from __future__ import annotations

import json
import re
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.prices import LongContext, Price, PriceTable
from airflow_vertex_batch.core.report import Report, Totals
from airflow_vertex_batch.core.rows import RowStatus, Usage
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


def _row(model="plain", *, response="{}", status=RowStatus.SUCCEEDED, key="r1", **usage):
    return a_row(key, status, model_version=model, response=response, usage=Usage(**usage) if usage else None)


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
        ],
        ids=[
            "prompt", "output", "thinking is output", "cached", "tool prompts are input", "more cached than read",
            "audio without a price of its own", "nothing", "at the limit", "above the limit, all of it",
            "long and cached", "audio", "audio partly cached",
        ],
    )  # fmt: skip
    def test_a_row_pays_its_own_rates(self, price, usage, micro_usd):
        assert price.cost(usage) == micro_usd / MILLION

    @given(st.builds(Usage, *[st.integers(0, 10**6)] * 8))
    def test_a_cost_is_never_negative_and_unknown_tokens_are_never_free(self, usage):
        told = usage.prompt_tokens + usage.output_tokens + usage.thinking_tokens + usage.tool_tokens
        for cost in (price.cost(usage) for price in (PLAIN, LONG, AUDIO, IMAGES)):
            assert cost is None or (cost >= 0 and usage.total_tokens <= told)


class TestPriceTable:
    @pytest.mark.parametrize("price", list(PriceTable.shipped()), ids=lambda price: price.model)
    def test_every_shipped_price_is_sane_and_has_source_and_date(self, price):
        assert len(price.source) > 10
        assert date.fromisoformat(price.date)
        assert 0 < price.cached_input < price.input < price.output
        if price.long_context:
            assert price.long_context.input > price.input
            assert price.long_context.output > price.output

    def test_the_seed_of_the_sheet_is_what_the_field_pays(self):
        """Spot checks against the fact sheet, section 6: batch is half of list."""
        rates = {price.model: (price.input, price.output) for price in PriceTable.shipped()}
        assert rates["gemini-2.5-pro"] == (Decimal("0.625"), Decimal(5))
        assert rates["gemini-2.5-flash"] == (Decimal("0.15"), Decimal("1.25"))
        assert rates["gemini-3.8-flash"] == (Decimal("0.375"), Decimal("1.875"))

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
        assert (TABLE.of(name) is not None) is known


class TestRowCost:
    @pytest.mark.parametrize(
        ("row", "cost"),
        [
            (_row(prompt_tokens=1_000_000), Decimal(2)),
            (_row(status=RowStatus.BLOCKED, prompt_tokens=1_000_000), Decimal(2)),
            (_row("unheard-of", prompt_tokens=1), None),
            (_row(), None),
            (_row("", response="", status=RowStatus.FAILED), Decimal(0)),
            (_row("", response="", status=RowStatus.MISSING), Decimal(0)),
        ],
        ids=[
            "answered",
            "blocked is billed",
            "model without a price",
            "no usage",
            "row error is free",
            "missing is free",
        ],
    )
    def test_what_cannot_be_known_is_none_and_never_zero(self, row, cost):
        assert TABLE.cost(row) == cost


class TestTotals:
    def test_rows_tokens_and_money_add_up(self):
        totals = Totals(TABLE)
        for row in (
            _row(key="a", prompt_tokens=100, output_tokens=10, total_tokens=110),
            _row("long", key="b", prompt_tokens=250_000, total_tokens=250_000),
            _row("unheard-of", key="c", prompt_tokens=5, total_tokens=5),
            _row(key="d", status=RowStatus.TRUNCATED, output_tokens=1, total_tokens=1),
            _row("", response="", key="e", status=RowStatus.MISSING),
        ):
            totals.add(row)
        report = totals.report(destination="gs://out")
        assert report.statuses == {"succeeded": 3, "truncated": 1, "missing": 1}
        assert report.usage.total_tokens == 250_116
        assert report.cost_usd == "1.000310"
        assert report.unpriced_count == 1
        assert report.samples == {"truncated": ["d"], "missing": ["e"]}
        assert report.destination == "gs://out"

    def test_three_samples_of_each_bad_status_are_enough(self):
        totals = Totals(TABLE)
        for number in range(10):
            totals.add(_row("", response="", key=f"r{number}", status=RowStatus.FAILED))
        assert totals.report().samples == {"failed": ["r0", "r1", "r2"]}

    @given(
        st.lists(
            st.tuples(st.sampled_from(["plain", "long", "audio", "?"]), st.integers(0, 400_000), st.integers(0, 9_000))
        )
    )
    def test_the_sum_is_the_rows(self, rows):
        totals = Totals(TABLE)
        costs = [totals.add(_row(model, prompt_tokens=prompt, output_tokens=output)) for model, prompt, output in rows]
        report = totals.report()
        assert Decimal(report.cost_usd) == round(sum((cost for cost in costs if cost is not None), Decimal(0)), 6)
        assert report.unpriced_count == costs.count(None) == sum(model == "?" for model, _, _ in rows)
        assert report.request_count == len(rows) == report.tally.total


class TestReport:
    REPORT = Report(
        request_count=1_001, statuses={"succeeded": 1_000, "blocked": 1}, samples={"blocked": ["r7"]},
        usage=Usage(1_234_567, 10, total_tokens=1_234_577), cost_usd="1234.567890", unpriced_count=2,
    )  # fmt: skip

    def test_it_survives_xcom(self):
        assert Report.from_dict(json.loads(json.dumps(self.REPORT.as_dict()))) == self.REPORT

    def test_one_sentence_with_the_totals(self):
        assert self.REPORT.summary() == (
            "1,001 rows: 1,000 succeeded, 1 blocked; 1,234,577 tokens, $1,234.567890 (2 rows could not be priced)"
        )

    @pytest.mark.parametrize(
        "line",
        [
            r"succeeded +1,000 +99\.9%",
            r"blocked +1 +0\.1% +r7",
            r"prompt tokens +1,234,567",
            r"cost, USD +1,234\.567890",
            r"rows not priced +2",
        ],
    )
    def test_a_table_for_people(self, line):
        assert re.search(line, self.REPORT.text())

    def test_no_rows_are_no_division_by_zero(self):
        assert "cost, USD" in Report(request_count=0, statuses={}).text()
