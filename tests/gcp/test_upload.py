"""An upload whose session is lost begins anew, and an object is whole or not there.

`Session` plays Cloud Storage's side of the protocol, and does what a test says to one of the requests it gets.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import hashlib
import io
import json
import re
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import pytest
from google.cloud.storage import Client
from google.oauth2.credentials import Credentials

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import ChangedError, InputError, ServiceError
from airflow_vertex_batch.core.landing.files import FileSink
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.landing.sink import land
from airflow_vertex_batch.gcp.replacing import ONE_REQUEST_BYTES
from airflow_vertex_batch.gcp.storage import GcsStore
from airflow_vertex_batch.gcp.upload import BEGINNINGS, COPY_BYTES, Upload
from tests.builders import a_row
from tests.gcp.scripted_server import Answer, ScriptedServer, refused

URI = Uri.parse("gs://b/x.jsonl")
PART = 256 * 1024
SMALL, LARGE = b"0123456789", bytes(range(256)) * (PART // 256 * 2 + 7)


@dataclass
class Session:
    """One object's uploads.

    :param faults: what happens to the n-th request (counted over POST and PUT, from 0), instead of what should.
    """

    faults: dict[int, Answer] = field(default_factory=dict)
    begun: int = 0
    requests: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    kept: bytes = b""
    stored: bytes | None = None
    port: int = 0

    def __call__(self, asked: Any) -> Answer:
        if asked.method not in {"POST", "PUT"}:
            return refused(404)
        number = len(self.requests)
        self.requests.append(asked.method)
        if number in self.faults:
            return self.faults[number]
        if asked.method == "POST":
            self.begun, self.kept = self.begun + 1, b""
            self.conditions.append(asked.query.get("ifGenerationMatch", ""))
            return Answer(headers={"Location": f"http://127.0.0.1:{self.port}/session/{self.begun}"})
        return self._part(asked)

    def _part(self, asked: Any) -> Answer:
        assert asked.path == f"/session/{self.begun}", "a part of a session that was given up"
        start, total = re.fullmatch(r"bytes (\d+|\*)-?\d*/(\d+|\*)", asked.content_range).groups()
        self.kept = self.kept[: int(start if start != "*" else 0)] + (asked.body or b"")
        if total == "*":
            return Answer(308, headers={"Range": f"bytes=0-{len(self.kept) - 1}"})
        self.stored = self.kept
        return Answer(body={"size": str(len(self.stored))} | _checksums(self.stored))


def _checksums(data: bytes) -> dict[str, str]:
    return {
        "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
        "crc32c": base64.b64encode(google_crc32c.Checksum(data).digest()).decode(),
    }


@pytest.fixture
def serve():
    """Return a function that makes a store over a session."""
    with contextlib.ExitStack() as stack:

        def serve(session: Session) -> GcsStore:
            server = stack.enter_context(ScriptedServer(route=session))
            session.port = int(server.url.rpartition(":")[2])
            client = Client("demo", Credentials("token"), client_options={"api_endpoint": server.url})
            return GcsStore(client)

        yield serve


def _write(store: GcsStore, data: bytes, copy_bytes: int = COPY_BYTES) -> None:
    blob = store.client.bucket(URI.bucket).blob(URI.name)
    with Upload(blob, URI, "text/plain", copy_bytes=copy_bytes, chunk_bytes=PART) as stream:
        for start in range(0, len(data), 100_000):
            stream.write(data[start : start + 100_000])


#: What makes a part useless: the service's answers, and parts that it did not keep as they were sent.
LOST = {
    "404": refused(404),
    "410": refused(410),
    "308, nothing kept": Answer(308),
    "308, less kept": Answer(308, headers={"Range": "bytes=0-3"}),
}


class TestASession:
    @pytest.mark.parametrize(("data", "parts"), [(SMALL, 1), (LARGE, 3)], ids=["one part", "three parts"])
    def test_that_works_is_one(self, serve, data, parts):
        store = serve(session := Session())
        _write(store, data)
        assert session.stored == data
        assert session.requests == ["POST"] + ["PUT"] * parts

    @pytest.mark.parametrize("fault", LOST)
    @pytest.mark.parametrize(("data", "number"), [(SMALL, 1), (LARGE, 1), (LARGE, 2), (LARGE, 3)])
    def test_that_is_lost_at_any_part_begins_anew(self, serve, data, number, fault):
        store = serve(session := Session({number: LOST[fault]}))
        _write(store, data)
        assert session.stored == data
        assert session.begun == 2

    @pytest.mark.parametrize(("data", "last"), [(SMALL, 1), (LARGE, 3)], ids=["one part", "three parts"])
    @pytest.mark.parametrize("answer", [Answer(body=_checksums(b"other")), Answer(body=b"<html>")], ids=["other", "?"])
    def test_whose_object_is_not_what_was_sent_begins_anew(self, serve, data, last, answer):
        store = serve(session := Session({last: answer}))
        _write(store, data)
        assert (session.stored, session.begun) == (data, 2)

    def test_that_is_lost_twice_begins_twice(self, serve):
        store = serve(session := Session({1: refused(404), 3: refused(410)}))
        _write(store, SMALL)
        assert (session.stored, session.begun) == (SMALL, 3)

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_that_stumbles_goes_on(self, serve, number):
        """503 and the like are no loss: the same part is sent again."""
        store = serve(session := Session({number: refused(503)}))
        _write(store, LARGE)
        assert (session.stored, session.begun) == (LARGE, 1)

    def test_that_is_lost_each_time_is_an_error_worth_a_retry(self, serve):
        faults = {2 * number + 1: refused(410) for number in range(BEGINNINGS)}
        store = serve(session := Session(faults))
        with pytest.raises(ServiceError, match=f"lost the upload of {URI}.*HTTP 410.*A retry sends it anew") as caught:
            _write(store, SMALL)
        assert caught.value.retryable
        assert (session.begun, session.stored) == (BEGINNINGS, None)

    def test_a_bucket_that_is_missing_is_still_the_user_s_to_mend(self, serve):
        store = serve(session := Session({0: refused(404)}))
        with (
            pytest.raises(
                InputError, match=f"The bucket gs://{URI.bucket} does not exist.*Check the name of the bucket"
            ),
            store.open_write(URI) as stream,
        ):
            stream.write(SMALL)
        assert session.begun == 0

    def test_a_landing_does_not_notice(self, serve):
        """The dead letters go in one request, the answers in a session, whose first part is lost."""
        store = serve(session := Session({2: refused(404)}))
        plan = LandPlan(batch_id="b", partition_date="2026-11-22")
        row = a_row("r1", text="x" * ONE_REQUEST_BYTES)
        land([row], FileSink(store, Uri.parse("gs://b/out"), plan), plan, expected=lambda: 1)
        assert session.begun == 3
        assert json.loads(session.stored)["text"] == row.text


class TestReplacing:
    """What is too large for one request goes in a session, which may be refused at its beginning or at any part."""

    DATA = bytes(range(256)) * (ONE_REQUEST_BYTES // 256 + 3)

    @pytest.mark.parametrize("number", range(6))
    def test_what_is_no_longer_the_version_that_was_read_is_not_replaced(self, serve, number):
        store = serve(session := Session({number: refused(412)}))
        with pytest.raises(ChangedError, match=f"{URI} was replaced"), store.open_replace(URI, "17") as stream:
            stream.writelines(self.DATA[start : start + (1 << 20)] for start in range(0, len(self.DATA), 1 << 20))
        assert session.stored is None

    def test_a_session_names_the_version(self, serve):
        store = serve(session := Session())
        with store.open_replace(URI, "17") as stream:
            stream.write(self.DATA)
        assert session.stored == self.DATA
        assert session.conditions == ["17"]


WRITERS = {
    "lines": lambda stream: stream.writelines(iter([b"a\n", b"b\n"])),
    "text": lambda stream: io.TextIOWrapper(stream, "utf-8").write("a\nb\n"),
    "buffer": lambda stream: io.BufferedWriter(stream).write(b"a\nb\n"),
}


class TestTheStream:
    """It is one of Python's: whatever writes to a file writes to it."""

    @pytest.mark.parametrize("writer", WRITERS)
    def test_takes_what_any_file_takes(self, serve, writer):
        store = serve(session := Session())
        with store.open_write(URI) as stream:
            WRITERS[writer](stream)
            gc.collect()
        assert session.stored == b"a\nb\n"

    @pytest.mark.parametrize("writer", WRITERS)
    def test_that_is_closed_by_a_writer_above_it_leaves_no_trace_of_an_error(self, serve, writer):
        store = serve(session := Session())

        def write_and_fail(stream):
            WRITERS[writer](stream)
            stream.close()
            raise ValueError("wrong row")

        with pytest.raises(ValueError, match="wrong row"), store.open_write(URI) as stream:
            write_and_fail(stream)
        gc.collect()
        assert (session.stored, session.begun) == (None, 0)


class TestTheCopy:
    def test_of_more_than_there_may_be_is_not_kept_and_the_retry_sends_it(self, serve):
        store = serve(session := Session({3: refused(410)}))
        with pytest.raises(ServiceError, match="There was no room for a copy of its 526,080 bytes") as caught:
            _write(store, LARGE, PART)
        assert caught.value.retryable
        assert session.stored is None

    def test_is_not_needed_for_an_upload_that_works(self, serve):
        store = serve(session := Session())
        _write(store, LARGE, PART)
        assert session.stored == LARGE

    def test_does_without_a_temporary_folder(self, serve, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
        store = serve(session := Session())
        _write(store, SMALL)
        assert session.stored == SMALL


class TestASmallObject:
    """What is written once only: by one request, or by a session where it is larger."""

    DATA = b"x" * (9 << 20)

    @pytest.mark.parametrize("status", [404, 410])
    def test_whose_session_is_lost_begins_anew(self, serve, status):
        store = serve(session := Session({1: refused(status)}))
        assert store.write_new(URI, self.DATA)
        assert (session.stored, session.begun) == (self.DATA, 2)

    def test_in_a_bucket_that_is_missing_names_it(self, serve):
        with pytest.raises(InputError, match=f"The bucket gs://{URI.bucket} does not exist"):
            serve(Session({0: refused(404)})).write_new(URI, b"x")


def test_two_copies_fit_beside_the_rest_of_a_small_worker():
    assert 2 * COPY_BYTES <= 512 << 20
