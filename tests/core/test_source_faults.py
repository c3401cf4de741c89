"""What a source may hold that is not what it looks like: it is refused with its place, not read as another thing."""

from __future__ import annotations

import io
import sqlite3
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.core.sources import DbApiQuery, Files, Rows
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
        with pytest.raises(InputError, match=r"rows gave NoneType, not rows.*a function without a return gives None"):
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
