"""How the shared poller connects: it asks Airflow for the connection and Google for credentials, and either may be away
for a moment."""

from __future__ import annotations

import asyncio

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_vertex_batch.core.domain.address import JobName
from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.core.domain.job import BatchJob, JobState
from airflow_vertex_batch.edge import poller
from airflow_vertex_batch.edge.view import _pollers, shared_poller
from airflow_vertex_batch.hooks import VertexBatchHook

NAME = JobName("1", "us-central1", "1")


class Client:
    """A service with one job."""

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc_info):
        pass

    async def get(self, name):
        return BatchJob(name=str(name), state=JobState.RUNNING)


def connecting(*errors):
    """Return what connects after some errors, and the list of its tries."""
    tries, errors = [], list(errors)

    async def connect():
        tries.append(1)
        await asyncio.sleep(0.01)
        if errors:
            raise errors.pop(0)
        return Client()

    return connect, tries


async def wait(connect):
    """Ask for the job, as one of those that wait."""
    async with shared_poller("key", connect, 0.01) as service:
        return await service.get(NAME)


class TestTrouble:
    @pytest.mark.parametrize(
        "error",
        [
            ConnectionError("metadata server"),
            ServiceError("no credentials", status=0),
            AirflowNotFoundException("The conn_id `google` isn't defined"),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_a_moment_of_trouble_ends_no_wait(self, error):
        connect, tries = connecting(error)
        jobs = await asyncio.gather(*(wait(connect) for _ in range(50)))
        assert {job.name for job in jobs} == {str(NAME)}
        assert (len(tries), _pollers) == (2, {})

    @pytest.mark.parametrize(
        "error",
        [InputError("names no project"), ServiceError("no credentials", status=401), ValueError("no JSON")],
        ids=lambda error: type(error).__name__,
    )
    async def test_a_mistake_ends_the_wait_at_once_and_the_next_one_tries_again(self, error):
        connect, tries = connecting(error)
        with pytest.raises(type(error), match=str(error)):
            await wait(connect)
        assert (len(tries), _pollers) == (1, {})
        assert (await wait(connect)).name == str(NAME)

    async def test_who_stands_in_line_shares_the_failure(self, monkeypatch):
        """Two thousand waiters do not try one after the other."""
        monkeypatch.setattr(poller, "_CONNECT_SECONDS", 0.1)
        connect, tries = connecting(*[ConnectionError("away")] * 2_000)
        errors = await asyncio.gather(*(wait(connect) for _ in range(2_000)), return_exceptions=True)
        assert {type(error) for error in errors} == {ConnectionError}
        assert (len(tries), _pollers) == (1, {})

    async def test_who_goes_away_while_it_connects_leaves_it_to_the_next(self):
        connect, tries = connecting()
        first, second = asyncio.ensure_future(wait(connect)), asyncio.ensure_future(wait(connect))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).name == str(NAME)
        assert len(tries) == 2


class TestAConnectionThatIsNotThere:
    def test_is_named_with_what_to_do(self):
        """Airflow's own kind of error: a secrets backend that is away for a moment looks the same."""
        words = r"my_gcp.*\nTo do: Correct gcp_conn_id='my_gcp', or make the connection: airflow connections add my_gcp"
        with pytest.raises(AirflowNotFoundException, match=words) as raised:
            VertexBatchHook("my_gcp")
        assert raised.value.__suppress_context__
