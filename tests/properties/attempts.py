"""How does one attempt of a task go, and how do two at a time? Workers that die, stall and sleep by the night's clock.

An attempt makes all its objects anew and goes through the same core as the operators: prepare, buy, wait, repair, land.
Two at a time take turns at every call of a port, in an order that is given; only when both sleep, time passes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain, count, cycle
from typing import TYPE_CHECKING, Any

import greenlet

from airflow_vertex_batch.core.answers.repair import RepairPolicy
from airflow_vertex_batch.core.answers.rounds import Round, read_jobs, read_round
from airflow_vertex_batch.core.batch import Batch
from airflow_vertex_batch.core.domain.address import JobName, Uri
from airflow_vertex_batch.core.domain.errors import InputError, VertexBatchError
from airflow_vertex_batch.core.domain.manifest import Manifest
from airflow_vertex_batch.core.landing.destination import Files
from airflow_vertex_batch.core.landing.landing import Landing, refuse_bad_end
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.progress import Attempt, Done, Policy, Wait
from airflow_vertex_batch.core.purchase.buyer import Buyer
from airflow_vertex_batch.core.purchase.decide import OnClear, Terms
from airflow_vertex_batch.core.purchase.fold import Start
from airflow_vertex_batch.core.purchase.log import BatchLog
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.requests.request import RequestTemplate
from airflow_vertex_batch.core.requests.sources import Rows
from airflow_vertex_batch.core.waiting.drive import drive
from airflow_vertex_batch.core.waiting.watch import (
    CANCELLING_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    Ended,
    OnTimeout,
    Outcome,
    WaitPolicy,
    conclude,
    watch,
)
from tests.builders import a_spec, an_identity
from tests.fakes import Died, EffectLimit, MemoryWarehouse
from tests.properties.nights import LANDED, Night

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow_vertex_batch.core.answers.report import Report

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
        self.effect_limit, self.calls, self.naps, self.waits = EffectLimit(self.end.effects), 0, 0, 0
        self.client: Any = night.client(self.turn, self.sleep)
        self.store = self.effect_limit.store(_InTurn(night.store, self.turn))
        self.service = self.effect_limit.service(self.client)
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

    def batch(self, task: str, folder: Uri, *, alone: bool = False, **parts: Any) -> Batch:
        """Make the batch of one task."""
        night, store = self.night, self.store
        generation = str(night.upstream if task == "create" else night.generation)
        who = an_identity(task_id=task, staging="gs://b/run")
        buyer = Buyer(
            base=a_spec(output=str(folder / "output")),
            log=BatchLog(store, who, f"{self.number}:{next(self.tokens)}"),
            store=store,
            service=self.service,
            terms=Terms(
                settle_seconds=night.settle_seconds,
                on_changed_input=night.conditions.on_changed_input,
                generation=generation,
                renew=night.conditions.on_clear is OnClear.NEW,
            ),
            sleep=self.sleep,
        )
        start = Start(
            generation=generation,
            upstream=str(night.upstream) if alone else "",
            rounds=0 if task == "create" else night.conditions.rounds,
            on_clear=night.conditions.on_clear,
            alone=alone,
        )
        policy = Policy(repair=RepairPolicy(resume=night.conditions.resume, reread_rows=0))
        return Batch(
            buyer=buyer, warehouse=MemoryWarehouse(), folder=folder, policy=policy, start=start, clock=self.seconds,
            **parts,
        )  # fmt: skip

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
        flows = [watch(name, policy, self.seconds, jitter=lambda: 0.5) for name in self.waits_for]
        outcomes = drive(*((flow, self.service) for flow in flows), sleep=self.sleep, clock=self.seconds)
        self.night.seen.update(f"wait {_said(outcome)}" for outcome in outcomes)
        self.waits_for = ()
        return outcomes

    def land(self, rounds: Sequence[Round]) -> Report:
        landing = Landing(rounds, self.store, MemoryWarehouse(), PLAN)
        report = landing.land(Files(LANDED))
        base = rounds[0].manifest
        assert base is not None
        if report.request_count != base.row_count or sum(report.statuses.values()) != base.row_count:
            self.night.wrong.append(f"counts do not add up: {report.as_dict()}")
        self.night.seen["repair rounds landed"] += len(rounds) - 1
        self.night.seen.update({f"row {status}": count for status, count in report.statuses.items() if count})
        return report


def whole(worker: Worker) -> None:
    """Do all in one task, as `VertexBatchOperator` does."""
    folder = Uri.parse("gs://b/run/whole")

    def prepare_() -> Manifest:
        worker.base = worker.prepare(folder)
        return worker.base

    rounds = _to_the_end(worker, lambda: worker.batch("whole", folder, prepare=prepare_), Attempt(owes_repair=True))
    worker.base = rounds[0].manifest
    refuse_bad_end(rounds, worker.land(rounds))


def steps(worker: Worker) -> None:
    """Go on with the first task that is not done, as a retry does."""
    done, folder = worker.night.passed_on, Uri.parse("gs://b/run/steps")
    if "manifest" not in done:
        done["manifest"] = worker.prepare(folder / "prepare").as_dict()
    manifest = worker.base = Manifest.from_dict(done["manifest"])
    if "created" not in done:
        bought = worker.batch("create", folder / "create", base=manifest, only_buys=True).advance()
        assert isinstance(bought, Done)
        done["created"] = [job.name for job in bought.rounds[0].jobs]
    if "jobs" not in done:
        done["jobs"] = [job.as_dict() for job in conclude(worker.wait(done["created"]))]
    if "rounds" not in done:
        jobs = read_jobs(done["jobs"], worker.service.get)

        def repair() -> Batch:
            return worker.batch("repair", folder / "repair", alone=True, base=manifest, jobs=jobs)

        done["rounds"] = [asked.as_dict() for asked in _to_the_end(worker, repair, Attempt(owes_repair=True))]
    worker.land([read_round(asked, worker.service.get) for asked in done["rounds"]])


def _to_the_end(worker: Worker, batch: Callable[[], Batch], attempt: Attempt) -> tuple[Round, ...]:
    """Wait, and make the batch anew after each wait, as a worker that comes back does."""
    while not isinstance(step := batch().advance(attempt), Done):
        assert isinstance(step, Wait)
        attempt = step.attempt.after(worker.wait(step.job_names))
    return step.rounds


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
    stage = greenlet.getcurrent()

    def life(worker: Worker) -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001 - raised again below
            worker.error = error
        finally:
            worker.hand_over = None

    alive, order = list(workers), chain(turns, cycle(range(len(workers))))
    # No threads: they would hand over by locks, which take four hundred times as long on a moved clock.
    greenlets = {id(worker): greenlet.greenlet(life) for worker in workers}
    for worker in workers:
        worker.hand_over = stage.switch
    while alive:
        now = workers[0].now()
        ready = [worker for worker in alive if worker.wakes_at <= now]
        if not ready:
            workers[0].night.pass_time(min((worker.wakes_at - now).total_seconds() for worker in alive))
            continue
        chosen = ready[next(order) % len(ready)]
        greenlets[id(chosen)].switch(*(() if greenlets[id(chosen)] else (chosen,)))
        alive = [worker for worker in alive if worker.hand_over is not None]
    for worker in workers:
        if worker.error is not None:
            raise worker.error
