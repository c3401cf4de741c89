"""What is already wrong with an argument that Airflow has not rendered yet? Addresses are checked, as far as their text
is known.

This is asked when the DAG file is read. A mistake is found there, and not by the task that lands paid answers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.domain.address import TableId, check_place, cloud_folder, model_path, refuse_wildcards
from airflow_vertex_batch.core.domain.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

_TEMPLATE = re.compile(r"{[{%#]")
#: The parts of a text that Airflow replaces.
_RENDERED = re.compile(r"{{.*?}}|{%.*?%}|{#.*?#}", re.DOTALL)
#: Code points of a label (https://cloud.google.com/compute/docs/labeling-resources, 2026-11-22).
_MAX_LABEL = 64
#: Most labels of a job (same page), and how many of them are our own: six by which it is found, and its dag and
#: task.
MAX_LABELS, OUR_LABELS = 64, 8
#: How the labels begin by which a job is found.
_RESERVED = "avb-"
#: Takes the place of a project that the connection may name.
_SOME_PROJECT = "some-project"


def is_template(value: Any) -> bool:
    """Whether a text is one that Airflow renders."""
    return isinstance(value, str) and _TEMPLATE.search(value) is not None


def check_folder(value: Any, name: str) -> None:
    """Check the address of a folder in Cloud Storage.

    :param value: as the author gave it. A value that is not a text is a placeholder for a later text.
    :param name: the argument, for the error.
    :raises InputError: when it cannot be such an address, whatever its templates become.
    """
    if isinstance(value, str) and is_template(value) and may_begin(value, ("gs://",)):
        refuse_wildcards(_RENDERED.sub("", value), name)
    elif isinstance(value, str):
        cloud_folder(value, name)


def check_cloud_address(value: Any, name: str) -> None:
    """Check what may be an address in Cloud Storage or in BigQuery (``gs://`` or ``bq://``).

    :param value: as the author gave it.
    :raises InputError: when it is neither, whatever its templates become.
    """
    if isinstance(value, str) and not may_begin(value, ("gs://", "bq://")):
        raise InputError(
            f"{name}={value!r} is an address neither in Cloud Storage nor in BigQuery",
            todo=f"Write it as {name}='gs://bucket/folder' or {name}='bq://project.dataset.table'",
        )


def check_output(value: Any, name: str) -> None:
    """Check where a job may write, in Cloud Storage or in BigQuery.

    :param value: as the author gave it.
    :raises InputError: when it is neither, or a folder whose name would be a pattern.
    """
    check_cloud_address(value, name)
    if isinstance(value, str):
        refuse_wildcards(_RENDERED.sub("", value), name)


def check_table(value: Any, name: str, project: Any = None) -> None:
    """Check the name of a table.

    :param value: as the author gave it.
    :param project: the task's own; the connection may name it where it is not given.
    :raises InputError: when it is not a table name. A name with a template is not checked.
    """
    if not isinstance(value, str) or is_template(value):
        return
    try:
        TableId.parse(value, _SOME_PROJECT if project is None or is_template(project) else project)
    except InputError as error:
        raise InputError(f"{name}: {error.what}", todo=error.todo) from error


def is_legal_label(text: str) -> bool:
    """Whether a label's key or value is legal: letters of every alphabet are allowed, but no capital letters."""
    return len(text) <= _MAX_LABEL and all(mark in "_-" or (mark.isalnum() and mark == mark.lower()) for mark in text)


def check_labels(value: Any) -> None:
    """Check labels, as far as they are no templates.

    :raises InputError: naming the first that the service would refuse, or that is one of our own.
    """
    if not isinstance(value, Mapping):
        return
    if len(value) > MAX_LABELS - OUR_LABELS:
        raise InputError(
            f"labels has {len(value)} members",
            why=f"A job has at most {MAX_LABELS} labels, and {OUR_LABELS} are our own",
            todo=f"Give at most {MAX_LABELS - OUR_LABELS}",
        )
    for key, text in value.items():
        wrong = [part for part in (key, text) if isinstance(part, str) and not is_template(part)]
        if str(key).startswith(_RESERVED):
            todo = f"Name it otherwise: jobs are found by the labels that begin with {_RESERVED}"
            raise InputError(f"labels={{{key!r}: {text!r}}} is one of our own", todo=todo)
        is_text = all(isinstance(part, str) or hasattr(part, "iter_references") for part in (key, text))
        if any(not is_legal_label(part) for part in wrong) or key == "" or not is_text:
            raise InputError(
                f"labels={{{key!r}: {text!r}}} is no label",
                todo=f"Use a text of lower-case letters, digits, '_' and '-', at most {_MAX_LABEL} characters",
            )


def check_location(value: Any) -> None:
    """Check the name of a location.

    :raises InputError: when it is not a location.
    """
    if isinstance(value, str) and not is_template(value):
        check_place("", value)


def check_project(value: Any) -> None:
    """Check the name of a project.

    :raises InputError: when it is not a project.
    """
    if isinstance(value, str) and not is_template(value):
        check_place(value, "global")


def check_model(value: Any) -> None:
    """Check the name of a model.

    :raises InputError: when it is not a model name.
    """
    if value and isinstance(value, str) and not is_template(value):
        model_path(value)


def check_plain(value: Any, name: str) -> None:
    """Check that a part of every request can be JSON.

    :param value: as the author gave it; what stands for a value that comes later may become one.
    :param name: the argument, and the way to this part of it.
    :raises InputError: naming what cannot.
    """
    if value is None or isinstance(value, str | bool | int) or hasattr(value, "iter_references"):
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            check_plain(item, f"{name}[{number}]")
    elif isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for key, item in value.items():
            check_plain(item, f"{name}.{key}")
    else:
        kind = "a member whose name is no text" if isinstance(value, dict) else f"a {type(value).__name__}"
        what = f"{name} is {value}" if isinstance(value, float) else f"{name} is {kind}"
        raise InputError(what, why="it cannot be JSON", todo=dump_of(value) or "Give texts, numbers, lists and dicts")


def dump_of(value: Any) -> str:
    """Say what to do with an object of Pydantic, such as google-genai's `Tool`; nothing of any other."""
    what = "Give what .model_dump(mode='json', by_alias=True, exclude_none=True) makes of it"
    return what if hasattr(value, "model_dump") else ""


def refuse_idle(task_id: str, given: Mapping[str, Any], *, why: str, todo: str) -> None:
    """Refuse arguments that this task would never use, because their author expects an effect.

    :param given: by name, as the author gave them; what is empty or None was not given.
    :param why: what the task lacks, or has, so that the arguments have no effect.
    :param todo: what to do instead.
    :raises InputError: naming those that were given.
    """
    names = [name for name, value in given.items() if not (value is None or value in ("", (), [], {}, False))]
    if names:
        raise InputError(
            f"Task {task_id} has {', '.join(names)}, which would do nothing",
            why=why,
            left="Nothing was sent",
            todo=todo,
        )


def may_begin(text: str, schemes: Sequence[str]) -> bool:
    """Whether a text begins with one of some schemes, or may do so once it is rendered."""
    head = _TEMPLATE.split(text, maxsplit=1)[0]
    return any(head.startswith(scheme) or (head != text and scheme.startswith(head)) for scheme in schemes)
