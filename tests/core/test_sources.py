"""Every source is a stream of rows, each with the place it was read from."""

from __future__ import annotations

import gzip
import io
import itertools
import sqlite3
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.requests.sources import (
    DbApiQuery,
    Files,
    Objects,
    Query,
    Requests,
    Rows,
    Table,
    matching,
    media_type,
)
from tests.builders import a_line, jsonl, seed
from tests.fakes import MemoryStore, MemoryWarehouse


def _read(source, store=None, warehouse=None):
    return list(source.rows(store or MemoryStore(), warehouse or MemoryWarehouse()))


def _store(**objects):
    return MemoryStore(**{f"gs://b/{name}": data for name, data in objects.items()})


class TestMediaType:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("gs://b/a.JPG", "image/jpeg"),
            ("x.jpeg", "image/jpeg"),
            ("x.png", "image/png"),
            ("x.webp", "image/webp"),
            ("x.heic", "image/heic"),
            ("x.pdf", "application/pdf"),
            ("x.txt", "text/plain"),
            ("x.md", "text/md"),
            ("x.mp4", "video/mp4"),
            ("x.mov", "video/quicktime"),
            ("x.mkv", "video/x-matroska"),
            ("x.mp3", "audio/mpeg"),
            ("x.wav", "audio/wav"),
            ("x.flac", "audio/flac"),
            ("x.m4a", "audio/mp4"),
            ("noending", ""),
            ("gs://bucket.with.dots/noending", ""),
            ("x.unheardof", ""),
        ],
    )
    def test_an_ending_tells_the_type(self, name, kind):
        assert media_type(name) == kind


class TestObjects:
    def test_each_object_is_a_row(self):
        store = MemoryStore(**{"gs://b/img/a.png": b"123", "gs://b/img/b.bin": b"", "gs://b/other/c.png": b""})
        assert _read(Objects("gs://b/img/"), store) == [
            (
                "gs://b/img/a.png",
                1,
                {"uri": "gs://b/img/a.png", "name": "a.png", "mime_type": "image/png", "size_bytes": 3},
            ),
            (
                "gs://b/img/b.bin",
                2,
                {"uri": "gs://b/img/b.bin", "name": "b.bin", "mime_type": "application/octet-stream", "size_bytes": 0},
            ),
        ]

    def test_a_glob_chooses_and_a_type_overrules(self):
        store = MemoryStore(**{"gs://b/a.png": b"", "gs://b/a.pdf": b"", "gs://b/sub/d.png": b""})
        rows = _read(Objects("gs://b/*.png", mime_type="image/x"), store)
        assert [(place, row["mime_type"]) for place, _, row in rows] == [("gs://b/a.png", "image/x")]


class TestTables:
    def test_a_table_s_rows_go_by_the_table(self):
        warehouse = MemoryWarehouse(**{"p.d.t": [{"a": 1}, {"a": 2}]})
        table = TableId("p", "d", "t")
        assert _read(Table(table), warehouse=warehouse) == [("p.d.t", 1, {"a": 1}), ("p.d.t", 2, {"a": 2})]

    def test_a_query_is_asked_with_its_parameters(self):
        warehouse = MemoryWarehouse(**{"SELECT @day": [{"a": 1}]})
        assert _read(Query("SELECT @day", {"day": "x"}), warehouse=warehouse) == [("query", 1, {"a": 1})]
        assert warehouse.asked == [("SELECT @day", {"day": "x"})]


class TestDbApiQuery:
    @pytest.fixture
    def connect(self, tmp_path):
        file = tmp_path / "source.db"
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE tickets (id INTEGER, body TEXT)")
            connection.executemany("INSERT INTO tickets VALUES (?, ?)", [(i, f"ticket {i}") for i in range(2_500)])
        connection.close()
        return lambda: sqlite3.connect(file)

    def test_rows_come_page_by_page_as_dicts(self, connect):
        rows = _read(DbApiQuery(connect, "SELECT id, body FROM tickets ORDER BY id"))
        assert len(rows) == 2_500
        assert rows[1_234] == ("query", 1_235, {"id": 1_234, "body": "ticket 1234"})

    def test_parameters_are_bound_by_the_driver(self, connect):
        source = DbApiQuery(connect, "SELECT body FROM tickets WHERE id = :id", {"id": 7})
        assert _read(source) == [("query", 1, {"body": "ticket 7"})]

    def test_nothing_is_opened_before_the_first_row_is_wanted(self):
        def connect():
            raise AssertionError

        DbApiQuery(connect, "SELECT 1").rows(MemoryStore(), MemoryWarehouse())

    def test_the_connection_is_closed_when_the_reader_stops_early(self, connect):
        opened = []

        def remember():
            opened.append(connect())
            return opened[0]

        rows = DbApiQuery(remember, "SELECT id FROM tickets").rows(MemoryStore(), MemoryWarehouse())
        next(rows)
        rows.close()
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            opened[0].execute("SELECT 1")


class TestRows:
    @pytest.mark.parametrize(
        "values",
        [["a", {"b": 1}], ("a", {"b": 1}), lambda: iter(["a", {"b": 1}]), (item for item in ["a", {"b": 1}])],
        ids=["list", "tuple", "callable", "generator"],
    )
    def test_texts_are_prompts_and_dicts_are_rows(self, values):
        assert _read(Rows(values)) == [("rows", 1, {"prompt": "a"}), ("rows", 2, {"b": 1})]

    def test_rows_are_taken_one_at_a_time(self):
        rows = Rows({"n": n} for n in itertools.count()).rows(MemoryStore(), MemoryWarehouse())
        assert next(rows) == ("rows", 1, {"n": 0})

    @pytest.mark.parametrize(
        "values", ["one text", b"bytes", {"a": 1}, lambda: "one text"], ids=["str", "bytes", "dict", "callable"]
    )
    def test_one_row_is_not_a_list_of_rows(self, values):
        with pytest.raises(InputError, match="Wrap it in a list"):
            _read(Rows(values))

    def test_an_odd_row_is_data_with_a_number(self):
        (_, _, first), (place, number, odd) = _read(Rows(["a", 5]))
        assert first == {"prompt": "a"}
        assert (place, number) == ("rows", 2)
        assert "Row 2 is a int" in str(odd)


class TestFiles:
    def test_jsonl_lines_keep_their_numbers(self):
        store = _store(**{"x.jsonl": b'{"a": 1}\n\n{"a": 2}'})
        assert _read(Files(("gs://b/x.jsonl",)), store) == [
            ("gs://b/x.jsonl", 1, {"a": 1}),
            ("gs://b/x.jsonl", 3, {"a": 2}),
        ]

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            (b'{"a": ', "Not JSON"),
            (b"[1]", "Not a JSON object"),
            (b"\xff\xfe", "Not JSON"),
            (b"12", "Not a JSON object"),
        ],
        ids=["torn", "list", "bytes", "number"],
    )
    def test_a_bad_line_is_data_with_its_place(self, line, why):
        store = _store(**{"x.jsonl": b'{"a": 1}\n' + line + b'\n{"a": 3}\n'})
        first, (place, number, bad), third = _read(Files(("gs://b/x.jsonl",)), store)
        assert (place, number) == ("gs://b/x.jsonl", 2)
        assert isinstance(bad, InputError)
        assert why in str(bad)
        assert (first[2], third[2]) == ({"a": 1}, {"a": 3})

    @pytest.mark.parametrize(
        ("data", "rows"),
        [
            (b"a,b\n1,x\n2,y\n", [(2, {"a": "1", "b": "x"}), (3, {"a": "2", "b": "y"})]),
            (b"\xef\xbb\xbfa,b\r\n1,x\r\n", [(2, {"a": "1", "b": "x"})]),
            (b"a\tb\n1\tx,y\n", [(2, {"a": "1", "b": "x,y"})]),
            (
                b'a,b\n1,"two\nlines, ""quoted"""\n2,y\n',
                [(2, {"a": "1", "b": 'two\nlines, "quoted"'}), (4, {"a": "2", "b": "y"})],
            ),
            (b'a,b\n1,"long ' + b"x" * 200_000 + b'"\n', [(2, {"a": "1", "b": "long " + "x" * 200_000})]),
            (b"a;b\n1,5;x\n", [(2, {"a": "1,5", "b": "x"})]),
            (b'a,"b;c;d"\n1,x\n', [(2, {"a": "1", "b;c;d": "x"})]),
            (b"a,b\n\n1,x\n", [(3, {"a": "1", "b": "x"})]),
            (b"a,b\n", []),
            (b"", []),
        ],
        ids=[
            "plain",
            "BOM and CRLF",
            "tabs",
            "quoted newlines",
            "a long text",
            "semicolons",
            "semicolons in a name",
            "blank line",
            "head only",
            "empty",
        ],
    )
    def test_csv_is_read(self, data, rows):
        store = _store(**{"x.csv": data})
        assert [(number, row) for _, number, row in _read(Files(("gs://b/x.csv",)), store)] == rows

    def test_a_csv_row_of_the_wrong_length_is_data_with_its_place(self):
        store = _store(**{"x.csv": b'a,b\n1,"x\ny"\n2\n3,z\n'})
        _, (place, number, bad), last = _read(Files(("gs://b/x.csv",)), store)
        assert (place, number) == ("gs://b/x.csv", 4)
        assert "1 values for 2 columns" in str(bad)
        assert last[2] == {"a": "3", "b": "z"}

    def test_parquet_keeps_its_types(self):
        table = pa.table({"id": [1, 2], "day": [date(2026, 11, 22), None], "tags": [["a"], []]})
        stream = io.BytesIO()
        pq.write_table(table, stream)
        assert _read(Files(("gs://b/x.parquet",)), _store(**{"x.parquet": stream.getvalue()})) == [
            ("gs://b/x.parquet", 1, {"id": 1, "day": date(2026, 11, 22), "tags": ["a"]}),
            ("gs://b/x.parquet", 2, {"id": 2, "day": None, "tags": []}),
        ]

    @pytest.mark.parametrize("name", ["x.jsonl.gz", "x.csv.gz"])
    def test_gz_is_unpacked(self, name):
        data = b'{"a": "1"}\n' if "jsonl" in name else b"a\n1\n"
        store = _store(**{name: gzip.compress(data)})
        assert [row for _, _, row in _read(Files((f"gs://b/{name}",)), store)] == [{"a": "1"}]

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("x.csv", b"a\n\xff\n"),
            ("x.jsonl.gz", b"not gzip"),
            ("x.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9_999)[:-20]),
            ("x.parquet", b"not parquet at all"),
        ],
        ids=["not UTF-8", "not gzip", "cut gzip", "not parquet"],
    )
    def test_a_file_that_cannot_be_read_is_named(self, name, data):
        with pytest.raises(InputError, match=rf"gs://b/{name} cannot be read.*whole and UTF-8"):
            _read(Files((f"gs://b/{name}",)), _store(**{name: data}))

    def test_folders_and_globs_are_read_in_name_order_each_by_its_ending(self):
        store = _store(**{"in/b.jsonl": b'{"n": 2}\n', "in/a.csv": b"n\n1\n"})
        assert [row["n"] for _, _, row in _read(Files(("gs://b/in/",)), store)] == ["1", 2]
        assert [row["n"] for _, _, row in _read(Files(("gs://b/in/*.jsonl", "gs://b/in/*.csv")), store)] == [2, "1"]

    def test_a_format_overrules_the_ending(self):
        store = _store(**{"x.txt": b'{"a": 1}\n'})
        assert _read(Files(("gs://b/x.txt",), format="jsonl"), store)[0][2] == {"a": 1}

    def test_an_unknown_ending_asks_for_a_format(self):
        with pytest.raises(InputError, match=r"gs://b/x.txt has no ending we know\. Rows are read from .*files_format"):
            _read(Files(("gs://b/x.txt",)), _store(**{"x.txt": b""}))

    def test_local_files_are_read_by_path(self, local, tmp_path):
        (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n')
        assert _read(Files((str(tmp_path / "*.jsonl"),)), local)[0][2] == {"a": 1}


class TestMatching:
    def test_a_pattern_without_a_file_is_an_error_not_an_empty_night(self):
        with pytest.raises(InputError, match=r"gs://b/\*\.csv matches no file.*has arrived"):
            list(matching(_store(**{"x.jsonl": b""}), ["gs://b/x.jsonl", "gs://b/*.csv"]))

    def test_it_yields_what_the_listing_says(self):
        (found,) = matching(_store(**{"x.jsonl": b""}), ["gs://b/x.jsonl"])
        assert found.uri == Uri("gs", "b", "x.jsonl")


class TestRequests:
    def test_request_lines_are_rows_with_or_without_their_key(self):
        store = _store(**{"r.jsonl": jsonl(a_line("k1"), seed("request.jsonl"))})
        assert [row for _, _, row in _read(Requests(("gs://b/r.jsonl",)), store)] == [
            a_line("k1"),
            seed("request.jsonl"),
        ]

    def test_the_seed_page_s_line_is_read_as_printed(self, local):
        page = Path(__file__).parent.parent / "seed" / "request.jsonl"
        ((place, number, row),) = _read(Requests((str(page),)), local)
        assert (place, number) == (str(page), 1)
        assert row == seed("request.jsonl")
