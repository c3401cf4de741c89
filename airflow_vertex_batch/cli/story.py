"""How does a person learn what happened to a batch? ``airflow-vertex-batch story``: its log, in sentences."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.cli.terminal import CLI_OUTAGE_SECONDS, not_empty
from airflow_vertex_batch.cli.terminal import store as terminal_store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from airflow_vertex_batch.core.domain.address import JobName
    from airflow_vertex_batch.core.domain.job import BatchJob
    from airflow_vertex_batch.core.purchase.log import BatchLog

#: Airflow's own name for the option ``[vertex_batch] staging_uri``.
_STAGING = "AIRFLOW__VERTEX_BATCH__STAGING_URI"


def add_story(commands: Any) -> None:
    """Add the command to the others."""
    story = commands.add_parser(
        "story", help="what happened to a batch, and what comes next?", description=_story.__doc__
    )
    story.add_argument("dag", metavar="DAG", type=not_empty, help="id of the DAG")
    story.add_argument(
        "run_id", metavar="RUN", type=not_empty, help="id of the run, such as scheduled__2026-11-22T02:00:00+00:00"
    )
    story.add_argument(
        "task",
        metavar="TASK",
        type=not_empty,
        help="id of the task, or of the task group: all of its tasks are told of",
    )
    story.add_argument("--map-index", type=int, default=None, metavar="N", help="of a mapped task; all where left out")
    story.add_argument(
        "--staging", type=not_empty, default=os.environ.get(_STAGING) or None, metavar="URI",
        help=f"the tasks' staging folder (default: ${_STAGING})",
    )  # fmt: skip
    story.add_argument("--ask", action="store_true", help="also ask Vertex AI for the jobs as they are now")
    story.add_argument("--format", choices=("text", "json"), default="text")
    story.set_defaults(run=_story)


def _story(options: argparse.Namespace) -> int:
    """Tell what happened to the batch of a task in a run, in order: attempts, jobs, rounds, rows, money; and what would
    happen next. It reads the log in the staging folder, needs no Airflow, and changes nothing.

    Exit status: 0 told, 2 there is no such log, or it cannot be read.
    """
    from airflow_vertex_batch.core.domain.address import cloud_folder, refuse_wildcards
    from airflow_vertex_batch.core.domain.errors import InputError
    from airflow_vertex_batch.core.purchase.log import logs_of
    from airflow_vertex_batch.core.upkeep.story import story

    if options.staging is None:
        raise InputError("No staging folder is given", todo=f"Give --staging gs://bucket/folder, or set {_STAGING}")
    refuse_wildcards(options.staging, "--staging")
    staging = cloud_folder(options.staging, "staging")
    logs = logs_of(terminal_store(), staging, options.dag, options.run_id, options.task, options.map_index)
    if not logs:
        raise InputError(
            f"There is no log of {options.dag} {options.run_id} {options.task} in {staging}",
            todo="Check the ids, as the Airflow UI shows them, and the folder. A task that has not begun has no log",
        )
    result = story(logs, _asked(logs) if options.ask else None)
    print(json.dumps(result.as_dict(), indent=2) if options.format == "json" else result.text())
    return 0


def _asked(logs: Sequence[BatchLog]) -> Mapping[str, BatchJob]:
    """Return the jobs that the logs name, as they are now; one that is gone is left out."""
    from airflow_vertex_batch.core.domain.address import JobName
    from airflow_vertex_batch.core.purchase.entries import Submission

    entries = (entry for log in logs for entry in log.entries())
    names = dict.fromkeys(entry.job_name for entry in entries if isinstance(entry, Submission))
    found = ((name, _job(JobName.parse(name))) for name in names)
    return {name: job for name, job in found if job is not None}


def _job(name: JobName) -> BatchJob | None:
    from airflow_vertex_batch.core.domain.errors import ServiceError
    from airflow_vertex_batch.gcp.environment import job_service

    try:
        return job_service(name.project, name.location, CLI_OUTAGE_SECONDS).get(name)
    except ServiceError as error:
        if error.is_not_found:
            return None
        raise
