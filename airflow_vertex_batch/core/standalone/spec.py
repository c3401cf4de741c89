"""What does a spec ask for? The arguments of `vertex_batch()` as a TOML file: read, checked, and turned into the values
that `core.batch` takes.

What each argument means is said at the operators. What only Airflow can do has no place here, and is refused by name.
"""

from __future__ import annotations

import hashlib
import tomllib
from datetime import UTC
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

import msgspec

from airflow_vertex_batch.core.answers.collect import OnLostOutput
from airflow_vertex_batch.core.answers.repair import RepairPolicy, refuse_idle_repair
from airflow_vertex_batch.core.answers.report import Thresholds
from airflow_vertex_batch.core.domain.address import Uri, cloud_folder
from airflow_vertex_batch.core.domain.days import read_day
from airflow_vertex_batch.core.domain.durations import BARE_SECONDS, seconds
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.unrendered import (
    check_labels,
    check_location,
    check_model,
    check_output,
    is_template,
)
from airflow_vertex_batch.core.landing.destination import Destination, DestinationArguments
from airflow_vertex_batch.core.landing.on_empty import OnEmpty
from airflow_vertex_batch.core.money.estimate import Budget
from airflow_vertex_batch.core.money.prices import PriceTable
from airflow_vertex_batch.core.progress import Policy
from airflow_vertex_batch.core.purchase.decide import OnChangedInput, OnClear, Terms
from airflow_vertex_batch.core.purchase.place import Place, check_moves, read_places
from airflow_vertex_batch.core.requests.answer_check import AnswerCheck
from airflow_vertex_batch.core.requests.prepare_arguments import PrepareArguments
from airflow_vertex_batch.core.waiting.queue import QueuePolicy
from airflow_vertex_batch.core.waiting.watch import OnTimeout, WaitPolicy

_HOUR = 3600.0
#: Arguments of a task of Airflow that mean nothing here, with what stands for them.
_OF_AIRFLOW = {
    **dict.fromkeys(
        ("gcp_conn_id", "impersonation_chain"),
        "Leave it out: the account is the environment's own (gcloud auth application-default login)",
    ),
    "sql_conn_id": "Leave it out: `sql` asks BigQuery here. Other databases need an Airflow connection",
    **dict.fromkeys(
        ("deferrable", "cancel_on_kill", "retries", "task_args", "step_args", "start_from_trigger", "timeout", "mode"),
        "Leave it out: only a task of Airflow has it",
    ),
    **dict.fromkeys(
        ("preflight", "canary", "canary_row", "allowed_failures"),
        "Leave it out, and ask `airflow-vertex-batch doctor` first",
    ),
    "group_id": "Name the batch with task_id",
}


#: The longest id that Airflow takes too (airflow.models.ID_LEN, 2026-11-30).
_MAX_ID = 250
#: Where braces are the prompt's, or a row's.
_OF_THE_PROMPT = {"prompt", "rows", "response_schema", "tools"}
#: What a batch asks is the same, whatever these say.
_NOT_ASKED = {"task_id", "project_id", "destination", "max_rejected_ratio"}
_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(PrepareArguments)}


class Spec(PrepareArguments, frozen=True, kw_only=True):
    """A batch that needs no Airflow: who it is, and the arguments of the operators.

    :param dag_id: first part of its name; a DAG with the same names goes on from its log.
    :param run_id: ``run`` where not given: one spec is one batch, however often it is run.
    :param partition_date: the day the rows belong to; the day on which the batch began where not given.
    """

    dag_id: str = "run"
    task_id: str
    run_id: str = "run"
    model: str
    location: str
    staging_uri: str
    destination: str
    partition_date: Any = None
    dead_letters: str | None = None
    file_format: Literal["jsonl", "parquet"] | None = None
    replace_partition: bool = False
    max_failed_ratio: float | None = None
    min_succeeded_rows: int | None = None
    on_empty: Literal["fail", "skip", "succeed"] = "fail"
    on_lost_output: Literal["fail", "land"] = "fail"
    output_uri: str | None = None
    display_name: str | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    on_changed_input: Literal["resubmit", "fail"] = "resubmit"
    on_clear: Literal["attach", "repair", "new"] = "attach"
    settle_seconds: Annotated[float, msgspec.Meta(ge=30, le=3600)] = 90.0
    max_cost_usd: float | None = None
    on_over_budget: Literal["fail", "skip", "ask"] = "fail"
    repair_rounds: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    repair_actions: dict[str, Literal["as_is", "more_tokens", "give_up"]] | None = None
    repair_max_output_tokens: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 65_536
    repair_by: Literal["requests", "resume"] = "requests"
    poll_interval: float | None = None
    job_timeout: float = 97 * _HOUR
    on_timeout: Literal["cancel", "fail", "keep"] = "cancel"
    queue_warning: float | None = 24 * _HOUR
    queue_timeout: float | None = None
    elsewhere: list[dict[str, str]] | None = None

    @classmethod
    def read(cls, text: bytes, name: str, *, project: str = "", **more: Any) -> Self:
        """Read a spec.

        :param text: of the file, TOML.
        :param project: the environment's, where the file names none.
        :param name: what to call the file in errors; it is also the batch's name where `task_id` does not give one.
        :param more: what was given beside the file, which wins over it; None stands for nothing.
        :raises InputError: naming the member that is wrong, and what to do.
        """
        try:
            found = tomllib.loads(text.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name} is no TOML", why=str(error), todo="Correct it: https://toml.io") from error
        if project:
            found.setdefault("project_id", project)
        found |= {member: value for member, value in more.items() if value is not None}
        found.setdefault("task_id", name.rpartition("/")[2].removesuffix(".toml") or "spec")
        _refuse_unknown(found, cls.__struct_fields__, name)
        try:
            made = msgspec.convert(found, cls)
        except (msgspec.ValidationError, RecursionError) as error:
            raise InputError(f"{name} does not fit", why=_in_words(error), todo="Correct it there") from error
        made.check_all()
        return made

    def check_all(self) -> None:
        """Check every argument.

        :raises InputError: saying which one is wrong, and what to do.
        """
        self.check()
        for word in ("dag_id", "task_id", "run_id"):
            text = getattr(self, word)
            if not text or len(text) > _MAX_ID or not text.isprintable():
                what = "empty" if not text else f"longer than {_MAX_ID} characters" if text.isprintable() else "odd"
                raise InputError(f"{word} is {what}", todo=f"Give it a name of 1 to {_MAX_ID} printable characters")
        for name in sorted(set(self.__struct_fields__) - _OF_THE_PROMPT):
            _refuse_templates(getattr(self, name), name)
        check_model(self.model)
        check_location(self.location)
        check_output(self.output_uri, "output_uri")
        check_labels(self.labels)
        self.staging()
        self.day()
        self.destination_arguments().check(self.task_id)
        self.thresholds()
        self.budget()
        check_moves(self.elsewhere, self.places(), self.queue_timeout)
        refuse_idle_repair(self.task_id, self.repair(), self.repair_rounds, self.on_clear)
        self.waiting()
        self._queue()

    def digest(self) -> str:
        """Return what changes when other requests are asked for: how they are waited for and land is left out."""
        said = {name: getattr(self, name) for name in sorted(set(PrepareArguments.__struct_fields__) - _NOT_ASKED)}
        given = {name: value for name, value in said.items() if value != _DEFAULTS.get(name)}
        return hashlib.sha256(msgspec.json.encode(given, order="sorted")).hexdigest()[:12]

    def day(self) -> str:
        """Return the day the rows belong to, YYYY-MM-DD; empty where it is not given.

        :raises InputError: when it is no day.
        """
        return "" if self.partition_date is None else read_day(self.partition_date, UTC, "partition_date")

    def staging(self) -> Uri:
        """Return the staging folder."""
        return cloud_folder(self.staging_uri, "staging_uri")

    def destination_arguments(self) -> DestinationArguments:
        """Return the arguments about the destination."""
        return DestinationArguments(self.destination, self.project_id, self.dead_letters, self.file_format)

    def lands_at(self) -> Destination:
        """Return where answers land."""
        return self.destination_arguments().read(self.task_id, self.staging())

    def thresholds(self) -> Thresholds:
        """Return how many rows may fail."""
        return Thresholds.of(self.max_failed_ratio, self.min_succeeded_rows)

    def budget(self) -> Budget | None:
        """Return the limit, if there is one."""
        return Budget.of(self.max_cost_usd, self.on_over_budget)

    def places(self) -> tuple[Place, ...]:
        """Return the places to move to, the best first."""
        return read_places(self.elsewhere or ())

    def repair(self) -> RepairPolicy:
        """Return which rows go again, and how."""
        return RepairPolicy.of(
            self.repair_actions, max_output_tokens=self.repair_max_output_tokens, resume=self.repair_by == "resume"
        )

    def terms(self, generation: str) -> Terms:
        """Return the terms of each purchase."""
        return Terms(
            settle_seconds=self.settle_seconds,
            on_changed_input=OnChangedInput(self.on_changed_input),
            generation=generation,
            renew=OnClear(self.on_clear) is OnClear.NEW,
        )

    def policy(self, prices: PriceTable) -> Policy:
        """Return what is wanted of the batch."""
        schema = self.schema()
        return Policy(
            repair=self.repair(),
            check=AnswerCheck(schema) if schema else None,
            budget=self.budget(),
            prices=prices,
            on_empty=OnEmpty(self.on_empty),
            on_lost_output=OnLostOutput(self.on_lost_output),
            queue=self._queue(),
            elsewhere=self.places(),
        )

    def waiting(self, queue_limit: float | None = None) -> WaitPolicy:
        """Return how to wait for a job.

        :param queue_limit: seconds from its creation after which it needs somebody while it queues.
        """
        interval = self.poll_interval
        return WaitPolicy(
            poll_interval=None if interval is None else seconds(interval, "poll_interval"),
            timeout=_seconds(self.job_timeout, "job_timeout"),
            on_timeout=OnTimeout(self.on_timeout),
            queue_limit=queue_limit,
        )

    def _queue(self) -> QueuePolicy:
        warning, timeout = (
            None if value is None else _seconds(value, name)
            for name, value in (("queue_warning", self.queue_warning), ("queue_timeout", self.queue_timeout))
        )
        return QueuePolicy(warning=warning, timeout=timeout)


def _seconds(value: float, name: str) -> float:
    """Return a time after which something is done to a job.

    :raises InputError: for one that must have been meant as hours.
    """
    if 0 < value < BARE_SECONDS:
        raise InputError(
            f"{name} = {value:g} is {value:g} seconds",
            why="No batch job is that quick",
            todo=f"Write it in seconds: {value:g} hours are {value * _HOUR:.0f}",
        )
    return seconds(value, name)


def _refuse_unknown(found: dict[str, Any], known: tuple[str, ...], name: str) -> None:
    for member in found:
        if member in _OF_AIRFLOW:
            raise InputError(f"{name}: {member} means nothing without Airflow", todo=_OF_AIRFLOW[member])
        if member not in known:
            near = get_close_matches(member, known, n=1)
            todo = f"Write {near[0]}" if near else f"Use one of {', '.join(sorted(known))}"
            raise InputError(f"{name}: {member!r} is no argument of a batch", todo=todo)


def _refuse_templates(value: Any, name: str) -> None:
    """Refuse what only Airflow would render: it would be taken as it stands.

    :raises InputError: naming the member.
    """
    if is_template(value):
        todo = "Write it out, or give it beside the spec (--day, --destination, --run-id …)"
        raise InputError(f"{name} holds a template, {value!r}, and only Airflow renders it", todo=todo)
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_templates(item, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_templates(item, name)


def _in_words(error: Exception) -> str:
    """Return msgspec's message with the member's name where it has a path: ``$.model`` is `model`."""
    what, _, where = str(error).partition(" - at `$.")
    return f"{where.rstrip('`')}: {what}" if where else what
