"""Which answer belongs to which request: whatever the output does, every request ends as exactly one row."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from airflow_vertex_batch.core.address import TableId, Uri
from airflow_vertex_batch.core.collect import Batch, Collector, result_files, tally
from airflow_vertex_batch.core.errors import ResultError
from airflow_vertex_batch.core.join import KEY_LABEL, key_label
from airflow_vertex_batch.core.model import JobState
from airflow_vertex_batch.core.request import request_digest
from airflow_vertex_batch.core.rows import ResultRow, RowStatus
from tests.builders import a_failed_output, a_job, a_line, a_request, a_response, an_output, jsonl, seed
from tests.fakes import MemoryStore, MemoryWarehouse

INPUT, OUTPUT = "gs://in/requests.jsonl", "gs://out/prediction-model-1"


class Case:
    """One job with its request file and its output files."""

    def __init__(
        self,
        requests: list[Any],
        *outputs: bytes,
        state: JobState = JobState.SUCCEEDED,
        columns: bytes = b"",
        **job: Any,
    ):
        self.store = MemoryStore(**{INPUT: jsonl(*requests)})
        for number, data in enumerate(outputs):
            self.store.objects[f"{OUTPUT}/predictions.jsonl-{number:05d}-of-{len(outputs):05d}"] = data
        if columns:
            self.store.objects["gs://in/columns.jsonl"] = columns
        self.batch = Batch(a_job(state, output_uri=OUTPUT, **job), (INPUT,), "gs://in/columns.jsonl" if columns else "")
        self.collector = Collector(self.store, MemoryWarehouse())

    def rows(self) -> list[ResultRow]:
        return list(self.collector.rows(self.batch))

    def by_key(self) -> dict[str, ResultRow]:
        rows = self.rows()
        made = {row.key: row for row in rows}
        assert len(made) == len(rows), "a request ended as two rows"
        return made

    @property
    def odd(self) -> tuple[int, int, int]:
        """Duplicates, foreign lines, lines joined by their contents."""
        odd = self.collector.anomalies
        return odd.duplicate_count, odd.foreign_count, odd.rejoined_count


def _asked(key: str) -> dict[str, Any]:
    return a_line(key, text=f"question {key}")


def _answered(key: str, **members: Any) -> dict[str, Any]:
    return an_output(key, text=f"answer {key}", request=a_request(f"question {key}")) | members


def _failed(key: str, **members: Any) -> dict[str, Any]:
    return a_failed_output(key, request=a_request(f"question {key}")) | members


def _without_key(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "key"}


KEYS = ("r1", "r2", "r3")
ASKED = [_asked(key) for key in KEYS]


class TestJoining:
    def test_shuffled_lines_find_their_requests(self):
        lines = [_answered(key) for key in KEYS]
        random.Random(3).shuffle(lines)
        rows = Case(ASKED, jsonl(*lines)).by_key()
        assert {key: row.text for key, row in rows.items()} == {key: f"answer {key}" for key in KEYS}
        assert {row.job_name for row in rows.values()} == {a_job().name}

    def test_lines_of_several_shards_are_read(self):
        case = Case(ASKED, *[jsonl(_answered(key)) for key in KEYS])
        assert {row.text for row in case.rows()} == {f"answer {key}" for key in KEYS}
        assert case.odd == (0, 0, 0)

    def test_requests_of_several_files_are_expected(self):
        case = Case(ASKED[:1], jsonl(*[_answered(key) for key in KEYS]))
        case.store.objects["gs://in/more.jsonl"] = jsonl(*ASKED[1:])
        case.batch = Batch(case.batch.job, ("gs://in/*.jsonl",))
        assert sorted(case.by_key()) == list(KEYS)
        assert case.collector.expected_count == 3

    def test_a_missing_line_is_a_row_that_says_so(self):
        rows = Case(ASKED, jsonl(_answered("r1"), _answered("r3"))).by_key()
        assert (rows["r2"].status, rows["r2"].repairable) == (RowStatus.MISSING, True)
        assert rows["r2"].reason == "The job ended without a line for this row"

    def test_a_doubled_line_counts_once(self):
        case = Case(ASKED, jsonl(*[_answered(key) for key in KEYS], _answered("r1", processed_time="")))
        assert case.by_key()["r1"].processed_at != ""
        assert case.odd == (1, 0, 0)

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["bad first", "good first"])
    def test_a_good_answer_beats_a_bad_one(self, order):
        lines = [_failed("r1"), _answered("r1")]
        case = Case(ASKED[:1], jsonl(*[lines[number] for number in order]))
        assert case.by_key()["r1"].status is RowStatus.SUCCEEDED
        assert case.odd == (1, 0, 0)

    def test_of_two_bad_lines_the_first_counts(self):
        case = Case(ASKED[:1], jsonl(_failed("r1"), _failed("r1", status="503 Unavailable")))
        assert case.by_key()["r1"].code == "INVALID_ARGUMENT"
        assert case.odd == (1, 0, 0)

    @pytest.mark.parametrize(
        "line",
        [
            _answered("zzz"),
            {"key": "zzz", "status": "gone"},
            {"key": "zzz"},
            _answered("zzz", request="odd"),
            _answered("zzz", request=None) | {"key": 7},
        ],
        ids=["a whole line", "an error without request", "a key alone", "an odd request", "a number as key"],
    )
    def test_a_foreign_line_is_counted_and_changes_nothing(self, line):
        case = Case(ASKED, jsonl(*[_answered(key) for key in KEYS], line))
        assert all(row.status is RowStatus.SUCCEEDED for row in case.by_key().values())
        assert case.odd == (0, 1, 0)

    def test_foreign_lines_may_even_hold_bytes_that_are_no_text(self):
        case = Case(ASKED[:1], jsonl(_answered("r1")) + b'{"key": "zzz", "request": {"contents": "\xff"}}\n')
        assert len(case.rows()) == 1
        assert case.odd == (0, 1, 0)


class TestKeysLost:
    def test_lines_without_keys_are_joined_by_their_contents(self):
        case = Case(ASKED, jsonl(*[_without_key(_answered(key)) for key in reversed(KEYS)]))
        assert {key: row.text for key, row in case.by_key().items()} == {key: f"answer {key}" for key in KEYS}
        assert case.odd == (0, 0, 3)

    @pytest.mark.parametrize(
        ("key", "came_back"), [("000123", 123), ("true", True), ("1e3", 1000.0), ("7", 7)], ids=repr
    )
    def test_a_key_that_was_retyped_is_found_by_its_contents(self, key, came_back):
        case = Case([_asked(key), _asked("r2")], jsonl(_answered(key) | {"key": came_back}, _answered("r2")))
        assert case.by_key()[key].text == f"answer {key}"
        assert case.odd == (0, 0, 1)

    def test_a_sorted_and_padded_echo_is_still_the_same_contents(self):
        echo = {"contents": [{"parts": [{"fileData": None, "text": "question r1"}], "role": "user"}]}
        case = Case(ASKED, jsonl(_without_key(_answered("r1")) | {"request": echo}, _answered("r2"), _answered("r3")))
        assert case.by_key()["r1"].text == "answer r1"

    def test_requests_with_the_same_contents_get_one_line_each(self):
        asked = [a_line("r1", "same"), a_line("r2", "same")]
        lines = [_without_key(an_output(text=text, request=a_request("same"))) for text in ("a", "b")]
        rows = Case(asked, jsonl(*lines)).by_key()
        assert {row.text for row in rows.values()} == {"a", "b"}

    def test_of_those_the_one_without_any_line_comes_first(self):
        """r1 has its own failed line, so the line that lost its key must be r2's."""
        asked = [a_line("r1", "same"), a_line("r2", "same")]
        lines = [a_failed_output("r1"), _without_key(an_output(text="b", request=a_request("same")))]
        rows = Case(asked, jsonl(*lines)).by_key()
        assert (rows["r1"].status, rows["r2"].text) == (RowStatus.FAILED, "b")

    def test_good_beats_bad_also_without_keys(self):
        lines = [_without_key(_failed("r1")), _without_key(_answered("r1"))]
        assert Case(ASKED[:1], jsonl(*lines)).by_key()["r1"].status is RowStatus.SUCCEEDED

    def test_the_seed_page_s_lines_are_joined_by_contents(self):
        """Request, success and failed line exactly as printed: none of them has a key."""
        failed = seed("failed.json")
        asked = [seed("request.jsonl"), {"request": failed["request"]}]
        case = Case(asked, jsonl(failed, seed("success.json")))
        first, second = sorted(case.rows(), key=lambda row: row.status.is_good, reverse=True)
        assert first.text.startswith("This video shows")
        assert second.reason == "Please use a valid role: user, model."
        assert case.odd == (0, 0, 2)


class TestRequestLabels:
    """The second channel: the key's digest as a label of the request, which comes back in the echo."""

    @staticmethod
    def _labelled(key: str, text: str = "same") -> dict[str, Any]:
        return a_request(text, labels={"team": "search", KEY_LABEL: key_label(key)})

    def test_they_tell_requests_apart_that_are_alike(self):
        asked = [{"key": key, "request": self._labelled(key)} for key in KEYS]
        lines = [_without_key(an_output(text=f"for {key}", request=self._labelled(key))) for key in reversed(KEYS)]
        case = Case(asked, jsonl(*lines))
        assert {key: row.text for key, row in case.by_key().items()} == {key: f"for {key}" for key in KEYS}
        assert case.odd == (0, 0, 3)

    def test_they_go_before_contents(self):
        asked = [{"key": key, "request": self._labelled(key, f"question {key}")} for key in KEYS]
        line = _without_key(an_output(text="for r2", request=self._labelled("r2", "question r1")))
        rows = Case(asked, jsonl(line)).by_key()
        assert (rows["r2"].text, rows["r1"].status) == ("for r2", RowStatus.MISSING)

    @pytest.mark.parametrize("labels", [{KEY_LABEL: "k0"}, {KEY_LABEL: 7}, {}, "odd", None], ids=repr)
    def test_a_label_that_says_nothing_leaves_it_to_the_contents(self, labels):
        line = _without_key(an_output(text="for r1", request=a_request("question r1", labels=labels)))
        assert Case(ASKED, jsonl(line)).by_key()["r1"].text == "for r1"

    def test_a_key_that_did_come_back_goes_before_the_label(self):
        line = an_output("r1", text="for r1", request=self._labelled("r2"))
        assert Case(ASKED, jsonl(line)).by_key()["r1"].text == "for r1"


class TestRetypedKeys:
    @pytest.mark.parametrize(
        ("key", "came_back"),
        [("000123", 123), ("123", 123), ("1e3", 1000.0), ("-7", -7), ("1.50", 1.5), ("true", True), ("FALSE", False)],
        ids=repr,
    )
    def test_a_line_without_a_request_is_joined_by_the_value_of_its_key(self, key, came_back):
        case = Case([_asked(key), _asked("r2")], jsonl({"key": came_back, "status": "503 Unavailable"}))
        assert case.by_key()[key].code == "UNAVAILABLE"
        assert case.odd == (0, 0, 1)

    @pytest.mark.parametrize(
        ("keys", "came_back"),
        [(["007", "7"], 7), (["r-7"], 7), (["true"], 1), (["1"], True), (["9007199254740993"], 9007199254740992.0)],
        ids=repr,
    )
    def test_but_never_where_another_request_can_have_been_meant(self, keys, came_back):
        case = Case([_asked(key) for key in keys], jsonl({"key": came_back, "status": "503 Unavailable"}))
        assert {row.status for row in case.rows()} == {RowStatus.MISSING}
        assert case.odd == (0, 1, 0)

    def test_it_tells_requests_apart_that_are_alike(self):
        asked = [a_line(key, "same") for key in ("1", "2", "3")]
        lines = [an_output(number, text=f"for {number}", request=a_request("same")) for number in (3, 1, 2)]
        rows = Case(asked, jsonl(*lines)).by_key()
        assert {key: row.text for key, row in rows.items()} == {key: f"for {key}" for key in "123"}

    def test_contents_go_before_it(self):
        line = _answered("r2") | {"key": 1}
        assert Case([_asked("1"), _asked("r2")], jsonl(line)).by_key()["r2"].text == "answer r2"


class TestDigests:
    MODEL = "publishers/google/models/gemini-3.8-flash"

    @pytest.mark.parametrize("model", [MODEL, ""], ids=["of the batch", "of the job"])
    def test_every_row_has_the_digest_of_its_request_as_it_was_written(self, model):
        raw = b'{"key": "r1", "request": {"contents":  [] }}\n'
        case = Case([raw, *ASKED[1:]], jsonl(_failed("r1"), _answered("r2")), model=self.MODEL if not model else "x")
        case.batch = msgspec.structs.replace(case.batch, model=model)
        rows = case.by_key()
        assert rows["r1"].request_digest == request_digest(b'{"contents":  [] }', "gemini-3.8-flash")
        for row, asked in ((rows["r2"], ASKED[1]), (rows["r3"], ASKED[2])):
            assert row.request_digest == request_digest(json.dumps(asked["request"]).encode(), "gemini-3.8-flash")

    def test_requests_that_are_the_same_have_the_same(self):
        rows = Case([a_line("r1", "same"), a_line("r2", "same"), a_line("r3", "other")], jsonl()).by_key()
        assert rows["r1"].request_digest == rows["r2"].request_digest != rows["r3"].request_digest


class TestResumed:
    """The output of a job that was resumed holds the answers of the job before."""

    def test_lines_for_other_keys_are_as_they_should_be(self):
        lines = [_answered("r1"), _answered("earlier"), _answered("r2") | {"key": None}, {"status": "x"}]
        case = Case(ASKED, jsonl(*lines))
        case.batch = msgspec.structs.replace(case.batch, resumed=True)
        rows = case.by_key()
        assert [rows[key].status for key in KEYS] == ["succeeded", "succeeded", "missing"]
        assert case.odd == (0, 0, 1)


class TestAmiss:
    def test_it_names_requests_that_are_gone_and_those_that_two_jobs_have(self):
        beside = jsonl(*[{"key": key, "columns": {}} for key in (*KEYS, "r4", "r5", "r6", "r7")])
        case = Case(ASKED, jsonl(_answered("r1")), columns=beside)
        case.rows()
        assert case.collector.amiss() == "4 missing: r4, r5, r6"
        case.rows()
        assert case.collector.amiss() == "8 missing: r4, r5, r6; 3 surplus: r1, r2, r3"

    def test_where_all_is_well_there_is_nothing_to_say(self):
        case = Case(ASKED, jsonl(_answered("r1")))
        case.rows()
        assert case.collector.amiss() == ""


class TestBlocks:
    """Lines are read by the block, and one odd line must not change what the others are."""

    ODD = (
        b"\n",
        b'{"key": "zzz", "response": {"candidates": [{"avgLogprobs": NaN}]}}\n',
        b'{"key": ["zzz"], "status": {"code": 3}}\n',
        b'{"key": "zzz", "request": {"generationConfig": 5}, "status": "x"}\n',
        b'{"key": "zzz", "request": {"contents": "\xff"}}\n',
        b'{"key": "zzz", "status": "x", "response": {"modelVersion": 5}}\r\n',
    )

    @pytest.mark.parametrize("odd", ODD, ids=repr)
    @pytest.mark.parametrize("place", ["first", "last"])
    def test_an_odd_line_is_one_stranger(self, odd, place):
        keys = [f"r{number}" for number in range(2_000)]
        lines = [_answered(key) for key in keys]
        case = Case([_asked(key) for key in keys], jsonl(*([odd, *lines] if place == "first" else [*lines, odd])))
        rows = case.by_key()
        assert {key: row.text for key, row in rows.items()} == {key: f"answer {key}" for key in keys}
        assert case.odd == (0, 0 if odd == b"\n" else 1, 0)

    def test_two_lines_on_one_are_no_output(self):
        both = jsonl(_answered("r1")).strip() + jsonl(_answered("r2"))
        with pytest.raises(ResultError, match=r"Line 1 of gs://out/.*is no line of a batch output"):
            Case(ASKED, both + jsonl(_answered("r3"))).rows()


class TestKeysShared:
    """Ready-made input may hold a key twice; every request still ends as one row."""

    @pytest.mark.parametrize(
        ("lines", "statuses"),
        [
            (["good", "good"], ["succeeded", "succeeded"]),
            (["good", "bad"], ["failed", "succeeded"]),
            (["bad", "good"], ["failed", "succeeded"]),
            (["bad", "bad"], ["failed", "failed"]),
            (["good"], ["missing", "succeeded"]),
            (["bad"], ["failed", "missing"]),
            ([], ["missing", "missing"]),
        ],
        ids=lambda value: "+".join(value) or "none",
    )
    def test_each_line_goes_to_one_of_them(self, lines, statuses):
        made = [an_output("a") if line == "good" else a_failed_output("a") for line in lines]
        rows = Case([a_line("a", "1"), a_line("a", "2")], jsonl(*made)).by_key()
        assert sorted(rows) == ["a", "a-2"]
        assert sorted(str(row.status) for row in rows.values()) == statuses

    @pytest.mark.parametrize(
        "keys", [["a", "a", "a-2"], ["a-2", "a", "a"], ["a", "a", "a", "a-2", "a-3"]], ids="|".join
    )
    def test_a_number_behind_a_key_never_takes_another_s_place(self, keys):
        asked = [a_line(key, str(number)) for number, key in enumerate(keys)]
        case = Case(asked, jsonl(*[an_output(key) for key in keys]))
        assert len(case.by_key()) == len(keys)
        assert case.odd == (0, 0, 0)
        assert all(row.status.is_good for row in case.rows())

    @pytest.mark.parametrize("key", [["a"], {"a": 1}, 7, None, ""], ids=repr)
    def test_odd_keys_are_keys_too(self, key):
        rows = Case([a_line(key, "1")], jsonl(_without_key(an_output(request=a_request("1"))))).by_key()
        assert [row.status for row in rows.values()] == [RowStatus.SUCCEEDED]


class TestFiles:
    def test_what_a_running_job_wrote_on_the_way_is_ignored(self):
        case = Case(ASKED[:1], jsonl(_answered("r1")))
        case.store.objects[f"{OUTPUT}/incremental_predictions.jsonl"] = jsonl(_failed("r1"))
        assert case.by_key()["r1"].status is RowStatus.SUCCEEDED
        assert case.odd == (0, 0, 0)

    def test_unless_there_is_nothing_else(self):
        case = Case(ASKED[:1], state=JobState.CANCELLED)
        case.store.objects[f"{OUTPUT}/incremental_predictions.jsonl"] = jsonl(_answered("r1"))
        assert case.by_key()["r1"].status is RowStatus.SUCCEEDED

    def test_other_files_are_no_results(self):
        store = MemoryStore(
            **{f"{OUTPUT}/{name}": b"" for name in ("predictions.jsonl", "readme.txt", "sub/predictions.jsonl-1")}
        )
        found = result_files(store, Uri.parse(OUTPUT))
        assert [uri.name for uri in found] == [
            "prediction-model-1/predictions.jsonl",
            "prediction-model-1/sub/predictions.jsonl-1",
        ]

    def test_another_folder_that_begins_alike_is_not_ours(self):
        store = MemoryStore(**{f"{OUTPUT}0/predictions.jsonl": b""})
        assert result_files(store, Uri.parse(OUTPUT)) == []

    @pytest.mark.parametrize("torn", [b'{"key": "r3", "resp', b'{"key": "r3", "resp\n', b"\xff\xfe"], ids=repr)
    def test_a_torn_last_line_is_a_missing_row(self, torn):
        rows = Case(ASKED, jsonl(_answered("r1"), _answered("r2")) + torn).by_key()
        assert rows["r3"].status is RowStatus.MISSING
        assert rows["r2"].status is RowStatus.SUCCEEDED

    def test_a_torn_line_in_the_middle_is_no_output_of_a_job(self):
        case = Case(ASKED, jsonl(_answered("r1"), b'{"key": "r2", "resp\n', _answered("r3")))
        with pytest.raises(ResultError, match=r"Line 2 of gs://out/.*is no line of a batch output"):
            case.rows()

    def test_a_file_without_one_good_line_never_was_an_output(self):
        with pytest.raises(ResultError, match="Line 1 of gs://out/"):
            Case(ASKED, b"<html>Sign in</html>\n").rows()

    def test_an_empty_file_has_no_lines(self):
        assert {row.status for row in Case(ASKED, b"").rows()} == {RowStatus.MISSING}

    def test_blank_lines_are_no_lines(self):
        case = Case(ASKED[:1], b"\n" + jsonl(_answered("r1")) + b"\r\n  \n")
        assert len(case.rows()) == 1
        assert case.odd == (0, 0, 0)


class TestHowTheJobEnded:
    @pytest.mark.parametrize(
        ("state", "status"),
        [
            (JobState.SUCCEEDED, RowStatus.MISSING),
            (JobState.PARTIALLY_SUCCEEDED, RowStatus.MISSING),
            (JobState.CANCELLED, RowStatus.CANCELLED),
            (JobState.EXPIRED, RowStatus.EXPIRED),
            (JobState.FAILED, RowStatus.FAILED),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("has_output", [True, False], ids=["with output", "without output"])
    def test_an_unanswered_row_ends_as_its_job_did(self, state, status, has_output):
        case = Case(
            ASKED, *([jsonl(_answered("r1"))] if has_output else []), state=state, error_message="24 hours are over"
        )
        if not has_output:
            case.batch = Batch(a_job(state, error_message="24 hours are over"), (INPUT,))
        rows = case.by_key()
        assert rows["r3"].status is status
        assert rows["r3"].reason.endswith(": 24 hours are over")
        assert (rows["r3"].code, rows["r3"].repairable) == (str(state), True)
        assert rows["r1"].status is (RowStatus.SUCCEEDED if has_output else status)

    def test_the_counts_of_several_jobs_add_up(self):
        case = Case(ASKED, jsonl(_answered("r1"), _failed("r2")))
        rows = [*case.rows(), *case.rows()]
        assert tally(rows).as_dict() == {"succeeded": 2, "failed": 2, "missing": 2}
        assert case.collector.expected_count == 6 == tally(rows).total


class TestInput:
    def test_input_that_is_gone_is_an_error_not_an_empty_batch(self):
        case = Case(ASKED, jsonl(_answered("r1")))
        del case.store.objects[INPUT]
        with pytest.raises(ResultError, match=r"gs://in/requests.jsonl.* has no requests any more.*Restore"):
            case.rows()

    @pytest.mark.parametrize("line", [b'{"key": \n', b"[]\n", b"\xff\n"], ids=repr)
    def test_input_that_is_no_request_is_named_by_its_line(self, line):
        with pytest.raises(ResultError, match=r"Line 4 of gs://in/requests.jsonl is no request"):
            Case([*ASKED, line], jsonl(_answered("r1"))).rows()


class TestColumns:
    def test_the_user_s_columns_come_back_beside_every_row(self):
        beside = jsonl(*[{"key": key, "columns": {"id": n, "mood": "é"}} for n, key in enumerate(KEYS)])
        case = Case(ASKED, jsonl(_answered("r3"), _failed("r1")), columns=beside)
        assert {key: row.columns for key, row in case.by_key().items()} == {
            key: {"id": n, "mood": "é"} for n, key in enumerate(KEYS)
        }

    def test_without_them_a_row_has_none(self):
        assert Case(ASKED[:1], jsonl(_answered("r1"))).by_key()["r1"].columns is None


class TestTables:
    @pytest.mark.parametrize("as_text", [True, False], ids=["JSON as text", "JSON as objects"])
    def test_a_table_answers_a_table(self, as_text):
        def column(value: Any) -> Any:
            return json.dumps(value) if as_text else value

        warehouse = MemoryWarehouse()
        warehouse.put(
            "p.d.in", [{"key": key, "request": column(a_request(f"question {key}")), "id": 1} for key in KEYS]
        )
        warehouse.put(
            "p.d.out",
            [
                {
                    "key": "r2",
                    "status": "",
                    "request": column(a_request("question r2")),
                    "response": column(a_response("answer r2")),
                    "processed_time": "2026-11-22 03:04:05+00:00",
                },
                {"key": "r1", "status": "503 Unavailable", "request": column(a_request()), "response": None},
            ],
        )
        collector = Collector(MemoryStore(), warehouse)
        rows = {row.key: row for row in collector.rows(Batch(a_job(output_uri="bq://p.d.out"), ("bq://p.d.in",)))}
        assert (rows["r2"].text, rows["r2"].processed_at) == ("answer r2", "2026-11-22 03:04:05+00:00")
        assert (rows["r1"].status, rows["r1"].code) == (RowStatus.FAILED, "UNAVAILABLE")
        assert rows["r3"].status is RowStatus.MISSING

    @pytest.mark.parametrize("response", ["", " ", "null", "Internal {", None], ids=repr)
    def test_an_odd_response_is_a_failed_row(self, response):
        warehouse = MemoryWarehouse()
        warehouse.put("p.d.in", [{"key": "r1", "request": a_request()}])
        warehouse.put("p.d.out", [{"key": "r1", "status": "", "request": "odd {", "response": response}])
        (row,) = Collector(MemoryStore(), warehouse).rows(Batch(a_job(output_uri="bq://p.d.out"), ("bq://p.d.in",)))
        assert (row.status, row.code) == (RowStatus.FAILED, "NO_RESPONSE")

    def test_rows_without_keys_are_joined_by_contents(self):
        warehouse = MemoryWarehouse()
        warehouse.put("p.d.in", [{"request": a_request(text)} for text in "ab"])
        warehouse.put(
            "p.d.out", [{"status": "", "request": a_request(text), "response": a_response(text)} for text in "ba"]
        )
        rows = list(
            Collector(MemoryStore(), warehouse).rows(
                Batch(a_job(output_uri="bq://p.d.out"), (TableId.parse("p.d.in").uri,))
            )
        )
        assert sorted(row.text for row in rows) == ["a", "b"]
