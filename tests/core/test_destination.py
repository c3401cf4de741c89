"""Files or a table: what an author may say of each, when the DAG file is read and when it has been rendered."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.landing.destination import _FILE_FORMATS, DestinationArguments, Files, Table
from airflow_vertex_batch.core.landing.formats import FORMATS
from airflow_vertex_batch.core.landing.record import LandPlan
from tests.fakes import MemoryStore, MemoryWarehouse

STAGING = Uri.parse("gs://stage")
ELSEWHERE = "is an address neither in Cloud Storage nor in BigQuery"
ONE_KIND = "A row that turns good leaves the dead letters in the same landing"
#: What is wrong whenever it is looked at.
WRONG = [
    (DestinationArguments("answers"), rf"destination='answers' {ELSEWHERE}\. Write it as destination='gs://.*' or destination='bq://"),
    (DestinationArguments("p.d.t"), rf"destination='p.d.t' {ELSEWHERE}"),
    (DestinationArguments(""), ELSEWHERE),
    (DestinationArguments("gs://b/a*"), r"destination='gs://b/a\*' has \* in its name"),
    (DestinationArguments("gs://My_Bucket/a"), "names no bucket"),
    (DestinationArguments("bq://t"), r"destination: 'bq://t' names no BigQuery table"),
    (DestinationArguments("bq://d.t", "No Project"), "names no BigQuery table"),
    (DestinationArguments("gs://b/a", file_format="csv"), "file_format='csv' is not known"),
    (
        DestinationArguments("bq://p.d.t", file_format="parquet"),
        r"Task t has file_format, which would do nothing\..*the table bq://p.d.t",
    ),
    (DestinationArguments("bq://p.d.t", file_format="jsonl"), r"Task t has file_format, which would do nothing"),
    (DestinationArguments("gs://b/a", dead_letters=""), f"dead_letters='' {ELSEWHERE}"),
    (DestinationArguments("gs://b/a", dead_letters="bad"), rf"dead_letters='bad' {ELSEWHERE}"),
    (
        DestinationArguments("gs://b/a", dead_letters="bq://p.d.t"),
        rf"its answers land in files\. {ONE_KIND}.*Write dead_letters='gs://",
    ),
    (
        DestinationArguments("bq://p.d.t", dead_letters="gs://b/bad"),
        rf"answers land in a table\. {ONE_KIND}.*Write dead_letters='bq",
    ),
    (DestinationArguments("gs://b/a", dead_letters="gs://b/bad?"), r"dead_letters='gs://b/bad\?' has \? in its name"),
    (DestinationArguments("gs://b/a/", dead_letters="gs://b/a/answers"), "lies in the folder of the answers"),
    (DestinationArguments("gs://b/a", dead_letters="gs://b/a/answers/bad/"), "lies in the folder of the answers"),
    (
        DestinationArguments("bq://p.d.t", dead_letters="bq://d.t/x"),
        "dead_letters: 'bq://d.t/x' names no BigQuery table",
    ),
    (DestinationArguments("bq://p.d.t", dead_letters="bq://p.d.t"), "is the table of the answers"),
]  # fmt: skip
#: What a template may still correct, or the output of a task.
LATER = [
    DestinationArguments("{{ params.where }}", dead_letters="gs://b/bad", file_format="parquet"),
    DestinationArguments("{{ params.where }}", dead_letters="bq://p.d.bad"),
    DestinationArguments(["the output", "of a task"], dead_letters="{{ x }}", file_format="jsonl"),
    DestinationArguments("gs://{{ bucket }}/a", dead_letters="{{ bad }}"),
    DestinationArguments("bq://{{ project }}.d.t", dead_letters="bq://{{ project }}.d.bad"),
    DestinationArguments("bq://d.t", "{{ project }}"),
    DestinationArguments("bq://d.t", None),
    DestinationArguments(None),
]


class TestWhatIsWrong:
    @pytest.mark.parametrize(("said", "message"), WRONG, ids=str)
    def test_is_refused_when_the_dag_file_is_read(self, said, message):
        with pytest.raises(InputError, match=f"(?s){message}"):
            said.check("t")

    @pytest.mark.parametrize(("said", "message"), WRONG, ids=str)
    def test_and_when_it_was_rendered(self, said, message):
        with pytest.raises(InputError, match=f"(?s){message}"):
            said.read("t", STAGING)

    @pytest.mark.parametrize(
        ("said", "message"),
        [
            (DestinationArguments("bq://{{ t }}", file_format="parquet"), "which would do nothing"),
            (DestinationArguments("gs://b/{{ ds }}", dead_letters="bq://{{ t }}"), "its answers land in files"),
            (DestinationArguments("gs://b/{{ ds }}*"), "has . in its name"),
            (DestinationArguments("my-bucket/{{ ds }}"), ELSEWHERE),
        ],
        ids=str,
    )
    def test_is_refused_of_a_template_whatever_it_becomes(self, said, message):
        with pytest.raises(InputError, match=message):
            said.check("t")

    @pytest.mark.parametrize("said", LATER, ids=str)
    def test_is_not_what_may_become_right(self, said):
        said.check("t")


class TestWhatIsRead:
    @pytest.mark.parametrize(
        ("said", "made"),
        [
            (DestinationArguments("gs://b/a"), Files(Uri.parse("gs://b/a"))),
            (DestinationArguments("gs://b/a", file_format="parquet"), Files(Uri.parse("gs://b/a"), "parquet")),
            (
                DestinationArguments("gs://b/a", dead_letters="gs://bad/a"),
                Files(Uri.parse("gs://b/a"), "jsonl", Uri.parse("gs://bad/a")),
            ),
            (
                DestinationArguments("bq://p.d.t"),
                Table(TableId("p", "d", "t"), TableId("p", "d", "t_dead_letters"), Uri.parse("gs://stage/landing")),
            ),
            (
                DestinationArguments("bq://d.t", "p", dead_letters="bq://q.d.bad"),
                Table(TableId("p", "d", "t"), TableId("q", "d", "bad"), Uri.parse("gs://stage/landing")),
            ),
        ],
        ids=str,
    )
    def test_is_files_or_a_table(self, said, made):
        assert said.read("t", STAGING) == made

    @pytest.mark.parametrize(
        ("said", "destination", "dead"),
        [
            (
                DestinationArguments("gs://b/a"),
                "gs://b/a/answers/partition_date=2026-11-22/answers-",
                "gs://b/a/dead-letters/partition_date=2026-11-22/dead-letters-",
            ),
            (
                DestinationArguments("gs://b/a", dead_letters="gs://bad/x"),
                "gs://b/a/answers/partition_date=2026-11-22/answers-",
                "gs://bad/x/partition_date=2026-11-22/dead-letters-",
            ),
            (DestinationArguments("bq://p.d.t"), "bq://p.d.t", "bq://p.d.t_dead_letters"),
            (DestinationArguments("bq://p.d.t", dead_letters="bq://p.e.bad"), "bq://p.d.t", "bq://p.e.bad"),
        ],
        ids=str,
    )
    def test_says_where_rows_land(self, said, destination, dead):
        plan = LandPlan(batch_id="b", partition_date="2026-11-22")
        sink = said.read("t", STAGING).sink(MemoryStore(), MemoryWarehouse(), plan)
        assert (sink.destination.startswith(destination), sink.dead_letters.startswith(dead)) == (True, True)

    def test_has_an_address_and_a_page(self):
        files, table = (DestinationArguments(text).read("t", STAGING) for text in ("gs://b/a", "bq://p.d.t"))
        assert (files.uri, table.uri) == ("gs://b/a", "bq://p.d.t")
        assert files.console_url.endswith("/storage/browser/b/a")
        assert table.console_url.endswith("!1sp!2sd!3st")


def test_every_format_of_files_is_known():
    assert {*_FILE_FORMATS} == {*FORMATS}
