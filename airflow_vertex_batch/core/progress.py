"""What does the author of a DAG want of a batch, and where is it? The values that go into `core.batch.Batch`, and those
that come out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.answers.collect import OnLostOutput
from airflow_vertex_batch.core.answers.repair import RepairPolicy
from airflow_vertex_batch.core.answers.rounds import Round
from airflow_vertex_batch.core.domain.job import BatchJob, JobState
from airflow_vertex_batch.core.domain.manifest import Manifest
from airflow_vertex_batch.core.domain.record import Record
from airflow_vertex_batch.core.landing.on_empty import OnEmpty
from airflow_vertex_batch.core.money.estimate import Budget
from airflow_vertex_batch.core.money.prices import PriceTable
from airflow_vertex_batch.core.purchase.approval import Question
from airflow_vertex_batch.core.purchase.buyer import is_repair
from airflow_vertex_batch.core.purchase.place import Place
from airflow_vertex_batch.core.waiting.queue import QueuePolicy, Told
from airflow_vertex_batch.core.waiting.watch import Outcome, Queued, conclude

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the author of a DAG wants of a batch.

    :param check: says why a JSON answer does not fit the response schema.
    :param budget: the most it may cost; None for no limit.
    :param on_lost_output: what to do when an output does not hold what the service counted: rows that are only not
        visible yet are not sent again.
    :param queue: when a job that queues needs somebody.
    :param elsewhere: where requests may go whose job queues for too long, the best place first.
    """

    repair: RepairPolicy = RepairPolicy()
    check: Callable[[Any], str] | None = None
    budget: Budget | None = None
    prices: PriceTable | None = None
    on_empty: OnEmpty = OnEmpty.FAIL
    on_lost_output: OnLostOutput = OnLostOutput.FAIL
    queue: QueuePolicy = QueuePolicy()
    elsewhere: tuple[Place, ...] = ()


class Attempt(Record, frozen=True, kw_only=True):
    """What one attempt of a task keeps over its waits.

    :param fresh: whether it has just begun, as against the end of a wait.
    :param complete: whether it has yet to send what jobs that an earlier attempt left behind did not answer.
    :param was_interrupted: whether the last wait ended because a job queues for too long.
    :param told: what was seen to in it.
    """

    fresh: bool = True
    complete: bool = False
    was_interrupted: bool = False
    told: Told = Told()

    def after(self, outcomes: Sequence[Outcome], moves: bool = False) -> Attempt:  # noqa: FBT001, FBT002 - one of two
        """Take the end of a wait in: return with what the batch goes on.

        Jobs that did not end, or ended without a row, are an error. A repair job that did has only cured nothing. One
        that was given up, or was being cancelled when the attempt began, is bought again instead.

        :param moves: whether a job that queues for too long is bought elsewhere.
        :raises JobError: saying which job, and what becomes of it.
        """
        if any(isinstance(outcome, Queued) for outcome in outcomes):
            # Nothing is refused: the other jobs must not be left alone.
            return msgspec.structs.replace(self, was_interrupted=True)
        given_up = {*self.told.moved, *self.told.ending}

        def bears(job: BatchJob) -> bool:
            is_over = job.state in {JobState.CANCELLED, JobState.EXPIRED}
            return is_repair(job) or (job.name in given_up and is_over)

        conclude(outcomes, bears, lands_part=not moves)
        return msgspec.structs.replace(self, was_interrupted=False)


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs must end before the batch goes on.

    :param round: 0 for the whole batch, n for repair round n.
    :param jobs: all jobs of that round, as they are now.
    :param manifest: what they were asked.
    :param attempt: to be passed on, with the outcomes, when the wait is over.
    :param limits: after how many seconds from its creation each job needs somebody while it queues, by its name.
    :param overdue: jobs that queue for so long that somebody should know.
    """

    round: int
    jobs: tuple[BatchJob, ...]
    manifest: Manifest
    attempt: Attempt = Attempt(fresh=False)
    limits: dict[str, float] = {}
    overdue: tuple[BatchJob, ...] = ()

    @property
    def job_names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(job.name for job in self.jobs)


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A person must say whether money may be spent.

    :param round: 0 for the whole batch, n for repair round n.
    :param attempt: to be passed on with the answer.
    """

    question: Question
    round: int
    attempt: Attempt


class Skip(msgspec.Struct, frozen=True):
    """The author of the DAG wants the task to be skipped."""

    why: str


class Done(msgspec.Struct, frozen=True):
    """Nothing goes again: these rounds are to be landed."""

    rounds: tuple[Round, ...]


Progress = Wait | Ask | Skip | Done
