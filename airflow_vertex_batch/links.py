"""Where can a person look? Links from a task to its job, its output folder and its table, stored while the task
runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from airflow_vertex_batch.core.domain.address import JobName, Uri
from airflow_vertex_batch.core.landing.destination import Files, Table

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

    from airflow_vertex_batch.core.landing.destination import Destination

#: XCom key that holds the addresses of a task's links by link name.
LINKS_KEY = "vertex_batch_links"


class _Link(BaseOperatorLink):
    """A link whose address the task stored under its name."""

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the stored address, or an empty text when the task has none yet."""
        from airflow.sdk.execution_time.xcom import XCom

        stored = XCom.get_value(ti_key=ti_key, key=LINKS_KEY)
        return str(stored.get(self.name, "")) if isinstance(stored, dict) else ""


class VertexBatchJobLink(_Link):
    """The batch prediction job in the Cloud console; the list of jobs when there are several."""

    name = "Batch job"


class VertexBatchOutputLink(_Link):
    """The folder in Cloud Storage."""

    name = Files.link


class VertexBatchTableLink(_Link):
    """The table in BigQuery."""

    name = Table.link


def addresses(
    *, jobs: list[str] | None = None, folder: str = "", destination: Destination | None = None
) -> dict[str, str]:
    """Return what to store under `LINKS_KEY`."""
    made = {}
    if jobs:
        first = JobName.parse(jobs[0])
        every = f"https://console.cloud.google.com/vertex-ai/batch-predictions?project={first.project}"
        made[VertexBatchJobLink.name] = first.console_url if len(jobs) == 1 else every
    if folder.startswith("gs://"):
        made[VertexBatchOutputLink.name] = Uri.parse(folder).console_url
    if destination is not None:
        made[destination.link] = destination.console_url
    return made
