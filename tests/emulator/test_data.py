"""What survives: jobs over a restart, memory over many rows."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from airflow_vertex_batch.emulator.clock import VirtualClock
from airflow_vertex_batch.emulator.models import DeterministicModel
from airflow_vertex_batch.emulator.spool import shuffled
from tests.emulator.worlds import INPUT, PARENT, MemoryStore, World, a_line


class Counting(DeterministicModel):
    """The deterministic model, with a count of what it was asked."""

    def __init__(self):
        self.asked = []

    def answer(self, request):
        self.asked.append(request["contents"][0]["parts"][0]["text"])
        return super().answer(request)


class TestARestart:
    @pytest.fixture
    def again(self, tmp_path):
        """Make the emulator anew over the same store, clock and data, after an end that saved nothing on purpose."""
        store, clock, model = MemoryStore(), VirtualClock(), Counting()
        store.put(INPUT, *(a_line(f"k{number}", f"text {number}") for number in range(40)))

        def make():
            return World(store, clock=clock, model=model, data=tmp_path)

        make.model = model
        return make

    @pytest.mark.parametrize("moments", [(10,), (89,), (91,), (120, 150), (209,), (10, 95, 130, 180)], ids=str)
    def test_at_any_moment_answers_and_bills_every_row_once(self, again, moments):
        world, passed = again(), 0
        job = world.create()
        for moment in moments:
            world.emulator.advance(moment - passed)
            billed = world.emulator.books()["billed"]
            passed, world = moment, again()
            assert world.emulator.books()["billed"] == billed
        job = world.ended(job)
        assert job["state"] == "JOB_STATE_SUCCEEDED"
        assert sorted(line["key"] for line in world.output(job)) == sorted(f"k{number}" for number in range(40))
        assert sorted(again.model.asked) == sorted(f"text {number}" for number in range(40))
        assert world.emulator.books()["billed"]["rows"] == 40

    def test_keeps_finished_deleted_and_cancelling_jobs_as_they_were(self, again):
        world = again()
        done, deleted, running = world.create(), world.create(), world.create()
        world.emulator.advance(150)
        world.call("POST", f"/v1/{running['name']}:cancel")
        world.call("POST", f"/v1/{deleted['name']}:cancel")
        world.emulator.advance(11)
        world.call("DELETE", f"/v1/{deleted['name']}")
        before = world.call("GET", PARENT).document
        world = again()
        assert world.call("GET", PARENT).document == before
        assert [job["deleted"] for job in world.emulator.books()["jobs"]].count(True) == 1
        assert world.ended(done)["state"] == "JOB_STATE_SUCCEEDED"

    def test_cuts_off_a_record_that_was_half_written(self, again, tmp_path):
        world = again()
        job = world.create()
        world.emulator.advance(150)
        (answers,) = tmp_path.glob("jobs/*/answers.jsonl")
        answers.write_bytes(answers.read_bytes()[:-20])
        done = answers.read_bytes().count(b"\n")
        world = again()
        job = world.ended(job)
        assert len(world.output(job)) == 40
        assert len(again.model.asked) == 40 + 1
        assert world.emulator.books()["billed"]["rows"] == 40
        assert done < 40

    def test_leaves_no_prompt_and_no_answer_behind_in_the_end(self, again, tmp_path):
        world = again()
        world.ended(world.create())
        files = {path.name: path.read_bytes() for path in tmp_path.glob("jobs/*/*")}
        assert files.keys() == {"job.json", "bills.jsonl"}
        assert not [name for name, data in files.items() if b"text 7" in data]

    @pytest.mark.parametrize("moment", [0, 91, 150, 3600])
    def test_keeps_the_bill_of_every_row(self, again, moment):
        world = again()
        world.create()
        world.emulator.advance(moment)
        before = world.emulator.books(rows=True)["jobs"][0]["bills"]
        assert again().emulator.books(rows=True)["jobs"][0]["bills"] == before

    def test_without_a_data_folder_forgets(self):
        store = MemoryStore()
        World(store).create()
        assert World(store).emulator.books()["jobsCreated"] == 0


class TestTheShuffle:
    @pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 10, 97, 1000])
    def test_visits_every_row_once(self, count):
        for seed in (0, 1, 10**18 + 7):
            assert sorted(shuffled(count, seed)) == list(range(count))

    @pytest.mark.parametrize("count", [2, 3, 5, 100])
    def test_is_never_the_order_of_the_input(self, count):
        for seed in range(200):
            assert list(shuffled(count, seed)) != list(range(count))


PROGRAM = """
    import json, resource, sys
    from pathlib import Path
    from tests.emulator.worlds import FolderStore, World, a_line
    root, rows = Path(sys.argv[1]), int(sys.argv[2])
    with (root / "in" / "requests.jsonl").open("wb") as stream:
        for number in range(rows):
            stream.write(json.dumps(a_line(f"k{number}", f"Question {number}: " + "x" * 200)).encode() + b"\\n")
    world = World(FolderStore(root))
    job = world.ended(world.create(), 10_000)
    assert job["completionStats"] == {"successfulCount": str(rows)}, job
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


class TestMemory:
    def peak_of(self, rows, tmp_path):
        """Bytes at most held by a process in which a job of `rows` rows runs over files."""
        root = tmp_path / str(rows)
        for bucket in ("in", "out"):
            (root / bucket).mkdir(parents=True)
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(root), str(rows)]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
        return int(done.stdout)

    def test_does_not_grow_with_the_rows(self, tmp_path):
        few, many = self.peak_of(2_000, tmp_path), self.peak_of(20_000, tmp_path)
        # 18,000 rows more are 27 MB more of requests and answers; 4 MB of buffers came with them when this was written.
        assert many < few + 10_000_000, f"{few:,} bytes at 2,000 rows, {many:,} at 20,000"
