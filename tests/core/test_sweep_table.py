"""The decision table of a sweep, line by line, without a service or a store; and whose job a job is."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import ClassVar

import msgspec
import pytest

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.purchase.buyer import display_name, owner_labels
from airflow_vertex_batch.core.purchase.decide import SETTLE_SECONDS
from airflow_vertex_batch.core.purchase.entries import Intent, Refusal, Submission
from airflow_vertex_batch.core.purchase.ownership import FINGERPRINT_LABEL, IDENTITY_LABEL, INSTALLATION_LABEL
from airflow_vertex_batch.core.upkeep.sweep import is_ours, named_owner
from airflow_vertex_batch.core.upkeep.sweep_decision import (
    Adopt,
    Cancel,
    Harvest,
    Keep,
    Owner,
    SweepPolicy,
    Tell,
    decide_sweep,
)
from tests.builders import NIGHT, a_job, an_identity
from tests.each_case import compare_each, each_case

HOUR = 3600.0
POLICY = SweepPolicy()
SAME, OTHER = "same", "other"
UNKNOWN, ALIVE, SUCCEEDED, FAILED, DELETED = Owner


def _intent(fingerprint=SAME, hours=2.0, **members):
    return Intent(fingerprint=fingerprint, attempt="a", at=NIGHT - timedelta(hours=hours), **members)


def _submission(name="mine", fingerprint=SAME, hours=2.0, **members):
    at = NIGHT - timedelta(hours=hours)
    return Submission(fingerprint=fingerprint, attempt="a", at=at, job_name=name, **members)


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
FOREIGN = Keep("neither a log nor its files tie it to this staging folder")
EMPTY = Keep("it ended without rows: there is nothing to land")
LATE = Cancel("it is older than a task waits for, or the service lets a job run")
NOBODY = Cancel("its run has failed: nobody waits for it")
GONE = Cancel("its run was deleted: nobody waits for it")
A_PERSON = Tell("no log names it: only a person may cancel it, in the console")
MEANT_IT = Adopt("its task meant to buy it and has not recorded it")
LOST = Adopt("its run is active, and its log was lost")
NEVER_LANDED = Harvest("its run has failed: what it answered may not have landed")
NEVER_LANDED_GONE = Harvest("its run was deleted: what it answered may not have landed")

TABLE = {
    # job, its log, its owner, verdict
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
    "running, its task's own, the run deleted": (RUNNING, OWN, DELETED, GONE),
    "running, its task's own, too old, the run deleted": (_job(hours=98.1), OWN, DELETED, GONE),
    "running, meant, the run deleted": (PENDING, MEANT, DELETED, GONE),
    "running, replaced, the run deleted": (RUNNING, REPLACED, DELETED, Cancel("newer has taken its place")),
    "running, something else was meant": (PENDING, [_intent(OTHER)], UNKNOWN, A_PERSON),
    "running, something else was meant since": (
        PENDING,
        [_intent(), _intent(OTHER)],
        UNKNOWN,
        Cancel("its task has meant other input since"),
    ),
    "running, refused by the service, and there all the same": (PENDING, [*MEANT, REFUSED], UNKNOWN, MEANT_IT),
    "running, bought twice": (
        RUNNING,
        [_intent(), _intent(), _submission("p/twin")],
        ALIVE,
        Cancel("twin has taken its place"),
    ),
    "running, bought twice, and the other for other input": (
        RUNNING,
        [_intent(OTHER), _submission("p/other", OTHER)],
        FAILED,
        A_PERSON,
    ),
    "running, no log": (RUNNING, [], UNKNOWN, A_PERSON),
    "running, no log, the run ended well": (RUNNING, [], SUCCEEDED, A_PERSON),
    "running, no log, the run failed": (RUNNING, [], FAILED, A_PERSON),
    "running, no log, the run deleted": (RUNNING, [], DELETED, A_PERSON),
    "running, no log, too old": (_job(hours=99), [], UNKNOWN, A_PERSON),
    "running, no log, the run active": (RUNNING, [], ALIVE, LOST),
    "done, its task's own": (DONE, OWN, UNKNOWN, LANDS),
    "done, its task's own, the run ended well": (DONE, OWN, SUCCEEDED, LANDS),
    "done, its task's own, the run failed": (DONE, OWN, FAILED, NEVER_LANDED),
    "done, its task's own, the run deleted": (DONE, OWN, DELETED, NEVER_LANDED_GONE),
    "done, no log, the run deleted": (DONE, [], DELETED, NEVER_LANDED_GONE),
    "done, replaced": (DONE, REPLACED, UNKNOWN, Harvest("newer has taken its place")),
    "done, meant and not recorded": (DONE, MEANT, UNKNOWN, MEANT_IT),
    "done, meant and not recorded, the run failed": (DONE, MEANT, FAILED, NEVER_LANDED),
    "done, no log": (DONE, [], UNKNOWN, Harvest("no log names it")),
    "done, no log, the run active": (DONE, [], ALIVE, LOST),
    "cancelled with rows, replaced": (
        _job(JobState.CANCELLED, successful_count=1),
        REPLACED,
        UNKNOWN,
        Harvest("newer has taken its place"),
    ),
    "ended, no count, but an output, no log": (
        _job(JobState.EXPIRED, output_uri="gs://out/o"),
        [],
        UNKNOWN,
        Harvest("no log names it"),
    ),
    "ended without rows": (_job(JobState.FAILED, successful_count=0), [], FAILED, EMPTY),
    "ended, no count and no output": (_job(JobState.FAILED), REPLACED, UNKNOWN, EMPTY),
    "ended well, and no row is good: they land as they are": (
        _job(JobState.SUCCEEDED, successful_count=0),
        REPLACED,
        UNKNOWN,
        Harvest("newer has taken its place"),
    ),
    "done long ago": (
        _job(JobState.SUCCEEDED, hours=12 * 24, successful_count=3, ended_at=NIGHT - timedelta(hours=7.1 * 24)),
        REPLACED,
        UNKNOWN,
        Keep("it ended too long ago"),
    ),
    "begun long ago, done of late": (
        _job(JobState.SUCCEEDED, hours=11 * 24, successful_count=3, ended_at=NIGHT - timedelta(hours=6.9 * 24)),
        REPLACED,
        UNKNOWN,
        Harvest("newer has taken its place"),
    ),
    "done, nobody knows when, begun long ago": (
        _job(JobState.SUCCEEDED, hours=8 * 24, successful_count=3),
        REPLACED,
        UNKNOWN,
        Keep("it ended too long ago"),
    ),
    "running for longer than that": (_job(hours=31 * 24), OWN, UNKNOWN, LATE),
    "young, replaced": (_job(hours=0.9), REPLACED, FAILED, YOUNG),
    "young, no log": (_job(hours=0.9), [], FAILED, YOUNG),
    "young and done, no log": (_job(JobState.SUCCEEDED, hours=0.9, successful_count=3), [], UNKNOWN, YOUNG),
    "being cancelled, replaced": (_job(JobState.CANCELLING), REPLACED, UNKNOWN, Keep("it is being cancelled")),
    "of unknown age": (_job(created_at=None), REPLACED, FAILED, Keep("its age is not known")),
}


def test_the_table():
    compare_each(TABLE, lambda job, entries, owner: decide_sweep(job, entries, NIGHT, POLICY, owner=owner))


@each_case(itertools.product(JobState, Owner))
def test_an_installation_beside_ours_is_left_alone(state, owner):
    """The same DAG in another Airflow, with another staging folder: its log is not the one that is read."""
    job = _job(state, successful_count=3)
    for entries in ([], [_intent(OTHER)], [_intent(OTHER), _submission("p/ours", OTHER)]):
        assert isinstance(decide_sweep(job, entries, NIGHT, POLICY, owner=owner, is_local=False), Keep)


def test_what_the_log_names_needs_no_file_in_the_staging_folder():
    assert isinstance(decide_sweep(RUNNING, REPLACED, NIGHT, POLICY, is_local=False), Cancel)


@pytest.mark.parametrize("state", JobState, ids=str)
def test_only_what_runs_is_cancelled_and_only_what_ended_is_harvested(state):
    """Completeness: every state, those to come included, with every log and owner."""
    job = _job(state, successful_count=3)
    logs = ([], MEANT, OWN, REPLACED, [*MEANT, REFUSED])
    verdicts = {type(decide_sweep(job, entries, NIGHT, POLICY, owner=owner)) for entries in logs for owner in Owner}
    assert verdicts <= ({Keep, Adopt, Harvest} if state.is_final else {Keep, Adopt, Cancel, Tell})


@each_case(
    itertools.product(
        [[], [_intent(OTHER)], [_intent(OTHER), _submission("p/other", OTHER)]],
        Owner,
        [2, 99],
    )
)
def test_what_no_log_names_is_never_cancelled(entries, owner, hours):
    """Whatever became of its run, and however old it is: only a person may."""
    assert not isinstance(decide_sweep(_job(hours=hours), entries, NIGHT, POLICY, owner=owner), Cancel)


class TestTwoInstallations:
    """Both share the staging folder: a run that is absent here may be alive there."""

    THEIRS: ClassVar = [_intent(installation="b"), _submission(installation="b")]

    @pytest.mark.parametrize("owner", Owner, ids=str)
    @pytest.mark.parametrize("job", [RUNNING, DONE, _job(hours=99)], ids=["running", "done", "too old"])
    def test_the_one_s_sweep_never_touches_what_the_other_bought(self, job, owner):
        verdict = decide_sweep(job, self.THEIRS, NIGHT, POLICY, owner=owner, installation="a")
        assert verdict == Keep("installation b bought it: its own sweep judges it")

    def test_and_judges_what_itself_bought(self):
        assert decide_sweep(RUNNING, self.THEIRS, NIGHT, POLICY, owner=DELETED, installation="b") == GONE

    def test_the_label_says_who_bought_it_also_when_the_other_wrote_it_down(self):
        job = _job(labels={FINGERPRINT_LABEL: SAME, INSTALLATION_LABEL: "a"})
        assert decide_sweep(job, self.THEIRS, NIGHT, POLICY, owner=DELETED, installation="a") == GONE
        assert isinstance(decide_sweep(job, self.THEIRS, NIGHT, POLICY, owner=DELETED, installation="b"), Keep)

    def test_a_sweep_that_does_not_know_whose_it_is_leaves_a_shared_log_alone(self):
        shared = [*self.THEIRS, _intent(OTHER, installation="a"), _submission("p/newer", OTHER, installation="a")]
        assert isinstance(decide_sweep(RUNNING, shared, NIGHT, POLICY), Keep)
        assert isinstance(decide_sweep(RUNNING, shared, NIGHT, POLICY, installation="b"), Cancel)


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
    @pytest.mark.parametrize("suffix", ["", " 3/4", " repair 1", " repair 2 2/2"])
    def test_is_read_back(self, identity, suffix):
        owner = msgspec.structs.replace(identity, staging="gs://b/staging")
        labels = {IDENTITY_LABEL: owner.key, **owner_labels(owner)}
        job = a_job(display_name=display_name(identity) + suffix, labels=labels)
        assert named_owner(job, "gs://b/staging") == owner
        assert named_owner(job, "gs://b/another") is None

    @pytest.mark.parametrize(
        "name", ["", "nightly", "my own name", "nightly.create another_run", "nightly.create[1] scheduled__2026-11-22"]
    )
    def test_a_name_that_its_label_does_not_prove_is_nobody_s(self, name):
        assert named_owner(a_job(display_name=name, labels={IDENTITY_LABEL: an_identity().key})) is None

    @pytest.mark.parametrize(
        ("state", "owner"),
        [
            ("success", SUCCEEDED),
            ("failed", FAILED),
            ("running", ALIVE),
            ("queued", ALIVE),
            ("deleted", DELETED),
            (None, UNKNOWN),
        ],
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
