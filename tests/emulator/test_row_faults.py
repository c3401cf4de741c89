"""Faults of a row: which rows they choose, in which jobs, what the lines look like, what the books say."""

from __future__ import annotations

import json

import pytest

from airflow_vertex_batch.core.answers.collect import Batch, Collector
from airflow_vertex_batch.core.domain.job import BatchJob
from airflow_vertex_batch.emulator.row_faults import (
    Blocked,
    Cached,
    Duplicated,
    Empty,
    Finish,
    InvalidJson,
    Key,
    Missing,
    NoUsage,
    Parts,
    RowError,
    ThoughtsFirst,
    ToolUse,
    Truncated,
)
from tests.emulator.worlds import BAD, INPUT, a_body, a_line, a_world


class TestFaultsOfARow:
    def lines(self, *faults, **options):
        world = a_world(*faults, **options)
        job = world.ended(world.create())
        lines = {}
        for line in world.output(job):
            lines.setdefault(line["key"], []).append(line)
        return world, job, lines

    @pytest.mark.parametrize(
        ("fault", "check"),
        [
            pytest.param(
                Finish(keys=("k3",), reason="RECITATION"),
                lambda line: (
                    line["status"] == ""
                    and line["response"]["candidates"][0]["finishReason"] == "RECITATION"
                    and "content" not in line["response"]["candidates"][0]
                ),
                id="another finish reason",
            ),
            pytest.param(
                Finish(keys=("k3",), reason="SAFETY", partial=True),
                lambda line: (
                    line["response"]["candidates"][0]["finishReason"] == "SAFETY"
                    and line["response"]["candidates"][0]["content"]["parts"] == [{"text": "In short: "}]
                ),
                id="a filter that strikes half way through",
            ),
            pytest.param(
                Truncated(keys=("k3",)),
                lambda line: (
                    line["response"]["candidates"][0]["finishReason"] == "MAX_TOKENS"
                    and line["response"]["candidates"][0]["content"]["parts"][0]["text"] == "In short: "
                ),
                id="truncated",
            ),
            pytest.param(
                Truncated(keys=("k3",), thinking=True),
                lambda line: (
                    "parts" not in line["response"]["candidates"][0]["content"]
                    and line["response"]["usageMetadata"]["thoughtsTokenCount"] > 0
                    and not [name for name in line["response"]["usageMetadata"] if name.startswith("candidates")]
                ),
                id="truncated while thinking",
            ),
            pytest.param(
                Blocked(keys=("k3",), reason="PROHIBITED_CONTENT"),
                lambda line: (
                    line["status"] == ""
                    and "candidates" not in line["response"]
                    and line["response"]["promptFeedback"] == {"blockReason": "PROHIBITED_CONTENT"}
                ),
                id="blocked",
            ),
            pytest.param(
                RowError(keys=("k3",)),
                lambda line: (
                    line["status"].startswith("Too Many Requests: {")
                    and json.loads(line["status"].partition(": ")[2])["error"]["status"] == "RESOURCE_EXHAUSTED"
                    and line["response"] == {}
                ),
                id="a row error",
            ),
            pytest.param(
                RowError(keys=("k3",), text="Deadline exceeded before prefill"),
                lambda line: line["status"] == "Deadline exceeded before prefill",
                id="a row error that is no JSON",
            ),
            pytest.param(
                RowError(keys=("k3",), code=499, message="x"),
                lambda line: line["status"].startswith("Client Closed Request: {"),
                id="a row error without a standard phrase",
            ),
            pytest.param(
                ThoughtsFirst(keys=("k3",)),
                lambda line: (
                    [part.get("thought") for part in line["response"]["candidates"][0]["content"]["parts"]]
                    == [True, None]
                ),
                id="thoughts first",
            ),
            pytest.param(
                InvalidJson(keys=("k3",)),
                lambda line: line["response"]["candidates"][0]["content"]["parts"] == [{"text": '{"answer": "cut'}],
                id="invalid JSON",
            ),
            pytest.param(
                Empty(keys=("k3",)),
                lambda line: line["response"]["candidates"][0]["content"]["parts"] == [],
                id="no parts",
            ),
            pytest.param(
                Parts(keys=("k3",)),
                lambda line: (
                    [list(part) for part in line["response"]["candidates"][0]["content"]["parts"]]
                    == [["executableCode"], ["codeExecutionResult"]]
                ),
                id="code and its result",
            ),
            pytest.param(
                Parts(keys=("k3",), parts=({"hologram": {"data": "AAAA"}},)),
                lambda line: (
                    line["response"]["candidates"][0]["content"]["parts"] == [{"hologram": {"data": "AAAA"}}]
                    and line["response"]["candidates"][0]["finishReason"] == "STOP"
                ),
                id="a part of tomorrow",
            ),
            pytest.param(NoUsage(keys=("k3",)), lambda line: "usageMetadata" not in line["response"], id="no usage"),
            pytest.param(
                NoUsage(keys=("k3",), only_total=True),
                lambda line: (
                    "totalTokenCount" not in line["response"]["usageMetadata"]
                    and line["response"]["usageMetadata"]["promptTokenCount"]
                ),
                id="no total",
            ),
            pytest.param(
                Cached(keys=("k3",), share=0.5),
                lambda line: (
                    line["response"]["usageMetadata"]["promptTokenCount"] == 3
                    and line["response"]["usageMetadata"]["cachedContentTokenCount"] == 1
                ),
                id="a cached part of the prompt",
            ),
            pytest.param(
                ToolUse(keys=("k3",), tokens=50),
                lambda line: (
                    line["response"]["usageMetadata"]["toolUsePromptTokenCount"] == 50
                    and line["response"]["usageMetadata"]["promptTokenCount"] == 3
                    and line["response"]["usageMetadata"]["totalTokenCount"] < 53
                ),
                id="tokens of tools",
            ),
        ],
    )
    def test_change_exactly_the_row_they_choose(self, fault, check):
        world, _, lines = self.lines(fault)
        assert check(lines["k3"][0])
        untouched = [line for key, found in lines.items() if key != "k3" for line in found]
        assert len(untouched) == 9
        assert all(
            line["response"]["candidates"][0]["content"]["parts"][0]["text"].startswith("In short: Question")
            for line in untouched
        )
        assert all(line["response"]["usageMetadata"]["totalTokenCount"] for line in untouched)
        world.emulator.script.check_used()

    @pytest.mark.parametrize(
        ("fault", "count", "stats", "billed"),
        [
            pytest.param(Missing(keys=("k3",)), 0, {"successfulCount": "9", "incompleteCount": "1"}, 9, id="missing"),
            pytest.param(Duplicated(keys=("k3",)), 2, {"successfulCount": "10"}, 10, id="duplicated"),
            pytest.param(RowError(keys=("k3",)), 1, {"successfulCount": "9", "failedCount": "1"}, 9, id="failed"),
            pytest.param(Blocked(keys=("k3",)), 1, {"successfulCount": "10"}, 10, id="blocked"),
            pytest.param(NoUsage(keys=("k3",)), 1, {"successfulCount": "10"}, 10, id="without usage"),
        ],
    )
    def test_are_counted_and_billed_as_the_service_would(self, fault, count, stats, billed):
        world, job, lines = self.lines(fault)
        assert len(lines.get("k3", [])) == count
        assert job["completionStats"] == stats
        assert world.emulator.books()["billed"]["rows"] == billed

    def test_bill_the_tokens_that_the_rows_show(self):
        faults = (
            Blocked(keys=("k1",)),
            Truncated(keys=("k2",), thinking=True),
            ThoughtsFirst(keys=("k3",)),
            Duplicated(keys=("k4",)),
            RowError(keys=("k5",)),
            Cached(keys=("k6",), share=0.7),
            ToolUse(keys=("k7",)),
            Finish(keys=("k8",), reason="SAFETY"),
        )
        world, _, lines = self.lines(
            *faults,
            lines=[
                a_line(f"k{n}", generationConfig={"thinkingConfig": {"thinkingBudget": 5}, "candidateCount": 2})
                for n in range(10)
            ],
            tool_total="with",
        )
        usages = [found[0]["response"]["usageMetadata"] for found in lines.values() if found[0]["response"]]
        shown = {
            ours: sum(usage.get(theirs, 0) for usage in usages)
            for ours, theirs in (
                ("prompt", "promptTokenCount"),
                ("output", "candidatesTokenCount"),
                ("thinking", "thoughtsTokenCount"),
                ("tool", "toolUsePromptTokenCount"),
                ("cached", "cachedContentTokenCount"),
                ("total", "totalTokenCount"),
            )
        }
        books = world.emulator.books()
        assert books["jobs"][0]["tokens"] == shown | {"audio": 0}
        assert books["billed"]["tokens"] == shown["total"]
        assert 0 not in shown.values()

    def test_choose_by_glob_by_position_and_by_a_seeded_share(self):
        chosen = lambda **how: {key for key, (line,) in self.lines(RowError(**how))[2].items() if line["status"]}  # noqa: E731
        assert chosen(keys=("k[12]", "k9")) == {"k1", "k2", "k9"}
        assert chosen(positions=(0, 4)) == {"k0", "k4"}
        share = chosen(ratio=0.5, seed=1)
        assert 0 < len(share) < 10
        assert share == chosen(ratio=0.5, seed=1)
        assert share != chosen(ratio=0.5, seed=2)
        assert chosen(ratio=0.0) == set()
        assert len(chosen(times=3)) == 3

    def test_take_neighbouring_slices_of_one_seed(self):
        """Slices of one seed never meet, and together they are the whole."""
        slices = [Missing(from_ratio=start / 10, ratio=0.1, seed=3) for start in range(10)]
        chosen = [[n for n in range(1000) if one.chooses(f"k{n}", n)] for one in slices]
        assert sorted(number for found in chosen for number in found) == list(range(1000))
        assert all(60 < len(found) < 140 for found in chosen)

    @pytest.mark.parametrize(
        ("labels", "struck"), [({"avb-round": "0"}, [0]), ({"avb-round": "[01]"}, [0, 1]), ({}, [0, 1, 2])]
    )
    def test_strike_the_rounds_whose_label_fits(self, labels, struck):
        """A row of round 0 is well again in round 1; one of rounds 0 and 1 in round 2."""
        world = a_world(RowError(keys=("k3",), labels=labels))
        failed = []
        for number in range(3):
            job = world.ended(world.create(a_body(labels={"avb-round": str(number)})))
            failed += [number] if job["completionStats"].get("failedCount") else []
        assert failed == struck

    @pytest.mark.parametrize("thinking", [False, True])
    @pytest.mark.parametrize(("budget", "reason"), [(199, "MAX_TOKENS"), (200, "STOP"), (None, "STOP")])
    def test_truncate_only_while_the_budget_is_small(self, budget, reason, thinking):
        config = {"generationConfig": {"max_output_tokens": budget}} if budget else {}
        _, _, lines = self.lines(Truncated(thinking=thinking, below_tokens=200), lines=[a_line("a", **config)])
        assert lines["a"][0]["response"]["candidates"][0]["finishReason"] == reason

    @pytest.mark.parametrize(
        ("how", "member", "key", "got"),
        [
            ("dropped", "key", "r-007", {}),
            ("null", "key", "r-007", {"key": None}),
            ("number", "key", "r-007", {"key": 7}),
            ("number", "key", "abc", {"key": 0}),
            ("number", "custom_id", "id17", {"custom_id": 17}),
        ],
    )
    def test_spoil_a_key(self, how, member, key, got):
        world = a_world(Key(becomes=how), lines=[{member: key, "request": a_line()["request"]}])
        job = world.ended(world.create())
        (line,) = world.output(job)
        assert {name: line[name] for name in ("key", "custom_id") if name in line} == got
        (bill,) = world.emulator.books(rows=True)["jobs"][0]["bills"]
        assert bill["key"] == key

    def test_of_the_answer_leave_rows_alone_that_failed_by_themselves(self):
        _, _, lines = self.lines(Finish(reason="SAFETY"), lines=[BAD, a_line("good")])
        assert lines["bad"][0]["status"].startswith("Bad Request")
        assert lines["good"][0]["response"]["candidates"][0]["finishReason"] == "SAFETY"

    def test_of_the_row_strike_them_too(self):
        _, _, lines = self.lines(Missing(keys=("bad",)), lines=[BAD, a_line("good")])
        assert list(lines) == ["good"]

    def test_take_what_is_left_when_the_first_is_used_up(self):
        _, _, lines = self.lines(Missing(times=4), Duplicated())
        assert sorted(len(found) for found in lines.values()) == [2] * 6


class TestAnImageThatWasAskedFor:
    def test_is_in_each_answer_but_those_that_a_fault_replaced(self):
        """What the engine makes of it on a laptop: an image is an answer, words or thoughts instead are none."""
        said = {"text": "Here is your image."}
        world = a_world(
            Parts(keys=("k3",), parts=(said,)),
            Parts(keys=("k4",), parts=(said | {"thought": True},)),
            lines=[a_line(f"k{n}", generationConfig={"responseModalities": ["IMAGE"]}) for n in range(6)],
        )
        job = world.ended(world.create())
        rows = list(Collector(world.store, world.warehouse).rows(Batch(BatchJob.from_api(job), (INPUT,))))
        bad = {row.key: (row.status, row.code) for row in rows if not row.status.is_good}
        assert bad == {"k3": ("invalid_output", "NO_IMAGE"), "k4": ("failed", "EMPTY_ANSWER")}
        assert [row.usage.image_tokens for row in rows] == [1290] * 6
