"""What a batch will cost: every figure by hand, ranges that hold, and limits that say what they stopped and why."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.manifest import Manifest, Weight
from airflow_vertex_batch.core.domain.row import Usage
from airflow_vertex_batch.core.money.estimate import Budget, Estimate, OnOverBudget, Span, Usd, dollars, estimate_cost
from airflow_vertex_batch.core.money.prices import LongContext, Price, PriceTable

PRICES = PriceTable(
    [
        Price("plain", Decimal(2), Decimal(10), Decimal("0.2"), "a contract", "2026-11-22"),
        Price("audio", Decimal(2), Decimal(10), Decimal("0.2"), "a contract", "2026-11-22", audio_input=Decimal(6)),
        Price("images", Decimal(2), Decimal(10), Decimal("0.2"), "a contract", "2026-11-22", image_output=Decimal(60)),
        Price(
            "long", Decimal(2), Decimal(10), Decimal("0.2"), "a contract", "2026-11-22",
            long_context=LongContext(200_000, Decimal(4), Decimal(15), Decimal("0.4")),
        ),
        Price("gemini-2.0-flash", Decimal(2), Decimal(10), Decimal("0.2"), "a contract", "2026-11-22"),
    ]
)  # fmt: skip

NOW, DAY = datetime(2026, 11, 28, 12, tzinfo=UTC), "2026-11-28"


def a_manifest(count=100, weight: Weight | None = Weight(), **members):  # noqa: B008 - frozen
    return Manifest(
        uri="gs://b/m.json", fingerprint="f", row_count=count, request_count=count, shards=(), weight=weight, **members
    )


def an_estimate(model="plain", count=100, **weight) -> Estimate:
    return estimate_cost(a_manifest(count, Weight(**weight)), model, PRICES, NOW)


class TestTokens:
    @pytest.mark.parametrize(
        ("weight", "prompt"),
        [
            ({}, Span(0, 0, 0)),
            ({"ascii_chars": 1_000}, Span(200, 250, 500)),
            ({"ascii_chars": 1}, Span(1, 1, 1)),
            ({"other_chars": 1_000}, Span(330, 670, 2_000)),
            ({"ascii_chars": 100, "other_chars": 100}, Span(53, 92, 250)),
            ({"media": {"image": 2}}, Span(516, 2_064, 8_256)),
            ({"media": {"video": 1}}, Span(70, 15_780, 946_800)),
            ({"media": {"audio": 1}}, Span(32, 1_920, 967_680)),
            ({"media": {"document": 1}}, Span(258, 2_580, 560_000)),
            ({"media": {"hologram": 1}}, Span(32, 2_580, 967_680)),
            ({"ascii_chars": 400, "media": {"image": 1}}, Span(338, 1_132, 4_328)),
        ],
        ids=[
            "nothing", "ASCII", "one character is one token", "other scripts", "both", "images", "video", "audio",
            "document", "a kind that is not known", "text beside an image",
        ],
    )  # fmt: skip
    def test_of_the_prompts(self, weight, prompt):
        assert an_estimate(**weight).prompt_tokens == prompt

    def test_no_prompt_is_longer_than_the_service_takes(self):
        assert an_estimate(count=1, media={"video": 4}).prompt_tokens == Span(280, 63_120, 1_048_576)

    @pytest.mark.parametrize(
        ("model", "count", "bound", "output", "bounded"),
        [
            ("plain", 10, 5_000, Span(10, 2_500, 5_000), True),
            ("plain", 10, 400_000, Span(10, 10_000, 400_000), True),
            ("plain", 10, 10, Span(10, 10, 10), True),
            ("plain", 10, 5, Span(5, 5, 5), True),
            ("plain", 10, 0, Span(10, 10_000, 655_360), False),
            ("gemini-2.0-flash", 10, 0, Span(10, 10_000, 81_920), False),
            ("publishers/google/models/gemini-2.0-flash", 10, 0, Span(10, 10_000, 81_920), False),
            ("plain", 10, 10**9, Span(10, 10_000, 10**9), True),
        ],
        ids=[
            "half of a small bound", "a thousand a request", "the bound is the answer", "a bound below the answers",
            "the model's limit", "an older model's limit", "the same by its full name", "several candidates a request",
        ],
    )  # fmt: skip
    def test_of_the_answers(self, model, count, bound, output, bounded):
        estimate = an_estimate(model, count, max_output_tokens=bound)
        assert (estimate.output_tokens, estimate.is_bounded) == (output, bounded)


class TestMoney:
    @pytest.mark.parametrize(
        ("model", "weight", "low", "expected", "high"),
        [
            # 100 requests: 20 / 25 / 50 tokens x 2 USD, 100 / 5,000 / 10,000 tokens x 10 USD, a million each.
            ("plain", {"ascii_chars": 100, "max_output_tokens": 10_000}, "0.001040", "0.050050", "0.100100"),
            # No bound: 100 x 65,536 x 10 USD above, 100 x 1,000 x 10 USD expected.
            ("plain", {}, "0.001000", "1.000000", "65.536000"),
            # 32 / 1,920 / 967,680 tokens of sound x 6 USD; 100 / 100 / 100 output tokens.
            (
                "audio", {"media": {"audio": 1}, "max_output_tokens": 100},
                "0.001192", "0.012520", "5.807080",
            ),
            # The same sound at the rate of text where it has no rate of its own.
            ("plain", {"media": {"audio": 1}, "max_output_tokens": 100}, "0.001064", "0.004840", "1.936360"),
            # Answers may be images: 60 instead of 10 USD, but for the lowest figure.
            ("images", {"max_output_tokens": 200}, "0.001000", "0.006000", "0.012000"),
        ],
        ids=["text", "without a bound", "audio by its rate", "audio by the rate of text", "images"],
    )  # fmt: skip
    def test_by_hand(self, model, weight, low, expected, high):
        assert an_estimate(model, **weight).cost_usd == Usd(Decimal(low), Decimal(expected), Decimal(high))

    def test_a_long_average_prompt_pays_the_long_tier_in_the_figures_that_are_long(self):
        """Two requests of 500,000 characters: 100,000 / 125,000 / 250,000 tokens each."""
        estimate = an_estimate("long", 2, ascii_chars=1_000_000, max_output_tokens=2)
        assert estimate.cost_usd == Usd(Decimal("0.400020"), Decimal("0.500020"), Decimal("2.000030"))

    def test_nothing_to_send_costs_nothing_whatever_the_model(self):
        for model in ("plain", "unheard-of"):
            estimate = estimate_cost(a_manifest(0, None), model, PRICES, NOW)
            assert estimate.cost_usd == Usd(Decimal(0), Decimal(0), Decimal(0))

    @pytest.mark.parametrize(
        ("model", "weight", "why"),
        [
            ("unheard-of", Weight(), "there is no price for unheard-of in the price table"),
            ("projects/p/locations/l/models/123", Weight(), "there is no price for 123"),
            ("plain", None, "its requests were not weighed when they were prepared"),
        ],
    )
    def test_unknown_is_not_zero(self, model, weight, why):
        estimate = estimate_cost(a_manifest(100, weight), model, PRICES, NOW)
        assert estimate.cost_usd is None
        assert why in estimate.unknown
        assert why in str(estimate)

    @given(
        st.sampled_from(["plain", "audio", "images", "long"]), st.integers(1, 10**5), st.integers(0, 10**9),
        st.integers(0, 10**9), st.dictionaries(st.sampled_from(["image", "video", "audio", "document"]),
                                               st.integers(0, 10**4)), st.integers(0, 10**9),
    )  # fmt: skip
    def test_low_is_below_expected_is_below_high(self, model, count, plain, other, media, bound):
        estimate = an_estimate(model, count, ascii_chars=plain, other_chars=other, media=media, max_output_tokens=bound)
        for span in (estimate.prompt_tokens, estimate.output_tokens, estimate.cost_usd):
            assert 0 <= span.low <= span.expected <= span.high

    @given(st.integers(1, 1_000), st.integers(1, 200), st.integers(0, 10**6), st.data())
    def test_a_bill_within_the_bounds_of_the_tokens_is_within_the_bounds_of_the_money(self, count, bound, chars, data):
        """The bill is priced row by row; the estimate never sees a row."""
        estimate = an_estimate(count=count, ascii_chars=chars, max_output_tokens=count * bound)
        prompt = data.draw(st.integers(estimate.prompt_tokens.low, estimate.prompt_tokens.high))
        output = data.draw(st.integers(estimate.output_tokens.low, estimate.output_tokens.high))
        bill = PRICES.of("plain", DAY).cost(Usage(prompt, output))
        assert estimate.cost_usd.low - Decimal("0.000001") <= bill <= estimate.cost_usd.high


class TestAPriceThatChanges:
    """`doubles` costs twice as much from 2026-12-01 on: the same rate as `plain` until then."""

    TABLE = PriceTable(
        [
            Price("doubles", Decimal(2), Decimal(10), Decimal("0.2"), "before", "2026-11-22", valid_until="2026-11-30"),
            Price("doubles", Decimal(4), Decimal(20), Decimal("0.4"), "after", "2026-11-22", valid_from="2026-12-01"),
            Price("ends", Decimal(2), Decimal(10), Decimal("0.2"), "before", "2026-11-22", valid_until="2026-11-30"),
        ]
    )

    def estimate(self, now: str, model="doubles") -> Estimate:
        weight = Weight(ascii_chars=100, max_output_tokens=10_000)
        return estimate_cost(a_manifest(weight=weight), model, self.TABLE, datetime.fromisoformat(now))

    @pytest.mark.parametrize(
        ("now", "low", "expected", "high"),
        [
            ("2026-11-26T00:00:00+00:00", "0.001040", "0.050050", "0.100100"),
            ("2026-11-27T12:00:00+00:00", "0.001040", "0.050050", "0.200200"),
            ("2026-12-01T07:59:00+00:00", "0.001040", "0.050050", "0.200200"),
            ("2026-12-01T08:00:00+00:00", "0.002080", "0.100100", "0.200200"),
        ],
        ids=["97 hours end before", "97 hours cross it", "the last minute before", "the first after"],
    )
    def test_counts_by_the_97_hours_that_the_job_may_take(self, now, low, expected, high):
        assert self.estimate(now).cost_usd == Usd(Decimal(low), Decimal(expected), Decimal(high))

    def test_is_warned_of_with_both_figures(self):
        estimate = self.estimate("2026-11-28T12:00:00+00:00")
        (warning,) = estimate.warnings
        assert warning == (
            "The price of doubles changes on 2026-12-01, while the job may still run: $0.05005 ($0.00104 to $0.1001) "
            "before, $0.1001 ($0.00208 to $0.2002) from then on; a row is billed at the price of the day on which it "
            "is answered"
        )
        assert "at today's price $0.05005 ($0.00104 to $0.1001), at that of 2026-12-01 $0.1001" in str(estimate)
        assert [period.valid_from for period in estimate.periods] == ["", "2026-12-01"]
        assert Estimate.from_dict(json.loads(json.dumps(estimate.as_dict()))) == estimate

    @pytest.mark.parametrize("now", ["2026-11-26T00:00:00+00:00", "2026-12-01T08:00:00+00:00"], ids=["early", "after"])
    def test_is_not_mentioned_where_it_cannot_count(self, now):
        assert self.estimate(now).warnings == ()
        assert self.estimate(now).periods == ()

    def test_a_limit_is_held_against_the_dearer_price(self):
        limit = Budget(Decimal("0.15"))
        assert limit.excess(self.estimate("2026-11-26T00:00:00+00:00")) is None
        assert "may cost up to $0.2002" in str(limit.excess(self.estimate("2026-11-28T12:00:00+00:00")))

    def test_a_price_that_ends_without_another_is_no_price(self):
        estimate = self.estimate("2026-11-28T12:00:00+00:00", "ends")
        assert estimate.cost_usd is None
        assert estimate.unknown == "the price table has no price for ends on 2026-12-01"
        assert self.estimate("2026-11-20T00:00:00+00:00", "ends").cost_usd is not None
        over = self.estimate("2026-12-20T00:00:00+00:00", "ends")
        assert over.unknown == "there is no price for ends in the price table"

    def test_the_shipped_argon_is_estimated_at_both_prices_three_days_before_it_doubles(self):
        manifest = a_manifest(weight=Weight(max_output_tokens=10**6))
        estimate = estimate_cost(manifest, "gemini-4-argon", PriceTable.shipped(), NOW)
        assert [period.cost_usd.high for period in estimate.periods] == [Decimal(5), Decimal(10)]


class TestAModelThatRetires:
    def test_is_warned_of_when_the_97_hours_cross_its_last_day(self):
        for day, said in ((20, "is about to retire"), (26, "retires while the job may still run")):
            estimate = estimate_cost(a_manifest(), "gemini-3.7-flash", PRICES, datetime(2027, 1, day, tzinfo=UTC))
            assert said in estimate.warnings[0]

    def test_is_warned_of_even_without_a_price_or_a_weight(self):
        for manifest in (a_manifest(), a_manifest(weight=None)):
            estimate = estimate_cost(manifest, "gemini-2.5-flash", PRICES, NOW)
            assert "gemini-2.5-flash has retired" in estimate.warnings[0]

    def test_a_misspelt_name_is_told_from_a_missing_price(self):
        assert "gemini-2.5-flash is: check the name" in an_estimate("gemini-2.5-flahs").warnings[0]


class TestWords:
    def test_it_survives_xcom(self):
        for estimate in (an_estimate(ascii_chars=10**6), an_estimate("unheard-of"), estimate_cost(a_manifest(0), "plain", PRICES, NOW)):  # fmt: skip  # noqa: E501
            assert Estimate.from_dict(json.loads(json.dumps(estimate.as_dict()))) == estimate

    def test_it_says_its_figures_and_what_they_stand_on(self):
        assert str(an_estimate(ascii_chars=40_000, max_output_tokens=10_000)) == (
            "100 requests to plain are estimated at $0.07 ($0.017 to $0.14): "
            "10,000 (8,000 to 20,000) prompt tokens and 5,000 output tokens (at most 10,000)"
        )
        assert "(at most 6,553,600, the model's own limit, because not every request sets maxOutputTokens)" in str(
            an_estimate()
        )

    def test_it_carries_the_source_of_its_price(self):
        estimate = an_estimate()
        assert (estimate.price_source, estimate.price_date) == ("a contract", "2026-11-22")

    @pytest.mark.parametrize(
        ("amount", "text"),
        [
            ("0", "$0.00"), ("0.5", "$0.50"), ("0.0000001", "$0.000001"), ("0.123456", "$0.123456"), ("1", "$1.00"),
            ("1.001", "$1.01"), ("1234567.5", "$1,234,567.50"), ("5.0", "$5.00"), ("0.9999999", "$1.00"),
        ],
    )  # fmt: skip
    def test_money_is_rounded_up(self, amount, text):
        assert dollars(Decimal(amount)) == text


class TestAnotherModel:
    """What may be bought from one model may be bought from another that is no dearer, or within the limit."""

    @pytest.mark.parametrize(
        ("model", "instead_of", "limit", "number", "allowed"),
        [
            ("plain", "plain", "0.001", 0, True),
            ("plain", "images", "0.001", 3, True),
            ("images", "plain", "0.001", 0, False),
            ("images", "plain", "1000", 0, True),
            ("images", "plain", "1000", 1, False),
            ("nobody-knows", "plain", "1000", 0, False),
            ("plain", "nobody-knows", "1000", 0, True),
        ],
        ids=[
            *("the same", "cheaper, in any round", "dearer", "dearer, within the limit"),
            *("dearer, in a repair round", "without a price", "instead of one without a price"),
        ],
    )
    def test_table(self, model, instead_of, limit, number, allowed):
        weight = Weight(ascii_chars=1_000, max_output_tokens=100_000)
        manifest = a_manifest(weight=weight, round=number)
        assert Budget(Decimal(limit)).allows(manifest, model, instead_of, PRICES, NOW) is allowed


class TestBudget:
    @pytest.mark.parametrize(
        ("limit", "policy", "message"),
        [
            (1, "shrug", r"on_over_budget='shrug' is not known\. Use one of fail, skip, ask"),
            (None, "ask", r"on_over_budget='ask' without a limit\. Set max_cost_usd"),
            (0, "fail", r"max_cost_usd=0 is no limit\. No batch would pass\. Give US dollars above 0, or leave it out"),
            (-1, "fail", "max_cost_usd=-1 is no limit"),
            (float("nan"), "fail", "max_cost_usd=nan is no limit"),
            (float("inf"), "fail", "max_cost_usd=inf is no limit"),
            ("plenty", "fail", "max_cost_usd='plenty' is no limit"),
            (True, "fail", "max_cost_usd=True is no limit"),
        ],
    )
    def test_parameters_that_mean_nothing_are_refused(self, limit, policy, message):
        with pytest.raises(InputError, match=message):
            Budget.of(limit, policy)

    @pytest.mark.parametrize("limit", [2.5, "2.5", Decimal("2.5")])
    def test_a_limit_is_exact(self, limit):
        assert Budget.of(limit, "skip") == Budget(Decimal("2.5"), OnOverBudget.SKIP)

    def test_no_limit_is_no_budget(self):
        assert Budget.of(None, "fail") is None

    @pytest.mark.parametrize(
        ("limit", "spent", "passes"),
        [("65.536", "0", True), ("65.535999", "0", False), ("70", "4.464", True), ("70", "4.464001", False),
         ("0", "0", False)],
    )  # fmt: skip
    def test_the_upper_figure_and_what_is_spent_count(self, limit, spent, passes):
        assert (Budget(Decimal(limit)).excess(an_estimate(), Decimal(spent)) is None) is passes

    def test_nothing_to_send_passes_a_limit_of_nothing(self):
        assert Budget(Decimal(0)).excess(estimate_cost(a_manifest(0), "plain", PRICES, NOW)) is None

    @pytest.mark.parametrize(
        ("estimate", "spent", "words"),
        [
            (
                an_estimate(), 0,
                ["may cost up to $65.54; the limit, max_cost_usd, is $5.00", "100 requests to plain",
                 "No job was created and nothing was paid", "Set maxOutputTokens in generation_config",
                 "raise max_cost_usd to 65.54"],
            ),
            (
                an_estimate(max_output_tokens=10**6), 3,
                ["may cost up to $10.00 beside $3.00 already spent, $13.00 together", "is $5.00",
                 "No further job was created", "Lower maxOutputTokens", "raise max_cost_usd to 13.00"],
            ),
            (
                an_estimate("unheard-of"), 0,
                ["There is a limit of $5.00, and no figure to compare with it", "there is no price for unheard-of",
                 "No job was created and nothing was paid", "[vertex_batch] prices_file"],
            ),
        ],
        ids=["too dear", "with what is spent", "unknown"],
    )  # fmt: skip
    def test_a_refusal_says_figure_limit_and_what_to_do(self, estimate, spent, words):
        refusal = Budget(Decimal(5)).excess(estimate, Decimal(spent))
        assert not refusal.retryable
        for each in words:
            assert each in str(refusal)

    def test_what_it_tells_you_to_raise_the_limit_to_is_enough(self):
        """A thousand dollars and more are written without commas there, so that they can be copied."""
        estimate = an_estimate(count=12_345)
        told = str(Budget(Decimal(5)).excess(estimate)).rpartition(" ")[2].rstrip(".")
        assert Budget.of(told, "fail").excess(estimate) is None
