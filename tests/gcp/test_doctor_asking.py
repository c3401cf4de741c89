"""How does the doctor ask Google: how often, with which account, and where?"""

from __future__ import annotations

import json

import pytest
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError
from google.oauth2.credentials import Credentials

from airflow_vertex_batch.core.requests.request import RequestTemplate
from airflow_vertex_batch.core.upkeep.preflight import Canary
from airflow_vertex_batch.gcp.doctor import Hosts, environment_credentials
from tests.builders import a_response
from tests.gcp.doctoring import (
    CANARY,
    HEALTHY,
    JOBS,
    ONLINE,
    PROJECT,
    PROJECT_POLICY,
    PROJECT_RIGHTS,
    TABLE_RIGHTS,
    Account,
    answered,
    examined,
    the_finding,
)
from tests.gcp.scripted_server import Answer


class TestAsking:
    def test_every_question_is_asked_once_and_only_one_job_is_listed(self):
        _, asked = examined(canary=CANARY, output="bq://demo.out.t")
        questions = [(each.method, each.path, json.dumps(each.body)) for each in asked]
        assert len(questions) == len(set(questions))
        assert {each.query["pageSize"] for each in asked if each.path == JOBS} == {"1"}

    def test_nothing_is_changed_anywhere(self):
        _, asked = examined(canary=CANARY)
        writes = {each.path for each in asked if each.method != "GET"}
        assert writes == {ONLINE, PROJECT_RIGHTS, PROJECT_POLICY, TABLE_RIGHTS}

    def test_the_canary_is_the_batchs_own_request(self):
        template = RequestTemplate(
            prompt="{{ text }}", system_instruction="Be brief.", generation_config={"temperature": 0}
        )
        _, asked = examined(canary=Canary(template=template, row={"text": "fine"}))
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
        report, _ = examined({ONLINE: Answer(body=answer)}, canary=CANARY)
        assert the_finding(report, "canary").found.endswith("2,000,000 tokens, about $2.80 at the online rate")

    def test_a_row_that_makes_no_request_is_not_sent(self):
        report, asked = examined(canary=Canary(template=CANARY.template, row={}))
        assert the_finding(report, "canary").verdict == "failed"
        assert ONLINE not in {each.path for each in asked}

    def test_answers_and_prompts_stay_out_of_the_report(self):
        canary = Canary(template=CANARY.template, row={"text": "a private matter"})
        report, _ = examined(answered('{"temper": "a secret"}'), canary=canary)
        assert not {word for word in ("private", "secret", "temper") if word in json.dumps(report.as_dict())}

    @pytest.mark.parametrize(
        "candidate",
        [
            {"finishReason": "SAFETY", "finishMessage": "It says: a secret"},
            {"finishReason": "OTHER", "finishMessage": "a secret"},
        ],
        ids=["blocked", "failed"],
    )
    def test_what_the_service_says_of_an_answer_stays_out_of_it(self, candidate):
        report, _ = examined({ONLINE: Answer(body={**a_response(""), "candidates": [candidate]})}, canary=CANARY)
        found = the_finding(report, "canary").found
        assert candidate["finishReason"] in found
        assert "secret" not in found

    def test_a_host_that_is_silent_is_waited_for_once(self):
        answers = dict.fromkeys((PROJECT, *HEALTHY), Answer(fate="hang"))
        report, asked = examined(answers, canary=CANARY)
        assert len(asked) == 1
        assert {each.verdict for each in report.findings} == {"ok", "unknown", "failed"}
        assert {each.check for each in report.findings if each.verdict == "ok"} == {
            *("credentials", "names", "staging", "model-life")
        }
        assert report.error().retryable


class TestCredentials:
    def test_whose_they_are(self):
        assert the_finding(examined()[0], "credentials").found == "batch@demo.iam.gserviceaccount.com"
        nameless = examined(credentials=lambda: Credentials("token"))[0]
        assert "do not say whose" in the_finding(nameless, "credentials").found

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

        report, asked = examined(credentials=credentials)
        finding = the_finding(report, "credentials")
        assert (finding.verdict, finding.todo != "", asked) == ("failed", True, [])
        assert {each.verdict for each in report.findings if each.check == "bucket"} == {"unknown"}
        assert report.error().retryable is retryable

    def test_a_token_that_cannot_be_renewed(self):
        class Expired(Account):
            valid = False

            def refresh(self, request):
                raise RefreshError("revoked")

        report, asked = examined(credentials=lambda: Expired("token"))
        assert (the_finding(report, "credentials").verdict, asked) == ("failed", [])


class TestHosts:
    def test_are_googles_own_unless_the_environment_says_otherwise(self, monkeypatch):
        monkeypatch.delenv("VERTEX_BATCH_EMULATOR_HOST", raising=False)
        assert Hosts.from_environment() == Hosts()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:4443/")
        assert Hosts.from_environment("http://here/") == Hosts(
            "http://here", "http://127.0.0.1:4443", local=frozenset({"vertex", "storage"})
        )

    def test_local_servers_need_no_credentials(self):
        found = environment_credentials(Hosts(local=frozenset({"vertex", "storage"})))
        assert type(found).__name__ == "AnonymousCredentials"
