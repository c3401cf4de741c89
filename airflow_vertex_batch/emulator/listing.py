"""How are jobs listed? In pages with tokens, as the service does, and as entries of the books."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left, insort
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.emulator.job import Job
from airflow_vertex_batch.emulator.wire import invalid, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Most jobs of one page, and the default. Not documented for this resource; Google's usual number.
MAX_PAGE = 100


def age_of(job: Job) -> tuple[datetime, str]:
    """Return the value by which jobs are sorted."""
    return job.created_at, job.id


class JobIndex:
    """Jobs by age, and by each of their labels: a list that asks for a label does not look at all jobs."""

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        self._all: list[Job] = []
        self._labelled: dict[tuple[str, str], list[Job]] = {}
        for job in jobs:
            self.add(job)

    def add(self, job: Job) -> None:
        """Take a job in."""
        insort(self._all, job, key=age_of)
        for label in job.labels.items():
            insort(self._labelled.setdefault(label, []), job, key=age_of)

    def newest_first(
        self, labels: Iterable[tuple[str, str]], before: tuple[datetime, str] | None = None
    ) -> Iterator[Job]:
        """Yield all jobs that may have some labels.

        :param before: the age of the job after which a page begins.
        """
        jobs = min((self._labelled.get(label, []) for label in labels), key=len, default=self._all)
        end = bisect_left(jobs, before, key=age_of) if before is not None else len(jobs)
        return (jobs[index] for index in range(end - 1, -1, -1))


def page_token(age: tuple[datetime, str]) -> str:
    """Return the token of the page that begins after a job."""
    return base64.urlsafe_b64encode(msgspec.json.encode(age)).decode()


def read_page_token(token: str) -> tuple[datetime, str] | None:
    """Return the job after which a page begins; None for the first page.

    :raises ApiError: when it is not one of our tokens.
    """
    if not token:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[datetime, str])
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise invalid("The page token is not valid.", field="page_token") from error


def read_page_size(text: str) -> int:
    """Return how many jobs a page has.

    :raises ApiError: when it is not a number, or negative.
    """
    if not text.lstrip("-").isdigit() and text:
        raise invalid(f"Invalid value at 'page_size': {text!r}.", field="page_size")
    size = int(text or 0)
    if size < 0:
        raise invalid("The page size must not be negative.", field="page_size")
    return min(size or MAX_PAGE, MAX_PAGE)


def book_entry(job: Job) -> dict[str, Any]:
    """Return a job's entry in the books."""
    return {
        "name": job.name,
        "displayName": job.display_name,
        "labels": job.labels,
        "model": job.body["model"],
        "location": job.location,
        "state": job.state,
        "createTime": rfc3339(job.created_at),
        "deleted": job.is_deleted,
        "inputUris": list(job.plan.inputs),
        "output": job.plan.output,
        "outputInfo": job.output_info,
        "requests": job.request_count,
        **job.account.as_dict(),
    }
