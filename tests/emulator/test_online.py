"""Models outside of jobs: what a preflight looks at and asks."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.emulator.faults import Http
from airflow_vertex_batch.emulator.scenario import Scenario, Served
from tests.emulator.worlds import World, a_request

MODELS = "publishers/google/models"
HOME = "/v1/projects/demo/locations/us-central1"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/v1/{MODELS}/gemini-2.5-flash", 200),
        (f"/v1beta1/{MODELS}/gemini-3.8-flash", 200),
        (f"/v1/{MODELS}/gemni-3", 404),
        ("/v1/publishers/nobody/models/gemini-3", 404),
        (f"{HOME}/models/7", 200),
        (f"{HOME}/endpoints/7", 200),
    ],
)
def test_a_model_is_known_wherever_the_table_names_it(path, status):
    reply = World().call("GET", path)
    assert reply.status == status
    assert status == 404 or reply.document["name"] == path.split("/", 2)[2]


def test_an_online_answer_is_the_models_and_says_what_it_used():
    world = World()
    reply = world.call("POST", f"{HOME}/{MODELS}/gemini-2.5-flash:generateContent", a_request("Say hello."))
    (candidate,) = reply.document["candidates"]
    assert (candidate["finishReason"], candidate["content"]["parts"]) == ("STOP", [{"text": "In short: Say hello."}])
    assert reply.document["modelVersion"] == "gemini-2.5-flash"
    assert reply.document["usageMetadata"]["totalTokenCount"] > 0


def test_online_works_where_batches_do_not_as_seen_in_the_field():
    world = World()
    assert world.call("POST", f"{HOME}/{MODELS}/gemini-3.8-flash:generateContent", a_request()).status == 200


@pytest.mark.parametrize(
    ("model", "body", "status"),
    [
        ("gemini-2.5-flash", {"contents": []}, 400),
        ("gemini-2.5-flash", a_request(generationConfig={"temperature": 7}), 400),
        ("gemini-2.5-flash", b"{", 400),
        ("gemini-4-argon", a_request(generationConfig={"thinkingConfig": {"thinkingBudget": 0}}), 400),
        ("gemini-3.8-flash", a_request(generationConfig={"thinkingConfig": {"thinkingBudget": 0}}), 200),
        ("gemni", a_request(), 404),
    ],
    ids=["empty", "out of range", "no JSON", "another model's setting", "this model's setting", "unknown model"],
)
def test_what_a_row_would_be_refused_for_is_refused_online(model, body, status):
    reply = World().call("POST", f"{HOME}/{MODELS}/{model}:generateContent", body)
    assert (reply.status, reply.document.get("error", {"code": 200})["code"]) == (status, status)


def test_calls_are_counted_can_fail_by_scenario_and_make_no_job():
    faults = (Http(on="generate", status=429), Http(on="model", status=403))
    world = World(scenario=Scenario(faults=faults, catalog=(Served(model="google/*"),)))
    statuses = [
        world.call("POST", f"{HOME}/{MODELS}/any:generateContent", a_request()).status,
        world.call("GET", f"/v1/{MODELS}/any").status,
        world.call("GET", f"/v1/{MODELS}/any").status,
    ]
    books = world.emulator.books()
    assert statuses == [429, 403, 200]
    assert (books["calls"], books["jobsCreated"]) == ({"generate": 1, "model": 2}, 0)
