"""How do we name objects, tables, jobs and models that are kept elsewhere? As frozen addresses.

Invariant: parsing is the only way from text to an address, and `str()` is the only way back.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Self

import msgspec

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.upstream_value import items

#: A project by id or number; an old one may be domain-scoped, as in ``example.com:p``
#: (https://docs.cloud.google.com/resource-manager/docs/creating-managing-projects, 2026-11-28). Not held to Google's
#: length, since local servers take shorter ones.
_PROJECT = r"(?:[a-z0-9][a-z0-9.-]*:)?[a-z0-9][a-z0-9-]*"
#: A location becomes a part of the host name, so the pattern is strict: a token must not be sent to a foreign host.
_LOCATION = r"[a-z]+(?:-[a-z0-9]+)*"
#: https://docs.cloud.google.com/storage/docs/buckets#naming (2026-11-28), not held to its length.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]*")
#: https://docs.cloud.google.com/bigquery/docs/datasets#dataset-naming (2026-11-28).
_DATASET = re.compile(r"\w{1,1024}", re.ASCII)
#: Letters, marks, digits, connectors, dashes and spaces of Unicode
#: (https://docs.cloud.google.com/bigquery/docs/tables#table_naming, 2026-11-28).
_TABLE_CATEGORIES = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Zs"})
_MAX_TABLE_BYTES = 1024

#: Multi-region locations have a host shape of their own (API discovery document aiplatform.v1, revision 20261106).
MULTI_REGIONS = frozenset({"us", "eu"})


def api_host(location: str) -> str:
    """Return the Vertex AI host that serves `location`: regional, ``global``, or multi-region ``us``/``eu``.

    :raises InputError: when the text is no location.
    """
    check_place("", location)
    if location == "global":
        return "aiplatform.googleapis.com"
    if location in MULTI_REGIONS:
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"


def check_place(project: str, location: str) -> None:
    """Check what goes into the host and the path of a request to Vertex AI.

    :param project: empty where none is given.
    :raises InputError: when one of them is not what its name says.
    """
    if project and not re.fullmatch(_PROJECT, project):
        raise InputError(f"{project!r} is no project", todo="Give the project's id, such as my-project, or its number")
    if not re.fullmatch(_LOCATION, location):
        raise InputError(
            f"{location!r} is no location", left="Nothing was sent", todo="Give a region such as us-central1, or global"
        )


#: What begins a pattern.
_WILDCARDS = "*?["


class Uri(msgspec.Struct, frozen=True, order=True):
    """A Cloud Storage object or folder (``gs://``), or a file on local disk (``file://`` or a bare path)."""

    scheme: str
    bucket: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``gs://bucket/name``, ``file:///path`` or a bare path.

        :raises InputError: when the text is neither.
        """
        text = str(text)
        if text.startswith("gs://"):
            bucket, _, name = text[5:].partition("/")
            if not _BUCKET.fullmatch(bucket):
                raise InputError(
                    f"{text!r} names no bucket", todo="Write it as gs://bucket/path, in lower-case letters"
                )
            if "\n" in name or "\r" in name:
                # https://docs.cloud.google.com/storage/docs/objects#naming (2026-11-29).
                raise InputError(f"{text!r} holds a line end", todo="Write the address without it")
            return cls("gs", bucket, name)
        if text.startswith("file://"):
            return cls("file", "", text[7:])
        if "://" in text or not text:
            raise InputError(
                f"{text!r} is not an address we can read", todo="Use gs://bucket/path, file:///path or a local path"
            )
        return cls("file", "", text)

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.name}" if self.scheme == "gs" else self.name

    def __truediv__(self, part: str) -> Self:
        """Return the address of `part` below this folder."""
        base = self.name.rstrip("/")
        if self.scheme == "file" or base:
            return type(self)(self.scheme, self.bucket, f"{base}/{part}")
        return type(self)(self.scheme, self.bucket, part)

    @property
    def basename(self) -> str:
        """The last path segment."""
        return self.name.rstrip("/").rpartition("/")[2]

    @property
    def has_glob(self) -> bool:
        """Whether the name holds a wildcard (``*``, ``?`` or ``[``).

        A name that ends in a slash is a folder: what may look like a wildcard is a part of its name.
        """
        return not self.name.endswith("/") and any(mark in self.name for mark in _WILDCARDS)

    @property
    def glob_prefix(self) -> str:
        """The name up to its first wildcard: what a listing can be asked for."""
        return re.split(r"[*?\[]", self.name, maxsplit=1)[0] if self.has_glob else self.name

    @property
    def console_url(self) -> str:
        """The page of this folder or object in the Cloud console; empty for local files."""
        if self.scheme != "gs":
            return ""
        return f"https://console.cloud.google.com/storage/browser/{self.bucket}/{self.name}"


def cloud_folder(text: str, name: str) -> Uri:
    """Read the address of a folder in Cloud Storage. A bare path would be a folder of whichever worker runs the task.

    :param name: the argument, for the error.
    :raises InputError: when it is not such a folder.
    """
    if not str(text).startswith("gs://"):
        raise InputError(
            f"{name}={text!r} is no folder in Cloud Storage", todo=f"Write it as {name}='gs://bucket/folder'"
        )
    refuse_wildcards(text, name)
    if "//" in str(text).removeprefix("gs://"):
        raise InputError(
            f"{name}={text!r} has a folder without a name",
            why="Two slashes in a row: some servers take them for one, and list nothing there",
            todo=f"Write {name} with single slashes",
        )
    return Uri.parse(text)


def refuse_wildcards(text: str, name: str) -> None:
    """Refuse an output folder whose name has wildcards, because a listing would read the name as a pattern.

    :param name: the argument, for the error.
    :raises InputError: for ``*``, ``?`` and ``[``.
    """
    if found := "".join(mark for mark in _WILDCARDS if mark in str(text)):
        raise InputError(
            f"{name}={text!r} has {' and '.join(found)} in its name",
            why="A folder that is written to is also listed, and there this is a pattern for other names",
            todo=f"Write {name} without it",
        )


class TableId(msgspec.Struct, frozen=True, order=True):
    """A BigQuery table: ``bq://project.dataset.table``, ``project.dataset.table`` or ``project:dataset.table``."""

    project: str
    dataset: str
    table: str

    @classmethod
    def parse(cls, text: str, project: str = "") -> Self:
        """Read a table name; `project` completes ``dataset.table``.

        :raises InputError: when the text names no table.
        """
        head, _, table = str(text).removeprefix("bq://").rpartition(".")
        # Old project ids may be domain-scoped ("example.com:p"), so a colon only ends the project before the dataset.
        owner, _, dataset = head.rpartition(":" if ":" in head.rpartition(".")[2] else ".")
        owner = owner or project
        if not (re.fullmatch(_PROJECT, owner) and _DATASET.fullmatch(dataset) and _is_table(table)):
            raise InputError(
                f"{text!r} names no BigQuery table",
                todo="Write it as bq://project.dataset.table, without a partition or another decorator",
            )
        return cls(owner, dataset, table)

    def __str__(self) -> str:
        return f"{self.project}.{self.dataset}.{self.table}"

    @property
    def uri(self) -> str:
        """The ``bq://`` spelling that Vertex AI takes."""
        return f"bq://{self}"

    def sibling(self, table: str) -> Self:
        """Return the table of another name in the same dataset."""
        return type(self)(self.project, self.dataset, table)

    @property
    def console_url(self) -> str:
        """The table's page in the Cloud console."""
        return (
            f"https://console.cloud.google.com/bigquery?project={self.project}"
            f"&ws=!1m5!1m4!4m3!1s{self.project}!2s{self.dataset}!3s{self.table}"
        )


def _is_table(name: str) -> bool:
    is_short = 0 < len(name.encode(errors="replace")) <= _MAX_TABLE_BYTES
    return is_short and all(unicodedata.category(char) in _TABLE_CATEGORIES for char in name)


_JOB_NAME = re.compile(rf"projects/({_PROJECT})/locations/({_LOCATION})/batchPredictionJobs/([a-z0-9][\w-]*)", re.ASCII)


class JobName(msgspec.Struct, frozen=True, order=True):
    """The full resource name of a batchPredictionJob. It only resolves in the project and location that made it."""

    project: str
    location: str
    job_id: str

    @classmethod
    def parse(cls, text: str, project: str = "", location: str = "") -> Self:
        """Read a full name; a bare id is completed with `project` and `location`.

        :raises InputError: when the name is neither.
        """
        text = str(text)
        if match := _JOB_NAME.fullmatch(text):
            return cls(*match.groups())
        if text and "/" not in text and project and location:
            return cls.parse(f"projects/{project}/locations/{location}/batchPredictionJobs/{text}")
        raise InputError(
            f"{text!r} is not the name of a batch prediction job",
            todo="Use projects/PROJECT/locations/LOCATION/batchPredictionJobs/ID",
        )

    def __str__(self) -> str:
        return f"{self.parent}/batchPredictionJobs/{self.job_id}"

    @property
    def parent(self) -> str:
        """``projects/…/locations/…``."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def console_url(self) -> str:
        """The job's page in the Cloud console."""
        return (
            f"https://console.cloud.google.com/vertex-ai/locations/{self.location}"
            f"/batch-predictions/{self.job_id}?project={self.project}"
        )


def job_names(jobs: Any) -> list[JobName]:
    """Return the names in what a task was given: one name, names, or the small dicts of the sensor.

    A list may also come as its text, as a template such as ``{{ ti.xcom_pull("create") }}`` renders it.

    :raises InputError: when it is none of these.
    """
    return [JobName.parse(item["name"] if isinstance(item, dict) else item) for item in items(jobs)]


#: A model name becomes a part of a request's path, so characters with a meaning in a path are not allowed.
_MODEL = r"[\w@-][\w.@-]*"
_HOME = rf"projects/{_PROJECT}/locations/{_LOCATION}/"
_MODEL_PATH = re.compile(rf"(?:{_HOME})?(?:publishers/[\w-]+/)?models/{_MODEL}|{_HOME}endpoints/{_MODEL}", re.ASCII)


def model_path(model: str) -> str:
    """Return the resource path the create call takes for `model`.

    ``gemini-…`` is a Google publisher model, ``publisher/model`` another publisher's; ``publishers/…`` and
    ``projects/…/models/…`` (a tuned model) stay as they are.

    :raises InputError: when the text is none of these.
    """
    if _MODEL_PATH.fullmatch(model):
        return model
    if re.fullmatch(_MODEL, model, re.ASCII):
        return f"publishers/google/models/{model}"
    if match := re.fullmatch(rf"([\w-]+)/({_MODEL})", model, re.ASCII):
        return f"publishers/{match[1]}/models/{match[2]}"
    raise InputError(
        f"{model!r} is not a model name",
        todo="Use gemini-…, publishers/google/models/…, or projects/P/locations/L/models/ID for a tuned model",
    )


def model_id(model: str) -> str:
    """Return the last segment of a model's name: the same however the name was written, or the service spells it."""
    return model.rpartition("/")[2]
