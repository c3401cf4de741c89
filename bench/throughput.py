"""How fast do answers go through, against the plain way of doing the same?"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from airflow_vertex_batch.core.classify import classify
from airflow_vertex_batch.core.jsonl import read_output

_ROWS = 100_000


def _per_second(count: int, work: Any) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def export_rows() -> tuple[list[str], list[list[object]]]:
    """Compare classifying a line with `json.loads` alone."""
    line = Path("tests/seed/success.json")
    doc = json.loads(line.read_text())
    doc["response"]["candidates"][0]["content"]["parts"][0]["text"] = "word " * 200
    raw = json.dumps({"key": "r-1", **doc}).encode()
    plain = _per_second(_ROWS, lambda: [json.loads(raw) for _ in range(_ROWS)] and None)
    ours = _per_second(_ROWS, lambda: [classify(read_output(raw, "x", 1), "r-1") for _ in range(_ROWS)] and None)
    return ["export, 1 KB answers", "rows/s", "ratio"], [
        ["json.loads for each line", f"{plain:,.0f}", "1.0"],
        ["decode and classify", f"{ours:,.0f}", f"{ours / plain:.1f}"],
    ]
