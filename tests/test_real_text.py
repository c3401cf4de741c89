"""Text that nobody here wrote, through the whole pipeline: prepare, create over HTTP, answer, land."""

from __future__ import annotations

import json
from importlib.metadata import distributions

import pytest
from google.auth.credentials import AnonymousCredentials

from airflow_vertex_batch.core.answers.rounds import Round
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.job import JobSpec
from airflow_vertex_batch.core.domain.row import RowStatus
from airflow_vertex_batch.core.landing.destination import Files
from airflow_vertex_batch.core.landing.landing import Landing
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.purchase.buyer import Buyer
from airflow_vertex_batch.core.purchase.log import BatchLog
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.requests.request import RequestTemplate
from airflow_vertex_batch.core.requests.sources import Rows
from airflow_vertex_batch.gcp.vertex import VertexClient
from tests.builders import an_identity
from tests.emulator.worlds import World, listening

PROMPT = "Summarise the package {{ name }}:\n\n{{ text }}"


def descriptions() -> list[dict[str, str]]:
    """The long description of every installed distribution, by name: Markdown, reST, code, many scripts."""
    found = {}
    for distribution in distributions():
        metadata = distribution.metadata
        text = metadata.get_payload() or metadata.get("Description") or ""
        if isinstance(text, str) and text.strip():
            # What the file's encoding could not say arrives as a lone surrogate, which is no character.
            found[metadata["Name"].lower()] = text.encode("utf-8", "replace").decode()
    return [{"name": name, "text": text} for name, text in sorted(found.items())]


@pytest.fixture
def world(gcs, bucket):
    """An emulator over the local Cloud Storage server, with a clock of its own."""
    return World(gcs)


def test_the_descriptions_of_all_installed_packages_come_back_reconciled(gcs, bucket, world):
    """Every prompt is in the request file to the byte, and every package has its one row."""
    rows = descriptions()
    assert len(rows) > 150
    plan = PreparePlan(template=RequestTemplate(prompt=PROMPT), key_column="name", columns=("name",), max_requests=100)
    manifest = prepare(Rows(rows).rows(gcs, None), plan, gcs, bucket / "prepared", "a")
    assert manifest.request_count == len(rows)

    sent = {}
    for shard in manifest.shards:
        with gcs.open_read(Uri.parse(shard.uri)) as stream:
            for line in stream:
                doc = json.loads(line)
                sent[doc["key"]] = doc["request"]["contents"][0]["parts"][0]["text"]
    wanted = {f"Summarise the package {row['name']}:\n\n{row['text']}" for row in rows}
    assert {text.encode() for text in sent.values()} == {text.encode() for text in wanted}

    with listening(world) as url:
        client = VertexClient(AnonymousCredentials(), "demo", "us-central1", url)
        base = JobSpec(display_name="texts", model="gemini-2.5-flash", inputs=(), output=str(bucket / "output"))
        buyer = Buyer(
            base=base, log=BatchLog(gcs, an_identity(staging=str(bucket / "s")), "1:x"), store=gcs, service=client,
        )  # fmt: skip
        names = [job.job_name for job in buyer.buy(manifest)]
        assert len(names) == len(manifest.shards) > 1
        world.emulator.advance(24 * 3600)
        jobs = [client.get(name) for name in names]

    first = Round(manifest=manifest, jobs=tuple(jobs))
    landing = Landing([first], gcs, None, LandPlan(batch_id="b", partition_date="2026-11-17"))
    report = landing.land(Files(bucket / "answers"))
    answered = report.tally[RowStatus.SUCCEEDED] + report.tally[RowStatus.TRUNCATED]
    assert answered == report.request_count == len(rows)
    assert report.foreign_count == report.duplicate_count == 0

    with gcs.open_read(Uri.parse(report.destination)) as stream:
        landed = [json.loads(line) for line in stream]
    assert sorted(row["columns"]["name"] for row in landed) == sorted({row["name"] for row in rows})
