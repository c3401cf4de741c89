"""How does a task wait for jobs that another task created? `VertexBatchJobSensor` asks once, then defers, blocks or
reschedules. It can also begin in the triggerer. `core.waiting.watch` makes the decisions.
"""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout
from airflow.sdk.bases.sensor import BaseSensorOperator, PokeReturnValue

from airflow_vertex_batch.core.domain.durations import seconds
from airflow_vertex_batch.core.domain.errors import InputError, JobError
from airflow_vertex_batch.edge.base import fail_or_retry, generation_of
from airflow_vertex_batch.edge.compat import (
    can_start_from_trigger,
    first_poke,
    is_out_of_time,
    skip_exception,
    take_ownership,
    token_of,
)
from airflow_vertex_batch.edge.waiting import CancelIfOwner, WaitingOperator
from airflow_vertex_batch.links import VertexBatchJobLink, addresses
from airflow_vertex_batch.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Unpack

    from airflow.sdk import BaseOperator, Context
    from airflow.triggers.base import StartTriggerArgs

    from airflow_vertex_batch.core.domain.address import JobName
    from airflow_vertex_batch.core.domain.job import BatchJob
    from airflow_vertex_batch.core.purchase.log import JobLog
    from airflow_vertex_batch.core.purchase.place import Place
    from airflow_vertex_batch.core.waiting.queue import Handled
    from airflow_vertex_batch.core.waiting.watch import Limit, Outcome, Warn
    from airflow_vertex_batch.hooks import VertexBatchHook
    from airflow_vertex_batch.parameters import WaitSharedParameters

#: Switches off what Airflow's `BaseSensorOperator` would do by itself: see `VertexBatchJobSensor.refused`.
_NEUTRAL = {"exponential_backoff": False, "max_wait": None, "silent_fail": False, "never_fail": False}
#: XCom key of the generation (see `base.generation_of`) in which the sensor ran.
GENERATION_KEY = "vertex_batch_generation"
#: Seconds between two questions with ``mode="reschedule"``. It is a fixed number, because Airflow plans the questions.
_POKE_INTERVAL = 60.0


class VertexBatchJobSensor(WaitingOperator, BaseSensorOperator):
    """Wait until batch prediction jobs have ended, and return them as small dicts.

    If all jobs have ended already, the task does not defer. After a transient error it asks again, until the deadline.
    A job that failed without a row fails this task for good. A job that was cancelled or expired after it answered rows
    does not fail this task: the export lands these rows first, and then says how the job ended. With
    ``deferrable=False``, `mode` says how the worker waits: ``poke`` blocks, ``reschedule`` gives the slot back between
    two questions, a minute apart unless `poll_interval` says otherwise.

    With ``start_from_trigger=True`` the scheduler gives the task directly to the triggerer. A worker is needed only at
    the end. `jobs` is then the output of a task that is not mapped, or names, or a template of names. Airflow 3.3 still
    begins a mapped sensor on a worker, and Airflow below 3.3 begins every sensor there: it asks once, and defers.

    Airflow's `timeout` of sensors limits the wait too; it is 30 days if not given. It counts from the start of this
    attempt, or with ``mode="reschedule"`` from the first question. When it is over, `on_timeout` says what happens to
    the jobs, and Airflow does not retry. With ``mode="reschedule"``, `execution_timeout` limits only each question, as
    with all sensors.

    :param jobs: job names: what the create task returned. Templated.
    :param start_from_trigger: begin in the triggerer, without a worker. Use it if the jobs have seldom ended when the
        task begins.
    :returns: the jobs, to be passed to the export task.
    """

    templated: ClassVar[tuple[str, ...]] = ("jobs",)
    refused: ClassVar[Mapping[str, str]] = {
        "poke_interval": "Write poll_interval=…",
        "exponential_backoff": "Leave it out: poll_interval follows the job where it is not given",
        "max_wait": "Leave it out: there are never more than 5 minutes between two questions, or set poll_interval",
        "silent_fail": "Leave it out: what passes is waited out until the deadline, and what does not fails the task",
        "never_fail": "Write soft_fail=True: the task is skipped where no retry could help",
    }
    operator_extra_links = (VertexBatchJobLink(),)

    def __init__(self, *, jobs: Any, start_from_trigger: bool = False, **kwargs: Unpack[WaitSharedParameters]) -> None:
        # Airflow's sensor timeout counts from the first try. Our timeout counts from the job's creation, so Airflow's
        # must be longer.
        given: dict[str, Any] = {"timeout": 30 * 24 * 3600, **kwargs, **_NEUTRAL}
        given["poke_interval"] = seconds(given.get("poll_interval") or _POKE_INTERVAL, "poll_interval")
        if given.get("mode") == "reschedule":
            if given.setdefault("deferrable", False):
                raise InputError(
                    "mode='reschedule' with deferrable=True",
                    why="In the triggerer nothing is rescheduled",
                    todo="Leave out mode, which holds no worker slot either, or set deferrable=False",
                )
        elif start_from_trigger:
            given.setdefault("deferrable", True)
        super().__init__(**given)
        self.note_origins(jobs=jobs)
        self.jobs = jobs
        if start_from_trigger:
            if not self.deferrable:
                raise InputError("start_from_trigger=True waits in the triggerer", todo="Leave out deferrable=False")
            arguments = self.trigger_arguments(as_template(jobs, self), self._first_limit())
            if can_start_from_trigger():
                self.start_from_trigger = True
                self.start_trigger_args = start_args(arguments, self._own_timeout())

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Ask once; wait if necessary; return the jobs."""
        with self._skip_if_soft_fail(), fail_or_retry():
            names = self._names()
            self._announce(context, [str(name) for name in names])
            return self._go_on(context, names)

    def _go_on(self, context: Context, names: list[JobName], handled: Handled | None = None) -> list[dict[str, Any]]:
        """Ask once, and wait until every job has ended.

        :param handled: the queued jobs that this attempt has already dealt with.
        """
        from airflow_vertex_batch.core.waiting.queue import Handled

        handled = handled or Handled()
        with self.responsible_for_jobs(context, self.hook(), names):
            return self._wait_for_all(context, names, handled)

    def _wait_for_all(self, context: Context, names: list[JobName], handled: Handled) -> list[dict[str, Any]]:
        from airflow_vertex_batch.core.waiting.watch import Queued

        while True:
            outcomes = self.ended(context, names)
            if len(outcomes) == len(names):
                return self._concluded(context, outcomes)
            if self.mode == "reschedule" and not self.deferrable:
                return self._reschedule(context)
            jobs = self._as_seen(names)
            handled = self._handle_queued(context, jobs, handled)
            limits = self.queue_policy().limits(jobs, handled)
            outcomes = self.wait(context, jobs, limits, handled=handled.as_dict())
            if not any(isinstance(outcome, Queued) for outcome in outcomes):
                return self._concluded(context, outcomes)

    def _reschedule(self, context: Context) -> list[dict[str, Any]]:
        """Give the worker slot back until the next question."""
        try:
            return super().execute(context)  # type: ignore[no-any-return]
        except AirflowSensorTimeout:
            # Airflow reads the clock a moment after `poke`, so its timeout can be over although ours was not.
            self.out_of_time(context["ti"], self.hook(), "The sensor's timeout is over")
            raise

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral. If the wait began in the triggerer, Airflow itself may have ended it: then call
        `execute_late`.
        """
        if is_out_of_time(next_method, next_kwargs):
            next_method, next_kwargs = "execute_late", {}
        return super().resume_execution(next_method, next_kwargs, context)

    def execute_late(self, context: Context) -> list[dict[str, Any]]:
        """Decide about the jobs if the time was over before a worker saw them; return them if they ended.

        Airflow does not say which limit was reached. It is the limit that comes first.
        """
        from airflow_vertex_batch.core.waiting.drive import drive
        from airflow_vertex_batch.core.waiting.watch import Limit, watch

        with fail_or_retry():
            hook, names, ti = self.hook(), self._names(), context["ti"]
            take_ownership(ti)
            self._announce(context, [str(name) for name in names])
            policy = msgspec.structs.replace(self._policy(context), limit=Limit(0.0, self.limit(context).name))
            flows = [(watch(name, policy), CancelIfOwner(hook.jobs(name), ti)) for name in names]
            with self.responsible_for_jobs(context, hook, names):
                return self._concluded(context, drive(*flows, on_answer=self._seen))

    def limit(self, context: Context) -> Limit:
        """Return when this attempt must stop waiting: Airflow's `timeout` of sensors counts too."""
        from airflow_vertex_batch.core.waiting.watch import Limit, LimitName

        began = first_poke(context) if self.mode == "reschedule" and not self.deferrable else None
        if began is None:
            began = self.began(context)
        mine, other = Limit(began + self.timeout, LimitName.SENSOR_TIMEOUT), super().limit(context)
        return mine if other is None or mine.at <= other.at else other

    def execute_complete(
        self, context: Context, event: dict[str, Any], handled: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return the jobs that the trigger saw ending. If a job queues for too long, deal with it and wait again."""
        from airflow_vertex_batch.core.waiting.queue import Handled
        from airflow_vertex_batch.core.waiting.watch import Queued, unpack

        with fail_or_retry():
            if error := event.get("error"):
                # `_names` raises a better error for the same jobs: it names the task that returned them.
                self._names()
                raise InputError(error)
            outcomes = unpack(event["outcomes"])
            is_long = any(isinstance(outcome, Queued) for outcome in outcomes)
            names = self._names() if is_long else []
            if self.start_from_trigger:
                self._announce(context, [str(name) for name in names] or [outcome.name for outcome in outcomes])
            return (
                self._go_on(context, names, Handled.from_dict(handled or {}))
                if is_long
                else self._concluded(context, outcomes)
            )

    def poke(self, context: Context) -> PokeReturnValue:
        """Ask once, for ``mode="reschedule"``. The wait ends when every job has ended or a deadline is over."""
        from airflow_vertex_batch.core.waiting.queue import Handled

        with fail_or_retry():
            names, began = self._names(), first_poke(context)

            def warn(warning: Warn) -> None:
                # Nothing is kept between two pokes. An older warning was logged by an earlier poke, when it was new.
                if began is None or warning.ago < 2 * self.poke_interval:
                    self.log.warning("%s", warning.text)

            outcomes = self.ended(context, names, began=began, warn=warn)
            done = len(outcomes) == len(names)
            if not done:
                only_new = None if began is None else 2 * self.poke_interval
                self._handle_queued(context, self._as_seen(names), Handled(), only_new=only_new)
            return PokeReturnValue(done, self._concluded(context, outcomes) if done else None)

    @contextlib.contextmanager
    def _skip_if_soft_fail(self) -> Iterator[None]:
        """Skip the task instead of failing it for good, if `soft_fail` is set.

        Airflow itself does this only for errors that end a deferral or a poke.
        """
        try:
            yield
        except AirflowFailException as error:
            if self.soft_fail or self.never_fail:
                raise skip_exception(str(error)) from None
            raise

    def _announce(self, context: Context, names: list[str]) -> None:
        self.push_links(context, addresses(jobs=names))
        context["ti"].xcom_push(GENERATION_KEY, generation_of(context))

    def _names(self) -> list[JobName]:
        from airflow_vertex_batch.core.domain.address import job_names

        return job_names(self.given("jobs"))

    def _as_seen(self, names: list[JobName]) -> list[BatchJob]:
        """Return the jobs as they were last seen. A job that nobody has seen yet has only its name."""
        from airflow_vertex_batch.core.domain.job import BatchJob, JobState

        unseen = JobState.UNSPECIFIED
        return [self.known.get(name) or BatchJob(name=str(name), state=unseen) for name in names]

    def _concluded(self, context: Context, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
        from airflow_vertex_batch.core.waiting.watch import TimedOut, conclude

        try:
            # If jobs may move, a job that a person cancelled must not be taken for a job that was given up.
            jobs = conclude(
                outcomes, tolerates_empty=lambda job: self._was_given_up(job, context), lands_part=not self.moves
            )
            return [job.as_dict() for job in jobs]
        except JobError as error:
            # Airflow's `soft_fail` covers only Airflow's own errors. It does not know that this error means "too late".
            if (self.soft_fail or self.never_fail) and any(isinstance(outcome, TimedOut) for outcome in outcomes):
                raise skip_exception(str(error.put_advice_on_own_line())) from None
            raise

    def _own_timeout(self) -> timedelta | None:
        """Return after what time Airflow must end a wait in the triggerer; None if the trigger itself ends the wait
        earlier.
        """
        from airflow_vertex_batch.core.waiting.watch import CANCELLING_SECONDS, DEFAULT_TIMEOUT_SECONDS

        at_most = max(self.job_timeout, DEFAULT_TIMEOUT_SECONDS) + CANCELLING_SECONDS
        return timedelta(seconds=self.timeout) if self.timeout < at_most else None

    def _first_limit(self) -> float | None:
        """Return after how many seconds a queued job may need a warning or a move for the first time."""
        limits = [limit for limit in (self.queue_warning, self.queue_timeout) if limit is not None]
        return min(limits, default=None)

    def _handle_queued(
        self, context: Context, jobs: list[BatchJob], handled: Handled, *, only_new: float | None = None
    ) -> Handled:
        """Warn about jobs that have queued for long, and give up those that have queued for too long: the repair task
        buys them elsewhere.

        :param only_new: log only warnings that are newer than this number of seconds.
        """
        from airflow_vertex_batch.core.waiting.queue import handle_queued

        move = (lambda job: self._give_up(job, context)) if self.moves else None
        handled, overdue = handle_queued(self.queue_policy(), jobs, handled, move, time.time(), only_new=only_new)
        self.show_overdue(context, overdue)
        return handled

    def _give_up(self, job: BatchJob, context: Context) -> Place | None:
        """Give up a job that queues for too long, so that the repair task buys its requests elsewhere; None if this
        package did not buy the job.
        """
        from airflow_vertex_batch.core.purchase.decide import Terms
        from airflow_vertex_batch.core.purchase.move import move
        from airflow_vertex_batch.core.purchase.ownership import FINGERPRINT_LABEL, GENERATION_LABEL
        from airflow_vertex_batch.core.purchase.place import Place

        hook, terms = self.hook(), Terms(generation=job.labels.get(GENERATION_LABEL, ""))
        log = self._log_of(job, hook, context)
        if log is None or FINGERPRINT_LABEL not in job.labels:
            return None
        place = move(job, log, job.labels[FINGERPRINT_LABEL], [Place()], terms)
        if place is None:
            return None
        hook.jobs(job.job_name).cancel(job.job_name)
        return place

    def _was_given_up(self, job: BatchJob, context: Context) -> bool:
        """Whether an attempt of this task has given up this ended job, so that the repair task buys its requests."""
        from airflow_vertex_batch.core.domain.job import Phase
        from airflow_vertex_batch.core.purchase.entries import Moved

        if not self.moves or job.state.phase not in {Phase.CANCELLED, Phase.EXPIRED}:
            return False
        log = self._log_of(job, self.hook(), context)
        entries = log.entries() if log is not None else ()
        return any(isinstance(entry, Moved) and entry.job_name == job.name for entry in entries)

    def _log_of(self, job: BatchJob, hook: VertexBatchHook, context: Context) -> JobLog | None:
        """Return the log entries of the task that bought a job; None if this staging folder does not know the job."""
        from airflow_vertex_batch.core.purchase.log import BatchLog
        from airflow_vertex_batch.core.purchase.ownership import IDENTITY_LABEL, part_of

        key, installation = job.labels.get(IDENTITY_LABEL, ""), Settings.read().installation
        if not key:
            return None
        attempt = token_of(context["ti"])
        log = BatchLog.of_label(hook.store(), self.staging(), key, attempt, installation=installation)
        return None if log is None else log.of_job(part_of(job))


def start_args(trigger_kwargs: dict[str, Any], timeout: timedelta | None) -> StartTriggerArgs:
    """Return the arguments with which the scheduler makes the trigger.

    :param timeout: the time after which Airflow ends the wait, None for never. Airflow also ends it after
        `execution_timeout`, if that is earlier.
    """
    from airflow.triggers.base import StartTriggerArgs

    return StartTriggerArgs(
        trigger_cls="airflow_vertex_batch.triggers.VertexBatchJobTrigger",
        trigger_kwargs=trigger_kwargs,
        next_method="execute_complete",
        timeout=timeout,
    )


def as_template(jobs: Any, waiter: BaseOperator) -> Any:
    """Return `jobs` in a form that the triggerer can render: it resolves templates, but not the output of a task.

    :raises InputError: when there is no such form.
    """
    from airflow.sdk.definitions.mappedoperator import MappedOperator
    from airflow.sdk.definitions.xcom_arg import PlainXComArg, XComArg

    if isinstance(jobs, PlainXComArg) and not isinstance(jobs.operator, MappedOperator):
        group = jobs.operator.get_closest_mapped_task_group()
        if group is None or group is waiter.get_closest_mapped_task_group():
            # With a map index the XCom is one value. A triggerer cannot ask for more than one (Airflow 3.3.2).
            index = "-1" if group is None else "ti.map_index"
            return f"{{{{ ti.xcom_pull({jobs.operator.task_id!r}, key={jobs.key!r}, map_indexes={index}) }}}}"
    if next(XComArg.iter_xcom_references(jobs), None):
        raise InputError(
            "start_from_trigger=True cannot resolve these jobs",
            why="The triggerer renders templates and reads the output of one task that is not mapped, as it is",
            todo="Pass create.output itself, or leave out start_from_trigger",
        )
    return jobs
