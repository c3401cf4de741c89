"""What becomes of jobs that nobody owns: sweeps over a service in memory, that die, meet others and meet errors."""

from __future__ import annotations

import json

import pytest

from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.purchase.ownership import FINGERPRINT_LABEL, IDENTITY_LABEL
from airflow_vertex_batch.core.upkeep.sweep_decision import Owner
from airflow_vertex_batch.core.upkeep.sweep_report import SweepReport
from tests.core.sweeping import HARVEST, INPUT, World
from tests.fakes import Died, EffectLimit

A_PERSON_WHY = "no log names it: only a person may cancel it, in the console"
OWNED_WHY = "it is its task's own: the next attempt attaches to it"


@pytest.fixture
def world():
    return World()


class TestSweeping:
    def test_a_dry_run_changes_nothing_and_says_what_would_be_done(self, world):
        job = world.buy().job
        world.forget_logs()
        world.later()
        before = (dict(world.store.objects), world.jobs.paid)
        (finding,) = world.sweep(dry_run=True)
        assert (finding.job_name, finding.action, finding.why) == (job.name, "tell", A_PERSON_WHY)
        assert (finding.dag, finding.task, finding.run_id, finding.age_hours, finding.done) == (
            "nightly", "create", "scheduled__2026-11-22", 2.0, "",
        )  # fmt: skip
        assert (dict(world.store.objects), world.jobs.paid) == before

    @pytest.mark.parametrize("owner", [Owner.UNKNOWN, Owner.SUCCEEDED, Owner.FAILED, Owner.DELETED], ids=str)
    def test_a_running_job_that_no_log_names_is_told_of_and_left_alone(self, world, owner):
        job = world.buy().job
        world.forget_logs()
        world.owners["create"] = owner
        world.later(120)
        assert [finding.done for finding in world.sweep()] == ["nothing: only a person may cancel it"]
        assert world.jobs.running == [job]
        assert SweepReport.of(world.sweep(), is_dry_run=False, asked="it").status == (
            3 if owner is Owner.UNKNOWN else 1
        )

    @pytest.mark.parametrize("owner", [Owner.FAILED, Owner.DELETED], ids=str)
    def test_a_job_whose_run_failed_or_was_deleted_is_cancelled_once(self, world, owner):
        job = world.buy().job
        world.owners["create"] = owner
        world.later()
        assert [finding.done for finding in world.sweep()] == ["cancelled"]
        assert world.state(job.name) is JobState.CANCELLED
        assert [finding.action for finding in world.sweep()] == ["keep"]

    def test_a_run_that_is_absent_here_may_be_alive_in_the_airflow_that_bought_its_job(self, world):
        job = world.buy(bought_by="airflow-there").job
        world.owners["create"] = Owner.DELETED
        world.later()
        (finding,) = world.sweep()
        assert finding.why == "installation airflow-there bought it: its own sweep judges it"
        assert world.jobs.running == [job]
        assert [finding.done for finding in world.sweep(installation="airflow-there")] == ["cancelled"]

    def test_it_asks_only_about_runs_that_a_verdict_hangs_on(self, world):
        old = world.buy().job
        world.buy(content="changed")
        world.jobs.change(old.name, state="JOB_STATE_RUNNING")
        world.buy("own")
        world.later()
        asked = []
        world.ask = lambda identity: asked.append(identity.task_id) or Owner.UNKNOWN
        found = {finding.job_name: finding.is_open for finding in world.sweep(dry_run=True)}
        assert (asked, found[old.name], sum(found.values())) == (["own", "create"], False, 2)

    def test_a_replaced_job_that_still_runs_is_cancelled_and_the_one_in_its_place_is_not(self, world):
        old = world.buy().job
        new = world.buy(content="changed").job
        world.jobs.change(old.name, state="JOB_STATE_RUNNING")
        world.later()
        found = {finding.job_name: (finding.action, finding.done) for finding in world.sweep()}
        assert found == {old.name: ("cancel", "cancelled"), new.name: ("keep", "")}

    def test_a_job_whose_task_died_before_it_wrote_it_down_is_adopted_and_then_attached_to(self, world):
        with pytest.raises(Died, match="after effect 3: create"):
            world.buy(effect_limit=3)
        world.later()
        assert [finding.done for finding in world.sweep()] == ["adopted"]
        assert [finding.why for finding in world.sweep()] == [OWNED_WHY]
        bought = world.buy()
        assert (bought.created, len(world.jobs.paid)) == (False, 1)

    def test_an_adopted_job_is_still_the_one_that_a_clear_asked_for(self, world):
        terms = {"generation": "3", "renew": True}
        with pytest.raises(Died, match="after effect 3: create"):
            world.buy(effect_limit=3, **terms)
        world.later()
        assert [finding.done for finding in world.sweep()] == ["adopted"]
        bought = world.buy(**terms)
        assert (bought.created, len(world.jobs.paid), len(world.jobs.running)) == (False, 1, 1)

    def test_two_jobs_of_one_intent_are_one_adoption_and_one_cancel(self, world):
        with pytest.raises(Died, match="after effect 3: create"):
            world.buy(effect_limit=3)
        first = world.jobs.paid[0]
        second = world.jobs.put(
            labels=first.labels, displayName=first.display_name, createTime=world.clock().isoformat(),
            inputConfig={"gcsSource": {"uris": [INPUT]}},
        )  # fmt: skip
        world.later()
        found = {finding.job_name: finding.done for finding in world.sweep()}
        assert found == {second.name: "adopted", first.name: "cancelled"}
        assert [job.name for job in world.jobs.running] == [second.name]

    def test_a_running_job_whose_run_failed_is_cancelled(self, world):
        world.buy()
        world.owners["create"] = Owner.FAILED
        world.later()
        assert [finding.done for finding in world.sweep()] == ["cancelled"]

    def test_a_finished_job_that_nobody_lands_is_harvested_once(self, world):
        job = world.buy().job
        world.end(job.name, rows=2, state=JobState.CANCELLED)
        world.owners["create"] = Owner.FAILED
        world.later()
        (finding,) = world.sweep()
        assert finding.action == "harvest"
        folder = f"{HARVEST}/nightly/create/global/1"
        assert finding.done.startswith(f"harvested 2 good rows to {folder}/answers/partition_date=2026-11-22/answers-")
        rows = [json.loads(line) for line in world.store.objects[finding.done.split(" to ")[1]].splitlines()]
        assert sorted(row["row_key"] for row in rows) == ["k0", "k1"]
        assert {(row["job_name"], row["run_id"]) for row in rows} == {(job.name, "scheduled__2026-11-22")}
        assert json.loads(world.store.objects[f"{folder}/report.json"])["statuses"] == {"succeeded": 2, "cancelled": 1}
        before = dict(world.store.objects)
        assert [finding.why for finding in world.sweep()] == ["it was harvested already"]
        assert world.store.objects == before

    def test_what_is_lost_for_good_is_told_and_the_rest_is_harvested_once(self, world):
        job = world.buy().job
        world.end(job.name, rows=2)
        counted = {"successfulCount": "3"}
        world.later()
        world.jobs.change(job.name, completionStats=counted, endTime=world.clock().isoformat())
        world.owners["create"] = Owner.FAILED
        (finding,) = world.sweep()
        assert "is not whole: the service counted 3 answered rows, and 2 are there" in finding.error
        assert not [name for name in world.store.objects if "/harvest/" in name]
        world.later(0.2)
        (finding,) = world.sweep()
        assert (finding.action, finding.error) == ("harvest", "")
        assert finding.done.startswith("harvested 2 good rows to ")
        assert finding.done.endswith(
            f"The output of {job.name} is not whole: the service counted 3 answered rows, and 2 are there"
        )
        assert [finding.why for finding in world.sweep()] == ["it was harvested already"]

    def test_a_harvest_that_died_before_its_receipt_is_done_again_into_the_same_files(self, world):
        job = world.buy().job
        world.end(job.name)
        world.forget_logs()
        world.later()
        _, once = world.sweep(), dict(world.store.objects)
        del world.store.objects[f"{HARVEST}/nightly/create/global/1/report.json"]
        assert [finding.action for finding in world.sweep()] == ["harvest"]
        assert world.store.objects == once

    def test_without_a_folder_nothing_is_harvested_and_it_says_so(self, world):
        world.end(world.buy().job.name)
        world.forget_logs()
        world.later()
        (finding,) = world.sweep(harvest=None)
        assert (finding.action, finding.done) == ("harvest", "nothing: no folder was given to harvest to")

    def test_jobs_of_others_are_never_looked_at(self, world):
        world.jobs.put(labels={"team": "x"})
        world.jobs.put(labels={IDENTITY_LABEL: "mine", FINGERPRINT_LABEL: "f"})
        world.later()
        assert world.sweep() == []
        assert len(world.jobs.running) == 2

    def test_a_job_without_a_log_whose_files_lie_elsewhere_is_left_alone(self, world):
        job = world.buy().job
        world.forget_logs()
        elsewhere = {"gcsSource": {"uris": ["gs://b/staging-of-others/r.jsonl"]}}
        world.jobs.change(job.name, inputConfig=elsewhere, displayName="a name of their own")
        world.later()
        (finding,) = world.sweep()
        assert (finding.action, finding.why) == (
            "keep", "neither a log nor its files tie it to this staging folder",
        )  # fmt: skip

    @pytest.mark.parametrize("died_after", range(6))
    def test_a_sweep_that_dies_after_any_effect_is_completed_by_the_next(self, world, died_after):
        """One job of each kind; whatever the first sweep came to, two more leave everything done once."""
        done = world.buy("done").job
        world.end(done.name)
        world.forget_logs()
        running = world.buy("running").job
        world.owners["running"] = Owner.DELETED
        with pytest.raises(Died, match="after effect 3: create"):
            world.buy("meant", effect_limit=3)
        world.later()
        effect_limit = EffectLimit(died_after)
        with pytest.raises(Died, match=rf"after effect {died_after}\b"):
            world.sweep(service=effect_limit.service(world.jobs), store=effect_limit.store(world.store))
        world.sweep()
        assert {finding.action for finding in world.sweep()} == {"keep"}
        assert [job.labels["airflow-task"] for job in world.jobs.running] == ["meant"]
        assert world.state(running.name) is JobState.CANCELLED
        assert len([name for name in world.store.objects if "/harvest/" in name and "/answers-" in name]) == 1
        assert world.buy("meant").created is False


class _Interrupted:
    """A job service during whose first `get` something happens: between the judgement and the effect."""

    def __init__(self, jobs, happening):
        self._jobs, self._happening = jobs, happening

    def __getattr__(self, name):
        return getattr(self._jobs, name)

    def get(self, name):
        self._happening()
        return self._jobs.get(name)


class TestFencing:
    """What happens between the look and the effect."""

    @pytest.fixture
    def orphan(self, world):
        """The job of a run that was deleted."""
        job = world.buy().job
        world.owners["create"] = Owner.DELETED
        world.later()
        return job

    def test_a_task_that_attaches_meanwhile_keeps_its_job(self, world, orphan):
        again = lambda: world.owners.update(create=Owner.ALIVE) or world.buy()  # noqa: E731
        (finding,) = world.sweep(service=_Interrupted(world.jobs, again))
        assert (finding.action, finding.done) == ("cancel", "nothing: it has changed since it was looked at")
        assert world.jobs.running == [orphan]

    def test_a_job_that_ends_meanwhile_is_left_to_the_next_sweep(self, world, orphan):
        (finding,) = world.sweep(service=_Interrupted(world.jobs, lambda: world.end(orphan.name)))
        assert finding.done == "nothing: it has changed since it was looked at"
        assert [finding.action for finding in world.sweep()] == ["harvest"]

    def test_a_run_that_is_cleared_meanwhile_keeps_its_job(self, world):
        job = world.buy().job
        world.later()
        world.owners["create"] = Owner.FAILED
        clear = lambda: world.owners.update(create=Owner.ALIVE)  # noqa: E731
        (finding,) = world.sweep(service=_Interrupted(world.jobs, clear))
        assert (finding.action, finding.done) == ("cancel", "nothing: it has changed since it was looked at")
        assert [running.name for running in world.jobs.running] == [job.name]

    def test_a_task_that_writes_its_log_at_the_same_instant_is_not_written_over(self, world):
        with pytest.raises(Died, match="after effect 3: create"):
            world.buy(effect_limit=3)
        world.later()
        asked = []

        def ask(identity):
            # The second time is right before the adoption, when the log has been read.
            asked.append(identity)
            if len(asked) == 2:
                world.buy()
            return Owner.UNKNOWN

        world.ask = ask
        (finding,) = world.sweep()
        assert (finding.action, finding.done) == ("adopt", "nothing: its task is writing the log")
        assert [finding.action for finding in world.sweep()] == ["keep"]


class TestErrors:
    """One job that cannot be judged or dealt with is told of; the others are dealt with."""

    def test_an_unreadable_log_is_no_absent_log(self, world):
        world.buy("broken")
        other = world.buy("other").job
        world.owners["other"] = Owner.FAILED
        for name in [name for name in world.store.objects if "/log/" in name]:
            if "/broken/" in name:
                world.store.objects[name] = b"{"
        world.later()
        cancelled, broken = world.sweep()
        assert (cancelled.job_name, cancelled.done) == (other.name, "cancelled")
        assert (broken.action, broken.done) == ("", "")
        assert "is damaged" in broken.error
        assert SweepReport.of([cancelled, broken], is_dry_run=False).status == 2

    def test_a_harvest_whose_input_has_gone_is_told(self, world):
        world.end(world.buy().job.name)
        world.forget_logs()
        del world.store.objects[INPUT]
        world.later()
        (finding,) = world.sweep()
        assert (finding.action, finding.done) == ("harvest", "")
        assert finding.error
        assert not [name for name in world.store.objects if name.startswith(str(HARVEST))]

    def test_a_list_that_fails_is_an_error_of_the_sweep(self, world):
        world.jobs.list_errors.append(ServiceError("no", status=503))
        with pytest.raises(ServiceError, match="no"):
            world.sweep()
