"""A temporary folder that is full, missing or read-only is named, with what it needs; by real limits of the system."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
import subprocess
import sys
import tempfile
from io import SEEK_END
from pathlib import Path

import pytest

from airflow_vertex_batch.core.domain.errors import DiskError, InputError
from airflow_vertex_batch.core.domain.temporary import temporary_database, temporary_file

ROOT = Path(__file__).parents[2]


@pytest.fixture
def little_room():
    """Let no file grow beyond 100 KB: to the writer, the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestAFile:
    def test_is_read_as_it_was_written_and_has_no_name(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with temporary_file("some room") as file:
            file.write(b"hello\nworld\n")
            file.seek(0)
            assert [*file] == [b"hello\n", b"world\n"]
            assert list(tmp_path.iterdir()) == []

    @pytest.mark.usefixtures("little_room")
    @pytest.mark.parametrize("step", ["write", "move"])
    def test_without_room_says_which_folder_how_much_there_is_and_what_it_needs(self, step):
        """What waits in memory is written by whichever call comes next."""
        file = temporary_file("as much as two batches")
        file.write(b"x" * 90_000)
        file.seek(0, SEEK_END)
        match = (
            rf"The temporary folder {tempfile.gettempdir()} cannot be written.*too large; 0\.1 MB of it were written"
            r".*MB are free there.*It needs as much as two batches.*TMPDIR"
        )
        with pytest.raises(DiskError, match=match) as caught:
            file.write(b"x" * 300_000) if step == "write" else file.write(b"x" * 20_000) and file.seek(0)
        assert caught.value.retryable
        with contextlib.suppress(DiskError):
            file.close()


class TestADatabase:
    def test_keeps_what_it_is_given(self):
        with temporary_database("some room", cache_kb=100) as database:
            database.execute("CREATE TABLE t (a)")
            database.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(3)])
            assert list(database.execute("SELECT sum(a) FROM t")) == [(3,)]

    @pytest.mark.usefixtures("little_room")
    def test_without_room_says_so(self):
        full = pytest.raises(DiskError, match=rf"temporary folder {tempfile.gettempdir()}.*It needs ten bytes a row")
        with temporary_database("ten bytes a row", cache_kb=10) as database:
            database.execute("CREATE TABLE t (a)")
            with full:
                database.executemany("INSERT INTO t VALUES (?)", (("x" * 1_000,) for _ in range(1_000)))

    def test_a_wrong_statement_is_no_matter_of_room(self):
        wrong = pytest.raises(sqlite3.OperationalError, match="no such table")
        with temporary_database("some room", cache_kb=100) as database, wrong:
            database.execute("SELECT * FROM absent")


class TestAFolder:
    @pytest.mark.parametrize(
        "use", [lambda: temporary_file("room"), lambda: temporary_database("room", cache_kb=1).__enter__()]
    )
    def test_that_is_gone_is_named(self, tmp_path, monkeypatch, use):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        with pytest.raises(DiskError, match=r"gone cannot be written.*No such file.*There is no such folder"):
            use()

    def test_that_was_asked_for_and_cannot_be_used_is_named_too(self, tmp_path, monkeypatch):
        """Python takes another one without a word, and that one is small."""
        monkeypatch.setenv("TMPDIR", "/mnt/large")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "small"))
        with pytest.raises(DiskError, match=r"small cannot be written \(TMPDIR is /mnt/large, which Python could not"):
            temporary_file("room")

    def test_everything_that_writes_there_says_so(self, tmp_path):
        """Prepare, in a process whose files may not grow: no bare OSError, and nothing of it in the run's folder."""
        code = f"""
import resource
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.requests.request import RequestTemplate
from airflow_vertex_batch.core.domain.ports import LocalStore
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
rows = (("rows", n, {{"text": "x" * 100, "id": str(n)}}) for n in range(20_000))
plan = PreparePlan(template=RequestTemplate(prompt="{{{{ text }}}}"), key_column="id")
prepare(rows, plan, LocalStore(), Uri.parse({str(tmp_path / "run")!r}), "one")
"""
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert "DiskError" in done.stderr.splitlines()[-1]
        assert not list((tmp_path / "run").rglob("*.json*"))


class TestADestination:
    def test_without_room_is_named(self, local, folder, little_room):
        with (
            pytest.raises(DiskError, match=rf"Cannot write into {folder}.*too large.*MB are free there"),
            local.open_write(folder / "a") as stream,
        ):
            stream.write(b"x" * 200_000)
        assert local.read(folder / "a") is None
        with pytest.raises(DiskError, match="Cannot write into"):
            local.write_new(folder / "a", b"x" * 200_000)
        assert list(Path(folder.name).iterdir()) == []

    def test_that_is_no_folder_is_the_user_s_to_mend(self, local, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(InputError, match=r"Cannot write into .*file.*Check the folder's name"):
            local.write_new(_below(tmp_path / "file"), b"x")


def _below(path):
    from airflow_vertex_batch.core.domain.address import Uri

    return Uri.parse(str(path / "a"))
