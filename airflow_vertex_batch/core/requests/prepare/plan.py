"""How shall a batch be prepared? One record of the choices, checked when it is made."""

from __future__ import annotations

from typing import Any

import msgspec

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.requests.request import (
    MAX_BYTES,
    MAX_REQUESTS,
    Correlation,
    OnRejectedRow,
    RequestTemplate,
)


class PreparePlan(msgspec.Struct, frozen=True, kw_only=True):
    """How to prepare.

    :param template: what the requests have in common; None when the rows are ready-made request lines.
    :param key_column: the column that names a row; None to go by content, or by the ``key`` of ready-made lines.
    :param columns: the user's own columns to keep beside each answer; of ready-made lines, all members that stand
        beside the request where none are named.
    :param max_rejected_ratio: the share of rejected rows above which dead letters fail the task after all, 0 to 1.
    :param max_requests: most requests in a shard, 1 to `MAX_REQUESTS`.
    :param max_bytes: most bytes in a shard, 1 to `MAX_BYTES`.
    :param schema: the JSON Schema that answers are checked against, kept in the manifest.
    :param model: the model the requests are for; a request is the same as another one for the same model only.
    :param deduplicate: whether to send identical requests once.
    :param correlation: the second channel by which an answer finds its row.
    :param lint_ignore: names of lint rules that let a request pass.
    :param lint: False sends what the service's importer might refuse. For measurements.
    :param fix: whether to cure, and send, what lint refuses and can cure without changing the meaning.
    :raises InputError: when a number is out of its range.
    """

    template: RequestTemplate | None
    key_column: str | None = None
    columns: tuple[str, ...] = ()
    on_rejected_row: OnRejectedRow = OnRejectedRow.FAIL
    max_rejected_ratio: float = 1.0
    max_requests: int = MAX_REQUESTS
    max_bytes: int = MAX_BYTES
    schema: dict[str, Any] | None = None
    model: str = ""
    deduplicate: bool = False
    correlation: Correlation = Correlation.CONTENTS
    lint_ignore: frozenset[str] = frozenset()
    lint: bool = True
    fix: bool = False

    def __post_init__(self) -> None:
        for name, least, most in (("max_requests", 1, MAX_REQUESTS), ("max_bytes", 1, MAX_BYTES)):
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name):,}", todo=f"Choose a number from {least} to {most:,}")
        if not 0 <= self.max_rejected_ratio <= 1:
            raise InputError(f"max_rejected_ratio is {self.max_rejected_ratio}", todo="Choose a number from 0 to 1")
