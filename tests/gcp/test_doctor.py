"""What each check says to each answer of Google's: a healthy cloud, scripted over real HTTP, with one thing wrong at a
time."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError
from google.oauth2.credentials import Credentials

from airflow_vertex_batch.core.preflight import Canary, Plan, preflight
from airflow_vertex_batch.core.request import RequestTemplate
from airflow_vertex_batch.gcp.doctor import GoogleCloud, Hosts, environment_credentials
from tests.builders import a_response
from tests.gcp.scripted_server import Answer, Asked, ScriptedServer, refused

NUMBER = "415104041262"
AGENT = f"service-{NUMBER}@gcp-sa-aiplatform.iam.gserviceaccount.com"
SCHEMA = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}
CANARY = Canary(template=RequestTemplate(prompt="{{ text }}", response_schema=SCHEMA), row={"text": "fine"})
PLAN = {
    "project": "demo",
    "location": "us-central1",
    "model": "gemini-2.5-flash",
    "staging": "gs://stage/x",
    "source": "bq://demo.raw.tickets",
    "destination": "bq://demo.out.answers",
    "begins": datetime(2026, 7, 1, tzinfo=UTC),
}

JOBS = "/v1/projects/demo/locations/us-central1/batchPredictionJobs"
MODEL = "/v1/publishers/google/models/gemini-2.5-flash"
ONLINE = f"/v1/projects/demo/locations/us-central1{MODEL.removeprefix('/v1')}:generateContent"
PROJECT, PROJECT_RIGHTS = "/v3/projects/demo", "/v3/projects/demo:testIamPermissions"
PROJECT_POLICY = "/v3/projects/demo:getIamPolicy"
BUCKET, BUCKET_RIGHTS = "/storage/v1/b/stage", "/storage/v1/b/stage/iam/testPermissions"
BUCKET_POLICY, OBJECTS = "/storage/v1/b/stage/iam", "/storage/v1/b/stage/o"
DATASET, TABLE = "/bigquery/v2/projects/demo/datasets/out", "/bigquery/v2/projects/demo/datasets/raw/tables/tickets"
RAW = "/bigquery/v2/projects/demo/datasets/raw"
TABLE_RIGHTS = f"{TABLE}:testIamPermissions"

A_BUCKET = {
    "location": "US-CENTRAL1", "projectNumber": NUMBER, "softDeletePolicy": {"retentionDurationSeconds": "0"}
}  # fmt: skip
ALL_RIGHTS = [
    *(f"aiplatform.batchPredictionJobs.{verb}" for verb in ("create", "get", "list", "cancel")),
    *("aiplatform.endpoints.predict", "bigquery.tables.create", "bigquery.jobs.create"),
]
OBJECT_RIGHTS = [f"storage.objects.{verb}" for verb in ("create", "get", "list", "delete")]
HEALTHY = {
    JOBS: Answer(),
    MODEL: Answer(body={"name": "publishers/google/models/gemini-2.5-flash"}),
    ONLINE: Answer(body=a_response('{"mood": "good"}')),
    PROJECT: Answer(body={"name": f"projects/{NUMBER}", "projectId": "demo", "state": "ACTIVE"}),
    PROJECT_RIGHTS: Answer(body={"permissions": ALL_RIGHTS}),
    PROJECT_POLICY: Answer(
        body={"bindings": [{"role": "roles/aiplatform.serviceAgent", "members": [f"serviceAccount:{AGENT}"]}]}
    ),
    BUCKET: Answer(body=A_BUCKET),
    BUCKET_RIGHTS: Answer(body={"permissions": OBJECT_RIGHTS}),
    BUCKET_POLICY: Answer(body={"bindings": []}),
    OBJECTS: Answer(body={"items": [{"name": "x"}]}),
    DATASET: Answer(body={"location": "us-central1", "access": []}),
    RAW: Answer(body={"location": "us-central1", "access": []}),
    TABLE: Answer(body={"numRows": "1200"}),
    TABLE_RIGHTS: Answer(body={"permissions": ["bigquery.tables.getData"]}),
}


def _error(status: int, word: str, message: str, reason: str = "") -> Answer:
    answer = refused(status, word, message)
    if reason:
        detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}
        answer.body["error"]["details"] = [detail]
    return answer


DENIED = _error(403, "PERMISSION_DENIED", "Permission 'x' denied on resource (or it may not exist).")
GONE = refused(404, "NOT_FOUND", "Not found.")
BUSY = refused(503, "UNAVAILABLE", "Try later.")
DISABLED = _error(403, "PERMISSION_DENIED", "API has not been used in project demo before.", "SERVICE_DISABLED")


def _bucket(**members) -> dict:
    return {BUCKET: Answer(body={**A_BUCKET, **members})}


def _dataset(location="us-central1", *access) -> dict:
    return {DATASET: Answer(body={"location": location, "access": list(access)})}


def _granted(*roles) -> dict:
    bindings = [{"role": role, "members": [f"serviceAccount:{AGENT}"]} for role in roles]
    return {BUCKET_POLICY: Answer(body={"bindings": bindings}), PROJECT_POLICY: Answer(body={})}


def _held(*rights) -> dict:
    return {PROJECT_RIGHTS: Answer(body={"permissions": list(rights)})}


def _answered(text="", **members) -> dict:
    return {ONLINE: Answer(body=a_response(text, **members))}


class Account(Credentials):
    """Credentials that know their name."""

    service_account_email = "batch@demo.iam.gserviceaccount.com"


def _run(answers=None, *, credentials=lambda: Account("token"), **plan):
    """The report, and what was asked."""
    script = HEALTHY | (answers or {})

    def route(asked: Asked) -> Answer:
        return script.get(asked.path, refused(404, "NOT_FOUND", "Nobody scripted this."))

    with ScriptedServer(route=route) as server:
        hosts = Hosts(server.url, server.url, server.url, server.url)
        plan = Plan(**(PLAN | plan))
        report = preflight(plan, GoogleCloud(credentials, plan.project, plan.location, hosts, timeout=1))
    return report, server.asked


def _finding(report, check, subject=""):
    (found,) = (each for each in report.findings if each.check == check and subject in each.subject)
    return found


class TestEachCheck:
    def test_in_a_healthy_cloud_everything_is_ok(self):
        report, _ = _run(canary=CANARY)
        assert [str(each) for each in report.findings if each.verdict != "ok"] == []

    @pytest.mark.parametrize(
        ("check", "answers", "verdict", "text"),
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
                {JOBS: _error(403, "PERMISSION_DENIED", "No.", "BILLING_DISABLED")},
                "failed",
                "no billing account",
            ),
            (
                "vertex-ai",
                {JOBS: _error(403, "PERMISSION_DENIED", "No.", "SECURITY_POLICY_VIOLATED")},
                "failed",
                "VPC Service Controls",
            ),
            (
                "vertex-ai",
                {JOBS: _error(400, "FAILED_PRECONDITION", "Org policy.")},
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
            ("rights", _held(*ALL_RIGHTS[1:]), "failed", "missing on demo: aiplatform.batchPredictionJobs.create"),
            (
                "rights",
                _held(*ALL_RIGHTS[:3]),
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
            ("bucket-place", _bucket(location="US"), "ok", "in us, jobs in us-central1"),
            ("bucket-place", _bucket(location="NAM4"), "ok", "in us-central1, us-east1"),
            ("bucket-place", _bucket(location="EUROPE-WEST4"), "warning", "requests and answers cross"),
            ("bucket-place", _bucket(location=""), "unknown", "does not say where"),
            ("bucket-place", {BUCKET: DENIED}, "unknown", "settings of stage could not be read"),
            ("soft-delete", {}, "ok", "off"),
            (
                "soft-delete",
                _bucket(softDeletePolicy={"retentionDurationSeconds": "604800"}),
                "warning",
                "on, 7 days",
            ),
            ("soft-delete", _bucket(softDeletePolicy=None), "unknown", "does not say whether"),
            ("soft-delete", {BUCKET: DENIED}, "unknown", "could not be read"),
            # The dataset of the destination.
            ("dataset", {}, "ok", "in us-central1"),
            ("dataset", {DATASET: GONE}, "failed", "HTTP 404 about dataset demo.out"),
            ("dataset", {DATASET: DENIED}, "failed", "Permission 'x' denied"),
            ("dataset", {DATASET: BUSY}, "unknown", "Try later"),
            ("dataset-place", {}, "ok", "in us-central1, files in us-central1"),
            ("dataset-place", _dataset("US"), "ok", "in us, files in us-central1"),
            ("dataset-place", _dataset("EU"), "warning", "in eu, files in us-central1"),
            ("dataset-place", _dataset("EU") | _bucket(location="europe-west1"), "ok", "files in europe-west1"),
            ("dataset-place", _dataset(""), "unknown", "does not say where"),
            ("dataset-place", {BUCKET: DENIED}, "unknown", "settings of stage could not be read"),
            ("dataset-place", {DATASET: DENIED}, "unknown", "settings of demo.out could not be read"),
            ("dataset-rights", {}, "ok", "bigquery.tables.create on all of demo"),
            ("dataset-rights", _held("bigquery.tables.create"), "failed", "bigquery.jobs.create is missing on demo"),
            (
                "dataset-rights",
                _held("bigquery.jobs.create")
                | _dataset("us", {"role": "WRITER", "userByEmail": Account.service_account_email}),
                "ok",
                "the caller is WRITER of the dataset",
            ),
            (
                "dataset-rights",
                _held("bigquery.jobs.create")
                | _dataset("us", {"role": "READER", "userByEmail": Account.service_account_email}),
                "unknown",
                "a group or a role on the dataset may grant it",
            ),
            (
                "dataset-rights",
                {PROJECT_RIGHTS: DISABLED}
                | _dataset("us", {"role": "OWNER", "userByEmail": Account.service_account_email}),
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
            ("service-agent", _granted("roles/storage.objectUser"), "ok", "has roles/storage.objectUser"),
            (
                "service-agent",
                _granted("roles/storage.objectCreator", "roles/storage.objectViewer"),
                "ok",
                "has roles/storage.objectCreator, roles/storage.objectViewer",
            ),
            ("service-agent", _granted("roles/storage.objectViewer"), "warning", "is not listed"),
            ("service-agent", _granted(), "warning", "is not listed"),
            ("service-agent", _bucket(projectNumber="7"), "warning", "is not listed"),
            ("service-agent", {BUCKET_POLICY: DENIED}, "ok", "on the project"),
            ("service-agent", {BUCKET_POLICY: DENIED, PROJECT_POLICY: DENIED}, "unknown", "cannot be seen"),
            ("service-agent", _granted() | {PROJECT_POLICY: DENIED}, "unknown", "cannot be seen"),
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
            ("canary", _answered('{"temper": "good"}'), "failed", "invalid_output, SCHEMA: .* breaks 'required'"),
            ("canary", _answered("prose"), "failed", "invalid_output, NOT_JSON"),
            ("canary", _answered('{"mo', finishReason="MAX_TOKENS"), "failed", "truncated, MAX_TOKENS"),
            ("canary", _answered(finishReason="SAFETY"), "warning", "blocked, SAFETY"),
            (
                "canary",
                {ONLINE: Answer(body={"promptFeedback": {"blockReason": "JAILBREAK"}})},
                "warning",
                "blocked, JAILBREAK: .*; what it cost is not known",
            ),
            ("canary", {ONLINE: refused(400, "INVALID_ARGUMENT", "Bad schema.")}, "failed", "refused: .*Bad schema"),
            ("canary", {ONLINE: GONE}, "failed", "refused"),
            ("canary", {ONLINE: refused(429, "RESOURCE_EXHAUSTED", "Online quota.")}, "unknown", "Online quota"),
        ],
    )
    def test_says(self, check, answers, verdict, text):
        report, _ = _run(answers, canary=CANARY if check == "canary" else None)
        finding = _finding(report, check)
        assert (finding.verdict, re.search(text, finding.found) is not None) == (verdict, True), finding
        assert finding.why
        assert finding.todo or verdict in {"ok", "unknown"}

    @pytest.mark.parametrize(
        ("plan", "answers", "verdict", "text"),
        [
            ({"output": "bq://demo.out.t"}, {}, "ok", "in us-central1, as the jobs"),
            ({"output": "bq://demo.out"}, _dataset("US"), "failed", "in the multi-region US, which jobs refuse"),
            ({"output": "bq://demo.out"}, _dataset("us-east1"), "failed", "in us-east1, jobs in us-central1"),
            ({"output": "bq://demo.out", "location": "global"}, {}, "warning", "contradict each other"),
            ({"output": "bq://demo"}, {}, "unknown", "names no dataset"),
            ({"input": "bq://demo.out.t"}, _dataset("EU"), "failed", "in the multi-region EU"),
        ],
    )
    def test_a_table_that_the_job_itself_touches_must_be_in_its_region(self, plan, answers, verdict, text):
        report, _ = _run(answers, destination="", **plan)
        finding = _finding(report, "dataset-place")
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
        answers = _dataset("us-central1", *access) | {PROJECT_POLICY: project_policy}
        report, _ = _run(answers, output="bq://demo.out.t")
        assert _finding(report, "service-agent", "bq://").verdict == verdict

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
        report, asked = _run(answers, source="gs://stage/tickets-*.csv")
        assert _finding(report, "source").verdict == verdict
        assert {each.query.get("prefix") for each in asked if each.path == OBJECTS} == {"tickets-"}

    def test_a_model_of_ones_own_is_looked_up_in_its_project(self):
        path = "projects/demo/locations/us-central1/models/7"
        report, _ = _run({f"/v1/{path}": Answer(body={"name": path})}, model=path)
        assert _finding(report, "model").verdict == "ok"
        report, _ = _run(model=path)
        assert _finding(report, "model").verdict == "failed"

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
        finding = _finding(_run({f"/v1/{path}": Answer(body=body)}, model=path)[0], "model")
        assert (finding.verdict, text in finding.found) == (verdict, True)

    def test_a_misspelt_model_that_exists_after_all_is_no_warning(self):
        answers = {"/v1/publishers/google/models/gemini-2.5-flahs": Answer(body={"name": "x"})}
        assert _finding(_run(answers, model="gemini-2.5-flahs")[0], "model").verdict == "ok"

    def test_a_model_that_exists_and_is_not_in_the_table_is_a_warning(self):
        answers = {"/v1/publishers/google/models/nova": Answer(body={"name": "nova"})}
        finding = _finding(_run(answers, model="nova")[0], "model")
        assert (finding.verdict, "Try one small batch first" in finding.todo) == ("warning", True)


class TestAsking:
    def test_every_question_is_asked_once_and_only_one_job_is_listed(self):
        _, asked = _run(canary=CANARY, output="bq://demo.out.t")
        questions = [(each.method, each.path, json.dumps(each.body)) for each in asked]
        assert len(questions) == len(set(questions))
        assert {each.query["pageSize"] for each in asked if each.path == JOBS} == {"1"}

    def test_nothing_is_changed_anywhere(self):
        _, asked = _run(canary=CANARY)
        writes = {each.path for each in asked if each.method != "GET"}
        assert writes == {ONLINE, PROJECT_RIGHTS, PROJECT_POLICY, TABLE_RIGHTS}

    def test_the_canary_is_the_batchs_own_request(self):
        template = RequestTemplate(
            prompt="{{ text }}", system_instruction="Be brief.", generation_config={"temperature": 0}
        )
        _, asked = _run(canary=Canary(template=template, row={"text": "fine"}))
        (body,) = (each.body for each in asked if each.path == ONLINE)
        assert body == {
            "contents": [{"role": "user", "parts": [{"text": "fine"}]}],
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "generationConfig": {"temperature": 0},
        }

    def test_what_it_cost_is_said_at_twice_the_batch_rate(self):
        answer = a_response('{"mood": "good"}')
        answer |= {"modelVersion": "gemini-2.5-flash"}
        answer["usageMetadata"] = {"promptTokenCount": 1_000_000, "candidatesTokenCount": 1_000_000}
        report, _ = _run({ONLINE: Answer(body=answer)}, canary=CANARY)
        assert _finding(report, "canary").found.endswith("2,000,000 tokens, about $2.80 at the online rate")

    def test_a_row_that_makes_no_request_is_not_sent(self):
        report, asked = _run(canary=Canary(template=CANARY.template, row={}))
        assert _finding(report, "canary").verdict == "failed"
        assert ONLINE not in {each.path for each in asked}

    def test_answers_and_prompts_stay_out_of_the_report(self):
        canary = Canary(template=CANARY.template, row={"text": "a private matter"})
        report, _ = _run(_answered('{"temper": "a secret"}'), canary=canary)
        assert not {word for word in ("private", "secret", "temper") if word in json.dumps(report.as_dict())}

    def test_a_host_that_is_silent_is_waited_for_once(self):
        answers = dict.fromkeys((PROJECT, *HEALTHY), Answer(fate="hang"))
        report, asked = _run(answers, canary=CANARY)
        assert len(asked) == 1
        assert {each.verdict for each in report.findings} == {"ok", "unknown", "failed"}
        assert {each.check for each in report.findings if each.verdict == "ok"} == {
            *("credentials", "names", "staging", "model-life")
        }
        assert report.error().retryable


class TestCredentials:
    def test_whose_they_are(self):
        assert _finding(_run()[0], "credentials").found == "batch@demo.iam.gserviceaccount.com"
        nameless = _run(credentials=lambda: Credentials("token"))[0]
        assert "do not say whose" in _finding(nameless, "credentials").found

    @pytest.mark.parametrize(
        ("error", "retryable"),
        [
            (DefaultCredentialsError("none here"), False),
            (RefreshError("invalid_grant"), False),
            (TransportError("no route"), True),
        ],
    )
    def test_without_them_nothing_is_asked(self, error, retryable):
        def credentials():
            raise error

        report, asked = _run(credentials=credentials)
        finding = _finding(report, "credentials")
        assert (finding.verdict, finding.todo != "", asked) == ("failed", True, [])
        assert {each.verdict for each in report.findings if each.check == "bucket"} == {"unknown"}
        assert report.error().retryable is retryable

    def test_a_token_that_cannot_be_renewed(self):
        class Expired(Account):
            valid = False

            def refresh(self, request):
                raise RefreshError("revoked")

        report, asked = _run(credentials=lambda: Expired("token"))
        assert (_finding(report, "credentials").verdict, asked) == ("failed", [])


class TestHosts:
    def test_are_googles_own_unless_the_environment_says_otherwise(self, monkeypatch):
        monkeypatch.delenv("VERTEX_BATCH_EMULATOR_HOST", raising=False)
        assert Hosts.from_environment() == Hosts()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:4443")
        assert Hosts.from_environment("http://here/") == Hosts(
            "http://here", "http://127.0.0.1:4443", local=frozenset({"vertex", "storage"})
        )

    def test_local_servers_need_no_credentials(self):
        found = environment_credentials(Hosts(local=frozenset({"vertex", "storage"})))
        assert type(found).__name__ == "AnonymousCredentials"
