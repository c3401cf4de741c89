"""How can one call of a batch to the local servers go wrong? A proxy for one process is between them.

Cloud Storage and BigQuery are servers of this machine, Vertex AI is the emulator in this process, with the clock of the
batch. Every call gets its position (`stack.faults.calls`). At the chosen position, the fault decides what happens to
the call (`stack.faults.kinds`). `stack.chaos.proxy` is similar: it kills the processes of a whole Airflow; this one is
fast enough for thousands of runs.

Invariants: there is one batch at a time. All times in answers of servers are times of the batch's clock.
"""

from __future__ import annotations

import json
import re
import socketserver
import threading
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException, parse_headers
from typing import Self
from urllib.parse import parse_qs, urlsplit
from wsgiref.handlers import format_date_time

from stack.chaos.effects import Call
from stack.chaos.forwarding import Answer, passed_on
from stack.faults.calls import BIGQUERY, STORAGE, VERTEX
from stack.faults.clock import BEGIN, Clock
from stack.faults.exchange import Exchange, HungUpError, Run
from stack.servers import HOST

_VARIABLES = {
    STORAGE: "STORAGE_EMULATOR_HOST",
    BIGQUERY: "BIGQUERY_EMULATOR_HOST",
    VERTEX: "VERTEX_BATCH_EMULATOR_HOST",
}
#: Seconds that a call takes, so that a later event has a later time.
_LATENCY_S = 0.05
#: Real seconds for an answer of a server of this machine, whatever its load.
_REAL_TIMEOUT_S = 60.0


class Gateway:
    """The proxy, in threads of its own. Use as a context.

    :param upstreams: service → address of its server; Vertex AI needs none.
    """

    def __init__(self, clock: Clock, upstreams: Mapping[str, str]) -> None:
        self.clock = clock
        self.run: Run | None = None
        self._doors = {service: _Door(self, service, url) for service, url in {**upstreams, VERTEX: ""}.items()}

    @property
    def env(self) -> dict[str, str]:
        """Variables that lead clients here."""
        return {_VARIABLES[service]: door.url for service, door in self._doors.items()}

    def __enter__(self) -> Self:
        for door in self._doors.values():
            threading.Thread(target=door.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        for door in self._doors.values():
            door.shutdown()
            door.server_close()

    def handle(self, exchange: Exchange) -> None:
        """Pass one call on, or let the fault happen to it.

        :raises HungUpError: when the connection is to be closed.
        """
        run = exchange.run
        self.clock.tick(_LATENCY_S)
        run.catch_up(self.clock.elapsed_s)
        self.clock.slow.pop(exchange.port, None)
        run.positions.append(exchange.position)
        if run.fault is None or not run.fault.takes(exchange):
            exchange.say(exchange.forward())
            return
        if run.struck is None:
            run.struck, run.struck_at = exchange.position, self.clock.elapsed_s
        run.fault.happen(exchange)


class _Door(socketserver.ThreadingTCPServer):
    """One service as clients see it.

    :param upstream: address of its server; empty for the emulator.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, gateway: Gateway, service: str, upstream: str) -> None:
        self.gateway, self.service, self.upstream = gateway, service, upstream
        super().__init__((HOST, 0), _Connection)
        self.url = f"http://{HOST}:{self.server_address[1]}"


class _Connection(socketserver.StreamRequestHandler):
    """One connection of a client: calls one after the other."""

    server: _Door
    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answer calls until one side closes the connection."""
        gateway = self.server.gateway
        while (asked := self._asked()) is not None and (run := gateway.run) is not None:
            call, headers = asked
            position = run.titles.position(call, self.server.service)

            def forward(run: Run = run, call: Call = call, headers: dict[str, str] = headers) -> Answer:
                return self._answer(run, call, headers)

            try:
                gateway.handle(Exchange(gateway.clock, run, self.request, call, position, forward))
            except HungUpError:
                return
            except (OSError, HTTPException) as error:
                run.broken.append(f"{position.title}: {error!r}")
                return

    def _asked(self) -> tuple[Call, dict[str, str]] | None:
        """Return the next call and its headers; None when the client has hung up."""
        try:
            line = self.rfile.readline()
            headers = dict(parse_headers(self.rfile).items()) if line else {}
            body = self.rfile.read(int(headers.get("Content-Length", 0)))
        except OSError:
            return None
        if not line:
            return None
        method, path, _ = line.decode().split(" ", 2)
        return Call(method, path, body), headers

    def _answer(self, run: Run, call: Call, headers: dict[str, str]) -> Answer:
        """Forward the call to the service, and note the facts that later titles and times depend on."""
        service, clock = self.server.service, self.server.gateway.clock
        if service == VERTEX:
            answer = _emulated(run, call)
        else:
            body = _by_the_machine(call.body, clock) if service == BIGQUERY else call.body
            answer = self._forwarded(call, body, headers)
        if answer.is_good:
            _note(run, call, answer)
        answer.headers["Date"] = format_date_time(clock.now().timestamp())
        return _in_time(run, answer) if service == STORAGE else answer

    def _forwarded(self, call: Call, body: bytes, headers: dict[str, str]) -> Answer:
        place = urlsplit(self.server.upstream)
        # One connection for each call: fake-gcs-server closes those that it leaves open, now and then.
        with closing(HTTPConnection(str(place.hostname), place.port, timeout=_REAL_TIMEOUT_S)) as upstream:
            upstream.request(call.method, call.path, body or None, passed_on(headers.items()))
            found = upstream.getresponse()
            answer = Answer(found.status, passed_on(found.getheaders()), found.read())
        return answer.led_back(self.server.upstream, self.server.url)


def _emulated(run: Run, call: Call) -> Answer:
    """Ask the emulator, at the time that it is now."""
    from airflow_vertex_batch.emulator import faults
    from airflow_vertex_batch.emulator.rest import Rest

    run.emulator.advance((Clock.now() - run.emulator.clock.now()).total_seconds())
    query = {name: values[0] for name, values in call.query.items()}
    reply = Rest(run.emulator).handle(faults.Call(call.method, call.place, query, call.body, hidden_s=run.list_late_s))
    return Answer(
        reply.status, {"Content-Type": "application/json", **reply.headers}, json.dumps(reply.document).encode()
    )


def _by_the_machine(body: bytes, clock: Clock) -> bytes:
    """Return a request whose table expires in time by the machine's clock, which BigQuery's server goes by."""
    ahead_ms = int((clock.began_at - BEGIN).total_seconds() * 1000)
    return re.sub(rb'("expirationTime": ?")(\d+)', lambda found: found[1] + b"%d" % (int(found[2]) + ahead_ms), body)


def _note(run: Run, call: Call, answer: Answer) -> None:
    if call.opens_upload:
        place = next((value for name, value in answer.headers.items() if name.lower() == "location"), "")
        run.titles.uploads[parse_qs(urlsplit(place).query).get("upload_id", [""])[0]] = call.object_name
    elif name := run.titles.uploads.get(call.upload_id, "") or call.object_name:
        run.written[name] = Clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    run.titles.jobs += call.is_create


def _in_time(run: Run, answer: Answer) -> Answer:
    """Return an answer of Cloud Storage in which objects have the batch's times."""
    if not answer.is_json or b'"storage#object' not in answer.body:
        return answer
    found = json.loads(answer.body)
    for item in found.get("items", [found]):
        if when := run.written.get(item.get("name", "")):
            item |= {"timeCreated": when, "updated": when}
    answer.body = json.dumps(found).encode()
    return answer
