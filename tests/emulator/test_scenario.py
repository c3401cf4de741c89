"""Switches, each with both answers, and scripted faults: consumed in order, counted, and an error when unused."""

from __future__ import annotations

import json
import re
import typing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from airflow_vertex_batch.emulator.clock import VirtualClock
from airflow_vertex_batch.emulator.faults import Delay, Drop, DroppedError, End, ExpireToken, Http, Pass, Stale
from airflow_vertex_batch.emulator.output_faults import LateInfo, LateOutput, LostOutput
from airflow_vertex_batch.emulator.row_faults import (
    Blocked,
    Cached,
    Duplicated,
    Empty,
    Finish,
    InvalidJson,
    Key,
    Missing,
    NoUsage,
    Parts,
    RowError,
    ThoughtsFirst,
    ToolUse,
    Truncated,
)
from airflow_vertex_batch.emulator.scenario import Pace, Scenario, Switches, UnusedFaultError, fault_tags
from tests.emulator.worlds import BAD, INPUT, PARENT, World, a_body, a_line, a_world, from_table, to_table


class TestTheSwitches:
    @pytest.mark.parametrize(("answer", "status"), [("accepted", 200), ("refused", 400)])
    def test_1_a_bare_uri(self, answer, status):
        body = a_body(inputConfig={"instancesFormat": "jsonl", "gcsSource": {"uris": INPUT}})
        assert a_world(scalar_uris=answer).call("POST", PARENT, body).status == status

    @pytest.mark.parametrize(("answer", "state"), [("cancelled", "CANCELLED"), ("failed", "FAILED")])
    def test_2_a_job_that_runs_longer_than_a_day(self, answer, state):
        world = a_world(run_cutoff=answer)
        world.emulator.set_scenario(Scenario(switches=Switches(run_cutoff=answer), pace=Pace(running_s=48 * 3600)))
        assert world.ended(world.create(), 26 * 3600)["state"] == f"JOB_STATE_{state}"

    @pytest.mark.parametrize(
        ("answer", "stats"), [(False, None), (True, {"successfulCount": "5", "incompleteCount": "5"})]
    )
    def test_3_counters_while_running(self, answer, stats):
        world = a_world(live_stats=answer)
        job = world.create()
        assert "completionStats" not in world.ended(job, 80)
        assert world.ended(job, 71).get("completionStats") == stats
        assert world.ended(job)["completionStats"] == {"successfulCount": "10"}

    @pytest.mark.parametrize(
        ("answer", "member"), [("empty", {"response": {}}), ("null", {"response": None}), ("absent", {})]
    )
    def test_4_the_response_of_a_failed_row(self, answer, member):
        world = a_world(
            RowError(keys=("faulted",)), lines=[BAD, a_line("faulted"), a_line("good")], failed_response=answer
        )
        lines = {line["key"]: line for line in world.output(world.ended(world.create()))}
        for key in ("bad", "faulted"):
            assert {name: value for name, value in lines[key].items() if name == "response"} == member
        assert lines["good"]["response"]["candidates"]

    @pytest.mark.parametrize(
        ("answer", "members"), [("normalised", ["parts", "role"]), ("verbatim", ["role", "parts"])]
    )
    def test_5_the_echo(self, answer, members):
        world = a_world(echo=answer)
        assert list(world.output(world.ended(world.create()))[0]["request"]["contents"][0]) == members

    @pytest.mark.parametrize(
        ("answer", "siblings"),
        [("retyped", {"custom_id": 7, "key": "a"}), ("verbatim", {"custom_id": "007", "key": "a"}), ("dropped", {})],
    )
    def test_6_the_siblings(self, answer, siblings):
        world = a_world(lines=[{**a_line("a"), "custom_id": "007"}], siblings=answer)
        (line,) = world.output(world.ended(world.create()))
        assert {name: line[name] for name in ("custom_id", "key") if name in line} == siblings

    @pytest.mark.parametrize(
        ("answer", "running", "done"),
        [
            ("single", ["predictions.jsonl"], ["predictions.jsonl"]),
            ("incremental", ["incremental_predictions.jsonl"], ["incremental_predictions.jsonl", "predictions.jsonl"]),
            (
                "shards",
                ["predictions.jsonl-00000-of-00002"],
                ["predictions.jsonl-00000-of-00002", "predictions.jsonl-00001-of-00002"],
            ),
        ],
    )
    def test_7_the_output_files(self, answer, running, done):
        world = a_world(output_files=answer)
        job = world.create()
        folder = world.ended(job, 90 + 73)["outputInfo"]["gcsOutputDirectory"] + "/"
        files = lambda: [name.removeprefix(folder) for name in sorted(world.store.objects) if name.startswith(folder)]  # noqa: E731
        assert files() == running
        job = world.ended(job)
        assert files() == done
        whole = [name for name in done if not name.startswith("incremental_")]
        assert sorted(line["key"] for name in whole for line in world.output(job, name)) == [f"k{n}" for n in range(10)]

    @pytest.mark.parametrize(
        ("answer", "state"),
        [("succeeded", "SUCCEEDED"), ("failed", "FAILED"), ("partially_succeeded", "PARTIALLY_SUCCEEDED")],
    )
    def test_8_a_job_whose_every_row_failed(self, answer, state):
        world = a_world(lines=[BAD, {**BAD, "key": "bad2"}], all_failed=answer)
        job = world.ended(world.create())
        assert (job["state"], job["completionStats"]) == (f"JOB_STATE_{state}", {"failedCount": "2"})
        assert len(world.output(job)) == 2

    @pytest.mark.parametrize(("answer", "state"), [("allowed", "SUCCEEDED"), ("refused", "FAILED")])
    @pytest.mark.parametrize("side", ["input", "output"])
    def test_9_bigquery_with_global(self, answer, state, side):
        world = a_world(bigquery_global=answer)
        world.warehouse.put("p.d.t", {"request": "JSON"}, {"request": a_line()["request"]})
        body = a_body(inputConfig=from_table("p.d.t")) if side == "input" else a_body(outputConfig=to_table("p.d.out"))
        job = world.ended(world.create(body))
        assert job["state"] == f"JOB_STATE_{state}"
        if answer == "refused":
            assert job["error"]["code"] == 3
            assert "was not found in location US" in job["error"]["message"]

    @pytest.mark.parametrize(("answer", "state", "rows"), [("error", "FAILED", 1), ("append", "SUCCEEDED", 11)])
    def test_10_a_destination_table_that_exists(self, answer, state, rows):
        world = a_world(existing_table=answer)
        schema = {
            "key": "STRING",
            "request": "JSON",
            "response": "JSON",
            "status": "STRING",
            "processed_time": "TIMESTAMP",
        }
        world.warehouse.put("p.d.t", schema, {"key": "old"})
        job = world.ended(world.create(a_body(outputConfig=to_table("p.d.t"))))
        assert job["state"] == f"JOB_STATE_{state}"
        assert len(world.warehouse.all("p.d.t")) == rows
        assert list(world.warehouse.schemas) == ["p.d.t"]

    @pytest.mark.parametrize("answer", [False, True])
    def test_11_the_details_of_an_error(self, answer):
        world = a_world(End(state="JOB_STATE_FAILED", code=13, message="System error."), error_details=answer)
        assert bool(world.ended(world.create())["error"].get("details")) is answer

    @pytest.mark.parametrize("answer", [True, False])
    def test_12_what_a_cancelled_job_leaves(self, answer):
        world = a_world(cancelled_output=answer)
        job = world.create()
        world.emulator.advance(90 + 61)
        assert world.store.write_count
        world.call("POST", f"/v1/{job['name']}:cancel")
        job = world.ended(job)
        assert ("outputInfo" in job) is answer
        assert any(name.startswith("gs://out/") for name in world.store.objects) is answer

    @pytest.mark.parametrize("answer", [True, False])
    def test_13_the_output_info_of_a_failed_job(self, answer):
        world = a_world(End(state="JOB_STATE_FAILED", code=13, after=0.5), failed_output_info=answer)
        assert ("outputInfo" in world.ended(world.create())) is answer

    @pytest.mark.parametrize(("answer", "kind"), [("JSON", dict), ("STRING", str)])
    def test_14_the_type_of_a_response_in_a_table(self, answer, kind):
        world = a_world(bigquery_response=answer)
        world.ended(world.create(a_body(outputConfig=to_table("p.d.t"))))
        row = world.warehouse.all("p.d.t")[0]
        assert {type(row["response"]), type(row["request"])} == {kind}

    @pytest.mark.parametrize(("answer", "status"), [("refused", "Bad Request"), ("taken", "")])
    def test_15_a_schema_with_an_object_without_properties(self, answer, status):
        world = a_world(empty_objects=answer)
        schema = {"type": "OBJECT", "properties": {"a": {"type": "OBJECT"}}}
        config = {"responseMimeType": "application/json", "responseSchema": schema}
        world.store.put(INPUT, {"key": "k", "request": {**a_line()["request"], "generationConfig": config}})
        (line,) = world.output(world.ended(world.create()))
        assert line["status"].startswith(status)
        assert bool(line["status"]) is bool(status)

    @pytest.mark.parametrize(("answer", "status"), [("taken", ""), ("refused", "Bad Request")])
    @pytest.mark.parametrize(
        ("model", "config"),
        [
            ("gemini-3.1-pro-preview", {"candidateCount": 2}),
            ("gemini-2.5-flash", {"presencePenalty": 0.5}),
            ("gemini-3.5-flash-lite", {"thinkingConfig": {"thinkingBudget": 0}}),
            ("gemini-4-argon", {"thinking_config": {"thinking_level": "XHIGH"}}),
        ],
    )
    def test_16_settings_of_which_reports_disagree(self, model, config, answer, status):
        world = a_world(contested_settings=answer)
        world.store.put(INPUT, {"key": "k", "request": {**a_line()["request"], "generationConfig": config}})
        parent = PARENT.replace("us-central1", "global")
        body = a_body(model=f"publishers/google/models/{model}")
        job = world.call("POST", parent, body).document
        (line,) = world.output(world.ended(job))
        assert line["status"].startswith(status)
        assert bool(line["status"]) is bool(status)

    @pytest.mark.parametrize(
        ("answer", "name", "status"),
        [
            ("misspelt", "gemini-2.5-flahs", 404),
            ("misspelt", "gemini-2.9-flash", 200),
            ("misspelt", "gemini-2.5-flash-001@default", 200),
            ("all", "gemini-2.5-flahs", 404),
            ("all", "gemini-2.9-flash", 404),
            ("all", "gemini-2.5-flash", 200),
            ("none", "gemini-2.5-flahs", 200),
        ],
    )
    def test_20_a_model_whose_name_is_not_known(self, answer, name, status):
        world, path = a_world(unknown_names=answer), f"publishers/google/models/{name}"
        assert world.call("POST", PARENT, a_body(model=path)).status == status
        assert world.call("GET", f"/v1/{path}").status == status

    @pytest.mark.parametrize(
        ("answer", "began", "status"),
        [
            ("served", "2026-10-21", 200),
            ("refused", "2026-10-20", 200),
            ("refused", "2026-10-21", 404),
        ],
    )
    def test_21_a_model_after_its_last_day(self, answer, began, status):
        scenario = Scenario(switches=Switches(retired_models=answer))
        world = World(scenario=scenario, clock=VirtualClock(datetime.fromisoformat(began).replace(tzinfo=UTC)))
        path = "publishers/google/models/gemini-2.5-flash"
        assert world.call("POST", PARENT, a_body(model=path)).status == status
        assert world.call("GET", f"/v1/{path}").status == status

    @pytest.mark.parametrize(("answer", "status"), [("gemini-2.5-flash", 200), ("gemini-3.5-flash-lite", 404)])
    def test_22_the_model_that_a_tuned_one_was_made_from(self, answer, status):
        world, place = a_world(tuned_from=answer), "projects/demo/locations/us-central1"
        path = f"{place}/models/7"
        assert world.call("POST", f"/v1/{place}/batchPredictionJobs", a_body(model=path)).status == status
        labels = world.call("GET", f"/v1/{path}").document["labels"]
        assert list(labels.values()) == [answer.replace(".", "-")]

    @pytest.mark.parametrize(
        ("answer", "stats"),
        [("lines", {"successfulCount": "9", "incompleteCount": "1"}), ("answers", {"successfulCount": "10"})],
    )
    def test_23_what_is_counted_where_a_line_got_lost(self, answer, stats):
        world = a_world(Missing(keys=("k3",)), counted=answer)
        assert world.ended(world.create())["completionStats"] == stats

    @pytest.mark.parametrize(("answer", "parts"), [("row", ["text"]), ("file", ["fileData", "text"])])
    def test_24_what_lists_of_the_echo_are_padded_to(self, answer, parts):
        image = {"parts": [{"fileData": {"fileUri": "gs://in/a.png", "mimeType": "image/png"}}], "role": "user"}
        world = a_world(
            echo_padding=answer, lines=[a_line("k0", "Hi"), {"key": "k1", "request": {"contents": [image]}}]
        )
        lines = {line["key"]: line for line in world.output(world.ended(world.create()))}
        assert list(lines["k0"]["request"]["contents"][0]["parts"][0]) == parts

    @pytest.mark.parametrize(("answer", "first"), [("page", "status"), ("2024-11", "status"), ("2025-11", "key")])
    def test_25_the_form_of_a_line(self, answer, first):
        assert next(iter((world := a_world(line_form=answer)).output(world.ended(world.create()))[0])) == first

    @pytest.mark.parametrize(("answer", "is_there"), [("absent", False), ("present", True)])
    def test_26_what_a_search_found(self, answer, is_there):
        request = a_line("k0", "Hi")["request"] | {"tools": [{"googleSearch": {"excludeDomains": ["example.invalid"]}}]}
        world = a_world(grounding=answer, lines=[{"key": "k0", "request": request}])
        (candidate,) = world.output(world.ended(world.create()))[0]["response"]["candidates"]
        assert ("groundingMetadata" in candidate, "avgLogprobs" in candidate) == (is_there, not is_there)

    @pytest.mark.parametrize(("answer", "names"), [("absent", {"text"}), ("present", {"text", "thoughtSignature"})])
    def test_27_a_signature_beside_the_text(self, answer, names):
        line = (world := a_world(thought_signature=answer)).output(world.ended(world.create()))[0]
        assert line["response"]["candidates"][0]["content"]["parts"][0].keys() == names

    @pytest.mark.parametrize(("answer", "more"), [("without", 0), ("with", 30)])
    def test_28_whether_the_total_has_the_tokens_of_tools(self, answer, more):
        world = a_world(ToolUse(tokens=30), tool_total=answer, lines=[a_line("a")])
        usage = world.output(world.ended(world.create()))[0]["response"]["usageMetadata"]
        parts = sum(usage[name] for name in ("promptTokenCount", "candidatesTokenCount"))
        assert (usage["toolUsePromptTokenCount"], usage["totalTokenCount"] - parts) == (30, more)
        assert world.emulator.books()["billed"]["tokens"] == parts + 30

    def test_say_their_evidence_and_are_all_tested(self):
        tested = {
            name.split("_")[1] for name in dir(type(self)) if name.startswith("test_") and name.split("_")[1].isdigit()
        }
        assert len(tested) == len(Switches.__struct_fields__)
        source = Path(__file__).parents[2] / "airflow_vertex_batch" / "emulator" / "scenario.py"
        assert all(f"#: {number}. " in source.read_text() for number in range(1, 14))


class TestFaultsOfACall:
    def test_answer_an_error_with_the_time_to_wait(self):
        world = a_world(Http(on="create", status=429, retry_after=7, message="Quota exceeded."))
        reply = world.call("POST", PARENT, a_body())
        assert (reply.status, reply.headers) == (429, {"Retry-After": "7"})
        assert reply.document["error"] == {"code": 429, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED"}
        assert world.call("POST", PARENT, a_body()).status == 200
        world.emulator.script.check_used()

    @pytest.mark.parametrize(("when", "created"), [("before", 0), ("after", 1)])
    @pytest.mark.parametrize("kind", ["http", "drop"])
    def test_strike_before_or_after_the_commit(self, kind, when, created):
        fault = Http(on="create", status=503, when=when) if kind == "http" else Drop(on="create", when=when)
        world = a_world(fault)
        if kind == "http":
            assert world.call("POST", PARENT, a_body()).status == 503
        else:
            with pytest.raises(DroppedError, match=f"drops this create {when} its commit"):
                world.call("POST", PARENT, a_body())
        books = world.emulator.books()
        assert books["jobsCreated"] == created
        assert books["replies"]["create"] == {"503" if kind == "http" else "dropped": 1}

    def test_answer_a_page_that_is_no_json(self):
        world = a_world(Http(on="list", status=502, html=True))
        assert world.call("GET", PARENT).document.startswith("<html>")

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_delay(self, when):
        world = a_world(Delay(on="create", seconds=30, when=when))
        begun = world.emulator.clock.now()
        job = world.create()
        assert (world.emulator.clock.now() - begun).total_seconds() == 30
        assert job["createTime"] == f"2026-11-22T00:00:{'30' if when == 'before' else '00'}.000000Z"

    def test_are_consumed_in_order_per_operation(self):
        faults = (
            Pass(on="get", times=2),
            Http(on="get", status=500, times=2),
            Http(on="list", status=403),
            Http(on="get", status=404),
        )
        world = a_world(*faults)
        job = world.create()
        assert [world.call("GET", f"/v1/{job['name']}").status for _ in range(6)] == [200, 200, 500, 500, 404, 200]
        assert [world.call("GET", PARENT).status for _ in range(2)] == [403, 200]

    def test_strike_for_ever_when_they_have_no_count(self):
        world = a_world(Http(on="list", status=500, times=None))
        assert {world.call("GET", PARENT).status for _ in range(5)} == {500}

    def test_strike_only_the_jobs_they_name(self):
        world = a_world(Http(on="cancel", status=500, job="night-*"), Http(on="create", status=500, labels={"a": "b"}))
        day, night = world.create(a_body(displayName="day")), world.create(a_body(displayName="night-1"))
        assert world.call("POST", PARENT, a_body(labels={"a": "b"})).status == 500
        assert world.call("POST", f"/v1/{day['name']}:cancel").status == 200
        assert world.call("POST", f"/v1/{night['name']}:cancel").status == 500

    def test_leave_labels_that_are_no_text_to_the_api(self):
        world = a_world(Http(on="create", status=500, labels={"a": "b"}))
        assert world.call("POST", PARENT, a_body(labels={"a": 1})).status == 400

    def test_let_a_token_expire_until_another_comes(self):
        world = a_world(Pass(on="get"), ExpireToken(on="get"))
        job = world.create()
        old, new = {"authorization": "Bearer old"}, {"authorization": "Bearer new"}
        path = f"/v1/{job['name']}"
        assert [world.call("GET", path, headers=old).status for _ in range(3)] == [200, 401, 401]
        assert world.call("GET", PARENT, headers=old).document["error"]["status"] == "UNAUTHENTICATED"
        assert world.call("GET", path, headers=new).status == 200

    def test_let_a_list_lag_behind(self):
        world = a_world(Stale(seconds=60))
        world.create(a_body(displayName="old"))
        world.emulator.advance(30)
        world.create(a_body(displayName="new"))
        listed = lambda: [job["displayName"] for job in world.call("GET", PARENT).document["batchPredictionJobs"]]  # noqa: E731
        assert listed() == []
        world.emulator.advance(31)
        assert listed() == ["old"]
        world.emulator.advance(30)
        assert listed() == ["new", "old"]


def test_every_fault_stands_in_the_readme():
    readme = (Path(__file__).parents[2] / "airflow_vertex_batch" / "emulator" / "README.md").read_text()
    assert [tag for tag in fault_tags() if f"`{tag}`" not in readme] == []


class TestTheSwitchesInTheGuide:
    """One row of the table for each, its default first."""

    @pytest.fixture
    def rows(self):
        text = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
        table = text.partition("| switch | answers | evidence |")[2].partition("\n\n")[0]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[1:]]
        return {name.strip("`"): (re.findall(r"`([^`]+)`", answers), evidence) for name, answers, evidence in cells}

    def test_are_those_that_there_are(self, rows):
        assert list(rows) == [field.name for field in msgspec.structs.fields(Switches)]

    @pytest.mark.parametrize("field", msgspec.structs.fields(Switches), ids=lambda field: field.name)
    def test_have_their_answers_and_their_evidence(self, rows, field):
        answers, evidence = rows[field.name]
        default = json.dumps(field.default).strip('"')
        known = {bool: ["true", "false"], str: [default]}.get(field.type) or [*typing.get_args(field.type)]
        assert answers[0] == default
        assert sorted(answers) == sorted(known)
        assert len(evidence) > 20


class TestAScript:
    def test_names_the_faults_that_were_not_met(self):
        world = a_world(Http(on="get", status=500, times=2), Missing(keys=("absent",)), Http(on="list", status=500))
        job = world.create()
        world.get(job)
        world.call("GET", PARENT)
        with pytest.raises(UnusedFaultError, match=r"2 scripted faults were not met.*used 1 times.*absent"):
            world.emulator.script.check_used()
        assert len(world.emulator.script.unused()) == 2

    def test_survives_json_with_every_fault(self):
        faults = (
            Http(on="create", status=503, retry_after=1.5),
            Drop(on="get", when="after"),
            Delay(on="list", seconds=1),
            ExpireToken(on="get"),
            Stale(seconds=5),
            Pass(on="cancel", times=3),
            End(state="JOB_STATE_FAILED", code=13),
            LateInfo(seconds=30),
            LateOutput(seconds=60, share=0.5),
            LostOutput(),
            Finish(reason="SAFETY", ratio=0.1, from_ratio=0.2, seed=7, partial=True),
            Truncated(thinking=True, below_tokens=64),
            Blocked(),
            RowError(text="x"),
            Missing(times=2),
            Duplicated(positions=(1, 2)),
            ThoughtsFirst(),
            InvalidJson(text="```json"),
            Empty(),
            Parts(parts=({"fileData": {"fileUri": "gs://out/a.png", "mimeType": "image/png"}},)),
            NoUsage(only_total=True),
            Cached(share=0.1),
            ToolUse(tokens=3),
            Key(becomes="number"),
        )
        scenario = Scenario(switches=Switches(live_stats=True), pace=Pace(pending_s=1), faults=faults)
        assert Scenario.parse(json.dumps(scenario.as_dict())) == scenario
        assert {type(fault) for fault in faults} | {fault_tags()["hold"]} == set(fault_tags().values())
