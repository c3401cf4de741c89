"""Real runs: a scheduler starts them, a triggerer waits, the tables and the emulator's books say what came of it."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, time

import pyarrow.parquet
import pytest

from tests.airflow.conftest import BACKFILLED, NIGHTLY, days_ago


@pytest.fixture
def succeeded(airflow, begun):
    """Wait for a DAG's run and insist on its success; return its id."""

    def wait(dag_id):
        run = airflow.wait_for_run(dag_id, begun[dag_id])
        assert run["state"] == "success", last_words(airflow, dag_id, begun[dag_id])
        return begun[dag_id]

    return wait


@pytest.fixture
def failed(airflow, begun):
    """Wait for a DAG's run and insist on its failure; return its id."""

    def wait(dag_id):
        assert airflow.wait_for_run(dag_id, begun[dag_id])["state"] == "failed"
        return begun[dag_id]

    return wait


def last_words(airflow, dag_id, run_id):
    """The end of the log of every task that failed."""
    failed = [task for task in airflow.tasks(dag_id, run_id) if task["state"] == "failed"]
    return [airflow.log(dag_id, run_id, task["task_id"], map_index=task["map_index"])[-3000:] for task in failed]


def rows_by_day(cloud, table="triage", day="partition_date", key="row_key"):
    """Rows of a table by day, each row's key once or more."""
    days = {}
    for row in cloud.query(f"SELECT {day}, {key} FROM `demo.support.{table}` ORDER BY 1, 2"):
        days.setdefault(str(row[day]), []).append(row[key])
    return days


def day_of(run):
    """The day whose tickets a run asks for: that of its data interval or, begun by hand, that on which it began."""
    return (run["data_interval_start"] or run["run_after"])[:10]


class TestTheNightlyDag:
    """The main job, begun in every way a run can begin."""

    def test_a_scheduled_run_a_manual_run_and_a_backfill_land_each_day_once(self, airflow, cloud, stack, begun):
        """Every day of a run in the table, every ticket of each once, one job a run; then all again: the same."""
        airflow.wait_for_dag(NIGHTLY)
        airflow.unpause(NIGHTLY)
        manual = airflow.trigger(NIGHTLY)
        old = [days_ago(age) for age in BACKFILLED]
        stack.airflow.cli(
            "backfill", "create", "--dag-id", NIGHTLY, "--from-date", f"{old[0]}", "--to-date", f"{old[-1]}"
        )
        runs = self.ended(airflow)
        [backfill] = airflow.backfills(NIGHTLY)
        airflow.wait_for_backfill(backfill["id"])

        assert Counter(run["run_type"] for run in runs) >= Counter(scheduled=1, manual=1, backfill=3)
        assert airflow.run(NIGHTLY, manual)["logical_date"] is None
        self.landed_once(cloud, runs)

        airflow.backfill(
            NIGHTLY, *(datetime.combine(day, time(), UTC) for day in (old[0], old[-1])),
            reprocess_behavior="completed",
        )  # fmt: skip
        self.landed_once(cloud, self.ended(airflow, cleared=3))

    @staticmethod
    def ended(airflow, cleared=0):
        """Wait until a run of each kind and all runs that there are have ended, so many of them for the second time.

        A day may end meanwhile, and with it comes one more scheduled run.
        """

        def look():
            runs = airflow.runs(NIGHTLY)
            done = [run for run in runs if run["state"] in {"success", "failed"}]
            twice = [run for run in done if exports(airflow, run) >= 2]
            kinds = {run["run_type"] for run in done} >= {"scheduled", "manual", "backfill"}
            return runs if kinds and len(done) == len(runs) and len(twice) >= cleared else None

        return airflow.wait_for(f"all runs of {NIGHTLY}", look, lambda: str(airflow.runs(NIGHTLY)))

    @staticmethod
    def landed_once(cloud, runs):
        """Each run ended well and bought one job; each of their days is in the table, each ticket once."""
        assert all(run["state"] == "success" for run in runs)
        tickets, landed = rows_by_day(cloud, "tickets", "created_on", "ticket_id"), rows_by_day(cloud)
        days = set(map(day_of, runs))
        assert days > {str(days_ago(age)) for age in BACKFILLED}
        assert {day: landed[day] for day in days} == {day: tickets[day] for day in days}
        jobs = Counter(job["labels"]["avb-identity"] for job in cloud.jobs(NIGHTLY))
        assert len(jobs) == len(runs)
        assert set(jobs.values()) == {1}, "a job was bought again"


def exports(airflow, run):
    """How often a run's export task has been tried."""
    return max(
        (
            task["try_number"]
            for task in airflow.tasks(NIGHTLY, run["dag_run_id"])
            if task["task_id"].endswith("export")
        ),
        default=0,
    )


class TestTheExamples:
    """Every file in dags/ runs."""

    def test_no_file_has_an_import_error(self, airflow, begun):
        airflow.wait_for_dag(NIGHTLY)
        assert airflow.import_errors() == {}

    def test_the_guides_own_request_is_sent_as_it_is_and_answered(self, airflow, cloud, succeeded):
        """Its line has no key: the answer is joined by its contents."""
        run_id = succeeded("requests_from_cloud_storage")
        report = airflow.xcom("requests_from_cloud_storage", run_id, "export")
        assert report["statuses"] == {"succeeded": 1}
        assert report["rejoined_count"] == 1
        [job] = cloud.jobs("requests_from_cloud_storage")
        assert job["billedRows"] == 1

    def test_every_image_is_described(self, airflow, cloud, succeeded):
        succeeded("describe_images")
        files = cloud.objects("answers/describe_images/answers")
        [(_, data)] = files.items()
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
        assert {json.loads(row["columns"])["uri"] for row in table} == {
            f"gs://demo/images/{n}.png" for n in ("sunrise", "sea", "meadow")
        }
        assert all(row["text"] for row in table)

    def test_the_steps_run_one_by_one(self, airflow, succeeded):
        run_id = succeeded("steps_one_by_one")
        assert airflow.xcom("steps_one_by_one", run_id, "tell").startswith("{'succeeded': 4}")

    def test_a_sweep_says_what_it_would_do_and_does_nothing(self, airflow, cloud, succeeded):
        run_id = succeeded("sweep_orphans")
        swept = airflow.xcom("sweep_orphans", run_id, "sweep", "report")
        assert swept["is_dry_run"] is True
        assert (swept["error_count"], swept["findings"]) == (0, [])

    def test_a_function_is_a_batch_in_one_task_mapped_over_languages(self, airflow, cloud, succeeded):
        run_id = succeeded("one_task")
        reports = [airflow.xcom("one_task", run_id, "translate", map_index=index) for index in range(3)]
        assert [report["statuses"] for report in reports] == [{"succeeded": 3}] * 3
        assert all(report["estimate"]["request_count"] == 3 for report in reports)
        mine = {name for report in reports for name in report["jobs"]}
        assert [job["billedRows"] for job in cloud.jobs("one_task") if job["name"] in mine] == [3, 3, 3]
        files = [cloud.objects(report["destination"].removeprefix("gs://demo/")) for report in reports]
        rows = [json.loads(line) for [data] in map(dict.values, files) for line in data.splitlines()]
        assert [row["columns"]["language"] for row in rows] == ["Swahili"] * 3 + ["Icelandic"] * 3 + ["Vietnamese"] * 3


class TestWaiting:
    """Ways to wait, and ways to be interrupted."""

    @pytest.mark.parametrize("dag_id", ["blocking", "rescheduling", "from_trigger"])
    def test_in_every_way(self, airflow, cloud, succeeded, dag_id):
        run_id = succeeded(dag_id)
        assert airflow.xcom(dag_id, run_id, "batch.export")["statuses"] == {"succeeded": 3}
        assert len(cloud.jobs(dag_id)) == 1

    def test_a_clear_keeps_the_job_and_a_mark_failed_cancels_it(self, airflow, cloud, begun):
        """One run: the waiting task is cleared, attaches again to the same job, then is marked failed by a person."""
        run_id = begun["hold"]
        airflow.wait_for_task("hold", run_id, "batch.wait", {"deferred"})
        links = airflow.links("hold", run_id, "batch.wait")
        assert "/batch-predictions/" in links["Batch job"]

        airflow.clear("hold", run_id, ["batch.create"])
        airflow.wait_for("the second wait", lambda: self.deferred_again(airflow, run_id), lambda: "")
        [job] = cloud.jobs("hold")
        assert job["state"] == "JOB_STATE_PENDING"

        airflow.set_task_state("hold", run_id, "batch.wait", "failed")
        airflow.wait_for("the cancel", lambda: self.cancelled(cloud), lambda: str(cloud.jobs("hold")))
        assert len(cloud.jobs("hold")) == 1

    @staticmethod
    def deferred_again(airflow, run_id):
        # Airflow tells only a trigger that has begun about the end of its task, so wait until one has.
        task = airflow.task("hold", run_id, "batch.wait")
        begun = "PENDING" in airflow.log("hold", run_id, "batch.wait", 2) if task["try_number"] > 1 else False
        return task if task["state"] == "deferred" and begun and task["triggerer_job"] else None

    @staticmethod
    def cancelled(cloud):
        [job] = cloud.jobs("hold")
        return job if job["state"] in {"JOB_STATE_CANCELLED", "JOB_STATE_CANCELLING"} else None

    def test_cancel_operator(self, airflow, failed):
        """The job is cancelled; the sensor after it fails at once and says so."""
        run_id = failed("cancelling")
        assert airflow.task("cancelling", run_id, "cancel")["state"] == "success"
        wait = airflow.task("cancelling", run_id, "wait")
        assert (wait["state"], wait["try_number"]) == ("failed", 1)
        assert "ended as JOB_STATE_CANCELLED" in airflow.log("cancelling", run_id, "wait")


class TestBadInput:
    """A line that the importer refuses costs the job; the task says which and does not retry."""

    def test_the_services_words_reach_the_log_and_no_retry_is_made(self, airflow, failed):
        run_id = failed("bad_request")
        wait = airflow.task("bad_request", run_id, "wait")
        assert (wait["state"], wait["try_number"]) == ("failed", 1)
        assert "Failed to import data" in airflow.log("bad_request", run_id, "wait")


class TestNothingToDo:
    """A night without rows, where its author says that it is normal."""

    def test_every_task_is_skipped_and_the_first_says_why(self, airflow, cloud, succeeded):
        run_id = succeeded("quiet_day")
        tasks = airflow.tasks("quiet_day", run_id)
        assert [task["state"] for task in tasks] == ["skipped"] * 5
        # What a task of ours has where neither it, its DAG nor the installation says.
        assert [task["max_tries"] for task in tasks] == [2] * 5
        assert airflow.xcom("quiet_day", run_id, "batch.prepare", "skip_reason").startswith("The source has no row")
        assert "This task is skipped: The source has no row" in airflow.log("quiet_day", run_id, "batch.prepare")
        assert cloud.jobs("quiet_day") == []
        assert cloud.objects("quiet_day/answers") == {}

    def test_no_job_is_made_and_an_empty_report_lands(self, airflow, cloud, succeeded):
        run_id = succeeded("empty_night")
        report = airflow.xcom("empty_night", run_id, "batch.export")
        assert (report["request_count"], report["statuses"], report["jobs"]) == (0, {}, [])
        assert cloud.jobs("empty_night") == []
        assert cloud.query("SELECT COUNT(*) AS n FROM `demo.support.nothing`") == [{"n": 0}]


class TestSourcesAndMapping:
    """Rows from a database, from another task, and mapped batches."""

    def test_database_rows_in_three_jobs(self, airflow, cloud, succeeded):
        """2,500 rows by a server-side cursor, in shards of 1,000: three jobs, one file, each row once."""
        run_id = succeeded("database_rows")
        report = airflow.xcom("database_rows", run_id, "batch.export")
        assert report["statuses"] == {"succeeded": 2500}
        assert len(cloud.jobs("database_rows")) == 3
        [(_, data)] = cloud.objects("database_rows/answers").items()
        keys = pyarrow.parquet.read_table(pyarrow.BufferReader(data))["row_key"].to_pylist()
        assert sorted(keys) == sorted(f"r-{n}" for n in range(1, 2501))

    def test_mapped_tasks_have_a_job_each(self, airflow, cloud, succeeded):
        succeeded("mapped")
        jobs = cloud.jobs("mapped")
        assert sorted(job["billedRows"] for job in jobs) == [1, 2, 3]
        assert len(cloud.objects("mapped/answers")) == 3

    def test_texts_from_another_task_are_never_rendered(self, airflow, cloud, succeeded):
        run_id = succeeded("from_upstream")
        manifest = airflow.xcom("from_upstream", run_id, "batch.prepare")
        name = manifest["shards"][0]["uri"].removeprefix("gs://demo/")
        [(_, data)] = cloud.objects(name).items()
        texts = [json.loads(line)["request"]["contents"][0]["parts"][0]["text"] for line in data.splitlines()]
        assert texts == ["plain", "{{ ds }}", "{% raw %}", "{{ var.value.secret }}"]
