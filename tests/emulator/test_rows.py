"""One request in, one output line out: the user's page as printed, refusals, the echo, the response."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from airflow_vertex_batch.emulator.billing import Bill
from airflow_vertex_batch.emulator.row_faults import Missing
from airflow_vertex_batch.emulator.rows import normalised
from airflow_vertex_batch.emulator.scenario import Scenario, Switches
from airflow_vertex_batch.emulator.wire import row_status
from tests.emulator.worlds import INPUT, World, a_body, a_line, a_request

SEED = Path(__file__).parents[1] / "seed"


def rejected(world_line, **options):
    """The status of the one row of a job."""
    world = World(**options)
    return world.output(world.run(world_line))[0]["status"]


def printed(name):
    return json.loads((SEED / name).read_bytes())


class TestTheUsersPage:
    """The shapes of the page "batch from Cloud Storage", as printed there."""

    def test_its_request_line_and_its_create_body_give_its_success_line(self):
        filled = {
            "MODEL_PATH": "publishers/google/models/gemini-2.5-flash",
            "INPUT_URI": INPUT,
            "OUTPUT_FORMAT": "jsonl",
            "DESTINATION": "gcsDestination",
            "OUTPUT_URI_FIELD_NAME": "outputUriPrefix",
            "OUTPUT_URI": "gs://out/path/to/output",
        }
        body = re.sub(r'"([A-Z_]+)"', lambda match: f'"{filled[match[1]]}"', (SEED / "create.json").read_text())
        world, expected = World(), printed("success.json")
        world.store.put(INPUT, (SEED / "request.jsonl").read_bytes())
        job = world.ended(world.create(body.encode()))
        assert job["inputConfig"]["gcsSource"]["uris"] == [INPUT]
        assert re.fullmatch(
            r"gs://out/path/to/output/prediction-model-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
            job["outputInfo"]["gcsOutputDirectory"],
        )
        (line,) = world.output(job)
        assert list(line) == list(expected)
        assert line["status"] == ""
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.(\d{3}|\d{6})\+00:00", line["processed_time"])
        assert json.dumps(line["request"]["contents"]) == json.dumps(expected["request"]["contents"])
        assert line["response"].keys() >= expected["response"].keys()
        (candidate,), (expected_candidate,) = line["response"]["candidates"], expected["response"]["candidates"]
        assert candidate.keys() >= expected_candidate.keys()
        assert (candidate["finishReason"], candidate["content"]["role"]) == ("STOP", "model")
        assert candidate["content"]["parts"][0]["text"].startswith("About animals.mp4 and cricket.jpeg: What is")
        usage = line["response"]["usageMetadata"]
        assert usage.keys() >= expected["response"]["usageMetadata"].keys()
        assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"]
        assert {detail["modality"] for detail in usage["promptTokensDetails"]} == {"TEXT", "IMAGE", "VIDEO"}

    def test_its_failed_request_gives_its_failed_line(self):
        world, expected = World(), printed("failed.json")
        (line,) = world.output(world.run({"request": expected["request"]}))
        assert list(line) == list(expected)
        assert line | {"processed_time": expected["processed_time"]} == expected


TWO_SCHEMAS = {
    "parameters": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}},
    "parametersJsonSchema": {"type": "object"},
}


class TestARequestIsRefused:
    @pytest.mark.parametrize(
        ("request_", "words"),
        [
            pytest.param({"labels": {"a": "b"}}, "at least one contents field is required", id="no contents"),
            pytest.param({"contents": []}, "at least one contents field is required", id="empty contents"),
            pytest.param({"contents": [{"role": "user"}]}, "at least one parts field", id="no parts"),
            pytest.param({"contents": [{"role": "user", "parts": []}]}, "at least one parts field", id="empty parts"),
            pytest.param({"contents": ["hi"]}, "an object is expected", id="a text as content"),
            pytest.param(
                {"contents": [{"role": "user", "parts": [{"thought": True}]}]},
                "initialized data field",
                id="a hollow part",
            ),
            pytest.param(
                {"contents": [{"role": "system", "parts": [{"text": "x"}]}]},
                "Please use a valid role",
                id="a system turn",
            ),
            pytest.param(a_request(generationConfig={"temperature": 2.5}), "temperature value of 2.5", id="too hot"),
            pytest.param(a_request(generationConfig={"top_p": -1}), "topP value of -1", id="topP in snake_case"),
            pytest.param(
                a_request(generationConfig={"maxOutputTokens": 0}), "maxOutputTokens value of 0", id="no tokens"
            ),
            pytest.param(a_request(generationConfig={"candidateCount": 9}), "candidateCount value of 9", id="too many"),
            pytest.param(
                a_request(generationConfig={"thinking_level": 3}),
                'Unknown name "thinkingLevel"',
                id="a member elsewhere",
            ),
            pytest.param(a_request(config={"a": 1}), 'Unknown name "config"', id="the SDK's shape"),
            pytest.param(
                a_request(generationConfig={"responseSchema": {"type_": "STRING"}}), 'Unknown name "type_"', id="type_"
            ),
            pytest.param(
                a_request(generationConfig={"responseSchema": {"properties": {"a": {"kind": "x"}}}}),
                "Unknown name \"kind\" at 'generation_config.response_schema.properties[a]'",
                id="an unknown member deep in a schema",
            ),
            pytest.param(a_request(cachedContent="c/1"), "not supported for batch", id="a context cache"),
            pytest.param(a_request(labels={"Team": "x"}), "Invalid label 'Team'", id="a label with a capital"),
            pytest.param(
                a_request(tools=[{"functionDeclarations": [{"name": "a b"}]}]), "FIELD_INVALID", id="a function's name"
            ),
            pytest.param(
                a_request(tools=[{"functionDeclarations": [{"name": "f", **TWO_SCHEMAS}]}]),
                "f functionDeclaration parameters and parameters_json_schema are mutually exclusive",
                id="parameters twice",
            ),
            pytest.param(
                a_request(generationConfig={"responseSchema": {"anyOf": []}}),
                "didn't specify the schema type field",
                id="a choice between nothing",
            ),
            pytest.param(
                {"contents": [{"role": "user", "parts": [{"fileData": {"fileUri": "gs://in/a.png"}}]}]},
                "must have a mimeType parameter",
                id="media without a type",
            ),
            pytest.param(
                {"contents": [{"role": "user", "parts": [{"file_data": {"mime_type": "image/png"}}]}]},
                "must have a fileUri parameter",
                id="media without an address",
            ),
            pytest.param(
                {
                    "contents": [
                        {
                            "parts": [{"fileData": {"fileUri": "gs://in/absent.png", "mimeType": "image/png"}}],
                            "role": "user",
                        }
                    ]
                },
                "Cannot fetch content from the provided URL gs://in/absent.png",
                id="media that is not there",
            ),
            pytest.param(
                {
                    "contents": [
                        {
                            "parts": [{"fileData": {"fileUri": "gs://other/a.png", "mimeType": "image/png"}}],
                            "role": "user",
                        }
                    ]
                },
                "Cannot fetch content",
                id="media in a bucket that is not there",
            ),
        ],
    )
    def test_as_a_row_with_its_reason(self, request_, words):
        status = rejected({"key": "a", "request": request_})
        phrase, _, document = status.partition(": ")
        assert phrase == "Bad Request"
        error = json.loads(document)["error"]
        assert words in error["message"]
        assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")

    def test_which_costs_nothing_and_leaves_the_job_succeeded(self):
        world = World()
        job = world.run(a_line("a"), {"key": "b", "request": {"labels": {"x": "y"}}})
        assert (job["state"], job["completionStats"]) == (
            "JOB_STATE_SUCCEEDED",
            {"successfulCount": "1", "failedCount": "1"},
        )
        (entry,) = world.emulator.books()["jobs"]
        assert (entry["billedRows"], entry["rows"]["failed"]) == (1, 1)


class TestARequestIsAccepted:
    @pytest.mark.parametrize(
        "request_",
        [
            pytest.param(
                {"contents": {"role": "user", "parts": {"text": "x"}}}, id="objects where lists are documented"
            ),
            pytest.param({"contents": [{"parts": [{"text": "x"}]}]}, id="no role"),
            pytest.param(a_request(system_instruction={"parts": [{"text": "Be brief."}]}), id="snake_case"),
            pytest.param(
                {"contents": [{"role": "user", "parts": [{"text": "x", "fileData": None}]}]}, id="padding from an echo"
            ),
            pytest.param(
                a_request(
                    generationConfig={
                        "responseSchema": {"type": "OBJECT", "properties": {"any_name": {"type": "STRING"}}}
                    }
                ),
                id="names of the caller's own",
            ),
            pytest.param(
                {
                    "contents": [
                        {
                            "role": "user",
                            "parts": [{"fileData": {"fileUri": "https://youtu.be/x", "mimeType": "video/mp4"}}],
                        }
                    ]
                },
                id="media on the web",
            ),
        ],
    )
    def test_when_it_breaks_no_rule(self, request_):
        assert rejected({"key": "a", "request": request_}) == ""

    def test_when_its_media_is_there(self):
        world = World()
        world.store.put("gs://in/a.png", b"\x89PNG")
        part = {"fileData": {"fileUri": "gs://in/a.png", "mimeType": "image/png"}}
        job = world.run({"key": "a", "request": {"contents": [{"role": "user", "parts": [part]}]}})
        assert world.output(job)[0]["status"] == ""


class TestTheEcho:
    @pytest.mark.parametrize(
        ("written", "echoed"),
        [
            pytest.param(
                {"b": 1, "a": {"d": 1, "c": 2}}, {"a": {"c": 2, "d": 1}, "b": 1}, id="members sorted at every depth"
            ),
            pytest.param([{"a": 1}, {"b": 2}], [{"a": 1, "b": None}, {"a": None, "b": 2}], id="elements padded"),
            pytest.param(
                [{"x": {"a": 1}}, {"x": {"b": 2}}],
                [{"x": {"a": 1, "b": None}}, {"x": {"a": None, "b": 2}}],
                id="elements padded inside",
            ),
            pytest.param(
                [{"p": [{"a": 1}]}, {"p": [{"b": 2}]}],
                [{"p": [{"a": 1, "b": None}]}, {"p": [{"a": None, "b": 2}]}],
                id="lists in lists share one shape",
            ),
            pytest.param(
                [{"l": [1]}, {"a": 1}], [{"a": None, "l": [1]}, {"a": 1, "l": []}], id="a list is padded empty"
            ),
            pytest.param(["b", "a", 3], ["b", "a", 3], id="scalars stay in order"),
            pytest.param({"a": None, "b": []}, {"a": None, "b": []}, id="nulls and empty lists stay"),
        ],
    )
    def test_is_normalised(self, written, echoed):
        made = normalised(written)
        assert made == echoed
        assert json.dumps(made) == json.dumps(echoed)

    def test_keeps_the_spelling_of_the_request(self):
        world = World()
        (line,) = world.output(world.run(a_line(generation_config={"max_output_tokens": 9})))
        assert line["request"]["generation_config"] == {"max_output_tokens": 9}

    def test_carries_the_prompt_to_the_character(self):
        text = 'Zeilen\n\ttab \\ "q" ümläüt 日本語 \u2028 🙂 \u0000 end '
        world = World()
        (line,) = world.output(world.run(a_line(text=text)))
        assert line["request"]["contents"][0]["parts"][0]["text"] == text


class TestOrderAndKeys:
    def test_every_row_comes_back_once_in_another_order(self):
        world = World()
        keys = [f"k{number}" for number in range(100)]
        got = [line["key"] for line in world.output(world.run(*map(a_line, keys)))]
        assert sorted(got) == sorted(keys)
        assert got != keys

    def test_siblings_come_back_with_failed_rows_too(self):
        world = World()
        bad = {"key": "bad", "note": "n", "request": {"contents": []}}
        (line,) = world.output(world.run(bad))
        assert (line["key"], line["note"]) == ("bad", "n")

    def test_numeric_looking_siblings_come_back_as_numbers(self):
        world = World()
        lines = world.output(world.run({**a_line(), "custom_id": "000000"}, {**a_line(), "custom_id": "000017"}))
        assert sorted(line["custom_id"] for line in lines) == [0, 17]


class TestNativeResume:
    def test_output_lines_as_input_are_copied_free_of_charge_and_only_failed_ones_run(self):
        world = World()
        first = world.run(
            a_line("good"), {**a_line("bad"), "request": {"contents": [{"parts": [{"text": "x"}], "role": "z"}]}}
        )
        lines = world.output(first)
        for line in lines:
            line["request"]["contents"][0]["role"] = "user"
        world.store.put("gs://in/again.jsonl", *lines)
        source = {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://in/again.jsonl"]}}
        again = world.ended(world.create(a_body(inputConfig=source, displayName="again")))
        merged = {line["key"]: line for line in world.output(again)}
        before = {line["key"]: line for line in lines}
        assert merged["good"] == before["good"]
        assert merged["bad"]["status"] == ""
        assert merged["bad"]["response"]["candidates"]
        entry = world.emulator.books(rows=True)["jobs"][1]
        assert entry["rows"] == {"answered": 1, "failed": 0, "missing": 0, "copied": 1}
        assert entry["billedRows"] == 1
        bills = {bill["key"]: bill for bill in entry["bills"]}
        assert bills["good"] == Bill(key="good", outcome="copied").as_dict()
        assert entry["tokens"]["total"] == sum(bills["bad"][name] for name in ("prompt", "output", "thinking", "tool"))
        assert entry["tokens"]["total"] > 0
        assert again["completionStats"] == {"successfulCount": "2"}

    @pytest.mark.parametrize(
        ("members", "outcome"),
        [
            ({"status": "", "response": {"promptFeedback": {"blockReason": "SAFETY"}}}, "copied"),
            ({"status": "", "response": {}}, "answered"),
            ({"status": "", "response": None}, "answered"),
            ({"status": "Bad Request: …", "response": {"candidates": [{}]}}, "answered"),
        ],
        ids=["blocked: an answer", "empty response", "null response", "failed, whatever its response"],
    )
    def test_asks_again_only_what_has_no_response_or_failed(self, members, outcome):
        world = World()
        world.run({**a_line("a"), **members})
        assert [bill["outcome"] for bill in world.emulator.books(rows=True)["jobs"][0]["bills"]] == [outcome]

    def test_faults_do_not_strike_what_is_copied(self):
        world = World(scenario=Scenario(faults=(Missing(),)))
        response = {"candidates": [{"finishReason": "STOP"}]}
        lines = world.output(world.run({**a_line("done"), "status": "", "response": response}, a_line("new")))
        assert [(line["key"], line["response"]) for line in lines] == [("done", response)]


class TestSeveralCandidates:
    def test_come_numbered_and_are_billed_together(self):
        world = World()
        job = world.run(a_line("one"), a_line("three", generationConfig={"candidateCount": 3}))
        responses = {line["key"]: line["response"] for line in world.output(job)}
        candidates = responses["three"]["candidates"]
        assert [candidate.get("index") for candidate in candidates] == [None, 1, 2]
        assert all(candidate["content"]["parts"][0]["text"] for candidate in candidates)
        counts = [responses[key]["usageMetadata"]["candidatesTokenCount"] for key in ("one", "three")]
        assert counts[1] == 3 * counts[0]
        assert world.emulator.books()["jobs"][0]["tokens"]["output"] == sum(counts)


class TestAModelThatFails:
    def test_costs_one_row_not_the_job(self):
        class Broken:
            parallel = 3

            def answer(self, request):
                raise RuntimeError("no")

        status = rejected(a_line(), model=Broken())
        assert status == row_status(500, "Internal error encountered: RuntimeError.")


def test_without_normalising_the_echo_is_the_request():
    line = a_line(generationConfig={"topP": 1, "temperature": 0.5})
    world = World(scenario=Scenario(switches=Switches(echo="verbatim")))
    (got,) = world.output(world.run(line))
    assert json.dumps(got["request"]) == json.dumps(line["request"])
