"""A create call that left no job is sent again while the service refuses for now; one that may have worked is not."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.core.domain.outage import OUTAGE_SECONDS
from airflow_vertex_batch.core.purchase.create_retry import ensure_job_with_retries
from airflow_vertex_batch.core.purchase.entries import Intent, Refusal, Submission
from tests.builders import a_log, an_order
from tests.fakes import Clock, Jobs, MemoryStore

BUSY = ServiceError("Vertex AI answered HTTP 429", status=429, reason="RESOURCE_EXHAUSTED")
DENIED = ServiceError("Vertex AI answered HTTP 403", status=403, reason="PERMISSION_DENIED")
UNSENT = ServiceError("Vertex AI did not answer to: create", status=0, reason="UNAVAILABLE")


class World:
    """A log and a service with scripted creates."""

    def __init__(self, *creates: Any, store: MemoryStore | None = None) -> None:
        self.clock, self.store = Clock(), store or MemoryStore()
        self.service = Jobs(self.clock, creates=list(creates))
        self.store.clock = self.clock
        self.log = a_log(self.store, "a")

    def buy(self) -> Any:
        return ensure_job_with_retries(an_order(self.log, self.service), sleep=self.clock.sleep)

    @property
    def kinds(self) -> list[type]:
        return [type(entry) for entry in self.log.entries()]


@pytest.mark.parametrize("error", [BUSY, UNSENT], ids=["429", "no connection"])
def test_what_left_no_job_is_recorded_each_time_and_sent_again(error):
    world = World(error, error)
    assert world.buy().created
    assert world.kinds == [Intent, Refusal, Intent, Refusal, Intent, Submission]
    assert len(world.service.paid) == 1
    assert sum(world.clock.slept) < 10


def test_a_refusal_that_stays_is_raised_after_two_minutes():
    world = World(*[BUSY] * 30)
    with pytest.raises(ServiceError, match="HTTP 429"):
        world.buy()
    assert OUTAGE_SECONDS <= sum(world.clock.slept) < OUTAGE_SECONDS + 25
    assert world.service.paid == []


def test_a_refusal_that_no_wait_cures_is_raised_at_once():
    world = World(DENIED)
    with pytest.raises(ServiceError, match="HTTP 403"):
        world.buy()
    assert (world.kinds, world.clock.slept) == ([Intent, Refusal], [])


@pytest.mark.parametrize("fate", ["committed", "dropped"])
def test_what_may_have_worked_is_looked_for_before_another_is_sent(fate):
    world = World(fate)
    assert world.buy().created is (fate == "dropped")
    assert len(world.service.paid) == 1
    assert sum(world.clock.slept) >= (90 if fate == "dropped" else 0)


def test_a_look_up_that_failed_is_not_repeated_here():
    """The client has outlasted what it could: twice two minutes help nobody."""
    world = World()
    world.service.list_errors = [ServiceError("Vertex AI did not answer", status=503)]
    with pytest.raises(ServiceError, match="did not answer"):
        world.buy()
    assert world.clock.slept == []


def test_a_refusal_that_could_not_be_written_down_is_not_repeated():
    """The log still says that a job may be on its way."""

    class Failing(MemoryStore):
        def write_new(self, uri: Uri, data: bytes) -> bool:
            if b'"refusal"' in data:
                raise ServiceError("Cloud Storage refused", status=503)
            return super().write_new(uri, data)

    world = World(BUSY, store=Failing())
    with pytest.raises(ServiceError, match="Cloud Storage refused"):
        world.buy()
    assert (world.kinds, world.clock.slept) == ([Intent], [])
