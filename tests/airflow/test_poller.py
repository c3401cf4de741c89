"""One poller for all waiters of a process: how often it asks, and who hears of what."""

from __future__ import annotations

import asyncio

import pytest

from airflow_vertex_batch.core.address import JobName
from airflow_vertex_batch.core.errors import ServiceError
from airflow_vertex_batch.core.model import BatchJob, JobState
from airflow_vertex_batch.poller import _pollers, shared_poller

NAMES = [JobName("1", "us-central1", str(number)) for number in range(50)]


class Client:
    """A service that counts what it is asked."""

    def __init__(self, running=NAMES, list_error=None, get_error=None):
        self.running, self.list_error, self.get_error = {str(name) for name in running}, list_error, get_error
        self.lists = self.gets = self.opened = self.closed = 0

    async def __aenter__(self):
        self.opened += 1
        return self

    async def __aexit__(self, *exc_info):
        self.closed += 1

    async def get(self, name):
        self.gets += 1
        await asyncio.sleep(0)
        if self.get_error:
            raise self.get_error
        return BatchJob(name=str(name), state=JobState.SUCCEEDED)

    async def list(self, query):
        self.lists += 1
        assert "labels.avb-identity:*" in query
        if self.list_error:
            raise self.list_error
        for name in sorted(self.running):
            yield BatchJob(name=name, state=JobState.RUNNING)


async def ask(client, names, key="key", poll_interval=0.04):
    """Let every name be waited for by a waiter of its own; return what each heard."""

    async def connect():
        return client

    async def one(name):
        async with shared_poller(key, connect, poll_interval) as service:
            return await service.get(name)

    return await asyncio.gather(*(one(name) for name in names), return_exceptions=True)


async def test_fifty_waiters_cost_one_list_and_one_connection():
    client = Client()
    jobs = await ask(client, NAMES)
    assert [job.name for job in jobs] == [str(name) for name in NAMES]
    assert (client.lists, client.gets, client.opened, client.closed) == (1, 0, 1, 1)
    assert _pollers == {}


async def test_a_job_that_the_list_does_not_show_is_asked_for_singly():
    client = Client(running=NAMES[:48])
    jobs = await ask(client, NAMES)
    assert [job.state for job in jobs[48:]] == [JobState.SUCCEEDED] * 2
    assert (client.lists, client.gets) == (1, 2)


async def test_a_handful_is_not_worth_a_list():
    client = Client()
    await ask(client, NAMES[:3])
    assert (client.lists, client.gets) == (0, 3)


async def test_two_waiters_for_one_job_cost_one_question():
    client = Client()
    await ask(client, [NAMES[0], NAMES[0]])
    assert client.gets == 1


async def test_a_service_that_knows_no_label_filter_is_asked_singly():
    client = Client(list_error=ServiceError("filter", status=400))
    jobs = await ask(client, NAMES)
    assert all(isinstance(job, BatchJob) for job in jobs)
    assert (client.lists, client.gets) == (1, 50)


async def test_an_error_of_the_list_reaches_every_waiter_of_the_round():
    client = Client(list_error=ServiceError("down", status=503))
    answers = await ask(client, NAMES)
    assert {type(answer) for answer in answers} == {ServiceError}
    assert {answer.status for answer in answers} == {503}


async def test_an_error_of_one_job_reaches_only_its_waiter():
    client = Client(get_error=ServiceError("gone", status=404))
    client.running -= {str(NAMES[7])}
    answers = await ask(client, NAMES)
    assert [answer.status for answer in answers if isinstance(answer, ServiceError)] == [404]
    assert sum(isinstance(answer, BatchJob) for answer in answers) == 49


async def test_a_waiter_that_goes_away_takes_nothing_from_the_others():
    client = Client()

    async def connect():
        return client

    async with shared_poller("key", connect, 0.2) as service:
        leaver = asyncio.ensure_future(service.get(NAMES[0]))
        stayer = asyncio.ensure_future(service.get(NAMES[0]))
        await asyncio.sleep(0)
        leaver.cancel()
        assert (await stayer).name == str(NAMES[0])
        with pytest.raises(asyncio.CancelledError):
            await leaver


async def test_other_keys_have_other_pollers():
    first, second = Client(), Client()
    await asyncio.gather(ask(first, NAMES, "a"), ask(second, NAMES, "b"))
    assert (first.lists, second.lists) == (1, 1)
