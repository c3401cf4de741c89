"""The command line: ``airflow-vertex-batch doctor | emulator | lint | prices | report | run | story | sweep``. It loads
Airflow only for ``sweep --airflow-here``.

Exit status: 0 clean, 1 findings (errors, not warnings), 2 the command could not do its work; of `sweep` also 3: there
may be more to find, because nobody could say what became of some runs; of `run` also 3, jobs still run, and 130,
interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch import __version__
from airflow_vertex_batch.cli.escapes import printed
from airflow_vertex_batch.cli.lint import add_lint
from airflow_vertex_batch.cli.report import add_report
from airflow_vertex_batch.cli.run import add_run
from airflow_vertex_batch.cli.story import add_story
from airflow_vertex_batch.cli.sweep import add_sweep
from airflow_vertex_batch.cli.terminal import (
    NAME,
    Parser,
    machine_error,
    not_empty,
    positive,
    prepare_output,
    print_error,
    stop_printing,
)
from airflow_vertex_batch.core.domain.errors import VertexBatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_vertex_batch.core.upkeep.preflight import Plan

_LAST_PORT = 65535


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Everything that it prints is safe for a terminal."""
    prepare_output()
    with printed():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        try:
            options = _parser().parse_args(arguments)
            status = int(options.run(options))
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except VertexBatchError as error:
        print_error(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The program that read our output has closed the pipe.
        stop_printing()
    except OSError as error:
        stop_printing()
        print_error(machine_error(error))
    else:
        return status
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=NAME, description="Gemini batches on Vertex AI for Apache Airflow.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add_lint(commands)
    add_report(commands)
    add_run(commands)
    add_story(commands)
    add_sweep(commands)
    _add_emulator(commands)
    _add_doctor(commands)
    return parser


def _add_emulator(commands: Any) -> None:
    emulator = commands.add_parser(
        "emulator", help="serve batchPredictionJobs on this machine", description=_emulator.__doc__
    )
    emulator.add_argument(
        "--host", type=not_empty, default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    emulator.add_argument("--port", type=_port, default=8085, help="port to listen on (default: %(default)s)")
    emulator.add_argument(
        "--data", type=_path, default=None, metavar="DIR", help="keep jobs here over a restart (default: in memory)"
    )
    emulator.add_argument(
        "--model", default="deterministic", help="who answers: deterministic (default) or smollm2, a real local model"
    )
    emulator.add_argument(
        "--speed",
        type=positive,
        default=60.0,
        help="how many times faster than the service jobs pass their states (default: %(default)s)",
    )
    emulator.add_argument("--scenario", type=_path, default=None, metavar="FILE", help="switches and faults as JSON")
    emulator.add_argument(
        "--staging",
        type=not_empty,
        default=None,
        metavar="URI",
        help="gs:// folder for rows on their way from BigQuery to BigQuery",
    )
    emulator.set_defaults(run=_emulator)


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser("doctor", help="will a batch run?", description=_doctor.__doc__)
    for name, what in (
        ("--project", "project of the jobs"),
        ("--location", "location of the jobs: a region, or global"),
        ("--model", "the model to ask"),
    ):
        doctor.add_argument(name, required=True, help=what)
    for name, what in (
        ("--staging", "gs:// folder for request files and logs"),
        ("--source", "what is read to make requests: bq:// table, gs:// files"),
        ("--destination", "where answers land: bq:// table or gs:// folder"),
        ("--input", "what the job itself reads, where not prepared: bq:// table, gs:// files"),
        ("--output", "where the job itself writes, where not below --staging: bq://, gs://"),
        ("--display-name", "name of the job"),
    ):
        doctor.add_argument(name, default="", metavar=name[2:].upper(), help=what)
    doctor.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE", help="label of the job; repeatable"
    )
    doctor.add_argument("--canary", action="store_true", help="ask one request online, which costs a little")
    doctor.add_argument("--prompt", default="Hello", help="with --canary: what to ask, a template over --row")
    doctor.add_argument("--row", type=_json_object, default={}, metavar="JSON", help="with --canary: the row to ask")
    doctor.add_argument("--system-instruction", default=None, metavar="TEXT", help="with --canary: the batch's own")
    doctor.add_argument(
        "--generation-config", type=_json_object, default={}, metavar="JSON", help="with --canary: the batch's own"
    )
    doctor.add_argument(
        "--schema", type=_json_object, default=None, metavar="JSON", help="with --canary: JSON Schema of an answer"
    )
    doctor.add_argument("--format", choices=("text", "json"), default="text")
    doctor.set_defaults(run=_doctor)


def _json_object(text: str) -> dict[str, Any]:
    try:
        doc = json.loads(text)
    except (ValueError, RecursionError) as error:
        # The text may be a row, so it is not repeated.
        why = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise argparse.ArgumentTypeError(f"this is no JSON{why}") from error
    if not isinstance(doc, dict):
        raise argparse.ArgumentTypeError("this is no JSON object")
    return doc


def _path(text: str) -> Path:
    return Path(not_empty(text))


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; use 0 (any free one) to {_LAST_PORT}")
    return int(text)


def _doctor(options: argparse.Namespace) -> int:
    """Find in seconds faults that would make a batch fail hours later. Nothing is created. Nothing is paid, except with
    --canary.

    The exit status is 1 if a check failed; with only warnings and unknown results it is 0. If
    VERTEX_BATCH_EMULATOR_HOST, STORAGE_EMULATOR_HOST and BIGQUERY_EMULATOR_HOST name local servers, these are asked.
    """
    from airflow_vertex_batch.core.upkeep.preflight import preflight
    from airflow_vertex_batch.gcp.doctor import GoogleCloud, Hosts, environment_credentials

    hosts = Hosts.from_environment()
    cloud = GoogleCloud(lambda: environment_credentials(hosts), options.project, options.location, hosts)
    report = preflight(_plan(options), cloud)
    print(json.dumps(report.as_dict(), indent=2) if options.format == "json" else report.text())
    return 1 if report.error() is not None else 0


def _plan(options: argparse.Namespace) -> Plan:
    from airflow_vertex_batch.core.domain.address import refuse_wildcards
    from airflow_vertex_batch.core.requests.request import RequestTemplate
    from airflow_vertex_batch.core.upkeep.preflight import Canary
    from airflow_vertex_batch.core.upkeep.preflight import Plan as Made

    for name in ("staging", "destination", "output"):
        refuse_wildcards(getattr(options, name), f"--{name}")
    template = RequestTemplate(
        prompt=options.prompt,
        system_instruction=options.system_instruction,
        generation_config=options.generation_config,
        response_schema=options.schema,
    )
    named = ("project", "location", "model", "staging", "source", "destination", "input", "output", "display_name")
    return Made(
        **{name: getattr(options, name) for name in named},
        labels={key: value for key, _, value in (label.partition("=") for label in options.label)},
        canary=Canary(template=template, row=options.row) if options.canary else None,
    )


def _emulator(options: argparse.Namespace) -> int:
    """Serve the REST surface of batchPredictionJobs over HTTP.

    Request files are read from, and predictions written to, the Cloud Storage server that STORAGE_EMULATOR_HOST names,
    and the BigQuery server that BIGQUERY_EMULATOR_HOST names. Clients find the emulator by VERTEX_BATCH_EMULATOR_HOST.
    """
    from airflow_vertex_batch.core.domain.errors import InputError

    try:
        from airflow_vertex_batch.emulator.server import serve
    except ModuleNotFoundError as error:
        todo = "Install airflow-vertex-batch[emulator]"
        raise InputError("The emulator's web server is not installed", why=str(error), todo=todo) from error
    from airflow_vertex_batch.gcp.bigquery import BigQueryWarehouse
    from airflow_vertex_batch.gcp.storage import GcsStore

    serve(
        host=options.host,
        port=options.port,
        data=options.data,
        model=options.model,
        speed=options.speed,
        scenario=options.scenario,
        staging=options.staging,
        store=GcsStore(),
        warehouse=BigQueryWarehouse(),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
