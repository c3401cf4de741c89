"""What may we say about an error of foreign code while rows are read? Such an error may quote a row. A database quotes
a value that it cannot convert, a DAG author's function may quote the row, and the service's importer quotes a value
that it cannot load.

Invariant: neither the error that is raised instead nor its causes hold any of the original words. They say where to
look: the type of the error, the database's code for it, and the line of the author's file.
"""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from airflow_vertex_batch.core.domain.errors import SourceError, VertexBatchError

#: Classes of SQLSTATE whose errors are only about names, rights and connections, and never about a value: connection,
#: authorization, catalog, syntax or access rule, resources, operator intervention, system
#: (https://www.postgresql.org/docs/current/errcodes-appendix.html, 2026-11-29; they are those of the SQL standard).
_SAY_NO_VALUE = frozenset({"08", "28", "3D", "42", "53", "57", "58"})
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
#: Where the importer, which is BigQuery's, quotes a value: "Could not convert value 'string_value: "…"' to integer.
#: Field: f; Value: …", "Could not parse '…' as INT64 for field f", "Bad int64 value: …"
#: (https://docs.cloud.google.com/bigquery/docs/error-messages, 2026-11-29).
_QUOTED = re.compile(r"""(?is)(\b(?:convert value|parse)(?: string)? (["'`])).*(\2 (?:to|as|for)\b)""")
_LAST = re.compile(r"(?is)(\bvalue: ).*")
_OURS = str(Path(__file__).resolve().parents[2])
_HIDDEN = "Its own words are not shown, because they may quote a row"


@contextlib.contextmanager
def redact_errors(
    what: Callable[[], str] | str, *, todo: str, passed_on: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Replace every error that is not ours, if it is raised inside, by a `SourceError`.

    :param what: what failed, or a function that says so at that time.
    :param todo: what the reader should do.
    :param passed_on: errors that the caller needs. They are passed on unchanged.
    :raises SourceError: without the words of the error.
    """
    try:
        yield
    except VertexBatchError:
        raise
    except passed_on:
        raise
    except Exception as error:  # noqa: BLE001 - whatever others raise may quote a row
        said = what() if callable(what) else what
        why = _words(error) or _HIDDEN
        raise SourceError(f"{said}: {_named(error)}{_place(error)}", why=why, todo=todo) from None


def _named(error: Exception) -> str:
    """Return an error's type, with the database's code where it has one."""
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"{name} ({code})" if (code := _code(error)) else name


def _code(error: Exception) -> str:
    """Return the SQLSTATE of psycopg and its like, or the number with which other drivers begin."""
    for name in ("sqlstate", "pgcode"):
        if isinstance(state := getattr(error, name, None), str) and _SQLSTATE.fullmatch(state):
            return f"SQLSTATE {state}"
    first = error.args[0] if error.args else None
    return f"error {first}" if type(first) is int else ""


def _words(error: Exception) -> str:
    """Return what a database says of names and rights: the message alone, without the statement that it is about."""
    said = getattr(getattr(error, "diag", None), "message_primary", None)
    is_plain = _code(error).removeprefix("SQLSTATE ")[:2] in _SAY_NO_VALUE
    return said if is_plain and isinstance(said, str) else ""


def _place(error: Exception) -> str:
    """Return where it was raised: the innermost line of a file that is not ours."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_OURS)]
    return f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""


def redact_values(said: str) -> str:
    """Return a message of the service about a job, with "…" instead of each quoted value."""
    return _LAST.sub(r"\1…", _QUOTED.sub(r"\1…\3", said))
