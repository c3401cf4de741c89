"""What do several of the operators take? Parameters documented once, with what follows from them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.answering import AnsweringOperator, Noting
from airflow_vertex_batch.base import VertexBatchBaseOperator, attempt_token, generation_of, identity_of, skip, texts
from airflow_vertex_batch.budget import BudgetGate, price_table
from airflow_vertex_batch.compat import own, still_owns, timetable_zone
from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.core.unrendered import check_cloud_address, check_folder, check_table
from airflow_vertex_batch.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_vertex_batch.core.answers import Answers
    from airflow_vertex_batch.core.collect import OnLostOutput
    from airflow_vertex_batch.core.estimate import Budget
    from airflow_vertex_batch.core.model import Manifest
    from airflow_vertex_batch.core.ports import ObjectStore
    from airflow_vertex_batch.core.purchase import Buyer
    from airflow_vertex_batch.core.repair import RepairPolicy
    from airflow_vertex_batch.core.submit import Reuse
    from airflow_vertex_batch.hooks import VertexBatchHook


class AskingOperator(VertexBatchBaseOperator):
    """Base of what must know the model.

    :param model: ``gemini-…``, ``publishers/…/models/…``, or ``projects/…/locations/…/models/…`` for a tuned model.
        Templated.
    """

    def __init__(self, *, model: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model


class CheckingOperator(VertexBatchBaseOperator):
    """Base of what must know what an answer looks like.

    :param response_schema: a JSON Schema or a Pydantic model class: prepare asks for JSON of that shape, and every
        answer is checked against it. Where only answers are read, the manifest's own is used if this is not given.
    """

    def __init__(self, *, response_schema: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.response_schema = response_schema
        if response_schema is not None:
            from airflow_vertex_batch.core.schema import json_schema
            from airflow_vertex_batch.core.schema import response_schema as api_schema

            api_schema(json_schema(response_schema))

    def schema(self) -> dict[str, Any] | None:
        """Return the JSON Schema of answers, or None."""
        from airflow_vertex_batch.core.schema import json_schema

        return json_schema(self.response_schema) if self.response_schema is not None else None


class LandingOperator(VertexBatchBaseOperator):
    """Base of what must know where answers land.

    :param destination_uri: ``gs://`` folder for files. Templated.
    :param destination_table: ``bq://project.dataset.table``, made if it does not exist, partitioned by
        ``partition_date``. Rows are merged on ``partition_date`` and ``row_key``. Templated.
    :param partition_date: the day the rows belong to: YYYY-MM-DD, or what ``{{ ds_nodash }}`` and ``{{ ts }}`` become;
        the run's own (`macros.partition_date`) where not given. Templated.
    """

    def __init__(
        self,
        *,
        destination_uri: str | None = None,
        destination_table: str | None = None,
        partition_date: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.destination_uri, self.destination_table = destination_uri, destination_table
        self.partition_date = partition_date
        check_folder(destination_uri, "destination_uri")
        check_table(destination_table, "destination_table", self.project_id)

    def day(self, context: Context) -> str:
        """Return the day that the rows belong to, as YYYY-MM-DD.

        :raises InputError: when what was given is no day.
        """
        from airflow_vertex_batch.core.days import read_day
        from airflow_vertex_batch.macros import partition_date

        if self.partition_date is None:
            return partition_date(context)
        return read_day(self.partition_date, timetable_zone(context.get("dag")), "partition_date")

    def check_destination(self, context: Context, hook: VertexBatchHook) -> None:
        """Ask whether answers can land, and for which day, if this task knows where.

        :raises InputError: when they cannot, or the day is none.
        """
        from airflow_vertex_batch.core.address import TableId, cloud_folder
        from airflow_vertex_batch.core.preflight import check_destination

        if self.destination_table is not None:
            destination = TableId.parse(self.destination_table, self.project_id or "").uri
        elif self.destination_uri is not None:
            destination = str(cloud_folder(self.destination_uri, "destination_uri"))
        else:
            return
        self.day(context)
        check_destination(destination, hook.doctor(), project=hook.project, location=hook.location)

    def answers(self, hook: VertexBatchHook) -> Answers:
        """Return the good answers that have landed at the destination."""
        from airflow_vertex_batch.core.address import TableId, cloud_folder
        from airflow_vertex_batch.core.answers import FileAnswers, TableAnswers

        if self.destination_table is not None:
            return TableAnswers(hook.warehouse(), TableId.parse(self.destination_table, self.project_id or ""))
        return FileAnswers(hook.store(), cloud_folder(str(self.destination_uri), "destination_uri"))


class ReadingOperator(VertexBatchBaseOperator):
    """Base of what reads the answers of jobs.

    :param on_lost_output: when the service counted rows that the output of a job does not hold: ``fail`` (default) ends
        this attempt, and lands, overwrites and buys nothing; the next one asks for the job and looks again. ``land`` is
        for an output that is lost for good: what is there lands, the other rows end as ``missing``, and go again where
        `repair_rounds` says so.
    """

    def __init__(self, *, on_lost_output: str = "fail", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.on_lost_output = on_lost_output
        if on_lost_output not in {"fail", "land"}:
            raise InputError(f"on_lost_output={on_lost_output!r} is not known", todo="Use 'fail' or 'land'")

    def lost_output(self) -> OnLostOutput:
        """Return what to do about an output that does not hold what the service counted."""
        from airflow_vertex_batch.core.collect import OnLostOutput

        return OnLostOutput(self.on_lost_output)


class BuyingOperator(AskingOperator, AnsweringOperator):
    """Base of what creates jobs, each once.

    :param output_uri: ``gs://`` folder, or ``bq://project.dataset[.table]``; a folder in the staging folder where not
        given. Each job of a manifest gets its own folder or table below it. Templated.
    :param display_name: readable name, up to 128 characters; dag, task and run where not given. Templated.
    :param labels: further job labels; keys and values of lower-case letters, digits, ``_`` and ``-``. Templated.
    :param on_changed_input: when this task's running job was made from other input: ``resubmit`` (default) cancels it
        and creates a new one, ``fail`` does nothing.
    :param on_clear: what a person means by clearing a task that has paid. ``attach`` (default) lands again what was
        paid for, and pays nothing. ``repair`` also sends the rows that are still without a good answer once more.
        ``new`` buys the whole again, cancels the job before it if that still runs, and says in the log which one it
        replaces. A retry is never taken for a clear. Where create and repair are tasks of their own, ``repair`` is the
        repair task's doing and ``new`` the create task's: clear it with the tasks after it.
    :param settle_seconds: how long after an interrupted create call its job may still appear, 30 to 3600 seconds.
    :param max_cost_usd: the most the batch may cost, US dollars; no limit where not given. The upper figure of the
        estimate is compared with it before anything is paid, so set ``maxOutputTokens`` too. Once a job of the batch
        was bought, its other jobs always pass. Needs a manifest.
    :param on_over_budget: above the limit, or when the cost is not known: ``fail`` (default), ``skip`` this task, or
        ``ask`` a person to approve in the Airflow UI; `execution_timeout` then counts from the answer. An approval
        holds for retries of the same batch. A repair round above the limit is given up, and what there is lands, unless
        a person who was asked approves it.
    """

    def __init__(
        self,
        *,
        output_uri: str | None = None,
        display_name: str | None = None,
        labels: dict[str, str] | None = None,
        on_changed_input: str = "resubmit",
        on_clear: str = "attach",
        settle_seconds: float = 90.0,
        max_cost_usd: float | None = None,
        on_over_budget: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.output_uri, self.display_name, self.labels = output_uri, display_name, labels
        self.on_changed_input, self.on_clear, self.settle_seconds = on_changed_input, on_clear, settle_seconds
        self.max_cost_usd, self.on_over_budget = max_cost_usd, on_over_budget
        self.budget()
        check_cloud_address(output_uri, "output_uri")
        if not self.model:
            raise InputError(f"Task {self.task_id} has no model", todo="Set model='gemini-…'")
        if on_changed_input not in {"resubmit", "fail"}:
            raise InputError(f"on_changed_input={on_changed_input!r} is not known", todo="Use 'resubmit' or 'fail'")
        if on_clear not in {"attach", "repair", "new"}:
            raise InputError(f"on_clear={on_clear!r} is not known", todo="Use 'attach', 'repair' or 'new'")
        # One create call may take 30 s; before that is over, an absent job says nothing.
        if not 30 <= settle_seconds <= 3600:  # noqa: PLR2004 - the documented range
            raise InputError(f"settle_seconds={settle_seconds}", todo="Use 30 to 3600 seconds")

    def output_of(self, context: Context) -> str:
        """Return where the jobs of this task write."""
        return self.output_uri or str(self.folder(context) / "output")

    def buyer(self, context: Context, hook: VertexBatchHook, inputs: str | Sequence[str] | None = None) -> Buyer:
        """Return what buys this task's jobs.

        :param inputs: ready input, where there is no manifest.
        """
        from airflow_vertex_batch.core.model import JobSpec
        from airflow_vertex_batch.core.purchase import Buyer, display_name
        from airflow_vertex_batch.core.submit import OnChangedInput, Terms

        identity, ti = identity_of(context, str(self.staging())), context["ti"]
        token = own(ti)
        spec = JobSpec(
            display_name=self.display_name or display_name(identity),
            model=str(self.model),
            inputs=texts(inputs) if inputs else (),
            output=self.output_of(context),
            labels=self.labels or {},
        )
        return Buyer(
            base=spec,
            identity=identity,
            store=hook.store(),
            service=Noting(hook.jobs(), self.known),
            ledgers=self.staging() / "ledger",
            attempt=attempt_token(),
            terms=Terms(
                settle_seconds=self.settle_seconds,
                on_changed_input=OnChangedInput(self.on_changed_input),
                edition=generation_of(context),
                renew=self.on_clear == "new",
            ),
            at=lambda location: Noting(self.hook(location).jobs(), self.known),
            owns=lambda: still_owns(ti, token),
            note=self.known.note,
            installation=Settings.read().installation,
        )

    def budget(self) -> Budget | None:
        """Return the limit, if there is one."""
        from airflow_vertex_batch.core.estimate import Budget

        return Budget.of(self.max_cost_usd, self.on_over_budget)

    def gate(self, context: Context, store: ObjectStore) -> BudgetGate:
        """Return what stands between this task and spending more than its limit."""
        return BudgetGate(self.budget(), store, self.staging(), identity_of(context))

    def warn(self, sentences: Sequence[str]) -> None:
        """Say what the author should know before a job is created; it does not stop the task."""
        for sentence in sentences:
            self.log.warning("%s.", sentence)

    def check_budget(self, context: Context, manifest: Manifest, buyer: Buyer, reuse: Reuse) -> None:
        """Say what the batch will cost, and stop above the limit unless a job of it was bought."""
        from airflow.sdk.exceptions import AirflowSkipException

        from airflow_vertex_batch.core.estimate import estimate_cost

        estimate = estimate_cost(manifest, str(self.model), price_table(buyer.store), datetime.now(UTC))
        self.log.info("%s.", estimate)
        self.warn(estimate.warnings)
        context["ti"].xcom_push("estimate", estimate.as_dict())
        try:
            self.gate(context, buyer.store).check(
                context,
                estimate,
                purchase=f"{manifest.fingerprint} {buyer.terms.edition}" if buyer.terms.renew else manifest.fingerprint,
                would_buy=lambda: buyer.would_begin(manifest, reuse=reuse),
            )
        except AirflowSkipException as over:
            skip(context, str(over))


class RepairingOperator(VertexBatchBaseOperator):
    """Base of what sends rows again.

    :param repair_rounds: how often rows without a good answer go again, 0 (default) to 10. A round that gives no row
        a good answer is the last.
    :param repair_actions: what is done about a row by its status: ``as_is``, ``more_tokens`` (``maxOutputTokens``
        doubled, up to `repair_max_output_tokens`) or ``give_up``. Where not given: ``truncated`` gets more tokens,
        ``blocked`` is given up, ``failed``, ``invalid_output``, ``missing``, ``expired`` and ``cancelled`` go as they
        were. A row whose error never heals (``INVALID_ARGUMENT``, ``RECITATION`` and the like) is never sent again.
    :param repair_max_output_tokens: the cap of ``more_tokens``, 1 to 65,536 tokens (the service's own limit,
        2026-11-22); 65,536 where not given.
    :param repair_by: ``requests`` (default) sends request files of the bad rows; ``resume`` lets the service complete
        its own output file where rows failed with a line of their own.
    """

    def __init__(
        self,
        *,
        repair_rounds: int = 0,
        repair_actions: Mapping[str, str] | None = None,
        repair_max_output_tokens: int = 65_536,
        repair_by: str = "requests",
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
        """Return which rows go again, and how."""
        from airflow_vertex_batch.core.repair import RepairPolicy

        return RepairPolicy.of(
            self.repair_actions,
            max_output_tokens=self.repair_max_output_tokens,
            resume=self.repair_by == "resume",
        )


def read_manifest(value: Any) -> Manifest | None:
    """Return the manifest that a task was given, if any."""
    from airflow_vertex_batch.core.model import Manifest

    return Manifest.from_dict(value) if value is not None else None
