"""All bytes of an object are of one version, in Cloud Storage and on disk, or the reader is told."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import pyarrow as pa
import pytest
from google.cloud.storage import Client
from google.oauth2.credentials import Credentials
from pyarrow import parquet

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import ChangedError, InputError, ServiceError
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.requests.request import RequestTemplate
from airflow_vertex_batch.core.requests.sources import Files, Requests
from airflow_vertex_batch.gcp.limits import Limits
from airflow_vertex_batch.gcp.reading import open_pinned
from airflow_vertex_batch.gcp.storage import CHUNK_BYTES, GcsStore
from airflow_vertex_batch.gcp.transport import bounded_session
from tests.builders import jsonl
from tests.fakes import MemoryWarehouse
from tests.gcp.scripted_server import Answer, ScriptedServer, refused

SHORT = Limits(silence_seconds=0.3, window_seconds=0.3, least_speed=10_000)


def _put(store, uri, data=b"x"):
    with store.open_write(uri) as stream:
        stream.write(data)


def _opened(gcs, uri, version="", chunk_bytes=10):
    """Open with small pieces: the buffer above them would else hold all of a small object."""
    return open_pinned(gcs.client.bucket(uri.bucket).blob(uri.name), uri, version, chunk_bytes)


def _read_on(stream, change):
    assert stream.readline() == b"old\n"
    change()
    stream.read()


class TestAnObject:
    def test_is_read_in_pieces_from_wherever_one_likes(self, gcs, bucket):
        _put(gcs, bucket / "a", bytes(range(100)))
        with _opened(gcs, bucket / "a") as stream:
            assert stream.read() == bytes(range(100))
            assert [stream.seek(95), *stream.read(), stream.read()] == [95, 95, 96, 97, 98, 99, b""]
            assert (stream.seek(-3, io.SEEK_END), stream.read(1), stream.tell()) == (97, bytes([97]), 98)
            assert (stream.seek(-2, io.SEEK_CUR), stream.read(1)) == (96, bytes([96]))
            assert (stream.seek(1_000), stream.read()) == (1_000, b"")

    def test_that_is_empty_is_read(self, gcs, bucket):
        _put(gcs, bucket / "a", b"")
        with gcs.open_read(bucket / "a") as stream:
            assert stream.read() == b""

    @pytest.mark.parametrize("then", ["replaced", "replaced by less", "deleted"])
    def test_that_changes_between_two_pieces_is_an_error_that_names_it(self, gcs, bucket, then):
        uri, other = bucket / "a", b"new\n" * (5 if "less" in then else 5_000_000)
        _put(gcs, uri, b"old\n" * (CHUNK_BYTES // 4 + 5))
        with (
            pytest.raises(ChangedError, match=f"{uri} was replaced or deleted while it was read.*A retry"),
            gcs.open_read(uri) as stream,
        ):
            _read_on(stream, lambda: gcs.delete(uri) if then == "deleted" else _put(gcs, uri, other))

    @pytest.mark.parametrize("then", ["replaced", "deleted"])
    def test_that_changes_between_listing_and_reading_is_one_too(self, gcs, bucket, then):
        _put(gcs, bucket / "a", b"old")
        (info,) = gcs.list(bucket / "a")
        gcs.delete(info.uri) if then == "deleted" else _put(gcs, info.uri, b"new")
        with pytest.raises(ChangedError, match="was replaced or deleted"), gcs.open_read(info.uri, info.version):
            pytest.fail("it was opened")

    def test_a_change_is_worth_a_retry(self):
        assert ChangedError("x").retryable

    def test_that_stalls_is_read_on_from_where_it_stopped_in_the_same_version(self):
        """The first answer stops in the middle; what is asked for next is the rest, of the generation that began."""
        data = b"0123456789abcdef" * 3_072

        def route(asked):
            if asked.query.get("alt") != "media":
                return Answer(body={"size": str(len(data)), "generation": "7", "name": "x"})
            first = len(ranges) == 0
            ranges.append(asked)
            if first:
                return Answer(206, data, {"x-goog-generation": "7"}, fate="stall")
            start = int(asked.range.removeprefix("bytes=").partition("-")[0])
            return Answer(206, data[start:], {"x-goog-generation": "7"})

        ranges: list = []
        with ScriptedServer(route=route) as server:
            client = Client("demo", Credentials("token"), bounded_session(Credentials("token"), SHORT),
                            client_options={"api_endpoint": server.url})  # fmt: skip
            with GcsStore(client).open_read(Uri.parse("gs://b/x")) as stream:
                assert stream.read() == data
        assert [asked.query["ifGenerationMatch"] for asked in ranges] == ["7", "7"]
        assert ranges[1].query["generation"] == "7"
        assert ranges[1].range == f"bytes={len(data) // 2}-{len(data) - 1}"

    @pytest.mark.parametrize("status", [412, 404, 416])
    def test_whatever_the_service_says_of_a_version_that_is_gone(self, status):
        def route(asked):
            if asked.query.get("alt") == "media":
                return refused(status)
            return Answer(body={"size": "100", "generation": "7", "name": "x"})

        with (
            ScriptedServer(route=route) as server,
            pytest.raises(ChangedError, match="gs://b/x was replaced"),
            _scripted(server).open_read(Uri.parse("gs://b/x")) as stream,
        ):
            stream.read()

    def test_an_answer_that_is_not_the_piece_that_was_asked_for_is_no_data(self):
        """A server, or a proxy, that knows no ranges sends the whole, again and again."""

        def route(asked):
            data = b"x" * 300 if asked.query.get("alt") == "media" else {"size": "100", "generation": "7", "name": "x"}
            return Answer(body=data)

        with (
            ScriptedServer(route=route) as server,
            pytest.raises(ServiceError, match=r"sent 300 bytes of gs://b/x where 100 were asked for"),
            _scripted(server).open_read(Uri.parse("gs://b/x")) as stream,
        ):
            stream.read()


def _stored(data, encoding):
    """An object as Cloud Storage keeps it: its parts are those of the stored bytes."""

    def route(asked):
        if asked.query.get("alt") != "media":
            return Answer(body={"size": str(len(data)), "generation": "7", "name": "x", "contentEncoding": encoding})
        first, last = map(int, asked.range.removeprefix("bytes=").split("-"))
        assert asked.query["ifGenerationMatch"] == "7"
        return Answer(206, data[first : last + 1], {"x-goog-generation": "7", "Content-Encoding": encoding})

    return ScriptedServer(route=route)


class TestAnObjectWithAnEncoding:
    """What `gcloud storage cp --gzip-local` leaves: a plain name, and packed bytes."""

    URI = Uri.parse("gs://b/x.jsonl")
    LINES = tuple({"text": os.urandom(400_000).hex()} for _ in range(8))

    def test_is_read_as_what_it_holds(self):
        with _stored(packed := gzip.compress(jsonl(*self.LINES)), "gzip") as server:
            with _scripted(server).open_read(self.URI) as stream:
                assert stream.read() == jsonl(*self.LINES)
                assert (stream.seek(2), stream.read(4)) == (2, b"text")
            assert len(packed) > CHUNK_BYTES

    @pytest.mark.parametrize("data", [gzip.compress(b"x" * 1_000)[:-9], b'{"text": "plain"}\n'], ids=["cut", "plain"])
    def test_that_is_not_so_is_the_user_s_to_mend(self, data):
        with (
            _stored(data, "gzip") as server,
            pytest.raises(InputError, match=r"gs://b/x\.jsonl is stored with Content-Encoding: gzip, but"),
            _scripted(server).open_read(self.URI) as stream,
        ):
            stream.read()

    def test_that_is_not_known_is_refused_at_once(self):
        with (
            _stored(b"x", "br") as server,
            pytest.raises(
                InputError, match=r"Content-Encoding: br, which is not unpacked here.*Store it plain"
            ) as caught,
            _scripted(server).open_read(self.URI),
        ):
            pytest.fail("it was opened")
        assert not caught.value.retryable


def _scripted(server):
    client = Client("demo", Credentials("token"), client_options={"api_endpoint": server.url})
    return GcsStore(client)


class TestAFile:
    """On local disk."""

    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(jsonl({"text": "old"}) * 100)
        return path

    @pytest.mark.parametrize("then", ["written into", "appended to", "emptied"])
    def test_that_changes_while_it_is_read_is_an_error_that_names_it(self, local, path, then):
        with pytest.raises(ChangedError, match=rf"{path} was changed while"), local.open_read(_uri(path)):
            _change(path, then)

    def test_a_wrong_line_of_it_is_the_change_s_fault(self, local, path):
        with pytest.raises(ChangedError, match="was changed"), local.open_read(_uri(path)):
            int(_change(path, "emptied"))

    def test_that_is_replaced_is_read_to_its_end(self, local, path):
        with local.open_read(_uri(path)) as stream:
            _put(local, _uri(path), b"new")
            assert stream.read().count(b"old") == 100

    def test_that_changes_between_listing_and_reading_is_an_error(self, local, path):
        (info,) = local.list(_uri(path))
        _put(local, _uri(path), b"new")
        with pytest.raises(ChangedError, match="was changed"), local.open_read(info.uri, info.version):
            pytest.fail("it was opened")

    def test_a_pipe_has_no_version(self, local):
        read, write = os.pipe()
        with os.fdopen(write, "wb") as stream:
            stream.write(b"hello")
        with local.open_read(_uri(f"/dev/fd/{read}")) as stream:
            assert stream.read() == b"hello"
        os.close(read)


def _change(path, then):
    size = path.stat().st_size
    with path.open("ab" if then == "appended to" else "r+b") as writing:
        writing.truncate(0) if then == "emptied" else writing.write(b"new")
    # The clock of files ticks in milliseconds.
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1 + size))
    return "no number"


def _uri(path):
    return Uri.parse(str(path))


def _parquet(rows):
    stream = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


FORMATS = {
    "jsonl": lambda rows: jsonl(*rows),
    "jsonl.gz": lambda rows: gzip.compress(jsonl(*rows)),
    "csv": lambda rows: ("text\n" + "".join(f"{row['text']}\n" for row in rows)).encode(),
    "parquet": _parquet,
}


class TestASource:
    """Whatever its format: the set of files is the one that was listed, or the task says otherwise."""

    @pytest.mark.parametrize("ending", FORMATS)
    @pytest.mark.parametrize("where", ["cloud", "disk"])
    def test_replaced_while_the_file_before_it_is_read_fails_and_nothing_is_prepared(
        self, gcs, bucket, tmp_path, ending, where
    ):
        folder = bucket / "in" if where == "cloud" else _uri(tmp_path / "in")
        make = FORMATS[ending]
        for name in "ab":
            _put(gcs, folder / f"{name}.{ending}", make([{"text": f"{name} old {n}"} for n in range(5)]))

        def rows():
            for number, placed in enumerate(Files((str(folder / f"*.{ending}"),)).rows(gcs, MemoryWarehouse())):
                if number == 2:
                    _put(gcs, folder / f"b.{ending}", make([{"text": f"b new {n}"} for n in range(5)]))
                yield placed

        plan = PreparePlan(template=RequestTemplate(prompt="{{ text }}"))
        with pytest.raises(ChangedError, match=rf"b\.{ending} was (replaced|changed)"):
            prepare(rows(), plan, gcs, bucket / "run", "one")
        assert list(gcs.list(bucket / "run")) == []

    def test_so_do_request_files(self, gcs, bucket):
        for name in "ab":
            _put(gcs, bucket / f"{name}.jsonl", jsonl({"request": {"contents": []}}))
        rows = Requests((str(bucket / "*.jsonl"),)).rows(gcs, MemoryWarehouse())
        next(rows)
        _put(gcs, bucket / "b.jsonl", jsonl({"request": {}}))
        with pytest.raises(ChangedError, match=r"b\.jsonl was replaced"):
            list(rows)

    def test_a_file_that_is_cut_off_is_still_the_user_s_to_mend(self, gcs, bucket):
        _put(gcs, bucket / "a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 100)[:-20])
        with pytest.raises(InputError, match=r"a\.jsonl\.gz cannot be read"):
            list(Files((str(bucket / "*.gz"),)).rows(gcs, MemoryWarehouse()))


def test_no_descriptor_is_left_open(local, tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with local.open_read(_uri(tmp_path / "a")) as stream:
            stream.read()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
