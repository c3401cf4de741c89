"""Which settings has a batch, and how far is it? The values that go into `core.batch.Batch`, and those
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
from airflow_vertex_batch.core.waiting.queue import Handled, QueuePolicy
from airflow_vertex_batch.core.waiting.watch import Outcome, Queued, conclude

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that the author of a DAG chose for a batch.

    :param check: returns why a JSON answer does not fit the response schema.
    :param budget: the most that the batch may cost; None for no limit.
    :param on_lost_output: what to do when an output has fewer rows than the service counted. Rows that are only not
        visible yet are not sent again.
    :param queue: when to warn about a queued job, and when to move it.
    :param elsewhere: places for the requests of a job that queues for too long, the best place first.
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
    """The values that one attempt of a task keeps from wait to wait.

    :param fresh: whether the attempt has just begun; False after a wait.
    :param owes_repair: whether this attempt must still send the rows that jobs of an earlier attempt did not answer.
    :param was_interrupted: whether the last wait ended because a job queues for too long.
    :param handled: the queued jobs that this attempt has already dealt with.
    """

    fresh: bool = True
    owes_repair: bool = False
    was_interrupted: bool = False
    handled: Handled = Handled()

    def after(self, outcomes: Sequence[Outcome], moves: bool = False) -> Attempt:  # noqa: FBT001, FBT002 - one of two
        """Take the outcomes of a wait, and return the values with which the batch goes on.

        A job that did not end, or ended without a row, is an error, with two exceptions. A repair job may end without a
        row: then the round cured nothing. A job that was given up, or was being cancelled when the attempt began, may
        end without a row too: its requests are bought again.

        :param moves: whether a job that queues for too long is bought elsewhere.
        :raises JobError: which says which job it was, and what happens to it.
        """
        if any(isinstance(outcome, Queued) for outcome in outcomes):
            # No error here: the other jobs still need this attempt.
            return msgspec.structs.replace(self, was_interrupted=True)
        given_up = {*self.handled.moved, *self.handled.ending}

        def tolerates_empty(job: BatchJob) -> bool:
            is_over = job.state in {JobState.CANCELLED, JobState.EXPIRED}
            return is_repair(job) or (job.name in given_up and is_over)

        conclude(outcomes, tolerates_empty, lands_part=not moves)
        return msgspec.structs.replace(self, was_interrupted=False)


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs must end before the batch goes on.

    :param round: 0 for the whole batch, n for repair round n.
    :param jobs: all jobs of that round, as they are now.
    :param manifest: the requests of these jobs.
    :param attempt: pass it on, with the outcomes, when the wait is over.
    :param limits: by job name, the seconds from its creation after which the job needs attention if it still queues.
    :param overdue: jobs that queue for so long that a warning is due.
    """

    round: int
    jobs: tuple[BatchJob, ...]
    manifest: Manifest
    attempt: Attempt = Attempt(fresh=False)
    limits: dict[str, float] = {}
    overdue: tuple[BatchJob, ...] = ()

    @property
    def job_names(self) -> tuple[str, ...]:
        """The names of the jobs."""
        return tuple(job.name for job in self.jobs)


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A person must say whether money may be spent.

    :param round: 0 for the whole batch, n for repair round n.
    :param attempt: pass it on with the answer.
    """

    question: Question
    round: int
    attempt: Attempt


class Skip(msgspec.Struct, frozen=True):
    """The author of the DAG wants the task to be skipped."""

    why: str


class Done(msgspec.Struct, frozen=True):
    """No row is sent again: land these rounds."""

    rounds: tuple[Round, ...]


Progress = Wait | Ask | Skip | Done
