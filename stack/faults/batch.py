"""How does a batch go if its infrastructure fails once? It makes attempts as Airflow does, and checks the result at the
end.

The whole batch in one task (`VertexBatchOperator(deferrable=False)`) over six rows, of which one fails at first and one
is always refused. The driver does what Airflow does: after an error it begins another try with a token of its own, two
times; after an error that no retry cures, or the third, a person clears the task.

Invariants: every attempt is made only from its arguments, as in a new process. Each batch has its own bucket and
dataset.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from stack.faults.calls import SOURCE_NAME, Position
from stack.faults.clock import BEGIN, Clock, HangsError
from stack.faults.cloud import HEALS, KEYS, NEVER, Cloud
from stack.faults.exchange import Run
from stack.faults.gateway import Gateway
from stack.faults.kinds import SECOND, Fault
from stack.laptop import PROJECT

if TYPE_CHECKING:
    from airflow_vertex_batch.emulator.service import Emulator

#: As operators have them by default, and Airflow's own delay.
RETRIES, RETRY_DELAY_S = 2, 300.0
#: How long it takes a person to come and clear.
CLEAR_AFTER_S = 3600.0
#: Clears after which a batch counts as lost.
MAX_CLEARS = 2


class Outcome(msgspec.Struct, frozen=True):
    """The result of one batch.

    :param attempts: how each attempt ended: ``success``, ``retry`` (an error that a retry may cure), ``fail``,
        ``hangs``.
    :param clears: how often a person had to clear it.
    :param elapsed_s: seconds from the first attempt's begin to the last one's end.
    :param wrong: what is not as it should be at the end, in words; nothing when all is well.
    :param errors: what the attempts said.
    :param positions: every call of it.
    :param struck: the call to which the fault happened.
    """

    attempts: tuple[str, ...]
    clears: int
    elapsed_s: float
    wrong: tuple[str, ...]
    errors: tuple[str, ...]
    struck: str
    positions: tuple[Position, ...]


@dataclass
class Task:
    """What Airflow knows of a task, from try to try."""

    try_number: int = 1
    max_tries: int = RETRIES
    xcoms: dict[str, Any] = field(default_factory=dict)

    def context(self) -> dict[str, Any]:
        """Return what a worker hands to an attempt; its XComs are wiped, as a new try's are."""
        self.xcoms = {}
        ti = SimpleNamespace(
            id=str(uuid4()), dag_id="nightly", task_id="batch", run_id="scheduled__2026-11-22", map_index=-1,
            try_number=self.try_number, max_tries=self.max_tries,
            start_date=Clock.now(), xcom_push=self._push,
            xcom_pull=lambda **_: [], get_first_reschedule_date=lambda _: None,
        )  # fmt: skip
        return {"ti": ti, "dag_run": SimpleNamespace(logical_date=BEGIN), "params": {}}

    def _push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))


class Batch:
    """One batch and its attempts.

    :param cloud: the servers themselves, past the gateway.
    :param to_table: from a BigQuery table to a BigQuery table, instead of from a file to files.
    """

    def __init__(self, clock: Clock, gateway: Gateway, cloud: Cloud, *, to_table: bool) -> None:
        self._clock, self._gateway, self._cloud, self._to_table = clock, gateway, cloud, to_table
        self._name, self._task = f"b{uuid4().hex[:12]}", Task()
        self._attempts: list[str] = []
        self._errors: list[str] = []

    def go(self, fault: Fault | None = None, at: str = "") -> Outcome:
        """Go through the batch; the fault happens at the call of that title."""
        random.seed(f"{fault} {at} {self._to_table}")
        self._cloud.begin(self._name, is_large=fault is not None and fault.needs_large, to_table=self._to_table)
        emulator = _emulator(self._cloud)
        self._gateway.run = run = Run(self._name, self._cloud, emulator, fault, at)
        began = self._clock.elapsed_s
        clears = self._until_success()
        elapsed_s, positions = self._clock.elapsed_s - began, tuple(run.positions)
        wrong = self._wrong(emulator)
        if not wrong and len(self._attempts) > 1:
            # What is left behind must not poison what a person does next.
            self._clear()
            wrong = [
                f"after another clear: {one}" for one in (self._attempt(), *self._wrong(emulator)) if one != "success"
            ]
        self._gateway.run = None
        emulator.stop()
        self._cloud.end(self._name, to_table=self._to_table)
        return Outcome(
            attempts=tuple(self._attempts),
            clears=clears,
            elapsed_s=elapsed_s,
            wrong=tuple(wrong),
            errors=tuple(self._errors),
            struck=run.struck.title if run.struck else "",
            positions=positions,
        )

    def _until_success(self) -> int:
        """Begin attempts until one succeeds; return how often a person had to clear the task."""
        clears = 0
        while (ending := self._attempt()) != "success":
            self._attempts.append(ending)
            if ending == "retry" and self._task.try_number <= self._task.max_tries:
                self._clock.pass_by(RETRY_DELAY_S)
                self._task.try_number += 1
            elif clears < MAX_CLEARS:
                clears += 1
                self._clear()
            else:
                return clears
        self._attempts.append(ending)
        return clears

    def _clear(self) -> None:
        """Do what a person's clear does."""
        self._clock.pass_by(CLEAR_AFTER_S)
        self._task.max_tries = self._task.try_number + RETRIES
        self._task.try_number += 1

    def _attempt(self) -> str:
        """Make one attempt, and say how it ended."""
        from airflow.providers.common.compat.sdk import AirflowFailException

        from airflow_vertex_batch.core.domain.errors import VertexBatchError

        self._clock.begin_attempt()
        try:
            self._operator().execute(self._task.context())
        except AirflowFailException as error:
            self._errors.append(str(error))
            return "fail"
        except VertexBatchError as error:
            self._errors.append(str(error))
            return "retry"
        except HangsError as error:
            self._errors.append(str(error))
            return "hangs"
        except Exception as error:  # noqa: BLE001 - whatever else it is, Airflow tries again, and a reader sees this
            self._errors.append(f"not one of ours: {error!r}")
            return "retry"
        return "success"

    def _operator(self) -> Any:
        from airflow_vertex_batch import VertexBatchOperator

        place = f"gs://{self._name}"
        source: dict[str, Any] = {"files": f"{place}/{SOURCE_NAME}"}
        where: dict[str, Any] = {"destination": f"{place}/landed"}
        if self._to_table:
            source = {"table": f"bq://{PROJECT}.{self._name}.source"}
            where = {"destination": f"bq://{PROJECT}.{self._name}.answers"}
        return VertexBatchOperator(
            task_id="batch", deferrable=False, model="gemini-2.5-flash", prompt="{{ text }}", key_column="id",
            location="us-central1", staging_uri=f"{place}/staging", partition_date="2026-11-22", repair_rounds=1,
            poll_interval=60, columns=["text"], **source, **where,
        )  # fmt: skip

    def _wrong(self, emulator: Emulator) -> list[str]:
        """Return what is wrong after everything has ended."""
        emulator.advance(24 * 3600.0)
        jobs = emulator.books()["jobs"]
        landed, dead = (self._cloud.table if self._to_table else self._cloud.files)(self._name)
        checks = {
            "attempts end": self._attempts[-1:] == ["success"],
            f"jobs bought for {[job['requests'] for job in jobs]} rows": [job["requests"] for job in jobs] == [6, 1],
            f"landed {dict(landed)}, dead letters {dict(dead)}": (landed, dead) in _rightly_landed(),
        }
        broken = self._gateway.run.broken if self._gateway.run is not None else []
        return (
            [text for text, holds in checks.items() if not holds]
            + self._cloud.left_over(self._name, to_table=self._to_table)
            + broken
        )


def _rightly_landed() -> list[tuple[Counter[str], Counter[str]]]:
    """Return what may have landed: the rows of one edition or of the other, each once, one among the dead letters."""
    return [
        (Counter(key + edition for key in KEYS if key != NEVER), Counter([NEVER + edition])) for edition in ("", SECOND)
    ]


def _emulator(cloud: Cloud) -> Emulator:
    """Return a Vertex AI of a batch's own."""
    from airflow_vertex_batch.emulator.clock import VirtualClock
    from airflow_vertex_batch.emulator.row_faults import Blocked, RowError
    from airflow_vertex_batch.emulator.scenario import Scenario
    from airflow_vertex_batch.emulator.service import Emulator
    from airflow_vertex_batch.gcp.storage import GcsStore

    faults = (RowError(keys=(HEALS,), labels={"avb-round": "0"}), Blocked(keys=(NEVER,)))
    return Emulator(
        store=GcsStore(cloud.storage), clock=VirtualClock(Clock.now()), scenario=Scenario(faults=faults), seed=1
    )
