"""When is a call to Google given up? Apart from `transport`, whose classes load `requests` and google-auth."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """When a call is given up.

    :param connect_seconds: until a connection stands. TCP asks again after 1, 3, 7 and 15 seconds.
    :param silence_seconds: the longest time without a byte. Google's BigQuery client waits as long for a job, because
        the service may need two minutes (``DEFAULT_GET_JOB_TIMEOUT``, google-cloud-bigquery 3.47, 2026-11-28).
    :param window_seconds: seconds of waiting after which the speed of a transfer is checked.
    :param least_speed: the lowest speed, bytes a second. It is a tenth of the slowest usable line (1 Mbit/s); at this
        speed, a part of an upload takes two minutes.
    """

    connect_seconds: float = 30.0
    silence_seconds: float = 128.0
    window_seconds: float = 30.0
    least_speed: int = 16 * 1024


LIMITS = Limits()
