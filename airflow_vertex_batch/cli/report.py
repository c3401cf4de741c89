"""What is the result of a batch, and what does a token cost? ``airflow-vertex-batch report`` and ``prices``.

Invariant: each result line is counted as one row, and nothing else is: a line of a request file is not counted as a
failed row.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.cli.terminal import NAME, not_empty, store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_vertex_batch.core.domain.address import Uri
    from airflow_vertex_batch.core.domain.jsonl import OutputLine
    from airflow_vertex_batch.core.domain.ports import ObjectStore

PRICE_FILE_HELP = "price file, local or gs://, whose entries replace the shipped ones by model"


def add_report(commands: Any) -> None:
    """Add both commands to the others."""
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
    report.add_argument("--prices", type=not_empty, default=None, metavar="FILE", help=PRICE_FILE_HELP)
    report.set_defaults(run=_report)

    prices = commands.add_parser("prices", help="what does a token cost?", description=_prices.__doc__)
    prices.add_argument("--file", type=not_empty, default=None, metavar="FILE", help=PRICE_FILE_HELP)
    prices.add_argument(
        "--day", type=_day, default=None, metavar="YYYY-MM-DD", help="mark the prices of this day (today)"
    )
    prices.add_argument("--format", choices=("text", "json"), default="text")
    prices.set_defaults(run=_prices)


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no day, YYYY-MM-DD") from error


def _report(options: argparse.Namespace) -> int:
    """Count the rows of output files by status, add up their tokens, and price them."""
    from airflow_vertex_batch.core.answers.classify import classify
    from airflow_vertex_batch.core.answers.report import Totals
    from airflow_vertex_batch.core.money.prices import PriceTable

    files = store()
    totals = Totals(PriceTable.load(files, options.prices))
    for number, line in enumerate(_results(files, options.predictions), start=1):
        totals.add(classify(line, str(line.key) if line.key is not None else f"line-{number}"))
    report = totals.report()
    written = {
        "json": lambda: json.dumps(report.as_dict(), indent=2),
        "markdown": report.markdown,
        "text": report.text,
    }
    print(written[options.format]())
    return 0


def _results(files: ObjectStore, names: Sequence[str]) -> Iterator[OutputLine]:
    """Yield the result lines of each file, and say how many lines are not result lines.

    :raises InputError: for a request file, and if no file has a line.
    """
    from airflow_vertex_batch.core.answers.collect import file_lines
    from airflow_vertex_batch.core.domain.errors import InputError

    is_empty = True
    # A file that is named twice, or by its folder too, is counted once.
    for uri in dict.fromkeys(_result_files(files, names)):
        _refuse_others(files, uri)
        asked = answered = 0
        for line in file_lines(files, [uri]):
            if line.is_answered:
                answered += 1
                yield line
            else:
                asked += 1
        if asked and not answered:
            raise InputError(
                f"{uri} is a request file",
                why=f"Of its {asked:,} lines, none has a response or a status",
                todo="Name the output, predictions.jsonl; a request file is checked by airflow-vertex-batch lint",
            )
        is_empty = is_empty and not asked and not answered
        if asked:
            print(f"{NAME}: {asked:,} lines of {uri} are no result lines, and are not counted", file=sys.stderr)
    if is_empty:
        todo = "Wait until the job has ended; then name the folder of its outputInfo"
        raise InputError(f"{', '.join(names)} has no line", why="There is nothing to count", todo=todo)


def _refuse_others(files: ObjectStore, uri: Uri) -> None:
    """Refuse a file that is not an output file.

    :raises InputError: with what it is.
    """
    from airflow_vertex_batch.core.requests.file_kinds import Kind, kind_of

    with files.open_read(uri) as stream:
        kind = kind_of(uri.name, stream)
    if kind is not Kind.JSON_LINES:
        table = "Name predictions.jsonl, or the folder of outputInfo"
        raise kind.refused(uri, "Report counts lines of output files, JSON objects with a response", table)


def _result_files(files: ObjectStore, names: Sequence[str]) -> Iterator[Uri]:
    """Yield the files that were named, and the result files of folders."""
    from airflow_vertex_batch.core.answers.collect import result_files
    from airflow_vertex_batch.core.domain.address import Uri as Address
    from airflow_vertex_batch.core.domain.errors import InputError

    for name in names:
        uri = Address.parse(name)
        if _is_folder(files, uri):
            found = result_files(files, uri)
        elif uri.has_glob:
            found = [info.uri for info in files.list(uri)]
        else:
            found = [uri]
        if not found:
            raise InputError(f"{name} has no result files", todo="Name predictions.jsonl, or the folder of outputInfo")
        yield from found


def _is_folder(files: ObjectStore, uri: Uri) -> bool:
    """Whether an address names a folder, with or without a slash at its end. In Cloud Storage, a name without an object
    is a folder.
    """
    if uri.scheme == "file":
        return uri.name.endswith("/") or Path(uri.name).is_dir()
    return not uri.name or uri.name.endswith("/") or not (uri.has_glob or files.version(uri))


def _prices(options: argparse.Namespace) -> int:
    """List the prices, US dollars per million tokens at the batch rate, each with its days, its source and date.

    Where a model has several, a star marks the one of --day.
    """
    import msgspec

    from airflow_vertex_batch.core.money.prices import PriceTable, billing_day

    table = PriceTable.load(store(), options.file)
    if options.format == "json":
        # The same form as a price file: the output can be edited and used as a price file.
        discount = {"cached_discount": table.cached} if table.cached else {}
        prices = [msgspec.to_builtins(price) for price in table]
        print(json.dumps({**discount, "prices": prices}, indent=1, ensure_ascii=False))
    else:
        print(table.text(options.day or billing_day(datetime.now(UTC))))
    return 0
