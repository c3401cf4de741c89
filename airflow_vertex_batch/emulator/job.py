"""What does the service know about one job? Its resource, its times, and how many rows are done."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from airflow_vertex_batch.emulator.billing import Account
from airflow_vertex_batch.emulator.faults import End, Hold
from airflow_vertex_batch.emulator.output_faults import LateInfo, LateOutput, LostOutput
from airflow_vertex_batch.emulator.plan import Plan, full_name, plan_of
from airflow_vertex_batch.emulator.wire import rfc3339

#: The folder's time is close to ``createTime`` and not equal to it (python-genai#486).
_FOLDER_LAG = timedelta(milliseconds=1234, microseconds=567)


class Job(msgspec.Struct, kw_only=True):
    """One job. Mutable, saved at every change of state; `account` lives in its answers file while it runs.

    :param body: the accepted create body.
    :param due_at: when the current state ends.
    :param columns: the input's own columns and their types, once imported.
    :param job_fault: the scripted fault of this job, chosen when the job was created.
    :param late: what will still happen to its output, chosen when the job ended.
    """

    id: str
    project: str
    location: str
    body: dict[str, Any]
    state: str
    created_at: datetime
    updated_at: datetime
    due_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    is_over: bool = False
    is_deleted: bool = False
    is_held: bool = False
    is_released: bool = False
    error_code: int = 0
    error_message: str = ""
    output_info: dict[str, Any] = {}
    request_count: int = 0
    columns: dict[str, str] = {}
    account: Account = msgspec.field(default_factory=Account)
    job_fault: End | Hold | None = None
    late: tuple[LateInfo | LateOutput | LostOutput, ...] = ()
    is_output_unnamed: bool = False

    @property
    def name(self) -> str:
        """The full resource name, with the project's number."""
        return full_name(self.project, self.location, "batchPredictionJobs", self.id)

    @property
    def display_name(self) -> str:
        """The caller's name for it."""
        return str(self.body["displayName"])

    @property
    def labels(self) -> dict[str, str]:
        """The caller's labels."""
        return self.body.get("labels", {})  # type: ignore[no-any-return]

    @property
    def plan(self) -> Plan:
        """What it reads and writes."""
        return plan_of(self.body)

    @property
    def output_stamp(self) -> str:
        """The time in the name of its output."""
        return rfc3339(self.created_at + _FOLDER_LAG)
