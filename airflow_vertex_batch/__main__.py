"""The command line: ``airflow-vertex-batch doctor | emulator | lint | prices | report | sweep``. Loads no Airflow but
for ``sweep --airflow-here``.

Exit status: 0 clean, 1 findings (errors, not warnings), 2 the command could not do its work; of `sweep` also 3: there
may be more to find, because nobody could say what became of some runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch import __version__
from airflow_vertex_batch.core.errors import VertexBatchError
from airflow_vertex_batch.sweep_command import add_sweep

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_vertex_batch.core.address import Uri
    from airflow_vertex_batch.core.lint import Finding
    from airflow_vertex_batch.core.lint.rewrite import Cure
    from airflow_vertex_batch.core.ports import ObjectStore
    from airflow_vertex_batch.core.preflight import Plan

_LAST_PORT = 65535
PRICE_FILE_HELP = "price file, local or gs://, whose entries replace the shipped ones by model"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except VertexBatchError as error:
        print(f"airflow-vertex-batch: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has had enough; closing stderr keeps Python from complaining on the way out.
        sys.stderr.close()
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airflow-vertex-batch", description="Gemini batches on Vertex AI for Apache Airflow."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    lint = commands.add_parser("lint", help="is this request JSONL fit to send?", description=_lint.__doc__)
    lint.add_argument(
        "files", nargs="+", metavar="FILE", help="request JSONL of one job: local path, gs:// object, or glob"
    )
    lint.add_argument("--format", choices=("text", "json"), default="text")
    lint.add_argument(
        "--fix", action="store_true", help="write a cured copy of each file, name.fixed.jsonl, and lint the copies"
    )
    lint.add_argument(
        "--output", default=None, metavar="DIR", help="with --fix: the folder of the copies, local or gs://"
    )
    lint.add_argument(
        "--ignore", action="append", default=[], metavar="RULE", help="let what this rule finds pass; may be repeated"
    )
    lint.set_defaults(run=_lint)
    _add_money(commands)
    add_sweep(commands)
    _add_emulator(commands)
    _add_doctor(commands)
    return parser


def _add_money(commands: Any) -> None:
    report = commands.add_parser(
        "report", help="what came of a batch, and what did it cost?", description=_report.__doc__
    )
    report.add_argument(
        "predictions",
        nargs="+",
        metavar="PREDICTIONS",
        help="predictions.jsonl or an output folder: local path or gs://",
    )
    report.add_argument("--format", choices=("text", "json", "markdown"), default="text")
    report.add_argument("--prices", default=None, metavar="FILE", help=PRICE_FILE_HELP)
    report.set_defaults(run=_report)

    prices = commands.add_parser("prices", help="what does a token cost?", description=_prices.__doc__)
    prices.add_argument("--file", default=None, metavar="FILE", help=PRICE_FILE_HELP)
    prices.add_argument(
        "--day", type=_day, default=None, metavar="YYYY-MM-DD", help="mark the prices of this day (today)"
    )
    prices.add_argument("--format", choices=("text", "json"), default="text")
    prices.set_defaults(run=_prices)


def _add_emulator(commands: Any) -> None:
    emulator = commands.add_parser(
        "emulator", help="serve batchPredictionJobs on this machine", description=_emulator.__doc__
    )
    emulator.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    emulator.add_argument("--port", type=_port, default=8085, help="port to listen on (default: %(default)s)")
    emulator.add_argument(
        "--data", type=Path, default=None, metavar="DIR", help="keep jobs here over a restart (default: in memory)"
    )
    emulator.add_argument(
        "--model", default="deterministic", help="who answers: deterministic (default) or smollm2, a real local model"
    )
    emulator.add_argument(
        "--speed",
        type=float,
        default=60.0,
        help="how many times faster than the service jobs pass their states (default: %(default)s)",
    )
    emulator.add_argument("--scenario", type=Path, default=None, metavar="FILE", help="switches and faults as JSON")
    emulator.add_argument(
        "--staging", default=None, metavar="URI", help="gs:// folder for rows on their way from BigQuery to BigQuery"
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
        ("--staging", "gs:// folder for request files and the ledger"),
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
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON: {error}") from error
    if not isinstance(doc, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")
    return doc


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no day, YYYY-MM-DD") from error


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; use 0 (any free one) to {_LAST_PORT}")
    return int(text)


def _lint(options: argparse.Namespace) -> int:
    """Check request files as one job before they cost a queue: every finding with file, line, rule and cure.

    With --fix, what can be cured without changing its meaning is cured in copies, and the findings are about those.
    """
    from airflow_vertex_batch.core.errors import InputError
    from airflow_vertex_batch.core.lint import RULES, lint_files
    from airflow_vertex_batch.core.sources import matching
    from airflow_vertex_batch.gcp.storage import GcsStore

    store, ignore = GcsStore(), frozenset(options.ignore)
    if unknown := sorted(ignore - RULES.keys()):
        raise InputError(f"--ignore names no rule {unknown[0]!r}", todo=f"The rules are {', '.join(RULES)}")
    uris = (info.uri for info in matching(store, options.files))
    found: Iterator[Finding | Cure]
    if options.fix or options.output is not None:
        found = _rewritten(store, uris, options)
    else:
        found = lint_files(((str(uri), _lines(store, uri)) for uri in uris), ignore=ignore)
    worst = _print_json(found) if options.format == "json" else _print_text(found)
    return 1 if worst else 0


def _rewritten(store: ObjectStore, uris: Iterator[Uri], options: argparse.Namespace) -> Iterator[Finding | Cure]:
    from airflow_vertex_batch.core.address import Uri as Address
    from airflow_vertex_batch.core.errors import InputError
    from airflow_vertex_batch.core.lint.rewrite import rewrite, targets

    if not options.fix:
        raise InputError("--output says where copies go, and there are none without --fix", todo="Add --fix")
    copies = targets(uris, Address.parse(options.output) if options.output is not None else None)
    return rewrite(store, copies, ignore=frozenset(options.ignore))


def _lines(store: ObjectStore, uri: Uri) -> Iterator[bytes]:
    from airflow_vertex_batch.core.sources import open_text

    with open_text(store, uri) as stream:
        yield from stream


def _print_json(found: Iterator[Finding | Cure]) -> int:
    """Print one object, finding by finding, then the cures, and return the number of errors."""
    errors, separator, cures = 0, "\n", []
    print('{"findings": [', end="")
    for item in found:
        if not hasattr(item, "severity"):
            cures.append(item.as_dict())
            continue
        errors += item.severity == "error"
        print(separator + json.dumps(item.as_dict(), ensure_ascii=False), end="")
        separator = ",\n"
    print("]" + (f', "cures": {json.dumps(cures, ensure_ascii=False)}' if cures else "") + "}")
    return errors


def _print_text(found: Iterator[Finding | Cure]) -> int:
    errors = warnings = 0
    for item in found:
        severity = getattr(item, "severity", "")
        errors += severity == "error"
        warnings += severity == "warning"
        print(item)
    print(f"errors: {errors}, warnings: {warnings}" if errors or warnings else "clean")
    return errors


def _report(options: argparse.Namespace) -> int:
    """Count the rows of output files by status, add up their tokens, and price them."""
    from airflow_vertex_batch.core.classify import classify
    from airflow_vertex_batch.core.collect import file_lines
    from airflow_vertex_batch.core.prices import PriceTable
    from airflow_vertex_batch.core.report import Totals
    from airflow_vertex_batch.gcp.storage import GcsStore

    store = GcsStore()
    totals = Totals(PriceTable.load(store, options.prices))
    for number, line in enumerate(file_lines(store, _result_files(store, options.predictions)), start=1):
        totals.add(classify(line, str(line.key) if line.key is not None else f"line-{number}"))
    report = totals.report()
    written = {
        "json": lambda: json.dumps(report.as_dict(), indent=2),
        "markdown": report.markdown,
        "text": report.text,
    }
    print(written[options.format]())
    return 0


def _prices(options: argparse.Namespace) -> int:
    """List the prices, US dollars per million tokens at the batch rate, each with its days, its source and date.

    Where a model has several, a star marks the one of --day.
    """
    import msgspec

    from airflow_vertex_batch.core.prices import PriceTable, billing_day
    from airflow_vertex_batch.gcp.storage import GcsStore

    table = PriceTable.load(GcsStore(), options.file)
    if options.format == "json":
        # The same shape as a price file: what is printed can be edited and read back.
        discount = {"cached_discount": table.cached} if table.cached else {}
        prices = [msgspec.to_builtins(price) for price in table]
        print(json.dumps({**discount, "prices": prices}, indent=1, ensure_ascii=False))
    else:
        print(table.text(options.day or billing_day(datetime.now(UTC))))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    """Check in seconds what would fail a batch hours later; nothing is created, and nothing is paid but --canary.

    Exit status 1 when a check failed; warnings, and what cannot be known, leave it at 0. Local servers are asked where
    VERTEX_BATCH_EMULATOR_HOST, STORAGE_EMULATOR_HOST and BIGQUERY_EMULATOR_HOST name them.
    """
    from airflow_vertex_batch.core.preflight import preflight
    from airflow_vertex_batch.gcp.doctor import GoogleCloud, Hosts, environment_credentials

    hosts = Hosts.from_environment()
    cloud = GoogleCloud(lambda: environment_credentials(hosts), options.project, options.location, hosts)
    report = preflight(_plan(options), cloud)
    print(json.dumps(report.as_dict(), indent=2) if options.format == "json" else report.text())
    return 1 if report.error() is not None else 0


def _plan(options: argparse.Namespace) -> Plan:
    from airflow_vertex_batch.core.preflight import Canary
    from airflow_vertex_batch.core.preflight import Plan as Made
    from airflow_vertex_batch.core.request import RequestTemplate

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


def _result_files(store: ObjectStore, names: Sequence[str]) -> Iterator[Uri]:
    """Yield the files that were named, and the result files of folders."""
    from airflow_vertex_batch.core.address import Uri as Address
    from airflow_vertex_batch.core.collect import result_files
    from airflow_vertex_batch.core.errors import InputError

    for name in names:
        uri = Address.parse(name)
        if name.endswith("/") or (uri.scheme == "file" and Path(uri.name).is_dir()):
            found = result_files(store, uri)
        else:
            found = [info.uri for info in store.list(uri)] if uri.has_glob else [uri]
        if not found:
            raise InputError(f"{name} has no result files", todo="Name predictions.jsonl, or the folder of outputInfo")
        yield from found


def _emulator(options: argparse.Namespace) -> int:
    """Serve the REST surface of batchPredictionJobs over HTTP.

    Request files are read from, and predictions written to, the Cloud Storage server that STORAGE_EMULATOR_HOST names,
    and the BigQuery server that BIGQUERY_EMULATOR_HOST names. Clients find the emulator by VERTEX_BATCH_EMULATOR_HOST.
    """
    from airflow_vertex_batch.emulator.server import serve
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
