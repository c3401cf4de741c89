"""How does a batch run without Airflow? ``airflow-vertex-batch run``: one small file in, the answers at their
destination.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import logging
import os
import re
import shlex
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.cli.escapes import one_line
from airflow_vertex_batch.cli.report import PRICE_FILE_HELP
from airflow_vertex_batch.cli.terminal import NAME, not_empty, store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_vertex_batch.core.domain.errors import VertexBatchError
    from airflow_vertex_batch.core.domain.job import BatchJob
    from airflow_vertex_batch.core.progress import Skip, Wait
    from airflow_vertex_batch.core.purchase.approval import Question
    from airflow_vertex_batch.core.standalone.drive import Finished, Standalone

#: Options that win over a member of the spec.
_WINS = {
    "--staging": "staging_uri", "--destination": "destination", "--day": "partition_date", "--dag-id": "dag_id",
    "--run-id": "run_id", "--project": "project_id",
}  # fmt: skip
#: Words of an advice that was written for tasks.
_WORDS_OF_AIRFLOW = re.compile(r"\b(clear(ed|s)?|retry|attempts?|tasks?)\b", re.IGNORECASE)
_STILL_RUNNING = 3
_INTERRUPTED = 130


def add_run(commands: Any) -> None:
    """Add the command to the others."""
    run = commands.add_parser("run", help="run a whole batch without Airflow", description=_run.__doc__)
    run.add_argument(
        "spec", metavar="SPEC", type=not_empty, help="TOML file, local or gs://, with the arguments of vertex_batch()"
    )
    for option, what in (
        ("--staging", "gs:// folder for request files and logs"),
        ("--destination", "where answers land: gs:// folder or bq:// table"),
        ("--day", "the day the rows belong to, YYYY-MM-DD"),
        ("--dag-id", "first part of the batch's name"),
        ("--run-id", "name of this run: another one is another batch"),
        ("--project", "project of the jobs"),
    ):
        name = _WINS[option]
        run.add_argument(
            option, dest=name, type=not_empty, default=None, metavar=option[2:].upper().replace("-", "_"),
            help=f"{what}; wins over {name} in the spec",
        )  # fmt: skip
    how = run.add_mutually_exclusive_group()
    how.add_argument(
        "--once", action="store_true", help="do what can be done now, wait for nothing; exit status 3: jobs still run"
    )
    how.add_argument("--detach", action="store_true", help="end as soon as the jobs are created")
    run.add_argument(
        "--again",
        action="store_true",
        help="pay anew: read the source again, take an edited spec, buy what an ended job did not answer",
    )
    run.add_argument("--approve", action="store_true", help='with on_over_budget = "ask": yes, pay it')
    run.add_argument("--prices", type=not_empty, default=None, metavar="FILE", help=PRICE_FILE_HELP)
    run.add_argument("--format", choices=("text", "json"), default="text")
    run.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    """Prepare, create, wait, repair and land one batch, as the operators do, without Airflow.

    The spec is a TOML file with the arguments of vertex_batch(). Run it again, and it goes on where it was: a job that
    exists is attached to and never bought twice. What would pay anew needs --again. A DAG whose ids are the spec's
    dag_id, task_id and run_id goes on from the same log.

    Exit status: 0 landed, or nothing was to be sent, or created with --detach; 1 landed, and too many rows have no good
    answer; 2 it could not be done; 3 jobs still run (--once); 130 interrupted.
    """
    from airflow_vertex_batch.core.domain.errors import VertexBatchError
    from airflow_vertex_batch.core.money.prices import PriceTable
    from airflow_vertex_batch.core.standalone.drive import Standalone
    from airflow_vertex_batch.core.standalone.spec import Spec
    from airflow_vertex_batch.gcp.cloud import EnvironmentCloud

    said = {name: getattr(options, name) for name in _WINS.values()}
    environment = os.environ.get("GOOGLE_CLOUD_PROJECT", "")
    spec = Spec.read(_read_spec(options.spec), options.spec, project=environment, **said)
    # A server that does not answer is told of at once; the batch itself is as patient as a nightly task.
    store().read(spec.staging() / "is-anybody-there")
    cloud = EnvironmentCloud(spec.project_id or "", spec.location)
    prices = PriceTable.load(cloud.store, options.prices) if options.prices else PriceTable.shipped()
    person = _Person(approves=options.approve)
    try:
        batch = Standalone(spec, cloud, person, prices=prices, again=options.again)
        return _run_batch(options, batch, person)
    except VertexBatchError as error:
        _without_airflow(error)
        raise
    except OSError:
        raise
    except Exception:  # noqa: BLE001 - whatever it is
        # Status 1 says that answers have landed: whatever this is, it does not.
        traceback.print_exc()
        return 2


def _run_batch(options: argparse.Namespace, batch: Standalone, person: _Person) -> int:
    from airflow_vertex_batch.core.standalone.drive import WaitMode

    wait_mode = WaitMode.DETACH if options.detach else WaitMode.ONCE if options.once else WaitMode.WAIT
    try:
        with _log_steps_for_people(), person.watching(), _sigterm_as_interrupt():
            ended = batch.go_on(wait_mode)
    except KeyboardInterrupt:
        left = (
            f"Jobs that were created run on, and bill; {_command_to_go_on(options)}"
            if batch.has_jobs
            else "No job was created"
        )
        _say(f"Interrupted. {left}.")
        return _INTERRUPTED
    return _print_result(options, batch, ended)


def _without_airflow(error: VertexBatchError) -> VertexBatchError:
    """Let an error say what to do here: there is no task that could be cleared, or tried again."""
    from airflow_vertex_batch.core.domain.errors import JobError, LostOutputError, ResultError

    if isinstance(error, ResultError) and not isinstance(error, LostOutputError):
        error.todo = "Look at the dead letters; --again buys what ended jobs did not answer. Or change the limit"
    elif isinstance(error, JobError):
        error.todo = (
            "Run it once more to look again: it lands what there is"
            if error.retryable
            else "Run it with --again: it lands what was answered, and sends only the rest"
        )
    elif _WORDS_OF_AIRFLOW.search(error.todo):
        again = "Here this command is the task: the same command again is a retry, and with --again it is a clear"
        error.supplement(todo=again)
    return error


def _read_spec(name: str) -> bytes:
    """Return what stands in the spec.

    :raises InputError: when there is none.
    """
    from airflow_vertex_batch.core.domain.address import Uri
    from airflow_vertex_batch.core.domain.errors import InputError

    if (text := store().read(Uri.parse(name))) is None:
        raise InputError(f"There is no {name}", todo="Name a TOML file, here or in Cloud Storage (gs://…)")
    return text


def _print_result(options: argparse.Namespace, batch: Standalone, ended: Wait | Skip | Finished) -> int:
    """Say how it ended, and return the exit status."""
    from airflow_vertex_batch.core.progress import Wait
    from airflow_vertex_batch.core.standalone.drive import Finished

    is_json = options.format == "json"
    if isinstance(ended, Finished):
        print(json.dumps(ended.report.as_dict(), indent=2) if is_json else ended.report.text())
        if ended.bad is None:
            return 0
        _say(str(_without_airflow(ended.bad).put_advice_on_own_line()))
        return 1
    if isinstance(ended, Wait):
        names = [job.name for job in ended.jobs]
        print(json.dumps({"jobs": names, "log": str(batch.log.folder)}, indent=2) if is_json else "\n".join(names))
        _say(f"The jobs run; {_command_to_go_on(options)}.")
        return 0 if options.detach else _STILL_RUNNING
    print(json.dumps({"skipped": ended.why}) if is_json else f"Nothing was sent. {ended.why}")
    return 0


def _command_to_go_on(options: argparse.Namespace) -> str:
    """Name the command that goes on with this very batch. --again is not part of it: that would pay anew."""
    said = {**_WINS, "--prices": "prices"}
    given = [part for option, name in said.items() if (value := getattr(options, name)) for part in (option, value)]
    return f"this command attaches to them and goes on: {shlex.join([NAME, 'run', options.spec, *given])}"


def _say(text: str) -> None:
    # Whoever read the log may have gone: that ends no wait.
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            print(f"{NAME}: {text}", file=sys.stderr)


@contextlib.contextmanager
def _log_steps_for_people() -> Iterator[None]:
    """Let people follow: the steps are logged at INFO, and commands show warnings alone."""
    log = logging.getLogger("airflow_vertex_batch")
    before = log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(before)


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Take a request to end, as Kubernetes makes it, for Ctrl-C: both leave the jobs, and say so."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Person:
    """Whoever runs the command: at a terminal, or reading a log later.

    :param approves: whether every question about money is answered with yes.
    """

    def __init__(self, *, approves: bool) -> None:
        self._approves, self._bar = approves, _Bar() if sys.stderr is not None and sys.stderr.isatty() else None
        self._seen: dict[str, str] = {}

    def ask(self, question: Question) -> tuple[str, bool]:
        """Ask at the terminal; nobody answers where this is none."""
        if self._approves:
            return _user(), True
        if sys.stdin is None or not sys.stdin.isatty() or sys.stderr is None:
            return "", False
        # Not by `input`: that writes to the standard output, which is for the report.
        print(f"{one_line(question.subject)} [y/N] ", end="", file=sys.stderr, flush=True)
        try:
            return _user(), input().strip().lower() in {"y", "yes"}
        except EOFError:
            return "", False

    def show_jobs(self, jobs: Sequence[BatchJob]) -> None:
        """Show how far the jobs are: a bar at a terminal, a line for each new state elsewhere."""
        if self._bar is not None:
            self._bar.show(jobs)
            return
        for job in jobs:
            state = job.progress.partition(":")[0]
            if self._seen.get(job.name) != state:
                self._seen[job.name] = state
                _say(f"{job.name} {job.progress}")

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Clean the terminal up in the end."""
        try:
            yield
        finally:
            if self._bar is not None:
                self._bar.end()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a number that has no name.
        return f"uid {os.getuid()}"


class _Bar:
    """One bar for all jobs that are waited for."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=Console(file=sys.__stderr__), transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=None)

    def show(self, jobs: Sequence[BatchJob]) -> None:
        """Show the states, and how many rows are done."""
        states = sorted({one_line(job.progress.partition(":")[0]) for job in jobs})
        done = sum(max(job.successful_count, 0) + max(job.failed_count, 0) for job in jobs)
        left = sum(max(job.incomplete_count, 0) for job in jobs)
        has_counts = any(job.successful_count >= 0 for job in jobs)
        self._progress.update(
            self._task, description=", ".join(states), completed=done, total=done + left if has_counts else None
        )
        if all(job.state.is_final for job in jobs):
            self.end()
        else:
            self._progress.start()

    def end(self) -> None:
        """Take the bar away."""
        self._progress.stop()
