"""How Vertex AI is spoken to: every status sorted, reads repeated, the create sent once whatever becomes of it."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus

import pytest
from google.auth.exceptions import RefreshError, TransportError
from google.oauth2.credentials import Credentials

from airflow_vertex_batch.core.domain.address import JobName
from airflow_vertex_batch.core.domain.errors import AmbiguousError, InputError, ServiceError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.domain.outage import MAX_RETRY_AFTER_SECONDS, OUTAGE_SECONDS
from airflow_vertex_batch.core.domain.ports import ANY_VALUE
from airflow_vertex_batch.gcp.calls import (
    PAGE_SIZE,
    cancel_call,
    create_call,
    delete_call,
    get_call,
    label_filter,
    list_call,
    read_answer,
)
from airflow_vertex_batch.gcp.vertex import TIMEOUT_SECONDS, AsyncVertexClient, VertexClient
from tests.builders import JOB_NAME, a_job_doc, a_spec
from tests.each_case import each_case
from tests.gcp.scripted_server import Answer, Refreshing, ScriptedServer, refused

NAME = JobName.parse(JOB_NAME)
PARENT = "projects/demo/locations/global"
CREATE, READ = create_call(PARENT, a_spec()), get_call(NAME)
JOB = a_job_doc()


@pytest.fixture
def slept() -> list[float]:
    """Seconds between attempts, noted instead of slept."""
    return []


@pytest.fixture
def connect(slept):
    """Return a client of a server; its pauses are noted in `slept`."""

    def make(server: ScriptedServer, **options) -> VertexClient:
        return VertexClient(Credentials("token"), "demo", "global", server.url, sleep=slept.append, **options)

    return make


class TestCalls:
    @pytest.mark.parametrize(
        ("call", "method", "path", "repeatable"),
        [
            (CREATE, "POST", f"v1/{PARENT}/batchPredictionJobs", False),
            (READ, "GET", f"v1/{JOB_NAME}", True),
            (list_call(PARENT, ""), "GET", f"v1/{PARENT}/batchPredictionJobs", True),
            (cancel_call(NAME), "POST", f"v1/{JOB_NAME}:cancel", True),
            (delete_call(NAME), "DELETE", f"v1/{JOB_NAME}", True),
        ],
        ids=["create", "get", "list", "cancel", "delete"],
    )
    def test_each_endpoint_is_one_value(self, call, method, path, repeatable):
        assert (call.method, call.path, call.repeatable) == (method, path, repeatable)

    def test_a_list_asks_for_pages_of_the_labelled(self):
        query = label_filter({"avb-identity": "abc", "team": "x"})
        assert query == 'labels.avb-identity="abc" AND labels.team="x"'
        assert list_call(PARENT, query, "next").params == {
            "pageSize": str(PAGE_SIZE),
            "filter": query,
            "pageToken": "next",
        }
        assert list_call(PARENT, "").params == {"pageSize": str(PAGE_SIZE)}

    def test_a_list_asks_for_the_jobs_that_carry_a_label_at_all(self):
        assert label_filter({"avb-identity": ANY_VALUE, "team": "x"}) == 'labels.avb-identity:* AND labels.team="x"'

    @pytest.mark.parametrize(
        ("location", "host"),
        [
            ("us-central1", "https://us-central1-aiplatform.googleapis.com"),
            ("global", "https://aiplatform.googleapis.com"),
            ("eu", "https://aiplatform.eu.rep.googleapis.com"),
        ],
    )
    def test_the_host_follows_the_location_of_the_name(self, location, host):
        """A client of one location asks for a job of another at the other's host."""
        client = VertexClient(Credentials("token"), "demo", "asia-east1")
        name = JobName("p", location, "1")
        assert client.url(get_call(name)) == f"{host}/v1/{name}"

    def test_an_endpoint_replaces_every_host(self):
        client = VertexClient(Credentials("token"), "demo", "global", "http://127.0.0.1:8085/")
        assert client.url(cancel_call(NAME)) == f"http://127.0.0.1:8085/v1/{JOB_NAME}:cancel"


class TestWhereATokenGoes:
    """A location comes from templates, logs and job names: whatever it says, the token stays with Google."""

    @pytest.mark.parametrize("kind", [VertexClient, AsyncVertexClient])
    @pytest.mark.parametrize(
        ("project", "location"), [("p", "localhost:19443"), ("p", "evil.example/"), ("p/../q", "us")]
    )
    def test_no_client_is_made_for_a_place_that_is_none(self, kind, project, location):
        with pytest.raises(InputError, match=r"is no (location|project)"):
            kind(Credentials(token="secret"), project, location)


class TestEveryStatus:
    """What a status means for a read, which may be sent again, and for the create, which may not."""

    #: After these the create may have worked: the server failed or gave up, or its good answer cannot be read.
    MAYBE_DONE = frozenset({200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 408, *range(500, 600)})

    @each_case(sorted({int(status) for status in HTTPStatus if status >= 200}))
    def test_a_create_is_refused_or_ambiguous(self, status):
        with pytest.raises(ServiceError, match=f"HTTP {status}.* to: create") as caught:
            read_answer(CREATE, status, "not json", {})
        assert isinstance(caught.value, AmbiguousError) is (status in self.MAYBE_DONE)
        assert caught.value.status == status

    @each_case(sorted({int(status) for status in HTTPStatus if status >= 200}))
    def test_a_read_is_never_ambiguous(self, status):
        with pytest.raises(ServiceError, match=f"HTTP {status}.* to: get") as caught:
            read_answer(READ, status, "not json", {})
        assert not isinstance(caught.value, AmbiguousError)
        assert caught.value.retryable is (status in {408, 425, 429, 500, 502, 503, 504})

    @pytest.mark.parametrize("text", ["{}", "", '{"name": "x"}'], ids=["empty object", "no body", "object"])
    @pytest.mark.parametrize("call", [CREATE, READ], ids=["create", "read"])
    def test_a_good_answer_is_its_json(self, call, text):
        assert read_answer(call, 200, text, {}) in ({}, {"name": "x"})

    @pytest.mark.parametrize("text", ["<html>", "[1]", '"x"', '{"torn'], ids=repr)
    def test_a_garbled_good_answer_is_an_error(self, text):
        with pytest.raises(ServiceError, match="HTTP 200 to: get"):
            read_answer(READ, 200, text, {})
        with pytest.raises(AmbiguousError, match="HTTP 200 to: create"):
            read_answer(CREATE, 200, text, {})

    def test_google_s_words_are_kept(self):
        text = '{"error": {"code": 404, "message": "The PublisherModel does not exist.", "status": "NOT_FOUND"}}'
        with pytest.raises(
            ServiceError, match=r"HTTP 404 NOT_FOUND to: create. The PublisherModel does not exist. .*location 'global'"
        ) as caught:
            read_answer(CREATE, 404, text, {})
        assert (caught.value.reason, caught.value.is_not_found) == ("NOT_FOUND", True)

    @pytest.mark.parametrize(
        ("status", "cure"),
        [(401, "credentials"), (403, "roles/aiplatform.user"), (404, "Check project, location and model")],
    )
    def test_the_usual_mistakes_have_a_cure(self, status, cure):
        with pytest.raises(ServiceError, match=cure):
            read_answer(READ, status, "", {})

    @pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), (None, None), ("soon", None), ("-1", None)], ids=repr)
    def test_retry_after_is_kept(self, header, seconds):
        with pytest.raises(ServiceError, match="HTTP 429") as caught:
            read_answer(READ, 429, "", {} if header is None else {"Retry-After": header})
        assert caught.value.retry_after == seconds

    def test_an_error_page_is_cut_short(self):
        with pytest.raises(ServiceError, match="HTTP 502") as caught:
            read_answer(READ, 502, "<html>" + "x" * 10_000, {})
        assert len(str(caught.value)) < 400


class TestCreate:
    def test_it_is_one_post_with_the_page_s_body(self, connect):
        with ScriptedServer(Answer(body=JOB | {"state": "JOB_STATE_PENDING"})) as server:
            job = connect(server).create(a_spec(labels={"a": "b"}))
        (asked,) = server.asked
        assert (asked.method, asked.path) == ("POST", f"/v1/{PARENT}/batchPredictionJobs")
        assert asked.body == a_spec(labels={"a": "b"}).body()
        assert asked.authorization == "Bearer token"
        assert (job.name, job.state) == (JOB_NAME, JobState.PENDING)

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (refused(500, "INTERNAL"), "answered HTTP 500 INTERNAL to: create"),
            (refused(503, "UNAVAILABLE", Retry_After="1"), "answered HTTP 503 UNAVAILABLE to: create"),
            (refused(504, "DEADLINE_EXCEEDED"), "answered HTTP 504 DEADLINE_EXCEEDED to: create"),
            (refused(408), "answered HTTP 408 to: create"),
            (Answer(body=b"<html>proxy</html>"), "answered HTTP 200 to: create. <html>proxy</html>"),
            (Answer(body={}), "answer to create is no job. KeyError: 'name'"),
            (Answer(body={"name": 5}), "answer to create is no job. InputError: '5' is not the name"),
            (Answer(fate="drop"), "did not answer to: create. ConnectionError"),
            (Answer(body=JOB, fate="cut"), "did not answer to: create. ChunkedEncodingError"),
        ],
        ids=["500", "503", "504", "408", "a page", "no job", "an odd job", "connection dropped", "answer cut"],
    )
    def test_a_lost_answer_is_ambiguous_and_never_sent_again(self, connect, slept, answer, words):
        with ScriptedServer(answer) as server, pytest.raises(AmbiguousError, match=words):
            connect(server).create(a_spec())
        assert len(server.asked) == 1
        assert slept == []

    def test_a_create_that_hangs_is_ambiguous(self, connect):
        with (
            ScriptedServer(Answer(fate="hang")) as server,
            pytest.raises(AmbiguousError, match=r"did not answer to: create. ReadTimeout"),
        ):
            connect(server, timeout=0.2).create(a_spec())
        assert server.heard.wait(300)
        assert len(server.asked) == 1

    def test_a_create_that_found_no_server_never_left(self, connect, slept):
        """Nobody can have made a job of it, so it is not ambiguous."""
        with ScriptedServer() as server:
            pass
        with pytest.raises(ServiceError, match="did not answer to: create") as caught:
            connect(server).create(a_spec())
        assert not isinstance(caught.value, AmbiguousError)
        assert (caught.value.status, caught.value.retryable, slept) == (0, True, [])

    def test_a_create_that_found_no_way_to_its_proxy_never_left(self, connect, monkeypatch):
        with ScriptedServer() as server:
            pass
        monkeypatch.setenv("HTTP_PROXY", server.url)
        client = VertexClient(Credentials("token"), "demo", "global", "http://far.invalid")
        with pytest.raises(ServiceError, match=r"did not answer to: create\. ProxyError") as caught:
            client.create(a_spec())
        assert not isinstance(caught.value, AmbiguousError)

    @pytest.mark.parametrize("status", [400, 403, 404, 409, 412, 429])
    def test_a_refusal_is_no_job_and_never_sent_again(self, connect, slept, status):
        with (
            ScriptedServer(refused(status, "WORD")) as server,
            pytest.raises(ServiceError, match=f"HTTP {status} WORD") as caught,
        ):
            connect(server).create(a_spec())
        assert not isinstance(caught.value, AmbiguousError)
        assert len(server.asked) == 1
        assert slept == []

    def test_a_redirect_is_not_followed(self, connect):
        """Following would turn the POST into a GET, and its answer into somebody else's."""
        with (
            ScriptedServer(Answer(302, headers={"Location": "/elsewhere"})) as server,
            pytest.raises(ServiceError, match="HTTP 302"),
        ):
            connect(server).create(a_spec())
        assert len(server.asked) == 1


class TestReads:
    @pytest.mark.parametrize(
        "answer",
        [
            refused(429),
            refused(500),
            refused(502),
            refused(503),
            refused(504),
            Answer(fate="drop"),
            Answer(body=JOB, fate="cut"),
        ],
        ids=["429", "500", "502", "503", "504", "connection dropped", "answer cut"],
    )
    def test_a_transient_error_is_asked_about_again(self, connect, slept, answer):
        with ScriptedServer(answer, answer, Answer(body=JOB)) as server:
            assert connect(server).get(NAME).name == JOB_NAME
        assert len(server.asked) == 3
        assert 1 <= slept[0] <= 2 <= slept[1] <= 3

    def test_it_is_believed_after_two_minutes(self, connect, slept):
        with ScriptedServer(route=lambda _asked: refused(503)) as server, pytest.raises(ServiceError, match="HTTP 503"):
            connect(server).get(NAME)
        assert OUTAGE_SECONDS <= sum(slept) < OUTAGE_SECONDS + 25
        assert len(server.asked) == len(slept) + 1 < 15

    @pytest.mark.parametrize("status", [400, 403, 404])
    def test_a_hard_error_is_believed_at_once(self, connect, slept, status):
        with ScriptedServer(*[refused(status)] * 4) as server, pytest.raises(ServiceError, match=f"HTTP {status}"):
            connect(server).get(NAME)
        assert slept == []

    def test_a_token_that_is_refused_is_fetched_anew_once(self, slept):
        credentials = Refreshing()
        with ScriptedServer(refused(401), Answer(body=JOB)) as server:
            client = VertexClient(credentials, "demo", "global", server.url, sleep=slept.append)
            assert client.get(NAME).name == JOB_NAME
        assert [asked.authorization for asked in server.asked] == ["Bearer token-1", "Bearer token-2"]
        assert slept == []

    @pytest.mark.parametrize(("asked", "least"), [("7", 7.0), ("3600", MAX_RETRY_AFTER_SECONDS)])
    def test_the_service_s_wish_is_honoured_within_reason(self, connect, slept, asked, least):
        with ScriptedServer(refused(429, Retry_After=asked), Answer(body=JOB)) as server:
            connect(server).get(NAME)
        assert slept[0] == least

    def test_a_read_that_hangs_is_asked_again(self, connect):
        with ScriptedServer(Answer(fate="hang"), Answer(body=JOB)) as server:
            assert connect(server, timeout=3).get(NAME).name == JOB_NAME

    def test_no_server_at_all_is_an_error_with_status_0(self, connect):
        with ScriptedServer() as server:
            pass
        with pytest.raises(ServiceError, match="did not answer to: get") as caught:
            connect(server).get(NAME)
        assert (caught.value.status, caught.value.retryable) == (0, True)

    @pytest.mark.parametrize("body", [{}, {"name": 5}, {"name": JOB_NAME, "createTime": "yesterday"}], ids=str)
    def test_an_answer_that_is_no_job_is_an_error(self, connect, body):
        with ScriptedServer(Answer(body=body)) as server, pytest.raises(ServiceError, match="is no job"):
            connect(server).get(NAME)


class TestList:
    def test_all_pages_are_read(self, connect):
        pages = [
            Answer(
                body={
                    "batchPredictionJobs": [a_job_doc(name=f"{JOB_NAME}{n}", labels={"a": "b"})],
                    "nextPageToken": token,
                }
            )
            for n, token in enumerate(["one", "two", ""])
        ]
        with ScriptedServer(*pages) as server:
            names = [job.name for job in connect(server).list({"a": "b"})]
        assert names == [f"{JOB_NAME}{n}" for n in range(3)]
        assert [asked.query.get("pageToken") for asked in server.asked] == [None, "one", "two"]
        assert all(asked.query["filter"] == 'labels.a="b"' for asked in server.asked)

    def test_a_page_may_be_empty_and_not_the_last(self, connect):
        pages = [Answer(body={"nextPageToken": "more"}), Answer(body={"batchPredictionJobs": [JOB]})]
        with ScriptedServer(*pages) as server:
            assert len(list(connect(server).list({}))) == 1

    def test_a_service_that_ignores_the_filter_does_not_hand_out_other_people_s_jobs(self, connect):
        mine, other = a_job_doc(labels={"a": "b", "c": "d"}), a_job_doc(name=f"{JOB_NAME}1", labels={"a": "x"})
        with ScriptedServer(Answer(body={"batchPredictionJobs": [other, mine, JOB]})) as server:
            assert [job.name for job in connect(server).list({"a": "b"})] == [JOB_NAME]

    def test_structured_error_details_do_not_break_the_page(self, connect):
        """google-genai fails the whole page on one such job."""
        odd = a_job_doc(error={"code": 3, "message": "m", "details": [{"@type": "x"}]})
        with ScriptedServer(Answer(body={"batchPredictionJobs": [odd, a_job_doc(name=f"{JOB_NAME}1")]})) as server:
            assert len(list(connect(server).list({}))) == 2

    def test_a_transient_error_in_the_middle_goes_on_with_the_same_page(self, connect):
        pages = [Answer(body={"nextPageToken": "two"}), refused(503), Answer(body={"batchPredictionJobs": [JOB]})]
        with ScriptedServer(*pages) as server:
            assert len(list(connect(server).list({}))) == 1
        assert [asked.query.get("pageToken") for asked in server.asked] == [None, "two", "two"]


class TestCancel:
    @pytest.mark.parametrize(
        ("answer", "cancelled"),
        [(Answer(), True), (refused(400, "FAILED_PRECONDITION"), False), (refused(404, "NOT_FOUND"), False)],
        ids=["asked", "ended already", "gone"],
    )
    def test_it_says_whether_there_was_anything_to_cancel(self, connect, answer, cancelled):
        with ScriptedServer(answer) as server:
            assert connect(server).cancel(NAME) is cancelled
        assert (server.asked[0].method, server.asked[0].path, server.asked[0].body) == (
            "POST",
            f"/v1/{JOB_NAME}:cancel",
            {},
        )

    def test_a_refusal_for_another_reason_is_an_error(self, connect):
        with ScriptedServer(refused(403)) as server, pytest.raises(ServiceError, match="HTTP 403"):
            connect(server).cancel(NAME)

    def test_cancelling_twice_does_no_harm_so_it_is_repeated(self, connect):
        with ScriptedServer(refused(503), Answer()) as server:
            assert connect(server).cancel(NAME)

    def test_delete_is_sent(self, connect):
        with ScriptedServer(Answer(body={"name": "operations/1", "done": True})) as server:
            connect(server).delete(NAME)
        assert (server.asked[0].method, server.asked[0].path) == ("DELETE", f"/v1/{JOB_NAME}")


class TestCredentials:
    @pytest.mark.parametrize(
        ("error", "status"),
        [(RefreshError("expired"), 401), (RefreshError("busy", retryable=True), 0), (TransportError("no route"), 0)],
        ids=["expired", "busy", "unreachable"],
    )
    def test_a_create_without_a_token_never_left(self, error, status):
        """Nothing was sent, so there is nothing ambiguous about it."""
        with ScriptedServer() as server:
            client = VertexClient(Refreshing(error), "demo", "global", server.url)
            with pytest.raises(ServiceError, match=r"No credentials for create.*Nothing was changed") as caught:
                client.create(a_spec())
        assert not isinstance(caught.value, AmbiguousError)
        assert caught.value.status == status
        assert server.asked == []


def test_a_create_ends_well_before_another_writer_may_send():
    from airflow_vertex_batch.core.purchase.decide import SETTLE_SECONDS

    assert timedelta(seconds=TIMEOUT_SECONDS) * 2 < timedelta(seconds=SETTLE_SECONDS)
