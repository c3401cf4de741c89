"""The parameters of every public callable in groups that a person remembers: what `docs/parameters.md` holds.

A parameter that no group names, or two groups name, fails a test: whoever adds one says where people would look for it.
"""

from __future__ import annotations

import inspect
from pathlib import Path

from airflow.sdk import BaseOperator
from airflow.sdk.bases.sensor import BaseSensorOperator

import airflow_vertex_batch as avb
from airflow_vertex_batch.decorators import vertex_batch_task
from airflow_vertex_batch.parameters import SourceParameters

PAGE = Path(__file__).resolve().parents[1] / "docs" / "parameters.md"

GROUPS = {
    "where it runs": ("gcp_conn_id", "impersonation_chain", "project_id", "location", "staging_uri"),
    "which rows": (*SourceParameters.__annotations__, "key_column", "columns", "skip_answered", "deduplicate"),
    "what to ask": (
        *("model", "prompt", "prompt_variables", "system_instruction", "generation_config", "response_schema"),
        *("tools", "safety_settings", "media_columns"),
    ),
    "bad input": (
        *("on_empty", "on_null", "on_rejected_row", "max_rejected_ratio", "lint_ignore", "fix_requests"),
        *("correlation", "max_requests_per_job"),
    ),
    "where it lands": (
        *("destination", "partition_date", "dead_letters", "file_format", "replace_partition"),
        *("max_failed_ratio", "min_succeeded_rows"),
    ),
    "the job": ("display_name", "labels", "output_uri", "on_changed_input", "on_clear", "settle_seconds"),
    "money": ("max_cost_usd", "on_over_budget"),
    "waiting": (
        *("deferrable", "poll_interval", "job_timeout", "on_timeout", "queue_warning", "queue_timeout", "elsewhere"),
        *("cancel_on_kill", "start_from_trigger", "mode", "timeout", "soft_fail"),
    ),
    "repair": ("repair_rounds", "repair_actions", "repair_max_output_tokens", "repair_by", "on_lost_output"),
    "preflight": ("preflight", "canary", "canary_row", "allowed_failures", "source_uri"),
    "sweep": ("apply", "older_than", "owner_timeout", "lookback", "harvest_uri", "locations"),
    "from the step before": ("manifest", "jobs", "repairs", "input_uri"),
    "the tasks of the group": ("group_id", "task_args", "step_args"),
}
#: Of every task; `retries` has a default of ours.
AIRFLOWS = {
    *inspect.signature(BaseOperator.__init__).parameters,
    *inspect.signature(BaseSensorOperator.__init__).parameters,
    "python_callable",
} - {name for names in GROUPS.values() for name in names}
CALLABLES = {
    "vertex_batch()": avb.vertex_batch,
    "VertexBatchOperator": avb.VertexBatchOperator,
    "@task.vertex_batch": vertex_batch_task,
    "VertexBatchPreflightOperator": avb.VertexBatchPreflightOperator,
    "VertexBatchPrepareOperator": avb.VertexBatchPrepareOperator,
    "VertexBatchCreateJobOperator": avb.VertexBatchCreateJobOperator,
    "VertexBatchJobSensor": avb.VertexBatchJobSensor,
    "VertexBatchRepairOperator": avb.VertexBatchRepairOperator,
    "VertexBatchExportOperator": avb.VertexBatchExportOperator,
    "VertexBatchCancelJobOperator": avb.VertexBatchCancelJobOperator,
    "VertexBatchSweepOperator": avb.VertexBatchSweepOperator,
}
#: Nobody writes them in a DAG file, but for `partition_date`.
OTHERS = {
    "VertexBatchHook": avb.VertexBatchHook,
    "VertexBatchJobTrigger": avb.VertexBatchJobTrigger,
    "partition_date()": avb.partition_date,
}
COUNT_HEADERS = ("callable", *GROUPS, "ours", "Airflow's own")


def names(door: object) -> list[str]:
    """Return the parameters of a callable, but for the rest that it passes on."""
    found = inspect.signature(door).parameters.values()
    return [each.name for each in found if each.kind is not inspect.Parameter.VAR_KEYWORD]


def groups() -> list[list[str]]:
    """Return the cells of the table of groups."""
    return [[group, str(len(known)), ", ".join(f"`{name}`" for name in known)] for group, known in GROUPS.items()]


def counts() -> list[list[str]]:
    """Return the cells of the table of counts."""
    rows = []
    for title, door in CALLABLES.items():
        shown = names(door)
        ours = [sum(name in known for name in shown) for known in GROUPS.values()]
        cells = [str(count or "-") for count in ours]
        rows.append([f"`{title}`", *cells, str(sum(ours)), str(sum(name in AIRFLOWS for name in shown) or "-")])
    return rows


def others() -> list[list[str]]:
    """Return the cells of the table of what else is public."""
    found = ((title, names(door)) for title, door in OTHERS.items())
    return [[f"`{title}`", str(len(shown)), ", ".join(f"`{name}`" for name in shown)] for title, shown in found]
