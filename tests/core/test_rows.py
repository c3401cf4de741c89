"""One status per row, tokens that add up, a tally that reconciles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.domain.row import RowStatus, Tally, Usage


class TestRowStatus:
    @pytest.mark.parametrize(
        ("status", "is_good", "repairable"),
        [
            (RowStatus.SUCCEEDED, True, False),
            (RowStatus.TRUNCATED, False, True),
            (RowStatus.BLOCKED, False, False),
            (RowStatus.INVALID_OUTPUT, False, True),
            (RowStatus.FAILED, False, True),
            (RowStatus.EXPIRED, False, True),
            (RowStatus.CANCELLED, False, True),
            (RowStatus.MISSING, False, True),
            (RowStatus.REJECTED, False, False),
        ],
        ids=str,
    )
    def test_each_status_says_what_may_be_done(self, status, is_good, repairable):
        assert (status.is_good, status.repairable) == (is_good, repairable)

    def test_there_are_nine(self):
        assert len(RowStatus) == 9


class TestUsage:
    @pytest.mark.parametrize(
        ("doc", "usage"),
        [
            (
                {"promptTokenCount": 29180, "candidatesTokenCount": 36, "totalTokenCount": 29216},
                Usage(29180, 36, total_tokens=29216),
            ),
            ({"promptTokenCount": "7", "candidatesTokenCount": 3.0}, Usage(7, 3, total_tokens=10)),
            (
                {
                    "promptTokenCount": 11222,
                    "candidatesTokenCount": 134,
                    "thoughtsTokenCount": 1759,
                    "totalTokenCount": 13115,
                },
                Usage(11222, 134, 1759, total_tokens=13115),
            ),
            (
                {"promptTokenCount": 5, "toolUsePromptTokenCount": 2, "cachedContentTokenCount": 4},
                Usage(5, 0, 0, 4, 2, 7),
            ),
            (
                {
                    "promptTokenCount": 9,
                    "promptTokensDetails": [
                        {"modality": "AUDIO", "tokenCount": 6},
                        {"modality": "TEXT", "tokenCount": 3},
                    ],
                },
                Usage(9, total_tokens=9, audio_tokens=6),
            ),
            ({}, Usage()),
            (
                {
                    "promptTokenCount": None,
                    "candidatesTokenCount": "many",
                    "totalTokenCount": -3,
                    "promptTokensDetails": "x",
                },
                Usage(),
            ),
            ({"candidatesTokenCount": 1, "thoughtsTokenCount": 3}, Usage(0, 1, 3, total_tokens=4)),
            ({"promptTokenCount": True, "promptTokensDetails": [None, {"modality": "AUDIO"}]}, Usage()),
            (
                {
                    "candidatesTokenCount": 1300,
                    "candidatesTokensDetails": [
                        {"modality": "IMAGE", "tokenCount": "1290"},
                        {"modality": "TEXT", "tokenCount": 10},
                    ],
                },
                Usage(0, 1300, total_tokens=1300, image_tokens=1290),
            ),
        ],
        ids=[
            "seed page",
            "texts, no total",
            "thinking",
            "tools and cache",
            "audio",
            "nothing",
            "junk",
            "thinking, no total",
            "more junk",
            "images",
        ],
    )
    def test_counts_are_read_leniently(self, doc, usage):
        assert Usage.from_api(doc) == usage

    @given(st.lists(st.builds(Usage, *[st.integers(0, 10**9)] * len(Usage.__struct_fields__))))
    def test_every_member_adds_up(self, usages):
        total = sum(usages, Usage())
        for name in Usage.__struct_fields__:
            assert getattr(total, name) == sum(getattr(usage, name) for usage in usages)


class TestTally:
    @given(st.lists(st.sampled_from(RowStatus)), st.lists(st.sampled_from(RowStatus)))
    def test_it_counts_and_adds(self, left, right):
        assert (Tally.of(left) + Tally.of(right)).as_dict() == Tally.of(left + right).as_dict()
        assert Tally.of(left).total == len(left)

    def test_it_prints_in_the_order_of_statuses(self):
        tally = Tally.of([RowStatus.MISSING, *[RowStatus.SUCCEEDED] * 1200])
        assert str(tally) == "1,201 rows: 1,200 succeeded, 1 missing"
        assert list(tally.as_dict()) == ["succeeded", "missing"]
        assert tally[RowStatus.BLOCKED] == 0

    def test_no_rows_is_said_so(self):
        assert str(Tally()) == "0 rows"
