"""What a plan may ask for: duplicates, known answers, labels, cures; and sets made from lines that are ready."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.core.requests.lint import lint_lines
from airflow_vertex_batch.core.requests.prepare import prepare, read_manifest, write_set
from airflow_vertex_batch.core.requests.request import (
    MAX_BYTES,
    MAX_REQUESTS,
    Correlation,
    RequestTemplate,
    key_label,
    request_digest,
)
from tests.builders import a_line, a_request
from tests.fakes import MemoryStore

from .preparing import DEAD_LETTER, FOLDER, a_plan, placed, prepared, read_jsonl, ready_made, requests_of, texts


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


REF = {"type": "OBJECT", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "STRING"}}}


class TestFix:
    """What can be cured without changing its meaning is cured and sent."""

    def _line(self, key: str, **config: Any) -> dict[str, Any]:
        config = {"responseMimeType": "application/json", "responseSchema": REF, **config}
        return {"key": key, "request": a_request(key, generationConfig=config)}

    def test_a_line_that_can_be_cured_is_sent(self, store):
        manifest = ready_made([a_line("r1"), self._line("r2"), a_line("r3")], store, fix=True)
        (cured,) = [line for line in requests_of(store, manifest) if line["key"] == "r2"]
        assert (manifest.request_count, manifest.fixed_count, manifest.rejected_count) == (3, 1, 0)
        assert "$ref" not in json.dumps(cured)
        assert list(lint_lines("x", store.objects[manifest.shards[0].uri].splitlines(keepends=True))) == []

    @pytest.mark.parametrize(
        ("config", "max_bytes", "code"),
        [({"topP": 7}, MAX_BYTES, "out-of-range"), ({"stopSequences": ["x" * 300]}, 400, "too-large")],
        ids=["more than one fault", "too large for any file"],
    )
    def test_a_line_that_cannot_be_cured_is_rejected_for_what_it_was(self, store, config, max_bytes, code):
        lines = [self._line("r1", **config), a_line("r2")]
        manifest = ready_made(lines, store, fix=True, max_bytes=max_bytes, on_rejected_row=DEAD_LETTER)
        assert (manifest.request_count, manifest.fixed_count, manifest.rejected_count) == (1, 0, 1)
        assert read_jsonl(store, manifest.rejected_uri)[0]["code"] in {code, "schema-ref", "too-large"}

    def test_what_is_cured_is_known_and_doubled_like_others(self, store):
        first = self._line("r1")
        twin = {"key": "r2", "request": first["request"]}
        manifest = ready_made([first, twin], store, fix=True, deduplicate=True)
        assert (manifest.request_count, manifest.duplicate_count, manifest.fixed_count) == (1, 1, 1)

    def test_a_template_is_cured_once_for_all_rows(self, store):
        template = RequestTemplate(
            prompt="{{ text }}", generation_config={"responseMimeType": "application/json", "responseSchema": REF}
        )
        with pytest.raises(InputError, match="No request of this batch could be sent"):
            prepared(texts(3), store, template=template)
        manifest = prepared(texts(3), store, template=template, fix=True)
        assert (manifest.request_count, manifest.fixed_count) == (3, 3)
        assert "$ref" not in json.dumps(requests_of(store, manifest))

    def test_a_template_that_cannot_be_cured_is_refused(self, store):
        template = RequestTemplate(prompt="{{ text }}", generation_config={"topP": 7})
        with pytest.raises(InputError, match=r"No request of this batch could be sent.*out-of-range"):
            prepared(texts(3), store, template=template, fix=True)


TWINS = [{"id": key, "text": text, "mood": key} for key, text in (("a", "x"), ("b", "y"), ("c", "x"), ("d", "x"))]


class TestDuplicates:
    @pytest.mark.parametrize("correlation", Correlation)
    def test_identical_requests_are_sent_once(self, store, correlation):
        manifest = prepared(TWINS, store, key_column="id", columns=("mood",), deduplicate=True, correlation=correlation)
        assert [line["key"] for line in requests_of(store, manifest)] == ["a", "b"]
        assert read_jsonl(store, manifest.duplicates_uri) == [
            {"key": key, "same_as": "a", "columns": {"mood": key}} for key in ("c", "d")
        ]
        assert (manifest.row_count, manifest.request_count, manifest.duplicate_count) == (4, 2, 2)

    def test_unless_nobody_asks(self, store):
        manifest = prepared(TWINS, store, key_column="id")
        assert (manifest.request_count, manifest.duplicate_count, manifest.duplicates_uri) == (4, 0, "")

    def test_each_has_a_key_of_its_own(self, store):
        manifest = prepared(TWINS, store, deduplicate=True)
        keys = [line["key"] for line in requests_of(store, manifest) + read_jsonl(store, manifest.duplicates_uri)]
        assert len(set(keys)) == 4

    def test_a_row_that_is_not_sent_has_no_duplicates(self, store):
        """Their keys have no part in it: the second is refused for its own sake."""
        lines = [a_line(f"r{n}", request=a_request(tools=[{"googleSearch": {}}])) for n in range(3)]
        manifest = ready_made(lines, store, deduplicate=True, on_rejected_row=DEAD_LETTER)
        assert (manifest.rejected_count, manifest.duplicate_count, manifest.request_count) == (3, 0, 0)

    def test_across_chunks_and_shards(self, store):
        rows = [{"id": f"k{n}", "text": f"t{n % 700}"} for n in range(3_000)]
        manifest = prepared(rows, store, key_column="id", deduplicate=True, max_requests=150)
        assert (manifest.request_count, manifest.duplicate_count) == (700, 2_300)
        text = {
            line["key"]: line["request"]["contents"][0]["parts"][0]["text"] for line in requests_of(store, manifest)
        }
        for line in read_jsonl(store, manifest.duplicates_uri):
            assert text[line["same_as"]] == f"t{int(line['key'][1:]) % 700}"


class TestKnown:
    def _digests(self, store, manifest, model):
        raw = [line for shard in manifest.shards for line in store.objects[shard.uri].splitlines()]
        return [request_digest(line[line.index(b'"request":') + 10 : -1], model) for line in raw]

    @pytest.mark.parametrize("correlation", Correlation)
    def test_what_has_an_answer_is_not_sent_again(self, correlation):
        """Last night's digests are taken from its request files, as export does."""
        plan = {"key_column": "id", "model": "gemini-x", "columns": ("mood",), "correlation": correlation}
        store = MemoryStore()
        digests = self._digests(store, prepared(texts(5), store, **plan), "gemini-x")
        rows = [*texts(4), {"id": 9, "text": "new", "mood": 1}]
        manifest = prepare(placed(rows), a_plan(**plan), store, FOLDER, "two", known=lambda: digests)
        assert [line["key"] for line in requests_of(store, manifest)] == ["r-9"]
        assert read_jsonl(store, manifest.known_uri) == [
            {"key": f"r-{n}", "request_digest": digests[n], "columns": {"mood": n % 3}} for n in range(4)
        ]
        assert (manifest.row_count, manifest.known_count, manifest.request_count) == (5, 4, 1)

    def test_the_same_night_again_sends_nothing(self, store):
        digests = self._digests(store, prepared(texts(700), store), "")
        manifest = prepare(placed(texts(700)), a_plan(), store, FOLDER, "two", known=lambda: digests)
        assert (manifest.shards, manifest.known_count) == ((), 700)

    def test_for_another_model_everything_is_new(self, store):
        digests = self._digests(store, prepared(texts(3), store, model="a"), "a")
        manifest = prepare(placed(texts(3)), a_plan(model="b"), store, FOLDER, "two", known=lambda: digests)
        assert (manifest.known_count, manifest.request_count, manifest.model) == (0, 3, "b")

    def test_other_known_rows_are_another_set(self, store):
        first = prepared(texts(3), store)
        digests = self._digests(store, first, "")
        sets = {
            prepare(
                placed(texts(3)), a_plan(), store, FOLDER, str(count), known=lambda count=count: digests[:count]
            ).uri
            for count in range(4)
        }
        assert len(sets) == 4
        assert first.uri in sets


class TestLabels:
    @pytest.mark.parametrize("labels", [{}, {"team": "x"}], ids=["alone", "with the user's"])
    def test_the_key_travels_as_a_label(self, store, labels):
        template = RequestTemplate(prompt="{{ text }}", extra={"labels": labels})
        manifest = prepared(texts(3), store, template=template, key_column="id", correlation=Correlation.LABEL)
        for line in requests_of(store, manifest):
            assert line["request"]["labels"] == {**labels, "avb_key": key_label(line["key"])}

    def test_a_key_with_a_number_behind_has_its_own(self, store):
        manifest = prepared(
            ["a", "a"], store, template=RequestTemplate(prompt="{{ prompt }}"), correlation=Correlation.LABEL
        )
        for line in requests_of(store, manifest):
            assert line["request"]["labels"] == {"avb_key": key_label(line["key"])}

    def test_ready_made_lines_keep_their_labels(self, store):
        lines = [a_line("r1"), a_line("r2", request=a_request(labels={"team": "x", "avb_key": "old"}))]
        one, two = requests_of(store, ready_made(lines, store, correlation=Correlation.LABEL))
        assert one["request"]["labels"] == {"avb_key": key_label("r1")}
        assert two["request"]["labels"] == {"team": "x", "avb_key": key_label("r2")}

    def test_labels_that_are_none_are_refused(self, store):
        lines = [a_line("r1"), a_line("r2", request=a_request(labels=["x"]))]
        manifest = ready_made(lines, store, correlation=Correlation.LABEL, on_rejected_row=DEAD_LETTER)
        assert (manifest.request_count, manifest.rejected_count) == (1, 1)


SOME_BLANK = [{"text": "a"}, {"text": ""}, {"text": "b"}, {"text": " "}]


class TestRejectedRatio:
    @pytest.mark.parametrize("ratio", [0.5, 0.6, 1.0])
    def test_up_to_the_limit_they_are_dead_letters(self, store, ratio):
        assert prepared(SOME_BLANK, store, on_rejected_row=DEAD_LETTER, max_rejected_ratio=ratio).rejected_count == 2

    def test_above_it_the_task_fails_and_leaves_nothing(self, store):
        with pytest.raises(InputError, match=r"more than the 25\.00%") as caught:
            prepared(SOME_BLANK, store, on_rejected_row=DEAD_LETTER, max_rejected_ratio=0.25)
        assert str(caught.value) == (
            "2 of 4 rows (50.00%) cannot be sent, more than the 25.00% that max_rejected_ratio=0.25 allows:\n"
            "rows:2, rows:4: The prompt is empty for this row [empty-prompt]. "
            "Nothing was uploaded and no job was created. "
            "Correct the rows or the prompt, or raise max_rejected_ratio."
        )
        assert store.objects == {}

    def test_no_rows_are_no_ratio(self, store):
        assert prepared([], store, on_rejected_row=DEAD_LETTER, max_rejected_ratio=0.0).row_count == 0


class TestPlan:
    @pytest.mark.parametrize(
        "member",
        [{"max_requests": 0}, {"max_requests": MAX_REQUESTS + 1}, {"max_bytes": 0}, {"max_bytes": MAX_BYTES + 1},
         {"max_rejected_ratio": -0.1}, {"max_rejected_ratio": 1.1}],
        ids=str,
    )  # fmt: skip
    def test_a_number_out_of_its_range_is_named(self, member):
        (name,) = member
        with pytest.raises(InputError, match=f"{name} is .*Choose a number from"):
            a_plan(**member)


class TestWeight:
    def test_a_manifest_says_what_its_requests_weigh(self, store):
        template = RequestTemplate(
            prompt="{{ text }}", system_instruction="é" * 10, generation_config={"maxOutputTokens": 50},
            media={"image": None},
        )  # fmt: skip
        rows = [{"text": "ab", "image": "gs://b/o.png"}, {"text": "üb", "image": None}, {"text": "", "image": None}]
        weight = prepared(rows, store, template=template, on_rejected_row=DEAD_LETTER).weight
        assert weight is not None
        assert (weight.other_chars, weight.media, weight.max_output_tokens) == (21, {"image": 1}, 100)
        assert 3 < weight.ascii_chars < 100

    def test_what_is_not_sent_weighs_nothing(self, store):
        once = prepared(["a"], store, template=RequestTemplate(prompt="{{ prompt }}")).weight
        twice = prepared(
            ["a", "a"], store, token="two", template=RequestTemplate(prompt="{{ prompt }}"), deduplicate=True
        ).weight
        assert once == twice


MADE = [(f"r{n}", json.dumps(a_request(f"t{n}")).encode()) for n in range(5)]


class TestWriteSet:
    """Lines that were prepared before become a set of their own, for repair."""

    def test_they_are_sharded_and_counted_as_they_are(self, store):
        plan = a_plan(model="m", schema={"type": "string"}, max_requests=2, columns=("mood",), key_column="id")
        manifest = write_set(MADE, plan, store, FOLDER, "one", round=2)
        assert [(line["key"], line["request"]) for line in requests_of(store, manifest)] == [
            (key, json.loads(request)) for key, request in MADE
        ]
        assert [shard.request_count for shard in manifest.shards] == [2, 2, 1]
        assert (manifest.row_count, manifest.round, manifest.model) == (5, 2, "m")
        assert manifest.response_schema == {"type": "string"}
        assert read_manifest(store, Uri.parse(manifest.uri)) == manifest

    def test_a_second_attempt_finds_the_first(self, store):
        first = write_set(MADE, a_plan(), store, FOLDER, "one", round=1)
        before = dict(store.objects)
        assert write_set(reversed(MADE), a_plan(), store, FOLDER, "two", round=1) == first
        assert store.objects == before

    def test_another_round_is_another_set(self, store):
        uris = {write_set(MADE, a_plan(), store, FOLDER, str(n), round=n).uri for n in range(3)}
        assert len(uris) == 3

    def test_dying_leaves_nothing(self, store):
        def broken():
            yield from MADE
            raise ServiceError("gone", status=503)

        with pytest.raises(ServiceError, match="gone"):
            write_set(broken(), a_plan(), store, FOLDER, "one")
        assert store.objects == {}
