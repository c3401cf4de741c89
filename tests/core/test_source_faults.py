"""What a source may hold that is not what it looks like: it is refused with its place, not read as another thing."""

from __future__ import annotations

import gzip
import io
import sqlite3
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.requests.sources import DbApiQuery, Files, Objects, Requests, Rows
from tests.fakes import MemoryStore, MemoryWarehouse


def read_file(name: str, data: bytes):
    store = MemoryStore()
    store.objects[f"gs://b/{name}"] = data
    return list(Files((f"gs://b/{name}",)).rows(store, MemoryWarehouse()))


def read_rows(values):
    return list(Rows(values).rows(MemoryStore(), MemoryWarehouse()))


def parquet(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def tickets(count: int, odd: dict[int, str]) -> bytes:
    """Tickets with quoted texts, but for some lines (by number) that are as given."""
    lines = [odd.get(number, f'{number},"It is broken, ""again""",open') for number in range(2, count + 2)]
    return "\n".join(["id,body,state", *lines, ""]).encode()


class TestQuotes:
    @pytest.mark.parametrize(
        ("line", "text"),
        [
            (500, '500,"It is broken,open'),
            (2, '2,"It is broken,open'),
            (1001, '1001,"It is broken,open'),
            (500, '500,"It is "broken",open'),
            (500, '500,"It is broken"!,open'),
            (500, '500,"It is broken" ,open'),
            (500, '500,"",""x"",open'),
        ],
        ids=["never closed", "in the first row", "in the last row", "a quote inside", "text behind", "a space", "half"],
    )
    def test_one_stray_quote_swallows_no_row(self, line, text):
        """Found in the field: 1,000 tickets in, 4 rows out, none rejected."""
        with pytest.raises(
            InputError, match=rf"gs://b/x.csv: The quotes of the record that begins on line {line} do not"
        ):
            read_file("x.csv", tickets(1_000, {line: text}))

    def test_two_that_match_each_other_rows_apart_are_told(self, caplog):
        """Nothing is wrong with such a file but its meaning: a text may hold lines like these."""
        data = tickets(1_000, {300: '300,"It is broken,open', 700: '700,It is broken",open'})
        rows = read_file("x.csv", data.replace(b'"It is broken, ""again"""', b"It is broken again"))
        assert len(rows) == 600
        assert "the record that begins on line 300 goes on over lines that look like rows" in caplog.text
        assert "broken" not in caplog.text

    def test_a_text_of_several_lines_is_no_such_thing(self, caplog):
        assert len(read_file("x.csv", b'id,body\n1,"Hello,\nit broke.\nAgain, and again, and again.\n\nBye"\n')) == 1
        assert not caplog.text

    def test_in_the_head_too(self):
        with pytest.raises(InputError, match="begins on line 1 do not match"):
            read_file("x.csv", b'a,"b\n1,2\n')

    def test_a_quote_in_an_unquoted_text_is_a_quote(self):
        rows = read_file("x.csv", tickets(3, {3: '3,a 12" screen,open'}))
        assert [row["body"] for _, _, row in rows] == ['It is broken, "again"', 'a 12" screen', 'It is broken, "again"']

    def test_the_line_on_which_the_reader_gave_up_is_said_too(self):
        with pytest.raises(InputError, match=r"begins on line 3 do not match.*on line 5") as caught:
            read_file("x.csv", b'a,b\n1,2\n3,"x\ny\n4,"z"\n')
        assert "Close the quote that is opened there" in caught.value.todo


class TestTheHead:
    def test_a_name_of_two_lines_is_a_name(self):
        assert read_file("x.csv", b'"a\nb",c\n1,2\n') == [("gs://b/x.csv", 3, {"a\nb": "1", "c": "2"})]

    def test_blank_lines_before_it_are_none_of_it(self):
        assert read_file("x.csv", b"\r\n\na,b\n1,2\n") == [("gs://b/x.csv", 4, {"a": "1", "b": "2"})]


class TestWhatAFileReallyIs:
    @pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
    @pytest.mark.parametrize(
        ("data", "what"),
        [
            (gzip.compress(b'{"a": 1}\n'), "packed with gzip. Let its name end in .gz, or unpack it"),
            ('{"a": 1}\n'.encode("utf-16"), "text in UTF-16. Write it as UTF-8"),
            ('{"a": 1}\n'.encode("utf-16-be").join([b"\xfe\xff", b""]), "text in UTF-16. Write it as UTF-8"),
        ],
        ids=["gzip", "little end", "big end"],
    )
    def test_what_is_packed_or_in_another_encoding_is_told_so(self, name, data, what):
        with pytest.raises(InputError, match=rf"^gs://b/{name}(: The file)? is {what}"):
            read_file(name, data)

    @pytest.mark.parametrize(("name", "data"), [("x.csv", b"a\n1\n"), ("x.jsonl", b'{"a":"1"}\n')])
    def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it(self, name, data):
        ((_, _, row),) = read_file(name, b"\xef\xbb\xbf" + data)
        assert row == {"a": "1"}

    @pytest.mark.parametrize("name", ["x.CSV", "x.Csv.GZ"])
    def test_an_ending_in_capitals_is_that_ending(self, name):
        data = b"a\n1\n"
        ((_, _, row),) = read_file(name, gzip.compress(data) if name.endswith("GZ") else data)
        assert row == {"a": "1"}


LONG_LINE = b'{"a": 1, "b": "%b\\"", "a": 2}' % (b"long " * 400_000)


class TestMembersOfOneName:
    @pytest.mark.parametrize(
        "line", [b'{"a": 1, "a": 2}', LONG_LINE, b'{"b": {"a": 1, "a": 2}}', b'{"a\\"": "x", "b": [{"a": 1, "a": 2}]}']
    )
    def test_a_line_with_two_is_no_row(self, line):
        """The decoder would keep the last, and a request that stands there twice would lose one without a word."""
        (_, _, fine), (_, number, odd) = read_file("x.jsonl", b'{"a": "\\"\\u0022"}\n' + line + b"\n")
        assert fine == {"a": '""'}
        assert (number, str(odd)) == (2, "More than one member 'a'. Give each member a name of its own.")

    def test_of_a_ready_made_request_too(self):
        store = MemoryStore()
        store.objects["gs://b/x.jsonl"] = b'{"request": {"contents": []}, "request": {"contents": [1]}}\n'
        ((_, _, odd),) = Requests(("gs://b/x.jsonl",)).rows(store, MemoryWarehouse())
        assert "More than one member 'request'" in str(odd)


class TestNamesThatBeginAlike:
    def store(self, *names):
        store = MemoryStore()
        store.objects |= {f"gs://b/{name}": b'{"from": "%s"}\n' % name.encode() for name in names}
        return store

    def read(self, source, store):
        return [row["from"] for _, _, row in source.rows(store, MemoryWarehouse())]

    @pytest.mark.parametrize("source", [Files, Requests])
    def test_a_file_that_is_there_is_that_file_alone(self, source):
        """Cloud Storage lists by the beginning of a name: a copy beside it would be bought, too."""
        store = self.store("ready.jsonl", "ready.jsonl.bak", "ready.jsonl.gz", "ready.jsonl_old.jsonl")
        assert self.read(source(("gs://b/ready.jsonl",)), store) == ["ready.jsonl"]

    @pytest.mark.parametrize("source", [Files, Requests])
    def test_a_folder_is_not_the_one_whose_name_goes_on(self, source):
        store = self.store("in/a.jsonl", "in/c/b.jsonl", "input-old/a.jsonl")
        assert self.read(source(("gs://b/in",)), store) == ["in/a.jsonl", "in/c/b.jsonl"]

    def test_a_beginning_that_is_neither_names_all_that_begin_so(self):
        store = self.store("part-1.jsonl", "part-2.jsonl", "whole.jsonl")
        assert self.read(Files(("gs://b/part-",)), store) == ["part-1.jsonl", "part-2.jsonl"]

    def test_of_media_the_same(self):
        store = self.store("cat.jpg", "cat.jpg.bak")
        assert [row["name"] for _, _, row in Objects("gs://b/cat.jpg").rows(store, MemoryWarehouse())] == ["cat.jpg"]

    def test_the_marks_that_a_cluster_leaves_beside_its_files_are_no_rows(self):
        store = self.store("in/_SUCCESS", "in/part-0.jsonl")
        assert self.read(Files(("gs://b/in/",)), store) == ["in/part-0.jsonl"]

    def test_another_file_among_them_is_named_with_a_cure(self):
        with pytest.raises(InputError, match=r"gs://b/in/readme.md has no ending we know.*gs://bucket/folder/\*\.csv"):
            self.read(Files(("gs://b/in/",)), self.store("in/part-0.jsonl", "in/readme.md"))


class TestColumnNames:
    def test_two_columns_of_one_name_are_refused_in_csv(self):
        with pytest.raises(InputError, match=r"gs://b/x.csv: The file has more than one column 'a'"):
            read_file("x.csv", b"a,b,a\n1,2,3\n")

    def test_in_parquet(self):
        table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
        with pytest.raises(InputError, match=r"gs://b/x.parquet: The file has more than one column 'a'"):
            read_file("x.parquet", parquet(table))

    def test_and_in_sql(self):
        source = DbApiQuery(lambda: sqlite3.connect(":memory:"), "SELECT 1 AS id, 2 AS id, 3 AS b")
        with pytest.raises(InputError, match="The query has more than one column 'id'"):
            list(source.rows(MemoryStore(), MemoryWarehouse()))


class TestParquet:
    def test_a_value_that_python_cannot_hold_costs_its_row_and_names_its_column(self):
        far = pa.array([0, 10**12], pa.timestamp("s"))
        (_, _, fine), (_, number, odd) = read_file("x.parquet", parquet(pa.table({"id": [1, 2], "when": far})))
        assert fine == {"id": 1, "when": datetime(1970, 1, 1)}  # noqa: DTZ001 - the file gives no zone
        assert number == 2
        assert "Column 'when' holds a timestamp[ms] that cannot be read exactly" in str(odd)

    def test_a_damaged_page_names_the_file(self):
        data = bytearray(parquet(pa.table({"text": [str(number) * 9 for number in range(9_999)]})))
        data[200:4_000] = bytes(3_800)
        with pytest.raises(InputError, match=r"gs://b/x\.parquet cannot be read"):
            read_file("x.parquet", bytes(data))


class TestRowsOfPython:
    def test_a_function_that_gives_nothing_is_told_so(self):
        with pytest.raises(InputError, match=r"rows gave NoneType, not rows.*A function without a return gives None"):
            read_rows(lambda: None)

    def test_a_number_is_no_series_of_rows(self):
        with pytest.raises(InputError, match="rows gave int, not rows"):
            read_rows(lambda: 5)

    def test_an_async_function_is_told_to_be_a_plain_one(self):
        async def rows():
            return [{"a": 1}]

        made = rows()
        with pytest.raises(InputError, match=r"asynchronous. Use def, not async def"):
            read_rows(made)
        made.close()

    def test_an_async_generator_too(self):
        async def rows():
            yield {"a": 1}

        with pytest.raises(InputError, match=r"rows gave a async_generator.*Use def, not async def"):
            read_rows(rows)

    def test_a_table_of_pandas_would_give_the_names_of_its_columns(self):
        import pandas as pd

        with pytest.raises(InputError, match=r"rows is a DataFrame\. Pass frame\.to_dict\('records'\)"):
            read_rows(pd.DataFrame({"a": [1]}))
