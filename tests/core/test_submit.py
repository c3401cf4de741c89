"""One paid job, whatever happens: die after every effect, lose every answer, race another writer, count the jobs."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_vertex_batch.core.domain.address import JobName
from airflow_vertex_batch.core.domain.errors import AmbiguousError, InputError, LogError, ServiceError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.purchase.decide import SETTLE_SECONDS, OnChangedInput, Reuse
from airflow_vertex_batch.core.purchase.entries import Intent, Part, Refusal, Submission
from airflow_vertex_batch.core.purchase.ownership import (
    FINGERPRINT_LABEL,
    IDENTITY_LABEL,
    ROUND_LABEL,
    SHARD_LABEL,
    labels_of,
)
from airflow_vertex_batch.core.purchase.submit import ensure_job, job_fingerprint
from tests.builders import a_log, a_spec, an_identity, an_order
from tests.core.submitting import FOLDER, World
from tests.fakes import Died, EffectLimit, Jobs, MemoryStore

QUOTA = ServiceError("Vertex AI answered HTTP 429", status=429, reason="RESOURCE_EXHAUSTED")


@pytest.fixture
def world() -> World:
    return World()


class TestTheOrdinaryWay:
    def test_the_first_attempt_pays_and_the_next_attach(self, world):
        first = world.attempt()
        second = world.attempt(token="b")
        assert first.created
        assert not second.created
        assert second.job.name == first.job.name
        assert len(world.service.paid) == 1
        assert world.log == [Intent, Submission]

    def test_the_job_carries_who_and_what_beside_the_user_s_labels(self, world):
        labels = world.attempt(spec=a_spec(labels={"team": "x"})).job.labels
        assert labels[IDENTITY_LABEL] == an_identity(task_id="me").key
        assert (labels[ROUND_LABEL], labels[SHARD_LABEL]) == ("0", "0")
        assert labels["team"] == "x"
        assert len(labels[FINGERPRINT_LABEL]) == 32

    def test_a_finished_job_is_landed_again_for_free(self, world):
        job = world.attempt().job
        world.service.change(job.name, state="JOB_STATE_SUCCEEDED")
        again = world.attempt(token="b")
        assert (again.job.name, again.created) == (job.name, False)

    @pytest.mark.parametrize("state", ["JOB_STATE_FAILED", "JOB_STATE_CANCELLED"])
    def test_a_failed_job_is_bought_again_naming_what_it_replaces(self, world, state, caplog):
        caplog.set_level("INFO")
        job = world.attempt().job
        world.service.change(job.name, state=state)
        again = world.attempt(token="b")
        assert (again.created, again.replaces) == (True, job.name)
        assert f"It replaces {job.name}." in caplog.text
        assert len(world.service.paid) == 2
        assert len(world.service.running) == 1

    def test_a_job_that_is_gone_is_bought_again(self, world):
        job = world.attempt().job
        world.service.forget(job.name)
        assert world.attempt(token="b").replaces == job.name

    def test_another_identity_has_a_job_of_its_own(self, world):
        world.attempt()
        other = ensure_job(an_order(a_log(world.store, "a", world.clock, task="you"), world.service))
        assert other.created


class TestDyingAfterEveryEffect:
    """Owner, intent, create, submission: the process is killed right after each, and the task is retried."""

    @pytest.mark.parametrize("effects", [1, 2, 3, 4])
    def test_there_is_one_job(self, world, effects):
        effect_limit = EffectLimit(effects)
        with pytest.raises(Died, match=rf"after effect {effects}\b"):
            world.attempt(store=effect_limit.store(world.store), service=effect_limit.service(world.service))
        again = world.attempt(token="b")
        assert len(world.service.paid) == 1
        assert world.service.paid[0].name == again.job.name
        assert world.log[-1] is Submission

    @pytest.mark.parametrize("first", [1, 2, 3, 4])
    @pytest.mark.parametrize("second", [1, 2, 3])
    def test_there_is_one_job_also_when_the_retry_dies(self, world, first, second):
        for number, effects in enumerate((first, second)):
            effect_limit = EffectLimit(effects)
            try:
                world.attempt(
                    store=effect_limit.store(world.store),
                    service=effect_limit.service(world.service),
                    token=str(number),
                )
            except Died:
                continue
        world.attempt(token="last")
        assert len(world.service.paid) == 1

    @pytest.mark.parametrize("effects", [1, 2, 3, 4])
    def test_changing_the_input_leaves_one_running(self, world, effects):
        """Intent, cancel, create, submission. Two were paid for, as documented; the old one no longer runs."""
        old = world.attempt().job
        effect_limit = EffectLimit(effects)
        with pytest.raises(Died, match=rf"after effect {effects}\b"):
            world.attempt(
                "c2", store=effect_limit.store(world.store), service=effect_limit.service(world.service), token="b"
            )
        new = world.attempt("c2", token="c")
        assert [job.name for job in world.service.running] == [new.job.name]
        assert len(world.service.paid) == 2
        assert new.job.name != old.name

    @pytest.mark.parametrize("effects", [1, 2, 3])
    def test_replacing_a_failed_job_buys_one(self, world, effects):
        world.service.change(world.attempt().job.name, state="JOB_STATE_FAILED")
        effect_limit = EffectLimit(effects)
        with pytest.raises(Died, match=rf"after effect {effects}\b"):
            world.attempt(store=effect_limit.store(world.store), service=effect_limit.service(world.service), token="b")
        world.attempt(token="c")
        assert len(world.service.paid) == 2

    def test_an_intent_without_a_job_is_waited_out_then_sent(self, world):
        """The dead attempt's request may still be on its way, so the next one looks for a while before it pays."""
        with pytest.raises(Died, match="after effect 2: write_new"):
            world.attempt(store=EffectLimit(2).store(world.store))
        world.attempt(token="b")
        assert sum(world.clock.slept) == pytest.approx(SETTLE_SECONDS)
        assert max(world.clock.slept) <= 5
        assert world.log == [Intent, Intent, Submission]

    def test_a_job_whose_record_was_lost_is_adopted_at_once(self, world):
        effect_limit = EffectLimit(3)
        with pytest.raises(Died, match="after effect 3: create"):
            world.attempt(store=effect_limit.store(world.store), service=effect_limit.service(world.service))
        assert not world.attempt(token="b").created
        assert world.clock.slept == []


class TestLostAnswers:
    def test_a_create_that_worked_is_found_not_sent_again(self, caplog):
        world = World(creates=["committed"])
        ensured = world.attempt()
        assert len(world.service.paid) == 1
        assert ensured.job.name == world.service.paid[0].name
        assert "asking the service whether the job exists" in caplog.text
        assert world.service.is_used_up

    def test_a_create_that_did_not_work_is_sent_again_after_the_settle_time(self):
        world = World(creates=["dropped"])
        assert world.attempt().created
        assert len(world.service.paid) == 1
        assert sum(world.clock.slept) == pytest.approx(SETTLE_SECONDS)

    def test_answers_that_keep_getting_lost_still_buy_one(self):
        world = World(creates=["dropped", "dropped", "committed"])
        world.attempt()
        assert len(world.service.paid) == 1
        assert world.service.is_used_up

    def test_a_list_that_lags_behind_is_waited_for(self):
        """The look-ups within the settle time outlast a list that does not show the new job yet."""
        world = World(creates=["committed"], list_lags=10)
        world.attempt()
        assert len(world.service.paid) == 1

    def test_a_slow_look_says_what_was_there_when_it_began(self):
        """The list was read before the job appeared in it; by the time the other answers came it had settled."""

        class Slow(Jobs):
            def get(self, name):
                self.clock.sleep(2 * SETTLE_SECONDS)
                return super().get(name)

        world = World()
        world.service = Slow(world.clock, creates=["committed"], list_lags=1)
        old = world.service.put(state="JOB_STATE_SUCCEEDED", labels={})
        log = a_log(world.store, "z", world.clock)
        assert log.append(log.submission("other input", old.name))
        assert not world.attempt().created
        assert len(world.service.paid) == 2

    def test_a_create_call_that_took_longer_than_the_settle_time_is_looked_for_all_the_same(self):
        """The job appears when the call is over, and in lists a little later."""

        class Slow(Jobs):
            def create(self, spec):
                self.clock.sleep(2 * SETTLE_SECONDS)
                return super().create(spec)

        world = World()
        world.service = Slow(world.clock, creates=["committed"], list_lags=3)
        assert not world.attempt().created
        assert len(world.service.paid) == 1
        assert world.log == [Intent, Intent, Submission]

    @pytest.mark.parametrize("seconds", [30.0, 3600.0])
    def test_the_whole_settle_time_is_waited_for(self, seconds):
        world = World(creates=["dropped"])
        assert world.attempt(settle_seconds=seconds).created
        assert sum(world.clock.slept) == pytest.approx(seconds)

    def test_dying_while_waiting_for_a_lost_answer_changes_nothing(self):
        world = World(creates=["committed"], list_lags=3)

        def dies(_seconds):
            raise Died("killed while it waited")

        with pytest.raises(Died, match="while it waited"):
            world.attempt(sleep=dies)
        world.attempt(token="b")
        assert len(world.service.paid) == 1


class TestRefusals:
    def test_a_refused_create_is_recorded_and_raised(self):
        world = World(creates=[QUOTA])
        with pytest.raises(ServiceError, match="HTTP 429"):
            world.attempt()
        assert world.log == [Intent, Refusal]
        assert world.service.paid == []

    def test_the_next_attempt_need_not_wait(self):
        """The service said no, so nothing can be on its way."""
        world = World(creates=[QUOTA])
        with pytest.raises(ServiceError, match="HTTP 429"):
            world.attempt()
        assert world.attempt(token="b").created
        assert world.clock.slept == []

    def test_an_unanswered_look_up_is_not_absence(self, world):
        world.attempt()
        world.service.list_errors = [ServiceError("Vertex AI did not answer", status=503)]
        with pytest.raises(ServiceError, match="did not answer"):
            world.attempt(token="b")
        assert len(world.service.paid) == 1

    def test_a_recorded_job_that_cannot_be_asked_about_is_not_absence(self, world):
        job = world.attempt().job

        class Hiding(Jobs):
            def list(self, labels):
                return iter(())

            def get(self, name: JobName):
                raise ServiceError(f"No right to see {name}", status=403)

        with pytest.raises(ServiceError, match="No right to see"):
            world.attempt(token="b", service=Hiding())
        assert world.service.paid[0].name == job.name

    def test_lost_labels_do_not_lose_the_job(self, world):
        """The log names it, so it is asked for by name."""
        world.service.change(world.attempt().job.name, labels={})
        assert not world.attempt(token="b").created

    def test_the_newest_of_several_answers_also_where_the_list_shows_none(self, world):
        first = world.attempt().job
        world.service.change(first.name, state="JOB_STATE_CANCELLED")
        world.clock.sleep(60)
        second = world.attempt(token="b").job
        for job in (first, second):
            world.service.change(job.name, state="JOB_STATE_CANCELLED", labels={})
        assert world.attempt(token="c", reuse=Reuse.ANY).job.name == second.name

    def test_a_lost_log_does_not_lose_the_job(self, world):
        """The labels name it, so it is adopted and recorded."""
        job = world.attempt().job
        world.store.objects.clear()
        again = world.attempt(token="b")
        assert (again.created, again.job.name) == (False, job.name)
        assert world.log == [Submission]

    @pytest.mark.parametrize("damage", [b"{", b'{"kind":"promise"}'], ids=["torn", "a kind we never wrote"])
    def test_a_damaged_log_sends_nothing(self, world, damage):
        world.store.objects[f"{FOLDER}/000000.json"] = damage
        with pytest.raises(LogError, match="is damaged"):
            world.attempt()
        assert world.service.paid == []

    def test_an_unreadable_log_sends_nothing(self, world):
        class Closed(MemoryStore):
            def read(self, uri):
                raise ServiceError(f"Cloud Storage refused {uri}", status=403)

        closed = Closed(**{f"{FOLDER}/000000.json": b"{}"})
        with pytest.raises(LogError, match="cannot be read"):
            world.attempt(store=closed)
        assert world.service.paid == []


class TestChangedInput:
    def test_the_old_job_is_cancelled_and_replaced(self, world):
        old = world.attempt().job
        new = world.attempt("c2", token="b")
        assert (new.created, new.replaces) == (True, old.name)
        assert [job.name for job in world.service.running] == [new.job.name]

    def test_or_the_task_fails_and_the_old_job_goes_on(self, world):
        old = world.attempt().job
        with pytest.raises(
            InputError, match=rf"No job was created. {old.name} is running for other input.*on_changed_input='resubmit'"
        ):
            world.attempt("c2", token="b", on_changed_input=OnChangedInput.FAIL)
        assert [job.name for job in world.service.running] == [old.name]

    def test_changing_back_attaches_to_what_was_paid_first(self, world):
        first = world.attempt().job
        world.service.change(first.name, state="JOB_STATE_SUCCEEDED")
        world.attempt("c2", token="b")
        assert world.attempt("c1", token="c").job.name == first.name
        assert len(world.service.paid) == 2
        assert world.service.running == []

    def test_or_leaves_the_other_running_where_nothing_may_be_cancelled(self, world):
        first = world.attempt().job
        world.service.change(first.name, state="JOB_STATE_SUCCEEDED")
        second = world.attempt("c2", token="b").job
        assert world.attempt("c1", token="c", on_changed_input=OnChangedInput.FAIL).job.name == first.name
        assert [job.name for job in world.service.running] == [second.name]


class TestTwoWriters:
    @pytest.mark.parametrize(
        "late",
        range(5),
        ids=[
            "after nothing",
            "after it said whose the log is",
            "after its intent",
            "after its create",
            "after its record",
        ],
    )
    def test_whoever_comes_second_attaches(self, world, late):
        """One attempt is stopped after each of its effects, the other runs to its end, then the first goes on."""
        interrupt = Interrupt(late, lambda: world.attempt(token="second"))
        first = world.attempt(
            store=interrupt.around(world.store), service=interrupt.around(world.service), token="first"
        )
        assert len(world.service.paid) == 1
        assert first.job.name == world.service.paid[0].name == interrupt.result.job.name

    @pytest.mark.parametrize(("stalled", "sends"), [(40, True), (50, False)], ids=["briefly", "for longer than half"])
    def test_a_writer_that_stalled_after_its_intent_looks_again_before_it_sends(self, world, stalled, sends):
        """Another writer takes an intent for dead after the settle time; this one must not wake up and send then."""
        interrupt = Interrupt(2, lambda: world.clock.sleep(stalled) or True)
        world.attempt(store=interrupt.around(world.store), token="first")
        assert (world.log == [Intent, Submission]) is sends
        assert len(world.service.paid) == 1

    def test_the_second_waits_for_the_first_s_job(self, world):
        """It finds the intent, and while it waits the job appears."""
        with pytest.raises(Died, match="after effect 2: write_new"):
            world.attempt(store=EffectLimit(2).store(world.store), token="first")

        def meanwhile(seconds):
            world.clock.sleep(seconds)
            if world.clock.slept == [5.0]:
                labels = {**labels_of(an_identity(task_id="me"), Part()), FINGERPRINT_LABEL: fingerprint}
                world.service.put(labels=labels, state="JOB_STATE_PENDING")

        fingerprint = a_log(world.store, "reader").entries()[0].fingerprint
        assert not world.attempt(token="second", sleep=meanwhile).created
        assert len(world.service.paid) == 1

    @pytest.mark.parametrize(
        ("before", "options"),
        [
            (None, {}),
            ("c1", {"content": "c2"}),
            ("c1", {"generation": "1", "renew": True}),
        ],
        ids=["buys nothing", "cancels nothing for its own input", "cancels nothing for its own generation"],
    )
    def test_an_attempt_that_was_replaced_while_it_slept(self, world, before, options):
        """Airflow has given its task to another, which may have a job by now: what it wants is nobody's wish."""
        if before is not None:
            world.attempt(before, generation="3", renew=True)
        paid, running = world.service.paid, world.service.running
        with pytest.raises(
            LogError, match=r"Another attempt has taken nightly/scheduled__2026-11-22/me over.*Nothing was sent"
        ):
            world.attempt(token="old", owns=lambda: False, **options)
        assert (world.service.paid, world.service.running) == (paid, running)

    def test_an_attempt_that_was_replaced_may_still_attach(self, world):
        job = world.attempt().job
        assert world.attempt(token="old", owns=lambda: False).job == job

    def test_a_log_that_never_comes_to_rest_is_said_so(self, world):
        class Contested(MemoryStore):
            def write_new(self, uri, data):
                return False

        with pytest.raises(LogError, match=r"2026-11-22/me.*Another writer.*which other task runs under this identity"):
            world.attempt(store=Contested())
        assert world.service.paid == []


class Interrupt:
    """Runs something else once, right after the n-th effect (0: right before the first)."""

    def __init__(self, after: int, run) -> None:
        self._left, self._run, self.result = after, run, None

    def around(self, port):
        return _Interrupted(self, port)

    def before(self) -> None:
        if self._left == 0 and self.result is None:
            self.result = self._run()

    def count(self) -> None:
        self._left -= 1
        self.before()


class _Interrupted:
    def __init__(self, interrupt: Interrupt, port) -> None:
        self._interrupt, self._port = interrupt, port

    def __getattr__(self, name):
        method = getattr(self._port, name)
        if name not in {"write_new", "create"}:
            return method

        def call(*args):
            self._interrupt.before()
            result = method(*args)
            self._interrupt.count()
            return result

        return call


def test_an_ambiguous_error_is_a_service_error():
    """Whoever catches refusals must be asked to think of it: the order of the except clauses matters."""
    assert issubclass(AmbiguousError, ServiceError)


def test_the_settle_time_outlasts_one_create_call():
    from airflow_vertex_batch.gcp.vertex import TIMEOUT_SECONDS

    assert timedelta(seconds=SETTLE_SECONDS) >= 2 * timedelta(seconds=TIMEOUT_SECONDS)


class TestWouldBuy:
    """The question a budget asks first: is anything paid at all? It changes nothing."""

    def test_only_what_is_not_bought_yet(self, world):
        assert world.would_buy()
        assert world.log == []
        world.attempt()
        assert not world.would_buy()
        assert world.would_buy("c2")

    def test_not_when_the_log_is_lost_and_the_service_has_the_job(self, world):
        world.attempt()
        world.store.objects.clear()
        assert not world.would_buy()

    @pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
    def test_again_when_the_job_ended_without_rows(self, world, state):
        world.service.change(world.attempt().job.name, state=state)
        assert world.would_buy()

    def test_not_while_a_create_call_may_be_under_way_but_for_other_input(self, world):
        log = a_log(world.store, "a", world.clock)
        assert log.append(log.intent(job_fingerprint("c1", a_spec())))
        assert not world.would_buy("c1")
        assert world.would_buy("c2")
        world.clock.sleep(SETTLE_SECONDS + 1)
        assert world.would_buy("c1")

    def test_not_when_a_person_must_choose_first(self, world):
        world.attempt("c1")
        assert not world.would_buy("c2", on_changed_input=OnChangedInput.FAIL)
