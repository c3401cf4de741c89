"""What does another Airflow do that runs the same DAG? One attempt of its task, up to the wait, in a separate process
with its own ``AIRFLOW_HOME`` and name.

It is an approximation: the operator, its configuration and its files are real. There is no scheduler to start it, so
this program takes the place of the worker. Exit status: 0 it has a job and waits, 3 it was refused (the reason is
printed).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

WAITS, REFUSED = 0, 3


def play(env: Mapping[str, str], *, name: str, **where: str) -> tuple[int, str]:
    """Let another Airflow make an attempt; return its exit status and all that it said.

    :param env: where the servers are.
    :param name: of the other installation.
    :param where: ``dag_id``, ``task_id``, ``run_id``, ``staging``, ``files``.
    """
    arguments = [f"--{option.replace('_', '-')}={value}" for option, value in where.items()]
    with tempfile.TemporaryDirectory(prefix="second-airflow-") as home:
        mine = {
            "AIRFLOW_HOME": home,
            "AIRFLOW__VERTEX_BATCH__INSTALLATION": name,
        }
        command = [sys.executable, "-m", "stack.chaos.second_airflow", *arguments]
        done = subprocess.run(
            command, env={**os.environ, **env, **mine}, capture_output=True, text=True, timeout=300, check=False
        )
    return done.returncode, done.stdout + done.stderr


class _Instance(SimpleNamespace):
    """A task instance of an Airflow that nobody asks."""

    id, map_index, max_tries, try_number = str(uuid4()), -1, 3, 1

    def xcom_push(self, *_: Any, **__: Any) -> None:
        """Forget it: the attempt ends with the wait."""


def main() -> int:
    """Make the attempt."""
    from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

    from airflow_vertex_batch import VertexBatchOperator
    from stack.laptop import PROJECT

    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("dag-id", "task-id", "run-id", "staging", "files"):
        parser.add_argument(f"--{option}", required=True)
    given = parser.parse_args()
    operator = VertexBatchOperator(
        task_id=given.task_id, project_id=PROJECT, location="us-central1", model="gemini-2.5-flash",
        files=given.files, prompt="{{ text }}",
        key_column="id", staging_uri=given.staging, destination=f"{given.staging}/landed",
        partition_date="2026-11-24", settle_seconds=30,
    )  # fmt: skip
    began = datetime.now(UTC)
    ti = _Instance(dag_id=given.dag_id, task_id=given.task_id, run_id=given.run_id, start_date=began)
    context: Any = {"ti": ti, "dag_run": SimpleNamespace(conf={}, logical_date=None), "params": {}}
    try:
        operator.execute(context)
    except TaskDeferred:
        return WAITS
    except AirflowFailException as refusal:
        print(refusal)
        return REFUSED
    return 1


if __name__ == "__main__":
    sys.exit(main())
