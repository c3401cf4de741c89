"""Which jobs does an attempt answer for, and what becomes of them when Airflow cuts it off?

Invariants: a job is known from the moment in which the service has named it, whatever this attempt does then; when
Airflow ends the attempt, each known job that may run on is cancelled or named at ERROR, once; only the attempt that
owns the jobs cancels them.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.domain.errors import AmbiguousError, OutOfTimeError, ServiceError
from airflow_vertex_batch.edge.base import VertexBatchBaseOperator
from airflow_vertex_batch.edge.compat import still_owns, token_of, was_ended_by_a_person

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow.sdk import Context

    from airflow_vertex_batch.core.domain.address import JobName
    from airflow_vertex_batch.core.domain.job import BatchJob, JobSpec
    from airflow_vertex_batch.core.domain.ports import JobService
    from airflow_vertex_batch.hooks import VertexBatchHook

#: What happened to a task, in the words of the log, when its time was over in a worker.
_OVER = "execution_timeout is over"
#: Seconds for cancelling in a worker whose `execution_timeout` is over: Airflow leaves it the time it takes.
_OUT_OF_TIME_SECONDS = 30.0


class KnownJobs:
    """The jobs that an attempt has bought or waits for, each as it was last seen."""

    def __init__(self) -> None:
        self._jobs: dict[str, BatchJob] = {}
        self._named: dict[str, JobName] = {}
        #: Display name of the job whose create call has no clear answer yet; empty when there is none.
        self.sending = ""

    def note(self, job: BatchJob) -> None:
        """Note a job as it is now. A create call that was under way has its answer."""
        self._jobs[job.name], self._named[job.name], self.sending = job, job.job_name, ""

    def expect(self, names: Iterable[JobName]) -> None:
        """Note jobs that nobody has seen yet."""
        self._named |= {str(name): name for name in names}

    def get(self, name: JobName) -> BatchJob | None:
        """Return a job as it was last seen; None where nobody has."""
        return self._jobs.get(str(name))

    def running(self) -> list[JobName]:
        """Return the names of the jobs that are not known to have ended."""
        return [
            name for text, name in self._named.items() if text not in self._jobs or not self._jobs[text].state.is_final
        ]


class Noting:
    """A job service that notes the job which a call creates, before anything else can happen."""

    def __init__(self, service: JobService, known: KnownJobs) -> None:
        self._service, self._known = service, known

    def create(self, spec: JobSpec) -> BatchJob:
        """Create a job, sending once."""
        self._known.sending = spec.display_name
        try:
            job = self._service.create(spec)
        except ServiceError as error:
            if not isinstance(error, AmbiguousError):
                self._known.sending = ""
            raise
        self._known.note(job)
        return job

    def get(self, name: JobName) -> BatchJob:
        """Return one job as it is now."""
        return self._service.get(name)

    def list(self, labels: Mapping[str, str]) -> Iterator[BatchJob]:
        """Yield the jobs that carry all `labels`."""
        return self._service.list(labels)

    def cancel(self, name: JobName) -> bool:
        """Ask for a job to be cancelled."""
        return self._service.cancel(name)


class AnsweringOperator(VertexBatchBaseOperator):
    """Base of what answers for jobs: of what buys them, and of what waits for them."""

    #: What becomes of a job that runs when Airflow ends the attempt: see `WaitingOperator`, which takes both.
    on_timeout = "fail"
    cancel_on_kill = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.known = KnownJobs()
        #: Whose credentials are good already, while this attempt answers for jobs: a kill has no time for others.
        self._answers_with: VertexBatchHook | None = None

    @contextlib.contextmanager
    def answering(self, context: Context, hook: VertexBatchHook, names: Iterable[JobName] = ()) -> Iterator[None]:
        """Answer for jobs in this worker: a kill ends them, and when the attempt's time is over `on_timeout` decides,
        be it that Airflow's own alarm goes off in the middle of a call, or that nothing more may be bought.

        :param names: jobs that are known before they are seen.
        """
        from airflow.providers.common.compat.sdk import AirflowTaskTimeout

        self.known.expect(names)
        self._answers_with = hook
        try:
            yield
        except (AirflowTaskTimeout, OutOfTimeError):
            self.out_of_time(context["ti"], hook, _OVER)
            raise
        finally:
            # What comes after must not cancel anything: Airflow also kills a task that is slow to go.
            self._answers_with = None

    def out_of_time(self, ti: Any, hook: VertexBatchHook, event: str) -> None:
        """Let `on_timeout` decide about jobs whose attempt Airflow ends in this moment, and name those that run on."""
        from airflow_vertex_batch.edge.cancelling import end_jobs_here

        if self.on_timeout != "cancel":
            self.tell_of_running(event)
        elif running := self.known.running():
            end_jobs_here(
                running,
                lambda: still_owns(ti, token_of(ti)),
                hook.jobs,
                self.log,
                event=event,
                seconds=_OUT_OF_TIME_SECONDS,
            )
        self.tell_of_sending(event)

    def tell_of_running(self, event: str) -> None:
        """Name the jobs that may run on."""
        from airflow_vertex_batch.edge.cancelling import left_text

        if running := self.known.running():
            self.log.error("%s", left_text(dict.fromkeys(running, self.left_because), event))

    def tell_of_sending(self, event: str) -> None:
        """Say that a job may come that nobody knows by name."""
        if self.known.sending:
            self.log.error(
                "%s, and the call that creates %r has no answer yet: its job may run, and bill. The next attempt "
                "of this task finds it by its labels; after the last one, airflow-vertex-batch sweep does.",
                event,
                self.known.sending,
            )

    @property
    def left_because(self) -> str:
        """Why a job is left running."""
        return "the next attempt of this task attaches to it"

    def on_kill(self) -> None:
        """Cancel the jobs if a person ended the task while a worker answered for them, and they are still its own."""
        from airflow.sdk import get_current_context

        from airflow_vertex_batch.edge.cancelling import ENDED, end_jobs_here

        def may() -> bool:
            ti = get_current_context()["ti"]
            return was_ended_by_a_person(ti) and still_owns(ti, token_of(ti))

        if self._answers_with is None:
            return
        if self.cancel_on_kill and (running := self.known.running()):
            end_jobs_here(running, may, self._answers_with.jobs, self.log)
        self.tell_of_sending(ENDED)
