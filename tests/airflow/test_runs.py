"""Real runs: a scheduler starts them, a triggerer waits, the tables and the emulator's books say what came of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pyarrow.parquet
import pytest

from stack import demo
from tests.airflow.conftest import dumps

TODAY = datetime.now(UTC).date()
NIGHTLY = "nightly_tickets"


def succeed(airflow, dag_id, run_id=None, **trigger):
    """Run a DAG to its end and insist on success; return the run id."""
    airflow.wait_for_dag(dag_id)
    airflow.unpause(dag_id)
    run_id = run_id or airflow.trigger(dag_id, **trigger)
    run = airflow.wait_for_run(dag_id, run_id, timeout_s=240)
    assert run["state"] == "success", airflow.tasks(dag_id, run_id)
    return run_id


def rows_by_day(cloud):
    """Rows of the table by day, each row's key once or more."""
    found = cloud.query("SELECT partition_date, row_key FROM `demo.support.triage` ORDER BY 1, 2")
    days = {}
    for row in found:
        days.setdefault(str(row["partition_date"]), []).append(row["row_key"])
    return days


class TestTheNightlyDag:
    """The main job, begun in every way a run can begin."""

    def test_a_scheduled_run_a_manual_run_and_a_backfill_land_each_day_once(self, airflow, cloud, stack):
        """Five days in the table, every ticket of each once, one job a day; then all again: the same."""
        airflow.wait_for_dag(NIGHTLY)
        airflow.unpause(NIGHTLY)
        manual = airflow.trigger(NIGHTLY)
        stack.airflow.cli(
            "backfill", "create", "--dag-id", NIGHTLY, "--from-date", demo.DAYS[0], "--to-date", demo.DAYS[-1]
        )
        runs = self.ended(airflow, 5)

        assert {run["run_type"]: run["state"] for run in runs} == {"scheduled": "success", "manual": "success", "backfill": "success"}
        assert airflow.run(NIGHTLY, manual)["logical_date"] is None
        expected = {day: [f"T-{day[5:7]}{day[8:]}-{n:02d}" for n in range(1, 21)] for day in demo.DAYS}
        expected |= {str(TODAY - timedelta(days=age)): [f"R-{age}-{n}" for n in range(5)] for age in (0, 1)}
        assert rows_by_day(cloud) == expected
        assert len(cloud.jobs(NIGHTLY)) == 5

        airflow.backfill(
            NIGHTLY, *(datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (demo.DAYS[0], demo.DAYS[-1])),
            reprocess_behavior="completed",
        )  # fmt: skip
        again = self.ended(airflow, 5, cleared=3)
        assert all(run["state"] == "success" for run in again)
        assert rows_by_day(cloud) == expected
        assert len(cloud.jobs(NIGHTLY)) == 5, "reprocessing bought a job again"

    @staticmethod
    def ended(airflow, count, cleared=0):
        """Wait until so many runs have ended, so many of them for the second time."""

        def look():
            runs = airflow.runs(NIGHTLY)
            done = [run for run in runs if run["state"] in {"success", "failed"}]
            twice = [run for run in done if exports(airflow, run) >= 2]
            return runs if len(done) == len(runs) == count and len(twice) >= cleared else None

        return airflow._wait(f"{count} runs of {NIGHTLY}", look, 420, lambda: str(airflow.runs(NIGHTLY)))  # noqa: SLF001


def exports(airflow, run):
    """How often a run's export task has been tried."""
    return max((task["try_number"] for task in airflow.tasks(NIGHTLY, run["dag_run_id"]) if task["task_id"].endswith("export")), default=0)


class TestTheExamples:
    """Every file in dags/ runs."""

    def test_no_file_has_an_import_error(self, airflow):
        for dag_id in (NIGHTLY, "requests_from_cloud_storage", "describe_images", "steps_one_by_one", "mapped"):
            airflow.wait_for_dag(dag_id)
        assert airflow.import_errors() == {}

    def test_the_guides_own_request_is_sent_as_it_is_and_answered(self, airflow, cloud):
        """Its line has no key: the answer is joined by its contents."""
        run_id = succeed(airflow, "requests_from_cloud_storage")
        report = airflow.xcom("requests_from_cloud_storage", run_id, "export")
        assert report["statuses"] == {"succeeded": 1}
        assert report["rejoined_count"] == 1
        [job] = cloud.jobs("requests_from_cloud_storage")
        assert job["billedRows"] == 1

    def test_every_image_is_described(self, airflow, cloud):
        succeed(airflow, "describe_images")
        files = cloud.objects("answers/describe_images/answers")
        [(name, data)] = files.items()
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
        assert {json.loads(row["columns"])["uri"] for row in table} == {f"gs://demo/images/{n}.png" for n in ("sunrise", "sea", "meadow")}
        assert all(row["text"] for row in table)

    def test_the_steps_run_one_by_one(self, airflow):
        run_id = succeed(airflow, "steps_one_by_one")
        assert airflow.xcom("steps_one_by_one", run_id, "tell").startswith("{'succeeded': 4}")


class TestWaiting:
    """Ways to wait, and ways to be interrupted."""

    @pytest.mark.parametrize("dag_id", ["blocking", "rescheduling"])
    def test_without_the_triggerer(self, airflow, cloud, dag_id):
        run_id = succeed(airflow, dag_id)
        assert airflow.xcom(dag_id, run_id, "batch.export")["statuses"] == {"succeeded": 3}
        assert len(cloud.jobs(dag_id)) == 1

    @pytest.mark.usefixtures("slow_queue")
    def test_a_clear_keeps_the_job_and_a_mark_failed_cancels_it(self, airflow, cloud):
        """One run: the waiting task is cleared, attaches again to the same job, then is marked failed by a person."""
        airflow.wait_for_dag("hold")
        airflow.unpause("hold")
        run_id = airflow.trigger("hold")
        airflow.wait_for_task("hold", run_id, "batch.wait", {"deferred"})
        links = airflow.links("hold", run_id, "batch.wait")
        assert "/batch-predictions/" in links["Batch job"]

        airflow.clear("hold", run_id, ["batch.create"])
        airflow._wait("the second wait", lambda: self.deferred_again(airflow, run_id), 90, lambda: "")  # noqa: SLF001
        [job] = cloud.jobs("hold")
        assert job["state"] == "JOB_STATE_PENDING"

        airflow.set_task_state("hold", run_id, "batch.wait", "failed")
        airflow._wait("the cancel", lambda: self.cancelled(cloud), 60, lambda: str(cloud.jobs("hold")))  # noqa: SLF001
        assert len(cloud.jobs("hold")) == 1

    @staticmethod
    def deferred_again(airflow, run_id):
        task = airflow.task("hold", run_id, "batch.wait")
        return task if task["state"] == "deferred" and task["try_number"] > 1 else None

    @staticmethod
    def cancelled(cloud):
        [job] = cloud.jobs("hold")
        return job if job["state"] in {"JOB_STATE_CANCELLED", "JOB_STATE_CANCELLING"} else None

    def test_cancel_operator(self, airflow, cloud):
        """The job is cancelled; the sensor after it fails at once and says so."""
        airflow.wait_for_dag("cancelling")
        airflow.unpause("cancelling")
        run_id = airflow.trigger("cancelling")
        run = airflow.wait_for_run("cancelling", run_id)
        assert run["state"] == "failed"
        assert airflow.task("cancelling", run_id, "cancel")["state"] == "success"
        wait = airflow.task("cancelling", run_id, "wait")
        assert (wait["state"], wait["try_number"]) == ("failed", 1)
        assert "ended as JOB_STATE_CANCELLED" in airflow.log("cancelling", run_id, "wait")


class TestBadInput:
    """A line that the importer refuses costs the job; the task says which and does not retry."""

    def test_the_services_words_reach_the_log_and_no_retry_is_made(self, airflow, cloud):
        lines = [{"key": "a", "request": {"contents": [{"role": "user", "parts": [{"text": "x"}]}], "tools": [{"googleSearch": {}}]}}]
        uri = cloud.upload("requests/bad.jsonl", dumps(lines))
        airflow.wait_for_dag("bad_request")
        airflow.unpause("bad_request")
        run_id = airflow.trigger("bad_request", conf={"input_uri": uri})
        run = airflow.wait_for_run("bad_request", run_id)
        assert run["state"] == "failed"
        wait = airflow.task("bad_request", run_id, "wait")
        assert (wait["state"], wait["try_number"]) == ("failed", 1)
        assert "Failed to import data" in airflow.log("bad_request", run_id, "wait")


class TestSourcesAndMapping:
    """Rows from a database, from another task, and mapped batches."""

    def test_database_rows_in_three_jobs(self, airflow, cloud):
        """2,500 rows by a server-side cursor, in shards of 1,000: three jobs, one file, each row once."""
        run_id = succeed(airflow, "database_rows")
        report = airflow.xcom("database_rows", run_id, "batch.export")
        assert report["statuses"] == {"succeeded": 2500}
        assert len(cloud.jobs("database_rows")) == 3
        [(_, data)] = cloud.objects("database_rows/answers").items()
        keys = pyarrow.parquet.read_table(pyarrow.BufferReader(data))["row_key"].to_pylist()
        assert sorted(keys) == sorted(f"r-{n}" for n in range(1, 2501))

    def test_mapped_tasks_have_a_job_each(self, airflow, cloud):
        succeed(airflow, "mapped")
        jobs = cloud.jobs("mapped")
        assert sorted(job["billedRows"] for job in jobs) == [1, 2, 3]
        assert len(cloud.objects("mapped/answers")) == 3

    def test_texts_from_another_task_are_never_rendered(self, airflow, cloud):
        run_id = succeed(airflow, "from_upstream")
        manifest = airflow.xcom("from_upstream", run_id, "batch.prepare")
        name = manifest["shards"][0]["uri"].removeprefix("gs://demo/")
        [(_, data)] = cloud.objects(name).items()
        texts = [json.loads(line)["request"]["contents"][0]["parts"][0]["text"] for line in data.splitlines()]
        assert texts == ["plain", "{{ ds }}", "{% raw %}", "{{ var.value.secret }}"]
