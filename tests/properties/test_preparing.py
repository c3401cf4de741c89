"""Shards partition the input, every key occurs exactly once, and nothing depends on the order."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.address import Uri
from airflow_vertex_batch.core.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.request import OnRejectedRow, RequestTemplate
from airflow_vertex_batch.core.sources import Rows
from tests.builders import a_request
from tests.fakes import MemoryStore, MemoryWarehouse

FOLDER = Uri.parse("gs://b/run")
#: Few different texts, so that many rows are the same; some that cannot be sent.
TEXTS = st.one_of(
    st.sampled_from(["a", "b", "", " ", "{{ x }}"]), st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
ROWS = st.lists(st.fixed_dictionaries({"text": TEXTS, "id": st.integers(0, 9)}), max_size=25)
KEYS = st.one_of(st.sampled_from(["a", "a-2", "a-3", "b", "7"]), st.none(), st.integers(0, 3))


def _prepare(rows, store, *, token="one", **plan):
    made = PreparePlan(
        **{"template": RequestTemplate(prompt="{{ text }}"), "on_rejected_row": OnRejectedRow.DEAD_LETTER} | plan
    )
    return prepare(Rows(rows).rows(store, MemoryWarehouse()), made, store, FOLDER, token)


def _lines(store, *uris):
    return [json.loads(line) for uri in uris for line in store.objects[uri].splitlines()]


@given(ROWS, st.integers(1, 7), st.booleans())
def test_shards_partition_the_input(rows, max_requests, named):
    store = MemoryStore()
    manifest = _prepare(rows, store, max_requests=max_requests, columns=("id",), key_column="id" if named else None)
    lines = _lines(store, *[shard.uri for shard in manifest.shards])
    keys = [line["key"] for line in lines]
    assert len(set(keys)) == len(keys) == manifest.request_count
    assert all(key[0].isascii() and key[0].isalpha() for key in keys)
    assert all(1 <= shard.request_count <= max_requests for shard in manifest.shards)
    assert manifest.row_count == len(rows) == manifest.request_count + manifest.rejected_count
    # What was sent and what was rejected are the rows, each once.
    sent = Counter(line["request"]["contents"][0]["parts"][0]["text"] for line in lines)
    rejected = {line["line"] for line in _lines(store, *filter(None, [manifest.rejected_uri]))}
    assert sent == Counter(row["text"] for number, row in enumerate(rows, start=1) if number not in rejected)
    assert {number for number, row in enumerate(rows, start=1) if not row["text"].strip()} <= rejected
    beside = _lines(store, *[shard.columns_uri for shard in manifest.shards])
    assert [line["key"] for line in beside] == keys
    # The files are all there is: nothing is left over.
    wanted = {
        manifest.uri,
        *(uri for shard in manifest.shards for uri in (shard.uri, shard.columns_uri)),
        manifest.rejected_uri,
    } - {""}
    assert set(store.objects) == wanted


@given(ROWS, st.randoms(use_true_random=False), st.integers(1, 7), st.integers(1, 7))
def test_the_fingerprint_knows_no_order_and_no_shards(rows, random, first, second):
    shuffled = random.sample(rows, len(rows))
    assert (
        _prepare(rows, MemoryStore(), max_requests=first).fingerprint
        == _prepare(shuffled, MemoryStore(), max_requests=second).fingerprint
    )


@given(ROWS, st.randoms(use_true_random=False))
def test_preparing_twice_is_preparing_once(rows, random):
    store = MemoryStore()
    first = _prepare(rows, store, max_requests=5)
    before = dict(store.objects)
    assert _prepare(random.sample(rows, len(rows)), store, token="two", max_requests=5) == first
    assert store.objects == before


@given(st.lists(KEYS, max_size=15))
def test_ready_made_keys_become_unique_whatever_they_are(keys):
    store = MemoryStore()
    lines = [{"key": key, "request": a_request(str(number))} for number, key in enumerate(keys)]
    manifest = _prepare(lines, store, template=None)
    made = [line["key"] for line in _lines(store, *[shard.uri for shard in manifest.shards])]
    assert len(set(made)) == len(made) == len(keys)
