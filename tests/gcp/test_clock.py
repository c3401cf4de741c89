"""The store tells its own time: by the header of its answers, whatever this machine's clock says."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.core.purchase.entries import Part
from airflow_vertex_batch.core.purchase.log import BatchLog
from airflow_vertex_batch.gcp.clock import ServerClock
from airflow_vertex_batch.gcp.storage import GcsStore
from tests.builders import an_identity

FOLDER = Uri.parse("gs://b/staging")


class Server(ThreadingHTTPServer):
    """An empty bucket whose clock differs from this machine's.

    :param apart: seconds; None for a server that tells no time.
    """

    def __init__(self, apart: float | None) -> None:
        outer = self
        self.apart, self.asked = apart, 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                # The client itself also asks about the bucket, once, beside what it is asked to do.
                outer.asked += "/o?" in self.path
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"items": []}')

            def send_header(self, keyword, value):
                if keyword != "Date" or outer.apart is not None:
                    super().send_header(keyword, value)

            def date_time_string(self, timestamp=None):
                return super().date_time_string(time.time() + (outer.apart or 0.0))

            def log_message(self, *_args):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def store(self) -> GcsStore:
        options = {"api_endpoint": f"http://127.0.0.1:{self.server_address[1]}"}
        return GcsStore(Client(project="demo", credentials=AnonymousCredentials(), client_options=options))


@pytest.fixture
def server():
    """Start a server, and stop it."""
    started = []

    def start(apart):
        started.append(Server(apart))
        return started[-1]

    yield start
    for one in started:
        one.shutdown()
        one.server_close()


@pytest.mark.parametrize("apart", [-600, 0, 600], ids=["behind", "alike", "ahead"])
class TestTheStore:
    def test_tells_its_servers_time_and_not_this_machine_s(self, server, apart):
        told = server(apart).store().now(FOLDER)
        assert abs(told - datetime.now(UTC) - timedelta(seconds=apart)) < timedelta(seconds=60)

    def test_asks_once_where_it_has_not_heard_the_time(self, server, apart):
        one = server(apart)
        store = one.store()
        for _ in range(3):
            store.now(FOLDER)
        assert one.asked == 1

    def test_a_log_that_was_read_has_the_time_for_nothing(self, server, apart):
        one = server(apart)
        log = BatchLog(one.store(), an_identity(staging=str(FOLDER)), "1:a").of_job(Part())
        assert log.entries() == ()
        entry = log.intent("f")
        assert one.asked == 1
        assert abs(entry.at - datetime.now(UTC) - timedelta(seconds=apart)) < timedelta(seconds=60)


def test_a_server_without_a_time_is_an_error_and_no_guess(server):
    with pytest.raises(ServiceError, match=r"does not tell its time.*no Date header.*Look for a proxy"):
        server(None).store().now(FOLDER)


def test_a_disk_has_the_time_of_its_machine(local, folder):
    assert abs(local.now(folder) - datetime.now(UTC)) < timedelta(seconds=60)


def test_the_real_local_server_tells_it(gcs, bucket, storage_url):
    before = _told(storage_url)
    assert before - timedelta(seconds=1) <= gcs.now(bucket) <= _told(storage_url) + timedelta(seconds=1)


def _told(url):
    """Return the time of an answer, which has whole seconds."""
    return parsedate_to_datetime(requests.get(url, timeout=300).headers["Date"])


def _answer(date):
    return SimpleNamespace(headers={"Date": date} if date else {})


class TestTheClock:
    """The last answer's time, carried on by seconds that only grow."""

    def clock(self):
        self.ticks = 100.0
        return ServerClock(lambda: self.ticks)

    def test_goes_on_between_two_answers(self):
        clock = self.clock()
        clock.note_time(_answer("Sun, 22 Nov 2026 02:00:00 GMT"))
        self.ticks += 90
        assert clock.now() == datetime(2026, 11, 22, 2, 1, 30, tzinfo=UTC)

    @pytest.mark.parametrize("asleep", [35, 7200])
    def test_is_not_turned_back_by_an_answer_that_is_read_late(self, asleep):
        """A process is stopped after its request; the answer has waited for it since."""
        clock = self.clock()
        clock.note_time(_answer("Sun, 22 Nov 2026 02:00:00 GMT"))
        self.ticks += asleep
        clock.note_time(_answer("Sun, 22 Nov 2026 02:00:00 GMT"))
        assert clock.now() == datetime(2026, 11, 22, 2, tzinfo=UTC) + timedelta(seconds=asleep)

    def test_is_put_right_by_the_next_answer(self):
        clock = self.clock()
        clock.note_time(_answer("Sun, 22 Nov 2026 02:00:00 GMT"))
        self.ticks += 1
        clock.note_time(_answer("Sun, 22 Nov 2026 02:00:09 GMT"))
        assert clock.now() == datetime(2026, 11, 22, 2, 0, 9, tzinfo=UTC)

    def test_knows_nothing_before_an_answer_nor_long_after_one(self):
        clock = self.clock()
        assert clock.now() is None
        clock.note_time(_answer("Sun, 22 Nov 2026 02:00:00 GMT"))
        self.ticks += 3601
        assert clock.now() is None

    @pytest.mark.parametrize("date", ["", "yesterday"])
    def test_an_answer_without_a_time_is_no_news(self, date):
        clock = self.clock()
        clock.note_time(_answer("Sun, 22 Nov 2026 02:00:00 GMT"))
        clock.note_time(_answer(date))
        assert clock.now() == datetime(2026, 11, 22, 2, tzinfo=UTC)
