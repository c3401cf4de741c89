"""Addresses, job states, jobs and prepared sets: the words everything else is written in."""

from __future__ import annotations

import importlib.util
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.identity import safe_name
from airflow_vertex_batch.core.domain.job import BatchJob, JobSpec, JobState, Phase
from airflow_vertex_batch.core.domain.manifest import Manifest, Shard
from tests.builders import JOB_NAME, a_job, a_job_doc, a_spec, an_identity, seed


def _api_job_states() -> list[tuple[str, int]]:
    """Google's own enum, from its file alone: importing google-cloud-aiplatform costs ten seconds."""
    package = importlib.util.find_spec("google.cloud.aiplatform_v1")
    file = Path(package.submodule_search_locations[0]) / "types" / "job_state.py"
    spec = importlib.util.spec_from_file_location("api_job_state", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [(item.name, item.value) for item in module.JobState]


class TestJobStates:
    def test_the_table_is_the_service_s_own_enum_in_its_order(self):
        """Completeness: a state that Google adds, renames or renumbers fails here."""
        assert [(state.value, state.number) for state in JobState] == _api_job_states()

    @pytest.mark.parametrize("state", JobState, ids=str)
    def test_each_state_is_read_from_its_text_and_from_its_number(self, state):
        assert JobState.read(str(state)) is state
        assert JobState.read(state.number) is state

    @pytest.mark.parametrize(
        ("state", "phase"),
        [
            (JobState.UNSPECIFIED, Phase.WAITING),
            (JobState.QUEUED, Phase.WAITING),
            (JobState.PENDING, Phase.WAITING),
            (JobState.RUNNING, Phase.WAITING),
            (JobState.SUCCEEDED, Phase.SUCCEEDED),
            (JobState.FAILED, Phase.FAILED),
            (JobState.CANCELLING, Phase.WAITING),
            (JobState.CANCELLED, Phase.CANCELLED),
            (JobState.PAUSED, Phase.WAITING),
            (JobState.EXPIRED, Phase.EXPIRED),
            (JobState.UPDATING, Phase.WAITING),
            (JobState.PARTIALLY_SUCCEEDED, Phase.PARTIAL),
        ],
        ids=str,
    )
    def test_each_state_means_one_thing_to_who_waits(self, state, phase):
        assert state.phase is phase
        assert state.is_final is (phase is not Phase.WAITING)

    @pytest.mark.parametrize("odd", ["JOB_STATE_TELEPORTED", "", None, 99, -1, "RUNNING"], ids=repr)
    def test_what_is_no_known_state_waits(self, odd):
        """A state that does not exist yet must neither end a wait nor crash it: the deadline bounds it."""
        assert JobState.read(odd).phase is Phase.WAITING


class TestBatchJob:
    def test_every_member_we_use_is_read(self):
        job = BatchJob.from_api(
            a_job_doc(
                state="JOB_STATE_FAILED",
                labels={"a": "b"},
                error={"code": 3, "message": "Failed to import data"},
                completionStats={"successfulCount": "2", "failedCount": "1", "incompleteCount": "-1"},
                outputInfo={"gcsOutputDirectory": "gs://out/prediction-model-1"},
                startTime="2026-11-22T03:00:00Z",
                endTime="2026-11-22T04:00:00Z",
            )
        )
        assert job == BatchJob(
            name=JOB_NAME,
            state=JobState.FAILED,
            state_text="JOB_STATE_FAILED",
            display_name="nightly",
            model="publishers/google/models/gemini-3.8-flash",
            labels={"a": "b"},
            input_uris=("gs://in/requests.jsonl",),
            output_uri="gs://out/prediction-model-1",
            error_code=3,
            error_message="Failed to import data",
            successful_count=2,
            failed_count=1,
            incomplete_count=-1,
            created_at=datetime(2026, 11, 22, 2, 0, 0, 123456, tzinfo=UTC),
            started_at=datetime(2026, 11, 22, 3, tzinfo=UTC),
            ended_at=datetime(2026, 11, 22, 4, tzinfo=UTC),
        )
        assert str(job.job_name) == JOB_NAME

    def test_a_job_with_nothing_but_its_name_waits(self):
        job = BatchJob.from_api({"name": JOB_NAME})
        assert (job.state, job.successful_count, job.input_uris, job.output_uri) == (JobState.UNSPECIFIED, -1, (), "")

    @pytest.mark.parametrize(
        ("source", "uris"),
        [
            ({"gcsSource": {"uris": "gs://b/x"}}, ("gs://b/x",)),
            ({"gcsSource": {"uris": ["gs://b/x", "gs://b/y"]}}, ("gs://b/x", "gs://b/y")),
            ({"bigquerySource": {"inputUri": "bq://p.d.t"}}, ("bq://p.d.t",)),
            ({}, ()),
        ],
        ids=["bare string, as the page prints", "list", "table", "absent"],
    )
    def test_input_is_read_in_every_shape(self, source, uris):
        assert BatchJob.from_api(a_job_doc(inputConfig=source)).input_uris == uris

    @pytest.mark.parametrize(
        ("info", "uri"),
        [
            ({"gcsOutputDirectory": "gs://b/f"}, "gs://b/f"),
            ({"bigqueryOutputDataset": "bq://p.d", "bigqueryOutputTable": "t"}, "bq://p.d.t"),
            ({"bigqueryOutputTable": "bq://p.d.t"}, "bq://p.d.t"),
            ({"bigqueryOutputDataset": "bq://p.d", "bigqueryOutputTable": "p.d.t"}, "bq://p.d.t"),
            ({"bigqueryOutputDataset": "bq://p.d"}, ""),
            ({}, ""),
        ],
        ids=["folder", "dataset and bare table", "whole address", "dotted table", "dataset alone", "nothing"],
    )
    def test_output_is_found_in_every_shape(self, info, uri):
        assert BatchJob.from_api(a_job_doc(outputInfo=info)).output_uri == uri

    @pytest.mark.parametrize(
        ("stats", "progress"),
        [
            (None, "RUNNING"),
            ({"successfulCount": "1200", "incompleteCount": "-1"}, "RUNNING: 1,200 done, 0 failed"),
            (
                {"successfulCount": "2", "failedCount": "1", "incompleteCount": "7"},
                "RUNNING: 2 done, 1 failed, 7 to go",
            ),
            ({}, "RUNNING: 0 done, 0 failed"),
            ({"incompleteCount": "0"}, "RUNNING: 0 done, 0 failed, 0 to go"),
        ],
        ids=["nothing said", "left unknown", "all said", "zeros are omitted", "a zero is said"],
    )
    def test_progress_is_one_line(self, stats, progress):
        doc = a_job_doc() if stats is None else a_job_doc(completionStats=stats)
        assert BatchJob.from_api(doc).progress == progress

    def test_a_state_that_does_not_exist_yet_is_shown_in_the_service_s_words(self):
        assert BatchJob.from_api(a_job_doc(state="JOB_STATE_TELEPORTED")).progress == "TELEPORTED"

    @pytest.mark.parametrize(
        ("state", "ended", "read"),
        [
            ("JOB_STATE_TELEPORTED", False, JobState.UNSPECIFIED),
            ("JOB_STATE_TELEPORTED", True, JobState.PARTIALLY_SUCCEEDED),
            ("JOB_STATE_FAILED", True, JobState.FAILED),
            ("JOB_STATE_RUNNING", True, JobState.RUNNING),
        ],
        ids=["unknown", "unknown with an end", "known with an end", "known that has not ended"],
    )
    def test_an_unknown_state_with_an_end_has_ended(self, state, ended, read):
        """What waited for its deadline would never land."""
        doc = a_job_doc(state=state) | ({"endTime": "2026-11-22T03:00:00Z"} if ended else {})
        assert BatchJob.from_api(doc).state is read

    def test_it_survives_xcom(self):
        job = BatchJob.from_api(a_job_doc(labels={"a": "b"}))
        assert BatchJob.from_dict(json.loads(json.dumps(job.as_dict()))) == job


class TestRecords:
    def test_a_newer_record_is_read_by_an_older_task(self):
        assert BatchJob.from_dict(a_job().as_dict() | {"added_later": 1}) == a_job()

    @pytest.mark.parametrize("value", [None, "text", {}, {"name": 1, "state": "JOB_STATE_RUNNING"}], ids=repr)
    def test_what_is_no_record_says_what_to_pass(self, value):
        with pytest.raises(InputError, match=r"not a batchjob of airflow-vertex-batch.*task before this one"):
            BatchJob.from_dict(value)

    def test_a_manifest_survives_xcom(self):
        shards = tuple(Shard(uri=f"gs://b/{i}", request_count=i, size_bytes=10 * i, columns_uri="c") for i in (1, 2))
        manifest = Manifest(
            uri="gs://b/m", fingerprint="f", row_count=4, request_count=3, rejected_count=1, shards=shards
        )
        assert Manifest.from_dict(json.loads(json.dumps(manifest.as_dict()))) == manifest
        assert manifest.size_bytes == 30


class TestJobSpec:
    def test_the_seed_page_s_create_body_is_ours(self):
        """With a list where the page prints a bare text: the API definition says list, and the service takes both."""
        spec = JobSpec(
            display_name="my-cloud-storage-batch-prediction-job",
            model="publishers/google/models/gemini-2.5-flash",
            inputs=("gs://bucketname/path/to/file.jsonl",),
            output="gs://mybucket/path/to/output",
        )
        printed = (
            json.dumps(seed("create.json"))
            .replace('"INPUT_URI"', '["gs://bucketname/path/to/file.jsonl"]')
            .replace("MODEL_PATH", "publishers/google/models/gemini-2.5-flash")
            .replace("OUTPUT_FORMAT", "jsonl")
            .replace('"DESTINATION"', '"gcsDestination"')
            .replace("OUTPUT_URI_FIELD_NAME", "outputUriPrefix")
            .replace("OUTPUT_URI", "gs://mybucket/path/to/output")
        )
        assert spec.body() == json.loads(printed)

    @pytest.mark.parametrize(
        "source", [("gs://in/a.jsonl", "gs://in/b.jsonl"), ("bq://p.d.in",)], ids=["files", "table"]
    )
    @pytest.mark.parametrize("output", ["gs://out/o", "bq://p.d.out"], ids=["folder", "table"])
    def test_input_and_output_may_be_of_any_kind(self, source, output):
        body = a_spec(inputs=source, output=output).body()
        wanted_in: Any = (
            {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": "bq://p.d.in"}}
            if source[0].startswith("bq")
            else {"instancesFormat": "jsonl", "gcsSource": {"uris": list(source)}}
        )
        wanted_out: Any = (
            {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": output}}
            if output.startswith("bq")
            else {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": output}}
        )
        assert (body["inputConfig"], body["outputConfig"]) == (wanted_in, wanted_out)

    def test_labels_are_sent_when_there_are_some(self):
        assert "labels" not in a_spec().body()
        assert a_spec(labels={"a": "b"}).body()["labels"] == {"a": "b"}


class TestIdentity:
    def test_it_is_the_same_for_every_try(self):
        assert an_identity().key == an_identity().key
        assert re.fullmatch(r"[0-9a-f]{32}", an_identity().key)

    @pytest.mark.parametrize("other", [{"dag_id": "x"}, {"task_id": "x"}, {"run_id": "x"}, {"map_index": 0}], ids=str)
    def test_it_differs_for_anything_else(self, other):
        assert an_identity(**other).key != an_identity().key

    def test_members_cannot_run_into_each_other(self):
        assert an_identity(dag_id="a", task_id="bc").key != an_identity(dag_id="ab", task_id="c").key

    @pytest.mark.parametrize(
        ("members", "path"),
        [
            ({}, "nightly/scheduled__2026-11-22/create"),
            ({"map_index": 2}, "nightly/scheduled__2026-11-22/create/2"),
            ({"run_id": "manual__2026-11-22T00:00:00+00:00"}, None),
        ],
        ids=["plain", "mapped", "odd characters"],
    )
    def test_its_folder_is_readable(self, members, path):
        made = an_identity(**members).path
        assert re.fullmatch(r"[\w.+=@/-]+", made)
        assert path is None or made == path

    def test_different_texts_never_share_a_folder(self):
        assert safe_name("a:b") != safe_name("a/b") != safe_name("a_b")
        assert safe_name("a_b") == "a_b"
        assert "/" not in safe_name("../../etc")


class TestManifest:
    def test_its_summary_tells_of_every_kind_of_row_there_is(self):
        shard = Shard(uri="gs://b/r.jsonl", request_count=7, size_bytes=1_234)
        manifest = Manifest(
            uri="gs://b/m.json", fingerprint="f", row_count=13, request_count=7, rejected_count=1, duplicate_count=2,
            known_count=3, fixed_count=4, shards=(shard,),
        )  # fmt: skip
        assert manifest.summary() == (
            "13 rows: 7 requests in 1 file (1,234 bytes), 2 asked under another row's key, "
            "3 answered by an earlier run, 4 cured before they were sent, 1 rejected"
        )
