"""DAGs for the tests of repair, of known answers and of the budget: ten thousand tickets, and a service that fails."""

from __future__ import annotations

import os

from airflow.sdk import DAG, Param

from airflow_vertex_batch import VertexBatchOperator, vertex_batch

BUCKET = os.environ["VERTEX_BATCH_BUCKET"]
COMMON = {"retries": 1, "retry_delay": 1.0}
#: What every batch of this file asks, and how it repairs what goes wrong.
BATCH = {
    "model": "gemini-2.5-flash",
    "prompt": "{{ body }}",
    "key_column": "id",
    "response_schema": {
        "type": "object",
        "required": ["mood", "summary"],
        "properties": {
            "mood": {"type": "string", "enum": ["angry", "calm"]},
            "summary": {"type": "string", "maxLength": 60},
        },
    },
    # `bad_night.MAX_OUTPUT_TOKENS`: each repair round doubles it for truncated rows.
    "generation_config": {"maxOutputTokens": 256},
    "repair_rounds": 2,
    "partition_date": "2026-11-22",
    "poll_interval": 2,
}


def tickets(params):
    """Yield the tickets, 200 characters each; `changed` of them with another text than before."""
    for number in range(params["count"]):
        text = f"Ticket {number}: the parcel is late and nobody answers. " + "Please call me back. " * 7
        yield {"id": f"t-{number:05}", "body": text + ("It came." if number < params["changed"] else "")}


def a_dag(dag_id, count):
    """Return a DAG over so many tickets."""
    params = {"count": Param(count, type="integer"), "changed": Param(0, type="integer")}
    return DAG(dag_id, schedule=None, params=params, default_args=COMMON)


with a_dag("bad_night", 10_000):
    vertex_batch(
        "batch",
        rows=tickets,
        skip_answered=True,
        deduplicate=True,
        destination="bq://demo.support.bad_night",
        **BATCH,
    )

with a_dag("bad_night_in_one_task", 1_000):
    VertexBatchOperator(task_id="batch", rows=tickets, destination="bq://demo.support.bad_night_in_one", **BATCH)

with a_dag("over_budget", 10_000):
    vertex_batch(
        "batch", rows=tickets, max_cost_usd=0.01, destination="bq://demo.support.over_budget", **BATCH,
    )  # fmt: skip

with a_dag("on_demand", 50):
    # No round is planned: nothing goes again until a person clears the repair task.
    vertex_batch(
        "batch", rows=tickets, destination="bq://demo.support.on_demand", **BATCH | {"repair_rounds": 0},
    )  # fmt: skip

with a_dag("resumed", 50):
    vertex_batch(
        "batch", rows=tickets, destination="bq://demo.support.resumed", **BATCH | {"repair_by": "resume"},
    )  # fmt: skip

with a_dag("too_many_failed", 50):
    vertex_batch(
        "batch", rows=tickets, destination="bq://demo.support.too_many_failed", max_failed_ratio=0.1, **BATCH,
    )  # fmt: skip
