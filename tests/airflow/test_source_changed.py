"""The source changes between two attempts of `VertexBatchOperator`: a retry keeps to what was bought, a clear reads."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from tests.airflow.waiting import SlowWorld, a_context, a_whole, deferred, resumed, six_rows

ADDED = [*six_rows()["rows"], {"id": "a6", "text": "late"}]


@pytest.fixture
def world():
    return SlowWorld(1)


def begun(world, url):
    """Let an attempt buy its job and wait; return the context that its retries share."""
    context = a_context()
    deferred(lambda: a_whole(world, url).execute(context))
    assert world.states == ["PENDING"]
    return context


def cleared(context):
    """Let a person clear the task."""
    context["ti"].max_tries += 3
    return context


class TestARowWasAdded:
    def test_a_retry_attaches_to_the_job_that_runs(self, serve, world):
        url = serve(world)
        context = begun(world, url)
        task = a_whole(world, url, rows=ADDED)
        waits = deferred(lambda: task.execute(context))
        world.emulator.advance(3600)
        assert resumed(task, context, waits)["statuses"] == {"succeeded": 6}
        assert world.states == ["SUCCEEDED"]

    def test_a_clear_asks_what_the_source_holds_now(self, serve, world):
        url = serve(world)
        context = begun(world, url)
        task = a_whole(world, url, rows=ADDED)
        waits = deferred(lambda: task.execute(cleared(context)))
        assert world.states == ["CANCELLED", "PENDING"]
        world.emulator.advance(3600)
        assert resumed(task, context, waits)["statuses"] == {"succeeded": 7}

    def test_a_retry_reads_the_source_when_a_file_of_its_set_is_gone(self, serve, world):
        url = serve(world)
        context = begun(world, url)
        [gone] = [name for name in world.store.objects if "/requests-" in name and name.endswith(".jsonl")]
        before = world.store.objects.pop(gone)
        deferred(lambda: a_whole(world, url).execute(context))
        assert world.store.objects[gone] == before
        assert len(world.states) == 1


class TestEveryRowWasRemoved:
    """`on_empty` ends the task after a clear: what runs for the rows of before is seen to first."""

    @pytest.mark.parametrize(("policy", "ends"), [("fail", AirflowFailException), ("skip", AirflowSkipException)])
    def test_the_job_that_runs_is_cancelled(self, serve, world, policy, ends):
        url = serve(world)
        context = cleared(begun(world, url))
        with pytest.raises(ends, match="no job of an earlier attempt runs on"):
            a_whole(world, url, rows=[], on_empty=policy).execute(context)
        assert world.states == ["CANCELLED"]

    def test_or_told_of_where_nothing_may_be_cancelled(self, serve, world):
        url = serve(world)
        context = cleared(begun(world, url))
        with pytest.raises(AirflowFailException, match="jobs of an earlier attempt may still run"):
            a_whole(world, url, rows=[], on_changed_input="fail").execute(context)
        assert world.states == ["PENDING"]

    def test_a_set_with_nothing_to_send_binds_no_retry(self, serve, world):
        url, context = serve(world), a_context()
        with pytest.raises(AirflowFailException, match="The source has no row"):
            a_whole(world, url, rows=[]).execute(context)
        deferred(lambda: a_whole(world, url).execute(context))
        assert world.states == ["PENDING"]
