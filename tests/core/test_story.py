"""The log in sentences. The story of one bad night stands in docs/story.md as this test tells it.

After a change, write it anew with ``STORY_DOC=1 .venv/bin/python -m pytest tests/core/test_story.py``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import LogError
from airflow_vertex_batch.core.landing.landing import landed_entry
from airflow_vertex_batch.core.money.estimate import Budget
from airflow_vertex_batch.core.progress import Ask, Done, Wait
from airflow_vertex_batch.core.purchase.entries import Moved, Prepared, Refusal
from airflow_vertex_batch.core.purchase.log import BatchLog, logs_of
from airflow_vertex_batch.core.purchase.place import Place
from airflow_vertex_batch.core.upkeep.story import story
from tests.builders import STAGING, an_identity
from tests.core.worlds import Task, World, fails, some_rows
from tests.fakes import Died, EffectLimit

PAGE = Path(__file__).parents[2] / "docs/story.md"
BEGIN, END = "<!-- story: begin (tests/core/test_story.py) -->\n```text\n", "```\n<!-- story: end -->"


def told(task, seen=None):
    """Tell the story of a task."""
    return story(logs_of(task.world.store, Uri.parse(STAGING), "nightly", "scheduled__2026-11-22", "create"), seen)


def night() -> tuple[Task, list[str]]:
    """A night that is approved, killed, moved, repaired and landed; also return what came next at each stage."""
    world = World({"a1": [fails()]})
    world.store.clock = world.clock
    task = Task(world, some_rows(5), rounds=1, budget=Budget.of(0.000001, "ask"), elsewhere=[Place("europe-west4")])
    nexts = []

    def later(hours: float) -> None:
        nexts.append(told(task).next)
        world.clock.sleep(hours * 3600)

    task.tries = 1
    step = task.attempt()
    assert isinstance(step, Ask)
    later(0.5)
    task.answer(step, approved=True)
    effect_limit = EffectLimit(2)
    with pytest.raises(Died, match="after effect 2: create"):
        task.resume(effect_limit.store(world.store), effect_limit.service(world.jobs))
    later(0.1)
    task.tries = 2
    step = task.attempt()
    assert isinstance(step, Wait)
    later(30)
    task.move(step)
    task.resume()
    later(1)
    world.run()
    step = task.resume()
    assert isinstance(step, Ask)
    later(0.2)
    task.answer(step, approved=True)
    world.script = {}
    assert isinstance(task.resume(), Wait)
    later(2)
    world.run()
    done = task.resume()
    assert isinstance(done, Done)
    task.log().add(landed_entry(task.land(done), 1))
    return task, [*nexts, told(task).next]


def test_one_bad_night_is_told_in_the_docs():
    task, _ = night()
    text, page = told(task).text() + "\n", PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    there, _, after = rest.partition(END)
    if os.environ.get("STORY_DOC"):
        PAGE.write_text(f"{before}{BEGIN}{text}{END}{after}")
        there = text
    assert there == text, "run it with STORY_DOC=1"


def test_what_comes_next_is_said_at_each_stage():
    _, nexts = night()
    assert nexts == [
        "a person answers in the Airflow UI, under Required Actions.",
        "look for the job of that call; if there is none when the settle time is over, create it.",
        "wait for job 1, then read the answers.",
        "wait for job 2, then read the answers.",
        "a person answers in the Airflow UI, under Required Actions.",
        "wait for job 3, then read the answers.",
        "nothing: the answers have landed. A retry or a clear lands them again, and pays nothing.",
    ]


def test_a_job_is_shown_as_the_service_has_it_where_that_was_asked():
    world = World()
    task = Task(world, some_rows(2))
    task.attempt()
    [job] = world.jobs.paid
    assert told(task).jobs == {job.name: "its end is not in the log"}
    assert told(task, {}).jobs == {job.name: "the service has no such job"}
    now = told(task, {job.name: job})
    assert (now.jobs[job.name], now.next) == (job.progress, "wait for job 1, then read the answers.")
    world.run()
    task.resume()
    assert told(task).jobs == {job.name: "ended as SUCCEEDED"}


def test_the_tasks_of_a_group_are_one_story_and_other_tasks_are_not_in_it():
    world = World()
    world.store.clock = world.clock
    for name, entry in (
        ("tickets.prepare", Prepared(base="gs://b/m.json", rows=3, requests=2, rejected=1)),
        ("tickets.create", Refusal(fingerprint="f", reason="RESOURCE_EXHAUSTED", shard=1)),
        ("tickets2.create", Refusal(fingerprint="f", reason="NOT_FOUND")),
    ):
        BatchLog(world.store, an_identity(task_id=name), "1:x").add(entry)
        world.clock.sleep(60)
        # What else a task writes, before and behind its log in the order of names.
        for other in ("answers.json", "manifests/7.json", "log.txt", "5/x"):
            world.store.objects[f"{STAGING}/nightly/scheduled__2026-11-22/{name}/{other}"] = b"{}"
    logs = logs_of(world.store, Uri.parse(STAGING), "nightly", "scheduled__2026-11-22", "tickets")
    made = story(logs)
    assert [(line.task, line.attempt, line.kind, line.text) for line in made.lines] == [
        ("tickets.prepare", "1", "prepared", "Prepared 2 requests from 3 rows, 1 rejected: gs://b/m.json."),
        (
            "tickets.create", "1", "refusal",
            "Vertex AI refused to create the job of request file 2 (RESOURCE_EXHAUSTED): no job was made.",
        ),
    ]  # fmt: skip
    assert made.next == "the next attempt tries to create it again."
    assert json.loads(json.dumps(made.as_dict()))["lines"][0]["kind"] == "prepared"


def test_mapped_tasks_are_told_together_or_alone():
    world = World()
    for index in range(12):
        moved = Moved(fingerprint="f", job_name="jobs/7", model="gemini-3.5-flash-lite")
        BatchLog(world.store, an_identity(map_index=index), "1:x").add(moved)
    place = (world.store, Uri.parse(STAGING), "nightly", "scheduled__2026-11-22", "create")
    assert [log.identity.map_index for log in logs_of(*place)] == list(range(12))
    [one] = logs_of(*place, 11)
    assert story([one]).lines[0].task == "create[11]"
    assert story([one]).lines[0].text == (
        "Job 7 had queued for too long: it is cancelled, and its requests are bought again in model "
        "gemini-3.5-flash-lite."
    )


def test_a_log_of_another_version_is_no_story():
    world = World()
    BatchLog(world.store, an_identity(), "1:x").add(Refusal(fingerprint="f", reason="x"))
    [name] = [name for name in world.store.objects if "/log/" in name]
    world.store.objects[name] = world.store.objects[name].replace(b'"version":1', b'"version":2')
    task = Task(world, some_rows(1))
    with pytest.raises(LogError, match=r"another version of airflow-vertex-batch.*is of version 2.*reads version 1"):
        told(task)
    with pytest.raises(LogError, match="another version"):
        task.attempt()
    assert world.jobs.paid == []
