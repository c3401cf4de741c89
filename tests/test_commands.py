"""The command-line table: whatever a person may write there ends with the documented status, and with what to do.

`docs/commands.md` holds each line with its status and the first line that it prints. `COMMANDS_DOC=1` writes it.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_vertex_batch.__main__ import main
from airflow_vertex_batch.cli.terminal import NAME
from stack.chaos import document
from tests.commands import BUCKET, CANARY, LINES, NOWHERE, UNANSWERED, objects, write_files

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
HEADERS = ("command line", "status", "first line")
#: Seconds after which nobody waits for a program any longer.
PATIENCE = 100
#: An account without rights, where the tests run as root.
_NOBODY = 65534
_ERROR = re.compile(rf"(?s){NAME}: \S.*[.!?]\nTo do: \S.*[.!?]\n(usage: {NAME}.*)?")


class Done:
    """What came of a command line."""

    def __init__(self, line: str, wanted: int, status: int | str, out: str, err: str) -> None:
        self.line, self.wanted, self.status, self.out, self.err = line, wanted, status, out, err

    def __str__(self) -> str:
        return f"{self.line}: {self.status}, not {self.wanted}: {self.err or self.out[:200]}"

    @property
    def cells(self) -> list[str]:
        """The line of the page; Python has written choices with quotes and without."""
        first = next(iter((self.err or self.out).splitlines()), "")
        first = re.sub(r"\(choose from .*\)", lambda found: found[0].replace("'", ""), first)
        first = re.sub(r"127\.0\.0\.1:\d{4,}", "127.0.0.1:…", first)
        cells = (f"`{self.line or ' '}`", str(self.status), first)
        return [cell.replace("|", "¦").replace("x" * 100, "…").strip() for cell in cells]


@pytest.fixture(scope="module")
def place(tmp_path_factory, storage_url, storage_client):
    """The folder and the bucket, and an environment that leads to them."""
    folder = tmp_path_factory.mktemp("commands")
    write_files(folder)
    bucket = storage_client.create_bucket(BUCKET)
    for name, content in objects().items():
        bucket.blob(name).upload_from_string(content)
    # A width for those who wrap, so that the page does not depend on the terminal.
    environment = {"STORAGE_EMULATOR_HOST": storage_url, "VERTEX_BATCH_EMULATOR_HOST": NOWHERE, "COLUMNS": "100"}
    return folder, environment


@pytest.fixture
def there(place, monkeypatch):
    """Every command is run in the folder."""
    folder, environment = place
    monkeypatch.chdir(folder)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def done(there, capsys):
    """Every line of the table, and what came of it."""

    def run(line, wanted):
        try:
            status = main(shlex.split(line))
        except SystemExit as ended:
            status = ended.code
        except Exception as error:  # noqa: BLE001 - this is what must not be
            status = f"a traceback: {error!r}"
        printed = capsys.readouterr()
        return Done(line, wanted, status, printed.out, printed.err)

    return [run(line, wanted) for wanted, lines in LINES.items() for line in lines]


def all_but(done, holds):
    """Those for which something does not hold."""
    return [str(each) for each in done if not holds(each)]


class TestEveryLine:
    def test_ends_as_documented_and_tells_an_error_in_two_lines_without_a_row(self, done):
        assert len(done) >= 130
        assert all_but(done, lambda each: each.status == each.wanted) == []
        assert all_but(done, lambda each: CANARY not in each.out + each.err) == []
        assert all_but(done, lambda each: each.status != 2 or (_ERROR.fullmatch(each.err) and not each.out)) == []
        assert all_but(done, lambda each: each.status != 1 or each.out) == []
        self.check_page(done)

    def check_page(self, done):
        """The page says the same; `COMMANDS_DOC=1` writes it."""
        measured = [each.cells for each in done]
        if os.environ.get("COMMANDS_DOC"):
            document.write(PAGE, "commands", HEADERS, measured)
        assert document.read(PAGE, "commands") == measured


def a_program(folder, *arguments, stdout=subprocess.PIPE, **environment):
    """Begin a process of the command line."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    kept["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "airflow_vertex_batch", *arguments], cwd=folder, env=kept | environment,
        stdout=stdout, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_an_emulator_without_its_web_server_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "airflow_vertex_batch.emulator.server", None)
    assert main(["emulator", "--port", "0"]) == 2
    assert "To do: Install airflow-vertex-batch[emulator]" in capsys.readouterr().err


class TestWhatMayNotBeRead:
    """By an account that is not root: root may read everything."""

    @pytest.fixture
    def locked(self, there, monkeypatch):
        folder = there / "locked"
        folder.mkdir(exist_ok=True)
        for name in ("requests.jsonl", "predictions.jsonl", "prices.json"):
            (folder / name).write_bytes((there / name).read_bytes())
            (folder / name).chmod(0)
        # What a command loads must be loaded while that is allowed.
        for line in ("lint requests.jsonl", "report predictions.jsonl", "prices"):
            main(shlex.split(line))
        importlib.import_module("airflow_vertex_batch.emulator.server")
        before = os.geteuid()
        if before == 0:
            # The commands are given names below this folder, so it alone must be open.
            there.chmod(0o755)
            os.seteuid(_NOBODY)
        yield folder
        os.seteuid(before)
        folder.chmod(0o755)

    @pytest.mark.parametrize("mode", [0o555, 0o444, 0], ids=["files", "what a folder lists", "a folder"])
    @pytest.mark.parametrize(
        "line",
        [
            "lint locked/requests.jsonl", "lint locked", "lint 'locked/*.jsonl'", "report locked/predictions.jsonl",
            "report locked", "report --prices locked/prices.json predictions.jsonl", "prices --file locked/prices.json",
            "emulator --port 0 --scenario locked/prices.json", "emulator --port 0 --data locked/jobs",
            "lint --fix requests.jsonl --output locked/copies",
        ],
    )  # fmt: skip
    def test_is_named(self, locked, capsys, line, mode):
        euid = os.geteuid()
        os.seteuid(os.getuid())
        locked.chmod(mode)
        os.seteuid(euid)
        capsys.readouterr()
        assert main(shlex.split(line)) == 2
        assert _ERROR.fullmatch(capsys.readouterr().err)


class TestWithoutAServer:
    def test_a_command_says_so_and_does_not_wait_as_a_task_would(self, place):
        """A task repeats a call for minutes; a person waits for a command."""
        folder, began = place[0], time.monotonic()
        environment = {"STORAGE_EMULATOR_HOST": NOWHERE, "VERTEX_BATCH_EMULATOR_HOST": NOWHERE}
        begun = {line: a_program(folder, *shlex.split(line), **environment) for line in UNANSWERED}
        for line, program in begun.items():
            out, err = program.communicate(timeout=PATIENCE)
            assert (line, program.returncode, out) == (line, 2, "")
            assert re.fullmatch(rf"(?s){NAME}: \S.* did not answer .*\nTo do: Check the network.*\n", err), (line, err)
        assert time.monotonic() - began < PATIENCE

    @pytest.mark.parametrize(
        "line", ["lint gs://b-1/x", "report gs://b-1/x", "lint --fix requests.jsonl --output gs://b-1/x"]
    )
    def test_nor_without_credentials(self, place, line):
        nobody = {"GOOGLE_APPLICATION_CREDENTIALS": "none.json"}
        program = a_program(place[0], *shlex.split(line), **nobody)
        out, err = program.communicate(timeout=PATIENCE)
        assert (program.returncode, out) == (2, "")
        assert re.fullmatch(rf"(?s){NAME}: No credentials for .*\nTo do: Check the connection's credentials; .*\n", err)


class TestTheProgram:
    @pytest.mark.parametrize("line", ["prices", "report predictions.jsonl", "lint broken.jsonl", "--help"])
    def test_a_reader_that_has_gone_is_no_traceback(self, place, line):
        reader, writer = os.pipe()
        # Before it writes anything.
        os.close(reader)
        program = a_program(place[0], *shlex.split(line), stdout=writer)
        os.close(writer)
        _, err = program.communicate(timeout=PATIENCE)
        assert (program.returncode, err) == (2, "")

    def test_nor_is_an_output_that_is_full(self, place):
        command = f"{sys.executable} -m airflow_vertex_batch prices > /dev/full"
        root = Path(__file__).parents[1]
        done = subprocess.run(command, shell=True, cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert _ERROR.fullmatch(done.stderr)

    def test_nor_a_name_that_the_terminal_cannot_print(self, place):
        (place[0] / "caf\udce9.jsonl").write_bytes(b"{}\n")
        program = a_program(place[0], "lint", "caf\udce9.jsonl", PYTHONIOENCODING="ascii")
        out, err = program.communicate(timeout=PATIENCE)
        assert (program.returncode, err) == (1, "")
        assert out.startswith("caf\\udce9.jsonl:1: error")

    def test_an_emulator_listens_where_it_may_and_a_second_one_says_so(self, place):
        first = a_program(place[0], "emulator", "--port", "0", "--data", "jobs")
        try:
            port = first.stdout.readline().rsplit(":", 1)[1].strip()
            second = a_program(place[0], "emulator", "--port", port)
            out, err = second.communicate(timeout=PATIENCE)
            assert (second.returncode, out) == (2, "")
            assert re.fullmatch(
                rf"(?s){NAME}: The emulator cannot listen on .*:{port}\..*\nTo do: Choose another .*\n", err
            )
        finally:
            first.send_signal(signal.SIGTERM)
            first.communicate(timeout=PATIENCE)
        assert first.returncode == 0

    def test_a_job_that_cannot_be_read_is_named(self, place):
        job = place[0] / "damaged" / "jobs" / "1" / "job.json"
        job.parent.mkdir(parents=True)
        job.write_text("{")
        program = a_program(place[0], "emulator", "--port", "0", "--data", "damaged")
        _, err = program.communicate(timeout=PATIENCE)
        assert program.returncode == 2
        assert err.startswith(f"{NAME}: --data damaged holds a job that cannot be read.")
