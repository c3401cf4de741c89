"""Google's own clients against the emulator: what an independent reader of the API understands of it."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.emulator.faults import End
from airflow_vertex_batch.emulator.scenario import Pace, Scenario, Switches
from tests.emulator.worlds import INPUT, OUTPUT, World, a_body, a_line, listening, to_table

MODEL = "publishers/google/models/gemini-2.5-flash"


@pytest.fixture
def world():
    world = World(scenario=Scenario(pace=Pace(delete_s=0)))
    world.store.put(INPUT, *(a_line(f"k{number}") for number in range(3)))
    return world


class TestGenai:
    """google-genai, ``client.batches``: v1beta1 by default, cancels without a body, reduces names to their last
    segment."""

    @pytest.fixture(params=["v1beta1", "v1"])
    def client(self, world, request):
        from google import genai
        from google.oauth2.credentials import Credentials

        with listening(world) as url:
            yield genai.Client(
                vertexai=True,
                project="demo",
                location="global",
                credentials=Credentials(token="emulator"),
                http_options={"base_url": url, "api_version": request.param},
            )

    def test_creates_waits_reads_lists_and_deletes(self, world, client):
        job = client.batches.create(
            model="gemini-2.5-flash", src=INPUT, config={"display_name": "mine", "dest": OUTPUT}
        )
        assert (job.state.name, job.display_name, job.model, job.done) == ("JOB_STATE_PENDING", "mine", MODEL, False)
        world.emulator.advance(3600)
        job = client.batches.get(name=job.name)
        assert (job.state.name, job.done, job.error) == ("JOB_STATE_SUCCEEDED", True, None)
        assert job.completion_stats.successful_count == 3
        assert job.output_info.gcs_output_directory.startswith(f"{OUTPUT}/prediction-model-")
        assert (job.src.gcs_uri, job.dest.gcs_uri) == ([INPUT], OUTPUT)
        assert job.create_time < job.start_time < job.end_time <= job.update_time
        client.batches.create(model="gemini-2.5-flash", src=INPUT, config={"display_name": "other", "dest": OUTPUT})
        listed = client.batches.list(config={"filter": 'display_name="mine"'})
        assert [item.name for item in listed] == [job.name]
        deleted = client.batches.delete(name=job.name)
        assert "/operations/" in deleted.name
        assert deleted.done
        assert [item.display_name for item in client.batches.list()] == ["other"]

    def test_pages_through_a_list(self, client):
        for number in range(5):
            config = {"display_name": f"job-{number}", "dest": OUTPUT}
            client.batches.create(model="gemini-2.5-flash", src=[INPUT][0], config=config)
        names = [item.display_name for item in client.batches.list(config={"page_size": 2})]
        assert sorted(names) == [f"job-{number}" for number in range(5)]

    def test_cancels(self, client):
        job = client.batches.create(model="gemini-2.5-flash", src=INPUT, config={"dest": OUTPUT})
        assert client.batches.cancel(name=job.name) is None
        cancelled = client.batches.get(name=job.name)
        assert (cancelled.state.name, cancelled.error.code, cancelled.error.message) == (
            "JOB_STATE_CANCELLED",
            1,
            "CANCELED",
        )

    def test_works_from_table_to_table(self, world, client):
        world.warehouse.put("p.d.t", {"request": "JSON"}, {"request": a_line()["request"]})
        job = client.batches.create(model="gemini-2.5-flash", src="bq://p.d.t", config={"dest": "bq://p.d.out"})
        assert (job.src.bigquery_uri, job.dest.bigquery_uri) == ("bq://p.d.t", "bq://p.d.out")

    def test_reads_labels_that_were_sent_around_its_types(self, world, client):
        config = {"dest": OUTPUT, "http_options": {"extra_body": {"labels": {"airflow": "x"}}}}
        client.batches.create(model="gemini-2.5-flash", src=INPUT, config=config)
        assert world.emulator.books()["jobs"][0]["labels"] == {"airflow": "x"}

    @pytest.mark.parametrize(("model", "code"), [("gemini-nope", 404), ("acme/x", 404)])
    def test_raises_what_the_service_refuses(self, client, model, code):
        from google.genai.errors import ClientError

        with pytest.raises(ClientError, match="NOT_FOUND") as caught:
            client.batches.create(model=model, src=INPUT, config={"dest": OUTPUT})
        assert caught.value.code == code

    def test_is_refused_when_it_sends_no_output_for_a_wildcard(self, client):
        from google.genai.errors import ClientError

        with pytest.raises(ClientError, match="outputConfig is required"):
            client.batches.create(model="gemini-2.5-flash", src="gs://in/*")

    def test_breaks_on_an_error_with_details_as_it_is_known_to(self, world, client):
        world.emulator.set_scenario(
            Scenario(
                switches=Switches(error_details=True), faults=(End(state="JOB_STATE_FAILED", code=13, message="x"),)
            )
        )
        job = client.batches.create(model="gemini-2.5-flash", src=INPUT, config={"dest": OUTPUT})
        world.emulator.advance(3600)
        with pytest.raises(ValueError, match=r"error\.details"):
            client.batches.get(name=job.name)


class TestJobService:
    """google-cloud-aiplatform, ``JobServiceClient`` over REST: protobuf's strict JSON reader, enums as numbers."""

    PARENT = "projects/demo/locations/global"

    @pytest.fixture
    def client(self, world):
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import aiplatform_v1

        with listening(world) as url:
            yield aiplatform_v1.JobServiceClient(
                transport="rest", credentials=AnonymousCredentials(), client_options={"api_endpoint": url}
            )

    def create(self, client, **members):
        from google.cloud import aiplatform_v1

        job = aiplatform_v1.BatchPredictionJob(
            display_name="mine",
            model=MODEL,
            labels={"team": "a"},
            input_config={"instances_format": "jsonl", "gcs_source": {"uris": [INPUT]}},
            output_config={"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": OUTPUT}},
        )
        for name, value in members.items():
            setattr(job, name, value)
        return client.create_batch_prediction_job(parent=self.PARENT, batch_prediction_job=job)

    def test_creates_waits_reads_lists_and_deletes(self, world, client):
        from google.cloud.aiplatform_v1 import JobState

        job = self.create(client)
        assert (job.state, dict(job.labels), list(job.input_config.gcs_source.uris)) == (
            JobState.JOB_STATE_PENDING,
            {"team": "a"},
            [INPUT],
        )
        world.emulator.advance(3600)
        job = client.get_batch_prediction_job(name=job.name)
        assert (job.state, job.completion_stats.successful_count) == (JobState.JOB_STATE_SUCCEEDED, 3)
        assert job.output_info.gcs_output_directory.startswith(OUTPUT)
        assert job.create_time < job.start_time < job.end_time
        listed = list(
            client.list_batch_prediction_jobs(
                request={"parent": self.PARENT, "filter": "labels.team=a", "page_size": 1}
            )
        )
        assert [item.name for item in listed] == [job.name]
        assert client.delete_batch_prediction_job(name=job.name).result(timeout=300) is not None
        assert list(client.list_batch_prediction_jobs(parent=self.PARENT)) == []

    def test_waits_for_the_operation_of_a_delete(self, world, client):
        world.emulator.set_scenario(Scenario(pace=Pace(delete_s=5)))
        job = self.create(client)
        client.cancel_batch_prediction_job(name=job.name)
        operation = client.delete_batch_prediction_job(name=job.name)
        assert not operation.done()
        world.emulator.advance(6)
        assert operation.done()
        assert operation.metadata.generic_metadata.create_time

    def test_cancels(self, client):
        from google.api_core.exceptions import BadRequest
        from google.cloud.aiplatform_v1 import JobState

        job = self.create(client)
        client.cancel_batch_prediction_job(name=job.name)
        cancelled = client.get_batch_prediction_job(name=job.name)
        assert (cancelled.state, cancelled.error.code) == (JobState.JOB_STATE_CANCELLED, 1)
        with pytest.raises(BadRequest, match="cannot be cancelled"):
            client.cancel_batch_prediction_job(name=job.name)

    def test_reads_every_member_of_a_failed_job(self, world, client):
        world.emulator.set_scenario(
            Scenario(
                switches=Switches(error_details=True), faults=(End(state="JOB_STATE_FAILED", code=13, message="x"),)
            )
        )
        job = self.create(client)
        world.emulator.advance(3600)
        failed = client.get_batch_prediction_job(name=job.name)
        assert (failed.state.name, failed.error.code, failed.error.message) == ("JOB_STATE_FAILED", 13, "x")

    def test_raises_what_the_service_refuses(self, client):
        from google.api_core.exceptions import BadRequest, NotFound

        with pytest.raises(NotFound, match="does not exist"):
            client.get_batch_prediction_job(name=f"{self.PARENT}/batchPredictionJobs/1")
        with pytest.raises(NotFound, match="does not exist"):
            self.create(client, model="publishers/google/models/nope")
        with pytest.raises(BadRequest, match="displayName is required"):
            self.create(client, display_name="")
        with pytest.raises(BadRequest, match="Invalid filter"):
            list(client.list_batch_prediction_jobs(request={"parent": self.PARENT, "filter": "x"}))

    def test_writes_a_table(self, world, client):
        body = a_body(outputConfig=to_table("p.d.t"))
        job = world.create(body)
        world.emulator.advance(3600)
        info = client.get_batch_prediction_job(name=job["name"]).output_info
        assert (info.bigquery_output_dataset, info.bigquery_output_table) == ("bq://p.d", "t")
