"""If an operator or `vertex_batch()` does not know an argument, where does the argument belong?

People know the words of Airflow, of Google's clients and of other batch APIs. For such a word the error says where to
put it. For any other word it suggests our name with the most similar spelling.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from airflow.sdk import BaseOperator

from airflow_vertex_batch.core.domain.errors import InputError

#: Fields of the API's ``GenerationConfig`` by the names of Google's Python clients and of other APIs
#: (https://docs.cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerationConfig, 2026-11-28).
_GENERATION = {
    "temperature": '"temperature": …',
    "top_p": '"topP": …',
    "top_k": '"topK": …',
    "seed": '"seed": …',
    "max_output_tokens": '"maxOutputTokens": …',
    "max_tokens": '"maxOutputTokens": …',
    "candidate_count": '"candidateCount": …',
    "stop_sequences": '"stopSequences": […]',
    "presence_penalty": '"presencePenalty": …',
    "frequency_penalty": '"frequencyPenalty": …',
    "response_mime_type": '"responseMimeType": …',
    "response_modalities": '"responseModalities": […]',
    "thinking_budget": '"thinkingConfig": {"thinkingBudget": …}',
    "thinking_level": '"thinkingConfig": {"thinkingLevel": …}',
    "thinking_config": '"thinkingConfig": {…}',
    "media_resolution": '"mediaResolution": …',
    "speech_config": '"speechConfig": {…}',
}
_DESTINATION = "destination='bq://project.dataset.table' or destination='gs://bucket/folder'"
_SOURCE = "files='gs://…' for rows, requests='gs://…' for ready-made requests, or table='bq://…'"
#: Names from elsewhere, and our parameter for each.
_OURS = {
    **dict.fromkeys(("conn_id", "google_cloud_conn_id", "google_conn_id", "connection_id"), "gcp_conn_id='…'"),
    **dict.fromkeys(("region", "vertex_location"), "location='…'"),
    **dict.fromkeys(("project", "gcp_project", "gcp_project_id"), "project_id='…'"),
    **dict.fromkeys(("output", "dest", "output_table", "output_path", "destination_path"), _DESTINATION),
    **dict.fromkeys(("input", "src", "source", "input_files", "input_path", "source_uri", "source_table"), _SOURCE),
    **dict.fromkeys(("query", "bql"), "sql='…'"),
    **dict.fromkeys(("model_name", "model_id"), "model='…'"),
    **dict.fromkeys(("schema", "output_schema", "response_json_schema", "response_format"), "response_schema=…"),
    **dict.fromkeys(("system_prompt", "system", "system_message"), "system_instruction='…'"),
    **dict.fromkeys(("prompt_template", "template"), "prompt='…'"),
    **dict.fromkeys(("budget", "max_cost", "max_usd"), "max_cost_usd=…"),
    **dict.fromkeys(("bucket", "gcs_bucket", "staging_bucket", "temp_location"), "staging_uri='gs://bucket/folder'"),
    **dict.fromkeys(("job_name", "job_display_name"), "display_name='…'"),
    **dict.fromkeys(("key", "id_column", "row_key"), "key_column='…'"),
    **dict.fromkeys(("polling_interval", "check_interval", "poke_interval"), "poll_interval=…"),
    **dict.fromkeys(("repair", "max_repairs"), "repair_rounds=…"),
}  # fmt: skip
#: Arguments that Airflow itself passes when it makes a decorated or mapped task (3.3.2).
_BETWEEN = frozenset({"default_args", "is_setup", "is_teardown", "on_failure_fail_dagrun"})
#: Arguments of every task.
_AIRFLOWS = frozenset(inspect.signature(BaseOperator.__init__).parameters) - {"self", "kwargs"}


def refuse_unknown(kind: Any, given: Collection[str]) -> None:
    """Refuse arguments that an operator does not know, as Airflow would, and say where they belong.

    :raises InputError: for the first of them.
    """
    known = _known(kind)
    is_mapped = "_airflow_from_mapped" in given
    for name in given:
        # The arguments of a mapped task include the DAG's default_args.
        if name in kind.refused and not is_mapped:
            raise InputError(
                f"{name} means nothing to {kind.__name__}", todo=kind.refused[name]
            ).put_advice_on_own_line()
        if name not in known and name not in _BETWEEN and not name.startswith("_"):
            raise unknown_argument(kind.__name__, name, known - _AIRFLOWS)


@functools.cache
def _known(kind: Any) -> frozenset[str]:
    found = {name for cls in kind.__mro__ for name in inspect.signature(cls.__init__).parameters}
    return frozenset(found) - {"self", "kwargs", "args"}


class Signature:
    """The signature of an operator in ``help()`` and documentation: each parameter by its name, those of every task
    last.
    """

    def __get__(self, _instance: object, owner: Any) -> inspect.Signature:
        """Return the signature of a class of operators."""
        return _signature(owner)


@functools.cache
def _signature(kind: Any) -> inspect.Signature:
    found: dict[str, inspect.Parameter] = {}
    for cls in kind.__mro__:
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if name not in {"self", "kwargs", "args", *kind.set_inside, *kind.refused}:
                found.setdefault(name, parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    return inspect.Signature(list(found.values()))


def unknown_argument(owner: str, name: str, known: Iterable[str], *, is_group: bool = False) -> InputError:
    """Return the error for an unknown argument, with the place where it belongs.

    :param owner: the operator or function that was called.
    :param known: the names that can be given.
    :param is_group: whether several tasks are made. Then arguments of every task go into `task_args`.
    """
    todo = _hint(name, sorted(known), is_group=is_group)
    return InputError(f"{owner} knows no argument {name!r}", todo=todo).put_advice_on_own_line()


def _hint(name: str, known: list[str], *, is_group: bool) -> str:
    if is_group and name == "task_id":
        return "A group has no task_id; name it with group_id='…'"
    if is_group and name in _AIRFLOWS:
        return f"It is an argument of every task: {_in_task_args(name)}"
    if name in _GENERATION:
        return f"It belongs into the request: generation_config={{{_GENERATION[name]}}}"
    if name in _OURS:
        return f"Write {_OURS[name]}"
    near = get_close_matches(name, sorted({*known, *_AIRFLOWS}), n=1)
    if near:
        return f"Did you mean {near[0] if near[0] in known or not is_group else _in_task_args(near[0])}?"
    return f"Known are {', '.join(known)}{'; arguments of every task go into task_args' if is_group else ''}"


def _in_task_args(name: str) -> str:
    return f"task_args={{'{name}': …}}"


def unknown_in_task_args(given: Iterable[str], steps: Mapping[str, frozenset[str]]) -> InputError | None:
    """Return the error for the first name in `task_args` that not every step knows.

    :param given: the names in `task_args`.
    :param steps: the names that each step can be given.
    """
    of_all = (_AIRFLOWS | frozenset.intersection(*steps.values())) - {"task_id"}
    for name in given:
        if name not in of_all:
            todo = _hint_in_task_args(name, of_all, frozenset().union(*steps.values()))
            return InputError(
                f"task_args has {name!r}, which is no argument of every task", todo=todo
            ).put_advice_on_own_line()
    return None


def unknown_in_step_args(given: Mapping[str, Any], steps: Mapping[str, frozenset[str]]) -> InputError | None:
    """Return the error for the first step in `step_args` that does not exist, or for the first name that no task knows.

    :param given: arguments of tasks, by step.
    :param steps: the names that each step can be given.
    """
    of_tasks = _AIRFLOWS - {"task_id"}
    for step, arguments in given.items():
        if step not in steps:
            return InputError(
                f"step_args names no step {step!r}", todo=f"The steps are {', '.join(steps)}"
            ).put_advice_on_own_line()
        if not isinstance(arguments, Mapping):
            what = f"step_args of {step} is a {type(arguments).__name__}"
            return InputError(
                what, todo=f'Give a dict, such as {{"{step}": {{"pool": "vertex"}}}}'
            ).put_advice_on_own_line()
        for name in arguments:
            if name not in of_tasks:
                todo = _hint_in_task_args(name, of_tasks, frozenset().union(*steps.values()), "step_args")
                return InputError(
                    f"step_args of {step} has {name!r}, which is no argument of every task", todo=todo
                ).put_advice_on_own_line()
    return None


def _hint_in_task_args(name: str, of_all: frozenset[str], of_some: frozenset[str], beside: str = "task_args") -> str:
    if name == "task_id":
        return "The steps have their names; name the group with group_id='…'"
    if name in of_some:
        return f"Write it beside {beside}: vertex_batch(…, {name}=…)"
    near = get_close_matches(name, sorted(of_all), n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Only arguments of every Airflow task go there: {', '.join(sorted(of_all & _AIRFLOWS))}"
