"""What is the result of one request? Its output line and its bill: copied, refused, or answered by the model; then
faults change it.

Invariants: nothing here depends on the order of rows; the echo is derived from the request as it was written, never
from its canonical form; a row never raises.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import logging
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.emulator.billing import Bill, Written
from airflow_vertex_batch.emulator.forms import written
from airflow_vertex_batch.emulator.importer import OUTPUT_MEMBERS, decode, retyped
from airflow_vertex_batch.emulator.row_faults import KEY_MEMBERS, RowFault
from airflow_vertex_batch.emulator.rowcheck import canonical, problem_of
from airflow_vertex_batch.emulator.wire import rfc3339, row_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_vertex_batch.emulator.job import Job
    from airflow_vertex_batch.emulator.models import Answer, Candidate
    from airflow_vertex_batch.emulator.scenario import Switches
    from airflow_vertex_batch.emulator.tools import Tools

log = logging.getLogger(__name__)


class RowMaker:
    """Turns request lines of one job into output lines. Safe to call from several threads.

    :param tools: the model, the clock and the scenario, as they are when each row is made.
    :param readable: whether a ``gs://`` address can be read.
    :param lines: yields all lines of the input.
    """

    def __init__(
        self, job: Job, tools: Tools, readable: Callable[[str], bool], lines: Callable[[], Iterable[bytes]]
    ) -> None:
        self._job, self._tools, self._readable, self._lines = job, tools, readable, lines
        self._version = str(job.body["model"]).rpartition("/")[2]

    def row(self, line: bytes, position: int) -> Written:
        """Return the result of the line at `position` of the input."""
        doc = decode(line)
        request = _request_of(doc)
        columns = self._columns(doc)
        if earlier := _earlier_response(doc):
            members = {
                "status": "",
                "processed_time": doc.get("processed_time") or self._time(line),
                "request": request,
                "response": earlier,
            }
            return Written(({**columns, **members},), Bill(key=_key_of(doc), outcome="copied"))
        echo = self._echo(request)
        asked, key = canonical(request), _key_of(doc)
        made = self._made(asked, line)
        head = {"status": made.lines[0]["status"], "processed_time": self._time(line), **columns, "request": echo}
        row = msgspec.structs.replace(made, lines=({**head, **made.lines[0]},))
        done = self._finished(self._with_faults(row, asked, key, position))
        form = self._switches.line_form
        done = msgspec.structs.replace(done, lines=tuple(written(line, form) for line in done.lines))
        return msgspec.structs.replace(done, bill=msgspec.structs.replace(done.bill, key=key))

    def _echo(self, request: Any) -> Any:
        """Return a request as it comes back."""
        if self._switches.echo == "verbatim":
            return request
        return _fitted(request, self._file_shape if self._switches.echo_padding == "file" else _shape(request))

    @functools.cached_property
    def _file_shape(self) -> Any:
        """The one shape of all requests of the input."""
        return functools.reduce(_merged, (_shape(_request_of(decode(line))) for line in self._lines()), None)

    @staticmethod
    def unanswered(line: bytes) -> Bill:
        """Return the bill of a request that was sent and never answered."""
        return Bill(key=_key_of(decode(line)), outcome="unanswered")

    @property
    def _switches(self) -> Switches:
        return self._tools.script.scenario.switches

    def _made(self, request: Any, line: bytes) -> Written:
        problem = problem_of(
            request,
            self._readable,
            model=str(self._job.body["model"]),
            takes_empty_objects=self._switches.empty_objects == "taken",
            takes_contested=self._switches.contested_settings == "taken",
        )
        if problem:
            return _failed(400, problem)
        try:
            answer = self._tools.model.answer(request)
        except Exception as error:
            log.exception("The model failed on a request of %s", self._job.name)
            return _failed(500, f"Internal error encountered: {type(error).__name__}.")
        response = response_of(answer, self._version, _digest(line), self._tools.clock.now())
        if self._switches.grounding == "present" and _searches(request):
            _ground(response)
        if self._switches.thought_signature == "present":
            _sign(response, line)
        output = sum(candidate.token_count for candidate in answer.candidates)
        bill = Bill(
            prompt=sum(answer.prompt_tokens.values()),
            output=output,
            thinking=answer.thinking_tokens,
            audio=answer.prompt_tokens.get("AUDIO", 0),
        )
        return Written(({"status": "", "response": response},), bill)

    def _columns(self, doc: dict[str, Any]) -> dict[str, Any]:
        columns = {name: value for name, value in doc.items() if name != "request" and name not in OUTPUT_MEMBERS}
        if self._job.plan.reads_table or self._switches.siblings == "verbatim":
            return columns
        if self._switches.siblings == "dropped":
            return {}
        return {name: normalised(retyped(value, self._job.columns.get(name, ""))) for name, value in columns.items()}

    def _with_faults(self, row: Written, request: Any, key: str, position: int) -> Written:
        job, answered = self._job, row.bill.outcome == "answered"

        def hits(fault: RowFault) -> bool:
            # This is asked for every fault and every row, and most faults choose few rows. So the choice is checked
            # first.
            chosen = (answered or fault.takes_failed) and fault.chooses(key, position)
            return chosen and fault.concerns(job.display_name, job.labels) and fault.suits(request)

        fault = self._tools.script.take(RowFault, hits)
        return self._totalled(fault.apply(row)) if fault else row

    def _totalled(self, row: Written) -> Written:
        """Count the tokens of tools in the total, or leave them out."""
        if self._switches.tool_total == "without" or not row.bill.tool:
            return row
        usage = row.lines[0]["response"]["usageMetadata"]
        counted = usage | {"totalTokenCount": usage["totalTokenCount"] + row.bill.tool}
        first = row.lines[0] | {"response": row.lines[0]["response"] | {"usageMetadata": counted}}
        return msgspec.structs.replace(row, lines=(first, *row.lines[1:]))

    def _finished(self, row: Written) -> Written:
        """Write the ``response`` of failed rows in the way that was chosen."""
        if row.bill.outcome != "failed" or self._switches.failed_response == "empty":
            return row
        null = {"response": None} if self._switches.failed_response == "null" else {}
        kept = tuple({name: value for name, value in line.items() if name != "response"} | null for line in row.lines)
        return msgspec.structs.replace(row, lines=kept)

    def _time(self, line: bytes) -> str:
        # Both 3 and 6 fraction digits were seen (S2, F4); which one a row gets does not matter, that both occur does.
        digits = "milliseconds" if _digest(line)[0] % 2 else "microseconds"
        return self._tools.clock.now().isoformat(timespec=digits)


def _searches(request: dict[str, Any]) -> bool:
    return any("googleSearch" in tool for tool in request.get("tools") or ())


def _ground(response: dict[str, Any]) -> None:
    """Add the results of a search, and remove members that grounded answers do not have."""
    for candidate in response["candidates"]:
        candidate.pop("avgLogprobs", None)
        web = {"domain": "example.invalid", "title": "example.invalid", "uri": "https://example.invalid/r"}
        candidate["groundingMetadata"] = {
            "groundingChunks": [{"web": web}],
            "groundingSupports": [{"groundingChunkIndices": [0], "segment": {"endIndex": 5, "text": "found"}}],
            "retrievalMetadata": {},
            "searchEntryPoint": {"renderedContent": "<div></div>"},
            "webSearchQueries": ["what is asked"],
        }


def _sign(response: dict[str, Any], line: bytes) -> None:
    for candidate in response["candidates"]:
        candidate["content"]["parts"][0] |= {"thoughtSignature": base64.b64encode(_digest(line)).decode()}


def _failed(code: int, message: str) -> Written:
    return Written(({"status": row_status(code, message), "response": {}},), Bill(outcome="failed"))


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()


def _request_of(doc: dict[str, Any]) -> Any:
    """The request; a STRING column of BigQuery holds it as JSON text."""
    request = doc.get("request")
    if isinstance(request, str):
        try:
            return decode(request)
        except msgspec.DecodeError:
            return request
    return request


def _earlier_response(doc: dict[str, Any]) -> dict[str, Any] | None:
    """The response of an output line used as input (native resume, S4): a row that has one and did not fail is not
    asked again.
    """
    response = None if doc.get("status") else doc.get("response")
    if isinstance(response, str):
        try:
            response = decode(response)
        except msgspec.DecodeError:
            return None
    return response if isinstance(response, dict) and response else None


def _key_of(doc: dict[str, Any]) -> str:
    return next((str(doc[name]) for name in KEY_MEMBERS if doc.get(name) is not None), "")


def response_of(answer: Answer, version: str, digest: bytes, now: datetime) -> dict[str, Any]:
    """Return a GenerateContentResponse with the members of a real batch line (F4), sorted as the service sorts them."""
    return {
        "candidates": [_candidate(candidate, digest, index) for index, candidate in enumerate(answer.candidates)],
        "createTime": rfc3339(now),
        "modelVersion": version,
        "responseId": base64.urlsafe_b64encode(digest).decode().rstrip("="),
        "usageMetadata": _usage(answer),
    }


def _candidate(candidate: Candidate, digest: bytes, index: int) -> dict[str, Any]:
    average = -0.01 - digest[1] / 256
    made = {
        "avgLogprobs": average,
        "content": {"parts": list(candidate.parts), "role": "model"},
        "finishReason": candidate.finish_reason,
        "score": average * candidate.token_count,
    }
    # JSON made from a protobuf message leaves out a zero.
    return made | {"index": index} if index else made


def _usage(answer: Answer) -> dict[str, Any]:
    output = sum(candidate.token_count for candidate in answer.candidates)
    prompt = sum(answer.prompt_tokens.values())
    media = sum((Counter(candidate.media_tokens) for candidate in answer.candidates), Counter[str]())
    written = {"TEXT": output - media.total(), **media}
    usage = {
        # Not in the published schema, but in every real line: readers must tolerate it (F4).
        "billablePromptUsage": {"textCount": answer.prompt_tokens.get("TEXT", 0)},
        "candidatesTokenCount": output,
        "candidatesTokensDetails": _details(written),
        "promptTokenCount": prompt,
        "promptTokensDetails": _details(answer.prompt_tokens),
        "thoughtsTokenCount": answer.thinking_tokens,
        "totalTokenCount": prompt + output + answer.thinking_tokens,
        "trafficType": "ON_DEMAND",
    }
    return {name: value for name, value in usage.items() if value}


def _details(tokens: dict[str, int]) -> list[dict[str, Any]]:
    return [{"modality": name, "tokenCount": count} for name, count in sorted(tokens.items()) if count]


def normalised(value: Any) -> Any:
    """Return a value as it comes back from the importer: members sorted, list elements padded to one shape with
    nulls.
    """
    return _fitted(value, _shape(value))


def _shape(value: Any) -> Any:
    """A dict of shapes, a list of one shape, or None for a scalar."""
    if isinstance(value, dict):
        return {name: _shape(item) for name, item in value.items()}
    if isinstance(value, list):
        merged = None
        for item in value:
            merged = _merged(merged, _shape(item))
        return [merged]
    return None


def _merged(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, dict) and isinstance(other, dict):
        return {name: _merged(one.get(name), other.get(name)) for name in one.keys() | other.keys()}
    if isinstance(one, list) and isinstance(other, list):
        return [_merged(one[0], other[0])]
    return one


def _fitted(value: Any, shape: Any) -> Any:
    if isinstance(value, dict) and isinstance(shape, dict):
        # A list that is not there comes back empty: the store behind the importer knows no null lists.
        absent: dict[str, Any] = {name: [] if isinstance(shape[name], list) else None for name in shape}
        return {name: _fitted(value[name], shape[name]) if name in value else absent[name] for name in sorted(shape)}
    if isinstance(value, list) and isinstance(shape, list):
        return [_fitted(item, shape[0]) for item in value]
    return value
