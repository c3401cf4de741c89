"""What each check says to each answer of Google's: a healthy cloud with one thing wrong at a time."""

from __future__ import annotations

import re

import pytest

from tests.each_case import each_case
from tests.gcp.doctoring import (
    AGENT,
    ALL_RIGHTS,
    BUCKET,
    BUCKET_POLICY,
    BUCKET_RIGHTS,
    BUSY,
    CANARY,
    DATASET,
    DENIED,
    DISABLED,
    GONE,
    HEALTHY,
    JOBS,
    MODEL,
    NUMBER,
    OBJECT_RIGHTS,
    OBJECTS,
    ONLINE,
    PROJECT,
    PROJECT_POLICY,
    PROJECT_RIGHTS,
    TABLE,
    TABLE_RIGHTS,
    Account,
    a_bucket,
    a_dataset,
    an_error,
    answered,
    examined,
    granted,
    held,
    the_finding,
)
from tests.gcp.scripted_server import Answer, refused


class TestEachCheck:
    def test_in_a_healthy_cloud_everything_is_ok(self):
        report, _ = examined(canary=CANARY)
        assert [str(each) for each in report.findings if each.verdict != "ok"] == []

    @each_case(
        [
            # The project.
            ("project", {}, "ok", f"demo, number {NUMBER}"),
            ("project", {PROJECT: DENIED}, "unknown", "may not be looked at, or does not exist"),
            ("project", {PROJECT: DISABLED}, "unknown", "API has not been used"),
            ("project", {PROJECT: GONE}, "failed", "HTTP 404 about project demo"),
            ("project", {PROJECT: BUSY}, "unknown", "Try later"),
            (
                "project",
                {PROJECT: Answer(body={"name": "projects/1", "state": "DELETE_REQUESTED"})},
                "failed",
                "DELETE_REQUESTED",
            ),
            # The API.
            ("vertex-ai", {}, "ok", "it answers for demo in us-central1"),
            ("vertex-ai", {JOBS: DISABLED}, "failed", "the Vertex AI API is not enabled"),
            ("vertex-ai", {JOBS: DENIED}, "failed", "the account may not list jobs"),
            (
                "vertex-ai",
                {JOBS: an_error(403, "PERMISSION_DENIED", "No.", "BILLING_DISABLED")},
                "failed",
                "no billing account",
            ),
            (
                "vertex-ai",
                {JOBS: an_error(403, "PERMISSION_DENIED", "No.", "SECURITY_POLICY_VIOLATED")},
                "failed",
                "VPC Service Controls",
            ),
            (
                "vertex-ai",
                {JOBS: an_error(400, "FAILED_PRECONDITION", "Org policy.")},
                "failed",
                "us-central1 is refused, as by an org",
            ),
            (
                "vertex-ai",
                {JOBS: Answer(404, b"<html>404</html>")},
                "failed",
                "there is nothing at us-central1",
            ),
            ("vertex-ai", {JOBS: Answer(403, b"<html>proxy</html>")}, "failed", "may not list jobs"),
            ("vertex-ai", {JOBS: refused(401, "UNAUTHENTICATED")}, "failed", "the token was refused"),
            ("vertex-ai", {JOBS: BUSY}, "unknown", "Try later"),
            ("vertex-ai", {JOBS: refused(429, "RESOURCE_EXHAUSTED", "Quota.")}, "unknown", "Quota"),
            ("vertex-ai", {JOBS: Answer(200, b"<html>login</html>")}, "unknown", "gave no reason"),
            ("vertex-ai", {JOBS: Answer(fate="drop")}, "failed", "gave no answer: ConnectionError"),
            # The caller's rights on the project.
            ("rights", {}, "ok", "all 4 rights"),
            ("rights", held(*ALL_RIGHTS[1:]), "failed", "missing on demo: aiplatform.batchPredictionJobs.create"),
            (
                "rights",
                held(*ALL_RIGHTS[:3]),
                "warning",
                "missing on demo: aiplatform.batchPredictionJobs.cancel",
            ),
            ("rights", {PROJECT_RIGHTS: Answer()}, "failed", "create, .*get, .*list, .*cancel"),
            ("rights", {PROJECT_RIGHTS: DISABLED}, "unknown", "API has not been used"),
            # The model: the table is tested in tests/core.
            ("model", {}, "ok", "exists, and us-central1 serves its batches"),
            ("model", {MODEL: GONE}, "failed", "HTTP 404 about the model"),
            ("model", {MODEL: DENIED}, "unknown", "whether it exists could not be asked"),
            # The bucket.
            ("bucket", {}, "ok", "in US-CENTRAL1"),
            ("bucket", {BUCKET: GONE}, "failed", "HTTP 404 about bucket stage"),
            ("bucket", {BUCKET: DENIED}, "unknown", "which running a batch does not need"),
            ("bucket", {BUCKET: BUSY}, "unknown", "Try later"),
            ("bucket-rights", {}, "ok", "listed, read, written and replaced"),
            (
                "bucket-rights",
                {BUCKET_RIGHTS: Answer(body={"permissions": OBJECT_RIGHTS[1:]})},
                "failed",
                "missing: storage.objects.create",
            ),
            (
                "bucket-rights",
                {BUCKET_RIGHTS: Answer(body={"permissions": OBJECT_RIGHTS[:3]})},
                "warning",
                "objects cannot be replaced",
            ),
            ("bucket-rights", {BUCKET_RIGHTS: GONE}, "failed", "HTTP 404 about rights on bucket stage"),
            ("bucket-place", {}, "ok", "in us-central1, jobs in us-central1"),
            ("bucket-place", a_bucket(location="US"), "ok", "in us, jobs in us-central1"),
            ("bucket-place", a_bucket(location="NAM4"), "ok", "in us-central1, us-east1"),
            ("bucket-place", a_bucket(location="EUROPE-WEST4"), "warning", "requests and answers cross"),
            ("bucket-place", a_bucket(location=""), "unknown", "does not say where"),
            ("bucket-place", {BUCKET: DENIED}, "unknown", "settings of stage could not be read"),
            ("soft-delete", {}, "ok", "off"),
            (
                "soft-delete",
                a_bucket(softDeletePolicy={"retentionDurationSeconds": "604800"}),
                "warning",
                "on, 7 days",
            ),
            ("soft-delete", a_bucket(softDeletePolicy=None), "unknown", "does not say whether"),
            ("soft-delete", {BUCKET: DENIED}, "unknown", "could not be read"),
            # The dataset of the destination.
            ("dataset", {}, "ok", "in us-central1"),
            ("dataset", {DATASET: GONE}, "failed", "HTTP 404 about dataset demo.out"),
            ("dataset", {DATASET: DENIED}, "failed", "Permission 'x' denied"),
            ("dataset", {DATASET: BUSY}, "unknown", "Try later"),
            ("dataset-place", {}, "ok", "in us-central1, files in us-central1"),
            ("dataset-place", a_dataset("US"), "ok", "in us, files in us-central1"),
            ("dataset-place", a_dataset("EU"), "warning", "in eu, files in us-central1"),
            ("dataset-place", a_dataset("EU") | a_bucket(location="europe-west1"), "ok", "files in europe-west1"),
            ("dataset-place", a_dataset(""), "unknown", "does not say where"),
            ("dataset-place", {BUCKET: DENIED}, "unknown", "settings of stage could not be read"),
            ("dataset-place", {DATASET: DENIED}, "unknown", "settings of demo.out could not be read"),
            ("dataset-rights", {}, "ok", "bigquery.tables.create on all of demo"),
            ("dataset-rights", held("bigquery.tables.create"), "failed", "bigquery.jobs.create is missing on demo"),
            (
                "dataset-rights",
                held("bigquery.jobs.create")
                | a_dataset("us", {"role": "WRITER", "userByEmail": Account.service_account_email}),
                "ok",
                "the caller is WRITER of the dataset",
            ),
            (
                "dataset-rights",
                held("bigquery.jobs.create")
                | a_dataset("us", {"role": "READER", "userByEmail": Account.service_account_email}),
                "unknown",
                "a group or a role on the dataset may grant it",
            ),
            (
                "dataset-rights",
                {PROJECT_RIGHTS: DISABLED}
                | a_dataset("us", {"role": "OWNER", "userByEmail": Account.service_account_email}),
                "unknown",
                "the caller is OWNER of the dataset; bigquery.jobs.create cannot be asked",
            ),
            ("dataset-rights", {PROJECT_RIGHTS: DISABLED}, "unknown", "rights cannot be asked"),
            # The source.
            ("source", {}, "ok", "1,200 rows, and they can be read"),
            ("source", {TABLE: Answer(body={"type": "VIEW"})}, "ok", "view, and they can be read"),
            ("source", {TABLE: GONE}, "failed", "HTTP 404 about table demo.raw.tickets"),
            ("source", {TABLE: DENIED}, "failed", "Permission 'x' denied"),
            ("source", {TABLE_RIGHTS: Answer()}, "failed", "bigquery.tables.getData is missing"),
            # The service agent.
            ("service-agent", {}, "ok", "roles/aiplatform.serviceAgent on the project, and this is the project's"),
            ("service-agent", granted("roles/storage.objectUser"), "ok", "has roles/storage.objectUser"),
            (
                "service-agent",
                granted("roles/storage.objectCreator", "roles/storage.objectViewer"),
                "ok",
                "has roles/storage.objectCreator, roles/storage.objectViewer",
            ),
            ("service-agent", granted("roles/storage.objectViewer"), "warning", "is not listed"),
            ("service-agent", granted(), "warning", "is not listed"),
            ("service-agent", a_bucket(projectNumber="7"), "warning", "is not listed"),
            ("service-agent", {BUCKET_POLICY: DENIED}, "ok", "on the project"),
            ("service-agent", {BUCKET_POLICY: DENIED, PROJECT_POLICY: DENIED}, "unknown", "cannot be seen"),
            ("service-agent", granted() | {PROJECT_POLICY: DENIED}, "unknown", "cannot be seen"),
            ("service-agent", {PROJECT: DENIED}, "unknown", "the project's number is not known"),
            (
                "service-agent",
                {
                    PROJECT: DENIED,
                    JOBS: Answer(body={"batchPredictionJobs": [{"name": f"projects/{NUMBER}/locations/x/y/1"}]}),
                },
                "ok",
                "on the project",
            ),
            # The canary.
            ("canary", {}, "ok", r"answered and fits the schema; [\d,]+ tokens"),
            ("canary", answered('{"temper": "good"}'), "failed", "invalid_output, SCHEMA: .* breaks 'required'"),
            ("canary", answered("prose"), "failed", "invalid_output, NOT_JSON"),
            ("canary", answered('{"mo', finishReason="MAX_TOKENS"), "failed", "truncated, MAX_TOKENS"),
            ("canary", answered(finishReason="SAFETY"), "warning", "blocked, SAFETY"),
            (
                "canary",
                {ONLINE: Answer(body={"promptFeedback": {"blockReason": "JAILBREAK"}})},
                "warning",
                "blocked, JAILBREAK; what it cost is not known",
            ),
            ("canary", {ONLINE: refused(400, "INVALID_ARGUMENT", "Bad schema.")}, "failed", "refused: .*Bad schema"),
            ("canary", {ONLINE: GONE}, "failed", "refused"),
            ("canary", {ONLINE: refused(429, "RESOURCE_EXHAUSTED", "Online quota.")}, "unknown", "Online quota"),
        ],
    )
    def test_says(self, check, answers, verdict, text):
        report, _ = examined(answers, canary=CANARY if check == "canary" else None)
        finding = the_finding(report, check)
        assert (finding.verdict, re.search(text, finding.found) is not None) == (verdict, True), finding
        assert finding.why
        assert finding.todo or verdict in {"ok", "unknown"}

    @pytest.mark.parametrize(
        ("plan", "answers", "verdict", "text"),
        [
            ({"output": "bq://demo.out.t"}, {}, "ok", "in us-central1, as the jobs"),
            ({"output": "bq://demo.out"}, a_dataset("US"), "failed", "in the multi-region US, which jobs refuse"),
            ({"output": "bq://demo.out"}, a_dataset("us-east1"), "failed", "in us-east1, jobs in us-central1"),
            ({"output": "bq://demo.out", "location": "global"}, {}, "warning", "contradict each other"),
            ({"output": "bq://demo"}, {}, "unknown", "names no dataset"),
            ({"input": "bq://demo.out.t"}, a_dataset("EU"), "failed", "in the multi-region EU"),
        ],
    )
    def test_a_table_that_the_job_itself_touches_must_be_in_its_region(self, plan, answers, verdict, text):
        report, _ = examined(answers, destination="", **plan)
        finding = the_finding(report, "dataset-place")
        assert (finding.verdict, text in finding.found) == (verdict, True), finding

    @pytest.mark.parametrize(
        ("access", "project_policy", "verdict"),
        [
            ([{"role": "WRITER", "userByEmail": AGENT}], DENIED, "ok"),
            ([{"role": "READER", "userByEmail": AGENT}], Answer(), "warning"),
            ([], HEALTHY[PROJECT_POLICY], "ok"),
            ([], DENIED, "unknown"),
        ],
        ids=["on the list", "too little", "on the project", "not to be seen"],
    )
    def test_the_service_agent_needs_the_jobs_own_table_too(self, access, project_policy, verdict):
        answers = a_dataset("us-central1", *access) | {PROJECT_POLICY: project_policy}
        report, _ = examined(answers, output="bq://demo.out.t")
        assert the_finding(report, "service-agent", "bq://").verdict == verdict

    @pytest.mark.parametrize(
        ("objects", "rights", "verdict"),
        [
            (HEALTHY[OBJECTS], HEALTHY[BUCKET_RIGHTS], "ok"),
            (HEALTHY[OBJECTS], Answer(), "failed"),
            (Answer(), HEALTHY[BUCKET_RIGHTS], "failed"),
            (DENIED, HEALTHY[BUCKET_RIGHTS], "failed"),
            (GONE, HEALTHY[BUCKET_RIGHTS], "failed"),
        ],
        ids=["there", "closed", "nothing", "denied", "no bucket"],
    )
    def test_files_to_read(self, objects, rights, verdict):
        answers = {OBJECTS: objects, BUCKET_RIGHTS: rights}
        report, asked = examined(answers, source="gs://stage/tickets-*.csv")
        assert the_finding(report, "source").verdict == verdict
        assert {each.query.get("prefix") for each in asked if each.path == OBJECTS} == {"tickets-"}

    def test_a_model_of_ones_own_is_looked_up_in_its_project(self):
        path = "projects/demo/locations/us-central1/models/7"
        report, _ = examined({f"/v1/{path}": Answer(body={"name": path})}, model=path)
        assert the_finding(report, "model").verdict == "ok"
        report, _ = examined(model=path)
        assert the_finding(report, "model").verdict == "failed"

    @pytest.mark.parametrize(
        ("base", "verdict", "text"),
        [
            ("gemini-2-5-flash", "ok", "serves its batches"),
            ("gemini-3-5-flash-lite", "failed", "tuned models of Gemini 3 and newer have no batch"),
            ("gemini-4-argon", "failed", "was tuned from gemini-4-argon"),
            ("gemini-12-x", "failed", "was tuned from gemini-12-x"),
        ],
    )
    def test_a_tuned_model_has_batches_by_what_it_was_tuned_from(self, base, verdict, text):
        path = "projects/demo/locations/us-central1/models/7"
        body = {"name": path, "labels": {"google-vertex-llm-tuning-base-model-id": base}}
        finding = the_finding(examined({f"/v1/{path}": Answer(body=body)}, model=path)[0], "model")
        assert (finding.verdict, text in finding.found) == (verdict, True)

    def test_a_misspelt_model_that_exists_after_all_is_no_warning(self):
        answers = {"/v1/publishers/google/models/gemini-2.5-flahs": Answer(body={"name": "x"})}
        assert the_finding(examined(answers, model="gemini-2.5-flahs")[0], "model").verdict == "ok"

    def test_a_model_that_exists_and_is_not_in_the_table_is_a_warning(self):
        answers = {"/v1/publishers/google/models/nova": Answer(body={"name": "nova"})}
        finding = the_finding(examined(answers, model="nova")[0], "model")
        assert (finding.verdict, "Try one small batch first" in finding.todo) == ("warning", True)
