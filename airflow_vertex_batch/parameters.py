"""What may be given, and of which type? All parameters, for editors and type checkers.

This module is not loaded when a DAG file is read. The class that takes a parameter documents it. A test compares the
names here with the names there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Required, TypeAlias, TypedDict

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, MutableMapping, Sequence
    from datetime import date, datetime, timedelta

    from airflow.sdk import DAG, TaskGroup
    from airflow.sdk.definitions.xcom_arg import XComArg

#: A text, a template of one, or the output of a task.
Text: TypeAlias = "str | XComArg"
#: Several of them.
Texts: TypeAlias = "str | Sequence[str] | XComArg"
#: Seconds.
Duration: TypeAlias = "float | timedelta"


class TaskParameters(TypedDict, total=False):
    """What every task of Airflow takes, except its name."""

    owner: str
    email: str | Sequence[str] | None
    email_on_retry: bool
    email_on_failure: bool
    retries: int | None
    retry_delay: timedelta | float
    retry_exponential_backoff: float
    max_retry_delay: timedelta | float | None
    retry_policy: Any
    start_date: datetime | None
    end_date: datetime | None
    depends_on_past: bool
    ignore_first_depends_on_past: bool
    wait_for_past_depends_before_skipping: bool
    wait_for_downstream: bool
    dag: DAG | None
    params: MutableMapping[str, Any] | None
    default_args: dict[str, Any] | None
    priority_weight: int
    weight_rule: Any
    queue: str
    pool: str | None
    pool_slots: int
    sla: timedelta | None
    execution_timeout: timedelta | None
    on_execute_callback: Any
    on_failure_callback: Any
    on_success_callback: Any
    on_retry_callback: Any
    on_skipped_callback: Any
    pre_execute: Any
    post_execute: Any
    trigger_rule: str
    resources: dict[str, Any] | None
    run_as_user: str | None
    map_index_template: str | None
    max_active_tis_per_dag: int | None
    max_active_tis_per_dagrun: int | None
    executor: str | None
    executor_config: dict[str, Any] | None
    do_xcom_push: bool
    multiple_outputs: bool
    inlets: Any
    outlets: Any
    task_group: TaskGroup | None
    doc: str | None
    doc_md: str | None
    doc_json: str | None
    doc_yaml: str | None
    doc_rst: str | None
    task_display_name: str | None
    logger_name: str | None
    allow_nested_operators: bool
    render_template_as_native_obj: bool | None


class NamedTaskParameters(TaskParameters, total=False):
    """What every task of Airflow takes."""

    task_id: Required[str]


class SensorParameters(TypedDict, total=False):
    """What every sensor of Airflow takes in addition, as far as our sensor uses it."""

    timeout: timedelta | float
    soft_fail: bool
    mode: Literal["poke", "reschedule"]


class StepParameters(TypedDict, total=False):
    """What the tasks of a group take, by step."""

    preflight: TaskParameters
    prepare: TaskParameters
    create: TaskParameters
    wait: TaskParameters
    repair: TaskParameters
    export: TaskParameters


class CommonParameters(TypedDict, total=False):
    """Parameters of every task of ours."""

    gcp_conn_id: str
    impersonation_chain: Texts | None
    project_id: Text | None
    location: Text | None
    staging_uri: Text | None
    retries: int | None


class ModelParameters(TypedDict, total=False):
    """Parameters of operators that must know the model."""

    model: Text | None


class SchemaParameters(TypedDict, total=False):
    """Parameters of operators that must know the form of an answer."""

    response_schema: dict[str, Any] | type[Any] | None


class DestinationParameters(TypedDict, total=False):
    """Parameters of operators that must know where answers land."""

    destination: Text | None
    partition_date: Text | date | int | None


class ReadingParameters(TypedDict, total=False):
    """Parameters of operators that read the answers of jobs."""

    on_lost_output: Literal["fail", "land"]


class BuyingParameters(TypedDict, total=False):
    """Parameters of operators that create jobs."""

    output_uri: Text | None
    display_name: Text | None
    labels: dict[str, str] | XComArg | None
    on_changed_input: Literal["resubmit", "fail"]
    on_clear: Literal["attach", "repair", "new"]
    settle_seconds: Duration
    max_cost_usd: float | None
    on_over_budget: Literal["fail", "skip", "ask"]


class RepairingParameters(TypedDict, total=False):
    """Parameters of operators that send rows again."""

    repair_rounds: int
    repair_actions: Mapping[str, Literal["as_is", "more_tokens", "give_up"]] | None
    repair_max_output_tokens: int
    repair_by: Literal["requests", "resume"]


class WaitingParameters(TypedDict, total=False):
    """Parameters of operators that wait for jobs."""

    deferrable: bool
    poll_interval: Duration | None
    job_timeout: Duration
    on_timeout: Literal["cancel", "fail", "keep"]
    queue_warning: Duration | None
    queue_timeout: Duration | None
    elsewhere: Sequence[Mapping[str, str]] | None
    cancel_on_kill: bool


class SourceParameters(TypedDict, total=False):
    """Parameters of operators that read rows."""

    sql: Text | None
    sql_parameters: Mapping[str, Any] | Sequence[Any] | XComArg | None
    sql_conn_id: Text | None
    table: Text | None
    files: Texts | None
    files_format: Literal["", "jsonl", "csv", "parquet"]
    objects: Text | None
    rows: Any
    requests: Texts | None


class PreparingParameters(TypedDict, total=False):
    """Parameters of operators that make requests from rows."""

    prompt: Text
    prompt_variables: Mapping[str, Any] | XComArg | None
    system_instruction: Text | dict[str, Any] | None
    generation_config: dict[str, Any] | XComArg | None
    tools: list[dict[str, Any]] | XComArg | None
    safety_settings: list[dict[str, Any]] | XComArg | None
    media_columns: Sequence[str] | Mapping[str, str] | XComArg | None
    key_column: Text | None
    columns: Sequence[str] | XComArg
    on_rejected_row: Literal["fail", "dead_letter"]
    max_rejected_ratio: float
    on_empty: Literal["fail", "skip", "succeed"]
    on_null: Literal["reject", "empty"]
    lint_ignore: Sequence[str]
    fix_requests: bool
    deduplicate: bool
    skip_answered: bool
    correlation: Literal["contents", "label"]
    max_requests_per_job: int


class ExportingParameters(TypedDict, total=False):
    """Parameters of operators that land rows."""

    dead_letters: Text | None
    file_format: Literal["jsonl", "parquet"] | None
    replace_partition: bool
    max_failed_ratio: float | None
    min_succeeded_rows: int | None


class NamedCommonParameters(NamedTaskParameters, CommonParameters, total=False):
    """Parameters of every operator of ours, with its name."""


class PrepareSharedParameters(
    NamedCommonParameters, ModelParameters, SchemaParameters, DestinationParameters, total=False
):
    """Shared parameters of `VertexBatchPrepareOperator` and of the preflight."""


class CreateSharedParameters(NamedCommonParameters, ModelParameters, BuyingParameters, total=False):
    """Shared parameters of `VertexBatchCreateJobOperator`."""


class WaitSharedParameters(NamedCommonParameters, SensorParameters, WaitingParameters, total=False):
    """Shared parameters of `VertexBatchJobSensor`."""


class RepairSharedParameters(
    CreateSharedParameters, WaitingParameters, RepairingParameters, SchemaParameters, ReadingParameters, total=False
):
    """Shared parameters of `VertexBatchRepairOperator`."""


class ExportSharedParameters(
    NamedCommonParameters, SchemaParameters, DestinationParameters, ReadingParameters, total=False
):
    """Shared parameters of `VertexBatchExportOperator`."""


class _Batch(
    CommonParameters,
    SchemaParameters,
    DestinationParameters,
    ReadingParameters,
    BuyingParameters,
    RepairingParameters,
    WaitingParameters,
    PreparingParameters,
    ExportingParameters,
    total=False,
):
    """Parameters of a whole batch, except its source."""


class BatchParameters(_Batch, SourceParameters, NamedTaskParameters, ModelParameters, total=False):
    """Parameters of `VertexBatchOperator`."""


class DecoratorParameters(_Batch, TaskParameters, ModelParameters, total=False):
    """Parameters of ``@task.vertex_batch``."""

    task_id: str


class CanaryParameters(TypedDict, total=False):
    """Parameters of the preflight."""

    canary: bool
    canary_row: dict[str, Any] | None
    allowed_failures: Collection[str]


class GroupParameters(_Batch, SourceParameters, SensorParameters, CanaryParameters, total=False):
    """Parameters of `vertex_batch`, except the model."""

    start_from_trigger: bool
