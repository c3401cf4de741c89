"""The labels by which a job is found may be lost: what else tells whose it is?"""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.purchase.submit import ensure_job
from tests.builders import a_log, an_order
from tests.core.submitting import World
from tests.fakes import Died, EffectLimit


@pytest.fixture
def world() -> World:
    return World()


class TestLostLabels:
    """The service lost a job's labels, and its creator died before it could write the name down."""

    def dies_after_the_create_call(self, world, **lost):
        effect_limit = EffectLimit(3)
        with pytest.raises(Died, match="after effect 3: create"):
            world.attempt(store=effect_limit.store(world.store), service=effect_limit.service(world.service))
        [job] = world.service.paid
        world.service.change(job.name, **{"labels": {}} | lost)
        return job

    def test_it_is_found_by_its_display_name_and_its_input(self, world):
        job = self.dies_after_the_create_call(world)
        assert world.attempt(token="b").job.name == job.name
        assert world.attempt(token="c").job.name == job.name
        assert len(world.service.paid) == 1

    @pytest.mark.parametrize(
        "lost",
        [
            {"displayName": "somebody else's"},
            {"inputConfig": {"gcsSource": {"uris": ["gs://in/other.jsonl"]}}},
            {"labels": {"avb-identity": "somebody else"}},
            {"createTime": "2026-11-21T00:00:00Z"},
        ],
        ids=["another name", "another input", "another's labels", "long before the intent"],
    )
    def test_nothing_else_is_taken_for_it(self, world, lost):
        job = self.dies_after_the_create_call(world, **lost)
        assert world.attempt(token="b").job.name != job.name

    def test_without_an_intent_nobody_looks(self, world):
        job = world.attempt().job
        world.service.change(job.name, labels={})
        other = an_order(a_log(world.store, "a", world.clock, task="you"), world.service)
        assert ensure_job(other).job.name != job.name
