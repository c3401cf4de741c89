"""What do the example DAGs find to work on? The bucket's files and the ticket table; what is there already stays as it
is.
"""

from __future__ import annotations

import mimetypes
import os
import sys
from pathlib import Path

from google.api_core.exceptions import NotFound
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery, storage

HERE = Path(__file__).parent
PROJECT = os.environ["VERTEX_BATCH_PROJECT"]
BUCKET = os.environ["VERTEX_BATCH_BUCKET"]
TICKETS = Path(os.environ["TICKETS"])


def main() -> None:
    """Fill both servers and say with how much."""
    sys.stdout.write(
        f"gs://{BUCKET}: {_fill_bucket()} new objects; {PROJECT}.support.tickets: {_load_tickets()} rows\n"
    )


def _fill_bucket() -> int:
    client = storage.Client(project=PROJECT, credentials=AnonymousCredentials())
    bucket = client.lookup_bucket(BUCKET) or client.create_bucket(BUCKET)
    root = HERE / "bucket"
    there = {blob.name for blob in client.list_blobs(bucket)}
    missing = [file for file in root.rglob("*") if file.is_file() and str(file.relative_to(root)) not in there]
    for file in missing:
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        bucket.blob(str(file.relative_to(root))).upload_from_filename(str(file), content_type=kind)
    return len(missing)


def _load_tickets() -> int:
    client = bigquery.Client(project=PROJECT, credentials=AnonymousCredentials())
    client.create_dataset("support", exists_ok=True)
    try:
        return int(client.get_table("support.tickets").num_rows)
    except NotFound:
        types = {"ticket_id": "STRING", "created_on": "DATE", "subject": "STRING", "body": "STRING"}
        config = bigquery.LoadJobConfig(
            source_format="NEWLINE_DELIMITED_JSON",
            schema=[bigquery.SchemaField(name, kind) for name, kind in types.items()],
        )
        with TICKETS.open("rb") as stream:
            return int(client.load_table_from_file(stream, "support.tickets", job_config=config).result().output_rows)


if __name__ == "__main__":
    main()
