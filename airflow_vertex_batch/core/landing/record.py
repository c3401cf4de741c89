"""What does a landed row look like? One record, the same in files and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import msgspec

from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.domain.row import ResultRow, Usage

if TYPE_CHECKING:
    from decimal import Decimal

    from airflow_vertex_batch.core.domain.identity import Identity

#: Folders below a destination of files. The names of their files begin with the same words.
ANSWERS, DEAD_LETTERS = "answers", "dead-letters"
#: A text with more characters is long. If it has one emoji, Python needs four bytes for each character.
_LONG_CHARACTERS = 1 << 20

#: The schema of every table that rows land in, in BigQuery's API form. It does not depend on the rows: a detected
#: schema would change from night to night with the free parts of an answer.
SCHEMA: tuple[dict[str, str], ...] = tuple(
    {"name": name, "type": kind, "mode": mode, "description": about}
    for name, kind, mode, about in (
        ("partition_date", "DATE", "REQUIRED", "The day this row belongs to"),
        ("row_key", "STRING", "REQUIRED", "The request's key, unique within the day"),
        ("status", "STRING", "REQUIRED", "succeeded, or why there is no good answer"),
        ("code", "STRING", "NULLABLE", "The machine word behind the reason"),
        ("reason", "STRING", "NULLABLE", "Why there is no good answer"),
        ("text", "STRING", "NULLABLE", "The answer's text, thoughts left out; NULL where it has none, see response"),
        ("answer", "JSON", "NULLABLE", "The parsed answer where JSON was asked for"),
        ("columns", "JSON", "NULLABLE", "The source row's own columns"),
        ("finish_reason", "STRING", "NULLABLE", "Why the model stopped"),
        ("model_version", "STRING", "NULLABLE", "The model that answered"),
        ("prompt_tokens", "INT64", "NULLABLE", "Tokens read, by all attempts"),
        ("output_tokens", "INT64", "NULLABLE", "Tokens answered by all attempts, without thinking"),
        ("thinking_tokens", "INT64", "NULLABLE", "Tokens thought by all attempts, billed as output"),
        ("cached_tokens", "INT64", "NULLABLE", "The part of the prompts read from a cache"),
        ("tool_tokens", "INT64", "NULLABLE", "Tokens that tools brought in, billed as prompt and not among its own"),
        ("total_tokens", "INT64", "NULLABLE", "All tokens of all attempts"),
        ("cost_usd", "NUMERIC", "NULLABLE", "US dollars; NULL when the row cannot be priced"),
        ("response", "JSON", "NULLABLE", "The service's response as it was"),
        ("job_name", "STRING", "NULLABLE", "The batch prediction job"),
        ("processed_at", "TIMESTAMP", "NULLABLE", "When the service answered"),
        ("run_id", "STRING", "NULLABLE", "The Airflow run that asked for this row"),
        (
            "request_digest",
            "STRING",
            "NULLABLE",
            "Digest of the request and its model: the same question, the same digest",
        ),
        ("same_as", "STRING", "NULLABLE", "The row whose answer this is, where an identical request was sent once"),
        ("attempts", "INT64", "NULLABLE", "How often the row was sent; 0 when an earlier run's answer was used"),
    )
)
COLUMNS = tuple(field["name"] for field in SCHEMA)


class LandPlan(msgspec.Struct, frozen=True, kw_only=True):
    """For which day and under which names rows land.

    :param batch_id: the id in the names of this batch's files. It is the same for every run of a task for one day.
    :param partition_date: ISO date of the day. The rows are merged with the landed rows of this day.
    :param replace_partition: also remove rows of this day that this batch does not have.
    """

    batch_id: str
    partition_date: str
    run_id: str = ""
    replace_partition: bool = False

    @classmethod
    def of(cls, identity: Identity, day: str, *, replace_partition: bool = False) -> Self:
        """Return the plan of a batch for a day, YYYY-MM-DD."""
        batch_id = "\0".join((identity.dag_id, identity.task_id, str(identity.map_index), day))
        return cls(batch_id=batch_id, partition_date=day, run_id=identity.run_id, replace_partition=replace_partition)


class LandedRow(msgspec.Struct, frozen=True, gc=False):
    """A row as it lands: one member for each column of `SCHEMA` except `partition_date`, in the order of `SCHEMA`.

    A table gets the day as a column. Files have it in their folder's name: readers of such folders refuse a file that
    has a column of the same name.
    """

    row_key: str
    status: str
    code: str | None
    reason: str | None
    text: str | msgspec.Raw | None
    answer: Any
    columns: dict[str, Any] | None
    finish_reason: str | None
    model_version: str | None
    prompt_tokens: int | None
    output_tokens: int | None
    thinking_tokens: int | None
    cached_tokens: int | None
    tool_tokens: int | None
    total_tokens: int | None
    cost_usd: str | None
    response: msgspec.Raw | None
    job_name: str | None
    processed_at: str | None
    run_id: str | None
    request_digest: str | None
    same_as: str | None
    attempts: int


def landed_row(row: ResultRow, plan: LandPlan, cost: Decimal | None) -> LandedRow:
    """Return a row as the flat record that lands. Its tokens and its cost are those of all its attempts."""
    usage = sum(row.earlier, row.usage or Usage()) if row.earlier else row.usage
    return LandedRow(
        row.key,
        row.status.value,
        row.code or None,
        row.reason or None,
        row.text if row.text is None or len(row.text) < _LONG_CHARACTERS else _as_json(row.text),
        row.answer,
        row.columns or None,
        row.finish_reason or None,
        row.model_version or None,
        usage.prompt_tokens if usage else None,
        usage.output_tokens if usage else None,
        usage.thinking_tokens if usage else None,
        usage.cached_tokens if usage else None,
        usage.tool_tokens if usage else None,
        usage.total_tokens if usage else None,
        None if cost is None else f"{cost:.9f}",
        msgspec.Raw(row.response) if row.response else None,
        row.job_name or None,
        row.processed_at or None,
        row.run_id or plan.run_id or None,
        row.request_digest or None,
        row.same_as or None,
        row.attempts,
    )


def _as_json(text: str) -> msgspec.Raw:
    """Return a long text as JSON. This is done in steps, so that characters and bytes of the whole text are not in
    memory together.
    """
    starts = range(0, len(text), _LONG_CHARACTERS)
    return msgspec.Raw(b'"%b"' % b"".join(encode(text[start : start + _LONG_CHARACTERS])[1:-1] for start in starts))
