"""Jobs left behind in three ways, swept over HTTP: the emulator's books say what was cancelled, and what was billed."""

from __future__ import annotations

import json
from datetime import timedelta

import msgspec
import pytest
from google.oauth2.credentials import Credentials

from airflow_vertex_batch.__main__ import main
from airflow_vertex_batch.core.domain.address import JobName, Uri
from airflow_vertex_batch.core.domain.errors import AmbiguousError
from airflow_vertex_batch.core.purchase.buyer import display_name, owner_labels
from airflow_vertex_batch.core.purchase.entries import Part
from airflow_vertex_batch.core.purchase.log import BatchLog
from airflow_vertex_batch.core.purchase.ownership import FINGERPRINT_LABEL, IDENTITY_LABEL
from airflow_vertex_batch.core.purchase.submit import ensure_job
from airflow_vertex_batch.core.upkeep.sweep import Sweeper
from airflow_vertex_batch.core.upkeep.sweep_decision import Owner, SweepPolicy
from airflow_vertex_batch.core.upkeep.sweep_report import SweepReport
from airflow_vertex_batch.emulator.clock import VirtualClock
from airflow_vertex_batch.emulator.faults import Drop, Http, Pass
from airflow_vertex_batch.emulator.scenario import Pace, Scenario
from airflow_vertex_batch.gcp.vertex import VertexClient
from tests.builders import a_line, a_spec, an_identity, an_order, jsonl
from tests.emulator.worlds import World, listening

#: The answer to the first create is lost; the second job is bought, and its cancel is refused when it is replaced.
FAULTS = (Drop(on="create", when="after"), Pass(on="create", times=4), Http(on="cancel", status=400))
ROWS = 10
#: The name of this Airflow.
HERE = "airflow-here"


class Site:
    """An emulator on a socket, the staging folder of its tasks, and the tasks."""

    def __init__(self, world, url, staging):
        self.world, self.staging, self.owners = world, staging, {}
        self.service = VertexClient(Credentials("token"), "demo", "global", url)
        self.input = staging / "nightly/requests.jsonl"
        with world.store.open_write(self.input) as stream:
            stream.write(jsonl(*(a_line(f"k{number}") for number in range(ROWS))))

    def now(self):
        return self.world.emulator.clock.now()

    def order(self, task):
        identity = an_identity(task_id=task, staging=str(self.staging))
        return identity, a_spec(
            model="gemini-2.5-flash", inputs=(str(self.input),), output=str(self.staging / f"nightly/{task}/output"),
            display_name=display_name(identity), labels=owner_labels(identity),
        )  # fmt: skip

    def buy(self, task, content="c", bought_by=HERE):
        """Let a task buy a job, and return its name."""
        identity, spec = self.order(task)
        log = BatchLog(self.world.store, identity, "1:task", self.now, installation=bought_by).of_job(Part())
        ensured = ensure_job(an_order(log, self.service, spec=spec, content=content))
        self.world.emulator.advance(1)
        return ensured.job.name

    def buy_in_vain(self, task):
        """Let a job be made whose answer is lost, and whose log is too."""
        identity, spec = self.order(task)
        labels = {**spec.labels, IDENTITY_LABEL: identity.key, FINGERPRINT_LABEL: "f"}
        with pytest.raises(AmbiguousError, match="did not answer"):
            self.service.create(msgspec.structs.replace(spec, labels=labels))
        self.world.emulator.advance(1)

    def sweep(self, *, dry_run=False):
        """Sweep, and add the findings up."""
        sweeper = Sweeper(
            self.service, self.world.store, self.world.warehouse, self.staging, SweepPolicy(),
            harvest=Uri("gs", self.staging.bucket, "swept"),
            ask=lambda identity: self.owners.get(identity.task_id, Owner.ALIVE), now=self.now, installation=HERE,
        )  # fmt: skip
        return SweepReport.of(sweeper.sweep(dry_run=dry_run), is_dry_run=dry_run, asked=HERE)

    @property
    def books(self):
        """The emulator's books, job by job, oldest first."""
        return self.world.emulator.books(rows=True)["jobs"]

    def states(self):
        """Return each job's state by the emulator's books, oldest first."""
        return [job["state"].removeprefix("JOB_STATE_") for job in self.books]


@pytest.fixture
def site(gcs, bucket):
    # Ten rows take five hours: after two some are answered and none of the jobs is done.
    scenario = Scenario(faults=FAULTS, pace=Pace(pending_s=60, running_s=0, per_row_s=1800, cancelling_s=10))
    # How old a job is, Cloud Storage's clock says.
    start = gcs.now(bucket) - timedelta(hours=6)
    world = World(gcs, scenario=scenario, clock=VirtualClock(start))
    with listening(world) as url:
        made = Site(world, url, bucket / "staging")
        made.url = url
        yield made


@pytest.fixture
def left_behind(site):
    """Five tasks: one whose answer and log were lost, one whose input changed, one whose run was deleted, one that is
    well, and one of another Airflow.
    """
    site.buy_in_vain("lost")
    site.buy("changed", "before")
    site.buy("changed", "after")
    site.buy("gone")
    site.buy("well")
    site.buy("theirs", bought_by="airflow-there")
    site.owners |= {"lost": Owner.DELETED, "gone": Owner.DELETED, "theirs": Owner.DELETED}
    site.world.emulator.script.check_used()
    site.world.emulator.advance(2 * 3600)
    assert site.states() == ["RUNNING"] * 6
    return site


class TestThreeWays:
    def test_a_dry_run_names_each_with_its_reason_and_leaves_the_books_as_they_are(self, left_behind):
        swept = left_behind.sweep(dry_run=True)
        assert {(finding.task, finding.action, finding.why) for finding in swept.findings} == {
            ("lost", "tell", "no log names it: only a person may cancel it, in the console"),
            ("changed", "cancel", f"{left_behind.books[2]['name'].rpartition('/')[2]} has taken its place"),
            ("gone", "cancel", "its run was deleted: nobody waits for it"),
        }
        assert (swept.looked_at_count, swept.status, swept.unknown_spent_count) == (6, 1, 3)
        assert all(float(finding.money.expected_usd) > 0 for finding in swept.findings)
        assert swept.kept["installation airflow-there bought it: its own sweep judges it"] == 1
        assert left_behind.states() == ["RUNNING"] * 6
        assert left_behind.world.emulator.books()["calls"]["cancel"] == 1

    def test_each_is_cancelled_harvested_and_done_with(self, left_behind):
        site, emulator = left_behind, left_behind.world.emulator
        assert {finding.done for finding in site.sweep().findings} == {
            "cancelled", "nothing: only a person may cancel it",
        }  # fmt: skip
        emulator.advance(60)
        assert site.states() == ["RUNNING", "CANCELLED", "RUNNING", "CANCELLED", "RUNNING", "RUNNING"]
        # A person does, in the console.
        site.service.cancel(JobName.parse(site.books[0]["name"]))
        emulator.advance(60)

        swept = site.sweep()
        assert {finding.task: finding.action for finding in swept.findings} == {
            "lost": "harvest", "changed": "harvest", "gone": "harvest",
        }  # fmt: skip
        for finding in swept.findings:
            (booked,) = [job for job in site.books if job["name"] == finding.job_name]
            assert finding.money.answered_count == booked["billedRows"] > 0
            assert finding.money.is_spent_complete
            with site.world.store.open_read(Uri.parse(finding.done.rpartition(" ")[2])) as stream:
                harvested = sorted(json.loads(line)["row_key"] for line in stream)
            assert harvested == sorted(bill["key"] for bill in booked["bills"] if bill["outcome"] == "answered")

        again = site.sweep()
        assert (again.status, again.kept["it was harvested already"]) == (0, 3)
        emulator.advance(6 * 3600)
        assert site.states()[2] == site.states()[4] == site.states()[5] == "SUCCEEDED"
        assert site.sweep().status == 0
        assert emulator.books()["calls"]["cancel"] == 4


class TestTheCommand:
    """The same by `airflow-vertex-batch sweep`, where no Airflow is named: it says so, first and in its status."""

    @pytest.fixture
    def sweep(self, left_behind, capsys, monkeypatch, storage_url):
        monkeypatch.setenv("VERTEX_BATCH_EMULATOR_HOST", left_behind.url)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)

        def run(*arguments):
            staging = str(left_behind.staging)
            status = main(["sweep", "--project", "demo", "--location", "global", "--staging", staging, *arguments])
            return status, capsys.readouterr()

        return run

    def test_a_dry_run_is_the_default_and_prints_a_table(self, left_behind, sweep):
        status, printed = sweep()
        assert status == 3
        assert printed.out.startswith("No Airflow was asked what became of runs")
        for text in ("global/", "nightly.lost", "nightly.changed", "no log names it", "at least $", "at most $"):
            assert text in printed.out
        assert "6 jobs looked at, 2 left behind: 1 to cancel, 1 to tell; spent $" in printed.out
        assert "2 not or not fully known; of 5 it is not known, nor what became of their runs; a dry run" in printed.out
        assert left_behind.states() == ["RUNNING"] * 6

    def test_apply_does_it_and_prints_json(self, left_behind, sweep):
        harvest = f"gs://{left_behind.staging.bucket}/swept"
        status, printed = sweep("--apply", "--format", "json")
        assert status == 3
        assert printed.err.startswith("No Airflow was asked")
        swept = SweepReport.from_dict(json.loads(printed.out))
        assert [(finding.action, finding.done) for finding in swept.findings] == [
            ("cancel", "cancelled"), ("tell", "nothing: only a person may cancel it"),
        ]  # fmt: skip
        left_behind.world.emulator.advance(60)
        assert left_behind.states() == ["RUNNING", "CANCELLED", *["RUNNING"] * 4]
        status, printed = sweep("--apply", "--harvest-to", harvest)
        assert (status, printed.out.count("good rows to")) == (3, 1)
        status, printed = sweep("--apply", "--harvest-to", harvest)
        assert (status, "kept 1: it was harvested already" in printed.out) == (3, True)

    def test_ages_are_taken_in_hours(self, left_behind, sweep):
        status, printed = sweep("--older-than", "7")
        assert (status, "kept 6: it is young" in printed.out) == (0, True)
        status, printed = sweep("--older-than", "1", "--owner-timeout", "5")
        assert (status, "6 left behind: 5 to cancel, 1 to tell" in printed.out) == (3, True)

    def test_a_log_of_two_airflows_is_left_alone_until_it_is_said_whose_sweep_it_is(self, left_behind, sweep):
        site = left_behind
        (gone,) = [job for job in site.books if "nightly.gone" in job["displayName"]]
        site.service.cancel(JobName.parse(gone["name"]))
        site.world.emulator.advance(60)
        site.buy("gone", "other", bought_by="airflow-there")
        why = "several installations write its log: say which one this sweep is of"
        assert f"kept 2: {why}" in sweep()[1].out
        assert "installation airflow-there bought it" in sweep("--installation", HERE)[1].out

    def test_a_name_is_spelt_as_in_labels_and_one_that_no_job_carries_is_no_clean_sweep(self, left_behind, sweep):
        assert not sweep("--installation", HERE.upper().replace("-", "."))[1].out.startswith("No job here")
        status, printed = sweep("--installation", "airflow-hare")
        assert status == 3
        assert printed.out.startswith(f"No job here was bought by airflow-hare; the names are {HERE}")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--older-than", "0.01"], "Use 90 s <= older_than"),
            (["--harvest-to", "s3://b/x"], "is no folder in Cloud Storage"),
            (["--location", "mars", "--prices", "none.json"], "does not exist"),
            (["--airflow-url", "http://127.0.0.1:9"], "--airflow-url without --installation"),
            (["--airflow-url", "http://127.0.0.1:9", "--installation", "x"], "did not answer"),
        ],
        ids=lambda value: value[0] if isinstance(value, list) else "",
    )
    def test_what_cannot_be_done_is_status_2(self, sweep, arguments, message):
        status, printed = sweep(*arguments)
        assert (status, message in printed.err) == (2, True)
