"""What becomes of jobs for a part of the input that there is no more? They are cancelled, by whoever still may.

Dying before or after the cancel changes nothing: the next attempt finds what still runs, and cancels that.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.claim import look_up, parted, tell_of
from airflow_vertex_batch.core.ledger import pending_seconds
from airflow_vertex_batch.core.model import Phase
from airflow_vertex_batch.core.submit import SETTLE_SECONDS, cancel_all, replaced, wherever

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_vertex_batch.core.ledger import Ledger
    from airflow_vertex_batch.core.ports import JobService

log = logging.getLogger(__name__)


def leave(
    ledger: Ledger,
    identity_key: str,
    service: JobService,
    *,
    at: Callable[[str], JobService] | None = None,
    settle_seconds: float = SETTLE_SECONDS,
    owns: Callable[[], bool] = lambda: True,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Cancel what runs for an identity that the input no longer has; say whether it ever had anything.

    :param at: makes the service of another location, for what was moved there.
    :param owns: whether this attempt is still the one that may cancel.
    :raises ServiceError: when the service could not be asked, or did not cancel.
    :raises LedgerError: when the ledger cannot be trusted, or another attempt has taken over.
    """
    entries = ledger.entries()
    while (pending := pending_seconds(entries, settle_seconds, ledger.now())) > 0:
        log.info("A create call may still be under way; looking for its job in %.0f s.", pending)
        sleep(pending)
    service = wherever(entries, service, at)
    jobs = look_up(service, identity_key, entries) if entries else []
    running = [job for job in jobs if job.state.phase is Phase.WAITING]
    cancel, beside = parted(running, entries, ledger.installation)
    if cancel and not owns():
        raise replaced(identity_key)
    cancel_all(cancel, "the input changed, and has no such part any more", service)
    tell_of(beside, ledger.folder)
    return bool(entries)
