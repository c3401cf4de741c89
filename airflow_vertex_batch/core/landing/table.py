"""How do rows land in a BigQuery table, so that landing twice is landing once?

Good rows land at the destination. The other rows land beside it as dead letters, with their reasons. Each of the two
tables is changed by one MERGE on ``(partition_date, row_key)`` from a staging table, so a row is there once, whatever
ran before. The MERGE of the dead letters also deletes a row that is good now, and the MERGE of the destination a row
that is bad now. If a landing dies between the two MERGEs, landing again completes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from typing import IO, TYPE_CHECKING, Any, Self
from uuid import uuid4

from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.landing.record import COLUMNS, SCHEMA, LandedRow, LandPlan

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from airflow_vertex_batch.core.domain.ports import ObjectStore, Warehouse

#: Seconds until BigQuery removes a staging table that a crash left behind.
_STAGING_LIFE_SECONDS = 24 * 3600
#: How many rows, or bytes, are written together.
_FLUSH_ROWS, _FLUSH_BYTES = 2_000, 8 << 20


class _StagedRows:
    """Writes the file from which a staging table is loaded.

    :param day: the partition date of its rows.
    """

    def __init__(self, store: ObjectStore, uri: Uri, day: str) -> None:
        self._open = store.open_write(uri)
        self._head = b'{"partition_date":' + encode(day) + b","
        self._lines: list[bytes] = []
        self._size = 0

    def __enter__(self) -> Self:
        self._stream: IO[bytes] = self._open.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        _close_or_abort(self._open, self._flush, error)

    def add(self, record: LandedRow) -> bytes:
        line = self._head + encode(record)[1:]
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _FLUSH_BYTES or len(self._lines) >= _FLUSH_ROWS:
            self._flush()
        return line

    def _flush(self) -> None:
        if self._size >= _FLUSH_BYTES:
            # If the lines were joined, they would be in memory twice.
            self._stream.writelines(piece for line in self._lines for piece in (line, b"\n"))
        elif self._lines:
            self._stream.write(b"\n".join([*self._lines, b""]))
        self._lines.clear()
        self._size = 0


def _close_or_abort(
    opened: AbstractContextManager[Any], finish: Callable[[], None], error: BaseException | None
) -> None:
    """Leave the context of an object: finish it, or abort it if there was an error or `finish` raises one."""
    if error is None:
        try:
            finish()
        except BaseException as late:
            opened.__exit__(type(late), late, late.__traceback__)
            raise
    opened.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)


class TableSink:
    """Lands in a BigQuery table and a dead-letter table, with one staged file and one staging table.

    :param staging: the folder of staged files, and of nothing else. All tasks share it. An attempt removes its own
        file, whether it lands or fails. If an attempt was killed, any landing removes its file a day later. Before
        that, the file may belong to an attempt that will still load it.
    """

    def __init__(
        self,
        store: ObjectStore,
        warehouse: Warehouse,
        table: TableId,
        dead_letters: TableId,
        plan: LandPlan,
        staging: Uri,
    ) -> None:
        self._store, self._warehouse, self._plan = store, warehouse, plan
        self._table, self._dead, self._staging = table, dead_letters, staging
        # A unique name: an attempt that was given up may still write, and must not replace the rows that this attempt
        # counted.
        self._file = staging / f"rows-{int(time.time())}-{uuid4().hex[:12]}.jsonl"
        self._digest, self._count = 0, 0
        self.destination, self.dead_letters = table.uri, dead_letters.uri

    def __enter__(self) -> Self:
        self._writer = _StagedRows(self._store, self._file, self._plan.partition_date).__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._writer.__exit__(kind, error, trace)
        if kind is None:
            try:
                self._merge()
            except BaseException:
                # The retry stages its rows again.
                with contextlib.suppress(Exception):
                    self._store.delete(self._file)
                raise
            self._store.delete(self._file)
            for info in list(self._store.list(self._staging / "")):
                if is_abandoned(info.uri, time.time()):
                    self._store.delete(info.uri)

    def add(self, record: LandedRow, *, good: bool) -> None:  # noqa: ARG002 - the MERGE goes by status
        """Take one record."""
        self._count += 1
        self._digest += int.from_bytes(hashlib.blake2b(self._writer.add(record), digest_size=16).digest())

    def _merge(self) -> None:
        for table in (self._table, self._dead):
            ensure_table(self._warehouse, table)
        name = hashlib.sha256(f"{self._table}\0{self._plan.batch_id}\0{self._digest}".encode()).hexdigest()[:24]
        staging = self._table.sibling(f"avb_staging_{name}")
        self._warehouse.create_table(staging, SCHEMA, expires_in=_STAGING_LIFE_SECONDS)
        if self._count:
            self._warehouse.load([str(self._file)], staging, SCHEMA, job_id=f"avb-load-{name}")
        for table, condition in ((self._table, "S.status = 'succeeded'"), (self._dead, "S.status != 'succeeded'")):
            self._warehouse.execute(
                merge_sql(table, staging, condition, replace_partition=self._plan.replace_partition),
                job_id=f"avb-merge-{name}",
                parameters={"partition_date": _date(self._plan.partition_date)},
            )
        self._warehouse.drop(staging)


def is_abandoned(staged: Uri, now: float) -> bool:
    """Whether a staged file is so old that no attempt can load it any more. Its staging table has expired too.

    :param now: seconds since the epoch, as in the file's name.
    """
    found = re.fullmatch(r"rows-(\d+)-.*", staged.name.rpartition("/")[2])
    return found is not None and now - int(found[1]) > _STAGING_LIFE_SECONDS


def ensure_table(warehouse: Warehouse, table: TableId) -> None:
    """Make a destination table if it does not exist; add the columns that an older version did not have."""
    warehouse.create_table(
        table,
        SCHEMA,
        partition_column="partition_date",
        clustering=["status", "row_key"],
        description="Written by airflow-vertex-batch",
    )


def merge_sql(table: TableId, staging: TableId, condition: str, *, replace_partition: bool) -> str:
    """Return the MERGE statement: the rows under `condition` become as they are in the staging table."""
    sets = ", ".join(f"{name} = S.{name}" for name in COLUMNS)
    values = ", ".join(f"S.{name}" for name in COLUMNS)
    stale = (
        "\nWHEN NOT MATCHED BY SOURCE AND T.partition_date = @partition_date THEN DELETE" if replace_partition else ""
    )
    # The date is repeated as a constant so that BigQuery reads only that partition of the target. If an answer of an
    # earlier run is there already, it keeps its cost: only the columns beside it may be newer.
    return f"""
MERGE `{table}` AS T USING `{staging}` AS S
ON T.partition_date = @partition_date AND T.partition_date = S.partition_date AND T.row_key = S.row_key
WHEN MATCHED AND S.attempts = 0 AND T.status = 'succeeded' AND S.status = T.status
  AND T.request_digest = S.request_digest
  THEN UPDATE SET columns = S.columns
WHEN MATCHED AND {condition} THEN UPDATE SET {sets}
WHEN MATCHED THEN DELETE
WHEN NOT MATCHED BY TARGET AND {condition} THEN INSERT ({", ".join(COLUMNS)}) VALUES ({values}){stale}
""".strip()  # noqa: S608 - table names are parsed, conditions are ours


def _date(text: str) -> Any:
    from datetime import date

    return date.fromisoformat(text)
