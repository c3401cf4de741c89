"""How Vertex AI is spoken to on an event loop: one session, one token for all, every error left to who waits."""

from __future__ import annotations

import asyncio
import time

import pytest
from google.auth.exceptions import RefreshError, TransportError
from google.oauth2.credentials import Credentials

from airflow_vertex_batch.core.domain.address import JobName
from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.gcp.vertex import AsyncVertexClient
from tests.builders import JOB_NAME, a_job_doc
from tests.gcp.scripted_server import Answer, Refreshing, ScriptedServer, refused

NAME = JobName.parse(JOB_NAME)
JOB = a_job_doc()


def _async(server, use, *, credentials=None, **options):
    async def run():
        async with AsyncVertexClient(
            credentials or Credentials("token"), "demo", "global", server.url, **options
        ) as client:
            return await use(client)

    return asyncio.run(run())


async def _all(pages):
    return [page async for page in pages]


class TestTokens:
    @pytest.mark.parametrize(("error", "status"), [(RefreshError("expired"), 401), (TransportError("no route"), 0)])
    def test_the_same_on_an_event_loop(self, error, status):
        with ScriptedServer() as server, pytest.raises(ServiceError, match="No credentials for get") as caught:
            _async(server, lambda client: client.get(NAME), credentials=Refreshing(error))
        assert caught.value.status == status

    def test_a_token_is_fetched_once_for_many_calls_at_once(self):
        credentials = Refreshing()

        async def many(client):
            return await asyncio.gather(*[client.get(NAME) for _ in range(5)])

        with ScriptedServer(*[Answer(body=JOB)] * 5) as server:
            assert len(_async(server, many, credentials=credentials)) == 5
        assert credentials.refreshed == 1
        assert {asked.authorization for asked in server.asked} == {"Bearer token-1"}

    def test_a_token_that_is_refused_is_replaced_once_for_all_calls(self):
        """It was taken back before its time: each call is sent again, all with one new token."""
        credentials = Refreshing()

        def route(asked):
            return refused(401) if asked.authorization == "Bearer token-1" else Answer(body=JOB)

        async def many(client):
            return await asyncio.gather(*[client.get(NAME) for _ in range(5)])

        with ScriptedServer(route=route) as server:
            jobs = _async(server, many, credentials=credentials)
        assert [job.name for job in jobs] == [JOB_NAME] * 5
        assert (credentials.refreshed, len(server.asked)) == (2, 10)

    def test_a_new_token_that_is_refused_too_is_an_error(self):
        credentials = Refreshing()
        with (
            ScriptedServer(route=lambda _asked: refused(401)) as server,
            pytest.raises(ServiceError, match="HTTP 401") as caught,
        ):
            _async(server, lambda client: client.get(NAME), credentials=credentials)
        assert (caught.value.status, credentials.refreshed, len(server.asked)) == (401, 2, 2)

    def test_a_refresh_that_takes_its_time_does_not_hold_up_the_event_loop(self):
        class Slow(Refreshing):
            def refresh(self, request):
                time.sleep(0.3)
                super().refresh(request)

        async def ticking(client):
            ticks, asking = 0, asyncio.ensure_future(client.get(NAME))
            while not asking.done():
                await asyncio.sleep(0.01)
                ticks += 1
            return ticks

        with ScriptedServer(Answer(body=JOB)) as server:
            assert _async(server, ticking, credentials=Slow()) > 3

    def test_the_environment_s_proxy_is_taken_as_by_the_workers(self, monkeypatch):
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with ScriptedServer(Answer(body=JOB)) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url)

            async def ask():
                async with AsyncVertexClient(Credentials("token"), "demo", "global", "http://far.invalid") as client:
                    return await client.get(NAME)

            assert asyncio.run(ask()).name == JOB_NAME
        assert proxy.asked[0].path.endswith(JOB_NAME)


class TestOnAnEventLoop:
    def test_get(self):
        with ScriptedServer(Answer(body=JOB)) as server:
            assert _async(server, lambda client: client.get(NAME)).name == JOB_NAME
        assert server.asked[0].authorization == "Bearer token"

    def test_all_pages_of_a_list(self):
        pages = [
            Answer(body={"batchPredictionJobs": [JOB], "nextPageToken": "t"}),
            Answer(body={"batchPredictionJobs": [JOB]}),
        ]
        with ScriptedServer(*pages) as server:
            found = _async(server, lambda client: _all(client.pages('labels.a="b"')))
        assert [len(page) for page in found] == [1, 1]
        assert [asked.query.get("pageToken") for asked in server.asked] == [None, "t"]

    @pytest.mark.parametrize(
        ("answer", "cancelled"),
        [(Answer(), True), (refused(400, "FAILED_PRECONDITION"), False), (refused(404, "NOT_FOUND"), False)],
        ids=["asked", "ended already", "gone"],
    )
    def test_cancel(self, answer, cancelled):
        with ScriptedServer(answer) as server:
            assert _async(server, lambda client: client.cancel(NAME)) is cancelled

    @pytest.mark.parametrize(
        ("answer", "status", "words"),
        [
            (refused(503, Retry_After="9"), 503, "answered HTTP 503 to: get"),
            (refused(404), 404, "answered HTTP 404 to: get"),
            (Answer(fate="drop"), 0, "did not answer to: get .* ServerDisconnectedError"),
            (Answer(body=JOB, fate="cut"), 0, "did not answer to: get .* ClientPayloadError"),
            (Answer(body={}), 502, "answer to get .* is no job. KeyError: 'name'"),
        ],
        ids=["503", "404", "connection dropped", "answer cut", "no job"],
    )
    def test_every_error_is_ours_and_left_to_the_waiting_flow(self, answer, status, words):
        """Twice the same answer: aiohttp itself repeats a GET whose kept connection was dropped."""
        with ScriptedServer(answer, answer) as server, pytest.raises(ServiceError, match=words) as caught:
            _async(server, lambda client: client.get(NAME))
        assert caught.value.status == status
        assert len(server.asked) == (2 if answer.fate == "drop" else 1)

    def test_a_call_that_hangs_ends(self):
        with (
            ScriptedServer(Answer(fate="hang")) as server,
            pytest.raises(ServiceError, match=r"did not answer to: get .*TimeoutError"),
        ):
            _async(server, lambda client: client.get(NAME), timeout=0.2)

    def test_it_must_be_opened(self):
        client = AsyncVertexClient(Credentials("token"), "demo", "global")
        with pytest.raises(RuntimeError, match="async with"):
            asyncio.run(client.get(NAME))
