"""When is a call to Google given up? Apart from `transport`, whose classes load `requests` and google-auth."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """When a call is given up.

    :param connect_seconds: until a connection stands. TCP asks again after 1, 3, 7 and 15 seconds.
    :param silence_seconds: without a byte. What Google's BigQuery client waits for a job: its service may think for two
        minutes (``DEFAULT_GET_JOB_TIMEOUT``, google-cloud-bigquery 3.47, 2026-11-28).
    :param window_seconds: of waiting, after which a transfer's speed is looked at.
    :param least_speed: bytes a second. A tenth of the slowest line that one may hope to run batches over (1 Mbit/s); at
        this speed, a part of an upload takes two minutes.
    """

    connect_seconds: float = 30.0
    silence_seconds: float = 128.0
    window_seconds: float = 30.0
    least_speed: int = 16 * 1024


LIMITS = Limits()
