"""A server takes a request and says nothing, or a byte at a time: the call ends, and its error is worth a retry."""

from __future__ import annotations

import time

import pytest
from google.auth.transport.requests import AuthorizedSession
from google.cloud import bigquery, storage
from google.oauth2.credentials import Credentials

from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.errors import ChangedError, ServiceError
from airflow_vertex_batch.gcp.bigquery import BigQueryWarehouse
from airflow_vertex_batch.gcp.limits import LIMITS, Limits
from airflow_vertex_batch.gcp.storage import CALL_SECONDS, CHUNK_BYTES, GcsStore
from airflow_vertex_batch.gcp.transport import bounded_session
from airflow_vertex_batch.gcp.vertex import VertexClient
from tests.gcp.scripted_server import Answer, ScriptedServer, refused

SHORT = Limits(connect_seconds=5, silence_seconds=0.2, window_seconds=0.2, least_speed=100_000)
TABLE, URI = TableId.parse("p.d.t"), Uri.parse("gs://b/x")
COLUMNS = [{"name": "a", "type": "STRING", "mode": "NULLABLE"}]
REFERENCE = {"projectId": "p", "datasetId": "d", "tableId": "t"}
LONG = b" " * 100_000


def _session():
    return bounded_session(Credentials("token"), SHORT)


def _warehouse(server, call_seconds=0.3):
    client = bigquery.Client("p", Credentials("token"), _session(), client_options={"api_endpoint": server.url})
    return BigQueryWarehouse(client, call_seconds=call_seconds)


def _store(server):
    client = storage.Client("p", Credentials("token"), _session(), client_options={"api_endpoint": server.url})
    return GcsStore(client, call_seconds=0.3)


def _write(store):
    with store.open_write(URI) as stream:
        stream.write(b"x")


def _read(store):
    with store.open_read(URI) as stream:
        stream.read()


BIGQUERY = {
    "create table": lambda it: it.create_table(TABLE, COLUMNS),
    "count": lambda it: it.count(TABLE),
    "load": lambda it: it.load(["gs://b/x"], TABLE, COLUMNS, job_id="j"),
    "execute": lambda it: it.execute("SELECT 1", job_id="j"),
    "results": lambda it: list(it.rows("SELECT 1")),
    "rows": lambda it: list(it.rows(TABLE)),
    "delete": lambda it: it.drop(TABLE),
}
STORAGE = {
    "list": lambda it: list(it.list(URI)),
    "read": lambda it: it.read(URI),
    "stream": _read,
    "write": _write,
    "write new": lambda it: it.write_new(URI, b"x"),
    "delete": lambda it: it.delete(URI),
}


def _fails_soon(server, call, match):
    begun = time.monotonic()
    with pytest.raises(ServiceError, match=match) as caught:
        call()
    assert caught.value.retryable
    # Far from the deadlines that Google's clients have by themselves, ten minutes and none, whatever the machine.
    assert time.monotonic() - begun < 300
    assert server.heard.wait(300)


@pytest.mark.parametrize("fate", ["hang", "drip", "drip head"])
class TestFromTheFirstCall:
    @pytest.mark.parametrize("use", BIGQUERY)
    def test_of_bigquery(self, use, fate):
        with ScriptedServer(route=lambda _: Answer(body=LONG, fate=fate)) as server:
            _fails_soon(server, lambda: BIGQUERY[use](_warehouse(server)), "BigQuery did not answer about")

    @pytest.mark.parametrize("use", STORAGE)
    def test_of_cloud_storage(self, use, fate):
        with ScriptedServer(route=lambda _: Answer(body=LONG, fate=fate)) as server:
            _fails_soon(server, lambda: STORAGE[use](_store(server)), "Cloud Storage did not answer about gs://b/x")


class _Noting(AuthorizedSession):
    """Notes how long each answer may take."""

    def __init__(self):
        super().__init__(Credentials("token"))
        self.seconds = []

    def request(self, method, url, *arguments, timeout=None, **options):
        self.seconds.append(timeout)
        return super().request(method, url, *arguments, timeout=timeout, **options)


@pytest.mark.parametrize("use", STORAGE)
def test_cloud_storage_may_think_as_long_as_our_limits_say(use):
    session = _Noting()
    body = {"size": "1", "generation": "7", "name": "x", "crc32c": "qTxfkw=="}

    def route(asked):
        if asked.query.get("alt") == "media":
            return Answer(206, b"x", {"x-goog-generation": "7"})
        return Answer(body=body, headers={"Location": f"{server.url}/session"})

    with ScriptedServer(route=route) as server:
        client = storage.Client("p", Credentials("token"), session, client_options={"api_endpoint": server.url})
        STORAGE[use](GcsStore(client))
    assert set(session.seconds) == {LIMITS.silence_seconds}


def test_a_part_that_fails_at_its_end_on_the_slowest_line_is_sent_again():
    """Google's client begins no try after the deadline, and waits up to a minute before one."""
    assert CHUNK_BYTES / LIMITS.least_speed + 60 <= CALL_SECONDS


def _until(number, *answers):
    """Return a route that gives these answers, and is silent from then on."""
    left = list(answers[:number])
    return lambda _: left.pop(0) if left else Answer(fate="hang")


JOB = {"jobReference": {"projectId": "p", "jobId": "j", "location": "US"}, "status": {"state": "RUNNING"}}
QUERY = {**JOB, "configuration": {"jobType": "QUERY", "query": {"query": "SELECT 1"}}}
LOAD = {**JOB, "configuration": {"jobType": "LOAD", "load": {"destinationTable": REFERENCE}}}
TABLE_DOC = {
    "tableReference": REFERENCE,
    "schema": {"fields": COLUMNS},
    "numRows": "2",
    "lastModifiedTime": "1",
    "etag": "e",
}
PAGE = {"totalRows": "2", "rows": [{"f": [{"v": "1"}]}], "pageToken": "next"}


class TestFromALaterCall:
    """The job has been made, or the first page has come."""

    @pytest.mark.parametrize(
        ("use", "answers"),
        [
            ("load", [Answer(body=LOAD)]),
            ("execute", [Answer(body=QUERY)]),
            ("results", [Answer(body=QUERY), Answer(body=QUERY)]),
            ("rows", [Answer(body=TABLE_DOC)]),
            ("rows", [Answer(body=TABLE_DOC), Answer(body=PAGE)]),
        ],
        ids=["load", "execute", "results", "first page", "second page"],
    )
    def test_of_bigquery(self, use, answers):
        with ScriptedServer(route=_until(len(answers), *answers)) as server:
            _fails_soon(server, lambda: BIGQUERY[use](_warehouse(server)), "BigQuery did not answer about")
            assert len(server.asked) > len(answers)


class TestATable:
    """Its pages are not of one moment."""

    @staticmethod
    def _rows(last):
        page = {"totalRows": "1", "rows": [{"f": [{"v": "1"}]}]}
        answers = (Answer(body=TABLE_DOC), Answer(body=page), Answer(body=last))
        with ScriptedServer(*answers) as server:
            return list(_warehouse(server).rows(TABLE))

    def test_that_stays_as_it_is_is_read(self):
        assert self._rows(TABLE_DOC) == [{"a": "1"}]

    @pytest.mark.parametrize("change", [{"lastModifiedTime": "2"}, {"numRows": "3"}, {"creationTime": "5"}], ids=str)
    def test_that_changes_while_it_is_read_is_an_error_that_names_it(self, change):
        with pytest.raises(ChangedError, match=r"p\.d\.t was changed while it was read.*SELECT \* FROM"):
            self._rows(TABLE_DOC | change)


def test_a_quota_that_is_spent_in_every_call_is_worth_a_retry():
    answer = Answer(403, {"error": {"code": 403, "message": "Quota exceeded", "errors": [{"reason": "quotaExceeded"}]}})
    with (
        ScriptedServer(route=lambda _: answer) as server,
        pytest.raises(ServiceError, match=r"HTTP 403 \(quotaExceeded\).*iam-admin/quotas") as caught,
    ):
        _warehouse(server).count(TABLE)
    assert (caught.value.retryable, caught.value.status) == (True, 403)


def test_a_service_that_is_down_until_the_client_gives_up_says_its_last_word():
    with (
        ScriptedServer(route=lambda _: refused(503, message="Be back soon")) as server,
        pytest.raises(ServiceError, match=r"HTTP 503.*Be back soon"),
    ):
        _warehouse(server).count(TABLE)


@pytest.mark.parametrize("fate", ["hang", "drip", "drip head"])
def test_vertex_ai_ends_too(fate):
    with ScriptedServer(route=lambda _: Answer(body=LONG, fate=fate)) as server:
        client = VertexClient(Credentials("token"), "p", "global", server.url, timeout=0.2, sleep=lambda _: None)
        client._session = _session()
        _fails_soon(server, lambda: list(client.list({})), "Vertex AI")
