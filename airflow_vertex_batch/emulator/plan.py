"""What must a job do? Its model, its input and its output, read from the resource."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from airflow_vertex_batch.emulator.wire import project_number


class Plan(msgspec.Struct, frozen=True):
    """What an accepted body asks for.

    :param inputs: ``gs://`` objects (globs allowed), or one ``bq://`` table.
    :param output: a ``gs://`` folder, or a ``bq://`` project, dataset or table.
    """

    inputs: tuple[str, ...]
    output: str

    @property
    def reads_table(self) -> bool:
        """Whether the input is a BigQuery table."""
        return self.inputs[0].startswith("bq://")

    @property
    def writes_table(self) -> bool:
        """Whether the output is a BigQuery table."""
        return self.output.startswith("bq://")


def plan_of(body: dict[str, Any]) -> Plan:
    """Return what an accepted body asks for."""
    source, sink = body["inputConfig"], body["outputConfig"]
    inputs = source["gcsSource"]["uris"] if "gcsSource" in source else [source["bigquerySource"]["inputUri"]]
    if "gcsDestination" in sink:
        return Plan(tuple(inputs), sink["gcsDestination"]["outputUriPrefix"])
    return Plan(tuple(inputs), sink["bigqueryDestination"]["outputUri"])


def full_name(project: str, location: str, collection: Literal["batchPredictionJobs", "operations"], item: str) -> str:
    """Return a resource name as the service spells it: with the project's number."""
    return f"projects/{project_number(project)}/locations/{location}/{collection}/{item}"
