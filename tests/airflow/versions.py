"""What differs between the Airflows on which these tests run: names that a test needs, under one name."""

from __future__ import annotations

import inspect

import pytest
from airflow.sdk import BaseOperator

from airflow_vertex_batch.edge import compat

try:
    from airflow.sdk import CronDataIntervalTimetable, CronTriggerTimetable
    from airflow.sdk.definitions.timetables.trigger import MultipleCronTriggerTimetable
    from airflow.serialization.serialized_objects import DagSerialization
except ImportError:  # Airflow 3.1
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization
    from airflow.timetables.interval import CronDataIntervalTimetable
    from airflow.timetables.trigger import CronTriggerTimetable, MultipleCronTriggerTimetable

try:
    from airflow.sdk.exceptions import TaskAwaitingInput as Parked
except ImportError:  # Airflow below 3.3
    from airflow.providers.common.compat.sdk import TaskDeferred as Parked

try:
    from airflow.sdk.exceptions import TaskDeferralError
except ImportError:  # Airflow 3.1
    from airflow.exceptions import TaskDeferralError

#: The state of a task that waits for a person.
PARKED_STATE = "deferred" if Parked.__name__ == "TaskDeferred" else "awaiting_input"

__all__ = (
    "NEWER_ARGUMENTS",
    "PARKED_STATE",
    "CronDataIntervalTimetable",
    "CronTriggerTimetable",
    "DagSerialization",
    "MultipleCronTriggerTimetable",
    "Parked",
    "TaskDeferralError",
    "since_3_3",
)

#: Arguments of every task that only newer Airflows than this one know; type checkers are told what the newest knows.
NEWER_ARGUMENTS = {"render_template_as_native_obj", "retry_policy"} - {
    *inspect.signature(BaseOperator.__init__).parameters
}
#: Of a test about what Airflow does from 3.3 on; what it does before has tests of its own.
since_3_3 = pytest.mark.skipif(not compat.can_start_from_trigger(), reason="Airflow does this from 3.3 on")
