"""Rows become request files: counted, unique, found again, and nothing left behind on failure."""

from __future__ import annotations

import gc
import json
import random
import re
import tracemalloc

import pytest

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.core.requests.lint import Linter
from airflow_vertex_batch.core.requests.prepare import prepare, read_manifest
from airflow_vertex_batch.core.requests.request import MAX_BYTES, MAX_REQUESTS, Correlation, RequestTemplate
from tests.builders import a_line, a_request, seed
from tests.fakes import Died, EffectLimit, MemoryStore

from .preparing import DEAD_LETTER, FOLDER, a_plan, placed, prepared, read_jsonl, ready_made, requests_of, texts


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class TestShards:
    def test_each_row_is_one_line_exactly_in_the_page_s_format(self, store):
        manifest = prepared([{"id": "t1", "text": "Hello"}], store, key_column="id")
        assert store.objects[manifest.shards[0].uri] == (
            b'{"key":"t1","request":{"contents":[{"role":"user","parts":[{"text":"Hello"}]}]}}\n'
        )

    @pytest.mark.parametrize(("rows", "most", "counts"), [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 4, [3]), (1, 1, [1])])
    def test_a_shard_holds_no_more_requests_than_it_may(self, store, rows, most, counts):
        manifest = prepared(texts(rows), store, max_requests=most)
        assert [shard.request_count for shard in manifest.shards] == counts
        assert [len(read_jsonl(store, shard.uri)) for shard in manifest.shards] == counts

    def test_a_shard_holds_no_more_bytes_than_it_may(self, store):
        manifest = prepared(texts(50), store, max_bytes=1_000)
        assert len(manifest.shards) > 1
        for shard in manifest.shards:
            assert shard.size_bytes == len(store.objects[shard.uri]) <= 1_000
        assert sum(shard.request_count for shard in manifest.shards) == 50

    def test_the_limits_are_the_service_s(self):
        assert (MAX_REQUESTS, MAX_BYTES) == (200_000, 1_000_000_000)
        assert (a_plan().max_requests, a_plan().max_bytes) == (MAX_REQUESTS, MAX_BYTES)

    def test_no_rows_are_no_shards(self, store):
        manifest = prepared([], store)
        assert (manifest.shards, manifest.request_count, manifest.row_count) == ((), 0, 0)

    def test_the_user_s_columns_travel_in_a_file_beside(self, store):
        manifest = prepared(texts(3), store, key_column="id", columns=("mood",), max_requests=2)
        beside = [line for shard in manifest.shards for line in read_jsonl(store, shard.columns_uri)]
        assert beside == [{"key": f"r-{n}", "columns": {"mood": n}} for n in range(3)]
        assert all("mood" not in json.dumps(line) for line in requests_of(store, manifest))


class TestKeys:
    def test_without_a_key_column_content_is_the_key(self, store):
        manifest = prepared(["a", "b"], store, template=RequestTemplate(prompt="{{ prompt }}"))
        keys = [line["key"] for line in requests_of(store, manifest)]
        assert len(set(keys)) == 2
        assert all(key.startswith("r") for key in keys)

    def test_the_same_content_again_gets_a_number(self, store):
        manifest = prepared(["a", "a", "a"], store, template=RequestTemplate(prompt="{{ prompt }}"))
        first, second, third = (line["key"] for line in requests_of(store, manifest))
        assert (second, third) == (f"{first}-2", f"{first}-3")

    def test_the_user_s_key_twice_is_rejected_by_name(self, store):
        rows = [{"id": "t1", "text": "a"}, {"id": "t2", "text": "b"}, {"id": "t1", "text": "c"}]
        with pytest.raises(
            InputError, match=r"1 row cannot be sent:\nrows:3: The key 't1' occurs more than once \[duplicate-key\]"
        ):
            prepared(rows, store, key_column="id")

    @pytest.mark.parametrize(
        "keys", [["a", "a", "a-2"], ["a-2", "a", "a"], ["a", "a-2", "a", "a-2", "a"]], ids="|".join
    )
    def test_a_number_never_makes_a_key_that_somebody_has(self, store, keys):
        manifest = ready_made([a_line(key, text=str(n)) for n, key in enumerate(keys)], store)
        made = [line["key"] for line in requests_of(store, manifest)]
        assert len(set(made)) == len(keys) == manifest.request_count


class TestFingerprint:
    def test_it_does_not_depend_on_the_order_or_the_shards(self, store):
        rows = texts(40)
        shuffled = random.Random(1).sample(rows, len(rows))
        assert prepared(rows, store).fingerprint == prepared(shuffled, MemoryStore(), max_requests=7).fingerprint

    @pytest.mark.parametrize(
        "change",
        [
            {"rows": texts(39)},
            {"rows": [*texts(39), {"id": 39, "text": "changed", "mood": 0}]},
            {"template": RequestTemplate(prompt="{{ text }}", generation_config={"topK": 1})},
            {"key_column": "id"},
        ],
        ids=["a row less", "a row changed", "parameters", "keys"],
    )
    def test_it_changes_with_the_requests(self, store, change):
        rows = change.pop("rows", texts(40))
        assert prepared(rows, store, **change).fingerprint != prepared(texts(40), MemoryStore()).fingerprint


class TestPreparedBefore:
    def test_a_second_attempt_finds_the_first_and_leaves_nothing(self, store):
        first = prepared(texts(10), store, columns=("mood",), max_requests=4)
        before = dict(store.objects)
        second = prepared(reversed(texts(10)), store, token="two", columns=("mood",), max_requests=4)
        assert second == first
        assert store.objects == before

    def test_a_second_attempt_with_rejected_rows_too(self, store):
        rows = [*texts(3), {"id": 4, "text": ""}]
        first = prepared(rows, store, on_rejected_row=DEAD_LETTER)
        before = dict(store.objects)
        assert prepared(rows, store, token="two", on_rejected_row=DEAD_LETTER) == first
        assert store.objects == before

    @pytest.mark.parametrize(
        "change",
        [{"rows": texts(9)}, {"max_requests": 5}, {"columns": ("id",)}, {"schema": {"type": "string"}}],
        ids=["rows", "shards", "columns", "schema"],
    )
    def test_another_set_is_another_manifest(self, store, change):
        first = prepared(texts(10), store)
        rows = change.pop("rows", texts(10))
        second = prepared(rows, store, token="two", **change)
        assert second.uri != first.uri
        assert read_manifest(store, Uri.parse(first.uri)) == first
        assert read_manifest(store, Uri.parse(second.uri)) == second

    def test_a_changed_column_is_another_set_of_the_same_requests(self, store):
        """The service is asked the same, so the job is the same; what lands beside the answers is not."""
        changed = [row | {"mood": 9} for row in texts(10)]
        first = prepared(texts(10), store, columns=("mood",))
        second = prepared(changed, store, token="two", columns=("mood",))
        assert second.uri != first.uri
        assert second.fingerprint == first.fingerprint

    @pytest.mark.parametrize("effects", range(1, 8))
    def test_dying_after_any_effect_leaves_a_set_that_is_prepared_once(self, store, effects):
        """Two shards of two files each, a dead-letter file and the manifest: die after each, then run again."""
        rows = [*texts(4), {"id": 5, "text": ""}]
        plan = a_plan(on_rejected_row=DEAD_LETTER, columns=("mood",), max_requests=2)
        mortal = EffectLimit(effects).store(store)
        if effects < 7:
            with pytest.raises(Died, match=rf"after effect {effects}\b"):
                prepare(placed(rows), plan, mortal, FOLDER, "one")
        else:
            prepare(placed(rows), plan, mortal, FOLDER, "one")
        manifest = prepare(placed(rows), plan, store, FOLDER, "two")
        manifests = [name for name in store.objects if "/manifests/" in name]
        assert manifests == [manifest.uri]
        assert sorted(line["key"] for line in requests_of(store, manifest)) == sorted(
            {line["key"] for line in requests_of(store, manifest)}
        )
        assert (manifest.request_count, manifest.rejected_count, manifest.row_count) == (4, 1, 5)

    def test_a_manifest_that_is_gone_says_how_to_make_it_again(self, store):
        with pytest.raises(InputError, match=r"no manifest at gs://b/m.json.*Clear the prepare task"):
            read_manifest(store, Uri.parse("gs://b/m.json"))


class TestRejectedRows:
    ROWS = ("good", {"text": 1}, {"prompt": " "}, 7, {"prompt": "\ud800"})

    def test_they_fail_the_task_each_with_its_place_and_reason(self, store):
        with pytest.raises(InputError, match="4 rows cannot be sent") as caught:
            prepared(self.ROWS, store, template=RequestTemplate(prompt="{{ prompt }}"))
        assert str(caught.value) == (
            "4 rows cannot be sent:\n"
            "rows:2: The prompt template failed: column 'prompt' is not there; the row has 'text' [prompt-template]\n"
            "rows:3: The prompt is empty for this row [empty-prompt]\n"
            "rows:4: Row 4 is a int. Yield dicts, or texts. [not-a-row]\n"
            "rows:5: The request holds a lone surrogate, which is no character [not-unicode]. "
            "Nothing was uploaded for them and no job was created. "
            "Correct the rows or the prompt, or set on_rejected_row='dead_letter' to send the others."
        )
        assert store.objects == {}

    def test_or_they_go_to_a_dead_letter_file_and_are_counted(self, store):
        manifest = prepared(
            self.ROWS, store, template=RequestTemplate(prompt="{{ prompt }}"), on_rejected_row=DEAD_LETTER
        )
        assert (manifest.row_count, manifest.request_count, manifest.rejected_count) == (5, 1, 4)
        assert [
            (line["source"], line["line"], line["status"], line["code"])
            for line in read_jsonl(store, manifest.rejected_uri)
        ] == [
            ("rows", 2, "rejected", "prompt-template"),
            ("rows", 3, "rejected", "empty-prompt"),
            ("rows", 4, "rejected", "not-a-row"),
            ("rows", 5, "rejected", "not-unicode"),
        ]

    @pytest.mark.parametrize(
        ("row", "plan", "code"),
        [
            ({"text": "a", "id": None}, {"key_column": "id"}, "no-key"),
            ({"text": "a"}, {"key_column": "id"}, "no-column"),
            ({"text": "a", "id": "\ud800"}, {"key_column": "id"}, "not-unicode"),
            ({"text": "a"}, {"columns": ("mood",)}, "no-column"),
            ({"text": "a", "mood": object()}, {"columns": ("mood",)}, "not-json"),
            ({"text": "x" * 500}, {"max_bytes": 400}, "too-large"),
        ],
        ids=["no key", "no key column", "odd key", "no column", "odd column", "too large for any file"],
    )
    def test_every_reason_is_data(self, store, row, plan, code):
        manifest = prepared([{"id": "ok", "text": "ok", "mood": 1}, row], store, on_rejected_row=DEAD_LETTER, **plan)
        assert manifest.request_count == 1
        assert [line["code"] for line in read_jsonl(store, manifest.rejected_uri)] == [code]

    def test_one_cause_is_said_once_with_its_count_and_first_places(self, store):
        """An endless source of bad rows must not be read to its end."""

        def endless():
            while True:
                yield {"wrong": "column"}

        with pytest.raises(InputError, match="rows cannot be sent so far") as caught:
            prepared(endless(), store)
        first, cause = caught.value.what.splitlines()
        assert re.fullmatch(r"1,\d{3} rows cannot be sent so far: preparing stopped here:", first)
        assert re.fullmatch(r"rows:1, rows:2, rows:3 and 1,\d{3} more: .*column 'text' is not there.*", cause)

    def test_of_very_many_causes_the_first_twenty_are_said_and_the_others_counted(self, store):
        rows = [{"text": "a", "id": {str(number): object()}} for number in range(50)]
        odd = [{"text": "a", f"wrong{number}": 1} for number in range(50)]
        with pytest.raises(InputError, match="rows for other reasons") as caught:
            prepared([*odd, *rows], store, key_column="id")
        _, *causes, last = caught.value.what.splitlines()
        assert len(causes) == 20
        assert re.fullmatch(r"… and \d+ rows for other reasons", last)

    def test_a_file_s_bad_line_is_named_by_file_and_line(self, store):
        with pytest.raises(InputError, match=r"gs://b/in/ready.jsonl:2: Not JSON"):
            ready_made([a_line("r1"), b'{"key": "r2", "requ\n', a_line("r3")], store)


class TestFailure:
    def test_nothing_is_left_behind_when_the_source_breaks(self, store):
        def broken():
            yield from texts(5_000)
            raise ServiceError("The database went away", status=503)

        with pytest.raises(ServiceError, match="went away"):
            prepared(broken(), store, max_requests=1_000, columns=("mood",))
        assert store.objects == {}

    def test_nothing_is_left_behind_when_the_last_file_breaks(self, store):
        class Full(MemoryStore):
            def open_write(self, uri, content_type=""):
                if uri.basename == "rejected.jsonl":
                    raise ServiceError(f"No space for {uri}", status=507)
                return super().open_write(uri)

        full = Full()
        with pytest.raises(ServiceError, match="No space for gs://b/run/requests-one/rejected"):
            prepared([*texts(3), {"id": 1, "text": ""}], full, on_rejected_row=DEAD_LETTER, columns=("mood",))
        assert full.objects == {}

    def test_the_cause_is_told_even_when_cleaning_up_fails_too(self, store):
        class Broken(MemoryStore):
            def delete(self, uri):
                raise ServiceError("cannot delete either", status=403)

        with pytest.raises(InputError, match="1 row cannot be sent"):
            prepared([{"text": ""}, {"text": "a"}], Broken())


class TestReadyMade:
    def test_the_seed_page_s_line_goes_through_as_printed_with_a_key(self, store):
        manifest = ready_made([seed("request.jsonl")], store)
        (line,) = requests_of(store, manifest)
        assert line["request"] == seed("request.jsonl")["request"]
        assert line["key"].startswith("r")

    def test_requests_stay_as_they_are(self, store):
        odd = a_request("é😀\n{{ x }}", generationConfig={"temperature": 1.0, "topP": 1e-9, "stopSequences": ["\n"]})
        (line,) = requests_of(store, ready_made([{"key": "k1", "request": odd}], store))
        assert line == {"key": "k1", "request": odd}

    @pytest.mark.parametrize(
        ("key", "made"),
        [("k1", "k1"), ("000123", "r-000123"), (7, "r-7"), (None, None), ("", None)],
        ids=repr,
    )
    def test_only_a_missing_or_unsafe_key_is_replaced(self, store, key, made):
        (line,) = requests_of(store, ready_made([a_line(key)], store))
        assert line["key"] == made or (made is None and line["key"].startswith("r"))

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            ({"key": "k1"}, "no-request"),
            ({"key": "k1", "request": "text"}, "no-request"),
            ({"key": ["k1"], "request": a_request()}, "odd-key"),
            ({"key": {"a": 1}, "request": a_request()}, "odd-key"),
            (b"[]\n", "not-a-row"),
        ],
        ids=["no request", "a text", "a list as key", "an object as key", "no object"],
    )
    def test_a_line_that_is_no_request_is_data(self, store, line, code):
        manifest = ready_made([a_line("ok"), line], store, on_rejected_row=DEAD_LETTER)
        assert [row["code"] for row in read_jsonl(store, manifest.rejected_uri)] == [code]


class TestLint:
    """What the service's importer would refuse is found here: one refused line would cost the whole job."""

    def test_a_template_that_no_row_can_cure_is_refused_before_the_first_row(self, store):
        def never():
            raise AssertionError("a row was read")
            yield

        template = RequestTemplate(prompt="{{ text }}", tools=[{"googleSearch": {}}])
        with pytest.raises(
            InputError, match=r"No request of this batch could be sent: \$\.request\.tools.*\[empty-object\]"
        ):
            prepared(never(), store, template=template)

    def test_a_refused_row_is_rejected_by_the_rule_s_name(self, store):
        lines = [a_line("r1"), a_line("r2") | {"request": a_request(tools=[{"googleSearch": {}}])}, a_line("r3")]
        manifest = ready_made(lines, store, on_rejected_row=DEAD_LETTER)
        assert [line["key"] for line in requests_of(store, manifest)] == ["r1", "r3"]
        (dead,) = read_jsonl(store, manifest.rejected_uri)
        assert (dead["line"], dead["code"]) == (2, "empty-object")

    @pytest.mark.parametrize(
        ("max_requests", "sent", "rejected"), [(10, 1, 1), (1, 2, 0)], ids=["one shard", "two shards"]
    )
    def test_of_two_lines_that_disagree_the_later_is_rejected(self, store, max_requests, sent, rejected):
        """One type per path holds within a job: another shard may take what this one cannot."""
        lines = [
            {
                "key": f"r{n}",
                "request": {
                    "contents": [{"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"x": x}}}]}]
                },
            }
            for n, x in enumerate(["a", [1]])
        ]
        manifest = ready_made(lines, store, on_rejected_row=DEAD_LETTER, max_requests=max_requests)
        assert (manifest.request_count, manifest.rejected_count) == (sent, rejected)

    def test_lint_can_be_switched_off(self, store):
        lines = [a_line("r1", request=a_request(tools=[{"googleSearch": {}}]))]
        assert ready_made(lines, store, lint=False).request_count == 1

    @pytest.mark.parametrize("correlation", Correlation)
    def test_a_template_s_lines_are_refused_as_if_each_were_walked(self, store, correlation):
        rows = [
            {"text": text, "image": image, "image_mime_type": mime}
            for text in ("a", "b\0", "c")
            for image in (None, "gs://b/o.png", "gs://b", "/o.png", "https://example.com/o.png", "gs://b/\0")
            for mime in ("image/png", "image")
        ] * 2
        plan = {"template": RequestTemplate(prompt="{{ text }}", media={"image": None}), "correlation": correlation}
        everything = prepared(rows, store, lint=False, **plan)
        manifest = prepared(rows, store, token="two", on_rejected_row=DEAD_LETTER, **plan)
        linter = Linter("x", rejecting=True)
        wanted = []
        for number, line in enumerate(store.objects[everything.shards[0].uri].splitlines(keepends=True), start=1):
            errors = [finding for finding in linter.check(number, line) if finding.severity == "error"]
            wanted += [(number, errors[0].rule)] if errors else []
        rejected = [(line["line"], line["code"]) for line in read_jsonl(store, manifest.rejected_uri)]
        assert rejected == wanted
        assert {code for _, code in rejected} == {"nul", "file-uri", "mime-type"}


class TestMemory:
    def test_it_does_not_grow_with_the_number_of_rows(self, local, folder):
        """Five times the rows: the peak stays within a third.

        What it holds is a chunk of rows and the last few thousand keys.
        """

        def peak(count: int) -> int:
            rows = ({"id": f"k{n}", "text": "x" * 1_000} for n in range(count))
            gc.collect()
            tracemalloc.start()
            prepare(
                placed(rows), a_plan(key_column="id", columns=("id",), max_requests=5_000), local, folder, str(count)
            )
            top = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return top

        peak(1_000)  # whatever is imported and cached once
        assert peak(10_000) < 1.3 * peak(2_000)
