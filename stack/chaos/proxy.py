"""Which process dies after which effect? A proxy between Airflow and the local servers kills the process that sent a
request.

Every request goes on to the real server. One that changed something there (an object, a job, a table) is an *effect*
of a case; a case is whatever has ``case-NAME`` in its addresses, or a job that it created. When the effect comes after
which somebody is to die, the proxy waits for the server's answer, strikes the process at the other end of the
connection, and answers nobody. It knows nothing of languages or libraries, so other operators can be tried alike.

Invariants: an effect is noted after the server has committed it, and before the client knows; without `Plan.each`, a
case is struck once.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import psutil
from aiohttp import ClientError, ClientSession, ClientTimeout, web
from yarl import URL

from stack.chaos.effects import QUESTION, Call
from stack.chaos.forwarding import MAX_BYTES, Answer, passed_on
from stack.chaos.process_kills import Strike, holder, kill_task
from stack.process import free_port
from stack.servers import HOST

CASE = re.compile(r"case[-_]([a-z0-9_]+)")


@dataclass
class Plan:
    """What will happen to one case.

    :param after: the title of the effect to strike after; empty strikes nobody.
    :param each: strike after every effect, once for each.
    :param strike: who dies.
    :param then: is called after the strike, before any other request of that process is answered.
    :param strips_labels: the service forgets the labels of this case's jobs.
    :param hides_s: the service's list shows this case's jobs only after so many seconds.
    :param create_late_s: the first create call reaches the service only so many seconds after its sender was struck.
    """

    after: str = ""
    each: bool = False
    strike: Strike = kill_task
    then: Callable[[], None] | None = None
    strips_labels: bool = False
    hides_s: float = 0.0
    create_late_s: float = 0.0


@dataclass
class Record:
    """What the proxy saw of one case.

    :param effects: titles in their order; a repeated one is numbered.
    :param jobs: the service's names for its jobs, and when they were created (monotonic seconds).
    :param struck: after which effects somebody was struck.
    :param killed_pid: the process that was struck last.
    :param errors: why a strike failed.
    """

    plan: Plan = field(default_factory=Plan)
    effects: list[str] = field(default_factory=list)
    jobs: dict[str, float] = field(default_factory=dict)
    struck: list[str] = field(default_factory=list)
    killed_pid: int = 0
    errors: list[str] = field(default_factory=list)

    def note(self, title: str) -> str:
        """Add an effect, and return its title among all."""
        again = sum(one.partition(" (again")[0] == title for one in self.effects)
        self.effects.append(f"{title} (again {again})" if again else title)
        return self.effects[-1]

    def is_due(self, title: str) -> bool:
        """Whether somebody is to be struck after this effect."""
        if self.plan.each:
            return "(again" not in title and title not in self.struck
        return title == self.plan.after and not self.struck


class Proxy:
    """The proxy, in a thread of its own.

    :param upstreams: variable that names a server to clients → the server's address.
    """

    def __init__(self, upstreams: Mapping[str, str]) -> None:
        self._ports = {name: (free_port(), url) for name, url in upstreams.items()}
        self.records: defaultdict[str, Record] = defaultdict(Record)
        self._uploads: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        # One for each process that is being struck: some wait for each other.
        self._loop.set_default_executor(ThreadPoolExecutor(16))
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    @property
    def env(self) -> dict[str, str]:
        """Variables that lead clients here."""
        return {name: f"http://{HOST}:{port}" for name, (port, _) in self._ports.items()}

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(30):
            raise RuntimeError("The proxy did not start within 30 s.")
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _serve(self) -> None:
        runners = []
        async with ClientSession(auto_decompress=False, timeout=ClientTimeout(total=300)) as session:
            for port, url in self._ports.values():
                app = web.Application(client_max_size=MAX_BYTES)
                app.router.add_route("*", "/{any:.*}", _Upstream(self, session, url).handle)
                runner = web.AppRunner(app, access_log=None, auto_decompress=False)
                await runner.setup()
                await web.TCPSite(runner, HOST, port).start()
                runners.append(runner)
            self._ready.set()
            await self._stop.wait()
            for runner in runners:
                await runner.cleanup()

    def case_of(self, call: Call) -> str:
        """Return the case that a request belongs to, or an empty text."""
        if call.upload_id in self._uploads:
            found = CASE.search(self._uploads[call.upload_id])
            return found[1] if found else ""
        if found := CASE.search(unquote(call.path)) or CASE.search(call.text):
            return found[1]
        job = re.search(r"projects/[^/]+/locations/[^/]+/batchPredictionJobs/(\w+)", call.place)
        # The service answers with the project's number where it was asked with its name.
        known = ((name.rpartition("/")[2], case) for case, one in list(self.records.items()) for name in one.jobs)
        return next((case for name, case in known if job and name == job[1]), "")

    def effect(self, call: Call, record: Record, answer: Answer) -> str:
        """Return what a request has changed, or an empty text."""
        if not answer.is_good:
            return ""
        if call.opens_upload:
            place = next((value for name, value in answer.headers.items() if name.lower() == "location"), "")
            self._uploads[parse_qs(urlsplit(place).query).get("upload_id", [""])[0]] = call.object_name
            return ""
        if call.is_create:
            record.jobs[json.loads(answer.body)["name"]] = time.monotonic()
        title = call.title(self._uploads.get(call.upload_id, ""), len(record.jobs))
        return record.note(title) if title else ""

    def shown(self, page: dict[str, Any]) -> dict[str, Any]:
        """Return a page of a list without the jobs that are too young for it."""
        now, hidden = time.monotonic(), set()
        for record in list(self.records.values()):
            hidden |= {name for name, born in record.jobs.items() if now - born < record.plan.hides_s}
        jobs = page.get("batchPredictionJobs", [])
        return {**page, "batchPredictionJobs": [job for job in jobs if job["name"] not in hidden]}


class _Upstream:
    """One server behind the proxy."""

    def __init__(self, proxy: Proxy, session: ClientSession, url: str) -> None:
        self._proxy, self._session, self._url = proxy, session, url

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass one request on, and strike if it is the one."""
        call = Call(request.method, request.raw_path, await request.read())
        case = self._proxy.case_of(call)
        record = self._proxy.records[case] if case else Record()
        if call.is_create and record.plan.strips_labels:
            call.body = json.dumps({**json.loads(call.body), "labels": {}}).encode()
        late_s = record.plan.create_late_s if call.is_create and not record.struck else 0.0
        dropped = bool(late_s) and await self._strike(request, record, "the create call was under way")
        await asyncio.sleep(late_s)
        try:
            answer = self._translated(request, call, await self._forward(request, call))
        except ClientError:
            # The server itself has cut the connection: so does the proxy.
            answer, dropped = Answer(502, {}, b""), True
        title = self._proxy.effect(call, record, answer) or (QUESTION if call.is_question else "")
        if title and record.is_due(title):
            dropped = await self._strike(request, record, title)
        if dropped and request.transport is not None:
            request.transport.abort()
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    async def _forward(self, request: web.Request, call: Call) -> Answer:
        headers = passed_on(request.headers.items())
        url = URL(self._url + call.path, encoded=True)
        async with self._session.request(
            call.method, url, headers=headers, data=call.body, allow_redirects=False
        ) as answer:
            return Answer(answer.status, passed_on(answer.headers.items()), await answer.read())

    def _translated(self, request: web.Request, call: Call, answer: Answer) -> Answer:
        """Lead the addresses in an answer back here, and keep from a list what it does not show yet."""
        answer = answer.led_back(self._url, f"http://{request.headers.get('host', '')}")
        if answer.is_json and call.is_list and answer.is_good:
            answer.body = json.dumps(self._proxy.shown(json.loads(answer.body))).encode()
        return answer

    async def _strike(self, request: web.Request, record: Record, title: str) -> bool:
        """Strike the process that sent this request; return whether the request gets no answer."""
        record.struck.append(title)
        ends = [request.transport and request.transport.get_extra_info(name) for name in ("peername", "sockname")]
        try:
            return await asyncio.to_thread(self._struck, ends, record)
        except (psutil.Error, LookupError, OSError, RuntimeError, TypeError) as error:
            record.errors.append(repr(error))
            return False

    def _struck(self, ends: Sequence[Any], record: Record) -> bool:
        process = holder(*ends)
        record.killed_pid = process.pid
        drops = record.plan.strike(process)
        if record.plan.then is not None:
            record.plan.then()
        return drops
