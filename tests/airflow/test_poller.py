"""One poller for all waiters of a process: how often it asks, and who hears of what."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from airflow_vertex_batch.core.domain.address import JobName
from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.core.domain.job import BatchJob, JobState
from airflow_vertex_batch.edge.view import _pollers, shared_poller
from airflow_vertex_batch.emulator.filters import parse_filter

NAMES = [JobName("1", "us-central1", str(number)) for number in range(50)]
MANY = [JobName("1", "us-central1", str(number)) for number in range(2_000)]
BORN = datetime(2026, 11, 22, tzinfo=UTC)
BUSY = ServiceError("busy", status=429)


class Client:
    """A service that counts what it is asked, and reads filters as the emulator does.

    :param unlabelled: jobs that no list shows.
    :param errors: raised by calls to come, by kind; None for a call that goes well.
    """

    def __init__(self, names=NAMES, unlabelled=(), **errors):
        self.states = {str(name): JobState.RUNNING for name in names}
        self.born = {str(name): BORN + timedelta(seconds=int(name.job_id)) for name in names}
        self.unlabelled = {str(name) for name in unlabelled}
        self.errors = {kind: list(made) for kind, made in errors.items()}
        self.pages_read = self.gets = self.opened = self.closed = self.under_way = self.most_under_way = 0

        self.hundred_asked, self.gets_before_lists = asyncio.Event(), set()

    @property
    def asked(self):
        """Calls so far: pages and gets."""
        return self.pages_read, self.gets

    def end(self, names, state=JobState.SUCCEEDED):
        self.states.update({str(name): state for name in names})

    async def __aenter__(self):
        self.opened += 1
        return self

    async def __aexit__(self, *exc_info):
        self.closed += 1

    def job(self, name):
        return BatchJob(name=name, state=self.states[name], created_at=self.born[name])

    def document(self, name, state):
        return {"state": str(state), "labels": {"avb-identity": "x"}, "createTime": self.born[name].isoformat()}

    def fail(self, kind):
        if self.errors.get(kind) and (error := self.errors[kind].pop(0)) is not None:
            raise error

    async def get(self, name):
        self.gets += 1
        if self.gets == 100:
            self.hundred_asked.set()
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        self.fail("get")
        return self.job(str(name))

    async def pages(self, query):
        self.gets_before_lists.add(self.gets)
        matches = parse_filter(query).matches
        found = [
            name
            for name, state in self.states.items()
            if name not in self.unlabelled and matches(self.document(name, state))
        ]
        for start in range(0, max(len(found), 1), 100):
            self.pages_read += 1
            await asyncio.sleep(0)
            self.fail("list")
            yield [self.job(name) for name in found[start : start + 100]]


def joined(client, key="key", poll_interval=0.01):
    """Join the poller that asks `client`."""

    async def connect():
        return client

    return shared_poller(key, connect, poll_interval)


async def ask(client, names, key="key"):
    """Let every name be waited for by a waiter of its own; return what each heard."""

    async def one(name):
        async with joined(client, key) as service:
            return await service.get(name)

    return await asyncio.gather(*(one(name) for name in names), return_exceptions=True)


async def ask_again(service, names):
    """Ask for names at once, as one waiter."""
    return await asyncio.gather(*(service.get(name) for name in names), return_exceptions=True)


class TestOneRound:
    async def test_fifty_waiters_cost_one_list_and_one_connection(self):
        client = Client()
        jobs = await ask(client, NAMES)
        assert [job.name for job in jobs] == [str(name) for name in NAMES]
        assert client.asked == (1, 0)
        assert (client.opened, client.closed, _pollers) == (1, 1, {})

    async def test_two_thousand_cost_a_page_for_each_hundred(self):
        client = Client(MANY)
        assert len(await ask(client, MANY)) == 2_000
        assert client.asked == (20, 0)

    async def test_a_job_that_the_list_does_not_show_is_asked_for_singly(self):
        client = Client()
        client.end(NAMES[48:])
        jobs = await ask(client, NAMES)
        assert [job.state for job in jobs[48:]] == [JobState.SUCCEEDED] * 2
        assert client.asked == (1, 2)

    async def test_a_handful_is_not_worth_a_list(self):
        client = Client()
        await ask(client, NAMES[:3])
        assert client.asked == (0, 3)

    async def test_fewer_jobs_than_pages_are_not_worth_a_list_either(self):
        client = Client(MANY)
        async with joined(client) as service:
            await ask_again(service, MANY)
            await ask_again(service, MANY[:15])
        assert client.asked == (20, 15)

    async def test_two_waiters_for_one_job_cost_one_question(self):
        client = Client()
        await ask(client, [NAMES[0], NAMES[0]])
        assert client.gets == 1

    async def test_other_keys_have_other_pollers(self):
        first, second = Client(), Client()
        await asyncio.gather(ask(first, NAMES, "a"), ask(second, NAMES, "b"))
        assert first.asked == second.asked == (1, 0)


class TestManyThatEndTogether:
    """A burst of ends is no burst of calls."""

    @pytest.mark.parametrize(
        "state", [state for state in JobState if state.is_final], ids=lambda state: state.name.lower()
    )
    async def test_they_are_listed(self, state):
        client = Client(MANY)
        async with joined(client) as service:
            await ask_again(service, MANY)
            client.end(MANY, state)
            jobs = await ask_again(service, MANY)
        assert {job.state for job in jobs} == {state}
        assert client.asked == (20 + 1 + 20, 0)

    async def test_the_list_begins_with_the_oldest_that_is_missed(self):
        """A thousand that ended long ago are nobody's business."""
        client = Client(MANY)
        client.end(MANY[:1_000])
        async with joined(client) as service:
            await ask_again(service, MANY[1_000:])
            client.end(MANY[1_000:1_100])
            await ask_again(service, MANY[1_000:])
        assert client.asked == (10 + 9 + 1, 0)

    async def test_a_list_that_does_not_show_them_is_given_up(self):
        """Ten of ten thousand: two pages at the most, then one question for each."""
        client = Client(MANY)
        client.end(MANY)
        await ask(client, MANY[-20:])
        assert client.asked == (1 + 2, 20)

    async def test_what_no_list_shows_is_asked_for_a_few_at_a_time(self):
        client = Client(MANY, unlabelled=MANY)
        async with joined(client) as service:
            jobs = await asyncio.wait_for(ask_again(service, MANY[:500]), 300)
        assert len(jobs) == 500
        assert client.gets == 500
        assert client.most_under_way == 8

    async def test_a_round_asks_two_hundred_times_at_the_most(self):
        """Each round begins with a list: after so many questions each."""
        client = Client(MANY, unlabelled=MANY)
        async with joined(client) as service:
            jobs = await ask_again(service, MANY[:500])
        assert all(isinstance(job, BatchJob) for job in jobs)
        assert client.gets_before_lists == {0, 200, 400}

    async def test_what_no_list_shows_is_not_looked_for_among_the_ended_again(self):
        client = Client(unlabelled=NAMES)
        async with joined(client) as service:
            await ask_again(service, NAMES)
            first = client.pages_read
            await ask_again(service, NAMES)
        assert (first, client.pages_read) == (2, 3)

    async def test_a_question_that_waits_for_its_turn_is_still_one_question(self):
        """It was put back; another waiter asks for the same job meanwhile."""
        client = Client(MANY, unlabelled=MANY)
        async with joined(client, poll_interval=0.1) as service:
            asking = asyncio.ensure_future(ask_again(service, MANY[:250]))
            await asyncio.wait_for(client.hundred_asked.wait(), 300)
            late = asyncio.ensure_future(service.get(MANY[249]))
            assert (await late).name == str(MANY[249])
            await asking
        assert client.gets == 250


class TestRhythm:
    async def test_waiters_that_begin_at_any_moment_fall_into_step(self):
        """Fifty waiters, spread over an interval, three questions each: not fifty rounds."""
        client = Client()

        async def wait(number):
            async with joined(client, poll_interval=0.2) as service:
                await asyncio.sleep(number * 0.004)
                for _ in range(3):
                    await service.get(NAMES[number])
                    await asyncio.sleep(0.2)

        await asyncio.gather(*(wait(number) for number in range(50)))
        assert client.pages_read <= 6
        assert client.gets <= 8

    async def test_a_hasty_waiter_does_not_wait_for_a_patient_one(self):
        client = Client()
        async with joined(client, poll_interval=3600) as patient, joined(client, poll_interval=0.01) as hasty:
            slow = asyncio.ensure_future(patient.get(NAMES[0]))
            await asyncio.sleep(0)
            await asyncio.wait_for(hasty.get(NAMES[1]), 300)
            assert (await asyncio.wait_for(slow, 300)).name == str(NAMES[0])

    async def test_ended_jobs_tell_how_long_such_jobs_run(self):
        times = {"started_at": BORN, "ended_at": BORN + timedelta(seconds=77)}
        job = BatchJob(name=str(NAMES[0]), state=JobState.SUCCEEDED, model="a model of this test", **times)
        client = Client()
        client.job = lambda _name: job
        async with joined(client) as service:
            assert service.usual(job) is None
            await service.get(NAMES[0])
            assert service.usual(job) == 77


class TestErrors:
    async def test_a_service_that_knows_no_label_filter_is_asked_singly(self):
        client = Client(list=[ServiceError("filter", status=400), ServiceError("filter", status=400)])
        async with joined(client) as service:
            for _ in range(2):
                jobs = await ask_again(service, NAMES)
                assert all(isinstance(job, BatchJob) for job in jobs)
        assert client.asked == (1, 100)

    async def test_an_error_of_the_list_reaches_every_waiter_of_the_round(self):
        client = Client(list=[ServiceError("down", status=503)])
        async with joined(client) as service:
            answers = await ask_again(service, NAMES)
            assert {answer.status for answer in answers} == {503}
            assert all(isinstance(job, BatchJob) for job in await ask_again(service, NAMES))

    async def test_an_error_of_a_later_page_spares_those_who_know_already(self):
        client = Client(MANY, list=[None] * 5 + [ServiceError("down", status=503)])
        answers = await ask(client, MANY)
        assert sum(isinstance(answer, BatchJob) for answer in answers) == 500
        assert sum(isinstance(answer, ServiceError) for answer in answers) == 1_500

    async def test_a_bug_reaches_every_waiter_too(self):
        client = Client(list=[RuntimeError("a bug")])
        answers = await ask(client, NAMES)
        assert {str(answer) for answer in answers} == {"Polling failed: RuntimeError."}

    async def test_a_bug_is_logged_once_without_its_message(self, caplog):
        class FirstError(Exception):
            pass

        class SecondError(Exception):
            pass

        client = Client(list=[FirstError("a secret"), FirstError("a secret"), SecondError("a secret")])
        async with joined(client) as service:
            for _ in range(3):
                await ask_again(service, NAMES)
        lines = [record.getMessage() for record in caplog.records if record.name == "airflow_vertex_batch.edge.poller"]
        assert [line.partition("\n")[0].rpartition(".")[2] for line in lines] == ["FirstError", "SecondError"]
        assert all("in _ask\n" in line and "in fail\n" in line for line in lines)
        assert "a secret" not in caplog.text

    async def test_an_error_of_one_job_reaches_only_its_waiter(self):
        client = Client(get=[ServiceError("gone", status=404)])
        client.end(NAMES[7:8])
        answers = await ask(client, NAMES)
        assert [answer.status for answer in answers if isinstance(answer, ServiceError)] == [404]
        assert sum(isinstance(answer, BatchJob) for answer in answers) == 49


class TestRefusals:
    """Too many calls: all waiters of the poller slow down together."""

    @pytest.mark.parametrize("kind", ["list", "get"])
    async def test_nobody_asks_until_the_time_that_the_service_named(self, kind):
        refusal = ServiceError("busy", status=429, reason="RESOURCE_EXHAUSTED", retry_after=60.0)
        client = Client(**{kind: [refusal]})
        names = NAMES if kind == "list" else NAMES[:3]
        async with joined(client) as service:
            await ask_again(service, names)
            before = client.asked
            other = await ask_again(service, NAMES[40:])
            assert {(error.status, error.reason) for error in other} == {(429, "RESOURCE_EXHAUSTED")}
            assert all(50 < error.retry_after <= 60 for error in other)
            assert client.asked == before
            service._poller._silent_until = 0
            assert all(isinstance(job, BatchJob) for job in await ask_again(service, NAMES))

    async def test_the_rest_of_a_round_is_not_asked_for_after_a_refusal(self):
        client = Client(unlabelled=NAMES, get=[ServiceError("busy", status=429, retry_after=5.0)] * 50)
        answers = await ask(client, NAMES)
        assert {answer.status for answer in answers} == {429}
        assert client.gets == 8

    async def test_many_refusals_at_once_count_as_one(self):
        """Without a wish of its own each refusal in a row doubles the silence, from 15 seconds on."""
        client = Client(unlabelled=NAMES, get=[BUSY] * 50)
        async with joined(client) as service:
            await ask_again(service, NAMES)
            with pytest.raises(ServiceError, match="busy") as caught:
                await service.get(NAMES[0])
        assert 14 < caught.value.retry_after <= 15

    async def test_an_answer_ends_the_row_of_refusals(self):
        client = Client(get=[BUSY])
        async with joined(client) as service:
            shared = service._poller
            await ask_again(service, NAMES[:1])
            assert shared._refusals == 1
            shared._silent_until = 0
            await ask_again(service, NAMES[:1])
            assert shared._refusals == 0

    async def test_a_late_job_can_be_cancelled_all_the_same(self):
        client, cancelled = Client(get=[BUSY]), []

        async def cancel(name):
            cancelled.append(name)
            return True

        client.cancel = cancel
        async with joined(client) as service:
            await ask_again(service, NAMES[:1])
            assert await service.cancel(NAMES[0])
        assert cancelled == [NAMES[0]]


class TestLeaving:
    async def test_a_waiter_that_goes_away_takes_nothing_from_the_others(self):
        client = Client()
        async with joined(client, poll_interval=0.2) as service:
            leaver = asyncio.ensure_future(service.get(NAMES[0]))
            stayer = asyncio.ensure_future(service.get(NAMES[0]))
            await asyncio.sleep(0)
            leaver.cancel("nobody waits")
            assert (await stayer).name == str(NAMES[0])
            with pytest.raises(asyncio.CancelledError, match="nobody waits"):
                await leaver

    async def test_nothing_is_asked_for_those_who_are_gone(self):
        client = Client()
        async with joined(client, poll_interval=0.2) as service:
            leaver, stayer = (asyncio.ensure_future(service.get(name)) for name in NAMES[:2])
            await asyncio.sleep(0)
            leaver.cancel()
            await stayer
        assert client.gets == 1

    async def test_the_poller_is_closed_by_the_last(self):
        client = Client()
        first = joined(client)
        second = joined(client)
        service = await first.__aenter__()
        await second.__aenter__()
        await first.__aexit__(None, None, None)
        assert (client.closed, len(_pollers)) == (0, 1)
        assert (await service.get(NAMES[0])).name == str(NAMES[0])
        await second.__aexit__(None, None, None)
        assert (client.closed, _pollers) == (1, {})

    async def test_a_round_under_way_ends_with_the_last_waiter(self):
        client, entered = Client(), asyncio.Event()

        async def get(name):
            entered.set()
            await asyncio.Event().wait()

        client.get = get

        async def wait():
            async with joined(client) as service:
                await service.get(NAMES[0])

        waiter = asyncio.ensure_future(wait())
        await entered.wait()
        waiter.cancel("nobody waits")
        with pytest.raises(asyncio.CancelledError, match="nobody waits"):
            await waiter
        assert client.closed == 1
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
