"""What is already wrong with an argument that Airflow has not rendered yet? Addresses, as far as their text goes.

Asked when the DAG file is read: a mistake is found there, and not by the task that lands paid answers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.address import TableId, check_place, cloud_folder
from airflow_vertex_batch.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TEMPLATE = re.compile(r"{[{%#]")
#: Takes the place of a project that the connection may name.
_SOME_PROJECT = "some-project"


def is_template(value: Any) -> bool:
    """Whether a text is one that Airflow renders."""
    return isinstance(value, str) and _TEMPLATE.search(value) is not None


def check_folder(value: Any, name: str) -> None:
    """Check the address of a folder in Cloud Storage.

    :param value: as the author gave it; what is no text stands for one that comes later.
    :param name: the argument, for the error.
    :raises InputError: when it is none, whatever its templates become.
    """
    if isinstance(value, str) and not (is_template(value) and _may_begin(value, ("gs://",))):
        cloud_folder(value, name)


def check_cloud_address(value: Any, name: str) -> None:
    """Check what may be an address in Cloud Storage or in BigQuery (``gs://`` or ``bq://``).

    :param value: as the author gave it.
    :raises InputError: when it is neither, whatever its templates become.
    """
    if isinstance(value, str) and not _may_begin(value, ("gs://", "bq://")):
        raise InputError(
            f"{name}={value!r} is an address neither in Cloud Storage nor in BigQuery",
            todo=f"Write it as {name}='gs://bucket/folder' or {name}='bq://project.dataset'",
        )


def check_table(value: Any, name: str, project: Any = None) -> None:
    """Check the name of a table.

    :param value: as the author gave it.
    :param project: the task's own; the connection may name it where it is not given.
    :raises InputError: when it is none; where it holds a template, nothing can be said.
    """
    if not isinstance(value, str) or is_template(value):
        return
    try:
        TableId.parse(value, _SOME_PROJECT if project is None or is_template(project) else project)
    except InputError as error:
        raise InputError(f"{name}: {error.what}", todo=error.todo) from error


def check_location(value: Any) -> None:
    """Check the name of a location.

    :raises InputError: when it is none.
    """
    if isinstance(value, str) and not is_template(value):
        check_place("", value)


def refuse_idle(task_id: str, given: Mapping[str, Any], *, why: str, todo: str) -> None:
    """Refuse arguments that this task would never use: whoever gave them means something by them.

    :param given: by name, as the author gave them; what is empty or None was not given.
    :param why: what the task lacks, or has, that they would go with.
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


def _may_begin(text: str, schemes: Sequence[str]) -> bool:
    """Whether a text begins with one of some schemes, or may do so once it is rendered."""
    head = _TEMPLATE.split(text, maxsplit=1)[0]
    return any(head.startswith(scheme) or (head != text and scheme.startswith(head)) for scheme in schemes)
