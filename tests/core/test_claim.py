"""Whose job is it, and who may cancel it? Two Airflows with one staging folder, jobs that no log names, lost labels."""

from __future__ import annotations

import msgspec
import pytest

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.purchase.buyer import Buyer
from airflow_vertex_batch.core.purchase.decide import OnChangedInput
from airflow_vertex_batch.core.purchase.entries import Intent, Moved, Part, Refusal, Submission
from airflow_vertex_batch.core.purchase.log import BatchLog
from airflow_vertex_batch.core.purchase.ownership import (
    FINGERPRINT_LABEL,
    INSTALLATION_LABEL,
    Claim,
    buyer_of,
    claim_on,
    labels_of,
)
from airflow_vertex_batch.core.purchase.removed_parts import cancel_removed_part
from airflow_vertex_batch.core.purchase.submit import ensure_job
from tests.builders import LOG, NIGHT, a_job, a_log, a_spec, an_identity, an_order
from tests.core.submitting import World
from tests.fakes import Died, EffectLimit, Jobs, MemoryStore


def _entry(kind, fingerprint="f", by="here", **members):
    return kind(fingerprint=fingerprint, attempt="a", at=NIGHT, installation=by, **members)


def _meant(fingerprint="f", by="here"):
    return _entry(Intent, fingerprint, by)


def _bought(fingerprint="f", by="here", name="mine"):
    return _entry(Submission, fingerprint, by, job_name=name)


def _job(**labels):
    return a_job(JobState.RUNNING, name="mine", labels={FINGERPRINT_LABEL: "f"} | labels)


BY_HERE, BY_THERE = {INSTALLATION_LABEL: "here"}, {INSTALLATION_LABEL: "there"}
CLAIMS = {
    # job, log, whose it is
    "the log is empty": (_job(**BY_HERE), [], Claim.UNNAMED),
    "a submission names it": (_job(**BY_HERE), [_bought()], Claim.OURS),
    "a submission names it, whatever it was bought for": (_job(**BY_HERE), [_bought("other")], Claim.OURS),
    "an intent explains it": (_job(**BY_HERE), [_meant()], Claim.OURS),
    "an intent explains it, and others came after": (_job(**BY_HERE), [_meant(), _meant("g")], Claim.OURS),
    "an intent explains it, refused": (_job(**BY_HERE), [_meant(), _entry(Refusal, reason="x")], Claim.OURS),
    "an intent for other input does not": (_job(**BY_HERE), [_meant("g")], Claim.UNNAMED),
    "a submission of another job does not": (_job(**BY_HERE), [_bought(name="other")], Claim.UNNAMED),
    "a move does not": (_job(**BY_HERE), [_entry(Moved, "g", job_name="mine")], Claim.UNNAMED),
    "it has no fingerprint, nor has an intent of old": (
        a_job(JobState.RUNNING, name="mine", labels=BY_HERE),
        [_meant("g")],
        Claim.UNNAMED,
    ),
    "another bought it, by its label": (_job(**BY_THERE), [_bought()], Claim.ANOTHERS),
    "another bought it, and this one wrote it down": (
        _job(**BY_THERE),
        [_meant("f", "there"), _bought()],
        Claim.ANOTHERS,
    ),
    "another bought it, the label lost": (_job(), [_bought(by="there"), _bought()], Claim.ANOTHERS),
    "another meant it, the label lost": (_job(), [_meant(), _meant(by="there")], Claim.ANOTHERS),
    "another's label, and no log": (_job(**BY_THERE), [], Claim.ANOTHERS),
}


@pytest.mark.parametrize(("job", "entries", "claim"), CLAIMS.values(), ids=CLAIMS)
def test_the_table(job, entries, claim):
    assert claim_on(job, entries, "here") is claim


def test_a_job_that_nobody_stamped_has_no_buyer():
    assert buyer_of(a_job(labels={}), []) == ""


@pytest.fixture
def world() -> World:
    return World()


def _unrecord(world):
    """Lose every record."""
    world.store.objects.clear()


class TestWhatNoLogNames:
    """A running job for other input whose record was lost: it is told of, and stays."""

    def test_a_change_of_the_input_buys_and_does_not_cancel_it(self, world, caplog):
        old = world.attempt().job
        _unrecord(world)
        new = world.attempt("c2", token="b")
        assert new.created
        assert {job.name for job in world.service.running} == {old.name, new.job.name}
        assert f"{old.name} (nightly) runs for other input of this task, and bills. It was not cancelled" in caplog.text
        assert f"no entry in {LOG} names it. Cancel it in the console" in caplog.text

    def test_nor_does_a_task_that_attaches_to_its_own(self, world):
        first = world.attempt().job
        stray = world.service.put(
            labels={**labels_of(an_identity(task_id="me"), Part()), FINGERPRINT_LABEL: "of nobody"}
        )
        assert world.attempt(token="b").job.name == first.name
        assert stray.name in {job.name for job in world.service.running}

    def test_the_same_input_still_attaches_to_it(self, world):
        job = world.attempt().job
        _unrecord(world)
        assert world.attempt(token="b").job.name == job.name

    def test_a_crash_between_the_create_and_its_record_leaves_it_explained(self, world):
        """The intent is there: the next attempt for other input may cancel what came of it."""
        effect_limit = EffectLimit(3)
        with pytest.raises(Died, match="after effect 3: create"):
            world.attempt(store=effect_limit.store(world.store), service=effect_limit.service(world.service))
        world.clock.sleep(100)
        new = world.attempt("c2", token="b")
        assert [job.name for job in world.service.running] == [new.job.name]

    def test_a_part_that_the_input_has_no_more_is_told_of(self, world, caplog):
        world.attempt()
        stray = world.service.put(
            labels={**labels_of(an_identity(task_id="me"), Part()), FINGERPRINT_LABEL: "of nobody"}
        )
        cancel_removed_part(a_log(world.store, "b"), world.service, sleep=world.clock.sleep)
        assert [job.name for job in world.service.running] == [stray.name]
        assert f"{stray.name} (nightly) runs" in caplog.text


class TestTwoAirflows:
    """The same DAG in two Airflows that share the staging folder: one log, one job."""

    @pytest.fixture
    def theirs(self, world):
        return world.attempt(installation="there").job

    def test_the_same_input_has_one_job_and_the_other_is_named(self, world, theirs):
        ours = world.attempt(token="b", installation="here")
        assert (ours.created, ours.job.name, ours.sharing) == (False, theirs.name, ("there",))
        assert len(world.service.paid) == 1

    def test_other_input_is_refused_while_the_other_s_job_runs(self, world, theirs):
        with pytest.raises(
            InputError,
            match=rf"No job was created. {theirs.name} \(nightly\) .*installation there bought it; this one is here"
            r".*That job goes on, and bills.*a staging folder of its own",
        ):
            world.attempt("c2", token="b", installation="here")
        assert [job.name for job in world.service.paid] == [theirs.name]
        assert not world.would_buy("c2")

    def test_a_clear_that_asks_for_a_new_job_is_refused_as_well(self, world, theirs):
        with pytest.raises(InputError, match="installation there bought it"):
            world.attempt(token="b", installation="here", generation="2", renew=True)
        assert [job.name for job in world.service.running] == [theirs.name]

    def test_other_input_is_bought_once_the_other_s_job_has_ended(self, world, theirs):
        world.service.change(theirs.name, state="JOB_STATE_SUCCEEDED")
        assert world.attempt("c2", token="b", installation="here").created

    def test_going_back_to_own_input_does_not_cancel_the_other_s_job(self, world):
        ours = world.attempt(installation="here").job
        world.service.change(ours.name, state="JOB_STATE_SUCCEEDED")
        theirs = world.attempt("c2", installation="there").job
        assert world.attempt(token="b", installation="here").job.name == ours.name
        assert [job.name for job in world.service.running] == [theirs.name]

    def test_a_part_that_only_the_other_has_is_left_to_it(self, world, theirs):
        cancel_removed_part(a_log(world.store, "b", installation="here"), world.service, sleep=world.clock.sleep)
        assert [job.name for job in world.service.running] == [theirs.name]

    @pytest.mark.parametrize("policy", OnChangedInput, ids=str)
    def test_whatever_the_policy_nobody_cancels(self, world, theirs, policy):
        with pytest.raises(InputError, match="is running for other input"):
            world.attempt("c2", token="b", installation="here", on_changed_input=policy)
        assert [job.name for job in world.service.running] == [theirs.name]

    def test_a_job_carries_the_name_so_that_a_bill_can_be_split(self, theirs):
        assert theirs.labels[INSTALLATION_LABEL] == "there"

    def test_labels_that_were_lost_before_the_record_are_those_of_who_meant_it(self, world):
        effect_limit = EffectLimit(3)
        with pytest.raises(Died, match="after effect 3: create"):
            world.attempt(
                store=effect_limit.store(world.store), service=effect_limit.service(world.service), installation="there"
            )
        world.service.change(world.service.paid[0].name, labels={})
        assert world.attempt(token="b", installation="here").job.labels[INSTALLATION_LABEL] == "there"
        assert len(world.service.paid) == 1


class TestAStagingFolderOfItsOwn:
    """Two Airflows in one project, each with its folder: neither finds the other's jobs."""

    def test_the_same_task_of_the_same_run_is_another_one(self, world):
        jobs = []
        for name, content in (("one", "c1"), ("two", "c2")):
            log = BatchLog(world.store, an_identity(staging=f"gs://b/{name}"), "a", world.clock).of_job(Part())
            jobs.append(ensure_job(an_order(log, world.service, content=content)).job)
        assert len({job.name for job in jobs}) == len(world.service.running) == 2

    def test_a_slash_at_the_end_is_the_same_folder(self):
        assert an_identity(staging="gs://b/x/").key == an_identity(staging="gs://b/x").key


class TestTheBuyer:
    """Of several jobs of one task, the other Airflow is named once."""

    def test_it_says_once_that_a_folder_is_shared(self, caplog):
        store, service = MemoryStore(**{"gs://in/r.jsonl": b"x"}), Jobs()
        for name in ("there", "here"):
            base = a_spec(inputs=("gs://in/r.jsonl",))
            buyer = Buyer(
                base=base, log=BatchLog(store, an_identity(task_id="me"), "a", installation=name), store=store,
                service=service,
            )  # fmt: skip
            [*buyer.buy(None), *msgspec.structs.replace(buyer).buy(None)]
        assert caplog.text.count(f"there has written {LOG} too") == 1
        assert "this Airflow is here: they share a staging folder" in caplog.text
        assert len(service.paid) == 1
