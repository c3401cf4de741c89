"""Calls end: whatever the other side does not send, takes slowly, or never finishes."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from google.oauth2.credentials import Credentials
from requests.exceptions import ConnectionError as LostConnectionError
from requests.exceptions import RequestException

from airflow_vertex_batch.gcp.limits import Limits
from airflow_vertex_batch.gcp.transport import bounded_session, token_request
from tests.gcp.scripted_server import Answer, Refreshing, ScriptedServer

#: Short, so that the tests are; the sizes that go with them are those of a slow connection all the same.
SHORT = Limits(connect_seconds=5, silence_seconds=0.3, window_seconds=0.3, least_speed=10_000)
LONG = Answer(body=b"x" * 50_000)


def _session():
    return bounded_session(Credentials("token"), SHORT)


class TestAnAnswer:
    @pytest.mark.parametrize("timeout", [None, 600, (600, 600), (None, None)], ids=repr)
    def test_that_never_comes_is_given_up_whatever_the_caller_allows(self, timeout):
        with ScriptedServer(Answer(fate="hang")) as server, pytest.raises(RequestException, match="Read timed out"):
            _session().get(server.url, timeout=timeout)

    def test_a_caller_may_be_less_patient(self):
        with ScriptedServer(Answer(fate="hang")) as server, pytest.raises(RequestException, match=r"read timeout=0\.1"):
            _session().get(server.url, timeout=0.1)

    @pytest.mark.parametrize("fate", ["drip", "drip head"])
    @pytest.mark.parametrize("stream", [False, True], ids=["at once", "streamed"])
    def test_that_comes_a_byte_at_a_time_is_given_up(self, fate, stream):
        """Each byte comes in time, and the whole would take eight minutes."""
        with (
            ScriptedServer(Answer(body=LONG.body, fate=fate)) as server,
            pytest.raises(RequestException, match="Read timed out"),
        ):
            list(_session().get(server.url, stream=stream).iter_content(4_096))

    def test_that_comes_in_time_is_read_whole(self):
        with ScriptedServer(LONG, LONG) as server:
            session = _session()
            assert session.get(server.url).content == LONG.body
            assert b"".join(session.get(server.url, stream=True).iter_content(1_000)) == LONG.body

    def test_a_slow_reader_is_not_a_slow_server(self):
        """What a caller does between two reads is not waited for."""
        with ScriptedServer(Answer(body=b"x" * 3_000_000)) as server:
            pieces = _session().get(server.url, stream=True).iter_content(1_000_000)
            first = next(pieces)
            assert not threading.Event().wait(0.7)
            assert len(first + b"".join(pieces)) == 3_000_000


class TestAnUpload:
    @pytest.fixture
    def slow_taker(self):
        """Yield the address of a server that takes a byte at a time."""
        over = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)

            def take() -> None:
                with contextlib.suppress(OSError):
                    connection, _ = listening.accept()
                    with connection:
                        while not over.wait(0.01) and connection.recv(1_000):
                            pass

            taking = threading.Thread(target=take, daemon=True)
            taking.start()
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            over.set()
        taking.join()

    def test_that_is_taken_slowly_is_given_up(self, slow_taker):
        fast = Limits(connect_seconds=5, silence_seconds=5, window_seconds=0.3, least_speed=10_000_000)
        with pytest.raises(LostConnectionError, match="the least speed is 10,000,000 bytes a second"):
            bounded_session(Credentials("token"), fast).put(slow_taker, data=b"x" * 64_000_000)

    def test_that_is_taken_arrives_whole(self):
        data = bytes(range(256)) * 10_000
        with ScriptedServer(Answer()) as server:
            _session().put(server.url, data=data)
            assert server.asked[0].body == data

    @pytest.mark.parametrize("data", [[b"one", b"two"], None], ids=["in parts", "nothing"])
    def test_of_other_shapes_is_sent(self, data):
        with ScriptedServer(Answer()) as server:
            assert _session().post(server.url, data=iter(data) if data else None).status_code == 200


class TestATokenServer:
    @pytest.mark.parametrize("fate", ["hang", "drip"])
    def test_that_does_not_finish_is_given_up(self, fate):
        with (
            ScriptedServer(route=lambda _: Answer(body=LONG.body, fate=fate)) as server,
            pytest.raises(Exception, match="timed out"),
        ):
            token_request(SHORT)(url=server.url, method="POST")

    def test_is_asked_through_the_session_s_own_limits(self):
        class Asking(Refreshing):
            def refresh(self, request):
                request(url=server.url + "/token")
                super().refresh(request)

        with (
            ScriptedServer(route=lambda _: Answer(body=LONG.body, fate="drip")) as server,
            pytest.raises(Exception, match="timed out"),
        ):
            bounded_session(Asking(), SHORT).get(server.url)
