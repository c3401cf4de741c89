"""The sweep operator, without a running Airflow: a connection, the emulator on a socket, and what it returns."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace

import pytest

import airflow_vertex_batch as avb
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.purchase.buyer import display_name, owner_labels
from airflow_vertex_batch.core.purchase.entries import Part
from airflow_vertex_batch.core.purchase.log import BatchLog
from airflow_vertex_batch.core.purchase.ownership import FINGERPRINT_LABEL, IDENTITY_LABEL
from airflow_vertex_batch.edge.compat import run_state
from airflow_vertex_batch.emulator.clock import VirtualClock
from airflow_vertex_batch.emulator.faults import Http
from airflow_vertex_batch.emulator.scenario import Scenario
from tests.builders import a_line, a_spec, an_identity, jsonl
from tests.emulator.worlds import World, listening

#: The name of this Airflow.
HERE = "airflow-here"


@pytest.fixture
def orphan(gcs, bucket, storage_url, monkeypatch):
    """A job in `global`, three hours old, in whose place its log names another; and the connection that finds it."""
    # How old a job is, Cloud Storage's clock says.
    world = World(gcs, clock=VirtualClock(gcs.now(bucket) - timedelta(hours=3)))
    requests = bucket / "staging/nightly/requests.jsonl"
    identity = an_identity(staging=str(bucket / "staging"))
    with gcs.open_write(requests) as stream:
        stream.write(jsonl(a_line()))
    labels = {**owner_labels(identity), IDENTITY_LABEL: identity.key, FINGERPRINT_LABEL: "f"}
    spec = a_spec(
        model="gemini-2.5-flash", inputs=(str(requests),), output=f"{bucket}out", labels=labels,
        display_name=display_name(identity),
    )  # fmt: skip
    job = world.emulator.create("demo", "global", spec.body())
    log = BatchLog(gcs, identity, "1:task").of_job(Part())
    log.append(log.submission("f", job["name"]))
    log.append(log.submission("g", f"{job['name']}0"))
    with listening(world) as url:
        extra = {"is_anonymous": True, "project": "demo", "vertex_batch_endpoint": url}
        connection = {"conn_type": "google_cloud_platform", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", json.dumps(connection))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
        yield SimpleNamespace(world=world, job=job, staging=bucket / "staging", identity=identity)


@pytest.fixture
def sweep(orphan):
    """Run the operator, and return what it returned and what it pushed."""

    def run(**arguments):
        pushed = {}
        ti = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
        arguments = {"locations": ["us-central1", "global"], "staging_uri": str(orphan.staging)} | arguments
        operator = avb.VertexBatchSweepOperator(task_id="sweep", project_id="demo", **arguments)
        return operator.execute({"ti": ti}), pushed

    return run


class TestSweeping:
    @pytest.mark.parametrize("apply", [{}, {"apply": False}, {"apply": "False"}], ids=str)
    def test_a_dry_run_is_the_default_and_returns_small_facts(self, orphan, sweep, apply):
        returned, pushed = sweep(**apply)
        (finding,) = returned["findings"]
        assert (finding["job_name"], finding["action"], finding["why"]) == (
            orphan.job["name"], "cancel", f"{orphan.job['name'].rpartition('/')[2]}0 has taken its place",
        )  # fmt: skip
        assert (returned["is_dry_run"], returned["looked_at_count"], returned["actions"]) == (True, 1, {"cancel": 1})
        assert pushed["report"] == json.loads(json.dumps(returned))
        assert orphan.world.emulator.books()["jobs"][0]["state"] == "JOB_STATE_PENDING"

    @pytest.mark.parametrize("apply", [True, "True"], ids=repr)
    def test_apply_does_it(self, orphan, sweep, apply):
        returned, _ = sweep(apply=apply)
        assert [finding["done"] for finding in returned["findings"]] == ["cancelled"]
        orphan.world.emulator.advance(60)
        assert orphan.world.emulator.books()["jobs"][0]["state"] == "JOB_STATE_CANCELLED"
        returned, _ = sweep(apply=apply)
        assert (returned["findings"], list(returned["kept"])) == (
            [], ["it ended without rows: there is nothing to land"],
        )  # fmt: skip

    def test_one_location_is_the_task_s_own(self, sweep):
        assert sweep(locations=None, location="us-central1")[0]["looked_at_count"] == 0
        assert sweep(locations=None, location="global")[0]["looked_at_count"] == 1

    def test_an_error_about_a_job_fails_the_task_with_its_name_after_the_report_is_pushed(self, orphan, sweep):
        from airflow_vertex_batch.core.domain.errors import JobError

        with orphan.world.store.open_write(orphan.staging / orphan.identity.path / "log/000009.json") as stream:
            stream.write(b"{}")
        with pytest.raises(JobError, match=r"1 of 1 jobs could not be judged .* is damaged") as caught:
            sweep(apply=True)
        assert (caught.value.job_name, caught.value.retryable) == (orphan.job["name"], True)

    def test_a_list_that_is_refused_fails_the_task_at_once(self, orphan, sweep):
        from airflow.providers.common.compat.sdk import AirflowFailException

        orphan.world.emulator.set_scenario(Scenario(faults=(Http(on="list", status=403),)))
        with pytest.raises(AirflowFailException, match="HTTP 403"):
            sweep()


class TestParameters:
    @pytest.mark.parametrize(
        "given", [{"older_than": 60}, {"older_than": timedelta(days=2), "owner_timeout": timedelta(days=1)}], ids=str
    )
    def test_ages_that_are_not_safe_are_refused_when_the_file_is_read(self, given):
        with pytest.raises(InputError, match="older_than"):
            avb.VertexBatchSweepOperator(task_id="t", **given)

    def test_what_is_neither_yes_nor_no_is_refused_before_anything_is_touched(self, sweep):
        from airflow.providers.common.compat.sdk import AirflowFailException

        with pytest.raises(AirflowFailException, match="neither true nor false"):
            sweep(apply="perhaps")


class _Supervisor:
    """Answers what a task asks about DAG runs, in Airflow's own messages.

    :param runs: states by run id.
    """

    def __init__(self, runs):
        self._runs = runs

    def send(self, msg):
        from airflow.sdk.execution_time.comms import DagRunStateResult, DRCount, GetDRCount

        if isinstance(msg, GetDRCount):
            return DRCount(count=sum(run_id in self._runs for run_id in msg.run_ids))
        return DagRunStateResult(state=self._runs[msg.run_id])


class TestADeletedRun:
    """The job is its task's own, and this Airflow has no such run."""

    @pytest.fixture
    def own(self, orphan, supervised):
        supervised(_Supervisor({}))
        log = BatchLog(orphan.world.store, orphan.identity, "1:task", installation=HERE).of_job(Part())
        log.entries()
        log.append(log.submission("f", orphan.job["name"]))
        return orphan

    def test_the_job_is_cancelled(self, own, sweep, monkeypatch):
        monkeypatch.setenv("AIRFLOW__VERTEX_BATCH__INSTALLATION", HERE)
        returned, _ = sweep(apply=True)
        (finding,) = returned["findings"]
        assert (finding["why"], finding["done"]) == ("its run was deleted: nobody waits for it", "cancelled")
        assert returned["asked"] == f"this Airflow ({HERE})"

    def test_but_not_where_another_airflow_bought_it(self, own, sweep, monkeypatch):
        own.world.emulator.set_scenario(Scenario())
        log = BatchLog(own.world.store, own.identity, "1:task", installation="airflow-there").of_job(Part())
        for number in range(3):
            own.world.store.delete(log.folder / f"{number:06d}.json")
        log.append(log.submission("f", own.job["name"]))
        monkeypatch.setenv("AIRFLOW__VERTEX_BATCH__INSTALLATION", HERE)
        returned, _ = sweep(apply=True)
        assert returned["kept"] == {"installation airflow-there bought it: its own sweep judges it": 1}


class TestTheStateOfARun:
    def test_is_nobody_s_to_know_outside_a_task(self):
        assert run_state("nightly", "scheduled__2026-11-22") is None

    @pytest.mark.parametrize("state", ["queued", "running", "success", "failed"])
    def test_is_told_by_the_supervisor(self, supervised, state):
        supervised(_Supervisor({"one": state}))
        assert run_state("nightly", "one") == state

    def test_is_deleted_where_there_is_no_such_run(self, supervised):
        supervised(_Supervisor({}))
        assert run_state("nightly", "one") == "deleted"

    def test_is_not_known_where_the_answer_is_an_error(self, supervised):
        """The run was deleted between the two questions, or the server is in trouble: absent is not unreadable."""
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
        from airflow.sdk.execution_time import comms

        class Failing(_Supervisor):
            def send(self, msg):
                if isinstance(msg, comms.GetDRCount):
                    return super().send(msg)
                raise AirflowRuntimeError(comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR))

        supervised(Failing({"one": "running"}))
        assert run_state("nightly", "one") is None
