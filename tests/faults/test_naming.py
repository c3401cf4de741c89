"""What a call is called, which faults can happen to it, and how runs are summed up."""

from __future__ import annotations

import json

import pytest

from stack.chaos.effects import Call
from stack.faults.batch import Outcome
from stack.faults.calls import BIGQUERY, STORAGE, VERTEX, Position, Titles
from stack.faults.kinds import KINDS
from stack.faults.suite import Case, Result, table, with_common_calls

OBJECTS = "/storage/v1/b/bucket/o"
UPLOAD = "/upload/storage/v1/b/bucket/o?uploadType=multipart"
JOBS = "/v1/projects/demo/locations/global/batchPredictionJobs"
FILES = "/download/storage/v1/b/bucket/o/{}?alt=media"


def _body(name, content=""):
    return (json.dumps({"name": name}) + content).encode()


@pytest.mark.parametrize(
    ("call", "service", "title"),
    [
        (Call("GET", FILES.format("a%2Fmanifests%2Fx.json"), b""), STORAGE, "prepare: read manifest"),
        (Call("GET", FILES.format("staging%2Fd%2Fr%2Ft%2Flog%2F000000.json"), b""), STORAGE, "prepare: read log entry"),
        (Call("GET", FILES.format("source.jsonl"), b""), STORAGE, "prepare: read source"),
        (Call("GET", f"{OBJECTS}?prefix=a", b""), STORAGE, "prepare: list objects"),
        (Call("POST", UPLOAD, _body("a/manifests/x.json")), STORAGE, "prepare: write manifest"),
        (Call("POST", UPLOAD, _body("d/log/0.json", '{"kind":"intent"}')), STORAGE, "create: write intent"),
        (Call("GET", JOBS, b""), VERTEX, "prepare: list jobs"),
        (Call("POST", JOBS, b"{}"), VERTEX, "create: create job"),
        (Call("GET", f"{JOBS}/7", b""), VERTEX, "prepare: ask about job"),
        (Call("GET", "/bigquery/v2/projects/p/datasets/d/tables/t", b""), BIGQUERY, "prepare: look at table"),
        (Call("DELETE", "/bigquery/v2/projects/p/datasets/d/tables/t", b""), BIGQUERY, "export: delete table"),
    ],
)
def test_a_call_is_called_by_what_it_does(call, service, title):
    assert Titles().position(call, service).title == title


def test_like_calls_are_numbered():
    titles, call = Titles(), Call("GET", JOBS, b"")
    assert [titles.position(call, VERTEX).title for _ in range(3)][1:] == [
        "prepare: list jobs (2)",
        "prepare: list jobs (3)",
    ]


def test_what_only_reads_cannot_be_done_before_it_fails():
    read, write = Position("r", STORAGE, changes=False), Position("w", STORAGE, changes=True)
    done = [kind for kind in KINDS if "but done" in kind and kind != "412, but done"]
    assert [KINDS[kind].suits(read) for kind in done] == [False] * len(done)
    assert [KINDS[kind].suits(write) for kind in done] == [True] * len(done)


def _result(title="a", attempts=("success",), elapsed_s=100.0, **members):
    position = Position(title, STORAGE, changes=True)
    outcome = Outcome(
        **{
            "attempts": attempts, "clears": 0, "elapsed_s": elapsed_s, "wrong": (), "errors": (), "struck": title,
            "positions": (),
        } | members
    )  # fmt: skip
    return Result(Case(to_table=False, kind="503, but done", at=title), position, outcome, 100.0)


def test_a_line_counts_how_its_runs_ended():
    results = [
        _result(),
        _result(elapsed_s=131.0),
        _result(attempts=("retry", "success"), elapsed_s=400.0),
        _result(attempts=("fail", "success"), clears=1, elapsed_s=4000.0),
        _result(wrong=("jobs bought",)),
        _result(attempts=("hangs", "success"), clears=1),
    ]
    assert table(results) == [
        ["503, but done", "Cloud Storage: changes", "6", "2", "1", "1", "2", "≤ 300 s"],
    ]


def test_a_call_that_one_of_two_quiet_runs_repeats_is_the_machine_s():
    calls = [Position(title, STORAGE, changes=True) for title in ("a", "b", "b (2)")]
    run, repeating = (_result(positions=tuple(some)).outcome for some in (calls[:2], calls))
    assert with_common_calls(run, repeating).positions == with_common_calls(repeating, run).positions == run.positions


def test_any_other_difference_between_quiet_runs_is_an_error():
    """The call would leave the suite, and nobody would know."""
    calls = [Position(title, STORAGE, changes=True) for title in ("a", "b")]
    run, another = (_result(positions=tuple(some)).outcome for some in (calls[:1], calls))
    with pytest.raises(ValueError, match="Only one of two runs without a fault has b"):
        with_common_calls(run, another)


def test_a_look_at_a_job_may_be_in_one_of_them():
    look = Position("export: look at job", BIGQUERY, changes=False)
    run, looking = (_result(positions=some).outcome for some in ((), (look,)))
    assert with_common_calls(run, looking).positions == with_common_calls(looking, run).positions == ()
