"""How do all local servers start together, and which variables point clients at them?

::

    with Stack(Path(".local/demo"), dags=Path("dags")) as stack:
        os.environ.update(stack.env)          # now Google's clients and ours reach the local servers
        stack.airflow.client.trigger("my_dag")

Invariants: leaving the block, an exception while starting, and the death of this process all end every server; one
state folder serves one stack at a time; Cloud Storage is up before those that read from it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Self, TextIO

from stack.airflow import STOP_GRACE_S, Airflow, migrated_template
from stack.postgres import Postgres
from stack.process import Server, StackError, free_port, require_free, stop_all
from stack.servers import HOST, bigquery, cloud_storage, no_proxy, vertex_ai

#: The project of the connection that every local client uses.
PROJECT = "demo"
#: A port is a number of sixteen bits.
HIGHEST_PORT = 65_535


@dataclass(frozen=True)
class Ports:
    """Where the servers listen; 0 means any free port."""

    storage: int = 0
    bigquery: int = 0
    bigquery_grpc: int = 0
    vertex: int = 0
    airflow: int = 0

    @classmethod
    def from_environment(cls, **defaults: int) -> Ports:
        """Take ``PORT_STORAGE``, ``PORT_BIGQUERY``, ``PORT_BIGQUERY_GRPC``, ``PORT_VERTEX`` and ``PORT_AIRFLOW``.

        :raises StackError: if one is no port.
        """
        chosen = {}
        for name in (f.name for f in fields(cls)):
            text = os.environ.get(f"PORT_{name.upper()}") or str(defaults.get(name, 0))
            if not text.isdecimal() or int(text) > HIGHEST_PORT:
                raise StackError(
                    f"PORT_{name.upper()} must be a port number, 0 (any free one) to {HIGHEST_PORT}, but is {text!r}."
                )
            chosen[name] = int(text)
        return cls(**chosen)

    def resolved(self) -> Ports:
        """The same with a free port for every 0."""
        return Ports(**{f.name: getattr(self, f.name) or free_port() for f in fields(self)})


@dataclass
class Stack:
    """The local servers as one context manager.

    :param state: folder for data and logs.
    :param dags: folder with DAG files; None starts neither Airflow nor PostgreSQL.
    :param ports: fixed ports, where people should find the servers again.
    :param with_bigquery: whether to start BigQuery (6 to 13 s, needs Python 3.13).
    :param with_vertex: whether to start our emulator.
    :param model: who answers in the emulator, ``deterministic`` or ``smollm2``.
    :param speed: the emulator's speed.
    :param env: further variables for Airflow's processes and the clients.
    :param fresh: delete the data of an earlier run first.
    :param say: is told what happens, one line for each step.
    """

    state: Path
    dags: Path | None = None
    ports: Ports = field(default_factory=Ports)
    with_bigquery: bool = True
    with_vertex: bool = True
    model: str = "deterministic"
    speed: float = 60.0
    env: Mapping[str, str] = field(default_factory=dict)
    fresh: bool = True
    say: Callable[[str], None] = lambda _line: None
    airflow: Airflow = field(init=False, repr=False)
    servers: dict[str, Server] = field(default_factory=dict, init=False, repr=False)
    _postgres: Postgres | None = field(default=None, init=False, repr=False)
    _lock: TextIO | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.state = self.state.resolve()
        self.ports = self.ports.resolved()
        self.env = {**self.client_environment(), **self.env}

    def client_environment(self) -> dict[str, str]:
        """Variables that lead Google's clients, Airflow's hooks and ours to these servers."""
        connection = {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True, "project": PROJECT}}
        return {
            "STORAGE_EMULATOR_HOST": f"http://{HOST}:{self.ports.storage}",
            "BIGQUERY_EMULATOR_HOST": f"http://{HOST}:{self.ports.bigquery}",
            "VERTEX_BATCH_EMULATOR_HOST": f"http://{HOST}:{self.ports.vertex}",
            "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": json.dumps(connection),
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            # gcsfs would first speak gRPC with TLS to the emulator and lose a minute for every bucket (2026-11-22).
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "NO_PROXY": no_proxy(),
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything asked for.

        :raises StackError: saying what is missing, taken or broken; nothing is left running then.
        """
        try:
            self._claim()
            template = migrated_template() if self._step("preparing Airflow's database", self.dags) else None
            self._start_services()
            if self.dags and template:
                self._start_airflow(self.dags, template)
            self._write_variables()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything, the last started first: Airflow, then what it works on, PostgreSQL among it."""
        airflow = [server for name, server in self.servers.items() if name.startswith("airflow")]
        stop_all(airflow, STOP_GRACE_S)
        stop_all(server for server in self.servers.values() if server not in airflow)
        self.servers.clear()
        if self._postgres:
            self._postgres.discard()
        if self._lock:
            self._lock.close()

    @property
    def variables(self) -> Path:
        """A file for shells: it sets what leads clients, and the commands of Airflow, to these servers."""
        return self.state / "env.sh"

    def _write_variables(self) -> None:
        env = {**self.env, **(self.airflow.environment if self.dags else {})}
        lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(env.items()) if name != "PATH"]
        lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
        # A key of this Airflow is among them.
        self.variables.touch(mode=0o600)
        self.variables.write_text("\n".join([*lines, ""]))

    def log(self, name: str) -> Path:
        """The log file of one server."""
        return self.state / "logs" / f"{name}.log"

    def _claim(self) -> None:
        """Take the state folder, check the ports, and clean up after an earlier run."""
        self.state.mkdir(parents=True, exist_ok=True)
        self._lock = (self.state / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"Another stack is running in {self.state}. Stop it first (Ctrl-C in its terminal)."
            raise StackError(message) from error
        for name in (f.name for f in fields(self.ports)):
            require_free(getattr(self.ports, name), f"the {name} server (variable PORT_{name.upper()})")
        if self.fresh:
            for name in ("storage", "bigquery", "vertex", "airflow", "logs"):
                shutil.rmtree(self.state / name, ignore_errors=True)

    def _start_services(self) -> None:
        ports, state = self.ports, self.state
        storage = cloud_storage(state / "storage", self.log("cloud-storage"), ports.storage)
        self._launch(storage)
        storage.wait_healthy()
        if self.with_bigquery:
            url = self.client_environment()["STORAGE_EMULATOR_HOST"]
            self._launch(bigquery(state / "bigquery", self.log("bigquery"), ports.bigquery, ports.bigquery_grpc, url))
        if self.with_vertex:
            # Servers speak to each other, also where `env` leads clients through something in between.
            data, env = state / "vertex", {**self.env, **self.client_environment()}
            log = self.log("vertex-ai")
            self._launch(vertex_ai(data, log, ports.vertex, env, model=self.model, speed=self.speed))
        if not self.dags:
            self._wait()

    def _start_airflow(self, dags: Path, template: Path) -> None:
        self._postgres = Postgres.at(self.state / "airflow" / template.name)
        self._postgres.create(template)
        database = self._postgres.server(self.log("postgresql"))
        self._launch(database)
        database.wait_healthy()
        home, url = self.state / "airflow", self._postgres.url("airflow")
        self.airflow = Airflow(home, dags.resolve(), url, self.ports.airflow, self.state / "logs", self.env)
        self.airflow.prepare()
        for server in self.airflow.servers.values():
            self._launch(server)
        self._wait()

    def _launch(self, server: Server) -> None:
        self.servers[server.name] = server
        server.launch()

    def _wait(self) -> None:
        """Wait for all that was launched, telling each one's time: they start together, so the times overlap."""
        started_at = time.monotonic()
        for done, server in enumerate(self.servers.values(), start=1):
            server.wait_healthy()
            self.say(f"[{done}/{len(self.servers)}] {server.name} is up ({time.monotonic() - started_at:.0f} s)")

    def _step(self, text: str, wanted: object) -> bool:
        if wanted:
            self.say(text)
        return bool(wanted)
