"""How long does one attempt wait while Vertex AI does not answer? Two minutes, as the clients of Cloud Storage and
BigQuery do. After that the attempt fails with the error, and the task's next try goes on.

Invariant: only calls that may be sent again pass through here. A create call that may have worked never does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.errors import AmbiguousError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState, Retrying

log = logging.getLogger(__name__)

#: Seconds from the first error until the last try: the deadline of google-cloud-storage's ``DEFAULT_RETRY``
#: (https://docs.cloud.google.com/storage/docs/retry-strategy, 2026-11-28).
OUTAGE_SECONDS = 120.0
#: Seconds between two tries at the most, where the service asks for nothing else.
_MAX_WAIT_SECONDS = 20.0
#: If the service asks for a longer pause than these seconds, the call is not repeated here.
MAX_RETRY_AFTER_SECONDS = 60.0


def is_temporary(error: BaseException) -> bool:
    """Whether the same call may be sent again, and may succeed then."""
    return isinstance(error, ServiceError) and error.retryable and not isinstance(error, AmbiguousError)


def seconds_passed(state: RetryCallState) -> float:
    """Return the seconds since the first try; what a test only notes instead of sleeping counts too."""
    return max(state.seconds_since_start or 0.0, state.idle_for)


def seconds_waited(state: RetryCallState) -> float:
    """Return the seconds slept between tries, without those that the tries themselves took."""
    return state.idle_for


def retrying_in_outage(
    sleep: Callable[[float], None],
    seconds: float = OUTAGE_SECONDS,
    passed: Callable[[RetryCallState], float] = seconds_passed,
    repeats: Callable[[BaseException], bool] = is_temporary,
) -> Retrying:
    """Return an object that repeats a call after temporary errors. The last try comes when `seconds` have passed, or
    later.

    :param sleep: waits between two tries, replaced in tests.
    :param seconds: how long; 0 tries once.
    :param passed: what counts as time.
    :param repeats: after which errors the call is sent again.
    """
    from tenacity import Retrying, retry_if_exception

    return Retrying(
        sleep=sleep,
        retry=retry_if_exception(repeats),
        stop=lambda state: passed(state) >= seconds,
        wait=_wait,
        before_sleep=lambda state: _say(state, seconds),
        reraise=True,
    )


def _wait(state: RetryCallState) -> float:
    """Return the seconds until the next try: longer each time, and no less than the service asks for."""
    from tenacity import wait_exponential, wait_random

    backoff = wait_exponential(max=_MAX_WAIT_SECONDS)(state) + wait_random(0, 1)(state)
    asked = getattr(_error(state), "retry_after", None) or 0.0
    return max(backoff, min(asked, MAX_RETRY_AFTER_SECONDS))


def _say(state: RetryCallState, seconds: float) -> None:
    if state.attempt_number == 1:
        log.warning("%s Trying again for up to %.0f s.", _error(state), seconds)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
