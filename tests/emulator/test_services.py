"""The emulator over the servers of the demo: Cloud Storage and BigQuery through our own stores."""

from __future__ import annotations

import json

import pytest

from airflow_vertex_batch.emulator.clock import VirtualClock
from airflow_vertex_batch.emulator.service import Emulator
from tests.emulator.worlds import a_body, a_line, a_request, from_table, to_table


def ended(emulator, body):
    """Create a job and return it when it has ended."""
    job = emulator.create("demo", "global", body)
    emulator.advance(3600)
    return emulator.get("demo", "global", job["name"].rpartition("/")[2])


def written(store, uri, *lines):
    with store.open_write(uri) as stream:
        stream.writelines(json.dumps(line).encode() + b"\n" for line in lines)


class TestCloudStorage:
    @pytest.fixture
    def emulator(self, gcs):
        return Emulator(store=gcs, clock=VirtualClock())

    def test_a_job_from_a_wildcard_to_a_folder(self, emulator, gcs, bucket):
        for name in "ab":
            written(gcs, bucket / f"day/{name}.jsonl", *(a_line(f"{name}{number}") for number in range(20)))
        source = {"instancesFormat": "jsonl", "gcsSource": {"uris": [f"{bucket}day/*.jsonl"]}}
        sink = {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": f"{bucket}out/"}}
        job = ended(emulator, a_body(inputConfig=source, outputConfig=sink))
        assert job["state"] == "JOB_STATE_SUCCEEDED", job
        folder = type(bucket).parse(job["outputInfo"]["gcsOutputDirectory"])
        (found,) = gcs.list(folder)
        with gcs.open_read(found.uri) as stream:
            keys = [json.loads(line)["key"] for line in stream.read().splitlines()]
        assert sorted(keys) == sorted(f"{name}{number}" for name in "ab" for number in range(20))

    @pytest.mark.parametrize(
        ("where", "code"),
        [("gs://no-such-bucket-here/x.jsonl", 9), ("{bucket}absent.jsonl", 5)],
        ids=["bucket", "object"],
    )
    def test_what_is_not_there_fails_the_job(self, emulator, bucket, where, code):
        source = {"instancesFormat": "jsonl", "gcsSource": {"uris": [where.format(bucket=bucket)]}}
        job = ended(emulator, a_body(inputConfig=source))
        assert (job["state"], job["error"]["code"]) == ("JOB_STATE_FAILED", code)

    def test_media_is_looked_for(self, emulator, gcs, bucket):
        written(gcs, bucket / "there.png", "an image")
        parts = {
            name: {"fileData": {"fileUri": f"{bucket}{name}.png", "mimeType": "image/png"}}
            for name in ("there", "absent")
        }
        lines = [
            {"key": name, "request": {"contents": [{"role": "user", "parts": [part]}]}} for name, part in parts.items()
        ]
        written(gcs, bucket / "in.jsonl", *lines)
        source = {"instancesFormat": "jsonl", "gcsSource": {"uris": [f"{bucket}in.jsonl"]}}
        sink = {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": f"{bucket}out"}}
        job = ended(emulator, a_body(inputConfig=source, outputConfig=sink))
        assert job["completionStats"] == {"successfulCount": "1", "failedCount": "1"}


@pytest.mark.bigquery
class TestBigQuery:
    def test_a_job_from_table_to_table(self, gcs, bucket, warehouse, table):
        emulator = Emulator(store=gcs, warehouse=warehouse, clock=VirtualClock(), staging=bucket / "staging")
        schema = [
            {"name": "ticket", "type": "INTEGER"},
            {"name": "day", "type": "DATE"},
            {"name": "request", "type": "JSON"},
        ]
        source = table.sibling("tickets")
        rows = [
            {"ticket": number, "day": "2026-11-21", "request": a_request(f"Ticket {number}")} for number in range(5)
        ]
        written(gcs, bucket / "tickets.jsonl", *rows)
        warehouse.load([str(bucket / "tickets.jsonl")], source, schema, job_id=f"load_{table.dataset}")
        job = ended(emulator, a_body(inputConfig=from_table(str(source)), outputConfig=to_table(str(table))))
        assert job["state"] == "JOB_STATE_SUCCEEDED", job
        assert job["outputInfo"] == {
            "bigqueryOutputDataset": f"bq://{table.project}.{table.dataset}",
            "bigqueryOutputTable": "answers",
        }
        answers = {row["ticket"]: row for row in warehouse.rows(table)}
        assert set(answers) == set(range(5))
        assert {(row["status"], str(row["day"])) for row in answers.values()} == {("", "2026-11-21")}
        response = answers[3]["response"]
        response = json.loads(response) if isinstance(response, str) else response
        assert response["candidates"][0]["content"]["parts"][0]["text"] == "In short: Ticket 3."
