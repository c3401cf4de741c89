"""The REST surface: what create accepts, what every call answers, in the words of the service."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from airflow_vertex_batch.emulator.scenario import Pace, Scenario, Served
from tests.emulator.worlds import INPUT, OUTPUT, PARENT, World, a_body, a_line, from_table, to_table

JSONL = {"instancesFormat": "jsonl"}


def error_of(reply):
    assert reply.document.keys() == {"error"}
    error = reply.document["error"]
    assert error["code"] == reply.status
    return error


class TestCreate:
    def test_answers_the_resource_with_the_projects_number(self):
        job = World().create(a_body(labels={"team": "support", "ключ": "значение"}))
        assert re.fullmatch(r"projects/\d{12}/locations/global/batchPredictionJobs/\d{19}", job["name"])
        assert job["state"] == "JOB_STATE_PENDING"
        assert job["labels"] == {"team": "support", "ключ": "значение"}
        assert job["inputConfig"]["gcsSource"]["uris"] == [INPUT]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", job["createTime"])
        assert {"outputInfo", "error", "completionStats"}.isdisjoint(job)

    @pytest.mark.parametrize(
        ("model", "location"),
        [
            pytest.param("publishers/google/models/gemini-2.5-flash", "us-central1", id="2.5 in a region"),
            pytest.param("publishers/google/models/gemini-2.5-flash", "global", id="2.5 in global"),
            pytest.param("publishers/google/models/gemini-2.0-flash-001@default", "europe-west4", id="with a version"),
            pytest.param("publishers/google/models/gemini-3.8-flash", "global", id="3.x in global"),
            pytest.param(
                "projects/demo/locations/us-central1/publishers/google/models/gemini-2.5-pro",
                "us-central1",
                id="full path",
            ),
            pytest.param("projects/demo/locations/us-central1/models/123", "us-central1", id="tuned model"),
            pytest.param("projects/demo/locations/us-central1/models/123@2", "us-central1", id="tuned model's version"),
            pytest.param("projects/demo/locations/us-central1/endpoints/9", "us-central1", id="tuned model's endpoint"),
        ],
    )
    def test_takes_models_where_they_are_served(self, model, location):
        job = World().create(a_body(model=model), f"/v1/projects/demo/locations/{location}/batchPredictionJobs")
        assert job["model"] == model

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(a_body(inputConfig={**JSONL, "gcsSource": {"uris": INPUT}}), id="a bare uri"),
            pytest.param(a_body(inputConfig=from_table("p.d.t")), id="a table in"),
            pytest.param(a_body(outputConfig=to_table("p")), id="a project out"),
            pytest.param(a_body(outputConfig=to_table("p.d.t")), id="a table out"),
            pytest.param(a_body(displayName="x" * 128), id="a long name"),
            pytest.param(
                a_body(name="projects/1/locations/x/batchPredictionJobs/2", state=3), id="output-only members"
            ),
            pytest.param(
                {
                    "display_name": "snake",
                    "model": "publishers/google/models/gemini-2.5-flash",
                    "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": [INPUT]}},
                    "output_config": {
                        "predictions_format": "jsonl",
                        "gcs_destination": {"output_uri_prefix": OUTPUT},
                    },
                },
                id="snake_case",
            ),
        ],
    )
    def test_takes_what_is_well_formed(self, body):
        assert World().create(body)["state"] == "JOB_STATE_PENDING"

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            pytest.param({}, "displayName is required", id="nothing"),
            pytest.param(a_body(displayName=""), "displayName is required", id="an empty name"),
            pytest.param(a_body(displayName="x" * 129), "at most 128", id="a name too long"),
            pytest.param(a_body(model=None), "model is required", id="no model"),
            pytest.param(a_body(model="gemini-2.5-flash"), "not the name of a model", id="a bare model name"),
            pytest.param(a_body(inputConfig=None), "inputConfig is required", id="no input"),
            pytest.param(a_body(outputConfig=None), "outputConfig is required", id="no output"),
            pytest.param(
                a_body(inputConfig={"gcsSource": {"uris": [INPUT]}}), "instancesFormat must be", id="no format"
            ),
            pytest.param(a_body(inputConfig={**JSONL, "gcsSource": {"uris": []}}), "a list of", id="no uris"),
            pytest.param(a_body(inputConfig={**JSONL, "gcsSource": {"uris": ["/tmp/x"]}}), "not a Cloud", id="a path"),
            pytest.param(a_body(inputConfig={**JSONL, "gcsSource": {"uris": [7]}}), "7 is not a Cloud", id="a number"),
            pytest.param(
                a_body(inputConfig={**JSONL, "bigquerySource": {"inputUri": "bq://p.d.t"}}),
                "does not fit",
                id="mixed kinds",
            ),
            pytest.param(a_body(inputConfig=from_table("p.d")), "not a BigQuery URI", id="half a table"),
            pytest.param(a_body(outputConfig=to_table("")), "not a BigQuery URI", id="no project"),
            pytest.param(
                a_body(outputConfig={"predictionsFormat": "jsonl", "gcsDestination": {}}), "None is not", id="no prefix"
            ),
            pytest.param(a_body(labels={"Team": "x"}), "Label key 'Team'", id="a label in capitals"),
            pytest.param(a_body(labels={"team": "a b"}), "Label value 'a b'", id="a label with a space"),
            pytest.param(a_body(labels={"": "x"}), "Label key ''", id="a label without a key"),
            pytest.param(a_body(labels={f"k{n}": "" for n in range(65)}), "at most 64", id="too many labels"),
            pytest.param(a_body(labels={"k": "x" * 65}), "at most 64", id="a label too long"),
            pytest.param(a_body(colour="red"), 'Unknown name "colour"', id="an unknown member"),
            pytest.param(
                a_body(inputConfig={**JSONL, "gcsSource": {"uri": INPUT}}),
                'Unknown name "uri"',
                id="an unknown inner member",
            ),
            pytest.param(
                a_body(model="projects/demo/locations/europe-west4/models/1"),
                "not in the job's location",
                id="model elsewhere",
            ),
            pytest.param(b"[1]", "must be an object", id="a list"),
            pytest.param(b"{", "Invalid JSON payload received", id="no JSON"),
        ],
    )
    def test_refuses_what_is_not(self, body, words):
        world = World()
        error = error_of(world.call("POST", PARENT, body))
        assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
        assert words in error["message"]
        assert world.emulator.books()["jobsCreated"] == 0

    @pytest.mark.parametrize(
        ("model", "location", "reason"),
        [
            pytest.param("publishers/google/models/gemini-nope", "global", "does not exist", id="no such model"),
            pytest.param("publishers/acme/models/gemini-2.5-pro", "global", "does not exist", id="no such publisher"),
            pytest.param("models/123", "us-central1", "does not exist", id="a model of no project"),
            pytest.param(
                "publishers/google/models/gemini-3.8-flash",
                "us-central1",
                "not supported for batch",
                id="3.x in a region",
            ),
            pytest.param(
                "projects/demo/locations/global/models/1", "global", "not supported for batch", id="tuned in global"
            ),
        ],
    )
    def test_knows_which_model_is_served_where(self, model, location, reason):
        reply = World().call("POST", f"/v1/projects/demo/locations/{location}/batchPredictionJobs", a_body(model=model))
        error = error_of(reply)
        assert (error["code"], error["status"]) == (404, "NOT_FOUND")
        assert reason in error["message"]
        reasons = [detail["reason"] for detail in error.get("details", [])]
        assert reasons == (["MODEL_NOT_SUPPORTED_FOR_BATCH"] if "not supported" in reason else [])

    def test_follows_the_table_of_models_it_is_given(self):
        catalog = (Served(model="google/gemini-next", locations=("europe-*",)),)
        world = World(scenario=Scenario(catalog=catalog))
        body = a_body(model="publishers/google/models/gemini-next")
        assert world.create(body, "/v1/projects/p/locations/europe-west4/batchPredictionJobs")
        assert world.call("POST", "/v1/projects/p/locations/us-east1/batchPredictionJobs", body).status == 404

    def test_refuses_an_api_key_and_takes_no_credentials_at_all(self):
        world = World()
        for options in ({"query": {"key": "abc"}}, {"headers": {"x-goog-api-key": "abc"}}):
            error = error_of(world.call("POST", PARENT, a_body(), **options))
            assert (error["code"], "OAuth2" in error["message"]) == (400, True)
        assert world.call("POST", PARENT, a_body()).status == 200
        assert world.call("POST", PARENT, a_body(), headers={"authorization": "Bearer x"}).status == 200


class TestNames:
    def test_resolve_by_number_and_by_id_in_both_versions(self):
        world = World()
        job = world.create()
        number, tail = job["name"].split("/")[1], job["name"].split("/", 2)[2]
        for version in ("v1", "v1beta1"):
            for project in ("demo", number):
                assert world.call("GET", f"/{version}/projects/{project}/{tail}").document["name"] == job["name"]

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            pytest.param("/projects/demo/", "/projects/other/", id="another project"),
            pytest.param("/global/", "/us-central1/", id="another location"),
            pytest.param("batchPredictionJobs/", "batchPredictionJobs/1", id="another id"),
        ],
    )
    def test_are_found_nowhere_else(self, old, new):
        world = World()
        path = f"{PARENT}/{world.create()['name'].rpartition('/')[2]}".replace(old, new)
        for method, end in (("GET", ""), ("DELETE", ""), ("POST", ":cancel")):
            error = error_of(world.call(method, path + end))
            assert (error["status"], "does not exist" in error["message"]) == ("NOT_FOUND", True)

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/"),
            ("PATCH", PARENT),
            ("GET", "/v2/projects/p/locations/l/batchPredictionJobs"),
            ("POST", f"{PARENT}/1:pause"),
        ],
    )
    def test_that_are_no_method_of_the_api_are_404(self, method, path):
        assert error_of(World().call(method, path))["status"] == "NOT_FOUND"


class TestList:
    def world(self, count=5):
        world = World()
        for number in range(count):
            world.create(a_body(displayName=f"job-{number}", labels={"parity": "odd" if number % 2 else "even"}))
            world.emulator.advance(1)
        return world

    def names(self, reply):
        return [job["displayName"] for job in reply.document["batchPredictionJobs"]]

    def test_is_newest_first(self):
        assert self.names(self.world().call("GET", PARENT)) == [f"job-{number}" for number in (4, 3, 2, 1, 0)]

    def test_is_empty_elsewhere(self):
        reply = self.world().call("GET", PARENT.replace("global", "us-central1"))
        assert reply.document == {"batchPredictionJobs": []}

    def test_takes_a_filter(self):
        reply = self.world().call("GET", PARENT, query={"filter": 'labels.parity=odd AND NOT displayName="job-1"'})
        assert self.names(reply) == ["job-3"]

    def test_pages_without_gaps_although_jobs_are_added(self):
        world, seen, query = self.world(), [], {"pageSize": "2"}
        while True:
            page = world.call("GET", PARENT, query=query)
            seen += self.names(page)
            if "nextPageToken" not in page.document:
                break
            world.create(a_body(displayName="newer"))
            query = {"pageSize": "2", "pageToken": page.document["nextPageToken"]}
        assert seen == [f"job-{number}" for number in (4, 3, 2, 1, 0)]

    def test_has_pages_of_at_most_a_hundred(self):
        world = self.world(101)
        for size in ("", "0", "5000"):
            page = world.call("GET", PARENT, query={"pageSize": size}).document
            assert len(page["batchPredictionJobs"]) == 100
            assert page["nextPageToken"]

    def test_returns_the_masked_members(self):
        query = {"readMask": "name,display_name,inputConfig.gcsSource", "filter": "labels.parity:*"}
        (job, *_) = self.world().call("GET", PARENT, query=query).document["batchPredictionJobs"]
        assert job.keys() == {"name", "displayName", "inputConfig"}
        assert job["inputConfig"].keys() == {"gcsSource"}

    @pytest.mark.parametrize(
        "query",
        [
            {"filter": "nonsense"},
            {"pageSize": "-1"},
            {"pageSize": "x"},
            {"pageToken": "x"},
            {"pageToken": "eyJhIjoxfQ=="},
        ],
        ids=str,
    )
    def test_refuses_what_it_cannot_read(self, query):
        error = error_of(self.world(1).call("GET", PARENT, query=query))
        assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
        assert error["details"][0]["fieldViolations"]


class TestEnums:
    @pytest.mark.parametrize("query", [{}, {"$alt": "json"}], ids=["plain", "alt=json"])
    def test_are_words_for_people(self, query):
        world = World()
        job = world.create()
        assert world.call("GET", f"/v1/{job['name']}", query=query).document["state"] == "JOB_STATE_PENDING"

    def test_are_numbers_for_protobuf_clients(self):
        world = World()
        job = world.create()
        query = {"$alt": "json;enum-encoding=int"}
        assert world.call("GET", f"/v1/{job['name']}", query=query).document["state"] == 2
        assert world.call("GET", PARENT, query=query).document["batchPredictionJobs"][0]["state"] == 2
        assert world.call("POST", f"/v1/{job['name']}:cancel", query=query).document == {}


class TestCancelAndDelete:
    @pytest.mark.parametrize("body", [b"", b"{}"], ids=["no body", "an empty object"])
    def test_cancel_takes(self, body):
        world = World()
        assert world.call("POST", f"/v1/{world.create()['name']}:cancel", body).status == 200

    def test_delete_of_an_unfinished_job_is_refused(self):
        world = World()
        job = world.create()
        assert error_of(world.call("DELETE", f"/v1/{job['name']}"))["status"] == "FAILED_PRECONDITION"
        assert world.get(job)["state"] == "JOB_STATE_PENDING"

    @pytest.mark.parametrize("version", ["v1", "v1beta1"])
    def test_delete_returns_an_operation_that_is_done_soon(self, version):
        world = World(scenario=Scenario(pace=Pace(delete_s=2)))
        world.store.put(INPUT, a_line())
        job = world.ended(world.create())
        operation = world.call("DELETE", f"/{version}/{job['name']}").document
        kind = f"type.googleapis.com/google.cloud.aiplatform.{version}.DeleteOperationMetadata"
        assert operation["metadata"]["@type"] == kind
        assert operation["metadata"]["genericMetadata"].keys() == {"createTime", "updateTime"}
        assert "done" not in operation
        assert world.call("GET", f"/v1/{job['name']}").status == 404
        world.emulator.advance(3)
        done = world.call("GET", f"/{version}/{operation['name']}").document
        assert (done["done"], done["response"]) == (True, {"@type": "type.googleapis.com/google.protobuf.Empty"})

    def test_delete_leaves_the_output_and_the_books(self):
        world = World()
        job = world.run(a_line())
        world.call("DELETE", f"/v1/{job['name']}")
        assert len(world.output(job)) == 1
        (entry,) = world.emulator.books()["jobs"]
        assert (entry["deleted"], entry["billedRows"]) == (True, 1)
        assert world.call("GET", PARENT).document["batchPredictionJobs"] == []

    def test_an_unknown_operation_is_404(self):
        assert error_of(World().call("GET", "/v1/projects/p/locations/l/operations/1"))["status"] == "NOT_FOUND"


class TestTheEmulatorsOwnPages:
    def test_the_books_say_what_was_asked_and_billed(self):
        world = World()
        job = world.run(a_line("a", "abcdefgh"), a_line("b", "abcdefgh"), labels={"airflow-dag": "night"})
        world.call("GET", f"{PARENT}/1")
        world.call("GET", "/nonsense")
        books = world.call("GET", "/emulator/books").document
        assert books["calls"] == {"create": 1, "get": 2}
        assert books["replies"] == {"create": {"200": 1}, "get": {"200": 1, "404": 1}}
        (entry,) = books["jobs"]
        assert entry["name"] == job["name"]
        assert entry["labels"] == {"airflow-dag": "night"}
        assert (entry["inputUris"], entry["output"]) == ([INPUT], OUTPUT)
        assert entry["outputInfo"] == job["outputInfo"]
        usages = [line["response"]["usageMetadata"] for line in world.output(job)]
        assert entry["tokens"]["prompt"] == sum(usage["promptTokenCount"] for usage in usages) == 4
        assert entry["tokens"]["total"] == sum(usage["totalTokenCount"] for usage in usages)
        assert (entry["requests"], entry["billedRows"]) == (2, 2)

    def test_the_books_list_every_request_when_asked(self):
        """Whatever became of it: answered, refused, or not reached before the end."""
        world = World()
        refused = {"key": "bad", "request": {"labels": {"a": "b"}}}
        world.store.put(INPUT, *(a_line(f"k{number}") for number in range(9)), refused)
        job = world.create()
        world.emulator.advance(150)
        running = world.call("GET", "/emulator/books", query={"rows": "1"}).document["jobs"][0]
        assert 0 < len(running["bills"]) == sum(running["rows"].values()) < 10
        world.call("POST", f"/v1/{job['name']}:cancel")
        world.emulator.advance(3600)
        done = world.call("GET", "/emulator/books", query={"rows": "1"}).document["jobs"][0]
        assert sorted(bill["key"] for bill in done["bills"]) == sorted(["bad", *(f"k{number}" for number in range(9))])
        counts = {"answered": done["billedRows"], "failed": done["rows"]["failed"]}
        outcomes = Counter(bill["outcome"] for bill in done["bills"])
        assert outcomes == Counter(counts | {"unanswered": 10 - sum(done["rows"].values())})
        assert sum(bill["prompt"] + bill["output"] for bill in done["bills"]) == done["tokens"]["total"]
        assert "bills" not in world.call("GET", "/emulator/books").document["jobs"][0]

    def test_the_health_page_answers(self):
        assert World().call("GET", "/healthz").status == 200

    def test_a_scenario_is_set_shown_and_taken_back(self):
        world = World()
        scenario = {"switches": {"live_stats": True}, "faults": [{"do": "http", "on": "get", "status": 503}]}
        assert world.call("PUT", "/emulator/scenario", scenario).status == 200
        shown = world.call("GET", "/emulator/scenario").document
        assert shown["switches"]["live_stats"] is True
        assert shown["faults"][0]["used"] == 0
        assert world.call("DELETE", "/emulator/scenario").document["unused"][0]["fault"]["status"] == 503
        assert world.call("GET", "/emulator/scenario").document["faults"] == []

    @pytest.mark.parametrize(
        ("scenario", "words"),
        [
            pytest.param({"switches": {"live_stat": True}}, "live_stat", id="a misspelt switch"),
            pytest.param({"switches": {"all_failed": "maybe"}}, "maybe", id="no such answer"),
            pytest.param({"faults": [{"do": "explode"}]}, "Fault 0", id="no such fault"),
            pytest.param({"faults": [{"do": "http", "on": "create"}]}, "status", id="half a fault"),
            pytest.param({"faults": [{"do": "drop", "on": "patch"}]}, "patch", id="no such operation"),
            pytest.param(b"{", "cannot be read", id="no JSON"),
        ],
    )
    def test_a_scenario_that_cannot_be_read_is_refused_with_its_reason(self, scenario, words):
        error = error_of(World().call("PUT", "/emulator/scenario", scenario))
        assert (error["code"], words in error["message"]) == (400, True)

    def test_a_reset_forgets_everything(self):
        world = World(scenario=Scenario.parse('{"switches": {"live_stats": true}}'))
        job = world.create()
        world.emulator.advance(100)
        assert world.call("POST", "/emulator/reset").status == 200
        world.emulator.advance(1000)
        assert world.call("GET", f"/v1/{job['name']}").status == 404
        assert world.call("GET", "/emulator/books").document["calls"] == {"get": 1}
        assert world.emulator.script.scenario == Scenario()

    def test_other_pages_are_404(self):
        assert World().call("GET", "/emulator/nothing").status == 404
