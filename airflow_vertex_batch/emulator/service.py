"""What does the service know, and what drives it? `Emulator`: the jobs, their driver, their data, the books.

Two ways to run: with the machine's clock and `start`, a thread drives all jobs; with a `VirtualClock` nothing happens
but in `advance`, which moves the clock from event to event and does all work due on the way: no thread, no waiting.

Invariants: a job that create returned is on disk (when there is a data folder); calls only ever wait for the lock,
never for a job's work; a deleted job leaves the API and stays in the books.
"""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.emulator.clock import Clock, SystemClock, VirtualClock
from airflow_vertex_batch.emulator.faults import Hold, JobFault
from airflow_vertex_batch.emulator.filters import parse_filter
from airflow_vertex_batch.emulator.job import Job
from airflow_vertex_batch.emulator.jobs import Machine
from airflow_vertex_batch.emulator.listing import (
    JobIndex,
    age_of,
    book_entry,
    page_token,
    read_page_size,
    read_page_token,
)
from airflow_vertex_batch.emulator.models import DeterministicModel, Model
from airflow_vertex_batch.emulator.online import Online
from airflow_vertex_batch.emulator.plan import full_name
from airflow_vertex_batch.emulator.resource import accept, masked, resource_of, searchable
from airflow_vertex_batch.emulator.scenario import Scenario, Script
from airflow_vertex_batch.emulator.spool import bills
from airflow_vertex_batch.emulator.tools import Tools
from airflow_vertex_batch.emulator.wire import ApiError, failed_precondition, project_number, rfc3339

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_vertex_batch.core.domain.address import Uri
    from airflow_vertex_batch.core.domain.ports import ObjectStore, Warehouse

#: Longest sleep of the driver while a job is running: how stale a row count may be.
_RUNNING_PAUSE_S, _IDLE_PAUSE_S = 0.1, 1.0
#: Longest wait for the driver's last piece of work when the emulator is stopped.
_STOP_WAIT_S = 3.0


class Emulator:
    """A Vertex AI that only knows batch prediction jobs.

    :param store: where requests are read and predictions are written.
    :param warehouse: for BigQuery input and output; without one, such jobs fail.
    :param model: who answers; the deterministic model by default.
    :param clock: the machine's by default; a `VirtualClock` for tests.
    :param speed: how many of the service's seconds pass in one second of the clock.
    :param data: a folder that keeps jobs over a restart; without one they live in a temporary folder.
    :param scenario: switches, pace, limits and faults.
    :param staging: a ``gs://`` folder for rows on their way from BigQuery to BigQuery.
    :param seed: makes job ids the same in every run.
    """

    def __init__(
        self,
        *,
        store: ObjectStore,
        warehouse: Warehouse | None = None,
        model: Model | None = None,
        clock: Clock | None = None,
        speed: float = 1.0,
        data: Path | None = None,
        scenario: Scenario | None = None,
        staging: Uri | None = None,
        seed: int | None = None,
    ) -> None:
        self._durable = data is not None
        self._home = Path(data or tempfile.mkdtemp(prefix="vertex-batch-emulator-"))
        self._tools = Tools(
            store,
            warehouse,
            model or DeterministicModel(),
            clock or SystemClock(),
            Script(scenario or Scenario()),
            staging,
        )
        # Job ids need to be different, not secret.
        self._random = random.Random(seed)  # noqa: S311
        self._speed = speed
        self._lock, self._stepping = threading.RLock(), threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._driver: threading.Thread | None = None
        self._machine = self._new_machine()
        self._jobs: dict[str, Job] = self._load()
        self._index = JobIndex(self._jobs.values())
        self._machine.adopt(self._jobs.values())
        self._operations: dict[str, datetime] = {}
        self._calls: Counter[str] = Counter()
        self._replies: dict[str, Counter[str]] = {}

    @property
    def clock(self) -> Clock:
        """The clock everything is measured by."""
        return self._tools.clock

    @property
    def script(self) -> Script:
        """The scenario in use, with its counts."""
        return self._tools.script

    @property
    def online(self) -> Online:
        """The models, as they are looked at and asked outside of jobs."""
        return Online(self._tools)

    def set_scenario(self, scenario: Scenario) -> Script:
        """Use another scenario from now on; return the old one, with the counts of its faults."""
        old, self._tools.script = self._tools.script, Script(scenario)
        return old

    # Calls ------------------------------------------------------------------------------------------------------------

    def create(self, project: str, location: str, body: Any) -> dict[str, Any]:
        """Create a job. :raises ApiError: when the body or the model is refused."""
        now = self.clock.now()
        accepted = accept(body, location, self.script.scenario, now.date().isoformat())
        job = Job(
            id=self._new_id(),
            project=project_number(project),
            location=location,
            body=accepted,
            state="",
            created_at=now,
            updated_at=now,
            due_at=now,
        )
        job.job_fault = self.script.take(JobFault, lambda fault: fault.concerns(job.display_name, job.labels))  # type: ignore[assignment]
        with self._lock:
            self._machine.begin(job)
            self._jobs[job.id] = job
            self._index.add(job)
            self._wake.set()
            return resource_of(job, self.script.scenario.switches)

    def get(self, project: str, location: str, job_id: str) -> dict[str, Any]:
        """Return one job. :raises ApiError: 404."""
        with self._lock:
            return resource_of(self._find(project, location, job_id), self.script.scenario.switches)

    def list(self, project: str, location: str, query: dict[str, str], hidden_s: float = 0.0) -> dict[str, Any]:
        """Return one page of jobs, newest first.

        :param query: ``filter``, ``pageSize``, ``pageToken``, ``readMask``.
        :param hidden_s: jobs younger than this are left out, as by an index that lags.
        :raises ApiError: 400 on a bad filter, size or token.
        """
        wanted = parse_filter(query.get("filter", ""))
        size, after = read_page_size(query.get("pageSize", "")), read_page_token(query.get("pageToken", ""))
        newest = self.clock.now() - timedelta(seconds=hidden_s)
        found: list[Job] = []
        with self._lock:
            for job in self._index.newest_first(wanted.labels, after):
                if job.is_deleted or (job.project, job.location) != (project_number(project), location):
                    continue
                if not (hidden_s and job.created_at > newest) and wanted.matches(searchable(job)):
                    found.append(job)
                if len(found) > size:
                    break
            documents = [resource_of(job, self.script.scenario.switches) for job in found[:size]]
        page = {"batchPredictionJobs": [masked(document, query.get("readMask", "")) for document in documents]}
        return page | ({"nextPageToken": page_token(age_of(found[size - 1]))} if len(found) > size else {})

    def cancel(self, project: str, location: str, job_id: str) -> dict[str, Any]:
        """Start to cancel a job. :raises ApiError: 400 FAILED_PRECONDITION when it is over or being cancelled."""
        with self._lock:
            job = self._find(project, location, job_id)
            if not self._machine.cancel(job):
                raise failed_precondition(
                    f"The BatchPredictionJob {job.name} is in state {job.state} and cannot be cancelled."
                )
        self._wake.set()
        return {}

    def delete(self, project: str, location: str, job_id: str, version: str) -> dict[str, Any]:
        """Delete a finished job; return the operation. :raises ApiError: 400 FAILED_PRECONDITION when it is not
        finished.
        """
        with self._lock:
            job = self._find(project, location, job_id)
            if not job.is_over:
                raise failed_precondition(
                    f"The BatchPredictionJob {job.name} is in state {job.state} and cannot be deleted."
                )
            job.is_deleted = True
            self._save(job)
            name = full_name(project, location, "operations", self._new_id())
            self._operations[name] = self.clock.now()
        return self._operation(name, version)

    def operation(self, project: str, location: str, operation_id: str, version: str) -> dict[str, Any]:
        """Return the operation of a delete. :raises ApiError: 404."""
        name = full_name(project, location, "operations", operation_id)
        if name not in self._operations:
            raise ApiError(404, f"Operation {name} was not found.")
        return self._operation(name, version)

    def subject(self, project: str, location: str, job_id: str) -> tuple[str, dict[str, str]]:
        """Return display name and labels of a job, empty when there is none: what faults are matched with."""
        try:
            job = self._find(project, location, job_id)
        except ApiError:
            return "", {}
        return job.display_name, job.labels

    def release(self, *, job: str = "*", labels: dict[str, str] | None = None) -> tuple[str, ...]:
        """Release the jobs that a `Hold` keeps or will keep; return their names.

        :param job: a glob on the display names meant.
        :param labels: labels that they carry; values are globs.
        """
        meant = Hold(state="", job=job, labels=labels or {})
        with self._lock:
            jobs = [one for one in self._jobs.values() if meant.concerns(one.display_name, one.labels)]
            released = tuple(one.name for one in jobs if self._machine.release(one))
        self._wake.set()
        return released

    # Books ------------------------------------------------------------------------------------------------------------

    def count(self, operation: str, outcome: str) -> None:
        """Note one API call and how it was answered."""
        with self._lock:
            self._calls[operation] += 1
            self._replies.setdefault(operation, Counter())[outcome] += 1

    def books(self, *, rows: bool = False) -> dict[str, Any]:
        """Return what was asked and billed: every call, and every job ever created, deleted ones included.

        :param rows: also each job's requests, with key, outcome and tokens: those done so far while it runs, all of
            them when it is over.
        """
        with self._lock:
            known = sorted(self._jobs.values(), key=age_of)
            jobs = [book_entry(job) for job in known]
            calls, replies = dict(self._calls), {name: dict(counts) for name, counts in self._replies.items()}
        if rows:
            for job, entry in zip(known, jobs, strict=True):
                entry["bills"] = [bill.as_dict() for bill in bills(self._job_folder(job))]
        billed = {"rows": sum(job["billedRows"] for job in jobs), "tokens": sum(job["tokens"]["total"] for job in jobs)}
        return {
            "version": 1,
            "calls": calls,
            "replies": replies,
            "jobsCreated": len(jobs),
            "billed": billed,
            "jobs": jobs,
        }

    # Time -------------------------------------------------------------------------------------------------------------

    def tick(self) -> bool:
        """Do one piece of every job; say whether any may have more to do now."""
        busy = False
        for job in [job for job in list(self._jobs.values()) if self._machine.wants_steps(job)]:
            with self._stepping:
                busy |= job.id in self._jobs and self._machine.step(job)
        return busy

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on a virtual clock, doing all work that is due on the way.

        :raises TypeError: on a clock that cannot be moved.
        """
        if not isinstance(self.clock, VirtualClock):
            raise TypeError("Only an emulator with a VirtualClock can be advanced")
        end = self.clock.now() + timedelta(seconds=seconds)
        self._settle()
        while (moment := self._next_due()) is not None and self.clock.now() < moment <= end:
            self.clock.move_to(moment)
            self._settle()
        self.clock.move_to(end)
        self._settle()

    def start(self) -> None:
        """Drive the jobs from a thread, in the machine's time."""
        self._stop.clear()
        self._driver = threading.Thread(target=self._drive, name="vertex-batch-emulator", daemon=True)
        self._driver.start()

    def stop(self) -> None:
        """End the driver and close all files. Jobs of a data folder go on with the next emulator over it."""
        self._stop.set()
        self._wake.set()
        if self._driver:
            self._driver.join(_STOP_WAIT_S)
            if self._driver.is_alive():
                # The driver waits for a store that does not answer. Its data is on disk, and it ends with the process.
                return
            self._driver = None
        self._machine.close()
        if not self._durable:
            shutil.rmtree(self._home, ignore_errors=True)

    def reset(self) -> None:
        """Forget every job, operation and count, and go back to the plain scenario."""
        with self._stepping, self._lock:
            self._machine.close()
            self._jobs.clear()
            self._index = JobIndex()
            self._operations.clear()
            self._calls.clear()
            self._replies.clear()
            shutil.rmtree(self._home / "jobs", ignore_errors=True)
            self._tools.script = Script(Scenario())

    # ------------------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        while self.tick():
            pass

    def _next_due(self) -> datetime | None:
        return min(
            (self._machine.next_due(job) for job in self._jobs.values() if self._machine.wants_steps(job)), default=None
        )

    def _drive(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            if not self.tick():
                self._wake.wait(self._pause())

    def _pause(self) -> float:
        live = [job for job in list(self._jobs.values()) if self._machine.wants_steps(job)]
        if any(job.started_at and not job.is_over for job in live):
            return _RUNNING_PAUSE_S
        dues = [(self._machine.next_due(job) - self.clock.now()).total_seconds() for job in live]
        return max(0.001, min([*dues, _IDLE_PAUSE_S]))

    def _new_machine(self) -> Machine:
        return Machine(self._tools, self._speed, self._job_folder, self._save, self._lock)

    def _new_id(self) -> str:
        # A seed that is used again over a data folder would otherwise give the ids that are there.
        candidates = (str(self._random.randrange(10**18, 10**19)) for _ in itertools.count())
        return next(one for one in candidates if one not in self._jobs)

    def _find(self, project: str, location: str, job_id: str) -> Job:
        job = self._jobs.get(job_id)
        if job is None or job.is_deleted or (job.project, job.location) != (project_number(project), location):
            name = full_name(project, location, "batchPredictionJobs", job_id)
            raise ApiError(404, f"The BatchPredictionJob {name} does not exist.")
        return job

    def _operation(self, name: str, version: str) -> dict[str, Any]:
        begun = self._operations[name]
        ended = begun + timedelta(seconds=self.script.scenario.pace.delete_s / self._speed)
        metadata = {
            "@type": f"type.googleapis.com/google.cloud.aiplatform.{version}.DeleteOperationMetadata",
            "genericMetadata": {"createTime": rfc3339(begun), "updateTime": rfc3339(min(ended, self.clock.now()))},
        }
        if self.clock.now() < ended:
            return {"name": name, "metadata": metadata}
        return {
            "name": name,
            "metadata": metadata,
            "done": True,
            "response": {"@type": "type.googleapis.com/google.protobuf.Empty"},
        }

    def _job_folder(self, job: Job) -> Path:
        return self._home / "jobs" / job.id

    def _save(self, job: Job) -> None:
        if not self._durable:
            return
        path = self._job_folder(job) / "job.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(job))
        temporary.replace(path)

    def _load(self) -> dict[str, Job]:
        jobs = [msgspec.json.decode(path.read_bytes(), type=Job) for path in self._home.glob("jobs/*/job.json")]
        return {job.id: job for job in sorted(jobs, key=age_of)}
