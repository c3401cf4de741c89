"""What runs for a part of the input that there is no more: it is cancelled, by whoever still may."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.domain.errors import LogError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.purchase.decide import SETTLE_SECONDS
from airflow_vertex_batch.core.purchase.removed_parts import cancel_removed_part
from tests.builders import a_log
from tests.core.submitting import World


@pytest.fixture
def world() -> World:
    return World()


class TestRemovedPart:
    """What the input has no more is cancelled, also where its create call is only just under way."""

    def _cancel_removed_part(self, world, *, owns: bool = True) -> None:
        cancel_removed_part(
            a_log(world.store, "b", world.clock), world.service, owns=lambda: owns, sleep=world.clock.sleep
        )

    def test_an_attempt_that_was_replaced_cancels_nothing(self, world):
        world.attempt()
        with pytest.raises(LogError, match="Another attempt has taken nightly/scheduled__2026-11-22/me over"):
            self._cancel_removed_part(world, owns=False)
        assert len(world.service.running) == 1

    def test_a_running_job_is_cancelled(self, world):
        world.attempt()
        self._cancel_removed_part(world)
        assert world.service.running == []

    def test_a_job_that_has_ended_stays_as_it_is(self, world):
        job = world.attempt().job
        world.service.change(job.name, state="JOB_STATE_SUCCEEDED")
        self._cancel_removed_part(world)
        assert world.service.get(job.job_name).state is JobState.SUCCEEDED

    def test_nothing_was_ever_there(self, world):
        self._cancel_removed_part(world)
        assert world.clock.slept == []

    def test_a_job_that_may_be_on_its_way_is_waited_for(self, world):
        log = a_log(world.store, "a", world.clock)
        assert log.append(log.intent("c1"))
        self._cancel_removed_part(world)
        assert sum(world.clock.slept) == pytest.approx(SETTLE_SECONDS)
