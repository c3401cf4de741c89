"""How does the command line talk to people? Its errors, how long it waits, and how it ends.

Invariants: an error has two lines, what is wrong and what to do, and never a traceback. No error repeats the content of
a row or an answer. If a command cannot reach a server, it says so within seconds, because a person is waiting.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import math
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from airflow_vertex_batch.cli.escapes import printable
from airflow_vertex_batch.core.domain.errors import InputError, VertexBatchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_vertex_batch.gcp.storage import GcsStore

NAME = "airflow-vertex-batch"
#: Seconds for which a command repeats a call that fails. A nightly task is more patient: see `gcp.storage`.
CLI_OUTAGE_SECONDS = 5.0


class Parser(argparse.ArgumentParser):
    """Reports a wrong argument in the form of every error: what is wrong, and what to do."""

    def error(self, message: str) -> NoReturn:
        """Print the message, then how the command is called, and end with status 2."""
        print_error(
            InputError(f"{self.prog.removeprefix(NAME).strip()}: {message}".removeprefix(": "), todo=self._help())
        )
        self.print_usage(sys.stderr)
        sys.exit(2)

    def _help(self) -> str:
        return f"{self.prog} --help lists what can be given"


def print_error(error: VertexBatchError) -> None:
    """Print an error."""
    print(f"{NAME}: {error.put_advice_on_own_line()}", file=sys.stderr)


def not_empty(text: str) -> str:
    """Return an option's value.

    :raises argparse.ArgumentTypeError: for an empty one, such as a variable of the shell that is not set.
    """
    if not text:
        raise argparse.ArgumentTypeError("it is empty; give a value, or leave the option out")
    return text


def not_negative(text: str) -> float:
    """Return a number of 0 or more.

    :raises argparse.ArgumentTypeError: for anything else.
    """
    return _number(text, "0 or more", lambda value: value >= 0)


def positive(text: str) -> float:
    """Return a number above 0.

    :raises argparse.ArgumentTypeError: for anything else.
    """
    return _number(text, "above 0", lambda value: value > 0)


def _number(text: str, wanted: str, is_fit: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not is_fit(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number {wanted}")
    return value


class _Format(logging.Formatter):
    """A log handler that was made before `cli.escapes.printed`, so that it must escape texts itself."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def prepare_output() -> None:
    """Let warnings look like errors. Print a character that the terminal does not know as its number: a file name may
    contain one.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Format(f"{NAME}: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def stop_printing() -> None:
    """Throw away all further output. Otherwise Python would try to print it at its end, and report an error."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def machine_error(error: OSError) -> VertexBatchError:
    """Return our error for an error of this machine: a file, a folder or a socket that cannot be used."""
    place = f"Cannot use {error.filename}" if error.filename is not None else "Cannot read a file, or write the output"
    why = error.strerror or type(error).__name__
    return InputError(place, why=why, todo="Check that it exists, and what this account may do there")


def store() -> GcsStore:
    """Return the store that commands read from and write to."""
    from airflow_vertex_batch.gcp.storage import GcsStore

    return GcsStore(call_seconds=CLI_OUTAGE_SECONDS)
