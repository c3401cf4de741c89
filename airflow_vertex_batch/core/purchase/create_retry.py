"""What happens if the service refuses a create call for now, or cannot be reached at all? Then there is no job. The
call is sent again for as long as an attempt waits in an outage (`core.domain.outage`).

A create call that may have worked is not repeated here: `ensure_job` first looks for its job until the settle time is
over. If an attempt dies between two tries, it leaves a refusal in the log, so the next attempt need not wait.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.outage import is_temporary, retrying_in_outage, seconds_waited
from airflow_vertex_batch.core.purchase.entries import Refusal
from airflow_vertex_batch.core.purchase.submit import ensure_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_vertex_batch.core.purchase.submit import Ensured, Order


def ensure_job_with_retries(order: Order, *, sleep: Callable[[float], None] = time.sleep) -> Ensured:
    """Do what `ensure_job` does, and repeat it while the service refuses for now.

    :raises VertexBatchError: as `ensure_job` does.
    """

    def repeats(error: BaseException) -> bool:
        # Reads are not repeated here: the clients of the service and of the store repeat them.
        return is_temporary(error) and _was_refused(order)

    return retrying_in_outage(sleep, passed=seconds_waited, repeats=repeats)(ensure_job, order, sleep=sleep)


def _was_refused(order: Order) -> bool:
    """Whether the last event of an order is a create call that made no job."""
    entries = order.log.entries()
    return bool(entries) and isinstance(entries[-1], Refusal)
