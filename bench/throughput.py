"""How fast do rows go through, against the plain way of doing the same, and does memory stay?"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import jinja2
import msgspec

from airflow_vertex_batch.core.address import Uri
from airflow_vertex_batch.core.ports import LocalStore
from airflow_vertex_batch.core.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.request import RequestBuilder, RequestTemplate
from airflow_vertex_batch.core.sources import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROWS = 100_000
_SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string"}, "topic": {"type": "string"}},
    "required": ["mood"],
}
_TEMPLATE = RequestTemplate(
    prompt="Classify this ticket of {{ customer }}:\n{{ body }}",
    system_instruction="You sort tickets.",
    response_schema=_SCHEMA,
    generation_config={"temperature": 0},
)
_LOOPS = "{% for line in body.split('. ') %}- {{ line | trim | capitalize }}\n{% endfor %}of {{ customer | upper }}"


def _rows(count: int) -> Iterator[dict[str, Any]]:
    bodies = [f"text {number} " + "word. " * 160 for number in range(100)]
    return ({"id": number, "customer": f"c{number}", "body": bodies[number % 100]} for number in range(count))


def _per_second(count: int, work: Any) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def _plain(prompt: str) -> None:
    template = jinja2.Environment().from_string(prompt)
    constant = _TEMPLATE.constant_members()
    for row in _rows(_ROWS):
        contents = [{"role": "user", "parts": [{"text": template.render(**row)}]}]
        json.dumps({"key": f"r-{row['id']}", "request": {"contents": contents, **constant}})


def prepare_rows() -> tuple[list[str], list[list[object]]]:
    """Compare with `json.dumps` and `jinja2` for every row."""
    rows = []
    for name, prompt in (("simple template", _TEMPLATE.prompt), ("loops and filters", _LOOPS)):
        template = msgspec.structs.replace(_TEMPLATE, prompt=prompt)
        plain = _per_second(_ROWS, lambda prompt=prompt: _plain(prompt))
        build = RequestBuilder(template)
        alone = _per_second(_ROWS, lambda build=build: [build(row) for row in _rows(_ROWS)] and None)
        with tempfile.TemporaryDirectory() as folder:
            plan = PreparePlan(template=template, key_column="id")
            whole = _per_second(_ROWS, lambda plan=plan, folder=folder: _prepare(plan, folder, _ROWS))
        rows.append(
            [name, f"{plain:,.0f}", f"{alone:,.0f}", f"{alone / plain:.1f}", f"{whole:,.0f}", f"{whole / plain:.1f}"]
        )
    return [
        "prepare, 1 KB rows",
        "plain rows/s",
        "requests alone",
        "ratio",
        "all of prepare (keys, lint, files)",
        "ratio",
    ], rows


def _prepare(plan: PreparePlan, folder: str, count: int) -> None:
    prepare(Rows(_rows(count)).rows(None, None), plan, LocalStore(), Uri.parse(folder), "bench")  # type: ignore[arg-type]


def memory() -> tuple[list[str], list[list[object]]]:
    """Peak memory of prepare for growing numbers of rows, each in a process of its own."""
    peaks = {count: _peak(count) for count in (20_000, 200_000, 1_000_000)}
    base = peaks[20_000]
    return ["rows", "peak MB", "ratio"], [
        [f"{count:,}", f"{peak:.0f}", f"{peak / base:.2f}"] for count, peak in peaks.items()
    ]


def _peak(count: int) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "bench.throughput", str(count)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        _prepare(PreparePlan(template=_TEMPLATE, key_column="id", max_requests=50_000), scratch, int(sys.argv[1]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
