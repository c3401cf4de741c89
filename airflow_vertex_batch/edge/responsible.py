"""Which jobs is an attempt responsible for, and what happens to them when Airflow ends the attempt?

Invariants: a job is known as soon as the service has named it. When Airflow ends the attempt, each known job that may
still run is cancelled or named at ERROR, once. Only the attempt that owns the jobs cancels them.
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

#: What the log says when the time of a task was over in a worker.
_OVER = "execution_timeout is over"
#: Seconds for cancelling in a worker whose `execution_timeout` is over. Airflow itself sets no limit here.
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
        """Note the names of jobs that nobody has seen yet."""
        self._named |= {str(name): name for name in names}

    def get(self, name: JobName) -> BatchJob | None:
        """Return a job as it was last seen; None if nobody has seen it."""
        return self._jobs.get(str(name))

    def running(self) -> list[JobName]:
        """Return the names of the jobs that are not known to have ended."""
        return [
            name for text, name in self._named.items() if text not in self._jobs or not self._jobs[text].state.is_final
        ]


class RecordingJobService:
    """A job service that notes each job as soon as a call has created it."""

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


class ResponsibleOperator(VertexBatchBaseOperator):
    """Base of operators that are responsible for jobs: those that buy jobs, and those that wait for jobs."""

    #: What happens to a running job when Airflow ends the attempt. `WaitingOperator` takes both as parameters.
    on_timeout = "fail"
    cancel_on_kill = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.known = KnownJobs()
        #: The hook whose credentials are ready, while this attempt is responsible for jobs. A kill leaves no time to
        #: get new ones.
        self._responsible_hook: VertexBatchHook | None = None

    @contextlib.contextmanager
    def responsible_for_jobs(
        self, context: Context, hook: VertexBatchHook, names: Iterable[JobName] = ()
    ) -> Iterator[None]:
        """Be responsible for jobs in this worker. If a person kills the task, its jobs are cancelled. If the time of
        the attempt is over, `on_timeout` decides about them. The time is over when Airflow's alarm interrupts a call,
        or when nothing more may be bought.

        :param names: jobs whose names are known before they are seen.
        """
        from airflow.providers.common.compat.sdk import AirflowTaskTimeout

        self.known.expect(names)
        self._responsible_hook = hook
        try:
            yield
        except (AirflowTaskTimeout, OutOfTimeError):
            self.out_of_time(context["ti"], hook, _OVER)
            raise
        finally:
            # After this block nothing must be cancelled: Airflow also kills a task that is slow to end.
            self._responsible_hook = None

    def out_of_time(self, ti: Any, hook: VertexBatchHook, event: str) -> None:
        """Let `on_timeout` decide about the jobs when Airflow ends this attempt, and name the jobs that still run."""
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
        """Name the jobs that may still run."""
        from airflow_vertex_batch.edge.cancelling import left_text

        if running := self.known.running():
            self.log.error("%s", left_text(dict.fromkeys(running, self.left_because), event))

    def tell_of_sending(self, event: str) -> None:
        """Log that a create call has no answer, so a job may appear whose name is not known."""
        if self.known.sending:
            self.log.error(
                "%s, and the call that creates %r has no answer yet: its job may run, and bill. The next attempt "
                "of this task finds it by its labels; after the last one, airflow-vertex-batch sweep does.",
                event,
                self.known.sending,
            )

    @property
    def left_because(self) -> str:
        """Return why a job is left running."""
        return "the next attempt of this task attaches to it"

    def on_kill(self) -> None:
        """Cancel the jobs if a person ended the task in this worker, and this attempt still owns the jobs."""
        from airflow.sdk import get_current_context

        from airflow_vertex_batch.edge.cancelling import ENDED, end_jobs_here

        def may() -> bool:
            ti = get_current_context()["ti"]
            return was_ended_by_a_person(ti) and still_owns(ti, token_of(ti))

        if self._responsible_hook is None:
            return
        if self.cancel_on_kill and (running := self.known.running()):
            end_jobs_here(running, may, self._responsible_hook.jobs, self.log)
        self.tell_of_sending(ENDED)
