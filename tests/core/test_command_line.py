"""The command line: what it prints, and its exit status (0 clean, 1 findings, 2 could not do its work)."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys

import pytest

from airflow_vertex_batch import __version__
from airflow_vertex_batch.__main__ import main
from tests.builders import SEED, a_failed_output, a_line, a_request, a_response, an_output, jsonl, seed


def _report(capsys, *arguments) -> dict:
    assert main(["report", "--format", "json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def page(tmp_path):
    """The seed page's success and failed line, as printed, in one file."""
    file = tmp_path / "predictions.jsonl"
    file.write_bytes(jsonl(seed("success.json"), seed("failed.json")))
    return file


class TestReport:
    def test_the_seed_page_s_lines_as_json(self, capsys, page):
        report = _report(capsys, page)
        assert report["statuses"] == {"succeeded": 1, "failed": 1}
        assert report["request_count"] == 2
        assert report["usage"] == {
            "prompt_tokens": 29180, "output_tokens": 36, "thinking_tokens": 0, "cached_tokens": 0, "tool_tokens": 0,
            "total_tokens": 29216, "audio_tokens": 0, "image_tokens": 0, "cached_audio_tokens": 0,
        }  # fmt: skip
        assert report["samples"] == {"failed": ["line-2"]}

    def test_the_seed_page_s_lines_as_text(self, capsys, page):
        assert main(["report", str(page)]) == 0
        printed = capsys.readouterr().out
        for text in ("succeeded", "failed", "50.0%", "line-2", "29,180", "rows not priced"):
            assert text in printed

    def test_every_status_that_a_line_can_have(self, capsys, tmp_path):
        lines = [
            an_output("a"),
            an_output("b", response=a_response("x", finishReason="MAX_TOKENS")),
            an_output("c", response={"promptFeedback": {"blockReason": "SAFETY"}}),
            an_output("d", "prose", request=a_request(generationConfig={"responseMimeType": "application/json"})),
            a_failed_output("e"),
        ]
        file = tmp_path / "predictions.jsonl"
        file.write_bytes(jsonl(*lines))
        assert _report(capsys, file)["statuses"] == {
            "succeeded": 1, "truncated": 1, "blocked": 1, "invalid_output": 1, "failed": 1,
        }  # fmt: skip

    def test_a_model_with_a_price_is_priced(self, capsys, tmp_path):
        response = a_response()
        response["modelVersion"] = "gemini-2.5-flash"
        response["usageMetadata"] = {"promptTokenCount": 1_000_000, "candidatesTokenCount": 1_000_000}
        file = tmp_path / "predictions.jsonl"
        file.write_bytes(jsonl(an_output(response=response), a_failed_output()))
        report = _report(capsys, file)
        assert (report["cost_usd"], report["unpriced_count"]) == ("1.400000", 0)

    def test_prices_of_ones_own(self, capsys, page, tmp_path):
        """The seed page's answer names a model that has no shipped price."""
        model = seed("success.json")["response"]["modelVersion"]
        file = tmp_path / "prices.json"
        price = {"model": model.partition("@")[0], "input": 1, "output": 2, "cached_input": 0.1}
        file.write_text(json.dumps({"prices": [price | {"source": "a contract", "date": "2026-11-24"}]}))
        report = _report(capsys, "--prices", file, page)
        assert (report["cost_usd"], report["unpriced_count"]) == ("0.029252", 0)

    def test_as_markdown(self, capsys, page):
        assert main(["report", "--format", "markdown", str(page)]) == 0
        assert capsys.readouterr().out.startswith("**2 rows: 1 succeeded, 1 failed; 29,216 tokens, ")

    def test_a_model_without_a_price_is_counted_not_zero(self, capsys, page):
        assert _report(capsys, page)["unpriced_count"] == 1

    def test_several_files_globs_and_folders_add_up(self, capsys, tmp_path):
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "predictions.jsonl-00000-of-00002").write_bytes(jsonl(an_output("a")))
            (folder / "predictions.jsonl-00001-of-00002").write_bytes(jsonl(an_output("b")))
            (folder / "incremental_predictions.jsonl").write_bytes(jsonl(an_output("a")))
        assert _report(capsys, tmp_path / "one")["request_count"] == 2
        assert _report(capsys, f"{tmp_path / 'one'}/")["request_count"] == 2
        assert _report(capsys, tmp_path / "one", tmp_path / "two")["request_count"] == 4
        assert _report(capsys, f"{tmp_path}/*/predictions*")["request_count"] == 4

    def test_a_torn_last_line_is_left_out(self, capsys, page):
        page.write_bytes(page.read_bytes() + b'{"key": "torn')
        assert _report(capsys, page)["request_count"] == 2

    def test_so_is_a_bad_line_inside_and_it_is_said(self, capsys, caplog, page):
        page.write_bytes(b"torn\n" + page.read_bytes())
        assert _report(capsys, page)["request_count"] == 2
        assert "line 1 of" in caplog.text

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "Cannot read .*No such file"),
            (b"not an output\n", "Line 1 of .* is no line of a batch output"),
            (b"not an output", "Line 1 of .* is no line of a batch output"),
            (b"\x89PNG\r\n\x1a\n", "is no text"),
        ],
        ids=["absent", "text", "text without an end", "bytes"],
    )
    def test_what_cannot_be_read_is_status_2_with_one_line_of_why(self, capsys, tmp_path, content, message):
        file = tmp_path / "predictions.jsonl"
        if content is not None:
            file.write_bytes(content)
        assert main(["report", str(file)]) == 2
        printed = capsys.readouterr()
        assert re.search(message, printed.err)
        assert printed.err.startswith("airflow-vertex-batch: ")
        assert printed.out == ""

    def test_an_empty_folder_is_status_2(self, capsys, tmp_path):
        assert main(["report", str(tmp_path)]) == 2
        assert "has no result files" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["s3://b/x", "gs://", "bq://p.d.t"])
    def test_an_address_we_do_not_speak_is_status_2(self, capsys, name):
        assert main(["report", name]) == 2
        assert "airflow-vertex-batch: " in capsys.readouterr().err


class TestPrices:
    def test_the_table_has_source_and_date(self, capsys):
        assert main(["prices"]) == 0
        printed = capsys.readouterr().out
        for text in ("US dollars per million tokens", "gemini-2.5-flash ", "2026-11-28", "LiteLLM", "… prompts above"):
            assert text in printed

    def test_what_json_prints_is_a_price_file(self, capsys, tmp_path):
        assert main(["prices", "--format", "json"]) == 0
        printed = capsys.readouterr().out
        file = tmp_path / "prices.json"
        file.write_text(printed)
        assert main(["prices", "--format", "json", "--file", str(file)]) == 0
        assert capsys.readouterr().out == printed
        assert all(price["source"] and price["date"] for price in json.loads(printed)["prices"])

    def test_entries_of_a_file_take_the_place_of_the_shipped(self, capsys, tmp_path):
        mine = {"model": "gemini-2.5-flash", "input": 9, "output": 9, "cached_input": 9}
        file = tmp_path / "prices.json"
        file.write_text(json.dumps({"prices": [mine | {"source": "a contract", "date": "2026-11-24"}]}))
        assert main(["prices", "--file", str(file)]) == 0
        assert re.search(r"gemini-2\.5-flash +9 +9 +9 +2026-11-24 +a contract", capsys.readouterr().out)

    @pytest.mark.parametrize(
        ("day", "marked"), [("2026-11-30", "2026-11-30 *"), ("2026-12-01", "2026-12-01"), ("2030-01-01", "2026-12-01")]
    )
    def test_a_star_marks_the_price_of_the_day(self, capsys, day, marked):
        assert main(["prices", "--day", day]) == 0
        (line,) = (
            line for line in capsys.readouterr().out.splitlines() if line.startswith("gemini-4-argon ") and "*" in line
        )
        assert marked in line

    def test_a_day_that_is_none_is_refused(self, capsys):
        with pytest.raises(SystemExit, match="2"):
            main(["prices", "--day", "yesterday"])
        assert "'yesterday' is no day, YYYY-MM-DD" in capsys.readouterr().err

    def test_a_file_that_cannot_be_used_is_status_2(self, capsys, tmp_path):
        file = tmp_path / "prices.json"
        file.write_text('{"prices": [{"model": "m"}]}')
        for arguments in (["prices", "--file", str(file)], ["prices", "--file", str(tmp_path / "none")]):
            assert main(arguments) == 2
            assert re.search(r"Entry 1 of .*prices\.json is no price|does not exist", capsys.readouterr().err)


class TestLint:
    def test_the_seed_page_s_request_is_clean(self, capsys):
        assert main(["lint", str(SEED / "request.jsonl")]) == 0

    def test_findings_are_status_1_with_file_line_rule_and_cure(self, capsys, tmp_path):
        file = tmp_path / "requests.jsonl"
        file.write_bytes(jsonl(a_line("r1"), {"key": "r2", "request": a_request(tools=[{"googleSearch": {}}])}))
        assert main(["lint", "--format", "json", str(file)]) == 1
        (finding,) = json.loads(capsys.readouterr().out)["findings"]
        assert finding.keys() == {"file", "line", "rule", "severity", "path", "message", "cure"}
        assert (finding["file"], finding["line"], finding["rule"], finding["severity"]) == (
            str(file),
            2,
            "empty-object",
            "error",
        )
        assert main(["lint", str(file)]) == 1
        assert f"{file}:2: error: " in capsys.readouterr().out

    def test_nothing_to_say_is_an_empty_list(self, capsys, tmp_path):
        file = tmp_path / "requests.jsonl"
        file.write_bytes(jsonl(a_line("r1")))
        assert main(["lint", "--format", "json", str(file)]) == 0
        assert json.loads(capsys.readouterr().out) == {"findings": []}

    def test_a_packed_file_is_read_with_a_warning(self, capsys, tmp_path):
        file = tmp_path / "requests.jsonl.gz"
        file.write_bytes(gzip.compress(jsonl(a_line("r1"))))
        assert main(["lint", str(file)]) == 0
        assert "[packed-file]" in capsys.readouterr().out

    def test_what_cannot_be_read_is_status_2(self, capsys, tmp_path):
        assert main(["lint", str(tmp_path / "none.jsonl")]) == 2
        assert "matches no file" in capsys.readouterr().err


#: One of every cure, one thing that only its author can cure, and a line that is good.
CURABLE = b"".join([
    b"\xef\xbb\xbf" + jsonl(a_line("000123")),
    b"\r\n",
    jsonl({"key": "r2", "request": a_request(tools=[{"googleSearch": {}}], generationConfig={"stopSequences": None})}),
    jsonl(a_line("r3")).replace(b"\n", b"\r\n"),
])  # fmt: skip


class TestLintFix:
    def test_the_copy_is_clean_and_the_original_as_it_was(self, capsys, tmp_path):
        file = tmp_path / "requests.jsonl"
        file.write_bytes(CURABLE)
        assert main(["lint", "--fix", str(file)]) == 0
        copy = tmp_path / "requests.fixed.jsonl"
        assert [json.loads(line)["key"] for line in copy.read_bytes().splitlines()] == ["row-000123", "r2", "r3"]
        assert file.read_bytes() == CURABLE
        printed = capsys.readouterr().out
        assert f"{file}:1: cured: removed the byte order mark (1 line)" in printed
        assert f"{file}:2: cured: removed the blank line (1 line)" in printed
        assert printed.endswith("clean\n")
        assert main(["lint", str(copy)]) == 0

    def test_what_remains_is_status_1_with_the_copy_s_line(self, capsys, tmp_path):
        file = tmp_path / "requests.jsonl"
        file.write_bytes(b"\n" + jsonl(a_line("7")) + b"{\n")
        assert main(["lint", "--fix", "--format", "json", str(file)]) == 1
        printed = json.loads(capsys.readouterr().out)
        (finding,) = printed["findings"]
        assert (finding["file"], finding["line"]) == (str(tmp_path / "requests.fixed.jsonl"), 2)
        assert finding["rule"] == "truncated-line"
        assert printed["cures"][1] == {
            "source": str(file), "what": "prefixed the key with row-", "line_count": 1, "first_line": 2,
        }  # fmt: skip

    def test_copies_go_into_a_folder_by_their_names_and_are_one_job(self, capsys, tmp_path):
        for name in ("a", "b"):
            (tmp_path / f"{name}.jsonl").write_bytes(jsonl(a_line("7")))
        assert main(["lint", "--fix", str(tmp_path / "*.jsonl"), "--output", str(tmp_path / "out")]) == 1
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jsonl", "b.jsonl"]
        assert "[key-duplicate]" in capsys.readouterr().out

    def test_a_second_run_over_a_glob_leaves_the_first_one_s_copies_out(self, capsys, tmp_path):
        (tmp_path / "a.jsonl").write_bytes(CURABLE)
        for _ in range(2):
            assert main(["lint", "--fix", str(tmp_path / "*.jsonl")]) == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fixed.jsonl", "a.jsonl"]

    def test_a_packed_file_is_copied_unpacked(self, tmp_path):
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(CURABLE))
        assert main(["lint", "--fix", str(tmp_path / "a.jsonl.gz")]) == 0
        assert (tmp_path / "a.fixed.jsonl").read_bytes().startswith(b"{")

    @pytest.mark.parametrize("output", [".", "../{name}"], ids=["the folder itself", "the folder by another path"])
    def test_a_copy_never_stands_in_an_original_s_place(self, capsys, tmp_path, output):
        file = tmp_path / "requests.jsonl"
        file.write_bytes(CURABLE)
        folder = f"{tmp_path}/{output.format(name=tmp_path.name)}"
        assert main(["lint", "--fix", str(file), "--output", folder]) == 2
        assert "would stand in place of" in capsys.readouterr().err
        assert file.read_bytes() == CURABLE

    def test_two_files_of_one_name_are_not_written_over_each_other(self, capsys, tmp_path):
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "r.jsonl").write_bytes(CURABLE)
        assert main(["lint", "--fix", f"{tmp_path}/*/r.jsonl", "--output", str(tmp_path / "out")]) == 2
        assert not (tmp_path / "out").exists()

    def test_a_file_that_cannot_be_read_to_its_end_leaves_no_copy(self, tmp_path):
        packed = gzip.compress(b"".join(jsonl(a_line(f"r{number}")) for number in range(5_000)))
        (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
        assert main(["lint", "--fix", str(tmp_path / "a.jsonl.gz")]) == 2
        assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl.gz"]

    def test_output_without_fix_is_status_2(self, capsys, tmp_path):
        (tmp_path / "a.jsonl").write_bytes(CURABLE)
        assert main(["lint", str(tmp_path / "a.jsonl"), "--output", str(tmp_path)]) == 2
        assert "Add --fix" in capsys.readouterr().err


class TestProgram:
    def test_it_runs_as_a_module_and_loads_no_airflow(self, page):
        program = (
            "import sys; from airflow_vertex_batch.__main__ import main; status = main(sys.argv[1:]); "
            "assert 'airflow' not in sys.modules; sys.exit(status)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, "report", "--format", "json", str(page)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["statuses"] == {"succeeded": 1, "failed": 1}

    def test_python_m_prints_the_version(self):
        done = subprocess.run(
            [sys.executable, "-m", "airflow_vertex_batch", "--version"], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == __version__

    @pytest.mark.parametrize(
        "arguments", [[], ["dance"], ["report"], ["lint", "--format", "xml", "x"], ["sweep"]], ids=str
    )
    def test_wrong_usage_is_status_2(self, capsys, arguments):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert "usage: airflow-vertex-batch" in capsys.readouterr().err

    def test_a_reader_that_has_enough_is_no_traceback(self, tmp_path):
        file = tmp_path / "requests.jsonl"
        file.write_bytes(b"{}\n" * 50_000)
        command = f"{sys.executable} -m airflow_vertex_batch lint {file} | head -1"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert f"{file}:1: error" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["sweep", "--project", "p", "--location", "us", "--staging", "gs://b/a*"],
        ["sweep", "--project", "p", "--location", "us", "--staging", "gs://b/a", "--harvest-to", "gs://b/[h]"],
        ["doctor", "--project", "p", "--location", "us", "--model", "m", "--staging", "gs://b/a?"],
        ["doctor", "--project", "p", "--location", "us", "--model", "m", "--output", "gs://b/a*"],
        ["lint", "--fix", "requests.jsonl", "--output", "out[1]"],
    ],
    ids=lambda arguments: f"{arguments[0]} {arguments[-2]}",
)
def test_a_folder_that_is_written_to_is_no_pattern(arguments, capsys):
    assert main(arguments) == 2
    assert f"{arguments[-2]}='{arguments[-1]}' has" in capsys.readouterr().err
