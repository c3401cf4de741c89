"""BigQuery in and out: columns pass through, types are checked, four ways from source to destination."""

from __future__ import annotations

import json

import pytest

from airflow_vertex_batch.core.domain.address import Uri
from tests.emulator.worlds import INPUT, MemoryStore, World, a_body, a_line, a_request, from_table, to_table

COLUMNS = {"ticket": "INT64", "day": "DATE", "score": "NUMERIC(10, 2)", "request": "JSON", "tags": "JSON"}
ROWS = [
    {"ticket": 7, "day": "2026-11-21", "score": "1.50", "request": a_request("seven"), "tags": ["a"]},
    {"ticket": 8, "day": None, "score": None, "request": a_request("eight"), "tags": None},
]


def a_world(columns=None, rows=ROWS, **options):
    world = World(**options)
    world.warehouse.put("p.d.tickets", columns or COLUMNS, *rows)
    return world


class TestFromATable:
    def test_columns_pass_through_to_a_table_unchanged_and_typed(self):
        world = a_world(staging=Uri.parse("gs://in/staging"))
        job = world.ended(
            world.create(a_body(inputConfig=from_table("p.d.tickets"), outputConfig=to_table("p.d.answers")))
        )
        assert job["state"] == "JOB_STATE_SUCCEEDED", job
        assert job["outputInfo"] == {"bigqueryOutputDataset": "bq://p.d", "bigqueryOutputTable": "answers"}
        assert world.warehouse.schemas["p.d.answers"] == {
            "ticket": "INT64",
            "day": "DATE",
            "score": "NUMERIC(10, 2)",
            "tags": "JSON",
            "request": "JSON",
            "response": "JSON",
            "status": "STRING",
            "processed_time": "TIMESTAMP",
        }
        rows = {row["ticket"]: row for row in world.warehouse.all("p.d.answers")}
        assert rows[7]["day"] == "2026-11-21"
        assert rows[7]["tags"] == ["a"]
        assert rows[7]["status"] == ""
        assert rows[7]["response"]["candidates"][0]["content"]["parts"][0]["text"] == "In short: seven."
        assert rows[8]["day"] is None

    def test_to_cloud_storage_columns_become_siblings(self):
        world = a_world()
        job = world.ended(world.create(a_body(inputConfig=from_table("p.d.tickets"))))
        lines = {line["ticket"]: line for line in world.output(job)}
        assert (lines[7]["score"], lines[7]["tags"]) == ("1.50", ["a"])
        assert lines[8]["response"]["candidates"]

    def test_requests_may_be_text(self):
        rows = [{"id": 1, "request": json.dumps(a_request())}, {"id": 2, "request": "no json"}]
        world = a_world({"id": "INT64", "request": "STRING"}, rows)
        job = world.ended(world.create(a_body(inputConfig=from_table("p.d.tickets"))))
        assert job["completionStats"] == {"successfulCount": "1", "failedCount": "1"}

    def test_a_request_may_break_the_rules_of_files(self):
        rows = [{"id": 1, "request": a_request(tools=[{"googleSearch": {}}])}]
        world = a_world({"id": "INT64", "request": "JSON"}, rows)
        assert (
            world.ended(world.create(a_body(inputConfig=from_table("p.d.tickets"))))["state"] == "JOB_STATE_SUCCEEDED"
        )

    @pytest.mark.parametrize(
        ("columns", "words"),
        [
            pytest.param({"id": "INT64"}, "needs a column request", id="no request"),
            pytest.param({"request": "STRUCT<a INT64>"}, "needs a column request", id="a request of another type"),
            pytest.param({"request": "JSON", "status": "STRING"}, "reserved", id="a column named status"),
            pytest.param({"request": "JSON", "response": "STRING"}, "reserved", id="a column named response"),
            *(
                pytest.param({"request": "JSON", "x": kind}, f"Unsupported column types: x ({kind})", id=kind)
                for kind in ("ARRAY<STRING>", "STRUCT<A INT64>", "RANGE<DATE>", "DATETIME", "GEOGRAPHY")
            ),
        ],
    )
    def test_with_columns_that_cannot_pass_the_import_fails(self, columns, words):
        world = a_world(columns, [])
        job = world.ended(world.create(a_body(inputConfig=from_table("p.d.tickets"))))
        assert (job["state"], job["error"]["code"]) == ("JOB_STATE_FAILED", 3)
        assert words in job["error"]["message"]

    def test_that_is_not_there_the_job_fails(self):
        world = World()
        job = world.ended(world.create(a_body(inputConfig=from_table("p.d.absent"))))
        assert (job["error"]["code"], "Not found: Table p.d.absent" in job["error"]["message"]) == (5, True)

    def test_to_a_table_without_a_place_for_staging_the_job_says_so(self):
        world = a_world()
        job = world.ended(
            world.create(a_body(inputConfig=from_table("p.d.tickets"), outputConfig=to_table("p.d.answers")))
        )
        assert "staging folder" in job["error"]["message"]

    def test_that_is_an_earlier_output_only_failed_rows_run_again(self):
        world = a_world(staging=Uri.parse("gs://in/staging"))
        bad = {"contents": [{"role": "tester", "parts": [{"text": "x"}]}]}
        world.warehouse.put(
            "p.d.tickets",
            {"id": "INT64", "request": "JSON"},
            {"id": 1, "request": a_request()},
            {"id": 2, "request": bad},
        )
        tables = (from_table("p.d.tickets"), to_table("p.d.first"))
        world.ended(world.create(a_body(inputConfig=tables[0], outputConfig=tables[1])))
        world.ended(world.create(a_body(inputConfig=from_table("p.d.first"), outputConfig=to_table("p.d.second"))))
        first, second = ({row["id"]: row for row in world.warehouse.all(f"p.d.{name}")} for name in ("first", "second"))
        assert second[1] == first[1]
        assert second[2]["status"] == first[2]["status"]
        assert [job["billedRows"] for job in world.emulator.books()["jobs"]] == [1, 0]


class TestIntoATable:
    @pytest.mark.parametrize(
        ("destination", "dataset", "table"),
        [
            pytest.param(
                "p", "bq://p.gen_ai_batch_prediction", "predictions_2026_11_22T00_00_01_234567Z", id="a project"
            ),
            pytest.param("p.d", "bq://p.d", "predictions_2026_11_22T00_00_01_234567Z", id="a dataset"),
            pytest.param("p.d.t", "bq://p.d", "t", id="a table"),
        ],
    )
    def test_what_the_destination_leaves_open_is_named_by_the_service(self, destination, dataset, table):
        world = World()
        job = world.run(a_line("a"), a_line("b"), outputConfig=to_table(destination))
        assert job["outputInfo"] == {"bigqueryOutputDataset": dataset, "bigqueryOutputTable": table}
        rows = world.warehouse.all(f"{dataset.removeprefix('bq://')}.{table}")
        assert {row["key"] for row in rows} == {"a", "b"}

    def test_siblings_become_columns_of_their_type(self):
        world = World()
        world.run({**a_line("a"), "n": "007", "x": 1.5, "ok": True}, outputConfig=to_table("p.d.t"))
        schema = world.warehouse.schemas["p.d.t"]
        assert {name: schema[name] for name in ("key", "n", "x", "ok")} == {
            "key": "STRING",
            "n": "INT64",
            "x": "FLOAT64",
            "ok": "BOOL",
        }

    def test_the_staged_rows_are_gone_in_the_end(self):
        world = World()
        world.run(a_line(), outputConfig=to_table("p.d.t"))
        assert list(world.store.objects) == [INPUT]

    def test_a_cancelled_job_leaves_the_rows_it_has(self):
        world = World()
        world.store.put(INPUT, *(a_line(f"k{number}") for number in range(10)))
        job = world.create(a_body(outputConfig=to_table("p.d.t")))
        world.emulator.advance(90 + 61)
        world.call("POST", f"/v1/{job['name']}:cancel")
        world.ended(job)
        assert len(world.warehouse.all("p.d.t")) == 5

    def test_without_a_warehouse_the_job_fails_and_says_why(self):
        store = MemoryStore()
        world = World(store, warehouse=None)
        job = world.run(a_line(), outputConfig=to_table("p.d.t"))
        assert (job["error"]["code"], "without BigQuery" in job["error"]["message"]) == (9, True)
