"""Errors of others that are raised while rows are read: they say where, and never what."""

from __future__ import annotations

import sqlite3
import traceback

import pytest

from airflow_vertex_batch.core.domain.errors import InputError, SourceError
from airflow_vertex_batch.core.domain.job import BatchJob
from airflow_vertex_batch.core.domain.redact import redact_errors
from airflow_vertex_batch.core.requests.sources import DbApiQuery, Rows
from airflow_vertex_batch.edge.unknown_arguments import Signature
from tests.fakes import MemoryStore, MemoryWarehouse

ROW = "a secret row"


class DatabaseError(Exception):
    """As psycopg raises it."""

    def __init__(self, state, primary):
        super().__init__(f"{primary}\nLINE 1: SELECT '{ROW}'")
        self.sqlstate, self.diag = state, type("Diag", (), {"message_primary": primary})


def read(source):
    return list(source.rows(MemoryStore(), MemoryWarehouse()))


def told(error):
    return "".join(traceback.format_exception(error))


def breaking():
    yield {"a": 1}
    raise ValueError(ROW)


class TestAnError:
    def test_is_told_by_its_type_and_place(self):
        with (
            pytest.raises(
                SourceError, match=r"^x: ValueError in test_redact.py, line \d+\. .*quote a row.*Do\.$"
            ) as raised,
            redact_errors("x", todo="Do"),
        ):
            raise ValueError(ROW)
        assert ROW not in told(raised.value)
        assert raised.value.retryable

    @pytest.mark.parametrize(
        ("error", "named", "words"),
        [
            (DatabaseError("22P02", f"invalid input: {ROW}"), r"DatabaseError \(SQLSTATE 22P02\)", "quote a row"),
            (
                DatabaseError("42P01", 'relation "t" does not exist'),
                r"\(SQLSTATE 42P01\)",
                'relation "t" does not exist',
            ),
            (DatabaseError(ROW, ROW), r"DatabaseError in", "quote a row"),
            (RuntimeError(1366, f"Incorrect value {ROW}"), r"RuntimeError \(error 1366\)", "quote a row"),
            (RuntimeError(True), "RuntimeError in", "quote a row"),
        ],
        ids=["of a value", "of a name", "no state", "a number", "no number"],
    )
    def test_of_a_database_is_told_by_its_code(self, error, named, words):
        with pytest.raises(SourceError, match=f"{named}.*{words}") as raised, redact_errors("x", todo="Do"):
            raise error
        assert ROW not in told(raised.value)

    def test_of_ours_goes_on(self):
        with pytest.raises(InputError, match="ours"), redact_errors("x", todo="Do"):
            raise InputError("ours")

    def test_that_means_something_to_others_goes_on(self):
        with pytest.raises(KeyError, match="skip"), redact_errors("x", todo="Do", passed_on=(KeyError,)):
            raise KeyError("skip")

    def test_has_no_cause_that_knows_the_row(self):
        error = RuntimeError(ROW)
        error.__cause__ = KeyError(ROW)
        with pytest.raises(SourceError, match="RuntimeError") as raised, redact_errors("x", todo="Do"):
            raise error
        assert ROW not in told(raised.value)


class TestASource:
    def test_of_python_says_after_which_row(self):
        with pytest.raises(SourceError, match=r"^rows failed after 1 rows: ValueError in test_redact.py") as raised:
            read(Rows(breaking))
        assert ROW not in told(raised.value)

    def test_of_python_whose_function_fails(self):
        def fails():
            raise ValueError(ROW)

        with pytest.raises(SourceError, match=r"^rows failed: ValueError") as raised:
            read(Rows(fails))
        assert ROW not in told(raised.value)

    def test_is_not_blamed_for_what_fails_where_its_rows_are_used(self):
        with pytest.raises(ValueError, match="elsewhere"):  # noqa: PT012 - the loop is what is tested
            for _ in Rows([{"a": 1}]).rows(MemoryStore(), MemoryWarehouse()):
                raise ValueError("elsewhere")

    @pytest.mark.parametrize("row", [0, 1500], ids=["at once", "in the middle"])
    def test_of_a_database_says_after_which_row(self, row):
        def fail(number):
            if number == row:
                raise ValueError(ROW)
            return number

        def connect():
            connection = sqlite3.connect(":memory:")
            connection.create_function("fail", 1, fail)
            return connection

        numbers = (
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT 3000) SELECT fail(i) AS i FROM n"
        )
        after = "0" if row == 0 else "1,341"
        with pytest.raises(SourceError, match=f"failed after {after} rows: sqlite3.OperationalError") as raised:
            read(DbApiQuery(connect, numbers))
        assert "user-defined" not in told(raised.value)


def test_the_place_is_the_last_line_that_is_not_ours():
    """Wherever in the package the error came from: its own files say nothing to an author."""
    with pytest.raises(SourceError, match=r"rows failed: AttributeError in test_redact.py, line \d+"):  # noqa: SIM117
        with redact_errors("rows failed", todo="Look there"):
            Signature().__get__(None, 5)


class TestAJobThatFailed:
    @pytest.mark.parametrize(
        ("said", "shown"),
        [
            (
                f"Could not convert value 'string_value: \"{ROW}\"' to integer. Field: request.seed; Value: {ROW}",
                "Could not convert value '…' to integer. Field: request.seed; Value: …",
            ),
            (f"Could not parse '{ROW}' as INT64 for field f", "Could not parse '…' as INT64 for field f"),
            (f"Bad int64 value: {ROW}\nand {ROW}", "Bad int64 value: …"),
            ("Cannot store struct 'googleSearch' with no fields", "Cannot store struct 'googleSearch' with no fields"),
            ("CANCELED", "CANCELED"),
        ],
    )
    def test_does_not_show_the_value_that_could_not_be_loaded(self, said, shown):
        doc = {"name": "j", "state": "JOB_STATE_FAILED", "error": {"code": 3, "message": said}}
        assert BatchJob.from_api(doc).error_message == shown
