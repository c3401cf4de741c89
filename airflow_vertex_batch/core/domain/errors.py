"""What can go wrong, sorted by what the reader should do about it.

::

    VertexBatchError            facts as attributes, the message is built from them
    ├── InputError              fix the DAG, the rows or the connection: nothing was paid, a retry cannot help
    ├── LogError             state exists but cannot be trusted: nothing was sent, a retry may help
    ├── ServiceError            Google said no: status, reason, retryable
    │   └── AmbiguousError      the request left, the answer never came: what it did is unknown
    ├── JobError                the job ended badly: carries the job's name and state
    ├── ResultError             output is not what it should be: uri, line
    │   └── LostOutputError     what the service counted is not there, or not yet: a retry looks again
    ├── SourceError             the rows could not be read to their end: a retry reads them anew
    ├── ChangedError            an object or table changed while it was read: a retry reads it anew
    ├── OutOfTimeError          the attempt's time is over: nothing more was sent, a retry has the whole time again
    ├── DiskError               no room on this worker, or no such folder: a retry may run where there is
    └── CannotAskError          the question cannot be put here: preflight says "unknown"

A message has four parts: what happened (with ids), why (in the service's words), what is left behind or was paid, and
what to do next. Where people see the message, the last part has a line of its own. A bad row is data, never an
exception. Prompts and answers never enter a message.
"""

from __future__ import annotations

from typing import ClassVar, Self

#: Begins the line of a message that says what the reader should do.
TO_DO = "To do: "


class VertexBatchError(Exception):
    """Base of every error this package raises.

    :param what: what happened, with the ids needed to find it.
    :param why: the cause, in the service's words where it gave any.
    :param left: what is left behind, or was paid.
    :param todo: what the reader should do next.
    """

    #: Whether the same call may succeed later without anybody changing anything.
    retryable: bool = False

    def __init__(self, what: str, *, why: str = "", left: str = "", todo: str = "") -> None:
        self.what, self.why, self.left, self.todo = what, why, left, todo
        super().__init__(self._message())

    def supplement(self, *, left: str = "", todo: str = "") -> None:
        """Say more: what is left where that was not said, and what to do after what was said.

        :param left: what is left behind, or was paid.
        :param todo: what the reader should do then.
        """
        self.left, self.todo = self.left or left, " ".join(_sentence(part) for part in (self.todo, todo) if part)
        self.args = (self._message(),)

    def put_advice_on_own_line(self) -> Self:
        """Put what to do on a line of its own, where people look for it, and return the error."""
        if self.todo:
            told = " ".join(_sentence(part) for part in (self.what, self.why, self.left) if part)
            self.args = (f"{told}\n{TO_DO}{_sentence(self.todo)}",)
        return self

    def _message(self) -> str:
        return " ".join(_sentence(part) for part in (self.what, self.why, self.left, self.todo) if part)


class InputError(VertexBatchError, ValueError):
    """The DAG, the rows or the connection are wrong. Nothing was paid; a retry cannot help."""


class LogError(VertexBatchError):
    """The log of a batch cannot be read, or another writer holds it. Nothing was sent."""

    retryable = True


class ServiceError(VertexBatchError):
    """Google answered with an error.

    :param status: the HTTP status; 0 when there was no answer at all.
    :param reason: Google's status word, such as ``PERMISSION_DENIED``.
    :param retry_after: seconds the service asked to wait, or None.
    :param retryable: whether the same call may succeed later, where the service's word says so and the status does not.
    """

    #: Statuses after which the same read may succeed (https://cloud.google.com/apis/design/errors, 2026-11-22).
    TRANSIENT: ClassVar[frozenset[int]] = frozenset({0, 408, 425, 429, 500, 502, 503, 504})

    def __init__(
        self,
        what: str,
        *,
        status: int,
        reason: str = "",
        retry_after: float | None = None,
        retryable: bool | None = None,
        why: str = "",
        left: str = "",
        todo: str = "",
    ) -> None:
        self.status, self.reason, self.retry_after = status, reason, retry_after
        self.retryable = status in self.TRANSIENT if retryable is None else retryable
        super().__init__(what, why=why, left=left, todo=todo)

    @property
    def is_not_found(self) -> bool:
        """Whether the thing asked for does not exist."""
        return self.status == 404  # noqa: PLR2004 - an HTTP status reads best as its number


class AmbiguousError(ServiceError):
    """A create left this machine and its outcome is unknown: the job may exist, and may be billed."""


class JobError(VertexBatchError):
    """A job ended, or was given up on, without the rows it was paid for.

    :param job_name: the full resource name.
    :param state: the service's state, such as ``JOB_STATE_FAILED``; empty when it was never seen.
    :param retryable: whether looking again may find it otherwise.
    """

    def __init__(
        self,
        what: str,
        *,
        job_name: str,
        state: str,
        retryable: bool = True,
        why: str = "",
        left: str = "",
        todo: str = "",
    ) -> None:
        self.job_name, self.state, self.retryable = job_name, state, retryable
        super().__init__(what, why=why, left=left, todo=todo)


class ResultError(VertexBatchError):
    """The output cannot be what this job wrote.

    :param uri: the object or table.
    :param line: 1-based line, or None for the whole.
    """

    def __init__(
        self, what: str, *, uri: str, line: int | None = None, why: str = "", left: str = "", todo: str = ""
    ) -> None:
        self.uri, self.line = uri, line
        super().__init__(what, why=why, left=left, todo=todo)


class LostOutputError(ResultError):
    """The service counted rows that its output does not hold, or not yet. Nothing was landed; a retry looks again."""

    retryable = True


class SourceError(VertexBatchError):
    """A source failed before its last row: a database, or a function of the DAG's author. Nothing of it counts."""

    retryable = True


class ChangedError(VertexBatchError):
    """An object, a file or a table changed while it was read. Nothing of it counts."""

    retryable = True


class OutOfTimeError(VertexBatchError):
    """The time of an attempt is over before it has bought what it should. Nothing was paid for that."""

    retryable = True


class DiskError(VertexBatchError):
    """A folder of this machine is full, missing or read-only. Another worker may have room."""

    retryable = True


class CannotAskError(VertexBatchError):
    """The question cannot be put here: a local server without that API, or an answer that is needed first."""


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
