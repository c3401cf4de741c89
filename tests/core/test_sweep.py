"""What becomes of jobs that nobody owns: the decision table line by line, and sweeps over a service in memory."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from airflow_vertex_batch.core.address import Uri
from airflow_vertex_batch.core.errors import InputError, ServiceError
from airflow_vertex_batch.core.ledger import Intent, Ledger, Refusal, Submission
from airflow_vertex_batch.core.leftovers import Finding, Money, Swept, money_of
from airflow_vertex_batch.core.model import JobState
from airflow_vertex_batch.core.purchase import display_name, owner_labels
from airflow_vertex_batch.core.submit import FINGERPRINT_LABEL, IDENTITY_LABEL, SETTLE_SECONDS, ensure_job
from airflow_vertex_batch.core.sweep import (
    Adopt,
    Cancel,
    Harvest,
    Keep,
    Owner,
    Sweeper,
    SweepPolicy,
    is_ours,
    judge,
    owner_of,
)
from tests.builders import NIGHT, a_job, a_line, a_response, a_spec, an_identity, an_output, jsonl
from tests.fakes import Clock, Died, Jobs, Lives, MemoryStore, MemoryWarehouse

HOUR = 3600.0
POLICY = SweepPolicy()
SAME, OTHER = "same", "other"
UNKNOWN, ALIVE, SUCCEEDED, FAILED = Owner


def _intent(fingerprint=SAME, hours=2.0):
    return Intent(fingerprint=fingerprint, attempt="a", at=NIGHT - timedelta(hours=hours))


def _submission(name="mine", fingerprint=SAME, hours=2.0):
    return Submission(fingerprint=fingerprint, attempt="a", at=NIGHT - timedelta(hours=hours), job_name=name)


def _job(state=JobState.RUNNING, hours=2.0, **members):
    return a_job(
        state,
        **{"name": "mine", "labels": {FINGERPRINT_LABEL: SAME}, "created_at": NIGHT - timedelta(hours=hours)} | members,
    )


REFUSED = Refusal(fingerprint=SAME, attempt="a", at=NIGHT, reason="QUOTA")
RUNNING, PENDING = _job(), _job(JobState.PENDING)
DONE = _job(JobState.SUCCEEDED, successful_count=3)
OWN, REPLACED = [_intent(), _submission()], [_intent(), _submission(), _intent(), _submission("p/newer")]
MEANT = [_intent()]

OWNED = Keep("it is its task's own: the next attempt attaches to it")
LANDS = Keep("its task lands it, and lands it again when it is cleared")
YOUNG = Keep("it is young: its task may be starting")
BUYING = Keep("a create call of its task may be under way")
FOREIGN = Keep("neither the ledger nor its files tie it to this staging folder")
EMPTY = Keep("it ended without rows: there is nothing to land")
LATE = Cancel("it is older than a task waits for, or the service lets a job run")
NOBODY = Cancel("its run has failed: nobody waits for it")
MEANT_IT = Adopt("its task meant to buy it and has not recorded it")
LOST = Adopt("its run is active, and its ledger was lost")
NEVER_LANDED = Harvest("its run has failed: what it answered may not have landed")

TABLE = {
    # job, its ledger, its owner, verdict
    "running, its task's own": (RUNNING, OWN, UNKNOWN, OWNED),
    "running, its task's own, the run active": (RUNNING, OWN, ALIVE, OWNED),
    "running, its task's own, the run ended well: another DAG may wait": (RUNNING, OWN, SUCCEEDED, OWNED),
    "running, its task's own, the run failed": (RUNNING, OWN, FAILED, NOBODY),
    "queued, its task's own": (_job(JobState.QUEUED), OWN, UNKNOWN, OWNED),
    "paused, its task's own, the run failed": (_job(JobState.PAUSED), OWN, FAILED, NOBODY),
    "running, its task's own, near its end": (_job(hours=97.9), OWN, UNKNOWN, OWNED),
    "running, its task's own, too old": (_job(hours=98.1), OWN, UNKNOWN, LATE),
    "running, its task's own, too old, the run active": (_job(hours=98.1), OWN, ALIVE, OWNED),
    "running, its task's own, a newer intent under way": (RUNNING, [*OWN, _intent(OTHER, 0.1)], UNKNOWN, BUYING),
    "running, its task's own, a newer intent without an end": (RUNNING, [*OWN, _intent(OTHER)], UNKNOWN, OWNED),
    "running, replaced": (RUNNING, REPLACED, UNKNOWN, Cancel("newer has taken its place")),
    "running, replaced, the run active": (RUNNING, REPLACED, ALIVE, Cancel("newer has taken its place")),
    "running, replaced, and taken back": (RUNNING, [*REPLACED, _submission()], UNKNOWN, OWNED),
    "running, meant and not recorded": (PENDING, MEANT, UNKNOWN, MEANT_IT),
    "running, meant a moment ago": (PENDING, [_intent(hours=0.5)], UNKNOWN, BUYING),
    "running, meant, the run failed": (PENDING, MEANT, FAILED, NOBODY),
    "running, meant, too old": (_job(hours=99), MEANT, UNKNOWN, LATE),
    "running, something else was meant": (PENDING, [_intent(OTHER)], UNKNOWN, Cancel("no ledger knows it")),
    "running, refused by the service": (PENDING, [*MEANT, REFUSED], UNKNOWN, Cancel("no ledger knows it")),
    "running, bought twice": (
        RUNNING,
        [_intent(), _intent(), _submission("p/twin")],
        ALIVE,
        Cancel("twin has taken its place"),
    ),
    "running, no ledger": (RUNNING, [], UNKNOWN, Cancel("no ledger knows it")),
    "running, no ledger, the run ended well": (RUNNING, [], SUCCEEDED, Cancel("no ledger knows it")),
    "running, no ledger, the run failed": (RUNNING, [], FAILED, NOBODY),
    "running, no ledger, the run active": (RUNNING, [], ALIVE, LOST),
    "done, its task's own": (DONE, OWN, UNKNOWN, LANDS),
    "done, its task's own, the run ended well": (DONE, OWN, SUCCEEDED, LANDS),
    "done, its task's own, the run failed": (DONE, OWN, FAILED, NEVER_LANDED),
    "done, replaced": (DONE, REPLACED, UNKNOWN, Harvest("newer has taken its place")),
    "done, meant and not recorded": (DONE, MEANT, UNKNOWN, MEANT_IT),
    "done, meant and not recorded, the run failed": (DONE, MEANT, FAILED, NEVER_LANDED),
    "done, no ledger": (DONE, [], UNKNOWN, Harvest("no ledger knows it")),
    "done, no ledger, the run active": (DONE, [], ALIVE, LOST),
    "cancelled with rows, replaced": (
        _job(JobState.CANCELLED, successful_count=1),
        REPLACED,
        UNKNOWN,
        Harvest("newer has taken its place"),
    ),
    "ended, no count, but an output, no ledger": (
        _job(JobState.EXPIRED, output_uri="gs://out/o"),
        [],
        UNKNOWN,
        Harvest("no ledger knows it"),
    ),
    "ended without rows": (_job(JobState.FAILED, successful_count=0), [], FAILED, EMPTY),
    "ended, no count and no output": (_job(JobState.FAILED), REPLACED, UNKNOWN, EMPTY),
    "done long ago": (
        _job(JobState.SUCCEEDED, hours=31 * 24, successful_count=3),
        REPLACED,
        UNKNOWN,
        Keep("it ended too long ago"),
    ),
    "running for longer than that": (_job(hours=31 * 24), OWN, UNKNOWN, LATE),
    "young, replaced": (_job(hours=0.9), REPLACED, FAILED, YOUNG),
    "young, no ledger": (_job(hours=0.9), [], FAILED, YOUNG),
    "young and done, no ledger": (_job(JobState.SUCCEEDED, hours=0.9, successful_count=3), [], UNKNOWN, YOUNG),
    "being cancelled, replaced": (_job(JobState.CANCELLING), REPLACED, UNKNOWN, Keep("it is being cancelled")),
    "of unknown age": (_job(created_at=None), REPLACED, FAILED, Keep("its age is not known")),
}


@pytest.mark.parametrize(("job", "entries", "owner", "verdict"), TABLE.values(), ids=TABLE)
def test_the_table(job, entries, owner, verdict):
    assert judge(job, entries, NIGHT, POLICY, owner=owner) == verdict


@pytest.mark.parametrize("state", JobState, ids=str)
@pytest.mark.parametrize("owner", Owner, ids=str)
def test_an_installation_beside_ours_is_left_alone(state, owner):
    """The same DAG in another Airflow, with another staging folder: its ledger is not the one that is read."""
    job = _job(state, successful_count=3)
    for entries in ([], [_intent(OTHER)], [_intent(), _submission("p/ours")]):
        assert isinstance(judge(job, entries, NIGHT, POLICY, owner=owner, is_local=False), Keep)


def test_what_the_ledger_names_needs_no_file_in_the_staging_folder():
    assert isinstance(judge(RUNNING, REPLACED, NIGHT, POLICY, is_local=False), Cancel)


@pytest.mark.parametrize("state", JobState, ids=str)
def test_only_what_runs_is_cancelled_and_only_what_ended_is_harvested(state):
    """Completeness: every state, those to come included, with every ledger and owner."""
    job = _job(state, successful_count=3)
    ledgers = ([], MEANT, OWN, REPLACED, [*MEANT, REFUSED])
    verdicts = {type(judge(job, entries, NIGHT, POLICY, owner=owner)) for entries in ledgers for owner in Owner}
    assert verdicts <= ({Keep, Adopt, Harvest} if state.is_final else {Keep, Adopt, Cancel})


class TestPolicy:
    @pytest.mark.parametrize(
        "given", [{"older_than": SETTLE_SECONDS - 1}, {"older_than": HOUR, "owner_timeout": HOUR - 1}], ids=str
    )
    def test_it_never_judges_a_job_that_may_just_be_made(self, given):
        with pytest.raises(InputError, match="older_than"):
            SweepPolicy(**given)


class TestOwner:
    """Whose job it is, read from its name and proved by its label."""

    @pytest.mark.parametrize(
        "identity",
        [
            an_identity(),
            an_identity(dag_id="team.nightly", task_id="group.inner.create"),
            an_identity(map_index=12),
            an_identity(map_index=0, run_id="manual__2026-11-22T02:00:00+00:00"),
        ],
        ids=lambda identity: identity.task_id,
    )
    @pytest.mark.parametrize(
        ("shard", "number", "suffix"),
        [(0, 0, ""), (2, 0, " 3/4"), (0, 1, " repair 1"), (1, 2, " repair 2 2/2")],
        ids=str,
    )
    def test_is_read_back(self, identity, shard, number, suffix):
        owner = identity.of_job(shard, number)
        labels = {IDENTITY_LABEL: owner.key, **owner_labels(owner)}
        assert owner_of(a_job(display_name=display_name(identity) + suffix, labels=labels)) == owner

    @pytest.mark.parametrize(
        "name", ["", "nightly", "my own name", "nightly.create another_run", "nightly.create[1] scheduled__2026-11-22"]
    )
    def test_a_name_that_its_label_does_not_prove_is_nobody_s(self, name):
        assert owner_of(a_job(display_name=name, labels={IDENTITY_LABEL: an_identity().key})) is None

    @pytest.mark.parametrize(
        ("state", "owner"),
        [("success", SUCCEEDED), ("failed", FAILED), ("running", ALIVE), ("queued", ALIVE), (None, UNKNOWN)],
    )
    def test_a_state_of_a_run(self, state, owner):
        assert Owner.of_run(state) is owner

    @pytest.mark.parametrize(
        "labels",
        [
            {},
            {IDENTITY_LABEL: "0" * 32},
            {FINGERPRINT_LABEL: "f"},
            {IDENTITY_LABEL: "../" * 10 + "ab", FINGERPRINT_LABEL: "f"},
        ],
        ids=str,
    )
    def test_a_job_without_our_labels_is_not_ours(self, labels):
        assert not is_ours(a_job(labels=labels))


STAGING, HARVEST = Uri.parse("gs://b/staging"), Uri.parse("gs://b/harvest")
INPUT = "gs://b/staging/nightly/requests.jsonl"


class World:
    """A service, a store, and tasks that buy and are killed."""

    def __init__(self):
        self.clock = Clock()
        self.jobs = Jobs(self.clock)
        self.store = MemoryStore()
        self.store.objects[INPUT] = jsonl(*(a_line(f"k{number}") for number in range(3)))
        self.owners = {}

    def buy(self, task="create", content="c", **options):
        """Let a task buy its job; its ledger and labels are as in production."""
        identity = an_identity(task_id=task)
        spec = a_spec(
            display_name=display_name(identity),
            inputs=(INPUT,),
            labels=owner_labels(identity),
            model="publishers/google/models/gemini-2.5-flash",
        )
        lives = Lives(options.pop("lives", None))
        ledger = Ledger(lives.store(self.store), STAGING / "ledger" / identity.key, "task", self.clock)
        return ensure_job(
            spec, identity_key=identity.key, content=content, ledger=ledger, service=lives.service(self.jobs),
            sleep=self.clock.sleep, now=self.clock, **options,
        )  # fmt: skip

    def end(self, name, rows=3, state=JobState.SUCCEEDED):
        """Let a job answer rows and end."""
        output = f"gs://b/out/{name.rpartition('/')[2]}"
        response = a_response() | {"modelVersion": "gemini-2.5-flash"}
        lines = [an_output(f"k{number}", response=response) for number in range(rows)]
        self.store.objects[f"{output}/predictions.jsonl"] = jsonl(*lines)
        self.jobs.change(
            name, state=str(state), outputInfo={"gcsOutputDirectory": output},
            completionStats={"successfulCount": str(rows)},
        )  # fmt: skip

    def sweep(self, *, dry_run=False, harvest=HARVEST, service=None, store=None):
        """Sweep, and return the findings."""
        sweeper = Sweeper(
            service or self.jobs, store or self.store, MemoryWarehouse(), STAGING, POLICY, harvest=harvest,
            ask=lambda identity: self.owners.get(identity.task_id, Owner.UNKNOWN), now=self.clock,
        )  # fmt: skip
        return list(sweeper.sweep(dry_run=dry_run))


@pytest.fixture
def world():
    return World()


def _later(world, hours=2.0):
    world.clock.sleep(hours * HOUR)


def _forget_ledgers(world):
    for name in [name for name in world.store.objects if "/ledger/" in name]:
        del world.store.objects[name]


def _state(world, name):
    return {job.name: job.state for job in world.jobs.paid}[name]


class TestSweeping:
    def test_a_dry_run_changes_nothing_and_says_what_would_be_done(self, world):
        job = world.buy().job
        _forget_ledgers(world)
        _later(world)
        before = (dict(world.store.objects), world.jobs.paid)
        (finding,) = world.sweep(dry_run=True)
        assert (finding.job_name, finding.action, finding.why) == (job.name, "cancel", "no ledger knows it")
        assert (finding.dag, finding.task, finding.run_id, finding.age_hours, finding.done) == (
            "nightly", "create", "scheduled__2026-11-22", 2.0, "",
        )  # fmt: skip
        assert (dict(world.store.objects), world.jobs.paid) == before

    def test_a_job_that_no_ledger_knows_is_cancelled_once(self, world):
        job = world.buy().job
        _forget_ledgers(world)
        _later(world)
        assert [finding.done for finding in world.sweep()] == ["cancelled"]
        assert _state(world, job.name) is JobState.CANCELLED
        assert [finding.action for finding in world.sweep()] == ["keep"]

    def test_a_replaced_job_that_still_runs_is_cancelled_and_the_one_in_its_place_is_not(self, world):
        old = world.buy().job
        new = world.buy(content="changed").job
        world.jobs.change(old.name, state="JOB_STATE_RUNNING")
        _later(world)
        found = {finding.job_name: (finding.action, finding.done) for finding in world.sweep()}
        assert found == {old.name: ("cancel", "cancelled"), new.name: ("keep", "")}

    def test_a_job_whose_task_died_before_it_wrote_it_down_is_adopted_and_then_attached_to(self, world):
        with pytest.raises(Died):
            world.buy(lives=2)
        _later(world)
        assert [finding.done for finding in world.sweep()] == ["adopted"]
        assert [finding.why for finding in world.sweep()] == [OWNED.why]
        bought = world.buy()
        assert (bought.created, len(world.jobs.paid)) == (False, 1)

    def test_two_jobs_of_one_intent_are_one_adoption_and_one_cancel(self, world):
        with pytest.raises(Died):
            world.buy(lives=2)
        first = world.jobs.paid[0]
        second = world.jobs.put(
            labels=first.labels, displayName=first.display_name, createTime=world.clock().isoformat(),
            inputConfig={"gcsSource": {"uris": [INPUT]}},
        )  # fmt: skip
        _later(world)
        found = {finding.job_name: finding.done for finding in world.sweep()}
        assert found == {second.name: "adopted", first.name: "cancelled"}
        assert [job.name for job in world.jobs.running] == [second.name]

    def test_a_running_job_whose_run_failed_is_cancelled(self, world):
        world.buy()
        world.owners["create"] = Owner.FAILED
        _later(world)
        assert [finding.done for finding in world.sweep()] == ["cancelled"]

    def test_a_finished_job_that_nobody_lands_is_harvested_once(self, world):
        job = world.buy().job
        world.end(job.name, rows=2, state=JobState.CANCELLED)
        world.owners["create"] = Owner.FAILED
        _later(world)
        (finding,) = world.sweep()
        assert finding.action == "harvest"
        folder = f"{HARVEST}/nightly/create/global/1"
        assert finding.done.startswith(f"harvested 2 good rows to {folder}/answers-")
        rows = [json.loads(line) for line in world.store.objects[finding.done.split(" to ")[1]].splitlines()]
        assert sorted(row["row_key"] for row in rows) == ["k0", "k1"]
        assert {(row["job_name"], row["run_id"], row["partition_date"]) for row in rows} == {
            (job.name, "scheduled__2026-11-22", "2026-11-22")
        }
        assert json.loads(world.store.objects[f"{folder}/report.json"])["statuses"] == {"succeeded": 2, "cancelled": 1}
        before = dict(world.store.objects)
        assert [finding.why for finding in world.sweep()] == ["it was harvested already"]
        assert world.store.objects == before

    def test_a_harvest_that_died_before_its_receipt_is_done_again_into_the_same_files(self, world):
        job = world.buy().job
        world.end(job.name)
        _forget_ledgers(world)
        _later(world)
        _, once = world.sweep(), dict(world.store.objects)
        del world.store.objects[f"{HARVEST}/nightly/create/global/1/report.json"]
        assert [finding.action for finding in world.sweep()] == ["harvest"]
        assert world.store.objects == once

    def test_without_a_folder_nothing_is_harvested_and_it_says_so(self, world):
        world.end(world.buy().job.name)
        _forget_ledgers(world)
        _later(world)
        (finding,) = world.sweep(harvest=None)
        assert (finding.action, finding.done) == ("harvest", "nothing: no folder was given to harvest to")

    def test_jobs_of_others_are_never_looked_at(self, world):
        world.jobs.put(labels={"team": "x"})
        world.jobs.put(labels={IDENTITY_LABEL: "mine", FINGERPRINT_LABEL: "f"})
        _later(world)
        assert world.sweep() == []
        assert len(world.jobs.running) == 2

    @pytest.mark.parametrize("died_after", range(6))
    def test_a_sweep_that_dies_after_any_effect_is_completed_by_the_next(self, world, died_after):
        """One job of each kind; whatever the first sweep came to, two more leave everything done once."""
        done = world.buy("done").job
        world.end(done.name)
        running = world.buy("running").job
        _forget_ledgers(world)
        with pytest.raises(Died):
            world.buy("meant", lives=2)
        _later(world)
        lives = Lives(died_after)
        with pytest.raises(Died):
            world.sweep(service=lives.service(world.jobs), store=lives.store(world.store))
        world.sweep()
        assert {finding.action for finding in world.sweep()} == {"keep"}
        assert [job.labels["airflow-task"] for job in world.jobs.running] == ["meant"]
        assert _state(world, running.name) is JobState.CANCELLED
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
        job = world.buy().job
        _forget_ledgers(world)
        _later(world)
        return job

    def test_a_task_that_attaches_meanwhile_keeps_its_job(self, world, orphan):
        (finding,) = world.sweep(service=_Interrupted(world.jobs, world.buy))
        assert (finding.action, finding.done) == ("cancel", "nothing: it has changed since it was looked at")
        assert world.jobs.running == [orphan]

    def test_a_job_that_ends_meanwhile_is_left_to_the_next_sweep(self, world, orphan):
        (finding,) = world.sweep(service=_Interrupted(world.jobs, lambda: world.end(orphan.name)))
        assert finding.done == "nothing: it has changed since it was looked at"
        assert [finding.action for finding in world.sweep()] == ["harvest"]

    def test_a_run_that_is_cleared_meanwhile_keeps_its_job(self, world):
        job = world.buy().job
        _later(world)
        world.owners["create"] = Owner.FAILED
        clear = lambda: world.owners.update(create=Owner.ALIVE)  # noqa: E731
        (finding,) = world.sweep(service=_Interrupted(world.jobs, clear))
        assert (finding.action, finding.done) == ("cancel", "nothing: it has changed since it was looked at")
        assert [running.name for running in world.jobs.running] == [job.name]


class TestErrors:
    """One job that cannot be judged or dealt with is told of; the others are dealt with."""

    def test_an_unreadable_ledger_is_no_absent_ledger(self, world):
        world.buy("broken")
        other = world.buy("other").job
        for name in [name for name in world.store.objects if "/ledger/" in name]:
            if an_identity(task_id="broken").key in name:
                world.store.objects[name] = b"{"
            else:
                del world.store.objects[name]
        _later(world)
        cancelled, broken = world.sweep()
        assert (cancelled.job_name, cancelled.done) == (other.name, "cancelled")
        assert (broken.action, broken.done) == ("", "")
        assert "is damaged" in broken.error
        assert Swept.of([cancelled, broken], is_dry_run=False).status == 2

    def test_a_harvest_whose_input_has_gone_is_told(self, world):
        world.end(world.buy().job.name)
        _forget_ledgers(world)
        del world.store.objects[INPUT]
        _later(world)
        (finding,) = world.sweep()
        assert (finding.action, finding.done) == ("harvest", "")
        assert finding.error
        assert not [name for name in world.store.objects if name.startswith(str(HARVEST))]

    def test_a_list_that_fails_is_an_error_of_the_sweep(self, world):
        world.jobs.list_errors.append(ServiceError("no", status=503))
        with pytest.raises(ServiceError, match="no"):
            world.sweep()


class TestMoney:
    def test_a_job_that_has_not_begun_has_an_estimate_and_nothing_known_spent(self, world):
        job = world.buy().job
        money = money_of(job, world.store, MemoryWarehouse())
        assert (money.answered_count, money.spent_usd, money.spent) == (-1, None, "unknown")
        assert 0 < float(money.expected_usd) < float(money.at_most_usd)

    def test_a_job_that_ended_is_priced_by_its_output(self, world):
        job = world.buy().job
        world.end(job.name, rows=2)
        money = money_of(world.jobs.get(job.job_name), world.store, MemoryWarehouse())
        # Two rows of 10 prompt tokens at $0.15 and 5 output tokens at $1.25 a million.
        assert money == Money(answered_count=2, spent_usd="0.000016", is_spent_complete=True)

    def test_a_count_above_what_can_be_read_is_a_lower_bound(self, world):
        job = world.buy().job
        world.end(job.name, rows=2)
        world.jobs.change(job.name, completionStats={"successfulCount": "3"})
        money = money_of(world.jobs.get(job.job_name), world.store, MemoryWarehouse())
        assert (money.answered_count, money.spent) == (3, "at least $0.000016")

    @pytest.mark.parametrize("gone", [INPUT, "gs://b/out/1/predictions.jsonl"])
    def test_what_cannot_be_read_is_unknown_and_never_zero(self, world, gone):
        job = world.buy().job
        world.end(job.name)
        del world.store.objects[gone]
        money = money_of(world.jobs.get(job.job_name), world.store, MemoryWarehouse())
        assert (money.answered_count, money.spent_usd) == (3, None)

    def test_a_model_without_a_price_is_unknown(self, world):
        job = world.buy().job
        world.jobs.change(job.name, model="publishers/google/models/gemini-99-moon")
        money = money_of(world.jobs.get(job.job_name), world.store, MemoryWarehouse())
        assert (money.expected_usd, money.spent_usd) == (None, None)


def _finding(number=1, action="cancel", **members):
    name = f"projects/1/locations/global/batchPredictionJobs/{number}"
    return Finding(**{"job_name": name, "state": "JOB_STATE_RUNNING", "action": action, "why": "w"} | members)


class TestSwept:
    @pytest.mark.parametrize(
        ("findings", "status"),
        [
            ([], 0),
            ([_finding(action="keep")], 0),
            ([_finding()], 1),
            ([_finding(), _finding(action="", error="e")], 2),
        ],
        ids=["none", "kept", "left behind", "an error"],
    )
    def test_status(self, findings, status):
        assert Swept.of(findings, is_dry_run=True).status == status

    def test_costs_add_up_and_unknown_ones_are_counted(self):
        known, part = Money(spent_usd="0.25", is_spent_complete=True), Money(spent_usd="1")
        swept = Swept.of([_finding(money=known), _finding(money=part), _finding()], is_dry_run=True)
        assert (swept.spent_usd, swept.unknown_spent_count) == ("1.250000", 2)
        assert "spent $1.25, 2 not or not fully known; a dry run, nothing was done" in swept.summary()

    def test_a_hundred_are_listed_and_the_others_counted(self):
        swept = Swept.of((_finding(number) for number in range(130)), is_dry_run=False)
        assert (len(swept.findings), swept.unlisted_count, swept.actions) == (100, 30, {"cancel": 130})
        assert len(json.dumps(swept.as_dict())) < 60_000
        assert Swept.from_dict(swept.as_dict()) == swept
        assert "and 30 more" in swept.text()

    def test_the_table_says_what_is_known(self):
        money = Money(answered_count=1200, spent_usd="0.5", expected_usd="2", at_most_usd="9")
        left = _finding(dag="d", task="t", age_hours=3.0, money=money, done="cancelled")
        text = Swept.of([left, _finding(2), _finding(3, "keep", why="owned")], is_dry_run=False).text()
        for part in ("global/1", "d.t", "RUNNING", "1,200", "at least $0.50", "$2.00, at most $9.00", "cancelled"):
            assert part in text
        assert text.count("unknown") == 3
        assert "kept 1: owned" in text
        assert "3 jobs looked at, 2 left behind: 2 to cancel" in text
