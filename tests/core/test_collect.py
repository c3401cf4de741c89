"""Which answer belongs to which request: whatever the output does, every request ends as exactly one row."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from airflow_vertex_batch.core.answers.collect import Batch, Collector, OnLostOutput, result_files, tally
from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.errors import LostOutputError, ResultError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.domain.row import RowStatus
from airflow_vertex_batch.core.requests.request import request_digest
from tests.builders import a_failed_output, a_job, a_line, a_request, a_response, an_output, jsonl
from tests.core.collecting import ASKED, INPUT, KEYS, OUTPUT, Case, answered, asked, failed, without_key
from tests.fakes import MemoryStore, MemoryWarehouse


class TestJoining:
    def test_shuffled_lines_find_their_requests(self):
        lines = [answered(key) for key in KEYS]
        random.Random(3).shuffle(lines)
        rows = Case(ASKED, jsonl(*lines)).by_key()
        assert {key: row.text for key, row in rows.items()} == {key: f"answer {key}" for key in KEYS}
        assert {row.job_name for row in rows.values()} == {a_job().name}

    def test_lines_of_several_shards_are_read(self):
        case = Case(ASKED, *[jsonl(answered(key)) for key in KEYS])
        assert {row.text for row in case.rows()} == {f"answer {key}" for key in KEYS}
        assert case.odd == (0, 0, 0)

    def test_requests_of_several_files_are_expected(self):
        case = Case(ASKED[:1], jsonl(*[answered(key) for key in KEYS]))
        case.store.objects["gs://in/more.jsonl"] = jsonl(*ASKED[1:])
        case.batch = Batch(case.batch.job, ("gs://in/*.jsonl",))
        assert sorted(case.by_key()) == list(KEYS)
        assert case.collector.expected_count == 3

    def test_a_missing_line_is_a_row_that_says_so(self):
        rows = Case(ASKED, jsonl(answered("r1"), answered("r3"))).by_key()
        assert (rows["r2"].status, rows["r2"].repairable) == (RowStatus.MISSING, True)
        assert rows["r2"].reason == "The job ended without a line for this row"

    def test_a_doubled_line_counts_once(self):
        case = Case(ASKED, jsonl(*[answered(key) for key in KEYS], answered("r1", processed_time="")))
        assert case.by_key()["r1"].processed_at != ""
        assert case.odd == (1, 0, 0)

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["bad first", "good first"])
    def test_a_good_answer_beats_a_bad_one(self, order):
        lines = [failed("r1"), answered("r1")]
        case = Case(ASKED[:1], jsonl(*[lines[number] for number in order]))
        assert case.by_key()["r1"].status is RowStatus.SUCCEEDED
        assert case.odd == (1, 0, 0)

    def test_of_two_bad_lines_the_first_counts(self):
        case = Case(ASKED[:1], jsonl(failed("r1"), failed("r1", status="503 Unavailable")))
        assert case.by_key()["r1"].code == "INVALID_ARGUMENT"
        assert case.odd == (1, 0, 0)

    @pytest.mark.parametrize(
        "line",
        [
            answered("zzz"),
            {"key": "zzz", "status": "gone"},
            {"key": "zzz"},
            answered("zzz", request="odd"),
            answered("zzz", request=None) | {"key": 7},
        ],
        ids=["a whole line", "an error without request", "a key alone", "an odd request", "a number as key"],
    )
    def test_a_foreign_line_is_counted_and_changes_nothing(self, line):
        case = Case(ASKED, jsonl(*[answered(key) for key in KEYS], line))
        assert all(row.status is RowStatus.SUCCEEDED for row in case.by_key().values())
        assert case.odd == (0, 1, 0)

    def test_foreign_lines_may_even_hold_bytes_that_are_no_text(self):
        case = Case(ASKED[:1], jsonl(answered("r1")) + b'{"key": "zzz", "request": {"contents": "\xff"}}\n')
        assert len(case.rows()) == 1
        assert case.odd == (0, 1, 0)


class TestDigests:
    MODEL = "publishers/google/models/gemini-3.8-flash"

    @pytest.mark.parametrize("model", [MODEL, ""], ids=["of the batch", "of the job"])
    def test_every_row_has_the_digest_of_its_request_as_it_was_written(self, model):
        raw = b'{"key": "r1", "request": {"contents":  [] }}\n'
        case = Case([raw, *ASKED[1:]], jsonl(failed("r1"), answered("r2")), model=self.MODEL if not model else "x")
        case.batch = msgspec.structs.replace(case.batch, model=model)
        rows = case.by_key()
        assert rows["r1"].request_digest == request_digest(b'{"contents":  [] }', "gemini-3.8-flash")
        for row, line in ((rows["r2"], ASKED[1]), (rows["r3"], ASKED[2])):
            assert row.request_digest == request_digest(json.dumps(line["request"]).encode(), "gemini-3.8-flash")

    def test_requests_that_are_the_same_have_the_same(self):
        rows = Case([a_line("r1", "same"), a_line("r2", "same"), a_line("r3", "other")], jsonl()).by_key()
        assert rows["r1"].request_digest == rows["r2"].request_digest != rows["r3"].request_digest


class TestResumed:
    """The output of a job that was resumed holds the answers of the job before."""

    def test_lines_for_other_keys_are_as_they_should_be(self):
        lines = [answered("r1"), answered("earlier"), answered("r2") | {"key": None}, {"status": "x"}]
        case = Case(ASKED, jsonl(*lines))
        case.batch = msgspec.structs.replace(case.batch, resumed=True)
        rows = case.by_key()
        assert [rows[key].status for key in KEYS] == ["succeeded", "succeeded", "missing"]
        assert case.odd == (0, 0, 1)


class TestAmiss:
    def test_it_names_requests_that_are_gone_and_those_that_two_jobs_have(self):
        beside = jsonl(*[{"key": key, "columns": {}} for key in (*KEYS, "r4", "r5", "r6", "r7")])
        case = Case(ASKED, jsonl(answered("r1")), columns=beside)
        case.rows()
        assert case.collector.key_mismatch_text() == "4 missing: r4, r5, r6"
        case.rows()
        assert case.collector.key_mismatch_text() == "8 missing: r4, r5, r6; 3 surplus: r1, r2, r3"

    def test_where_all_is_well_there_is_nothing_to_say(self):
        case = Case(ASKED, jsonl(answered("r1")))
        case.rows()
        assert case.collector.key_mismatch_text() == ""


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
        lines = [answered(key) for key in keys]
        case = Case([asked(key) for key in keys], jsonl(*([odd, *lines] if place == "first" else [*lines, odd])))
        rows = case.by_key()
        assert {key: row.text for key, row in rows.items()} == {key: f"answer {key}" for key in keys}
        assert case.odd == (0, 0 if odd == b"\n" else 1, 0)

    def test_two_lines_on_one_cost_that_line(self):
        both = jsonl(answered("r1")).strip() + jsonl(answered("r2"))
        rows = Case(ASKED, both + jsonl(answered("r3"))).by_key()
        assert [rows[key].status for key in KEYS] == ["missing", "missing", "succeeded"]


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
        case = Case([a_line(key) for key in keys], jsonl(*[an_output(key) for key in keys]))
        assert len(case.by_key()) == len(keys)
        assert case.odd == (0, 0, 0)
        assert all(row.status.is_good for row in case.rows())

    @pytest.mark.parametrize("key", [["a"], {"a": 1}, 7, None, ""], ids=repr)
    def test_odd_keys_are_keys_too(self, key):
        rows = Case([a_line(key, "1")], jsonl(without_key(an_output(request=a_request("1"))))).by_key()
        assert [row.status for row in rows.values()] == [RowStatus.SUCCEEDED]


class TestFiles:
    def test_what_a_running_job_wrote_on_the_way_is_ignored(self):
        case = Case(ASKED[:1], jsonl(answered("r1")))
        case.store.objects[f"{OUTPUT}/incremental_predictions.jsonl"] = jsonl(failed("r1"))
        assert case.by_key()["r1"].status is RowStatus.SUCCEEDED
        assert case.odd == (0, 0, 0)

    def test_unless_there_is_nothing_else(self):
        case = Case(ASKED[:1], state=JobState.CANCELLED)
        case.store.objects[f"{OUTPUT}/incremental_predictions.jsonl"] = jsonl(answered("r1"))
        assert case.by_key()["r1"].status is RowStatus.SUCCEEDED

    @pytest.mark.parametrize(
        "name",
        [
            "predictions.jsonl",
            "predictions.jsonl-00000-of-00002",
            "predictions_0001.jsonl",
            "prediction.results-00000-of-00002",
            "000000000000.jsonl",
            "prediction-model-2026-09-02T20:06:30.166279Z/predictions.jsonl",
        ],
    )
    def test_results_have_the_names_that_the_service_gives_them(self, name):
        store = MemoryStore(**{f"{OUTPUT}/{name}": b""})
        assert [str(uri) for uri in result_files(store, Uri.parse(OUTPUT))] == [f"{OUTPUT}/{name}"]

    @pytest.mark.parametrize(
        "name",
        [
            "readme.txt", "a.jsonl.bak", "predictions.jsonl.bak", "predictions.jsonl~", "predictions.jsonl.tmp",
            "predictions.jsonl.gz", "predictions.jsonl_copy", "old-predictions.jsonl", "answers.jsonl", "x.jsonl",
            ".predictions.jsonl.x1", "Copy of predictions.jsonl", "predictions (1).jsonl", "sub/predictions.jsonl",
            "backup/predictions.jsonl-00000-of-00001", "predictions.jsonl-00000-of-00001.temp",
        ],
    )  # fmt: skip
    def test_other_files_are_no_results(self, name):
        store = MemoryStore(**{f"{OUTPUT}/{name}": b""})
        assert result_files(store, Uri.parse(OUTPUT)) == []
        case = Case(ASKED[:1], jsonl(answered("r1")))
        case.store.objects[f"{OUTPUT}/{name}"] = jsonl(answered("r1", response=a_response("not this")))
        assert [row.text for row in case.rows()] == ["answer r1"]

    @pytest.mark.parametrize("mark", ["?", "[1]", "*", "[", "**"])
    def test_a_folder_is_read_letter_by_letter(self, mark, local, folder):
        """A job whose folder has a wildcard in its name would be a job without any answer."""
        for store, root in ((MemoryStore(), "gs://out"), (local, str(folder))):
            here, beside = Uri.parse(f"{root}/night{mark}"), Uri.parse(f"{root}/night1")
            for uri in (here / "predictions.jsonl", beside / "predictions.jsonl"):
                with store.open_write(uri) as stream:
                    stream.write(jsonl(answered("r1")))
            assert result_files(store, here) == [here / "predictions.jsonl"]
            assert result_files(store, beside) == [beside / "predictions.jsonl"]

    def test_another_folder_that_begins_alike_is_not_ours(self):
        store = MemoryStore(**{f"{OUTPUT}0/predictions.jsonl": b""})
        assert result_files(store, Uri.parse(OUTPUT)) == []

    @pytest.mark.parametrize("torn", [b'{"key": "r3", "resp', b'{"key": "r3", "resp\n', b"\xff\xfe"], ids=repr)
    def test_a_torn_last_line_is_a_missing_row(self, torn):
        rows = Case(ASKED, jsonl(answered("r1"), answered("r2")) + torn).by_key()
        assert rows["r3"].status is RowStatus.MISSING
        assert rows["r2"].status is RowStatus.SUCCEEDED

    @pytest.mark.parametrize(
        "junk", [b'{"key": "r2", "resp', b"\0" * 99, b"\xef\xbb\xbf", b"<html>", b"null"], ids=repr
    )
    def test_junk_in_the_middle_costs_that_line_and_its_row_says_so(self, junk):
        rows = Case(ASKED, jsonl(answered("r1"), junk + b"\n", answered("r3"))).by_key()
        assert [rows[key].status for key in KEYS] == ["succeeded", "missing", "succeeded"]
        assert "It may have been line 2 of gs://out/prediction-model-1/predictions" in rows["r2"].reason

    def test_it_is_a_line_that_the_service_wrote(self):
        """So what it counted is there: the job is not asked for again and again."""
        case = Case(ASKED, jsonl(answered("r1"), b"junk\n", answered("r3")), successful_count=3)
        assert case.by_key()["r2"].status is RowStatus.MISSING
        assert case.collector.anomalies.unreadable_count == 1

    def test_a_file_without_one_line_of_an_output_is_none(self):
        with pytest.raises(
            LostOutputError, match=r"no result file is there.*Line 1 of gs://out/.*is no line of a batch"
        ):
            Case(ASKED, b"<html>Sign in</html>\n").rows()

    def test_beside_others_it_changes_nothing(self):
        case = Case(ASKED, b"<html>Sign in</html>\n", jsonl(*map(answered, KEYS)))
        assert all(row.status is RowStatus.SUCCEEDED for row in case.rows())
        assert case.collector.anomalies.unreadable_count == 0

    def test_an_empty_file_has_no_lines(self):
        assert {row.status for row in Case(ASKED, b"").rows()} == {RowStatus.MISSING}

    def test_blank_lines_are_no_lines(self):
        case = Case(ASKED[:1], b"\n" + jsonl(answered("r1")) + b"\r\n  \n")
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
            ASKED, *([jsonl(answered("r1"))] if has_output else []), state=state, error_message="24 hours are over"
        )
        if not has_output:
            case.batch = Batch(a_job(state, error_message="24 hours are over"), (INPUT,))
            case.collector = Collector(case.store, MemoryWarehouse(), on_lost_output=OnLostOutput.LAND)
        rows = case.by_key()
        assert rows["r3"].status is status
        assert rows["r3"].reason.endswith(": 24 hours are over")
        assert (rows["r3"].code, rows["r3"].repairable) == (str(state), True)
        assert rows["r1"].status is (RowStatus.SUCCEEDED if has_output else status)

    def test_the_counts_of_several_jobs_add_up(self):
        case = Case(ASKED, jsonl(answered("r1"), failed("r2")))
        rows = [*case.rows(), *case.rows()]
        assert tally(rows).as_dict() == {"succeeded": 2, "failed": 2, "missing": 2}
        assert case.collector.expected_count == 6 == tally(rows).total


class TestInput:
    def test_input_that_is_gone_is_an_error_not_an_empty_batch(self):
        case = Case(ASKED, jsonl(answered("r1")))
        del case.store.objects[INPUT]
        with pytest.raises(ResultError, match=r"gs://in/requests.jsonl.* has no requests any more.*Restore"):
            case.rows()

    @pytest.mark.parametrize("line", [b'{"key": \n', b"[]\n", b"\xff\n"], ids=repr)
    def test_input_that_is_no_request_is_named_by_its_line(self, line):
        with pytest.raises(ResultError, match=r"Line 4 of gs://in/requests.jsonl is no request"):
            Case([*ASKED, line], jsonl(answered("r1"))).rows()


class TestColumns:
    def test_the_user_s_columns_come_back_beside_every_row(self):
        beside = jsonl(*[{"key": key, "columns": {"id": n, "mood": "é"}} for n, key in enumerate(KEYS)])
        case = Case(ASKED, jsonl(answered("r3"), failed("r1")), columns=beside)
        assert {key: row.columns for key, row in case.by_key().items()} == {
            key: {"id": n, "mood": "é"} for n, key in enumerate(KEYS)
        }

    def test_without_them_a_row_has_none(self):
        assert Case(ASKED[:1], jsonl(answered("r1"))).by_key()["r1"].columns is None


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
