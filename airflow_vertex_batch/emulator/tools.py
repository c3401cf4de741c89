"""What does a job run with? The store, the warehouse, the clock, the model and the script of its world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.address import Uri

if TYPE_CHECKING:
    from airflow_vertex_batch.core.domain.ports import ObjectStore, Warehouse
    from airflow_vertex_batch.emulator.clock import Clock
    from airflow_vertex_batch.emulator.models import Model
    from airflow_vertex_batch.emulator.scenario import Script


@dataclass
class Tools:
    """What all jobs share. `script` is replaced when a new scenario arrives; the rest stays.

    :param staging: a ``gs://`` folder for rows on their way into BigQuery; the input's bucket by default.
    """

    store: ObjectStore
    warehouse: Warehouse | None
    model: Model
    clock: Clock
    script: Script
    staging: Uri | None = None
