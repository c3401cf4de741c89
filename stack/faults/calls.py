"""Which call of a batch is this? Every request gets a title, and with its number among the like ones it is a position.

Pure functions: requests go in, titles come out. `stack.chaos.effects` names the changes of a request; this module also
names calls that only read.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from stack.chaos.effects import Call

STORAGE, BIGQUERY, VERTEX = "Cloud Storage", "BigQuery", "Vertex AI"
#: The object with the rows that a batch begins with.
SOURCE_NAME = "source.jsonl"
#: What an object is, by its name.
_OBJECTS = (
    (r"/log/", "log entry"),
    (r"/owners/", "whose log"),
    (r"/manifests/", "manifest"),
    (r"/([a-z]+(?:-[a-z]+)*)[^/]*\.[a-z]+$", ""),
)
_JOBS = (r"/jobs/", "job"), (r"/queries/", "results of a query"), (r"/data$", "rows of a table"), (r"/tables/", "table")


@dataclass(frozen=True)
class Position:
    """One call of a batch.

    :param title: what it does, and which of the like calls it is.
    :param service: who is called.
    :param changes: whether it may change something there.
    :param is_conditional: whether it writes an object only where there is none.
    :param is_upload: whether it sends the bytes of an announced object.
    :param is_create: whether it asks for a job of Vertex AI.
    :param is_question: whether it asks about one job of Vertex AI.
    :param is_source: whether it reads the rows that a batch begins with.
    :param is_media: whether its answer is the content of an object.
    """

    title: str
    service: str
    changes: bool
    is_conditional: bool = False
    is_upload: bool = False
    is_create: bool = False
    is_question: bool = False
    is_source: bool = False
    is_media: bool = False

    @property
    def group(self) -> str:
        """What kind of call of its service it is."""
        if self.is_create:
            return "create"
        return "changes" if self.changes else "reads"


@dataclass
class Titles:
    """Names the calls of one batch.

    :param uploads: announced objects by the id of their upload.
    :param jobs: how many jobs the batch has.
    :param step: the step of the batch in which something was changed last.
    """

    uploads: dict[str, str] = field(default_factory=dict)
    jobs: int = 0
    step: str = "prepare"
    _seen: Counter[str] = field(default_factory=Counter)

    def position(self, call: Call, service: str) -> Position:
        """Return the place of a call in its batch."""
        title = self._title(call, service)
        self._seen[title] += 1
        number = self._seen[title]
        return Position(
            title=f"{title} ({number})" if number > 1 else title,
            service=service,
            changes=call.method != "GET" and not _only_asks(call),
            is_conditional=call.query.get("ifGenerationMatch") == ["0"],
            is_upload=bool(call.upload_id),
            is_create=call.is_create,
            is_question=call.is_question,
            is_source=call.method == "GET" and call.place.endswith(f"/{SOURCE_NAME}"),
            is_media=call.query.get("alt") == ["media"],
        )

    def _title(self, call: Call, service: str) -> str:
        effect = call.title(self.uploads.get(call.upload_id, ""), self.jobs + call.is_create)
        if ": " in effect:
            self.step = effect.partition(":")[0]
        return effect or f"{self.step}: {_READERS[service](call)}"


def _only_asks(call: Call) -> bool:
    """Whether a request that is not a GET changes nothing, because it is a query that only reads."""
    return call.place.startswith("/bigquery/") and bool(re.search(r'"query":\s*"\s*SELECT', call.text))


def _of_storage(call: Call) -> str:
    if call.opens_upload:
        return f"announce {_object(call.object_name)}"
    if "/o/" in call.place:
        verb = "read" if call.query.get("alt") == ["media"] else "look at"
        return f"{verb} {_object(call.place.partition('/o/')[2])}"
    return "list objects" if call.place.endswith("/o") else "look at bucket"


def _object(name: str) -> str:
    for place, title in _OBJECTS:
        if found := re.search(place, f"/{name}"):
            return title or found[1]
    return "object"


def _of_bigquery(call: Call) -> str:
    if call.method == "POST":
        return "query" if call.place.endswith(("/jobs", "/queries")) else "change table"
    found = next((title for place, title in _JOBS if re.search(place, call.place)), "dataset")
    return f"{'look at' if call.method == 'GET' else 'change'} {found}"


def _of_vertex(call: Call) -> str:
    return "list jobs" if call.is_list else "ask about job"


_READERS = {STORAGE: _of_storage, BIGQUERY: _of_bigquery, VERTEX: _of_vertex}
