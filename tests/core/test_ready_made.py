"""Ready-made request lines keep what stands beside their requests, and are named by what their author says."""

from __future__ import annotations

import json

import pytest

from airflow_vertex_batch.core.answers.rounds import Round
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.landing.destination import Files
from airflow_vertex_batch.core.landing.landing import Landing
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.requests.request import Correlation
from airflow_vertex_batch.core.requests.sources import Requests
from tests.builders import a_job, a_request, an_output, jsonl
from tests.fakes import MemoryStore, MemoryWarehouse

SOURCE = "gs://in/requests.jsonl"
LINES = [
    {"custom_id": "t-1", "id": 7, "request": a_request("one"), "meta": {"team": ["a", None]}},
    {"custom_id": "t-2", "id": 8, "request": a_request("two"), "meta": {}},
]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(**{SOURCE: jsonl(*LINES)})


def _prepared(store, token="one", **plan):
    rows = Requests((SOURCE,)).rows(store, MemoryWarehouse())
    return prepare(rows, PreparePlan(template=None, **plan), store, Uri.parse("gs://b/run"), token)


def _landed(store, manifest):
    """Answer every request that was prepared, and return the landed rows by key."""
    [shard] = manifest.shards
    asked = [json.loads(line) for line in store.objects[shard.uri].splitlines()]
    store.objects["gs://b/out/predictions.jsonl"] = jsonl(
        *(an_output(key=line["key"], request=line["request"]) for line in asked)
    )
    job = a_job(input_uris=(shard.uri,), output_uri="gs://b/out")
    plan = LandPlan(batch_id="b", partition_date="2026-11-22")
    landing = Landing([Round(manifest=manifest, jobs=(job,))], store, MemoryWarehouse(), plan)
    report = landing.land(Files(Uri.parse("gs://b/landed")))
    rows = map(json.loads, store.objects[report.destination].splitlines())
    return {row["row_key"]: row["columns"] for row in rows}


class TestMembersBesideARequest:
    def test_all_land_beside_the_answer(self, store):
        rows = _landed(store, _prepared(store))
        assert list(rows.values()) == [{name: line[name] for name in ("custom_id", "id", "meta")} for line in LINES]

    def test_or_those_that_columns_names(self, store):
        assert list(_landed(store, _prepared(store, columns=("id",))).values()) == [{"id": 7}, {"id": 8}]

    @pytest.mark.parametrize(("key_column", "keys"), [("custom_id", ["t-1", "t-2"]), ("id", ["r-7", "r-8"])])
    def test_one_of_them_may_name_the_row(self, store, key_column, keys):
        rows = _landed(store, _prepared(store, key_column=key_column))
        assert list(rows) == keys
        assert [row[key_column] for row in rows.values()] == [line[key_column] for line in LINES]

    def test_there_may_be_none(self, store):
        store.objects[SOURCE] = jsonl({"key": "a", "request": a_request("one")}, {"request": a_request("two")})
        rows = _landed(store, _prepared(store))
        assert (rows["a"], list(rows.values())) == (None, [None, None])

    @pytest.mark.parametrize("correlation", Correlation)
    def test_they_are_no_part_of_the_request(self, store, correlation):
        with_members = _prepared(store, correlation=correlation)
        store.objects[SOURCE] = jsonl(*({"request": line["request"]} for line in LINES))
        assert _prepared(store, "two", correlation=correlation).fingerprint == with_members.fingerprint

    def test_a_duplicate_has_its_own(self, store):
        store.objects[SOURCE] = jsonl(LINES[0], LINES[1] | {"request": a_request("one")})
        assert _landed(store, _prepared(store, key_column="custom_id", deduplicate=True)) == {
            line["custom_id"]: {name: line[name] for name in ("custom_id", "id", "meta")} for line in LINES
        }


class TestWhatALineDoesNotHave:
    @pytest.mark.parametrize(
        ("plan", "message"),
        [
            (
                {"columns": ("team",)},
                r"requests.jsonl:1, .*no column 'team'; it has 'custom_id', 'id', 'request', 'meta'",
            ),
            (
                {"key_column": "ticket"},
                r"requests.jsonl:1, .*no column 'ticket'; it has 'custom_id', 'id', 'request', 'meta' \[no-column\]",
            ),
        ],
        ids=["a column", "a key"],
    )
    def test_is_said_for_that_line(self, store, plan, message):
        with pytest.raises(InputError, match=message):
            _prepared(store, **plan)

    def test_a_key_that_two_lines_have_is_said_too(self, store):
        store.objects[SOURCE] = jsonl(*(line | {"custom_id": "same"} for line in LINES))
        with pytest.raises(InputError, match="'same' occurs more than once"):
            _prepared(store, key_column="custom_id")
