"""The jobs of a task that a person ended: which are cancelled, which are left, and how long it takes."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from airflow_vertex_batch import killing
from airflow_vertex_batch.core.address import JobName
from airflow_vertex_batch.core.errors import InputError, ServiceError
from airflow_vertex_batch.killing import cancel_all, cancel_from_worker, left_text

NAMES = [JobName("1", "us-central1", str(number)) for number in range(30)]
ELSEWHERE = JobName("1", "europe-west4", "1")
DOWN, LOST = ServiceError("down", status=503), ServiceError("lost", status=0)
BUSY = ServiceError("busy", status=429, retry_after=0.2)
REFUSED = ServiceError("no", status=403, reason="PERMISSION_DENIED")
NEVER, OVER = "never", "over"


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

    return await cancel_all(names, service.join, tell, **how), told


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
        monkeypatch.setattr(killing, "_LAST_CALL_SECONDS", 0.3)
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
        monkeypatch.setattr(killing, "_CALL_SECONDS", 0.1)
        service = Service({NAMES[0]: [NEVER]})
        assert await cancelled(service, NAMES[:1]) == ({}, NAMES[:1])

    async def test_it_ends_in_time(self):
        """One call hangs, another is refused again and again: what is left then is named, and nothing goes on."""
        service = Service({NAMES[0]: [NEVER], NAMES[1]: [DOWN] * 99})
        left, told = await cancelled(service, NAMES[:3], seconds=1.0)
        assert (left, told) == (dict.fromkeys(NAMES[:2], "no answer in time"), NAMES[2:3])
        assert (service.under_way, service.left) == (0, 1)

    async def test_who_cannot_connect_to_one_place_cancels_in_the_other(self):
        service = Service()

        @asynccontextmanager
        async def join(name):
            if name == ELSEWHERE:
                raise InputError("Connection 'x' names no project", todo="Set it")
            async with service.join(name) as joined:
                yield joined

        left = await cancel_all([ELSEWHERE, *NAMES], join, lambda *_: asyncio.sleep(0))
        assert left == {ELSEWHERE: "Connection 'x' names no project"}
        assert set(service.calls) == set(NAMES)

    async def test_a_triggerer_that_stops_leaves_no_call_behind(self):
        service = Service({NAMES[0]: [NEVER]})
        task = asyncio.ensure_future(cancelled(service, NAMES[:1]))
        await service.hangs.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (service.under_way, service.left) == (0, 1)


class TestInAWorker:
    def test_each_job_is_tried_and_the_rest_is_named(self):
        class Client:
            def cancel(self, name):
                if name == NAMES[1]:
                    raise REFUSED
                return name != NAMES[2]

        def service_of(name):
            if name == NAMES[0]:
                raise RuntimeError("with a secret")
            return Client()

        told = []
        left = cancel_from_worker(NAMES[:5], service_of, lambda _text, name: told.append(name))
        assert left == {NAMES[0]: "RuntimeError", NAMES[1]: "HTTP 403 PERMISSION_DENIED"}
        assert told == NAMES[3:5]

    def test_one_that_takes_long_holds_up_nobody(self):
        began = time.monotonic()

        class Slow:
            def cancel(self, _name):
                time.sleep(0.3)
                return True

        assert cancel_from_worker(NAMES[:8], lambda _name: Slow(), lambda *_: None) == {}
        assert time.monotonic() - began < 8 * 0.3 / 2


def test_what_is_left_is_said_with_what_to_do():
    text = left_text({NAMES[0]: "HTTP 403 PERMISSION_DENIED", NAMES[1]: "no answer"})
    assert f"2 of its jobs may still run, and bill: {NAMES[0]} (HTTP 403 PERMISSION_DENIED); {NAMES[1]} (no" in text
    assert "airflow-vertex-batch sweep" in text
