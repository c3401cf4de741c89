"""The checks before a batch: what needs no service, the table of models, and a run in which everything goes wrong."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from airflow_vertex_batch.core.domain.errors import CannotAskError, InputError, ServiceError
from airflow_vertex_batch.core.domain.unrendered import MAX_LABELS, OUR_LABELS
from airflow_vertex_batch.core.purchase.buyer import owner_labels
from airflow_vertex_batch.core.upkeep.preflight import CHECKS, Finding, Plan, Report, Verdict, preflight
from airflow_vertex_batch.core.upkeep.preflight.buckets import holds, places
from airflow_vertex_batch.core.upkeep.preflight.definitions import dataset_of
from tests.builders import a_log, a_spec, an_identity, an_order
from tests.fakes import Jobs, MemoryStore

PLAN = Plan(
    project="demo", location="us-central1", model="gemini-2.5-flash", staging="gs://stage/x",
    begins=datetime(2026, 7, 1, tzinfo=UTC),
)  # fmt: skip


class Nobody:
    """A `Cloud` in which every question meets the same error."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, list[str]()

    def __getattr__(self, name):
        def ask(*_arguments):
            self.asked.append(name)
            raise self.error

        return ask


def _changed(**members):
    return Plan(**{name: getattr(PLAN, name) for name in Plan.__struct_fields__} | members)


def _verdicts(report):
    return {finding.check: finding.verdict for finding in report.findings}


def _only(report, check):
    (finding,) = (finding for finding in report.findings if finding.check == check)
    return finding


class TestTheTableOfModels:
    @pytest.mark.parametrize(
        ("model", "location", "verdict", "text"),
        [
            ("gemini-2.5-flash", "us-central1", "unknown", "us-central1 would serve its batches"),
            ("gemini-2.5-flash", "global", "unknown", "global would serve its batches"),
            ("gemini-2.0-flash-001@default", "europe-west4", "unknown", "would serve"),
            ("gemini-3.8-flash", "global", "unknown", "global would serve its batches"),
            ("gemini-3.8-flash", "us-central1", "failed", "are not served in us-central1"),
            ("publishers/google/models/gemini-4-argon", "europe-west4", "failed", "are not served in europe-west4"),
            ("gemini-3.8-flash", "us", "unknown", "nothing is known here about its batches in us"),
            ("gemini-embedding-2", "us-central1", "failed", "are not served in us-central1"),
            ("anthropic/claude-x", "global", "failed", "are not served in global"),
            ("something-new", "global", "unknown", "nothing is known here about its batches in global"),
            ("projects/demo/locations/us-central1/models/7", "us-central1", "unknown", "would serve"),
            ("projects/demo/locations/us-central1/models/7", "global", "failed", "is in us-central1"),
            ("projects/demo/locations/global/models/7", "global", "failed", "are not served in global"),
        ],
    )
    def test_where_google_cannot_be_asked_the_table_alone_is_never_ok(self, model, location, verdict, text):
        report = preflight(_changed(model=model, location=location), Nobody(CannotAskError("closed")))
        finding = _only(report, "model")
        assert finding.verdict == verdict
        assert text in finding.found

    def test_the_global_trap_is_explained_with_a_location_that_would_do(self):
        finding = _only(preflight(_changed(model="gemini-3.8-flash"), Nobody(CannotAskError("closed"))), "model")
        assert "An online call to a model may work where its batches do not" in finding.todo
        assert finding.todo.endswith("Set location='global'")


class TestTheLifeOfAModel:
    @pytest.mark.parametrize(
        ("model", "begins", "verdict", "text"),
        [
            ("gemini-2.5-flash", "2026-07-01", "ok", "is served until 2026-10-20"),
            ("gemini-2.5-flash", "2026-10-17", "warning", "retires while the job may still run"),
            ("gemini-2.5-flash", "2026-11-28", "warning", "has retired: its last day was 2026-10-20"),
            ("gemini-3.8-flash", "2026-11-28", "ok", "is served until 2027-09-02 or later"),
            ("gemini-3.1-pro-preview", "2026-11-28", "unknown", "until when gemini-3.1-pro-preview is served"),
            ("something-new", "2026-11-28", "unknown", "until when something-new is served is not known here"),
            ("projects/demo/locations/us-central1/models/7", "2026-11-28", "unknown", "until when 7 is served"),
        ],
    )
    def test_is_held_against_the_97_hours_from_when_the_job_begins(self, model, begins, verdict, text):
        plan = _changed(model=model, begins=datetime.fromisoformat(begins).replace(tzinfo=UTC))
        finding = _only(preflight(plan, Nobody(CannotAskError("closed"))), "model-life")
        assert (finding.verdict, text in finding.found) == (verdict, True)

    def test_a_plan_begins_now_where_it_does_not_say_when(self):
        before = datetime.now(UTC)
        assert before <= Plan(project="p", location="l", model="m").begins <= datetime.now(UTC)


class TestAMisspeltModel:
    def test_is_a_warning_with_the_near_name_where_google_cannot_be_asked(self):
        finding = _only(preflight(_changed(model="gemini-2.5-flahs"), Nobody(CannotAskError("closed"))), "model")
        assert (finding.verdict, finding.todo) == ("warning", "Check the name: gemini-2.5-flash is known")

    def test_is_named_beside_the_404(self):
        gone = ServiceError("no such model", status=404)
        finding = _only(preflight(_changed(model="gemini-2.5-flahs"), Nobody(gone)), "model")
        assert (finding.verdict, finding.todo) == ("failed", "Check the model's name: gemini-2.5-flash is known")


class TestNames:
    @pytest.mark.parametrize(
        ("members", "problem"),
        [
            ({}, ""),
            ({"labels": {"team": "a_b-1", "ключ": "значение"}, "display_name": "x" * 128}, ""),
            ({"labels": {"a": ""}}, ""),
            ({"labels": {"a" * 64: "b" * 64}}, ""),
            ({"labels": {"a" * 65: ""}}, "label key .* is not legal"),
            ({"labels": {"Team": "a"}}, "label key 'Team' is not legal"),
            ({"labels": {"": "a"}}, "label key '' is not legal"),
            ({"labels": {"team": "A"}}, "the value of label 'team' is not legal"),
            ({"labels": {"team": "a.b"}}, "the value of label 'team' is not legal"),
            ({"labels": {f"l{n}": "" for n in range(MAX_LABELS - OUR_LABELS)}}, ""),
            ({"labels": {f"l{n}": "" for n in range(MAX_LABELS - OUR_LABELS + 1)}}, "57 labels; 64 are allowed"),
            ({"display_name": "x" * 129}, "129 characters, 128 are allowed"),
        ],
    )
    def test_what_is_legal(self, members, problem):
        finding = _only(preflight(_changed(**members), Nobody(CannotAskError("closed"))), "names")
        assert finding.verdict == ("failed" if problem else "ok")
        assert re.search(problem or "labels", finding.found)

    def test_as_many_labels_are_ours_as_is_said(self):
        spec = a_spec(labels=owner_labels(an_identity()))
        order = an_order(a_log(MemoryStore(), installation="here"), Jobs(), spec=spec, generation="1")
        assert len(order.labelled().labels) == OUR_LABELS


class TestPlaces:
    @pytest.mark.parametrize(
        ("place", "region", "expected"),
        [
            ("us-central1", "us-central1", True),
            ("us-central1", "us-central2", False),
            ("us", "us-central1", True),
            ("eu", "europe-west4", True),
            ("eu", "us-central1", False),
            ("asia", "asia-south1", True),
            ("asia", "australia-southeast1", False),
            ("", "us-central1", False),
        ],
    )
    def test_what_holds_what(self, place, region, expected):
        assert holds(place, region) is expected

    @pytest.mark.parametrize(
        ("doc", "expected"),
        [
            ({"location": "US-CENTRAL1"}, ("us-central1",)),
            ({"location": "EUR4"}, ("europe-north1", "europe-west4")),
            (
                {"location": "US", "customPlacementConfig": {"dataLocations": ["US-EAST1", "US-WEST1"]}},
                ("us-east1", "us-west1"),
            ),
            ({}, ("",)),
        ],
    )
    def test_where_a_bucket_is(self, doc, expected):
        assert places(doc) == expected

    @pytest.mark.parametrize(
        ("uri", "expected"),
        [
            ("bq://p.d.t", ("p", "d")),
            ("bq://p.d", ("p", "d")),
            ("bq://p", ("p", "")),
            ("bq://example.com:p.d.t", ("example.com:p", "d")),
        ],
    )
    def test_whose_dataset_a_table_is_in(self, uri, expected):
        assert dataset_of(uri) == expected


class TestARun:
    EVERYTHING = _changed(
        source="bq://demo.d.source", destination="bq://demo.d.t", input="gs://in/x", output="bq://demo.d.o"
    )

    @pytest.mark.parametrize(
        "error",
        [
            CannotAskError("closed"),
            ServiceError("no", status=503),
            ServiceError("no", status=403),
            ServiceError("no", status=404),
            ServiceError("no", status=401),
            ServiceError("no", status=0),
            KeyError("name"),
        ],
        ids=["nobody", "503", "403", "404", "401", "silence", "nonsense"],
    )
    def test_every_check_is_run_whatever_the_others_found_and_none_is_ok_by_accident(self, error):
        report = preflight(self.EVERYTHING, Nobody(error))
        said = _verdicts(report)
        assert list(said) == [name for name in dict.fromkeys(check.name for check in CHECKS) if name != "canary"]
        assert {name for name, verdict in said.items() if verdict == "ok"} == {"names", "staging", "model-life"}

    def test_an_answer_of_an_unexpected_shape_is_unknown_and_keeps_its_text_to_itself(self):
        report = preflight(PLAN, Nobody(KeyError("a secret")))
        assert _only(report, "bucket").found == "the answer could not be understood (KeyError)"

    def test_the_canary_is_not_asked_unless_it_was_wished_for(self):
        cloud = Nobody(CannotAskError("closed"))
        preflight(self.EVERYTHING, cloud)
        assert "generate" not in cloud.asked

    def test_a_staging_folder_on_this_machine_is_no_use(self):
        report = preflight(_changed(staging="/tmp/x"), Nobody(CannotAskError("closed")))
        assert _only(report, "staging").verdict == "failed"
        assert "bucket" not in _verdicts(report)

    def test_an_address_that_is_none_is_the_authors_to_correct(self):
        with pytest.raises(InputError, match="names no bucket"):
            preflight(_changed(staging="gs://"), Nobody(CannotAskError("closed")))

    def test_it_says_how_long_it_took(self):
        ticks = iter((10.0, 12.5))
        assert preflight(PLAN, Nobody(CannotAskError("closed")), clock=lambda: next(ticks)).seconds == 2.5


def _report(*findings):
    return Report(project="demo", location="global", model="m", findings=findings, seconds=1.0)


def _finding(verdict, check="bucket", **members):
    return Finding(check=check, verdict=Verdict(verdict), found="so it is", todo="Do it", **members)


class TestReport:
    @pytest.mark.parametrize(
        ("findings", "allowed", "kind"),
        [
            ((_finding("ok"), _finding("warning"), _finding("unknown")), (), None),
            ((_finding("failed"),), (), InputError),
            ((_finding("failed"),), ("bucket",), None),
            ((_finding("failed"), _finding("failed", "model")), ("bucket",), InputError),
            ((_finding("failed", is_temporary=True),), (), ServiceError),
            ((_finding("failed", is_temporary=True), _finding("failed", "model")), (), InputError),
        ],
        ids=["none failed", "one", "allowed", "not all allowed", "all may pass", "one will not pass"],
    )
    def test_what_stops_a_batch(self, findings, allowed, kind):
        error = _report(*findings).error(allowed)
        assert type(error) is (kind or type(None))
        assert error is None or error.retryable is (kind is ServiceError)

    def test_the_error_names_every_failure_and_what_to_do(self):
        error = _report(_finding("failed", subject="gs-1"), _finding("failed", "model"), _finding("ok", "x")).error()
        assert str(error) == (
            "2 of 3 preflight checks failed for m in global. bucket gs-1: so it is; model: so it is. "
            "Nothing was created and no job was paid. Do it."
        )

    def test_a_table_then_what_to_do(self):
        text = _report(_finding("ok", "model"), _finding("warning", why="it matters")).text()
        assert "WARNING" in text
        assert "What to do:\nbucket (it matters): Do it." in text
        assert "model (" not in text
        assert text.endswith("1 ok, 1 warning, 0 failed, 0 unknown; 1.0 s")

    def test_it_survives_its_dictionary(self):
        report = _report(_finding("failed", subject="s", why="w"))
        assert Report.from_dict(report.as_dict()) == report
