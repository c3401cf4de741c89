"""How does a person check request files from a shell? ``airflow-vertex-batch lint``, and ``lint --fix``.

Invariants: if a file is not a request file, the error says what kind of file it is, and which command or argument takes
it. Findings are only about requests.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.cli.escapes import one_line
from airflow_vertex_batch.cli.terminal import not_empty, store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from airflow_vertex_batch.core.domain.address import Uri
    from airflow_vertex_batch.core.domain.ports import ObjectStore
    from airflow_vertex_batch.core.requests.lint import Finding
    from airflow_vertex_batch.core.requests.lint.rewrite import Cure


def add_lint(commands: Any) -> None:
    """Add the command to the others."""
    lint = commands.add_parser("lint", help="is this request JSONL fit to send?", description=_lint.__doc__)
    lint.add_argument(
        "files", nargs="+", metavar="FILE", help="request JSONL of one job: local path, gs:// object, or glob"
    )
    lint.add_argument("--format", choices=("text", "json"), default="text")
    lint.add_argument(
        "--fix", action="store_true", help="write a cured copy of each file, name.fixed.jsonl, and lint the copies"
    )
    lint.add_argument(
        "--output",
        type=not_empty,
        default=None,
        metavar="DIR",
        help="with --fix: the folder of the copies, local or gs://",
    )
    lint.add_argument(
        "--ignore", action="append", default=[], metavar="RULE", help="let what this rule finds pass; may be repeated"
    )
    lint.add_argument(
        "--model", default="", help="the model that the job will ask: some settings suit some models only"
    )
    lint.set_defaults(run=_lint)


def _lint(options: argparse.Namespace) -> int:
    """Check request files as one job, before the job queues for hours: every finding has file, line, rule and what to
    do.

    With --fix, faults that can be repaired without a change of meaning are repaired in copies, and the findings are
    about the copies.
    """
    from airflow_vertex_batch.core.domain.address import model_path, refuse_wildcards
    from airflow_vertex_batch.core.domain.errors import InputError
    from airflow_vertex_batch.core.requests.lint import RULES, lint_files
    from airflow_vertex_batch.core.requests.sources import matching

    files, ignore = store(), frozenset(options.ignore)
    if unknown := sorted(ignore - RULES.keys()):
        raise InputError(f"--ignore names no rule {unknown[0]!r}", todo=f"The rules are {', '.join(RULES)}")
    if options.output is not None and not options.fix:
        raise InputError("--output says where copies go, and there are none without --fix", todo="Add --fix")
    refuse_wildcards(options.output or "", "--output")
    if options.model:
        model_path(options.model)
    uris = [info.uri for info in matching(files, options.files)]
    for uri in uris:
        _refuse_others(files, uri)
    found: Iterator[Finding | Cure]
    if options.fix:
        found = _rewritten(files, uris, options)
    else:
        found = lint_files(((str(uri), _lines(files, uri)) for uri in uris), ignore=ignore, model=options.model)
    worst = _print_json(found) if options.format == "json" else _print_text(found)
    return 1 if worst else 0


def _refuse_others(files: ObjectStore, uri: Uri) -> None:
    """Refuse a file that is not a request file.

    :raises InputError: with what it is, and which command or argument takes it.
    """
    from airflow_vertex_batch.core.requests.file_kinds import Kind, kind_of
    from airflow_vertex_batch.core.requests.sources import open_text

    with open_text(files, uri) as stream:
        kind = kind_of(uri.name, stream)
    if kind is not Kind.JSON_LINES:
        why = "Lint checks request files, one JSON object a line"
        table = "Give it to the prepare task as files=…, which makes a request of each row; then lint what it made"
        raise kind.refused(uri, why, table)


def _rewritten(files: ObjectStore, uris: list[Uri], options: argparse.Namespace) -> Iterator[Finding | Cure]:
    from airflow_vertex_batch.core.domain.address import Uri as Address
    from airflow_vertex_batch.core.requests.lint.rewrite import rewrite, targets

    copies = targets(uris, Address.parse(options.output) if options.output is not None else None)
    return rewrite(files, copies, ignore=frozenset(options.ignore), model=options.model)


def _lines(files: ObjectStore, uri: Uri) -> Iterator[bytes]:
    from airflow_vertex_batch.core.requests.sources import open_text

    with open_text(files, uri) as stream:
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
        print(one_line(item))
    print(f"errors: {errors}, warnings: {warnings}" if errors or warnings else "clean")
    return errors
