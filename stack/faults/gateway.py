"""What stands between a batch and the local servers, and lets one call go wrong? A proxy for one process.

Cloud Storage and BigQuery are servers of this machine, Vertex AI is the emulator in this process, moved by the clock
that the batch goes by. Every call gets its position (`stack.faults.calls`); at the position that was asked for, the
fault says what becomes of it (`stack.faults.kinds`).

Invariants: one batch at a time; the time of an object is the batch's time at which it was written, whatever the
server's own clock says.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit
from wsgiref.handlers import format_date_time

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from stack.chaos.effects import Call
from stack.chaos.forwarding import MAX_BYTES, Answer, Server
from stack.faults.calls import BIGQUERY, STORAGE, VERTEX, Position, Titles
from stack.faults.clock import BEGIN, Clock
from stack.process import free_port
from stack.servers import HOST

if TYPE_CHECKING:
    from airflow_vertex_batch.emulator.service import Emulator
    from stack.faults.kinds import Fault

_VARIABLES = {
    STORAGE: "STORAGE_EMULATOR_HOST",
    BIGQUERY: "BIGQUERY_EMULATOR_HOST",
    VERTEX: "VERTEX_BATCH_EMULATOR_HOST",
}
#: Seconds that a call takes: what happens later has a later time.
_LATENCY_S = 0.05
#: Real seconds between two looks whether a client has hung up.
_LOOK_S = 0.005


@dataclass
class Run:
    """One batch on its way through the gateway.

    :param emulator: its Vertex AI.
    :param fault: what is to happen, if anything.
    :param at: the title of the call to which it happens; empty for all of them.
    :param positions: every call so far.
    :param struck: the call to which it happened.
    :param struck_at: when, seconds of the clock.
    """

    emulator: Emulator
    fault: Fault | None = None
    at: str = ""
    titles: Titles = field(default_factory=Titles)
    positions: list[Position] = field(default_factory=list)
    struck: Position | None = None
    struck_at: float = 0.0
    #: When each object was written, by name, as the service writes times.
    written: dict[str, str] = field(default_factory=dict)
    #: The upload that was lost.
    lost_upload: str = ""
    #: How young a job may be that the list does not show.
    list_late_s: float = 0.0


@dataclass
class Exchange:
    """One call and the ways in which it may end."""

    gateway: Gateway
    run: Run
    request: web.Request
    call: Call
    position: Position

    async def forward(self) -> Answer:
        """Let the service do what it is asked."""
        return await self.gateway.forward(self)

    def say(self, answer: Answer) -> web.Response:
        """Give an answer."""
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    def refuse(self, status: int, **headers: str) -> web.Response:
        """Answer with an error, as Google words it."""
        error = {"code": status, "message": "Injected by the suite.", "errors": [{"reason": "injected"}]}
        body = json.dumps({"error": error}).encode()
        return self.say(Answer(status, {"Content-Type": "application/json", **headers}, body))

    def cut(self) -> web.Response:
        """Cut the connection."""
        if self.request.transport is not None:
            self.request.transport.abort()
        return web.Response()

    async def silence(self) -> web.Response:
        """Say nothing until the client hangs up."""
        self.gateway.clock.silent.add(self.port)
        while self.request.transport is not None and not self.request.transport.is_closing():
            await asyncio.sleep(_LOOK_S)
        self.gateway.clock.silent.discard(self.port)
        return web.Response()

    def slowly(self, answer: Answer) -> web.Response:
        """Give an answer of which a byte a second arrives."""
        self.gateway.clock.slow[self.port] = -1
        return self.say(answer)

    async def half(self, answer: Answer) -> web.StreamResponse:
        """Give the first half of an answer, and cut the connection."""
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length = len(answer.body)
        await response.prepare(self.request)
        await response.write(answer.body[: len(answer.body) // 2])
        if self.request.transport is not None:
            self.request.transport.close()
        return response

    @property
    def port(self) -> int:
        """The client's port."""
        assert self.request.transport is not None
        return int(self.request.transport.get_extra_info("peername")[1])


class Gateway:
    """The proxy, in a thread of its own. Use as a context.

    :param upstreams: service → address of its server; Vertex AI needs none.
    """

    def __init__(self, clock: Clock, upstreams: Mapping[str, str]) -> None:
        self._began_at = clock.began_at
        self.clock, self._upstreams = clock, {**upstreams, VERTEX: ""}
        self._ports = {service: free_port() for service in self._upstreams}
        self._servers: dict[str, Server] = {}
        self.run: Run | None = None
        self._loop = asyncio.new_event_loop()
        self._loop.time = clock.machine_time  # type: ignore[method-assign]
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    @property
    def env(self) -> dict[str, str]:
        """Variables that lead clients here."""
        return {_VARIABLES[service]: f"http://{HOST}:{port}" for service, port in self._ports.items()}

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(30):
            raise RuntimeError("The gateway did not start within 30 s.")
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _serve(self) -> None:
        runners = []
        async with ClientSession(auto_decompress=False, timeout=ClientTimeout(total=300)) as session:
            for service, port in self._ports.items():
                self._servers[service] = Server(session, self._upstreams[service])
                app = web.Application(client_max_size=MAX_BYTES)
                app.router.add_route("*", "/{any:.*}", self._handler(service))
                runner = web.AppRunner(app, access_log=None, auto_decompress=False)
                await runner.setup()
                await web.TCPSite(runner, HOST, port).start()
                runners.append(runner)
            self._ready.set()
            await self._stop.wait()
            for runner in runners:
                await runner.cleanup()

    def _handler(self, service: str) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            call, run = Call(request.method, request.raw_path, await request.read()), self.run
            if run is None:
                return web.Response(status=503)
            self.clock.tick(_LATENCY_S)
            position = run.titles.position(call, service)
            run.positions.append(position)
            exchange = Exchange(self, run, request, call, position)
            self.clock.slow.pop(exchange.port, None)
            fault = run.fault
            if fault is None or not fault.takes(exchange):
                return exchange.say(await exchange.forward())
            if run.struck is None:
                run.struck, run.struck_at = position, self.clock.elapsed_s
            return await fault.happen(exchange)

        return handle

    async def forward(self, exchange: Exchange) -> Answer:
        """Let a service do what it is asked, and note it."""
        call, run, service = exchange.call, exchange.run, exchange.position.service
        if service == VERTEX:
            answer = await asyncio.to_thread(_emulated, run, call)
        else:
            call.body = self._by_the_machine(call.body) if service == BIGQUERY else call.body
            try:
                server = self._servers[service]
                answer = server.led_back(
                    await server.forward(call, exchange.request.headers), exchange.request.headers.get("host", "")
                )
            except ClientError as error:
                raise RuntimeError(f"{service} of this machine failed: {error!r}") from error
        if answer.is_good:
            self._note(run, call, answer)
        answer.headers["Date"] = format_date_time(self.clock.now().timestamp())
        return self._in_time(run, answer) if service == STORAGE else answer

    def _by_the_machine(self, body: bytes) -> bytes:
        """Return a request in which a table expires when it should by the machine's clock, which its server goes by."""
        behind_ms = int((self._began_at - BEGIN).total_seconds() * 1000)
        return re.sub(
            rb'("expirationTime": ?")(\d+)', lambda found: found[1] + b"%d" % (int(found[2]) + behind_ms), body
        )

    def _note(self, run: Run, call: Call, answer: Answer) -> None:
        """Remember what later titles and times depend on."""
        if call.opens_upload:
            place = next((value for name, value in answer.headers.items() if name.lower() == "location"), "")
            run.titles.uploads[parse_qs(urlsplit(place).query).get("upload_id", [""])[0]] = call.object_name
        elif name := run.titles.uploads.get(call.upload_id, "") or call.object_name:
            run.written[name] = self.clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        run.titles.jobs += call.is_create

    @staticmethod
    def _in_time(run: Run, answer: Answer) -> Answer:
        """Return an answer of Cloud Storage in which objects have the batch's times."""
        if not answer.is_json or not answer.body.startswith(b'{"') or b'"storage#object' not in answer.body:
            return answer
        found = json.loads(answer.body)
        for item in found.get("items", [found]):
            if when := run.written.get(item.get("name", "")):
                item |= {"timeCreated": when, "updated": when}
        answer.body = json.dumps(found).encode()
        return answer


def _emulated(run: Run, call: Call) -> Answer:
    """Ask the emulator, at the time that it is now."""
    from airflow_vertex_batch.emulator import faults
    from airflow_vertex_batch.emulator.rest import Rest

    run.emulator.advance((Clock.now() - run.emulator.clock.now()).total_seconds())
    query = {name: values[0] for name, values in call.query.items()}
    asked = faults.Call(call.method, call.place, query, call.body, hidden_s=run.list_late_s)
    reply = Rest(run.emulator).handle(asked)
    body = json.dumps(reply.document).encode()
    return Answer(reply.status, {"Content-Type": "application/json", **reply.headers}, body)
