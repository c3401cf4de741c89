"""How fast do answers become rows, against `json.loads` of the same lines, and does memory stay?

Lines are what the service writes: the request as an echo, sorted and padded with nulls, an answer of 1 KB, all the
usage metadata, and no order. Run alone with a number of rows, it prints the peak memory of collecting that many.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_vertex_batch.core.address import Uri
from airflow_vertex_batch.core.collect import Batch, Collector
from airflow_vertex_batch.core.export import FileSink, LandPlan, land
from airflow_vertex_batch.core.jsonl import encode
from airflow_vertex_batch.core.model import BatchJob, JobState
from airflow_vertex_batch.core.ports import LocalStore, ObjectInfo
from airflow_vertex_batch.core.schema import answer_checker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ROWS = 50_000
_ROUNDS = 3
#: What the service takes in one job.
_JOB_ROWS = 200_000
_NUMBER = "@number@"
_SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string"}, "topic": {"type": "string"}},
    "required": ["mood"],
}
_PLAN = LandPlan(batch_id="bench", partition_date="2026-11-22", run_id="bench")


def _request(prompt: str, *, wants_json: bool) -> dict[str, Any]:
    config: dict[str, Any] = {"temperature": 0}
    if wants_json:
        config |= {"responseMimeType": "application/json", "responseSchema": _SCHEMA}
    return {
        "contents": [{"role": "user", "parts": [{"text": f"Ticket {_NUMBER}: {prompt}"}]}],
        "systemInstruction": {"parts": [{"text": "You sort tickets."}]},
        "generationConfig": config,
    }


def _output(request: dict[str, Any], *, wants_json: bool) -> dict[str, Any]:
    words = "word " * 200
    part = {"fileData": None, **request["contents"][0]["parts"][0]}
    echo = {**dict(sorted(request.items())), "contents": [{"parts": [part], "role": "user"}]}
    answer = json.dumps({"mood": "glad", "topic": words}) if wants_json else words
    return {
        "key": f"r-{_NUMBER}",
        "processed_time": "2026-11-22T03:04:05.764602+00:00",
        "request": echo,
        "response": {
            "candidates": [
                {
                    "avgLogprobs": -0.5782725546095107,
                    "content": {"parts": [{"text": answer}], "role": "model"},
                    "finishReason": "STOP",
                    "score": -12.578,
                }
            ],
            "createTime": "2026-11-22T03:04:04.123456Z",
            "modelVersion": "gemini-3.8-flash",
            "responseId": "kC0haYqVJ8i2nvgP",
            "usageMetadata": {
                "billablePromptUsage": {"textCount": 820},
                "candidatesTokenCount": 210,
                "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 210}],
                "promptTokenCount": 180,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 180}],
                "thoughtsTokenCount": 35,
                "totalTokenCount": 425,
                "trafficType": "ON_DEMAND",
            },
        },
        "status": "",
    }


class _Lines(io.RawIOBase):
    """A stream of lines that are made while they are read, some at a time."""

    def __init__(self, line: bytes, numbers: range) -> None:
        self._head, *self._rest = line.split(_NUMBER.encode())
        self._rows, self._size = numbers, len(numbers)
        self._at, self._buffer = 0, b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if not self._buffer:
            some = self._rows[self._at : self._at + 200]
            self._at += len(some)
            self._buffer = b"".join(self._line(self._shuffled(index)) for index in some)
        made, self._buffer = self._buffer[: len(target)], self._buffer[len(target) :]
        target[: len(made)] = made
        return len(made)

    def _shuffled(self, index: int) -> int:
        """Return another number of the same range, far from the last one; 7,919 is prime and divides no job's size."""
        return self._rows.start + (index - self._rows.start) * 7_919 % self._size

    def _line(self, number: int) -> bytes:
        return (b"%d" % number).join((self._head, *self._rest))


class _GeneratedStore(LocalStore):
    """Request files and outputs of many jobs, by number: ``/in/3.jsonl``, ``/out/3/predictions.jsonl``."""

    def __init__(self, row_count: int, *, prompt: str = "word. " * 160, wants_json: bool = False) -> None:
        request = _request(prompt, wants_json=wants_json)
        self._row_count = row_count
        self._lines = {
            "in": encode({"key": f"r-{_NUMBER}", "request": request}) + b"\n",
            "out": encode(_output(request, wants_json=wants_json)) + b"\n",
        }

    def list(self, folder: Uri) -> Iterator[ObjectInfo]:
        name = folder.name if folder.name.endswith(".jsonl") else f"{folder.name}predictions.jsonl"
        yield ObjectInfo(Uri("file", "", name), 0)

    @contextlib.contextmanager
    def open_read(self, uri: Uri) -> Iterator[IO[bytes]]:
        _, kind, job, *_ = uri.name.split("/")
        start = int(job.removesuffix(".jsonl")) * _JOB_ROWS
        numbers = range(start, min(start + _JOB_ROWS, self._row_count))
        yield io.BufferedReader(_Lines(self._lines[kind], numbers), buffer_size=1 << 20)


def _batch(inputs: str, output: str) -> Batch:
    job = BatchJob(
        name="projects/1/locations/global/batchPredictionJobs/2", state=JobState.SUCCEEDED, output_uri=output
    )
    return Batch(job, (inputs,), model="gemini-3.8-flash")


def export_rows() -> tuple[list[str], list[list[object]]]:
    """Compare collecting with reading the same output by `json.loads`, and with the join a plain program makes."""
    kinds = {
        "short prompts": _Case(prompt="word. " * 10),
        "1 KB prompts": _Case(),
        "JSON, no schema": _Case(wants_json=True),
    }
    rows = []
    for name, case in kinds.items():
        rows += case.measure(name)
    headers = ["export, 1 KB answers", "way", "rows/s", "to json.loads", "to the plain join"]
    return headers, rows


class _Case:
    """One kind of lines, in files."""

    def __init__(self, *, prompt: str = "word. " * 160, wants_json: bool = False) -> None:
        self._generated = _GeneratedStore(_ROWS, prompt=prompt, wants_json=wants_json)
        self._wants_json = wants_json

    def measure(self, name: str) -> list[list[object]]:
        """Return a row for each way, the best of some rounds in which the ways take turns."""
        with tempfile.TemporaryDirectory() as folder:
            self._folder = Path(folder)
            self._write("in/0.jsonl")
            self._write("out/0/predictions.jsonl")
            ways: dict[str, Callable[[], Any]] = {
                "json.loads, each line dropped": self._loads,
                "plain join: json.loads of input and output": self._plain_join,
                "classify and join": self._collect,
                "the same, landing JSONL": self._land,
            }
            if self._wants_json:
                ways["classify and join, schema checked"] = lambda: self._collect(answer_checker(_SCHEMA))
            seconds = dict.fromkeys(ways, float("inf"))
            for _ in range(_ROUNDS):
                for way, work in ways.items():
                    began = time.perf_counter()
                    work()
                    seconds[way] = min(seconds[way], time.perf_counter() - began)
        loads, join = list(seconds.values())[:2]
        return [
            [name, way, f"{_ROWS / spent:,.0f}", f"{loads / spent:.1f}", f"{join / spent:.1f}"]
            for way, spent in seconds.items()
        ]

    def _write(self, name: str) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True)
        with self._generated.open_read(Uri("file", "", f"/{name}")) as stream:
            path.write_bytes(stream.read())

    def _loads(self) -> None:
        with (self._folder / "out/0/predictions.jsonl").open("rb") as stream:
            for line in stream:
                json.loads(line)

    def _plain_join(self) -> None:
        """Answers by key, then the requests in order: what a program without this package does."""
        with (self._folder / "out/0/predictions.jsonl").open("rb") as stream:
            answers = {doc["key"]: doc for doc in map(json.loads, stream)}
        with (self._folder / "in/0.jsonl").open("rb") as stream:
            for line in stream:
                answer = answers[json.loads(line)["key"]]
                answer["response"]["candidates"][0]["content"]["parts"][0]["text"]

    def _collect(self, check: Callable[[Any], str] | None = None) -> None:
        collector = Collector(LocalStore(), None, check)  # type: ignore[arg-type]
        for row in collector.rows(self._batch):
            assert row.status.is_good

    def _land(self) -> None:
        collector = Collector(LocalStore(), None)  # type: ignore[arg-type]
        sink = FileSink(LocalStore(), Uri.parse(str(self._folder / "landed")), _PLAN)
        land(collector.rows(self._batch), sink, _PLAN, expected=lambda: collector.expected_count)

    @property
    def _batch(self) -> Batch:
        return _batch(str(self._folder / "in/0.jsonl"), str(self._folder / "out/0"))


def memory() -> tuple[list[str], list[list[object]]]:
    """Peak memory of collecting growing numbers of rows, each in a process of its own."""
    peaks = {count: _peak(count) for count in (100_000, 1_000_000, 10_000_000)}
    base = peaks[100_000]
    return ["rows collected", "peak MB", "ratio"], [
        [f"{count:,}", f"{peak:.0f}", f"{peak / base:.2f}"] for count, peak in peaks.items()
    ]


def _peak(count: int) -> float:
    command = [sys.executable, "-m", "bench.export", str(count)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _collect_generated(row_count: int) -> None:
    collector = Collector(_GeneratedStore(row_count), None)  # type: ignore[arg-type]
    for job in range(-(-row_count // _JOB_ROWS)):
        for row in collector.rows(_batch(f"/in/{job}.jsonl", f"/out/{job}")):
            assert row.status.is_good
    assert collector.expected_count == row_count


if __name__ == "__main__":
    _collect_generated(int(sys.argv[1]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
