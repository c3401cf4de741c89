"""What can happen to one task in one night, and was it right? The service, its time, its books, and who judges them.

The service is the emulator on a clock that moves when somebody sleeps; the client is the real one, with the emulator
where the network would be. Every create call is judged at the moment of its commit, by the books of the service alone:

- **paid twice**: a job of the same task, request file and input was there before and had not ended without use;
- **two at once**: a job of the same task and request file for other input was running and not being cancelled;
- **asked twice**: one of its requests had a good answer in an earlier job of the same set.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
from google.auth.credentials import AnonymousCredentials

from airflow_vertex_batch.core.answers.repair import with_resume
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.domain.manifest import Manifest
from airflow_vertex_batch.core.purchase.decide import SETTLE_SECONDS, OnChangedInput, OnClear
from airflow_vertex_batch.core.purchase.ownership import (
    FINGERPRINT_LABEL,
    GENERATION_LABEL,
    IDENTITY_LABEL,
    ROUND_LABEL,
    SHARD_LABEL,
)
from airflow_vertex_batch.core.requests.prepare import read_manifest
from airflow_vertex_batch.core.waiting.watch import OnTimeout
from airflow_vertex_batch.emulator import faults, row_faults
from airflow_vertex_batch.emulator.clock import VirtualClock
from airflow_vertex_batch.emulator.rest import Rest
from airflow_vertex_batch.emulator.scenario import Pace, Scenario, Switches
from airflow_vertex_batch.emulator.service import Emulator
from airflow_vertex_batch.gcp.calls import Call, no_answer, read_answer
from airflow_vertex_batch.gcp.vertex import VertexClient
from tests.fakes import MemoryStore

QUICK = Pace(pending_s=60, running_s=60)
LANDED = Uri.parse("gs://out/landed")
#: Phases after which a job may be bought again when it answered nothing (see `core.purchase.submit.decide`).
_BAD_ENDS = {JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}


@dataclass(frozen=True)
class Conditions:
    """What stays the same all night: the user's parameters, the service's habits, what becomes of which rows.

    :param in_steps: whether prepare, create, wait, repair and export are tasks of their own.
    :param shard_rows: most requests in a file, so in a job.
    :param timeout: seconds from a job's creation to its deadline.
    """

    in_steps: bool = False
    row_count: int = 3
    shard_rows: int = 50
    rounds: int = 1
    on_clear: OnClear = OnClear.ATTACH
    resume: bool = False
    timeout: float = 97 * 3600.0
    on_timeout: OnTimeout = OnTimeout.CANCEL
    poll_interval: float | None = None
    on_changed_input: OnChangedInput = OnChangedInput.RESUBMIT
    pace: Pace = field(default_factory=Pace)
    switches: Switches = field(default_factory=Switches)
    row_faults: tuple[row_faults.RowFault, ...] = ()


class Watched(Emulator):
    """The emulator, with somebody who looks at the books whenever a job is paid."""

    def __init__(self, night: Night, **options: Any) -> None:
        super().__init__(**options)
        self._night = night

    def create(self, project: str, location: str, body: Any) -> dict[str, Any]:
        before = self.books()["jobs"]
        made = super().create(project, location, body)
        # No two jobs are made in the same instant.
        self.clock.sleep(1.0)
        self._night.judge(before, made)
        return made


class Night:
    """One task of one run."""

    #: What an attempt is made with, besides the terms; a mistake is planted by replacing one.
    store_kind: type[Any] = MemoryStore
    client_kind: type[Any] | None = None
    settle_seconds = SETTLE_SECONDS

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.store, self.clock = self.store_kind(), VirtualClock()
        self.store.clock = self.clock.now
        self.emulator = Watched(self, store=self.store, clock=self.clock, seed=1)
        self.rest = Rest(self.emulator)
        self.rows = [{"id": f"a{number}", "text": f"text {number}"} for number in range(conditions.row_count)]
        self.generation, self.upstream, self.attempts = 1, 1, 0
        #: What the tasks before have passed on, where the steps are tasks of their own.
        self.passed_on: dict[str, Any] = {}
        #: Base set by the request file, or the output to complete, that a job of it may have as input.
        self.bases: dict[str, str] = {}
        #: Keys of the rows of each set that was prepared from the source, by its address.
        self.prepared: dict[str, set[str]] = {}
        #: Jobs whose labels nobody sees any more.
        self.unlabelled: set[str] = set()
        self.is_edited = self.is_any_deleted = self.is_log_lost = False
        #: Creates that the service will carry out although nobody waits for the answer: when, and what.
        self.late: list[tuple[datetime, dict[str, Any]]] = []
        self.late_seconds: list[float] = []
        self.wrong: list[str] = []
        self.seen: Counter[str] = Counter()
        self.script()

    # Time and faults --------------------------------------------------------------------------------------------------

    def client(self, turn: Any, sleep: Any) -> VertexClient:
        """Return what an attempt asks the service with."""
        return (self.client_kind or Client)(self, turn, sleep)

    def script(self, *more: faults.Fault, is_last: bool = False) -> None:
        """Behave like this from now on: the faults of rows stay, all others are these.

        :param is_last: the night ends: jobs are quick, and one whose every row failed has still ended well.
        """
        pace, switches = self.conditions.pace, self.conditions.switches
        if is_last:
            pace, switches = QUICK, msgspec.structs.replace(switches, all_failed="succeeded")
        scenario = Scenario(switches=switches, pace=pace, faults=(*more, *self.conditions.row_faults))
        old = self.emulator.set_scenario(scenario)
        for entry in old.faults():
            if entry["used"]:
                self.seen[f"fault {_name_of(entry['fault'])}"] += 1

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and with it whatever the service does; some always does."""
        end = self.clock.now() + timedelta(seconds=max(seconds, 0.001))
        while self.late and self.late[0][0] <= end:
            when, body = self.late.pop(0)
            self.emulator.advance(max(0.0, (when - self.clock.now()).total_seconds()))
            self.emulator.create("demo", "global", body)
        self.emulator.advance(max(0.0, (end - self.clock.now()).total_seconds()))

    # Judging ----------------------------------------------------------------------------------------------------------

    def jobs(self) -> list[dict[str, Any]]:
        """Return every job that was ever paid, oldest first."""
        return self.emulator.books()["jobs"]

    def running(self) -> list[dict[str, Any]]:
        """Return the jobs that cost money now."""
        return [job for job in self.jobs() if _is_running(job)]

    def knows(self, manifest: Manifest, base: Manifest) -> None:
        """Remember which base set a prepared set belongs to."""
        for shard in manifest.shards:
            self.bases[shard.uri] = base.fingerprint
            if shard.resume_uri:
                self.bases[shard.resume_uri] = base.fingerprint

    def _know_the_rounds(self) -> None:
        """Learn from the logs which sets the repair rounds ask."""
        for name, data in list(self.store.objects.items()):
            entry = json.loads(data) if "/log/" in name else {}
            if entry.get("kind") == "repair":
                asked, base = (read_manifest(self.store, Uri.parse(entry[each])) for each in ("manifest_uri", "base"))
                self.knows(with_resume(asked, entry.get("resume_uri", "")), base)

    def judge(self, before: list[dict[str, Any]], made: dict[str, Any]) -> None:
        """Note what is wrong with a job that was created just now."""
        self._know_the_rounds()
        mine = [job for job in before if _owner(job) == _owner(made)]
        same = [job for job in mine if self._purchase(job) == self._purchase(made)]
        self.wrong += [f"paid twice: {made['name']} after {job['name']}, {job['state']}, {job['rows']}"
                       for job in same if not self._was_of_no_use(job)]  # fmt: skip
        # A job that no log names any more is cancelled by nobody.
        self.wrong += [f"two at once: {made['name']} while {job['name']} is {job['state']}"
                       for job in mine if job not in same and _is_running(job) and not self.is_log_lost]  # fmt: skip
        self.seen["bought again"] += bool(same)
        is_new = self.conditions.on_clear is OnClear.NEW
        if self.is_any_deleted or (self.conditions.in_steps and (same or is_new)):
            return
        if is_new:
            before = [job for job in before if self._purchase(job)[1] == self._purchase(made)[1]]
        [uri] = made["inputConfig"]["gcsSource"]["uris"]
        lines = map(json.loads, self.store.objects[uri].splitlines())
        sent = {line["key"] for line in lines if not line.get("response")}
        if twice := sent & self.good_keys(self.bases[uri], before):
            self.wrong.append(f"asked twice: {sorted(twice)} by {made['name']}")

    def _purchase(self, job: dict[str, Any]) -> tuple[str, ...]:
        """Return what makes two jobs of one owner the same purchase; a clear can ask for another one."""
        edition = _label(job, GENERATION_LABEL) if self.conditions.on_clear is OnClear.NEW else ""
        return _label(job, FINGERPRINT_LABEL), edition

    def _was_of_no_use(self, job: dict[str, Any]) -> bool:
        """Whether a job may be bought again: it is gone, or ended without rows; a repair round is bought only once.

        A create task of its own buys again what failed or was cancelled, whatever it answered: only there nobody will
        send the rest.
        """
        if job["deleted"]:
            return True
        if round_of(job):
            return False
        rows = job["rows"]["answered"] + job["rows"]["copied"]
        state = JobState.read(job["state"])
        return state in _BAD_ENDS and (not rows or (self.conditions.in_steps and state is not JobState.EXPIRED))

    def good_keys(self, base: str, jobs: list[dict[str, Any]] | None = None) -> set[str]:
        """Return the keys that have a good answer in the output of a job which still counts."""
        newest = {(_owner(job), self._purchase(job)): job for job in (self.jobs() if jobs is None else jobs)}
        found: set[str] = set()
        for job in newest.values():
            # Only the log says which set a round's answers complete.
            is_lost = self.is_log_lost and round_of(job) > 0
            if self.bases.get(job["inputUris"][0]) == base and self._is_readable(job) and not is_lost:
                folder = job["outputInfo"]["gcsOutputDirectory"]
                for name, data in self.store.objects.items():
                    if name.startswith(f"{folder}/"):
                        found |= {line["key"] for line in map(json.loads, data.splitlines()) if _is_good(line)}
        return found

    def _is_readable(self, job: dict[str, Any]) -> bool:
        state, switches = JobState.read(job["state"]), self.conditions.switches
        hidden = (state is JobState.FAILED and not switches.failed_output_info) or (
            state is JobState.CANCELLED and not switches.cancelled_output
        )
        return bool(job["outputInfo"]) and state.is_final and not job["deleted"] and not hidden

    def landed(self) -> dict[str, str]:
        """Return the status of every landed row by its key; note a row that landed twice."""
        found: dict[str, str] = {}
        for name, data in self.store.objects.items():
            if name.startswith(f"{LANDED}/"):
                for record in map(json.loads, data.splitlines()):
                    if record["row_key"] in found:
                        self.wrong.append(f"landed twice: {record['row_key']}")
                    found[record["row_key"]] = record["status"]
        return found


def _label(job: dict[str, Any], name: str) -> str:
    return job["labels"][name]


def _owner(job: dict[str, Any]) -> tuple[str, ...]:
    """Return which of whose jobs one is."""
    return tuple(_label(job, name) for name in (IDENTITY_LABEL, ROUND_LABEL, SHARD_LABEL))


def is_log(name: str) -> bool:
    """Whether an object is an entry of a log, or leads to one."""
    return "/log/" in name or "/owners/" in name


def round_of(job: dict[str, Any]) -> int:
    """Return the repair round that a job was bought for; 0 for the batch itself."""
    return int(_label(job, ROUND_LABEL))


def _is_running(job: dict[str, Any]) -> bool:
    state = JobState.read(job["state"])
    return not state.is_final and state is not JobState.CANCELLING


def _is_good(line: dict[str, Any]) -> bool:
    candidates = (line.get("response") or {}).get("candidates") or [{}]
    parts = (candidates[0].get("content") or {}).get("parts")
    return not line.get("status") and candidates[0].get("finishReason") == "STOP" and bool(parts)


def _name_of(fault: dict[str, Any]) -> str:
    names = ("do", "on", "status", "when", "state")
    return " ".join(str(fault[name]) for name in names if fault.get(name)).removesuffix(" before")


class Client(VertexClient):
    """The real client, with the emulator where the network would be.

    :param turn: called before every call, with the most seconds that one may stall just then.
    """

    def __init__(self, night: Night, turn: Any, sleep: Any) -> None:
        super().__init__(AnonymousCredentials(), "demo", "global", sleep=sleep)
        self._night, self._turn = night, turn

    def _send_once(self, call: Call) -> dict[str, Any]:
        self._turn(None if call.repeatable else 30.0)
        night, raw = self._night, json.dumps(call.body).encode() if call.body is not None else b""
        if not call.repeatable and night.late_seconds:
            night.seen["fault create after its caller gave up"] += 1
            night.late.append((night.clock.now() + timedelta(seconds=night.late_seconds.pop()), json.loads(raw)))
            raise no_answer(call, TimeoutError())
        try:
            reply = night.rest.handle(faults.Call(call.method, f"/{call.path}", call.params, raw))
        except faults.DroppedError as error:
            raise no_answer(call, error) from error
        text = reply.document if isinstance(reply.document, str) else json.dumps(reply.document)
        doc = read_answer(call, reply.status, text, reply.headers)
        if "batchPredictionJobs" in doc:
            doc["batchPredictionJobs"] = [self._shown(job) for job in doc["batchPredictionJobs"]]
        return self._shown(doc)

    def _shown(self, doc: dict[str, Any]) -> dict[str, Any]:
        return doc | {"labels": {}} if doc.get("name") in self._night.unlabelled else doc
