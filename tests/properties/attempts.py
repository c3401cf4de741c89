"""How does one attempt of a task go, and how do two at a time? Workers that die, stall and sleep by the night's clock.

An attempt makes all its objects anew and goes through the same core as the operators: prepare, buy, wait, repair, land.
Two at a time take turns at every call of a port, in an order that is given; only when both sleep, time passes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain, count, cycle
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.address import JobName, Uri
from airflow_vertex_batch.core.course import Course, Done, Start, Waiting
from airflow_vertex_batch.core.drive import drive
from airflow_vertex_batch.core.errors import InputError, VertexBatchError
from airflow_vertex_batch.core.export import LandPlan
from airflow_vertex_batch.core.landing import Landing, Round, read_jobs, read_round, refuse_bad_end
from airflow_vertex_batch.core.lifecycle import (
    CANCELLING_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    Ended,
    OnTimeout,
    Outcome,
    WaitPolicy,
    conclude,
    watch,
)
from airflow_vertex_batch.core.model import JobState, Manifest
from airflow_vertex_batch.core.prepare import PreparePlan, prepare, read_manifest
from airflow_vertex_batch.core.purchase import Buyer, is_repair
from airflow_vertex_batch.core.repair import RepairPolicy
from airflow_vertex_batch.core.request import RequestTemplate
from airflow_vertex_batch.core.sources import Rows
from airflow_vertex_batch.core.submit import OnClear, Reuse, Terms
from tests.builders import a_spec, an_identity
from tests.fakes import Died, Lives, MemoryWarehouse
from tests.properties.nights import LANDED, LEDGERS, Night

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow_vertex_batch.core.report import Report

PLAN = LandPlan(batch_id="b", partition_date="2026-11-22")
#: Seconds beyond its deadlines that an attempt may take for what surrounds a wait: looks at the service with their
#: retries, a settle time, the last question.
_SLACK_SECONDS = 900.0


@dataclass(frozen=True)
class Death:
    """How an attempt's process ends, if it does not live.

    :param effects: it dies right after so many effects.
    :param naps: it dies in a sleep, after so many.
    :param by_hand: a person marks the task failed in that sleep: the jobs it waits for are cancelled.
    :param stalls: before which calls it stands still, for how many seconds.
    """

    effects: int | None = None
    naps: int | None = None
    by_hand: bool = False
    stalls: dict[int, float] = field(default_factory=dict)


class Worker:
    """The process of one attempt."""

    def __init__(self, night: Night, end: Death | None = None) -> None:
        night.attempts += 1
        self.night, self.end, self.tokens = night, end or Death(), count()
        self.number = night.attempts
        self.lives, self.calls, self.naps, self.waits = Lives(self.end.effects), 0, 0, 0
        self.client: Any = night.client(self.turn, self.sleep)
        self.store = self.lives.store(_InTurn(night.store, self.turn))
        self.service = self.lives.service(self.client)
        self.waits_for: tuple[JobName, ...] = ()
        #: Hands over to the other workers; None when there are none.
        self.hand_over: Callable[[], None] | None = None
        self.began = night.clock.now()
        self.wakes_at, self.outcome, self.why = night.clock.now(), "", ""
        self.error: BaseException | None = None
        #: The set that the attempt is at work on.
        self.base: Any = None
        #: The input as it is when the attempt begins.
        self.rows = list(night.rows)

    def token(self) -> str:
        """Name something of this attempt that nobody else names so."""
        return f"attempt{self.number}-{next(self.tokens)}"

    def now(self) -> datetime:
        return self.night.clock.now()

    def seconds(self) -> float:
        return self.now().timestamp()

    def turn(self, most: float | None = None) -> None:
        """Let others go first, before a call.

        :param most: seconds that the worker may stand still here; a create call is over in its own time.
        """
        self.calls += 1
        if self.hand_over is not None:
            stall = self.end.stalls.get(self.calls, 0.0)
            self.wakes_at = self.now() + timedelta(seconds=stall if most is None else min(stall, most))
            self.hand_over()

    def sleep(self, seconds: float) -> None:
        self.naps += 1
        self._check_time()
        if self.end.naps is not None and self.naps > self.end.naps:
            if self.end.by_hand:
                self.night.seen["ended by hand"] += bool(self.waits_for)
                for name in self.waits_for:
                    self.client.cancel(name)
            raise Died
        if self.hand_over is None:
            self.night.pass_time(seconds)
            return
        self.wakes_at = self.now() + timedelta(seconds=seconds)
        self.hand_over()

    def run(self) -> str:
        """Make the attempt; return how it ended: ``landed``, ``died``, or the name of an error."""
        try:
            (steps if self.night.conditions.in_steps else whole)(self)
            self.outcome = "landed"
        except Died:
            self.outcome = "died"
        except VertexBatchError as error:
            self.outcome, self.why = type(error).__name__, f"{type(error).__name__}: {error}"
            self._check(error)
        self.night.seen[f"attempt {self.outcome}"] += 1
        return self.outcome

    def _check_time(self) -> None:
        """End an attempt that waits for longer than its deadlines allow."""
        conditions = self.night.conditions
        limit = DEFAULT_TIMEOUT_SECONDS if conditions.on_timeout is OnTimeout.KEEP else conditions.timeout
        each = limit + CANCELLING_SECONDS + _SLACK_SECONDS
        took = (self.now() - self.began).total_seconds()
        if took > self.waits * each + 4 * _SLACK_SECONDS + sum(self.end.stalls.values()):
            self.night.wrong.append(f"waited {took:.0f} s in {self.waits} waits of {limit:.0f} s")
            raise Died

    def _check(self, error: VertexBatchError) -> None:
        """Nothing a night holds is the fault of the rows: an `InputError` is a refusal that was asked for."""
        if isinstance(error, InputError) and "running for other input" not in str(error):
            self.night.wrong.append(f"refused: {error}")

    def buyer(self, task: str, output: str) -> Buyer:
        return Buyer(
            base=a_spec(output=output),
            identity=an_identity(task_id=task),
            store=self.store,
            service=self.service,
            ledgers=LEDGERS,
            attempt=self.token(),
            terms=Terms(
                settle_seconds=self.night.settle_seconds,
                on_changed_input=self.night.conditions.on_changed_input,
                edition=str(self.night.upstream if task == "create" else self.night.generation),
                renew=self.night.conditions.on_clear is OnClear.NEW,
            ),
            sleep=self.sleep,
        )

    def start(self, *, alone: bool = False) -> Start:
        night = self.night
        return Start(
            generation=str(night.generation),
            upstream=str(night.upstream) if alone else "",
            rounds=night.conditions.rounds,
            on_clear=night.conditions.on_clear,
            alone=alone,
        )

    def course(self, task: str, folder: Uri) -> Course:
        buyer = self.buyer(task, str(folder / "output"))

        def approve(manifest: Manifest, _spent: Any) -> bool:
            self.night.knows(manifest, self.base)
            return True

        policy = RepairPolicy(resume=self.night.conditions.resume)
        return Course(
            buyer=buyer, store=self.store, warehouse=MemoryWarehouse(), folder=folder, policy=policy, approve=approve
        )

    def prepare(self, folder: Uri) -> Manifest:
        rows = Rows(list(self.rows)).rows(self.store, MemoryWarehouse())
        plan = PreparePlan(
            template=RequestTemplate(prompt="{{ text }}"),
            key_column="id",
            max_requests=self.night.conditions.shard_rows,
        )
        manifest = prepare(rows, plan, self.store, folder, self.token())
        self.night.knows(manifest, manifest)
        self.night.prepared[manifest.uri] = {row["id"] for row in self.rows}
        return manifest

    def wait(self, names: Iterable[str]) -> list[Outcome]:
        """Wait for jobs as a worker does."""
        conditions, self.waits_for = self.night.conditions, tuple(map(JobName.parse, names))
        policy = WaitPolicy(
            poll_interval=conditions.poll_interval, timeout=conditions.timeout, on_timeout=conditions.on_timeout
        )
        self.waits += 1
        flows = [watch(name, policy, self.seconds, luck=lambda: 0.5) for name in self.waits_for]
        outcomes = drive(*((flow, self.service) for flow in flows), sleep=self.sleep, clock=self.seconds)
        self.night.seen.update(f"wait {_said(outcome)}" for outcome in outcomes)
        self.waits_for = ()
        return outcomes

    def land(self, rounds: Sequence[Round]) -> Report:
        landing = Landing(rounds, self.store, MemoryWarehouse(), PLAN)
        report = landing.land(landing.files(LANDED, "jsonl"))
        base = rounds[0].manifest
        assert base is not None
        if report.request_count != base.row_count or sum(report.statuses.values()) != base.row_count:
            self.night.wrong.append(f"counts do not add up: {report.as_dict()}")
        self.night.seen["repair rounds landed"] += len(rounds) - 1
        self.night.seen.update({f"row {status}": count for status, count in report.statuses.items() if count})
        return report


def whole(worker: Worker) -> None:
    """Do all in one task, as `VertexBatchOperator` does."""
    folder, complete = Uri.parse("gs://b/run/whole"), True
    course, start = worker.course("whole", folder), worker.start()
    manifest = worker.base = course.base_of_retry(start.generation)
    if manifest is None:
        manifest = worker.base = worker.prepare(folder)
        course.begin(manifest, start)
    step = course.advance(manifest, reuse=Reuse.WITH_ROWS, complete=True)
    ending = step.ending if isinstance(step, Waiting) else ()
    while isinstance(step, Waiting):
        complete = complete and bool(step.ending)
        _refuse(worker.wait(step.job_names), ending)
        course = worker.course("whole", folder)
        manifest = worker.base = read_manifest(worker.store, Uri.parse(course.base_uri))
        step = course.advance(manifest, reuse=Reuse.WITH_ROWS if complete else Reuse.ANY, complete=complete)
    report = worker.land(step.rounds)
    refuse_bad_end(step.rounds, report)


def steps(worker: Worker) -> None:
    """Go on with the first task that is not done, as a retry does."""
    done, folder = worker.night.passed_on, Uri.parse("gs://b/run/steps")
    if "manifest" not in done:
        done["manifest"] = worker.prepare(folder / "prepare").as_dict()
    manifest = worker.base = Manifest.from_dict(done["manifest"])
    if "created" not in done:
        buyer = worker.buyer("create", str(folder / "create" / "output"))
        done["created"] = [job.name for job in buyer.buy(manifest)]
    if "jobs" not in done:
        done["jobs"] = [job.as_dict() for job in conclude(worker.wait(done["created"]))]
    if "rounds" not in done:
        done["rounds"] = [asked.as_dict() for asked in _repaired(worker, manifest, folder / "repair")]
    worker.land([read_round(asked, worker.service.get) for asked in done["rounds"]])


def _repaired(worker: Worker, manifest: Manifest, folder: Uri) -> tuple[Round, ...]:
    jobs = read_jobs(worker.night.passed_on["jobs"], worker.service.get)
    course = worker.course("repair", folder)
    course.begin(manifest, worker.start(alone=True), jobs)
    while not isinstance(step := course.advance(manifest, jobs), Done):
        _refuse(worker.wait(step.job_names))
        course = worker.course("repair", folder)
    return step.rounds


def _refuse(outcomes: list[Outcome], ending: Sequence[str] = ()) -> None:
    """Fail as the operators do: a repair job that ended without a row has only cured nothing.

    :param ending: jobs that were being cancelled when the attempt began: they are bought again instead.
    """
    given_up = {JobState.CANCELLED, JobState.EXPIRED}
    conclude(outcomes, lambda job: is_repair(job) or (job.name in ending and job.state in given_up))


def _said(outcome: Outcome) -> str:
    if isinstance(outcome, Ended):
        rows = "" if outcome.job.successful_count > 0 else " without rows"
        return f"ended as {outcome.job.state.removeprefix('JOB_STATE_')}{rows}"
    return type(outcome).__name__


class _InTurn:
    """A port of a worker that takes turns."""

    def __init__(self, port: Any, turn: Callable[[], None]) -> None:
        self._port, self._turn = port, turn

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._turn()
            return method(*args, **kwargs)

        return call


def play(workers: Sequence[Worker], turns: Iterable[int]) -> None:
    """Run workers at the same time.

    :param turns: who goes next whenever several could; one after the other when there are no more turns.
    """
    stage, batons = threading.Semaphore(0), {id(worker): threading.Semaphore(0) for worker in workers}

    def life(worker: Worker) -> None:
        batons[id(worker)].acquire()
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the test's thread
            worker.error = error
        finally:
            worker.hand_over = None
            stage.release()

    def hand_over(worker: Worker) -> None:
        stage.release()
        batons[id(worker)].acquire()

    alive, order = list(workers), chain(turns, cycle(range(len(workers))))
    threads = [threading.Thread(target=life, args=(worker,), daemon=True) for worker in workers]
    for worker, thread in zip(workers, threads, strict=True):
        worker.hand_over = lambda worker=worker: hand_over(worker)
        thread.start()
    while alive:
        now = workers[0].now()
        ready = [worker for worker in alive if worker.wakes_at <= now]
        if not ready:
            workers[0].night.pass_time(min((worker.wakes_at - now).total_seconds() for worker in alive))
            continue
        batons[id(ready[next(order) % len(ready)])].release()
        stage.acquire()
        alive = [worker for worker in alive if worker.hand_over is not None]
    for worker, thread in zip(workers, threads, strict=True):
        thread.join()
        if worker.error is not None:
            raise worker.error
