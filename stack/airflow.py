"""How does a real Airflow run here, with scheduler, triggerer, dag processor and API server as separate processes?

``airflow standalone`` would start the same four, but a test must be able to kill one, and to see which one failed.

Invariants: all settings come from the environment, so another Airflow of the same person is neither read nor changed.
The four processes share one secret, one log folder and one database. Everybody who can reach the port is an admin.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from stack.client import AirflowClient
from stack.postgres import Postgres
from stack.process import Server, StackError, answers, stop_all
from stack.servers import HOST, LOCAL, no_proxy

#: Seconds until all four answer: 35 s on two idle cores, several times that on a busy machine.
START_TIMEOUT_S = 900.0
#: Seconds for a clean end. The triggerer waits for its triggers, which may wait for a job of days.
STOP_GRACE_S = 4.0

#: The folder of a module that Airflow imports in each process: it loads what tasks need before they are forked.
PRELOAD = Path(__file__).parent / "preload"

#: Where we differ from Airflow's defaults, which suit a big machine and a patient user.
SETTINGS: dict[str, str] = {
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "2",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "AIRFLOW__API__WORKERS": "1",
    "AIRFLOW__API__EXPOSE_CONFIG": "True",
    # New and changed files are seen within seconds, not minutes.
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "20",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    # A killed scheduler's tasks are found by the next one soon.
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
}


@dataclass
class Airflow:
    """One Airflow installation: its home folder, its database, its four servers.

    :param home: folder for logs and configuration.
    :param dags: the folder with the DAG files.
    :param database_url: SQLAlchemy's address of a migrated PostgreSQL database.
    :param port: of the API server and the UI.
    :param env: variables for all processes beside :data:`SETTINGS`, which they override.
    :param logs: folder for the log files of the servers themselves.
    """

    home: Path
    dags: Path
    database_url: str
    port: int
    logs: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Address of the UI."""
        return f"http://{HOST}:{self.port}"

    @cached_property
    def _secret(self) -> str:
        """The secret that the processes share. It is kept beside the data, because it also decrypts
        stored connections.
        """
        file = self.home / "secret"
        if not file.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(48))
        return file.read_text()

    @cached_property
    def client(self) -> AirflowClient:
        """A client of its REST API."""
        return AirflowClient(self.url)

    @cached_property
    def environment(self) -> dict[str, str]:
        """Variables that make any Airflow process on this machine a part of this installation."""
        return {
            **SETTINGS,
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_CONFIG": str(self.home / "airflow.cfg"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__FERNET_KEY": _fernet_key(self._secret),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database_url,
            "AIRFLOW__API__HOST": HOST,
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__SECRET_KEY": self._secret,
            "AIRFLOW__API_AUTH__JWT_SECRET": self._secret,
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(self.home / "bundles"),
            "NO_PROXY": no_proxy(),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(PRELOAD), os.environ.get("PYTHONPATH")))),
            **self.env,
        }

    @cached_property
    def servers(self) -> dict[str, Server]:
        """The four processes by their command's name, in the order in which they start."""
        # No log server (-s): all processes share one disk, so the API server reads every log itself.
        commands = (["api-server"], ["scheduler", "-s"], ["triggerer", "-s"], ["dag-processor"])
        return {command[0]: self._server(*command) for command in commands}

    def start(self) -> None:
        """Start all four together and wait until each reports itself healthy.

        :raises StackError: naming the one that did not come up, with the tail of its log.
        """
        self.prepare()
        try:
            for server in self.servers.values():
                server.launch()
            for server in self.servers.values():
                server.wait_healthy()
        except BaseException:
            self.stop()
            raise

    def prepare(self) -> None:
        """Make the home folder, with a configuration file: without one, the four would race to write theirs."""
        self.home.mkdir(parents=True, exist_ok=True)
        note = "# Empty on purpose: every setting comes from the environment, see stack/airflow.py.\n"
        (self.home / "airflow.cfg").write_text(note)

    def stop(self) -> None:
        """Stop all four; running tasks and waiting triggers are killed after :data:`STOP_GRACE_S`."""
        stop_all(self.servers.values(), STOP_GRACE_S)

    def cli(self, *arguments: str, timeout_s: float = 600) -> str:
        """Run an ``airflow`` command in this installation and return its standard output.

        :raises StackError: if it fails, with the end of its output.
        """
        done = subprocess.run(
            [*_airflow(), *arguments],
            env={**os.environ, **self.environment},
            text=True,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            output = (done.stdout + done.stderr)[-3000:]
            raise StackError(f"`airflow {' '.join(arguments)}` ended with status {done.returncode}.\n{output}")
        return done.stdout

    def _server(self, *command: str) -> Server:
        name = command[0]
        return Server(
            name=f"airflow {name}",
            argv=[*_airflow(), *command],
            log=self.logs / f"airflow-{name}.log",
            healthy=lambda: self._healthy(name.replace("-", "_")),
            env=self.environment,
            ports={self.port: "Airflow's UI"} if name == "api-server" else {},
            timeout_s=START_TIMEOUT_S,
        )

    def _healthy(self, component: str) -> bool:
        if component == "api_server":
            # Builds the execution API, 5 s of work that the first task would have to wait for (Airflow 3.3.2).
            return answers(f"{self.url}/execution/health")()
        return bool(self.client.health()[component]["status"] == "healthy")


def _fernet_key(secret: str) -> str:
    """A key in the form Fernet wants: 32 bytes in base 64."""
    return base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()).decode()


def _airflow() -> list[str]:
    return [sys.executable, "-m", "airflow"]


def migrated_template(cache: Path | None = None) -> Path:
    """Return a stopped database cluster with Airflow's tables in a database ``airflow``, to copy from.

    Migrating costs a quarter of a minute of work, so it is done once per set of Airflow packages and kept.

    :param cache: folder that keeps it; default below ``.local/``.
    :raises StackError: if PostgreSQL or the migration fails.
    """
    cache = cache or LOCAL / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    template = cache / f"postgres-{_airflow_fingerprint()}"
    with (cache / "postgres.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            _build_template(cache / "building", template)
    return template


def _build_template(work: Path, template: Path) -> None:
    database = Postgres.at(work / "data")
    server = database.server(work / "postgres.log")
    try:
        database.create()
        server.start()
        database.create_database("airflow")
        airflow = Airflow(work / "home", work, database.url("airflow"), port=0, logs=work)
        airflow.prepare()
        airflow.cli("db", "migrate", timeout_s=600)
        server.stop()
        database.save(template)
    finally:
        server.stop()
        database.discard()
        shutil.rmtree(work, ignore_errors=True)


def _airflow_fingerprint() -> str:
    """A name for the set of installed Airflow packages: another set may have other tables."""
    packages: list[Any] = [(d.metadata["Name"], d.version) for d in distributions()]
    ours = sorted(f"{name}=={version}" for name, version in packages if name.startswith("apache-airflow"))
    return hashlib.sha256("\n".join(ours).encode()).hexdigest()[:16]
