"""No job is bought for a request file that is gone: it would fail, hours later, after its queue."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.job import JobState
from tests.core.worlds import Task, World, fails, some_rows


@pytest.mark.parametrize("spoil", [lambda _data: None, lambda data: data[:-9]], ids=["gone", "of another size"])
def test_a_job_is_not_bought_for_a_file_that_is_not_as_it_was_prepared(spoil):
    world = World()
    task = Task(world, some_rows(3))
    task.attempt()
    [job] = world.jobs.paid
    world.jobs.forget(job.name)
    [uri] = job.input_uris
    data = spoil(world.store.objects.pop(uri))
    if data is not None:
        world.store.objects[uri] = data
    with pytest.raises(InputError, match=rf"{uri} is not there as it was prepared. No job was created.*Clear the task"):
        task.resume()
    assert world.jobs.paid == []


def test_the_next_attempt_writes_the_file_again_and_buys():
    world = World()
    task = Task(world, some_rows(3))
    task.attempt()
    [job] = world.jobs.paid
    world.jobs.forget(job.name)
    del world.store.objects[job.input_uris[0]]
    task.attempt()
    [again] = world.jobs.paid
    assert again.input_uris == job.input_uris


def test_a_job_that_exists_is_attached_to_without_its_file():
    """A folder's old files may be cleaned up once the rows have landed."""
    world = World()
    task = Task(world, some_rows(3))
    [name] = task.attempt().job_names
    world.run(JobState.RUNNING)
    del world.store.objects[world.jobs.paid[0].input_uris[0]]
    assert task.resume().job_names == (name,)


def test_a_repair_round_is_not_bought_for_a_file_that_is_gone():
    world = World({"a1": [fails()]})
    task = Task(world, some_rows(3), rounds=1)
    task.attempt()
    world.run()
    task.resume()
    [_, repair] = world.jobs.paid
    world.jobs.forget(repair.name)
    del world.store.objects[repair.input_uris[0]]
    with pytest.raises(InputError, match="is not there as it was prepared"):
        task.resume()
    assert len(world.jobs.paid) == 1
