"""Nothing that the command line prints acts on a terminal, wherever the text comes from."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_vertex_batch.__main__ import main
from airflow_vertex_batch.cli.escapes import one_line, printable
from tests.each_case import each_case

#: Clears the screen, sets the title, turns the direction of writing, goes back to the start of the line.
EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202eabc\r\x08"
ROOT = Path(__file__).resolve().parents[2]


def is_safe(text: str) -> bool:
    """Whether a terminal shows all of a text; line breaks and tabs are the only things that it obeys."""
    return all(character in "\n\t" or (character.isprintable() and character != "\u202e") for character in text)


@pytest.fixture
def printed(capsys):
    """Run a command; return what it printed, on both streams."""

    def run(*arguments: object) -> str:
        with contextlib.suppress(SystemExit):
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return captured.out + captured.err

    return run


class TestAText:
    @each_case([*range(9), *range(11, 32), *range(127, 160), 0x202E, 0x2028, 0x2066, 0xD800])
    def test_is_shown_where_a_terminal_would_obey(self, code):
        assert printable(f"a{chr(code)}b") == f"a\\u{code:04x}b"

    @pytest.mark.parametrize("text", ["", "plain\n\tand broken", "Grüße, 你好, שלום, 😀", "\\x1b[2J"])
    def test_is_as_it_was_otherwise(self, text):
        assert printable(text) == text

    def test_stays_in_its_line(self):
        assert one_line("a\nb\tc") == "a\\u000ab\\u0009c"


class TestACommand:
    def test_lists_prices_of_a_file_with_such_texts(self, printed, tmp_path):
        price = {"model": f"gemini-{EVIL}", "input": "1", "output": "2", "cached_input": "0.1", "source": EVIL,
                 "date": "2026-11-28"}  # fmt: skip
        file = tmp_path / "prices.json"
        file.write_text(json.dumps({"prices": [price]}))
        text = printed("prices", "--file", file)
        assert "gemini-\\u001b[2J" in text
        assert is_safe(text)
        made = printed("prices", "--file", file, "--format", "json")
        assert is_safe(made)
        assert EVIL in {entry["source"] for entry in json.loads(made)["prices"]}

    def test_says_what_is_wrong_with_such_a_price_file(self, printed, tmp_path):
        file = tmp_path / f"prices{EVIL}.json"
        file.write_text(json.dumps({"prices": [{"model": EVIL, EVIL: EVIL}]}))
        text = printed("prices", "--file", file)
        assert text.startswith("airflow-vertex-batch: ")
        assert is_safe(text)

    @pytest.mark.parametrize("format_", ["text", "json"])
    def test_lints_files_of_such_names_and_members(self, printed, tmp_path, format_):
        file = tmp_path / f"requests{EVIL}.jsonl"
        line = {
            "key": EVIL,
            EVIL: 1,
            "request": {EVIL: {EVIL: 1}, "tools": [{"functionDeclarations": [{"name": EVIL}]}]},
        }
        file.write_text(json.dumps(line) + "\n" + json.dumps(line) + "\n")
        for more in ((), ("--fix", "--output", tmp_path / "out"), ("--ignore", EVIL)):
            text = printed("lint", "--format", format_, tmp_path / "*.jsonl", *more)
            assert "error" in text or "names no rule" in text
            assert is_safe(text)

    def test_forges_no_line_of_another_s(self, printed, tmp_path):
        file = tmp_path / "a\nclean\n.jsonl"
        file.write_text("[]\n")
        text = printed("lint", file)
        assert "clean" not in text.splitlines()
        assert "errors: " in text.splitlines()[-1]

    @pytest.mark.parametrize("format_", ["text", "json", "markdown"])
    def test_reports_answers_of_such_models(self, printed, tmp_path, format_):
        usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
        candidates = [{"content": {"parts": [{"text": EVIL}]}, "finishReason": EVIL}]
        response = {"candidates": candidates, "modelVersion": EVIL, "usageMetadata": usage}
        file = tmp_path / "predictions.jsonl"
        lines = [
            {"key": EVIL, "status": "", "response": response},
            {"key": "b", "status": f"{EVIL}: x", "response": {}},
        ]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        text = printed("report", file, "--format", format_)
        assert text
        assert is_safe(text)

    def test_refuses_arguments_of_such_texts(self, printed):
        for arguments in ((EVIL,), ("report", f"/no/{EVIL}"), ("doctor", "--row", EVIL), ("lint", f"/no/{EVIL}")):
            text = printed(*arguments)
            assert text
            assert is_safe(text)

    def test_names_a_file_whose_name_is_no_text(self, tmp_path):
        """It ended in a traceback: a terminal takes no half of a surrogate pair."""
        name = os.fsencode(tmp_path) + b"/requests\xff.jsonl"
        Path(os.fsdecode(name)).write_text("[]\n")
        command = [sys.executable, "-m", "airflow_vertex_batch", "lint", os.fsdecode(name)]
        done = subprocess.run(command, capture_output=True, check=False, cwd=ROOT)
        assert done.returncode == 1
        assert rb"requests\udcff.jsonl:1: error" in done.stdout
        assert b"Traceback" not in done.stderr
