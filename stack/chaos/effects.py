"""What does a request change at the servers, and what is the name of this change? Pure functions: requests go in,
titles come out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

#: What an object is for, by its name and (for a log) by what it says.
_OBJECTS: tuple[tuple[str, str, str], ...] = (
    (r"/log/", r'"kind":"([a-z]+)"', "{}"),
    (r"/owners/", r"()", "whose log"),
    (r"/manifests/", r"()", "manifest"),
    (r"/([a-z]+(?:-[a-z]+)*)(?:-[0-9a-f]+)*\.[a-z]+$", r"()", "{}"),
)
#: What lands, and the file from which a table is loaded.
_EXPORTED = frozenset({"answers", "dead-letters", "rows"})
#: Entries about one job.
_OF_A_JOB = frozenset({"intent", "submission", "refusal"})
#: A question about a job changes nothing, but a process can die at this moment.
QUESTION = "wait: question"


@dataclass
class Call:
    """One request, reduced to what shows its effect."""

    method: str
    path: str
    body: bytes

    @property
    def text(self) -> str:
        """The body, as far as it is text."""
        return self.body.decode("utf-8", "replace")

    @property
    def query(self) -> dict[str, list[str]]:
        """The parameters."""
        return parse_qs(urlsplit(self.path).query)

    @property
    def place(self) -> str:
        """The path without parameters, decoded."""
        return unquote(urlsplit(self.path).path)

    @property
    def is_create(self) -> bool:
        """Whether it asks for a job."""
        return self.method == "POST" and self.place.endswith("/batchPredictionJobs")

    @property
    def is_list(self) -> bool:
        """Whether it lists jobs."""
        return self.method == "GET" and self.place.endswith("/batchPredictionJobs")

    @property
    def is_question(self) -> bool:
        """Whether it asks about one job."""
        return self.method == "GET" and "/batchPredictionJobs/" in self.place

    @property
    def opens_upload(self) -> bool:
        """Whether it only announces an object: nothing is there before the last byte is."""
        return self.method == "POST" and self.query.get("uploadType") == ["resumable"]

    @property
    def upload_id(self) -> str:
        """The announced object whose bytes it sends, or an empty text."""
        return "" if self.method == "POST" else self.query.get("upload_id", [""])[0]

    @property
    def object_name(self) -> str:
        """The object that it writes or announces."""
        if "name" in self.query:
            return self.query["name"][0]
        found = re.search(r'"name":\s*("(?:[^"\\]|\\.)*")', self.text)
        return str(json.loads(found[1])) if found else ""

    def title(self, uploading: str, jobs: int) -> str:
        """Return what it changes, in words; an empty text for nothing.

        :param uploading: the object whose upload it completes, if it does.
        :param jobs: how many jobs the case has, this one included.
        """
        if self.place.endswith(":cancel"):
            return "cancel job"
        if self.is_create:
            return f"{'create' if jobs <= 1 else 'repair'}: create job"
        if self.place.startswith("/bigquery/"):
            return self._table_title()
        if self.method == "DELETE" and "/o/" in self.place and not self.upload_id:
            what = _object(self.place.partition("/o/")[2], "")
            return f"{_step(what, jobs)}: delete {what}"
        if uploading or self.query.get("uploadType") in (["multipart"], ["media"]):
            what = _object(uploading or self.object_name, self.text)
            return f"{_step(what, jobs)}: write {what}"
        return ""

    def _table_title(self) -> str:
        if self.method == "DELETE":
            return "export: delete table"
        if self.method == "POST" and self.place.endswith("/tables"):
            return "export: create table"
        if self.method == "POST" and self.place.endswith(("/jobs", "/queries")):
            words = re.findall(r'"(load|extract)":|\b(MERGE|INSERT|DELETE|CREATE) ', self.text)
            return f"export: {(words[0][0] or words[0][1]).lower()}" if words else ""
        return ""


def _step(what: str, jobs: int) -> str:
    """Return the step of a batch's life in which an object is written or deleted."""
    if what in _OF_A_JOB:
        # An intent comes before its job, the other two after it.
        return "repair" if jobs > (what != "intent") else "create"
    if what in _EXPORTED:
        return "export"
    return "repair" if jobs else "prepare"


def _object(name: str, content: str) -> str:
    for place, inside, title in _OBJECTS:
        if (found := re.search(place, f"/{name}")) and (kind := re.search(inside, content)):
            return title.format(kind[1] or (found[1] if found.groups() else ""))
    return "object"
