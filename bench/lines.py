"""What does one long line cost in memory, in collecting and in preparing ready-made requests?

Each figure is the peak of a process of its own that reads one line of so many bytes among short ones, above the peak
of one that reads short ones alone, and how many times the line that is. The line is made while it is read. Its length
is in one text: the prompt of a request, the answer in an output. The texts are of one byte a character, or hold one
emoji, for which Python keeps four bytes of every character.

Run alone with a way, a kind of text and a number of bytes, it prints its own peak.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
from typing import IO, TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.answers.rounds import Round
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.domain.ports import LocalStore, ObjectInfo
from airflow_vertex_batch.core.landing.destination import Files
from airflow_vertex_batch.core.landing.landing import Landing
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.requests.sources import Requests
from bench import peak_megabytes
from bench.export import batch

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIZES = (1_000_000, 20_000_000, 200_000_000)
_SHORT = 1_000
_KINDS = {"plain": "", "emoji": "😀"}
_MARK = "@text@"
#: Short lines before and behind the long one: as many as are read at once.
_BESIDE = 200
_PLAN = LandPlan(batch_id="bench", partition_date="2026-11-22", run_id="bench")


class _Line(io.RawIOBase):
    """A stream of lines of which one is long, made while it is read."""

    def __init__(self, line: bytes, kind: str, size: int) -> None:
        head, mark, tail = line.partition(_MARK.encode())
        self._pieces = self._made(head, (_KINDS[kind].encode() if mark else b"") + tail + b"\n", size if mark else 0)
        self._left = b""

    @staticmethod
    def _made(head: bytes, tail: bytes, size: int) -> Iterator[bytes]:
        for number in range(_BESIDE + 1):
            yield head.replace(b"@key@", b"r%d" % number)
            for start in range(0, size if number == _BESIDE // 2 else min(size, _SHORT), 1 << 16):
                yield b"word " * (min(1 << 16, size - start) // 5)
            yield tail

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        self._left = self._left or next(self._pieces, b"")
        made, self._left = self._left[: len(target)], self._left[len(target) :]
        target[: len(made)] = made
        return len(made)


class _Store(LocalStore):
    """``/in`` and ``/out`` are made; all others are files."""

    def __init__(self, kind: str, size: int) -> None:
        request = {"contents": [{"role": "user", "parts": [{"text": "short"}]}]}
        output = {
            "key": "@key@", "status": "", "processed_time": "2026-11-22T03:04:05.678901+00:00", "request": request,
            "response": {
                "candidates": [{"content": {"role": "model", "parts": [{"text": _MARK}]}, "finishReason": "STOP"}],
                "modelVersion": "gemini-3.8-flash",
                "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 9, "totalTokenCount": 18},
            },
        }  # fmt: skip
        asked = {"key": "@key@", "request": {"contents": [{"role": "user", "parts": [{"text": _MARK}]}]}}
        lines = {"in": {"key": "@key@", "request": request}, "out": output, "asked": asked}
        self._lines = {name: encode(line) for name, line in lines.items()}
        self._kind, self._size = kind, size

    def list(self, folder: Uri) -> Iterator[ObjectInfo]:
        if folder.name.split("/")[1] not in self._lines:
            yield from super().list(folder)
            return
        name = folder.name if folder.name.endswith(".jsonl") else f"{folder.name.rstrip('/')}/predictions.jsonl"
        yield ObjectInfo(Uri("file", "", name), 0)

    @contextlib.contextmanager
    def open_read(self, uri: Uri, version: str = "") -> Iterator[IO[bytes]]:
        made = self._lines.get(uri.name.split("/")[1])
        if made is None:
            with super().open_read(uri, version) as stream:
                yield stream
        else:
            yield io.BufferedReader(_Line(made, self._kind, self._size), buffer_size=1 << 16)


def _collect(store: _Store, folder: Uri, file_format: str) -> None:
    job = msgspec.structs.replace(batch("", "/out/folder").job, input_uris=("/in/requests.jsonl",))
    landing = Landing([Round(manifest=None, jobs=(job,))], store, None, _PLAN)  # type: ignore[arg-type] # no table is read
    report = landing.land(Files(folder, file_format))
    assert report.statuses == {"succeeded": _BESIDE + 1}


def _prepare(store: _Store, folder: Uri, _: str) -> None:
    rows = Requests(("/asked/requests.jsonl",)).rows(store, None)  # type: ignore[arg-type] # no table is read
    manifest = prepare(rows, PreparePlan(template=None, lint=False), store, folder, "1")
    assert manifest.request_count == _BESIDE + 1


_WAYS = {
    "collect, landed as JSONL": (_collect, "jsonl"),
    "collect, landed as Parquet": (_collect, "parquet"),
    "prepare ready-made": (_prepare, ""),
}


def memory() -> tuple[list[str], list[list[object]]]:
    """Peak memory of each way of reading one long line."""
    headers = ["one long line", "text", *(f"{size // 1_000_000} MB" for size in _SIZES)]
    return headers, [[way, kind, *_figures(way, kind)] for way in _WAYS for kind in _KINDS]


def _figures(way: str, kind: str) -> Iterator[str]:
    base = _peak(way, kind, _SHORT)
    for size in _SIZES:
        more = _peak(way, kind, size) - base
        yield f"{more:,.0f} MB, {more * 1024 * 1024 / size:.1f} x"


def _peak(way: str, kind: str, size: int) -> float:
    command = [sys.executable, "-m", "bench.lines", way, kind, str(size)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(way: str, kind: str, size: int) -> None:
    """Go one way, and print the peak."""
    run, file_format = _WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        run(_Store(kind, size), Uri.parse(folder), file_format)
    print(peak_megabytes())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
