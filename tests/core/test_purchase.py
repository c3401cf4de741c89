"""Which jobs a manifest, or ready input, has to buy; how they are named and labelled."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.answers.collect.inputs import input_requests
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.manifest import Manifest, Shard
from airflow_vertex_batch.core.purchase.buyer import display_name, label_value, owner_labels, purchases
from tests.builders import a_spec, an_identity
from tests.fakes import MemoryStore, MemoryWarehouse


def _manifest(shards: int) -> Manifest:
    made = tuple(Shard(uri=f"gs://b/{n}.jsonl", request_count=1, size_bytes=10 + n) for n in range(shards))
    return Manifest(uri="gs://b/m.json", fingerprint="f1", row_count=shards, request_count=shards, shards=made)


def _bought(base, manifest=None, store=None):
    return list(purchases(base, manifest, store or MemoryStore()))


class TestNames:
    @pytest.mark.parametrize(
        ("members", "name"),
        [
            ({}, "nightly.create scheduled__2026-11-22"),
            ({"map_index": 3}, "nightly.create[3] scheduled__2026-11-22"),
        ],
        ids=["plain", "mapped"],
    )
    def test_a_person_finds_the_job_in_the_console(self, members, name):
        assert display_name(an_identity(**members)) == name

    def test_it_is_never_longer_than_the_service_takes(self):
        assert len(display_name(an_identity(run_id="x" * 300))) == 128

    @given(st.text(max_size=100))
    def test_a_label_s_value_is_always_legal(self, text):
        assert re.fullmatch(r"[a-z0-9_-]{0,63}", label_value(text))

    @pytest.mark.parametrize(
        ("text", "value"), [("Nightly.Mood", "nightly-mood"), ("a_b-c1", "a_b-c1"), ("übung", "-bung")]
    )
    def test_a_label_s_value_stays_readable(self, text, value):
        assert label_value(text) == value

    def test_a_bill_can_be_split_by_owner(self):
        assert owner_labels(an_identity(dag_id="My DAG")) == {
            "airflow-dag": "my-dag", "airflow-task": "create",
        }  # fmt: skip


class TestManifest:
    def test_one_shard_is_one_job(self):
        ((spec, content),) = _bought(a_spec(), _manifest(1))
        assert (spec.inputs, spec.output, spec.display_name) == (("gs://b/0.jsonl",), "gs://out/o/00000", "nightly")
        assert content

    def test_each_shard_is_a_job_with_an_output_of_its_own(self):
        """Two jobs that begin in the same instant could else share a folder."""
        bought = _bought(a_spec(), _manifest(3))
        assert [spec.inputs for spec, _ in bought] == [("gs://b/0.jsonl",), ("gs://b/1.jsonl",), ("gs://b/2.jsonl",)]
        assert [spec.output for spec, _ in bought] == ["gs://out/o/00000", "gs://out/o/00001", "gs://out/o/00002"]
        assert [spec.display_name for spec, _ in bought] == ["nightly 1/3", "nightly 2/3", "nightly 3/3"]
        assert len({content for _, content in bought}) == 3

    @pytest.mark.parametrize(
        ("output", "outputs"),
        [
            ("gs://out/o/", ["gs://out/o/00000", "gs://out/o/00001"]),
            ("bq://p.d", ["bq://p.d", "bq://p.d"]),
            ("bq://p", ["bq://p", "bq://p"]),
            ("bq://p.d.t", ["bq://p.d.t_00000", "bq://p.d.t_00001"]),
        ],
    )
    def test_every_kind_of_output_is_kept_apart(self, output, outputs):
        assert [spec.output for spec, _ in _bought(a_spec(output=output), _manifest(2))] == outputs

    def test_a_table_for_one_job_keeps_its_name(self):
        ((spec, _),) = _bought(a_spec(output="bq://p.d.t"), _manifest(1))
        assert spec.output == "bq://p.d.t"

    def test_a_long_name_keeps_the_number_at_its_end(self):
        bought = _bought(a_spec(display_name="x" * 128), _manifest(2))
        assert bought[1][0].display_name.endswith(" 2/2")
        assert len(bought[1][0].display_name) == 128

    def test_no_shards_buy_nothing(self):
        assert _bought(a_spec(), _manifest(0)) == []


class TestReadyInput:
    def test_files_are_one_job_whose_content_is_theirs(self):
        spec = a_spec(inputs=("gs://in/*.jsonl",))
        store = MemoryStore(**{"gs://in/a.jsonl": b"1", "gs://in/b.jsonl": b"2"})
        ((bought, before),) = _bought(spec, store=store)
        assert bought == spec
        assert _bought(spec, store=store) == [(spec, before)]
        store.objects["gs://in/b.jsonl"] = b"3"
        ((_, after),) = _bought(spec, store=store)
        assert after != before

    def test_a_table_goes_by_its_name(self):
        ((spec, content),) = _bought(a_spec(inputs=("bq://p.d.t",)))
        assert spec.inputs == ("bq://p.d.t",)
        assert content != _bought(a_spec(inputs=("bq://p.d.u",)))[0][1]

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            (("gs://in/none.jsonl",), "gs://in/none.jsonl matches no file.*No job was created"),
            (("bq://p.d.t", "gs://in/a.jsonl"), "2 inputs, one of them a table"),
            (("/tmp/x.jsonl",), "'/tmp/x.jsonl' is no input for a batch job"),
        ],
        ids=["no file", "table and file", "local path"],
    )
    def test_what_no_job_takes_is_refused_before_anything_is_paid(self, inputs, message):
        with pytest.raises(InputError, match=message):
            _bought(a_spec(inputs=inputs))


class TestInputThatIsReady:
    def test_a_copy_beside_it_is_no_part_of_the_job(self):
        """The service reads the name as it stands; the copy would be another purchase, and rows that never come."""
        store, base = MemoryStore(), a_spec(inputs=("gs://b/ready.jsonl",))
        store.objects["gs://b/ready.jsonl"] = b'{"key": "a", "request": {"contents": []}}\n'
        alone = _bought(base, store=store)
        store.objects["gs://b/ready.jsonl.bak"] = b'{"key": "b", "request": {"contents": []}}\n'
        assert _bought(base, store=store) == alone
        assert [key for key, *_ in input_requests(store, MemoryWarehouse(), base.inputs)] == ["a"]

    def test_a_name_that_only_others_begin_with_is_not_there(self):
        store = MemoryStore()
        store.objects["gs://b/ready.jsonl.bak"] = b"{}\n"
        with pytest.raises(InputError, match=r"gs://b/ready.jsonl matches no file"):
            _bought(a_spec(inputs=("gs://b/ready.jsonl",)), store=store)
