"""Which state is a job in, and what takes it to the next? The state machine of one job, driven by the clock.

::

    (QUEUED ─►) PENDING ─────────► RUNNING ──► SUCCEEDED, FAILED, PARTIALLY_SUCCEEDED
                │ │ │ import fails  │ │ cancel
                │ │ └─────► FAILED  │ └──────► CANCELLING ──► CANCELLED, or SUCCEEDED when every row was done
                │ │ cancel          │ 24 h
                │ └──────► CANCELLED└────────► CANCELLED or FAILED (switch)
                └ 72 h ──► EXPIRED

The input is read while the job is still PENDING, because RUNNING is documented as "input validated" (S3). A scripted
`End` or `Hold` may put any state at any point.

Invariants: `Machine.step` does one bounded piece and never waits; it changes a job only under the lock, and only if
nobody cancelled or deleted the job meanwhile; every change of state is saved before it can be seen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.emulator.faults import End, Hold
from airflow_vertex_batch.emulator.importer import JobFailedError
from airflow_vertex_batch.emulator.output_faults import LateInfo, LateOutput, LostOutput, hold_back, lose, show
from airflow_vertex_batch.emulator.run import Run
from airflow_vertex_batch.emulator.tools import Tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_vertex_batch.emulator.job import Job

log = logging.getLogger(__name__)
#: Longer than anybody waits.
_FOR_EVER_S = 10 * 365 * 86_400


class Machine:
    """Moves jobs through their states.

    :param speed: the service's seconds per second of the clock.
    :param folder_of: the folder of a job's files.
    :param save: makes a job durable.
    :param lock: guards every job's members.
    """

    def __init__(
        self,
        tools: Tools,
        speed: float,
        folder_of: Callable[[Job], Path],
        save: Callable[[Job], None],
        lock: AbstractContextManager[Any],
    ) -> None:
        self._tools, self._speed, self._folder_of, self._save, self._lock = tools, speed, folder_of, save, lock
        self._runs: dict[str, Run] = {}
        self._imports: dict[str, Iterator[None]] = {}

    def adopt(self, jobs: Iterable[Job]) -> None:
        """Take over jobs from a data folder: count what the running ones had answered when their last machine ended."""
        for job in jobs:
            if job.started_at and not job.is_over:
                self._run(job)

    def begin(self, job: Job) -> None:
        """Give a new job its first state."""
        pace = self._tools.script.scenario.pace
        if pace.queued_s:
            self._enter(job, JobState.QUEUED, pace.queued_s)
        else:
            self._enter(job, JobState.PENDING, pace.pending_s)

    def step(self, job: Job) -> bool:
        """Do one piece of the work that is due now; return whether there may be more."""
        try:
            return self._piece(job)
        except JobFailedError as error:
            return self._end(job, JobState.FAILED, error.code, error.message)
        except Exception as error:
            log.exception("The emulator itself failed on %s", job.name)
            return self._end(job, JobState.FAILED, 13, f"System error: {type(error).__name__}. Please try again.")

    def cancel(self, job: Job) -> bool:
        """Start to cancel; False when the job is over or already being cancelled."""
        with self._lock:
            if job.is_over or job.state == JobState.CANCELLING:
                return False
            if job.started_at:
                self._enter(job, JobState.CANCELLING, self._tools.script.scenario.pace.cancelling_s)
            else:
                self._end(job, JobState.CANCELLED, 1, "CANCELED")
        return True

    def release(self, job: Job) -> bool:
        """Release a job that a `Hold` keeps, or will keep; return False if there is no such fault or it is over."""
        with self._lock:
            if job.is_over or not isinstance(job.job_fault, Hold):
                return False
            # `job_fault` itself is not changed, because the driver may be using it now.
            job.is_released = True
            self._save(job)
        return True

    def wants_steps(self, job: Job) -> bool:
        """Whether the job still changes, or has files open."""
        return not job.is_over or job.id in self._runs or self._is_late(job)

    def _is_late(self, job: Job) -> bool:
        return any(fault.seconds is not None for fault in job.late)

    def next_due(self, job: Job) -> datetime:
        """When something happens to `job` next without a call."""
        if job.is_over:
            return min(job.updated_at + self._span(fault.seconds) for fault in job.late if fault.seconds is not None)
        limits, moments = self._tools.script.scenario.limits, [job.due_at]
        if job.state == JobState.PENDING:
            moments.append(job.created_at + self._span(limits.queue_s))
        if job.state == JobState.RUNNING and job.started_at:
            moments.append(job.started_at + self._span(limits.run_s))
            if job.job_fault:
                moments.append(job.started_at + (job.due_at - job.started_at) * job.job_fault.after)
        now = self._tools.clock.now()
        return min((moment for moment in moments if moment > now), default=job.due_at)

    def close(self) -> None:
        """Stop all work; the files stay, and a new machine goes on with them."""
        for run in self._runs.values():
            run.close()
        self._runs.clear()
        self._imports.clear()

    # One piece per state ----------------------------------------------------------------------------------------------

    def _piece(self, job: Job) -> bool:  # noqa: PLR0911 - one line per state
        now = self._tools.clock.now()
        if job.is_over:
            self._show(job, now)
            return self._forget(job)
        if job.is_held:
            return self._hold(job, now)
        match job.state:
            case JobState.QUEUED if now >= job.due_at:
                return self._move(job, JobState.PENDING, self._tools.script.scenario.pace.pending_s)
            case JobState.PENDING:
                return self._prepare(job, now)
            case JobState.RUNNING:
                return self._work(job, now)
            case JobState.CANCELLING if now >= job.due_at:
                return self._wind_down(job)
        return False

    def _prepare(self, job: Job, now: datetime) -> bool:
        if self._queued_too_long(job, now):
            return self._end(job, JobState.EXPIRED, 4, "The job was not started within its time in the queue.")
        if now < job.due_at:
            return False
        if job.job_fault and job.job_fault.from_pending:
            return self._apply_job_fault(job, job.job_fault)
        pieces = self._imports.setdefault(job.id, self._run(job).importing())
        for _ in pieces:
            return True
        self._imports.pop(job.id, None)
        pace = self._tools.script.scenario.pace
        with self._lock:
            if job.state == JobState.PENDING:
                job.started_at, job.output_info = now, self._run(job).output_info()
                self._enter(job, JobState.RUNNING, pace.running_s + pace.per_row_s * job.request_count)
        return True

    def _work(self, job: Job, now: datetime) -> bool:
        run, job_fault = self._run(job), job.job_fault
        fate_row = round(job.request_count * job_fault.after) if job_fault else job.request_count
        more = run.answer(min(self._rows_due(job, now), fate_row))
        if self._ran_too_long(job, now):
            return self._cut_off(job)
        done = run.account.row_count
        if not more and job_fault and done >= fate_row and (done < job.request_count or now >= job.due_at):
            return self._apply_job_fault(job, job_fault)
        if not more and done >= job.request_count and now >= job.due_at:
            return self._finish(job)
        return more

    def _rows_due(self, job: Job, now: datetime) -> int:
        """Rows that should be done by now: they are spread evenly over the time a job runs."""
        if now >= job.due_at or job.started_at is None:
            return job.request_count
        return int(job.request_count * ((now - job.started_at) / (job.due_at - job.started_at)))

    def _wind_down(self, job: Job) -> bool:
        run = self._run(job)
        if run.account.row_count >= job.request_count:
            return self._finish(job)
        if self._tools.script.scenario.switches.cancelled_output:
            run.publish(final=True)
        else:
            run.discard()
        return self._end(job, JobState.CANCELLED, 1, "CANCELED")

    def _cut_off(self, job: Job) -> bool:
        self._run(job).publish(final=True)
        how = self._tools.script.scenario.switches.run_cutoff
        state = JobState.CANCELLED if how == "cancelled" else JobState.FAILED
        return self._end(job, state, 4, "The job did not finish within 24 hours of running.")

    def _finish(self, job: Job) -> bool:
        run = self._run(job)
        run.publish(final=True)
        if run.account.successful_count or not run.account.failed:
            return self._end(job, JobState.SUCCEEDED)
        match self._tools.script.scenario.switches.all_failed:
            case "failed":
                return self._end(job, JobState.FAILED, 3, "All requests of the job failed.")
            case "partially_succeeded":
                return self._end(job, JobState.PARTIALLY_SUCCEEDED)
        return self._end(job, JobState.SUCCEEDED)

    def _queued_too_long(self, job: Job, now: datetime) -> bool:
        return now >= job.created_at + self._span(self._tools.script.scenario.limits.queue_s)

    def _ran_too_long(self, job: Job, now: datetime) -> bool:
        """Whether the service would end the job. A job that by its pace has ended before is late only because this
        machine answers more slowly than the emulator's speed says.
        """
        if job.started_at is None:
            return False
        end = job.started_at + self._span(self._tools.script.scenario.limits.run_s)
        return now >= end and job.due_at > end

    # Scripted courses -------------------------------------------------------------------------------------------------

    def _apply_job_fault(self, job: Job, job_fault: End | Hold) -> bool:
        if job.started_at:
            self._run(job).publish(final=isinstance(job_fault, End))
        if isinstance(job_fault, End):
            return self._end(job, job_fault.state, job_fault.code, job_fault.message)
        seconds = job_fault.seconds if job_fault.seconds is not None else _FOR_EVER_S * self._speed
        return self._move(job, job_fault.state, seconds, is_held=True)

    def _hold(self, job: Job, now: datetime) -> bool:
        """Keep a held job where it is. The service's own limits go on counting while it waits or runs."""
        if job.state == JobState.PENDING and self._queued_too_long(job, now):
            return self._end(job, JobState.EXPIRED, 4, "The job was not started within its time in the queue.")
        if job.state == JobState.RUNNING and self._ran_too_long(job, now):
            return self._cut_off(job)
        if (now < job.due_at and not job.is_released) or job.job_fault is None:
            return False
        share, job.job_fault = 1.0 - job.job_fault.after, None
        pace = self._tools.script.scenario.pace
        if job.started_at is None:
            return self._move(job, JobState.PENDING, 0)
        return self._move(job, JobState.RUNNING, (pace.running_s + pace.per_row_s * job.request_count) * share)

    # Changes ----------------------------------------------------------------------------------------------------------

    def _move(self, job: Job, state: str, seconds: float, *, is_held: bool = False) -> bool:
        """Enter a state, unless somebody has cancelled the job since this thread looked at it."""
        with self._lock:
            if not job.is_over and job.state != JobState.CANCELLING:
                self._enter(job, state, seconds, is_held=is_held)
        return True

    def _enter(self, job: Job, state: str, seconds: float, *, is_held: bool = False) -> None:
        now = self._tools.clock.now()
        job.state, job.updated_at, job.due_at, job.is_held = str(state), now, now + self._span(seconds), is_held
        self._save(job)

    def _end(self, job: Job, state: str, code: int = 0, message: str = "") -> bool:
        with self._lock:
            if not job.is_over:
                now = self._tools.clock.now()
                job.state, job.error_code, job.error_message = str(state), code, message
                job.is_over, job.is_held, job.updated_at = True, False, now
                # Documented for SUCCEEDED, FAILED and CANCELLED only (S6).
                job.ended_at = None if state == JobState.EXPIRED else now
                self._hide_output(job)
                self._save(job)
        return True

    def _hide_output(self, job: Job) -> None:
        """Hide the part of the output that the scenario does not show yet. A table appears whole or not at all."""
        if not job.output_info:
            return
        script = self._tools.script
        kinds = (LateInfo, LateOutput, LostOutput) if not job.plan.writes_table else (LateInfo,)
        taken: list[Any] = [
            script.take(kind, lambda fault: fault.concerns(job.display_name, job.labels)) for kind in kinds
        ]
        job.late = tuple(fault for fault in taken if fault is not None)
        for fault in job.late:
            if isinstance(fault, LateInfo):
                job.is_output_unnamed = True
            elif isinstance(fault, LateOutput):
                hold_back(self._tools.store, _folder(job), self._folder_of(job) / "late", fault.share)

    def _show(self, job: Job, now: datetime) -> None:
        """Make the changes of the output that are due now."""
        due = [one for one in job.late if one.seconds is not None and now >= job.updated_at + self._span(one.seconds)]
        for fault in due:
            if isinstance(fault, LateInfo):
                job.is_output_unnamed = False
            elif isinstance(fault, LateOutput):
                show(self._tools.store, self._folder_of(job) / "late")
            else:
                lose(self._tools.store, _folder(job))
        if due:
            job.late = tuple(fault for fault in job.late if fault not in due)
            self._save(job)

    def _forget(self, job: Job) -> bool:
        """Release the files of a job that is over. This happens only here, where its work is done, because another
        thread may have ended it meanwhile.
        """
        self._imports.pop(job.id, None)
        if run := self._runs.pop(job.id, None):
            run.close(remove=True)
        return False

    def _run(self, job: Job) -> Run:
        if job.id not in self._runs:
            run = self._runs[job.id] = Run(job, self._folder_of(job), self._tools)
            job.account = run.account
        return self._runs[job.id]

    def _span(self, seconds: float) -> timedelta:
        return timedelta(seconds=seconds / self._speed)


def _folder(job: Job) -> Uri:
    return Uri.parse(job.output_info["gcsOutputDirectory"])
