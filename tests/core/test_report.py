"""What came of it and what it cost: rows, tokens and money that add up, and the limits a batch must keep."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.answers.report import Report, Thresholds, Totals, only_unrepairable
from airflow_vertex_batch.core.domain.errors import InputError, ResultError
from airflow_vertex_batch.core.domain.row import RowStatus, Usage
from airflow_vertex_batch.core.money.estimate import Estimate, Span, Usd
from airflow_vertex_batch.core.money.prices import LongContext, Price, PriceTable
from tests.builders import a_row

PLAIN = Price("plain", Decimal(2), Decimal(10), Decimal("0.2"), "test", "2026-11-22")
LONG = Price(
    "long", Decimal(2), Decimal(10), Decimal("0.2"), "test", "2026-11-22",
    long_context=LongContext(200_000, Decimal(4), Decimal(15), Decimal("0.4")),
)  # fmt: skip
TABLE = PriceTable([PLAIN, LONG])


def _row(
    model="plain", *, response=b"{}", status=RowStatus.SUCCEEDED, key="r1", earlier=(), attempts=1, same_as="", **usage
):
    return a_row(
        key, status, model_version=model, response=response, usage=Usage(**usage) if usage else None,
        earlier=tuple(earlier), attempts=attempts, same_as=same_as,
    )  # fmt: skip


class TestAModelWithoutAPrice:
    def test_is_said_once_however_many_rows_it_answered(self):
        totals = Totals(TABLE)
        for number in range(1_000):
            totals.add(_row("publishers/google/models/unheard-of", key=f"k{number}", prompt_tokens=1, total_tokens=1))
        assert totals.report().unpriced_models == ("unheard-of",)
        why = "no price is known for unheard-of, add it to [vertex_batch] prices_file"
        assert totals.report().summary().endswith(f"(1,000 rows could not be priced: {why})")

    def test_is_not_blamed_for_rows_that_tell_no_tokens(self):
        totals = Totals(TABLE)
        totals.add(_row())
        assert totals.report().summary().endswith("(1 rows could not be priced)")
        assert totals.report().unpriced_models == ()


class TestTotals:
    def test_rows_tokens_and_money_add_up(self):
        totals = Totals(TABLE)
        for row in (
            _row(key="a", prompt_tokens=100, output_tokens=10, total_tokens=110),
            _row("long", key="b", prompt_tokens=250_000, total_tokens=250_000),
            _row("unheard-of", key="c", prompt_tokens=5, total_tokens=5),
            _row(key="d", status=RowStatus.TRUNCATED, output_tokens=1, total_tokens=1),
            _row("", response=b"", key="e", status=RowStatus.MISSING),
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
            totals.add(_row("", response=b"", key=f"r{number}", status=RowStatus.FAILED))
        assert totals.report().samples == {"failed": ["r0", "r1", "r2"]}

    @given(st.lists(st.tuples(st.sampled_from(["plain", "long", "?"]), st.integers(0, 400_000), st.integers(0, 9_000))))
    def test_the_sum_is_the_rows(self, rows):
        totals = Totals(TABLE)
        costs = [totals.add(_row(model, prompt_tokens=prompt, output_tokens=output)) for model, prompt, output in rows]
        report = totals.report()
        assert Decimal(report.cost_usd) == round(sum((cost for cost in costs if cost is not None), Decimal(0)), 6)
        assert report.unpriced_count == costs.count(None) == sum(model == "?" for model, _, _ in rows)
        assert report.request_count == len(rows) == report.tally.total

    def test_tokens_and_money_of_every_attempt_count(self):
        totals = Totals(TABLE)
        earlier = [Usage(100_000, 1_000, total_tokens=101_000), Usage(100_000, 2_000, total_tokens=102_000)]
        cost = totals.add(_row(earlier=earlier, attempts=3, prompt_tokens=100_000, total_tokens=100_000))
        assert cost == Decimal("0.63")
        report = totals.report()
        assert report.usage == Usage(300_000, 3_000, total_tokens=303_000)
        assert report.cost_usd == "0.630000"

    def test_rows_that_were_not_sent_add_no_tokens_and_no_money_and_are_counted(self):
        totals = Totals(TABLE)
        totals.add(_row(prompt_tokens=10))
        totals.add(_row(attempts=0, prompt_tokens=10))
        totals.add(_row("unheard-of", attempts=0, prompt_tokens=10))
        totals.add(_row(same_as="r0", prompt_tokens=10))
        totals.add(_row("", same_as="r9", response=b"", status=RowStatus.MISSING))
        totals.add(_row("", response=b"", status=RowStatus.REJECTED, attempts=0))
        report = totals.report()
        assert (report.known_count, report.shared_count, report.unpriced_count) == (2, 2, 0)
        assert (report.usage.prompt_tokens, report.cost_usd) == (10, "0.000020")
        assert report.request_count == 6

    def test_rows_that_no_job_has_a_line_for_are_told_from_failed_ones(self):
        totals = Totals(TABLE)
        totals.add(a_row(status=RowStatus.CANCELLED, code="JOB_STATE_CANCELLED"))
        totals.add(a_row(status=RowStatus.FAILED, code="UNAVAILABLE"))
        assert totals.report().unanswered_count == 1

    def test_rows_that_were_sent_and_never_heal_are_told_from_those_that_may(self):
        totals = Totals(TABLE)
        totals.add(a_row(status=RowStatus.BLOCKED, code="SAFETY"))
        totals.add(a_row(status=RowStatus.FAILED, code="INVALID_ARGUMENT"))
        totals.add(a_row(status=RowStatus.BLOCKED, code="RECITATION", repairable=True))
        totals.add(a_row(status=RowStatus.BLOCKED, code="SAFETY", same_as="r0"))
        totals.add(a_row(status=RowStatus.REJECTED, attempts=0))
        totals.add(a_row(status=RowStatus.FAILED, code="UNAVAILABLE", repairable=True))
        totals.add(a_row(status=RowStatus.MISSING, repairable=True))
        totals.add(a_row())
        assert (totals.report().hopeless_count, totals.report().sent_count) == (3, 6)

    def test_a_fact_wins_over_what_was_counted(self):
        assert Totals(TABLE).report(known_count=7).known_count == 7

    def test_a_row_that_names_no_model_is_priced_by_the_one_that_was_asked(self):
        totals = Totals(TABLE, "plain")
        assert totals.add(_row("", earlier=[Usage(100)], attempts=2, response=b"", status=RowStatus.FAILED)) == Decimal(
            "0.0002"
        )


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

    ESTIMATE = Estimate(
        model="m", request_count=1_001, prompt_tokens=Span(1, 2_000, 3_000), output_tokens=Span(4, 5_000, 6_000),
        is_bounded=True, cost_usd=Usd(Decimal(1), Decimal(2000), Decimal(3000)),
    )  # fmt: skip

    def full(self, **members):
        made = {name: getattr(self.REPORT, name) for name in self.REPORT.__struct_fields__}
        more = {"known_count": 5, "shared_count": 6, "rounds": [{"round": 1, "sent": 70, "cured": 61}]}
        return Report(**made | more | {"estimate": self.ESTIMATE.as_dict()} | members)

    def test_a_full_one_survives_xcom_and_an_old_one_still_reads(self):
        full = self.full()
        assert Report.from_dict(json.loads(json.dumps(full.as_dict()))) == full
        old = {"version": 1, "request_count": 1, "statuses": {"succeeded": 1}, "usage": {"prompt_tokens": 3}}
        report = Report.from_dict(old)
        assert (report.version, report.estimate, report.rounds, report.usage.image_tokens) == (1, None, [], 0)

    @pytest.mark.parametrize(
        "line",
        [
            r"1 +70 +61",
            r"rows known, not sent +5",
            r"rows sent as another +6",
            r"prompt tokens +1,234,567 +2,000 \(1 to 3,000\)",
            r"output tokens +10 +5,000 \(4 to 6,000\)",
            r"cost, USD +1,234\.567890 +\$2,000\.00 \(\$1\.00 to \$3,000\.00\); actual is 62% of expected",
        ],
    )
    def test_rounds_rows_not_sent_and_the_estimate_against_the_actual(self, line):
        assert re.search(line, self.full().text())
        assert re.search(line.replace(" +", " *(?:\\| +)?"), self.full().markdown())

    def test_an_estimate_without_a_figure_says_so(self):
        unknown = msgspec.structs.replace(self.ESTIMATE, cost_usd=None, unknown="there is no price")
        assert "not known: there is no price" in self.full(estimate=unknown.as_dict()).text()

    def test_an_estimate_of_nothing_is_no_division_by_zero(self):
        nothing = msgspec.structs.replace(self.ESTIMATE, cost_usd=Usd(Decimal(0), Decimal(0), Decimal(0)))
        assert "$0.00 ($0.00 to $0.00)" in self.full(estimate=nothing.as_dict()).text()

    def test_markdown_begins_with_the_totals_and_keys_cannot_break_its_tables(self):
        markdown = self.full(samples={"blocked": ["r|7"]}).markdown()
        assert markdown.startswith("**1,001 rows: 1,000 succeeded, 1 blocked; ")
        assert "| r\\|7 " in markdown
        rows = [line for line in markdown.splitlines() if line.startswith("| ")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {4, 6}

    def test_no_rows_are_no_division_by_zero(self):
        assert "cost, USD" in Report(request_count=0, statuses={}).text()


class TestReasons:
    """What went wrong, in words that are known: never a text, which may quote a row."""

    @staticmethod
    def report(*rows):
        totals = Totals()
        for number, (status, code) in enumerate(rows):
            totals.add(a_row(f"r{number}", status, code=code, reason="a secret of the row"))
        return totals.report()

    def test_are_counted_by_status_the_most_frequent_five(self):
        rows = [(RowStatus.FAILED, f"CODE_{n}") for n in range(7) for _ in range(n + 1)]
        report = self.report(*rows, (RowStatus.BLOCKED, "SAFETY"), (RowStatus.SUCCEEDED, ""))
        assert report.reasons == {
            "failed": {f"CODE_{n}": n + 1 for n in (6, 5, 4, 3, 2)}, "blocked": {"SAFETY": 1},
        }  # fmt: skip
        assert "7 CODE_6, 6 CODE_5" in report.text()

    @pytest.mark.parametrize("code", ["a secret of the row", "", "x" * 65, "né", "A\nB"])
    def test_what_is_no_word_is_not_said(self, code):
        report = self.report((RowStatus.FAILED, code))
        assert report.reasons == {"failed": {"OTHER": 1}}
        assert "secret" not in str(report.as_dict()) + report.text() + report.markdown()

    def test_very_many_are_not_kept(self):
        report = self.report(*[(RowStatus.FAILED, f"CODE_{n}") for n in range(150)])
        assert report.reasons["failed"]["OTHER"] == 50

    def test_a_limit_that_was_missed_names_them(self):
        report = self.report((RowStatus.FAILED, "INVALID_ARGUMENT"), (RowStatus.FAILED, "INTERNAL"))
        with pytest.raises(ResultError, match=r"2 failed \(1 INVALID_ARGUMENT, 1 INTERNAL; r0, r1\)"):
            Thresholds().check(report)


class TestMoney:
    def test_is_not_said_to_be_nothing_where_no_row_has_a_price(self):
        totals = Totals(model="unheard-of")
        totals.add(a_row(usage=Usage(prompt_tokens=1, total_tokens=1), attempts=1))
        report = totals.report()
        for text in (report.summary(), report.text(), report.markdown()):
            assert "$0.000000" not in text
            assert "no price is known for unheard-of" in text
            assert "not known" in text
        assert not report.is_cost_known

    def test_is_nothing_where_nothing_was_billed(self):
        assert "$0.000000" in Report(request_count=0, statuses={}).summary()

    def test_of_tools_has_a_line_of_its_own(self):
        """Of one real grounded row's 14,031 tokens, a tool brought in 13,259."""
        usage = Usage.from_api(
            {
                "promptTokenCount": 20,
                "candidatesTokenCount": 752,
                "toolUsePromptTokenCount": 13259,
                "totalTokenCount": 772,
            }
        )
        totals = Totals(model="gemini-2.5-flash")
        totals.add(a_row(usage=usage, attempts=1))
        report = totals.report()
        assert re.search(r"tool tokens, at the prompt's price +13,259", report.text())
        assert report.cost_usd == f"{Decimal(13279 * 0.15 + 752 * 1.25) / 1_000_000:.6f}"
        assert "tool tokens" not in Report(request_count=1, statuses={"succeeded": 1}).text()


class TestTheGuide:
    def test_names_every_key_of_the_report(self):
        guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
        table = guide.partition("## The report")[2].partition("\n## ")[0]
        named = set(
            re.findall(
                r"`([a-z_]+)`", "".join(line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `"))
            )
        )
        report = Report(request_count=0, statuses={})
        assert named == {*report.as_dict(), *(f"{name}" for name in Usage.__struct_fields__)}


class TestThresholds:
    """What has landed stays; the task says what was missed."""

    @staticmethod
    def report(**statuses):
        samples = {status: [f"{status}-{n}" for n in range(min(count, 3))] for status, count in statuses.items()}
        samples.pop("succeeded", None)
        return Report(
            request_count=sum(statuses.values()), statuses=statuses, samples=samples, cost_usd="1.5",
            destination="bq://p.d.answers", dead_letters="bq://p.d.dead",
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("ratio", "least", "statuses", "passes"),
        [
            (None, None, {"succeeded": 1, "failed": 9}, True),
            (None, None, {"failed": 9}, False),
            (None, 0, {"failed": 9}, True),
            (None, None, {}, True),
            (0.07, None, {"succeeded": 93, "failed": 7}, True),
            (0.07, None, {"succeeded": 93, "failed": 3, "blocked": 3, "rejected": 2}, False),
            (0, None, {"succeeded": 10}, True),
            (0, None, {"succeeded": 10, "missing": 1}, False),
            (1, None, {"failed": 9}, True),
            (0.5, None, {}, True),
            (None, 10, {"succeeded": 10, "failed": 90}, True),
            (None, 10, {"succeeded": 9, "failed": 90}, False),
            (None, 0, {}, True),
            (None, 1, {}, False),
            (0.5, 10, {"succeeded": 9}, False),
        ],
        ids=[
            "no limits", "none is good", "none need be good", "nothing to ask", "at the ratio",
            "above it, whatever the status", "none may fail", "one did", "all may fail",
            "an empty night", "enough good rows", "one too few", "none asked for", "some asked of an empty night",
            "either is enough",
        ],
    )  # fmt: skip
    def test_table(self, ratio, least, statuses, passes):
        thresholds, report = Thresholds.of(ratio, least), self.report(**statuses)
        if passes:
            thresholds.check(report)
        else:
            with pytest.raises(ResultError, match=r"max_failed_ratio|min_succeeded_rows") as caught:
                thresholds.check(report)
            assert not caught.value.retryable

    @pytest.mark.parametrize(
        ("statuses", "facts", "says"),
        [
            ({"blocked": 3}, {"sent_count": 3}, "None of 3 rows that were sent has a good answer"),
            ({"rejected": 3}, {}, "None of 3 rows has a good answer"),
            ({"missing": 3}, {}, "None of 3 rows has a good answer"),
            (
                {"succeeded": 9, "blocked": 2, "failed": 1}, {"sent_count": 3, "hopeless_count": 2, "known_count": 9},
                "None of 3 rows that were sent has",
            ),
            ({"blocked": 3}, {"sent_count": 3, "hopeless_count": 3}, "None of 3 rows that were sent has a good answer"),
            ({"blocked": 5}, {"sent_count": 3, "shared_count": 2}, "None of 3 rows that were sent has a good answer"),
            ({}, {"jobs": ("job",)}, "The input of its jobs has no row"),
            ({"succeeded": 10, "blocked": 3}, {"sent_count": 4, "known_count": 9}, ""),
            ({"succeeded": 9, "blocked": 3}, {"sent_count": 3, "hopeless_count": 3, "known_count": 9}, ""),
            ({"succeeded": 9}, {"known_count": 9}, ""),
            ({"succeeded": 9, "rejected": 3}, {"known_count": 9}, ""),
            ({"succeeded": 2, "blocked": 2}, {"sent_count": 2, "shared_count": 2}, ""),
            ({}, {}, ""),
        ],
        ids=[
            "all blocked", "all rejected", "known, and their answers gone",
            "one of what is new may heal, the rest known", "nothing heals, and nothing is known",
            "blocked, and so those of the same request", "ready input without a row", "one of those sent is good",
            "nothing that was sent heals, the rest known", "all known", "all known but the rejected",
            "one good, and the same again", "an empty night",
        ],
    )  # fmt: skip
    def test_a_night_without_a_good_answer(self, statuses, facts, says):
        report = msgspec.structs.replace(self.report(**statuses), **facts)
        if not says:
            Thresholds().check(report)
            return
        with pytest.raises(ResultError, match=f"^{says}.*, and only min_succeeded_rows=0 lets that pass"):
            Thresholds().check(report)
        for anything in (Thresholds(min_succeeded_rows=0), Thresholds(max_failed_ratio=1)):
            anything.check(report)

    def test_a_night_that_passes_because_its_rows_never_heal_says_so_with_counts(self):
        facts = {"sent_count": 3, "hopeless_count": 3, "known_count": 9}
        report = msgspec.structs.replace(self.report(succeeded=9, blocked=3), **facts)
        assert only_unrepairable(report) == (
            "None of 3 rows that were sent has a good answer, and no repair can heal them; this passes because 9 rows "
            "were answered by an earlier run"
        )

    @pytest.mark.parametrize("fact", [{"sent_count": 4}, {"known_count": 0}, {"sent_count": 0, "hopeless_count": 0}])
    def test_other_nights_have_nothing_to_say_of_it(self, fact):
        facts = {"sent_count": 3, "hopeless_count": 3, "known_count": 9} | fact
        assert not only_unrepairable(msgspec.structs.replace(self.report(succeeded=9, blocked=3), **facts))

    def test_the_message_says_counts_limits_statuses_samples_and_what_has_landed(self):
        with pytest.raises(ResultError, match="10 of 100 rows failed") as caught:
            Thresholds(0.05, 95).check(self.report(succeeded=90, failed=7, blocked=3))
        assert str(caught.value) == (
            "10 of 100 rows failed, 10.00%, and max_failed_ratio allows 5.00%; "
            "90 rows succeeded, and min_succeeded_rows asks for 95. "
            "3 blocked (blocked-0, blocked-1, blocked-2); 7 failed (failed-0, failed-1, failed-2, …). "
            "90 good rows have landed at bq://p.d.answers, the others at bq://p.d.dead; the batch cost $1.50. "
            "Look at the dead letters, then repair those rows or change the limit."
        )

    @pytest.mark.parametrize(
        ("ratio", "least", "message"),
        [(1.1, None, "max_failed_ratio=1.1. Use a share of the rows, 0 to 1"), (-0.1, None, "max_failed_ratio=-0.1"),
         (float("nan"), None, "max_failed_ratio=nan"), (None, -1, "min_succeeded_rows=-1. Use 0 or more")],
    )  # fmt: skip
    def test_limits_that_mean_nothing_are_refused(self, ratio, least, message):
        with pytest.raises(InputError, match=message):
            Thresholds.of(ratio, least)
