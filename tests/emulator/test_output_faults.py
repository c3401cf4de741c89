"""An output that is named late, empty, growing or lost: the emulator shows it, and a batch waits for it unharmed."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.answers.collect import Batch, Collector
from airflow_vertex_batch.core.domain.errors import LostOutputError
from airflow_vertex_batch.core.domain.job import BatchJob
from airflow_vertex_batch.emulator.output_faults import LateInfo, LateOutput, LostOutput
from airflow_vertex_batch.emulator.row_faults import Missing
from airflow_vertex_batch.emulator.scenario import Scenario
from airflow_vertex_batch.emulator.service import Emulator
from tests.emulator.worlds import INPUT, World, a_body, a_line, a_world, to_table

#: Seconds until a small job has ended.
END = 90 + 130


def _ended(world, body=None):
    """Return a job as it is shown when it has just ended."""
    return world.ended(world.create(body), END)


def _rows(world, job):
    """Collect the rows of a job as it is shown now."""
    shown = BatchJob.from_api(world.get(job))
    batch = Batch(shown, (INPUT,))
    return list(Collector(world.store, world.warehouse, now=world.emulator.clock.now).rows(batch))


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (LateInfo(seconds=30), "counted 10 answered rows, and 0 are there"),
        (LateOutput(seconds=60), "counted 10 answered rows, and 0 are there"),
        (LateOutput(seconds=60, share=0.5), "counted 10 answered rows, and 5 are there"),
    ],
    ids=["outputInfo is late", "the folder is empty", "the file grows"],
)
def test_a_late_output_is_no_answer_and_then_all_of_them(fault, text):
    world = a_world(fault)
    job = _ended(world)
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    with pytest.raises(LostOutputError, match=text):
        _rows(world, job)
    world.emulator.advance(61)
    assert len(_rows(world, job)) == 10
    world.emulator.script.check_used()


def test_an_output_that_is_deleted_later_is_lost_for_good():
    world = a_world(LostOutput(seconds=3600))
    job = _ended(world)
    assert len(_rows(world, job)) == 10
    world.emulator.advance(3600)
    with pytest.raises(LostOutputError, match="counted 10 answered rows, and 0 are there"):
        _rows(world, job)


def test_an_output_may_stay_away_for_ever():
    world = a_world(LateOutput())
    job = _ended(world)
    world.emulator.advance(10 * 86_400)
    with pytest.raises(LostOutputError, match="0 are there"):
        _rows(world, job)


def test_the_name_of_a_table_may_be_late():
    world = a_world(LateInfo(seconds=30), LateOutput(seconds=60))
    job = _ended(world, a_body(outputConfig=to_table("p.d.t")))
    assert "outputInfo" not in job
    world.emulator.advance(31)
    assert len(_rows(world, job)) == 10


@pytest.mark.parametrize(("counted", "is_lost"), [("lines", False), ("answers", True)])
def test_a_line_that_got_lost_is_a_missing_row_unless_the_service_counted_its_answer(counted, is_lost):
    world = a_world(Missing(keys=("k3",)), counted=counted)
    job = _ended(world)
    if is_lost:
        with pytest.raises(LostOutputError, match="counted 10 answered rows, and 9 are there"):
            _rows(world, job)
    else:
        assert sum(row.status == "missing" for row in _rows(world, job)) == 1


def test_what_is_held_back_survives_a_restart(tmp_path):
    world = World(scenario=Scenario(faults=(LateOutput(seconds=3600),)), data=tmp_path)
    world.store.put(INPUT, a_line())
    job = _ended(world)
    clock = world.emulator.clock
    world.emulator.stop()
    world.emulator = Emulator(store=world.store, warehouse=world.warehouse, clock=clock, data=tmp_path)
    world.emulator.advance(3600)
    assert any(name.startswith(job["outputInfo"]["gcsOutputDirectory"]) for name in world.store.objects)
