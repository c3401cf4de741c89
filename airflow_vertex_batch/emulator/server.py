"""How is the emulator reached over HTTP? An ASGI app around `rest`, and the command's blocking server.

Invariants: no call waits for a job's work; a dropped connection is really closed, without a byte of an answer; the
server ends on SIGTERM and SIGINT with its jobs saved.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_vertex_batch.core.domain.address import cloud_folder
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.emulator.clock import SystemClock
from airflow_vertex_batch.emulator.faults import Call, DroppedError, Reply
from airflow_vertex_batch.emulator.named_model import load_model
from airflow_vertex_batch.emulator.rest import Rest
from airflow_vertex_batch.emulator.scenario import Scenario
from airflow_vertex_batch.emulator.service import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from starlette.requests import Request

    from airflow_vertex_batch.core.domain.ports import ObjectStore, Warehouse

__all__ = ["Emulator", "create_app", "make_server", "serve"]


class _Protocol(H11Protocol):
    """HTTP/1.1 whose requests know their connection, so that a scenario can cut it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def create_app(emulator: Emulator) -> Starlette:
    """Return the ASGI app. With the machine's clock, its lifespan drives the jobs."""
    rest = Rest(emulator)

    async def endpoint(request: Request) -> Response:
        call = Call(
            request.method,
            request.scope["path"],
            dict(request.query_params),
            await request.body(),
            dict(request.headers),
        )
        try:
            return _response(await run_in_threadpool(rest.handle, call))
        except DroppedError:
            return _Cut()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if isinstance(emulator.clock, SystemClock):
            emulator.start()
        yield
        await run_in_threadpool(emulator.stop)

    app = Starlette(lifespan=lifespan)
    app.add_route("/{path:path}", endpoint, methods=["GET", "POST", "PUT", "DELETE", "PATCH"])
    return app


class _Cut(Response):
    """No answer at all: closes the connection under the request."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002 - nothing is sent
        transport: asyncio.Transport | None = scope.get("state", {}).get("transport")
        if transport is None:
            raise DroppedError("the scenario drops this connection")
        transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass


def _response(reply: Reply) -> Response:
    if isinstance(reply.document, str):
        return Response(reply.document, reply.status, reply.headers, "text/html")
    return Response(msgspec.json.encode(reply.document), reply.status, reply.headers, "application/json")


class _Server(uvicorn.Server):
    """A server that prints once where it listens, and leaves signals to `serve`."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"Vertex AI batch emulator on http://{shown}:{port}", flush=True)  # noqa: T201 - the command's one line

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Do nothing: uvicorn's own would end the process by the signal, after the server has ended well."""
        yield


def make_server(emulator: Emulator) -> uvicorn.Server:
    """Return the HTTP server of an emulator; its ``run(sockets=[…])`` blocks until ``should_exit``."""
    return _Server(
        uvicorn.Config(
            create_app(emulator), http=_Protocol, log_level="warning", access_log=False, timeout_graceful_shutdown=2
        )
    )


def serve(
    *,
    host: str,
    port: int,
    data: Path | None,
    model: str,
    speed: float,
    store: ObjectStore,
    warehouse: Warehouse | None,
    scenario: Path | None = None,
    staging: str | None = None,
) -> None:
    """Run the emulator until SIGTERM or SIGINT.

    :param port: 0 for any free one; the line on the screen says which.
    :param data: a folder that keeps jobs over a restart, or None.
    :param model: ``deterministic`` or ``smollm2``.
    :param speed: how many of the service's seconds pass in one second.
    :param scenario: a JSON file with switches and faults.
    :param staging: a ``gs://`` folder for rows on their way from BigQuery to BigQuery.
    :raises InputError: when the port is taken, the model is not installed or the scenario cannot be read.
    """
    with _kept_in(data):
        emulator = Emulator(
            store=store,
            warehouse=warehouse,
            model=load_model(model),
            speed=speed,
            data=data,
            scenario=_read_scenario(scenario),
            staging=cloud_folder(staging, "staging") if staging else None,
        )
    server = make_server(emulator)
    with contextlib.closing(_listen(host, port)) as listener, _ending_on_signals(server):
        server.run(sockets=[listener])


@contextlib.contextmanager
def _kept_in(folder: Path | None) -> Iterator[None]:
    """Make the folder of the jobs. Errors about its content get its name."""
    if folder is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InputError(
            f"--data {folder} cannot be used", why=why, todo="Name a folder that may be written"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        todo = "Name another folder, or remove the job that it holds"
        raise InputError(f"--data {folder} holds a job that cannot be read", why=str(error), todo=todo) from error


def _read_scenario(path: Path | None) -> Scenario | None:
    if path is None:
        return None
    try:
        return Scenario.parse(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"The scenario {path} cannot be read", why=error.strerror or "", todo="Check the path"
        ) from error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"The emulator cannot listen on {host}:{port}",
            why=error.strerror or "",
            todo="Choose another address with --host, or another port with --port",
        ) from error
    return listener


@contextlib.contextmanager
def _ending_on_signals(server: uvicorn.Server) -> Any:
    def end(*_: object) -> None:
        server.should_exit = True

    before = {name: signal.signal(name, end) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
