"""What is there really? The local Cloud Storage and BigQuery as they are, past the gateway: what a batch begins with,
and what it left.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from stack.faults.calls import BIGQUERY, STORAGE
from stack.laptop import PROJECT

KEYS = tuple(f"a{number}" for number in range(6))
#: A row that fails in the first job, and one that is refused in every job.
HEALS, NEVER = "a1", "a2"
ROWS = [{"id": key, "text": f"text of {key}"} for key in KEYS]


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

    def begin(self, name: str) -> None:
        """Make what a batch begins with: a bucket of its name with the rows, and a dataset of its name."""
        bucket = self.storage.create_bucket(name)
        bucket.blob("rows.jsonl").upload_from_string("".join(json.dumps(row) + "\n" for row in ROWS))
        if self.bigquery is not None:
            self.bigquery.create_dataset(name)
            self.bigquery.load_table_from_json(ROWS, f"{PROJECT}.{name}.source").result()

    def end(self, name: str) -> None:
        """Remove what belongs to a batch."""
        self.storage.bucket(name).delete_blobs([*self.storage.list_blobs(name)])
        if self.bigquery is not None:
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
        assert self.bigquery is not None
        found: list[Counter[str]] = []
        tables = {table.table_id for table in self.bigquery.list_tables(name)}
        for table in ("answers", "answers_dead_letters"):
            rows = self.bigquery.list_rows(f"{PROJECT}.{name}.{table}") if table in tables else []
            found.append(Counter(_told(dict(row.items())) for row in rows))
        return found[0], found[1]

    def left_over(self, name: str) -> list[str]:
        """Return what should not be there any more: tables beside the two that were asked for, and files that a
        manifest names and nobody has.
        """
        tables = [table.table_id for table in self.bigquery.list_tables(name)] if self.bigquery is not None else []
        surplus = [f"table {table}" for table in tables if table not in {"source", "answers", "answers_dead_letters"}]
        blobs = {f"gs://{name}/{blob.name}": blob for blob in self.storage.list_blobs(name, prefix="staging/")}
        manifests = [json.loads(blob.download_as_bytes()) for uri, blob in blobs.items() if "/manifests/" in uri]
        named = [shard["uri"] for manifest in manifests for shard in manifest["shards"]]
        return surplus + [f"a manifest names {uri.rpartition('/')[2]}" for uri in named if uri not in blobs]


def _told(row: Mapping[str, Any]) -> str:
    """Return a landed row in a word: its key, and whether it has the answer to its own question."""
    columns = row.get("columns")
    columns = json.loads(columns) if isinstance(columns, str) else columns or {}
    is_own = columns.get("text") == f"text of {row['row_key']}"
    return str(row["row_key"]) if is_own else f"{row['row_key']} with columns of another row"
