"""Which parameters do several operators have? Each is documented here once, together with the code that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_vertex_batch.core.domain.durations import seconds
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.unrendered import (
    check_labels,
    check_model,
    check_output,
)
from airflow_vertex_batch.core.landing.destination import DestinationArguments
from airflow_vertex_batch.edge.asking import Answer
from airflow_vertex_batch.edge.base import (
    VertexBatchBaseOperator,
    as_rendered,
    fail_or_retry,
    generation_of,
    texts,
)
from airflow_vertex_batch.edge.compat import still_owns, take_ownership, timetable_zone
from airflow_vertex_batch.edge.responsible import RecordingJobService, ResponsibleOperator
from airflow_vertex_batch.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date
    from typing import Literal

    from airflow.sdk import Context
    from airflow.sdk.definitions.xcom_arg import XComArg

    from airflow_vertex_batch.core.answers.collect import OnLostOutput
    from airflow_vertex_batch.core.answers.repair import RepairPolicy
    from airflow_vertex_batch.core.batch import Batch
    from airflow_vertex_batch.core.domain.manifest import Manifest
    from airflow_vertex_batch.core.domain.ports import ObjectStore
    from airflow_vertex_batch.core.landing.destination import Destination
    from airflow_vertex_batch.core.money.estimate import Budget
    from airflow_vertex_batch.core.money.prices import PriceTable
    from airflow_vertex_batch.core.progress import Attempt, Policy
    from airflow_vertex_batch.core.purchase.buyer import Buyer
    from airflow_vertex_batch.core.purchase.fold import Start
    from airflow_vertex_batch.hooks import VertexBatchHook
    from airflow_vertex_batch.parameters import Duration, Text


class ModelOperator(VertexBatchBaseOperator):
    """Base of operators that must know the model.

    :param model: ``gemini-…``, ``publishers/…/models/…``, or ``projects/…/locations/…/models/…`` for a tuned model.
        Templated.
    """

    templated: ClassVar[tuple[str, ...]] = ("model",)

    def __init__(self, *, model: Text | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = as_rendered(model)
        check_model(model)


class SchemaOperator(VertexBatchBaseOperator):
    """Base of operators that must know the form of an answer.

    :param response_schema: a JSON Schema or a Pydantic model class. Prepare asks for JSON of that shape, and every
        answer is checked against it. In a task that only reads answers, the schema of the manifest is used if this is
        not given.
    """

    def __init__(self, *, response_schema: dict[str, Any] | type[Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.response_schema = response_schema
        if response_schema is not None:
            from airflow_vertex_batch.core.requests.schema import json_schema
            from airflow_vertex_batch.core.requests.schema import response_schema as api_schema

            api_schema(json_schema(response_schema))

    def schema(self) -> dict[str, Any] | None:
        """Return the JSON Schema of answers, or None."""
        from airflow_vertex_batch.core.requests.schema import json_schema

        return json_schema(self.response_schema) if self.response_schema is not None else None


class DestinationOperator(VertexBatchBaseOperator):
    """Base of operators that must know where answers land.

    :param destination: where answers land: ``gs://bucket/folder`` for files, or ``bq://project.dataset.table`` for a
        table, which is made if it does not exist, partitioned by ``partition_date``. A row replaces the row of the same
        ``partition_date`` and ``row_key``. Templated.
    :param partition_date: the day that the rows belong to: YYYY-MM-DD, or what ``{{ ds_nodash }}`` and ``{{ ts }}``
        become. If not given, it is the run's own day (`macros.partition_date`). Templated.
    """

    templated: ClassVar[tuple[str, ...]] = ("destination", "partition_date")

    def __init__(
        self, *, destination: Text | None = None, partition_date: Text | date | int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.destination, self.partition_date = as_rendered(destination), as_rendered(partition_date)
        DestinationArguments(self.destination, self.project_id).check(self.task_id)

    def day(self, context: Context) -> str:
        """Return the day that the rows belong to, as YYYY-MM-DD.

        :raises InputError: when the given value is not a day.
        """
        from airflow_vertex_batch.core.domain.days import read_day
        from airflow_vertex_batch.macros import partition_date

        if self.partition_date is None:
            return partition_date(context)
        return read_day(self.partition_date, timetable_zone(context.get("dag")), "partition_date")

    def lands_at(self) -> Destination | None:
        """Return where answers land, after Airflow has rendered the address; None if this task has no destination.

        :raises InputError: when the address is not a destination.
        """
        if self.destination is None:
            return None
        return DestinationArguments(self.destination, self.project_id).read(self.task_id, self.staging())

    def check_destination(self, context: Context, hook: VertexBatchHook) -> Destination | None:
        """Check that answers can land at the destination and that the day is valid, if this task has a destination;
        return the destination.

        :raises InputError: when answers cannot land there, or the day is not a day.
        """
        from airflow_vertex_batch.core.upkeep.preflight import check_destination

        if (destination := self.lands_at()) is not None:
            self.day(context)
            check_destination(destination.uri, hook.doctor(), project=hook.project, location=hook.location)
        return destination


class ReadingOperator(VertexBatchBaseOperator):
    """Base of operators that read the answers of jobs.

    :param on_lost_output: what to do when the service counted rows that are not in the output of a job. ``fail``
        (default) ends this attempt, and lands, overwrites and buys nothing; the next attempt asks for the job and looks
        again. ``land`` is for an output that is lost for good: the rows that are there land, the other rows end as
        ``missing``, and are sent again if `repair_rounds` allows it.
    """

    def __init__(self, *, on_lost_output: Literal["fail", "land"] = "fail", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.on_lost_output = on_lost_output
        if on_lost_output not in {"fail", "land"}:
            raise InputError(f"on_lost_output={on_lost_output!r} is not known", todo="Use 'fail' or 'land'")

    def lost_output(self) -> OnLostOutput:
        """Return what to do when the output does not have all rows that the service counted."""
        from airflow_vertex_batch.core.answers.collect import OnLostOutput

        return OnLostOutput(self.on_lost_output)


class BuyingOperator(ModelOperator, ResponsibleOperator):
    """Base of operators that create jobs, each once.

    :param output_uri: ``gs://`` folder, or ``bq://project.dataset[.table]``. If not given, it is a folder in the
        staging folder. Each job of a manifest gets its own folder or table below it. Templated.
    :param display_name: readable name, up to 128 characters. If not given, it is made from dag, task and run.
        Templated.
    :param labels: further job labels; keys and values of lower-case letters, digits, ``_`` and ``-``. Templated.
    :param on_changed_input: what to do when this task has a running job that was made from other input. ``resubmit``
        (default) cancels that job and creates a new one. ``fail`` fails the task and changes nothing.
    :param on_clear: what happens when a person clears a task that has paid. ``attach`` (default) lands again the rows
        that were paid for, and pays nothing. ``repair`` also sends the rows without a good answer once more. ``new``
        buys the whole batch again: it cancels the old job if that still runs, and the log says which job is replaced. A
        retry is never taken for a clear. If create and repair are separate tasks, the repair task does ``repair`` and
        the create task does ``new``: clear that task together with the tasks after it.
    :param settle_seconds: how long after an interrupted create call the job of that call may still appear, 30 to 3600
        seconds or a timedelta.
    :param max_cost_usd: the most that the batch may cost, in US dollars; no limit if not given. The upper figure of the
        estimate is compared with this limit before anything is paid, so set ``maxOutputTokens`` too. Once one job of
        the batch was bought, its other jobs are not checked any more. Needs a manifest.
    :param on_over_budget: what to do when the cost is above the limit, or not known: ``fail`` (default), ``skip`` this
        task, or ``ask`` a person to approve in the Airflow UI; `execution_timeout` then counts from the answer. An
        approval holds for retries of the same batch. A repair round above the limit is not bought, and the rows that
        there are land; with ``ask`` a person may approve the round.
    """

    templated: ClassVar[tuple[str, ...]] = ("output_uri", "display_name", "labels")
    #: An operator that repairs sets it: see `RepairingOperator`.
    repair_rounds = 0

    def __init__(
        self,
        *,
        output_uri: Text | None = None,
        display_name: Text | None = None,
        labels: dict[str, str] | XComArg | None = None,
        on_changed_input: Literal["resubmit", "fail"] = "resubmit",
        on_clear: Literal["attach", "repair", "new"] = "attach",
        settle_seconds: Duration = 90.0,
        max_cost_usd: float | None = None,
        on_over_budget: Literal["fail", "skip", "ask"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.output_uri, self.display_name, self.labels = (
            as_rendered(output_uri),
            as_rendered(display_name),
            as_rendered(labels),
        )
        self.on_changed_input, self.on_clear = on_changed_input, on_clear
        self.max_cost_usd, self.on_over_budget = max_cost_usd, on_over_budget
        self.budget()
        check_output(output_uri, "output_uri")
        check_labels(labels)
        if not self.model:
            raise InputError(f"Task {self.task_id} has no model", todo="Set model='gemini-…'")
        if on_changed_input not in {"resubmit", "fail"}:
            raise InputError(f"on_changed_input={on_changed_input!r} is not known", todo="Use 'resubmit' or 'fail'")
        if on_clear not in {"attach", "repair", "new"}:
            raise InputError(f"on_clear={on_clear!r} is not known", todo="Use 'attach', 'repair' or 'new'")
        # One create call may take 30 s. Before that time is over, the job may be absent and still come.
        self.settle_seconds = seconds(settle_seconds, "settle_seconds", least=30, most=3600)
        self.require("staging_uri", "location")

    def output_of(self, context: Context) -> str:
        """Return where the jobs of this task write."""
        check_output(self.output_uri, "output_uri")
        return self.output_uri or str(self.folder(context) / "output")

    def buyer(self, context: Context, hook: VertexBatchHook, inputs: str | Sequence[str] | None = None) -> Buyer:
        """Return the buyer of this task's jobs.

        :param inputs: ready input, if there is no manifest.
        """
        from airflow_vertex_batch.core.domain.job import JobSpec
        from airflow_vertex_batch.core.purchase.buyer import Buyer, display_name
        from airflow_vertex_batch.core.purchase.decide import OnChangedInput, Terms

        log, ti = self.log_of(context, hook), context["ti"]
        token = take_ownership(ti)
        spec = JobSpec(
            display_name=self.display_name or display_name(log.identity),
            model=str(self.model),
            inputs=texts(inputs) if inputs else (),
            output=self.output_of(context),
            labels=self.labels or {},
        )
        return Buyer(
            base=spec,
            log=log,
            store=hook.store(),
            service=RecordingJobService(hook.jobs(), self.known),
            terms=Terms(
                settle_seconds=self.settle_seconds,
                on_changed_input=OnChangedInput(self.on_changed_input),
                generation=generation_of(context),
                renew=self.on_clear == "new",
            ),
            at=lambda location: RecordingJobService(self.hook(location).jobs(), self.known),
            owns=lambda: still_owns(ti, token),
            note=self.known.note,
        )

    def batch(self, context: Context, hook: VertexBatchHook, **parts: Any) -> Batch:
        """Return this task's batch.

        :param parts: further arguments of `core.batch.Batch`.
        """
        from airflow_vertex_batch.core.batch import Batch

        given = {"start": self.start(context), "folder": self.folder(context), "policy": self.policy(hook)}
        buyer = self.buyer(context, hook)
        return Batch(buyer=buyer, warehouse=hook.warehouse(), tell=context["ti"].xcom_push, **{**given, **parts})

    def policy(self, hook: VertexBatchHook) -> Policy:
        """Return the author's settings for the batch."""
        from airflow_vertex_batch.core.progress import Policy

        return Policy(budget=self.budget(), prices=price_table(hook.store()))

    def start(self, context: Context, upstream: str | None = None) -> Start:
        """Return the facts that an attempt begins with.

        :param upstream: the generation of the task whose jobs are taken over; None if this task buys the jobs.
        """
        from airflow_vertex_batch.core.purchase.decide import OnClear
        from airflow_vertex_batch.core.purchase.fold import Start

        return Start(
            generation=generation_of(context),
            upstream=upstream or "",
            rounds=self.repair_rounds,
            on_clear=OnClear(self.on_clear),
            alone=upstream is not None,
        )

    def budget(self) -> Budget | None:
        """Return the limit, if there is one."""
        from airflow_vertex_batch.core.money.estimate import Budget

        return Budget.of(self.max_cost_usd, self.on_over_budget)

    def execute_answered(
        self, context: Context, event: dict[str, Any], question: str, of_round: int, attempt: dict[str, Any]
    ) -> Any:
        """Go on with a person's answer to `question`: about the whole batch, or about repair round `of_round`."""
        from airflow_vertex_batch.core.progress import Attempt

        with fail_or_retry():
            answer = Answer.of(event)
            batch = self.batch(context, self.hook())
            batch.answered(question, answer.by, approved=answer.approved, of_round=of_round, why=answer.why)
            return self.go_on(context, Attempt.from_dict(attempt), since=answer.at)

    def go_on(self, context: Context, attempt: Attempt, *, since: float | None = None) -> Any:
        """Go as far as possible. Meanwhile this attempt is responsible for the jobs.

        :param since: when a person answered, seconds since the epoch. The time of this attempt counts from then.
        """
        raise NotImplementedError


class RepairingOperator(VertexBatchBaseOperator):
    """Base of operators that send rows again.

    :param repair_rounds: how often rows without a good answer are sent again, 0 (default) to 10. A round that gives no
        row a good answer is the last.
    :param repair_actions: what to do with a row of each status: ``as_is``, ``more_tokens`` (``maxOutputTokens``
        doubled, up to `repair_max_output_tokens`) or ``give_up``. If not given: ``truncated`` gets more tokens;
        ``blocked`` is given up; ``failed``, ``invalid_output``, ``missing``, ``expired`` and ``cancelled`` are sent
        unchanged. A row whose error never heals (``INVALID_ARGUMENT``, ``RECITATION`` and the like) is never sent
        again.
    :param repair_max_output_tokens: the cap of ``more_tokens``, 1 to 65,536 tokens (the service's own limit,
        2026-11-22); 65,536 if not given.
    :param repair_by: ``requests`` (default) sends request files of the bad rows. ``resume`` lets the service complete
        its own output file, for failed rows that have a line in it.
    """

    def __init__(
        self,
        *,
        repair_rounds: int = 0,
        repair_actions: Mapping[str, Literal["as_is", "more_tokens", "give_up"]] | None = None,
        repair_max_output_tokens: int = 65_536,
        repair_by: Literal["requests", "resume"] = "requests",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.repair_rounds, self.repair_actions = repair_rounds, repair_actions
        self.repair_max_output_tokens, self.repair_by = repair_max_output_tokens, repair_by
        if not 0 <= repair_rounds <= 10:  # noqa: PLR2004 - the documented range
            raise InputError(f"repair_rounds={repair_rounds}", todo="Use 0 to 10")
        if not 1 <= repair_max_output_tokens <= 65_536:  # noqa: PLR2004 - the documented range
            raise InputError(f"repair_max_output_tokens={repair_max_output_tokens}", todo="Use 1 to 65,536 tokens")
        if repair_by not in {"requests", "resume"}:
            raise InputError(f"repair_by={repair_by!r} is not known", todo="Use 'requests' or 'resume'")
        has_cap = repair_max_output_tokens != 65_536  # noqa: PLR2004 - the documented default
        if (repair_actions or has_cap) and not self.repair_policy().raises_tokens and has_cap:
            raise InputError(
                f"Task {self.task_id} has repair_max_output_tokens, and repair_actions gives no row more tokens",
                todo="Let one of the repair_actions be 'more_tokens', or leave the cap out",
            )

    def repair_policy(self) -> RepairPolicy:
        """Return which rows are sent again, and how."""
        from airflow_vertex_batch.core.answers.repair import RepairPolicy

        return RepairPolicy.of(
            self.repair_actions,
            max_output_tokens=self.repair_max_output_tokens,
            resume=self.repair_by == "resume",
        )


def read_manifest(value: Any) -> Manifest | None:
    """Return the manifest that a task was given, if any."""
    from airflow_vertex_batch.core.domain.manifest import Manifest

    return Manifest.from_dict(value) if value is not None else None


def price_table(store: ObjectStore, prices_file: str | None = None) -> PriceTable:
    """Return the valid prices: the prices of this package, overridden by a task's file or by ``[vertex_batch]
    prices_file``.

    :raises InputError: when the file cannot be read as prices.
    """
    from airflow_vertex_batch.core.money.prices import PriceTable

    return PriceTable.load(store, prices_file or Settings.read().prices_file)
