"""Rows in are rows out, exactly once, whatever the service drops, doubles, shuffles, re-types or pads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from airflow_vertex_batch.core.answers.classify import classify
from airflow_vertex_batch.core.answers.collect import Batch, Collector
from airflow_vertex_batch.core.answers.collect.fast_path import PlainLines, plain_row
from airflow_vertex_batch.core.answers.collect.join import KEY_LABEL, key_label
from airflow_vertex_batch.core.domain.errors import ResultError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.domain.jsonl import encode, read_output
from airflow_vertex_batch.core.domain.row import RowStatus
from airflow_vertex_batch.core.requests.request import request_digest
from tests.builders import a_failed_output, a_job, a_line, a_request, an_output, jsonl
from tests.fakes import MemoryStore, MemoryWarehouse


@dataclass
class Line:
    """What the service does with one output line of one request."""

    number: int
    good: bool
    key: str  # kept, dropped, retyped
    padded: bool
    shard: int
    echoes: bool = True


LINES = st.lists(
    st.builds(
        Line,
        st.integers(0, 7),
        st.booleans(),
        st.sampled_from(["kept", "dropped", "retyped"]),
        st.booleans(),
        st.integers(0, 2),
    ),
    max_size=25,
)


def _padded(request: dict[str, Any]) -> dict[str, Any]:
    """Sort members and add nulls, as the echo does."""
    text = request["contents"][0]["parts"][0]["text"]
    others = {name: value for name, value in request.items() if name != "contents"}
    return {"contents": [{"parts": [{"fileData": None, "text": text}], "role": "user"}], "toolConfig": None} | others


def _written(line: Line, text: str) -> dict[str, Any]:
    request = _padded(a_request(text)) if line.padded else a_request(text)
    doc = an_output(text=f"answer to {text}", request=request) if line.good else a_failed_output(request=request)
    doc["key"] = f"r{line.number}" if line.key == "kept" else line.number
    if line.key == "dropped":
        del doc["key"]
    return doc


def _collected(requests, shards, state=JobState.SUCCEEDED):
    store = MemoryStore(**{"gs://in/r.jsonl": jsonl(*requests)})
    for number, lines in enumerate(shards):
        store.objects[f"gs://out/p/predictions.jsonl-{number}"] = jsonl(*lines)
    collector = Collector(store, MemoryWarehouse())
    return collector, list(collector.rows(Batch(a_job(state, output_uri="gs://out/p"), ("gs://in/r.jsonl",))))


@given(st.integers(1, 8), LINES)
def test_every_request_is_one_row_and_good_beats_bad(count, lines):
    requests = [a_line(f"r{number}", f"question {number}") for number in range(count)]
    shards = [
        [_written(line, f"question {line.number}") for line in lines if line.shard == shard] for shard in range(3)
    ]
    collector, rows = _collected(requests, shards)
    assert sorted(row.key for row in rows) == sorted(line["key"] for line in requests)
    answered = {line.number for line in lines if line.good}
    failed = {line.number for line in lines if not line.good}
    for row in rows:
        number = int(row.key[1:])
        wanted = (
            RowStatus.SUCCEEDED if number in answered else RowStatus.FAILED if number in failed else RowStatus.MISSING
        )
        assert row.status is wanted
        assert row.text == (f"answer to question {number}" if number in answered else None)
    # Every line is a row's, a duplicate or a stranger's.
    seen = {line.number for line in lines if line.number < count}
    strangers = sum(line.number >= count for line in lines)
    assert collector.anomalies.foreign_count == strangers
    assert collector.anomalies.duplicate_count == len(lines) - strangers - len(seen)


SECOND_CHANNEL_LINES = st.lists(
    st.builds(
        Line,
        st.integers(0, 7),
        st.booleans(),
        st.sampled_from(["kept", "dropped", "retyped"]),
        st.booleans(),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=25,
)


@given(st.integers(1, 8), SECOND_CHANNEL_LINES, st.sampled_from(["label", "contents"]))
def test_it_also_holds_for_keys_that_look_like_numbers_by_either_second_channel(count, lines, channel):
    """By label, requests may all be alike; by contents, the echo may be gone where the key came back as a number."""
    keys = [f"{number:03}" for number in range(8)]

    def asked(number: int) -> dict[str, Any]:
        labels = {"team": "search", KEY_LABEL: key_label(keys[number])}
        return a_request("the same", labels=labels) if channel == "label" else a_request(f"question {number}")

    def written(line: Line) -> dict[str, Any]:
        request = _padded(asked(line.number)) if line.padded else asked(line.number)
        text = f"answer {line.number}"
        doc = an_output(text=text, request=request) if line.good else a_failed_output(request=request)
        doc["key"] = {"kept": keys[line.number], "retyped": line.number, "dropped": None}[line.key]
        dropped = {"key"} if line.key == "dropped" else set() if line.echoes else {"request"}
        return {name: value for name, value in doc.items() if name not in dropped}

    requests = [{"key": keys[number], "request": asked(number)} for number in range(count)]
    # A stranger whose request is like all others is nobody's to tell.
    lines = [line for line in lines if line.number < count or channel == "contents"]
    shards = [[written(line) for line in lines if line.shard == shard] for shard in range(3)]
    collector, rows = _collected(requests, shards)
    assert sorted(row.key for row in rows) == keys[:count]
    for row in rows:
        own = [line for line in lines if line.number == int(row.key)]
        wanted = "succeeded" if any(line.good for line in own) else "failed" if own else "missing"
        assert row.status == wanted
        assert row.text == (f"answer {int(row.key)}" if wanted == "succeeded" else None)
        assert row.request_digest == request_digest(json.dumps(asked(int(row.key))).encode(), "")
    assert collector.anomalies.rejoined_count == sum(line.key != "kept" for line in lines if line.number < count)


@given(
    st.lists(st.sampled_from("ab"), min_size=1, max_size=6),
    LINES,
    st.sampled_from([state for state in JobState if state.is_final]),
)
def test_also_when_requests_look_alike_and_the_job_ended_badly(texts, lines, state):
    """Then it cannot be told whose a line without a key is, but every request still is one row."""
    requests = [a_line(f"r{number}", text) for number, text in enumerate(texts)]
    shards = [[_written(line, texts[line.number % len(texts)]) for line in lines]]
    _, rows = _collected(requests, shards, state)
    assert sorted(row.key for row in rows) == sorted(line["key"] for line in requests)


@given(
    st.lists(st.sampled_from(["a", "a-2", "b", 7, None, ""]), min_size=1, max_size=8),
    st.lists(st.booleans(), max_size=12),
)
def test_also_when_keys_are_shared_or_absent(keys, fates):
    requests = [a_line(key, f"question {number}") for number, key in enumerate(keys)]
    lines = []
    for number, good in enumerate(fates):
        key, request = keys[number % len(keys)], requests[number % len(keys)]["request"]
        lines.append(an_output(key, request=request) if good else a_failed_output(key, request=request))
    collector, rows = _collected(requests, [lines])
    assert len({row.key for row in rows}) == len(rows) == len(keys) == collector.expected_count


NAMES = st.sampled_from(
    [
        "key",
        "status",
        "response",
        "request",
        "processed_time",
        "candidates",
        "content",
        "parts",
        "text",
        "thought",
        "finishReason",
        "promptFeedback",
        "blockReason",
        "usageMetadata",
        "promptTokenCount",
        "promptTokensDetails",
        "modelVersion",
        "functionCall",
        "error",
        "code",
        "x",
    ]
)
WORDS = st.sampled_from(
    [
        "",
        "STOP",
        "MAX_TOKENS",
        "SAFETY",
        "BORED",
        '{"error": {"code": 400}}',
        "{",
        "```json\n{}\n```",
        "\x00é😀",
        "application/json",
    ]
)
DOCS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
RESPONSES = st.fixed_dictionaries(
    {},
    optional={
        "candidates": st.one_of(
            DOCS,
            st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "content": st.one_of(
                            DOCS, st.fixed_dictionaries({"parts": st.one_of(DOCS, st.lists(DOCS, max_size=3))})
                        ),
                        "finishReason": DOCS,
                    },
                ),
                max_size=2,
            ),
        ),
        "promptFeedback": DOCS,
        "usageMetadata": DOCS,
        "modelVersion": DOCS,
    },
)
OUTPUTS = st.fixed_dictionaries(
    {},
    optional={
        "key": DOCS,
        "status": DOCS,
        "response": st.one_of(RESPONSES, DOCS),
        "request": DOCS,
        "processed_time": DOCS,
    },
)


@given(OUTPUTS, st.booleans())
@example({"response": {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}]}}]}}, False)
def test_whatever_a_line_holds_it_is_one_row_that_can_be_written(doc, checks):
    line = read_output(encode(doc), "gs://b/f", 1)
    row = classify(line, "r1", check=(lambda _: "") if checks else None)
    assert json.loads(encode(row))["status"] in set(RowStatus)
    assert row.status.is_good or row.reason
    assert not row.repairable or row.status.repairable


DETAILS = st.lists(
    st.fixed_dictionaries(
        {"tokenCount": st.integers(0, 9)}, optional={"modality": st.sampled_from(["TEXT", "AUDIO", "IMAGE"])}
    ),
    max_size=3,
)
#: Lines that are near to plain, so that the short way is taken and left in every place.
NEAR = st.fixed_dictionaries(
    {
        "key": st.just("r1"),
        "status": st.sampled_from(["", "", None, "503 Unavailable"]),
        "processed_time": st.sampled_from(["2026-11-22T03:04:05.678901+00:00", "soon", None]),
        "request": st.sampled_from(
            [
                a_request(),
                a_request(generationConfig={"responseMimeType": "application/json"}),
                a_request(generation_config={"response_mime_type": "application/json"}),
                a_request(generationConfig={"responseFormat": [{"text": {"mimeType": "APPLICATION_JSON"}}]}),
                a_request(generationConfig={"responseModalities": ["IMAGE"]}),
                a_request(generationConfig={"responseModalities": ["TEXT", "IMAGE"]}),
                None,
                {},
            ]
        ),
        "response": st.fixed_dictionaries(
            {
                "candidates": st.lists(
                    st.fixed_dictionaries(
                        {
                            "content": st.fixed_dictionaries(
                                {
                                    "parts": st.lists(
                                        st.fixed_dictionaries(
                                            {"text": WORDS},
                                            optional={"thought": st.booleans(), "thoughtSignature": st.just("x")},
                                        ),
                                        max_size=2,
                                    )
                                }
                            ),
                            "finishReason": st.sampled_from(["STOP", "STOP", "SAFETY", ""]),
                        },
                        optional={"avgLogprobs": st.just(-0.5)},
                    ),
                    max_size=2,
                ),
                "usageMetadata": st.fixed_dictionaries(
                    {},
                    optional={
                        "promptTokenCount": st.sampled_from([0, 5, "5", -5, 5.0]),
                        "candidatesTokenCount": st.integers(0, 9),
                        "thoughtsTokenCount": st.integers(0, 9),
                        "toolUsePromptTokenCount": st.integers(0, 9),
                        "cachedContentTokenCount": st.integers(0, 9),
                        "totalTokenCount": st.integers(0, 9),
                        "promptTokensDetails": DETAILS,
                        "candidatesTokensDetails": DETAILS,
                    },
                ),
                "modelVersion": st.sampled_from(["gemini-3.8-flash", ""]),
            }
        ),
    }
)


@given(NEAR | OUTPUTS, st.sampled_from([None, lambda answer: "" if isinstance(answer, dict) else "no object"]))
@example(an_output(), None)
def test_the_short_way_gives_the_same_row_or_none(doc, check):
    raw = encode(doc)
    lines, members = PlainLines(), {"job_name": "j", "request_digest": "d", "check": check}
    # The second time, the line has a shape that is known.
    for line in (lines.read(raw), lines.read(raw)):
        row = plain_row(line, "j", "d", check) if line is not None else None
        assert row is None or row == classify(read_output(raw, "gs://b/f", 1), doc["key"], **members)
        assert row is None or row.status is RowStatus.SUCCEEDED
        assert row is not None or doc != an_output(), "the plain line takes it"


@given(st.one_of(st.binary(max_size=60), OUTPUTS.map(encode)), st.integers(0, 200), st.binary(max_size=3))
def test_bytes_that_are_no_line_are_a_named_error(raw, cut, noise):
    """Cut somewhere, with some bytes put in: a row, or an error that names the line."""
    torn = raw[:cut] + noise + raw[cut : cut + 20]
    caught = None
    try:
        row = classify(read_output(torn, "gs://b/f", 3), "r1")
    except ResultError as error:
        caught = error
    assert caught.line == 3 if caught else json.loads(encode(row))
