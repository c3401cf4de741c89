"""Tables and queries in BigQuery, against a running server; and landing in them, which must be the same twice."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from google.cloud import bigquery
from google.oauth2.credentials import Credentials

from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.core.domain.row import RowStatus, Usage
from airflow_vertex_batch.core.landing.record import SCHEMA, LandPlan
from airflow_vertex_batch.core.landing.sink import land
from airflow_vertex_batch.core.landing.table import TableSink
from airflow_vertex_batch.core.requests.sources import Query, Table
from airflow_vertex_batch.gcp.bigquery import BigQueryWarehouse
from tests.builders import a_response, a_row, jsonl
from tests.gcp.scripted_server import Answer, ScriptedServer, refused

pytestmark = pytest.mark.bigquery

COLUMNS = ({"name": "id", "type": "INT64", "mode": "REQUIRED"}, {"name": "body", "type": "STRING", "mode": "NULLABLE"})


def _load(warehouse, gcs, bucket, table, rows, *, job_id="load-1", name="rows.jsonl"):
    with gcs.open_write(bucket / name) as stream:
        stream.write(jsonl(*rows))
    return warehouse.load([str(bucket / name)], table, COLUMNS, job_id=f"{job_id}-{table.dataset}")


class TestRows:
    def test_a_table_s_rows_stream_as_json_safe_dicts(self, warehouse, table, bigquery_client):
        sql = f"""CREATE TABLE `{table}` AS SELECT 1 AS id, 'é😀' AS body, DATE '2026-11-22' AS day,
            TIMESTAMP '2026-11-22 03:04:05+00' AS at, NUMERIC '1.50' AS price, CAST(NULL AS STRING) AS nothing,
            ['a', 'b'] AS tags, JSON '{{"k": [1]}}' AS doc"""
        bigquery_client.query(sql).result()
        (row,) = warehouse.rows(table)
        assert {name: row[name] for name in ("id", "body", "day", "price", "nothing", "tags")} == {
            "id": 1, "body": "é😀", "day": "2026-11-22", "price": Decimal("1.50"), "nothing": None, "tags": ["a", "b"],
        }  # fmt: skip
        assert datetime.fromisoformat(row["at"]) == datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC)
        assert (json.loads(row["doc"]) if isinstance(row["doc"], str) else row["doc"]) == {"k": [1]}

    @pytest.mark.parametrize(
        ("parameters", "value"),
        [
            ({"x": "o'clock; DROP"}, "o'clock; DROP"),
            ({"x": 7}, 7),
            ({"x": 1.5}, 1.5),
            ({"x": True}, True),
            ({"x": date(2026, 11, 22)}, "2026-11-22"),
            ({"x": Decimal("1.5")}, Decimal("1.5")),
            ({"x": None}, None),
        ],
        ids=lambda value: type(value["x"]).__name__ if isinstance(value, dict) else "",
    )
    def test_a_query_takes_parameters_of_every_kind(self, warehouse, parameters, value):
        (row,) = warehouse.rows("SELECT @x AS x", parameters)
        assert row == {"x": value}
        assert type(row["x"]) is type(value)

    def test_sources_read_through_it(self, warehouse, gcs, bucket, table):
        _load(warehouse, gcs, bucket, table, [{"id": 1, "body": "a"}, {"id": 2, "body": "b"}])
        assert sorted(row["id"] for _, _, row in Table(table).rows(gcs, warehouse)) == [1, 2]
        query = Query(f"SELECT body FROM `{table}` WHERE id = @id", {"id": 2})
        assert list(query.rows(gcs, warehouse)) == [("query", 1, {"body": "b"})]

    def test_a_table_that_a_client_s_load_has_made_is_read(self, warehouse, table, bigquery_client):
        bigquery_client.load_table_from_json([{"id": 1}], str(table)).result()
        assert [*warehouse.rows(table)] == [{"id": 1}]

    def test_what_is_not_there_is_named(self, warehouse, table):
        with pytest.raises(InputError, match=rf"BigQuery refused {table}.*Check the names"):
            list(warehouse.rows(table))
        with pytest.raises(InputError, match="BigQuery refused the source query"):
            list(warehouse.rows("SELEKT 1"))


class TestTables:
    def test_counting_tells_absent_from_empty(self, warehouse, table):
        assert warehouse.count(table) is None
        warehouse.create_table(table, COLUMNS)
        assert warehouse.count(table) == 0

    def test_a_table_is_made_once_as_asked(self, warehouse, table, bigquery_client):
        for _ in range(2):
            warehouse.create_table(
                table, SCHEMA, partition_column="partition_date", clustering=["status"], description="Ours"
            )
        made = bigquery_client.get_table(str(table))
        assert [field.name for field in made.schema] == [column["name"] for column in SCHEMA]
        assert (made.time_partitioning.field, made.clustering_fields, made.description) == (
            "partition_date",
            ["status"],
            "Ours",
        )

    def test_a_table_of_an_older_version_gets_the_columns_it_lacks(self, warehouse, gcs, bucket, table):
        """Its rows stay, without a value; a column that has to be there in a new table cannot be, here."""
        _load(warehouse, gcs, bucket, table, [{"id": 1, "body": "old"}])
        newer = (
            {"name": "ID", "type": "INT64", "mode": "REQUIRED"},
            {"name": "model", "type": "STRING", "mode": "REQUIRED", "description": "Which one"},
            {"name": "tokens", "type": "INT64", "mode": "NULLABLE"},
        )
        for _ in range(2):
            warehouse.create_table(table, newer)
        assert list(warehouse.rows(table)) == [{"id": 1, "body": "old", "model": None, "tokens": None}]
        fields = {field.name: field for field in warehouse.client.get_table(str(table)).schema}
        assert list(fields) == ["id", "body", "model", "tokens"]
        assert (fields["model"].mode, fields["model"].description) == ("NULLABLE", "Which one")

    def test_another_task_may_have_added_them_meanwhile(self, table):
        def column(*names: str) -> dict[str, object]:
            reference = {"projectId": table.project, "datasetId": table.dataset, "tableId": table.table}
            fields = [{"name": name, "type": "STRING", "mode": "NULLABLE"} for name in names]
            return {"tableReference": reference, "schema": {"fields": fields}, "etag": str(len(names))}

        answers = [
            refused(409, message="Already Exists"),
            Answer(body=column("a")),
            refused(412),
            Answer(body=column("a", "b")),
        ]
        with ScriptedServer(*answers) as server:
            client = bigquery.Client(
                project="demo", credentials=Credentials("token"), client_options={"api_endpoint": server.url}
            )
            wanted = [{"name": name, "type": "STRING", "mode": "NULLABLE"} for name in "ab"]
            BigQueryWarehouse(client).create_table(table, wanted)
            assert [asked.method for asked in server.asked] == ["POST", "GET", "PATCH", "GET"]

    def test_dropping_twice_is_dropping_once(self, warehouse, table):
        warehouse.create_table(table, COLUMNS)
        warehouse.drop(table)
        warehouse.drop(table)
        assert warehouse.count(table) is None

    @pytest.mark.parametrize(("there", "methods"), [(True, ["DELETE", "GET", "DELETE"]), (False, ["DELETE", "GET"])])
    def test_a_table_that_a_server_has_not_heard_of_is_dropped_all_the_same(self, table, there, methods):
        reference = {"projectId": table.project, "datasetId": table.dataset, "tableId": table.table}
        found = Answer(body={"tableReference": reference}) if there else refused(404)
        with ScriptedServer(refused(404), found, Answer(body={})) as server:
            client = bigquery.Client(
                project="demo", credentials=Credentials("token"), client_options={"api_endpoint": server.url}
            )
            BigQueryWarehouse(client).drop(table)
            assert [asked.method for asked in server.asked] == methods

    def test_a_dataset_that_is_not_there_is_named(self, warehouse, table):
        lost = type(table)(table.project, "no_such_dataset", "t")
        with pytest.raises(InputError, match=f"BigQuery refused {lost}"):
            warehouse.create_table(lost, COLUMNS)


class TestLoad:
    def test_it_replaces_the_table(self, warehouse, gcs, bucket, table):
        assert _load(warehouse, gcs, bucket, table, [{"id": 1}, {"id": 2}]) == 2
        assert _load(warehouse, gcs, bucket, table, [{"id": 3, "body": "c"}], job_id="load-2") == 1
        assert list(warehouse.rows(table)) == [{"id": 3, "body": "c"}]

    def test_the_same_id_loads_once(self, warehouse, gcs, bucket, table):
        """ "Already exists" means resume: what the file holds now does not matter."""
        _load(warehouse, gcs, bucket, table, [{"id": 1}])
        assert _load(warehouse, gcs, bucket, table, [{"id": 9}]) == 1
        assert [row["id"] for row in warehouse.rows(table)] == [1]

    @pytest.mark.parametrize("made_again", [False, True], ids=["dropped since", "dropped and made again empty"])
    def test_but_loads_again_when_its_rows_are_gone(self, warehouse, gcs, bucket, table, made_again):
        _load(warehouse, gcs, bucket, table, [{"id": 1}])
        warehouse.drop(table)
        if made_again:
            warehouse.create_table(table, COLUMNS)
        assert _load(warehouse, gcs, bucket, table, [{"id": 1}]) == 1
        assert warehouse.count(table) == 1

    def test_a_load_that_failed_may_be_tried_again(self, warehouse, gcs, bucket, table):
        with pytest.raises(InputError, match=f"BigQuery refused {table}"):
            _load(warehouse, gcs, bucket, table, [{"id": "no number"}])
        assert _load(warehouse, gcs, bucket, table, [{"id": 1}]) == 1

    def test_several_files_are_one_table(self, warehouse, gcs, bucket, table):
        for number in range(2):
            with gcs.open_write(bucket / f"{number}.jsonl") as stream:
                stream.write(jsonl({"id": number}))
        uris = [str(bucket / f"{number}.jsonl") for number in range(2)]
        assert warehouse.load(uris, table, COLUMNS, job_id=f"load-{table.dataset}") == 2


class TestExecute:
    def test_it_tells_the_rows_it_touched_and_runs_every_time(self, warehouse, gcs, bucket, table):
        _load(warehouse, gcs, bucket, table, [{"id": 1}, {"id": 2}])
        sql = f"DELETE FROM `{table}` WHERE id = @id"
        assert warehouse.execute(sql, job_id="delete", parameters={"id": 1}) == 1
        assert warehouse.execute(sql, job_id="delete", parameters={"id": 1}) == 0

    def test_a_mistake_in_the_statement_is_ours(self, warehouse):
        with pytest.raises(InputError, match="BigQuery refused merge-1"):
            warehouse.execute("MERGE nonsense", job_id="merge-1")


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind"), [(400, InputError), (404, InputError), (403, ServiceError), (412, ServiceError)]
    )
    def test_a_server_s_refusal_is_ours(self, table, status, kind):
        with ScriptedServer(route=lambda _: refused(status, message="No access")) as server:
            client = bigquery.Client(
                project="demo", credentials=Credentials("token"), client_options={"api_endpoint": server.url}
            )
            with pytest.raises(kind, match=f"BigQuery (refused|failed on) {table}.*No access"):
                list(BigQueryWarehouse(client).rows(table))


PLAN = LandPlan(batch_id="nightly", partition_date="2026-11-22", run_id="run-1")


def _good(key: str, text: str = "Hi", **members: Any):
    return a_row(
        key,
        text=text,
        answer={"mood": "glad", "n": [1, None]},
        model_version="gemini-3.8-flash",
        usage=Usage(10, 5, 1, 0, 0, 16),
        processed_at="2026-11-22T03:04:05.678901+00:00",
        response=json.dumps(a_response(text)),
        columns={"id": key},
        finish_reason="STOP",
        **members,
    )


def _bad(key: str, status: RowStatus = RowStatus.BLOCKED):
    return a_row(key, status, code="SAFETY", reason="No.")


class TestLanding:
    """Two tables, one staging table, two statements: whatever ran before, what the batch says is what is there."""

    @pytest.fixture
    def run(self, warehouse, gcs, bucket, table):
        def run(*rows, **plan):
            made = LandPlan(**{"batch_id": "nightly", "partition_date": "2026-11-22", "run_id": "run-1"} | plan)
            sink = TableSink(gcs, warehouse, table, table.sibling("dead"), made, bucket / "staging")
            return land(rows, sink, made, expected=lambda: len(rows))

        return run

    @pytest.fixture
    def there(self, bigquery_client, table):
        """Return what is in both tables, as sorted "day key text" and "day key status"."""

        def there() -> tuple[list[str], list[str]]:
            def read(name: str, column: str) -> list[str]:
                rows = bigquery_client.query(
                    f"SELECT partition_date, row_key, {column} AS c FROM `{table.sibling(name)}`"
                ).result()
                return sorted(f"{row['partition_date']:%d} {row['row_key']} {row['c']}" for row in rows)

            return read("answers", "text"), read("dead", "status")

        return there

    def test_every_column_lands_with_its_type(self, run, table, bigquery_client):
        run(_good("r1", "two\nlines é😀"))
        sql = f"SELECT *, JSON_VALUE(answer, '$.mood') AS mood, JSON_VALUE(columns, '$.id') AS own FROM `{table}`"
        (row,) = bigquery_client.query(sql).result()
        assert (row["partition_date"], row["row_key"], row["status"]) == (date(2026, 11, 22), "r1", "succeeded")
        assert (row["text"], row["mood"], row["own"]) == ("two\nlines é😀", "glad", "r1")
        assert (row["prompt_tokens"], row["total_tokens"]) == (10, 16)
        assert row["cost_usd"] == Decimal("0.000015")
        assert row["processed_at"] == datetime(2026, 11, 22, 3, 4, 5, 678901, tzinfo=UTC)
        assert (row["code"], row["reason"], row["run_id"]) == (None, None, "run-1")

    def test_an_older_version_s_table_takes_them_too(self, run, there, table, warehouse):
        old = [column for column in SCHEMA if column["name"] not in {"request_digest", "same_as", "attempts"}]
        warehouse.create_table(table, old, partition_column="partition_date", clustering=["status", "row_key"])
        run(_good("r1", request_digest="ab" * 16))
        assert there() == (["22 r1 Hi"], [])
        (row,) = warehouse.rows(table)
        assert (row["request_digest"], row["same_as"], row["attempts"]) == ("ab" * 16, None, 1)

    def test_good_rows_and_dead_letters_land_apart(self, run, there):
        report = run(_good("r1"), _bad("r2"), _bad("r3", RowStatus.MISSING))
        assert there() == (["22 r1 Hi"], ["22 r2 blocked", "22 r3 missing"])
        assert report.statuses == {"succeeded": 1, "blocked": 1, "missing": 1}

    def test_landing_twice_is_landing_once(self, run, there):
        for _ in range(2):
            run(_good("r1"), _good("r2"), _bad("r3"))
        assert there() == (["22 r1 Hi", "22 r2 Hi"], ["22 r3 blocked"])

    def test_also_when_the_whole_day_is_replaced(self, run, there):
        """The second time the load job exists already, but its staging table does not."""
        for _ in range(2):
            run(_good("r1"), _good("r2"), _bad("r3"), replace_partition=True)
        assert there() == (["22 r1 Hi", "22 r2 Hi"], ["22 r3 blocked"])

    def test_also_when_the_table_was_lost_in_between(self, run, there, warehouse, table):
        run(_good("r1"))
        warehouse.drop(table)
        run(_good("r1"))
        assert there() == (["22 r1 Hi"], [])

    def test_a_row_that_turns_good_leaves_the_dead_letters(self, run, there):
        run(_good("r1"), _bad("r2"))
        run(_good("r1"), _good("r2", "at last"))
        assert there() == (["22 r1 Hi", "22 r2 at last"], [])

    def test_and_the_other_way_round(self, run, there):
        run(_good("r1"), _good("r2"))
        run(_good("r1", "anew"), _bad("r2"))
        assert there() == (["22 r1 anew"], ["22 r2 blocked"])

    def test_a_smaller_batch_leaves_the_other_rows(self, run, there):
        """A repair sends only some keys of the day."""
        run(_good("r1"), _good("r2"), _bad("r3"))
        run(_good("r3", "cured"))
        assert there() == (["22 r1 Hi", "22 r2 Hi", "22 r3 cured"], [])

    def test_unless_it_replaces_the_day(self, run, there):
        run(_good("r1"), _good("r2"), _bad("r3"))
        run(_good("r3", "only"), replace_partition=True)
        assert there() == (["22 r3 only"], [])

    def test_other_days_are_never_touched(self, run, there):
        run(_good("r1"), _bad("r2"))
        run(_good("r1", "next day"), partition_date="2026-11-23", replace_partition=True)
        assert there() == (["22 r1 Hi", "23 r1 next day"], ["22 r2 blocked"])

    def test_no_rows_replace_a_day_with_nothing(self, run, there):
        run(_good("r1"))
        run(replace_partition=True)
        assert there() == ([], [])

    def test_more_rows_than_one_flush(self, run, there):
        run(*[_good(f"r{n:05d}", str(n)) for n in range(2_500)])
        assert len(there()[0]) == 2_500

    def test_nothing_but_the_tables_stays(self, run, bigquery_client, table, gcs, bucket):
        run(_good("r1"))
        assert {item.table_id for item in bigquery_client.list_tables(table.dataset)} == {"answers", "dead"}
        assert list(gcs.list(bucket / "staging")) == []

    def test_an_attempt_that_was_killed_leaves_its_rows_to_a_landing_a_day_later(self, run, gcs, bucket):
        gcs.write_new(bucket / "staging/rows-1000-dead.jsonl", b"{}")
        gcs.write_new(bucket / "staging-of-another-task/rows.jsonl", b"{}")
        run(_good("r1"))
        assert [info.uri.name for info in gcs.list(bucket)] == ["staging-of-another-task/rows.jsonl"]

    def test_one_that_failed_leaves_none(self, warehouse, gcs, bucket, table, bigquery_client):
        class Failing(BigQueryWarehouse):
            def execute(self, sql, *, job_id, parameters=None):
                raise ServiceError("BigQuery failed", status=403, retryable=True)

        sink = TableSink(gcs, Failing(bigquery_client), table, table.sibling("dead"), PLAN, bucket / "staging")
        with pytest.raises(ServiceError, match="BigQuery failed"):
            land([_good("r1")], sink, PLAN, expected=lambda: 1)
        assert list(gcs.list(bucket / "staging")) == []
        (staged,) = (item for item in bigquery_client.list_tables(table.dataset) if "staging" in item.table_id)
        assert bigquery_client.get_table(staged.reference).expires is not None

    def test_a_staging_table_of_an_old_attempt_lives_on_for_the_next(self, warehouse, table, bigquery_client):
        """It might else expire between the load and the MERGE."""
        warehouse.create_table(table, COLUMNS, expires_in=7_200)
        first = bigquery_client.get_table(str(table)).expires
        warehouse.create_table(table, COLUMNS, expires_in=7_300)
        assert bigquery_client.get_table(str(table)).expires == first
        warehouse.create_table(table, COLUMNS, expires_in=24 * 3600)
        assert (bigquery_client.get_table(str(table)).expires - first).total_seconds() > 20 * 3600

    def test_an_error_while_reading_lands_nothing(self, warehouse, gcs, bucket, table, bigquery_client):
        def broken():
            yield _good("r1")
            raise ServiceError("gone", status=503)

        sink = TableSink(gcs, warehouse, table, table.sibling("dead"), PLAN, bucket / "staging")
        with pytest.raises(ServiceError, match="gone"):
            land(broken(), sink, PLAN, expected=lambda: 1)
        assert list(bigquery_client.list_tables(table.dataset)) == []
        assert list(gcs.list(bucket / "staging")) == []


def test_the_environment_names_the_server(monkeypatch, bigquery_url):
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_url)
    assert list(BigQueryWarehouse(project="demo").rows("SELECT 1 AS x")) == [{"x": 1}]


def test_no_credentials_is_a_message_not_a_traceback(monkeypatch, tmp_path, table):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(ServiceError, match=f"No credentials for {table}.*gcloud auth application-default login"):
        list(BigQueryWarehouse().rows(table))
