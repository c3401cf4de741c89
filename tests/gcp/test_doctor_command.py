"""The doctor command against Cloud Storage, BigQuery and the emulator on this machine, which know no rights: what they
cannot say is unknown, never a false ok."""

from __future__ import annotations

import json

import pytest
import requests

from airflow_vertex_batch.__main__ import main
from tests.emulator.worlds import World, listening

SCHEMA = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}


class TestTheCommand:
    """Against Cloud Storage and the emulator on this machine, which know no rights: unknown, never a false ok."""

    @pytest.fixture
    def doctor(self, monkeypatch, storage_url, bucket, capsys):
        world = World()
        with listening(world) as url:
            # The server says where it listens before it answers its first call.
            assert requests.get(f"{url}/healthz", timeout=300).ok
            capsys.readouterr()
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
            monkeypatch.setenv("VERTEX_BATCH_EMULATOR_HOST", url)

            def run(*arguments):
                staging = () if "--staging" in arguments else ("--staging", f"gs://{bucket.bucket}/x")
                status = main(["doctor", "--project", "demo", *staging, *arguments])
                return status, capsys.readouterr().out

            run.world = world
            yield run

    def _json(self, doctor, *arguments):
        status, printed = doctor("--format", "json", *arguments)
        return status, {each["check"]: each for each in json.loads(printed)["findings"]}

    def test_all_that_can_be_known_is_ok(self, doctor):
        # Nobody has said until when this one is served: the command reads today's clock.
        where = ("--location", "global", "--model", "gemini-3.1-pro-preview")
        status, found = self._json(doctor, *where, "--canary", "--schema", json.dumps(SCHEMA), "--label", "team=a")
        assert (status, {name for name, each in found.items() if each["verdict"] == "ok"}) == (
            0,
            {"vertex-ai", "model", "names", "staging", "bucket", "bucket-place", "canary"},
        )
        assert {name for name, each in found.items() if each["verdict"] == "unknown"} == {
            "credentials", "project", "rights", "model-life", "bucket-rights", "soft-delete", "service-agent",
        }  # fmt: skip
        assert "about $" in found["canary"]["found"]

    def test_it_leaves_nothing_behind(self, doctor, gcs, bucket):
        doctor("--location", "global", "--model", "gemini-3.8-flash", "--canary")
        assert list(gcs.list(bucket)) == []
        books = doctor.world.emulator.books()
        assert (books["jobsCreated"], books["calls"]) == (0, {"list": 1, "model": 1, "generate": 1})

    def test_the_trap_and_a_missing_bucket_are_failures_with_a_cure(self, doctor):
        status, printed = doctor(
            "--location", "us-central1", "--model", "gemini-3.8-flash", "--staging", "gs://nowhere/x"
        )
        assert status == 1
        for text in ("Set location='global'", "Check the bucket's name", "FAILED"):
            assert text in printed

    def test_a_model_nobody_serves(self, doctor):
        status, found = self._json(doctor, "--location", "global", "--model", "gemni-3-flash", "--canary")
        assert (status, found["model"]["verdict"], found["canary"]["verdict"]) == (1, "failed", "failed")

    @pytest.mark.parametrize(
        "arguments", [("--row", "3"), ("--schema", "{"), ("--generation-config", "[]")], ids=lambda value: value[0]
    )
    def test_what_is_no_json_object_is_a_mistake_in_the_command(self, doctor, arguments):
        with pytest.raises(SystemExit, match="2"):
            doctor("--location", "global", "--model", "m", *arguments)

    def test_an_address_that_is_none_cannot_be_run(self, doctor):
        status, printed = doctor("--location", "global", "--model", "m", "--staging", "ftp://x")
        assert (status, printed) == (2, "")

    @pytest.mark.bigquery
    def test_a_local_bigquery_says_where_things_are_and_nothing_about_rights(
        self, doctor, monkeypatch, bigquery_url, bigquery_client, table
    ):
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_url)
        bigquery_client.query(f"create table `{table.sibling('raw')}` as select 1 as n").result()
        where = ("--location", "us-central1", "--model", "gemini-2.5-flash")
        status, found = self._json(doctor, *where, "--destination", table.uri, "--source", table.sibling("raw").uri)
        verdicts = {name: each["verdict"] for name, each in found.items()}
        assert status == 0
        assert {verdicts[name] for name in ("dataset", "dataset-place")} == {"ok"}
        # It would say yes to every right it is asked about.
        assert {verdicts[name] for name in ("dataset-rights", "source")} == {"unknown"}
