"""Where is data kept that does not fit into memory? In temporary files and databases, which are gone when they are
closed.

Invariant: a folder that is full, missing or read-only is a `DiskError` that names the folder and says what it needs.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.domain.errors import DiskError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

#: Bytes gathered before they are written.
_BUFFER_BYTES = 1 << 16
#: No space, over the user's quota, over the process's limit of a file.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: What SQLite says of a disk: full, an I/O error, cannot open, read-only.
_DISK_CODES = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})
_PRAGMAS = ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE")


def temporary_file(need: str) -> BinaryIO:
    """Return a file to write and read again; it has no name, and is gone when it is closed.

    :param need: how much room it takes, for a message: "as much as …".
    :raises DiskError: also while writing or moving in it.
    """
    try:
        handle, name = tempfile.mkstemp(prefix="avb-")
        Path(name).unlink()
    except OSError as error:
        raise _disk_error(error, need) from error
    return io.BufferedRandom(_File(handle, "r+b", lambda error, held: _disk_error(error, need, held)), _BUFFER_BYTES)


@contextlib.contextmanager
def temporary_database(need: str, *, cache_kb: int) -> Iterator[sqlite3.Connection]:
    """Yield a database to fill once and ask; it never keeps a transaction's old state.

    :param need: how much room it takes, for a message.
    :param cache_kb: most memory it holds, in KB.
    """
    try:
        file = tempfile.NamedTemporaryFile(prefix="avb-")  # noqa: SIM115 - closed below
    except OSError as error:
        raise _disk_error(error, need) from error
    with file, contextlib.closing(_open_database(file.name, need)) as database:
        for pragma in (*_PRAGMAS, f"cache_size=-{cache_kb}"):
            database.execute(f"PRAGMA {pragma}")
        database.execute("BEGIN")
        yield database


@contextlib.contextmanager
def written_below(folder: str) -> Iterator[None]:
    """Turn errors of writing below a folder that the user named into ours.

    :raises DiskError: when it is full.
    :raises InputError: when nothing can be written into it at all.
    """
    try:
        yield
    except OSError as error:
        raise _folder_error(error, folder) from error


def file_below(folder: str, handle: int) -> BinaryIO:
    """Return a stream into a new file of such a folder, whose writes fail with our error."""
    return io.BufferedWriter(_File(handle, "wb", lambda error, _: _folder_error(error, folder)), _BUFFER_BYTES)


def _folder_error(error: OSError, folder: str) -> DiskError | InputError:
    what, why = f"Cannot write into {folder}", error.strerror or str(error)
    if error.errno in _FULL:
        return DiskError(what, why=why, left=_free(folder), todo="Make room there")
    return InputError(what, why=why, todo="Check the folder's name and rights")


class _File(io.FileIO):
    """A file whose writes fail with our error; Python's buffer in front also writes when it is asked to read."""

    def __init__(self, handle: int, mode: str, wrong: Callable[[OSError, int], DiskError | InputError]) -> None:
        super().__init__(handle, mode)
        self._wrong = wrong

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise self._wrong(error, os.fstat(self.fileno()).st_size) from error


class _Database(sqlite3.Connection):
    """A database whose statements fail with our error."""

    need: str

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        with self._translated():
            return super().execute(*arguments)

    def executemany(self, sql: str, parameters: Iterable[Any]) -> sqlite3.Cursor:
        with self._translated():
            return super().executemany(sql, parameters)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            # The low byte is the kind; what is above it tells where it happened.
            if error.sqlite_errorcode & 0xFF not in _DISK_CODES:
                raise
            raise _disk_error(error, self.need) from error


def _open_database(name: str, need: str) -> _Database:
    database = sqlite3.connect(name, isolation_level=None, factory=_Database)
    database.need = need
    return database


def _disk_error(error: Exception, need: str, held_bytes: int = 0) -> DiskError:
    folder = _folder()
    held = f"; {held_bytes / 1e6:,.1f} MB of it were written" if held_bytes else ""
    return DiskError(
        f"The temporary folder {folder} cannot be written" + _other_than_asked(folder),
        why=(error.strerror if isinstance(error, OSError) and error.strerror else str(error)) + held,
        left=_free(folder),
        todo=f"It needs {need}: make room there, or set TMPDIR to a folder that has it; a retry goes on from there",
    )


def _folder() -> str:
    with contextlib.suppress(OSError):
        return tempfile.gettempdir()
    return os.environ.get("TMPDIR", "")


def _other_than_asked(folder: str) -> str:
    asked = os.environ.get("TMPDIR", "")
    if not asked or Path(asked).absolute() == Path(folder).absolute():
        return ""
    return f" (TMPDIR is {asked}, which Python could not use)"


def _free(folder: str) -> str:
    with contextlib.suppress(OSError):
        return f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB are free there"
    return "There is no such folder"
