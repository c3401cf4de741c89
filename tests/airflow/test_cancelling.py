"""The jobs of a task that somebody ended: which are cancelled, which are left, and how long it takes."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import pytest

from airflow_vertex_batch.core.domain.address import JobName
from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.edge import cancelling
from airflow_vertex_batch.edge.cancelling import cancel_all, cancel_from_worker, end_jobs, end_jobs_here, left_text

NAMES = [JobName("1", "us-central1", str(number)) for number in range(30)]
ELSEWHERE = JobName("1", "europe-west4", "1")
DOWN, LOST = ServiceError("down", status=503), ServiceError("lost", status=0)
BUSY = ServiceError("busy", status=429, retry_after=0.2)
REFUSED = ServiceError("no", status=403, reason="PERMISSION_DENIED")
NEVER, OVER = "never", "over"
#: Seconds that are over only where something hangs.
AGES = 600.0


class Service:
    """Cancels jobs; some only after a while.

    :param answers: by job, what its first calls meet: an error, `NEVER` for no answer, `OVER` for a job that has ended.
    """

    def __init__(self, answers=None):
        self.answers = {name: list(met) for name, met in (answers or {}).items()}
        self.hangs = asyncio.Event()
        self.calls, self.under_way, self.most_under_way, self.joined, self.left = [], 0, 0, [], 0

    @asynccontextmanager
    async def join(self, name):
        self.joined.append(name.parent)
        try:
            yield self
        finally:
            self.left += 1

    async def cancel(self, name):
        self.calls.append(name)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0)
            met = self.answers[name].pop(0) if self.answers.get(name) else None
            if met is NEVER:
                self.hangs.set()
                await asyncio.Event().wait()
            if isinstance(met, Exception):
                raise met
        finally:
            self.under_way -= 1
        return met is not OVER


async def cancelled(service, names, **how):
    """Cancel jobs; return those that are left, and those of which somebody was told."""
    told = []

    async def tell(_text, name):
        told.append(name)

    left = dict.fromkeys(names, "")
    await cancel_all(left, service.join, tell, **{"seconds": 25.0} | how)
    return left, told


class TestInTheTriggerer:
    async def test_all_over_one_connection_a_place_and_a_few_at_a_time(self):
        service = Service({NAMES[3]: [OVER]})
        left, told = await cancelled(service, [*NAMES, ELSEWHERE])
        assert (left, set(told)) == ({}, {*NAMES, ELSEWHERE} - {NAMES[3]})
        assert sorted(service.joined) == [ELSEWHERE.parent, NAMES[0].parent]
        assert (len(service.calls), service.most_under_way, service.left) == (31, 8, 2)

    @pytest.mark.parametrize("met", [[DOWN], [LOST], [BUSY], [DOWN, LOST]], ids=["503", "lost", "429", "503, lost"])
    async def test_what_may_pass_is_repeated(self, met):
        service = Service({NAMES[0]: met})
        left, told = await cancelled(service, NAMES[:3])
        assert (left, set(told)) == ({}, set(NAMES[:3]))
        assert service.calls.count(NAMES[0]) == len(met) + 1

    async def test_a_wish_for_silence_is_kept(self):
        began, service = time.monotonic(), Service({NAMES[0]: [ServiceError("busy", status=429, retry_after=1.2)]})
        await cancelled(service, NAMES[:1])
        assert time.monotonic() - began >= 1.2

    async def test_unless_there_is_no_time_for_it(self, monkeypatch):
        monkeypatch.setattr(cancelling, "_LAST_CALL", 0.06)
        service = Service({NAMES[0]: [ServiceError("busy", status=429, retry_after=3600)]})
        assert (await cancelled(service, NAMES[:1], seconds=5))[0] == {}

    @pytest.mark.parametrize(
        ("error", "reason"),
        [(REFUSED, "HTTP 403 PERMISSION_DENIED"), (RuntimeError("with a secret"), "RuntimeError")],
        ids=["refused", "a bug"],
    )
    async def test_what_will_not_pass_is_met_once_and_stops_nobody(self, error, reason):
        service = Service({NAMES[0]: [error]})
        left, told = await cancelled(service, NAMES)
        assert (left, set(told)) == ({NAMES[0]: reason}, set(NAMES[1:]))
        assert service.calls.count(NAMES[0]) == 1

    async def test_a_call_without_an_answer_is_given_up_and_repeated(self, monkeypatch):
        monkeypatch.setattr(cancelling, "_CALL_SECONDS", 0.1)
        service = Service({NAMES[0]: [NEVER]})
        assert await cancelled(service, NAMES[:1]) == ({}, NAMES[:1])

    async def test_it_ends_in_time(self):
        """One call hangs, another is refused again and again: what is left then is named, and nothing goes on."""
        service = Service({NAMES[0]: [NEVER], NAMES[1]: [DOWN] * 99})
        left, told = await cancelled(service, NAMES[:3], seconds=1.0)
        assert (left, told) == ({NAMES[0]: "no answer in time", NAMES[1]: "HTTP 503"}, NAMES[2:3])
        assert (service.under_way, service.left) == (0, 1)

    async def test_who_cannot_connect_to_one_place_cancels_in_the_other(self):
        service = Service()

        @asynccontextmanager
        async def join(name):
            if name == ELSEWHERE:
                raise InputError("Connection 'x' names no project", todo="Set it")
            async with service.join(name) as joined:
                yield joined

        left = dict.fromkeys([ELSEWHERE, *NAMES], "")
        await cancel_all(left, join, lambda *_: asyncio.sleep(0), 25.0)
        assert left == {ELSEWHERE: "Connection 'x' names no project"}
        assert set(service.calls) == set(NAMES)

    async def test_a_triggerer_that_stops_leaves_no_call_behind(self):
        service = Service({NAMES[0]: [NEVER]})
        task = asyncio.ensure_future(cancelled(service, NAMES[:1]))
        await service.hangs.wait()
        task.cancel("the triggerer stops")
        with pytest.raises(asyncio.CancelledError, match="the triggerer stops"):
            await task
        assert (service.under_way, service.left) == (0, 1)


class Log:
    """The log of a trigger: each line takes a moment."""

    def __init__(self):
        self.infos, self.errors = [], []

    async def ainfo(self, text, *values):
        await asyncio.sleep(0.02)
        self.infos.append(text % values)

    async def aerror(self, text, *values):
        await asyncio.sleep(0.02)
        self.errors.append(text % values)


async def yes():
    await asyncio.sleep(0.2)
    return True


async def no():
    await asyncio.sleep(0.2)
    return False


async def pestered(names, join, may=yes, seconds=6.0, every=0.05):
    """Kill a trigger as Airflow 3.3.2 does: cancel the task again and again until it is over; return what was said."""
    log = Log()

    async def kill():
        # As `asyncio.wait_for` does from Python 3.12 on; what that of 3.11 does is in test_fencing.py.
        async with asyncio.timeout(seconds):
            await end_jobs(names, may, join, log, seconds)

    task = asyncio.ensure_future(kill())
    while not task.done():
        await asyncio.wait({task}, timeout=every)
        task.cancel("by the user")
    assert not task.cancelled()
    return log


class TestWhoeverCancelsItAgainAndAgain:
    """Airflow cancels a killed trigger at each turn of its loop; here every 50 ms."""

    async def test_two_503s_are_survived(self):
        service = Service({NAMES[0]: [DOWN, DOWN]})
        log = await pestered(NAMES[:2], service.join)
        assert (log.errors, len(log.infos)) == ([], 2)
        assert service.calls.count(NAMES[0]) == 3

    async def test_a_slow_first_connection_too(self):
        """Imports, credentials and a token take seconds."""
        service = Service()

        @asynccontextmanager
        async def join(name):
            await asyncio.to_thread(time.sleep, 1.5)
            async with service.join(name) as joined:
                yield joined

        log = await pestered(NAMES[:1], join)
        assert (log.errors, service.calls) == ([], NAMES[:1])

    async def test_many_jobs_in_two_places(self):
        service = Service({ELSEWHERE: [DOWN]})
        log = await pestered([*NAMES, ELSEWHERE], service.join)
        assert (log.errors, len(log.infos), service.left) == ([], 31, 2)

    async def test_what_does_not_end_is_named_in_time_with_its_reason(self):
        service = Service({NAMES[0]: [NEVER], NAMES[1]: [DOWN] * 99})
        log = await pestered(NAMES[:3], service.join, seconds=3.0)
        [said] = log.errors
        assert f"2 of its jobs may still run, and bill: {NAMES[0]} (no answer in time); {NAMES[1]} (HTTP 503)" in said
        assert (service.under_way, service.left) == (0, 1)

    async def test_a_connection_that_never_comes_is_named(self):
        @asynccontextmanager
        async def join(_name):
            await asyncio.Event().wait()
            yield

        [said] = (await pestered(NAMES[:1], join, seconds=2.0)).errors
        assert f"{NAMES[0]} (no connection in time)" in said

    async def test_an_airflow_that_does_not_say_who_ended_the_task_is_named(self):
        async def never():
            return await asyncio.Event().wait()

        log = await pestered(NAMES[:1], Service().join, never, seconds=2.0)
        assert "(Airflow has not said who ended the task; there was no more time" in log.errors[0]

    async def test_or_cannot_say(self):
        async def fails():
            raise RuntimeError("with a secret")

        log = await pestered(NAMES[:1], Service().join, fails)
        assert "(Airflow could not be asked about the task: RuntimeError)" in log.errors[0]

    async def test_a_task_that_nobody_ended_is_left_alone_without_a_word(self):
        service = Service()
        log = await pestered(NAMES, service.join, no)
        assert (service.calls, log.errors, log.infos) == ([], [], [])

    def test_a_triggerer_that_stops_says_what_it_left(self):
        """`asyncio.run` cancels every task of the loop, not the trigger's alone."""
        service, log = Service({NAMES[0]: [NEVER]}), Log()

        async def triggerer():
            tasks.append(asyncio.ensure_future(end_jobs(NAMES[:1], yes, service.join, log, 30.0)))
            await service.hangs.wait()

        tasks = []
        asyncio.run(triggerer())
        [said] = log.errors
        assert f"{NAMES[0]} (no answer in time; there was no more time, or the triggerer stopped)" in said
        assert (service.under_way, service.left) == (0, 1)


class TestInAWorker:
    def test_each_job_is_tried_and_the_rest_is_named(self):
        class Client:
            def cancel(self, name, *, once):
                if name == NAMES[1]:
                    raise REFUSED
                return name != NAMES[2]

        def service_of(name):
            if name == NAMES[0]:
                raise RuntimeError("with a secret")
            return Client()

        told = []
        left = cancel_from_worker(NAMES[:5], service_of, lambda _text, name: told.append(name), AGES)
        assert left == {NAMES[0]: "RuntimeError", NAMES[1]: "HTTP 403 PERMISSION_DENIED"}
        assert told == NAMES[3:5]

    def test_one_that_takes_long_holds_up_nobody(self):
        all_under_way = threading.Barrier(8)

        class Slow:
            def cancel(self, _name, *, once):
                all_under_way.wait(AGES)
                return True

        assert cancel_from_worker(NAMES[:8], lambda _name: Slow(), lambda *_: None, AGES) == {}

    def test_what_may_pass_is_repeated_at_once(self):
        class FailsThenCancels:
            def cancel(self, _name, *, once):
                assert once
                if (met := answers.pop(0)) is not None:
                    raise met
                return True

        answers, told = [DOWN, LOST, None], []
        left = cancel_from_worker(
            NAMES[:1], lambda _name: FailsThenCancels(), lambda _text, name: told.append(name), AGES
        )
        assert (left, told, answers) == ({}, NAMES[:1], [])

    def test_what_does_not_end_is_named_before_airflow_kills_the_process(self):
        class Silent:
            def cancel(self, name, *, once):
                if name == NAMES[0]:
                    release.wait(AGES)
                raise DOWN

        # That it comes back before the call does is what is tested.
        release, log = threading.Event(), RecordingLog()
        end_jobs_here(NAMES[:2], lambda: True, lambda _name: Silent(), log, seconds=1.0)
        assert not release.is_set()
        release.set()
        [said] = log.errors
        assert f"bill: {NAMES[0]} (no answer in time); {NAMES[1]} (HTTP 503)" in said

    def test_an_airflow_that_cannot_be_asked_is_named(self):
        def may():
            raise RuntimeError("with a secret")

        log = RecordingLog()
        end_jobs_here(NAMES[:1], may, lambda _name: None, log, event="execution_timeout is over")
        [said] = log.errors
        assert said.startswith("execution_timeout is over, and 1 of its jobs may still run")
        assert "(Airflow could not be asked about the task: RuntimeError)" in said


class RecordingLog:
    """The log of a task."""

    def __init__(self):
        self.errors = []

    def info(self, text, *values):
        pass

    def error(self, text, *values):
        self.errors.append(text % values)


def test_what_is_left_is_said_with_what_to_do():
    text = left_text({NAMES[0]: "HTTP 403 PERMISSION_DENIED", NAMES[1]: "no answer"})
    assert f"2 of its jobs may still run, and bill: {NAMES[0]} (HTTP 403 PERMISSION_DENIED); {NAMES[1]} (no" in text
    assert "airflow-vertex-batch sweep" in text
