"""The same requests under another manifest: what was paid for them is attached to, and lands with what is beside them
now.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.answers.rounds import Round, read_jobs
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.landing.destination import Files
from airflow_vertex_batch.core.landing.landing import Landing
from airflow_vertex_batch.core.progress import Done, Wait
from airflow_vertex_batch.core.purchase.buyer import Buyer
from airflow_vertex_batch.core.purchase.decide import OnClear, Terms
from airflow_vertex_batch.core.purchase.log import BatchLog
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare, read_manifest
from airflow_vertex_batch.core.requests.request import OnRejectedRow
from airflow_vertex_batch.core.requests.sources import Requests, Rows
from tests.builders import a_line, a_request, a_spec, an_identity, jsonl
from tests.core.preparing import prepared, read_jsonl
from tests.core.worlds import FOLDER, PLAN, Task, World, answers, fails, some_rows
from tests.fakes import Died, EffectLimit, MemoryStore, MemoryWarehouse

#: A plan under which rows without a text are dead letters, and another column travels beside.
PREPARED = {"columns": ("mood",), "on_rejected_row": OnRejectedRow.DEAD_LETTER}


def _rows(count, mood="old", texts=100):
    """Rows with as many different texts as said."""
    return [
        {**row, "text": f"text {number % texts}", "mood": f"{mood} {number}"}
        for number, row in enumerate(some_rows(count))
    ]


def _ready(count):
    return [{"key": f"a{number}", "request": a_request(f"text {number}")} for number in range(count)]


CHANGES = [
    pytest.param({"rows": _rows(5, "new")}, {}, id="a value of a carried column"),
    pytest.param({"columns": ("mood", "id")}, {}, id="which columns are carried"),
    pytest.param({"columns": ()}, {}, id="no columns any more"),
    pytest.param({"rows": [*_rows(5), {"id": "bad", "text": ""}]}, {"rejected": 1}, id="a rejected row more"),
    pytest.param({"max_requests": 7}, {}, id="the most requests in a job"),
    pytest.param({"schema": {"type": "string"}}, {}, id="the schema"),
    pytest.param({"max_bytes": 5_000}, {}, id="the most bytes in a job"),
]


def _world():
    """One whose answers fit the schema, too."""
    return World({f"a{number}": [answers('"yes"')] for number in range(5)})


def _edit(task, change):
    task.rows = change.get("rows", task.rows)
    task.plan = task.plan | {name: value for name, value in change.items() if name != "rows"}


def _sent(task):
    """What has landed of the rows that were sent."""
    return {key: record for key, record in task.landed().items() if key.startswith("a")}


def _check_columns(task, mood):
    landed = _sent(task)
    assert {key: record["columns"]["mood"] for key, record in landed.items()} == {
        row["id"]: row["mood"] for row in _rows(len(landed), mood)
    }


class TestOneTask:
    """The whole course in one task."""

    @pytest.mark.parametrize("cleared", [False, True], ids=["retried", "cleared"])
    @pytest.mark.parametrize("running", [True, False], ids=["running", "ended"])
    @pytest.mark.parametrize(("change", "others"), CHANGES)
    def test_the_paid_job_lands(self, change, others, running, cleared):
        world = _world()
        task = Task(world, _rows(5), plan=PREPARED)
        task.attempt()
        if not running:
            world.run()
            task.resume()
        first = task.manifest
        _edit(task, change)
        if cleared:
            task.clear()
        report = task.land(task.to_the_end())
        assert task.manifest.uri != first.uri
        assert len(world.jobs.paid) == 1
        assert report.statuses == {"succeeded": 5} | others
        assert sorted(_sent(task)) == ["a0", "a1", "a2", "a3", "a4"]

    def test_a_schema_for_ready_made_requests(self):
        world = World({f"a{number}": [answers('"a text"')] for number in range(3)})
        task = Task(world, _ready(3), plan={"template": None, "key_column": "key", "schema": {"type": "string"}})
        assert task.land(task.to_the_end()).statuses == {"succeeded": 3}
        task.plan["schema"] = {"type": "object"}
        task.clear()
        report = task.land(task.to_the_end(), schema=task.plan["schema"])
        assert report.statuses == {"invalid_output": 3}
        assert len(world.jobs.paid) == 1

    @pytest.mark.parametrize("most", [2, 5], ids=["several jobs", "one job"])
    def test_each_row_has_its_columns_of_now_also_in_another_order(self, most):
        world = World()
        task = Task(world, _rows(5), plan=PREPARED | {"max_requests": most})
        task.attempt()
        paid = len(world.jobs.paid)
        task.rows = _rows(5, "new")[::-1]
        assert task.land(task.to_the_end()).statuses == {"succeeded": 5}
        assert len(world.jobs.paid) == paid
        _check_columns(task, "new")

    @pytest.mark.parametrize("columns", [("mood",), ()], ids=["columns", "no columns"])
    def test_duplicates_get_the_answer_of_the_row_that_was_sent(self, columns):
        """In another order it is another one of the like rows that would be sent."""
        world = World()
        task = Task(world, _rows(7, texts=3), plan=PREPARED | {"deduplicate": True, "columns": columns})
        task.attempt()
        task.rows = [*_rows(7, "new", texts=3)[::-1], {"id": "bad", "text": ""}]
        assert task.land(task.to_the_end()).statuses == {"succeeded": 7, "rejected": 1}
        assert world.batches == [["a0", "a1", "a2"]]
        assert {key: record["same_as"] for key, record in _sent(task).items() if record["same_as"]} == {
            "a3": "a0", "a4": "a1", "a5": "a2", "a6": "a0",
        }  # fmt: skip
        if columns:
            _check_columns(task, "new")

    def test_a_repair_round_goes_on_that_was_asked_before(self):
        world = World({"a0": [fails(), answers("late")]})
        task = Task(world, _rows(3), plan=PREPARED, rounds=1)
        task.attempt()
        world.run()
        assert isinstance(task.resume(), Wait)
        task.rows = _rows(3, "new")
        report = task.land(task.to_the_end())
        assert report.statuses == {"succeeded": 3}
        assert [job.state for job in world.jobs.paid] == [JobState.SUCCEEDED] * 2
        _check_columns(task, "new")

    def test_rounds_that_are_used_up_stay_so_until_a_person_asks(self):
        world = World({"a0": [fails(), fails(), answers("late")]})
        task = Task(world, _rows(3), plan=PREPARED, rounds=1)
        task.to_the_end()
        task.rows = _rows(3, "new")
        assert isinstance(task.attempt(), Done)
        task.on_clear = OnClear.REPAIR
        task.clear()
        assert task.land(task.to_the_end()).statuses == {"succeeded": 3}
        assert world.batches == [["a0", "a1", "a2"], ["a0"], ["a0"]]

    def test_dying_after_any_effect_of_the_changed_attempt(self):
        count, died = 1, True
        while died:
            world, effect_limit = World(), EffectLimit(count)
            task = Task(world, _rows(5, texts=4), plan=PREPARED | {"max_requests": 3, "deduplicate": True})
            task.attempt()
            task.rows = _rows(5, "new", texts=4)[::-1]
            died = False
            try:
                task.attempt(effect_limit.store(world.store), effect_limit.service(world.jobs))
            except Died:
                died = True
            assert task.land(task.to_the_end()).statuses == {"succeeded": 5}
            assert len(world.jobs.paid) == 2
            _check_columns(task, "new")
            count += 1
        assert count > 8


class TestSteps:
    """One task for each step: what is prepared, bought and landed passes from one to the next."""

    @pytest.mark.parametrize(("change", "others"), CHANGES)
    def test_the_paid_job_lands(self, change, others):
        world = _world()
        task = Task(world, _rows(5), plan=PREPARED)
        steps = Steps(task)
        [bought] = steps.buy(steps.prepare())
        world.run()
        _edit(task, change)
        changed = steps.prepare()
        assert steps.buy(changed) == [bought]
        assert steps.land(changed, [bought]).statuses == {"succeeded": 5} | others

    def test_a_repair_task_goes_on_with_its_round(self):
        """The run was cleared while the repair job ran; `create` attached to the job that had ended."""
        world = World({"a0": [fails(), answers("late")]})
        task = Task(world, _rows(3), plan=PREPARED, rounds=1, identity=an_identity(task_id="repair"))
        steps = Steps(task)
        task.manifest = steps.prepare()
        bought = steps.buy(task.manifest)
        world.run()
        assert isinstance(task.take_over(steps.jobs(bought), fresh=True), Wait)
        task.rows = _rows(3, "new")
        task.clear()
        task.manifest = steps.prepare()
        assert steps.buy(task.manifest) == bought
        assert isinstance(task.take_over(steps.jobs(bought), fresh=True), Wait)
        world.run()
        done = task.take_over(steps.jobs(bought))
        assert task.land(done).statuses == {"succeeded": 3}
        assert len(world.jobs.paid) == 2
        _check_columns(task, "new")

    @pytest.mark.parametrize("lines", [[a_line("r1"), {"key": "r2"}], [a_line("r1")]], ids=["renamed", "corrected"])
    def test_a_file_of_requests_that_has_another_name_now(self, lines):
        """The place of a rejected line is part of what is landed."""
        world = World()
        store = world.store
        store.objects["gs://b/in/1.jsonl"] = jsonl(a_line("r1"), {"key": "r2"})
        store.objects["gs://b/in/2.jsonl"] = jsonl(*lines)
        steps = Steps(Task(world, []))
        [bought] = steps.buy(steps.ready("gs://b/in/1.jsonl"))
        world.run()
        changed = steps.ready("gs://b/in/2.jsonl")
        assert steps.buy(changed) == [bought]
        report = steps.land(changed, [bought])
        assert report.statuses == {"succeeded": 1} | ({"rejected": 1} if len(lines) == 2 else {})
        if len(lines) == 2:
            [dead] = map(json.loads, store.objects[report.dead_letters].splitlines())
            assert "gs://b/in/2.jsonl" in dead["reason"]

    def test_a_job_that_was_bought_by_an_earlier_version(self):
        """Its fingerprint names the size of its file."""
        world = World()
        task = Task(world, _rows(5), plan=PREPARED)
        steps = Steps(task)
        first = steps.prepare()
        doc = json.loads(world.store.objects[first.uri]) | {"version": 1}
        world.store.objects[first.uri] = json.dumps(doc).encode()
        [bought] = steps.buy(read_manifest(world.store, Uri.parse(first.uri)))
        world.run()
        assert steps.buy(steps.prepare()) == [bought]
        task.rows = _rows(5, "new")
        changed = steps.prepare()
        assert steps.buy(changed) == [bought]
        assert steps.land(changed, [bought]).statuses == {"succeeded": 5}


class TestKeptFiles:
    """What lies beside the requests suits the files that were kept."""

    @given(
        order=st.permutations(range(9)),
        texts=st.integers(1, 9),
        most=st.integers(1, 9),
        deduplicate=st.booleans(),
        columns=st.sampled_from([("mood",), ()]),
    )
    def test_each_row_is_beside_its_request(self, order, texts, most, deduplicate, columns):
        plan = PREPARED | {"key_column": "id", "columns": columns, "max_requests": most, "deduplicate": deduplicate}
        store, rows = MemoryStore(), [*_rows(9, "new", texts), {"id": "bad", "text": ""}]
        first = prepared(_rows(9, "old", texts), store, **plan)
        made = prepared([rows[number] for number in (*order, 9)], store, token="two", **plan)
        assert [shard.uri for shard in made.shards] == [shard.uri for shard in first.shards]
        found, sent = {}, set()
        for shard in made.shards:
            keys = [line["key"] for line in read_jsonl(store, shard.uri)]
            sent |= set(keys)
            beside = {line["key"]: line["columns"] for line in read_jsonl(store, shard.columns_uri)} if columns else {}
            assert sorted(beside) == (sorted(keys) if columns else [])
            found |= {key: {} for key in keys} | beside
        text = {row["id"]: row["text"] for row in rows}
        for line in read_jsonl(store, made.duplicates_uri) if made.duplicate_count else ():
            assert line["same_as"] in sent
            assert text[line["same_as"]] == text[line["key"]]
            assert line["key"] not in found
            found[line["key"]] = line["columns"]
        assert found == {row["id"]: {"mood": row["mood"]} if columns else {} for row in rows[:9]}

    def test_no_file_is_left_that_nothing_refers_to(self):
        store = MemoryStore()
        plan = PREPARED | {"key_column": "id", "deduplicate": True}
        first = prepared(_rows(5, texts=4), store, **plan)
        before = set(store.objects)
        made = prepared(_rows(5, "new", texts=4)[::-1], store, token="two", **plan)
        assert set(store.objects) - before == {made.uri, made.shards[0].columns_uri, made.duplicates_uri}
        assert made.shards[0].uri == first.shards[0].uri


class TestEdits:
    """What cannot go on from the request files that there are is other input: it is bought again, and lands."""

    @pytest.mark.parametrize(
        ("rows", "plan", "change"),
        [
            pytest.param(_rows(4), {}, {"max_requests": 3}, id="more files"),
            pytest.param(_rows(4), {"max_requests": 3}, {"max_requests": 2}, id="as many files, one too large"),
            pytest.param(_rows(4, texts=2), {"max_requests": 2}, {"deduplicate": True}, id="like rows are sent once"),
            pytest.param(_rows(4), {}, {"model": "gemini-9"}, id="the model"),
        ],
    )
    @pytest.mark.parametrize("running", [True, False], ids=["running", "ended"])
    def test_other_files(self, rows, plan, change, running):
        world = World()
        task = Task(world, rows, plan=PREPARED | plan)
        first = task.attempt().job_names
        if not running:
            world.run()
        _edit(task, change)
        step = task.attempt()
        assert not set(first) & set(step.job_names)
        assert task.land(task.to_the_end()).statuses == {"succeeded": 4}
        _check_columns(task, "old")
        assert world.jobs.running == []

    @pytest.mark.parametrize("gone", ["manifest", "requests"])
    def test_files_that_were_removed(self, gone):
        world = World()
        task = Task(world, _rows(4), plan=PREPARED)
        task.attempt()
        world.run()
        del world.store.objects[task.manifest.uri if gone == "manifest" else task.manifest.shards[0].uri]
        task.rows = _rows(4, "new")
        assert task.land(task.to_the_end()).statuses == {"succeeded": 4}
        assert len(world.jobs.paid) == 2
        _check_columns(task, "new")


class Steps:
    """Each step makes its objects anew."""

    def __init__(self, task):
        self.task, self.world, self.attempts = task, task.world, 0

    def prepare(self):
        self.attempts += 1
        rows = Rows(self.task.rows).rows(self.world.store, MemoryWarehouse())
        return prepare(rows, PreparePlan(**self.task.plan), self.world.store, FOLDER, f"step{self.attempts}")

    def ready(self, uri):
        self.attempts += 1
        rows = Requests((uri,)).rows(self.world.store, MemoryWarehouse())
        plan = PreparePlan(template=None, on_rejected_row=OnRejectedRow.DEAD_LETTER)
        return prepare(rows, plan, self.world.store, FOLDER, f"step{self.attempts}")

    def buy(self, manifest):
        buyer = Buyer(
            base=a_spec(output="gs://b/run/output"),
            log=BatchLog(self.world.store, an_identity(), "a"),
            store=self.world.store,
            service=self.world.jobs,
            terms=Terms(settle_seconds=0.0),
        )
        return [job.name for job in buyer.buy(manifest)]

    def jobs(self, names):
        return list(read_jobs(names, self.world.jobs.get))

    def land(self, manifest, names):
        landing = Landing(
            [Round(manifest=manifest, jobs=tuple(self.jobs(names)))], self.world.store, MemoryWarehouse(), PLAN
        )
        return landing.land(Files(Uri.parse("gs://out/landed")))
