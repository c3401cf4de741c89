"""What is read by its shape is read as the full way reads it, whatever the line."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.answers.classify import Form, classify, time_or_nothing
from airflow_vertex_batch.core.answers.collect.echo import mark_of
from airflow_vertex_batch.core.answers.collect.fast_path import PlainLines, plain_row, plain_time
from airflow_vertex_batch.core.answers.collect.inputs import input_requests
from airflow_vertex_batch.core.domain.errors import ResultError
from airflow_vertex_batch.core.domain.jsonl import encode, read_output
from airflow_vertex_batch.core.requests.request import KEY_LABEL, Digester, key_label, request_digest
from tests.builders import a_request, a_response, an_output
from tests.fakes import MemoryStore, MemoryWarehouse

#: Texts that look like what stands around them.
TEXTS = st.lists(
    st.sampled_from(
        ['"', "\\", '\\"', '"}', '"}]', ']}],"', "{", "}", "é", "\n", "word ", '","request":{', "@0@", "]"]
    ),
    max_size=6,
).map("".join)
MIME = {"generationConfig": {"responseMimeType": "application/json"}}
IMAGE = {"generationConfig": {"responseModalities": ["IMAGE"]}}
PARTS = st.lists(
    st.one_of(
        st.builds(lambda text: {"text": text}, TEXTS),
        st.builds(lambda text: {"fileData": None, "text": text}, TEXTS),
        st.builds(lambda uri: {"fileData": {"fileUri": uri, "mimeType": "image/png"}}, TEXTS),
        st.builds(lambda text: {"functionResponse": {"response": {"text": text, "labels": {"a": text}}}}, TEXTS),
    ),
    min_size=1,
    max_size=3,
)
REQUESTS = st.builds(
    lambda parts, others: {"contents": [{"parts": parts, "role": "user"}], **others},
    PARTS,
    st.one_of(
        st.sampled_from([{}, MIME, IMAGE, {"systemInstruction": {"parts": [{"text": "Be brief."}]}, **MIME}]),
        st.builds(lambda text: {"labels": {"team": text, KEY_LABEL: key_label(text)}}, TEXTS),
    ),
)
KEYS = st.sampled_from(["r1", "r2", 'r"3', "r\\", "ré", "r\n"])
MEMBERS = ("key", "status", "processed_time", "request", "response")


def _output(key, request, text, others):
    return (an_output(key, response=a_response(text), request=request) | others).items()


def _by(members):
    return lambda item: members.index(item[0]) if item[0] in members else -1


OUTPUTS = st.builds(
    lambda members, *made: dict(sorted(_output(*made), key=_by(members))),
    st.permutations(MEMBERS),
    KEYS,
    REQUESTS,
    TEXTS.filter(bool),
    st.sampled_from(
        [
            *[{}] * 4,
            {"status": None},
            {"status": "503 Unavailable"},
            {"processed_time": None},
            {"processed_time": "2026-11-22T03:04:05+00:00"},
            {"key": 7},
            {"response": {}},
            {"response": None},
            {"response": "{}"},
            {"region": "eu"},
        ]
    ),
)
#: What damages a line: bytes cut out from somewhere, others put in there.
DAMAGE = st.tuples(
    st.integers(0, 600),
    st.integers(0, 3),
    st.sampled_from([b"", b'"', b"\\", b"\n", b"\x00", b"\xff", b"}", b"{", b",", b'"key":"r9",', b'","a":"', b" "]),
)
#: Which of the lines are damaged.
SOME = st.lists(st.none() | DAMAGE, min_size=8, max_size=8)


def _damaged(raw, damage):
    if damage is None:
        return raw
    at, length, put = damage
    at %= len(raw)
    return raw[:at] + put + raw[at + length :]


def _agree(lines, raw):
    """Whether a line is read the short way; then its row is the one that the full way makes of it."""
    plain = lines.read(raw)
    row = plain_row(plain, "j", "d", None) if plain is not None else None
    if row is not None:
        line = read_output(raw, "gs://b/f", 1)
        assert row == classify(line, line.key, job_name="j", request_digest="d")
    return row is not None


class TestOutput:
    @given(
        st.lists(OUTPUTS, min_size=2, max_size=8), SOME, st.sampled_from([encode, lambda doc: json.dumps(doc).encode()])
    )
    def test_the_short_way_reads_what_the_full_way_reads(self, docs, damages, write):
        lines = PlainLines()
        for doc, damage in zip(docs, damages, strict=False):
            raw = _damaged(write(doc) + b"\n", damage)
            # The second time, the line has a shape that is known, unless it has none.
            assert _agree(lines, raw) is _agree(lines, raw)

    @given(st.lists(st.tuples(KEYS, TEXTS), min_size=2, max_size=8), st.permutations(MEMBERS))
    def test_lines_of_one_template_are_of_one_shape(self, texts, members):
        """So it is the short way that the other tests compare, and it is taken in whatever order members stand."""
        lines, shapes = PlainLines(), set()
        for key, text in texts:
            doc = an_output(key, text, request=a_request(text, **MIME), processed_time=f"{text}")
            raw = encode({name: doc[name] for name in members}) + b"\n"
            found = mark_of(encode(doc["request"]))
            assert lines.read(raw) == (key, text, encode(doc["response"]), Form(json=True), found)
            found = lines._shapes.match(raw)
            shapes.add(found and found[0])
        assert len(shapes) == 1
        assert None not in shapes

    @given(OUTPUTS, st.lists(DAMAGE, max_size=9))
    def test_no_damage_is_overlooked(self, doc, damages):
        """Wherever it is in a line whose shape is known."""
        lines = PlainLines()
        whole = encode(doc) + b"\n"
        _agree(lines, whole)
        for damage in damages:
            _agree(lines, _damaged(whole, damage))


class TestTimes:
    BEGINS = (
        "2026-11-22T03:04:05",
        "2026-11-22 03:04:05",
        "2026-13-22T03:04:05",
        "2026-W47-7T03:04:05",
        "20261122T030405",
    )

    @given(
        st.builds(
            "".join,
            st.tuples(
                st.sampled_from(BEGINS),
                st.sampled_from([".", ",", "", "+"]),
                st.text("09\u0663\u00b2.", max_size=9),
                st.sampled_from(["+00:00", "Z", "+01:00", ""]),
            ),
        )
        | st.text()
    )
    def test_a_time_is_one_or_nothing_either_way(self, text):
        assert plain_time(text) == time_or_nothing(text)


class TestInput:
    @given(st.lists(st.tuples(KEYS | st.just(7), REQUESTS), min_size=2, max_size=8), SOME, st.booleans())
    def test_the_short_way_reads_what_the_full_way_reads(self, asked, damages, compact):
        def read(raws):
            store = MemoryStore(**{"gs://in/r.jsonl": b"".join(raws)})
            found = list(input_requests(store, MemoryWarehouse(), ["gs://in/r.jsonl"]))
            digester = Digester("m")
            return [
                (key, request, (digester if labelled else digester.unlabelled)(request), mark)
                for key, request, labelled, mark in found
            ]

        docs = [{"key": key, "request": request} for key, request in asked]
        raws = [encode(doc) if compact else json.dumps(doc).encode() for doc in docs]
        raws = [_damaged(raw, damage) + b"\n" for raw, damage in zip(raws, damages, strict=False)]
        alone = []
        for raw in raws:
            try:
                alone += read([raw])
            except ResultError:
                alone.append(None)
        try:
            together = read(raws)
        except ResultError:
            assert None in alone
            return
        assert together == alone
        for _, request, digest, found in together:
            assert digest.hex() == request_digest(request, "m")
            assert found == mark_of(request)


class TestDigests:
    REQUESTS = st.builds(
        lambda head, tail, label: (b'{"labels":{"avb":"x"},' + label + head + tail).replace(
            b"LABEL", KEY_LABEL.encode()
        ),
        st.lists(
            st.sampled_from(
                [b"]", b"]}],", b"x", b'"', b"]}]", b'"LABEL"'],
            ),
            max_size=9,
        ).map(b"".join),
        st.sampled_from(
            [b"", b"]}],", b']}],"systemInstruction":{}}', b']}],"tools":[{"functionDeclarations":[{}]}],"a":1}']
        ),
        st.sampled_from([b"", b'"labels":{"LABEL":"k' + b"0" * 30 + b'"},']),
    )

    @given(st.lists(REQUESTS, max_size=8))
    def test_a_digest_does_not_depend_on_those_before(self, requests):
        digester = Digester("models/m")
        assert [digester(request).hex() for request in requests] == [
            request_digest(request, "m") for request in requests
        ]

    @given(REQUESTS, REQUESTS)
    def test_two_requests_share_it_only_if_they_differ_by_our_label_alone(self, first, second):
        def bare(request):
            return request.replace(b'"labels":{"' + KEY_LABEL.encode() + b'":"k' + b"0" * 30 + b'"},', b"", 1)

        assert (request_digest(first) == request_digest(second)) is (bare(first) == bare(second))
