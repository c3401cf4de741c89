"""Objects in Cloud Storage, against a running server: whole or not at all, one winner, names in every message."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google.cloud.storage import Client
from google.oauth2.credentials import Credentials

from airflow_vertex_batch.__main__ import main
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import InputError, LogError, ServiceError
from airflow_vertex_batch.core.landing.files import FileSink
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.landing.sink import land
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.requests.request import RequestTemplate
from airflow_vertex_batch.core.requests.sources import Files, Objects, Rows
from airflow_vertex_batch.gcp.storage import CHUNK_BYTES, GcsStore, glob_pattern
from tests.builders import a_failed_output, a_log, a_request, a_row, an_output, jsonl
from tests.fakes import MemoryWarehouse
from tests.gcp.scripted_server import Answer, ScriptedServer, refused


def _put(store: GcsStore, uri: Uri, data: bytes = b"x", content_type: str = "application/x-ndjson") -> None:
    with store.open_write(uri, content_type) as stream:
        stream.write(data)


def _names(store: GcsStore, uri: Uri) -> list[str]:
    return [info.uri.name for info in store.list(uri)]


class TestWriting:
    def test_what_is_written_is_read(self, gcs, bucket):
        _put(gcs, bucket / "a/b.txt", b"hello\nworld\n")
        with gcs.open_read(bucket / "a/b.txt") as stream:
            assert list(stream) == [b"hello\n", b"world\n"]
        assert gcs.read(bucket / "a/b.txt") == b"hello\nworld\n"

    def test_an_object_larger_than_one_chunk(self, gcs, bucket):
        block = os.urandom(1 << 20)
        with gcs.open_write(bucket / "big") as stream:
            for _ in range(CHUNK_BYTES // len(block) + 3):
                stream.write(block)
        with gcs.open_read(bucket / "big") as stream:
            assert all(stream.read(len(block)) == block for _ in range(CHUNK_BYTES // len(block) + 3))
            assert stream.read() == b""

    def test_an_empty_object_is_an_object(self, gcs, bucket):
        _put(gcs, bucket / "empty", b"")
        assert gcs.read(bucket / "empty") == b""

    @pytest.mark.parametrize("size", [10, CHUNK_BYTES + 10], ids=["within a chunk", "after a chunk was sent"])
    def test_an_object_appears_whole_or_not_at_all(self, gcs, bucket, size):
        _put(gcs, bucket / "old", b"old")
        for name in ("old", "new"):
            with contextlib.suppress(ValueError), gcs.open_write(bucket / name) as stream:
                stream.write(b"x" * size)
                raise ValueError
        assert gcs.read(bucket / "old") == b"old"
        assert gcs.read(bucket / "new") is None
        assert _names(gcs, bucket) == ["old"]

    def test_an_object_is_replaced(self, gcs, bucket):
        _put(gcs, bucket / "a", b"one")
        _put(gcs, bucket / "a", b"two")
        assert gcs.read(bucket / "a") == b"two"

    def test_deleting_twice_is_deleting_once(self, gcs, bucket):
        _put(gcs, bucket / "a")
        gcs.delete(bucket / "a")
        gcs.delete(bucket / "a")
        assert _names(gcs, bucket) == []

    @pytest.mark.parametrize(
        "name",
        ["ä ö/é😀.txt", "a b+c.txt", "question?hash#percent%.txt", "colon:2026-11-22T00:00:00.000001Z/x", "a'b\"c"],
    )
    def test_any_name_will_do(self, gcs, bucket, name):
        _put(gcs, bucket / name, b"1")
        assert gcs.read(bucket / name) == b"1"
        assert _names(gcs, bucket) == [name]


class TestWriteNew:
    def test_it_writes_once(self, gcs, bucket):
        assert gcs.write_new(bucket / "claim", b"one")
        assert not gcs.write_new(bucket / "claim", b"two")
        assert gcs.read(bucket / "claim") == b"one"

    def test_our_own_content_is_ours(self, gcs, bucket):
        """The client repeats an upload whose answer was lost; the repeat then meets our own object."""
        assert gcs.write_new(bucket / "claim", b"one")
        assert gcs.write_new(bucket / "claim", b"one")

    @pytest.mark.parametrize("round_number", range(3))
    def test_exactly_one_of_sixteen_writers_wins(self, gcs, bucket, round_number):
        start, claim = threading.Barrier(16), bucket / f"claim-{round_number}"

        def write(number: int) -> bool:
            start.wait()
            return gcs.write_new(claim, str(number).encode())

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(write, range(16)))
        assert won.count(True) == 1
        assert gcs.read(claim) == str(won.index(True)).encode()


class TestListing:
    @pytest.fixture
    def filled(self, gcs, bucket):
        for name in ("in/b.jsonl", "in/a.jsonl", "in/sub/c.jsonl", "in/d.csv", "inner/e.jsonl", "x[1].txt"):
            _put(gcs, bucket / name, b"12345")
        return bucket

    @pytest.mark.parametrize(
        ("pattern", "names"),
        [
            ("in/", ["in/a.jsonl", "in/b.jsonl", "in/d.csv", "in/sub/c.jsonl"]),
            ("in", ["in/a.jsonl", "in/b.jsonl", "in/d.csv", "in/sub/c.jsonl", "inner/e.jsonl"]),
            ("in/*.jsonl", ["in/a.jsonl", "in/b.jsonl"]),
            ("in/**/*.jsonl", ["in/a.jsonl", "in/b.jsonl", "in/sub/c.jsonl"]),
            ("**/*.jsonl", ["in/a.jsonl", "in/b.jsonl", "in/sub/c.jsonl", "inner/e.jsonl"]),
            ("in/?.jsonl", ["in/a.jsonl", "in/b.jsonl"]),
            ("in/[b-z].*", ["in/b.jsonl", "in/d.csv"]),
            ("in/[!a].jsonl", ["in/b.jsonl"]),
            ("*/d.csv", ["in/d.csv"]),
            ("in/a.jsonl", ["in/a.jsonl"]),
            ("none/", []),
        ],
    )
    def test_prefixes_and_globs_in_name_order(self, gcs, filled, pattern, names):
        assert _names(gcs, Uri("gs", filled.bucket, pattern)) == names

    def test_a_listing_tells_size_type_and_checksum(self, gcs, bucket):
        _put(gcs, bucket / "a.png", b"12345", "image/png")
        (before,) = gcs.list(bucket)
        assert (str(before.uri), before.size_bytes, before.content_type) == (
            f"gs://{bucket.bucket}/a.png",
            5,
            "image/png",
        )
        _put(gcs, bucket / "a.png", b"54321")
        (after,) = gcs.list(bucket)
        assert "" != before.checksum != after.checksum

    def test_more_objects_than_one_page(self, gcs, bucket):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: gcs.write_new(bucket / f"{n:04d}", b""), range(1_010)))
        assert _names(gcs, bucket) == [f"{n:04d}" for n in range(1_010)]

    def test_a_placeholder_of_a_folder_is_no_object(self, gcs, bucket, storage_client):
        storage_client.bucket(bucket.bucket).blob("folder/").upload_from_string(b"")
        _put(gcs, bucket / "folder/a")
        assert _names(gcs, bucket / "folder/") == ["folder/a"]

    @pytest.mark.parametrize(
        ("pattern", "name", "matches"),
        [
            ("a/*.txt", "a/b.txt", True),
            ("a/*.txt", "a/b/c.txt", False),
            ("a/**.txt", "a/b/c.txt", True),
            ("a/**/c.txt", "a/c.txt", True),
            ("a/?", "a/é", True),
            ("a/?", "a//", False),
            ("a.txt*", "axtxt", False),
            ("[ab]*", "bcd", True),
            ("[)]x*", ")xy", True),
            ("(a)*", "(a)b", True),
            ("*", "a\nb", True),
        ],
    )
    def test_a_glob_stays_within_its_segment(self, pattern, name, matches):
        assert (glob_pattern(pattern).fullmatch(name) is not None) is matches


class TestMissing:
    @pytest.mark.parametrize("where", ["object", "bucket"])
    def test_reading_what_is_not_there_names_it(self, gcs, bucket, where):
        uri = bucket / "none.jsonl" if where == "object" else Uri("gs", "no-such-bucket-here", "none.jsonl")
        with (
            pytest.raises(InputError, match=rf"{uri} does not exist.*Check the name of the bucket and of the object"),
            gcs.open_read(uri) as stream,
        ):
            stream.read()
        assert gcs.read(uri) is None

    def test_writing_into_a_bucket_that_is_not_there_names_it(self, gcs):
        uri = Uri("gs", "no-such-bucket-here", "x.jsonl")
        with pytest.raises(InputError, match=r"The bucket gs://no-such-bucket-here does not exist.*or make the bucket"):
            _put(gcs, uri)
        with pytest.raises(InputError, match=r"The bucket gs://no-such-bucket-here does not exist.*or make the bucket"):
            gcs.write_new(uri, b"x")

    def test_listing_a_bucket_that_is_not_there_names_it(self, gcs):
        with pytest.raises(InputError, match="The bucket gs://no-such-bucket-here does not exist"):
            _names(gcs, Uri("gs", "no-such-bucket-here", "x"))


class TestErrors:
    """A server that refuses: statuses and messages are ours."""

    URI = Uri.parse("gs://b/x")

    def test_a_delete_is_repeated_too(self):
        deletes = [refused(503), Answer(204, b"")]
        with ScriptedServer(route=lambda asked: deletes.pop(0) if asked.method == "DELETE" else Answer()) as server:
            self._store(server).delete(self.URI)
        assert deletes == []

    @staticmethod
    def _store(server: ScriptedServer) -> GcsStore:
        return GcsStore(
            Client(project="demo", credentials=Credentials("token"), client_options={"api_endpoint": server.url})
        )

    @pytest.mark.parametrize(
        "use",
        [
            lambda store, uri: store.read(uri),
            lambda store, uri: store.write_new(uri, b"x"),
            lambda store, uri: store.delete(uri),
            lambda store, uri: list(store.list(uri)),
            _put,
        ],
        ids=["read", "write_new", "delete", "list", "open_write"],
    )
    def test_a_missing_right_says_which_role_to_grant(self, use):
        with (
            ScriptedServer(route=lambda _: refused(403, message="No access")) as server,
            pytest.raises(ServiceError, match=r"^Cloud Storage refused gs://b/x with HTTP 403") as caught,
        ):
            use(self._store(server), self.URI)
        assert caught.value.status == 403
        assert "roles/storage.objectUser" in str(caught.value)

    def test_an_upload_that_failed_is_not_sent_by_the_garbage_collector(self):
        """Google's writer sends what it still holds when it is collected; the object would appear after all."""
        with ScriptedServer(route=lambda _: refused(403)) as server:
            with pytest.raises(ServiceError, match="HTTP 403"):
                _put(self._store(server), self.URI)
            uploads = [asked for asked in server.asked if asked.method == "POST"]
            gc.collect()
            assert [asked for asked in server.asked if asked.method == "POST"] == uploads

    def test_an_expired_login_is_ours_too(self):
        with (
            ScriptedServer(route=lambda _: refused(401)) as server,
            pytest.raises(ServiceError, match=r"No credentials for gs://b/x"),
        ):
            self._store(server).read(self.URI)

    def test_a_closed_log_sends_nothing(self):
        with (
            ScriptedServer(route=lambda _: refused(403)) as server,
            pytest.raises(LogError, match=r"cannot be read.*HTTP 403.*Nothing was sent"),
        ):
            a_log(self._store(server)).entries()

    @pytest.mark.parametrize(("there", "ours"), [(b"mine", True), (b"theirs", False)], ids=["ours", "another writer's"])
    def test_an_upload_whose_answer_was_lost_is_ours_when_its_repeat_meets_it(self, there, ours):
        """503 after the commit: the client sends again, and is told that the object exists. Whose is it?"""
        uploads = [refused(503), refused(412, "conditionNotMet")]

        def route(asked):
            if asked.method == "POST":
                return uploads.pop(0)
            return Answer(body=there) if asked.path.startswith("/download/") else Answer()

        with ScriptedServer(route=route) as server:
            assert self._store(server).write_new(self.URI, b"mine") is ours
        assert uploads == []


class TestOneStoreForAll:
    def test_local_files_go_to_disk(self, gcs, tmp_path):
        uri = Uri.parse(str(tmp_path / "a.txt"))
        _put(gcs, uri, b"hello")
        assert Path(uri.name).read_bytes() == gcs.read(uri) == b"hello"
        assert not gcs.write_new(uri, b"other")
        assert [str(info.uri) for info in gcs.list(Uri.parse(str(tmp_path)))] == [str(uri)]
        with gcs.open_read(uri) as stream:
            assert stream.read() == b"hello"
        gcs.delete(uri)
        assert gcs.read(uri) is None

    def test_no_client_is_made_for_local_files(self, tmp_path, monkeypatch):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none"))
        assert GcsStore().read(Uri.parse(str(tmp_path / "x"))) is None

    def test_the_environment_names_the_server(self, monkeypatch, storage_url, bucket):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
        assert GcsStore().write_new(bucket / "a", b"x")


class TestTheEngineOnTheServer:
    """What the core's tests show over memory holds over a server."""

    def test_prepare_twice_is_prepare_once(self, gcs, bucket):
        def run(token: str):
            rows = Rows({"id": f"k{n}", "text": f"text {n}"} for n in range(500)).rows(gcs, MemoryWarehouse())
            plan = PreparePlan(
                template=RequestTemplate(prompt="{{ text }}"), key_column="id", columns=("id",), max_requests=200
            )
            return prepare(rows, plan, gcs, bucket / "run", token)

        first, before = run("one"), None
        before = _names(gcs, bucket)
        assert run("two") == first
        assert _names(gcs, bucket) == before
        assert [shard.request_count for shard in first.shards] == [200, 200, 100]

    def test_a_failed_prepare_leaves_nothing(self, gcs, bucket):
        def rows():
            yield from ({"text": f"text {n}"} for n in range(1_500))
            yield {"wrong": "column"}

        plan = PreparePlan(template=RequestTemplate(prompt="{{ text }}"), max_requests=1_000)
        with pytest.raises(InputError, match="1 row cannot be sent"):
            prepare(Rows(rows()).rows(gcs, MemoryWarehouse()), plan, gcs, bucket / "run", "one")
        assert _names(gcs, bucket) == []

    @pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
    def test_landing_twice_is_landing_once_and_an_error_lands_nothing(self, gcs, bucket, file_format):
        plan = LandPlan(batch_id="b", partition_date="2026-11-22")
        rows = [a_row(f"r{n}", text=f"answer {n}") for n in range(3_000)]

        def run(source):
            return land(source, FileSink(gcs, bucket / "answers", plan, file_format), plan, expected=lambda: 3_000)

        def broken():
            yield from rows
            raise ServiceError("gone", status=503)

        with pytest.raises(ServiceError, match="gone"):
            run(broken())
        gc.collect()  # an abandoned writer must not complete its object when it is collected
        assert _names(gcs, bucket) == []
        first = {info.uri.name: info.checksum for info in gcs.list(bucket)} if run(rows) else {}
        run(rows)
        assert {info.uri.name: info.checksum for info in gcs.list(bucket)} == first
        assert len(first) == 2

    def test_media_and_files_are_sources(self, gcs, bucket):
        _put(gcs, bucket / "img/a.png", b"123", "image/png")
        _put(gcs, bucket / "img/b", b"", "image/webp")
        rows = [row for _, _, row in Objects(str(bucket / "img/")).rows(gcs, MemoryWarehouse())]
        assert [(row["name"], row["mime_type"]) for row in rows] == [("a.png", "image/png"), ("b", "image/webp")]
        _put(gcs, bucket / "rows.csv", b"a,b\n1,x\n")
        assert [row for _, _, row in Files((str(bucket / "*.csv"),)).rows(gcs, MemoryWarehouse())] == [
            {"a": "1", "b": "x"}
        ]


class TestCommandLine:
    """`airflow-vertex-batch report` over objects; the rest of the command line is in tests/core."""

    def test_objects_are_read_by_folder(self, capsys, monkeypatch, gcs, bucket, storage_url):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
        _put(gcs, bucket / "out/predictions.jsonl", jsonl(an_output("a"), a_failed_output("b")))
        assert main(["report", "--format", "json", str(bucket / "out/")]) == 0
        assert json.loads(capsys.readouterr().out)["statuses"] == {"succeeded": 1, "failed": 1}

    def test_request_files_are_cured_into_copies_beside_them(self, capsys, monkeypatch, gcs, bucket, storage_url):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
        _put(gcs, bucket / "in/requests.jsonl", b"\r\n" + jsonl({"key": 7, "request": a_request()}))
        assert main(["lint", "--fix", str(bucket / "in/*.jsonl")]) == 0
        assert json.loads(gcs.read(bucket / "in/requests.fixed.jsonl"))["key"] == "row-7"
        assert main(["lint", "--fix", str(bucket / "in/requests.jsonl"), "--output", str(bucket / "out/")]) == 0
        assert json.loads(gcs.read(bucket / "out/requests.jsonl"))["key"] == "row-7"

    def test_no_credentials_is_status_2_not_a_traceback(self, capsys, monkeypatch, tmp_path):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
        assert main(["report", "gs://bucket/predictions.jsonl"]) == 2
        assert "gcloud auth application-default login" in capsys.readouterr().err
