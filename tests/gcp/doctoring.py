"""A healthy cloud, scripted over real HTTP: what the tests of the doctor change one thing of."""

from __future__ import annotations

from datetime import UTC, datetime

from google.oauth2.credentials import Credentials

from airflow_vertex_batch.core.requests.request import RequestTemplate
from airflow_vertex_batch.core.upkeep.preflight import Canary, Plan, preflight
from airflow_vertex_batch.gcp.doctor import GoogleCloud, Hosts
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


def an_error(status: int, word: str, message: str, reason: str = "") -> Answer:
    answer = refused(status, word, message)
    if reason:
        detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}
        answer.body["error"]["details"] = [detail]
    return answer


DENIED = an_error(403, "PERMISSION_DENIED", "Permission 'x' denied on resource (or it may not exist).")
GONE = refused(404, "NOT_FOUND", "Not found.")
BUSY = refused(503, "UNAVAILABLE", "Try later.")
DISABLED = an_error(403, "PERMISSION_DENIED", "API has not been used in project demo before.", "SERVICE_DISABLED")


def a_bucket(**members) -> dict:
    return {BUCKET: Answer(body={**A_BUCKET, **members})}


def a_dataset(location="us-central1", *access) -> dict:
    return {DATASET: Answer(body={"location": location, "access": list(access)})}


def granted(*roles) -> dict:
    bindings = [{"role": role, "members": [f"serviceAccount:{AGENT}"]} for role in roles]
    return {BUCKET_POLICY: Answer(body={"bindings": bindings}), PROJECT_POLICY: Answer(body={})}


def held(*rights) -> dict:
    return {PROJECT_RIGHTS: Answer(body={"permissions": list(rights)})}


def answered(text="", **members) -> dict:
    return {ONLINE: Answer(body=a_response(text, **members))}


class Account(Credentials):
    """Credentials that know their name."""

    service_account_email = "batch@demo.iam.gserviceaccount.com"


def examined(answers=None, *, credentials=lambda: Account("token"), **plan):
    """The report, and what was asked."""
    script = HEALTHY | (answers or {})

    def route(asked: Asked) -> Answer:
        return script.get(asked.path, refused(404, "NOT_FOUND", "Nobody scripted this."))

    with ScriptedServer(route=route) as server:
        hosts = Hosts(server.url, server.url, server.url, server.url)
        plan = Plan(**(PLAN | plan))
        report = preflight(plan, GoogleCloud(credentials, plan.project, plan.location, hosts, timeout=1))
    return report, server.asked


def the_finding(report, check, subject=""):
    (found,) = (each for each in report.findings if each.check == check and subject in each.subject)
    return found
