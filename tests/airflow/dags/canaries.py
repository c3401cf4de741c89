"""DAGs whose rows, prompts and secrets are marked, and whose tasks meet everything that could make them quote one.

A mark is put together when it is used: this file does not hold any, since Airflow stores the source of DAG files.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG, task

from airflow_vertex_batch import VertexBatchOperator, VertexBatchPrepareOperator, vertex_batch

BUCKET = os.environ["VERTEX_BATCH_BUCKET"]
COMMON = {"retries": 1, "retry_delay": 1.0}
MODEL = "gemini-2.5-flash"
#: A mark as PostgreSQL and BigQuery put it together.
IN_SQL = "CONCAT('avb-', 'canary-', '{}')"
#: Each fails for a row, and its error may know the value.
BAD_PROMPTS = {
    "undefined": "{{ nope }}",
    "attribute": "{{ body.nope.deeper }}",
    "type": "{{ body + 1 }}",
    "filter": "{{ body | round }}",
    "argument": "{{ body | truncate(body) }}",
    "format": "{{ '%d' % body }}",
    "format_method": "{{ '{missing}'.format(body=body) }}",
    "division": "{{ 1 / (body | length - body | length) }}",
    "sum": "{{ [body, 1] | sum }}",
    "dict": "{{ dict(body) }}",
    "too_long": "{{ body * 100000000 }}",
    "item": "{{ {'a': 1}[body].x }}",
    "unsafe": "{{ body.__class__.__mro__ }}",
    "no_text": "{{ odd }}",
}


def mark(name):
    """What must not be found where it does not belong."""
    return "-".join(("avb", "canary", name))  # noqa: FLY002 - written out it would be a mark


def marked_rows():
    """Rows with a mark in each column."""
    return [{"id": f"k{number}", "body": f"{mark('body')} {number}", "odd": {mark("odd")}} for number in range(2)]


def breaking_rows():
    """Yield rows, and fail on one."""
    yield from ({"id": f"k{number}", "body": mark("yielded")} for number in range(3))
    raise ValueError(f"cannot read row {mark('raised')}")


def breaking_cause():
    """Fail with a cause that knows the row."""
    try:
        {}[mark("raised")]
    except KeyError as error:
        raise RuntimeError(mark("raised")) from error


ASKED = {
    "model": MODEL,
    "system_instruction": mark("system"),
    "prompt": "{{ greeting }} {{ subject }}: {{ body }} " + mark("prompt"),
    "prompt_variables": {"greeting": mark("variable")},
    "response_schema": {"type": "object", "properties": {"mood": {"type": "string", "description": mark("schema")}}},
    "generation_config": {"stopSequences": [mark("stop")]},
    "labels": {"team": mark("label")},
}
ROWS = (
    "SELECT n AS ticket, CASE WHEN n <> 9 THEN "
    + IN_SQL.format("subject")
    + " END AS subject, "
    + IN_SQL.format("body")
    + " || n AS body, "
    + IN_SQL.format("note")
    + f" AS note, 'gs://{BUCKET}/marked-images/' || "
    + IN_SQL.format("media")
    + " || '.png' AS picture FROM generate_series(1, 10) AS n"
)

with DAG("canaries", schedule=None, default_args=COMMON):
    vertex_batch(
        "batch", **ASKED, sql=ROWS, sql_conn_id="canaries", key_column="ticket", columns=["note"], poll_interval=2,
        media_columns=["picture"], repair_rounds=1, on_rejected_row="dead_letter", min_succeeded_rows=100,
        destination=f"gs://{BUCKET}/canaries",
    )  # fmt: skip

with DAG("canaries_at_once", schedule=None, default_args=COMMON):
    VertexBatchOperator(
        task_id="whole", **ASKED, sql=ROWS, sql_conn_id="canaries", key_column="ticket", columns=["note"],
        poll_interval=2, media_columns=["picture"], max_failed_ratio=0.01, on_rejected_row="dead_letter",
        destination="bq://demo.support.canaries",
    )  # fmt: skip

with DAG("canaries_in_errors", schedule=None, default_args=COMMON):
    for name, prompt in BAD_PROMPTS.items():
        VertexBatchPrepareOperator(task_id=f"prompt_{name}", rows=marked_rows, prompt=prompt)
    VertexBatchPrepareOperator(task_id="rows_break", rows=breaking_rows, prompt="{{ body }}")
    VertexBatchPrepareOperator(task_id="rows_cause", rows=breaking_cause, prompt="{{ body }}")
    VertexBatchPrepareOperator(task_id="rows_no_dicts", rows=lambda: [[mark("body")]], prompt="{{ body }}")
    for name, format_ in {"csv": "csv", "json": "jsonl", "torn": "jsonl", "bytes": "csv"}.items():
        VertexBatchPrepareOperator(
            task_id=f"file_{name}", files=f"gs://{BUCKET}/marked/{name}.txt", files_format=format_, prompt="{{ body }}"
        )
    VertexBatchPrepareOperator(task_id="requests", requests=f"gs://{BUCKET}/marked/requests.jsonl")
    # The database fails in the middle, and quotes the value: of a page that was fetched, and of one that was not.
    VertexBatchPrepareOperator(
        task_id="database", sql_conn_id="canaries", prompt="{{ body }}", key_column="n",
        sql="SELECT n, CASE WHEN n = 2500 THEN CAST(" + IN_SQL.format("database") + " || n AS int) ELSE n END AS body "
        "FROM generate_series(1, 3000) AS n",
    )  # fmt: skip
    VertexBatchPrepareOperator(
        task_id="bigquery", prompt="{{ body }}",
        sql="SELECT CAST(" + IN_SQL.format("bigquery") + " AS INT64) AS body FROM `demo.support.tickets`",
    )  # fmt: skip

    @task.vertex_batch(model=MODEL, destination=f"gs://{BUCKET}/canaries")
    def decorated():
        """Fail while rows are made."""
        yield from breaking_rows()

    decorated()
