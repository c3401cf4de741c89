"""What happens to jobs for a part of the input that does not exist any more? They are cancelled, but only by an attempt
that may still cancel.

If an attempt dies before or after the cancel, nothing changes: the next attempt finds the jobs that still run, and
cancels them.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.job import Phase
from airflow_vertex_batch.core.purchase.decide import SETTLE_SECONDS
from airflow_vertex_batch.core.purchase.log import pending_seconds
from airflow_vertex_batch.core.purchase.ownership import labels_of, look_up, split_by_claim, warn_about
from airflow_vertex_batch.core.purchase.submit import cancel_all, replaced, service_of_all_locations

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_vertex_batch.core.domain.ports import JobService
    from airflow_vertex_batch.core.purchase.log import JobLog

log = logging.getLogger(__name__)


def cancel_removed_part(
    job_log: JobLog,
    service: JobService,
    *,
    at: Callable[[str], JobService] | None = None,
    settle_seconds: float = SETTLE_SECONDS,
    owns: Callable[[], bool] = lambda: True,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Cancel running jobs of a request file that the input no longer has.

    :param at: makes the job service of another location, for jobs that were moved there.
    :param owns: returns whether this attempt may still cancel.
    :raises ServiceError: when the service could not be asked, or did not cancel.
    :raises LogError: when the log cannot be trusted, or another attempt has taken over.
    """
    entries = job_log.entries()
    while (pending := pending_seconds(entries, settle_seconds, job_log.now())) > 0:
        log.info("A create call may still be under way; looking for its job in %.0f s.", pending)
        sleep(pending)
    service = service_of_all_locations(entries, service, at)
    jobs = look_up(service, labels_of(job_log.identity, job_log.part), entries) if entries else []
    running = [job for job in jobs if job.state.phase is Phase.WAITING]
    cancel, left_running = split_by_claim(running, entries, job_log.installation)
    if cancel and not owns():
        raise replaced(job_log.identity)
    cancel_all(cancel, "the input changed, and has no such part any more", service)
    warn_about(left_running, job_log.folder)
