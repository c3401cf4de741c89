"""The preflight operator, without a running Airflow: what it takes, what it asks, and how it ends."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from google.auth.credentials import AnonymousCredentials
from google.oauth2.credentials import Credentials

import airflow_vertex_batch as avb
from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.gcp.doctor import GoogleCloud, Hosts
from tests.emulator.worlds import World, listening

#: Nobody has said until when this one is served, so that no day makes its check another.
MODEL = "gemini-3.1-pro-preview"


class Preflight(avb.VertexBatchPreflightOperator):
    """With the hook of a connection to the local servers."""

    connected = None

    def hook(self):
        return self.connected


@pytest.fixture
def operator(storage_url, bucket):
    """Make a preflight against Cloud Storage and the emulator on this machine."""
    with listening(World()) as url:

        def make(**arguments):
            arguments = {"location": "global", "staging_uri": f"gs://{bucket.bucket}/x", "model": MODEL} | arguments
            task = Preflight(task_id="preflight", **arguments)
            hosts = Hosts(url, storage_url, local=frozenset({"vertex", "storage"}))
            cloud = GoogleCloud(AnonymousCredentials, "demo", task.location, hosts)
            task.connected = SimpleNamespace(project="demo", location=task.location, doctor=lambda: cloud)
            return task

        yield make


class TestParameters:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "has no model"),
            ({"model": "m", "allowed_failures": ["weather"]}, "'weather', which is no check"),
            ({"model": "m", "canary_row": {"a": 1}}, "canary_row to no end"),
            ({"model": "m", "canary": True, "canary_row": {"a": 1}}, "canary_row to no end"),
            ({"model": "m", "prompt": "x"}, "prompt, which would do nothing"),
            ({"model": "m", "canary": True, "prompt": "{{ x"}, "mistake in line 1"),
        ],
    )
    def test_what_is_wrong_is_said_when_the_file_is_read(self, arguments, message):
        with pytest.raises(InputError, match=message):
            avb.VertexBatchPreflightOperator(task_id="t", **arguments)


class TestExecution:
    def test_it_returns_counts_and_what_was_not_ok(self, operator):
        schema = {"type": "object", "properties": {"mood": {"type": "string"}}}
        result = operator(
            canary=True, prompt="How is {{ it }}?", canary_row={"it": "life"}, response_schema=schema
        ).execute({})
        assert result["verdicts"] == {"ok": 7, "warning": 0, "failed": 0, "unknown": 7}
        assert (result["failed"], result["warning"], len(result["unknown"])) == ([], [], 7)

    def test_a_failed_check_fails_the_task_without_retries(self, operator):
        with pytest.raises(AirflowFailException, match=r"(?s)model: batches of .* Set location='global'"):
            operator(location="us-central1").execute({})

    def test_a_failure_that_is_allowed_is_told_and_stops_nothing(self, operator):
        result = operator(location="us-central1", allowed_failures=["model"]).execute({})
        (told,) = result["failed"]
        assert told.startswith("model: failed: batches of")

    def test_a_network_that_may_come_back_leaves_the_retries_of_the_task(self, operator):
        task, nowhere = operator(), Hosts(*["http://127.0.0.1:9"] * 4)
        cloud = GoogleCloud(lambda: Credentials("token"), "demo", "global", nowhere)
        task.connected.doctor = lambda: cloud
        with pytest.raises(ServiceError, match="vertex-ai: Google did not answer"):
            task.execute({})
