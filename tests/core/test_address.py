"""What things elsewhere are called: text is read strictly, and written back the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.domain.address import JobName, TableId, Uri, api_host, check_place, model_path
from airflow_vertex_batch.core.domain.errors import InputError
from tests.builders import JOB_NAME
from tests.each_case import each_case

#: What would lead a request, and the worker's token with it, to another host or path.
NO_LOCATIONS = (
    *("localhost:19443", "evil.example", "evil.example/x", "evil.example#", "a@b", "x?y=z", "..", "-a", "us-", ""),
    *("US", "us_central1", "us-central1\n", "us central1", "eu\u200b", "\u0430"),
)
NO_PROJECTS = ("..", ".", "p/q", "p?x", "p#", "a@b", "P", "p q", "p%2F", "-p", "a:b:c", "p\n")


def a_name_at(location: str, project: str = "p", job_id: str = "1") -> str:
    return f"projects/{project}/locations/{location}/batchPredictionJobs/{job_id}"


class TestHosts:
    @pytest.mark.parametrize("location", NO_LOCATIONS, ids=repr)
    def test_a_token_leaves_for_no_host_that_a_location_names(self, location):
        with pytest.raises(InputError, match=r"is no location\. Nothing was sent"):
            api_host(location)

    @pytest.mark.parametrize("project", NO_PROJECTS, ids=repr)
    def test_a_project_leads_to_no_other_path(self, project):
        with pytest.raises(InputError, match="is no project"):
            check_place(project, "global")

    @pytest.mark.parametrize("project", ["p", "my-project", "123456789012", "example.com:p"])
    def test_every_kind_of_project_passes(self, project):
        check_place(project, "us-central1")

    @pytest.mark.parametrize(
        ("location", "host"),
        [
            ("us-central1", "us-central1-aiplatform.googleapis.com"),
            ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
            ("global", "aiplatform.googleapis.com"),
            ("us", "aiplatform.us.rep.googleapis.com"),
            ("eu", "aiplatform.eu.rep.googleapis.com"),
        ],
    )
    def test_a_location_has_one_of_three_host_shapes(self, location, host):
        assert api_host(location) == host


class TestUri:
    @pytest.mark.parametrize(
        ("text", "uri"),
        [
            ("gs://b/a/c.jsonl", Uri("gs", "b", "a/c.jsonl")),
            ("gs://b", Uri("gs", "b", "")),
            ("gs://b/", Uri("gs", "b", "")),
            (
                "gs://b/prediction-model-2026-09-02T20:06:30.166279Z",
                Uri("gs", "b", "prediction-model-2026-09-02T20:06:30.166279Z"),
            ),
            ("file:///tmp/x", Uri("file", "", "/tmp/x")),
            ("some/file.csv", Uri("file", "", "some/file.csv")),
        ],
    )
    def test_an_address_is_read(self, text, uri):
        assert Uri.parse(text) == uri

    @pytest.mark.parametrize(
        "text",
        ["", "gs://", "gs:///x", "gs://B/x", "gs://b?x", "gs://b b/", "s3://b/x", "https://b/x", "bq://p.d.t"],
        ids=repr,
    )
    def test_what_we_cannot_read_is_refused(self, text):
        with pytest.raises(InputError, match=r"names no bucket|is not an address"):
            Uri.parse(text)

    @given(bucket=st.from_regex(r"[a-z0-9][a-z0-9._-]{1,20}", fullmatch=True), name=st.text(max_size=40))
    def test_a_cloud_address_survives_being_written_down(self, bucket, name):
        uri = Uri("gs", bucket, name)
        assert Uri.parse(str(uri)) == uri

    @pytest.mark.parametrize(
        ("folder", "joined"),
        [
            ("gs://b", "gs://b/x"),
            ("gs://b/f", "gs://b/f/x"),
            ("gs://b/f/", "gs://b/f/x"),
            ("/tmp", "/tmp/x"),
            ("/tmp/", "/tmp/x"),
        ],
    )
    def test_a_folder_has_children(self, folder, joined):
        assert str(Uri.parse(folder) / "x") == joined

    @pytest.mark.parametrize(
        ("text", "prefix"),
        [("gs://b/a/*.jsonl", "a/"), ("gs://b/a-?", "a-"), ("gs://b/[ab]", ""), ("gs://b/plain", "plain")],
    )
    def test_a_glob_is_known_by_its_wildcards(self, text, prefix):
        uri = Uri.parse(text)
        assert uri.has_glob is (text != "gs://b/plain")
        assert uri.glob_prefix == prefix

    def test_only_cloud_objects_have_a_console_page(self):
        assert Uri.parse("gs://b/f").console_url == "https://console.cloud.google.com/storage/browser/b/f"
        assert Uri.parse("/tmp/f").console_url == ""

    @pytest.mark.parametrize(("text", "name"), [("gs://b/a/c.jsonl", "c.jsonl"), ("gs://b/a/", "a"), ("gs://b", "")])
    def test_the_basename_is_the_last_segment(self, text, name):
        assert Uri.parse(text).basename == name


class TestTableId:
    @pytest.mark.parametrize(
        ("text", "table"),
        [
            ("bq://p.d.t", TableId("p", "d", "t")),
            ("p.d.t", TableId("p", "d", "t")),
            ("p:d.t", TableId("p", "d", "t")),
            ("bq://example.com:p.d.t", TableId("example.com:p", "d", "t")),
            ("example.com:p:d.t", TableId("example.com:p", "d", "t")),
            ("p.d.Größe 2026-11_ä", TableId("p", "d", "Größe 2026-11_ä")),
        ],
    )
    def test_a_table_is_read(self, text, table):
        assert TableId.parse(text) == table

    def test_a_project_completes_a_short_name(self):
        assert TableId.parse("d.t", project="p") == TableId("p", "d", "t")

    @pytest.mark.parametrize(
        "text",
        [
            *("", "t", "d.t", "bq://p", "p..t", "p.d.", ".d.t", "p.d.t$20261122", "p.d.t@-3600000", "p.d-e.t", "P.d.t"),
            *("p.d.t`; DROP TABLE x; --", "p.d.t/*", "p.d`.t", "p`.d.t", "p.d.t\n", "p.d." + "t" * 1025, "p.d.\ud800"),
        ],
        ids=lambda text: ascii(text)[:30],
    )
    def test_what_names_no_table_is_refused(self, text):
        with pytest.raises(InputError, match="names no BigQuery table"):
            TableId.parse(text)

    @given(
        project=st.from_regex(r"[a-z][a-z0-9-]{4,10}", fullmatch=True),
        dataset=st.from_regex(r"[a-zA-Z0-9_]{1,10}", fullmatch=True),
        table=st.from_regex(r"[a-zA-Z0-9_-]{1,10}", fullmatch=True),
    )
    def test_a_table_survives_being_written_down(self, project, dataset, table):
        made = TableId(project, dataset, table)
        assert TableId.parse(str(made)) == TableId.parse(made.uri) == made

    def test_it_has_siblings_and_a_console_page(self):
        table = TableId("p", "d", "t")
        assert str(table.sibling("u")) == "p.d.u"
        assert "project=p" in table.console_url
        assert table.console_url.endswith("1sp!2sd!3st")


class TestJobName:
    @given(
        project=st.from_regex(r"[a-z0-9][a-z0-9-]{0,11}", fullmatch=True),
        location=st.from_regex(r"[a-z]{1,9}(-[a-z0-9]{1,5}){0,2}", fullmatch=True),
        job_id=st.from_regex(r"[a-z0-9][a-z0-9-]{0,18}", fullmatch=True),
    )
    def test_a_name_survives_being_written_down(self, project, location, job_id):
        name = JobName(project, location, job_id)
        assert JobName.parse(str(name)) == name

    def test_a_bare_id_is_completed(self):
        assert str(JobName.parse("456", "p", "global")) == "projects/p/locations/global/batchPredictionJobs/456"

    @each_case(
        [
            *("", "456", f"{JOB_NAME}:cancel", f"/{JOB_NAME}", f"{JOB_NAME}\n", "projects/p/locations/l/jobs/1"),
            *(a_name_at(place) for place in NO_LOCATIONS),
            *(a_name_at("global", project=project) for project in NO_PROJECTS),
            *(a_name_at("global", job_id=job_id) for job_id in ("..", "1?x=y", "1%2F", "1#", "1@h", "a b", "é")),
        ],
    )
    def test_what_is_no_job_s_name_is_refused(self, text):
        with pytest.raises(InputError, match="is not the name of a batch prediction job"):
            JobName.parse(text)

    def test_it_names_its_place_and_its_console_page(self):
        name = JobName.parse(JOB_NAME)
        assert name.parent == "projects/123/locations/global"
        assert (
            name.console_url
            == "https://console.cloud.google.com/vertex-ai/locations/global/batch-predictions/456?project=123"
        )


class TestModelPath:
    @pytest.mark.parametrize(
        ("model", "path"),
        [
            ("gemini-3.8-flash", "publishers/google/models/gemini-3.8-flash"),
            ("gemini-2.0-flash-001@default", "publishers/google/models/gemini-2.0-flash-001@default"),
            ("anthropic/claude-x", "publishers/anthropic/models/claude-x"),
            ("publishers/google/models/gemini-2.5-flash", "publishers/google/models/gemini-2.5-flash"),
            ("models/123", "models/123"),
            ("projects/p/locations/us-central1/models/123", "projects/p/locations/us-central1/models/123"),
            ("projects/p/locations/l/models/123@2", "projects/p/locations/l/models/123@2"),
            ("projects/p/locations/l/publishers/google/models/g", "projects/p/locations/l/publishers/google/models/g"),
            ("projects/p/locations/l/endpoints/9", "projects/p/locations/l/endpoints/9"),
        ],
    )
    def test_a_model_is_named_as_the_create_call_takes_it(self, model, path):
        assert model_path(model) == path

    @pytest.mark.parametrize(
        "model",
        [
            *("", "gemini 3", "a/b/c", "projects/p/models/", "https://x/y", "..", "é", "publishers/google/models/x?y"),
            *("publishers/../models/x", "models/a b", "projects/p?/locations/l/models/5", "projects/a/b/endpoints/5"),
            *("projects/p/locations/l/models/5#", "publishers/google/models/..", "gemini\n"),
        ],
        ids=repr,
    )
    def test_what_is_no_model_is_refused(self, model):
        with pytest.raises(InputError, match="is not a model name"):
            model_path(model)
