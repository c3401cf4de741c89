"""Shards partition the input, every key occurs exactly once, and nothing depends on the order."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.requests.lint import Linter, lint_lines
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.requests.request import (
    Correlation,
    OnRejectedRow,
    RequestBuilder,
    RequestTemplate,
    RowProblem,
    content_key,
    request_digest,
    row_key,
)
from airflow_vertex_batch.core.requests.sources import Rows
from tests.builders import a_request
from tests.fakes import MemoryStore, MemoryWarehouse

FOLDER = Uri.parse("gs://b/run")
#: Few different texts, so that many rows are the same; some that cannot be sent.
TEXTS = st.one_of(
    st.sampled_from(["a", "b", "", " ", "{{ x }}"]), st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
ROWS = st.lists(st.fixed_dictionaries({"text": TEXTS, "id": st.integers(0, 9)}), max_size=25)
IMAGES = st.sampled_from(
    [None, "", "gs://b/o.png", "gs://b/o.jpg", "gs://b", "https://a/b.png", "gs://b/\0.png", "b.gif"]
)
KINDS = st.sampled_from([None, "image/png", "image", "video/mp4"])
KEYS = st.one_of(st.sampled_from(["a", "a-2", "a-3", "b", "7"]), st.none(), st.integers(0, 3))


def _prepare(rows, store, *, token="one", known=None, **plan):
    made = PreparePlan(
        **{"template": RequestTemplate(prompt="{{ text }}"), "on_rejected_row": OnRejectedRow.DEAD_LETTER} | plan
    )
    return prepare(Rows(rows).rows(store, MemoryWarehouse()), made, store, FOLDER, token, known=known)


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


@given(
    ROWS, st.sets(st.sampled_from(["a", "b", "{{ x }}"])), st.booleans(), st.sampled_from(Correlation), st.booleans()
)
def test_every_row_ends_in_one_place_and_every_key_stands_once(rows, answered, named, correlation, deduplicate):
    store = MemoryStore()
    digests = [request_digest(encode(a_request(text)), "m") for text in answered]
    manifest = _prepare(
        rows, store, known=lambda: digests, model="m", deduplicate=deduplicate, correlation=correlation,
        key_column="id" if named else None, columns=("text",), max_requests=3,
    )  # fmt: skip
    sent = _lines(store, *[shard.uri for shard in manifest.shards])
    doubles, known = (_lines(store, *filter(None, [uri])) for uri in (manifest.duplicates_uri, manifest.known_uri))
    keys = [line["key"] for line in [*sent, *doubles, *known]]
    assert len(set(keys)) == len(keys)
    counts = (len(sent), manifest.rejected_count, len(doubles), len(known))
    assert counts == (
        manifest.request_count, manifest.rejected_count, manifest.duplicate_count, manifest.known_count,
    )  # fmt: skip
    assert sum(counts) == manifest.row_count == len(rows)
    # Duplicates in their place, and what was known: the texts of the rows, each as often as it was there.
    text = {line["key"]: line["request"]["contents"][0]["parts"][0]["text"] for line in sent}
    assert not answered & set(text.values())
    assert not deduplicate or len(set(text.values())) == len(text)
    said = [*text.values(), *(text[line["same_as"]] for line in doubles), *(line["columns"]["text"] for line in known)]
    rejected = {line["line"] for line in _lines(store, *filter(None, [manifest.rejected_uri]))}
    assert Counter(said) == Counter(row["text"] for number, row in enumerate(rows, start=1) if number not in rejected)
    assert all(line["columns"]["text"] == text[line["same_as"]] for line in doubles)


@given(ROWS, st.randoms(use_true_random=False), st.booleans())
def test_a_set_with_duplicates_is_found_again_in_any_order(rows, random, named):
    """Which of two like rows is sent depends on the order; what the set is does not."""
    rows = [row | {"id": f"{row['id']}-{number}"} for number, row in enumerate(rows)]
    plan = {"deduplicate": True, "key_column": "id" if named else None, "max_requests": 4, "columns": ("text",)}
    store = MemoryStore()
    first = _prepare(rows, store, **plan)
    before = dict(store.objects)
    if first.rejected_count == 0:
        assert _prepare(random.sample(rows, len(rows)), store, token="two", **plan) == first
        assert store.objects == before


@given(
    st.lists(st.fixed_dictionaries({"text": TEXTS, "id": st.integers() | TEXTS, "image": IMAGES}), max_size=6),
    st.sampled_from(["{{ text }}", "T: {{ text }}", "{% if text %}{{ text }}{% endif %}", ""]),
    st.booleans(), st.sampled_from([{}, {"image": None}]), st.sampled_from([{}, {"team": "x"}]),
)  # fmt: skip
def test_a_chunk_gives_the_bytes_of_its_rows_one_by_one(rows, prompt, named, media, labels):
    template = RequestTemplate(
        prompt=prompt, media=media, extra={"labels": labels}, response_schema={"type": "string"}, system_instruction="é"
    )
    if not prompt and not media:
        return
    store = MemoryStore()
    plan = {"template": template, "key_column": "id" if named else None, "lint": False}
    manifest = _prepare(rows, store, **plan)
    build, wanted, seen = RequestBuilder(template), [], Counter()
    for row in rows:
        try:
            request = build(row)
            key = row_key(row["id"]) if named else content_key(request)
        except RowProblem:
            continue
        seen[key] += 1
        if seen[key] == 1 or not named:
            key = key if seen[key] == 1 else f"{key}-{seen[key]}"
            wanted.append(b'{"key":' + encode(key) + b',"request":' + request + b"}\n")
    assert b"".join(store.objects[shard.uri] for shard in manifest.shards) == b"".join(wanted)
    assert all(json.loads(line)["request"]["labels"] == labels for line in wanted if labels)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"text": st.one_of(TEXTS, st.sampled_from(["a\0", "b"])), "image": IMAGES, "kind": KINDS}
        ),
        max_size=8,
    ),
    st.integers(1, 5),
)
def test_lint_finds_in_a_template_s_lines_what_it_finds_on_each(rows, max_requests):
    """The short way is the long way, shard by shard."""
    template = RequestTemplate(prompt="{{ text }}", media={"image": None})
    rows = [row | {"image_mime_type": row["kind"]} for row in rows]
    plan = {"template": template, "max_requests": max_requests}
    store = MemoryStore()
    everything = _prepare(rows, store, lint=False, **plan)
    manifest = _prepare(rows, store, token="two", **plan)
    left = {line["key"] for line in _lines(store, *[shard.uri for shard in manifest.shards])}
    for shard in everything.shards:
        for raw in store.objects[shard.uri].splitlines(keepends=True):
            is_bad = any(finding.severity == "error" for finding in Linter("x", shortcut=False).check(1, raw))
            assert (json.loads(raw)["key"] in left) is not is_bad
    for shard in manifest.shards:
        found = lint_lines("x", store.objects[shard.uri].splitlines(keepends=True))
        assert [finding for finding in found if finding.severity == "error"] == []


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
