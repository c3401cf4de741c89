"""The store over local files keeps the promises of the port; `tests/gcp` asks the same of Cloud Storage."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import ChangedError, InputError


def _names(store, uri):
    return [info.uri.basename for info in store.list(uri)]


class TestLocalStore:
    def test_what_is_written_is_read(self, local, folder):
        with local.open_write(folder / "a.txt") as stream:
            stream.write(b"hello")
        with local.open_read(folder / "a.txt") as stream:
            assert stream.read() == b"hello"
        assert local.read(folder / "a.txt") == b"hello"

    def test_an_object_appears_whole_or_not_at_all(self, local, folder):
        local.write_new(folder / "a.txt", b"old")
        with contextlib.suppress(ValueError), local.open_write(folder / "a.txt") as stream:
            stream.write(b"new")
            assert local.read(folder / "a.txt") == b"old"
            raise ValueError
        assert local.read(folder / "a.txt") == b"old"
        assert [path.name for path in Path(folder.name).iterdir()] == ["a.txt"]

    def test_a_file_being_written_is_not_listed(self, local, folder):
        with local.open_write(folder / "a.txt"):
            assert _names(local, folder) == []
        assert _names(local, folder) == ["a.txt"]

    def test_exactly_one_of_sixteen_writers_wins(self, local, folder):
        start = threading.Barrier(16)

        def write(number: int) -> bool:
            start.wait()
            return local.write_new(folder / "claim", str(number).encode())

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(write, range(16)))
        assert won.count(True) == 1
        assert local.read(folder / "claim") == str(won.index(True)).encode()

    def test_a_listing_is_in_name_order_and_takes_folders_globs_and_files(self, local, folder):
        for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl", "d.csv"):
            local.write_new(folder / name, b"x" * len(name))
        assert _names(local, folder / "") == ["a.jsonl", "b.jsonl", "d.csv", "c.jsonl"]
        assert _names(local, folder / "*.jsonl") == ["a.jsonl", "b.jsonl"]
        assert _names(local, folder / "**/*.jsonl") == ["a.jsonl", "b.jsonl", "c.jsonl"]
        assert [(str(i.uri), i.size_bytes) for i in local.list(folder / "d.csv")] == [(str(folder / "d.csv"), 5)]
        assert _names(local, folder / "nothing") == []

    def test_reading_what_is_not_there_names_it(self, local, folder):
        with pytest.raises(InputError, match=r"Cannot read .*nothing.*No such file"):
            local.open_read(folder / "nothing")
        assert local.read(folder / "nothing") is None

    def test_deleting_twice_is_deleting_once(self, local, folder):
        local.write_new(folder / "a", b"")
        local.delete(folder / "a")
        local.delete(folder / "a")
        assert _names(local, folder) == []

    def test_a_checksum_changes_with_the_content(self, local, folder):
        uri = Uri.parse(str(folder / "a"))
        local.write_new(uri, b"1")
        before = next(local.list(uri)).checksum
        with local.open_write(uri) as stream:
            stream.write(b"2")
        assert next(local.list(uri)).checksum != before


class TestReplacingOneVersion:
    def test_the_version_that_was_read_is_replaced_and_no_other(self, local, folder):
        uri = folder / "a.txt"
        assert local.version(uri) == ""
        with local.open_replace(uri, "") as stream:
            stream.write(b"one")
        read = local.version(uri)
        with local.open_replace(uri, read) as stream:
            stream.write(b"two")
        for stale in ("", read):
            with pytest.raises(ChangedError, match="was replaced"), local.open_replace(uri, stale) as stream:
                stream.write(b"three")
        assert local.read(uri) == b"two"
        assert [path.name for path in Path(folder.name).iterdir()] == ["a.txt"]

    def test_exactly_one_of_sixteen_writers_wins(self, local, folder):
        uri, start = folder / "a.txt", threading.Barrier(16)
        local.write_new(uri, b"old")
        read = local.version(uri)

        def write(number: int) -> bool:
            start.wait()
            with contextlib.suppress(ChangedError), local.open_replace(uri, read) as stream:
                stream.write(f"{number:03}".encode())
                return True
            return False

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(write, range(16)))
        assert won.count(True) == 1
        assert local.read(uri) == f"{won.index(True):03}".encode()
