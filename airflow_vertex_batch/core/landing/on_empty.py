"""May a batch have no row at all? An empty source may be a day without work, or a table that was not loaded. The author
of the DAG decides.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.errors import InputError

if TYPE_CHECKING:
    from airflow_vertex_batch.core.domain.manifest import Manifest


class OnEmpty(StrEnum):
    """What happens to a task whose source has no row."""

    #: Fail at once. The default: an empty table is more often one that was not loaded than a day without work.
    FAIL = "fail"
    #: Skip the task, and the tasks after it.
    SKIP = "skip"
    #: Go on, and land the empty day.
    SUCCEED = "succeed"

    @classmethod
    def of(cls, value: str) -> OnEmpty:
        """Read an author's parameter.

        :raises InputError: when it is not one of the values.
        """
        if value not in set(cls):
            raise InputError(f"on_empty={value!r} is not known", todo="Use 'fail', 'skip' or 'succeed'")
        return cls(value)


#: The text about jobs, if no job was cancelled.
MAY_RUN = "jobs of an earlier attempt may still run"
#: The text about jobs, if the running jobs were cancelled.
CANCELLED = "no job of an earlier attempt runs on"


def empty_error(manifest: Manifest, jobs: str = MAY_RUN) -> InputError | None:
    """Return the error for a set without a row; None for any other set, also if all its rows are known or rejected.

    :param jobs: the text about jobs that were bought for rows which the source had before.
    """
    if manifest.row_count:
        return None
    return InputError(
        "The source has no row: there is nothing to ask",
        left=f"No job is created and nothing is landed; what has landed before is as it was; {jobs}",
        todo="See whether the source was filled before this task read it, then clear this task. If days without a row "
        "are normal, set on_empty='skip', or 'succeed' to land the empty day",
    )
