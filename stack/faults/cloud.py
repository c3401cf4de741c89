"""What is really on the servers? Direct access to the local Cloud Storage and BigQuery, without the gateway: the input
of a batch, and its results.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from stack.faults.calls import BIGQUERY, SOURCE_NAME, STORAGE
from stack.laptop import PROJECT

KEYS = tuple(f"a{number}" for number in range(6))
#: A row that fails in the first job, and one that is refused in every job.
HEALS, NEVER = "a1", "a2"
#: Bytes of each row that nobody asks for, where the rows are to be read in several pieces.
_JUNK_BYTES = 4 * 1024 * 1024


class Cloud:
    """The servers themselves.

    :param urls: service → address.
    """

    def __init__(self, urls: Mapping[str, str]) -> None:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery, storage

        def client(kind: Any, service: str) -> Any:
            options = {"api_endpoint": urls[service]}
            return kind(project=PROJECT, credentials=AnonymousCredentials(), client_options=options)  # type: ignore[no-untyped-call]

        self.storage = client(storage.Client, STORAGE)
        self.bigquery = client(bigquery.Client, BIGQUERY) if BIGQUERY in urls else None

    def begin(self, name: str, *, is_large: bool, to_table: bool) -> None:
        """Make what a batch begins with: a bucket of its name with the rows, and if need be a dataset of its name.

        :param is_large: whether the rows are to be read in several pieces.
        :param to_table: whether they are in a table, and land in one.
        """
        self.storage.create_bucket(name)
        self.put_rows(name, is_large=is_large)
        if to_table:
            assert self.bigquery is not None
            self.bigquery.create_dataset(name)
            self.bigquery.load_table_from_json(_rows(), f"{PROJECT}.{name}.source").result()

    def put_rows(self, name: str, edition: str = "", *, is_large: bool) -> None:
        """Write the rows that a batch reads.

        :param edition: tells them from other ones.
        """
        junk = {"junk": "x" * _JUNK_BYTES} if is_large else {}
        lines = [json.dumps({**row, **junk}) + "\n" for row in _rows(edition)]
        self.storage.bucket(name).blob(SOURCE_NAME).upload_from_string("".join(lines))

    def hold_back(self, folder: str, share: float) -> Callable[[], None]:
        """Let the objects of a folder hold only a share of their bytes; none at all lets them be gone.

        :param folder: ``gs://`` address.
        :returns: what puts them back.
        """
        name, _, prefix = folder.removeprefix("gs://").partition("/")
        whole = [(blob, blob.download_as_bytes()) for blob in self.storage.list_blobs(name, prefix=prefix)]
        for blob, data in whole:
            if share:
                blob.upload_from_string(data[: int(len(data) * share)])
            else:
                blob.delete()

        def put_back() -> None:
            for blob, data in whole:
                blob.upload_from_string(data)

        return put_back

    def end(self, name: str, *, to_table: bool) -> None:
        """Remove what belongs to a batch."""
        self.storage.bucket(name).delete_blobs([*self.storage.list_blobs(name)])
        if to_table:
            assert self.bigquery is not None
            self.bigquery.delete_dataset(name, delete_contents=True)

    def files(self, name: str) -> tuple[Counter[str], Counter[str]]:
        """Return how often each row has landed in files, and among their dead letters."""
        landed: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        for blob in self.storage.list_blobs(name, prefix="landed/"):
            lines = [json.loads(line) for line in blob.download_as_bytes().splitlines()]
            landed["dead-letters" in blob.name].update(map(_told, lines))
        return landed

    def table(self, name: str) -> tuple[Counter[str], Counter[str]]:
        """Return the same of the tables."""
        found: list[Counter[str]] = []
        tables = {table.table_id for table in self._tables(name)}
        for table in ("answers", "answers_dead_letters"):
            assert self.bigquery is not None
            rows = self.bigquery.list_rows(f"{PROJECT}.{name}.{table}") if table in tables else []
            found.append(Counter(_told(dict(row.items())) for row in rows))
        return found[0], found[1]

    def _tables(self, name: str) -> Any:
        assert self.bigquery is not None
        return self.bigquery.list_tables(name)

    def left_over(self, name: str, *, to_table: bool) -> list[str]:
        """Return what should not be there any more: tables beside the two that were asked for, and files that a
        manifest names and nobody has.
        """
        tables = [table.table_id for table in self._tables(name)] if to_table else []
        surplus = [f"table {table}" for table in tables if table not in {"source", "answers", "answers_dead_letters"}]
        blobs = {f"gs://{name}/{blob.name}": blob for blob in self.storage.list_blobs(name, prefix="staging/")}
        manifests = [json.loads(blob.download_as_bytes()) for uri, blob in blobs.items() if "/manifests/" in uri]
        named = [shard["uri"] for manifest in manifests for shard in manifest["shards"]]
        return surplus + [f"a manifest names {uri.rpartition('/')[2]}" for uri in named if uri not in blobs]


def _rows(edition: str = "") -> list[dict[str, str]]:
    return [{"id": key, "text": f"text of {key}{edition}"} for key in KEYS]


def _told(row: Mapping[str, Any]) -> str:
    """Return a landed row as one word: its key and, if its columns belong to another row, these columns."""
    columns = row.get("columns")
    columns = json.loads(columns) if isinstance(columns, str) else columns or {}
    text = columns.get("text", "no columns")
    return str(row["row_key"]) + str(text).removeprefix(f"text of {row['row_key']}")
