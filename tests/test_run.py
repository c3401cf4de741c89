"""A whole batch from one file, without Airflow: the command as a person types it, a real emulator, Cloud Storage.

What the service was asked, and what it bills, is read from the emulator's books.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet
import pytest
import requests

from airflow_vertex_batch.__main__ import main
from airflow_vertex_batch.cli.terminal import NAME
from airflow_vertex_batch.core.domain.catalog import EXAMPLE_MODEL

ROOT = Path(__file__).parents[1]
PATIENCE = 300
BUSY = {"do": "row_error", "keys": ["t1"], "code": 503, "message": "Busy"}
HOLD = {"do": "hold", "state": "JOB_STATE_RUNNING", "times": 1}
SPEC = f"""
model = "{EXAMPLE_MODEL}"
location = "global"
files = "tickets.csv"
key_column = "id"
prompt = '''
Which mood? {{{{ body }}}}'''
poll_interval = 0.1
MORE
[generation_config]
maxOutputTokens = 20
"""


class Service:
    """A running emulator, and its books."""

    def __init__(self, url):
        self.url = url

    def behave(self, *faults):
        assert requests.put(f"{self.url}/emulator/scenario", json={"faults": list(faults)}, timeout=60).ok

    def release(self):
        assert requests.post(f"{self.url}/emulator/release", json={}, timeout=60).ok

    @property
    def jobs(self):
        return requests.get(f"{self.url}/emulator/books", timeout=60).json()["jobs"]


@pytest.fixture(scope="module")
def service(storage_url):
    """An emulator of this file's own, whose jobs end at once."""
    env = {**os.environ, "STORAGE_EMULATOR_HOST": storage_url}
    command = [sys.executable, "-m", "airflow_vertex_batch", "emulator", "--port", "0", "--speed", "2000"]
    with subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        line = program.stdout.readline()
        yield Service("http://127.0.0.1:" + line.rsplit(":", 1)[1].strip())
        program.terminate()


def _hear_ctrl_c():
    """A program that a shell began in the background does not hear Ctrl-C, nor do those that it begins."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class SpecFolder:
    """A folder with a spec and its rows, and the command."""

    def __init__(self, folder, bucket, env, capsys):
        self.folder, self.bucket, self.env, self._capsys = folder, bucket, env, capsys
        self.address = f"gs://{bucket.bucket}"
        self.spec()
        self.rows(3)

    def spec(self, more=""):
        places = f'staging_uri = "{self.address}/staging"\ndestination = "{self.address}/out"'
        (self.folder / "moods.toml").write_text(SPEC.replace("MORE", f"{places}\n{more}"))

    def rows(self, count):
        lines = ["id,body", *(f"t{number},It is {number}" for number in range(count))]
        (self.folder / "tickets.csv").write_text("\n".join(lines) + "\n")

    def begin(self, *options, **more):
        """Begin the command as a program of its own."""
        command = [sys.executable, "-m", "airflow_vertex_batch", "run", "moods.toml", *options]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | more
        return subprocess.Popen(command, cwd=self.folder, env={**os.environ, **self.env}, text=True, **pipes)

    def main(self, *arguments, status=0):
        """Run a command to its end, here."""
        assert main(arguments) == status, self._capsys.readouterr()
        return self._capsys.readouterr()

    def run(self, *options, status=0):
        return self.main("run", "moods.toml", *options, status=status)

    def landed(self, client, kind="jsonl"):
        """Keys of the rows at the destination, and how often each is there."""
        blobs = client.list_blobs(self.bucket.bucket, prefix="out/answers/")
        data = [blob.download_as_bytes() for blob in blobs if blob.name.endswith(kind)]
        if kind == "parquet":
            rows = [row for each in data for row in pyarrow.parquet.read_table(pyarrow.BufferReader(each)).to_pylist()]
        else:
            rows = [json.loads(line) for each in data for line in each.splitlines()]
        return Counter(row["row_key"] for row in rows)


@pytest.fixture
def desk(tmp_path, bucket, storage_url, service, monkeypatch, capsys):
    service.behave()
    env = {
        "STORAGE_EMULATOR_HOST": storage_url, "VERTEX_BATCH_EMULATOR_HOST": service.url,
        "GOOGLE_CLOUD_PROJECT": "demo", "PYTHONPATH": str(ROOT), "COLUMNS": "120",
    }  # fmt: skip
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return SpecFolder(tmp_path, bucket, env, capsys)


def of(service, desk):
    """The jobs that read from this desk's bucket."""
    return [job for job in service.jobs if desk.address in json.dumps(job)]


def once(count):
    return Counter(f"t{number}" for number in range(count))


class TestOneCommand:
    def test_a_csv_becomes_parquet(self, desk, service, storage_client):
        desk.spec('file_format = "parquet"')
        out, err = desk.run("--day", "2026-11-22")
        assert desk.landed(storage_client, "parquet") == once(3)
        assert "3" in out
        assert "succeeded" in out
        [job] = of(service, desk)
        assert job["billedRows"] == 3
        assert f"{job['name']} SUCCEEDED: 3 done" in err

    def test_the_report_is_json_alone_on_the_standard_output(self, desk):
        out, _ = desk.run("--format", "json")
        assert json.loads(out)["statuses"] == {"succeeded": 3}

    def test_a_bad_row_goes_again_where_the_spec_says_so(self, desk, service, storage_client):
        service.behave(
            {"do": "row_error", "keys": ["t1"], "code": 503, "message": "Busy", "labels": {"avb-round": "0"}}
        )
        desk.spec("repair_rounds = 2")
        out, _ = desk.run()
        assert desk.landed(storage_client) == once(3)
        assert sorted(job["billedRows"] for job in of(service, desk)) == [1, 2]
        assert "succeeded" in out

    def test_too_few_good_rows_are_landed_and_end_with_status_1(self, desk, service):
        service.behave(BUSY)
        desk.spec("max_failed_ratio = 0.1")
        out, err = desk.run("--format", "json", status=1)
        assert "max_failed_ratio allows 10.00%" in err
        assert json.loads(out)["statuses"] == {"failed": 1, "succeeded": 2}


class TestThePage:
    def test_its_spec_runs_as_printed(self, desk, service, storage_client):
        [text] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "run.md").read_text(), re.DOTALL)
        text = text.replace("gs://my-bucket/vertex-batch", f"{desk.address}/staging")
        text = text.replace("gs://my-bucket/moods", f"{desk.address}/out")
        (desk.folder / "moods.toml").write_text(f"poll_interval = 0.1\n{text}")
        out, _ = desk.run("--format", "json")
        assert json.loads(out)["statuses"] == {"succeeded": 3}
        assert desk.landed(storage_client, "parquet") == once(3)
        assert f'model = "{EXAMPLE_MODEL}"' in text

    @pytest.mark.parametrize("option", ["detach", "once", "again", "approve", "day", "destination", "format", "run-id"])
    def test_names_every_option(self, option):
        assert f"--{option}" in (ROOT / "docs" / "run.md").read_text()


class TestAgain:
    """The same command goes on from the log, whatever ended the one before."""

    def test_a_second_run_buys_nothing_and_lands_the_same(self, desk, service, storage_client):
        desk.run()
        desk.run()
        assert desk.landed(storage_client) == once(3)
        assert [job["billedRows"] for job in of(service, desk)] == [3]

    @pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda end: end.name)
    def test_what_ends_a_wait_leaves_a_job_that_the_next_run_attaches_to(self, desk, service, storage_client, end):
        service.behave(HOLD)
        program = desk.begin()
        while "RUNNING" not in program.stderr.readline():
            assert program.poll() is None
        program.send_signal(end)
        _, err = program.communicate(timeout=PATIENCE)
        if end is signal.SIGKILL:
            assert program.returncode == -end
        else:
            assert program.returncode == 130
            assert "Jobs that were created run on, and bill; this command attaches to them and goes on" in err
            assert f"{NAME} run moods.toml" in err
        service.release()
        desk.run()
        assert desk.landed(storage_client) == once(3)
        assert [job["billedRows"] for job in of(service, desk)] == [3]

    def test_detach_leaves_the_job_and_once_looks(self, desk, service, storage_client):
        service.behave(HOLD)
        out, err = desk.run("--detach")
        [job] = of(service, desk)
        assert out.split() == [job["name"]]
        assert "The jobs run; this command" in err
        desk.run("--once", status=3)
        assert desk.landed(storage_client) == Counter()
        service.release()
        while desk.landed(storage_client) != once(3):
            assert main(["run", "moods.toml", "--once"]) in {0, 3}
        assert [job["billedRows"] for job in of(service, desk)] == [3]

    def test_a_source_that_grew_is_read_again_only_when_that_is_wanted(self, desk, service, storage_client):
        desk.run()
        desk.rows(4)
        desk.run()
        assert desk.landed(storage_client) == once(3)
        desk.run("--again")
        assert desk.landed(storage_client) == once(4)
        desk.rows(5)
        desk.run()
        assert desk.landed(storage_client) == once(4), "a run after --again goes on from it"
        assert [job["billedRows"] for job in of(service, desk)] == [3, 4]

    def test_an_edited_spec_pays_anew_only_when_that_is_wanted(self, desk, service, storage_client):
        desk.run("--detach")
        desk.spec('system_instruction = "One word."')
        _, err = desk.run(status=2)
        assert "The spec of gs://" in err
        assert "has changed since its batch began" in err
        assert "To do: Run it with --again to ask anew" in err
        assert len(of(service, desk)) == 1
        desk.run("--again")
        assert desk.landed(storage_client) == once(3)
        assert len(of(service, desk)) == 2

    @pytest.mark.parametrize(
        "more", ["queue_warning = 90000", "max_failed_ratio = 0.5", 'display_name = "x"', "max_cost_usd = 9.0"]
    )
    @pytest.mark.parametrize("on_clear", ["new", "repair"])
    def test_what_does_not_change_a_request_is_no_edit(self, desk, service, more, on_clear):
        desk.spec(f'on_clear = "{on_clear}"')
        desk.run()
        desk.spec(f'on_clear = "{on_clear}"\n{more}')
        desk.run()
        assert [job["billedRows"] for job in of(service, desk)] == [3]

    def test_the_command_that_is_named_goes_on_with_this_very_batch(self, desk, service, storage_client):
        service.behave(HOLD)
        desk.rows(3)
        _, err = desk.run(
            "--run-id", "night b", "--day", "2026-11-22", "--destination", f"{desk.address}/out", "--detach"
        )
        [command] = re.findall(rf"goes on: {NAME} (.*)\.\n", err)
        assert "--run-id 'night b'" in command
        service.release()
        desk.main(*shlex.split(command))
        assert desk.landed(storage_client) == once(3)
        assert [job["billedRows"] for job in of(service, desk)] == [3]

    def test_a_job_that_failed_is_bought_again_only_when_that_is_wanted(self, desk, service, storage_client):
        service.behave({"do": "end", "state": "JOB_STATE_FAILED", "from_pending": True})
        _, err = desk.run(status=2)
        assert "To do: Run it with --again" in err
        for _ in range(3):
            _, err = desk.run("--once", status=1)
            assert "--again buys what ended jobs did not answer" in err
        assert len(of(service, desk)) == 1
        desk.run("--again")
        assert desk.landed(storage_client) == once(3)
        assert [job["billedRows"] for job in of(service, desk)][1:] == [3]

    def test_another_run_id_is_another_batch(self, desk, service):
        desk.run("--run-id", "a")
        desk.run("--run-id", "b")
        assert [job["billedRows"] for job in of(service, desk)] == [3, 3]

    def test_advice_that_was_written_for_tasks_says_what_it_means_here(self, desk):
        desk.rows(0)
        said = desk.run(status=2).err
        assert "then clear this task" in said
        assert "the same command again is a retry, and with --again it is a clear" in said

    def test_story_tells_it(self, desk, service):
        desk.run()
        out, _ = desk.main("story", "run", "run", "moods", "--staging", f"{desk.address}/staging")
        assert of(service, desk)[0]["name"] in out


class TestMoney:
    SPEC = 'max_cost_usd = 1e-9\non_over_budget = "ask"'

    def test_nobody_who_can_be_asked_means_nothing_is_sent(self, desk, service):
        desk.spec(self.SPEC)
        _, err = desk.run(status=2)
        assert "Nobody can be asked: this is no terminal" in err
        assert "To do: Run it with --approve" in err
        assert of(service, desk) == []

    def test_a_repair_round_that_nobody_approves_keeps_nothing_from_landing(self, desk, service, storage_client):
        service.behave(BUSY | {"labels": {"avb-round": "0"}})
        desk.spec(f"{self.SPEC}\nrepair_rounds = 1\nmax_failed_ratio = 1.0")
        desk.run("--approve", "--detach")
        desk.run()
        assert desk.landed(storage_client) == once(3) - Counter(["t1"])
        assert [job["billedRows"] for job in of(service, desk)] == [2]

    def test_approve_pays(self, desk, service):
        desk.spec(self.SPEC)
        desk.run("--approve")
        assert [job["billedRows"] for job in of(service, desk)] == [3]

    @pytest.mark.parametrize(("answer", "status", "jobs"), [("y", 0, [3]), ("n", 2, [])])
    def test_a_person_at_a_terminal_is_asked_and_sees_a_bar(self, desk, service, answer, status, jobs):
        import pty

        desk.spec(self.SPEC)
        keyboard, terminal = pty.openpty()
        program = desk.begin(stdin=terminal, stderr=terminal)
        os.close(terminal)
        os.write(keyboard, f"{answer}\n".encode())
        out, seen = program.stdout.read(), b""
        while True:
            try:
                part = os.read(keyboard, 4096)
            except OSError:
                break
            if not part:
                break
            seen += part
        os.close(keyboard)
        assert program.wait(PATIENCE) == status, seen
        assert [job["billedRows"] for job in of(service, desk)] == jobs
        assert b"This batch may cost up to" in seen
        assert "may cost" not in out
        if status == 0:
            assert "━".encode() in seen
        else:
            assert b"said no" in seen
            desk.run("--approve")


class TestTheAccount:
    def test_without_one_it_says_how_to_get_one(self, desk, monkeypatch):
        for name in ("GOOGLE_CLOUD_PROJECT", "VERTEX_BATCH_EMULATOR_HOST"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(desk.folder / "none.json"))
        _, err = desk.run(status=2)
        assert "No credentials for this machine's account" in err
        assert "gcloud auth application-default login" in err


class TestTwoDrivers:
    def test_an_operator_of_the_same_name_goes_on_from_the_log(self, desk, service, storage_client, monkeypatch):
        """`VertexBatchOperator` in a DAG whose ids are those of the spec: the job of the command is its job."""
        from airflow.sdk import DAG

        from airflow_vertex_batch import VertexBatchOperator
        from tests.airflow.waiting import a_context

        service.behave()
        context = a_context("moods")
        desk.run("--dag-id", "nightly", "--run-id", context["ti"].run_id)
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", json.dumps(
            {"conn_type": "google_cloud_platform", "extra": {"project": "demo", "is_anonymous": True}}
        ))  # fmt: skip
        with DAG("nightly", schedule=None):
            task = VertexBatchOperator(
                task_id="moods", model=EXAMPLE_MODEL, location="global", files="tickets.csv", key_column="id",
                prompt="Which mood? {{ body }}", staging_uri=f"{desk.address}/staging",
                destination=f"{desk.address}/out", generation_config={"maxOutputTokens": 20}, deferrable=False,
                poll_interval=0.1,
            )  # fmt: skip
        report = task.execute(context)
        assert report["statuses"] == {"succeeded": 3}
        assert [job["billedRows"] for job in of(service, desk)] == [3]
