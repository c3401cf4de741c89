"""May a batch have no row at all? The source alone does not tell: it may be a quiet day, or a table that was not
loaded. The author of the DAG decides.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.errors import InputError

if TYPE_CHECKING:
    from airflow_vertex_batch.core.domain.manifest import Manifest


class OnEmpty(StrEnum):
    """What a source without a row does to the task that reads it."""

    #: Fail at once. The default: an empty table is more often one that was not loaded than a day without work.
    FAIL = "fail"
    #: Skip the task, and with it what comes after.
    SKIP = "skip"
    #: Go on, and land the empty day.
    SUCCEED = "succeed"

    @classmethod
    def of(cls, value: str) -> OnEmpty:
        """Read an author's parameter.

        :raises InputError: when it means nothing.
        """
        if value not in set(cls):
            raise InputError(f"on_empty={value!r} is not known", todo="Use 'fail', 'skip' or 'succeed'")
        return cls(value)


#: What is to be said of jobs when none was cancelled.
MAY_RUN = "jobs of an earlier attempt may still run"
#: What is to be said of them when those that ran were.
CANCELLED = "no job of an earlier attempt runs on"


def emptiness(manifest: Manifest, jobs: str = MAY_RUN) -> InputError | None:
    """Return what there is to say of a set without a row; None of any other, be its rows known or rejected.

    :param jobs: what becomes of the jobs that were bought for rows which the source had before.
    """
    if manifest.row_count:
        return None
    return InputError(
        "The source has no row: there is nothing to ask",
        left=f"No job is created and nothing is landed; what has landed before is as it was; {jobs}",
        todo="See whether the source was filled before this task read it, then clear this task. If days without a row "
        "are normal, set on_empty='skip', or 'succeed' to land the empty day",
    )
