"""Where do answers land: in files of Cloud Storage (``gs://``) or in a table of BigQuery (``bq://``)?

All differences between the two are in a destination: which arguments go with it, where its dead letters go, its sink,
the answers that it has already, and its page in the Cloud console.

`DestinationArguments` has the author's arguments. They are checked when the DAG file is read, as far as their texts are
known. After Airflow has rendered them, they are read as a `Destination`. An argument that does not go with the kind of
destination is refused both times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import msgspec

from airflow_vertex_batch.core.domain.address import TableId, Uri, cloud_folder
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.unrendered import (
    check_cloud_address,
    check_folder,
    check_table,
    may_begin,
    refuse_idle,
)

if TYPE_CHECKING:
    from airflow_vertex_batch.core.domain.ports import ObjectStore, Warehouse
    from airflow_vertex_batch.core.landing.landed import Answers
    from airflow_vertex_batch.core.landing.record import LandPlan
    from airflow_vertex_batch.core.landing.sink import Sink

#: The formats of files. `core.landing.formats` writes them; the names are repeated here so that a DAG file need not
#: load that module.
_FILE_FORMATS = ("jsonl", "parquet")


class Destination(Protocol):
    """A place where answers land.

    :cvar link: what a link to it is called.
    """

    link: ClassVar[str]

    @property
    def uri(self) -> str:
        """Its address, ``gs://…`` or ``bq://…``."""

    @property
    def console_url(self) -> str:
        """Its page in the Cloud console."""

    def sink(self, store: ObjectStore, warehouse: Warehouse, plan: LandPlan) -> Sink:
        """Return the sink for the rows of one landing."""

    def answers(self, store: ObjectStore, warehouse: Warehouse) -> Answers:
        """Return the good answers that the destination has already."""


class DestinationArguments(msgspec.Struct, frozen=True):
    """An author's arguments about a destination, before or after Airflow has rendered them.

    :param destination: ``gs://bucket/folder`` or ``bq://project.dataset.table``.
    :param project: completes ``bq://dataset.table``; empty if the connection may name the project.
    :param dead_letters: where rows without a good answer go, an address of the same kind. If not given, beside the
        answers.
    :param file_format: the format of files, ``jsonl`` or ``parquet``; ``jsonl`` if not given.
    """

    destination: Any
    project: Any = ""
    dead_letters: Any = None
    file_format: str | None = None

    def check(self, task_id: str) -> None:
        """Check the arguments that are known already. A template, or the output of a task, may become anything.

        :raises InputError: for what is no destination, or goes with the other kind.
        """
        if self.file_format not in {None, *_FILE_FORMATS}:
            raise InputError(f"file_format={self.file_format!r} is not known", todo="Use 'jsonl' or 'parquet'")
        for name in ("destination", "dead_letters"):
            check_cloud_address(getattr(self, name), name)
        if (kind := self._kind()) is not None:
            kind.check(self, task_id)

    def read(self, task_id: str, staging: Uri) -> Destination:
        """Return the destination, after all arguments are known.

        :param staging: the staging folder.
        :raises InputError: for what is no destination, or goes with the other kind.
        """
        self.check(task_id)
        kind = self._kind() or Files
        return kind.read(self, staging)

    def _kind(self) -> type[Files | Table] | None:
        """Return the kind of destination; None while it is not known."""
        text = self.destination
        found = [kind for kind in (Files, Table) if isinstance(text, str) and may_begin(text, (kind.scheme,))]
        return found[0] if len(found) == 1 else None


class Files(msgspec.Struct, frozen=True):
    """Files in a folder of Cloud Storage.

    :param folder: the folder; answers go to ``answers/`` below it.
    :param file_format: ``jsonl`` or ``parquet``.
    :param dead_letters: the folder of the dead letters; ``dead_letters-letters/`` below `folder` if not given.
    """

    scheme: ClassVar[str] = "gs://"
    link: ClassVar[str] = "Output folder"

    folder: Uri
    file_format: str = "jsonl"
    dead_letters: Uri | None = None

    @classmethod
    def check(cls, arguments: DestinationArguments, task_id: str) -> None:
        """Check an author's arguments for files."""
        from airflow_vertex_batch.core.landing.record import ANSWERS

        check_folder(arguments.destination, "destination")
        if arguments.dead_letters is None:
            return
        _of_one_kind(arguments, task_id, cls.scheme, f"{cls.scheme}bucket/folder", "files")
        check_folder(arguments.dead_letters, "dead_letters")
        folder, dead_letters = (str(text).rstrip("/") + "/" for text in (arguments.destination, arguments.dead_letters))
        if dead_letters.startswith(f"{folder}{ANSWERS}/"):
            raise InputError(
                f"dead_letters={arguments.dead_letters!r} lies in the folder of the answers",
                why="Whoever reads all answers would read the dead letters too",
                todo="Name another folder, or leave it out",
            )

    @classmethod
    def read(cls, arguments: DestinationArguments, _staging: Uri) -> Self:
        """Return what a rendered text names."""
        dead_letters = (
            cloud_folder(arguments.dead_letters, "dead_letters") if arguments.dead_letters is not None else None
        )
        return cls(
            cloud_folder(arguments.destination, "destination"), arguments.file_format or _FILE_FORMATS[0], dead_letters
        )

    @property
    def uri(self) -> str:
        """The folder's address."""
        return str(self.folder)

    @property
    def console_url(self) -> str:
        """The folder's page in the Cloud console."""
        return self.folder.console_url

    def sink(self, store: ObjectStore, _warehouse: Warehouse, plan: LandPlan) -> Sink:
        """Return the sink that merges the day's files."""
        from airflow_vertex_batch.core.landing.files import FileSink

        return FileSink(store, self.folder, plan, self.file_format, self.dead_letters)

    def answers(self, store: ObjectStore, _warehouse: Warehouse) -> Answers:
        """Return the good answers of the folder."""
        from airflow_vertex_batch.core.landing.landed import FileAnswers

        return FileAnswers(store, self.folder)


class Table(msgspec.Struct, frozen=True):
    """A BigQuery table.

    :param dead_letters: the table of the dead letters.
    :param staging: the folder of rows that are not loaded yet.
    """

    scheme: ClassVar[str] = "bq://"
    link: ClassVar[str] = "Table"

    table: TableId
    dead_letters: TableId
    staging: Uri

    @classmethod
    def check(cls, arguments: DestinationArguments, task_id: str) -> None:
        """Check an author's arguments for a table."""
        check_table(arguments.destination, "destination", arguments.project)
        why, todo = f"Answers land in the table {arguments.destination}", "Give destination='gs://…', or leave it out"
        refuse_idle(task_id, {"file_format": arguments.file_format}, why=why, todo=todo)
        if arguments.dead_letters is None:
            return
        _of_one_kind(arguments, task_id, cls.scheme, f"{cls.scheme}project.dataset.table", "a table")
        check_table(arguments.dead_letters, "dead_letters", arguments.project)
        if arguments.dead_letters == arguments.destination:
            raise InputError(
                f"dead_letters={arguments.dead_letters!r} is the table of the answers",
                why="A row is in one of the two tables",
                todo="Name another table, or leave it out",
            )

    @classmethod
    def read(cls, arguments: DestinationArguments, staging: Uri) -> Self:
        """Return what a rendered text names."""
        table = TableId.parse(arguments.destination, arguments.project or "")
        dead_letters = table.sibling(f"{table.table}_dead_letters")
        if arguments.dead_letters is not None:
            dead_letters = TableId.parse(arguments.dead_letters, arguments.project or "")
        return cls(table, dead_letters, staging / "landing")

    @property
    def uri(self) -> str:
        """The table's address."""
        return self.table.uri

    @property
    def console_url(self) -> str:
        """The table's page in the Cloud console."""
        return self.table.console_url

    def sink(self, store: ObjectStore, warehouse: Warehouse, plan: LandPlan) -> Sink:
        """Return the sink that merges rows into the two tables."""
        from airflow_vertex_batch.core.landing.table import TableSink

        return TableSink(store, warehouse, self.table, self.dead_letters, plan, self.staging)

    def answers(self, _store: ObjectStore, warehouse: Warehouse) -> Answers:
        """Return the good answers of the table."""
        from airflow_vertex_batch.core.landing.landed import TableAnswers

        return TableAnswers(warehouse, self.table)


def _of_one_kind(arguments: DestinationArguments, task_id: str, scheme: str, form: str, kind: str) -> None:
    """Insist that dead letters have the same kind of destination as the answers: one landing must be able to move a row
    from one to the other.
    """
    text = arguments.dead_letters
    if isinstance(text, str) and not may_begin(text, (scheme,)):
        raise InputError(
            f"Task {task_id} has dead_letters={text!r}, and its answers land in {kind}",
            why="A row that turns good leaves the dead letters in the same landing, so both are of one kind",
            todo=f"Write dead_letters='{form}', or leave it out",
        )
